"""Why a job waits, as whoever looks at a run is told: one code for each cause."""

import pytest

from deltaci.gateway.views import whole_run
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.support import Stage, a_job, a_repo, staged


async def reason(stage: Stage, run_id: str, name: str = "test") -> tuple[str | None, str]:
    run = await stage.orchestrator.run(run_id)
    view = await whole_run(run, stage.store, stage.orchestrator)
    (job,) = (job for job in view["jobs"] if job["name"] == name)
    return job["waiting_reason"], job["waiting_detail"]


@pytest.mark.anyio
async def test_no_runner_is_online() -> None:
    """The first thing a newcomer forgets."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")

        assert await reason(stage, run_id) == ("no_runner_online", "")


@pytest.mark.anyio
async def test_no_runner_has_the_labels() -> None:
    """The labels that nobody has are named."""
    async with staged(MemoryStore(), a_job(labels=("linux", "gpu"))) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        await stage.runner(labels=("linux",))

        assert await reason(stage, run_id) == ("no_runner_with_labels", "gpu")


@pytest.mark.anyio
async def test_all_runners_are_busy() -> None:
    """Somebody could run it, and will."""
    async with staged(MemoryStore(), a_job("test"), a_job("other", priority=1)) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        await stage.lease(await stage.runner())

        assert await reason(stage, run_id) == ("runners_busy", "")


@pytest.mark.anyio
async def test_the_repository_is_at_its_limit() -> None:
    """More runners would not help."""
    async with staged(MemoryStore(), a_job("test"), a_job("other", priority=1), repo=a_repo(running_max=1)) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        await stage.lease(await stage.runner())

        assert await reason(stage, run_id) == ("repo_limit", "")


@pytest.mark.anyio
async def test_the_jobs_it_needs_are_not_over() -> None:
    """They are named, without those that are satisfied."""
    jobs = (a_job("a"), a_job("b"), a_job("test", needs=("a", "b")))
    async with staged(MemoryStore(), *jobs) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        assert await reason(stage, run_id) == ("needs", "a, b")

        await stage.execute(await stage.runner())

        assert await reason(stage, run_id) == ("needs", "b")


@pytest.mark.anyio
async def test_the_backoff_of_a_retry_is_not_over() -> None:
    """Until when is told."""
    async with staged(MemoryStore(), a_job(retries=1)) as stage:
        run_id = await stage.push()
        await stage.execute(await stage.runner(), exit_code=1)

        (job,) = (await stage.jobs(run_id)).values()
        assert await reason(stage, run_id) == ("retry_backoff", str(job.attempts[-1].not_before_ms))


@pytest.mark.anyio
async def test_a_job_that_runs_or_ended_waits_for_nothing() -> None:
    """No code at all."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, runner = await stage.push(), await stage.runner()
        (lease,) = await stage.lease(runner)
        assert await reason(stage, run_id) == (None, "")

        await stage.say(runner, wire.AckLease, lease)
        await stage.say(runner, wire.Complete, lease, exit_code=0)

        assert await reason(stage, run_id) == (None, "")
