"""The schema of `deltaci.yaml`, for editors: the one of this very program. Nothing in it is secret."""

from typing import Final

import msgspec
from quart import Blueprint, Response

from deltaci.planner.configuration import json_schema

bp = Blueprint("schema", __name__)

_BODY: Final = msgspec.json.format(msgspec.json.encode(json_schema.document()), indent=2)


@bp.get("/schema/deltaci.schema.json")
async def configuration_schema() -> Response:
    """The JSON Schema of the configuration; for everybody."""
    return Response(_BODY, 200, content_type="application/schema+json")
