"""What routes of the API share: the house, who asks, what the body and the query say, which repository is meant."""

from typing import Final, TypeVar

import msgspec
from quart import current_app, request

from deltaci.domain.errors import MalformedRequest, NotFound
from deltaci.domain.repo import Repo
from deltaci.gateway.auth import authenticate
from deltaci.gateway.house import House
from deltaci.store.writes import Token

T = TypeVar("T")

NUMBER_MAX: Final = 2**53 - 1


def house_of() -> House:
    """The house behind this request."""
    house: House = current_app.extensions["house"]
    return house


async def admin() -> Token:
    """The admin token that asks; raises `Unauthorized` or `Forbidden`."""
    return await authenticate(request, house_of().store, "admin")


async def body_as(kind: type[T]) -> T:
    """The JSON of the body; raises `MalformedRequest`."""
    data = await request.get_data(as_text=False) or b"{}"
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ValueError) as error:
        raise MalformedRequest(f"{request.method} {request.path} does not accept this body: {error}") from error


def number_in_query(name: str, default: int, *, low: int = 0, high: int = NUMBER_MAX) -> int:
    """A whole number of the query; raises `MalformedRequest`."""
    text = request.args.get(name)
    if text is None:
        return default
    try:
        number = int(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise MalformedRequest(f"{name}={text[:50]!r}: give a whole number from {low} to {high}")
    return number


def repo_named(name: str) -> Repo:
    """The repository with this name or id; raises `NotFound`."""
    repo = house_of().orchestrator.repos.named(name)
    if repo is None:
        raise NotFound(f"no repository {name[:100]!r}: `deltaci repo add` registers one")
    return repo
