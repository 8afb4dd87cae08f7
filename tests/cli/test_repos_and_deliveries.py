"""What the commands about repositories and webhooks ask and print; the server answers as the real one does."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from deltaci.cli import api as cli_api
from deltaci.cli.deliveries import deliveries, table_of
from deltaci.cli.repo import repo
from deltaci.domain.requests import EndStream
from deltaci.gateway.views import delivery_view, repo_view
from deltaci.store.port import NumberedDelivery
from tests.builders import a_delivery
from tests.orchestrator.support import a_repo

REPO = repo_view(a_repo(name="team/shop", previous_secret="o" * 20))
CLOSED = EndStream(stream="pr:7", because="pull request 7 was closed")
ROWS = [
    delivery_view(NumberedDelivery(number=number, delivery=one), "team/shop")
    for number, one in (
        (4, a_delivery(delivery_id="d4", run_id=None, request=CLOSED)),
        (3, a_delivery(delivery_id="d3", run_id=None, request=CLOSED, outcome="nothing runs")),
        (2, a_delivery(delivery_id="d2", run_id=None, ignored="a \x1b[31mping")),
        (1, a_delivery(delivery_id="d1")),
    )
]


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, list[tuple[str, str, Any]]]]:
    """Call a command; its result, and what it asked the server for."""
    plain = httpx.Client

    def call(command: Any, *words: str) -> tuple[Result, list[tuple[str, str, Any]]]:
        asked: list[tuple[str, str, Any]] = []

        def answer(request: httpx.Request) -> httpx.Response:
            body = json.loads(request.content) if request.content else None
            asked.append((request.method, request.url.raw_path.decode(), body))
            if "replay" in request.url.path:
                return httpx.Response(202, json={"delivery": ROWS[1]})
            if "deliveries" in request.url.path:
                before = int(request.url.params.get("before", 9))
                return httpx.Response(200, json={"deliveries": [row for row in ROWS if row["number"] < before][:2]})
            return httpx.Response(200, json={"repo": REPO})

        monkeypatch.setattr(
            cli_api.httpx, "Client", lambda **more: plain(**more, transport=httpx.MockTransport(answer))
        )
        return CliRunner().invoke(command, list(words)), asked

    return call


def test_only_what_was_named_is_changed(ask: Callable[..., Any], tmp_path: Path) -> None:
    """And a rotation says what is left to do."""
    secret = tmp_path / "secret"
    secret.write_text("n" * 20 + "\n")

    result, asked = ask(repo, "set", "team/shop", "--secret-file", str(secret), "--two-runs", "--watch", "release/*")

    body = {"secret": "n" * 20, "is_one_run_a_commit": False, "watched": ["release/*"]}
    assert asked == [("PATCH", "/api/v1/repos/team/shop", body)]
    assert "--drop-previous-secret" in result.output


def test_a_change_of_nothing_is_not_asked_for(ask: Callable[..., Any]) -> None:
    """A forgotten option is said at once."""
    result, asked = ask(repo, "set", "shop")

    assert (result.exit_code, asked) == (2, [])


def test_the_ledger_is_read_page_by_page(ask: Callable[..., Any]) -> None:
    """Each row with its fate, and nothing that drives a terminal."""
    result, asked = ask(deliveries, "list", "--repo", "-", "--limit", "2", "--all-pages")

    paths = [path for _, path, _ in asked]
    assert paths == [f"/api/v1/deliveries?repo=&{more}limit=2" for more in ("", "before=3&", "before=1&")]
    assert "end what runs: pull request 7 was closed -> owed" in result.output
    assert "-> nothing runs" in result.output
    assert "ignored: a ?[31mping" in result.output
    assert str(ROWS[3]["run_id"]) in result.output


def test_the_fate_is_seen_in_a_narrow_terminal() -> None:
    """It is what the list is for."""
    console = Console(width=80, record=True, file=io.StringIO())

    console.print(table_of(ROWS))

    assert "ignored" in console.export_text()


def test_a_replay_says_what_it_was_before(ask: Callable[..., Any]) -> None:
    """What comes of it is told by the list."""
    result, asked = ask(deliveries, "replay", "team/shop", "d3")

    assert asked == [("POST", "/api/v1/deliveries/replay", {"repo": "team/shop", "delivery_id": "d3"})]
    assert result.output.endswith("end what runs: pull request 7 was closed -> nothing runs\n")
