"""The application factory: blueprints, limits, errors and headers."""

from typing import Any

from quart import Quart, Request, Response, request

from deltaci.gateway import admin, answers, api, deliveries, doctor, recipes, repos, runner, schema, webhooks
from deltaci.gateway.body import BodyRoom, PacedBody, PacedConnection
from deltaci.gateway.house import House
from deltaci.gateway.sockets import ChannelConnection, ChannelSocket

WEBHOOKS = "/api/v1/webhooks/"
ARTIFACTS = "/api/v1/runner/artifacts/"
# Who did not send its body in time is not waited for once more
TOO_SLOW = 408


def create_app(house: House) -> Quart:
    """The gateway in front of `house`."""
    app = Quart("deltaci.gateway", static_folder=None)
    app.request_class = _request_class(house)
    app.asgi_http_class = PacedConnection
    app.asgi_websocket_class = ChannelConnection
    app.websocket_class = ChannelSocket
    app.config["BODY_TIMEOUT"] = house.limits.body_timeout_s
    app.extensions["house"] = house
    for room in (webhooks, api, repos, deliveries, recipes, runner, admin, doctor, schema):
        app.register_blueprint(room.bp)
    answers.register(app)

    @app.after_request
    async def _harden(response: Response) -> Response:
        body: Any = request.body
        if response.status_code != TOO_SLOW:
            await body.read_off()
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        return response

    return app


def _request_class(house: House) -> type[Request]:
    """A request whose body limit depends on its address; an artifact's is counted while it streams to disk."""

    room = BodyRoom(house.limits.bodies_bytes_max)

    class LimitedRequest(Request):
        def __init__(self, method: str, scheme: str, path: str, *args: Any, **kwargs: Any) -> None:
            if path.startswith(WEBHOOKS):
                kwargs["max_content_length"] = house.limits.webhook_bytes_max
            elif path.startswith(ARTIFACTS):
                kwargs["max_content_length"] = None
            else:
                kwargs["max_content_length"] = house.limits.body_bytes_max
            super().__init__(method, scheme, path, *args, **kwargs)
            self.body = PacedBody(
                self.content_length,
                kwargs["max_content_length"],
                room=room,
                stall_s_max=house.limits.body_timeout_s,
            )

    return LimitedRequest
