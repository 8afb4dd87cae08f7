"""Plans from recipes: used while discovery would find the same, and never above a configuration."""

import shutil
from importlib.resources import files
from pathlib import Path

import msgspec
import pytest

from deltaci.domain.blueprint import Blueprint, digest
from deltaci.domain.plan import Plan
from deltaci.domain.recipe import Kept, Recipe, RecipeState
from deltaci.planner import discovery
from deltaci.planner.program import digest_of_sources
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned

pytestmark = pytest.mark.anyio

FILES = {
    "api/go.mod": "module shop/api\n",
    "api/main.go": "package main\n",
    "api/main_test.go": "package main\n",
    "web/package.json": '{"name": "web", "scripts": {"test": "vitest"}}',
    "web/a.js": "",
    "vendor/x/go.mod": "module x\n",
}


async def plan_of(view: MemoryView, *paths: str, recipe: Recipe | None = None) -> Plan:
    return planned(view, changed(*paths) if paths else None, base_sha="b" * 40, recipe=recipe, has_a_say=True)


def kept(blueprint: Blueprint, state: RecipeState = RecipeState.ACTIVE) -> Kept:
    """A recipe of `blueprint`."""
    recipe = Recipe(
        repo_id="repo_1",
        version=3,
        fingerprint=blueprint.fingerprint,
        blueprint_digest=digest(blueprint),
        projects_count=len(blueprint.projects),
        jobs_count=2,
        state=state,
        reason="it failed" if state is RecipeState.STALE else "",
        revision=1,
        made_by="run_made",
        made_at_ms=1,
        last_run_id="run_confirmed",
        confirmed_by="run_confirmed",
        at_ms=1,
    )
    return Kept(recipe, blueprint)


async def discovered(files: dict[str, str] = FILES) -> tuple[Plan, Blueprint]:
    plan = await plan_of(MemoryView(files))
    assert plan.blueprint is not None
    return plan, plan.blueprint


@pytest.mark.parametrize("paths", [(), ("api/main.go",), ("web/a.js",), ("README.md",)])
async def test_a_recipe_gives_the_plan_that_discovery_would(paths: tuple[str, ...]) -> None:
    """The same jobs, skips and cache keys, whatever changed; the plan names version and runs."""
    _, blueprint = await discovered()
    expected = await plan_of(MemoryView(FILES), *paths)

    plan = await plan_of(MemoryView(FILES), *paths, recipe=kept(blueprint).recipe)

    assert ("recipe", expected.jobs, expected.projects) == (plan.source, plan.jobs, plan.projects)
    (why,) = [reason.text for reason in plan.reasons if reason.rule == "recipe"]
    assert all(word in why for word in ("version 3", "run_made", "run_confirmed"))
    assert "left-out" in {reason.rule for reason in plan.reasons}
    assert plan.blueprint == Blueprint(fingerprint=blueprint.fingerprint, recipe=3)


@pytest.mark.parametrize(
    "more",
    [
        {"web/package.json": '{"name": "web", "scripts": {"test": "jest"}}'},
        {"tool/go.mod": "module shop/tool\n"},
        {"web/yarn.lock": ""},
    ],
    ids=["manifest", "project", "lock"],
)
async def test_another_structure_is_discovered(more: dict[str, str]) -> None:
    """A manifest that changed, a project more, another package manager."""
    _, blueprint = await discovered()
    files = {**FILES, **more}

    plan = await plan_of(MemoryView(files), recipe=kept(blueprint).recipe)

    assert plan == (await discovered(files))[0]
    assert plan.source == "discovery"


async def test_a_change_of_sources_alone_keeps_the_recipe() -> None:
    """The fingerprint is of the structure."""
    _, blueprint = await discovered()
    files = {**FILES, "api/main.go": "package main // other\n", "web/b.js": "1"}

    plan = await plan_of(MemoryView(files), recipe=kept(blueprint).recipe)

    assert plan.source == "recipe"


async def test_a_stale_recipe_is_not_used() -> None:
    """What failed is discovered afresh."""
    plan, blueprint = await discovered()

    assert plan == await plan_of(MemoryView(FILES), recipe=kept(blueprint, RecipeState.STALE).recipe)


async def test_a_recipe_of_other_projects_is_not_used() -> None:
    """Whatever made them another way: the plan never says that it is from a recipe whose commands do not run."""
    plan, blueprint = await discovered()
    other = msgspec.structs.replace(blueprint, projects=blueprint.projects[:1])

    assert plan == await plan_of(MemoryView(FILES), recipe=kept(other).recipe)


@pytest.mark.parametrize("has_recipe", [False, True])
async def test_what_a_plan_was_made_from_is_told_where_it_may_become_a_recipe_alone(has_recipe: bool) -> None:
    """It is as large as the repository; the plan is the same without it."""
    _, blueprint = await discovered()
    recipe = kept(blueprint).recipe if has_recipe else None
    expected = await plan_of(MemoryView(FILES), "api/main.go", recipe=recipe)

    plan = planned(MemoryView(FILES), changed("api/main.go"), base_sha="b" * 40, recipe=recipe)

    assert expected.blueprint is not None
    assert plan == msgspec.structs.replace(expected, blueprint=None)


async def test_a_recipe_of_another_program_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer discovery may find more in the same files."""
    _, blueprint = await discovered()
    monkeypatch.setattr("deltaci.planner.discovery.discover.program", lambda: "newer")

    plan = await plan_of(MemoryView(FILES), recipe=kept(blueprint).recipe)

    assert plan.source == "discovery"
    assert plan.blueprint is not None
    assert plan.blueprint.fingerprint != blueprint.fingerprint


@pytest.mark.parametrize("edit", ["changed", "added", "removed", "renamed"])
def test_each_change_of_discovery_is_another_program(tmp_path: Path, edit: str) -> None:
    """Nobody has to think of raising a number."""
    ours = shutil.copytree(Path(discovery.__file__).parent, tmp_path / "discovery")
    before = digest_of_sources(ours)

    match edit:
        case "changed":
            (ours / "go.py").write_text((ours / "go.py").read_text() + "#")
        case "added":
            (ours / "zig.py").touch()
        case "removed":
            (ours / "go.py").unlink()
        case _:
            (ours / "go.py").rename(ours / "golang.py")

    assert before == digest_of_sources(files(discovery))
    assert digest_of_sources(ours) != before


async def test_a_configuration_is_above_every_recipe() -> None:
    """And its run makes none."""
    _, blueprint = await discovered()
    files = {**FILES, "deltaci.yaml": "version: 1\njobs: {a: {steps: [make]}}\n"}
    same = msgspec.structs.replace(blueprint, fingerprint=blueprint.fingerprint)

    plan = await plan_of(MemoryView(files), recipe=kept(same).recipe)

    assert (plan.source, [job.name for job in plan.jobs], plan.blueprint) == ("configuration", ["a"], None)
