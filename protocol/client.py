"""A runner's side of the wire: one port, and HTTP, WebSocket and a fallback from one to the other behind it.

Rule 1: an answer is a value, also when it is a refusal; only the lack of an answer is raised, as `ServerUnreachable`.
Rule 2: nothing is resent in here. The caller knows what may be repeated and until when.
Rule 3: the bearer token goes into a header and nowhere else: no text, URL or exception carries it.
"""

import asyncio
import contextlib
import itertools
import random
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias
from urllib.parse import quote, urlsplit, urlunsplit

import httpx
import msgspec
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from protocol.codec import (
    JSON_TYPE,
    MSGPACK_TYPE,
    MalformedMessage,
    decode_answer_frame,
    decode_server_body,
    encode_body,
    encode_frame,
)
from protocol.messages import (
    AckLease,
    AppendLog,
    AskCredential,
    CancelAck,
    Complete,
    Failure,
    Heartbeat,
    Lease,
    Register,
    Registered,
    Request,
    RunnerMessage,
    ServerMessage,
    StaleLease,
)

PREFIX: Final = "/api/v1/runner/"
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024
CALL_TIMEOUT_S: Final = 30.0
# A lease outlives two calls that a dead connection swallowed: there is time for a third over another one.
CALLS_A_LEASE: Final = 3
OPEN_TIMEOUT_S: Final = 10.0
UPLOAD_BLOCK_BYTES: Final = 256 * 1024

ROUTES: Final[dict[type[RunnerMessage], str]] = {
    Register: "register",
    Lease: "lease",
    AckLease: "ack",
    AskCredential: "credential",
    Heartbeat: "heartbeat",
    AppendLog: "log",
    Complete: "complete",
    CancelAck: "cancel-ack",
}

Transport: TypeAlias = Literal["auto", "http", "websocket"]
OnPush: TypeAlias = Callable[[ServerMessage], None]
OnRegistered: TypeAlias = Callable[[Registered], None]


class ServerUnreachable(Exception):
    """No definite answer came back: refused, cut, timed out, or no message of the protocol.

    Whether the message was handled is unknown.
    """


class UpgradeRefused(ServerUnreachable):
    """Something answers at the address, but it does not open the WebSocket; HTTP may still work."""


class ArtifactStored(msgspec.Struct, frozen=True):
    """The artifact is durable; `is_repeat` if the same bytes were stored before under this name."""

    is_repeat: bool = False


class RunnerClient(Protocol):
    """What a runner needs of a connection to the control plane."""

    async def call(self, message: RunnerMessage) -> ServerMessage:
        """Send one message and return its answer, also a `Failure`, `StaleLease` or `LogGap`.

        Raises:
            ServerUnreachable: no definite answer; the message may or may not have been handled.
        """
        ...

    async def upload_artifact(
        self, *, lease_id: str, job_id: str, attempt: int, name: str, path: Path, sha256: str
    ) -> ArtifactStored | StaleLease | Failure:
        """Stream the file at `path` as the attempt's artifact `name`; `sha256` is hex. Errors as in `call`."""
        ...

    async def aclose(self) -> None:
        """Close the connection; calls still waiting raise `ServerUnreachable`. Idempotent."""
        ...


def is_retryable(failure: Failure) -> bool:
    """The same message may succeed later: the server is busy, broken or restarting, not refusing."""
    return failure.http_status >= 500 or failure.http_status in {408, 425, 429} or failure.retry_after_ms is not None


class Backoff:
    """Delays that double from `first_ms` up to `max_ms`, each shortened at random by up to a half.

    The jitter keeps a fleet from coming back in step after a restart; `jitter` gives numbers in [0, 1).
    """

    def __init__(
        self, *, first_ms: int = 100, max_ms: int = 30_000, jitter: Callable[[], float] = random.random
    ) -> None:
        self._first_ms = first_ms
        self._max_ms = max_ms
        self._jitter = jitter
        self._failures = 0

    def next_s(self) -> float:
        """Seconds to wait after one more failure."""
        # The exponent is bounded: after a long outage the shift would make a number of thousands of digits.
        delay_ms = min(self._max_ms, self._first_ms << min(self._failures, 32))
        self._failures += 1
        return delay_ms * (1 - self._jitter() / 2) / 1000

    def reset(self) -> None:
        """A success: the next delay is the first one again."""
        self._failures = 0


def connect(
    url: str,
    token: str,
    *,
    transport: Transport = "auto",
    on_push: OnPush | None = None,
    on_registered: OnRegistered | None = None,
    jitter: Callable[[], float] = random.random,
) -> RunnerClient:
    """A client for the server at `url`; nothing is sent before the first call, which should be `Register`.

    Args:
        url: base address, `http://host:port` or `https://host`, with a path prefix if the server has one.
        transport: "auto" prefers the WebSocket, goes on over HTTP while it cannot be had, and tries it again later.
        on_push: told of each message that no request asked for; called in the loop, must not block.
        on_registered: told of each accepted registration, also those that follow a reconnection.
    """
    http = HttpClient(url, token)
    if transport == "http":
        return http
    channel = ChannelClient(url, token, on_push=on_push, on_registered=on_registered, jitter=jitter, uploads=http)
    return channel if transport == "websocket" else FallbackClient(channel, http)


# ---- HTTP --------------------------------------------------------------------------------------------------------


class HttpClient:
    """One message a request. Bodies are msgpack, or JSON for those who want to read along."""

    def __init__(
        self, url: str, token: str, *, content_type: str = MSGPACK_TYPE, client: httpx.AsyncClient | None = None
    ) -> None:
        self.runner_id: str | None = None
        self._patience_s = CALL_TIMEOUT_S
        self._base = url.rstrip("/") + PREFIX
        self._content_type = content_type
        self._client = client if client is not None else httpx.AsyncClient(timeout=CALL_TIMEOUT_S)
        self._client.headers["Authorization"] = f"Bearer {token}"

    async def call(self, message: RunnerMessage) -> ServerMessage:
        """Send one message as one request; see `RunnerClient.call`."""
        headers = {"Content-Type": self._content_type, "Accept": self._content_type, **self._identity()}
        request = self._client.build_request(
            "POST",
            self._base + ROUTES[type(message)],
            content=encode_body(message, self._content_type),
            headers=headers,
            timeout=_timeout_s(message, self._patience_s),
        )
        response = await self._send(request)
        answer = _answer_of(response)
        if isinstance(answer, Registered):
            self.take_registration(answer)
        return answer

    def take_registration(self, registered: Registered) -> None:
        """Who we are from now on, and how long an answer may take."""
        self.runner_id = registered.runner_id
        self._patience_s = patience_s(registered)

    async def upload_artifact(
        self, *, lease_id: str, job_id: str, attempt: int, name: str, path: Path, sha256: str
    ) -> ArtifactStored | StaleLease | Failure:
        """Stream the file at `path` from disk, block by block; see `RunnerClient.upload_artifact`."""
        size = await asyncio.to_thread(lambda: path.stat().st_size)
        request = self._client.build_request(
            "PUT",
            f"{self._base}artifacts/{quote(job_id, safe='')}/{attempt}/{quote(name, safe='')}",
            content=_blocks(path),
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Length": str(size),
                "Accept": self._content_type,
                "X-Deltaci-Lease": lease_id,
                "X-Deltaci-Sha256": sha256,
                **self._identity(),
            },
        )
        response = await self._send(request)
        if response.status_code in {200, 201}:
            return ArtifactStored(is_repeat=response.status_code == 200)
        answer = _answer_of(response)
        if isinstance(answer, StaleLease | Failure):
            return answer
        raise ServerUnreachable(f"the answer to the upload of artifact {name!r} is a {type(answer).__name__}")

    async def aclose(self) -> None:
        """Close the pooled connections."""
        await self._client.aclose()

    def _identity(self) -> dict[str, str]:
        return {} if self.runner_id is None else {"X-Deltaci-Runner": self.runner_id}

    async def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            return await self._client.send(request)
        except (httpx.HTTPError, httpx.InvalidURL, RuntimeError) as error:
            # RuntimeError is what httpx raises on a client that was closed while the caller waited.
            raise ServerUnreachable(
                f"{request.method} {request.url.path}: {str(error) or type(error).__name__}"
            ) from error


def _answer_of(response: httpx.Response) -> ServerMessage:
    status = response.status_code
    content_type = response.headers.get("Content-Type", "").split(";")[0].strip().lower()
    if status in {200, 409, 416} and content_type in {JSON_TYPE, MSGPACK_TYPE}:
        try:
            return decode_server_body(response.content, content_type)
        except MalformedMessage as error:
            if status == 200:
                raise ServerUnreachable(str(error)) from error
    failure = _failure_of(response)
    # A 400 that is not the server's own is from whoever could not read the bytes: what we send can be read, so they
    # were broken or out of step on the way. Taken for a refusal it would cost a log or a result.
    if status < 400 or (status == 400 and failure is None):
        raise ServerUnreachable(f"status {status} with {content_type or 'no content type'}: is this a Delta CI server?")
    # A proxy in between answers with its own page; its status still says whether to try again.
    return failure or Failure(
        code=f"http_{status}",
        message=response.reason_phrase,
        http_status=status,
        retry_after_ms=_retry_after_ms(response.headers.get("Retry-After")),
    )


class _ErrorBody(msgspec.Struct):
    """The `error` object of a JSON error answer."""

    code: str
    message: str
    details: dict[str, object] = {}


class _ErrorDocument(msgspec.Struct):
    error: _ErrorBody


_error_decoder: Final = msgspec.json.Decoder(_ErrorDocument)


def _failure_of(response: httpx.Response) -> Failure | None:
    """The server's own word; None when somebody else answered."""
    try:
        error = _error_decoder.decode(response.content).error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return Failure(
        code=error.code,
        message=error.message,
        details={key: str(value) for key, value in error.details.items()},
        http_status=response.status_code,
        retry_after_ms=_retry_after_ms(response.headers.get("Retry-After")),
    )


def _retry_after_ms(value: str | None) -> int | None:
    """`Retry-After` in milliseconds; a date counts as absent, because the two hosts never compare clocks."""
    try:
        seconds = float(value) if value is not None else None
    except ValueError:
        return None
    return None if seconds is None or not 0 <= seconds <= 86_400 else int(seconds * 1000)


def patience_s(registered: Registered) -> float:
    """How long an answer may take before the connection counts as dead; short enough to renew a lease all the same."""
    return min(CALL_TIMEOUT_S, registered.lease_ttl_ms / 1000 / CALLS_A_LEASE)


def _timeout_s(message: RunnerMessage, within_s: float) -> float:
    """Long polls are held by the server on purpose; everything else is answered from one commit."""
    return within_s + (message.wait_ms / 1000 if isinstance(message, Lease) else 0.0)


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    with await asyncio.to_thread(path.open, "rb") as file:
        while block := await asyncio.to_thread(file.read, UPLOAD_BLOCK_BYTES):
            yield block


# ---- WebSocket ---------------------------------------------------------------------------------------------------


class _Session:
    """One open socket: its outstanding requests, the one task that writes and the one that reads."""

    def __init__(self, socket: ClientConnection, on_push: OnPush) -> None:
        self._socket = socket
        self._on_push = on_push
        self._ids = itertools.count(1)
        self._pending: dict[int, asyncio.Future[ServerMessage]] = {}
        self._outgoing: deque[bytes] = deque()
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._frames = 0
        self._writer = asyncio.create_task(self._write())
        self._reader = asyncio.create_task(self._read())
        self.over = asyncio.Event()

    async def ask(self, message: RunnerMessage, within_s: float = CALL_TIMEOUT_S) -> ServerMessage:
        """One request, one answer; any number may be outstanding. Silence on the whole channel ends it."""
        if self.over.is_set():
            raise ServerUnreachable("the channel is closed")
        request_id = next(self._ids)
        future: asyncio.Future[ServerMessage] = self._loop.create_future()
        self._pending[request_id] = future
        self._outgoing.append(encode_frame(Request(request_id, message)))
        self._wake.set()
        timer = self._loop.call_later(_timeout_s(message, within_s), self._expire, future, self._frames)
        try:
            return await future
        finally:
            timer.cancel()
            self._pending.pop(request_id, None)

    async def close(self) -> None:
        """Close the socket and wait for both tasks."""
        with contextlib.suppress(ConnectionClosed, OSError, TimeoutError):
            await self._socket.close()
        self._writer.cancel()
        self._reader.cancel()
        await asyncio.gather(self._writer, self._reader, return_exceptions=True)
        self._end()

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._outgoing:
                    await self._socket.send(self._outgoing.popleft())
        except (ConnectionClosed, OSError):
            self._end()

    async def _read(self) -> None:
        try:
            async for data in self._socket:
                self._deliver(data)
        except (ConnectionClosed, OSError):
            pass
        except MalformedMessage:
            await self._socket.close(code=1002, reason="malformed frame")
        finally:
            self._end()

    def _deliver(self, data: bytes | str) -> None:
        if isinstance(data, str):
            raise MalformedMessage("a text frame: the channel speaks binary msgpack")
        answer = decode_answer_frame(data)
        self._frames += 1
        if answer.id == 0:
            self._on_push(answer.body)
            return
        future = self._pending.get(answer.id)
        if future is not None and not future.done():
            future.set_result(answer.body)

    def _expire(self, future: asyncio.Future[ServerMessage], frames: int) -> None:
        if not future.done():
            future.set_exception(ServerUnreachable("no answer over the channel in time"))
        if self._frames == frames:
            # A cut that nobody reports (a dead host, a firewall that forgot us) looks like this, for minutes.
            self._end()

    def _end(self) -> None:
        self.over.set()
        self._outgoing.clear()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(ServerUnreachable("the channel was cut before the answer arrived"))


class ChannelClient:
    """Any number of outstanding messages over one WebSocket of msgpack frames.

    The first call must be `Register`. After a cut it reconnects and registers again by itself, with backoff and
    jitter; until then every call raises `ServerUnreachable` at once.
    """

    def __init__(
        self,
        url: str,
        token: str,
        *,
        on_push: OnPush | None = None,
        on_registered: OnRegistered | None = None,
        jitter: Callable[[], float] = random.random,
        uploads: HttpClient | None = None,
    ) -> None:
        scheme, host, path, _, _ = urlsplit(url.rstrip("/"))
        self._address = urlunsplit(("wss" if scheme == "https" else "ws", host, f"{path}{PREFIX}channel", "", ""))
        self._token = token
        self._on_push = on_push if on_push is not None else _ignore
        self._on_registered = on_registered
        self._backoff = Backoff(first_ms=100, max_ms=30_000, jitter=jitter)
        self._uploads = uploads if uploads is not None else HttpClient(url, token)
        self._register: Register | None = None
        self._patience_s = CALL_TIMEOUT_S
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_ready(self) -> bool:
        """Connected and registered: a call would be sent now."""
        return self._session is not None and not self._session.over.is_set()

    async def call(self, message: RunnerMessage) -> ServerMessage:
        """Send one frame and wait for its answer; `Register` opens the socket first. See `RunnerClient.call`."""
        session = self._session
        if isinstance(message, Register):
            return await self._open(message)
        if session is None:
            raise ServerUnreachable("the channel is not open")
        return await session.ask(message, self._patience_s)

    async def upload_artifact(
        self, *, lease_id: str, job_id: str, attempt: int, name: str, path: Path, sha256: str
    ) -> ArtifactStored | StaleLease | Failure:
        """Artifacts go over HTTP: a stream of a gigabyte must not delay a heartbeat."""
        return await self._uploads.upload_artifact(
            lease_id=lease_id, job_id=job_id, attempt=attempt, name=name, path=path, sha256=sha256
        )

    def keep_trying(self, register: Register) -> None:
        """Go on opening the channel in the background, with backoff, registering as `register`."""
        self._register = register
        if self._keeper is None and not self._is_closed:
            self._keeper = asyncio.create_task(self._keep())

    async def aclose(self) -> None:
        """Close socket and uploads, and stop reconnecting."""
        self._is_closed = True
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None
        if self._session is not None:
            await self._session.close()
        await self._uploads.aclose()

    async def _open(self, register: Register) -> ServerMessage:
        """Connect if need be, and register. A definite refusal leaves the channel closed."""
        # Two registrations at once (the keeper's and a caller's) would open two sockets, one of them forgotten.
        async with self._opening:
            session = self._session
            is_new = session is None or session.over.is_set()
            if session is None or is_new:
                if session is not None:
                    await session.close()
                    self._session = None
                try:
                    session = _Session(await self._dial(), self._on_push)
                except InvalidStatus as error:
                    return self._refused(error)
            try:
                answer = await session.ask(register, self._patience_s)
            except BaseException:
                if is_new:
                    await session.close()
                raise
            if not isinstance(answer, Registered):
                await session.close()
                self._session = None
                return answer
            self._session = session
            self._uploads.take_registration(answer)
            self._patience_s = patience_s(answer)
            self._backoff.reset()
            if self._on_registered is not None:
                self._on_registered(answer)
            self.keep_trying(register)
            return answer

    async def _dial(self) -> ClientConnection:
        try:
            return await connect_socket(
                self._address,
                additional_headers={"Authorization": f"Bearer {self._token}"},
                compression=None,  # deflate costs more CPU than the bytes of small frames are worth
                max_size=FRAME_BYTES_MAX,
                max_queue=256,
                open_timeout=min(OPEN_TIMEOUT_S, self._patience_s),
                close_timeout=1,
            )
        except InvalidStatus:
            raise
        except InvalidHandshake as error:
            raise UpgradeRefused(f"no WebSocket at {self._address}: {error}") from error
        except (OSError, TimeoutError, EOFError) as error:
            raise ServerUnreachable(f"{self._address}: {str(error) or type(error).__name__}") from error

    def _refused(self, error: InvalidStatus) -> Failure:
        status = error.response.status_code
        if status in {401, 403}:
            return Failure(code="unauthorized", message="the server refuses this runner's token", http_status=status)
        raise UpgradeRefused(f"{self._address} answers {status} to the upgrade") from error

    async def _keep(self) -> None:
        """Reopen the channel whenever it is over; ends when the client is closed."""
        while True:
            if self._session is not None:
                await self._session.over.wait()
            await asyncio.sleep(self._backoff.next_s())
            if self._register is not None and not self.is_ready:
                with contextlib.suppress(ServerUnreachable):
                    await self._open(self._register)


def _ignore(_push: ServerMessage) -> None:
    """For callers that want no pushes: a cancel also arrives with the next `HeartbeatAck`."""


# ---- both --------------------------------------------------------------------------------------------------------


class FallbackClient:
    """Over the WebSocket when there is one, else over HTTP: both carry the same messages with the same meaning."""

    def __init__(self, channel: ChannelClient, http: HttpClient) -> None:
        self._channel = channel
        self._http = http

    async def call(self, message: RunnerMessage) -> ServerMessage:
        """See `RunnerClient.call`; a cut channel costs one `ServerUnreachable`, the next call goes over HTTP."""
        if isinstance(message, Register):
            return await self._register(message)
        if self._channel.is_ready:
            return await self._channel.call(message)
        return await self._http.call(message)

    async def upload_artifact(
        self, *, lease_id: str, job_id: str, attempt: int, name: str, path: Path, sha256: str
    ) -> ArtifactStored | StaleLease | Failure:
        """See `RunnerClient.upload_artifact`."""
        return await self._http.upload_artifact(
            lease_id=lease_id, job_id=job_id, attempt=attempt, name=name, path=path, sha256=sha256
        )

    async def aclose(self) -> None:
        """Close both."""
        await self._channel.aclose()
        await self._http.aclose()

    async def _register(self, message: Register) -> ServerMessage:
        try:
            return await self._channel.call(message)
        except ServerUnreachable:
            answer = await self._http.call(message)
        if isinstance(answer, Registered):
            self._channel.keep_trying(message)
        return answer
