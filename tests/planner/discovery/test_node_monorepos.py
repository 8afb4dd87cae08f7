"""Nx and Turborepo: commands run through them, and what their configurations say of dependencies and files."""

import json

import pytest

from deltaci.planner.errors import PlanFailed
from tests.planner.agreement.workspaces import touched
from tests.planner.discovery.node_support import commands, discovered, found, job, package

SCRIPTS = {"build": "tsc", "test": "jest", "lint": "eslint ."}
TURBO = {
    "package.json": '{"workspaces": ["packages/*"]}',
    "package-lock.json": "",
    "turbo.json": '{"tasks": {"build": {"dependsOn": ["^build"]}, "test": {}, "@x/c#lint": {}}}',
    "packages/a/package.json": package("@x/a", scripts=SCRIPTS),
    "packages/b/package.json": package("@x/b", scripts=SCRIPTS, dependencies={"@x/a": "*"}),
    "packages/c/package.json": package("@x/c", scripts=SCRIPTS),
}
NX = {
    "package.json": '{"workspaces": ["packages/*"]}',
    "package-lock.json": "",
    "nx.json": "{}",
    "packages/a/package.json": package("@x/a", scripts=SCRIPTS),
    "packages/b/package.json": package("@x/b", scripts={"build": "tsc"}, dependencies={"@x/a": "*"}),
}


def test_turborepo_runs_the_tasks_that_it_knows_and_the_package_manager_the_rest() -> None:
    """With a filter for the one package; Turborepo builds what that needs."""
    answer = found(TURBO)

    assert commands(answer["packages/b"]) == [("npx turbo run build test --filter=@x/b", ".")]
    assert commands(answer["packages/b"], "lint") == [("npm run lint", "packages/b")]
    assert commands(answer["packages/c"], "lint") == [("npx turbo run lint --filter=@x/c", ".")]
    assert job(answer["packages/b"]).env["TURBO_TELEMETRY_DISABLED"] == "1"


def with_jobs_at_the_root(files: dict[str, str]) -> dict[str, str]:
    """A file of a root without jobs would touch all that is inside, for nothing else would run for it."""
    root = json.loads(files["package.json"]) | {"scripts": {"typecheck": "x"}}
    return files | {"package.json": json.dumps(root)}


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("pnpm-lock.yaml", "npx --yes pnpm exec turbo run test --filter=a"),
        ("yarn.lock", "npx --yes yarn run turbo run test --filter=a"),
        ("bun.lock", "npx --yes bun x turbo run test --filter=a"),
    ],
)
def test_turborepo_is_run_by_the_package_manager_that_installed_it(lock: str, expected: str) -> None:
    """The old name of tasks, and comments, are read as well."""
    files = {
        "package.json": '{"workspaces": ["*"]}',
        "pnpm-workspace.yaml": "packages: ['*']",
        lock: "",
        "turbo.jsonc": '{"pipeline": {"test": {}, /* all */},}',
        "a/package.json": package("a"),
    }

    assert commands(found(files)["a"])[0][0] == expected


@pytest.mark.parametrize(
    ("settings", "path", "expected"),
    [
        ({"globalDependencies": ["**/.env.*local", "tools/*.ts"]}, "packages/a/.env.prod.local", {"a", "b", "c"}),
        ({"globalDependencies": ["tools/{x,y}/*.ts"]}, "tools/y/a.ts", {"a", "b", "c"}),
        ({"globalDependencies": ["tools/{x,y}/*.ts"]}, "tools/z/a.ts", set()),
        ({"globalDependencies": ["!tools/x.ts", "tools/**"]}, "tools/deep/down.ts", {"a", "b", "c"}),
        ({"globalDotEnv": ["env/x"]}, "env/x", {"a", "b", "c"}),
        ({"tasks": {"test": {"inputs": ["$TURBO_ROOT$/tools/x.ts"]}}}, "tools/x.ts", {"a", "b", "c"}),
        ({"tasks": {"test": {"inputs": ["../../tools/x.ts"]}}}, "tools/x.ts", {"a", "b", "c"}),
        ({"tasks": {"@x/c#test": {"inputs": ["$TURBO_ROOT$/tools/x.ts"]}}}, "tools/x.ts", {"c"}),
        ({"tasks": {"@x/c#test": {"dependsOn": ["@x/b#build"]}}}, "packages/b/a.ts", {"b", "c"}),
    ],
)
def test_files_that_turborepo_counts_touch_the_packages_that_it_counts_them_for(
    settings: dict[str, object], path: str, expected: set[str]
) -> None:
    """Global ones all, inputs of one task its package, a task of another package that one's files."""
    files = with_jobs_at_the_root(TURBO) | {"turbo.json": json.dumps(settings)}

    assert touched(files, [path]) - {"."} == {f"packages/{name}" for name in expected}


def test_a_package_extends_the_configuration_of_another() -> None:
    """Its own turbo.json adds tasks, inputs and what it extends."""
    own = '{"extends": ["//", "@x/a"], "tasks": {"lint": {"inputs": ["$TURBO_ROOT$/lint/*.js"]}}}'
    files = TURBO | {"packages/c/turbo.json": own}

    assert commands(found(files)["packages/c"], "lint") == [("npx turbo run lint --filter=@x/c", ".")]
    assert touched(files, ["packages/a/turbo.json"]) == {".", "packages/a", "packages/b", "packages/c"}
    assert touched(files, ["lint/rules.js"]) == {".", "packages/c"}


def test_nx_runs_the_targets_of_a_package_that_are_its_scripts() -> None:
    """Without plugins these are all; Nx builds what they need."""
    answer = found(NX)

    assert commands(answer["packages/a"]) == [("npx nx run-many -t build test -p @x/a", ".")]
    assert commands(answer["packages/a"], "lint") == [("npx nx run-many -t lint -p @x/a", ".")]
    assert commands(answer["packages/b"]) == [("npx nx run-many -t build -p @x/b", ".")]
    assert job(answer["packages/b"]).env["NX_DAEMON"] == "false"


@pytest.mark.parametrize(
    ("plugins", "test", "lint"),
    [
        (["@nx/eslint/plugin"], "build", "lint"),
        ([{"plugin": "@nx/jest/plugin", "options": {"targetName": "test"}}], "build test", None),
        (
            [{"plugin": "@nx/js/typescript", "options": {"typecheck": {"targetName": "typecheck"}}}],
            "build",
            "typecheck",
        ),
        (["@nx/playwright/plugin"], "build", None),
        (["./tools/our-plugin"], "build test", "lint typecheck type-check check-types"),
    ],
)
def test_inferred_targets_are_told_from_the_files_that_plugins_look_for(
    plugins: list[object], test: str, lint: str | None
) -> None:
    """A plugin that we do not know may infer any: Nx does nothing for a target that is not there."""
    files = NX | {"nx.json": json.dumps({"plugins": plugins})}
    files |= {"packages/b/jest.config.ts": "", "packages/b/tsconfig.json": "{}"}

    project = found(files)["packages/b"]

    assert commands(project) == [(f"npx nx run-many -t {test} -p @x/b", ".")]
    by_check = {each.check: each.steps[-1].run for each in project.jobs}
    assert by_check.get("lint") == (None if lint is None else f"npx nx run-many -t {lint} -p @x/b")


def test_a_project_json_makes_a_project_wherever_it_is_and_only_below_an_nx_json() -> None:
    """Nx looks in all directories but what .nxignore names and what is installed."""
    files = {
        "package.json": "{}",
        "package-lock.json": "",
        "apps/web/project.json": '{"name": "web", "targets": {"test": {}, "serve": {}}} // comment',
        "e2e/web/project.json": '{"name": "web-e2e", "implicitDependencies": ["web"], "targets": {"lint": {}}}',
        "ignored/x/project.json": "no JSON",
        ".nxignore": "ignored/\n",
    }

    with_nx = found(files | {"nx.json": "{}"})

    assert set(found(files)) == {"."}
    assert set(with_nx) == {".", "apps/web", "e2e/web"}
    assert with_nx["apps/web"].manifest == "apps/web/project.json"
    assert [step.run for step in job(with_nx["apps/web"]).steps] == ["npm ci", "npx nx run-many -t test -p web"]
    assert "e2e/web" in touched(files | {"nx.json": "{}"}, ["apps/web/src/a.ts"])


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"implicitDependencies": ["@x/a"]}, True),
        ({"implicitDependencies": ["@x/*"]}, True),
        ({"implicitDependencies": ["*"]}, True),
        ({"implicitDependencies": ["packages/a"]}, True),
        ({"implicitDependencies": ["tag:core"]}, True),
        ({"implicitDependencies": ["tag:other", "@y/a", "@x/aa"]}, False),
        ({"implicitDependencies": ["@x/[a]*", "!@x/*"]}, False),
        ({"targets": {"test": {"dependsOn": ["^build", "build", {"projects": ["@x/a"], "target": "build"}]}}}, True),
        ({"targets": {"test": {"dependsOn": [{"projects": "self", "target": "build"}, "build:css", 1]}}}, False),
    ],
)
def test_nx_is_told_of_edges(settings: dict[str, object], expected: bool) -> None:
    """By name, glob, directory or tag; a negation takes away."""
    files = NX | {
        "packages/a/package.json": package("@x/a", nx={"tags": ["core"]}),
        "packages/d/package.json": package("@x/d", nx=settings),
    }

    assert ("packages/d" in touched(files, ["packages/a/a.ts"])) is expected


def test_a_negated_implicit_dependency_takes_a_declared_one_away() -> None:
    """As Nx has it."""
    files = NX | {
        "packages/d/package.json": package("@x/d", dependencies={"@x/a": "*"}, nx={"implicitDependencies": ["!@x/a"]})
    }

    assert "packages/d" not in touched(files, ["packages/a/a.ts"])


@pytest.mark.parametrize(
    ("nx", "path", "expected"),
    [
        ({"namedInputs": {"sharedGlobals": ["{workspaceRoot}/tools/*.js"]}}, "tools/a.js", {"a", "b"}),
        ({"targetDefaults": {"test": {"inputs": [{"fileset": "{workspaceRoot}/data/**/*"}]}}}, "data/x/y", {"a", "b"}),
        ({"namedInputs": {"x": [{"json": "{workspaceRoot}/data/v.json", "fields": ["a"]}]}}, "data/v.json", {"a", "b"}),
        ({"targetDefaults": {"audit:all": {"inputs": ["{workspaceRoot}/**/*"]}}}, "data/x", set()),
        (
            {"targetDefaults": {"test": {"dependsOn": ["^gen"]}, "gen": {"inputs": ["{workspaceRoot}/data/x"]}}},
            "data/x",
            {"a", "b"},
        ),
        ({"targetDefaults": {"@x/y:z": {"inputs": ["{workspaceRoot}/data/x"]}}}, "data/x", {"a", "b"}),
        ({"namedInputs": {"x": ["!{workspaceRoot}/data/**/*", "{projectRoot}/**/*"]}}, "data/x", set()),
        ({"implicitDependencies": {"tools/a.js": "*"}}, "tools/a.js", {"a", "b"}),
        ({"plugins": ["./tools/plugin"]}, "tools/plugin/index.ts", {"a", "b"}),
        ({}, "nx.json", {"a", "b"}),
    ],
)
def test_files_that_nx_counts_touch_its_projects(nx: dict[str, object], path: str, expected: set[str]) -> None:
    """Named inputs, defaults of targets, plugins of the workspace."""
    files = with_jobs_at_the_root(NX) | {"nx.json": json.dumps(nx)}

    assert touched(files, [path]) - {"."} == {f"packages/{name}" for name in expected}


@pytest.mark.parametrize("path", ["turbo.json", "nx.json", "packages/a/project.json", "packages/a/turbo.json"])
@pytest.mark.parametrize("text", ['{\n  "tasks": {,}\n}', "[]", '{"a":' * 200])
def test_a_configuration_that_is_plainly_broken_fails_the_plan(path: str, text: str) -> None:
    """The tool could not read it either; the problem says where."""
    with pytest.raises(PlanFailed) as caught:
        discovered({"nx.json": "{}"} | TURBO | {path: text})

    problem = caught.value.problems[0]
    assert (problem.file, problem.line is not None) == (path, True)
