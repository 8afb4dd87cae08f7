"""The processes under load: started, watched and ended by their process id, and nothing left behind."""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import psutil

START_WITHIN_S: float = 120.0
STOP_WITHIN_S: float = 20.0


class Server:
    """A running server process: where it listens, and what it uses."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, started_at: float, ready_at: float) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        assert address.port is not None
        self.process = process
        self.url = url
        self.host, self.port = address.hostname, address.port
        self.started_at, self.ready_at = started_at, ready_at
        self._watched = psutil.Process(process.pid)

    def cpu_s(self) -> float:
        """User and system time so far."""
        times = self._watched.cpu_times()
        return float(times.user + times.system)

    def rss_bytes(self) -> int:
        """Resident memory."""
        return int(self._watched.memory_info().rss)

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()


class Watch:
    """Shares of one core that the server and this process use, from its making on."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._since = (time.perf_counter(), server.cpu_s(), time.process_time())

    def shares(self) -> tuple[float, float]:
        """(server, load)."""
        wall, server_s, load_s = self._since
        elapsed = max(1e-9, time.perf_counter() - wall)
        return (self._server.cpu_s() - server_s) / elapsed, (time.process_time() - load_s) / elapsed


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory of our own that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="deltaci-bench-", ignore_cleanup_errors=True) as name:
        yield Path(name)


@asynccontextmanager
async def running(module: str, *arguments: str, log: Path, **settings: str) -> AsyncIterator[Server]:
    """`python -m module arguments`, from its first line (which ends in its URL) until the block is left."""
    process, started_at = _start(module, arguments, log, settings)
    try:
        yield await _ready(process, started_at, log)
    finally:
        await asyncio.to_thread(_stop, process)


def real_server(data: Path, **settings: str) -> "AsyncServer":
    """The server on the data directory `data`, everything real but the planner; `settings` as in the environment."""
    return running("benchmarks.bench_server", "--data", str(data), "--port", "0", log=data / "server.log", **settings)


def empty_server(directory: Path) -> "AsyncServer":
    """The empty baseline."""
    return running("benchmarks.baseline_server", log=directory / "baseline.log")


AsyncServer = object  # what `async with` yields a `Server` from; the library's own name is private


def _start(
    module: str, arguments: tuple[str, ...], log: Path, settings: Mapping[str, str]
) -> tuple[subprocess.Popen[bytes], float]:
    started_at = time.perf_counter()
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stream,
            env={**os.environ, **settings},
            # A session of its own: Ctrl-C ends us first, and we end it in good order.
            start_new_session=True,
        )
    return process, started_at


async def _ready(process: subprocess.Popen[bytes], started_at: float, log: Path) -> Server:
    assert process.stdout is not None
    async with asyncio.timeout(START_WITHIN_S):
        line = (await asyncio.to_thread(process.stdout.readline)).decode().strip()
    ready_at = time.perf_counter()
    if not line:
        said = await asyncio.to_thread(log.read_text, errors="replace")
        raise RuntimeError(f"the server did not start:\n{said[-4000:]}")
    return Server(process, line.rpartition(" ")[2], started_at, ready_at)


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
