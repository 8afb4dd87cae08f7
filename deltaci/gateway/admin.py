"""For those who run the server: the actor tree, tokens, runners, metrics, health."""

from typing import Any

import msgspec
from quart import Blueprint, Response, current_app, request

from actors import Node
from deltaci.domain.errors import DeltaError, MalformedRequest, NotFound
from deltaci.domain.ids import RANDOM_BYTES, hashed, new_id
from deltaci.gateway import answers
from deltaci.gateway.auth import authenticate, user
from deltaci.gateway.house import House
from deltaci.store.writes import Audit, Token

bp = Blueprint("admin", __name__)


class NewToken(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/v1/admin/runner-tokens`."""

    label: str = ""


def _house() -> House:
    house: House = current_app.extensions["house"]
    return house


async def _admin() -> Token:
    return await authenticate(request, _house().store, "admin")


@bp.get("/api/v1/admin/actors")
async def actors() -> Response:
    """The live actor tree, and what could not be delivered lately."""
    await _admin()
    system = _house().orchestrator.system
    letters = [
        {"path": letter.path, "message": type(letter.message).__name__, "reason": letter.reason}
        for letter in system.dead_letters
    ]
    return answers.ok(
        {"tree": tree_view(system.tree()), "dead_letters": {"total": system.dead_letters.total, "newest": letters}}
    )


@bp.post("/api/v1/admin/actors/release")
async def release() -> Response:
    """Lift the quarantine of the actor at `{"path": ...}`; its next message activates it from its snapshot."""
    token = await _admin()
    try:
        path = msgspec.json.decode(await request.get_data(as_text=False), type=dict[str, str])["path"]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, KeyError) as error:
        raise MalformedRequest('send {"path": "/orchestrator/runs/..."}') from error
    house = _house()
    if not house.orchestrator.system.release(path):
        raise NotFound(f"nothing is quarantined at {path[:200]!r}: see `deltaci actors`")
    now_ms = house.orchestrator.ports.clock.now_ms()
    await house.store.commit((Audit(at_ms=now_ms, cause=user(token), type="QuarantineLifted", details={"path": path}),))
    return answers.ok({"path": path})


@bp.post("/api/v1/admin/runner-tokens")
async def make_runner_token() -> Response:
    """A token for runners, shown once: only its hash is kept."""
    token = await _admin()
    data = await request.get_data(as_text=False) or b"{}"
    try:
        new = msgspec.json.decode(data, type=NewToken)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise MalformedRequest(f'send {{"label": "..."}}: {error}') from error
    house = _house()
    ports = house.orchestrator.ports
    now_ms = ports.clock.now_ms()
    secret = house.make_token()
    made = Token(
        id=new_id("tok", now_ms=now_ms, random=ports.entropy.token_bytes(RANDOM_BYTES)),
        token_hash=hashed(secret),
        scope="runner",
        label=new.label[:200],
        created_at_ms=now_ms,
    )
    audit = Audit(at_ms=now_ms, cause=user(token), type="RunnerTokenCreated", entity_id=made.id)
    await house.store.commit((made, audit))
    return answers.ok({"id": made.id, "token": secret}, 201)


@bp.get("/api/v1/runners")
async def runners() -> Response:
    """Every runner that ever registered, and whether it is online."""
    await _admin()
    house = _house()
    online = {one.runner.id: one for one in house.orchestrator.hub.online()}
    return answers.ok(
        {
            "runners": [
                {
                    "id": runner.id,
                    "name": runner.name,
                    "labels": runner.labels,
                    "slots": runner.slots,
                    "version": runner.version,
                    "platform": runner.platform,
                    "is_online": runner.id in online,
                    "heard_at_ms": online[runner.id].heard_at_ms if runner.id in online else None,
                }
                for runner in await house.store.runners()
            ]
        }
    )


@bp.get("/metrics")
async def metrics() -> Response:
    """Prometheus text format; the scraper sends the admin token."""
    await _admin()
    return Response(await _house().metrics.render(), 200, content_type="text/plain; version=0.0.4; charset=utf-8")


@bp.get("/healthz")
async def healthz() -> Response:
    """The process lives."""
    return answers.ok({"status": "ok"})


@bp.get("/readyz")
async def readyz() -> Response:
    """The store answers and the server is not draining."""
    house = _house()
    if house.draining.is_set():
        return answers.problem(503, "draining", "the server is shutting down", retry_after_ms=1_000)
    try:
        await house.store.counts()
    except DeltaError as error:
        return answers.problem(503, "store", str(error), retry_after_ms=1_000)
    return answers.ok({"status": "ready"})


def tree_view(node: Node) -> dict[str, Any]:
    """A node of the actor tree with all below it."""
    return msgspec.to_builtins(node)  # type: ignore[no-any-return]  # a dataclass becomes a dictionary
