"""Webhooks over real sockets: repeated, at once, forged, too large; each is one run or none."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from deltaci.forge.webhook import signature
from tests.scenarios.support import Project, RunnerProcess, Server, git, step

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
SECRET = "a secret of github's"


def at_once(server: Server, requests: list[tuple[bytes, dict[str, str]]]) -> list[httpx.Response]:
    """All requests, each on a connection of its own."""

    def post(request: tuple[bytes, dict[str, str]]) -> httpx.Response:
        data, headers = request
        return httpx.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers, timeout=60)

    with ThreadPoolExecutor(50) as pool:
        return list(pool.map(post, requests))


def test_a_hundred_equal_deliveries_at_once_are_one_run_with_a_hundred_equal_answers(tmp_path: Path) -> None:
    """A forge that heard no answer asks again, through every proxy that retries."""
    with Server(tmp_path) as server:
        project = Project(server)
        commit = project.commit({"README": "x"})
        answers = at_once(server, [project.webhook(commit, "the-one")] * 100)
        runs = server.get("/runs")["runs"]
        server.assert_sound()

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.content for answer in answers}) == 1
    assert answers[0].json() == {"run_id": runs[0]["id"], "duplicate": False}
    assert len(runs) == 1


def test_the_same_content_under_a_hundred_delivery_ids_is_one_run(tmp_path: Path) -> None:
    """Also when they arrive at once, one of them makes the run and all others find it."""
    with Server(tmp_path) as server:
        project = Project(server)
        commit = project.commit({"README": "x"})
        answers = at_once(server, [project.webhook(commit, f"d-{number}") for number in range(100)])
        runs = server.get("/runs")["runs"]
        server.assert_sound()

    assert {answer.status_code for answer in answers} == {202}
    assert {answer.json()["run_id"] for answer in answers} == {runs[0]["id"]}
    assert sorted(answer.json()["duplicate"] for answer in answers) == [False] + [True] * 99
    assert len(runs) == 1


def test_a_body_that_is_too_large_is_answered_and_the_connection_lives_on(tmp_path: Path) -> None:
    """A client that is still sending must hear the refusal, not a reset."""
    with Server(tmp_path) as server:
        project = Project(server)
        data, headers = project.webhook("a" * 40, "d-1")
        big = b" " * (26 * MIB)
        with httpx.Client(timeout=60) as client:
            webhook = client.post(f"{server.url}/api/v1/webhooks/git", content=big, headers=headers)
            api = client.post(
                f"{server.url}/api/v1/runs", content=b" " * (2 * MIB), headers={"Authorization": "Bearer x"}
            )
            chunked = client.post(f"{server.url}/api/v1/webhooks/git", content=iter([b" " * MIB] * 27), headers=headers)
            healthy = client.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers)

    assert [answer.status_code for answer in (webhook, api, chunked, healthy)] == [413, 401, 413, 202]
    assert webhook.json()["error"]["code"] == "too_large"


def github(server: Server, event: str, body: Any, delivery: str, *, secret: str = SECRET) -> httpx.Response:
    data = json.dumps(body).encode()
    headers = {
        "Content-Type": "application/json",
        "X-GitHub-Event": event,
        "X-GitHub-Delivery": delivery,
        "X-Hub-Signature-256": signature(secret, data),
    }
    return httpx.post(f"{server.url}/api/v1/webhooks/github", content=data, headers=headers, timeout=30)


def test_signed_webhooks_of_github_are_executed(tmp_path: Path) -> None:
    """A push and a pull request of the same commit; a forged one is nothing."""
    with Server(tmp_path) as server:
        project = Project(server)
        base = project.commit({"README": "x"})
        head = project.commit(
            {"deltaci.yaml": json.dumps({"version": 1, "jobs": {"a": {"steps": [step("echo $DELTACI_REF")]}}})}
        )
        git("push", "--quiet", str(project.bare), "HEAD:refs/pull/7/head", "HEAD:refs/heads/topic", cwd=project.work)
        secret_file = tmp_path / "github-secret"
        secret_file.write_text(SECRET)
        told = server.cli(
            *("repo", "add", "acme/shop", "--forge", "github"),
            *("--url", str(project.bare), "--secret-file", str(secret_file)),
        )
        repository = {"full_name": "acme/shop"}
        push = {"repository": repository, "ref": "refs/heads/topic", "before": base, "after": head}
        sides = {
            "head": {"sha": head, "ref": "topic", "repo": repository},
            "base": {"sha": base, "ref": "main", "repo": repository},
        }
        pull = {"repository": repository, "action": "opened", "number": 7, "pull_request": sides}
        with RunnerProcess(server):
            forged = github(server, "push", push, "g-0", secret="x" * 20)
            pushed = server.run_until(github(server, "push", push, "g-1").json()["run_id"])
            pulled = server.run_until(github(server, "pull_request", pull, "g-2").json()["run_id"])
            log = server.text_of(pulled["jobs"][0]["id"])
        server.assert_sound()

    assert f"webhook: {server.url}/api/v1/webhooks/github" in told
    assert forged.status_code == 401
    assert (pushed["run"]["state"], pushed["run"]["trigger"]) == ("SUCCEEDED", "push")
    assert (pulled["run"]["state"], pulled["run"]["trigger"]) == ("SUCCEEDED", "pull_request")
    assert "refs/pull/7/head" in log
