"""A run that is created held: what it waits for, what ends that, and what the approval is of."""

import pytest

from deltaci.domain import run as runs
from deltaci.domain.effects import PlanRun, ReportRun
from deltaci.domain.machine import Step, Why
from deltaci.domain.states import EndReason, RunState
from tests.domain.builders import (
    A_FORK_KEY,
    A_FORK_TRIGGER,
    HOLD_WITHIN_MS,
    RUN_TIMEOUT_MS,
    a_held_run,
    a_run,
    accepted,
    event_types,
    why,
)

APPROVE = runs.Approve(by="alice")


def test_a_held_run_owes_a_report_and_no_plan() -> None:
    """People must see that it waits; nothing of its code is looked at."""
    step = runs.create(
        "run_1",
        A_FORK_KEY,
        A_FORK_TRIGGER,
        attempt=1,
        now_ms=5,
        timeout_ms=1,
        cancel_within_ms=1,
        hold="approval",
        hold_within_ms=9,
    )

    assert step.effects == (ReportRun("run_1"),)
    assert (step.state.state, step.state.jobs, runs.is_held(step.state)) == (RunState.CREATED, (), True)
    assert step.state == runs.created(step.events[0])  # type: ignore[arg-type]  # the first event of a run


def test_an_approval_owes_the_plan_and_a_report_once() -> None:
    """Doubled, it changes nothing: whoever asked twice gets the same answer."""
    first = runs.step(a_held_run(), APPROVE, now_ms=7)
    run = accepted(first)

    again = runs.step(run, runs.Approve(by="bob"), now_ms=8)

    assert isinstance(first, Step)
    assert event_types(first) == ["RunApproved"]
    assert first.effects == (PlanRun("run_1"), ReportRun("run_1"))
    assert (run.approved_by, run.approved_at_ms, runs.is_held(run)) == ("alice", 7, False)
    assert again == Step(run)
    assert accepted(runs.step(run, runs.StartPlanning(), now_ms=9)).state is RunState.PLANNING


@pytest.mark.parametrize("state", list(RunState))
def test_an_approval_of_a_run_that_is_not_held_changes_nothing(state: RunState) -> None:
    """It is accepted in every state, so that one that comes late, or for nothing, gets an answer."""
    run = a_run(state)

    assert runs.step(run, APPROVE, now_ms=7) == Step(run)


def test_a_held_run_is_not_planned_whoever_asks() -> None:
    """A debt left over from somewhere must not be enough."""
    assert why(runs.step(a_held_run(), runs.StartPlanning(), now_ms=0)) is Why.NOT_APPROVED


def test_the_time_of_a_run_begins_with_its_approval() -> None:
    """Somebody who took three days to look must not have used up what the run has for running."""
    held = a_held_run(now_ms=10)
    approved = accepted(runs.step(held, APPROVE, now_ms=1_000_000))

    late = accepted(runs.step(approved, runs.Tick(), now_ms=1_000_000 + RUN_TIMEOUT_MS))

    assert runs.deadline_ms(held) == 10 + HOLD_WITHIN_MS
    assert runs.deadline_ms(approved) == 1_000_000 + RUN_TIMEOUT_MS
    assert accepted(runs.step(approved, runs.Tick(), now_ms=999_999 + RUN_TIMEOUT_MS)) == approved
    assert (late.state, late.end_reason) == (RunState.TIMED_OUT, EndReason.RUN_TIMEOUT)


def test_a_run_that_nobody_approves_is_canceled_with_a_reason_of_its_own() -> None:
    """Neither a failure of the change nor a time-out: nobody looked. A later approval does not bring it back."""
    held = a_held_run()

    early = runs.step(held, runs.Tick(), now_ms=HOLD_WITHIN_MS - 1)
    due = runs.step(held, runs.Tick(), now_ms=HOLD_WITHIN_MS)
    run = accepted(due)

    assert early == Step(held)
    assert event_types(due) == ["RunCancelRequested", "RunEnded"]
    assert (run.state, run.end_reason) == (RunState.CANCELED, EndReason.NEVER_APPROVED)
    assert run.text == f"nobody approved commit {'c' * 40} within {HOLD_WITHIN_MS // 1000} s"
    assert runs.deadline_ms(run) is None
    assert runs.step(run, APPROVE, now_ms=HOLD_WITHIN_MS) == Step(run)


@pytest.mark.parametrize("reason", [EndReason.USER_CANCELED, EndReason.SUPERSEDED])
def test_of_a_cancel_and_an_approval_the_first_wins(reason: EndReason) -> None:
    """A canceled run stays canceled; an approved one is canceled as any other."""
    cancel = runs.RequestCancel(reason=reason)

    canceled = accepted(runs.step(a_held_run(), cancel, now_ms=1))
    approved = accepted(runs.step(a_held_run(), APPROVE, now_ms=1))

    assert (canceled.state, canceled.end_reason) == (RunState.CANCELED, reason)
    assert runs.step(canceled, APPROVE, now_ms=2) == Step(canceled)
    assert accepted(runs.step(approved, cancel, now_ms=2)).end_reason is reason


def test_a_held_run_that_came_back_with_a_backup_has_its_time_to_be_approved_again() -> None:
    """An approval that was given after the backup is lost, and must be given again: nothing runs on a guess."""
    restored = accepted(runs.step(a_held_run(), runs.Restore(), now_ms=50))

    assert runs.is_held(restored)
    assert runs.deadline_ms(restored) == 50 + HOLD_WITHIN_MS
    approved = accepted(runs.step(restored, APPROVE, now_ms=60))
    assert runs.deadline_ms(approved) == 60 + RUN_TIMEOUT_MS
    again = accepted(runs.step(approved, runs.Restore(), now_ms=90))
    assert runs.deadline_ms(again) == 90 + RUN_TIMEOUT_MS


def test_an_attempt_of_an_approved_commit_waits_for_nobody() -> None:
    """Who let the commit run has let it run again; it is stored, so that the attempt after it knows too."""
    run = a_held_run(approved_by="alice", now_ms=3)

    assert not runs.is_held(run)
    assert (run.approved_by, run.approved_at_ms) == ("alice", 3)
    assert runs.deadline_ms(run) == 3 + RUN_TIMEOUT_MS


def test_a_held_run_says_what_it_waits_for_and_no_other_does() -> None:
    """The commit is named whole: it is what somebody has to look at."""
    held = a_held_run()

    assert runs.waiting_text(held) == f"it waits for approval of commit {'c' * 40} by somebody who may write"
    assert runs.waiting_text(accepted(runs.step(held, APPROVE, now_ms=0))) == ""
    assert runs.waiting_text(a_run(RunState.CREATED)) == ""
