"""Which packages a change touches: the real Turborepo is asked, and ours must say the same, or more for a reason."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.planner.agreement import frame
from tests.planner.agreement.frame import ROOT, random_answers
from tests.planner.agreement.tools import turbo_affected
from tests.planner.agreement.workspaces import TURBO, lock, members, package, workspace

pytestmark = pytest.mark.slow

MANIFESTS = {
    "a": package("a"),
    "b": package("b", dependencies={"a": "^1.0.0"}),
    "c": package("c", devDependencies={"b": "*"}),
    "d": package("d", optionalDependencies={"a": "1.x"}),
    "e": package("e", dependencies={"a": "^2.0.0", "left-pad": "^1.0.0"}),
    "f": package("f", peerDependencies={"c": "^1.0.0"}),
    "g": package("g"),
}
ALL = members(MANIFESTS)
answers = partial(frame.answers, asked=turbo_affected)


@pytest.mark.parametrize("seed", range(4))
def test_random_workspaces_are_seen_as_turborepo_sees_them(tmp_path: Path, seed: int) -> None:
    """Thirty packages with random edges, eight random changes of one to three packages each: the very same packages."""
    for (ours, theirs), edits in random_answers(tmp_path, TURBO, asked=turbo_affected, seed=seed, count=8):
        assert ours == members(theirs - {"//"}, scope="@x/") | ROOT, edits


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("packages/d/index.js", {"d"}),
        ("packages/f/index.js", {"f"}),
        ("packages/e/index.js", {"e"}),  # a range that 1.0.0 does not satisfy is the registry's
        ("packages/g/package.json", {"g"}),
        ("packages/g/turbo.json", {"g"}),
        ("config/shared.json", set(MANIFESTS)),  # globalDependencies
    ],
)
def test_a_change_in_one_place_touches_the_same(tmp_path: Path, path: str, expected: set[str]) -> None:
    """Files of one package that nothing depends on, and a file that the configuration calls global."""
    texts = {
        "packages/g/package.json": package("g", description="x"),
        "packages/g/turbo.json": '{"extends": ["//"], "tasks": {}} ',
    }

    ours, theirs = answers(tmp_path, workspace(MANIFESTS, TURBO), {path: texts.get(path, '{"changed": 1}')})
    theirs.discard("//")

    assert theirs == expected
    assert ours == members(theirs) | ROOT


@pytest.mark.parametrize(
    ("path", "expected"),
    [("packages/a/index.js", {*"abcd"}), ("packages/b/index.js", {*"bc"}), ("packages/c/index.js", {"c"})],
)
def test_a_change_reaches_the_same_dependents_and_those_by_peer_dependency(
    tmp_path: Path, path: str, expected: set[str]
) -> None:
    """Transitively, through every kind of dependency; f needs c as a peer, which Turborepo does not count."""
    ours, theirs = answers(tmp_path, workspace(MANIFESTS, TURBO), {path: "changed"})
    theirs.discard("//")

    assert theirs == expected
    assert ours == members(theirs) | {"packages/f"} | ROOT


@pytest.mark.parametrize(
    ("edits", "same"),
    [
        ({"packages/e/index.js": None, "packages/g/moved.js": ""}, {*"eg"}),
        ({"packages/g/index.js": None}, {"g"}),
        ({"packages/h/package.json": package("h", dependencies={"g": "*"})}, {"h"}),
        ({"packages/h/package.json": package("h"), "packages/d/index.js": "x"}, {*"dh"}),
    ],
)
def test_moves_deletions_and_new_packages_touch_the_same(
    tmp_path: Path, edits: dict[str, str | None], same: set[str]
) -> None:
    """A move counts for where the file was and where it is."""
    files = workspace(MANIFESTS, TURBO)

    ours, theirs = answers(tmp_path, files, edits)
    theirs.discard("//")

    assert theirs == same
    assert ours == members(theirs) | ROOT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("turbo.json", "the tasks of all packages are there"),
        ("package.json", "what is installed for all packages is there; that it is only a script cannot be told"),
        (".gitignore", "dot files at the root may be settings of any tool"),
        ("eslint.config.js", "a configuration at the root is found by tools from inside of every package"),
    ],
)
def test_files_at_the_root_touch_all_where_turborepo_takes_the_root_alone(
    tmp_path: Path, path: str, reason: str
) -> None:
    """Uncertainty expands: exactly all members more."""
    files = workspace(MANIFESTS, TURBO)
    after = files.get(path, "{}").replace('"private"', '"description": "x", "private"') + "\n"

    ours, theirs = answers(tmp_path, files, {path: after})
    theirs.discard("//")

    assert theirs in (set(), set(MANIFESTS))
    assert ours == ALL | ROOT, reason


@pytest.mark.parametrize("path", ["index.js", "tools/release.js"])
def test_sources_of_a_root_without_jobs_touch_all_here_and_the_root_alone_there(tmp_path: Path, path: str) -> None:
    """Nothing runs for the root by itself, so that its sources may be what the packages are built with."""
    ours, theirs = answers(tmp_path, workspace(MANIFESTS, TURBO), {path: "changed"})

    assert theirs == {"//"}
    assert ours == ALL | ROOT


@pytest.mark.parametrize(("path", "expected"), [("README.md", {"//"}), ("packages/a/README.md", {*"abcd"})])
def test_documentation_touches_nothing_here(tmp_path: Path, path: str, expected: set[str]) -> None:
    """No build depends on it; Turborepo knows no documentation."""
    ours, theirs = answers(tmp_path, workspace(MANIFESTS, TURBO), {path: "changed"})

    assert theirs == expected
    assert ours == set()


def test_a_deleted_package_touches_all_where_turborepo_forgets_its_dependents(tmp_path: Path) -> None:
    """Who depended on it cannot be told any more; those who still name it do not even install."""
    edits = {path: None for path in workspace(MANIFESTS, TURBO) if path.startswith("packages/a/")}

    ours, theirs = answers(tmp_path, workspace(MANIFESTS, TURBO), edits)

    assert theirs - {"//"} == set()
    assert ours == (ALL - {"packages/a"}) | ROOT


def test_a_renamed_package_touches_those_that_depended_on_it(tmp_path: Path) -> None:
    """All of them, since its old manifest is gone; Turborepo sees the new package alone."""
    files = workspace(MANIFESTS, TURBO)
    edits: dict[str, str | None] = {path: None for path in files if path.startswith("packages/g/")}
    edits |= {f"packages/h/{name}": files[f"packages/g/{name}"] for name in ("package.json", "index.js")}

    ours, theirs = answers(tmp_path, files, edits)

    assert theirs - {"//"} == {"g"}
    assert ours == (ALL - {"packages/g"}) | {"packages/h"} | ROOT


def test_a_lock_file_that_changed_for_one_package_touches_all_here(tmp_path: Path) -> None:
    """At the level of files a lock file is everybody's; Turborepo compares what each package resolves to."""
    files = workspace(MANIFESTS, TURBO)
    content = json.loads(lock(files))
    content["packages"]["node_modules/left-pad"] = {"version": "1.0.0", "integrity": "sha512-a"}
    files["package-lock.json"] = json.dumps(content)
    content["packages"]["node_modules/left-pad"] = {"version": "1.0.1", "integrity": "sha512-b"}

    ours, theirs = answers(tmp_path, files, {"package-lock.json": json.dumps(content)})

    assert theirs - {"//"} == {"e"}
    assert ours == ALL | ROOT


def test_what_the_root_depends_on_concerns_every_package_in_both(tmp_path: Path) -> None:
    """Turborepo counts the root's own local dependencies as global ones."""
    files = workspace(MANIFESTS, TURBO, devDependencies={"g": "*"})

    ours, theirs = answers(tmp_path, files, {"packages/g/index.js": "changed"})

    assert theirs - {"//"} == set(MANIFESTS)
    assert ours == ALL | ROOT


def test_inputs_outside_of_a_package_touch_it_here_and_not_there(tmp_path: Path) -> None:
    """They are in the hash of its task, so its result may change; Turborepo's filter looks at packages alone."""
    own = '{"extends": ["//"], "tasks": {"build": {"inputs": ["$TURBO_DEFAULT$", "$TURBO_ROOT$/tools/*.js"]}}}'
    files = workspace(MANIFESTS, TURBO) | {"packages/g/turbo.json": own}

    ours, theirs = answers(tmp_path, files, {"tools/release.js": "changed"})

    assert theirs == {"//"}
    assert ours == {"packages/g"} | ROOT
