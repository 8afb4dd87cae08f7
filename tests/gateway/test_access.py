"""Who may open which address: a matrix over every route that the application has, so that a new one is in it too."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from quart import Quart
from quart.testing.connections import WebsocketResponseError

from deltaci.planner.configuration import json_schema
from tests.gateway.support import ADMIN, RUNNER, Gateway, error_of, fingerprint, opened

pytestmark = pytest.mark.anyio

OPEN = {"/healthz", "/readyz", "/api/v1/webhooks/<forge>", "/schema/deltaci.schema.json"}
ARGUMENTS = {
    "run_id": "run_1",
    "job_id": "job_1_0",
    "verb": "lease",
    "attempt": "1",
    "name": "log.txt",
    "forge": "git",
    "repo": "shop",
    "version": "1",
}


def routes(app: Quart, *, websocket: bool = False) -> Iterator[tuple[str, str, str]]:
    """(method, rule, an address under it) of every route."""
    for rule in app.url_map.iter_rules():
        if rule.websocket is not websocket:
            continue
        path = re.sub(r"<(?:\w+:)?(\w+)>", lambda found: ARGUMENTS[found[1]], rule.rule)
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, rule.rule, path


def scope_of(rule: str) -> str:
    """Who is meant to open it: runners their protocol and nothing else, admins everything but that."""
    return "runner" if rule.startswith("/api/v1/runner/") else "admin"


async def refusals(
    gateway: Gateway, headers: dict[str, str], *, is_error: bool = True
) -> list[tuple[str, str, int, str]]:
    """(method, rule, status, code) of every route that is not open to all, asked with `headers`."""
    found = []
    for method, rule, path in routes(gateway.app):
        if rule not in OPEN:
            response = await gateway.ask(method, path, token=None, headers=headers)
            is_error_here = is_error or response.status_code >= 400
            code = (await error_of(response))["code"] if is_error_here else ""
            found.append((method, rule, response.status_code, code))
    return found


async def test_the_matrix_has_every_kind_of_address(tmp_path: Path) -> None:
    """A matrix over nothing would pass too."""
    async with opened(tmp_path) as gateway:
        rules = {rule for _, rule, _ in routes(gateway.app)}
        sockets = {rule for _, rule, _ in routes(gateway.app, websocket=True)}

    assert len(rules) >= 17
    assert rules > OPEN
    assert sockets == {"/api/v1/runner/channel"}


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer dci_nobody",
        f"Basic {ADMIN}",
        f"Token {RUNNER}",
        ADMIN,
        f"Bearer {ADMIN}x",
        f"Bearer {ADMIN} {ADMIN}",
        "Bearer " + "x" * 10_000,
        "Bearer \u00fc\u00ff",
    ],
)
async def test_nothing_but_webhooks_and_health_opens_without_a_known_token(tmp_path: Path, header: str | None) -> None:
    """Default deny: a route that forgets to ask who it is fails here."""
    async with opened(tmp_path) as gateway:
        before = await fingerprint(gateway.store)
        found = await refusals(gateway, {} if header is None else {"Authorization": header})
        after = await fingerprint(gateway.store)

    assert [(method, rule, 401, "unauthorized") for method, rule, _, _ in found] == found
    assert before == after


@pytest.mark.parametrize(("secret", "scope"), [(ADMIN, "admin"), (RUNNER, "runner")])
async def test_a_token_opens_its_own_addresses_and_no_others(tmp_path: Path, secret: str, scope: str) -> None:
    """A stolen runner token reads no log; an admin's token leases no job."""
    async with opened(tmp_path) as gateway:
        found = await refusals(gateway, {"Authorization": f"Bearer {secret}"}, is_error=False)

    foreign = {(status, code) for _, rule, status, code in found if scope_of(rule) != scope}
    own = {status for _, rule, status, _ in found if scope_of(rule) == scope}
    assert foreign == {(403, "forbidden")}
    assert own
    assert not own & {401, 403, 500}


@pytest.mark.parametrize(("token", "status"), [(None, 401), ("dci_nobody", 401), (ADMIN, 403)])
async def test_the_channel_is_not_opened_for_others(tmp_path: Path, token: str | None, status: int) -> None:
    """The refusal comes instead of the upgrade, so that no socket is ever open for a stranger."""
    async with opened(tmp_path) as gateway:
        with pytest.raises(WebsocketResponseError) as refused:
            async with gateway.channel(token=token) as socket:
                await socket.receive()

    assert refused.value.response.status_code == status


async def test_a_route_without_a_question_who_it_is_would_be_found(tmp_path: Path) -> None:
    """The matrix must be able to fail: an open route that somebody adds stands out."""
    async with opened(tmp_path) as gateway:

        @gateway.app.get("/api/v1/forgotten")
        async def _forgotten() -> dict[str, Any]:
            return {"error": {"code": "none", "message": "open to all", "details": {}}}

        found = await refusals(gateway, {})

    assert [rule for _, rule, status, _ in found if status != 401] == ["/api/v1/forgotten"]


async def test_a_refusal_says_how_to_ask(tmp_path: Path) -> None:
    """RFC 9110: a 401 names the scheme; and no answer is kept by a cache or sniffed by a browser."""
    async with opened(tmp_path) as gateway:
        response = await gateway.ask("GET", "/api/v1/runs", token=None)

    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert "Authorization: Bearer" in (await error_of(response))["message"]
    assert response.headers["Cache-Control"] == "no-store"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_the_schema_of_the_configuration_is_for_everybody(tmp_path: Path) -> None:
    """Editors have no token, and the format is no secret."""
    async with opened(tmp_path) as gateway:
        response = await gateway.ask("GET", "/schema/deltaci.schema.json", token=None)
        schema = await response.get_json(force=True)

    assert (response.status_code, response.content_type) == (200, "application/schema+json")
    assert schema == json_schema.document()
