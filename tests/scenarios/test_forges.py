"""A repository of each forge, attached as its page says: a push comes in, its jobs run, their states are seen there."""

import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest

from deltaci.forge.webhook import signature
from tests.forge import events_gitea, events_gitlab
from tests.forge.certificates import app_key, pem_of, public_pem
from tests.forge.servers.gitea import gitea_server
from tests.forge.servers.github import github_server
from tests.forge.servers.github_rules import App
from tests.forge.servers.gitlab import gitlab_server
from tests.forge.servers.hosted import Commit, HostedRepo
from tests.scenarios.support import RunnerProcess, Server, git, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

TOKEN = "the-token-of-the-test"
ZERO = "0" * 40
JOBS = {"good": {"steps": ["true"]}, "bad": {"steps": ["echo 'src/cart.py:7:1: error: no cart' && false"]}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Attached:
    """A forge with one repository: how the server is told of it, what it sends, and what it shows."""

    def __init__(self, forge: str, hosted: HostedRepo, settings: dict[str, str], options: tuple[str, ...]) -> None:
        self.forge = forge
        self.hosted = hosted
        self.settings = settings
        self.options = options

    def push(self, sha: str, secret: str) -> tuple[bytes, dict[str, str]]:
        """The webhook of a push to main: body and headers."""
        if self.forge == "gitlab":
            project = events_gitlab.PROJECT | {"path_with_namespace": self.hosted.name}
            body = json.dumps(events_gitlab.a_push(before=ZERO, after=sha, checkout_sha=sha, project=project)).encode()
            return body, {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": secret, "X-Gitlab-Event-UUID": "1"}
        if self.forge == "gitea":
            body = json.dumps(events_gitea.a_push(before=ZERO, after=sha)).encode()
            signed = signature(secret, body).removeprefix("sha256=")
            return body, {"X-Gitea-Event": "push", "X-Gitea-Delivery": "1", "X-Gitea-Signature": signed}
        told: dict[str, Any] = {"ref": "refs/heads/main", "before": ZERO, "after": sha, "pusher": {"name": "ada"}}
        body = json.dumps(told | {"repository": {"full_name": self.hosted.name}}).encode()
        signed = signature(secret, body)
        return body, {"X-GitHub-Event": "push", "X-GitHub-Delivery": "1", "X-Hub-Signature-256": signed}

    def shown(self, sha: str) -> dict[str, str]:
        """What people see at the commit, by name, in the forge's own words."""
        if self.forge == "github":
            return {name: one["conclusion"] or one["status"] for name, one in self.hosted.checks_of(sha).items()}
        word = "status" if self.forge == "gitlab" else "state"
        statuses = self.hosted.statuses_of(sha)
        return {name: one.get("state") or one.get(word) for name, one in statuses.items()}


@asynccontextmanager
async def on_github(home: Path) -> AsyncIterator[Attached]:
    async with github_server() as github:
        key = app_key()
        github.app = App(public_pem(key))
        (home / "app.pem").write_bytes(pem_of(key))
        settings = {
            "DELTACI_GITHUB_API_URL": github.url,
            "DELTACI_GITHUB_APP_ID": str(github.app.id),
            "DELTACI_GITHUB_PRIVATE_KEY_FILE": str(home / "app.pem"),
        }
        yield Attached("github", github.add_repo("acme/shop", installation_id=42), settings, ("--installation", "42"))


@asynccontextmanager
async def on_gitlab(home: Path) -> AsyncIterator[Attached]:
    async with gitlab_server() as gitlab:
        gitlab.add_token(TOKEN)
        token = home / "shop.token"
        settings = {"DELTACI_GITLAB_WEB_URL": gitlab.url}
        yield Attached("gitlab", gitlab.add_repo("group/sub/shop"), settings, ("--api-token-file", str(token)))


@asynccontextmanager
async def on_gitea(home: Path) -> AsyncIterator[Attached]:
    async with gitea_server() as gitea:
        gitea.add_token(TOKEN)
        settings = {"DELTACI_GITEA_WEB_URL": gitea.url}
        options = ("--api-token-file", str(home / "shop.token"))
        yield Attached("gitea", gitea.add_repo("acme/shop"), settings, options)


def live(attached: Attached, home: Path) -> dict[str, str]:
    """Add the repository, push to it, run what that asks for; what the forge shows when all is told."""
    (home / "shop.token").write_text(TOKEN)
    (home / "shop.secret").write_text(secret := secrets.token_hex(16))
    work = home / "shop"
    git("init", "--quiet", "--initial-branch=main", str(work), cwd=home)
    (work / "deltaci.yaml").write_text(json.dumps({"version": 1, "jobs": JOBS}))
    git("add", "--all", cwd=work)
    git("commit", "--quiet", "--message", "a cart", cwd=work)
    sha = git("rev-parse", "HEAD", cwd=work).strip()
    attached.hosted.commits[sha] = Commit(sha, None, {})
    attached.hosted.branches["main"] = sha
    with Server(home, **attached.settings) as server:
        words = ("--forge", attached.forge, "--url", str(work / ".git"), "--secret-file", str(home / "shop.secret"))
        server.cli("repo", "add", attached.hosted.name, *words, *attached.options)
        body, headers = attached.push(sha, secret)
        url = f"{server.url}/api/v1/webhooks/{attached.forge}"
        answer = server.client.post(url, content=body, headers=headers | {"Content-Type": "application/json"})
        assert answer.status_code == 202, answer.text
        with RunnerProcess(server):
            server.run_until(answer.json()["run_id"])
            wait_for("the forge to be told", lambda: is_told(attached.shown(sha)))
        server.assert_sound()
        assert TOKEN not in server.log.read_text()
    return attached.shown(sha)


def is_told(shown: dict[str, str]) -> bool:
    """Whether nothing is under way any more."""
    return len(shown) == len(JOBS) + 1 and not {"queued", "in_progress", "pending", "running"} & {*shown.values()}


@pytest.mark.parametrize(("attached_to", "red"), [(on_github, "failure"), (on_gitlab, "failed"), (on_gitea, "failure")])
async def test_a_push_is_run_and_its_states_are_seen(tmp_path: Path, attached_to: Callable[..., Any], red: str) -> None:
    """One line for each job and one for the run; no token is in the log."""
    async with attached_to(tmp_path) as attached:
        shown = await anyio.to_thread.run_sync(live, attached, tmp_path)

    assert shown == {"deltaci (push)": red, "deltaci (push)/good": "success", "deltaci (push)/bad": red}
