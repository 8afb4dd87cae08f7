"""Where a webhook enters: check the signature over the raw bytes, ask the repository, answer what is on disk.

Rule: whatever is refused leaves a record of who sent it and why it did not count, up to a bound for each sender.
"""

import hashlib

from loguru import logger
from quart import Blueprint, Response, current_app, request
from werkzeug.exceptions import HTTPException

from deltaci.domain.errors import DeltaError, MalformedRequest, NotFound, ProtocolError
from deltaci.domain.events import Cause
from deltaci.forge.webhook import Webhook
from deltaci.gateway import answers
from deltaci.gateway.house import House, raw_body
from deltaci.orchestrator.messages import Admit, Admitted
from deltaci.store.writes import Audit

bp = Blueprint("webhooks", __name__, url_prefix="/api/v1/webhooks")


class TurnedAwayForNow(DeltaError):
    """Too many webhooks from this address were refused: none is looked at until some time has passed."""

    code = "too_many_refused"
    http_status = 429


@bp.post("/<forge>")
async def receive(forge: str) -> Response:
    """202 `{"run_id", "duplicate"}`, `{"accepted", "duplicate"}` or `{"ignored": reason}`, once that is on disk."""
    house: House = current_app.extensions["house"]
    if forge not in house.forges:
        raise NotFound(f"no forge {forge[:50]!r}: this server knows {', '.join(sorted(house.forges))}")
    sender, now_ms = request.remote_addr or "unknown", house.orchestrator.ports.clock.now_ms()
    await _tell_settled(house, now_ms)
    wait_ms = house.refusals.wait_ms(sender, now_ms)
    if wait_ms:
        raise TurnedAwayForNow(retry_after_ms=wait_ms)
    try:
        return _answer(await _admitted(house, forge))
    except (ProtocolError, NotFound) as error:
        await _record(house, forge, sender, error.code, str(error))
        raise
    except HTTPException as error:  # too large, too slow
        status = error.code or 500
        text = error.description or error.name
        await _record(house, forge, sender, answers.HTTP_CODES.get(status, "http"), text)
        raise


async def _admitted(house: House, forge: str) -> Admitted:
    adapter = house.forges[forge]
    webhook = Webhook({name.lower(): value for name, value in request.headers.items()}, await raw_body(request))
    repo = adapter.authenticate(webhook, house.orchestrator.repos.all())
    received = adapter.read(webhook, repo)
    if repo is None and received.trigger is not None:
        raise MalformedRequest(f"the event {received.event} is about no repository that we know, and would start a run")
    return await house.orchestrator.admit(
        "" if repo is None else repo.id,
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


def _answer(admitted: Admitted) -> Response:
    if admitted.run_id is not None:
        return answers.ok({"run_id": admitted.run_id, "duplicate": admitted.is_duplicate}, 202)
    if admitted.accepted is not None:
        return answers.ok({"accepted": admitted.accepted, "duplicate": admitted.is_duplicate}, 202)
    return answers.ok({"ignored": admitted.ignored}, 202)


async def _record(house: House, forge: str, sender: str, code: str, text: str) -> None:
    """A webhook that was refused leaves a trace: who sent it, and why it did not count."""
    now_ms = house.orchestrator.ports.clock.now_ms()
    house.refusals.refused(sender, now_ms)
    logger.warning("webhook for {} from {} refused: {}", forge, sender, text)
    audit = Audit(
        at_ms=now_ms,
        cause=Cause("webhook", sender, via=forge),
        type="WebhookRefused",
        details={"code": code, "text": text[:500]},
    )
    await house.store.commit((audit,))


async def _tell_settled(house: House, now_ms: int) -> None:
    """Senders that are quiet again: how many webhooks of theirs were not even looked at."""
    audits = tuple(
        Audit(
            at_ms=now_ms,
            cause=Cause("webhook", one.sender),
            type="WebhooksTurnedAway",
            details={"count": str(one.count), "text": f"and {one.count} more, which were not looked at"},
        )
        for one in house.refusals.settled(now_ms)
    )
    if audits:
        await house.store.commit(audits)
