"""Which address a repository's forge is asked at, and as whom.

Rule 1: `Repo.report_to` is the address of the API where it is given; otherwise the one in the settings.
Rule 2: a token is for the host it was given for: what git clones from elsewhere gets none.
"""

import hashlib
from collections.abc import AsyncGenerator
from typing import TypeVar
from urllib.parse import urlsplit

from deltaci.domain.errors import ForgeRejected
from deltaci.domain.repo import Repo
from deltaci.forge.answers import Answer
from deltaci.forge.api import Credential
from deltaci.forge.client import PAGES_MAX, Ask, ForgeClient, Identity
from deltaci.forge.webhook import one_line

T = TypeVar("T")


class TokenAccess:
    """Asks with the repository's own token."""

    def __init__(self, client: ForgeClient, *, api_url: str, scheme: str, setting: str) -> None:
        """`api_url` may be empty; `scheme` stands before the token; `setting` names where the address is set."""
        self.client = client
        self._api_url = api_url.rstrip("/")
        self._scheme = scheme
        self._setting = setting

    def base(self, repo: Repo, *, asked: str) -> str:
        """The address of the API; raises `ForgeRejected` if there is none."""
        base = repo.report_to or self._api_url
        if not base:
            where = f"set {self._setting}, or the repository's report_to"
            raise ForgeRejected(f"cannot {asked}: nobody said where its forge is: {where}")
        return base.rstrip("/")

    def account(self, repo: Repo) -> str:
        """What the forge counts the requests for: the same for the same token, and not to be turned back into it."""
        return f"token:{hashlib.sha256(repo.api_token.encode()).hexdigest()[:16]}"

    def identity(self, repo: Repo, *, asked: str) -> Identity:
        """The owner of the token; raises `ForgeRejected` if there is none."""
        if not repo.api_token:
            raise ForgeRejected(
                f"cannot {asked}: the repository has no API token; give it one with the right to do this"
            )
        headers = {"authorization": f"{self._scheme} {repo.api_token}"}
        return Identity(account=self.account(repo), headers=headers, secrets=(repo.api_token,))

    async def send(self, repo: Repo, ask: Ask) -> Answer:
        """See `ForgeClient.send`."""
        return await self.client.send(self.base(repo, asked=ask.asked), ask, self.identity(repo, asked=ask.asked))

    def pages(self, repo: Repo, ask: Ask, shape: type[T], *, pages_max: int = PAGES_MAX) -> AsyncGenerator[T, None]:
        """See `ForgeClient.pages`."""
        base, who = self.base(repo, asked=ask.asked), self.identity(repo, asked=ask.asked)
        return self.client.pages(base, ask, who, shape, pages_max=pages_max)

    def credential(self, repo: Repo, *, username: str) -> Credential | None:
        """The token, for git; None without one, and for a repository that is cloned from another host."""
        base = repo.report_to or self._api_url
        if not repo.api_token or not base or not is_cloned_from(repo, web_place(base)):
            return None
        return Credential(username=username, password=repo.api_token)


def named(repo: Repo) -> str:
    """The repository's name, for texts."""
    return one_line(repo.name, 200)


def owner_and_name(repo: Repo, *, asked: str) -> tuple[str, str]:
    """Both parts of `owner/name`; raises `ForgeRejected` for another form."""
    owner, slash, name = repo.name.partition("/")
    if not slash or "/" in name or not owner.strip(".") or not name.strip(".") or not repo.name.isprintable():
        raise ForgeRejected(f"cannot {asked}: the repository's name is not of the form owner/name")
    return owner, name


def web_place(api_url: str) -> str:
    """`host` or `host:port` where people and git find what the API at `api_url` tells of."""
    place = urlsplit(api_url).netloc.casefold()
    return "github.com" if place == "api.github.com" else place


def is_cloned_from(repo: Repo, place: str) -> bool:
    """Whether git gets the repository over https from `place`, by an address that names nobody."""
    try:
        parts = urlsplit(repo.clone_url)
    except ValueError:
        return False
    return parts.scheme == "https" and parts.netloc.casefold() == place.casefold()


def leads_here(url: str, hook_url: str, path: str) -> bool:
    """Whether a webhook goes to us: exactly there if we know our address, otherwise by its path."""
    return url.rstrip("/") == hook_url.rstrip("/") if hook_url else url.rstrip("/").endswith(path)


def literal_beginning(pattern: str) -> str:
    """The part of a glob before its first special character."""
    return next((pattern[:index] for index, one in enumerate(pattern) if one in "*?["), pattern)
