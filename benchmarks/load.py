"""What simulated runners and forges do, the same over both transports, and how much of it a round manages."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from benchmarks import workloads
from benchmarks.processes import Server, Watch
from benchmarks.wire import ECHOES, Channel, ChannelRunner, Http, HttpRunner, Runner
from protocol import messages as wire

RUNNERS = 64
CHUNK_CRC32 = zlib.crc32(workloads.LOG_CHUNK)


class Plan:
    """How much is measured: a full run, or a quick one that only shows that everything works."""

    def __init__(self, *, is_quick: bool, rounds: int | None = None) -> None:
        self.is_quick = is_quick
        self.rounds = rounds or (1 if is_quick else 3)
        self.window_s = 0.4 if is_quick else 3.0
        self.warm_s = 0.3 if is_quick else 1.0

    def size(self, full: int, quick: int) -> int:
        """One of the two."""
        return quick if self.is_quick else full


class Window:
    """A measured stretch of time in which workers go on doing one thing; what started before it is not counted."""

    def __init__(self) -> None:
        self.is_over = False
        self.count = 0

    async def measure(
        self,
        server: Server,
        workers: Sequence[Callable[["Window"], Awaitable[None]]],
        *,
        warm_s: float,
        window_s: float,
    ) -> tuple[float, tuple[float, float]]:
        """(counted a second, shares of a core that server and load used)."""
        tasks = [asyncio.create_task(worker(self)) for worker in workers]  # type: ignore[arg-type]
        try:
            await asyncio.sleep(warm_s)
            watch, started, before = Watch(server), time.perf_counter(), self.count
            await asyncio.sleep(window_s)
            elapsed, counted, shares = time.perf_counter() - started, self.count - before, watch.shares()
            self.is_over = True
            async with asyncio.timeout(60):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return counted / elapsed, shares


@asynccontextmanager
async def connections(server: Server, count: int) -> AsyncIterator[list[Http]]:
    """Keep-alive connections."""
    opened = [await Http.connect(server) for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


@asynccontextmanager
async def echoes(server: Server, count: int = RUNNERS) -> AsyncIterator[list[Channel]]:
    """WebSockets to the empty echo."""
    opened = [await Channel.connect(server, "/echo", "", ECHOES) for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()


@asynccontextmanager
async def runners(server: Server, transport: str, count: int = RUNNERS, *, name: str = "") -> AsyncIterator[list[Any]]:
    """Registered runners, each on a connection of its own."""
    opened: list[Runner] = []
    try:
        for number in range(count):
            runner: Runner
            if transport == "http":
                runner = HttpRunner(await Http.connect(server), server, workloads.TOKEN)
            else:
                runner = ChannelRunner(await Channel.connect(server, "/api/v1/runner/channel", workloads.TOKEN))
            opened.append(runner)
            register = wire.Register(name=name or f"bench-{transport}-{number:03}", labels=workloads.LABELS, slots=1000)
            answer = await runner.call(register)
            assert isinstance(answer, wire.Registered), answer
            runner.become(answer.runner_id)
        yield opened
    finally:
        for one in opened:
            one.close()


# ---- what a runner does ------------------------------------------------------------------------------------------


def fence(lease: wire.LeaseGranted) -> dict[str, Any]:
    """What names the lease in every message."""
    return {"lease_id": lease.lease_id, "job_id": lease.job_id, "attempt": lease.attempt}


async def lease(runner: Any, *, slots: int = 1, wait_ms: int = 500) -> tuple[wire.LeaseGranted, ...]:
    """Up to `slots` leases."""
    answer = await runner.call(wire.Lease(runner_id=runner.id, slots=slots, wait_ms=wait_ms))
    assert isinstance(answer, wire.Leases), answer
    return answer.leases


async def say(runner: Any, message: Any, expected: type) -> Any:
    """One message that must be answered with `expected`."""
    answer = await runner.call(message)
    if isinstance(answer, expected):
        return answer
    raise RuntimeError(f"{type(message).__name__} was answered with {answer}")


async def start(runner: Any, granted: wire.LeaseGranted) -> None:
    """Acknowledge, and say that the first step runs."""
    about = fence(granted)
    await say(runner, wire.AckLease(**about), wire.LeaseAcked)
    await say(runner, wire.Heartbeat(**about, phase="running", step=0), wire.HeartbeatAck)


async def finish(runner: Any, granted: wire.LeaseGranted) -> None:
    """One log chunk that is the last, and success."""
    about = fence(granted)
    chunk = wire.AppendLog(**about, offset=0, data=workloads.LOG_CHUNK, is_final=True, crc32=CHUNK_CRC32)
    await say(runner, chunk, wire.LogAck)
    done = wire.Complete(
        **about,
        exit_code=0,
        steps=(wire.StepResult(name="unit tests", exit_code=0, duration_ms=12),),
        log_size=len(workloads.LOG_CHUNK),
        log_crc32=CHUNK_CRC32,
    )
    await say(runner, done, wire.CompleteAck)


# ---- what a forge does -------------------------------------------------------------------------------------------


async def push(connection: Http, request: bytes) -> bytes:
    """Post a webhook that must be accepted; the answer's body."""
    status, body = await connection.send(request)
    if status != 202 or b'"duplicate":true' in body:
        raise RuntimeError(f"a webhook was answered with {status} {body[:300]!r}")
    return body


class Supply:
    """Keeps a number of jobs queued by pushing commits whose runs have many jobs."""

    def __init__(self, server: Server, data: Path, *, jobs_per_run: int, depth: int) -> None:
        self._webhooks = workloads.Webhooks(server)
        self._server = server
        self._data = data
        self._jobs_per_run = jobs_per_run
        self._depth = depth
        self.made = 0
        self.taken = 0

    async def fill(self) -> None:
        """Wait until the depth is reached."""
        connection = await Http.connect(self._server)
        try:
            await self._top_up(connection)
            async with asyncio.timeout(120):
                await workloads.until_queued(self._data, self._depth)
        finally:
            connection.close()

    async def keep(self, window: Window) -> None:
        """A worker of a window: go on filling up."""
        connection = await Http.connect(self._server)
        try:
            while not window.is_over:
                await self._top_up(connection)
                await asyncio.sleep(0.01)
        finally:
            connection.close()

    async def _top_up(self, connection: Http) -> None:
        while self.made - self.taken < self._depth + self._jobs_per_run:
            request = self._webhooks.make(f"jobs={self._jobs_per_run}", repos=workloads.REPOS)
            self.made += self._jobs_per_run
            await push(connection, request)
