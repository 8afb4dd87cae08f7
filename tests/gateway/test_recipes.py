"""The recipes of a repository over the API: listed, shown, exported, and never changed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deltaci.domain.blueprint import Blueprint
from deltaci.planner.configuration import load
from deltaci.planner.repository import Files
from tests.builders import a_project
from tests.contracts.store.test_recipes import a_version
from tests.gateway.support import Gateway, error_of, fingerprint, opened
from tests.orchestrator.faults import nothing_owed
from tests.orchestrator.support import a_repo

pytestmark = pytest.mark.anyio

LIST = "/api/v1/repos/team/shop/recipes"


@asynccontextmanager
async def with_recipes(tmp_path: Path) -> AsyncIterator[Gateway]:
    """A repository whose name has a slash in it, with two versions."""
    async with opened(tmp_path, repo=a_repo(name="team/shop")) as gateway:
        await gateway.store.commit([a_version(1)])
        await gateway.store.commit([a_version(2)])
        yield gateway


async def test_the_versions_are_listed_newest_first(tmp_path: Path) -> None:
    """By the repository's name or id; without what they are made of."""
    async with with_recipes(tmp_path) as gateway:
        by_name = await gateway.get(LIST)
        by_id = await gateway.get("/api/v1/repos/repo_1/recipes")
        escaped = await gateway.get("/api/v1/repos/team%2Fshop/recipes")

    assert by_name == by_id == escaped
    assert [one["version"] for one in by_name["recipes"]] == [2, 1]
    assert set(by_name["recipes"][0]) == {
        *("version", "state", "reason", "fingerprint", "projects_count", "jobs_count"),
        *("made_by", "made_at_ms", "confirmed_by", "failed_by", "at_ms"),
    }


async def test_a_version_is_shown_with_its_projects(tmp_path: Path) -> None:
    """Commands, caches and artifacts of each."""
    async with with_recipes(tmp_path) as gateway:
        shown = await gateway.get(f"{LIST}/1")

    assert (shown["recipe"]["version"], shown["recipe"]["fingerprint"]) == (1, "f")
    first, second = shown["projects"]
    assert first["root"] == "services/api"
    assert first["jobs"][0]["steps"] == [{"name": "Test", "run": "go test ./...", "env": {}, "workdir": "services/api"}]
    assert first["jobs"][0]["caches"][0]["inputs"] == ["services/api/go.sum"]
    assert second["reads"] == ["a", "b"]


async def test_a_version_is_exported_as_a_configuration(tmp_path: Path) -> None:
    """As text that the planner accepts."""
    async with with_recipes(tmp_path) as gateway:
        response = await gateway.ask("GET", f"{LIST}/2/export")
        text = await response.get_data(as_text=True)

    assert (response.status_code, response.content_type) == (200, "application/yaml; charset=utf-8")
    assert text.startswith("# A proposal for deltaci.yaml, made from version 2 of the recipe of team/shop.")
    assert [each.job.name for each in load(text.encode(), Files(()))] == ["go-test:services/api", "go-test:web"]


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        (f"{LIST}/3", 404, "version 3"),
        (f"{LIST}/3/export", 404, "version 3"),
        (f"{LIST}/0", 404, "version 0"),
        (f"{LIST}/{10**30}", 404, "version 1000"),
        (f"{LIST}/-1", 404, ""),
        (f"{LIST}/x", 404, ""),
        ("/api/v1/repos/nobody/recipes", 404, "no repository 'nobody'"),
        ("/api/v1/repos/nobody/recipes/1/export", 404, "no repository 'nobody'"),
    ],
)
async def test_what_is_not_there_is_said(tmp_path: Path, path: str, status: int, word: str) -> None:
    """Never a traceback, whatever the number."""
    async with with_recipes(tmp_path) as gateway:
        response = await gateway.ask("GET", path)
        error = await error_of(response)

    assert response.status_code == status
    assert word in error["message"]


async def test_what_cannot_be_exported_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The recipe works all the same."""
    version = a_version(1)
    broken = type(version)(recipe=version.recipe, blueprint=Blueprint(fingerprint="f"))
    async with opened(tmp_path) as gateway:
        await gateway.store.commit([broken])
        response = await gateway.ask("GET", "/api/v1/repos/shop/recipes/1/export")
        error = await error_of(response)

    assert (response.status_code, error["code"]) == (422, "not_exportable")
    assert "no job" in error["message"]


async def test_looking_at_recipes_changes_nothing(tmp_path: Path) -> None:
    """They are what runs made of them; no address changes one."""
    async with with_recipes(tmp_path) as gateway:
        before = (await fingerprint(gateway.store), await gateway.store.recipes("repo_1"))
        for path in (LIST, f"{LIST}/1", f"{LIST}/1/export"):
            await gateway.get(path) if not path.endswith("export") else await gateway.ask("GET", path)
            for method, status in (("POST", 405), ("PUT", 405), ("DELETE", 404), ("PATCH", 404)):
                # Of a repository that is named like the whole path, which there is none of.
                assert (await gateway.ask(method, path, body={})).status_code == status
        after = (await fingerprint(gateway.store), await gateway.store.recipes("repo_1"))

    assert before == after


async def test_what_a_plan_was_made_from_is_not_part_of_a_run(tmp_path: Path) -> None:
    """It may be thousands of projects; the recipe has it."""
    async with opened(tmp_path) as gateway:
        gateway.stage.planner.blueprint = Blueprint(fingerprint="f", projects=(a_project(),))
        run_id = (await (await gateway.deliver()).get_json())["run_id"]
        await gateway.stage.run_until(run_id, "QUEUED")
        await nothing_owed(gateway.store)
        view = await (await gateway.ask("GET", f"/api/v1/runs/{run_id}")).get_data(as_text=True)
        kept = await gateway.store.blueprint(run_id)

    assert kept is not None
    assert "go test" not in view
    assert "blueprint" not in view
