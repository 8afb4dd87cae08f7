"""Verification finds what somebody changed behind the store's back, and nothing while the store is at work."""

import anyio
import pytest

from deltaci.domain.effects import AnalyzeAttempt, ReportRun
from deltaci.domain.job import created
from deltaci.invariants.catalogue import INVARIANTS
from deltaci.invariants.verify import verify
from deltaci.store.memory import MemoryStore
from deltaci.store.port import JournalEntry, Rows
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Owe
from tests.builders import NOW_MS, a_created_job, a_job, a_run_id, acknowledged, add_job, leased, save_job
from tests.invariants.stored import a_busy_run, a_webhook_run
from tests.invariants.story import JOB, RUN

pytestmark = pytest.mark.anyio

OTHER_RUNNER = "CAST(replace(data, 'runner_1', 'runner_2') AS BLOB)"
OTHER_JOB = "(SELECT snapshot FROM job AS other WHERE other.id <> job.id)"


async def test_a_sound_store_is_verified_by_the_numbers(store: SqliteStore) -> None:
    """What was looked at is counted, for each kind of row and each invariant that is decided from them."""
    await a_busy_run(store)

    report = await verify(store)

    assert report.violations == ()
    assert report.checked == {
        "journal": 13,
        "runs": 1,
        "jobs": 3,
        "deliveries": 2,
        "owed": 2,
        "requests": 0,
        "recipes": 0,
    }
    assert {6, 7, 12, 16, 21, 22, 23, 24} == set(INVARIANTS) - set(report.looks)
    assert all(report.looks.values())


@pytest.mark.parametrize(
    ("sql", "rules"),
    [
        (f"UPDATE journal SET data = {OTHER_RUNNER} WHERE type = 'AttemptLeased'", {"chain", "stored_is_fold"}),
        ("UPDATE journal SET data = 'text' WHERE id = 2", {"readable"}),
        ("UPDATE journal SET data = x'00' WHERE id = 2", {"chain", "readable"}),
        ("UPDATE journal SET at_ms = at_ms + 1 WHERE id = 2", {"chain", "entry_says_the_same"}),
        ("UPDATE journal SET cause = x'7b7d' WHERE id = 3", {"readable"}),
        ("UPDATE journal SET entity_id = 'job_1' WHERE id = 4", {"chain", "entry_says_the_same", "stored_is_fold"}),
        ("UPDATE journal SET hash = zeroblob(32) WHERE id = 4", {"chain"}),
        ("UPDATE journal SET type = 'RunStarted' WHERE id = 2", {"chain", "entry_says_the_same"}),
        ("DELETE FROM journal WHERE type = 'LeaseAcknowledged'", {"chain", "dense"}),
        ("DELETE FROM journal WHERE id = (SELECT max(id) FROM journal)", {"stored_is_fold"}),
        ("DELETE FROM journal", {"stored_is_fold"}),
        (f"UPDATE job SET snapshot = {OTHER_JOB} WHERE position = 0", {"jobs_of_plan", "stored_is_fold"}),
        ("UPDATE job SET snapshot = x'c1' WHERE position = 0", {"readable"}),
        ("UPDATE job SET snapshot = x'c1'; UPDATE delivery SET repo_id = id", {"readable", "delivery_has_its_run"}),
        ("DELETE FROM job WHERE position = 1", {"jobs_of_plan", "stored_is_fold"}),
        ("DELETE FROM run", {"stored_is_fold"}),
        ("UPDATE run SET state = 'QUEUED'", {"columns_of_snapshot"}),
        ("UPDATE run SET pr_number = 7", {"columns_of_snapshot"}),
        ("UPDATE job SET due_at_ms = due_at_ms + 1 WHERE due_at_ms NOT NULL", {"one_timer"}),
        ("UPDATE job SET queued_at_ms = NULL", {"columns_of_snapshot"}),
        ("DELETE FROM plan", {"jobs_of_plan"}),
        ("UPDATE plan SET digest = 'other'", {"jobs_of_plan"}),
        ("DELETE FROM planned WHERE job_id LIKE '%_1'", {"jobs_of_plan"}),
        ("DELETE FROM need", {"jobs_of_plan"}),
        ("DELETE FROM delivery", {"run_of_its_delivery"}),
        ("UPDATE delivery SET run_id = 'run_2' WHERE is_duplicate", {"delivery_has_its_run"}),
        ("UPDATE delivery SET body_sha256 = 'same', run_id = 'run_' || id", {"one_run_a_content"}),
        ("DELETE FROM explanation; DELETE FROM outbox", {"effects_are_owed"}),
        ("UPDATE log_chunk SET start = start + 1", {"logs_contiguous"}),
        ("UPDATE log_state SET size = size + 1", {"logs_contiguous"}),
        ("DELETE FROM log_chunk", {"logs_contiguous"}),
        ("UPDATE log_state SET attempt = 2", {"logs_of_leases"}),
    ],
)
async def test_a_planted_change_is_found(store: SqliteStore, sql: str, rules: set[str]) -> None:
    """In the journal by its chain, in every table by what the journal says of it."""
    await a_busy_run(store)
    store._writer.database.connection.executescript(sql)

    report = await verify(store)

    assert rules <= {violation.rule for violation in report.violations}


async def test_a_row_that_cannot_be_read_hides_no_other(store: SqliteStore) -> None:
    """It is one finding; the other runs are looked at as before."""
    await a_busy_run(store)
    await store.commit(a_webhook_run(2))
    await store.commit(a_webhook_run(3))
    connection = store._writer.database.connection
    connection.execute("UPDATE run SET snapshot = x'c1' WHERE id = ?", (a_run_id(2),))
    connection.execute("UPDATE run SET stream = 'other' WHERE id = ?", (a_run_id(3),))

    report = await verify(store)

    assert [("readable", a_run_id(2)), ("columns_of_snapshot", a_run_id(3))] == [
        (violation.rule, violation.entity_id) for violation in report.violations
    ]


@pytest.mark.parametrize("is_leased", [False, True])
async def test_a_job_out_of_nowhere_is_found(store: SqliteStore, is_leased: bool) -> None:
    """No run leads to it and no event made it, and dispatch would lease it all the same."""
    await a_busy_run(store)
    count = (await store.counts())["journal"]["entries"]
    stray = a_created_job(a_run_id(9))
    await store.commit([add_job(stray)])
    if is_leased:
        await store.commit([save_job(leased(created(stray)))])
    store._writer.database.connection.execute("DELETE FROM journal WHERE id > ?", (count,))

    report = await verify(store)

    assert [("stored_is_fold", stray.job_id)] == [(one.rule, one.entity_id) for one in report.violations]


@pytest.mark.parametrize("effect", [ReportRun("run_9"), AnalyzeAttempt("job_9", 1), AnalyzeAttempt(JOB, 1)])
async def test_a_debt_for_nothing_is_found(store: SqliteStore, effect: ReportRun | AnalyzeAttempt) -> None:
    """A run or an attempt that is not there, or did not end."""
    await a_busy_run(store)
    await store.commit([Owe(effect=effect, due_at_ms=NOW_MS)])

    report = await verify(store)

    assert {"owed_for_what_is_stored"} <= {violation.rule for violation in report.violations}


async def test_what_is_left_undone_is_found_on_demand(store: SqliteStore) -> None:
    """A store whose server was killed has things left to do: no violation, until it was in peace for long enough."""
    await a_busy_run(store)

    reports = [await verify(store, now_ms=now_ms, late_ms=1_000) for now_ms in (None, NOW_MS, NOW_MS + 10**9)]

    assert [set(), set(), {"deadlines_kept", "effects_delivered"}] == [
        {violation.rule for violation in report.violations} for report in reports
    ]


class MovingStore(MemoryStore):
    """A store in which something happens to the run that was just read, and to its neighbours."""

    moves = 0

    async def rows_of_run(self, run_id: str) -> Rows | None:
        rows = await super().rows_of_run(run_id)
        if rows is not None and self.moves < 20:
            self.moves += 1
            job = next((row.job for row in rows.jobs if row.job.state == "QUEUED"), None)
            if job is not None:
                granted = leased(job, now_ms=NOW_MS + 10**6)
                await self.commit([save_job(granted)])
                await self.commit([save_job(acknowledged(granted.state, now_ms=NOW_MS + 10**6))])
            await self.commit(a_webhook_run(10 + self.moves))
        return rows


async def test_what_moves_while_it_is_read_is_no_violation() -> None:
    """Each run is compared as of the instant in which it was read, and what came later is looked at as well."""
    store = MovingStore()
    await a_busy_run(store)

    report = await verify(store)

    assert report.violations == ()
    assert (report.checked["runs"], store.moves) == (21, 20)
    assert [entry async for entry in store.journal()][-1].id == report.checked["journal"]


async def test_a_store_under_load_is_verified_without_a_violation(store: SqliteStore) -> None:
    """Commits come in all the time while it is read."""
    is_over = False

    async def live(number: int) -> None:
        await store.commit(a_webhook_run(number))
        job = a_job(a_run_id(number), retries=1)
        granted = leased(job)
        await store.commit([save_job(granted)])
        await store.commit([save_job(acknowledged(granted.state))])

    async def load() -> None:
        number = 0
        while not is_over:
            number += 1
            await live(number)

    reports = []
    async with anyio.create_task_group() as group:
        group.start_soon(load)
        for _ in range(5):
            reports.append(await verify(store))
            await anyio.lowlevel.checkpoint()
        is_over = True

    assert [report.violations for report in reports] == [()] * 5
    assert reports[-1].checked["runs"] > 1


async def test_an_entry_is_never_taken_twice(store: SqliteStore) -> None:
    """The journal is read on from where it was left."""
    for number in range(1, 4):
        await store.commit(a_webhook_run(number))

    entries: list[JournalEntry] = [entry async for entry in store.journal(after_id=4)]

    assert list(range(5, entries[-1].id + 1)) == [entry.id for entry in entries]
    assert (await verify(store)).checked["journal"] == entries[-1].id
    assert entries[0].run_id == RUN
