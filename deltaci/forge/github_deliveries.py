"""The webhooks that GitHub says it sent: to find those that never arrived, and to ask for them again."""

from contextlib import aclosing
from typing import Final

from deltaci.domain.errors import ForgeRejected
from deltaci.domain.missed import RemoteDelivery
from deltaci.domain.repo import Repo
from deltaci.forge import github_shapes as shapes
from deltaci.forge.access import leads_here, named
from deltaci.forge.client import Ask, path_of
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_app import METADATA, GitHubApp

HOOK_PATH: Final = "/api/v1/webhooks/github"
# A hundred to a page: a busy App's three days
PAGES_MAX: Final = 500


class GitHubDeliveries:
    """Looks at deliveries as the App, or with the token of a repository."""

    def __init__(self, access: GitHubAccess, hook_url: str) -> None:
        self._access = access
        self._hook_url = hook_url
        self._hooks: dict[str, int] = {}

    async def since(self, repo: Repo | None, since_ms: int) -> tuple[RemoteDelivery, ...]:
        """Newest first; see `GitHubApi.deliveries`."""
        asked = f"list the webhooks sent to {'the App' if repo is None else named(repo)}"
        path = await self._path(repo, asked)
        ask = Ask(path=path, asked=asked, query={"per_page": "100"})
        found: list[RemoteDelivery] = []
        shape = list[shapes.Delivery]
        if repo is None:
            app = self._app(asked)
            pages = self._access.client.pages(app.api_url, ask, app.identity(), shape, pages_max=PAGES_MAX)
        else:
            pages = self._access.pages(repo, ask, METADATA, shape, pages_max=PAGES_MAX)
        async with aclosing(pages):
            async for page in pages:
                newer = [one for one in map(_delivery, page) if one.delivered_at_ms >= since_ms]
                found += newer
                if len(newer) < len(page):
                    break
        return tuple(found)

    async def again(self, repo: Repo | None, delivery_id: int) -> None:
        """See `GitHubApi.redeliver`."""
        asked = f"have the webhook {delivery_id} sent again"
        path = f"{await self._path(repo, asked)}{path_of(delivery_id, 'attempts')}"
        ask = Ask(method="POST", path=path, asked=asked, is_repeatable=True)
        if repo is None:
            await self._app(asked).send(ask)
        else:
            await self._access.send(repo, ask, METADATA)

    async def _path(self, repo: Repo | None, asked: str) -> str:
        if repo is None:
            return path_of("app", "hook", "deliveries")
        return self._access.path(repo, "hooks", await self._hook(repo, asked), "deliveries", asked=asked)

    async def _hook(self, repo: Repo, asked: str) -> int:
        """The id of the repository's webhook that leads here."""
        if repo.id in self._hooks:
            return self._hooks[repo.id]
        ask = Ask(path=self._access.path(repo, "hooks", asked=asked), asked=asked, query={"per_page": "100"})
        async for page in self._access.pages(repo, ask, METADATA, list[shapes.Hook]):
            for hook in page:
                if leads_here(hook.config.url, self._hook_url, HOOK_PATH):
                    self._hooks[repo.id] = hook.id
        if repo.id not in self._hooks:
            raise ForgeRejected(f"cannot {asked}: {named(repo)} has no webhook to {self._hook_url or HOOK_PATH}")
        return self._hooks[repo.id]

    def _app(self, asked: str) -> GitHubApp:
        if self._access.app is None:
            raise ForgeRejected(f"cannot {asked}: no GitHub App is set (github.app_id)")
        return self._access.app


def _delivery(one: shapes.Delivery) -> RemoteDelivery:
    return RemoteDelivery(
        id=one.id,
        guid=one.guid,
        delivered_at_ms=shapes.millis(one.delivered_at),
        is_redelivery=one.redelivery,
        status_code=one.status_code,
        event=one.event,
        action=one.action or "",
        repository_id=one.repository_id,
        installation_id=one.installation_id,
    )
