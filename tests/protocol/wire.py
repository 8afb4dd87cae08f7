"""A small server that speaks the runner's protocol over real sockets, on a port that the system chooses."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart, Response, copy_current_websocket_context, request, websocket

from protocol.codec import decode_request_frame, decode_runner_body, encode_body, encode_frame
from protocol.messages import Answer, Failure, LogGap, Register, Registered, RunnerMessage, ServerMessage, StaleLease

Respond = Callable[[RunnerMessage], Awaitable[ServerMessage]]


async def registers_everyone(message: RunnerMessage) -> ServerMessage:
    if isinstance(message, Register):
        return Registered(runner_id="runner-1")
    return Failure(code="unexpected", message=type(message).__name__)


class WireServer:
    """Answers through `respond`; remembers headers and transports."""

    def __init__(
        self, respond: Respond = registers_everyone, *, has_channel: bool = True, token: str = "secret"
    ) -> None:
        self.respond = respond
        self.has_channel = has_channel
        self.token = token
        self.seen: list[tuple[str, RunnerMessage]] = []
        self.headers: list[dict[str, str]] = []
        self.uploads: dict[str, bytes] = {}
        self.pages: dict[str, Response] = {}
        self.outboxes: list[asyncio.Queue[bytes]] = []
        self.changed = asyncio.Event()
        self.url = ""
        self._stop = asyncio.Event()
        self._is_down = asyncio.Event()
        self._channels: set[asyncio.Task[Any]] = set()
        self._task: asyncio.Task[None] | None = None
        self._port = 0

    def push(self, message: ServerMessage) -> None:
        for outbox in self.outboxes:
            outbox.put_nowait(encode_frame(Answer(0, message)))

    def push_bytes(self, data: bytes) -> None:
        for outbox in self.outboxes:
            outbox.put_nowait(data)

    async def start(self) -> None:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self._port))
        listener.listen()
        listener.setblocking(False)
        self._port = listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self._port}"
        config = Config()
        config.bind = [f"fd://{listener.detach()}"]
        config.graceful_timeout = 0.2
        config.errorlog = config.accesslog = None
        self._stop = asyncio.Event()
        self._is_down = asyncio.Event()
        self._task = asyncio.create_task(serve(self._app(), config, shutdown_trigger=self._wait_for_stop))

    async def stop(self) -> None:
        self._stop.set()
        await self.until(lambda: not self._channels)
        self._is_down.set()
        if self._task is not None:
            await asyncio.wait({self._task})
            self._task = None
        self.outboxes.clear()

    async def _wait_for_stop(self) -> None:
        await self._is_down.wait()

    def _app(self) -> Quart:
        app = Quart("wire")

        @app.post("/api/v1/runner/<name>")
        async def post(name: str) -> Response:
            self.headers.append(dict(request.headers))
            if request.headers.get("Authorization") != f"Bearer {self.token}":
                body = b'{"error":{"code":"unauthorized","message":"who are you?","details":{"n":1}}}'
                return Response(body, status=401, content_type="application/json")
            if name in self.pages:
                return self.pages[name]
            message = decode_runner_body(await request.get_data(), request.headers["Content-Type"])
            self._note("http", message)
            answer = await self.respond(message)
            status = 409 if isinstance(answer, StaleLease) else 416 if isinstance(answer, LogGap) else 200
            kind = request.headers["Accept"]
            return Response(encode_body(answer, kind), status=status, content_type=kind)

        @app.put("/api/v1/runner/artifacts/<job_id>/<int:attempt>/<name>")
        async def put(job_id: str, attempt: int, name: str) -> Response:
            self.headers.append(dict(request.headers))
            is_known = name in self.uploads
            self.uploads[name] = await request.get_data()
            return Response(b"", status=200 if is_known else 201)

        if self.has_channel:
            app.websocket("/api/v1/runner/channel")(self._channel)
        return app

    async def _channel(self) -> Any:
        self.headers.append(dict(websocket.headers))
        if websocket.headers.get("Authorization") != f"Bearer {self.token}":
            return Response(b"", status=401)
        await websocket.accept()
        outbox: asyncio.Queue[bytes] = asyncio.Queue()
        self.outboxes.append(outbox)
        tasks = [
            asyncio.create_task(copy_current_websocket_context(part)(outbox)) for part in (self._write, self._read)
        ]
        stop = asyncio.create_task(self._stop.wait())
        self._channels.add(stop)
        try:
            # A handler that is torn down by the server's own shutdown leaves warnings; this one ends by itself.
            await asyncio.wait({*tasks, stop}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*tasks, stop):
                task.cancel()
            await asyncio.gather(*tasks, stop, return_exceptions=True)
            self._channels.discard(stop)
            self.changed.set()
        return None

    async def _read(self, outbox: asyncio.Queue[bytes]) -> None:
        answers: set[asyncio.Task[None]] = set()
        try:
            while True:
                frame = decode_request_frame(await websocket.receive())
                self._note("websocket", frame.body)
                task = asyncio.create_task(self._answer(frame.id, frame.body, outbox))
                answers.add(task)
                task.add_done_callback(answers.discard)
        finally:
            for task in answers:
                task.cancel()
            await asyncio.gather(*answers, return_exceptions=True)

    async def _write(self, outbox: asyncio.Queue[bytes]) -> None:
        while True:
            await websocket.send(await outbox.get())

    async def _answer(self, request_id: int, message: RunnerMessage, outbox: asyncio.Queue[bytes]) -> None:
        outbox.put_nowait(encode_frame(Answer(request_id, await self.respond(message))))

    def _note(self, transport: str, message: RunnerMessage) -> None:
        self.seen.append((transport, message))
        self.changed.set()

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                self.changed.clear()
                await self.changed.wait()


@contextlib.asynccontextmanager
async def a_server(respond: Respond = registers_everyone, **fields: Any) -> AsyncIterator[WireServer]:
    """A running server; `async with` ends with the port free again."""
    server = WireServer(respond, **fields)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()
