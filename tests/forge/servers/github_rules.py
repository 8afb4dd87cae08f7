"""What GitHub enforces of everybody: who may ask what, and how often."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import jwt

from tests.forge.servers.wire import Answer, Asked

PRIMARY_PER_HOUR = 5_000
WRITES_PER_MINUTE = 80
WRITES_PER_HOUR = 500
JWT_LIFE_MAX_S = 600
TOKEN_LIFE_MS = 3_600_000
LEVELS = ("none", "read", "write", "admin")


@dataclass
class App:
    """The GitHub App that the server knows: JWTs are checked with `public_key` (PEM)."""

    public_key: str
    id: int = 4711
    client_id: str = "Iv23liDeltaCI"
    slug: str = "delta-ci"
    permissions: dict[str, str] = field(
        default_factory=lambda: {
            "metadata": "read",
            "contents": "read",
            "pull_requests": "write",
            "checks": "write",
            "statuses": "write",
        }
    )
    events: tuple[str, ...] = ("push", "pull_request", "check_run", "check_suite", "merge_group", "issue_comment")
    hook_url: str = ""


@dataclass(frozen=True)
class Account:
    """Who asks: the app itself, an installation, or a person with a token. `repos` None is all of them."""

    kind: str
    name: str
    repos: frozenset[str] | None = None
    permissions: dict[str, str] | None = None
    installation_id: int = 0

    def may(self, needs: str) -> bool:
        """Whether it has a permission like `checks:write`; `app` and `token` are kinds."""
        if needs in ("app", "token", ""):
            return needs in ("", self.kind)
        if self.kind == "app":
            return False
        if self.permissions is None:
            return not needs.startswith("checks:write")
        name, _, level = needs.partition(":")
        return LEVELS.index(self.permissions.get(name, "none")) >= LEVELS.index(level)


@dataclass
class Token:
    """A token that the server gave out, or that a test put there."""

    account: Account
    expires_at_ms: int | None = None


@dataclass
class Limits:
    """The limits as GitHub documents them; a test may make them small. `refused` counts who ran into them."""

    primary_per_hour: int = PRIMARY_PER_HOUR
    writes_per_minute: int = WRITES_PER_MINUTE
    writes_per_hour: int = WRITES_PER_HOUR
    refused: int = 0
    _used: dict[str, tuple[int, int]] = field(default_factory=dict)
    _writes: dict[str, deque[int]] = field(default_factory=dict)

    def refusal(self, account: Account, asked: Asked) -> Answer | None:
        """The 403 of a request too many; it counts the request otherwise."""
        hour = asked.at_ms // 3_600_000
        since, used = self._used.get(account.name, (hour, 0))
        used = 0 if since != hour else used
        if used >= self.primary_per_hour:
            self.refused += 1
            return Answer(403, {"message": "API rate limit exceeded"}, self.headers(account, asked.at_ms))
        if asked.method != "GET" and not asked.path.endswith("/access_tokens"):
            wait_ms = self._write_wait_ms(account, asked.at_ms)
            if wait_ms:
                self.refused += 1
                seconds = str(-(-wait_ms // 1000))
                message = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."
                return Answer(403, {"message": message}, {"retry-after": seconds})
        self._used[account.name] = (hour, used + 1)
        return None

    def give_back(self, account: Account) -> None:
        """A 304 costs nothing."""
        hour, used = self._used[account.name]
        self._used[account.name] = (hour, used - 1)

    def used(self, account: str) -> int:
        """How many requests of the hour are spent."""
        return self._used.get(account, (0, 0))[1]

    def writes(self, account: str) -> list[int]:
        """When the account's accepted writes were, within the last hour that it wrote in."""
        return list(self._writes.get(account, ()))

    def headers(self, account: Account, now_ms: int) -> dict[str, str]:
        """What GitHub says of the primary limit on every answer."""
        left = self.primary_per_hour - self.used(account.name)
        return {
            "x-ratelimit-limit": str(self.primary_per_hour),
            "x-ratelimit-remaining": str(max(0, left)),
            "x-ratelimit-used": str(self.used(account.name)),
            "x-ratelimit-reset": str((now_ms // 3_600_000 + 1) * 3_600),
            "x-ratelimit-resource": "core",
        }

    def _write_wait_ms(self, account: Account, now_ms: int) -> int:
        writes = self._writes.setdefault(account.name, deque())
        while writes and writes[0] <= now_ms - 3_600_000:
            writes.popleft()
        in_minute = [at for at in writes if at > now_ms - 60_000]
        waits = []
        if len(writes) >= self.writes_per_hour:
            waits.append(writes[0] + 3_600_000 - now_ms)
        if len(in_minute) >= self.writes_per_minute:
            waits.append(in_minute[0] + 60_000 - now_ms)
        if not waits:
            writes.append(now_ms)
        return max(waits, default=0)


def app_account(app: App | None, token: str, now_ms: Callable[[], int]) -> Account | str:
    """The app whose JWT this is, or what GitHub says of a wrong one."""
    if app is None:
        return "Bad credentials"
    try:
        options: Any = {"verify_exp": False, "verify_iat": False, "verify_nbf": False}
        claims = jwt.decode(token, app.public_key, algorithms=["RS256"], options=options)
    except jwt.InvalidTokenError:
        return "A JSON web token could not be decoded"
    now_s = now_ms() // 1000
    if str(claims.get("iss")) not in (str(app.id), app.client_id):
        return "'Issuer' claim ('iss') must be an Integer or the client id"
    if claims["iat"] > now_s:
        return "'Issued at' claim ('iat') must be an Integer representing the time that the assertion was issued"
    if not now_s < claims["exp"] <= now_s + JWT_LIFE_MAX_S:
        return "'Expiration time' claim ('exp') is too far in the future"
    return Account("app", f"app:{app.id}")
