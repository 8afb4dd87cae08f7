"""Who is asking: bearer tokens on everything but webhooks and health, looked up by their hash.

A table of scopes, default deny: an admin token opens everything but the runner protocol, a runner token nothing else.
"""

from typing import Final, Literal

from quart import Request, Websocket

from deltaci.domain.errors import DeltaError
from deltaci.domain.events import Cause
from deltaci.domain.ids import hashed
from deltaci.store.port import Store
from deltaci.store.writes import Token

Scope = Literal["admin", "runner"]
TOKEN_MAX: Final = 512


class Unauthorized(DeltaError):
    """Send `Authorization: Bearer TOKEN` with a token of this server."""

    code = "unauthorized"
    http_status = 401


class Forbidden(DeltaError):
    """This token does not open this address."""

    code = "forbidden"
    http_status = 403


async def authenticate(request: Request | Websocket, store: Store, scope: Scope) -> Token:
    """The token behind the request; raises `Unauthorized` or `Forbidden`."""
    kind, _, secret = request.headers.get("Authorization", "").partition(" ")
    if kind.lower() != "bearer" or not secret or len(secret) > TOKEN_MAX:
        raise Unauthorized
    token = await store.token(hashed(secret.strip()))
    if token is None:
        raise Unauthorized
    if token.scope != scope:
        raise Forbidden(f"a {token.scope} token does not open this address; use a {scope} token")
    return token


def user(token: Token) -> Cause:
    """The person behind an admin token, for the journal."""
    return Cause("user", token.id, via="api")
