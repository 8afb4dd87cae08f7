"""How far a request reaches: a rerun into its branch, an absent repository into its run."""

import anyio
import pytest

from deltaci.domain.errors import ForgeUnavailable
from deltaci.domain.events import Trigger
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.plan import Cache
from deltaci.domain.states import EndReason
from deltaci.orchestrator.messages import Admit
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.support import ME, a_job, a_repo, staged


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


@pytest.mark.anyio
@pytest.mark.parametrize("is_fork", [True, False])
async def test_the_caches_of_a_fork_are_read_and_never_written_and_it_is_told_no_secret(is_fork: bool) -> None:
    """Keys repeat: what a stranger's code leaves under one would be unpacked by the next trusted job."""
    trigger = Trigger(
        kind="pull_request", ref="refs/pull/7/head", commit_sha="c" * 40, pr_number=7, is_fork=is_fork, stream="pr:7"
    )
    job = a_job(caches=(Cache(key="pip", paths=(".cache",)),))
    address = "https://forge.example/shop.git"
    repo = a_repo(clone_url="https://ci:token@forge.example/shop.git")
    async with staged(MemoryStore(), job, repo=repo) as stage:
        message = Admit(delivery_id="d", body_sha256="b", event="pull_request", trigger=trigger, ignored=None)
        await stage.orchestrator.admit(stage.repo.id, message)

        (lease,) = await stage.lease(await stage.runner())

        assert [cache.is_read_only for cache in lease.job.caches] == [is_fork]
        assert lease.job.is_trusted is not is_fork
        assert lease.job.clone_url == (address if is_fork else repo.clone_url)


@pytest.mark.anyio
async def test_a_runner_that_waits_is_told_at_once_when_no_more_leases_are_given() -> None:
    """An orderly end must not wait for a long poll, nor cut it off; holders are served to the last moment."""
    async with staged(MemoryStore(), a_job()) as stage:
        holder, waiting = await stage.runner("holder"), await stage.runner("waiting")
        await stage.push()
        (lease,) = await stage.lease(holder)
        answered: list[object] = []

        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:

                async def wait() -> None:
                    answered.append(await stage.lease(waiting, wait_ms=20_000))

                tasks.start_soon(wait)
                await anyio.wait_all_tasks_blocked()
                stage.orchestrator.desk.close()

        assert answered == [()]
        assert await stage.lease(waiting, wait_ms=20_000) == ()
        assert isinstance(await stage.say(holder, wire.AckLease, lease), wire.LeaseAcked)


@pytest.mark.anyio
async def test_a_push_does_not_cancel_the_run_that_a_second_branch_relies_on() -> None:
    """main is moved to the head of a feature branch, which then moves on: main's commit keeps its run."""
    async with staged(MemoryStore(), a_job()) as stage:
        shared = await stage.push("c" * 40, branch="feature")
        assert await stage.push("c" * 40, branch="main") == shared
        await stage.push("d" * 40, branch="feature")
        runner = await stage.runner()
        await stage.execute(runner)
        await stage.execute(runner)

        run = await stage.run_until(shared, "SUCCEEDED", "CANCELED")

        assert run.state == "SUCCEEDED"
