"""What is turned away before there is a request: addresses that are none, and bodies with two lengths."""

from typing import Any, Final
from urllib.parse import urlsplit

from hypercorn.typing import ASGISendCallable, HTTPScope, WebsocketScope

from deltaci.gateway import answers

BAD_REQUEST: Final = 400


def objection_to(scope: HTTPScope | WebsocketScope) -> str | None:
    """Why no request can be made of it; None if one can."""
    if not _is_address(scope["path"]):
        return "the address of a request begins with a slash"
    names = {name.lower() for name, _ in scope["headers"]}
    if b"content-length" in names and b"transfer-encoding" in names:
        # A proxy in front may go by the other one: what it takes for a body would be a second request here.
        return "send Content-Length or Transfer-Encoding, not both"
    return None


def _is_address(path: str) -> bool:
    try:
        return path.startswith("/") or urlsplit(path).path.startswith("/")
    except ValueError:
        return False


async def turn_away(send: ASGISendCallable, why: str) -> None:
    """400, and the connection is closed: nobody knows where the next request would begin."""
    response = answers.problem(BAD_REQUEST, answers.HTTP_CODES[BAD_REQUEST], why)
    body = await response.get_data(as_text=False)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    events: tuple[Any, ...] = (
        {"type": "http.response.start", "status": BAD_REQUEST, "headers": [*headers, (b"connection", b"close")]},
        {"type": "http.response.body", "body": body, "more_body": False},
    )
    for event in events:
        await send(event)
