"""Bodies that keep a pace: what a route reads slowly is not piled up in memory, and what it does not want is read off.

Rule 1: the answer to a refused upload reaches a client that is still sending: closing with bytes unread resets the
        connection, and the reset may overtake the answer. What is read off is bounded in bytes and in time.
Rule 2: only bodies that are streamed keep a pace; the others are read as a whole, up to their limit.
Rule 3: all bodies in memory together are bounded as well: anybody may send a webhook's worth, and many times at once.
"""

import asyncio
import contextlib
from typing import Any, Final

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable
from quart import Request
from quart.asgi import ASGIHTTPConnection
from quart.wrappers.request import Body
from werkzeug.exceptions import RequestTimeout

from deltaci.domain.errors import DeltaError
from deltaci.gateway.door import objection_to, turn_away

BUFFERED_BYTES_MAX: Final = 1024 * 1024
UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024
UNREAD_S_MAX: Final = 5
# What every body may hold without being counted, so that a flood of large ones does not keep small ones out
UNCOUNTED_BYTES_MAX: Final = 16 * 1024


class BodiesFull(DeltaError):
    """Too many large bodies are being received at once: send it again."""

    code = "overloaded"
    http_status = 503
    is_retryable = True


class BodyRoom:
    """The memory that all bodies share."""

    def __init__(self, bytes_max: int) -> None:
        self._free_bytes = bytes_max

    def take(self, size: int) -> bool:
        """Whether there was room."""
        if size > self._free_bytes:
            return False
        self._free_bytes -= size
        return True

    def give_back(self, size: int) -> None:
        """It is free for others."""
        self._free_bytes += size


class PacedBody(Body):
    """The body of one request, filled by `take` while a route reads it."""

    def __init__(
        self,
        expected_content_length: int | None,
        max_content_length: int | None,
        *,
        room: BodyRoom,
        stall_s_max: float,
    ) -> None:
        """Args: stall_s_max: how long a route that reads a stream waits for the next bytes of it."""
        super().__init__(expected_content_length, max_content_length)
        self._room = room
        self._room_bytes = 0
        self._stall_s_max = stall_s_max
        self._is_streamed = max_content_length is None
        self._buffered_bytes = 0
        self._unread_bytes = 0
        self._is_unwanted = False
        self._has_room = asyncio.Event()
        self._is_over = asyncio.Event()

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_s_max):
                data = await super().__anext__()
        except TimeoutError as error:
            raise RequestTimeout from error
        self._make_room()
        return data

    async def take(self, data: bytes, *, is_last: bool) -> None:
        """The next bytes from the socket; returns when there is room for more."""
        if self._is_unwanted:
            self._unread_bytes += len(data)
        elif self._is_streamed or self._fits(len(data)):
            self.append(data)
            self._buffered_bytes += len(data)
        else:
            self._refuse()
        if is_last:
            self.set_complete()
        if is_last or self._unread_bytes > UNREAD_BYTES_MAX:
            self._is_over.set()
        elif self._is_streamed and self._buffered_bytes > BUFFERED_BYTES_MAX and not self._is_unwanted:
            self._has_room.clear()
            await self._has_room.wait()

    async def read_off(self) -> None:
        """Nobody wants the rest: drop it as it comes, up to a bound."""
        self._is_unwanted = True
        self.clear()
        self.leave()
        self._make_room()
        if not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UNREAD_S_MAX):
                    await self._is_over.wait()

    def leave(self) -> None:
        """The request is over, and what it held is free."""
        self._room.give_back(self._room_bytes)
        self._room_bytes = 0

    def _fits(self, size: int) -> bool:
        if self._must_raise is not None:
            return True  # it is refused already, and nothing of it is kept
        counted = max(0, self._buffered_bytes + size - UNCOUNTED_BYTES_MAX) - self._room_bytes
        if counted > 0:
            if not self._room.take(counted):
                return False
            self._room_bytes += counted
        return True

    def _refuse(self) -> None:
        self._must_raise = BodiesFull()
        self.clear()
        self.leave()
        self.set_complete()

    def _make_room(self) -> None:
        self._buffered_bytes = 0
        self._has_room.set()


class PacedConnection(ASGIHTTPConnection):
    """Quart's connection, with a receiver that waits for room."""

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """One request, if it can be made one."""
        objection = objection_to(self.scope)
        if objection is not None:
            await turn_away(send, objection)
            return
        await super().__call__(receive, send)

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        """Feed the body until the client is gone."""
        body: Any = request.body
        try:
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    return
                await body.take(message.get("body", b""), is_last=not message.get("more_body", False))
        finally:
            body.leave()
