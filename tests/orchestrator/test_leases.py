"""The right to execute an attempt: who has it, until when, and what becomes of whoever lost it."""

from typing import Any

import anyio
import pytest

from deltaci.domain.ids import hashed
from deltaci.domain.job import Job
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import Audit, Runner, SaveJob
from protocol import messages as wire
from tests.orchestrator.faults import FaultyStore, assert_sound, until
from tests.orchestrator.support import ManualClock, Stage, a_job, staged

TTL_MS = 120_000


async def held(stage: Stage, **fields: Any) -> tuple[Runner, wire.LeaseGranted]:
    """A job with a runner that acknowledged its lease."""
    await stage.push(**fields)
    runner = await stage.runner()
    (lease,) = await stage.lease(runner)
    assert isinstance(await stage.say(runner, wire.AckLease, lease), wire.LeaseAcked)
    return runner, lease


async def job_of(stage: Stage, lease: wire.LeaseGranted) -> Job:
    loaded = await stage.store.load_job(lease.job_id)
    assert loaded is not None
    return loaded[0]


async def ticked() -> None:
    """The timers had their turn."""
    await anyio.sleep(0.03)


@pytest.mark.anyio
async def test_a_grant_is_stored_before_the_runner_hears_of_it() -> None:
    """And only as a hash: the lease id is a secret that is never at rest."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        await stage.push()
        (lease,) = await stage.lease(await stage.runner())

        job = await job_of(stage, lease)
        assert job.attempts[0].lease is not None
        assert job.attempts[0].lease.token_hash == hashed(lease.lease_id)
        entries = [entry async for entry in stage.store.journal()]
        assert not any(lease.lease_id.encode() in entry.data for entry in entries)
        assert lease.lease_id not in repr(store.committed)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [wire.AckLease, wire.Heartbeat, wire.Complete, wire.CancelAck, wire.AppendLog])
async def test_only_the_holder_with_its_lease_and_attempt_is_heard(kind: Any) -> None:
    """Another runner with the right id, a wrong id, another attempt or another job change nothing but the audit."""
    fields = {"offset": 0, "data": b"x"} if kind is wire.AppendLog else {}
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job("a"), a_job("b")) as stage:
        runner, lease = await held(stage)
        thief = await stage.runner("thief")
        (other,) = await stage.lease(thief)
        before = await job_of(stage, lease)

        answers = [
            await stage.say(thief, kind, lease, **fields),
            await stage.say(runner, kind, lease, lease_id="0" * 32, **fields),
            await stage.say(runner, kind, lease, attempt=2, **fields),
            await stage.say(runner, kind, lease, job_id=other.job_id, **fields),
            await stage.say(runner, kind, lease, job_id=f"{lease.job_id}9", **fields),
        ]

        assert {type(answer) for answer in answers} == {wire.StaleLease}
        assert await job_of(stage, lease) == before
        assert len([one for one in store.writes(Audit) if one.type.startswith(kind.__name__)]) == 4


@pytest.mark.anyio
async def test_a_lease_that_is_not_acknowledged_goes_back_to_the_queue() -> None:
    """It uses up no retry: the runner never began."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, silent = await stage.push(), await stage.runner("silent")
        (lease,) = await stage.lease(silent)

        stage.clock.advance(lease.ack_within_ms - 1)
        await ticked()
        assert (await job_of(stage, lease)).state == "RUNNING"
        stage.clock.advance(1)
        await stage.job_until(lease.job_id, "QUEUED")

        assert isinstance(await stage.say(silent, wire.AckLease, lease), wire.StaleLease)
        assert (await stage.execute(await stage.runner("good"))).attempt == 2
        await stage.run_until(run_id, "SUCCEEDED")
        job = await job_of(stage, lease)
        assert [(one.state, one.end_reason) for one in job.attempts] == [
            ("LOST", "never_acknowledged"),
            ("SUCCEEDED", "succeeded"),
        ]


@pytest.mark.anyio
async def test_leases_that_nobody_acknowledges_have_a_bound() -> None:
    """A runner that takes and forgets must not keep a run for ever."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, silent = await stage.push(), await stage.runner("silent")

        for number in range(1, 6):
            (lease,) = await stage.lease(silent)
            assert lease.attempt == number
            stage.clock.advance(lease.ack_within_ms)
            await stage.job_until(lease.job_id, "QUEUED", "FAILED")

        assert (await stage.run_until(run_id, "FAILED")).end_reason == "jobs_failed"


@pytest.mark.anyio
async def test_heartbeats_cost_no_commit_until_half_of_the_ttl_is_used_up() -> None:
    """They live in memory; the stored deadline moves now and then."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        runner, lease = await held(stage)
        await stage.say(runner, wire.Heartbeat, lease)
        await stage.run_until(lease.run_id, "RUNNING")
        await ticked()
        before = store.commits

        for _ in range(100):
            stage.clock.advance(TTL_MS // 200)
            assert isinstance(await stage.say(runner, wire.Heartbeat, lease), wire.HeartbeatAck)
        assert store.commits == before
        stage.clock.advance(1)
        await stage.say(runner, wire.Heartbeat, lease)

        assert store.commits == before + 1
        job = await job_of(stage, lease)
        assert job.attempts[0].lease is not None
        assert job.attempts[0].lease.expires_at_ms == stage.clock.now_ms() + TTL_MS


@pytest.mark.anyio
async def test_a_silent_holder_loses_its_lease_after_one_ttl_and_not_before() -> None:
    """The next attempt waits for its backoff; the late result of the old one is refused."""
    async with staged(MemoryStore(), a_job()) as stage:
        runner, lease = await held(stage)
        stage.clock.advance(50_000)
        await stage.say(runner, wire.Heartbeat, lease)

        stage.clock.advance(TTL_MS - 1)
        await ticked()
        assert (await job_of(stage, lease)).state == "RUNNING"
        stage.clock.advance(1)
        job = await stage.job_until(lease.job_id, "QUEUED")

        assert job.attempts[0].end_reason == "runner_lost"
        assert job.attempts[1].not_before_ms > stage.clock.now_ms()
        late = await stage.say(runner, wire.Complete, lease, exit_code=0)
        assert isinstance(late, wire.StaleLease)
        assert await stage.lease(runner, wait_ms=0) == ()
        stage.clock.advance(1_000)
        (again,) = await stage.lease(runner)
        assert again.attempt == 2
        assert isinstance(await stage.say(runner, wire.Complete, lease, exit_code=0), wire.StaleLease)


@pytest.mark.anyio
async def test_lost_runners_have_a_bound() -> None:
    """Two retries for infrastructure; then the job fails and says why."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id, runner = await stage.push(), await stage.runner()

        for _ in range(3):
            (lease,) = await stage.lease(runner)
            await stage.say(runner, wire.AckLease, lease)
            stage.clock.advance(TTL_MS)
            await stage.job_until(lease.job_id, "QUEUED", "FAILED")
            stage.clock.advance(60_000)

        run = await stage.run_until(run_id, "FAILED")
        (job,) = (await stage.jobs(run.id)).values()
        assert job.end_reason == "runner_lost"
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_the_holder_of_a_lost_lease_is_told_at_once_if_it_listens() -> None:
    """Silence here is how one job ends up running twice."""
    async with staged(MemoryStore(), a_job()) as stage:
        await stage.push()
        runner = await stage.runner()
        pushed: list[Any] = []
        stage.orchestrator.hub.attach(runner.id, lambda message: bool(pushed.append(message)) or True)
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)

        stage.clock.advance(TTL_MS)
        await stage.job_until(lease.job_id, "QUEUED")

        await until(lambda: pushed)
        assert (type(pushed[0]), pushed[0].lease_id) == (wire.StaleLease, lease.lease_id)


# ---- results -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_repeated_result_gets_the_equal_answer_and_changes_nothing() -> None:
    """The runner resends until it hears a definite answer."""
    async with staged(MemoryStore(), a_job()) as stage:
        runner, lease = await held(stage)
        first = await stage.say(runner, wire.Complete, lease, exit_code=0, log_size=7)
        await stage.run_until(lease.run_id, "SUCCEEDED")
        before = await job_of(stage, lease)

        answers = [await stage.say(runner, wire.Complete, lease, exit_code=0, log_size=7) for _ in range(5)]

        assert isinstance(first, wire.CompleteAck)
        assert answers == [first] * 5
        assert await job_of(stage, lease) == before


@pytest.mark.anyio
async def test_another_result_of_the_same_attempt_is_refused_and_audited() -> None:
    """The first one counts; the second is a bug or a lie, and somebody should see it."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        runner, lease = await held(stage)
        await stage.say(runner, wire.Complete, lease, exit_code=1)

        answer = await stage.say(runner, wire.Complete, lease, exit_code=0)

        assert isinstance(answer, wire.Failure)
        assert (answer.code, answer.http_status) == ("conflicting_result", 409)
        assert (await job_of(stage, lease)).state == "FAILED"
        assert [one.details["why"] for one in store.writes(Audit) if one.type == "Complete"] == ["conflicting_result"]


@pytest.mark.anyio
async def test_many_results_at_once_are_one_result() -> None:
    """The same report over two connections, or from two threads of a runner that went mad."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        runner, lease = await held(stage)
        answers: list[Any] = []

        async def one(code: int) -> None:
            answers.append(await stage.say(runner, wire.Complete, lease, exit_code=code))

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(one, number % 2)

        accepted = [answer for answer in answers if isinstance(answer, wire.CompleteAck)]
        assert len(accepted) == 10
        assert len(set(accepted)) == 1
        await assert_sound(store)


@pytest.mark.anyio
async def test_a_result_repeated_after_a_restart_gets_the_same_answer() -> None:
    """For ever means: also from the next process."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        runner, lease = await held(stage)
        first = await stage.say(runner, wire.Complete, lease, exit_code=0)
        await stage.run_until(lease.run_id, "SUCCEEDED")

    async with staged(store, a_job(), seed=2) as stage:
        assert await stage.say(runner, wire.Complete, lease, exit_code=0) == first
        assert isinstance(await stage.say(runner, wire.Complete, lease, exit_code=1), wire.Failure)


# ---- restarts ----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("is_acknowledged", [True, False])
async def test_no_lease_ends_because_of_a_restart(is_acknowledged: bool) -> None:
    """The holder may have knocked all the time that nobody was at home: it gets its whole time again, and no more."""
    store, clock = MemoryStore(), ManualClock()
    async with staged(store, a_job(), clock=clock) as stage:
        await stage.push()
        runner = await stage.runner()
        (lease,) = await stage.lease(runner)
        if is_acknowledged:
            await stage.say(runner, wire.AckLease, lease)
    clock.advance(1_800_000)
    grace_ms = TTL_MS if is_acknowledged else lease.ack_within_ms

    async with staged(store, a_job(), clock=clock, seed=2) as stage:
        await ticked()
        clock.advance(grace_ms - 1)
        await ticked()
        assert (await job_of(stage, lease)).state == "RUNNING"
        clock.advance(1)

        job = await stage.job_until(lease.job_id, "QUEUED")
        assert job.attempts[0].end_reason == ("runner_lost" if is_acknowledged else "never_acknowledged")


@pytest.mark.anyio
async def test_a_holder_that_comes_back_after_a_restart_goes_on() -> None:
    """Acknowledge, heartbeat, log and result: the new process knows the lease by its hash."""
    store, clock = MemoryStore(), ManualClock()
    async with staged(store, a_job(), clock=clock) as stage:
        await stage.push()
        runner = await stage.runner()
        (lease,) = await stage.lease(runner)
    clock.advance(600_000)

    async with staged(store, a_job(), clock=clock, seed=2) as stage:
        assert isinstance(await stage.say(runner, wire.AckLease, lease), wire.LeaseAcked)
        assert isinstance(await stage.say(runner, wire.Heartbeat, lease), wire.HeartbeatAck)
        assert isinstance(await stage.say(runner, wire.AppendLog, lease, offset=0, data=b"hi"), wire.LogAck)
        assert isinstance(await stage.say(runner, wire.Complete, lease, exit_code=0), wire.CompleteAck)
        await stage.run_until(lease.run_id, "SUCCEEDED")


@pytest.mark.anyio
async def test_an_idle_actor_of_a_held_job_stays_and_its_lease_ends_in_time() -> None:
    """Dropped and loaded again, it would give a dead runner another TTL, again and again."""
    async with staged(MemoryStore(), a_job(), passivate_after_ms=1) as stage:
        _, lease = await held(stage)
        path = f"/orchestrator/runs/{lease.run_id}/jobs/{lease.job_id}"
        system = stage.orchestrator.system

        for _ in range(3):
            system._start_sweep()
            await ticked()
        assert path in system.cells
        stage.clock.advance(TTL_MS)

        await stage.job_until(lease.job_id, "QUEUED")
        for _ in range(3):
            system._start_sweep()
            await ticked()
        assert path not in system.cells


@pytest.mark.anyio
async def test_the_grant_is_the_only_write_of_a_lease() -> None:
    """Dispatch to durable lease is one commit."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        run_id, runner = await stage.push(), await stage.runner()
        await stage.run_until(run_id, "QUEUED")
        await ticked()
        before = len(store.committed)

        (lease,) = await stage.lease(runner)

        saved = [write for writes in store.committed[before:] for write in writes if isinstance(write, SaveJob)]
        assert [write.job.id for write in saved] == [lease.job_id]
