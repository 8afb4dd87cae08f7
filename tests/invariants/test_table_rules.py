"""Each rule over tables finds the violation that is planted for it, and none where there is none."""

from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from deltaci.domain.attempt import Attempt
from deltaci.domain.effects import AnalyzeAttempt, PlanRun, ReportRun
from deltaci.domain.events import RunKey
from deltaci.domain.states import AttemptState, EndReason, JobState, RunState
from deltaci.invariants import Rows, check_rows
from deltaci.invariants.catalogue import RULES_BY_PLACE
from deltaci.invariants.rules import violations
from deltaci.invariants.settled import RULES as SETTLED
from deltaci.store.port import LogState, Owed
from tests.builders import NOW_MS, a_planned_job, a_run_id
from tests.invariants.stored import a_journal, an_explanation, columns_of, stored, with_job, with_row, with_run
from tests.invariants.story import JOB, RUN, SECOND, THIRD

replace = msgspec.structs.replace


def owed(effect: PlanRun | ReportRun | AnalyzeAttempt, **more: int) -> Owed:
    """A debt."""
    return Owed(effect=effect, generation=99, due_at_ms=more.get("due_at_ms", NOW_MS), tries=0)


def with_log(rows: Rows, index: int, **more: object) -> Rows:
    """The rows with another log."""
    logs = [*rows.logs]
    logs[index] = replace(logs[index], **more)
    return replace(rows, logs=tuple(logs))


def without_lease(attempt: Attempt) -> Attempt:
    """The attempt as if it had been canceled in the queue."""
    return replace(attempt, state=AttemptState.CANCELED, lease=None, end_reason=EndReason.USER_CANCELED)


HELD: Final[dict[str, Any]] = {"hold": "approval", "state": RunState.CREATED, "jobs": (), "plan_digest": ""}

Plant = tuple[str, str, Callable[[Rows], Rows]]

PLANTS: Final[list[Plant]] = [
    ("stored_is_fold", RUN, lambda rows: with_run(rows, text="changed")),
    ("stored_is_fold", JOB, lambda rows: with_job(rows, 0, priority=7)),
    ("stored_is_fold", a_run_id(2), lambda rows: with_run(rows, id=a_run_id(2))),
    ("stored_is_fold", THIRD, lambda rows: replace(rows, jobs=rows.jobs[:2])),
    ("columns_of_snapshot", RUN, lambda rows: replace(rows, run=replace(rows.run, stream="branch:other"))),
    ("columns_of_snapshot", RUN, lambda rows: replace(rows, run=replace(rows.run, attempt=2))),
    (
        "columns_of_snapshot",
        RUN,
        lambda rows: replace(rows, run=replace(rows.run, columns=columns_of(rows.run, approved_author="alice"))),
    ),
    ("columns_of_snapshot", RUN, lambda rows: replace(rows, run=replace(rows.run, key=RunKey("repo_1", "f", "push")))),
    ("columns_of_snapshot", JOB, lambda rows: with_row(rows, 0, columns=columns_of(rows.jobs[0], state="QUEUED"))),
    ("columns_of_snapshot", JOB, lambda rows: with_row(rows, 0, columns=columns_of(rows.jobs[0], revision=1))),
    (
        "columns_of_snapshot",
        SECOND,
        lambda rows: with_row(rows, 1, columns=columns_of(rows.jobs[1], queued_at_ms=None)),
    ),
    ("columns_of_snapshot", THIRD, lambda rows: with_row(rows, 2, columns=columns_of(rows.jobs[2], queued_at_ms=1))),
    (
        "one_timer",
        RUN,
        lambda rows: replace(rows, run=replace(rows.run, columns=columns_of(rows.run, due_at_ms=None))),
    ),
    ("one_timer", JOB, lambda rows: with_row(rows, 0, columns=columns_of(rows.jobs[0], due_at_ms=None))),
    ("one_timer", THIRD, lambda rows: with_row(rows, 2, columns=columns_of(rows.jobs[2], due_at_ms=NOW_MS))),
    ("one_timer", RUN, lambda rows: with_run(rows, state=RunState.FAILED, end_reason=EndReason.JOBS_FAILED)),
    ("held_while_leased", JOB, lambda rows: with_job(rows, 0, attempts=(without_lease(rows.jobs[0].job.attempts[0]),))),
    ("held_while_leased", JOB, lambda rows: with_job(rows, 0, state=JobState.QUEUED)),
    ("held_while_leased", SECOND, lambda rows: with_job(rows, 1, state=JobState.RUNNING)),
    (
        "held_while_leased",
        SECOND,
        lambda rows: with_job(rows, 1, state=JobState.FAILED, end_reason=EndReason.STEP_FAILED),
    ),
    ("jobs_of_plan", RUN, lambda rows: replace(rows, jobs=rows.jobs[:2])),
    ("jobs_of_plan", RUN, lambda rows: replace(rows, jobs=(rows.jobs[1], rows.jobs[0], rows.jobs[2]))),
    ("jobs_of_plan", RUN, lambda rows: replace(rows, plan=None)),
    ("jobs_of_plan", RUN, lambda rows: replace(rows, plan_digest="d" * 64)),
    ("jobs_of_plan", RUN, lambda rows: replace(rows, plan=replace(rows.plan, commit_sha="f"))),
    ("jobs_of_plan", JOB, lambda rows: with_row(rows, 0, planned=a_planned_job(name="other"))),
    ("jobs_of_plan", SECOND, lambda rows: with_row(rows, 1, planned=None)),
    ("jobs_of_plan", THIRD, lambda rows: with_row(rows, 2, needs=())),
    ("run_of_its_delivery", RUN, lambda rows: replace(rows, deliveries=rows.deliveries[1:])),
    (
        "run_of_its_delivery",
        RUN,
        lambda rows: replace(rows, deliveries=tuple(replace(one, delivery_id="another") for one in rows.deliveries)),
    ),
    ("effects_are_owed", SECOND, lambda rows: replace(rows, explanations=(), owed=())),
    ("effects_are_owed", RUN, lambda rows: replace(rows, reported={}, owed=())),
    ("effects_are_owed", RUN, lambda rows: with_run(rows, state=RunState.PLANNING)),
    ("effects_are_owed", RUN, lambda rows: with_run(rows, has_blueprint=True)),
    (
        "effects_are_owed",
        RUN,
        lambda rows: replace(with_run(rows, state=RunState.FAILED, end_reason="jobs_failed"), has_blueprint=True),
    ),
    ("held_is_untouched", RUN, lambda rows: with_run(rows, **HELD)),
    (
        "held_is_untouched",
        RUN,
        lambda rows: replace(with_run(rows, **HELD), jobs=(), owed=(owed(PlanRun(RUN)),)),
    ),
    ("effects_have_a_cause", SECOND, lambda rows: replace(rows, owed=(owed(AnalyzeAttempt(SECOND, 2)),))),
    ("effects_have_a_cause", "job_9", lambda rows: replace(rows, owed=(owed(AnalyzeAttempt("job_9", 1)),))),
    ("effects_have_a_cause", "run_9", lambda rows: replace(rows, owed=(owed(ReportRun("run_9")),))),
    ("effects_have_a_cause", JOB, lambda rows: replace(rows, explanations=(an_explanation(JOB), *rows.explanations))),
    ("logs_contiguous", JOB, lambda rows: with_log(rows, 0, chunks=((0, 4), (5, 2)))),
    ("logs_contiguous", JOB, lambda rows: with_log(rows, 0, chunks=((0, 4), (3, 4)))),
    ("logs_contiguous", JOB, lambda rows: with_log(rows, 0, chunks=((1, 6),))),
    ("logs_contiguous", JOB, lambda rows: with_log(rows, 0, chunks=((0, 4),))),
    ("logs_contiguous", SECOND, lambda rows: with_log(rows, 1, chunks=())),
    ("logs_of_leases", SECOND, lambda rows: with_log(rows, 1, attempt=2)),
    ("logs_of_leases", THIRD, lambda rows: with_log(rows, 1, job_id=THIRD)),
]

# What it takes to see is two looks.
APART: Final = {"logs_end"}


@pytest.mark.parametrize(("rule", "entity_id", "change"), PLANTS)
def test_a_planted_violation_is_found(rule: str, entity_id: str, change: Callable[[Rows], Rows]) -> None:
    """In the table in which it stands, of the entity that it is about."""
    _, rows, _ = stored()

    found = check_rows(a_journal(), change(rows))

    assert (rule, entity_id) in {(one.rule, one.entity_id) for one in found}


def test_every_rule_over_tables_has_its_plant() -> None:
    """A rule that nothing ever broke might as well not be there."""
    rules = {rule.name for rule in RULES_BY_PLACE["the tables of a run, after any commit"]}

    assert rules == {rule for rule, _, _ in PLANTS} | APART


def test_nothing_is_found_in_sound_tables() -> None:
    """However often they are looked at."""
    journal, (_, rows, _) = a_journal(), stored()

    assert [check_rows(journal, rows) for _ in range(2)] == [[], []]


def test_rows_of_another_instant_are_refused() -> None:
    """What moved in between would be taken for wrong."""
    entries, rows, _ = stored()

    with pytest.raises(ValueError, match=f"as of entry {len(entries) - 1}"):
        check_rows(a_journal(), replace(rows, journal_id=len(entries) - 1))


@pytest.mark.parametrize(
    ("index", "size", "is_found"),
    [(0, 8, False), (0, 7, False), (0, 6, True), (1, 2, False), (1, 3, True), (1, 1, True)],
)
def test_a_log_that_shrinks_or_goes_on_after_its_end_is_found(index: int, size: int, is_found: bool) -> None:
    """One that is open may only grow; one that was closed, or whose attempt ended, stays as it is."""
    journal, (_, rows, _) = a_journal(), stored()
    check_rows(journal, rows)

    later = with_log(rows, index, state=LogState(size=size, is_final=bool(index)), chunks=((0, size),))

    assert [one.rule for one in check_rows(journal, later)] == ["logs_end"] * is_found


# ---- once there was time -----------------------------------------------------------------------------------------


def all_over(rows: Rows) -> Rows:
    """Every job has ended; the run has not heard of it."""
    for index in range(3):
        rows = with_job(rows, index, state=JobState.SKIPPED, end_reason=EndReason.NOT_AFFECTED, attempts=())
    return rows


LEFT_UNDONE: Final[list[Plant]] = [
    ("run_ended", RUN, all_over),
    (
        "jobs_unblocked",
        THIRD,
        lambda rows: with_job(rows, 1, state=JobState.SKIPPED, end_reason=EndReason.NOT_AFFECTED, attempts=()),
    ),
    ("cancel_told", JOB, lambda rows: with_run(rows, state=RunState.CANCEL_REQUESTED)),
    ("deadlines_kept", JOB, lambda rows: with_row(rows, 0, columns=columns_of(rows.jobs[0], due_at_ms=NOW_MS - 1_001))),
    ("effects_delivered", RUN, lambda rows: replace(rows, owed=(owed(ReportRun(RUN), due_at_ms=NOW_MS - 1_001),))),
]


@pytest.mark.parametrize(("rule", "entity_id", "change"), LEFT_UNDONE, ids=[rule for rule, _, _ in LEFT_UNDONE])
def test_what_is_left_undone_is_found(rule: str, entity_id: str, change: Callable[[Rows], Rows]) -> None:
    """By whoever knows that there was time enough."""
    past, (_, rows, _) = a_journal().past, stored()

    before = list(violations(SETTLED, RUN, past, rows, NOW_MS, 1_000))
    found = list(violations(SETTLED, RUN, past, change(rows), NOW_MS, 1_000))

    assert before == []
    assert [(rule, entity_id)] == [(one.rule, one.entity_id) for one in found if one.rule == rule][:1]


def test_every_rule_over_what_is_left_undone_has_its_plant() -> None:
    """A rule that nothing ever broke might as well not be there."""
    assert {rule.name for rule in SETTLED} == {rule for rule, _, _ in LEFT_UNDONE}
