"""A burst of webhooks at a real server, some of them sent twice and some never: what must run, runs, and once.

A fake GitHub sends them and remembers what arrived, as GitHub does: what did not is asked for again through its list of
deliveries, and the heads of open pull requests are compared. In the middle of it all the server is killed.
"""

import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any, Final

import anyio
import anyio.to_thread
import httpx
import pytest

from tests.forge.certificates import app_key, pem_of, public_pem
from tests.forge.servers.github import Delivery, GitHubServer, github_server
from tests.forge.servers.github_rules import App, Limits
from tests.forge.servers.hosted import HostedRepo
from tests.scenarios.support import Server

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

SECRET: Final = "the secret of the app's webhooks"
LANES: Final = 24  # connections that the webhooks come over at the same time
LOOK_MS: Final = 4_000
WITHIN_S: Final = 240


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def sha(number: int) -> str:
    return f"{number:040x}"


def payload(shop: HostedRepo, number: int) -> tuple[str, dict[str, Any]]:
    """An opened pull request or a push to a branch of its own, of commit `number`; the forge shows it from now on."""
    repository = {"id": shop.id, "full_name": shop.name}
    shop.branches[f"topic-{number}"] = sha(number)
    if number % 2:
        before, ref = "0" * 40, f"refs/heads/topic-{number}"
        commit = {"id": sha(number), "message": "work"}
        return "push", {"repository": repository, "ref": ref, "before": before, "after": sha(number)} | {
            "created": True, "deleted": False, "forced": False, "head_commit": commit, "pusher": {"name": "ada"},
        }  # fmt: skip
    shop.open_pull(number, sha(number), branch=f"topic-{number}", updated_at_ms=2**42)
    side = {"sha": sha(number), "ref": f"topic-{number}", "repo": repository}
    base = {"sha": shop.branches["main"], "ref": "main", "repo": repository}
    pull = {"number": number, "state": "open", "title": "A change", "head": side, "base": base, "draft": False}
    pull |= {"user": {"login": "ada", "type": "User"}, "labels": [], "updated_at": "2109-05-15T07:35:11Z"}
    return "pull_request", {"action": "opened", "number": number, "repository": repository, "pull_request": pull}


async def burst(github: GitHubServer, shop: HostedRepo, events: int, killed: Callable[[], Awaitable[None]]) -> None:
    """That many events, of which 5 % are sent twice and 5 % never. `killed` comes in the middle."""
    rng = Random(7)
    lost = set(rng.sample(range(1, events + 1), events // 20))
    twice = set(rng.sample(sorted(set(range(1, events + 1)) - lost), events // 20))
    queue = iter(range(1, events + 1))

    async def lane() -> None:
        for number in queue:
            delivery = github.record(*payload(shop, number), shop)
            if number == events // 2:
                await killed()
            for _ in range(0 if number in lost else 2 if number in twice else 1):
                await sent(github, delivery)

    async with anyio.create_task_group() as tasks:
        for _ in range(LANES):
            tasks.start_soon(lane)


async def send_again(github: GitHubServer) -> None:
    """What was asked for again, for ever, over as many connections."""
    places = anyio.CapacityLimiter(LANES)

    async def once(delivery: Delivery) -> None:
        async with places:
            await sent(github, delivery)

    begun = set[int]()
    async with anyio.create_task_group() as tasks:
        while True:
            for delivery in github.deliveries:
                if delivery.is_redelivery and delivery.id not in begun:
                    begun.add(delivery.id)
                    tasks.start_soon(once, delivery)
            await anyio.sleep(0.1)


async def sent(github: GitHubServer, delivery: Delivery) -> None:
    """Once: GitHub does not try again by itself."""
    try:
        await github.deliver(delivery)
    except httpx.HTTPError:
        delivery.status_code = delivery.status_code or 502


def stored(server: Server) -> Counter[tuple[str, str]]:
    """How many runs there are of each kind and commit."""
    connection = sqlite3.connect(f"file:{server.data / 'deltaci.db'}?mode=ro", uri=True)
    try:
        return Counter(connection.execute("SELECT trigger_type, commit_sha FROM run").fetchall())
    finally:
        connection.close()


@pytest.mark.parametrize(
    "events",
    [pytest.param(200, id="200"), pytest.param(9_524, id="10000", marks=[pytest.mark.long, pytest.mark.timeout(500)])],
)
async def test_a_burst_with_lost_and_doubled_webhooks_ends_in_exactly_the_right_runs(
    tmp_path: Path, events: int
) -> None:
    """Also with a `kill -9` in the middle of it."""
    async with github_server() as github:
        key = app_key()
        github.app = App(public_pem(key))
        (tmp_path / "app.pem").write_bytes(pem_of(key))
        (tmp_path / "app.secret").write_text(SECRET)
        # What is reported of these runs is not what this is about.
        github.limits = Limits(primary_per_hour=10**9, writes_per_minute=10**9, writes_per_hour=10**9)
        shop = github.add_repo("acme/shop", installation_id=5)
        shop.commit({"a": b"1"})
        settings = {
            "DELTACI_GITHUB_API_URL": github.url,
            "DELTACI_GITHUB_APP_ID": str(github.app.id),
            "DELTACI_GITHUB_PRIVATE_KEY_FILE": str(tmp_path / "app.pem"),
            "DELTACI_GITHUB_WEBHOOK_SECRET_FILE": str(tmp_path / "app.secret"),
            "DELTACI_POLICY_FORGE_LOOK_EVERY_MS": str(LOOK_MS),
            "DELTACI_POLICY_FORGE_SETTLED_MS": str(LOOK_MS),
            "DELTACI_POLICY_PLANS_AT_ONCE": "1",
        }
        with Server(tmp_path, **settings) as server:
            await anyio.to_thread.run_sync(register, server, github, tmp_path)
            github.hook_url, github.hook_secret = f"{server.url}/api/v1/webhooks/github", SECRET

            async def killed() -> None:
                server.kill()
                await anyio.to_thread.run_sync(server.start)

            wanted = Counter(
                {("push" if number % 2 else "pull_request", sha(number)): 1 for number in range(1, events + 1)}
            )
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(send_again, github)
                await burst(github, shop, events, killed)
                with anyio.fail_after(WITHIN_S):
                    while True:
                        if stored(server) == wanted:
                            break
                        await anyio.sleep(0.5)
                await anyio.sleep(2 * LOOK_MS / 1000)  # nothing comes after it
                tasks.cancel_scope.cancel()
            assert stored(server) == wanted
            await anyio.to_thread.run_sync(server.assert_sound)


def register(server: Server, github: GitHubServer, home: Path) -> None:
    """The repository, as its page says."""
    (home / "shop.secret").write_text("a secret of its own")
    server.cli("repo", "add", "acme/shop", "--forge", "github", "--url", f"{github.url}/acme/shop.git",
               "--secret-file", str(home / "shop.secret"), "--installation", "5")  # fmt: skip
