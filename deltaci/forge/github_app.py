"""Delta CI as a GitHub App: it proves who it is with its key, and gets tokens of an hour that may do one thing.

Rule 1: the key signs for the configured address alone, and its JWT and tokens go nowhere else.
Rule 2: a token is for one repository and one purpose; it is kept until ten minutes before its end.
Rule 3: however many ask at once, one token is fetched; a token that is refused is dropped once, and fetched anew.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final, TypeAlias

import anyio
import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ConfigError, ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.answers import Answer, read
from deltaci.forge.client import Ask, ForgeClient, Identity, path_of

Permissions: TypeAlias = Mapping[str, str]

METADATA: Final[Permissions] = {"metadata": "read"}
CONTENTS: Final[Permissions] = {"contents": "read"}
PULL_REQUESTS: Final[Permissions] = {"pull_requests": "read"}
COMMENTS: Final[Permissions] = {"pull_requests": "write"}
STATUSES: Final[Permissions] = {"statuses": "write"}
CHECKS: Final[Permissions] = {"checks": "write"}

API_HEADERS: Final = {"accept": "application/vnd.github+json", "x-github-api-version": "2022-11-28"}
# GitHub refuses an `iat` ahead of its clock, and an `exp` more than ten minutes ahead of it.
BACKDATED_S: Final = 60
JWT_LIFE_S: Final = 600
RENEWED_BEFORE_MS: Final = 10 * 60_000
# Shorter than that, a token may end on its way
USABLE_BEFORE_MS: Final = 60_000
TOKENS_MAX: Final = 10_000


class InstallationToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token of an installation; `expires_at_ms` by our clock."""

    secret: str
    expires_at_ms: int

    def __repr__(self) -> str:
        return f"InstallationToken(expires_at_ms={self.expires_at_ms})"


class _Given(msgspec.Struct):
    token: str
    expires_at: datetime


class _Slot:
    """Where the token of one repository and purpose is kept, and the turn of those who fetch it."""

    def __init__(self) -> None:
        self.turn = anyio.Lock()
        self.token: InstallationToken | None = None


def load_private_key(file: Path, *, setting: str) -> RSAPrivateKey:
    """The App's key; raises `ConfigError` naming `setting`."""
    try:
        key = load_pem_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise ConfigError(f"{setting} is {str(file)!r}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{setting} is {str(file)!r}: it holds no PEM key without a passphrase") from None
    if not isinstance(key, RSAPrivateKey):
        raise ConfigError(f"{setting} is {str(file)!r}: GitHub gives RSA keys, and this is another kind")
    return key


class GitHubApp:
    """The App at one GitHub."""

    def __init__(
        self, client: ForgeClient, clock: Clock, *, api_url: str, client_id: str, private_key: RSAPrivateKey
    ) -> None:
        """`client_id`: the App's, or its id; both are taken by GitHub."""
        self._client = client
        self._clock = clock
        self.api_url = api_url.rstrip("/")
        self._client_id = client_id
        self._key = private_key
        self._slots: dict[tuple[int, str, tuple[tuple[str, str], ...]], _Slot] = {}

    def identity(self) -> Identity:
        """The App itself, with a JWT of a few minutes by GitHub's clock: ours may run ahead."""
        now_s = (self._clock.now_ms() + self._client.offset_ms(self.api_url)) // 1000
        claims = {"iat": now_s - BACKDATED_S, "exp": now_s - BACKDATED_S + JWT_LIFE_S, "iss": self._client_id}
        proof = jwt.encode(claims, self._key, algorithm="RS256")
        headers = {**API_HEADERS, "authorization": f"Bearer {proof}"}
        return Identity(account=f"app:{self._client_id}", headers=headers, secrets=(proof,))

    async def send(self, ask: Ask) -> Answer:
        """Ask as the App. A refused JWT is made once more: the refusal tells the time it was measured by."""
        try:
            return await self._client.send(self.api_url, ask, self.identity())
        except ForgeRejected as error:
            if error.details.get("status") != "401":
                raise
        return await self._client.send(self.api_url, ask, self.identity())

    async def token(self, repo: Repo, permissions: Permissions) -> InstallationToken:
        """A token for `repo` that may do what `permissions` say; raises `ForgeUnavailable` or `ForgeRejected`."""
        slot = self._slot(repo, permissions)
        async with slot.turn:
            now_ms = self._clock.now_ms()
            if slot.token is None or slot.token.expires_at_ms < now_ms + RENEWED_BEFORE_MS:
                try:
                    slot.token = await self._fetch(repo, permissions)
                except ForgeUnavailable:
                    if slot.token is None or slot.token.expires_at_ms < now_ms + USABLE_BEFORE_MS:
                        raise
            return slot.token

    async def identity_for(self, repo: Repo, permissions: Permissions) -> Identity:
        """The installation, with a token for `repo`."""
        token = await self.token(repo, permissions)
        headers = {**API_HEADERS, "authorization": f"Bearer {token.secret}"}
        return Identity(account=installation_account(repo), headers=headers, secrets=(token.secret,))

    def drop(self, repo: Repo, permissions: Permissions, secret: str) -> None:
        """Forget a token that was refused, unless another one took its place already."""
        slot = self._slot(repo, permissions)
        if slot.token is not None and slot.token.secret == secret:
            slot.token = None

    def _slot(self, repo: Repo, permissions: Permissions) -> _Slot:
        key = (repo.installation_id, repo.name.casefold(), tuple(sorted(permissions.items())))
        if key not in self._slots and len(self._slots) >= TOKENS_MAX:
            self._slots = {name: slot for name, slot in self._slots.items() if slot.turn.locked()}
        return self._slots.setdefault(key, _Slot())

    async def _fetch(self, repo: Repo, permissions: Permissions) -> InstallationToken:
        asked = f"get a token for {repo.name} of the installation {repo.installation_id}"
        wanted: dict[str, Any] = {"repositories": [repo.name.rpartition("/")[2]], "permissions": dict(permissions)}
        ask = Ask(
            method="POST",
            path=path_of("app", "installations", repo.installation_id, "access_tokens"),
            asked=asked,
            body=msgspec.json.encode(wanted),
            is_repeatable=True,
        )
        given = read(await self.send(ask), _Given, asked=asked)
        if not given.token.isascii() or not given.token.isprintable() or given.expires_at.tzinfo is None:
            raise ForgeUnavailable(f"cannot {asked}: the answer holds no token")
        theirs_ms = int(given.expires_at.timestamp() * 1000)
        return InstallationToken(secret=given.token, expires_at_ms=theirs_ms - self._client.offset_ms(self.api_url))


def installation_account(repo: Repo) -> str:
    """What GitHub counts the requests of an installation for."""
    return f"installation:{repo.installation_id}"
