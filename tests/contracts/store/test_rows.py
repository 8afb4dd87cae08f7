"""What every store answers to checks: everything stored of a run at one instant, the ledger, the outbox."""

import anyio
import msgspec
import pytest

from deltaci.domain.effects import AnalyzeAttempt, ReportRun
from deltaci.domain.events import RunKey
from deltaci.store.memory import MemoryStore
from deltaci.store.port import Columns, LogRow, LogState, Store
from deltaci.store.writes import Owe, Postpone
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_created_run,
    a_delivery,
    a_job,
    a_planned_run,
    a_run_id,
    acknowledged,
    leased,
    save_job,
    save_run,
)
from tests.invariants.stored import a_busy_run

pytestmark = pytest.mark.anyio


async def test_the_rows_of_a_run_are_all_that_is_stored_of_it(store: Store) -> None:
    """Whatever the backend: the same as the one in memory has, which was read through the other reads."""
    await a_busy_run(store)
    memory = MemoryStore()
    await a_busy_run(memory)
    expected = await memory.rows_of_run(a_run_id())
    await store.commit([save_run(a_created_run(2)), a_delivery(delivery_id="other", run_id=a_run_id(2))])

    rows = await store.rows_of_run(a_run_id())

    assert rows is not None
    assert expected is not None
    assert expected == msgspec.structs.replace(rows, journal_id=expected.journal_id)
    assert rows.journal_id == expected.journal_id + 1
    assert rows.run.run == await store.load_run(a_run_id())
    assert tuple(row.job for row in rows.jobs) == await store.jobs_of_run(a_run_id())
    assert rows.plan == await store.load_plan(a_run_id())
    assert rows.explanations == await store.explanations_of_run(a_run_id())
    assert rows.reported == await store.reported(a_run_id())


async def test_each_row_says_what_stands_in_its_columns(store: Store) -> None:
    """Derived on every save; a check compares them with the snapshot."""
    await a_busy_run(store)

    rows = await store.rows_of_run(a_run_id())

    assert rows is not None
    run, (running, queued, blocked) = rows.run, rows.jobs
    expires_at_ms = NOW_MS + 120_000
    assert (RunKey("repo_1", f"{1:040x}", "push"), 1, "branch:main") == (run.key, run.attempt, run.stream)
    assert Columns(state="RUNNING", revision=run.run.revision, due_at_ms=NOW_MS + 3_600_000) == run.columns
    assert Columns(state="RUNNING", revision=3, due_at_ms=expires_at_ms) == running.columns
    assert Columns(state="QUEUED", revision=5, due_at_ms=None, queued_at_ms=NOW_MS) == queued.columns
    assert Columns(state="BLOCKED", revision=1, due_at_ms=None) == blocked.columns
    assert [(), (), (queued.job.id,)] == [row.needs for row in rows.jobs]
    assert [row.planned.name for row in rows.jobs if row.planned is not None] == ["test-0", "test-1", "test-2"]


async def test_the_rows_of_a_run_hold_its_logs_debts_and_deliveries(store: Store) -> None:
    """And nobody else's: keys and ids that begin alike are other ones."""
    await store.commit(a_planned_run(1, tuple(a_created_job(index=index) for index in range(12))))
    first, eleventh = a_job(index=1).id, a_job(index=11).id
    mine = [ReportRun(a_run_id()), AnalyzeAttempt(eleventh, 1), AnalyzeAttempt(first, 12), AnalyzeAttempt(first, 1)]
    others = [ReportRun(a_run_id(2)), AnalyzeAttempt(f"{first}9", 1)]
    await store.commit([Owe(effect=effect, due_at_ms=NOW_MS) for effect in (*mine, *others)])
    owed = await store.outbox()
    await store.commit(
        [Postpone(key=mine[0].key, generation=owed[0].generation, due_at_ms=7, error="no", is_refused=True)]
    )

    rows = await store.rows_of_run(a_run_id())

    assert rows is not None
    assert mine == [one.effect for one in rows.owed]
    assert [(one.due_at_ms, one.tries, one.error, one.is_refused) for one in rows.owed[:1]] == [(7, 1, "no", True)]
    assert [*mine, *others] == [one.effect for one in await store.outbox()]
    assert (rows.logs, rows.deliveries, rows.reported, rows.is_reported) == ((), (), {}, False)


async def test_logs_are_told_by_the_extents_of_their_chunks(store: Store) -> None:
    """Their bytes stay where they are."""
    await a_busy_run(store)

    rows = await store.rows_of_run(a_run_id())

    assert rows is not None
    open_log, closed_log = LogState(size=7), LogState(size=2, is_final=True)
    assert rows.logs == (
        LogRow(job_id=a_job().id, attempt=1, state=open_log, chunks=((0, 4), (4, 3))),
        LogRow(job_id=a_job(index=1).id, attempt=1, state=closed_log, chunks=((0, 2),)),
    )


async def test_a_run_that_is_not_there_has_no_rows(store: Store) -> None:
    """As every read by id answers."""
    assert await store.rows_of_run(a_run_id()) is None


async def test_rows_are_of_one_instant_whatever_is_written_meanwhile(store: Store) -> None:
    """Their last entry is the last one that they show: no step is half in them."""
    await store.commit(a_planned_run(1, (a_created_job(),)))
    events = [entry async for entry in store.journal()]

    async def live() -> None:
        granted = leased(a_job())
        await store.commit([save_job(granted)])
        await store.commit([save_job(acknowledged(granted.state))])

    seen = []
    async with anyio.create_task_group() as group:
        group.start_soon(live)
        for _ in range(20):
            rows = await store.rows_of_run(a_run_id())
            assert rows is not None
            seen.append((rows.journal_id - len(events), rows.jobs[0].columns.revision - 1))

    assert all(entries == steps for entries, steps in seen)


async def test_the_ledger_and_the_ids_of_runs_are_read_whole(store: Store) -> None:
    """In order, page by page."""
    count = 450
    for number in range(count):
        await store.commit([save_run(a_created_run(number)), a_delivery(delivery_id=f"d{number}", ignored="a tag")])

    deliveries = [one.delivery_id async for one in store.deliveries()]
    first = await store.run_ids(limit=400)
    second = await store.run_ids(after=first[-1], limit=400)

    assert [f"d{number}" for number in range(count)] == deliveries
    assert tuple(a_run_id(number) for number in range(count)) == (*first, *second)
    assert list(range(201, count + 1)) == [entry.id async for entry in store.journal(after_id=200)]
