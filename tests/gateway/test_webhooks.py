"""Where a webhook enters: 202 with what it became, the same for each repeat, and only after the signature held."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from quart import Response

from deltaci.forge.webhook import signature
from tests.gateway.support import GITHUB_SECRET, OLD, Gateway, a_push, hook, opened
from tests.orchestrator.support import SHA, a_repo

pytestmark = pytest.mark.anyio


def a_github_repo() -> Any:
    return a_repo(name="acme/shop", forge="github", secret=GITHUB_SECRET, clone_url="https://github.com/acme/shop.git")


async def github(gateway: Gateway, event: str, body: Any, *, delivery: str = "g-1") -> Response:
    data = json.dumps(body).encode()
    headers = {
        "content-type": "application/json",
        "x-github-event": event,
        "x-github-delivery": delivery,
        "x-hub-signature-256": signature(GITHUB_SECRET, data),
    }
    return await gateway.ask("POST", "/api/v1/webhooks/github", token=None, data=data, headers=headers)


async def test_a_push_becomes_a_run(tmp_path: Path) -> None:
    """The main job of the address."""
    async with opened(tmp_path) as gateway:
        response = await gateway.deliver()
        answer = await response.get_json()
        run = await gateway.store.load_run(answer["run_id"])

    assert response.status_code == 202
    assert answer == {"run_id": answer["run_id"], "duplicate": False}
    assert run is not None
    assert (run.key.commit_sha, run.trigger.base_sha) == (SHA, OLD)


async def test_the_same_delivery_many_times_at_once_gets_one_answer(tmp_path: Path) -> None:
    """A forge that did not hear the answer asks again; it must not matter how often or how close together."""
    answers: list[tuple[int, bytes]] = []
    async with opened(tmp_path) as gateway:

        async def deliver() -> None:
            response = await gateway.deliver()
            answers.append((response.status_code, await response.get_data(as_text=False)))

        async with anyio.create_task_group() as tasks:
            for _ in range(50):
                tasks.start_soon(deliver)
        runs = await gateway.store.list_runs()

    assert len(answers) == 50
    assert len(set(answers)) == 1
    assert len(runs) == 1


async def test_known_content_under_a_new_delivery_id_is_a_duplicate(tmp_path: Path) -> None:
    """What counts is what was pushed, not how often somebody told of it."""
    async with opened(tmp_path) as gateway:
        first = await (await gateway.deliver()).get_json()
        second = await (await gateway.deliver(x_deltaci_delivery="d-2")).get_json()
        again = await (await gateway.deliver(x_deltaci_delivery="d-2")).get_json()

    assert second == {"run_id": first["run_id"], "duplicate": True}
    assert again == second


async def test_a_delivery_id_with_another_body_is_refused(tmp_path: Path) -> None:
    """One id, one meaning: an id that is used again would hide one of the two."""
    async with opened(tmp_path) as gateway:
        await gateway.deliver()
        response = await gateway.deliver(a_push(after="c" * 40))

    assert response.status_code == 409
    assert (await response.get_json())["error"]["code"] == "delivery_reused"


async def test_what_starts_nothing_says_why(tmp_path: Path) -> None:
    """Every webhook that is accepted has a run or a reason why not; it is kept, and told again."""
    async with opened(tmp_path) as gateway:
        odd = await gateway.deliver(a_push(ref="refs/changes/1"))
        note = await gateway.deliver(a_push(ref="refs/notes/commits"), x_deltaci_delivery="d-2")
        again = await gateway.deliver(a_push(ref="refs/notes/commits"), x_deltaci_delivery="d-2")
        other = await gateway.deliver(x_deltaci_event="pong", x_deltaci_delivery="d-3")

    assert [one.status_code for one in (odd, note, again, other)] == [202] * 4
    assert await odd.get_json() == {"ignored": "refs/changes/1 is neither a branch nor a tag"}
    assert await note.get_json() == {"ignored": "refs/notes/commits is neither a branch nor a tag"}
    assert await again.get_data(as_text=False) == await note.get_data(as_text=False)
    assert await other.get_json() == {"ignored": "the event pong starts no run"}


async def test_github_pushes_and_pull_requests_become_runs(tmp_path: Path) -> None:
    """Two kinds of trigger of the same commit are two runs."""
    repository = {"full_name": "acme/shop"}
    push = {"repository": repository, "ref": "refs/heads/main", "before": OLD, "after": SHA}
    base = {"sha": OLD, "ref": "main", "repo": repository}
    sides = {"head": {"sha": SHA, "ref": "cart", "repo": repository}, "base": base}
    pull = {"repository": repository, "action": "opened", "number": 7, "pull_request": sides}
    async with opened(tmp_path, repo=a_github_repo()) as gateway:
        pushed = await (await github(gateway, "push", push)).get_json()
        pulled = await (await github(gateway, "pull_request", pull, delivery="g-2")).get_json()
        ping = await github(gateway, "ping", {"repository": repository, "zen": "x"}, delivery="g-3")
        run = await gateway.store.load_run(pulled["run_id"])

    assert pushed["run_id"] != pulled["run_id"]
    assert run is not None
    assert (run.key.trigger_type, run.key.pr_number) == ("pull_request", 7)
    assert (ping.status_code, await ping.get_json()) == (202, {"ignored": "ping"})


async def test_a_refused_webhook_leaves_a_trace_and_no_secret(tmp_path: Path) -> None:
    """Somebody tries signatures: the journal tells from where, and never what the right one would have been."""
    async with opened(tmp_path) as gateway:
        await gateway.deliver(x_deltaci_signature="sha256=" + "0" * 64)
        (audit,) = [entry async for entry in gateway.store.journal() if entry.type == "WebhookRefused"]

    assert audit.cause.kind == "webhook"
    assert audit.cause.via == "git"
    assert b"bad_signature" in audit.data
    assert signature("s" * 20, a_push()).encode() not in audit.data


async def test_the_signature_is_checked_before_the_body_is_read(tmp_path: Path) -> None:
    """Whoever cannot sign learns nothing: bad JSON and good JSON are refused alike."""
    async with opened(tmp_path) as gateway:
        bodies = [b"{", b"", b"\xff", a_push(repository="nobody's"), a_push()]
        answers = set()
        for body in bodies:
            headers = {**hook(body), "x-deltaci-signature": "sha256=" + "0" * 64}
            response = await gateway.ask("POST", "/api/v1/webhooks/git", token=None, data=body, headers=headers)
            answers.add((response.status_code, await response.get_data(as_text=False)))

    assert {status for status, _ in answers} == {401}
    assert len(answers) == 1
