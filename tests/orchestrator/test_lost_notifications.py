"""Notifications between actors get lost: every one of a kind, or some by chance. Each run still comes to its end."""

import random
from typing import Any

import pytest

from deltaci.orchestrator import paths
from deltaci.orchestrator.messages import DoJob, DoRun, Due, Gone, Held, JobMoved, Queued, Supersede, Wake
from deltaci.store.memory import MemoryStore
from deltaci.store.port import QueuedJob
from tests.orchestrator.faults import assert_sound, insistently, lose, work_until_over
from tests.orchestrator.support import ME, a_job, a_repo, staged

DIAMOND = (
    a_job("build"),
    a_job("left", needs=("build",)),
    a_job("right", needs=("build",)),
    a_job("publish", needs=("left", "right")),
)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [JobMoved, Queued, Held, Gone, Supersede])
async def test_a_kind_of_notification_that_never_arrives_is_made_up_for(kind: type) -> None:
    """No run depends on a message in memory."""
    async with staged(MemoryStore(), *DIAMOND, repo=a_repo(running_max=1)) as stage:
        lose(stage, lambda _, message: isinstance(message, kind))
        run_id = await stage.push()

        run = await work_until_over(stage, await stage.runner(), run_id)

        assert run.state == "SUCCEEDED"
        await assert_sound(stage.store)


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(10))
async def test_any_notification_may_get_lost(seed: int) -> None:
    """Half of everything that is told and not asked, wake-ups of the keepers included."""
    async with staged(MemoryStore(), *DIAMOND, repo=a_repo(report_to="/srv/results", running_max=2)) as stage:
        chance = random.Random(seed)
        lose(stage, lambda *_: chance.random() < 0.5)
        run_id = await insistently(stage.push)
        runner = await stage.runner(slots=2)

        run = await work_until_over(stage, runner, run_id, exit_codes={"left": seed % 2})

        assert run.state == ("FAILED" if seed % 2 else "SUCCEEDED")
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_a_queued_job_is_found_also_where_a_late_notice_makes_the_counts_equal() -> None:
    """One queued job too many and one too few are the right number: whoever only counts never finds the lost one."""
    async with staged(MemoryStore(), a_job("a", labels=("a",)), a_job("b", labels=("b",))) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        done, lost = (await stage.jobs(run_id))["a"], (await stage.jobs(run_id))["b"]
        await stage.execute(await stage.runner("ra", labels=("a",)))
        await stage.job_until(done.id, "SUCCEEDED")
        dispatch = stage.orchestrator.system.ref(paths.DISPATCH)
        dispatch.tell(Gone(job_id=lost.id))  # as if it had never been told of
        dispatch.tell(Queued(jobs=(QueuedJob.of(done),)))

        granted = await stage.lease(await stage.runner("rb", labels=("b",)), wait_ms=10_000)

        assert [lease.job_id for lease in granted] == [lost.id]


@pytest.mark.anyio
async def test_a_cancel_whose_requests_to_the_jobs_get_lost_is_repeated() -> None:
    """Each job has to hear of it in the end."""
    async with staged(MemoryStore(), *DIAMOND) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        lost: list[Any] = []

        def first_four(_: str, message: Any) -> bool:
            is_lost = isinstance(message, DoJob) and len(lost) < 4
            if is_lost:
                lost.append(message)
            return is_lost

        lose(stage, first_four)
        await stage.orchestrator.cancel(run_id, ME)

        await stage.run_until(run_id, "CANCELED")
        assert len(lost) == 4


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [DoRun, Due, Wake])
async def test_what_is_told_again_and_again_may_get_lost_some_times(kind: type) -> None:
    """Deadlines, superseding cancels and wake-ups: each is found anew as long as it stands."""
    async with staged(MemoryStore(), a_job()) as stage:
        left = {kind: 6}

        def some(_: str, message: Any) -> bool:
            left[kind] -= isinstance(message, kind)
            return isinstance(message, kind) and left[kind] >= 0

        lose(stage, some)
        older = await stage.push()
        await stage.run_until(older, "QUEUED")
        await stage.lease(await stage.runner("silent"))
        stage.clock.advance(30_000)
        newer = await stage.push("b" * 40)

        runner = await stage.runner()
        assert (await work_until_over(stage, runner, newer)).state == "SUCCEEDED"
        assert (await work_until_over(stage, runner, older)).end_reason in ("superseded", "succeeded")
