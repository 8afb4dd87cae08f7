"""A changed lock file in a plan: who is touched by it, and what they are told."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from deltaci.domain.plan import Plan
from deltaci.domain.project import Project
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.impact import Difference, locks_wanted, of_projects
from deltaci.planner.service import RepositoryPlanner
from tests.planner.locks.test_npm import lock, package
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned
from tests.planner.test_service import Origin

pytestmark = pytest.mark.anyio

FILES = {
    "package.json": '{"name": "ws", "workspaces": ["packages/*"], "devDependencies": {"tool": "1"}}',
    "packages/a/package.json": '{"name": "@w/a", "dependencies": {"x": "1"}, "scripts": {"test": "t"}}',
    "packages/b/package.json": '{"name": "@w/b", "dependencies": {"@w/a": "1"}, "scripts": {"test": "t"}}',
    "packages/c/package.json": '{"name": "@w/c", "dependencies": {"z": "1"}, "scripts": {"test": "t"}}',
    "crates/Cargo.toml": '[package]\nname = "q"\n',
    "setup.py": "",
}
OLD, Z = lock(), lock(packages={"node_modules/z": package("2.0.0")})


async def plan_of(old: str | None, new: str, *paths: str, has_base: bool = True) -> Plan:
    before = {**FILES, **({} if old is None else {"package-lock.json": old})}

    def base(_paths: Sequence[str]) -> MemoryView:
        return MemoryView(before)

    return planned(
        MemoryView({**FILES, "package-lock.json": new}),
        changed(*paths, "package-lock.json"),
        base_sha="b" * 40,
        base_view=base if has_base else None,
    )


def reasons(plan: Plan) -> Mapping[str, tuple[str, str]]:
    return {each.id: (each.reason.rule, each.reason.text) for each in plan.projects}


async def test_only_the_members_that_resolve_otherwise_run() -> None:
    """Neither the other members nor the projects of other ecosystems around the lock; the root holds what changed."""
    plan = await plan_of(OLD, Z)

    assert reasons(plan) == {
        "node:packages/c": (
            "lock-changed",
            "package-lock.json resolves otherwise for this project: z 1.0.0 -> 2.0.0",
        ),
        "node:.": ("part-changed", "package-lock.json touches packages/c, which is inside this project"),
    }
    assert {each.reason.file for each in plan.projects} == {"package-lock.json"}


async def test_a_lock_that_changed_nothing_for_anybody_runs_nothing() -> None:
    """A licence that npm writes down installs nothing else."""
    plan = await plan_of(OLD, lock(packages={"node_modules/z": package("1.0.0", license="MIT")}))

    assert reasons(plan) == {}
    assert plan.jobs
    assert all(job.is_skipped for job in plan.jobs)


@pytest.mark.parametrize(
    ("old", "new", "has_base", "why"),
    [
        (None, OLD, True, "there is nothing to compare, because before it could not be read"),
        (OLD, Z, False, "there is nothing to compare, because before it could not be read"),
        ("{", OLD, True, "who is concerned cannot be told from what it is before"),
        (OLD, lock(lockfileVersion=9), True, "who is concerned cannot be told from what it is now"),
        (OLD, lock(overrides={}), True, "its settings, which concern all that use it"),
    ],
)
async def test_in_doubt_all_that_use_it_run(old: str | None, new: str, has_base: bool, why: str) -> None:
    """And they only: the other ecosystems have locks of their own."""
    plan = await plan_of(old, new, has_base=has_base)

    found = reasons(plan)
    assert set(found) == {"node:.", "node:packages/a", "node:packages/b", "node:packages/c"}
    assert all(rule == "lock-changed" and why in text for rule, text in found.values())


async def test_other_files_count_beside_the_lock() -> None:
    """A manifest that was changed with it touches its own project."""
    plan = await plan_of(OLD, Z, "packages/a/package.json")

    assert reasons(plan)["node:packages/a"][0] == "project-changed"
    assert reasons(plan)["node:packages/b"][0] == "dependency-changed"
    assert reasons(plan)["node:packages/c"][0] == "lock-changed"


async def test_a_lock_of_no_project_is_an_ordinary_file() -> None:
    """Left over at the root, it may concern anybody."""
    files = {"a/package.json": '{"name": "a", "scripts": {"test": "t"}}', "yarn.lock": "x", "setup.py": ""}

    plan = planned(MemoryView(files), changed("yarn.lock"), base_sha="b" * 40)

    assert reasons(plan)["node:a"][0] == "shared-file"
    assert reasons(plan)["python:."][0] == "project-changed"


async def test_a_lock_that_is_too_large_counts_as_changed_for_all() -> None:
    """Reading is bounded; what is not read is not compared."""
    large = MemoryView({**FILES, "package-lock.json": " " * (9 * 1024 * 1024)})

    def base(_paths: Sequence[str]) -> MemoryView:
        return large

    plan = planned(large, changed("package-lock.json"), base_sha="b" * 40, base_view=base)

    assert {rule for rule, _ in reasons(plan).values()} == {"lock-changed"}


def test_those_that_read_a_lock_are_touched_by_it() -> None:
    """An image that copies the lock is another one afterwards, whatever changed in it."""
    member = Project(ecosystem="node", root="web", manifest="web/package.json", lock="web/package-lock.json")
    image = Project(
        ecosystem="docker", root="image", manifest="image/Dockerfile", reads=frozenset({"web/package-lock.json"})
    )
    graph = ProjectGraph([image, member])
    paths = ("other/uv.lock", "web/package-lock.json")
    text = json.dumps({"lockfileVersion": 3, "packages": {"": {}}}).encode()
    difference = Difference(paths=paths, locks={"web/package-lock.json": (text, text + b"\n")})

    touched, _ = of_projects(graph, Difference(paths=paths[1:], locks=difference.locks))

    assert locks_wanted(graph, difference) == ("web/package-lock.json",)
    assert {graph.projects[index].ecosystem: touch.reason.rule for index, touch in touched.items()} == {
        "docker": "shared-file"
    }


@pytest.mark.slow
async def test_both_sides_of_a_lock_are_read_from_a_real_repository(tmp_path: Path) -> None:
    """From two commits, through the mirror, to the one member that it concerns."""
    origin = Origin(tmp_path / "origin")
    before = origin.commit({**FILES, "package-lock.json": OLD})
    after = origin.commit({"package-lock.json": Z})

    plan = await RepositoryPlanner(tmp_path / "data").plan(
        repo_id="r", clone_url=str(origin.path), commit_sha=after, ref="refs/heads/main", base_sha=before
    )

    assert {each.id: each.reason.rule for each in plan.projects} == {
        "node:packages/c": "lock-changed",
        "node:.": "part-changed",
    }
