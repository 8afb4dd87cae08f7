"""A cancel ends every run, whatever it was doing, and says so to whoever has to stop."""

from typing import Any

import anyio
import pytest

from deltaci.domain.errors import NotFound
from deltaci.orchestrator.messages import DoJob
from deltaci.orchestrator.repo_actor import IdempotencyConflict
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.faults import assert_sound, lose, until, work_until_over
from tests.orchestrator.support import ME, ManualClock, Stage, a_job, a_repo, staged

CANCEL_MS = 30_000


async def leased(stage: Stage, count: int) -> tuple[str, list[tuple[Any, wire.LeaseGranted]]]:
    """A run with `count` of its jobs acknowledged by a runner each."""
    run_id = await stage.push()
    await stage.run_until(run_id, "QUEUED")
    holders = []
    for number in range(count):
        runner = await stage.runner(f"r{number}")
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)
        holders.append((runner, lease))
    return run_id, holders


@pytest.mark.anyio
async def test_a_run_is_canceled_while_it_is_planned() -> None:
    """At once: nothing was started. The plan that comes later is refused and leaves no trace."""
    async with staged(MemoryStore(), a_job()) as stage:
        entered, leave, plan = anyio.Event(), anyio.Event(), stage.planner.plan

        async def slowly(*args: Any) -> Any:
            entered.set()
            await leave.wait()
            return await plan(*args)

        stage.planner.plan = slowly  # type: ignore[method-assign]
        run_id = await stage.push()
        with anyio.fail_after(5):
            await entered.wait()

        run = await stage.orchestrator.cancel(run_id, ME)
        leave.set()

        assert (run.state, run.end_reason) == ("CANCELED", "user_canceled")
        await anyio.sleep(0.03)
        assert await stage.store.jobs_of_run(run_id) == ()
        assert await stage.store.next_owed_at_ms() is None


@pytest.mark.anyio
async def test_a_run_is_canceled_before_it_is_planned() -> None:
    """In CREATED: all places of the planner are taken by others."""
    async with staged(MemoryStore(), a_job(), plans_at_once=1) as stage:
        leave, plan = anyio.Event(), stage.planner.plan

        async def slowly(*args: Any) -> Any:
            await leave.wait()
            return await plan(*args)

        stage.planner.plan = slowly  # type: ignore[method-assign]
        await stage.push(branch="first")
        run_id = await stage.push("b" * 40, branch="second")
        assert (await stage.orchestrator.run(run_id)).state == "CREATED"

        run = await stage.orchestrator.cancel(run_id, ME)

        assert run.state == "CANCELED"
        leave.set()


@pytest.mark.anyio
async def test_a_run_whose_jobs_wait_is_canceled_at_once() -> None:
    """Queued and blocked jobs end without anybody's help, and no runner gets them any more."""
    async with staged(MemoryStore(), a_job("a"), a_job("b", needs=("a",))) as stage:
        run_id, _ = await leased(stage, 0)

        await stage.orchestrator.cancel(run_id, ME)

        await stage.run_until(run_id, "CANCELED")
        assert {job.state for job in (await stage.jobs(run_id)).values()} == {"CANCELED"}
        assert await stage.lease(await stage.runner(), wait_ms=0) == ()


@pytest.mark.anyio
@pytest.mark.parametrize("count", [1, 3])
async def test_holders_hear_of_a_cancel_and_their_acknowledgements_end_the_run(count: int) -> None:
    """Over the channel at once, and with the next heartbeat; the jobs that waited end at once."""
    async with staged(MemoryStore(), *(a_job(f"j{number}") for number in range(4))) as stage:
        run_id, holders = await leased(stage, count)
        pushed: list[Any] = []
        stage.orchestrator.hub.attach(holders[0][0].id, lambda message: bool(pushed.append(message)) or True)

        run = await stage.orchestrator.cancel(run_id, ME)
        assert run.state == "CANCEL_REQUESTED"
        await until(lambda: pushed)
        assert (type(pushed[0]), pushed[0].lease_id) == (wire.CancelRequested, holders[0][1].lease_id)
        assert 0 < pushed[0].cancel_within_ms <= CANCEL_MS
        for runner, lease in holders:
            await stage.job_until(lease.job_id, "CANCEL_REQUESTED")
            heard = await stage.say(runner, wire.Heartbeat, lease)
            assert isinstance(heard, wire.HeartbeatAck)
            assert heard.is_cancel_requested
        assert (await stage.orchestrator.run(run_id)).state == "CANCEL_REQUESTED"
        for runner, lease in holders:
            first = await stage.say(runner, wire.CancelAck, lease)
            assert isinstance(first, wire.CompleteAck)
            assert await stage.say(runner, wire.CancelAck, lease) == first

        assert (await stage.run_until(run_id, "CANCELED")).end_reason == "user_canceled"
        assert {job.end_reason for job in (await stage.jobs(run_id)).values()} == {"user_canceled"}
        assert [type(message) for message in pushed] == [wire.CancelRequested], "who obeyed is not told to stop"
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_a_run_that_is_over_accepts_a_cancel_and_stays_as_it_is() -> None:
    """Asking again is harmless, also for what was canceled already."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id = await stage.push()
        await stage.execute(await stage.runner())
        over = await stage.run_until(run_id, "SUCCEEDED")

        assert await stage.orchestrator.cancel(run_id, ME) == over

        with pytest.raises(NotFound):
            await stage.orchestrator.cancel("run_nowhere", ME)


@pytest.mark.anyio
async def test_a_cancel_asked_for_twice_keeps_its_deadline() -> None:
    """Otherwise an impatient user would put off the forced end each time."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, _ = await leased(stage, 1)
        first = await stage.orchestrator.cancel(run_id, ME)

        stage.clock.advance(CANCEL_MS // 2)
        again = await stage.orchestrator.cancel(run_id, ME)

        assert first.cancel == again.cancel
        stage.clock.advance(CANCEL_MS // 2)
        await stage.run_until(run_id, "CANCELED")


@pytest.mark.anyio
async def test_a_holder_that_does_not_obey_is_cut_off_at_the_deadline() -> None:
    """Not a millisecond earlier; afterwards its lease is worth nothing."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)
        await stage.orchestrator.cancel(run_id, ME)
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")

        stage.clock.advance(CANCEL_MS - 1)
        await anyio.sleep(0.03)
        assert (await stage.orchestrator.run(run_id)).state == "CANCEL_REQUESTED"
        stage.clock.advance(1)

        await stage.run_until(run_id, "CANCELED")
        assert isinstance(await stage.say(runner, wire.Complete, lease, exit_code=0), wire.StaleLease)


@pytest.mark.anyio
async def test_the_deadline_of_a_cancel_outlives_a_restart() -> None:
    """It is stored with the cancel."""
    store, clock = MemoryStore(), ManualClock()
    async with staged(store, a_job(), clock=clock) as stage:
        run_id, _ = await leased(stage, 1)
        await stage.orchestrator.cancel(run_id, ME)
    clock.advance(CANCEL_MS)

    async with staged(store, a_job(), clock=clock, seed=2) as stage:
        assert (await stage.run_until(run_id, "CANCELED")).end_reason == "user_canceled"


@pytest.mark.anyio
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_a_result_that_crosses_a_cancel_ends_the_job_as_canceled(exit_code: int) -> None:
    """One wins, the same everywhere and after every repeat: what was asked for before it was over is canceled."""
    async with staged(MemoryStore(), a_job(retries=3)) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)
        await stage.orchestrator.cancel(run_id, ME)
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")

        answer = await stage.say(runner, wire.Complete, lease, exit_code=exit_code)

        assert isinstance(answer, wire.CompleteAck)
        assert answer.state == "CANCELED"
        await stage.run_until(run_id, "CANCELED")
        assert await stage.say(runner, wire.Complete, lease, exit_code=exit_code) == answer


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(12))
async def test_a_cancel_and_a_result_at_the_same_time_have_one_outcome(seed: int) -> None:
    """Whichever comes first: run, job, attempt and answer agree."""
    async with staged(MemoryStore(), a_job(), seed=seed) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)
        answers: list[Any] = []

        async def complete() -> None:
            for _ in range(seed % 6):
                await anyio.lowlevel.checkpoint()
            answers.append(await stage.say(runner, wire.Complete, lease, exit_code=0))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(complete)
            for _ in range(seed // 6):
                await anyio.lowlevel.checkpoint()
            await stage.orchestrator.cancel(run_id, ME)

        run = await stage.run_until(run_id, "SUCCEEDED", "CANCELED")
        (job,) = (await stage.jobs(run_id)).values()
        assert answers[0].state == job.state == job.attempts[0].state
        if job.state == "CANCELED":
            assert run.state == "CANCELED"
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_a_run_that_takes_too_long_is_stopped_as_timed_out() -> None:
    """Its timeout asks its jobs to stop like any cancel; the result says why."""
    async with staged(MemoryStore(), a_job("a"), a_job("b"), repo=a_repo(run_timeout_ms=60_000)) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)

        stage.clock.advance(60_000)
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")
        await stage.say(runner, wire.CancelAck, lease)

        run = await stage.run_until(run_id, "TIMED_OUT")
        assert run.end_reason == "run_timeout"


@pytest.mark.anyio
async def test_a_run_whose_plan_never_comes_is_stopped_as_timed_out() -> None:
    """No state is without its deadline."""
    async with staged(MemoryStore(), a_job(), repo=a_repo(run_timeout_ms=60_000)) as stage:

        async def never(*_: Any) -> Any:
            await anyio.sleep_forever()

        stage.planner.plan = never  # type: ignore[method-assign]
        run_id = await stage.push()
        await stage.run_until(run_id, "PLANNING")

        stage.clock.advance(60_000)

        assert (await stage.run_until(run_id, "TIMED_OUT")).end_reason == "run_timeout"


@pytest.mark.anyio
async def test_a_job_whose_runner_does_not_stop_it_in_time_is_stopped_by_the_server() -> None:
    """Some seconds after the runner should have: then it is asked to stop, and cut off if it does not."""
    async with staged(MemoryStore(), a_job(timeout_ms=60_000)) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)
        stage.clock.advance(89_999)
        await stage.say(runner, wire.Heartbeat, lease)
        await anyio.sleep(0.03)
        assert (await stage.jobs(run_id))["test"].state == "RUNNING"

        stage.clock.advance(1)
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")
        stage.clock.advance(CANCEL_MS)

        run = await stage.run_until(run_id, "TIMED_OUT")
        assert run.end_reason == "job_timeout"


@pytest.mark.anyio
async def test_a_runner_that_reports_a_timeout_uses_up_a_retry() -> None:
    """It is the user's failure; the budget is the job's own."""
    async with staged(MemoryStore(), a_job(retries=1)) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)

        await stage.say(runner, wire.Complete, lease, reason="job_timeout")

        assert (await stage.job_until(lease.job_id, "QUEUED")).attempts[0].state == "TIMED_OUT"
        assert (await work_until_over(stage, runner, run_id)).state == "SUCCEEDED"


@pytest.mark.anyio
async def test_a_cancel_repeated_under_its_key_gets_the_equal_answer() -> None:
    """Whoever did not hear the answer asks again, perhaps after the end; another request needs another key."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, ((runner, lease),) = await leased(stage, 1)

        first = await stage.orchestrator.cancel_once(run_id, ME, key="k")
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")
        await stage.say(runner, wire.CancelAck, lease)
        await stage.run_until(run_id, "CANCELED")

        assert await stage.orchestrator.cancel_once(run_id, ME, key="k") == first
        assert b"CANCEL_REQUESTED" in first.body
        with pytest.raises(IdempotencyConflict):
            await stage.orchestrator.cancel_once(run_id + "x", ME, key="k")


@pytest.mark.anyio
async def test_nothing_is_leased_after_a_cancel_that_has_not_reached_the_jobs() -> None:
    """The stored cancel counts, also while every message about it is lost: the job obeys it instead."""
    async with staged(MemoryStore(), a_job("a"), reconcile_every_ms=3_600_000) as stage:
        run_id, _ = await leased(stage, 0)
        lose(stage, lambda _, message: isinstance(message, DoJob))
        await stage.orchestrator.cancel(run_id, ME)

        leases = await stage.lease(await stage.runner(), wait_ms=0)

        assert leases == ()
        (job,) = (await stage.jobs(run_id)).values()
        assert (job.state, job.end_reason) == ("CANCELED", "user_canceled")
        assert (await stage.run_until(run_id, "CANCELED")).end_reason == "user_canceled"
        await assert_sound(stage.store)
