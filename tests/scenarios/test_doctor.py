"""A repository of GitHub is attached step by step, as its page says; `deltaci doctor` tells what is still missing."""

import json
import secrets
from pathlib import Path

import anyio.to_thread
import pytest

from deltaci.forge.webhook import signature
from tests.forge.servers.github import GitHubServer, github_server
from tests.scenarios.support import RunnerProcess, Server

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

TOKEN = "ghp_of_the_test"
HOME = "https://ci.example.org"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def bad(server: Server, code: int) -> set[str]:
    """What doctor finds wanting; what it prints holds no secret."""
    output = server.cli("doctor", "--repo", "acme/shop", code=code)
    assert TOKEN not in output
    return {line.split("BAD ")[1].split(":")[0].strip() for line in output.splitlines() if "BAD " in line}


def attach(github: GitHubServer, home: Path) -> None:
    """Each step takes a finding away, and the last one the exit code."""
    token, secret = home / "shop.token", home / "shop.secret"
    token.write_text(TOKEN)
    secret.write_text(secrets.token_hex(16))
    shop, register = github.repos["acme/shop"], ("repo", "add", "acme/shop", "--forge", "github")
    with Server(home, DELTACI_GITHUB_API_URL=github.url, DELTACI_PUBLIC_URL=HOME) as server:
        server.cli(*register, "--url", f"{github.url}/acme/shop.git", "--secret-file", str(secret),
                   "--api-token-file", str(token), "--report-to", github.url)  # fmt: skip
        assert bad(server, 1) == {"runners", "repository", "webhooks received"}
        github.add_token(TOKEN)
        assert bad(server, 1) == {"runners", "webhook", "webhooks received"}
        config = {"url": f"{HOME}/api/v1/webhooks/github", "content_type": "form"}
        hook = {"id": 1, "active": True, "events": ["push"], "config": config}
        shop.hooks.append(hook)
        assert bad(server, 1) == {"runners", "webhook", "webhooks received"}
        hook["events"] = ["push", "pull_request", "issue_comment"]
        config["content_type"] = "json"
        assert bad(server, 1) == {"runners", "webhooks received"}
        ping(server, secret.read_text())
        assert bad(server, 1) == {"runners"}
        with RunnerProcess(server):
            assert bad(server, 0) == set()


def ping(server: Server, secret: str) -> None:
    """What GitHub sends when a webhook is added."""
    body = json.dumps({"zen": "Design for failure.", "repository": {"full_name": "acme/shop"}}).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": "ping",
        "X-GitHub-Delivery": "1",
        "X-Hub-Signature-256": signature(secret, body),
    }
    server.client.post(f"{server.url}/api/v1/webhooks/github", content=body, headers=headers).raise_for_status()


async def test_doctor_tells_what_is_missing_until_nothing_is(tmp_path: Path) -> None:
    """With a real server, and a GitHub that answers by its own description."""
    async with github_server() as github:
        github.add_repo("acme/shop").commit({"a": b"1"})

        await anyio.to_thread.run_sync(attach, github, tmp_path)
