"""Manifests that were written to hurt: they end in a plan or a refusal, in time and within bounds."""

import json

import pytest

from deltaci.planner.errors import PlanFailed
from tests.planner.agreement.workspaces import touched
from tests.planner.discovery.node_support import discovered, found, package

# What grows with the square, or worse, takes minutes at least with these sizes; all of them take seconds at most.
pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize(
    "name", ["a\nb", "a b", "$(id)", "'; rm -rf /; '", "\ud800", "x" * 10_000, "../..", "--help", "a\x00", '"...']
)
@pytest.mark.parametrize("tool", ["", "nx.json", "turbo.json", "pnpm-workspace.yaml"])
def test_no_name_of_a_package_becomes_a_command(name: str, tool: str) -> None:
    """What a shell would read otherwise is quoted, or the directory is named instead."""
    files = {
        "package.json": '{"workspaces": ["*"]}',
        "a/package.json": json.dumps({"name": name, "version": "1.0.0", "scripts": {"build": "b", "test": "t"}}),
        "b/package.json": package("b", scripts={"build": "b", "test": "t"}, dependencies={name: "*"}),
    }
    text = {"pnpm-workspace.yaml": "packages: ['*']", "turbo.json": '{"tasks": {"build": {}, "test": {}}}'}
    files |= {tool: text.get(tool, "{}")} if tool else {}

    runs = [step.run for project in found(files).values() for job in project.jobs for step in job.steps]

    assert runs
    dangerous = [run for run in runs if any(part in run for part in ("$(", ";", "\0", "\ud800", "rm ", "a\nb", "a b"))]
    assert dangerous == []


@pytest.mark.parametrize(
    "patterns",
    [
        [f"packages/p{i}/**/x*y*z" for i in range(20_000)],
        [f"packages/p{i}" for i in range(50_000)],
        ["*" * 10_000, "**/" * 150 + "a", "{a,b}" * 60, "{" * 5_000, "!" * 5_000, "[" * 5_000, "(" * 5_000],
        ["*a*a*a*a*a*a*a*a*a*a*a*a*b"],
        [{"deep": 1}, None, 1, ["x"]],
    ],
)
@pytest.mark.slow
def test_any_number_of_patterns_is_matched_in_time(patterns: list[object]) -> None:
    """With a thousand packages to match."""
    files = {f"packages/{'a' * (i % 50)}{i}/package.json": "{}" for i in range(1_000)}

    answer = found(files | {"package.json": json.dumps({"workspaces": patterns})})

    assert len(answer) == 1_001


@pytest.mark.slow
def test_workspaces_in_workspaces_are_matched_in_time() -> None:
    """Each directory of a long chain is a workspace of all below it."""
    content = json.dumps({"workspaces": [f"**/x{i}*" for i in range(100)]})

    answer = found({"/".join(["d"] * depth) + "/package.json": content for depth in range(1, 400)})

    assert len(answer) == 399


@pytest.mark.slow
def test_packages_of_one_name_are_not_joined_each_with_each() -> None:
    """Edges would grow with the square; the whole repository is what each depends on."""
    files = {f"p{i}/package.json": package("same", dependencies={"same": "*", "x": "*"}) for i in range(2_000)}
    files |= {f"q{i}/package.json": package(f"q{i}", dependencies={"same": "*"}) for i in range(1_000)}

    answer = touched(files, ["p3/a.js"])

    assert answer == {"p3", *(f"q{i}" for i in range(1_000))}


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings",
    [
        {"implicitDependencies": ["*"]},
        {"implicitDependencies": [f"*{i}*" for i in range(5_000)]},
        {"implicitDependencies": ["p*", "*a*a*a*a*a*a*b", "[" * 1_000, "tag:" + "*" * 1_000]},
        {"tags": ["t"] * 10_000, "implicitDependencies": ["tag:t"]},
        {"namedInputs": {"x": ["{workspaceRoot}/" + f"**/*{i}*" for i in range(5_000)]}},
    ],
)
def test_settings_of_nx_projects_are_read_in_time(settings: dict[str, object]) -> None:
    """Three hundred projects with each of them."""
    files = {f"p{i}/package.json": package(f"p{i}", nx=settings) for i in range(300)}

    answer = found(files | {"nx.json": "{}", "package.json": '{"workspaces": ["*"]}'})

    assert len(answer) == 301


@pytest.mark.slow
def test_inputs_of_turborepo_are_matched_in_time() -> None:
    """Past the bound every file counts."""
    globs = [f"**/*a*b*{i}*" for i in range(40_000)]
    files = {"package.json": '{"workspaces": ["*"]}', "a/package.json": package("a")}
    files["turbo.json"] = json.dumps({"globalDependencies": globs})

    assert touched(files, ["x/y.ts"]) == {".", "a"}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 2_000])
def test_configurations_that_extend_each_other_come_to_an_end(count: int) -> None:
    """In a circle, or in a chain longer than anybody's."""
    files = {f"tsconfig.{i}.json": json.dumps({"extends": f"./tsconfig.{(i + 1) % count}.json"}) for i in range(count)}
    files |= {"package.json": package("a"), "b/package.json": package("b")}

    reads = found(files | {"b/tsconfig.json": '{"extends": "../tsconfig.0.json"}'})["b"].reads

    assert "tsconfig.1.json" in reads
    assert len(reads) <= 102


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("package.json", '{"version": 1, "engines": 2, "volta": [], "nx": 3, "jest": {"reporters": 4}, "pnpm": 5}'),
        ("package.json", '{"dependencies": {"a": {"b": 1}, "c": null}, "packageManager": {}, "overrides": {"": 1}}'),
        ("package.json", '{"dependencies": {"a": "file:", "b": "file:\\u0000", "c": "npm:@", "d": "workspace:"}}'),
        ("package.json", '{"nx": {"targets": {"a": 1}, "tags": 2, "implicitDependencies": 3, "includedScripts": 4}}'),
        ("pnpm-workspace.yaml", "packages: {a: 1}"),
        ("pnpm-workspace.yaml", "- a"),
        ("pnpm-workspace.yaml", "[" * 10_000),
        ("turbo.json", '{"tasks": {"a": 1, "": {}, "#": {"dependsOn": ["#"]}}, "globalDependencies": 1, "global": 2}'),
        ("nx.json", '{"plugins": [1, {"plugin": 2}, null], "namedInputs": [], "targetDefaults": 1}'),
        (".nxignore", "[\n!!\n" * 1_000),
        (".nvmrc", "\n" * 100_000),
        (".tool-versions", "nodejs\n" * 1_000),
    ],
)
def test_an_unexpected_shape_is_no_crash(path: str, text: str) -> None:
    """People write what they like; their tools will tell them."""
    files = {"package.json": package("a"), "nx.json": "{}", "p/package.json": package("p")} | {path: text}

    assert "p" in found(files)


def test_a_declared_package_that_is_too_large_fails_the_plan() -> None:
    """Going on without it would report success for a package that nobody tested."""
    files = {"package.json": '{"workspaces": ["examples/*"]}', "examples/a/package.json": "{" + " " * 1_100_000 + "}"}

    with pytest.raises(PlanFailed, match=r"examples/a/package\.json is declared"):
        discovered(files)


@pytest.mark.parametrize(("count", "expected"), [(100, {".", "p7"}), (600, {".", *(f"p{i}" for i in range(600))})])
def test_more_globs_than_are_matched_count_as_matching(count: int, expected: set[str]) -> None:
    """One glob for each project: past the bound each of them is touched by every file."""
    files = {"package.json": "{}", "nx.json": "{}"}
    for index in range(count):
        inputs = [f"{{workspaceRoot}}/data/*-{index}.x"]
        files[f"p{index}/project.json"] = json.dumps({"name": f"p{index}", "targets": {"test": {"inputs": inputs}}})

    answer = touched(files, ["data/a-7.x"])

    assert answer == expected
