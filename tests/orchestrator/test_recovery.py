"""The process is killed before, in and after every commit, and started again on the same store: what was accepted ends.

A kill is simulated by a store handle that goes dead at the chosen commit, and a scope that is canceled there: whatever
a `finally` of the dead process still tries to write goes nowhere.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from deltaci.domain.errors import StoreUnavailable
from deltaci.store.engine import Inline
from deltaci.store.memory import MemoryStore
from deltaci.store.port import Store
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Write
from protocol import messages as wire
from tests.orchestrator.faults import assert_sound, insistently, quarantined, work_until_over
from tests.orchestrator.support import ManualClock, Stage, a_job, a_repo, staged

THREE = (a_job("build"), a_job("test", needs=("build",), retries=1), a_job("lint"))
COMMITS = 40
REPORTING = a_repo(report_to="/srv/results")


class Handle:
    """What one process sees of the store; it dies at the `nth` commit, before or after that is on disk."""

    def __init__(self, store: Store, nth: int, *, is_stored: bool) -> None:
        self._store = store
        self._left = nth
        self._is_stored = is_stored
        self.is_dead = False
        self.died = anyio.Event()

    async def commit(self, writes: Sequence[Write]) -> None:
        self._left -= 1
        if self._left == 0 and not self.is_dead:
            if self._is_stored:
                await self._store.commit(writes)
            self.is_dead = True
            self.died.set()
        if self.is_dead:
            await anyio.sleep_forever()
        await self._store.commit(writes)

    def __getattr__(self, name: str) -> Any:
        read = getattr(self._store, name)

        async def reading(*args: Any, **more: Any) -> Any:
            if self.is_dead:
                raise StoreUnavailable("this process is dead")
            return await read(*args, **more)

        return reading


async def until_killed(store: Store, nth: int, clock: ManualClock, *, is_stored: bool, seed: int = 1) -> bool:
    """One life of the process; False if it saw the end of the run before it was killed."""
    handle = Handle(store, nth, is_stored=is_stored)
    is_over = False
    with anyio.CancelScope() as life:
        async with anyio.create_task_group() as tasks:

            async def killer() -> None:
                await handle.died.wait()
                life.cancel()

            tasks.start_soon(killer)
            async with staged(handle, *THREE, repo=REPORTING, clock=clock, seed=seed) as stage:
                await a_whole_run(stage)
                is_over = True
            tasks.cancel_scope.cancel()
    return not is_over


async def a_whole_run(stage: Stage) -> str:
    run_id = await insistently(stage.push)
    runner = await insistently(stage.runner)
    run = await work_until_over(stage, runner, run_id)
    assert run.state == "SUCCEEDED"
    return run_id


@asynccontextmanager
async def opened(kind: str, path: Path) -> AsyncIterator[Store]:
    if kind == "memory":
        yield MemoryStore()
    else:
        async with SqliteStore.open(path / "deltaci.db", engine=Inline.open) as store:
            yield store


@pytest.mark.anyio
async def test_the_scenario_is_over_before_the_last_kill() -> None:
    """Otherwise the tests below would leave the last commits out."""
    assert not await until_killed(MemoryStore(), COMMITS, ManualClock(), is_stored=True)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("nth", range(2, COMMITS))
async def test_a_process_killed_at_a_commit_is_continued_by_the_next(nth: int, is_stored: bool) -> None:
    """The forge and the runners ask again; the run ends as without the kill, and everything is reported."""
    store, clock = MemoryStore(), ManualClock()
    await until_killed(store, nth, clock, is_stored=is_stored)

    async with staged(store, *THREE, repo=REPORTING, clock=clock, seed=1_000 + nth) as stage:
        run_id = await a_whole_run(stage)

        assert {str(job.state) for job in (await stage.jobs(run_id)).values()} == {"SUCCEEDED"}
        assert len(await store.list_runs()) == 1
        assert quarantined(stage) == []
        with anyio.fail_after(5):
            while await store.next_owed_at_ms() is not None:
                clock.advance(1_000)
                await anyio.sleep(0.005)
        await assert_sound(store)


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_process_killed_again_and_again_gets_there(kind: str, tmp_path: Path) -> None:
    """Each life lasts a few commits only."""
    async with opened(kind, tmp_path) as store:
        clock = ManualClock()
        for life in range(20):
            if not await until_killed(store, 3 + life % 4, clock, is_stored=life % 2 == 0, seed=life):
                break

        async with staged(store, *THREE, repo=REPORTING, clock=clock, seed=99) as stage:
            run_id = await a_whole_run(stage)

            assert len(await store.list_runs()) == 1
            for job in (await stage.jobs(run_id)).values():
                assert job.state == "SUCCEEDED"
            await assert_sound(store)


@pytest.mark.anyio
async def test_what_a_runner_finished_while_nobody_was_at_home_counts() -> None:
    """It resends its result until it hears a definite answer; the next process takes it."""
    store, clock = MemoryStore(), ManualClock()
    async with staged(store, a_job(), clock=clock) as stage:
        run_id = await stage.push()
        runner = await stage.runner()
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)
    clock.advance(900_000)

    async with staged(store, a_job(), clock=clock, seed=2) as stage:
        again = await stage.orchestrator.desk.identify("tok_r", runner.id)
        answer = await stage.say(again, wire.Complete, lease, exit_code=0)

        assert isinstance(answer, wire.CompleteAck)
        run = await stage.run_until(run_id, "SUCCEEDED")
        assert run.jobs[0].id == lease.job_id


@pytest.mark.anyio
async def test_leaving_in_good_order_handles_what_was_accepted() -> None:
    """A stop is no crash: nothing is left half done, and no actor crashes on the way out."""
    store = MemoryStore()
    async with staged(store, *THREE, repo=REPORTING) as stage:
        run_id = await stage.push()
        for number in range(20):
            await stage.push(f"{number:040x}", branch=f"b{number}")
        crashes: list[Any] = []
        stage.orchestrator.system.observer.crashed = lambda *args: crashes.append(args)  # type: ignore[method-assign]

    assert crashes == []
    async with staged(store, *THREE, repo=REPORTING, seed=2) as stage:
        assert (await work_until_over(stage, await stage.runner(), run_id)).state == "SUCCEEDED"
