"""Concurrency groups: one job of a group with a runner at a time, whatever gets lost, crashes or starts anew."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from deltaci.domain.states import JobState, WaitingReason
from deltaci.gateway.views import whole_run
from deltaci.invariants.verify import verify
from deltaci.orchestrator.messages import Gone, Queued
from deltaci.orchestrator.paths import DISPATCH
from deltaci.store.memory import MemoryStore
from deltaci.store.port import QueuedJob
from deltaci.store.sqlite import SqliteStore
from protocol import messages as wire
from tests.orchestrator.support import ME, ManualClock, Stage, a_job, staged

pytestmark = pytest.mark.anyio

TWO = (a_job("first", concurrency="deploy", priority=-1), a_job("second", concurrency="deploy"))


async def waiting_of(stage: Stage, run_id: str) -> dict[str, Any]:
    view = await whole_run(await stage.orchestrator.run(run_id), stage.store, stage.orchestrator)
    return {job["name"]: (job["waiting_reason"], job["waiting_detail"]) for job in view["jobs"]}


async def held_names(stage: Stage) -> list[str]:
    loaded = [await stage.store.load_job(job.job_id) for job in await stage.store.held_jobs()]
    return [one[0].name for one in loaded if one is not None]


async def finish(stage: Stage, runner: Any, lease: wire.LeaseGranted) -> None:
    assert isinstance(await stage.say(runner, wire.AckLease, lease), wire.LeaseAcked)
    assert isinstance(await stage.say(runner, wire.Complete, lease, exit_code=0), wire.CompleteAck)


async def test_the_second_job_of_a_group_waits_for_the_first_and_says_so() -> None:
    """A free runner is not enough; when the first is over, the second gets it."""
    async with staged(MemoryStore(), *TWO) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=9)

        (first,) = await stage.lease(runner, slots=9)
        assert first.job.name == "first"
        assert await stage.lease(runner, slots=9, wait_ms=0) == ()
        assert (await waiting_of(stage, run_id))["second"] == (WaitingReason.CONCURRENCY, "deploy")
        await finish(stage, runner, first)
        (second,) = await stage.lease(runner, slots=9)

        assert second.job.name == "second"
        await finish(stage, runner, second)
        await stage.run_until(run_id, "SUCCEEDED")
        assert (await verify(stage.store)).violations == ()


async def test_jobs_of_two_runs_and_two_branches_share_a_group() -> None:
    """It is the repository's, not the run's: two pushes do not deploy at the same time."""
    async with staged(MemoryStore(), a_job(concurrency="deploy")) as stage:
        runs = [await stage.push(sha * 40, branch=sha) for sha in "ab"]
        for run_id in runs:
            await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=9)

        (first,) = await stage.lease(runner, slots=9)

        assert first.run_id == runs[0]
        assert (await waiting_of(stage, runs[1]))["test"] == (WaitingReason.CONCURRENCY, "deploy")


async def test_a_job_whose_lease_is_lost_frees_its_group() -> None:
    """A runner that died keeps nobody waiting for ever."""
    async with staged(MemoryStore(), *TWO, ack_within_ms=30_000) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=9)
        (lost,) = await stage.lease(runner)

        stage.clock.advance(30_001)
        await stage.job_until(lost.job_id, "QUEUED")
        (second,) = await stage.lease(runner, slots=9)

        assert second.job_id != lost.job_id
        stage.clock.advance(10_000)  # whatever the backoff of the first is
        assert await stage.lease(runner, slots=9, wait_ms=0) == ()
        assert (await verify(stage.store)).violations == ()


async def test_a_canceled_job_holds_its_group_until_its_runner_obeyed() -> None:
    """While it cleans up, the next one must not begin."""
    async with staged(MemoryStore(), a_job(concurrency="deploy")) as stage:
        first, second = [await stage.push(sha * 40, branch=sha) for sha in "ab"]
        await stage.run_until(second, "QUEUED")
        runner = await stage.runner(slots=9)
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)

        await stage.orchestrator.cancel(first, ME)
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")
        assert await stage.lease(runner, slots=9, wait_ms=0) == ()
        await stage.say(runner, wire.CancelAck, lease)
        (next_one,) = await stage.lease(runner)

        assert next_one.run_id == second


async def test_a_grant_that_dispatch_should_not_have_offered_is_refused() -> None:
    """A notice that lied: the store keeps the second lease out, and dispatch learns who holds the group."""
    async with staged(MemoryStore(), *TWO, reconcile_every_ms=3_600_000) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=9)
        (first,) = await stage.lease(runner)

        stage.orchestrator.ports.tell(DISPATCH, Gone(job_id=first.job_id))
        assert await stage.lease(runner, wait_ms=200) == ()
        assert await held_names(stage) == ["first"]
        assert ("GrantLease", "illegal_move") in stage.witness.refusals
        assert stage.orchestrator.is_group_held(stage.repo.id, "deploy")
        await finish(stage, runner, first)
        (second,) = await stage.lease(runner)

        assert second.job.name == "second"


async def test_an_offer_that_was_taken_back_after_it_was_stored_frees_nothing() -> None:
    """Dispatch hears that the job is queued again while its lease stands: the store knows better."""
    async with staged(MemoryStore(), *TWO, reconcile_every_ms=3_600_000) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=9)
        queued = {job.job_id: job for job in await stage.store.queued_jobs()}
        (first,) = await stage.lease(runner)

        stage.orchestrator.ports.tell(DISPATCH, Queued(jobs=(queued[first.job_id],)))
        for _ in range(3):
            assert await stage.lease(runner, slots=9, wait_ms=50) == ()

        assert await held_names(stage) == ["first"]


async def test_a_lost_notice_of_an_end_is_found_and_the_group_goes_on() -> None:
    """Dispatch believes that a job holds its group which is over: the reconciler's look mends it."""
    async with staged(MemoryStore(), *TWO) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=9)
        (first,) = await stage.lease(runner)
        told = stage.orchestrator.ports.tell
        await finish(stage, runner, first)
        ghost = QueuedJob(
            job_id=first.job_id, repo_id=stage.repo.id, labels=(), priority=0, queued_at_ms=0, not_before_ms=0
        )

        told(DISPATCH, Queued(jobs=(ghost,)))
        with anyio.fail_after(10):
            (second,) = await stage.lease(runner, slots=9, wait_ms=5_000)

        assert second.job.name == "second"


@pytest.mark.slow
async def test_a_restart_neither_violates_nor_forgets_a_group(tmp_path: Path) -> None:
    """What holds a group is in the rows of the jobs: the next life begins with it held, and frees it at the end."""
    clock = ManualClock()
    async with SqliteStore.open(tmp_path / "deltaci.db") as store, staged(store, *TWO, clock=clock) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        (first,) = await stage.lease(await stage.runner(slots=9))

    async with SqliteStore.open(tmp_path / "deltaci.db") as store, staged(store, *TWO, clock=clock, seed=2) as stage:
        runner = await stage.runner(slots=9)
        assert await stage.lease(runner, slots=9, wait_ms=0) == ()
        assert (await waiting_of(stage, run_id))["second"] == (WaitingReason.CONCURRENCY, "deploy")
        await finish(stage, runner, first)
        (second,) = await stage.lease(runner, slots=9)
        await finish(stage, runner, second)

        assert (await stage.job_until(second.job_id, "SUCCEEDED")).state is JobState.SUCCEEDED
        assert (await verify(store)).violations == ()
