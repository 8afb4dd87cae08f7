"""A process that was stopped for a while holds nothing against those whom it did not listen to."""

import anyio
import pytest

from deltaci.orchestrator.presence import Presence
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.support import ManualClock, Stage, a_job, staged


class World:
    """A clock and the uptime, which go on together: also while the process is stopped."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.uptime_s = 0.0

    def sleep(self, duration_ms: int) -> None:
        """The process is stopped for a while."""
        self.clock.advance(duration_ms)
        self.uptime_s += duration_ms / 1000

    async def listen(self, duration_ms: int, step_ms: int = 500) -> None:
        """Time passes, and the process is there."""
        for _ in range(0, duration_ms, step_ms):
            self.sleep(step_ms)
            await anyio.sleep(0.012)


def test_gaps_between_looks_add_up_and_short_ones_do_not_count() -> None:
    """A tick of each gap was listened to; a lag of less than a second is no absence."""
    now = [0.0]
    presence = Presence(lambda: now[0], tick_ms=250)
    seen = []

    for passes_s in (0.25, 0.9, 10.0, 0.25, 3.0):
        now[0] += passes_s
        seen.append(presence.absent_ms())

    assert seen == [0, 0, 9_750, 9_750, 12_500]


async def leased(stage: Stage, *, is_acknowledged: bool) -> tuple[object, wire.LeaseGranted]:
    await stage.push()
    runner = await stage.runner()
    (lease,) = await stage.lease(runner)
    if is_acknowledged:
        assert isinstance(await stage.say(runner, wire.AckLease, lease), wire.LeaseAcked)
    return runner, lease


@pytest.mark.anyio
@pytest.mark.parametrize(("is_acknowledged", "kind"), [(True, wire.Complete), (False, wire.AckLease)])
async def test_what_came_while_the_process_was_stopped_is_heard(is_acknowledged: bool, kind: type) -> None:
    """The result waited for two hours in a socket: the lease is the sender's as long as it was when we left."""
    world = World()
    async with staged(MemoryStore(), a_job(), clock=world.clock, uptime_s=lambda: world.uptime_s) as stage:
        runner, lease = await leased(stage, is_acknowledged=is_acknowledged)
        world.sleep(7_200_000)
        await anyio.sleep(0.03)
        fields = {"exit_code": 0} if kind is wire.Complete else {}
        answer = await stage.say(runner, kind, lease, **fields)  # type: ignore[arg-type]

    assert isinstance(answer, wire.CompleteAck | wire.LeaseAcked), answer


@pytest.mark.anyio
async def test_silence_that_was_listened_to_counts_before_and_after_an_absence() -> None:
    """A dead runner's lease must end all the same, after one TTL of listening."""
    world = World()
    settings = {"lease_ttl_ms": 10_000, "heartbeat_ms": 1_000}
    async with staged(MemoryStore(), a_job(), clock=world.clock, uptime_s=lambda: world.uptime_s, **settings) as stage:
        _, lease = await leased(stage, is_acknowledged=True)
        await world.listen(5_000)
        world.sleep(60_000)
        await world.listen(4_000)
        loaded = await stage.store.load_job(lease.job_id)
        await world.listen(2_000)
        job = await stage.job_until(lease.job_id, "QUEUED")

    assert loaded is not None
    assert loaded[0].state == "RUNNING"
    assert [one.state for one in job.attempts] == ["LOST", "QUEUED"]
