"""Each rule over what was heard outside finds what is planted for it, and nothing in what was told truly."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain.events import TIMER
from deltaci.invariants import (
    Answered,
    Delivered,
    Granted,
    Heard,
    Journal,
    Ledger,
    Replied,
    Worked,
    check,
    check_history,
)
from deltaci.invariants.catalogue import RULES_BY_PLACE
from deltaci.store.writes import Delivery
from tests.builders import NOW_MS, a_delivery, a_run_id
from tests.invariants.beginnings import lost, planned, queued, running
from tests.invariants.story import HOLDER, JOB, RUN, SECOND, TTL_MS, Story, found_in

DIGEST: Final = "r" * 64
LEASE: Final = f"lease of {JOB}, attempt 1"
LATER: Final = NOW_MS + TTL_MS


def granted(**more: Any) -> Granted:
    """The holder was told that it has the first attempt."""
    values = {"at_ms": NOW_MS, "runner_id": HOLDER, "job_id": JOB, "attempt": 1, "lease_hash": LEASE}
    return Granted(**(values | more))


def answered(message: str, **more: Any) -> Answered:
    """The holder was told that its message about the first attempt counts."""
    values = {"at_ms": NOW_MS, "runner_id": HOLDER, "job_id": JOB, "attempt": 1, "lease_hash": LEASE}
    values |= {"message": message, "is_accepted": True, "is_stale": False}
    return Answered(**(values | more))


def stale(message: str, **more: Any) -> Answered:
    """It was told that its lease is not the current one."""
    return answered(message, is_accepted=False, is_stale=True, **more)


def worked(from_ms: int, until_ms: int, **more: Any) -> Worked:
    """The holder worked on the first attempt."""
    values = {"runner_id": HOLDER, "job_id": JOB, "attempt": 1}
    return Worked(from_ms=from_ms, until_ms=until_ms, **(values | more))


def delivered(**more: Any) -> Delivered:
    """A webhook was answered with the run."""
    values = {"at_ms": NOW_MS, "repo_id": "repo_1", "delivery_id": "delivery-1", "body_sha256": "b" * 64}
    return Delivered(**({**values, "run_id": RUN, "ignored": None} | more))


# ---- stories -----------------------------------------------------------------------------------------------------


def succeeded() -> Story:
    """The holder's result was accepted."""
    story = running()
    story.complete()
    return story


def taken_over() -> Story:
    """The first holder was silent; another runner has the second attempt."""
    story = running()
    story.say(JOB, lost(), queued(2), cause=TIMER)
    story.states[JOB] = jobs.evolve(jobs.evolve(story.states[JOB], lost()), queued(2))
    story.wait(TTL_MS)
    story.start(runner="runner_2")
    return story


def canceled() -> Story:
    """The holder obeyed a cancel."""
    story = running()
    story.cancel_run()
    story.cancel()
    story.tell(jobs.CancelAck)
    return story


RESULT: Final = answered("Complete", digest=DIGEST, state="SUCCEEDED")
OBEYED: Final = answered("CancelAck", state="CANCELED")
SECOND_TIME: Final = {"attempt": 2, "runner_id": "runner_2"}

Case = tuple[str, Callable[[], Story], list[Heard]]

PLANTS: Final[list[Case]] = [
    ("grants_are_stored", planned, [granted()]),
    ("grants_are_stored", running, [granted(lease_hash="another")]),
    ("grants_are_stored", running, [granted(runner_id="runner_2")]),
    ("grants_are_stored", running, [granted(attempt=2)]),
    ("grants_are_stored", running, [granted(job_id=SECOND)]),
    ("accepted_is_stored", running, [RESULT]),
    ("accepted_is_stored", succeeded, [answered("Complete", digest="another")]),
    ("accepted_is_stored", succeeded, [answered("Complete", digest=DIGEST, lease_hash="another")]),
    ("accepted_is_stored", taken_over, [RESULT]),
    ("accepted_is_stored", succeeded, [OBEYED]),
    ("accepted_is_stored", planned, [answered("AckLease")]),
    ("accepted_is_stored", taken_over, [answered("Heartbeat", sent_at_ms=LATER + 1)]),
    ("accepted_is_stored", taken_over, [answered("AppendLog", sent_at_ms=LATER + 1)]),
    ("stale_changes_nothing", running, [stale("Heartbeat")]),
    ("stale_changes_nothing", succeeded, [stale("Complete", digest=DIGEST)]),
    ("stale_changes_nothing", canceled, [stale("CancelAck")]),
    ("one_answer_a_result", succeeded, [RESULT, msgspec.structs.replace(RESULT, digest="another")]),
    ("one_answer_a_result", succeeded, [RESULT, msgspec.structs.replace(RESULT, state="FAILED")]),
    ("conflicts_are_audited", succeeded, [answered("Complete", is_accepted=False, code="conflicting_result")]),
    ("one_end_for_all", succeeded, [RESULT, OBEYED]),
    ("one_end_for_all", canceled, [answered("CancelAck", state="SUCCEEDED")]),
    ("never_expired_while_heard", taken_over, [answered("Heartbeat", sent_at_ms=NOW_MS + 1)]),
    ("work_is_leased", planned, [worked(0, 1)]),
    ("work_is_leased", running, [worked(0, 1, runner_id="runner_2")]),
    ("work_never_overlaps", taken_over, [worked(NOW_MS, LATER + 101), worked(LATER, LATER + 900, **SECOND_TIME)]),
    ("work_never_overlaps", taken_over, [worked(LATER, LATER + 900, **SECOND_TIME), worked(NOW_MS, LATER + 2_000)]),
    ("slots_kept", running, [worked(0, 10), worked(9, 20, job_id=SECOND), worked(5, 10, job_id="job_3")]),
    ("one_answer_a_delivery", running, [delivered(), delivered(run_id=None, ignored="a tag")]),
    ("one_answer_a_delivery", running, [delivered(), delivered(delivery_id="delivery-2", run_id=a_run_id(2))]),
    ("one_answer_a_delivery", running, [delivered(run_id=None)]),
    ("one_answer_a_delivery", running, [delivered(ignored="a tag")]),
    ("delivered_is_stored", running, [delivered(run_id=a_run_id(2))]),
    ("delivered_is_stored", running, [delivered(delivery_id="unknown")]),
    ("delivered_is_stored", running, [delivered(run_id=None, ignored="a tag")]),
    (
        "one_answer_a_request",
        running,
        [Replied(at_ms=0, key="k", http_status=201, body=b"1"), Replied(at_ms=1, key="k", http_status=201, body=b"2")],
    ),
    (
        "one_answer_a_request",
        running,
        [Replied(at_ms=0, key="k", http_status=201, body=b"1"), Replied(at_ms=1, key="k", http_status=202, body=b"1")],
    ),
]

SOUND: Final[list[tuple[Callable[[], Story], list[Heard]]]] = [
    (running, [granted(), granted(at_ms=NOW_MS + 1), answered("AckLease"), answered("Heartbeat", sent_at_ms=NOW_MS)]),
    (running, [stale("Heartbeat", lease_hash="another"), stale("Complete", runner_id="runner_2", digest=DIGEST)]),
    (running, [answered("Complete", is_accepted=False, code="illegal_move"), worked(0, 9), worked(10, 19, job_id=JOB)]),
    (succeeded, [granted(), answered("AckLease"), RESULT, RESULT, stale("Heartbeat"), stale("CancelAck")]),
    (succeeded, [answered("Complete", is_accepted=False, code="illegal_move", digest="another"), RESULT]),
    (taken_over, [granted(), answered("Heartbeat", sent_at_ms=NOW_MS), stale("Complete", digest=DIGEST)]),
    (
        taken_over,
        [answered("AppendLog", sent_at_ms=LATER), worked(NOW_MS, LATER), worked(LATER, LATER + 9, **SECOND_TIME)],
    ),
    (taken_over, [worked(NOW_MS, LATER + 100), worked(LATER, LATER + 900, **SECOND_TIME)]),
    (canceled, [OBEYED, OBEYED, stale("Complete", digest=DIGEST), stale("AckLease")]),
    (running, [worked(0, 10), worked(10, 20), worked(10, 20)]),
    (running, [delivered(), delivered(at_ms=NOW_MS + 1), Replied(at_ms=0, key="k", http_status=201, body=b"1")]),
    (running, [Replied(at_ms=at_ms, key="k", http_status=201, body=b"1") for at_ms in range(2)]),
]


def look(tell: Callable[[], Story], heard: list[Heard]) -> set[str]:
    """The rules that find something in what was heard, beside what the story has stored."""
    journal = Journal()
    assert found_in(journal, tell().entries()) == []
    ledger = Ledger(journal.past)
    ledger.answers["repo_1", "delivery-1"] = (RUN, None, None)
    found = check_history(journal, heard, ledger=ledger, overlap_ms=100, slots={HOLDER: 2})
    return {one.rule for one in found}


@pytest.mark.parametrize(("rule", "tell", "heard"), PLANTS)
def test_a_planted_violation_is_found(rule: str, tell: Callable[[], Story], heard: list[Heard]) -> None:
    """By the rule that it breaks."""
    assert rule in look(tell, heard)


@pytest.mark.parametrize(("tell", "heard"), SOUND)
def test_nothing_is_found_in_what_was_told_truly(tell: Callable[[], Story], heard: list[Heard]) -> None:
    """Repeats, crossings and late messages are part of life."""
    assert look(tell, heard) == set()


def test_every_rule_over_history_has_its_plant() -> None:
    """A rule that nothing ever broke might as well not be there."""
    rules = {rule.name for rule in RULES_BY_PLACE["what runners and clients saw"]}

    assert rules == {rule for rule, _, _ in PLANTS}


def test_a_refused_result_that_is_audited_is_fine() -> None:
    """As often as it was refused, or more often: an answer may get lost."""
    story = succeeded()
    story.audit("Complete", "conflicting_result")
    refused = answered("Complete", is_accepted=False, code="conflicting_result", digest="another")

    counts = [len(check([*story.entries()], (), [refused] * count)) for count in (1, 2)]

    assert counts == [0, 1]


def test_a_violation_names_the_events_to_look_at() -> None:
    """The grant of the lease, and the last thing that happened to the job."""
    story = succeeded()
    entries = story.entries()

    (found,) = check(entries, (), [stale("Complete", digest=DIGEST)])

    assert [entries[one - 1].type for one in found.events] == ["AttemptLeased", "JobEnded"]


# ---- the ledger --------------------------------------------------------------------------------------------------

BY_WEBHOOK: Final = [a_delivery(delivery_id="delivery-1"), a_delivery(delivery_id="delivery-2", is_duplicate=True)]

LEDGERS: Final[list[tuple[str, list[Delivery]]]] = [
    ("one_run_a_content", [*BY_WEBHOOK, a_delivery(delivery_id="delivery-3", run_id=a_run_id(2), is_duplicate=True)]),
    ("delivery_has_its_run", [a_delivery(run_id="run_9")]),
    ("delivery_has_its_run", [a_delivery(repo_id="repo_2")]),
    ("delivery_has_its_run", [a_delivery(delivery_id="delivery-2")]),
    ("delivery_has_its_run", [a_delivery(ignored="")]),
]


def two_runs() -> Ledger:
    """A ledger over two runs, of which the first was made by a webhook."""
    story = Story()
    story.create(1, cause=msgspec.structs.replace(TIMER, kind="webhook", id="delivery-1"))
    story.create(2)
    journal = Journal()
    assert found_in(journal, story.entries()) == []
    return Ledger(journal.past)


@pytest.mark.parametrize(("rule", "deliveries"), LEDGERS)
def test_a_wrong_delivery_is_found(rule: str, deliveries: list[Delivery]) -> None:
    """The last one; those before it are as they should be."""
    ledger = two_runs()

    *before, last = [ledger.take(delivery) for delivery in deliveries]

    assert (before, {rule}) == ([[]] * len(before), {one.rule for one in last})


def test_a_ledger_as_it_should_be_is_fine() -> None:
    """What made a run, what found it, what was ignored."""
    ledger = two_runs()
    ignored = a_delivery(delivery_id="delivery-3", ignored="a tag", body_sha256="c" * 64)

    assert [ledger.take(delivery) for delivery in (*BY_WEBHOOK, ignored)] == [[], [], []]
    assert ledger.answers["repo_1", "delivery-3"] == (None, "a tag", None)
