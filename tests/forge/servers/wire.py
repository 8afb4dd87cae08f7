"""A small HTTP/1.1 server on a loopback port, on which the forges of the tests stand: routes, faults, and a record.

Rule 1: a request that no route takes is an answer (404) and a violation: leaving the server then fails the test.
Rule 2: misfortune is scheduled by the test, never drawn here: the same test sees the same faults again.
"""

import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar
from urllib.parse import parse_qsl, unquote

import anyio
import h11
import msgspec
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSListener

BODY_BYTES_MAX = 32 * 1024 * 1024
WAIT_S = 20


@dataclass(frozen=True)
class Asked:
    """One request. Header names in lower case; `path` as it was sent, `params` what the route's braces stand for."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    at_ms: int
    target: str = ""
    params: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        return msgspec.json.decode(self.body) if self.body else {}

    def query_pairs(self) -> list[tuple[str, str]]:
        """The query with names that come more than once."""
        return parse_qsl(self.target.partition("?")[2], keep_blank_values=True)


@dataclass
class Answer:
    """`body` is sent as JSON, bytes as they are, None as nothing."""

    status: int = 200
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)

    def encoded(self) -> bytes:
        if self.body is None:
            return b""
        return self.body if isinstance(self.body, bytes) else msgspec.json.encode(self.body)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request: another answer, a connection that is cut, or silence until the server closes.

    `is_done` does what was asked first: the caller cannot know, which is the worst of all faults.
    """

    kind: Literal["answer", "reset", "hang"] = "answer"
    status: int = 502
    body: bytes = b"<html>Bad gateway</html>"
    headers: Mapping[str, str] = field(default_factory=dict)
    is_done: bool = False


RESET = Fault("reset")
HANG = Fault("hang")
Handler: TypeAlias = Callable[[Any, Asked], Answer]
F = TypeVar("F", bound=Handler)
S = TypeVar("S", bound="Server")


def route(method: str, template: str, needs: str = "") -> Callable[[F], F]:
    """Mark a method of a server as the answer to requests like `GET /repos/{owner}/{repo}`; `needs` is its own word."""

    def mark(handler: F) -> F:
        handler.__dict__.setdefault("routes", []).append((method, template, needs))
        return handler

    return mark


@dataclass(frozen=True)
class Route:
    method: str
    template: str
    pattern: re.Pattern[str]
    handler: Handler
    needs: str


class Server:
    """`asked` is every request that arrived, in order; `fault_of` the schedule of misfortune, None for none."""

    # Parameters that stand for more than one segment of a path
    LONG_PARAMETERS: frozenset[str] = frozenset()

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.url = ""
        self.asked: list[Asked] = []
        self.violations: list[str] = []
        self.fault_of: Callable[[Asked], Fault | None] = lambda _: None
        self._scripted: list[tuple[str, Fault]] = []
        self._over = anyio.Event()
        self._changed = anyio.Event()
        self.routes = [
            Route(method, template, self._pattern(template), handler, needs)
            for name in dir(type(self))
            for handler in [getattr(type(self), name)]
            for method, template, needs in getattr(handler, "routes", [])
        ]
        # The most literal template wins, as `/commits/{ref}/check-runs` does over `/commits/{ref}`.
        self.routes.sort(key=lambda one: (one.template.count("{"), -len(one.template)))

    def _pattern(self, template: str) -> re.Pattern[str]:
        parts = re.split(r"\{([^}]+)\}", template)
        text = "".join(
            (rf"(?P<{part}>.+)" if part in self.LONG_PARAMETERS else rf"(?P<{part}>[^/]+)")
            if index % 2
            else re.escape(part)
            for index, part in enumerate(parts)
        )
        return re.compile(text)

    # ---- for tests -----------------------------------------------------------------------------------------------

    def fail_next(self, *faults: Fault, on: str = "") -> None:
        """These go wrong, in this order, each with the next request whose `METHOD path` contains `on`."""
        self._scripted += [(on, fault) for fault in faults]

    def asked_for(self, text: str) -> list[Asked]:
        """The requests whose `METHOD path` contains `text`."""
        return [one for one in self.asked if text in f"{one.method} {one.path}"]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Return once `is_so`, which is looked at after each request."""
        with anyio.fail_after(WAIT_S):
            while not is_so():
                await self._changed.wait()

    # ---- for servers ---------------------------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        """The answer of the route that takes the request."""
        for one in self.routes:
            found = one.pattern.fullmatch(asked.path) if one.method == asked.method else None
            if found is not None:
                params = {name: unquote(value) for name, value in found.groupdict().items()}
                routed = Asked(**{**asked.__dict__, "params": params})
                return self.routed(one, routed)
        self.violations.append(f"{asked.method} {asked.path}: there is no such operation")
        return Answer(404, {"message": "Not Found"})

    def routed(self, route: Route, asked: Asked) -> Answer:
        """The answer of `route`; a server puts what holds for all of them here."""
        return route.handler(self, asked)

    def _careful(self, asked: Asked) -> Answer:
        """The answer; a mistake of the server is told when the test leaves it, instead of tearing the test apart."""
        try:
            return self.answer(asked)
        except Exception as error:  # noqa: BLE001 - whatever it is
            self.violations.append(f"{asked.method} {asked.path}: the server failed: {error!r}")
            return Answer(500, {"message": repr(error)})

    def _fault(self, asked: Asked) -> Fault | None:
        for index, (on, fault) in enumerate(self._scripted):
            if on in f"{asked.method} {asked.path}":
                del self._scripted[index]
                return fault
        return self.fault_of(asked)

    async def _serve(self, stream: ByteStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            async with stream:
                while await self._exchange(connection, stream):
                    connection.start_next_cycle()
        except (anyio.BrokenResourceError, anyio.ClosedResourceError, anyio.EndOfStream, h11.RemoteProtocolError):
            pass

    async def _exchange(self, connection: h11.Connection, stream: ByteStream) -> bool:
        """One request and its answer; whether the connection may carry another one."""
        request, body = None, bytearray()
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                try:
                    connection.receive_data(await stream.receive())
                except anyio.EndOfStream:
                    connection.receive_data(b"")
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                assert len(body) <= BODY_BYTES_MAX
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert request is not None
        asked = self._asked(request, bytes(body))
        self.asked.append(asked)
        fault = self._fault(asked)
        answer = self._careful(asked) if fault is None or fault.is_done else Answer()
        self._changed.set()
        self._changed = anyio.Event()
        if fault is not None and fault.kind == "hang":
            await self._over.wait()
            return False
        if fault is not None and fault.kind == "reset":
            _reset(stream)
            return False
        if fault is not None:
            answer = Answer(fault.status, fault.body, dict(fault.headers))
        await self._say(connection, stream, answer)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def _asked(self, request: h11.Request, body: bytes) -> Asked:
        target = request.target.decode("ascii")
        path, _, query = target.partition("?")
        return Asked(
            method=request.method.decode("ascii"),
            path=path,
            query=dict(parse_qsl(query, keep_blank_values=True)),
            headers={name.decode(): value.decode("latin-1") for name, value in request.headers},
            body=body,
            at_ms=self.now_ms(),
            target=target,
        )

    async def _say(self, connection: h11.Connection, stream: ByteStream, answer: Answer) -> None:
        data = answer.encoded()
        headers = {"content-type": "application/json; charset=utf-8", **answer.headers}
        if answer.status not in (204, 304):
            headers.setdefault("content-length", str(len(data)))
        sent = connection.send(h11.Response(status_code=answer.status, headers=list(headers.items()))) or b""
        if answer.status not in (204, 304) and data:
            sent += connection.send(h11.Data(data=data)) or b""
        sent += connection.send(h11.EndOfMessage()) or b""
        await stream.send(sent)


def _reset(stream: ByteStream) -> None:
    """Make the close of the connection a reset, as a crash of the other side does."""
    raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def serving(
    server: S, *, tls: ssl.SSLContext | None = None, expects_violations: bool = False
) -> AsyncIterator[S]:
    """Serve until the block is left; a violation of the forge's rules that nobody expected fails it."""
    async with AsyncExitStack() as stack:
        listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0)
        port = listener.extra(SocketAttribute.local_port)
        await stack.enter_async_context(listener)
        group = await stack.enter_async_context(anyio.create_task_group())
        served = TLSListener(listener, tls, standard_compatible=False) if tls is not None else listener
        group.start_soon(served.serve, server._serve)
        server.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        try:
            yield server
        finally:
            server._over.set()
            group.cancel_scope.cancel()
    assert expects_violations or not server.violations, server.violations


def paged(items: Sequence[Any], asked: Asked, url: str, *, per_page: int = 30) -> tuple[list[Any], dict[str, str]]:
    """The page of `items` that was asked for, and the Link header that leads to the next one."""
    size = min(100, int(asked.query.get("per_page") or asked.query.get("limit") or per_page))
    page = int(asked.query.get("page") or 1)
    headers = {}
    if len(items) > page * size:
        query = "&".join(f"{name}={value}" for name, value in {**asked.query, "page": page + 1}.items())
        headers["link"] = f'<{url}{asked.path}?{query}>; rel="next"'
    return list(items[(page - 1) * size : page * size]), headers
