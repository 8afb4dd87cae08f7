"""Planted violations of what runs are held for; with them, all that are planted in events."""

from typing import Final

from deltaci.domain import run as runs
from deltaci.domain.events import TIMER, Cause, PlanningStarted, RunApproved, RunCancelRequested
from deltaci.domain.states import EndReason
from tests.builders import HOLD_WITHIN_MS, NOW_MS, SOMEBODY
from tests.invariants.plants import PLANTS, plant
from tests.invariants.story import RUN, Story

__all__ = ["PLANTS"]

APPROVED: Final = RunApproved(at_ms=NOW_MS, by="alice")
SHA: Final = "c" * 40


def held() -> Story:
    """A run that waits for approval."""
    story = Story()
    story.create(commit_sha=SHA, hold="approval")
    return story


@plant("fold")
def a_held_run_is_planned() -> Story:
    story = held()
    story.say(RUN, PlanningStarted(at_ms=NOW_MS))
    return story


@plant("approved_once_by_a_person")
def a_run_is_approved_twice() -> Story:
    story = held()
    story.do(RUN, runs.Approve(by="alice"), SOMEBODY)
    story.say(RUN, APPROVED, cause=SOMEBODY)
    return story


@plant("approved_once_by_a_person")
def a_run_is_approved_that_nobody_held() -> Story:
    story = Story()
    story.create()
    story.say(RUN, APPROVED, cause=SOMEBODY)
    return story


@plant("approved_once_by_a_person")
def a_run_approves_itself() -> Story:
    story = held()
    story.say(RUN, APPROVED, cause=Cause("system", "planner"))
    return story


@plant("approved_once_by_a_person")
def a_run_is_approved_by_nobody() -> Story:
    story = held()
    story.say(RUN, RunApproved(at_ms=NOW_MS, by=""), cause=SOMEBODY)
    return story


@plant("earlier_approval_is_stored")
def a_first_attempt_says_that_it_was_approved() -> Story:
    story = Story()
    story.create(hold="approval", approved_by="alice")
    return story


@plant("earlier_approval_is_stored")
def an_attempt_says_that_its_commit_was_approved_and_it_was_not() -> Story:
    story = held()
    story.create(2, commit_sha=SHA, attempt=2, hold="approval", approved_by="alice")
    return story


@plant("earlier_approval_is_stored")
def an_attempt_names_another_approver_than_the_one_before() -> Story:
    story = held()
    story.do(RUN, runs.Approve(by="alice"), SOMEBODY)
    story.create(2, commit_sha=SHA, attempt=2, hold="approval", approved_by="bob")
    return story


@plant("timed_out_in_time")
def a_held_run_is_given_up_early() -> Story:
    story = held()
    at_ms = NOW_MS + HOLD_WITHIN_MS - 1
    story.say(RUN, RunCancelRequested(at_ms=at_ms, reason=EndReason.NEVER_APPROVED, by_ms=at_ms), cause=TIMER)
    return story


@plant("timed_out_in_time")
def a_run_times_out_before_its_time_since_the_approval_is_over() -> Story:
    story = held()
    story.wait(10_000)
    run = story.do(RUN, runs.Approve(by="alice"), SOMEBODY)
    at_ms = NOW_MS + 9_999 + run.timeout_ms
    story.say(RUN, RunCancelRequested(at_ms=at_ms, reason=EndReason.RUN_TIMEOUT, by_ms=at_ms), cause=TIMER)
    return story
