"""How far a request reaches: a rerun into its branch, an absent repository into its run."""

import anyio
import pytest

from deltaci.domain.errors import ForgeUnavailable
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.states import EndReason
from deltaci.store.memory import MemoryStore
from tests.orchestrator.support import ME, a_job, staged


@pytest.mark.anyio
async def test_the_rerun_of_an_old_commit_leaves_the_newer_one_alone() -> None:
    """Whoever looks at yesterday's failure again does not want today's push canceled for it."""
    async with staged(MemoryStore(), a_job()) as stage:
        runner = await stage.runner()
        old = await stage.push("a" * 40)
        await stage.execute(runner, exit_code=1)
        await stage.run_until(old, "FAILED")
        new = await stage.push("b" * 40)
        await stage.run_until(new, "QUEUED")

        reply = await stage.orchestrator.rerun(old, ME, is_failed_only=False, key="k1")
        assert not hasattr(reply, "why")
        await stage.execute(runner)
        await stage.execute(runner)

        assert (await stage.run_until(new, "SUCCEEDED", "CANCELED")).state == "SUCCEEDED"
        latest = await stage.store.latest_run((await stage.orchestrator.run(old)).key)
        assert latest is not None
        assert (await stage.run_until(latest.run_id, "SUCCEEDED", "CANCELED")).state == "SUCCEEDED"


@pytest.mark.anyio
async def test_a_repository_out_of_reach_is_asked_again_before_its_run_fails() -> None:
    """A forge that restarts takes a minute; a planner with a bug will not mend itself."""
    async with staged(MemoryStore(), a_job(), fetch_tries_max=5, effect_retry_max_ms=1) as stage:
        stage.planner.failures = [ForgeUnavailable("no route") for _ in range(4)]
        with anyio.fail_after(10):
            run_id = await stage.push()
            while stage.planner.calls < 5:
                stage.clock.advance(2_000)
                await anyio.sleep(0.005)

        run = await stage.run_until(run_id, "QUEUED", "FAILED")

        assert run.state == "QUEUED"


@pytest.mark.anyio
async def test_a_repository_out_of_reach_for_good_fails_its_run_and_says_so() -> None:
    """The author of the change reads why there is no plan, and what was tried."""
    async with staged(MemoryStore(), a_job(), fetch_tries_max=3, effect_retry_max_ms=1) as stage:
        stage.planner.failures = [ForgeUnavailable("no route") for _ in range(10)]
        run_id = await stage.push()
        with anyio.fail_after(10):
            while stage.planner.calls < 3:
                stage.clock.advance(2_000)
                await anyio.sleep(0.005)

        run = await stage.run_until(run_id, "QUEUED", "FAILED")

        assert run.end_reason is EndReason.PLAN_FAILED
        assert run.text == "the repository was out of reach 3 times, the last time with: no route"


@pytest.mark.anyio
async def test_the_rerun_of_what_failed_is_refused_when_nothing_did() -> None:
    """A run attempt in which nothing runs would say SUCCEEDED and mean nothing."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id = await stage.push()
        await stage.execute(await stage.runner())
        await stage.run_until(run_id, "SUCCEEDED")

        answer = await stage.orchestrator.rerun(run_id, ME, is_failed_only=True, key="k1")

        assert isinstance(answer, Refusal)
        assert (answer.why, answer.at) == (Why.ILLEGAL_MOVE, "SUCCEEDED")
        assert "run all of them again" in answer.text
        assert [one.run.id for one in await stage.store.list_runs()] == [run_id]
