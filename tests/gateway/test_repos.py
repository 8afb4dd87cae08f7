"""Repositories over the API: what can be changed, what is never shown, what a removal leaves."""

import json
from pathlib import Path
from typing import Any

import pytest

from deltaci.domain.requests import EndStream
from deltaci.orchestrator.messages import Admit
from tests.gateway.support import SECRET, Gateway, error_of, opened

pytestmark = pytest.mark.anyio

NEW = "n" * 20


async def patched(gateway: Gateway, body: Any, *, name: str = "shop", status: int = 200) -> Any:
    response = await gateway.ask("PATCH", f"/api/v1/repos/{name}", body=body)
    assert response.status_code == status, await response.get_data(as_text=True)
    return (await response.get_json()).get("repo")


async def test_settings_are_changed_one_by_one_and_audited(tmp_path: Path) -> None:
    """What is not named stays; the change counts at once, and after a restart."""
    async with opened(tmp_path) as gateway:
        changes = {"is_one_run_a_commit": True, "watched": ["release/*"], "running_max": 3, "approval": "forks"}
        view = await patched(gateway, {**changes, "clone_url": "https://me:pw@host/shop.git"})
        renamed = await patched(gateway, {"name": "team/shop"})
        stored = await gateway.store.load_repo("repo_1")
        audits = [json.loads(one.data) async for one in gateway.store.journal() if one.type == "RepoChanged"]

        assert {name: view[name] for name in changes} == changes
        assert gateway.house.orchestrator.repos.all() == (stored,)
        assert (await gateway.get("/api/v1/repos/team/shop"))["repo"] == renamed
        assert (renamed["id"], renamed["running_max"], stored.revision) == ("repo_1", 3, 3)  # type: ignore[union-attr]
        assert audits[0]["clone_url"] == "https://host/shop.git"
        assert (audits[0]["watched"], audits[1]["name"]) == ("release/*", "team/shop")


async def test_a_secret_changes_in_three_steps_and_is_never_told(tmp_path: Path) -> None:
    """Here, at the forge, here: the old one is valid until it is dropped."""
    async with opened(tmp_path) as gateway:
        first = await patched(gateway, {"secret": NEW, "api_token": "t" * 30})
        both = await gateway.store.load_repo("repo_1")
        same = await patched(gateway, {"secret": NEW})
        kept = await gateway.store.load_repo("repo_1")
        await patched(gateway, {"drop_previous_secret": True})
        dropped = await gateway.store.load_repo("repo_1")
        journal = b"".join([one.data async for one in gateway.store.journal()])

        assert both is not None
        assert kept is not None
        assert dropped is not None
        assert (both.secret, both.previous_secret) == (NEW, SECRET)
        assert kept.previous_secret == SECRET
        assert (dropped.secret, dropped.previous_secret) == (NEW, "")
        assert (first["has_previous_secret"], first["has_api_token"]) == (True, True)
        told = json.dumps([first, same]).encode() + journal
        assert not any(secret in told for secret in (NEW.encode(), SECRET.encode(), b"t" * 30))


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 400),
        ({"secret": "short"}, 400),
        ({"approval": "maybe"}, 400),
        ({"forge": "gitlab"}, 400),
        ({"is_removed": True}, 400),
        ({"name": "a b"}, 400),
        ({"watched": [""]}, 400),
        ({"name": "Other"}, 409),
    ],
)
async def test_a_wrong_change_is_refused_whole(tmp_path: Path, body: Any, status: int) -> None:
    """With a sentence about it; nothing is stored."""
    async with opened(tmp_path) as gateway:
        other = {"name": "other", "forge": "git", "clone_url": "file:///x", "secret": NEW}
        await gateway.post("/api/v1/repos", other)
        before = await gateway.store.repos()
        response = await gateway.ask("PATCH", "/api/v1/repos/shop", body=body)

        assert response.status_code == status
        assert (await error_of(response))["message"]
        assert await gateway.store.repos() == before
        assert (await gateway.ask("PATCH", "/api/v1/repos/nobody", body=body)).status_code == 404


async def test_a_removed_repository_keeps_its_history_and_comes_back(tmp_path: Path) -> None:
    """What ran is canceled; its name stays its own, and registering it again says how to take it back."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        for _ in range(2):
            response = await gateway.ask("DELETE", "/api/v1/repos/shop")
            assert (await response.get_json())["repo"]["removed_because"] == "somebody removed it"
        await gateway.stage.run_until(run_id, "CANCELED")
        late = await (await gateway.deliver(x_deltaci_delivery="d-2")).get_json()
        body = {"name": "shop", "forge": "git", "clone_url": "file:///x", "secret": NEW}
        taken = await gateway.post("/api/v1/repos", body, status=409)
        back = await patched(gateway, {"is_removed": False})

        assert late == {"ignored": "the repository was removed: somebody removed it"}
        assert "--bring-back" in taken["error"]["message"]
        assert back["removed_because"] is None
        assert len((await gateway.get("/api/v1/runs"))["runs"]) == 1
        audits = [one.type async for one in gateway.store.journal() if one.type.startswith("Repo")]
        assert audits == ["RepoAdded", "RepoRemoved", "RepoChanged"]


async def test_the_ledger_is_listed_in_pages_and_replayed(tmp_path: Path) -> None:
    """A request is owed once more; a run and an ignored webhook are told as they are."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        await gateway.deliver(x_deltaci_delivery="d-2")
        await gateway.deliver(x_deltaci_delivery="d-3", x_deltaci_event="pong")
        ends = EndStream(stream="pr:7", because="pull request 7 was closed")
        message = Admit(delivery_id="d-4", body_sha256="b", event="pull_request", request=ends)
        await gateway.house.orchestrator.admit("repo_1", message)
        ask = {"repo": "shop", "delivery_id": "d-4"}
        replayed = await gateway.post("/api/v1/deliveries/replay", ask, status=202)
        told = await gateway.post("/api/v1/deliveries/replay", {**ask, "delivery_id": "d-1"}, status=202)
        missing = await gateway.ask("POST", "/api/v1/deliveries/replay", body={**ask, "delivery_id": "x"})
        page = (await gateway.get("/api/v1/deliveries?limit=2&repo=shop"))["deliveries"]
        rest = (await gateway.get(f"/api/v1/deliveries?before={page[-1]['number']}"))["deliveries"]
        none = (await gateway.get("/api/v1/deliveries?repo="))["deliveries"]
        audits = [one.type async for one in gateway.store.journal() if one.type == "DeliveryReplayed"]

    assert [row["fate"] for row in (*page, *rest)] == ["asked", "ignored", "same_run", "run"]
    assert (page[0]["asked"], page[0]["request"]) == ("end what runs: pull request 7 was closed", "EndStream")
    assert (replayed["delivery"]["fate"], told["delivery"]["run_id"]) == ("asked", run_id)
    assert (missing.status_code, none, audits) == (404, [], ["DeliveryReplayed"])
