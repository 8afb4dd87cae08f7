"""The store fails at every commit in turn, for a while, or for good: what then becomes of a run, and of the process."""

import anyio
import pytest

from actors import Status
from deltaci.domain.errors import StoreUnavailable
from deltaci.orchestrator.paths import KEEPERS
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.faults import (
    Fault,
    FaultyStore,
    assert_sound,
    insistently,
    nodes,
    quarantined,
    work_until_over,
)
from tests.orchestrator.support import Stage, a_job, a_repo, staged

THREE = (a_job("build"), a_job("test", needs=("build",)), a_job("lint"))
COMMITS = 40


async def a_whole_run(stage: Stage) -> str:
    run_id = await insistently(stage.push)
    runner = await insistently(stage.runner)
    run = await work_until_over(stage, runner, run_id)
    assert run.state == "SUCCEEDED"
    return run_id


@pytest.mark.anyio
async def test_the_scenario_has_fewer_commits_than_are_made_to_fail() -> None:
    """Otherwise the tests below would leave the last ones out."""
    store = FaultyStore(MemoryStore())

    async with staged(store, *THREE, repo=a_repo(report_to="/srv/results")) as stage:
        await a_whole_run(stage)

    assert 15 < store.commits < COMMITS


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["before", "after", "conflict"])
@pytest.mark.parametrize("nth", range(2, COMMITS))
async def test_a_commit_that_fails_changes_no_result(nth: int, fault: Fault) -> None:
    """Whether it was stored or not: the clients ask again, the actors load again, and the run ends as without it."""
    store = FaultyStore(MemoryStore())
    store.faults[nth] = fault

    async with staged(store, *THREE, repo=a_repo(report_to="/srv/results")) as stage:
        run_id = await a_whole_run(stage)

        done = await stage.jobs(run_id)
        assert [job.state for job in done.values()] == ["SUCCEEDED"] * 3
        assert len(await store.list_runs()) == 1
        assert quarantined(stage) == []
        await assert_sound(store)


@pytest.mark.anyio
async def test_a_full_disk_is_waited_for() -> None:
    """No entity is quarantined and no keeper gives up for what is not their fault: it goes on when there is space."""
    store = FaultyStore(MemoryStore())
    async with staged(store, *THREE, repo=a_repo(report_to="/srv/results"), store_patience_ms=10_000) as stage:
        run_id, runner = await stage.push(), await stage.runner()
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)

        store.is_full = True
        for second in range(24):
            stage.clock.advance(5_000)
            with pytest.raises(StoreUnavailable):
                await stage.push(sha=f"{second:040x}", branch=f"b{second}")
            with pytest.raises(StoreUnavailable):
                await stage.say(runner, wire.Complete, lease, exit_code=0)
            await anyio.sleep(0.005)
        store.is_full = False

        assert quarantined(stage) == []
        run = await work_until_over(stage, runner, run_id)
        assert run.state == "SUCCEEDED"
        tree = nodes(stage.orchestrator.system.tree())
        assert [tree[path].restarts for path in KEEPERS] == [0] * len(KEEPERS)
        await assert_sound(store)


@pytest.mark.anyio
async def test_a_holder_that_knocks_while_the_disk_is_full_keeps_its_lease() -> None:
    """The store could not be written for most of a TTL: the silence was ours, not the runner's."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        await stage.push()
        runner = await stage.runner()
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)

        store.is_full = True
        for _ in range(7):
            stage.clock.advance(20_000)
            with pytest.raises(StoreUnavailable):
                await stage.say(runner, wire.Heartbeat, lease)
        store.is_full = False
        await anyio.sleep(0.02)

        assert isinstance(await stage.say(runner, wire.Heartbeat, lease), wire.HeartbeatAck)
        job = (await stage.jobs(lease.run_id))["test"]
        assert [attempt.state for attempt in job.attempts] == ["RUNNING"]


@pytest.mark.anyio
async def test_a_store_that_cannot_be_read_for_a_while_is_waited_for() -> None:
    """Shorter than patience: nobody restarts, and what was asked meanwhile was answered with an error."""
    store = FaultyStore(MemoryStore())
    async with staged(store, *THREE) as stage:
        run_id, runner = await stage.push(), await stage.runner()

        store.is_unreadable = True
        for _ in range(20):
            stage.clock.advance(1_000)
            await anyio.sleep(0.005)
        store.is_unreadable = False

        run = await work_until_over(stage, runner, run_id)
        assert run.state == "SUCCEEDED"
        tree = nodes(stage.orchestrator.system.tree())
        assert [tree[path].status for path in KEEPERS if tree[path].status is Status.QUARANTINED] == []
        assert [tree[path].restarts for path in KEEPERS] == [0] * len(KEEPERS)


@pytest.mark.anyio
async def test_a_store_that_cannot_be_read_any_more_ends_the_process() -> None:
    """After store_patience_ms the service manager shall start it anew: perhaps only this process has lost its disk."""
    store = FaultyStore(MemoryStore())

    async def life() -> None:
        async with staged(store, a_job()) as stage:
            await stage.push()
            store.is_unreadable = True
            await anyio.sleep(0.05)
            stage.clock.advance(stage.orchestrator.ports.policy.store_patience_ms)
            await anyio.sleep(5)

    with pytest.raises(StoreUnavailable, match="cannot be read"):
        await life()


@pytest.mark.anyio
async def test_a_store_that_knows_that_it_is_broken_ends_the_process_at_once() -> None:
    """After an I/O error nobody knows what is on disk: recover from it instead of hoping."""
    store = FaultyStore(MemoryStore())

    async def life() -> None:
        async with staged(store, a_job()):
            store.is_unreadable = store.is_broken = True
            await anyio.sleep(5)

    with pytest.raises(StoreUnavailable):
        await life()
