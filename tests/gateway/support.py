"""The whole house behind Quart's test client: real routes, real actors, a store in memory; only the wire is missing."""

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
from quart import Quart, Response
from quart.testing.connections import TestWebsocketConnection as Socket

from actors import Observer as ActorObserver
from deltaci.domain.ids import hashed
from deltaci.domain.plan import PlannedJob
from deltaci.domain.repo import Repo
from deltaci.forge.git import PlainGit
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.webhook import signature
from deltaci.gateway.app import create_app
from deltaci.gateway.house import House, Limits
from deltaci.metrics import Telemetry
from deltaci.store.artifacts import ArtifactFiles
from deltaci.store.memory import MemoryStore
from deltaci.store.port import Store
from deltaci.store.writes import Token
from protocol import messages as wire
from protocol.codec import MSGPACK_TYPE, decode_answer_frame, decode_server_body, encode_body, encode_frame
from tests.orchestrator.support import SHA, Stage, a_job, staged

ADMIN = "dci_admin"
RUNNER = "dci_runner"
OTHER_RUNNER = "dci_other_runner"
SECRET = "s" * 20
GITHUB_SECRET = "g" * 20
OLD = "b" * 40

VERBS = {
    wire.Register: "register",
    wire.Lease: "lease",
    wire.AckLease: "ack",
    wire.AskCredential: "credential",
    wire.Heartbeat: "heartbeat",
    wire.AppendLog: "log",
    wire.Complete: "complete",
    wire.CancelAck: "cancel-ack",
}


class Gateway(msgspec.Struct):
    """The application with everything behind it."""

    app: Quart
    house: House
    stage: Stage
    store: Store

    async def ask(
        self,
        method: str,
        path: str,
        *,
        token: str | None = ADMIN,
        body: Any = None,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """One request; `body` goes as JSON."""
        sent = {"Authorization": f"Bearer {token}"} if token is not None else {}
        if body is not None:
            data = json.dumps(body).encode()
            sent["Content-Type"] = "application/json"
        response = await self.app.test_client().open(
            path, method=method, data=data, headers={**sent, **(headers or {})}
        )
        assert isinstance(response, Response)
        return response

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a GET that must succeed."""
        response = await self.ask("GET", path, **options)
        assert response.status_code == 200, await response.get_data(as_text=True)
        return await response.get_json()

    async def post(self, path: str, body: Any = None, *, status: int = 201, **options: Any) -> Any:
        """The JSON of a POST that must answer `status`."""
        response = await self.ask("POST", path, body=body, **options)
        assert response.status_code == status, await response.get_data(as_text=True)
        return await response.get_json()

    async def deliver(self, body: bytes | None = None, **headers: str) -> Response:
        """A webhook of the `git` forge, signed."""
        data = a_push() if body is None else body
        return await self.ask("POST", "/api/v1/webhooks/git", token=None, data=data, headers=hook(data, **headers))

    # ---- a runner over HTTP --------------------------------------------------------------------------------------

    async def say(
        self,
        message: wire.RunnerMessage,
        *,
        runner_id: str = "",
        token: str = RUNNER,
        content_type: str = MSGPACK_TYPE,
        accept: str | None = None,
    ) -> Response:
        """One message of the runner protocol."""
        headers = {"Content-Type": content_type, "Accept": accept or content_type, "X-Deltaci-Runner": runner_id}
        data = encode_body(message, content_type)
        return await self.ask("POST", f"/api/v1/runner/{VERBS[type(message)]}", token=token, data=data, headers=headers)

    async def told(self, message: wire.RunnerMessage, **options: Any) -> wire.ServerMessage:
        """The server's message."""
        response = await self.say(message, **options)
        content_type = response.content_type or ""
        return decode_server_body(await response.get_data(as_text=False), content_type)

    async def register(self, name: str = "r1", *, token: str = RUNNER) -> str:
        """A runner's id."""
        answer = await self.told(wire.Register(name=name), token=token)
        assert isinstance(answer, wire.Registered)
        return answer.runner_id

    async def lease(self, runner_id: str) -> wire.LeaseGranted:
        """One granted and acknowledged lease."""
        answer = await self.told(wire.Lease(runner_id=runner_id, wait_ms=5_000))
        assert isinstance(answer, wire.Leases)
        (lease,) = answer.leases
        acked = await self.told(wire.AckLease(**fence(lease)), runner_id=runner_id)
        assert isinstance(acked, wire.LeaseAcked)
        return lease

    async def put_artifact(
        self,
        runner_id: str,
        lease: wire.LeaseGranted,
        name: str,
        data: bytes,
        *,
        sha256: str | None = None,
        lease_id: str | None = None,
        token: str = RUNNER,
    ) -> Response:
        """Upload an artifact of the attempt."""
        headers = {
            "Content-Type": "application/octet-stream",
            "X-Deltaci-Runner": runner_id,
            "X-Deltaci-Lease": lease.lease_id if lease_id is None else lease_id,
            "X-Deltaci-Sha256": hashlib.sha256(data).hexdigest() if sha256 is None else sha256,
        }
        path = f"/api/v1/runner/artifacts/{lease.job_id}/{lease.attempt}/{name}"
        return await self.ask("PUT", path, token=token, data=data, headers=headers)

    @asynccontextmanager
    async def channel(self, *, token: str | None = RUNNER) -> AsyncIterator[Socket]:
        """An open WebSocket; nothing is sent yet."""
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        with anyio.fail_after(20):
            async with self.app.test_client().websocket("/api/v1/runner/channel", headers=headers) as socket:
                yield socket


async def call(socket: Socket, number: int, message: wire.RunnerMessage) -> wire.ServerMessage:
    """One frame, and the answer to it, which must be the next frame but for pushes."""
    await socket.send(encode_frame(wire.Request(number, message)))
    answer = decode_answer_frame(await socket.receive())
    while answer.id == 0:
        answer = decode_answer_frame(await socket.receive())
    assert answer.id == number, answer
    return answer.body


def fence(lease: wire.LeaseGranted) -> dict[str, Any]:
    """The fields that prove the right to speak about an attempt."""
    return {"lease_id": lease.lease_id, "job_id": lease.job_id, "attempt": lease.attempt}


def a_push(**fields: Any) -> bytes:
    """What the post-receive hook posts."""
    defaults = {
        "repository": "shop",
        "ref": "refs/heads/main",
        "before": OLD,
        "after": SHA,
        "author": "a",
        "title": "t",
    }
    return json.dumps({**defaults, **fields}).encode()


def hook(data: bytes, **headers: str) -> dict[str, str]:
    """The headers of the post-receive hook, signed; `x_y="..."` overrides `X-Y`."""
    defaults = {
        "content-type": "application/json",
        "x-deltaci-repo": "shop",
        "x-deltaci-event": "push",
        "x-deltaci-delivery": "d-1",
        "x-deltaci-signature": signature(SECRET, data),
    }
    return {**defaults, **{name.replace("_", "-"): value for name, value in headers.items()}}


async def error_of(response: Response) -> dict[str, Any]:
    """The structured error; asserts the shape that every error has."""
    body = await response.get_json()
    assert isinstance(body, dict), body
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"code", "message", "details"}
    assert isinstance(error["code"], str)
    assert isinstance(error["details"], dict)
    assert error["message"]
    return dict(error)


async def fingerprint(store: Store) -> Any:
    """Everything that a refused request must leave as it is; audit records may be added."""
    counts = {table: states for table, states in (await store.counts()).items() if table != "journal"}
    events = [entry async for entry in store.journal() if entry.sequence is not None]
    runs = await store.list_runs(limit=500)
    logs = [await store.log_state(job.id, 1) for one in runs for job in await store.jobs_of_run(one.run.id)]
    artifacts = [await store.artifacts_of_run(one.run.id) for one in runs]
    return counts, events, runs, logs, artifacts, await store.repos(), await store.runners()


@asynccontextmanager
async def opened(
    tmp_path: Path,
    *jobs: PlannedJob,
    store: Store | None = None,
    repo: Repo | None = None,
    limits: Limits | None = None,
    actor_observer: ActorObserver | None = None,
    **policy: Any,
) -> AsyncIterator[Gateway]:
    """The house with one repository, one admin token and two runner tokens."""
    store = store or MemoryStore()
    for secret, scope in ((ADMIN, "admin"), (RUNNER, "runner"), (OTHER_RUNNER, "runner")):
        if await store.token(hashed(secret)) is None:
            token = Token(id=f"tok_{secret}", token_hash=hashed(secret), scope=scope, label=secret, created_at_ms=1)  # type: ignore[arg-type]
            await store.commit((token,))
    telemetry = Telemetry()
    async with staged(store, *(jobs or (a_job(),)), repo=repo, actor_observer=actor_observer, **policy) as stage:
        telemetry.store, telemetry.hub, telemetry.system = store, stage.orchestrator.hub, stage.orchestrator.system
        house = House(
            orchestrator=stage.orchestrator,
            store=store,
            forges={"git": PlainGit(), "github": GitHub()},
            artifacts=ArtifactFiles(tmp_path / "artifacts"),
            metrics=telemetry,
            limits=limits or Limits(),
            make_token=lambda: "dci_made_by_test",
            draining=anyio.Event(),
        )
        yield Gateway(create_app(house), house, stage, store)
