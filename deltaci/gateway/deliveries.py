"""The API for the ledger of webhooks: what became of each, and acting once more on what one asked for."""

import msgspec
from quart import Blueprint, Response, request

from deltaci.gateway import answers, views
from deltaci.gateway.asking import NUMBER_MAX, admin, body_as, house_of, number_in_query, repo_named
from deltaci.gateway.auth import user
from deltaci.store.port import NumberedDelivery
from deltaci.store.writes import Delivery

bp = Blueprint("deliveries", __name__, url_prefix="/api/v1/deliveries")


class Replay(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/v1/deliveries/replay`. `repo` is a name or an id, empty for what was about no repository."""

    delivery_id: str
    repo: str = ""


@bp.get("")
async def list_deliveries() -> Response:
    """Newest first; `?repo=NAME&before=NUMBER&limit=N`."""
    await admin()
    house = house_of()
    repo_id = None
    if "repo" in request.args:
        repo_id = repo_named(request.args["repo"]).id if request.args["repo"] else ""
    limit = number_in_query("limit", 50, low=1, high=house.limits.page_size_max)
    before = number_in_query("before", NUMBER_MAX, low=1)
    rows = await house.store.newest_deliveries(repo_id=repo_id, before=before, limit=limit)
    return answers.ok({"deliveries": [_view(row) for row in rows]})


@bp.post("/replay")
async def replay() -> Response:
    """202 `{"delivery"}`: a request is owed once more, and does nothing that it did; all else is told as it is."""
    token = await admin()
    asked = await body_as(Replay)
    orchestrator = house_of().orchestrator
    repo_id = repo_named(asked.repo).id if asked.repo else ""
    delivery = await orchestrator.replay(repo_id, asked.delivery_id, user(token))
    return answers.ok({"delivery": _view(delivery)}, 202)


def _view(row: NumberedDelivery | Delivery) -> dict[str, object]:
    repo_id = row.delivery.repo_id if isinstance(row, NumberedDelivery) else row.repo_id
    repo = house_of().orchestrator.repos.named(repo_id) if repo_id else None
    return views.delivery_view(row, "" if repo is None else repo.name)
