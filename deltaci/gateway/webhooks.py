"""Where a webhook enters: check the signature over the raw bytes, ask the repository, answer what is on disk."""

import hashlib

from loguru import logger
from quart import Blueprint, Response, current_app, request

from deltaci.domain.errors import NotFound, ProtocolError
from deltaci.domain.events import Cause
from deltaci.domain.repo import Repo
from deltaci.forge.webhook import Received, Webhook
from deltaci.gateway import answers
from deltaci.gateway.house import House, raw_body
from deltaci.orchestrator.messages import Admit
from deltaci.store.port import Audit

bp = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks")


@bp.post("/<forge>")
async def receive(forge: str) -> Response:
    """202 `{"run_id", "duplicate"}` or 202 `{"ignored": reason}`, once that is on disk."""
    house: House = current_app.extensions["house"]
    adapter = house.forges.get(forge)
    if adapter is None:
        raise NotFound(f"no forge {forge[:50]!r}: this server knows {', '.join(sorted(house.forges))}")
    webhook = Webhook({name.lower(): value for name, value in request.headers.items()}, await raw_body(request))
    try:
        found = adapter.authenticate(webhook, house.orchestrator.repos.all())
        received = adapter.read(webhook, found)
        repo = _registered(found, received)
    except (ProtocolError, NotFound) as error:
        await _record(house, forge, error)
        raise
    admitted = await house.orchestrator.admit(
        repo.id,
        Admit(
            delivery_id=received.delivery_id,
            body_sha256=hashlib.sha256(webhook.body).hexdigest(),
            event=received.event,
            trigger=received.trigger,
            request=received.request,
            ignored=received.ignored,
            pull_request=received.pull_request,
        ),
    )
    if admitted.run_id is None:
        return answers.ok({"ignored": admitted.ignored}, 202)
    return answers.ok({"run_id": admitted.run_id, "duplicate": admitted.is_duplicate}, 202)


def _registered(repo: Repo | None, received: Received) -> Repo:
    if repo is None:
        raise NotFound(received.ignored or f"the event {received.event} is about no repository that is registered here")
    return repo


async def _record(house: House, forge: str, error: ProtocolError | NotFound) -> None:
    """A webhook that was refused leaves a trace: who sent it, and why it did not count."""
    remote = request.remote_addr or "unknown"
    logger.warning("webhook for {} from {} refused: {}", forge, remote, error)
    audit = Audit(
        at_ms=house.orchestrator.ports.clock.now_ms(),
        cause=Cause("webhook", remote, via=forge),
        type="WebhookRefused",
        details={"code": error.code, "text": str(error)[:500]},
    )
    await house.store.commit((audit,))
