"""A cable between server and runner for those who may not make a network: a TCP proxy that fails as it is told.

It runs on a loop of its own in a thread of its own; the test calls it from outside.
"""

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of no time: closing is a reset


class End(asyncio.Protocol):
    """One of the two sockets of a connection; what it reads goes out at the other.

    It is in `living` as long as its socket is open: also when it is closing and has bytes left that nobody takes.
    """

    def __init__(self, living: "set[End]") -> None:
        self._living = living
        self.transport: asyncio.Transport
        self.lost: asyncio.Future[None]
        self.other: End | None = None
        self.is_deaf = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.lost = asyncio.get_running_loop().create_future()
        self._living.add(self)

    def data_received(self, data: bytes) -> None:
        if self.other is not None and not self.is_deaf:
            self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._living.discard(self)
        self.lost.set_result(None)
        # Also not told: a firewall that forgot a connection says nothing at all.
        if self.other is not None and not self.is_deaf:
            self.other.transport.close()

    def pause_writing(self) -> None:
        if self.other is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def reset(self) -> None:
        """Whoever is at this socket's other side sees a reset."""
        if not self.transport.is_closing():
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.transport.abort()


class Proxy:
    """Carries connections from a port of its own to `port`, both on loopback. Make one with `proxied`."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._loop = asyncio.new_event_loop()
        self._links: list[tuple[End, End]] = []  # the runner's end and the server's
        self._ends: set[End] = set()
        self._refuses = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        self.port: int = self._server.sockets[0].getsockname()[1]

    # ---- faults --------------------------------------------------------------------------------------------------

    def reset(self) -> int:
        """Every connection is reset, and new ones are carried; how many there were."""
        return self._call(self._reset)

    def forget(self) -> int:
        """Every connection goes deaf without a word to either end, and new ones are carried; how many there were."""
        return self._call(self._forget)

    def babble(self, data: bytes, *, to_server: bool) -> int:
        """Bytes that nobody sent arrive at one end of every connection; how many there were."""
        return self._call(lambda: self._babble(data, to_server))

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Every connection is reset, and so is every new one."""
        self._refuses = True
        self.reset()
        try:
            yield
        finally:
            self._refuses = False

    def close(self) -> None:
        """End every connection, and the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # ---- on the loop ---------------------------------------------------------------------------------------------

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(self._welcome, "127.0.0.1", 0)

    def _welcome(self) -> End:
        return Welcome(self._ends, self._connect)

    def _connect(self, near: End) -> None:
        if self._refuses:
            near.reset()
            return
        near.transport.pause_reading()
        task = self._loop.create_task(self._link(near))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _link(self, near: End) -> None:
        try:
            _, far = await self._loop.create_connection(lambda: End(self._ends), "127.0.0.1", self._target)
        except OSError:
            near.reset()
            return
        near.other, far.other = far, near
        self._links.append((near, far))
        if near.transport.is_closing():
            far.transport.close()
        else:
            near.transport.resume_reading()

    def _living(self) -> list[tuple[End, End]]:
        self._links = [link for link in self._links if not any(end.transport.is_closing() for end in link)]
        return [link for link in self._links if not link[0].is_deaf]

    def _reset(self) -> int:
        links = self._living()
        for link in links:
            for end in link:
                end.reset()
        return len(links)

    def _forget(self) -> int:
        links = self._living()
        for link in links:
            for end in link:
                end.is_deaf = True
        return len(links)

    def _babble(self, data: bytes, to_server: bool) -> int:
        links = self._living()
        for near, far in links:
            (far if to_server else near).transport.write(data)
        return len(links)

    async def _close(self) -> None:
        self._server.close()
        # Those of ours, and those of the loop that are about to welcome a connection.
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # A socket is closed in the round after it was given up: a loop that ended would leave that to the next test.
        lost = [end.lost for end in self._ends]
        for end in self._ends:
            end.transport.abort()
        await asyncio.gather(*lost)


class Welcome(End):
    """The end that was connected to."""

    def __init__(self, living: set[End], on_made: Callable[[End], Any]) -> None:
        super().__init__(living)
        self._on_made = on_made

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._on_made(self)


@contextmanager
def proxied(port: int) -> Iterator[Proxy]:
    """A proxy to `port`; nothing of it is left at the end."""
    proxy = Proxy(port)
    try:
        yield proxy
    finally:
        proxy.close()
