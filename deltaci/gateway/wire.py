"""What Hypercorn leaves open to a peer that means harm, closed by the three classes of it that are replaced here.

Rule 1: HTTP/1.1 and WebSockets, and nothing else: no upgrade to HTTP/2, no compression (200 KiB become 200 MiB).
Rule 2: a connection that was refused or hung up is closed, and its descriptor free, at once.
Rule 3: a message that is too large ends the connection, before the rest of it is read into memory.
"""

import dataclasses

import hypercorn.asyncio.run
import hypercorn.protocol
import hypercorn.protocol.h11
from h11 import Request as RequestEvent
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.protocol.events import Event, Request, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WSStream

EXTENSIONS = b"sec-websocket-extensions"


class Connection(TCPServer):
    """One accepted socket."""

    async def _read_data(self) -> None:
        await super()._read_data()
        # The peer hung up. Hypercorn would sit out the keep-alive time with the descriptor open: with a connection a
        # webhook, 1,024 descriptors and 75 s, 14 webhooks a second were all that a server could take.
        await self.idle_task.stop()


class PlainProtocol(H11Protocol):
    """HTTP/1.1 that stays HTTP/1.1."""

    async def _check_protocol(self, event: RequestEvent) -> None:
        """Asked for HTTP/2, answer in HTTP/1.1, as RFC 9110 (7.8) allows."""


class BoundedStream(WSStream):
    """One WebSocket."""

    async def handle(self, event: Event) -> None:
        """Offer no extension to a handshake; all else as it is."""
        if isinstance(event, Request):
            headers = [(name, value) for name, value in event.headers if name.lower() != EXTENSIONS]
            event = dataclasses.replace(event, headers=headers)
        await super().handle(event)

    async def _handle_events(self) -> None:
        await super()._handle_events()
        if self.buffer.length > self.buffer.max_length:
            # The close frame is sent; Hypercorn would read on, and keep what it reads.
            self.buffer.clear()
            await self.send(StreamClosed(stream_id=self.stream_id))

    async def _send_error_response(self, status_code: int) -> None:
        await super()._send_error_response(status_code)
        await self.send(StreamClosed(stream_id=self.stream_id))


def install() -> None:
    """Have Hypercorn use them. It looks them up in its own modules, so that is where they are put."""
    for module, replacement in (
        (hypercorn.asyncio.run, Connection),
        (hypercorn.protocol, PlainProtocol),
        (hypercorn.protocol.h11, BoundedStream),
    ):
        name = replacement.__bases__[0].__name__
        assert hasattr(module, name), f"Hypercorn has no {module.__name__}.{name} any more"
        setattr(module, name, replacement)
