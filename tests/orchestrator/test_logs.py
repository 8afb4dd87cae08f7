"""The log of an attempt arrives by byte offset: whole, once, and only from its holder."""

import zlib
from typing import Any

import pytest

from deltaci.domain.errors import StorageFull
from deltaci.store.memory import MemoryStore
from deltaci.store.port import LogState
from deltaci.store.writes import Audit, Runner
from protocol import messages as wire
from tests.orchestrator.faults import FaultyStore
from tests.orchestrator.support import Stage, a_job, staged


async def held(stage: Stage) -> tuple[Runner, wire.LeaseGranted]:
    await stage.push()
    runner = await stage.runner()
    (lease,) = await stage.lease(runner)
    await stage.say(runner, wire.AckLease, lease)
    return runner, lease


async def appended(
    stage: Stage, holder: tuple[Runner, wire.LeaseGranted], offset: int, data: bytes, **more: Any
) -> Any:
    answer = await stage.say(holder[0], wire.AppendLog, holder[1], offset=offset, data=data, **more)
    return (type(answer).__name__, answer.size) if isinstance(answer, wire.LogAck | wire.LogGap) else answer


async def stored(stage: Stage, lease: wire.LeaseGranted) -> bytes:
    return await stage.store.read_log(lease.job_id, lease.attempt, offset=0, limit=1_000_000)


@pytest.mark.anyio
async def test_chunks_are_appended_and_a_repeat_is_harmless() -> None:
    """A chunk whose answer got lost is sent again, alone or with all before it."""
    async with staged(MemoryStore(), a_job()) as stage:
        holder = await held(stage)

        assert await appended(stage, holder, 0, b"one ") == ("LogAck", 4)
        assert await appended(stage, holder, 0, b"one ") == ("LogAck", 4)
        assert await appended(stage, holder, 4, b"two") == ("LogAck", 7)
        assert await appended(stage, holder, 0, b"one two") == ("LogAck", 7)

        assert await stored(stage, holder[1]) == b"one two"


@pytest.mark.anyio
async def test_a_log_never_takes_the_last_space_and_state_goes_on_without_it() -> None:
    """The holder is told to come back; heartbeats, what is stored already, and the job's end need no room."""
    room = [4, 0]
    async with staged(MemoryStore(), a_job(), has_room=lambda size: size <= room[-1]) as stage:
        holder = await held(stage)
        with pytest.raises(StorageFull):
            await appended(stage, holder, 0, b"one ")
        room.pop()
        assert await appended(stage, holder, 0, b"one ") == ("LogAck", 4)
        room.append(0)

        assert await appended(stage, holder, 0, b"one ") == ("LogAck", 4)
        with pytest.raises(StorageFull):
            await appended(stage, holder, 4, b"two")
        assert isinstance(await stage.say(holder[0], wire.Heartbeat, holder[1]), wire.HeartbeatAck)
        assert await appended(stage, holder, 4, b"", is_final=True) == ("LogAck", 4)
        assert isinstance(await stage.say(holder[0], wire.Complete, holder[1], exit_code=0), wire.CompleteAck)

        assert await stored(stage, holder[1]) == b"one "


@pytest.mark.anyio
async def test_a_chunk_that_does_not_continue_the_log_is_told_where_to_go_on() -> None:
    """Behind a gap, or across the end of what is stored: nothing of it is kept."""
    async with staged(MemoryStore(), a_job()) as stage:
        holder = await held(stage)
        await appended(stage, holder, 0, b"0123")

        assert await appended(stage, holder, 9, b"later") == ("LogGap", 4)
        assert await appended(stage, holder, 2, b"2345") == ("LogGap", 4)

        assert await stored(stage, holder[1]) == b"0123"


@pytest.mark.anyio
async def test_the_last_chunk_closes_the_log_with_a_checksum_that_ran_along() -> None:
    """Nothing is stored after the close; the checksum covers all of it."""
    async with staged(MemoryStore(), a_job()) as stage:
        holder = await held(stage)
        await appended(stage, holder, 0, b"all is ")

        assert await appended(stage, holder, 7, b"well", is_final=True, crc32=zlib.crc32(b"all is well")) == (
            "LogAck",
            11,
        )
        assert await appended(stage, holder, 7, b"well", is_final=True) == ("LogAck", 11)
        assert await appended(stage, holder, 11, b"!") == ("LogAck", 11)

        state = await stage.store.log_state(holder[1].job_id, 1)
        assert state == LogState(size=11, is_final=True, crc32=zlib.crc32(b"all is well"))
        assert await stored(stage, holder[1]) == b"all is well"


@pytest.mark.anyio
async def test_the_end_mark_may_come_with_bytes_that_are_stored_or_with_none() -> None:
    """The runner that never heard that its last bytes arrived sends them again, now as the end."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        holder = await held(stage)
        await appended(stage, holder, 0, b"bytes")

        assert await appended(stage, holder, 0, b"by", is_final=True) == ("LogGap", 5)
        assert await appended(stage, holder, 0, b"bytes", is_final=True) == ("LogAck", 5)

        assert await stage.store.log_state(holder[1].job_id, 1) == LogState(
            size=5, is_final=True, crc32=zlib.crc32(b"bytes")
        )
    async with staged(MemoryStore(), a_job()) as stage:
        holder = await held(stage)

        assert await appended(stage, holder, 0, b"", is_final=True, crc32=0) == ("LogAck", 0)


@pytest.mark.anyio
async def test_a_checksum_that_differs_is_audited() -> None:
    """The log stays as it arrived; somebody can see that it is not what the runner wrote."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        holder = await held(stage)

        await appended(stage, holder, 0, b"bytes", is_final=True, crc32=1)

        (audit,) = [one for one in store.writes(Audit) if one.type == "LogChecksumDiffers"]
        assert audit.details == {"sent": "1", "stored": str(zlib.crc32(b"bytes")), "attempt": "1"}


@pytest.mark.anyio
async def test_a_log_over_its_limit_is_refused_with_the_limit_named() -> None:
    """A chunk's length past the limit is allowed for the runner's own marker; one byte more is not."""
    async with staged(MemoryStore(), a_job(), log_bytes_max=10, log_chunk_bytes_max=8) as stage:
        holder = await held(stage)
        assert await appended(stage, holder, 0, b"x" * 8) == ("LogAck", 8)
        assert await appended(stage, holder, 8, b"x" * 8) == ("LogAck", 16)

        over = await appended(stage, holder, 16, b"xxx")

        assert isinstance(over, wire.Failure)
        assert (over.http_status, over.code) == (413, "limit")
        assert "at most 10 bytes" in over.message
        assert await appended(stage, holder, 16, b"xx", is_final=True) == ("LogAck", 18)


@pytest.mark.anyio
@pytest.mark.parametrize(("offset", "data"), [(-1, b"x"), (0, b"x" * 9)])
async def test_a_chunk_that_breaks_the_protocol_is_malformed(offset: int, data: bytes) -> None:
    """Negative offsets and chunks over the announced size are the peer's fault."""
    async with staged(MemoryStore(), a_job(), log_chunk_bytes_max=8) as stage:
        holder = await held(stage)

        answer = await appended(stage, holder, offset, data)

        assert isinstance(answer, wire.Failure)
        assert answer.http_status == 400


@pytest.mark.anyio
async def test_a_log_goes_on_after_a_restart() -> None:
    """Size and checksum are read from the store, not remembered."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        holder = await held(stage)
        await appended(stage, holder, 0, b"before ")

    async with staged(store, a_job(), seed=2) as stage:
        assert await appended(stage, holder, 0, b"before ") == ("LogAck", 7)
        assert await appended(stage, holder, 7, b"after", is_final=True, crc32=zlib.crc32(b"before after")) == (
            "LogAck",
            12,
        )
        assert await stage.store.log_state(holder[1].job_id, 1) == LogState(
            size=12, is_final=True, crc32=zlib.crc32(b"before after")
        )


@pytest.mark.anyio
@pytest.mark.parametrize("fault", ["before", "after", "conflict"])
async def test_a_chunk_whose_commit_failed_may_be_sent_again(fault: Any) -> None:
    """Stored or not, nobody knows: the size is read again."""
    store = FaultyStore(MemoryStore())
    async with staged(store, a_job()) as stage:
        holder = await held(stage)
        await appended(stage, holder, 0, b"one ")
        await stage.run_until(holder[1].run_id, "RUNNING")

        store.faults[store.commits + 1] = fault
        with pytest.raises(Exception, match=r"stored|crashed"):
            await appended(stage, holder, 4, b"two")

        assert await appended(stage, holder, 4, b"two") == ("LogAck", 7)
        assert await stored(stage, holder[1]) == b"one two"


@pytest.mark.anyio
async def test_the_log_of_a_lost_attempt_takes_no_more_bytes() -> None:
    """The next attempt has a log of its own; the old holder's bytes are not mixed in."""
    async with staged(MemoryStore(), a_job()) as stage:
        old = await held(stage)
        await appended(stage, old, 0, b"old")
        stage.clock.advance(120_000)
        await stage.job_until(old[1].job_id, "QUEUED")
        stage.clock.advance(60_000)
        runner = await stage.runner("r2")
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)

        assert isinstance(await appended(stage, old, 3, b"late"), wire.StaleLease)
        assert await appended(stage, (runner, lease), 0, b"new") == ("LogAck", 3)

        assert await stored(stage, old[1]) == b"old"
        assert await stored(stage, lease) == b"new"


@pytest.mark.anyio
async def test_a_holder_that_writes_its_log_lives() -> None:
    """Bytes on disk are as good as a heartbeat."""
    async with staged(MemoryStore(), a_job()) as stage:
        holder = await held(stage)
        for number in range(5):
            stage.clock.advance(60_000)
            await appended(stage, holder, number, b"x")

        assert isinstance(await stage.say(holder[0], wire.Heartbeat, holder[1]), wire.HeartbeatAck)
