"""How replies and errors become HTTP: one table, one shape.

Every error is `{"error": {"code", "message", "details"}}`; what can be asked again says when, in Retry-After (seconds).
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from loguru import logger
from quart import Quart, Response
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from actors import ActorCrashed, ActorError, AskTimedOut, MailboxFull, Quarantined, UnknownPath
from deltaci.domain.errors import DeltaError
from deltaci.domain.machine import Refusal, Why
from protocol.codec import MalformedMessage

RETRY_AFTER_S: Final = 1

_encode: Final = msgspec.json.Encoder().encode

REFUSAL_STATUS: Final[Mapping[Why, int]] = {
    Why.ILLEGAL_MOVE: 409,
    Why.STALE_LEASE: 409,
    Why.CONFLICTING_RESULT: 409,
    Why.TOO_EARLY: 409,
    Why.NOT_OVER: 409,
    Why.NOT_APPROVED: 409,
    Why.NOT_FOUND: 404,
    Why.LIMIT: 413,
}

# (code, status, whether to ask again): what the actor runtime raises, as a client sees it
ACTOR_ERRORS: Final[tuple[tuple[type[ActorError], str, int, bool], ...]] = (
    (MailboxFull, "overloaded", 503, True),
    (AskTimedOut, "timed_out", 503, True),
    (ActorCrashed, "crashed", 503, True),
    (Quarantined, "quarantined", 503, False),
    (UnknownPath, "not_found", 404, False),
    (ActorError, "stopped", 503, True),
)

HTTP_CODES: Final[Mapping[int, str]] = {
    400: "bad_request",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many",
}


def ok(body: Any, status: int = 200) -> Response:
    """`body` (structs and builtins) as JSON."""
    return Response(_encode(body), status, content_type="application/json")


def problem(
    status: int,
    code: str,
    message: str,
    details: Mapping[str, str] | None = None,
    *,
    retry_after_ms: int | None = None,
) -> Response:
    """A structured error."""
    response = ok({"error": {"code": code, "message": message, "details": details or {}}}, status)
    if retry_after_ms is not None:
        response.headers["Retry-After"] = str(max(1, -(-retry_after_ms // 1000)))
    return response


def refused(refusal: Refusal) -> Response:
    """A normal "no", with the state that it met."""
    details = {"id": refusal.entity_id, "state": refusal.at}
    return problem(REFUSAL_STATUS[refusal.why], refusal.why.value, refusal.text, details)


def delta_error(error: DeltaError) -> Response:
    """What the house raises on purpose."""
    retry_after_ms = error.retry_after_ms
    if retry_after_ms is None and error.is_retryable:
        retry_after_ms = RETRY_AFTER_S * 1000
    details = {key: str(value) for key, value in error.details.items()}
    response = problem(error.http_status, error.code, str(error), details, retry_after_ms=retry_after_ms)
    if error.code == "unauthorized":
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def actor_error_meaning(error: ActorError) -> tuple[str, int, bool]:
    """(code, HTTP status, whether to ask again) of what the actor runtime raised."""
    for kind, code, status, is_retryable in ACTOR_ERRORS:
        if isinstance(error, kind):
            return code, status, is_retryable
    raise AssertionError("the table ends with the base class") from error


def actor_error(error: ActorError) -> Response:
    """What the actor runtime raises: overload, time-outs, crashes."""
    code, status, is_retryable = actor_error_meaning(error)
    return problem(status, code, str(error), retry_after_ms=RETRY_AFTER_S * 1000 if is_retryable else None)


def register(app: Quart) -> None:
    """Answer every error in the one shape; an unforeseen one is 500 without its text."""

    @app.errorhandler(DeltaError)
    async def _delta(error: DeltaError) -> Response:
        return delta_error(error)

    @app.errorhandler(ActorError)
    async def _actor(error: ActorError) -> Response:
        return actor_error(error)

    @app.errorhandler(MalformedMessage)
    async def _malformed(error: MalformedMessage) -> Response:
        return problem(400, "malformed", str(error))

    @app.errorhandler(HTTPException)
    async def _http(error: HTTPException) -> Response:
        status = error.code or 500
        response = problem(status, HTTP_CODES.get(status, "http"), error.description or error.name)
        if isinstance(error, MethodNotAllowed) and error.valid_methods:
            response.headers["Allow"] = ", ".join(sorted(error.valid_methods))
        return response

    @app.errorhandler(Exception)
    async def _bug(error: Exception) -> Response:
        logger.opt(exception=error).error("a request crashed")
        return problem(500, "internal", "a bug of ours; it is in the server's log")
