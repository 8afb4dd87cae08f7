"""Verification finds what somebody changed behind the store's back."""

import msgspec
import pytest
from deltaci.store.verify import check_attempts, check_run, verify

from deltaci.domain.states import EndReason, RunState
from deltaci.store.sqlite import SqliteStore
from tests.builders import (
    a_created_job,
    a_job,
    a_planned_run,
    a_run_id,
    acknowledged,
    completed,
    leased,
    save_job,
)

pytestmark = pytest.mark.anyio


async def a_life(store: SqliteStore) -> None:
    """A run with one job that succeeded, and another one that is queued."""
    granted = leased(a_job())
    started = acknowledged(granted.state)
    await store.commit(a_planned_run(1, (a_created_job(index=0), a_created_job(index=1))))
    await store.commit([save_job(granted), save_job(started), save_job(completed(started.state))])


OTHER_RUNNER = "CAST(replace(data, 'runner_1', 'runner_2') AS BLOB)"
OTHER_JOB = "(SELECT snapshot FROM job AS other WHERE other.id <> job.id)"


@pytest.mark.parametrize(
    ("sql", "rules"),
    [
        (f"UPDATE journal SET data = {OTHER_RUNNER} WHERE type = 'AttemptLeased'", {"chain", "fold"}),
        ("UPDATE journal SET data = 'text' WHERE id = 2", {"readable"}),
        ("UPDATE journal SET data = x'00' WHERE id = 2", {"chain", "fold"}),
        ("UPDATE journal SET at_ms = at_ms + 1 WHERE id = 2", {"chain"}),
        ("UPDATE journal SET cause = x'7b7d' WHERE id = 3", {"readable"}),
        ("UPDATE journal SET entity_id = 'job_1' WHERE id = 4", {"chain", "dense", "stored"}),
        ("UPDATE journal SET hash = zeroblob(32) WHERE id = 4", {"chain"}),
        ("UPDATE journal SET type = 'RunStarted' WHERE id = 2", {"chain"}),
        ("DELETE FROM journal WHERE id = 5", {"chain", "fold"}),
        ("DELETE FROM journal WHERE type = 'LeaseAcknowledged'", {"chain", "dense"}),
        ("DELETE FROM journal WHERE type = 'JobEnded'", {"fold"}),
        (f"UPDATE job SET snapshot = {OTHER_JOB} WHERE position = 0", {"jobs_of_plan", "stored"}),
        ("UPDATE job SET snapshot = x'c1' WHERE position = 0", {"readable"}),
        ("DELETE FROM job WHERE position = 1", {"jobs_of_plan", "run_end", "stored"}),
        ("DELETE FROM run", {"stored"}),
    ],
)
async def test_a_planted_change_is_found(store: SqliteStore, sql: str, rules: set[str]) -> None:
    """In the journal by its chain, in a row by the fold of its events."""
    await a_life(store)
    clean = await verify(store)
    store._writer.database.connection.execute(sql)

    report = await verify(store)

    assert clean.violations == ()
    assert rules <= {violation.rule for violation in report.violations}


async def test_a_run_that_ended_before_its_jobs_is_found(store: SqliteStore) -> None:
    """A run is over if and only if all its jobs are."""
    await a_life(store)
    run = await store.load_run(a_run_id())
    assert run is not None
    jobs = await store.jobs_of_run(run.id)
    ended = msgspec.structs.replace(run, state=RunState.FAILED, end_reason=EndReason.JOBS_FAILED)

    found = check_run(ended, jobs)

    assert [("run_end", run.id)] == [(violation.rule, violation.entity_id) for violation in found]
    assert check_run(run, jobs) == []


@pytest.mark.parametrize("numbers", [(2,), (1, 3), (1, 1)])
def test_attempts_with_gaps_or_repeats_are_found(numbers: tuple[int, ...]) -> None:
    """They are numbered from 1 on, one after the other."""
    attempt = completed(acknowledged(leased(a_job()).state).state).state.attempts[0]
    attempts = tuple(msgspec.structs.replace(attempt, number=number) for number in numbers)

    found = check_attempts(msgspec.structs.replace(a_job(), attempts=attempts))

    assert [violation.rule for violation in found] == ["attempts_dense"]


def test_an_attempt_that_goes_on_beside_a_later_one_is_found() -> None:
    """The next one exists only after the one before ended."""
    (attempt,) = leased(a_job()).state.attempts
    attempts = (attempt, msgspec.structs.replace(attempt, number=2))

    found = check_attempts(msgspec.structs.replace(a_job(), attempts=attempts))

    assert [violation.rule for violation in found] == ["attempts_dense"]


def test_attempts_as_they_should_be_are_fine() -> None:
    """The check is about numbers and ends, not about what the attempts did."""
    assert check_attempts(leased(a_job()).state) == []
