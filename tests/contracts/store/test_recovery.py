"""What every store answers to dispatch, timers and the reconciler."""

import pytest

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.store.port import HeldJob, QueuedJob, Store
from deltaci.store.writes import SaveRepo
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_created_run,
    a_delivery,
    a_job,
    a_planned_run,
    a_repo,
    a_run_id,
    acknowledged,
    add_job,
    completed,
    leased,
    save_job,
    save_run,
    stepped,
)
from tests.contracts.store.support import a_job_in, run_of

pytestmark = pytest.mark.anyio


async def test_queued_jobs_come_in_order_of_queueing(store: Store) -> None:
    """First by time, then by place in the plan; blocked and leased ones are not among them."""
    await store.commit(
        [
            add_job(a_created_job(index=0, at_ms=NOW_MS + 5)),
            add_job(a_created_job(index=10)),
            add_job(a_created_job(index=9, priority=3, labels=("gpu",))),
            add_job(a_created_job(index=1, state=JobState.BLOCKED)),
            add_job(a_created_job(index=2)),
        ]
    )
    await store.commit([save_job(leased(a_job(index=2)))])

    found = await store.queued_jobs()

    assert [a_job(index=index).id for index in (9, 10, 0)] == [job.job_id for job in found]
    assert (
        QueuedJob(
            job_id=a_job(index=9).id,
            repo_id="repo_1",
            labels=("gpu",),
            priority=3,
            queued_at_ms=NOW_MS,
            not_before_ms=0,
        )
        == found[0]
    )


async def test_a_retry_queues_again_with_its_backoff(store: Store) -> None:
    """Dispatch sees the attempt that waits, not the first one."""
    started = acknowledged(leased(a_job(retries=1)).state)
    failed = completed(started.state, exit_code=1, now_ms=NOW_MS + 7)
    await store.commit([add_job(a_created_job(retries=1)), save_job(leased(a_job(retries=1))), save_job(started)])
    await store.commit([save_job(failed)])

    (found,) = await store.queued_jobs()

    assert (NOW_MS + 7, failed.state.attempts[-1].not_before_ms) == (found.queued_at_ms, found.not_before_ms)


async def test_held_jobs_are_those_with_a_live_lease(store: Store) -> None:
    """Running ones, and those whose cancel is not yet obeyed."""
    running, canceling, ended = (leased(a_job(index=index)) for index in range(3))
    cancel = stepped(canceling.state, jobs.RequestCancel(reason=EndReason.USER_CANCELED, within_ms=10))
    end = completed(acknowledged(ended.state).state)
    await store.commit([add_job(a_created_job(index=index)) for index in range(4)])
    await store.commit([save_job(step) for step in (running, canceling, ended)])
    await store.commit([save_job(cancel), save_job(acknowledged(ended.state)), save_job(end)])

    found = await store.held_jobs()

    assert (HeldJob(running.state.id, "repo_1"), HeldJob(canceling.state.id, "repo_1")) == found


async def test_timers_are_due_by_what_the_state_says(store: Store) -> None:
    """The earliest first, within the limit; what is final or merely queued has none."""
    early, late = leased(a_job(index=0)), leased(a_job(index=1), now_ms=NOW_MS + 100)
    await store.commit([save_run(a_created_run())])
    await store.commit([add_job(a_created_job(index=index)) for index in range(3)])
    await store.commit([save_job(early), save_job(late)])
    at_ms = jobs.deadline_ms(early.state)
    assert at_ms is not None

    found = [
        await store.due(at_ms - 1, 10),
        await store.due(at_ms, 10),
        await store.due(NOW_MS * 2, 2),
        await store.due(NOW_MS * 2, 10),
    ]

    in_order = (early.state.id, late.state.id, a_run_id())
    assert [(), in_order[:1], in_order[:2], in_order] == found


async def test_a_final_run_has_no_timer(store: Store) -> None:
    """Otherwise it would be looked at for ever."""
    created = a_created_run()
    canceled = stepped(created.state, runs.RequestCancel(reason=EndReason.USER_CANCELED))
    await store.commit([save_run(created)])

    await store.commit([save_run(canceled)])

    assert await store.due(NOW_MS * 2, 10) == ()


async def test_a_run_whose_jobs_are_all_final_is_to_be_advanced(store: Store) -> None:
    """It missed the end of its last job."""
    await run_of(store, 1, a_job_in(JobState.SKIPPED), a_job_in(JobState.CANCELED))
    await run_of(store, 2, a_job_in(JobState.SKIPPED), a_job_in(JobState.QUEUED))

    assert (a_run_id(1),) == await store.runs_to_advance(10)


async def test_a_run_with_a_blocked_job_whose_needs_are_final_is_to_be_advanced(store: Store) -> None:
    """It missed the end of the last need; one live need is enough to wait."""
    blocked, skipped, queued = (a_job_in(state) for state in (JobState.BLOCKED, JobState.SKIPPED, JobState.QUEUED))
    await run_of(store, 1, skipped, skipped, blocked, needs={2: (0, 1)})
    await run_of(store, 2, skipped, queued, blocked, needs={2: (0, 1)})
    await run_of(store, 3, queued, blocked)

    assert (a_run_id(1), a_run_id(3)) == await store.runs_to_advance(10)


@pytest.mark.parametrize("state", [JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED])
async def test_a_queued_run_with_a_job_that_moved_is_to_be_advanced(store: Store, state: JobState) -> None:
    """It missed the start of its first job."""
    await run_of(store, 1, a_job_in(state), a_job_in(JobState.QUEUED))

    assert (a_run_id(1),) == await store.runs_to_advance(10)


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.CANCEL_REQUESTED, JobState.CANCELED, JobState.SKIPPED])
async def test_a_queued_run_waits_while_no_job_has_started(store: Store, state: JobState) -> None:
    """What would not move it must not be found, or it would be found for ever."""
    await run_of(store, 1, a_job_in(state), a_job_in(JobState.QUEUED))

    assert await store.runs_to_advance(10) == ()


@pytest.mark.parametrize(
    ("state", "is_found"),
    [(JobState.QUEUED, True), (JobState.RUNNING, True), (JobState.CANCEL_REQUESTED, False)],
)
async def test_a_cancel_that_did_not_reach_a_job_is_to_be_advanced(
    store: Store, state: JobState, is_found: bool
) -> None:
    """A job that was told, or that is over, needs nothing more."""
    await run_of(store, 1, a_job_in(state), a_job_in(JobState.SKIPPED))
    run = await store.load_run(a_run_id(1))
    await store.commit([save_run(stepped(run, runs.RequestCancel(reason=EndReason.USER_CANCELED)))])

    assert ((a_run_id(1),) if is_found else ()) == await store.runs_to_advance(10)


async def test_a_run_that_is_over_or_has_no_jobs_is_not_to_be_advanced(store: Store) -> None:
    """Nothing can follow the end, and planning has a wake-up of its own."""
    await run_of(store, 1, a_job_in(JobState.SUCCEEDED))
    run = await store.load_run(a_run_id(1))
    assert run is not None
    seen = {run.jobs[0].id: runs.JobSeen(JobState.SUCCEEDED)}
    await store.commit([save_run(stepped(run, runs.Advance(jobs=seen))), save_run(a_created_run(2))])

    assert await store.runs_to_advance(10) == ()


async def test_runs_to_advance_are_limited(store: Store) -> None:
    """A backlog is worked off in portions."""
    for number in range(3):
        await run_of(store, number, a_job_in(JobState.SKIPPED))

    assert (a_run_id(0), a_run_id(1)) == await store.runs_to_advance(2)


async def test_older_runs_of_a_stream_are_superseded_by_the_newest(store: Store) -> None:
    """Only of the same stream and repository, only live ones, and only without a cancel under way."""
    await store.commit([SaveRepo(repo=a_repo()), SaveRepo(repo=a_repo(id="repo_2", name="other"))])
    planned = a_planned_run(3, (a_created_job(a_run_id(3)),))
    for number in (1, 2, 5):
        await store.commit([save_run(a_created_run(number))])
    await store.commit(planned)
    queued = await store.load_run(a_run_id(3))
    await store.commit([save_run(stepped(queued, runs.RequestCancel(reason=EndReason.USER_CANCELED)))])
    await store.commit([save_run(a_created_run(6, stream=""))])
    await store.commit([save_run(a_created_run(7, stream=""))])
    await store.commit([save_run(a_created_run(8, stream="branch:other"))])
    await store.commit([save_run(a_created_run(9, repo_id="repo_2"))])
    over = a_created_run(4)
    await store.commit([save_run(over)])
    await store.commit([save_run(stepped(over.state, runs.RequestCancel(reason=EndReason.USER_CANCELED)))])

    assert ((a_run_id(1), a_run_id(5)), (a_run_id(2), a_run_id(5))) == await store.superseded_runs(10)
    assert ((a_run_id(1), a_run_id(5)),) == await store.superseded_runs(1)


async def test_a_repository_may_keep_all_its_runs(store: Store) -> None:
    """Superseding is a repository's choice."""
    await store.commit([SaveRepo(repo=a_repo(is_superseding=False))])
    for number in (1, 2):
        await store.commit([save_run(a_created_run(number))])

    assert await store.superseded_runs(10) == ()


async def test_live_runs_of_a_stream_come_oldest_first(store: Store) -> None:
    """Those that ended, and other streams, are left out."""
    over = a_created_run(2)
    for number in (3, 1):
        await store.commit([save_run(a_created_run(number))])
    await store.commit([save_run(over), save_run(a_created_run(4, stream="pr:1"))])
    await store.commit([save_run(stepped(over.state, runs.RequestCancel(reason=EndReason.USER_CANCELED)))])

    assert (a_run_id(1), a_run_id(3)) == await store.live_runs_of_stream("repo_1", "branch:main")


async def test_the_run_before_is_the_newest_older_one_of_its_stream_that_ended_by_itself(store: Store) -> None:
    """Whether a success is a recovery: canceled runs, live ones, newer ones and other branches do not tell."""

    async def ended(number: int, command: object, **fields: object) -> None:
        run = a_created_run(number, **fields)
        await store.commit([save_run(run)])
        run = stepped(run.state, runs.StartPlanning())
        await store.commit([save_run(run)])
        await store.commit([save_run(stepped(run.state, command))])

    failing, canceling = runs.FailPlan(text="no"), runs.RequestCancel(reason=EndReason.USER_CANCELED)
    await ended(1, failing)
    await ended(2, failing)
    await ended(3, canceling)
    await ended(4, failing, stream="branch:other")
    await ended(5, failing, repo_id="repo_2")
    await store.commit([save_run(a_created_run(6))])
    await store.commit([save_run(a_created_run(7))])
    await ended(8, failing, stream="")
    await ended(9, failing, stream="")

    before = await store.run_before(a_run_id(7))

    assert before is not None
    assert (a_run_id(2), RunState.FAILED) == (before.id, before.state)
    assert [await store.run_before(a_run_id(number)) for number in (1, 4, 9, 99)] == [None] * 4


async def test_a_run_that_another_delivery_found_is_not_superseded(store: Store) -> None:
    """The same commit pushed to a second branch: that branch has no other result than this run's."""
    await store.commit([SaveRepo(repo=a_repo())])
    for number in (1, 2, 3):
        await store.commit([save_run(a_created_run(number))])
    await store.commit([a_delivery(delivery_id="second", run_id=a_run_id(1), is_duplicate=True)])
    await store.commit([a_delivery(delivery_id="first", run_id=a_run_id(2))])

    assert ((a_run_id(2), a_run_id(3)),) == await store.superseded_runs(10)
    assert (a_run_id(2), a_run_id(3)) == await store.live_runs_of_stream("repo_1", "branch:main")
