"""Writes steps of many jobs and prints each that was acknowledged, until somebody kills it."""

import sys

import anyio
import msgspec

from deltaci.domain.events import TIMER, LeaseRenewed
from deltaci.domain.job import evolve
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import SaveJob
from tests.builders import NOW_MS, a_created_job, a_job, a_planned_run, a_run_id, acknowledged, leased, save_job

JOBS = 16


async def live(store: SqliteStore, number: int) -> None:
    """Renew one job's lease for ever."""
    run_id = a_run_id(number)
    granted = leased(a_job(run_id))
    started = acknowledged(granted.state)
    await store.commit([*a_planned_run(number, (a_created_job(run_id),)), save_job(granted), save_job(started)])
    job = started.state
    while True:
        event = LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS + 1_000_000 + job.revision)
        after = evolve(job, event)
        await store.commit([SaveJob(job=after, expected_revision=job.revision, events=(event,), cause=TIMER)])
        sys.stdout.write(f"{after.id} {after.revision}\n")
        sys.stdout.flush()
        job = msgspec.structs.replace(after)


async def main() -> None:
    """Until killed."""
    async with SqliteStore.open(sys.argv[1]) as store, anyio.create_task_group() as group:
        for number in range(JOBS):
            group.start_soon(live, store, number)


if __name__ == "__main__":
    anyio.run(main)
