"""Clients that speak to the server byte by byte, as one that means harm does; and a good one to see who suffers."""

import asyncio
import contextlib
import re
import socket
import struct
import threading
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import httpx
import msgspec
import psutil

from tests.scenarios.support import Project, Server, wait_for

ANSWER_WITHIN_S: Final = 20.0
BLOCK_BYTES: Final = 65_536
KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="

_HEAD: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r]*\r\n(.*?)\r\n\r\n", re.DOTALL)
_LENGTH: Final = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


class Answer(msgspec.Struct):
    """What came back: the status of each answer, and whether the server closed the connection afterwards."""

    statuses: list[int]
    is_cut: bool
    data: bytes


def talk(port: int, *pieces: bytes, pause_s: float = 0.0, answers: int = 1) -> Answer:
    """Send `pieces`; read until there are `answers`, or until the connection is cut. Fails when neither comes."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN_S) as connection:
        deadline = time.monotonic() + ANSWER_WITHIN_S
        try:
            for piece in pieces:
                connection.sendall(piece)
                if pause_s:
                    received += _listen(connection, pause_s)
            while len(answered(received)) < answers:
                connection.settimeout(max(0.01, deadline - time.monotonic()))
                data = connection.recv(BLOCK_BYTES)
                if not data:
                    return Answer(answered(received), True, received)
                received += data
            # What follows the last answer, if anything does: the end, or one answer too many.
            return Answer(answered(received), *_ends(connection, received))
        except TimeoutError:
            raise AssertionError(f"neither answered nor cut: {pieces[0][:80]!r} {received!r}") from None
        except OSError:
            return Answer(answered(received), True, received)


def _listen(connection: socket.socket, for_s: float) -> bytes:
    connection.settimeout(for_s)
    try:
        data = connection.recv(BLOCK_BYTES)
    except TimeoutError:
        return b""
    finally:
        connection.settimeout(ANSWER_WITHIN_S)
    if not data:
        raise ConnectionError("cut")
    return data


def _ends(connection: socket.socket, received: bytes) -> tuple[bool, bytes]:
    connection.settimeout(0.2)
    with contextlib.suppress(OSError):
        while data := connection.recv(BLOCK_BYTES):
            received += data
        return True, received
    return False, received


def answered(data: bytes) -> list[int]:
    """The statuses of the whole answers in `data`."""
    statuses = []
    while (head := _HEAD.match(data)) is not None:
        length = _LENGTH.search(head.group(2))
        end = head.end() + (int(length.group(1)) if length else 0)
        status = int(head.group(1))
        if len(data) < end:
            break
        if status != 100:
            statuses.append(status)
        data = data[end:]
    return statuses


def post(path: str, body: bytes = b"", *headers: str, length: int | None = None) -> bytes:
    """A request with a body; `length` is what it says of itself."""
    size = len(body) if length is None else length
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *headers)
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of this loop, whose socket is closed when the context ends: not at some later turn of the loop."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        # `close` alone waits for what is unsent, and for a turn that a loop at its end may never have.
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# ---- WebSocket ---------------------------------------------------------------------------------------------------


def handshake(token: str, *headers: str) -> bytes:
    """A correct one for the runner's channel."""
    lines = (
        "GET /api/v1/runner/channel HTTP/1.1",
        *("Host: x", "Connection: Upgrade", "Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"),
        *("Sec-WebSocket-Version: 13", f"Authorization: Bearer {token}", *headers),
    )
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def frame(opcode: int, data: bytes, *, fin: bool = True, masked: bool = True, rsv: int = 0, length: int = -1) -> bytes:
    """A frame, correct or not; `length` is what it says of itself."""
    size = len(data) if length < 0 else length
    mask = 0x80 if masked else 0
    first = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    if size < 126:
        head = first + bytes([mask | size])
    elif size < 1 << 16:
        head = first + bytes([mask | 126]) + struct.pack(">H", size)
    else:
        head = first + bytes([mask | 127]) + struct.pack(">Q", size)
    return head + (b"\0" * 4 if masked else b"") + data


def speak(port: int, token: str, frames: Iterable[bytes], *headers: str) -> str:
    """Open a channel and send `frames`; how the server ended it: "cut", or the code of its close frame."""
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_WITHIN_S) as connection:
        received = b""
        try:
            connection.sendall(handshake(token, *headers))
            while b"\r\n\r\n" not in received:
                received += connection.recv(BLOCK_BYTES)
            assert received.startswith(b"HTTP/1.1 101"), received
            assert b"extensions" not in received.lower()
            received = received.partition(b"\r\n\r\n")[2]
            for each in frames:
                connection.sendall(each)
            while data := connection.recv(BLOCK_BYTES):
                received += data
        except TimeoutError:
            raise AssertionError(f"not ended by the server: {received[-100:]!r}") from None
        except OSError:
            # It closed with bytes of ours unread; its last frame may be lost with that.
            pass
        close = received.rfind(b"\x88")
        return str(struct.unpack(">H", received[close + 2 : close + 4])[0]) if close >= 0 else "cut"


# ---- who suffers -------------------------------------------------------------------------------------------------


class Witness:
    """A good client that never stops asking, and the server's memory and descriptors meanwhile."""

    def __init__(self, server: Server, project: Project | None = None) -> None:
        assert server.process is not None
        self._server = server
        self._project = project
        self._process = psutil.Process(server.process.popen.pid)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._ask)
        self.descriptors = self._process.num_fds()
        self.first_bytes = self._process.memory_info().rss
        self.most_bytes = self.first_bytes
        self.longest_s = 0.0
        self.statuses: list[int] = []
        self.runs: dict[str, str] = {}
        self.errors: list[str] = []

    @property
    def grown_bytes(self) -> int:
        """By how much the server's memory grew, at most."""
        return self.most_bytes - self.first_bytes

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(60)

    def has_left(self) -> bool:
        """Whether the server holds no descriptor of the bad clients any more."""
        return self._process.num_fds() <= self.descriptors + 8

    def _ask(self) -> None:
        with httpx.Client(timeout=ANSWER_WITHIN_S) as client:
            number = 0
            while not self._is_over.wait(0.05):
                started = time.monotonic()
                try:
                    number += 1
                    self.statuses.append(self._deliver(client, number))
                except httpx.HTTPError as error:
                    self.errors.append(repr(error))
                self.longest_s = max(self.longest_s, time.monotonic() - started)
                with contextlib.suppress(psutil.Error):
                    self.most_bytes = max(self.most_bytes, self._process.memory_info().rss)

    def _deliver(self, client: httpx.Client, number: int) -> int:
        if self._project is None or number % 25 != 1:
            return client.get(f"{self._server.url}/readyz").status_code
        delivery = f"good-{number}"
        data, headers = self._project.webhook("0" * 40, delivery, after=f"{number:040x}")
        answer = client.post(f"{self._server.url}/api/v1/webhooks/git", content=data, headers=headers)
        if answer.status_code == 202:
            self.runs[delivery] = answer.json()["run_id"]
        return answer.status_code


@contextmanager
def besieged(server: Server, project: Project | None = None) -> Iterator[Witness]:
    """A good client is served all the while, nothing of ours breaks, and at the end nothing of the bad ones is left."""
    witness = Witness(server, project)
    witness.start()
    try:
        yield witness
    finally:
        witness.stop()
    assert witness.errors == []
    assert set(witness.statuses) <= {200, 202}, witness.statuses
    assert witness.statuses
    wait_for("the bad clients' descriptors to be closed", witness.has_left)
    told = server.log.read_text(errors="replace")
    assert "Traceback" not in told, told[-5_000:]
    assert "crashed" not in told, told[-5_000:]
    known: list[Any] = [server.view(run_id)["run"]["id"] for run_id in witness.runs.values()]
    assert known == list(witness.runs.values())
    server.assert_sound()
