"""What is owed is delivered at least once, whoever fails meanwhile, and nobody is flooded with it."""

import errno
from typing import Any

import anyio
import pytest

from deltaci.domain.effects import ReportRun
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable, StoreUnavailable
from deltaci.domain.run import Run
from deltaci.orchestrator.messages import Wake
from deltaci.orchestrator.paths import OUTBOX
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import Owe, Postpone, Settle
from tests.orchestrator.faults import FaultyStore, nothing_owed, until
from tests.orchestrator.support import Stage, a_job, a_repo, staged

REPORTING = a_repo(report_to="/srv/results")


async def an_ended_run(stage: Stage) -> str:
    run_id = await stage.push()
    await stage.run_until(run_id, "SUCCEEDED")
    await nothing_owed(stage.store)
    return run_id


@pytest.mark.anyio
async def test_what_is_owed_to_nobody_is_not_owed() -> None:
    """A repository that reports nowhere costs no outbox rows for reports."""
    store = FaultyStore(MemoryStore())
    async with staged(store) as stage:
        await an_ended_run(stage)

        assert [owe for owe in store.writes(Owe) if isinstance(owe.effect, ReportRun)] == []
        assert stage.reporter.reported == []


@pytest.mark.anyio
async def test_the_last_report_comes_after_the_last_change() -> None:
    """Receivers read the committed state: a report under way while the state changes is followed by another one."""
    store = FaultyStore(MemoryStore())
    states: list[str] = []
    async with staged(store, repo=REPORTING) as stage:

        async def report(run_id: str) -> None:
            run = await store.load_run(run_id)
            assert run is not None
            await anyio.sleep(0.01)
            states.append(run.state)

        stage.reporter.report = report  # type: ignore[method-assign]
        await an_ended_run(stage)

    assert states[-1] == "SUCCEEDED"


@pytest.mark.anyio
async def test_an_effect_owed_anew_while_it_is_delivered_is_delivered_again() -> None:
    """The generation tells a debt from its successor: settling the old one does not take the new one out."""
    store = FaultyStore(MemoryStore())
    async with staged(store, repo=REPORTING) as stage:
        run_id = await an_ended_run(stage)
        entered, leave, calls = anyio.Event(), anyio.Event(), []

        async def report(run_id: str) -> None:
            calls.append(run_id)
            entered.set()
            await leave.wait()

        stage.reporter.report = report  # type: ignore[method-assign]
        await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        with anyio.fail_after(5):
            await entered.wait()
        await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        await anyio.sleep(0.02)
        assert len(calls) == 1
        leave.set()

        await until(lambda: len(calls) == 2)
        await nothing_owed(store)


@pytest.mark.anyio
async def test_a_refused_report_stays_visible_and_is_not_tried_again() -> None:
    """The forge said no for good: the row stays with the reason until the state changes again."""
    store = FaultyStore(MemoryStore())
    async with staged(store, repo=REPORTING) as stage:
        run_id = await an_ended_run(stage)
        stage.reporter.failures, tried = [ForgeRejected("the token may not write statuses")], len(store.committed)

        await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        await until(lambda: any(one.is_refused for one in store.writes(Postpone)))
        stage.clock.advance(3_600_000)
        await anyio.sleep(0.03)

        assert stage.reporter.failures == []
        assert (await store.counts())["outbox"].get("refused") == 1
        refusals = [one for one in store.writes(Postpone) if one.is_refused]
        assert [one.error for one in refusals] == ["the token may not write statuses"]
        assert len(store.committed) > tried
        assert ("ReportRun", "forge_rejected") in stage.witness.refusals
        await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        await nothing_owed(store)
        assert (await store.counts())["outbox"].get("refused", 0) == 0


@pytest.mark.anyio
async def test_a_forge_that_asks_to_wait_is_left_alone_for_that_long() -> None:
    """retry_after_ms is a promise to the forge."""
    store = FaultyStore(MemoryStore())
    async with staged(store, repo=REPORTING) as stage:
        run_id = await an_ended_run(stage)
        before = len(stage.reporter.reported)
        stage.reporter.failures = [ForgeUnavailable("rate limit", retry_after_ms=60_000)]

        await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        await until(lambda: store.writes(Postpone))
        stage.clock.advance(59_999)
        await anyio.sleep(0.03)
        assert len(stage.reporter.reported) == before
        stage.clock.advance(1)

        await until(lambda: len(stage.reporter.reported) == before + 1)


@pytest.mark.anyio
async def test_the_wait_between_tries_doubles_up_to_its_bound() -> None:
    """1, 2, 4, ... times effect_retry_first_ms, at most effect_retry_max_ms; any exception is a reason to try again."""
    store = FaultyStore(MemoryStore())
    policy = {"effect_retry_first_ms": 10, "effect_retry_max_ms": 50}
    async with staged(store, repo=REPORTING, **policy) as stage:
        run_id = await an_ended_run(stage)
        stage.reporter.failures = [OSError("reset"), ForgeUnavailable("502"), TimeoutError(), ValueError("a bug")]
        before = len(stage.reporter.reported)

        await store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        waits = []
        for tries in range(4):
            await until(lambda tries=tries: len(store.writes(Postpone)) == tries + 1)
            waits.append(store.writes(Postpone)[-1].due_at_ms - stage.clock.now_ms())
            stage.clock.advance(waits[-1])

        await until(lambda: len(stage.reporter.reported) == before + 1)
        assert waits == [10, 20, 40, 50]


@pytest.mark.anyio
async def test_a_crash_between_delivery_and_settling_repeats_the_delivery() -> None:
    """At least once: what was delivered and could not be settled before the end is delivered after the next start."""
    store = FaultyStore(MemoryStore())
    real_commit = store._store.commit

    async def unsettling(writes: Any) -> None:
        if any(isinstance(write, Settle | Postpone) and write.key.startswith("report") for write in writes):
            raise StoreUnavailable("the process is killed here")
        await real_commit(writes)

    store._store.commit = unsettling  # type: ignore[method-assign]
    async with staged(store, repo=REPORTING) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "SUCCEEDED")
        await until(lambda: stage.reporter.reported)
    store._store.commit = real_commit  # type: ignore[method-assign]

    async with staged(store, repo=REPORTING) as stage:
        await nothing_owed(store)

        assert stage.reporter.reported == [run_id]


@pytest.mark.anyio
async def test_deliveries_are_not_repeated_in_a_hurry_while_the_disk_is_full() -> None:
    """A report that is delivered and cannot be settled is owed still; the forge must not be flooded with it."""
    store = FaultyStore(MemoryStore())
    async with staged(store, repo=REPORTING, effect_retry_first_ms=1_000) as stage:
        run_id = await an_ended_run(stage)
        before = len(stage.reporter.reported)

        store.is_full = True
        await store._store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        await anyio.sleep(0.1)

        assert len(stage.reporter.reported) - before == 1


@pytest.mark.anyio
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
async def test_what_this_machine_lacks_for_a_while_fails_no_plan(code: int) -> None:
    """However often it is tried: nothing is wrong with the commit."""
    policy = {"plan_tries_max": 2, "effect_retry_first_ms": 1, "effect_retry_max_ms": 1}
    async with staged(MemoryStore(), a_job(), **policy) as stage:
        stage.planner.failures = [OSError(code, "not now")] * 10
        run_id = await stage.push()
        while stage.planner.failures:
            stage.clock.advance(1)
            await anyio.sleep(0.005)

        stage.clock.advance(1)
        assert (await stage.run_until(run_id, "QUEUED", "FAILED")).state == "QUEUED"


@pytest.mark.anyio
async def test_slow_plans_do_not_hold_up_reports() -> None:
    """Each kind of effect has places of its own."""
    async with staged(MemoryStore(), repo=REPORTING) as stage:
        release = anyio.Event()

        async def plan(run: Run, repo: Any) -> Any:
            await release.wait()

        stage.planner.plan = plan  # type: ignore[method-assign]
        run_ids = [await stage.push(sha=f"{number:040x}", branch=f"b{number}") for number in range(6)]

        await until(lambda: set(run_ids) <= set(stage.reporter.reported))
        release.set()


@pytest.mark.anyio
async def test_a_failed_attempt_is_explained_and_reported_again() -> None:
    """The explanation comes after the end, never in its way, and the forge hears of it."""
    async with staged(MemoryStore(), a_job(), repo=REPORTING) as stage:
        run_id = await stage.push()
        lease = await stage.execute(await stage.runner(), exit_code=1)
        await stage.run_until(run_id, "FAILED")
        await nothing_owed(stage.store)

        (explanation,) = await stage.store.explanations_of_run(run_id)
        assert (explanation.job_id, explanation.attempt) == (lease.job_id, 1)
        assert stage.analyzer.asked == [(lease.job_id, 1)]


@pytest.mark.anyio
async def test_a_crash_of_the_relay_delivers_nothing_twice_at_once() -> None:
    """Deliveries go on while the actor restarts; what is under way is not started a second time."""
    async with staged(MemoryStore(), repo=REPORTING) as stage:
        run_id = await an_ended_run(stage)
        entered, leave, calls = anyio.Event(), anyio.Event(), []

        async def report(run_id: str) -> None:
            calls.append(run_id)
            entered.set()
            await leave.wait()

        stage.reporter.report = report  # type: ignore[method-assign]
        await stage.store.commit((Owe(effect=ReportRun(run_id), due_at_ms=0),))
        with anyio.fail_after(5):
            await entered.wait()
        cell = stage.orchestrator.system.cells[OUTBOX]
        assert cell.actor is not None
        cell.actor.act = None  # the next message crashes it
        stage.orchestrator.system.ref(OUTBOX).tell(Wake())
        await until(lambda: cell.restarts == 1 and cell.is_restored)
        await anyio.sleep(0.03)
        assert calls == [run_id]
        leave.set()

        await nothing_owed(stage.store)
        assert calls == [run_id]
