"""The load generator's side of the sockets: as little work a request as possible, so that the server is measured.

One request at a time over HTTP, any number over a WebSocket. Not a client to copy: it trusts its server.
"""

import asyncio
import itertools
import os
from base64 import b64encode
from collections.abc import Mapping
from typing import Any

import msgspec

from benchmarks.processes import Server
from protocol import messages as wire
from protocol.codec import MSGPACK_TYPE, decode_server_body, encode_body, encode_frame

ANSWERS = msgspec.msgpack.Decoder(wire.Answer)


class Echoed(msgspec.Struct, array_like=True):
    """What the empty echo sends back: the frame as it came."""

    id: int
    body: msgspec.Raw


ECHOES = msgspec.msgpack.Decoder(Echoed)


class Http(asyncio.Protocol):
    """A keep-alive connection with one request under way."""

    def __init__(self) -> None:
        self._transport: Any
        self._received = b""
        self._answer: asyncio.Future[tuple[int, bytes]]

    @classmethod
    async def connect(cls, server: Server) -> "Http":
        """An open connection."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(cls, server.host, server.port)
        return protocol

    def connection_made(self, transport: Any) -> None:
        """Keep what we write to."""
        self._transport = transport
        self._answer = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        """Answer whoever waits, once head and body are there."""
        received = self._received = self._received + data if self._received else data
        head_end = received.find(b"\r\n\r\n")
        if head_end < 0:
            return
        at = received.find(b"content-length: ", 0, head_end)
        length = int(received[at + 16 : received.find(b"\r\n", at)]) if at >= 0 else 0
        if len(received) >= head_end + 4 + length:
            self._received = b""
            if not self._answer.done():
                self._answer.set_result((int(received[9:12]), received[head_end + 4 :]))

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever waits is told."""
        if not self._answer.done():
            self._answer.set_exception(ConnectionError("the server closed the connection"))
            self._answer.exception()

    async def send(self, request: bytes) -> tuple[int, bytes]:
        """Status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close."""
        self._transport.close()


def post(server: Server, path: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """A whole POST request as bytes."""
    head = {"host": f"{server.host}:{server.port}", "content-length": str(len(body)), **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
    return f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body


class Channel(asyncio.Protocol):
    """A WebSocket of msgpack frames with any number of requests under way."""

    def __init__(self, decoder: Any) -> None:
        self._decode = decoder.decode
        self._transport: Any
        self._received = bytearray()
        self._opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._ids = itertools.count(1)
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def connect(cls, server: Server, path: str, token: str, decoder: Any = ANSWERS) -> "Channel":
        """An open WebSocket."""
        loop = asyncio.get_running_loop()
        _, channel = await loop.create_connection(lambda: cls(decoder), server.host, server.port)
        await channel.upgrade(server, path, token)
        return channel

    async def upgrade(self, server: Server, path: str, token: str) -> None:
        """Ask for the WebSocket, and wait until it is there."""
        key = b64encode(os.urandom(16)).decode()
        self._transport.write(
            f"GET {path} HTTP/1.1\r\nHost: {server.host}:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
        )
        await self._opened

    def connection_made(self, transport: Any) -> None:
        """Keep what we write to."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """The answer to the upgrade, then frames."""
        received = self._received
        received += data
        if not self._opened.done():
            head_end = received.find(b"\r\n\r\n")
            if head_end < 0:
                return
            if not received.startswith(b"HTTP/1.1 101"):
                self._opened.set_exception(ConnectionError(bytes(received[:200]).decode(errors="replace")))
                return
            del received[: head_end + 4]
            self._opened.set_result(None)
        at = 0
        while len(received) - at >= 2:
            size, start = received[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(received[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(received[at + 2 : at + 10], "big"), at + 10
            if len(received) < start + size:
                break
            self._take(received[at] & 0x0F, bytes(received[start : start + size]))
            at = start + size
        del received[:at]

    def _take(self, opcode: int, payload: bytes) -> None:
        if opcode == 2:
            answer = self._decode(payload)
            waiting = self._waiting.pop(answer.id, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(answer.body)
        elif opcode == 9:
            self._transport.write(_frame(payload, opcode=10))
        elif opcode == 8:
            self._transport.close()

    def connection_lost(self, _error: Exception | None) -> None:
        """Whoever waits is told."""
        for waiting in (self._opened, *self._waiting.values()):
            if not waiting.done():
                waiting.set_exception(ConnectionError("the server closed the channel"))
                waiting.exception()

    def call(self, message: Any) -> "asyncio.Future[Any]":
        """The answer to one message."""
        number = next(self._ids)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[number] = answer
        self._transport.write(_frame(encode_frame(wire.Request(number, message))))
        return answer

    def close(self) -> None:
        """Close."""
        self._transport.close()


def _frame(payload: bytes, *, opcode: int = 2) -> bytes:
    """A masked frame; the mask is zero, which is one of those a client may draw, and saves us the work of it."""
    size = len(payload)
    if size < 126:
        return bytes((0x80 | opcode, 0x80 | size)) + b"\0\0\0\0" + payload
    if size < 65_536:
        return bytes((0x80 | opcode, 0x80 | 126)) + size.to_bytes(2, "big") + b"\0\0\0\0" + payload
    return bytes((0x80 | opcode, 0x80 | 127)) + size.to_bytes(8, "big") + b"\0\0\0\0" + payload


class HttpRunner:
    """A runner over HTTP with msgpack bodies."""

    VERBS: Mapping[type, str] = {
        wire.Register: "register",
        wire.Lease: "lease",
        wire.AckLease: "ack",
        wire.Heartbeat: "heartbeat",
        wire.AppendLog: "log",
        wire.Complete: "complete",
    }

    def __init__(self, connection: Http, server: Server, token: str) -> None:
        self._connection = connection
        self._server = server
        self._heads: dict[type, bytes] = {}
        self._token = token
        self.id = ""

    def become(self, runner_id: str) -> None:
        """Send this runner's id with every request."""
        self.id = runner_id
        self._heads.clear()

    async def call(self, message: Any) -> Any:
        """The answer to one message; raises `RuntimeError` on an error answer."""
        kind = type(message)
        head = self._heads.get(kind)
        if head is None:
            headers = {
                "authorization": f"Bearer {self._token}",
                "content-type": MSGPACK_TYPE,
                "accept": MSGPACK_TYPE,
                "x-deltaci-runner": self.id or "-",
            }
            whole = post(self._server, f"/api/v1/runner/{self.VERBS[kind]}", b"", headers)
            head = self._heads[kind] = whole.replace(b"content-length: 0\r\n", b"").removesuffix(b"\r\n")
        body = encode_body(message, MSGPACK_TYPE)
        status, answer = await self._connection.send(b"%scontent-length: %d\r\n\r\n%s" % (head, len(body), body))
        if status not in (200, 409, 416):
            raise RuntimeError(f"{kind.__name__}: {status} {answer[:300]!r}")
        return decode_server_body(answer, MSGPACK_TYPE)

    def close(self) -> None:
        """Close."""
        self._connection.close()


class ChannelRunner:
    """A runner over a WebSocket."""

    def __init__(self, channel: Channel) -> None:
        self.call = channel.call
        self.close = channel.close
        self.id = ""

    def become(self, runner_id: str) -> None:
        """Who it is; the channel knows by itself."""
        self.id = runner_id


Runner = HttpRunner | ChannelRunner
