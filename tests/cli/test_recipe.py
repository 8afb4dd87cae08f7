"""What the commands about recipes print and write, against a server that answers as the real one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from click.testing import CliRunner, Result

from deltaci.cli import api as cli_api
from deltaci.cli.recipe import recipe
from deltaci.gateway.views import recipe_view, whole_recipe
from tests.contracts.store.test_recipes import BLUEPRINT, a_recipe
from tests.planner.test_recipes import kept

PROPOSAL = "# a proposal\nversion: 1\n"
NEWEST = kept(BLUEPRINT)


@pytest.fixture
def ask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Result, list[str]]]:
    """Call a command; its result, and what it asked the server for."""
    plain = httpx.Client

    def call(*words: str, recipes: tuple[Any, ...] = (NEWEST.recipe, a_recipe(2))) -> tuple[Result, list[str]]:
        asked: list[str] = []

        def answer(request: httpx.Request) -> httpx.Response:
            path = request.url.raw_path.decode()
            asked.append(path)
            if path.endswith("/export"):
                return httpx.Response(200, text=PROPOSAL)
            if path.endswith("/recipes"):
                return httpx.Response(200, json={"recipes": [recipe_view(one) for one in recipes]})
            return httpx.Response(200, content=httpx.Response(200, json=whole_recipe(NEWEST)).content)

        monkeypatch.setattr(
            cli_api.httpx, "Client", lambda **more: plain(**more, transport=httpx.MockTransport(answer))
        )
        return CliRunner().invoke(recipe, list(words)), asked

    return call


def test_the_list_shows_each_version_with_its_runs(ask: Callable[..., Any]) -> None:
    """Whether it is used, and which runs say so."""
    result, _ = ask("list", "team/shop")

    assert result.exit_code == 0
    assert "ACTIVE" in result.output
    assert "run_made" in result.output
    assert "run_confirmed" in result.output


def test_without_a_version_the_newest_is_taken(ask: Callable[..., Any]) -> None:
    """The repository's name is one segment of the address."""
    result, asked = ask("show", "team/shop")

    assert asked == ["/api/v1/repos/team%2Fshop/recipes", "/api/v1/repos/team%2Fshop/recipes/3"]
    assert "services/api/go.mod" in result.output
    assert "go test ./..." in result.output


def test_a_proposal_is_printed_as_it_is(ask: Callable[..., Any]) -> None:
    """So that it can be redirected."""
    result, asked = ask("export", "shop", "--version", "2")

    assert (result.exit_code, result.output) == (0, PROPOSAL)
    assert asked == ["/api/v1/repos/shop/recipes/2/export"]


def test_a_proposal_is_written_to_a_new_file_alone(ask: Callable[..., Any], tmp_path: Path) -> None:
    """A configuration that somebody wrote is never overwritten."""
    file = tmp_path / "deltaci.yaml"

    written, _ = ask("export", "shop", "--output", str(file))
    again, _ = ask("export", "shop", "--output", str(file))
    nowhere, _ = ask("export", "shop", "--output", str(tmp_path / "no" / "file"))

    assert (written.exit_code, file.read_text()) == (0, PROPOSAL)
    assert (again.exit_code, nowhere.exit_code) == (1, 1)
    assert "is there already" in again.output
    assert "No such file" in nowhere.output


@pytest.mark.parametrize("word", ["show", "export"])
def test_a_repository_without_recipes_is_told_how_one_is_made(ask: Callable[..., Any], word: str) -> None:
    """A new user sees this first."""
    result, _ = ask(word, "shop", recipes=())

    assert result.exit_code == 1
    assert "default branch" in result.output
