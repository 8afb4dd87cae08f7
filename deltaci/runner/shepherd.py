"""The shepherd: a small process between the runner and one attempt that leaves no process of it behind.

Rule 1: it is the subreaper of all it starts, so that a child which forks twice or starts a session of its own stays
        its descendant; having no child left (ECHILD) proves that nothing is left.
Rule 2: when its stdin ends (the runner closed it, or was killed) everything below it is killed.
Rule 3: when the time that it was last given is over everything below it is killed: a runner that stands still (SIGSTOP,
        a full swap) cannot do it, and by then another runner has the job.
Rule 4: it runs as a script with nothing but the standard library: commands are JSON lines on stdin, events JSON lines
        on stdout, and stderr is the pipe that also takes the output of the steps.

Commands: {"run": [argv], "env": {...}, "cwd": "..."}, {"signal": number} and {"until": reading of `boot_clock`}.
Event: {"exited": code}.
"""

import contextlib
import ctypes
import json
import os
import selectors
import signal
import sys
import time
from typing import Any, Final

PR_SET_CHILD_SUBREAPER: Final = 36
OUTPUT_FD: Final = 2
COULD_NOT_START: Final = 127
SWEEP_PAUSE_S: Final = 0.005
WATCH_SLICE_S: Final = 1.0


def boot_clock() -> float:
    """Seconds since the host booted, those it slept included: a lease does not stop while a laptop is closed."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def become_subreaper() -> bool:
    """Orphaned descendants become children of this process instead of init's; False where the kernel cannot."""
    if sys.platform != "linux":
        return False
    return bool(ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)


def descendants_of(root: int) -> list[int]:
    """Process ids below `root`, as far as one look at /proc shows; children may be missing while they are forked."""
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return []
    for name in names:
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    # The command name may hold spaces and parentheses: the fields go on after the last one.
                    fields = file.read().rpartition(b")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found.extend(below)
        waiting.extend(below)
    return found


class Shepherd:
    """Runs one step at a time and keeps count of nothing: the kernel knows who is left."""

    def __init__(self) -> None:
        self._step: int | None = None
        self._buffer = b""
        self._until: float | None = None

    def serve(self) -> None:
        """Obey commands until stdin or its time ends, then kill everything."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        # Handlers, not SIG_IGN: what is ignored here would stay ignored in every step.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(wake_read, selectors.EVENT_READ)
            while True:
                ready = {key.fd for key, _ in selector.select(self._patience_s())}
                if wake_read in ready:
                    _drain(wake_read)
                    self.reap()
                if 0 in ready and not self.read_commands():
                    break
                # After the commands: what waited there while this process stood still may give it more time.
                if self._until is not None and boot_clock() >= self._until:
                    break
        self.kill_all()

    def _patience_s(self) -> float | None:
        # In slices: the kernel's timer stands still while the host sleeps, the lease's deadline does not.
        return None if self._until is None else max(0.0, min(self._until - boot_clock(), WATCH_SLICE_S))

    def read_commands(self) -> bool:
        """Obey what has arrived; False when nobody is there any more to send commands."""
        data = os.read(0, 65536)
        if not data:
            return False
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            self.obey(json.loads(line))
        return True

    def obey(self, command: dict[str, Any]) -> None:
        """Start a step, pass a signal to all there is, or take more time."""
        if "until" in command:
            self._until = command["until"]
        elif "run" in command:
            self._step = start(command["run"], command["env"], command["cwd"])
        elif "signal" in command:
            self.signal_all(command["signal"])

    def signal_all(self, number: int) -> None:
        """Send signal `number` to the step's group and to every descendant outside of it."""
        targets = set(descendants_of(os.getpid()))
        if self._step is not None:
            targets.add(self._step)
            _send(os.killpg, self._step, number)
        for target in targets:
            if not _is_in_group(target, self._step):
                _send(os.kill, target, number)

    def reap(self) -> bool:
        """Collect those that ended, report the step; False when no descendant is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._step:
                self._step = None
                code = os.waitstatus_to_exitcode(status)
                tell({"exited": code if code >= 0 else 128 - code})

    def kill_all(self) -> None:
        """SIGKILL every descendant, those too that appear meanwhile, until the kernel says there is none."""
        while self.reap():
            for pid in descendants_of(os.getpid()):
                _send(os.kill, pid, signal.SIGKILL)
            if self._step is not None:
                _send(os.killpg, self._step, signal.SIGKILL)
            time.sleep(SWEEP_PAUSE_S)


def start(argv: list[str], env: dict[str, str], cwd: str) -> int:
    """Fork one step: its own session, stdin from /dev/null, both outputs into the log pipe, no other descriptor."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        # Python ignores these two; steps must not inherit that, or `yes | head` would never end.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(OUTPUT_FD, 1)
        os.dup2(OUTPUT_FD, 2)
        os.chdir(cwd)
        os.execvpe(argv[0], argv, env)  # noqa: S606  # the step's shell is what this process is for
    except OSError as error:
        os.write(2, f"cannot start {argv[0]} in {cwd}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(COULD_NOT_START)


def tell(event: dict[str, Any]) -> None:
    """One event line to the runner; a runner that is gone is noticed at the end of stdin."""
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(event).encode() + b"\n")


def _drain(fd: int) -> None:
    try:
        while os.read(fd, 4096):
            pass
    except BlockingIOError:
        pass


def _send(how: Any, target: int, number: int) -> None:
    # It may have ended by itself, or be a setuid program that only root may signal.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        how(target, number)


def _is_in_group(pid: int, group: int | None) -> bool:
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return True


if __name__ == "__main__":
    become_subreaper()
    Shepherd().serve()
