"""Bodies that keep a pace: what a route reads slowly is not piled up in memory, and what it does not want is read off.

Rule 1: the answer to a refused upload reaches a client that is still sending: closing with bytes unread resets the
        connection, and the reset may overtake the answer. What is read off is bounded in bytes and in time.
Rule 2: only bodies that are streamed keep a pace; the others are read as a whole, up to their limit.
"""

import asyncio
import contextlib
from typing import Any, Final

from hypercorn.typing import ASGIReceiveCallable
from quart import Request
from quart.asgi import ASGIHTTPConnection
from quart.wrappers.request import Body

BUFFERED_BYTES_MAX: Final = 1024 * 1024
UNREAD_BYTES_MAX: Final = 32 * 1024 * 1024
UNREAD_S_MAX: Final = 5


class PacedBody(Body):
    """The body of one request, filled by `take` while a route reads it."""

    def __init__(self, expected_content_length: int | None, max_content_length: int | None) -> None:
        super().__init__(expected_content_length, max_content_length)
        self._is_streamed = max_content_length is None
        self._buffered_bytes = 0
        self._unread_bytes = 0
        self._is_unwanted = False
        self._has_room = asyncio.Event()
        self._is_over = asyncio.Event()

    async def __anext__(self) -> bytes:
        data = await super().__anext__()
        self._make_room()
        return data

    async def take(self, data: bytes, *, is_last: bool) -> None:
        """The next bytes from the socket; returns when there is room for more."""
        if self._is_unwanted:
            self._unread_bytes += len(data)
        else:
            self.append(data)
            self._buffered_bytes += len(data)
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
        self._make_room()
        if not self._is_over.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(UNREAD_S_MAX):
                    await self._is_over.wait()

    def _make_room(self) -> None:
        self._buffered_bytes = 0
        self._has_room.set()


class PacedConnection(ASGIHTTPConnection):
    """Quart's connection, with a receiver that waits for room."""

    async def handle_messages(self, request: Request, receive: ASGIReceiveCallable) -> None:
        """Feed the body until the client is gone."""
        body: Any = request.body
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            await body.take(message.get("body", b""), is_last=not message.get("more_body", False))
