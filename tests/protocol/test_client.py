"""The client over real sockets: what is a value, what is raised, and how it comes back after a cut."""

import asyncio
from pathlib import Path
from typing import Any

import pytest
from quart import Response

from protocol.client import (
    ArtifactStored,
    Backoff,
    ChannelClient,
    HttpClient,
    ServerUnreachable,
    UpgradeRefused,
    connect,
    is_retryable,
    patience_s,
)
from protocol.codec import JSON_TYPE, MSGPACK_TYPE
from protocol.messages import (
    AppendLog,
    AskCredential,
    CancelRequested,
    CredentialGiven,
    Failure,
    Heartbeat,
    HeartbeatAck,
    Lease,
    Leases,
    LogGap,
    Register,
    Registered,
    RunnerMessage,
    ServerMessage,
    StaleLease,
)
from tests.protocol.wire import a_server

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FENCE: dict[str, Any] = {"lease_id": "l", "job_id": "j", "attempt": 1}
REGISTER = Register(name="r")


async def respond(message: RunnerMessage) -> ServerMessage:
    match message:
        case Register():
            return Registered(runner_id="runner-1")
        case Heartbeat():
            return HeartbeatAck(**FENCE, expires_in_ms=message.step or 0)
        case AppendLog():
            return LogGap(**FENCE, size=5)
        case AskCredential():
            return CredentialGiven(**FENCE, username="u", password="p", expires_in_ms=1)
        case Lease():
            await asyncio.sleep(message.wait_ms / 1000)
            return Leases()
        case _:
            return StaleLease(**FENCE, reason="expired")


@pytest.mark.parametrize("content_type", [JSON_TYPE, MSGPACK_TYPE])
async def test_over_http_definite_answers_are_values(content_type: str) -> None:
    """200, 409 and 416 carry messages; the caller matches on their type."""
    async with a_server(respond) as server:
        client = HttpClient(server.url, "secret", content_type=content_type)

        answers = [await client.call(REGISTER), await client.call(AppendLog(**FENCE, offset=9))]
        await client.aclose()

    assert answers == [Registered(runner_id="runner-1"), LogGap(**FENCE, size=5)]
    assert server.headers[1]["X-Deltaci-Runner"] == "runner-1"
    assert "X-Deltaci-Runner" not in server.headers[0]


async def test_a_credential_is_asked_for_over_both_transports() -> None:
    """At an address of its own over HTTP."""
    async with a_server(respond) as server:
        clients = (HttpClient(server.url, "secret"), ChannelClient(server.url, "secret"))
        answers = []
        for client in clients:
            await client.call(REGISTER)
            answers.append(await client.call(AskCredential(**FENCE)))
            await client.aclose()

    assert answers == [CredentialGiven(**FENCE, username="u", password="p", expires_in_ms=1)] * 2
    assert {transport for transport, message in server.seen if isinstance(message, AskCredential)} == {
        "http",
        "websocket",
    }


async def test_over_http_an_error_document_becomes_a_failure() -> None:
    """With its status, so that the caller can tell a refusal from a busy server."""
    async with a_server(respond) as server:
        client = HttpClient(server.url, "wrong")

        answer = await client.call(REGISTER)
        await client.aclose()

    assert answer == Failure(code="unauthorized", message="who are you?", details={"n": "1"}, http_status=401)


async def test_over_http_the_page_of_a_proxy_becomes_a_failure_with_its_status() -> None:
    """A 503 page in HTML is as retryable as ours, and says when."""
    async with a_server(respond) as server:
        server.pages["register"] = Response("<html>", status=503, headers={"Retry-After": "2"})
        client = HttpClient(server.url, "secret")

        answer = await client.call(REGISTER)
        await client.aclose()

    assert isinstance(answer, Failure)
    assert (answer.code, answer.http_status, answer.retry_after_ms) == ("http_503", 503, 2000)
    assert is_retryable(answer)


@pytest.mark.parametrize("status", [200, 302, 400])
async def test_over_http_an_answer_that_is_no_message_is_no_answer(status: int) -> None:
    """A login page must not pass for an acknowledgement, nor a connection that is out of step for a refusal."""
    async with a_server(respond) as server:
        server.pages["register"] = Response("<html>", status=status)
        client = HttpClient(server.url, "secret")

        with pytest.raises(ServerUnreachable, match="is this a Delta CI server"):
            await client.call(REGISTER)

        await client.aclose()


async def test_without_a_server_both_transports_raise_unreachable() -> None:
    """Connection level, and nothing about the token in the text."""
    async with a_server(respond) as server:
        url = server.url

    for client in (HttpClient(url, "secret"), ChannelClient(url, "secret"), connect(url, "secret")):
        with pytest.raises(ServerUnreachable) as caught:
            await client.call(REGISTER)
        await client.aclose()

        assert "secret" not in str(caught.value)


async def test_many_outstanding_requests_each_get_their_own_answer() -> None:
    """A long poll must not hold up a heartbeat, and answers may overtake each other."""
    async with a_server(respond) as server:
        client = ChannelClient(server.url, "secret")
        await client.call(REGISTER)

        poll = asyncio.create_task(client.call(Lease(runner_id="runner-1", wait_ms=300)))
        answers = await asyncio.gather(*(client.call(Heartbeat(**FENCE, step=number)) for number in range(500)))
        is_poll_waiting = not poll.done()
        await poll
        await client.aclose()

    assert [answer.expires_in_ms for answer in answers if isinstance(answer, HeartbeatAck)] == list(range(500))
    assert is_poll_waiting
    assert {transport for transport, _ in server.seen} == {"websocket"}


async def test_a_push_reaches_the_callback() -> None:
    """Id 0 belongs to no request."""
    pushed: asyncio.Queue[ServerMessage] = asyncio.Queue()
    async with a_server(respond) as server:
        client = ChannelClient(server.url, "secret", on_push=pushed.put_nowait)
        await client.call(REGISTER)

        server.push(CancelRequested(**FENCE, cancel_within_ms=7))
        push = await asyncio.wait_for(pushed.get(), 10)
        await client.aclose()

    assert push == CancelRequested(**FENCE, cancel_within_ms=7)


async def test_a_restarted_server_gets_the_registration_again_without_being_asked() -> None:
    """A caller sees a short outage, as an exception it may retry, and nothing else."""
    registered: asyncio.Queue[Registered] = asyncio.Queue()
    async with a_server(respond) as server:
        client = ChannelClient(server.url, "secret", on_registered=registered.put_nowait, jitter=lambda: 0.9)
        await client.call(REGISTER)
        await registered.get()
        waiting = asyncio.create_task(client.call(Lease(runner_id="runner-1", wait_ms=20_000)))
        await server.until(lambda: len(server.seen) == 2)

        await server.stop()
        with pytest.raises(ServerUnreachable):
            await waiting
        with pytest.raises(ServerUnreachable):
            await client.call(Heartbeat(**FENCE))
        await server.start()
        await asyncio.wait_for(registered.get(), 20)
        answer = await client.call(Heartbeat(**FENCE, step=3))
        await client.aclose()

    assert answer == HeartbeatAck(**FENCE, expires_in_ms=3)


async def test_bytes_that_are_no_frame_close_the_channel() -> None:
    """What is broken once cannot be trusted to be in step; a new connection is."""
    registered: asyncio.Queue[Registered] = asyncio.Queue()
    async with a_server(respond) as server:
        client = ChannelClient(server.url, "secret", on_registered=registered.put_nowait)
        await client.call(REGISTER)
        await registered.get()

        server.push_bytes(b"\xc1\xc1")
        again = await asyncio.wait_for(registered.get(), 20)
        await client.aclose()

    assert again == Registered(runner_id="runner-1")


@pytest.mark.parametrize("is_silent", [True, False])
async def test_a_channel_that_carries_nothing_is_given_up_and_opened_anew(is_silent: bool) -> None:
    """Nobody tells of a connection that a firewall forgot; a slow answer among others is no such thing."""
    registered: asyncio.Queue[Registered] = asyncio.Queue()

    async def mostly_deaf(message: RunnerMessage) -> ServerMessage:
        if isinstance(message, Heartbeat) and message.step == 0:
            await asyncio.Event().wait()
        return Registered(runner_id="runner-1", lease_ttl_ms=3_000) if message == REGISTER else await respond(message)

    async with a_server(mostly_deaf) as server:
        client = ChannelClient(server.url, "secret", on_registered=registered.put_nowait, jitter=lambda: 0.9)
        await client.call(REGISTER)
        await registered.get()
        waiting = asyncio.create_task(client.call(Heartbeat(**FENCE, step=0)))
        await server.until(lambda: len(server.seen) == 2)
        if not is_silent:
            await client.call(Heartbeat(**FENCE, step=3))
        with pytest.raises(ServerUnreachable, match="in time"):
            await waiting
        was_ready = client.is_ready
        if is_silent:
            await asyncio.wait_for(registered.get(), 20)
        answer = await client.call(Heartbeat(**FENCE, step=3))
        await client.aclose()

    assert was_ready == (not is_silent)
    assert answer == HeartbeatAck(**FENCE, expires_in_ms=3)


async def test_a_call_over_http_is_given_up_in_time_for_another_one() -> None:
    """The lease tells how long an answer may take: two lost ones must not lose it."""

    async def deaf(message: RunnerMessage) -> ServerMessage:
        if isinstance(message, Heartbeat):
            await asyncio.Event().wait()
        return Registered(runner_id="runner-1", lease_ttl_ms=300)

    async with a_server(deaf) as server:
        client = HttpClient(server.url, "secret")
        await client.call(REGISTER)
        with pytest.raises(ServerUnreachable, match="ReadTimeout"):
            await client.call(Heartbeat(**FENCE))
        await client.aclose()


def test_with_long_leases_an_answer_may_take_half_a_minute() -> None:
    """Enough for the longest that the server itself waits for an actor."""
    assert patience_s(Registered(runner_id="r")) == 30
    assert patience_s(Registered(runner_id="r", lease_ttl_ms=6_000)) == 2


async def test_a_refused_token_is_an_answer_over_the_channel_too() -> None:
    """Trying again with the same token is pointless, so this is no `ServerUnreachable`."""
    async with a_server(respond) as server:
        client = ChannelClient(server.url, "wrong")

        answer = await client.call(REGISTER)
        await client.aclose()

    assert isinstance(answer, Failure)
    assert (answer.http_status, is_retryable(answer)) == (401, False)


async def test_a_refused_upgrade_is_told_from_a_missing_server() -> None:
    """So that a fallback can be reported as what it is."""
    async with a_server(respond, has_channel=False) as server:
        client = ChannelClient(server.url, "secret")

        with pytest.raises(UpgradeRefused):
            await client.call(REGISTER)

        await client.aclose()


async def test_without_the_channel_everything_goes_over_http_and_back_when_it_can() -> None:
    """A proxy that blocks the upgrade costs efficiency, not the runner."""
    registered: asyncio.Queue[Registered] = asyncio.Queue()
    async with a_server(respond, has_channel=False) as server:
        client = connect(server.url, "secret", on_registered=registered.put_nowait, jitter=lambda: 0.9)

        first = await client.call(REGISTER)
        await client.call(Heartbeat(**FENCE))
        await server.stop()
        server.has_channel = True
        await server.start()
        await asyncio.wait_for(registered.get(), 20)
        await client.call(Heartbeat(**FENCE))
        await client.aclose()

    assert first == Registered(runner_id="runner-1")
    assert [transport for transport, _ in server.seen] == ["http", "http", "websocket", "websocket"]


async def test_an_artifact_is_streamed_with_its_length_and_checksum(tmp_path: Path) -> None:
    """The server can refuse by length before it reads, and a repeat is told from a first time."""
    path = tmp_path / "a.tar.gz"
    path.write_bytes(b"x" * 700_000)
    async with a_server(respond) as server:
        client = connect(server.url, "secret", transport="websocket")
        await client.call(REGISTER)

        answers = [
            await client.upload_artifact(
                lease_id="l", job_id="j-1", attempt=1, name="my results", path=path, sha256="ab"
            )
            for _ in range(2)
        ]
        await client.aclose()

    assert answers == [ArtifactStored(), ArtifactStored(is_repeat=True)]
    assert len(server.uploads["my results"]) == 700_000
    sent = server.headers[-1]
    assert (sent["Content-Length"], sent["X-Deltaci-Lease"], sent["X-Deltaci-Sha256"]) == ("700000", "l", "ab")
    assert sent["X-Deltaci-Runner"] == "runner-1"


async def test_a_closed_client_wakes_those_who_wait() -> None:
    """A runner that leaves must not hang on a long poll."""
    async with a_server(respond) as server:
        client = ChannelClient(server.url, "secret")
        await client.call(REGISTER)
        waiting = asyncio.create_task(client.call(Lease(runner_id="runner-1", wait_ms=20_000)))
        await server.until(lambda: len(server.seen) == 2)

        await client.aclose()

        with pytest.raises(ServerUnreachable):
            await waiting


def test_delays_double_up_to_their_limit_and_are_shortened_by_up_to_a_half() -> None:
    """A fleet that comes back in step would knock a starting server over."""
    longest = Backoff(first_ms=100, max_ms=500, jitter=lambda: 0.0)
    shortest = Backoff(first_ms=100, max_ms=500, jitter=lambda: 1.0)

    delays = [(longest.next_s(), shortest.next_s()) for _ in range(5)]
    longest.reset()

    assert delays == [(0.1, 0.05), (0.2, 0.1), (0.4, 0.2), (0.5, 0.25), (0.5, 0.25)]
    assert longest.next_s() == 0.1


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (Failure(code="a", message="", http_status=400), False),
        (Failure(code="a", message="", http_status=404), False),
        (Failure(code="a", message="", http_status=409), False),
        (Failure(code="a", message="", http_status=429), True),
        (Failure(code="a", message="", http_status=500), True),
        (Failure(code="a", message="", http_status=507), True),
        (Failure(code="a", message="", http_status=409, retry_after_ms=5), True),
    ],
)
def test_busy_and_broken_servers_are_asked_again_and_refusals_are_not(failure: Failure, expected: bool) -> None:
    """A refusal repeated for ever is a loop; a restart taken for a refusal loses a result."""
    assert is_retryable(failure) == expected
