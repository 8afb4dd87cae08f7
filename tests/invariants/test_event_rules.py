"""Each rule over events finds what is planted for it, and nothing in stories that are as they should be."""

from collections.abc import Callable, Iterable
from typing import Any

import msgspec
import pytest

from deltaci.domain import attempt as attempts
from deltaci.domain import job as jobs
from deltaci.domain import lease as leases
from deltaci.domain.events import TIMER, AttemptQueued, Cause, RunStarted
from deltaci.domain.machine import Move
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState
from deltaci.invariants import Journal, Violation
from deltaci.invariants.catalogue import RULES_BY_PLACE
from tests.invariants.approval_plants import PLANTS
from tests.invariants.beginnings import HELD_BY, leased, lost, planned, queued, reported, running
from tests.invariants.story import JOB, RUN, SECOND, TTL_MS, Story, a_sound_story, found_in

# They need to know more, or a table that allows too much: the machines' own would refuse it first. Tested below.
APART = {"chain", "cancel_reaches_jobs", "one_live_lease", "nothing_starts_after_cancel"}


@pytest.mark.parametrize(("rule", "tell"), PLANTS, ids=[tell.__name__ for _, tell in PLANTS])
def test_a_planted_violation_is_found_with_the_event_that_shows_it(rule: str, tell: Callable[[], Story]) -> None:
    """By its name, at once, and nothing is found before it."""
    story = tell()
    entries = story.entries()
    journal = Journal()

    before = found_in(journal, entries[:-1])
    found = journal.take(entries[-1])

    assert before == []
    assert rule in {one.rule for one in found}
    (violation,) = (one for one in found if one.rule == rule)
    assert (entries[-1].entity_id, entries[-1].id) == (violation.entity_id, violation.events[-1])


def test_every_rule_over_events_has_its_plant() -> None:
    """A rule that nothing ever broke might as well not be there."""
    rules = {rule.name for rule in RULES_BY_PLACE["each event"]}

    assert rules == {rule for rule, _ in PLANTS} | APART


def test_nothing_is_found_in_sound_stories() -> None:
    """Whatever may happen to runs and jobs, as their machines decide it."""
    story = a_sound_story()

    assert story.found(late_ms=0, reach_ms=0) == []


def names(found: Iterable[Violation]) -> set[str]:
    """The rules that found something."""
    return {one.rule for one in found}


def allow(monkeypatch: pytest.MonkeyPatch, machine: Any, name: str, source: Any) -> None:
    """Let a machine's table have a move from one state more."""
    move = machine.MOVES[name]
    monkeypatch.setitem(machine.MOVES, name, Move(move.sources | {source}, move.target))


def test_a_run_may_start_with_a_job_that_was_lost_before_it_heard_of_it() -> None:
    """The job's notification was on its way while its first attempt ended."""
    story = running()
    story.say(JOB, lost(), queued(2), cause=TIMER)
    story.say(RUN, RunStarted(at_ms=story.now_ms))

    assert story.found() == []


# ---- the chain ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "column",
    [
        {"hash": "00" * 32},
        {"at_ms": 1},
        {"data": b"{}"},
        {"cause": Cause("user", "tok_2")},
        {"entity_id": "job_1"},
        {"run_id": ""},
        {"sequence": 7},
        {"type": "RunEnded"},
    ],
    ids=lambda column: next(iter(column)),
)
def test_an_edited_entry_breaks_the_chain(column: dict[str, Any]) -> None:
    """Whatever is changed of it, and it is one finding: the look goes on from what is stored."""
    entries = running().entries()
    entries[3] = msgspec.structs.replace(entries[3], **column)

    found = [one for one in found_in(Journal(), entries) if one.rule == "chain"]

    after = 5 if "hash" in column else None
    assert [4] + [after] * (after is not None) == [one.events[-1] for one in found]


def test_an_entry_that_was_taken_out_breaks_the_chain() -> None:
    """The ids have a gap, and the next hash covers another one."""
    entries = running().entries()
    del entries[3]

    found = [one for one in found_in(Journal(), entries) if one.rule == "chain"]

    assert [found[0].events, found[0].text] == [(5,), "entry 5 follows entry 3"]


def test_entries_in_another_order_break_the_chain() -> None:
    """Each has its place."""
    entries = running().entries()
    entries[1], entries[2] = entries[2], entries[1]

    assert "chain" in names(found_in(Journal(), entries))


def test_one_entity_that_cannot_be_followed_leaves_the_others_in_sight() -> None:
    """The look at it ends with the first finding; the look at the rest goes on."""
    story = running((), ())
    story.say(JOB, AttemptQueued(at_ms=0, attempt=9, not_before_ms=0), cause=TIMER, skip=3)
    story.say(JOB, AttemptQueued(at_ms=0, attempt=9, not_before_ms=0), cause=TIMER)
    story.say(SECOND, AttemptQueued(at_ms=0, attempt=9, not_before_ms=0), cause=TIMER)
    journal = Journal()

    found = found_in(journal, story.entries())

    assert [(one.rule, one.entity_id) for one in found] == [("dense", JOB), ("legal_move", SECOND)]
    assert [journal.is_unfoldable(one) for one in (JOB, SECOND, RUN)] == [True, True, False]


# ---- tables that allow too much ----------------------------------------------------------------------------------


@pytest.mark.parametrize("is_leased_again", [False, True])
def test_a_canceled_job_that_goes_on_is_found(monkeypatch: pytest.MonkeyPatch, is_leased_again: bool) -> None:
    """Also if its table should have the move: after a cancel nothing is leased and nothing retried."""
    allow(monkeypatch, jobs, "requeue", JobState.CANCEL_REQUESTED)
    story = running()
    story.cancel_run()
    story.cancel()
    story.say(JOB, lost(), AttemptQueued(at_ms=story.now_ms + TTL_MS, attempt=2, not_before_ms=0), cause=TIMER)
    if is_leased_again:
        story.say(JOB, leased(2, at_ms=story.now_ms + TTL_MS), cause=HELD_BY)

    found = [one for one in story.found() if one.rule == "nothing_starts_after_cancel"]

    assert len(found) == 1 + is_leased_again
    assert story.entries()[found[0].events[0] - 1].type == "JobCancelRequested"


def test_a_job_that_is_leased_twice_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the tables should have the moves: one lease at a time."""
    allow(monkeypatch, jobs, "lease", JobState.RUNNING)
    allow(monkeypatch, attempts, "lease", AttemptState.STARTING)
    story = running()
    story.say(JOB, leased(1, lease_hash="other"), cause=HELD_BY)

    assert names(story.found()) == {"one_live_lease"}


def test_a_second_result_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the tables should have the moves: an attempt has one result."""
    allow(monkeypatch, attempts, "succeed", AttemptState.SUCCEEDED)
    story = running()
    story.say(JOB, reported(), cause=HELD_BY)
    monkeypatch.setitem(leases.MOVES, "complete", Move(frozenset({LeaseState.COMPLETED}), LeaseState.COMPLETED))
    story.say(JOB, reported(), cause=HELD_BY)
    entries = story.entries()
    monkeypatch.setitem(leases.MOVES, "complete", Move(frozenset(LeaseState), LeaseState.COMPLETED))

    found = [one for one in found_in(Journal(), entries) if one.rule == "one_result"]

    assert [(entries[-2].id, entries[-1].id)] == [one.events for one in found]


# ---- with what the caller knows ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_ms", "is_early"), [(TTL_MS - 1, True), (TTL_MS, False)])
def test_a_lease_has_its_time_again_from_a_start(after_ms: int, is_early: bool) -> None:
    """Whoever held it may have knocked while nobody was at home."""
    story = running()
    journal = Journal()
    found_in(journal, story.entries())
    count = len(story.drafts)
    journal.started(story.now_ms + TTL_MS)
    story.say(JOB, lost(at_ms=story.now_ms + TTL_MS + after_ms), cause=TIMER)

    found = found_in(journal, story.entries()[count:])

    assert ({"never_expired_early"} if is_early else set()) == names(found)


@pytest.mark.parametrize(("after_ms", "is_early"), [(29_999, True), (30_000, False)])
def test_a_lease_may_be_acknowledged_within_its_window_from_a_start(after_ms: int, is_early: bool) -> None:
    """The window for the acknowledgement starts anew as well, by its own length."""
    story = planned()
    story.lease()
    journal = Journal()
    journal.started(story.now_ms + TTL_MS)
    never = {"reason": EndReason.NEVER_ACKNOWLEDGED, "lease_state": LeaseState.REVOKED}
    story.say(JOB, lost(at_ms=story.now_ms + TTL_MS + after_ms, **never), cause=TIMER)

    assert ({"never_expired_early"} if is_early else set()) == names(found_in(journal, story.entries()))


@pytest.mark.parametrize(("disturbed_after_ms", "is_late"), [(None, True), (0, True), (8_000, False)])
def test_a_retry_after_a_runs_cancel_was_told_is_found(disturbed_after_ms: int | None, is_late: bool) -> None:
    """A cancel that forgets a job leaves it to be tried again; a server that was kept from it told nobody."""
    story = running()
    story.wait(TTL_MS - 10_000)
    story.cancel_run()
    canceled_at_ms = story.now_ms
    story.wait(10_000)
    story.tick()
    journal = Journal(reach_ms=5_000)
    if disturbed_after_ms is not None:
        journal.disturbed(canceled_at_ms + disturbed_after_ms)

    assert ({"cancel_reaches_jobs"} if is_late else set()) == names(found_in(journal, story.entries()))


@pytest.mark.parametrize(("late_ms", "is_late"), [(9_999, True), (10_000, False), (None, False)])
def test_a_cancel_that_is_forced_late_is_found(late_ms: int | None, is_late: bool) -> None:
    """By the bound that the caller gives."""
    story = running()
    story.cancel_run()
    story.cancel()
    story.wait(40_000)
    story.tick()

    assert ({"cancel_forced_in_time"} if is_late else set()) == names(story.found(late_ms=late_ms))
