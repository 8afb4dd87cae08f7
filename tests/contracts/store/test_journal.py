"""What every store promises of the journal."""

import pytest

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import SYSTEM, Cause, decode_event
from deltaci.domain.states import EndReason
from deltaci.invariants.verify import verify
from deltaci.store.journal import GENESIS, draft_of, row_hash
from deltaci.store.port import Store
from deltaci.store.writes import Audit, SaveJob, Write
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_job,
    a_planned_run,
    a_run_id,
    acknowledged,
    add_job,
    completed,
    leased,
    owed,
    save_job,
    save_run,
    stepped,
)
from tests.contracts.store.support import outcomes

pytestmark = pytest.mark.anyio


async def test_every_event_is_journaled_with_its_cause_and_number(store: Store) -> None:
    """The audit tells the story: who, what, when, in which order."""
    cause = Cause("runner", "runner_1", via="lease")
    granted = leased(a_job())
    await store.commit([add_job()])

    await store.commit([SaveJob(job=granted.state, expected_revision=1, events=granted.events, cause=cause)])  # type: ignore[arg-type]

    entries = await store.events_of_run(a_run_id())
    assert [(1, 1, "JobCreated", SYSTEM), (2, 2, "AttemptLeased", cause)] == [
        (entry.id, entry.sequence, entry.type, entry.cause) for entry in entries
    ]
    assert granted.events == (decode_event(entries[1].data),)


async def test_audit_records_stand_in_the_journal_without_a_number(store: Store) -> None:
    """Those about a run or its job are in its story, all others only in the whole journal."""
    about = ("", a_run_id(), a_job().id, "tok_1")
    await store.commit(
        [Audit(at_ms=NOW_MS, cause=SYSTEM, type="Refused", entity_id=one, details={"why": "stale"}) for one in about]
    )

    whole = [entry async for entry in store.journal()]

    assert [("", ""), (about[1], about[1]), (about[2], about[1]), ("tok_1", "")] == [
        (entry.entity_id, entry.run_id) for entry in whole
    ]
    assert {(None, b'{"why":"stale"}')} == {(entry.sequence, entry.data) for entry in whole}
    assert [entry.id for entry in await store.events_of_run(a_run_id())] == [2, 3]


async def test_the_journal_is_one_chain_whatever_was_refused_in_between(store: Store) -> None:
    """Ids without gaps, each hash over the one before."""
    commits: list[list[Write]] = [[add_job(a_created_job(index=index % 20))] for index in range(60)]
    commits += [[Audit(at_ms=index, cause=SYSTEM, type="Refused")] for index in range(20)]
    await outcomes(store, commits)
    await outcomes(store, commits)

    entries = [entry async for entry in store.journal()]

    previous, expected = GENESIS, []
    for index, entry in enumerate(entries, start=1):
        previous = row_hash(previous, index, draft_of(entry))
        expected.append((index, previous.hex()))
    assert expected == [(entry.id, entry.hash) for entry in entries]
    assert len(entries) == 60


async def test_a_runs_events_go_on_where_the_page_before_ended(store: Store) -> None:
    """Also across events of other runs."""
    for index in range(3):
        await store.commit([add_job(a_created_job(index=index)), add_job(a_created_job(a_run_id(2), index))])

    first = await store.events_of_run(a_run_id(), limit=2)
    second = await store.events_of_run(a_run_id(), after_id=first[-1].id, limit=2)

    assert [entry.id for entry in (*first, *second)] == [1, 3, 5]


async def test_what_steps_stored_verifies(store: Store) -> None:
    """Whole lives, with a retry and a cancel among them, leave nothing to complain about."""
    run = a_planned_run(1, (a_created_job(index=0, retries=1), a_created_job(index=1)))
    await store.commit(run)
    job = a_job(index=0, retries=1)
    for number in (1, 2):
        granted = leased(job, now_ms=NOW_MS + number * 100_000)
        started = acknowledged(granted.state)
        ended = completed(started.state, exit_code=1)
        for step in (granted, started, ended):
            await store.commit([save_job(step), *owed(step)])
        job = ended.state
    queued = await store.load_run(a_run_id())
    assert queued is not None
    requested = stepped(queued, runs.RequestCancel(reason=EndReason.USER_CANCELED))
    await store.commit([save_run(requested)])
    canceled = stepped(a_job(index=1), jobs.RequestCancel(reason=EndReason.USER_CANCELED, within_ms=10))
    await store.commit([save_job(canceled)])
    seen = {one.id: runs.JobSeen(one.state, one.end_reason) for one in await store.jobs_of_run(a_run_id())}
    await store.commit([save_run(stepped(requested.state, runs.Advance(jobs=seen)))])

    report = await verify(store)

    assert report.violations == ()
    assert report.checked == {
        "journal": 17,
        "runs": 1,
        "jobs": 2,
        "deliveries": 0,
        "owed": 3,
        "requests": 0,
        "recipes": 0,
    }


async def test_the_newest_instant_of_the_journal_is_known(store: Store) -> None:
    """Whatever the order in which that was committed which was decided at the same time; 0 stands for nothing."""
    empty = await store.newest_at_ms()
    for at_ms in (NOW_MS, NOW_MS + 7, NOW_MS + 5):
        await store.commit([Audit(at_ms=at_ms, cause=SYSTEM, type="Refused")])

    assert (empty, await store.newest_at_ms()) == (0, NOW_MS + 7)
