"""git as the runner calls it: no hooks, no prompts, no configuration of the host, only known protocols."""

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from deltaci.runner.process import MARK_VARIABLE

PROTOCOLS: Final = "https:http:ssh:git:file"
PASSED: Final = (
    "PATH", "HOME", "SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "no_proxy", "all_proxy",
)  # fmt: skip
OPTIONS: Final = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "gc.auto=0",
    "maintenance.auto=false",
    "submodule.recurse=false",
    "protocol.version=2",
    "advice.detachedHead=false",
)
OUTPUT_BYTES_MAX: Final = 4096
_CREDENTIALS: Final = re.compile(r"(?<=://)[^/@\s]+@")


class GitFailed(Exception):
    """git ended with an error; the text is what it said, without credentials."""


async def git(
    *arguments: str,
    mark: str,
    config: Path | None = None,
    cwd: Path | None = None,
    secrets: Mapping[str, str] | None = None,
) -> str:
    """Run one git command and return what it printed.

    Args:
        mark: of the attempt, so that the command is found and killed with it.
        config: a git configuration file that takes the place of the user's; by default there is none.
        secrets: variables for this one command: only its own user can read the environment of a process.
    Raises:
        GitFailed: it exited non-zero.
    """
    process = await asyncio.create_subprocess_exec(
        "git",
        *(word for option in OPTIONS for word in ("-c", option)),
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**_environment(mark, config), **(secrets or {})},
        cwd=cwd,
        start_new_session=True,
    )
    try:
        output, _ = await process.communicate()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    text = without_credentials(output[-OUTPUT_BYTES_MAX:].decode(errors="replace")).strip()
    if process.returncode != 0:
        raise GitFailed(text or f"git ended with {process.returncode}")
    return text


def without_credentials(text: str) -> str:
    """`text` with user and password cut out of every address in it."""
    return _CREDENTIALS.sub("", text)


def _environment(mark: str, config: Path | None) -> dict[str, str]:
    return {
        **{name: os.environ[name] for name in PASSED if name in os.environ},
        MARK_VARIABLE: mark,
        "LC_ALL": "C",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "false",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(config) if config is not None else os.devnull,
        "GIT_ALLOW_PROTOCOL": PROTOCOLS,
        "GIT_SSH_COMMAND": "ssh -oBatchMode=yes",
        "GIT_LFS_SKIP_SMUDGE": "1",
    }
