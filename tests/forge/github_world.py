"""A GitHub that enforces its rules, and our client of it, in a time of their own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from deltaci.domain.repo import Repo
from deltaci.forge.budget import WriteBudget
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_api import GitHubApi
from deltaci.forge.github_app import GitHubApp
from tests.forge.asking import VirtualTime, asking
from tests.forge.certificates import app_key, public_pem
from tests.forge.hooks import a_repo
from tests.forge.servers.github import GitHubServer, github_server
from tests.forge.servers.github_rules import App
from tests.forge.servers.hosted import HostedRepo

TOKEN = "the-secret-token"


@dataclass
class World:
    """`repo` is ours, `shop` the same as the forge hosts it."""

    github: GitHubServer
    api: GitHubApi
    repo: Repo
    shop: HostedRepo
    time: VirtualTime

    @property
    def head(self) -> str:
        return self.shop.branches["main"]


@asynccontextmanager
async def a_world(
    *, is_app: bool = True, hook_url: str = "", budget: WriteBudget | None = None
) -> AsyncIterator[World]:
    """With an installation of our App, or with a token."""
    time = VirtualTime()
    async with github_server(now_ms=time.now_ms) as github, asking(time) as client:
        app = None
        if is_app:
            github.app = App(public_key=public_pem(app_key()))
            app = GitHubApp(client, time, api_url=github.url, client_id="Iv23liDeltaCI", private_key=app_key())
        github.add_token(TOKEN)
        shop = github.add_repo("acme/shop", installation_id=7 if is_app else 0)
        shop.commit({"a": b"1"})
        access = GitHubAccess(client, time, api_url=github.url, app=app, budget=budget)
        repo = a_repo(installation_id=7 if is_app else 0, api_token=TOKEN, report_to="" if is_app else github.url)
        yield World(github, GitHubApi(access, hook_url=hook_url), repo, shop, time)
