"""A run with everything that can be stored of one, to break table by table."""

from functools import cache
from typing import Any, Final

import anyio
import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.effects import ReportRun
from deltaci.domain.events import Cause
from deltaci.domain.job import Job
from deltaci.domain.run import Run
from deltaci.invariants import Journal, Rows
from deltaci.store.memory import MemoryStore
from deltaci.store.port import JobRow, JournalEntry
from deltaci.store.writes import Delivery, Explanation, LogChunk, Owe, Reported, SaveRepo, SaveRun, Write
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_delivery,
    a_job,
    a_planned_run,
    a_repo,
    a_run_id,
    acknowledged,
    completed,
    leased,
    owed,
    save_job,
    save_run,
    stepped,
)
from tests.invariants.story import JOB, RUN, SECOND, THIRD

WEBHOOK: Final = Cause("webhook", "delivery-1", via="git")


def a_chunk(job_id: str, offset: int, data: bytes, *, is_final: bool = False) -> LogChunk:
    """Bytes of a first attempt's log."""
    return LogChunk(job_id=job_id, attempt=1, offset=offset, data=data, at_ms=NOW_MS, is_final=is_final)


def an_explanation(job_id: str = SECOND) -> Explanation:
    """Why a first attempt failed."""
    return Explanation(
        job_id=job_id,
        attempt=1,
        category="user.test",
        confidence=1.0,
        summary="it failed",
        evidence=(),
        next_step="",
        at_ms=NOW_MS,
    )


def a_webhook_run(number: int = 1) -> list[Write]:
    """A run of three jobs, two at once and one that needs the second, made by a webhook."""
    run_id = a_run_id(number)
    events = tuple(a_created_job(run_id, index, retries=1) for index in range(3))
    events = (*events[:2], msgspec.structs.replace(events[2], state=jobs.JobState.BLOCKED))
    needs = {events[2].job_id: (events[1].job_id,)}
    created, *rest = a_planned_run(number, events, needs)
    assert isinstance(created, SaveRun)
    delivery_id = f"delivery-{number}"
    cause = msgspec.structs.replace(WEBHOOK, id=delivery_id)
    delivery = a_delivery(delivery_id=delivery_id, run_id=run_id, body_sha256=f"{number:064}")
    report = Owe(effect=ReportRun(run_id), due_at_ms=NOW_MS)
    return [msgspec.structs.replace(created, cause=cause), delivery, *rest, report]


async def a_busy_run(store: Any) -> None:
    """The first job runs, the second failed once and waits for its retry, the third waits for the second."""
    await store.commit([SaveRepo(repo=a_repo(report_to="https://forge.example"))])
    found = a_delivery(delivery_id="delivery-9", run_id=RUN, body_sha256="9" * 64, is_duplicate=True)
    await store.commit([*a_webhook_run(), found])
    granted = leased(a_job(retries=1))
    await store.commit([save_job(granted), save_job(acknowledged(granted.state))])
    await store.commit([a_chunk(JOB, 0, b"one "), a_chunk(JOB, 4, b"two")])
    granted = leased(a_job(index=1, retries=1))
    started = acknowledged(granted.state)
    failed = completed(started.state, exit_code=1)
    await store.commit([save_job(granted), save_job(started), a_chunk(SECOND, 0, b"no", is_final=True)])
    await store.commit([save_job(failed), *owed(failed)])
    run = await store.load_run(RUN)
    seen = {job.id: runs.JobSeen(job.state, job.end_reason) for job in await store.jobs_of_run(RUN)}
    advanced = stepped(run, runs.Advance(jobs=seen))
    await store.commit([save_run(advanced), *owed(advanced), an_explanation()])
    await store.commit([Reported(run_id=RUN, check="", digest="r", at_ms=NOW_MS)])


@cache
def stored() -> tuple[tuple[JournalEntry, ...], Rows, tuple[Delivery, ...]]:
    """The journal, the tables and the ledger of that run."""

    async def live() -> tuple[tuple[JournalEntry, ...], Rows, tuple[Delivery, ...]]:
        store = MemoryStore()
        await a_busy_run(store)
        rows = await store.rows_of_run(RUN)
        assert rows is not None
        entries = tuple([entry async for entry in store.journal()])
        return entries, rows, tuple([one async for one in store.deliveries()])

    return anyio.run(live)


def a_journal() -> Journal:
    """A look at all of its events."""
    journal = Journal()
    for entry in stored()[0]:
        assert journal.take(entry) == []
    return journal


def with_run(rows: Rows, **more: Any) -> Rows:
    """The rows with another run."""
    run: Run = msgspec.structs.replace(rows.run.run, **more)
    return msgspec.structs.replace(rows, run=msgspec.structs.replace(rows.run, run=run))


def with_row(rows: Rows, index: int, **more: Any) -> Rows:
    """The rows with another row for one job."""
    changed = [*rows.jobs]
    changed[index] = msgspec.structs.replace(changed[index], **more)
    return msgspec.structs.replace(rows, jobs=tuple(changed))


def with_job(rows: Rows, index: int, **more: Any) -> Rows:
    """The rows with another snapshot of one job."""
    job: Job = msgspec.structs.replace(rows.jobs[index].job, **more)
    return with_row(rows, index, job=job)


def columns_of(row: Any, **more: Any) -> Any:
    """The columns beside a snapshot, changed."""
    return msgspec.structs.replace(row.columns, **more)


__all__ = ["THIRD", "JobRow", "a_busy_run", "a_journal", "columns_of", "stored", "with_job", "with_row", "with_run"]
