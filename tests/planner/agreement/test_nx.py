"""Which projects a change touches: the real Nx is asked, and ours must say the same, or more for a reason."""

import json
from functools import partial
from pathlib import Path

import pytest

from tests.planner.agreement import frame
from tests.planner.agreement.frame import ROOT, random_answers
from tests.planner.agreement.tools import nx_affected
from tests.planner.agreement.workspaces import NX, Repository, lock, members, package, workspace

pytestmark = pytest.mark.slow

MANIFESTS = {
    "a": package("a"),
    "b": package("b", dependencies={"a": "^1.0.0"}),
    "c": package("c", devDependencies={"b": "*"}),
    "d": package("d", optionalDependencies={"a": "1.x"}),
    "e": package("e", peerDependencies={"c": "^1.0.0"}),
    "f": package("f", nx={"implicitDependencies": ["g"]}),
    "g": package("g"),
    "h": package("h", dependencies={"g": "*", "a": "*"}, nx={"implicitDependencies": ["!g"]}),
    "i": package("i", nx={"targets": {"build": {"inputs": ["default", "{workspaceRoot}/tools/release.js"]}}}),
}
ALL = members(MANIFESTS)
answers = partial(frame.answers, asked=nx_affected)


@pytest.mark.parametrize("seed", range(2))
def test_random_workspaces_are_seen_as_nx_sees_them(tmp_path: Path, seed: int) -> None:
    """Thirty packages with random edges, four random changes of one to three packages each: the very same projects."""
    for (ours, theirs), edits in random_answers(tmp_path, NX, asked=nx_affected, seed=100 + seed, count=4):
        assert ours == members(theirs, scope="@x/") | ROOT, edits


@pytest.mark.parametrize(
    ("edits", "expected"),
    [
        ({"packages/a/index.js": "x"}, {*"abcdeh"}),  # transitively, through every kind of dependency
        ({"packages/c/index.js": "x"}, {*"ce"}),
        ({"packages/g/index.js": "x"}, {*"fg"}),  # an implicit dependency, and one that is taken away
        ({"tools/release.js": "x"}, {*"i"}),  # an input of one target
        ({"config/shared.json": "[]"}, set(MANIFESTS)),  # a named input of the default of all
        ({"nx.json": json.dumps({**json.loads(NX["nx.json"]), "parallel": 1})}, set(MANIFESTS)),
        ({"packages/a/index.js": None, "packages/i/moved.js": ""}, {*"abcdehi"}),
        ({"packages/i/index.js": None}, {*"i"}),
        ({"packages/j/package.json": package("j", dependencies={"i": "*"})}, {*"j"}),
    ],
)
def test_a_change_touches_the_same(tmp_path: Path, edits: dict[str, str | None], expected: set[str]) -> None:
    """Each kind of edge, files outside of all projects, moves, deletions and new packages."""
    ours, theirs = answers(tmp_path, workspace(MANIFESTS, NX), edits)

    assert theirs == expected
    assert ours == members(theirs) | ROOT


def test_a_deleted_project_and_a_lock_file_touch_all_in_both(tmp_path: Path) -> None:
    """Who depended on it cannot be told any more, and who uses what was locked not by the name of the file."""
    files = workspace(MANIFESTS, NX)
    repository = Repository(tmp_path, files)

    gone = repository.change({path: None for path in files if path.startswith("packages/i/")})
    theirs = nx_affected(repository.path)
    repository.back()
    locked = repository.change({"package-lock.json": lock(files) + "\n"})

    assert theirs == MANIFESTS.keys() - {"i"}
    assert gone == members(theirs) | ROOT
    assert nx_affected(repository.path) == MANIFESTS.keys()
    assert locked == ALL | ROOT


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("package.json", "what is installed for all packages is there; that it is only a description cannot be told"),
        ("eslint.config.js", "a configuration at the root is found by tools from inside of every package"),
    ],
)
def test_files_at_the_root_touch_all_where_nx_takes_none(tmp_path: Path, path: str, reason: str) -> None:
    """Uncertainty expands: exactly all members more."""
    files = workspace(MANIFESTS, NX)
    after = files.get(path, "").replace('"private"', '"description": "x", "private"') + "\n"

    ours, theirs = answers(tmp_path, files, {path: after})

    assert theirs == set()
    assert ours == ALL | ROOT, reason


@pytest.mark.parametrize(("path", "expected"), [("README.md", set()), ("packages/i/README.md", {"i"})])
def test_documentation_touches_nothing_here(tmp_path: Path, path: str, expected: set[str]) -> None:
    """No build depends on it; Nx knows no documentation."""
    ours, theirs = answers(tmp_path, workspace(MANIFESTS, NX), {path: "changed"})

    assert theirs == expected
    assert ours == set()


def test_a_range_that_is_not_satisfied_is_the_registry_here_and_local_in_nx(tmp_path: Path) -> None:
    """Package managers install what satisfies the range; Nx takes the local one for want of another."""
    manifests = {"a": package("a"), "z": package("z", dependencies={"a": "^2.0.0"})}

    ours, theirs = answers(tmp_path, workspace(manifests, NX), {"packages/a/index.js": "changed"})

    assert theirs == {"a", "z"}
    assert ours == members({"a"}) | ROOT


INTEGRATED = {
    "package.json": '{"name": "root", "private": true}',
    "package-lock.json": '{"name": "root", "lockfileVersion": 3, "packages": {"": {"name": "root"}}}',
    "tsconfig.base.json": json.dumps(
        {"compilerOptions": {"paths": {"@x/ui": ["libs/ui/src/index.ts"], "@x/db": ["libs/db/src/index.ts"]}}}
    ),
    "nx.json": json.dumps({**json.loads(NX["nx.json"]), "pluginsConfig": {"@nx/js": {"analyzeSourceFiles": True}}}),
    "apps/web/project.json": '{"name": "web", "targets": {"build": {}}}',
    "apps/web/src/main.ts": "import '@x/ui';\n",
    "libs/ui/project.json": '{"name": "ui", "targets": {"build": {}}, "tags": ["scope:web"]}',
    "libs/ui/src/index.ts": "",
    "libs/db/project.json": '{"name": "db", "targets": {"build": {}}}',
    "libs/db/src/index.ts": "",
    "apps/e2e/project.json": '{"name": "web-e2e", "implicitDependencies": ["web", "!ui", "!db"], "targets": {}}',
}


@pytest.mark.parametrize(
    ("path", "expected", "more"),
    [
        ("libs/ui/src/index.ts", {"libs/ui", "apps/web", "apps/e2e"}, {"libs/db", "."}),
        ("libs/db/src/index.ts", {"libs/db"}, {"libs/ui", "apps/web", "apps/e2e", "."}),
        ("apps/web/src/main.ts", {"apps/web", "apps/e2e"}, {"."}),
        ("apps/e2e/src/a.ts", {"apps/e2e"}, {"."}),
    ],
)
def test_projects_without_manifests_depend_on_all_that_they_may_import(
    tmp_path: Path, path: str, expected: set[str], more: set[str]
) -> None:
    """Nx reads imports in sources, we read none: whatever `paths` map to, any of them may import."""
    roots = {"web": "apps/web", "ui": "libs/ui", "db": "libs/db", "web-e2e": "apps/e2e"}

    ours, theirs = answers(tmp_path, INTEGRATED, {path: INTEGRATED.get(path, "") + "// changed\n"})

    assert {roots[name] for name in theirs} == expected
    assert ours == expected | more
