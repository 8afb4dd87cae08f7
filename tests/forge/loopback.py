"""A real HTTP server on a loopback port that answers from a script and remembers what it was asked."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import msgspec

from deltaci.domain.clock import Clock


@dataclass(frozen=True)
class Asked:
    """One request; header names in lower case."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        return msgspec.json.decode(self.body)


@dataclass(frozen=True)
class Say:
    """One answer. `hangs` is released at the end of the test."""

    status: int = 201
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)
    hangs: bool = False


class Loopback:
    """`script` is used up answer by answer; the last one is repeated."""

    def __init__(self, *script: Say) -> None:
        self.script = list(script) or [Say()]
        self.asked: list[Asked] = []
        self.is_over = threading.Event()
        self._lock = threading.Lock()
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                say = loopback._next(Asked(self.command, self.path, headers, body))
                if say.hangs:
                    loopback.is_over.wait(30)
                    return
                self.send_response(say.status)
                for name, value in say.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(say.body)))
                self.end_headers()
                self.wfile.write(say.body)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    def _next(self, asked: Asked) -> Say:
        with self._lock:
            self.asked.append(asked)
            return self.script.pop(0) if len(self.script) > 1 else self.script[0]


@contextmanager
def serving(*script: Say) -> Iterator[Loopback]:
    loopback = Loopback(*script)
    thread = threading.Thread(target=loopback.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield loopback
    finally:
        loopback.is_over.set()
        loopback.server.shutdown()
        thread.join()
        loopback.server.server_close()


class FixedClock:
    """The same instant for ever."""

    INSTANT: ClassVar[int] = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.INSTANT


def _is_a_clock(clock: FixedClock) -> Clock:
    return clock
