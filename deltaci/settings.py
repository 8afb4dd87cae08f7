"""What can be set, from a TOML file and from `DELTACI_*`; the environment wins. Every limit has its default here.

A setting `lease_ttl_ms` of the table `[policy]` is `DELTACI_POLICY_LEASE_TTL_MS` in the environment.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from deltaci.domain.errors import ConfigError
from deltaci.forge import settings as forges
from deltaci.forge.client import HttpSettings
from deltaci.forge.settings import GiteaSettings, GitHubSettings, GitLabSettings
from deltaci.gateway.house import Limits
from deltaci.notifier.channels import Notifications
from deltaci.orchestrator.ports import Policy
from deltaci.planner.bounds import Bounds

PREFIX: Final = "DELTACI_"
NUMBER_MAX: Final = 2**53 - 1
PORT_MAX: Final = 65_535
DAY_S: Final = 86_400
ADVISOR_MS_MAX: Final = 60_000
NOTIFICATION_MS_MAX: Final = 600_000
TABLES: Final[Mapping[str, type[msgspec.Struct]]] = {
    "policy": Policy,
    "planner": Bounds,
    "limits": Limits,
    "notifications": Notifications,
    "github": GitHubSettings,
    "gitlab": GitLabSettings,
    "gitea": GiteaSettings,
    "http": HttpSettings,
}
# Read by the command line itself, not settings of the server
NOT_SETTINGS: Final = frozenset({"DELTACI_URL", "DELTACI_TOKEN"})


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything the server can be told.

    `public_url`: how users and forges reach this server, for links; `allow_public`: bind to more than loopback;
    `advisor_url`: where finished plans are posted for words about them (off if empty), answered within `advisor_ms`;
    `comments`: whether the one comment at a pull request is written: never, when it helps, after every run.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    public_url: str = ""
    allow_public: bool = False
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["text", "json"] = "text"
    allow_git_protocols: str = "file:https:ssh"
    advisor_url: str = ""
    advisor_ms: int = 5_000
    comments: Literal["never", "helpful", "always"] = "helpful"
    shutdown_within_s: float = 15.0
    policy: Policy = Policy()
    planner: Bounds = Bounds()
    limits: Limits = Limits()
    notifications: Notifications = Notifications()
    github: GitHubSettings = GitHubSettings()
    gitlab: GitLabSettings = GitLabSettings()
    gitea: GiteaSettings = GiteaSettings()
    http: HttpSettings = HttpSettings()


def load(file: Path | None, environment: Mapping[str, str]) -> Settings:
    """The settings; raises `ConfigError` naming file or variable, setting, and what it accepts."""
    raw: dict[str, Any] = {}
    if file is not None:
        try:
            raw = tomllib.loads(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"{file}: {error}") from error
        for table, kind in TABLES.items():
            _refuse_unknown(raw.get(table, {}), kind, f"{file}: {table}")
    for name, text in sorted(environment.items()):
        if name.startswith(PREFIX) and name not in NOT_SETTINGS:
            _put(raw, name, text)
    try:
        # Not strict: the environment knows only strings.
        settings = msgspec.convert(raw, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{file or 'DELTACI_*'}: {error}") from error
    _check(settings)
    return settings


def _check(settings: Settings) -> None:
    """What types cannot say: every time and bound is positive, and a lease outlives the silence between heartbeats."""
    for table, values in (
        ("policy", settings.policy),
        ("planner", settings.planner),
        ("limits", settings.limits),
    ):
        for field in values.__struct_fields__:
            value = getattr(values, field)
            if not isinstance(value, str) and not 1 <= value <= NUMBER_MAX:
                raise ConfigError(f"{table}.{field} is {value}; give a number from 1 to {NUMBER_MAX}")
    heartbeat_ms, ttl_ms = settings.policy.heartbeat_ms, settings.policy.lease_ttl_ms
    if heartbeat_ms * 2 > ttl_ms:
        raise ConfigError(
            f"policy.heartbeat_ms is {heartbeat_ms} and policy.lease_ttl_ms {ttl_ms}: a lease must outlive one missed "
            "heartbeat, so give at most half of it"
        )
    if not 0 <= settings.port <= PORT_MAX:
        raise ConfigError(f"port is {settings.port}; give a number from 0 to {PORT_MAX}")
    if settings.advisor_url and not settings.advisor_url.startswith(("http://", "https://")):
        raise ConfigError(f"advisor_url is {settings.advisor_url!r}; give an http or https address, or nothing")
    if not 1 <= settings.advisor_ms <= ADVISOR_MS_MAX:
        raise ConfigError(f"advisor_ms is {settings.advisor_ms}; give milliseconds from 1 to {ADVISOR_MS_MAX}")
    if not 1 <= settings.notifications.within_ms <= NOTIFICATION_MS_MAX:
        raise ConfigError(
            f"notifications.within_ms is {settings.notifications.within_ms}; give milliseconds from 1 to "
            f"{NOTIFICATION_MS_MAX}"
        )
    forges.check(settings.github, settings.gitlab, settings.gitea, settings.http)
    if not 0 <= settings.shutdown_within_s <= DAY_S:
        raise ConfigError(f"shutdown_within_s is {settings.shutdown_within_s}; give seconds from 0 to {DAY_S}")


def _refuse_unknown(table: Any, kind: type[msgspec.Struct], where: str) -> None:
    """A misspelt limit that is ignored in silence is no limit."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} is a table of settings, not {table!r}")
    for name in table:
        if name not in kind.__struct_fields__:
            raise ConfigError(f"{where}.{name}: no such setting; there are {', '.join(kind.__struct_fields__)}")


def _put(raw: dict[str, Any], name: str, text: str) -> None:
    key = name.removeprefix(PREFIX).lower()
    for table, kind in TABLES.items():
        field = key.removeprefix(f"{table}_")
        if field != key and field in kind.__struct_fields__:
            raw.setdefault(table, {})[field] = text
            return
    if key not in Settings.__struct_fields__ or key in TABLES:
        known = [field for field in Settings.__struct_fields__ if field not in TABLES]
        tables = ", ".join(f"{table}_*" for table in TABLES)
        raise ConfigError(f"{name}: no such setting; there are {', '.join(known)}, {tables}")
    raw[key] = text
