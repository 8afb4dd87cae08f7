"""Quart's WebSocket without what a runner's channel has no use for, by the two classes that Quart lets one replace.

Quart's own fires two signals a frame that nobody listens to, and gives up the loop before each frame it sends, which
protects against handlers that send in a loop without waiting; a channel waits between any two frames.
"""

import asyncio
from typing import Any, Final, cast

from hypercorn.typing import ASGIReceiveCallable, ASGISendCallable, WebsocketScope
from quart import Quart, Websocket
from quart.asgi import ASGIWebsocketConnection

from deltaci.gateway.door import objection_to

FRAMES_WAITING_MAX: Final = 64


class ChannelConnection(ASGIWebsocketConnection):
    """Frames between Hypercorn and the handler; a peer that sends faster than it is answered is made to wait."""

    def __init__(self, app: Quart, scope: WebsocketScope) -> None:
        super().__init__(app, scope)
        # Bounded: once it is full, Hypercorn stops reading, and the peer's own buffers fill up.
        self.queue = asyncio.Queue(maxsize=FRAMES_WAITING_MAX)

    async def __call__(self, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        """One channel, if the handshake can be made one; else Hypercorn answers 403."""
        if objection_to(self.scope) is not None:
            await send({"type": "websocket.close", "code": 1000, "reason": None})
            return
        await super().__call__(receive, send)

    async def handle_messages(self, receive: ASGIReceiveCallable) -> None:
        """Queue what arrives, until the peer hangs up."""
        while True:
            event = await receive()
            if event["type"] == "websocket.receive":
                await self.queue.put(event.get("bytes") or event["text"])
            elif event["type"] == "websocket.disconnect":
                return

    async def send_data(self, send: ASGISendCallable, data: str | bytes) -> None:
        """One frame."""
        is_text = isinstance(data, str)
        event = {"type": "websocket.send", "bytes": None if is_text else data, "text": data if is_text else None}
        await send(cast("Any", event))


class ChannelSocket(Websocket):
    """The handler's side of the socket."""

    async def send(self, data: str | bytes) -> None:
        """One frame; the first accepts the connection, as `receive` does."""
        await self.accept()
        await self._send(data)
