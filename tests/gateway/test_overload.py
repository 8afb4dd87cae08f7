"""Overload and crashes as a client sees them: 503 and when to come back, never 500, and nobody else suffers."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from quart import Response

from deltaci.domain.errors import StoreUnavailable
from deltaci.orchestrator.paths import repo_path
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.gateway.support import Gateway, a_push, error_of, fence, opened

pytestmark = pytest.mark.anyio


class Moody(MemoryStore):
    """A store that can be told to fail, or to keep commits waiting."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Exception] = []
        self.gate: anyio.Event | None = None

    async def commit(self, writes: Any) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.failures and any(type(write).__name__ == "Delivery" for write in writes):
            raise self.failures.pop(0)
        await super().commit(writes)


async def deliver(gateway: Gateway, number: int) -> Response:
    return await gateway.deliver(a_push(after=f"{number + 1:040x}"), x_deltaci_delivery=f"d-{number}")


async def test_a_full_mailbox_is_503_and_says_when_to_come_back(tmp_path: Path) -> None:
    """Bounded memory: what has no room is refused at once, and what was accepted is done."""
    store = Moody()
    answers: list[tuple[int, str | None, str]] = []
    async with opened(tmp_path, store=store, mailbox_size=3) as gateway:

        async def one(number: int) -> None:
            response = await deliver(gateway, number)
            body = await response.get_json()
            code = body["error"]["code"] if "error" in body else ""
            answers.append((response.status_code, response.headers.get("Retry-After"), code))

        store.gate = anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(20):
                    tasks.start_soon(one, number)
                while len(answers) < 10:  # noqa: ASYNC110 - answers come, and nothing tells of each
                    await anyio.sleep(0.005)
                store.gate.set()
                store.gate = None
        runs = await gateway.store.list_runs()

    accepted = [answer for answer in answers if answer[0] == 202]
    refused = [answer for answer in answers if answer[0] != 202]
    assert set(refused) == {(503, "1", "overloaded")}
    assert len(refused) >= 10
    assert len(runs) == len(accepted) >= 3


async def test_a_crash_is_503_and_the_next_request_is_served(tmp_path: Path) -> None:
    """The actor starts again from what is stored; the sender asks again with the same delivery."""
    store = Moody()
    async with opened(tmp_path, store=store) as gateway:
        store.failures = [RuntimeError("a bug")]
        crashed = await gateway.deliver()
        again = await gateway.deliver()
        runs = await gateway.store.list_runs()

    assert (crashed.status_code, crashed.headers["Retry-After"]) == (503, "1")
    assert (await error_of(crashed))["code"] == "crashed"
    assert again.status_code == 202
    assert len(runs) == 1


async def test_a_store_that_does_not_answer_is_503(tmp_path: Path) -> None:
    """It is unknown what was stored; the same delivery asks again."""
    store = Moody()
    async with opened(tmp_path, store=store) as gateway:
        store.failures = [StoreUnavailable()]
        refused = await gateway.deliver()
        again = await gateway.deliver()

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert again.status_code == 202


async def test_a_quarantined_repository_is_503_until_it_is_released(tmp_path: Path) -> None:
    """What crashes again and again takes no more messages until somebody looked; all others go on."""
    store = Moody()
    async with opened(tmp_path, store=store) as gateway:
        other = {"name": "lib", "forge": "git", "clone_url": "file:///srv/lib.git", "secret": "t" * 16}
        await gateway.post("/api/v1/repos", other)
        store.failures = [RuntimeError("a bug")] * 10
        for number in range(10):
            quarantined = await deliver(gateway, number)
            if (await error_of(quarantined))["code"] == "quarantined":
                break
        store.failures = []
        still = await gateway.deliver()
        neighbour = await gateway.post("/api/v1/runs", {"repo": "lib", "commit_sha": "e" * 40})
        path = repo_path(gateway.stage.repo.id)
        released = await gateway.post("/api/v1/admin/actors/release", {"path": path}, status=200)
        served = await gateway.deliver()
        audits = [entry.type async for entry in gateway.store.journal()]

    assert quarantined.status_code == still.status_code == 503
    assert (await error_of(still))["code"] == "quarantined"
    assert neighbour["run_id"]
    assert released == {"path": path}
    assert served.status_code == 202
    assert "QuarantineLifted" in audits


async def test_cancel_and_result_get_through_when_heartbeats_fill_the_mailbox(tmp_path: Path) -> None:
    """They overtake: overload by what can be lost must not keep out what cannot."""
    store = Moody()
    async with opened(tmp_path, store=store, mailbox_size=2) as gateway:
        await gateway.deliver()
        runner_id = await gateway.register()
        lease = await gateway.lease(runner_id)
        statuses: list[int] = []
        results: list[int] = []

        async def log(number: int) -> None:
            message = wire.AppendLog(**fence(lease), offset=number, data=b"x")
            statuses.append((await gateway.say(message, runner_id=runner_id)).status_code)

        async def complete() -> None:
            response = await gateway.say(wire.Complete(**fence(lease), exit_code=0), runner_id=runner_id)
            results.append(response.status_code)

        store.gate = anyio.Event()
        with anyio.fail_after(20):
            async with anyio.create_task_group() as tasks:
                for number in range(10):
                    tasks.start_soon(log, number)
                while statuses.count(503) < 5:  # noqa: ASYNC110 - answers come, and nothing tells of each
                    await anyio.sleep(0.005)
                tasks.start_soon(complete)
                await anyio.sleep(0.01)
                store.gate.set()
                store.gate = None
        run = await gateway.stage.run_until(lease.run_id, "SUCCEEDED")

    assert results == [200]
    assert run.state == "SUCCEEDED"


async def test_a_bug_is_500_without_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A traceback could show a secret; the log has it."""
    async with opened(tmp_path) as gateway:
        monkeypatch.setattr(gateway.house.orchestrator, "run", None)
        response = await gateway.ask("GET", "/api/v1/runs/run_1")

    assert response.status_code == 500
    assert await error_of(response) == {
        "code": "internal",
        "message": "a bug of ours; it is in the server's log",
        "details": {},
    }
