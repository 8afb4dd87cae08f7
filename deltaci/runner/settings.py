"""What an operator can set on a runner. What the server decides (TTLs, limits) comes with `Registered` instead."""

import socket
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from protocol.client import Transport


class RunnerConfigError(Exception):
    """The runner cannot start as it is configured; the text names the setting and what it accepts."""


class RunnerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """One runner process.

    Attributes:
        server: base address of the control plane, `http(s)://host[:port][/prefix]`.
        token_file: holds the runner's bearer token, and nothing else.
        work_dir: mirrors, caches and workspaces; owned by one runner at a time, created when missing.
        name: what people see; the same name and token always give the same runner id. Empty: the host name.
        slots: attempts executed at once, 1 to 256.
        cancel_grace_ms: time between SIGTERM and SIGKILL; shortened when the server's cancel deadline is nearer.
        flush_ms: how long log bytes may wait for more before they are sent.
        cache_bytes_max: the caches used least recently are removed when all of them together are larger.
        pass_env: names of further variables of the runner's environment that jobs may see, but for those of forks.
        git_config: a git configuration file for fetching (credential helper, CA, `insteadOf`). By default none is read.
    """

    server: str
    token_file: Path
    work_dir: Path
    labels: tuple[str, ...] = ()
    slots: int = 1
    name: str = ""
    transport: Transport = "auto"
    cancel_grace_ms: int = 10_000
    flush_ms: int = 200
    cache_bytes_max: int = 10 * 1024 * 1024 * 1024
    pass_env: tuple[str, ...] = ()
    git_config: Path | None = None

    def __post_init__(self) -> None:
        if urlsplit(self.server).scheme not in {"http", "https"}:
            raise RunnerConfigError(f"server is {self.server!r}; it must be an http:// or https:// address")
        if not 1 <= self.slots <= 256:
            raise RunnerConfigError(f"slots is {self.slots}; it must be between 1 and 256")
        if self.cancel_grace_ms < 0 or self.flush_ms < 0 or self.cache_bytes_max < 0:
            raise RunnerConfigError("cancel_grace_ms, flush_ms and cache_bytes_max must not be negative")

    @property
    def display_name(self) -> str:
        """The name to register under."""
        return self.name or socket.gethostname()

    def read_token(self) -> str:
        """The bearer token from `token_file`; raises `RunnerConfigError` if there is none."""
        try:
            token = self.token_file.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RunnerConfigError(f"token_file {self.token_file} cannot be read: {type(error).__name__}") from error
        if not token or any(character.isspace() for character in token):
            raise RunnerConfigError(f"token_file {self.token_file} must hold one token and nothing else")
        return token
