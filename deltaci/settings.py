"""What can be set, from a TOML file and from `DELTACI_*`; the environment wins. Every limit has its default here.

A setting `lease_ttl_ms` of the table `[policy]` is `DELTACI_POLICY_LEASE_TTL_MS` in the environment.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from deltaci.domain.errors import ConfigError
from deltaci.gateway.house import Limits
from deltaci.orchestrator.ports import Policy

PREFIX: Final = "DELTACI_"
# Read by the command line itself, not settings of the server
NOT_SETTINGS: Final = frozenset({"DELTACI_URL", "DELTACI_TOKEN"})


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the server can be told.

    `public_url`: how users and forges reach this server, for links; `allow_public`: bind to more than loopback.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    allow_public: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    allow_git_protocols: str = "file:https:ssh"
    shutdown_within_s: float = 15.0
    policy: Policy = Policy()
    limits: Limits = Limits()


def load(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """The settings; raises `ConfigError` naming file or variable, setting, and what it accepts."""
    raw: dict[str, Any] = {}
    if file is not None:
        try:
            raw = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{file}: {error}") from error
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            _put(raw, name, text)
    try:
        # Not strict: the environment knows only strings.
        return msgspec.convert(raw, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file or 'DELTACI_*'}: {error}") from error


def _put(raw: dict[str, Any], name: str, text: str) -> None:
    key = name.removeprefix(PREFIX).lower()
    for table, kind in (("policy", Policy), ("limits", Limits)):
        field = key.removeprefix(f"{table}_")
        if field != key and field in kind.__struct_fields__:
            raw.setdefault(table, {})[field] = text
            return
    if key not in Settings.__struct_fields__ or key in ("policy", "limits"):
        known = [field for field in Settings.__struct_fields__ if field not in ("policy", "limits")]
        raise ConfigError(f"{name}: no such setting; there are {', '.join(known)}, policy_* and limits_*")
    raw[key] = text
