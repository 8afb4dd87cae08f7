"""The processes that plan, as the server sees them: started when needed, asked one thing at a time, ended in time.

Rule 1: a process that does not answer, or not with a reply, is ended with all that it started; nobody waits for it.
Rule 2: whatever ends one costs the plan that it was making and no other.
Rule 3: they get no secret: an environment of their own, and no descriptor but the two pipes and standard error.
"""

import os
import signal
import subprocess
import sys
import weakref
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import IO, Final

import anyio
import anyio.to_thread
import msgspec
from loguru import logger

from deltaci.planner.errors import PlanFailed
from deltaci.planner.messages import (
    EXIT_MEMORY,
    EXIT_RECURSION,
    REPLY_BYTES_MAX,
    BadFrame,
    Reply,
    Request,
    Start,
    read_frame,
    reply_decoder,
    write_frame,
)
from deltaci.planner.rosters import Rosters

COMMAND: Final = (sys.executable, "-I", "-m", "deltaci.planner.worker")
_INHERITED: Final = ("PATH", "TMPDIR")
# Without it, each thread of the C library reserves 64 MiB of the address space that there is a bound on.
_FIXED: Final = {"LC_ALL": "C.UTF-8", "MALLOC_ARENA_MAX": "1"}


class WorkerLost(Exception):
    """The process ended, or said what is no reply. `exit_code` is negative for a signal, None if it still lived."""

    def __init__(self, exit_code: int | None) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


class Worker:
    """One process. All its methods block, `ask` for as long as a plan takes."""

    def __init__(self, start: Start, command: Sequence[str] = COMMAND) -> None:
        """Starts it. Where the kernel ends it with the thread that started it, that has to be one that stays."""
        self._process = subprocess.Popen(  # noqa: S603 - our own program
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd="/",
            env={**{name: os.environ[name] for name in _INHERITED if name in os.environ}, **_FIXED},
            start_new_session=True,  # a group of its own, which ends as a whole
        )
        self._start: Start | None = start
        self._number = 0
        self._rosters = Rosters()

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def ask(self, request: Request) -> Reply:
        """The reply to `request`, plans with all their jobs. Raises WorkerLost."""
        self._number += 1
        stdin, stdout = self._pipes()
        try:
            if self._start is not None:
                write_frame(stdin, self._start)
                self._start = None
            request = msgspec.structs.replace(self._rosters.asking(request), number=self._number)
            write_frame(stdin, request)
            reply = read_frame(stdout, reply_decoder, bytes_max=REPLY_BYTES_MAX)
            if reply is not None and reply.number == self._number:
                return self._rosters.whole(request, reply)
        except (BadFrame, OSError, ValueError) as error:  # ValueError: not its roster, or `end` closed the pipe
            logger.warning("process {} said what is no plan: {}", self.pid, error)
            raise WorkerLost(self._process.poll()) from error
        raise WorkerLost(self._process.wait() if reply is None else self._process.poll())

    def end(self) -> None:
        """End it and all that it started; waits until it is gone. Again is harmless."""
        # Also when it is gone itself: a git that it started may not be.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        for stream in self._pipes():
            with suppress(OSError):
                stream.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes]]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        return self._process.stdin, self._process.stdout


class _Place:
    """Where one process at a time works."""

    def __init__(self) -> None:
        self.worker: Worker | None = None
        self.is_busy = False


class Workers:
    """A few processes; a repository goes to the same one each time, which knows it already, unless that is busy."""

    def __init__(self, start: Start, *, workers_max: int, plan_ms: int, command: Sequence[str] = COMMAND) -> None:
        """None is started yet.

        Args:
            workers_max: how many plan at once; no more than there are processors.
            plan_ms: the longest that one plan may take, from being asked for to its reply, milliseconds.
        """
        count = max(1, min(workers_max, os.cpu_count() or 1))
        self._start = start
        self._plan_ms = plan_ms
        self._command = command
        self._places = [_Place() for _ in range(count)]
        self._free = anyio.Semaphore(count)
        # Twice as many: a thread whose process was ended takes a moment to notice.
        self._threads = anyio.CapacityLimiter(2 * count)
        # Also when nobody calls `close`: at the latest with this process.
        self._end = weakref.finalize(self, _end_all, self._places)

    async def ask(self, request: Request) -> Reply:
        """The reply of one of the processes.

        Raises:
            PlanFailed: it took too long, needed too much memory, or crashed; the next plan gets a new process.
        """
        async with self._free:
            place = self._place_of(request.directory)
            place.is_busy = True
            try:
                return await self._ask(place, request)
            finally:
                place.is_busy = False

    def pids(self) -> list[int]:
        """The ids of the processes that live."""
        workers = [place.worker for place in self._places]
        return [worker.pid for worker in workers if worker is not None and worker.is_alive()]

    def close(self) -> None:
        """End all of them; blocks for a moment. A later `ask` starts new ones."""
        _end_all(self._places)

    def _place_of(self, directory: str) -> _Place:
        first = zlib.crc32(directory.encode("utf-8", "surrogateescape")) % len(self._places)
        return next(place for place in self._places[first:] + self._places[:first] if not place.is_busy)

    async def _ask(self, place: _Place, request: Request) -> Reply:
        if place.worker is not None and not place.worker.is_alive():
            await self._leave(place)
        if place.worker is None:
            place.worker = Worker(self._start, self._command)
        worker, is_answered = place.worker, False
        try:
            with anyio.fail_after(self._plan_ms / 1000):
                reply = await anyio.to_thread.run_sync(
                    worker.ask, request, abandon_on_cancel=True, limiter=self._threads
                )
                is_answered = True
                return reply
        except TimeoutError as error:
            logger.warning("planning {} took too long: process {} is ended", request.commit_sha, worker.pid)
            raise _took_too_long(request.commit_sha, self._plan_ms) from error
        except WorkerLost as error:
            logger.warning("process {} was lost planning {}: {}", worker.pid, request.commit_sha, error)
            raise PlanFailed(self._why(request.commit_sha, error.exit_code)) from error
        finally:
            if not is_answered:
                await self._leave(place)

    async def _leave(self, place: _Place) -> None:
        worker, place.worker = place.worker, None
        if worker is not None:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(worker.end, limiter=self._threads)

    def _why(self, commit_sha: str, exit_code: int | None) -> str:
        asked = f"planning commit {commit_sha}"
        if exit_code == EXIT_MEMORY:
            most = self._start.memory_bytes_max
            text = f"{asked} needed more than {most} bytes of memory (setting planner.memory_bytes_max)"
            return f"{text}; a deltaci.yaml with fewer patterns and jobs needs less, and so do fewer and smaller files"
        if exit_code == -signal.SIGKILL:
            text = f"{asked} was ended by signal 9, as the system does when memory runs out"
            return f"{text}; run it again, and give the machine more memory or planner.memory_bytes_max less"
        if exit_code == EXIT_RECURSION:
            return f"{asked} met what is nested too deeply; describe the jobs in deltaci.yaml"
        how = "gave no valid answer" if exit_code is None else f"crashed with exit code {exit_code}"
        return (
            f"{asked} {how}; the log of the server says more: please report it, and describe the jobs in deltaci.yaml"
        )


def _took_too_long(commit_sha: str, plan_ms: int) -> PlanFailed:
    """What to say when the time limit passed."""
    text = f"planning commit {commit_sha} took longer than {plan_ms} ms (setting planner.plan_ms)"
    return PlanFailed(f"{text}; a deltaci.yaml with fewer patterns and jobs is faster")


def _end_all(places: Sequence[_Place]) -> None:
    for place in places:
        worker, place.worker = place.worker, None
        if worker is not None:
            worker.end()
