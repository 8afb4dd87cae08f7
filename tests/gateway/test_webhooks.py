"""Where a webhook enters: 202 with what it became, the same for each repeat, and only after the signature held."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from quart import Response
from werkzeug.datastructures import Headers

from deltaci.domain.events import Trigger
from deltaci.domain.requests import AddRepos, EndStream, InstalledRepo
from deltaci.forge.webhook import Received, Webhook, signature
from deltaci.gateway.house import Limits
from deltaci.gateway.refusals import FILLED_AFTER_MS, RECORDS_MAX, TOKEN_MS
from tests.gateway.support import GITHUB_SECRET, OLD, Gateway, a_push, error_of, hook, opened
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


class Asking:
    """A forge whose every webhook asks for the same; `is_ours` false: about no repository of ours."""

    name = "asking"

    def __init__(self, *, is_ours: bool = True, **what: Any) -> None:
        self.is_ours = is_ours
        self.what = what

    def authenticate(self, webhook: Webhook, repos: Any) -> Any:
        return repos[0] if self.is_ours else None

    def read(self, webhook: Webhook, repo: Any) -> Received:
        return Received(delivery_id=webhook.headers["x-delivery"], event="any", **self.what)


async def asked(gateway: Gateway, forge: Asking, delivery: str = "d-1", data: bytes = b"{}") -> Response:
    gateway.house.forges = {"asking": forge}
    headers = {"x-delivery": delivery}
    return await gateway.ask("POST", "/api/v1/webhooks/asking", token=None, data=data, headers=headers)


async def test_a_request_is_accepted_in_words_and_each_repeat_alike(tmp_path: Path) -> None:
    """The answer is about what is on disk, not about what comes of it."""
    ends = Asking(request=EndStream(stream="pr:7", because="pull request 7 was closed"))
    async with opened(tmp_path) as gateway:
        first = await asked(gateway, ends)
        again = await asked(gateway, ends)
        other = await asked(gateway, ends, "d-2")

    words = "end what runs: pull request 7 was closed"
    assert (first.status_code, await first.get_json()) == (202, {"accepted": words, "duplicate": False})
    assert await again.get_data(as_text=False) == await first.get_data(as_text=False)
    assert await other.get_json() == {"accepted": words, "duplicate": True}


async def test_what_is_about_no_repository_is_admitted_beside_them_all(tmp_path: Path) -> None:
    """An installation of an app, say; a run it cannot start."""
    come = AddRepos(installation_id=1, repos=(InstalledRepo(name="acme/new"),))
    trigger = Trigger(kind="push", ref="refs/heads/main", commit_sha=SHA)
    async with opened(tmp_path) as gateway:
        added = await asked(gateway, Asking(is_ours=False, request=come))
        ping = await asked(gateway, Asking(is_ours=False, ignored="ping"), "d-2", b"[]")
        run = await asked(gateway, Asking(is_ours=False, trigger=trigger), "d-3")
        rows = await gateway.store.newest_deliveries(repo_id="")

    assert await added.get_json() == {"accepted": "register acme/new", "duplicate": False}
    assert await ping.get_json() == {"ignored": "ping"}
    assert (run.status_code, (await error_of(run))["code"]) == (400, "malformed")
    assert [row.delivery.delivery_id for row in rows] == ["d-2", "d-1"]


async def audited(gateway: Gateway) -> list[tuple[str, Any]]:
    """What was written down of refused webhooks: its type, and code or count."""
    found = []
    async for entry in gateway.store.journal():
        if entry.type in ("WebhookRefused", "WebhooksTurnedAway"):
            details = json.loads(entry.data)
            found.append((entry.type, details.get("code") or details["count"]))
    return found


async def test_whatever_is_refused_gets_its_4xx_and_leaves_a_record(tmp_path: Path) -> None:
    """Forged, sent again with another body, cut short and signed, cut short under way, too large."""
    async with opened(tmp_path, limits=Limits(webhook_bytes_max=25 * 1024 * 1024)) as gateway:
        await gateway.deliver()
        refused = [
            await gateway.deliver(x_deltaci_signature="sha256=" + "0" * 64, x_deltaci_delivery="d-2"),
            await gateway.deliver(a_push(after="c" * 40)),
            await gateway.deliver(a_push()[:-9], x_deltaci_delivery="d-3"),
            await gateway.deliver(a_push()[:-9], x_deltaci_delivery="d-3", x_deltaci_signature=signed(a_push())),
            await gateway.deliver(bytes(26 * 1024 * 1024), x_deltaci_delivery="d-4"),
        ]
        records = await audited(gateway)
        runs = await gateway.store.list_runs()

    codes = ["bad_signature", "delivery_reused", "malformed", "bad_signature", "too_large"]
    assert [response.status_code for response in refused] == [401, 409, 400, 401, 413]
    assert records == [("WebhookRefused", code) for code in codes]
    assert len(runs) == 1


def signed(data: bytes) -> str:
    return hook(data)["x-deltaci-signature"]


async def test_a_body_that_does_not_come_to_its_end_is_answered_and_recorded(tmp_path: Path) -> None:
    """The line went dead in the middle of it."""
    data = a_push()
    headers = {**hook(data), "content-length": str(len(data))}
    async with opened(tmp_path, limits=Limits(body_timeout_s=1)) as gateway:
        client = gateway.app.test_client()
        async with client.request("/api/v1/webhooks/git", method="POST", headers=Headers(headers)) as connection:
            await connection.send(data[:20])
            with anyio.fail_after(10):
                await connection._task
            status = connection.status_code
        records = await audited(gateway)

    assert (status, records) == (408, [("WebhookRefused", "request_timeout")])


async def test_a_stranger_cannot_fill_the_disk(tmp_path: Path) -> None:
    """So many records a minute, then 429 before anything is computed; one record says how many more there were."""
    async with opened(tmp_path) as gateway:
        forged = {"x_deltaci_signature": "sha256=" + "0" * 64}
        answers = [(await gateway.deliver(**forged)).status_code for _ in range(RECORDS_MAX)]
        turned = [await gateway.deliver(**forged), await gateway.deliver(x_deltaci_delivery="good")]
        before = len(await audited(gateway))
        gateway.stage.clock.advance(TOKEN_MS)
        one_more = await gateway.deliver(x_deltaci_delivery="good")
        gateway.stage.clock.advance(FILLED_AFTER_MS)
        await gateway.deliver(x_deltaci_delivery="later")
        records = await audited(gateway)

    assert answers == [401] * RECORDS_MAX
    assert [response.status_code for response in turned] == [429, 429]
    assert turned[0].headers["Retry-After"] == "2"
    assert before == RECORDS_MAX
    assert one_more.status_code == 202
    assert records[-1] == ("WebhooksTurnedAway", "2")
    assert len(records) == RECORDS_MAX + 1
