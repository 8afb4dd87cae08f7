"""One git process for callers without a loop: reads what is on this disk, waits, and never reaches a network.

Rule: what `git_command.py` says of hardening and bounds holds here too; no transport is allowed at all.
"""

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Final

from deltaci.forge.git_command import (
    STDERR_BYTES_MAX,
    GitError,
    GitOutputTooLarge,
    GitResult,
    GitTimedOut,
    command_line,
    environment,
)

NO_PROTOCOL: Final = "none"
_CHUNK_BYTES: Final = 1024 * 1024


def run_git_now(
    arguments: Sequence[str],
    *,
    git_dir: Path | None,
    cwd: Path,
    timeout_ms: int,
    output_bytes_max: int,
    stdin: bytes = b"",
) -> GitResult:
    """As `run_git`, synchronously. Git stays in the process group of the caller: who ends that group ends git.

    Raises:
        GitTimedOut, GitOutputTooLarge: the process was ended.
        GitError: git could not be started.
    """
    deadline = time.monotonic() + timeout_ms / 1000
    # Files in place of pipes for what goes in and for what git complains of: one pipe alone cannot block another.
    with tempfile.TemporaryFile() as asked, tempfile.TemporaryFile() as said:
        asked.write(stdin)
        asked.seek(0)
        try:
            process = subprocess.Popen(  # noqa: S603 - our own options, and arguments that were checked
                command_line(arguments, git_dir=git_dir),
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=said,
                cwd=cwd,
                env=environment(protocols=NO_PROTOCOL),
            )
        except OSError as error:
            raise GitError(f"git could not be started: {error}; install git and check the directory") from error
        with process:
            assert process.stdout is not None
            try:
                data = _collect(process.stdout, output_bytes_max, deadline)
                if data is not None and len(data) <= output_bytes_max:
                    process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                data = None
            finally:
                process.kill()
        said.seek(0)
        stderr = said.read(STDERR_BYTES_MAX).decode("utf-8", "backslashreplace").strip()
    if data is None:
        raise GitTimedOut(f"git {arguments[0]} took longer than {timeout_ms} ms", stderr=stderr)
    if len(data) > output_bytes_max:
        raise GitOutputTooLarge(f"git {arguments[0]} wrote more than {output_bytes_max} bytes", stderr=stderr)
    return GitResult(exit_code=process.returncode, stdout=bytes(data), stderr=stderr)


def _collect(stream: IO[bytes], bytes_max: int, deadline: float) -> bytearray | None:
    """All of a stream, or a little more than `bytes_max` bytes of it; None if the time ran out."""
    data = bytearray()
    descriptor = stream.fileno()
    while len(data) <= bytes_max:
        readable, _, _ = select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return None
        chunk = os.read(descriptor, _CHUNK_BYTES)
        if not chunk:
            break
        data += chunk
    return data
