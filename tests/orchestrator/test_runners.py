"""Runners that ask, wait, hang up and come back: no job gets lost between dispatch and a runner."""

from typing import Any

import anyio
import pytest

from deltaci.domain.errors import StoreUnavailable
from deltaci.orchestrator.messages import Held
from deltaci.orchestrator.paths import DISPATCH
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.faults import FaultyStore, nodes, until
from tests.orchestrator.support import a_job, a_repo, staged

SLOW = {"reconcile_every_ms": 60_000}  # the reconciler must not be what helps


@pytest.mark.anyio
async def test_a_runner_that_does_not_want_to_wait_gets_what_is_queued() -> None:
    """A poll with wait_ms 0, the protocol's default, is answered after dispatch has looked, not before."""
    async with staged(MemoryStore(), a_job(), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner()

        assert len(await stage.lease(runner, wait_ms=0)) == 1
        assert await stage.lease(runner, wait_ms=0) == ()


@pytest.mark.anyio
async def test_a_runner_gets_as_many_jobs_as_it_has_slots_for() -> None:
    """One answer may hold several leases, each of another job."""
    async with staged(MemoryStore(), *(a_job(f"j{number}") for number in range(5)), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=3)

        leases = await stage.lease(runner, slots=3)

        assert len({lease.job_id for lease in leases}) == 3
        assert len({lease.lease_id for lease in leases}) == 3


@pytest.mark.anyio
async def test_a_runner_that_waits_is_served_as_soon_as_a_job_is_queued() -> None:
    """Long polling: the answer comes with the job, not with the next poll."""
    async with staged(MemoryStore(), a_job(), **SLOW) as stage:
        runner = await stage.runner()
        leases: list[Any] = []

        async with anyio.create_task_group() as tasks:

            async def wait() -> None:
                leases.extend(await stage.lease(runner, wait_ms=5_000))

            tasks.start_soon(wait)
            await anyio.sleep(0.01)
            with anyio.fail_after(2):
                await stage.push()

        assert len(leases) == 1


@pytest.mark.anyio
async def test_a_runner_that_hung_up_swallows_no_job() -> None:
    """Its wish is withdrawn with its request; the next runner gets the job at once."""
    async with staged(MemoryStore(), a_job(), **SLOW) as stage:
        gone, here = await stage.runner("gone"), await stage.runner("here")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.lease, gone)
            await anyio.sleep(0.01)
            tasks.cancel_scope.cancel()

        await stage.push()

        assert len(await stage.lease(here)) == 1


@pytest.mark.anyio
async def test_a_job_offered_to_a_runner_that_hangs_up_is_offered_to_another() -> None:
    """Between the offer and the grant the connection broke: the job is not held by nobody."""
    async with staged(MemoryStore(), a_job(), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        gone, here = await stage.runner("gone"), await stage.runner("here")
        entered = anyio.Event()

        async def source(run_id: str) -> Any:
            entered.set()
            await anyio.sleep_forever()

        stage.orchestrator.desk._source = source  # type: ignore[method-assign]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stage.lease, gone)
            with anyio.fail_after(5):
                await entered.wait()
            tasks.cancel_scope.cancel()
        del stage.orchestrator.desk._source  # type: ignore[attr-defined]

        assert len(await stage.lease(here)) == 1


@pytest.mark.anyio
async def test_a_job_that_could_not_be_granted_is_offered_again_a_little_later() -> None:
    """Nobody knows whether the grant was stored; if not, the job must not stay with a runner that never heard of it."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job(), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner()

        store.is_full = True
        assert await stage.lease(runner, wait_ms=0) == ()
        store.is_full = False
        assert await stage.lease(runner, wait_ms=0) == ()
        stage.clock.advance(5_000)

        assert len(await stage.lease(runner, wait_ms=0)) == 1


@pytest.mark.anyio
async def test_one_grant_that_fails_takes_no_other_along() -> None:
    """The answer holds what was granted; the rest is offered again."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job("a"), a_job("b"), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=2)

        store.faults[store.commits + 1] = "before"
        leases = await stage.lease(runner, slots=2)

        assert len(leases) == 1


@pytest.mark.anyio
async def test_a_limit_holds_for_a_repository_that_was_added_while_running() -> None:
    """running_max is asked for with each job, not only at a start; and whoever looks is told that it is reached."""
    async with staged(MemoryStore(), a_job("a"), a_job("b"), repo=a_repo(running_max=1), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner(slots=5)

        (lease,) = await stage.lease(runner, slots=5)
        assert stage.orchestrator.is_at_limit(stage.repo.id)
        assert await stage.lease(runner, slots=5, wait_ms=0) == ()
        await stage.say(runner, wire.AckLease, lease)
        await stage.say(runner, wire.Complete, lease, exit_code=0)

        assert len(await stage.lease(runner, slots=5)) == 1
        assert not stage.orchestrator.is_at_limit("repo_of_nobody")


@pytest.mark.anyio
async def test_a_job_that_dispatch_believes_held_for_ever_is_found_out() -> None:
    """The end of a held job was told and got lost: a repository at its limit would wait for it for ever."""
    async with staged(MemoryStore(), a_job(), repo=a_repo(running_max=1)) as stage:
        stage.orchestrator.system.ref(DISPATCH).tell(Held(job_id="job_long_0", repo_id=stage.repo.id))
        await stage.push()

        assert len(await stage.lease(await stage.runner())) == 1
        assert "dispatch" in stage.witness.misses


@pytest.mark.anyio
async def test_a_full_mailbox_of_dispatch_does_not_end_the_process() -> None:
    """The pulse that wakes the keepers finds no room now and then; the next beat comes."""
    async with staged(MemoryStore(), a_job(), mailbox_size=5, **SLOW) as stage:
        actor = stage.orchestrator.system.cells[DISPATCH].actor
        assert actor is not None
        entered, leave = anyio.Event(), anyio.Event()
        real_act = actor.act

        async def act(message: Any) -> Any:
            entered.set()
            await leave.wait()
            return await real_act(message)

        actor.act = act
        with anyio.fail_after(5):
            await entered.wait()
        for number in range(5):
            stage.orchestrator.ports.tell(DISPATCH, Held(job_id=f"job_{number}_0", repo_id="r"))
        await anyio.sleep(0.03)
        leave.set()

        await stage.push()
        assert len(await stage.lease(await stage.runner())) == 1


@pytest.mark.anyio
async def test_dispatch_that_crashed_starts_from_what_is_stored() -> None:
    """Its queue is a copy; the supervision tree shows the restart."""
    async with staged(MemoryStore(), a_job("a"), a_job("b"), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner()
        await stage.lease(runner)
        stage.orchestrator.ports.tell(DISPATCH, Held(job_id="x", repo_id=[]))  # type: ignore[arg-type]  # a planted bug

        await until(lambda: nodes(stage.orchestrator.system.tree())[DISPATCH].restarts == 1)
        assert len(await stage.lease(runner)) == 1
        assert await stage.lease(runner, wait_ms=0) == ()


@pytest.mark.anyio
async def test_a_runner_of_the_same_token_and_name_is_the_same_runner() -> None:
    """It registers anew after each restart, with other labels perhaps; nobody else may speak for it."""
    async with staged(MemoryStore()) as stage:
        desk = stage.orchestrator.desk
        first, again = await stage.runner(), await stage.runner(labels=("gpu",))
        other, _ = await desk.register("tok_other", wire.Register(name="r1"))

        assert first.id == again.id != other.id
        assert (await desk.identify("tok_r", first.id)).labels == ("gpu",)
        with pytest.raises(Exception, match="with this token"):
            await desk.identify("tok_other", first.id)


@pytest.mark.anyio
async def test_a_lease_whose_source_cannot_be_read_is_not_granted() -> None:
    """What cannot be told to the runner must not be stored as its lease."""
    async with staged(MemoryStore(), a_job(), **SLOW) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        runner = await stage.runner()

        async def source(run_id: str) -> Any:
            raise StoreUnavailable

        stage.orchestrator.desk._source = source  # type: ignore[method-assign]
        assert await stage.lease(runner, wait_ms=0) == ()

        assert [job.state for job in (await stage.jobs(run_id)).values()] == ["QUEUED"]
