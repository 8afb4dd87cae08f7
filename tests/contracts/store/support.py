"""What several files of the suite need."""

from collections.abc import Sequence

import anyio
import anyio.lowlevel
import msgspec

from deltaci.domain import job as jobs
from deltaci.domain.effects import PlanRun, ReportRun
from deltaci.domain.errors import StoreError
from deltaci.domain.events import SYSTEM, LeaseRenewed
from deltaci.domain.job import Job
from deltaci.domain.states import EndReason, JobState
from deltaci.store.port import Store
from deltaci.store.writes import SaveJob, Write
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_job,
    a_planned_run,
    a_run_id,
    acknowledged,
    completed,
    leased,
    stepped,
)

REPORT = ReportRun(a_run_id())


async def outcomes(store: Store, commits: Sequence[Sequence[Write]]) -> list[StoreError | None]:
    """What each of `commits` was answered, all sent at the same time."""
    answers: list[StoreError | None] = [None] * len(commits)

    async def send(index: int) -> None:
        try:
            await store.commit(commits[index])
        except StoreError as error:
            answers[index] = error

    async with anyio.create_task_group() as group:
        for index in range(len(commits)):
            group.start_soon(send, index)
    return answers


async def state_of(store: Store) -> object:
    """Everything a failed commit could have touched."""
    return (
        await store.counts(),
        await store.list_runs(),
        await store.queued_jobs(),
        await store.owed(PlanRun, NOW_MS * 2, 100),
        [entry async for entry in store.journal()],
        await store.repos(),
        await store.runners(),
        await store.log_state(a_job().id, 1),
        await store.load_plan(a_run_id()),
        await store.delivery("repo_1", "delivery-1"),
        await store.reply("key"),
    )


async def job_of(store: Store, job_id: str = "") -> Job:
    loaded = await store.load_job(job_id or a_job().id)
    assert loaded is not None
    return loaded[0]


async def run_of(store: Store, number: int, *jobs_of_run: Job, needs: dict[int, tuple[int, ...]] | None = None) -> None:
    """Store a QUEUED run whose jobs stand as given; `needs` by index."""
    run_id = a_run_id(number)
    ids = [a_job(run_id, index).id for index in range(len(jobs_of_run))]
    wanted = {ids[index]: tuple(ids[need] for need in of) for index, of in (needs or {}).items()}
    first_states = [
        JobState.BLOCKED if job.state is JobState.BLOCKED or index in (needs or {}) else JobState.QUEUED
        for index, job in enumerate(jobs_of_run)
    ]
    events = tuple(a_created_job(run_id, index, state=state) for index, state in enumerate(first_states))
    await store.commit(a_planned_run(number, events, wanted))
    event = LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS)
    for index, job in enumerate(jobs_of_run):
        moved = msgspec.structs.replace(job, id=ids[index], run_id=run_id, revision=2)
        await store.commit([SaveJob(job=moved, expected_revision=1, events=(event,), cause=SYSTEM)])


def a_job_in(state: JobState) -> Job:
    """A job in `state`, however it got there."""
    granted = leased(a_job()).state
    cancel = jobs.RequestCancel(reason=EndReason.USER_CANCELED, within_ms=10)
    match state:
        case JobState.QUEUED:
            return a_job()
        case JobState.BLOCKED:
            return a_job(state=JobState.BLOCKED)
        case JobState.SKIPPED:
            return a_job(state=JobState.SKIPPED, end_reason=EndReason.NOT_AFFECTED)
        case JobState.RUNNING:
            return granted
        case JobState.CANCEL_REQUESTED:
            return stepped(granted, cancel).state  # type: ignore[no-any-return]
        case JobState.SUCCEEDED:
            return completed(acknowledged(granted).state).state
        case JobState.FAILED:
            return completed(acknowledged(granted).state, exit_code=1).state
        case JobState.CANCELED:
            return stepped(a_job(), cancel).state  # type: ignore[no-any-return]
        case _:
            raise ValueError(state)
