"""Who asks GitHub: our App, where it is installed on the repository, or the repository's own token.

Rule 1: the App's tokens go to the configured address alone: a repository that names another one is asked with its own.
Rule 2: every write is counted before it is sent; what would be too much is not sent at all.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final, TypeVar

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.access import TokenAccess, is_cloned_from, owner_and_name, web_place
from deltaci.forge.answers import Answer
from deltaci.forge.api import Credential
from deltaci.forge.budget import WriteBudget
from deltaci.forge.client import PAGES_MAX, Ask, ForgeClient, Identity, path_of
from deltaci.forge.github_app import (
    API_HEADERS,
    CONTENTS,
    GitHubApp,
    Permissions,
    installation_account,
)

GITHUB_API_URL: Final = "https://api.github.com"
CLONE_USER: Final = "x-access-token"

T = TypeVar("T")


class GitHubAccess:
    """Asks one GitHub, as whoever may."""

    def __init__(
        self,
        client: ForgeClient,
        clock: Clock,
        *,
        api_url: str = GITHUB_API_URL,
        web_url: str = "",
        app: GitHubApp | None = None,
        budget: WriteBudget | None = None,
    ) -> None:
        """`web_url`: where git clones from, if that is not to be seen from `api_url`."""
        self.client = client
        self.app = app
        self.budget = budget or WriteBudget()
        self._clock = clock
        self._api_url = api_url.rstrip("/")
        self._web_place = web_place(web_url or api_url)
        self._tokens = TokenAccess(client, api_url=api_url, scheme="Bearer", setting="github.api_url")

    def is_app(self, repo: Repo) -> bool:
        """Whether our App is asked for the repository: then there are checks, otherwise statuses."""
        is_here = not repo.report_to or repo.report_to.rstrip("/") == self._api_url
        return self.app is not None and repo.installation_id > 0 and is_here

    def account(self, repo: Repo) -> str:
        """What the writes of the repository are counted for."""
        return installation_account(repo) if self.is_app(repo) else self._tokens.account(repo)

    def path(self, repo: Repo, *segments: str | int, asked: str) -> str:
        """`/repos/owner/name/...`."""
        return path_of("repos", *owner_and_name(repo, asked=asked), *segments)

    async def send(self, repo: Repo, ask: Ask, permissions: Permissions) -> Answer:
        """Ask as whoever may; `permissions` are what a token of the App is narrowed to.

        Raises:
            ForgeUnavailable: as `ForgeClient.send`, or the budget of writes is spent (`retry_after_ms`).
            ForgeRejected: as `ForgeClient.send`.
        """
        base = self._tokens.base(repo, asked=ask.asked)
        who = await self._identity(repo, ask, permissions)
        self._count(repo, ask)
        try:
            return await self.client.send(base, ask, who)
        except ForgeRejected as error:
            if error.details.get("status") != "401" or not self.is_app(repo) or self.app is None:
                raise
            self.app.drop(repo, permissions, who.secrets[0])
        return await self.client.send(base, ask, await self._identity(repo, ask, permissions))

    async def pages(
        self, repo: Repo, ask: Ask, permissions: Permissions, shape: type[T], *, pages_max: int = PAGES_MAX
    ) -> AsyncGenerator[T, None]:
        """See `ForgeClient.pages`."""
        base = self._tokens.base(repo, asked=ask.asked)
        who = await self._identity(repo, ask, permissions)
        async with aclosing(self.client.pages(base, ask, who, shape, pages_max=pages_max)) as pages:
            async for page in pages:
                yield page

    async def credential(self, repo: Repo) -> Credential | None:
        """A token that may read the contents, for git; None without one, or if git clones from another host."""
        place = web_place(repo.report_to) if repo.report_to else self._web_place
        if self.is_app(repo):
            place = self._web_place
        if not is_cloned_from(repo, place):
            return None
        if self.is_app(repo) and self.app is not None:
            token = await self.app.token(repo, CONTENTS)
            return Credential(username=CLONE_USER, password=token.secret, expires_at_ms=token.expires_at_ms)
        return Credential(username=CLONE_USER, password=repo.api_token) if repo.api_token else None

    async def _identity(self, repo: Repo, ask: Ask, permissions: Permissions) -> Identity:
        if self.is_app(repo) and self.app is not None:
            return await self.app.identity_for(repo, permissions)
        who = self._tokens.identity(repo, asked=ask.asked)
        return Identity(account=who.account, headers={**API_HEADERS, **who.headers}, secrets=who.secrets)

    def _count(self, repo: Repo, ask: Ask) -> None:
        if ask.method == "GET":
            return
        account, now_ms = self.account(repo), self._clock.now_ms()
        wait_ms = self.budget.wait_ms(account, now_ms)
        if wait_ms:
            text = f"cannot {ask.asked}: GitHub takes no more writes from {account} for {-(-wait_ms // 1000)} s"
            raise ForgeUnavailable(text, retry_after_ms=wait_ms)
        self.budget.spent(account, now_ms)
