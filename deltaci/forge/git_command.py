"""One git process, hardened and bounded: the only place of the control plane that starts git.

Rule 1: nothing of the machine's or the repository's configuration decides what git runs: no hooks, no system or global
configuration, no credential helpers, no prompts, no submodules, no filters, only the allowed transports.
Rule 2: every process has a time limit and an output limit, and is gone, with its children, when the call returns.
`run_git` is for the loop of the server; `git_now.py` does the same for a process that has no loop.
"""

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import msgspec

DEFAULT_PROTOCOLS: Final = "file:https:ssh"
STDERR_BYTES_MAX: Final = 16 * 1024
TERMINATE_GRACE_SECONDS: Final = 2.0
_CHUNK_BYTES: Final = 64 * 1024

# What a transport may need from the environment of the server; everything else stays out of git's sight.
_INHERITED: Final = (
    "PATH",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
)
_FIXED: Final = {
    "LC_ALL": "C",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "/bin/false",
    "SSH_ASKPASS": "/bin/false",
    "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    # A file name is a name, also when it looks like `:(glob)**`.
    "GIT_LITERAL_PATHSPECS": "1",
}
_OPTIONS: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.quotePath=false",
    "credential.helper=",
    "fetch.recurseSubmodules=false",
    "submodule.recurse=false",
    "gc.auto=0",
    # A pack appears when it is whole. Loose objects would come one by one, the commit first: a fetch that was cut off
    # (a full disk, a time limit) would leave a commit that looks as if it were here, without its files.
    "fetch.unpackLimit=1",
    "maintenance.auto=false",
    # A redirect would carry the request, and its authorization, to a host that nobody checked.
    "http.followRedirects=false",
    # What a fetch leaves out comes from the address of that fetch or from nowhere, whatever the server recommends.
    "promisor.acceptFromServer=none",
    # What is larger is passed on in pieces, and is never a delta: a gigabyte of zeros takes no gigabyte of memory.
    "core.bigFileThreshold=32m",
    # By default git maps a whole pack, which no bound on address space would leave room for.
    "core.packedGitWindowSize=64m",
    "core.packedGitLimit=512m",
)
# Whoever outgrows the limit hears of it from its write, and says so; the signal would only end it.
_BOUNDED: Final = 'trap \'\' XFSZ; ulimit -f "$0" && exec "$@"'
_BLOCK_BYTES: Final = 512


class GitError(Exception):
    """Git did not do what was asked. `stderr` is the end of what it said, `exit_code` None when it was killed."""

    def __init__(self, text: str, *, exit_code: int | None = None, stderr: str = "") -> None:
        super().__init__(text)
        self.exit_code = exit_code
        self.stderr = stderr


class GitTimedOut(GitError):
    """The time limit ran out; the process and its children were ended."""


class GitOutputTooLarge(GitError):
    """Git wrote more than the output limit; the process was ended."""


class GitResult(msgspec.Struct, frozen=True, kw_only=True):
    """What a finished git process left: its exit code, all of stdout, the beginning of stderr."""

    exit_code: int
    stdout: bytes
    stderr: str


class _Output:
    """Collects at most `bytes_max` bytes of a stream and drains the rest, so that git never blocks on a full pipe."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.chunks: list[bytes] = []
        self.size = 0

    @property
    def is_over(self) -> bool:
        return self.size > self.bytes_max

    async def collect(self, stream: anyio.abc.ByteReceiveStream, stop: anyio.CancelScope | None) -> None:
        with suppress(anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
            while True:
                chunk = await stream.receive(_CHUNK_BYTES)
                if not self.is_over:
                    self.chunks.append(chunk)
                self.size += len(chunk)
                if stop is not None and self.is_over:
                    stop.cancel()
                    return

    def data(self) -> bytes:
        return b"".join(self.chunks)[: self.bytes_max]


def environment(*, protocols: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The whole environment of a git process: what a transport needs, the hardening, then `extra`."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    return {**inherited, **_FIXED, "GIT_ALLOW_PROTOCOL": protocols, **(extra or {})}


def command_line(arguments: Sequence[str], *, git_dir: Path | None, file_bytes_max: int | None = None) -> list[str]:
    """The whole command: the options that keep git from running anything, then `arguments`.

    Args:
        file_bytes_max: the largest file that git, or a child of it, may write; the kernel sees to it.
    """
    command = ["git", "--no-pager"]
    for option in _OPTIONS:
        command += ["-c", option]
    if git_dir is not None:
        command.append(f"--git-dir={git_dir}")
    command += arguments
    if file_bytes_max is None:
        return command
    return ["sh", "-c", _BOUNDED, str(max(1, file_bytes_max // _BLOCK_BYTES)), *command]


async def run_git(
    arguments: Sequence[str],
    *,
    git_dir: Path | None,
    cwd: Path,
    timeout_ms: int,
    output_bytes_max: int,
    stdin: bytes = b"",
    protocols: str = DEFAULT_PROTOCOLS,
    extra_environment: Mapping[str, str] | None = None,
    file_bytes_max: int | None = None,
) -> GitResult:
    """Run one git command to its end and return what it wrote; a non-zero exit code is a result, not an error.

    Args:
        git_dir: the bare repository, or None for a command that needs none (`init`).
        timeout_ms: the longest the process may live, milliseconds.
        output_bytes_max: the most it may write to stdout; stderr is cut, never an error.
        extra_environment: for secrets of this one call, such as `GIT_CONFIG_COUNT` with an authorization header:
            other users of the machine can read the arguments of a process, but not its environment.
        file_bytes_max: the largest file that it may write, such as the pack that a fetch brings.
    Raises:
        GitTimedOut, GitOutputTooLarge: the process was ended.
        GitError: git could not be started.
    """
    try:
        process = await anyio.open_process(
            command_line(arguments, git_dir=git_dir, file_bytes_max=file_bytes_max),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=cwd,
            env=environment(protocols=protocols, extra=extra_environment),
            start_new_session=True,  # a group of its own: transports are children of git and must end with it
        )
    except OSError as error:
        raise GitError(f"git could not be started: {error}; install git and check the data directory") from error
    out, err = _Output(output_bytes_max), _Output(STDERR_BYTES_MAX)
    try:
        with anyio.move_on_after(timeout_ms / 1000) as deadline:
            await _converse(process, stdin, out, err)
    finally:
        await _end(process)
    if out.is_over:
        raise GitOutputTooLarge(f"git {arguments[0]} wrote more than {output_bytes_max} bytes", stderr=_text(err))
    if deadline.cancelled_caught:
        raise GitTimedOut(f"git {arguments[0]} took longer than {timeout_ms} ms", stderr=_text(err))
    assert process.returncode is not None
    return GitResult(exit_code=process.returncode, stdout=out.data(), stderr=_text(err))


async def _converse(process: anyio.abc.Process, stdin: bytes, out: _Output, err: _Output) -> None:
    """Feed stdin and drain both outputs at once, in one scope that ends early when stdout is over its limit."""
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(out.collect, process.stdout, tasks.cancel_scope)
        tasks.start_soon(err.collect, process.stderr, None)
        tasks.start_soon(_feed, process.stdin, stdin)
    if not out.is_over:
        await process.wait()


async def _feed(stream: anyio.abc.ByteSendStream, data: bytes) -> None:
    # Git that failed early has closed its end; its exit code and stderr tell more than our broken pipe.
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        if data:
            await stream.send(data)
    with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        await stream.aclose()


async def _end(process: anyio.abc.Process) -> None:
    """Leave no process behind: ask politely first, since a killed git leaves its lock files."""
    with anyio.CancelScope(shield=True):
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGTERM)
            with anyio.move_on_after(TERMINATE_GRACE_SECONDS):
                await process.wait()
            # Once more for all of them: git may be gone while a transport that ignores SIGTERM is not.
            _signal_group(process.pid, signal.SIGKILL)
            await process.wait()
        await process.aclose()


def _signal_group(group: int, signal_number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, signal_number)


def _text(output: _Output) -> str:
    return output.data().decode("utf-8", "backslashreplace").strip()
