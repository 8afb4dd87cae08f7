"""The processes of an attempt, from the runner's side: one tree under a shepherd, and two nets below it.

Rule 1: the shepherd kills what is below it, whatever happens to the runner.
Rule 2: every process carries the attempt's mark in its environment; what a killed shepherd left is found by it.
Rule 3: what carries no mark and was orphaned by a killed shepherd is a child of the runner, and killed as such.
"""

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loguru import logger

from deltaci.runner import shepherd

MARK_VARIABLE: Final = "DELTACI_ATTEMPT_MARK"
PR_SET_DUMPABLE: Final = 4
READ_BYTES: Final = 64 * 1024
CLOSE_TIMEOUT_S: Final = 20.0
SWEEPS_MAX: Final = 200
SWEEP_PAUSE_S: Final = 0.02


class ProcessTreeLost(Exception):
    """The shepherd ended before the step did: something outside the runner killed it."""


def hide_from_jobs() -> None:
    """Keep jobs of the same user from reading this process's environment and memory (Linux only)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


class ProcessTree:
    """All processes of one attempt. Steps run one at a time; what they leave in the background lives until `close`."""

    def __init__(self, mark: str, on_output: Callable[[bytes], None]) -> None:
        """Args: on_output: gets what the steps print, in order, both streams merged; called in the loop."""
        self._mark = mark
        self._on_output = on_output
        self._process: asyncio.subprocess.Process | None = None
        self._events: asyncio.Task[None] | None = None
        self._exited: asyncio.Future[int] | None = None
        self._output_fd: int | None = None
        self._hurry = asyncio.Event()

    async def start(self) -> None:
        """Start the shepherd. Raises `OSError` when the host is out of processes or descriptors."""
        read_fd, write_fd = os.pipe()
        os.set_blocking(read_fd, False)
        self._output_fd = read_fd
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", "-S", shepherd.__file__),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=write_fd,
                env={MARK_VARIABLE: self._mark, "PATH": os.defpath},
                cwd="/",
                start_new_session=True,
            )
        finally:
            os.close(write_fd)
        asyncio.get_running_loop().add_reader(read_fd, self._read_some)
        self._events = asyncio.create_task(self._read_events(self._process))

    async def run(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, grace_s: Callable[[], float]) -> int:
        """Run one step to its end and return its exit code, 128 + n when signal n ended it.

        On cancellation everything gets SIGTERM and `grace_s()` seconds to end; `close` kills what is left then.

        Raises:
            ProcessTreeLost: the shepherd is gone; the tree must be closed.
        """
        self._exited = asyncio.get_running_loop().create_future()
        self._tell({"run": list(argv), "env": {**env, MARK_VARIABLE: self._mark}, "cwd": str(cwd)})
        try:
            # Shielded: a cancellation must not cancel the future that the grace below waits for.
            code = await asyncio.shield(self._exited)
        except asyncio.CancelledError:
            await self._terminate(self._exited, grace_s())
            raise
        self._drain()
        return code

    def allow_until(self, deadline: float) -> None:
        """Everything is killed at this reading of `boot_clock`, by the shepherd alone if need be; may be moved on."""
        with contextlib.suppress(ProcessTreeLost):
            self._tell({"until": deadline})

    def hurry(self) -> None:
        """Cut short the grace of a termination under way, or to come."""
        self._hurry.set()

    async def close(self) -> None:
        """Kill all that is left and deliver the last output: no process of the attempt exists then. Idempotent."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            was_lost = await self._end_shepherd(process)
            await asyncio.to_thread(sweep, self._mark)
            if was_lost:
                kill_orphans()
        finally:
            if self._events is not None:
                self._events.cancel()
                await asyncio.gather(self._events, return_exceptions=True)
            self._drain()
            self._close_output()

    async def _end_shepherd(self, process: asyncio.subprocess.Process) -> bool:
        """Close its stdin and wait; True if it ended by anything but its own decision."""
        assert process.stdin is not None
        process.stdin.close()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await process.stdin.wait_closed()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                return await process.wait() != 0
        except (TimeoutError, asyncio.CancelledError) as error:
            # Something is unkillable (a hung disk or network mount), or there is no time left.
            logger.error("processes of the attempt are left to the sweep: {}", type(error).__name__)
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if isinstance(error, asyncio.CancelledError):
                sweep(self._mark)
                raise
            return True

    async def _terminate(self, exited: asyncio.Future[int], grace_s: float) -> None:
        with contextlib.suppress(ProcessTreeLost):
            self._tell({"signal": int(signal.SIGTERM)})
        exited.add_done_callback(lambda _future: self._hurry.set())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._hurry.wait()

    def _tell(self, command: dict[str, object]) -> None:
        if self._process is None or self._process.stdin is None or self._process.stdin.is_closing():
            raise ProcessTreeLost("the shepherd of this attempt is gone")
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def _read_events(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                if self._exited is not None and not self._exited.done():
                    self._exited.set_result(json.loads(line)["exited"])
        finally:
            if self._exited is not None and not self._exited.done():
                self._exited.set_exception(ProcessTreeLost("the shepherd of this attempt was killed"))
                self._exited.exception()  # nobody may be waiting: that is no warning

    def _read_some(self) -> bool:
        """One block of output to the log; False when there is none for now."""
        if self._output_fd is None:
            return False
        try:
            data = os.read(self._output_fd, READ_BYTES)
        except BlockingIOError:
            return False
        if data:
            self._on_output(data)
        else:
            self._close_output()
        return bool(data)

    def _drain(self) -> None:
        # What a step printed before it ended is in the pipe by now, and belongs before the next step's header. The
        # bound is more than a pipe holds: a background process that never stops printing must not keep us here.
        for _ in range(64):
            if not self._read_some():
                return

    def _close_output(self) -> None:
        if self._output_fd is not None:
            asyncio.get_running_loop().remove_reader(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = None


# ---- the nets ----------------------------------------------------------------------------------------------------


def marked(mark: str) -> list[int]:
    """Process ids whose environment carries `mark`, this process aside; empty where there is no /proc."""
    needle = f"{MARK_VARIABLE}={mark}".encode()
    own = os.getpid()
    return [pid for pid in _process_ids() if pid != own and needle in _environment_of(pid).split(b"\0")]


def sweep(mark: str) -> bool:
    """Kill every process that carries `mark` until none is found; False if some cannot be killed. Blocks."""
    assert mark, "an empty mark would match every process"
    was_clean = False
    for _ in range(SWEEPS_MAX):
        found = marked(mark)
        if not found and was_clean:
            return True
        # Twice, because in the middle of exec a process shows an empty environment.
        was_clean = not found
        _kill(found)
        time.sleep(SWEEP_PAUSE_S)
    logger.error("processes {} of an attempt cannot be killed", found)
    return False


def kill_orphans() -> None:
    """Kill children of this process that it never started: they were adopted when a shepherd was killed.

    What the runner starts itself carries a mark. Call it in the loop's thread: it alone starts processes, so none can
    be seen here between fork and exec.
    """
    if not _is_adopting:
        return
    killed: set[int] = set()
    for _ in range(SWEEPS_MAX):
        killed = {pid for pid in killed if not _is_reaped(pid)}
        children = _living_children_of(os.getpid())
        # In the middle of exec, command line and environment are empty alike: one of our own may look like that.
        unsettled = {pid for pid in children if not _read(pid, "cmdline")}
        found = {pid for pid in children if pid not in unsettled and not _is_marked(pid)}
        if not found and not killed and not unsettled:
            return
        for pid in found:
            _kill([pid, *shepherd.descendants_of(pid)])
        killed |= found
        time.sleep(0.001)


_is_adopting = False


def adopt_orphans() -> None:
    """Make this process the last net: orphans of a killed shepherd become its children.

    Only for a process that is a runner and nothing else.
    """
    global _is_adopting  # the kernel keeps this per process, and so do we
    _is_adopting = shepherd.become_subreaper()


def _is_reaped(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def _is_marked(pid: int) -> bool:
    return MARK_VARIABLE.encode() + b"=" in _environment_of(pid)


def _living_children_of(parent: int) -> list[int]:
    """Children that have not ended: the exit code of one that has belongs to whoever waits for it."""
    states = {pid: _state_and_parent_of(pid) for pid in _process_ids()}
    return [pid for pid, found in states.items() if found is not None and found[1] == parent and found[0] != "Z"]


def _state_and_parent_of(pid: int) -> tuple[str, int] | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return fields[0].decode(), int(fields[1])
    except (OSError, IndexError):
        return None


def _process_ids() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _environment_of(pid: int) -> bytes:
    return _read(pid, "environ")


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:
        return b""


def _kill(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
