"""The WebSocket of a runner: many requests at once, answers in any order, pushes in between, no second chance."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from quart.testing.connections import TestWebsocketConnection as Socket
from quart.testing.connections import WebsocketDisconnectError

from deltaci.gateway.house import Limits
from protocol import messages as wire
from protocol.codec import decode_answer_frame, encode_frame
from tests.gateway.support import Gateway, call, fence, opened
from tests.orchestrator.support import SHA, a_job

pytestmark = pytest.mark.anyio


async def registered(socket: Socket, name: str = "r1") -> str:
    answer = await call(socket, 1, wire.Register(name=name))
    assert isinstance(answer, wire.Registered)
    return answer.runner_id


async def close_code_after(gateway: Gateway, *frames: Any, is_registered: bool = False) -> int:
    """The code with which the server closes once it got `frames`."""
    async with gateway.channel() as socket:
        if is_registered:
            await registered(socket)
        for frame in frames:
            await socket.send(frame)
        try:
            while True:
                await socket.receive()
        except WebsocketDisconnectError as closed:
            return int(closed.args[0])


HEARTBEAT = wire.Heartbeat(lease_id="0" * 32, job_id="job_1_0", attempt=1)
MALFORMED = [
    b"\xc1",
    b"\x91" * 100_000,
    b"\x81" * 100_000,
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    "text",
    "",
    encode_frame(wire.Request(1, HEARTBEAT))[:-1],
    encode_frame(wire.Request(1, HEARTBEAT)) + b"\x00",
    msgspec.msgpack.encode([1, {"type": "Nonsense"}]),
    msgspec.msgpack.encode([1, {"type": "Complete"}]),
    msgspec.msgpack.encode([1, {"type": "Registered", "runner_id": "r"}]),
    msgspec.msgpack.encode(["1", {"type": "Register", "name": "r"}]),
    msgspec.msgpack.encode([1, {"type": "Register", "name": b"r"}]),
    msgspec.msgpack.encode([1, {"type": "Register", "name": 7}]),
    b"\x92\x01\x82\xa4type\xa8Register\xa4name\xa2\xff\xfe",
    msgspec.msgpack.encode(None),
]


@pytest.mark.parametrize("frame", MALFORMED)
async def test_a_malformed_frame_closes_the_channel(tmp_path: Path, frame: bytes | str) -> None:
    """A peer that breaks the protocol is not guessed at: 1008, and it may come back."""
    async with opened(tmp_path) as gateway:
        first = await close_code_after(gateway, frame)
        later = await close_code_after(gateway, frame, is_registered=True)

    assert (first, later) == (1008, 1008)


async def test_the_first_frame_registers(tmp_path: Path) -> None:
    """Before that nobody knows whose requests these are."""
    async with opened(tmp_path) as gateway:
        code = await close_code_after(gateway, encode_frame(wire.Request(1, HEARTBEAT)))

    assert code == 1008


async def test_a_registration_that_is_refused_is_answered_and_closes(tmp_path: Path) -> None:
    """The runner must learn why: the answer comes before the close."""
    async with opened(tmp_path) as gateway, gateway.channel() as socket:
        answer = await call(socket, 1, wire.Register(name="r1", slots=0))
        with pytest.raises(WebsocketDisconnectError) as closed:
            await socket.receive()

    assert isinstance(answer, wire.Failure)
    assert answer.http_status == 400
    assert "slots" in answer.message
    assert closed.value.args[0] == 1008


async def test_a_runner_that_says_nothing_is_not_kept(tmp_path: Path) -> None:
    """Open streams are a limit too: who does not register in time makes room."""
    async with opened(tmp_path, limits=Limits(body_timeout_s=1)) as gateway:
        code = await close_code_after(gateway)

    assert code == 1008


async def test_a_job_is_carried_over_the_channel(tmp_path: Path) -> None:
    """The same messages as over HTTP, a frame each."""
    async with opened(tmp_path) as gateway, gateway.channel() as socket:
        await gateway.deliver()
        runner_id = await registered(socket)
        leases = await call(socket, 2, wire.Lease(runner_id=runner_id, wait_ms=5_000))
        assert isinstance(leases, wire.Leases)
        (lease,) = leases.leases
        answers = [
            await call(socket, 3, wire.AckLease(**fence(lease))),
            await call(socket, 4, wire.AppendLog(**fence(lease), offset=0, data=b"abc")),
            await call(socket, 5, wire.AppendLog(**fence(lease), offset=9, data=b"j")),
            await call(socket, 6, wire.Heartbeat(**{**fence(lease), "lease_id": "0" * 32})),
            await call(socket, 7, wire.Complete(**fence(lease), exit_code=3)),
        ]
        run = await gateway.stage.run_until(lease.run_id, "FAILED")

    assert lease.job.commit_sha == SHA
    assert [type(answer) for answer in answers] == [
        wire.LeaseAcked,
        wire.LogAck,
        wire.LogGap,
        wire.StaleLease,
        wire.CompleteAck,
    ]
    assert run.end_reason == "jobs_failed"


async def test_many_requests_are_under_way_and_each_gets_its_own_answer(tmp_path: Path) -> None:
    """A long poll holds up nothing behind it; answers carry the number of their request."""
    async with opened(tmp_path) as gateway, gateway.channel() as socket:
        runner_id = await registered(socket)
        await socket.send(encode_frame(wire.Request(1_000, wire.Lease(runner_id=runner_id, wait_ms=15_000))))
        for number in range(2, 202):
            message = wire.Heartbeat(lease_id="0" * 32, job_id=f"job_none_{number}", attempt=1)
            await socket.send(encode_frame(wire.Request(number, message)))
        answers = {}
        for _ in range(200):
            answer = decode_answer_frame(await socket.receive())
            answers[answer.id] = answer.body
        await gateway.deliver()
        granted = decode_answer_frame(await socket.receive())

    assert sorted(answers) == list(range(2, 202))
    assert all(
        isinstance(body, wire.StaleLease) and body.job_id == f"job_none_{number}" for number, body in answers.items()
    )
    assert granted.id == 1_000
    assert isinstance(granted.body, wire.Leases)
    assert len(granted.body.leases) == 1


async def test_more_requests_than_places_are_answered_one_after_the_other(tmp_path: Path) -> None:
    """The bound on what is under way slows a runner down and loses nothing."""
    async with opened(tmp_path, limits=Limits(frames_under_way_max=2)) as gateway, gateway.channel() as socket:
        await registered(socket)
        for number in range(2, 52):
            await socket.send(encode_frame(wire.Request(number, HEARTBEAT)))
        numbers = {decode_answer_frame(await socket.receive()).id for _ in range(50)}

    assert numbers == set(range(2, 52))


async def test_a_refusal_of_one_request_leaves_the_channel_open(tmp_path: Path) -> None:
    """The channel carries all the jobs of a host; one bad request is an answer."""
    async with opened(tmp_path) as gateway, gateway.channel() as socket:
        runner_id = await registered(socket)
        answers = [
            await call(socket, 2, wire.Heartbeat(lease_id="x", job_id="../../etc", attempt=1)),
            await call(socket, 3, wire.Lease(runner_id=runner_id, slots=100_000)),
            await call(socket, 4, wire.Register(name="\x00")),
            await call(socket, 5, wire.Register(name="r1")),
        ]

    assert [answer.http_status for answer in answers[:3] if isinstance(answer, wire.Failure)] == [404, 400, 400]
    assert isinstance(answers[3], wire.Registered)


async def test_a_cancel_is_pushed(tmp_path: Path) -> None:
    """A runner with a channel does not wait for its next heartbeat to stop."""
    async with opened(tmp_path) as gateway, gateway.channel() as socket:
        await gateway.deliver()
        runner_id = await registered(socket)
        leases = await call(socket, 2, wire.Lease(runner_id=runner_id, wait_ms=5_000))
        assert isinstance(leases, wire.Leases)
        (lease,) = leases.leases
        await call(socket, 3, wire.AckLease(**fence(lease)))
        await gateway.post(f"/api/v1/runs/{lease.run_id}/cancel", status=202)
        push = decode_answer_frame(await socket.receive())
        acked = await call(socket, 4, wire.CancelAck(**fence(lease)))
        run = await gateway.stage.run_until(lease.run_id, "CANCELED")

    assert push.id == 0
    assert isinstance(push.body, wire.CancelRequested)
    assert push.body.lease_id == lease.lease_id
    assert 0 < push.body.cancel_within_ms <= 30_000
    assert isinstance(acked, wire.CompleteAck)
    assert run.end_reason == "user_canceled"


async def test_a_runner_is_online_as_long_as_its_channel(tmp_path: Path) -> None:
    """The page of runners shows who would be granted a job now."""
    async with opened(tmp_path, a_job(), runner_silent_after_ms=1) as gateway:
        async with gateway.channel() as socket:
            await registered(socket)
            gateway.stage.clock.advance(10)
            during = (await gateway.get("/api/v1/runners"))["runners"]
        after = (await gateway.get("/api/v1/runners"))["runners"]

    assert [one["is_online"] for one in during] == [True]
    assert [one["is_online"] for one in after] == [False]


async def test_a_newer_channel_of_a_runner_gets_the_pushes(tmp_path: Path) -> None:
    """After a cut the old socket may linger; what is pushed goes to the one that is alive."""
    async with opened(tmp_path) as gateway, gateway.channel() as old:
        await gateway.deliver()
        runner_id = await registered(old)
        leases = await call(old, 2, wire.Lease(runner_id=runner_id, wait_ms=5_000))
        assert isinstance(leases, wire.Leases)
        (lease,) = leases.leases
        await call(old, 3, wire.AckLease(**fence(lease)))
        async with gateway.channel() as new:
            assert await registered(new) == runner_id
            await gateway.post(f"/api/v1/runs/{lease.run_id}/cancel", status=202)
            push = decode_answer_frame(await new.receive())

    assert isinstance(push.body, wire.CancelRequested)


async def test_a_server_that_drains_closes_with_come_back(tmp_path: Path) -> None:
    """1012 tells the runner to reconnect soon; its jobs go on meanwhile."""
    async with opened(tmp_path) as gateway, gateway.channel() as socket:
        await registered(socket)
        gateway.house.drain()
        with pytest.raises(WebsocketDisconnectError) as closed:
            await socket.receive()

    assert closed.value.args[0] == 1012
