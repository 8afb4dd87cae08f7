"""What those who run the server look at: the actor tree, tokens, runners, metrics, health."""

from pathlib import Path
from unittest.mock import AsyncMock

import pytest
from prometheus_client.parser import text_string_to_metric_families

from deltaci.domain.errors import StoreUnavailable
from deltaci.domain.ids import hashed
from protocol import messages as wire
from tests.gateway.support import ADMIN, Gateway, error_of, fence, opened

pytestmark = pytest.mark.anyio


async def test_the_tree_shows_every_actor_that_lives(tmp_path: Path) -> None:
    """What hangs can be seen without stopping anything."""
    async with opened(tmp_path) as gateway:
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        await gateway.stage.run_until(run_id, "QUEUED")
        view = await gateway.get("/api/v1/admin/actors")

    found = {}
    waiting = [view["tree"]]
    while waiting:
        node = waiting.pop()
        found[node["path"]] = node
        waiting.extend(node["children"])
    assert {"/orchestrator/dispatch", "/orchestrator/outbox", "/orchestrator/timers"} <= set(found)
    assert found[f"/orchestrator/runs/{run_id}"]["state"] == "QUEUED"
    assert {"mailbox_depth", "mailbox_high_water", "handled", "restarts", "last_crash", "age_s"} <= set(view["tree"])
    assert set(view["dead_letters"]) == {"total", "newest"}


async def test_nothing_to_release_is_404(tmp_path: Path) -> None:
    """A path that was typed wrong must not look like a success."""
    async with opened(tmp_path) as gateway:
        response = await gateway.ask("POST", "/api/v1/admin/actors/release", body={"path": "/orchestrator/nowhere"})

    assert response.status_code == 404
    assert "deltaci actors" in (await error_of(response))["message"]


async def test_a_runner_token_is_shown_once_and_works(tmp_path: Path) -> None:
    """Only its hash is kept; who made it is."""
    async with opened(tmp_path) as gateway:
        made = await gateway.post("/api/v1/admin/runner-tokens", {"label": "ci-1"})
        runner_id = await gateway.register(token=made["token"])
        token = await gateway.store.token(hashed(made["token"]))
        (audit,) = [entry async for entry in gateway.store.journal() if entry.type == "RunnerTokenCreated"]

    assert set(made) == {"id", "token"}
    assert runner_id.startswith("rnr_")
    assert token is not None
    assert (token.scope, token.label) == ("runner", "ci-1")
    assert (audit.entity_id, audit.cause.id) == (made["id"], f"tok_{ADMIN}")
    assert made["token"].encode() not in audit.data


async def test_runners_are_listed(tmp_path: Path) -> None:
    """Who could take a job, and when they were heard last."""
    async with opened(tmp_path) as gateway:
        await gateway.told(wire.Register(name="r1", labels=("b", "a", "a"), slots=3, version="1", platform="linux/x"))
        (runner,) = (await gateway.get("/api/v1/runners"))["runners"]

    assert (runner["name"], runner["labels"], runner["slots"]) == ("r1", ["a", "b"], 3)
    assert runner["is_online"]
    assert "token" not in "".join(runner)


async def test_metrics_can_be_scraped(tmp_path: Path) -> None:
    """The official parser reads them; labels are kinds, never ids."""
    async with opened(tmp_path) as gateway:
        await gateway.deliver()
        runner_id = await gateway.register()
        lease = await gateway.lease(runner_id)
        await gateway.told(wire.Complete(**fence(lease), exit_code=0), runner_id=runner_id)
        await gateway.stage.run_until(lease.run_id, "SUCCEEDED")
        response = await gateway.ask("GET", "/metrics")
        text = await response.get_data(as_text=True)

    families = {family.name: family for family in text_string_to_metric_families(text)}
    rows = {(s.labels["table"], s.labels["state"]): s.value for s in families["deltaci_rows"].samples}
    assert (response.content_type or "").startswith("text/plain; version=0.0.4")
    assert rows["run", "SUCCEEDED"] == rows["job", "SUCCEEDED"] == 1
    assert families["deltaci_runners_online"].samples[0].value == 1
    assert lease.run_id not in text
    assert runner_id not in text


async def test_health_needs_no_token(tmp_path: Path) -> None:
    """A load balancer has none."""
    async with opened(tmp_path) as gateway:
        answers = [await gateway.get("/healthz", token=None), await gateway.get("/readyz", token=None)]

    assert answers == [{"status": "ok"}, {"status": "ready"}]


async def not_ready(gateway: Gateway) -> tuple[int, str, str | None, int]:
    ready = await gateway.ask("GET", "/readyz", token=None)
    alive = await gateway.ask("GET", "/healthz", token=None)
    return ready.status_code, (await error_of(ready))["code"], ready.headers.get("Retry-After"), alive.status_code


async def test_a_server_that_drains_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Nothing new is sent to it, and nobody kills it for that."""
    async with opened(tmp_path) as gateway:
        gateway.house.drain()
        told = await not_ready(gateway)

    assert told == (503, "draining", "1", 200)


async def test_a_server_whose_store_does_not_answer_is_alive_and_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its store it can promise nothing."""
    async with opened(tmp_path, reconcile_every_ms=60_000) as gateway:
        monkeypatch.setattr(gateway.store, "counts", AsyncMock(side_effect=StoreUnavailable()))
        told = await not_ready(gateway)
        monkeypatch.undo()

    assert told == (503, "store", "1", 200)
