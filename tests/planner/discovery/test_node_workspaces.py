"""Members of workspaces, and which dependencies mean a package of the repository."""

import json

import pytest

from deltaci.planner.discovery.node_workspaces import expand
from tests.planner.agreement.workspaces import touched
from tests.planner.discovery.node_support import commands, discovered, found, install, package


def members_of(files: dict[str, str]) -> set[str]:
    """The packages that install at the root."""
    return {root for root, project in found(files).items() if root != "." and install(project).workdir == "."}


PLACES = ("packages/a", "packages/a/nested", "packages/b", "apps/web", "tools/cli", "examples/demo", "tests/e2e/app")


def repository(**files: str) -> dict[str, str]:
    return {f"{place}/package.json": package(place.rpartition("/")[2]) for place in PLACES} | files


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["packages/*"], {"packages/a", "packages/b"}),
        (["./packages/*/", "apps/web"], {"packages/a", "packages/b", "apps/web"}),
        (["packages/**"], {"packages/a", "packages/a/nested", "packages/b"}),
        (["{packages,apps}/*", "!packages/b"], {"packages/a", "apps/web"}),
        (["examples/*"], {"examples/demo"}),
        (["tests/**"], {"tests/e2e/app"}),
        (["packages/@(a|b)"], {"packages/a", "packages/b"}),
        (["packages/a", "packages/a", "../outside/*", ".", "", "/"], {"packages/a"}),
        # A pattern that we cannot read may mean any package that is not left out by its place.
        (["packages/(a|b)"], {*PLACES} - {"examples/demo", "tests/e2e/app"}),
        (["packages/[z-a]"], {*PLACES} - {"examples/demo", "tests/e2e/app"}),
        # A negation that we cannot read leaves out nothing.
        (["packages/*", "!packages/(a|b)"], {"packages/a", "packages/b"}),
    ],
)
@pytest.mark.parametrize("kind", ["list", "object", "pnpm"])
def test_a_workspace_has_the_members_that_its_patterns_mean(kind: str, patterns: list[str], expected: set[str]) -> None:
    """Exactly those directories: what is inside a member is no member, and a declared one counts wherever it is."""
    content = {"list": {"workspaces": patterns}, "object": {"workspaces": {"packages": patterns}}, "pnpm": {}}[kind]
    files = repository(**{"package.json": json.dumps(content)})
    if kind == "pnpm":
        files["pnpm-workspace.yaml"] = f"packages: {json.dumps(patterns)}\ncatalog:\n  react: ^18.0.0\n"

    assert members_of(files) == expected


def test_npm_lets_a_later_pattern_take_in_again_and_pnpm_does_not() -> None:
    """In npm the order counts; in pnpm a negation always wins."""
    patterns = ["packages/*", "!packages/a", "packages/a"]

    by_npm = members_of(repository(**{"package.json": json.dumps({"workspaces": patterns})}))
    by_pnpm = members_of(
        repository(**{"pnpm-workspace.yaml": f"packages: {json.dumps(patterns)}", "package.json": "{}"})
    )

    assert by_npm == {"packages/a", "packages/b"}
    assert by_pnpm == {"packages/b"}


def test_a_pnpm_file_with_anchors_may_list_all_packages() -> None:
    """We refuse aliases; what we do not read expands."""
    files = repository(**{"package.json": "{}", "pnpm-workspace.yaml": "packages: &p ['packages/*']\nx: *p\n"})

    assert members_of(files) == {*PLACES} - {"examples/demo", "tests/e2e/app"}


def test_what_a_workspace_declares_is_not_told_to_be_left_out() -> None:
    """Only the example that nobody declared is."""
    files = repository(**{"package.json": '{"workspaces": ["examples/*"]}'})

    answer = discovered(files)

    assert [(reason.rule, reason.file) for reason in answer.reasons] == [("left-out", "tests/e2e/app/package.json")]


def test_what_is_installed_is_never_a_member() -> None:
    """Whatever the patterns say."""
    files = {"package.json": '{"workspaces": ["**"]}', "node_modules/x/package.json": "no JSON"}

    assert set(found(files)) == {"."}


def test_an_undeclared_broken_example_is_none_of_our_business() -> None:
    """Fixtures are broken on purpose."""
    assert set(found({"package.json": package("a"), "tests/fixtures/x/package.json": "{"})) == {"."}


@pytest.mark.parametrize(
    ("version", "is_local"),
    [
        ("workspace:*", True),
        ("workspace:^", True),
        ("*", True),
        ("", True),
        ("^1.0.0", True),
        ("1.x || 2.x", True),
        (">= 1.2", True),  # unusual, so in doubt it is local
        ("latest", True),
        ("catalog:", True),
        ("npm:lib@^1.2.0", True),
        ("^2.0.0", False),
        ("0.x", False),
        ("npm:other@^1.0.0", True),
        ("git+https://example.org/lib.git", False),
        ("https://example.org/lib.tgz", False),
        (7, True),
    ],
)
@pytest.mark.parametrize("kind", ["dependencies", "devDependencies", "peerDependencies", "optionalDependencies"])
def test_a_dependency_is_local_unless_its_version_certainly_is_not(kind: str, version: object, is_local: bool) -> None:
    """A range that the local version does not satisfy is fetched; in doubt it is the local one."""
    files = {
        "package.json": '{"workspaces": ["*"]}',
        "lib/package.json": package("lib", version="1.2.3"),
        "app/package.json": package("app", **{kind: {"lib": version}}),
    }

    assert ("app" in touched(files, ["lib/a.js"])) is is_local


def test_a_prerelease_here_may_satisfy_a_range() -> None:
    """Whether it does is a matter of settings."""
    files = {
        "package.json": '{"workspaces": ["*"]}',
        "lib/package.json": package("lib", version="2.0.0-beta.1"),
        "app/package.json": package("app", dependencies={"lib": "^2.0.0"}),
    }

    assert "app" in touched(files, ["lib/a.js"])


@pytest.mark.parametrize("key", ["lib", "lib@2", "app>lib", "**/lib"])
@pytest.mark.parametrize("table", ["overrides", "resolutions"])
def test_what_the_root_overrides_is_local_whatever_the_range_says(table: str, key: str) -> None:
    """The package's own version says nothing then."""
    files = {
        "package.json": json.dumps({"workspaces": ["*"], table: {key: "file:./lib"}}),
        "lib/package.json": package("lib"),
        "app/package.json": package("app", dependencies={"lib": "^9.0.0"}),
    }

    assert "app" in touched(files, ["lib/a.js"])


@pytest.mark.parametrize(
    ("version", "path"),
    [("file:../lib", "lib/a.js"), ("link:../lib/dist", "lib/dist/a.js"), ("portal:../lib", "lib/a.js")],
)
def test_a_path_leads_to_the_package_there(version: str, path: str) -> None:
    """Under whatever name."""
    files = {"lib/package.json": package("lib"), "app/package.json": package("app", dependencies={"x": version})}

    assert touched(files, [path]) == {"lib", "app"}


def test_a_path_to_a_tarball_is_a_file_that_is_read() -> None:
    """It belongs to no package."""
    files = {
        "package.json": package("root"),
        "app/package.json": package("app", dependencies={"x": "file:../vendored/x.tgz"}),
    }

    assert touched(files, ["vendored/x.tgz"]) == {".", "app"}


def test_a_change_of_catalogs_touches_the_members() -> None:
    """pnpm-workspace.yaml says what `catalog:` means."""
    files = {
        "web/package.json": "{}",
        "web/pnpm-workspace.yaml": "packages: ['*']\ncatalog: {react: ^18.0.0}\n",
        "web/app/package.json": package("app", dependencies={"react": "catalog:"}),
        "other/package.json": package("other"),
    }

    assert touched(files, ["web/pnpm-workspace.yaml"]) == {"web", "web/app"}


@pytest.mark.parametrize("name", [".npmrc", ".eslintrc.cjs", "vite.config.ts", "jest.preset.js", "patches/x.patch"])
def test_settings_at_the_root_of_a_workspace_concern_its_members(name: str) -> None:
    """Tools look for them from inside of every member; a source there is the root's alone."""
    files = {
        "web/package.json": '{"workspaces": ["*"], "scripts": {"lint": "eslint ."}}',
        "web/app/package.json": package("app"),
        "other/package.json": package("other"),
    }

    assert touched(files, [f"web/{name}"]) == {"web", "web/app"}
    assert touched(files, ["web/index.js"]) == {"web"}


CHAIN = {
    "a/package.json": package("@x/a", scripts={"build": "tsc", "test": "jest"}, dependencies={"@x/b": "*"}),
    "b/package.json": package("@x/b", scripts={"build": "tsc"}, devDependencies={"@x/c": "*", "@x/d": "*"}),
    "c/package.json": package("@x/c", scripts={"build": "tsc"}),
    "d/package.json": package("@x/d", scripts={"test": "jest"}, dependencies={"@x/c": "*", "@x/a": "*"}),
}


@pytest.mark.parametrize(
    ("lock", "expected"),
    [
        ("package-lock.json", [("npm run build -w @x/c -w @x/b", "."), ("npm run build", "a"), ("npm run test", "a")]),
        (
            "pnpm-lock.yaml",
            [('npx --yes pnpm --filter "@x/a..." run build', "."), ("npx --yes pnpm run test", "a")],
        ),
        (
            "yarn.lock",
            [
                ("npx --yes yarn workspace @x/c run build\nnpx --yes yarn workspace @x/b run build", "."),
                ("npx --yes yarn run build", "a"),
                ("npx --yes yarn run test", "a"),
            ],
        ),
        (
            "bun.lock",
            [
                ("npx --yes bun run build", "c"),
                ("npx --yes bun run build", "b"),
                ("npx --yes bun run build", "a"),
                ("npx --yes bun run test", "a"),
            ],
        ),
    ],
)
def test_what_a_package_needs_is_built_before_it(lock: str, expected: list[tuple[str, str]]) -> None:
    """What others need first, a cycle cut where it closes, packages without anything to build left out."""
    files = CHAIN | {"package.json": '{"workspaces": ["*"]}', lock: ""}
    if lock.startswith("pnpm"):
        files["pnpm-workspace.yaml"] = "packages: ['*']"

    assert commands(found(files)["a"]) == expected


def test_a_package_that_needs_too_much_has_the_workspace_built() -> None:
    """Commands must not grow with the repository."""
    files = {
        f"p{i}/package.json": package(f"p{i}", scripts={"build": "b"}, dependencies={f"p{i - 1}": "*"})
        for i in range(60)
    }
    files |= {"package.json": '{"workspaces": ["*"], "scripts": {"build": "npm run build --workspaces"}}'}

    assert commands(found(files)["p59"])[0] == ("npm run build", ".")


def test_types_are_checked_only_after_what_they_come_from_is_built() -> None:
    """A linter needs no build; a type checker does."""
    files = CHAIN | {"package.json": '{"workspaces": ["*"]}'}
    files["e/package.json"] = package("e", scripts={"lint": "eslint .", "typecheck": "tsc"}, dependencies={"@x/c": "*"})
    files["f/package.json"] = package("f", scripts={"lint": "eslint ."}, dependencies={"@x/c": "*"})

    answer = found(files)

    assert [run for run, _ in commands(answer["e"], "lint")] == [
        "npm run build -w @x/c",
        "npm run lint",
        "npm run typecheck",
    ]
    assert [run for run, _ in commands(answer["f"], "lint")] == ["npm run lint"]


@pytest.mark.parametrize(
    ("scripts", "members", "is_run"),
    [
        ({"test": "node tools/check.js"}, 1, True),
        ({"test": "node tools/check.js"}, 2, False),  # most have it: it is likely to run theirs
        ({"test": "npm run unit && npm run e2e", "unit": "vitest run", "e2e": "playwright test"}, 1, True),
        ({"test": "npm test -w a"}, 1, False),
        ({"test": "pnpm -r --parallel run test"}, 1, False),
        ({"test": "cd packages/a && npm test"}, 1, False),
        ({"test": "run-p 'test:*'", "test:all": "lerna run test"}, 1, False),
        ({"test": "npm run a", "a": "npm run b", "b": "npm run a"}, 1, True),
    ],
)
def test_a_script_of_the_root_runs_unless_it_runs_those_of_members(
    scripts: dict[str, str], members: int, is_run: bool
) -> None:
    """What only the root tests is tested by nobody else; what runs the members' scripts would run them twice."""
    files = {f"{name}/package.json": package(name, scripts={}) for name in "abc"}
    files |= {f"{name}/package.json": package(name) for name in "ab"[:members]}
    files["package.json"] = json.dumps({"workspaces": ["a", "b", "c"], "scripts": scripts})

    assert bool(found(files)["."].jobs) == is_run


def test_the_root_is_tested_after_the_members_that_it_uses_are_built() -> None:
    """By its own script for that, as people do it; a root that uses none builds none."""
    member = {"packages/a/package.json": package("a", scripts={"build": "b"})}
    content = {"workspaces": ["packages/*"], "scripts": {"test": "vitest run", "build": "npm run build --workspaces"}}
    using = content | {"devDependencies": {"a": "workspace:*"}}

    assert commands(found(member | {"package.json": json.dumps(content)})["."]) == [("npm run test", ".")]
    assert commands(found(member | {"package.json": json.dumps(using)})["."]) == [
        ("npm run build", "."),
        ("npm run test", "."),
    ]


def test_what_is_inside_a_member_but_is_none_and_has_no_lock_has_no_job() -> None:
    """Such as templates of a generator: nobody installs them there. With a lock of its own it is a project."""
    files = {
        "package.json": '{"workspaces": ["packages/*"]}',
        "package-lock.json": "",
        "packages/create/package.json": package("create"),
        "packages/create/template-x/package.json": package("x"),
        "packages/create/site/package.json": package("site"),
        "packages/create/site/package-lock.json": "",
        "web/package.json": package("web"),
    }

    answer = found(files)

    assert {root for root, project in answer.items() if project.jobs} == {
        "packages/create",
        "packages/create/site",
        "web",
    }
    assert touched(files, ["packages/create/template-x/index.html"]) >= {"packages/create"}


def test_an_example_that_can_only_be_built_is_not_a_check() -> None:
    """Members of a workspace or not: with tests of its own it is run as any other."""
    files = {
        "package.json": '{"workspaces": ["examples/*", "playground/**"]}',
        "examples/a/package.json": package("a", scripts={"build": "x"}),
        "examples/b/package.json": package("b", scripts={"build": "x", "test": "y"}),
        "playground/c/package.json": package("c", scripts={"build": "x", "lint": "y"}),
    }

    answer = {root: [job.check for job in project.jobs] for root, project in found(files).items()}

    assert answer == {".": [], "examples/a": [], "examples/b": ["test"], "playground/c": ["lint"]}


def test_a_manifest_that_is_gone_touches_all_packages_and_no_other_project() -> None:
    """Who depended on it cannot be told any more."""
    files = {"a/package.json": package("a"), "b/package.json": package("b"), "svc/go.mod": "module s\n"}
    root = {"package.json": '{"scripts": {"test": "x"}}'}

    assert touched(files, ["gone/package.json"]) == {"a", "b", "svc"}  # a file of no project is everybody's
    assert touched(files | root, ["gone/package.json"]) == {".", "a", "b"}
    assert touched(files | root, ["tests/gone/package.json"]) == {"."}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("a/{b,c}/*", {"a/b/*", "a/c/*"}),
        ("{a,b{c,d}}", {"a", "bc", "bd"}),
        ("v{1..3}", {"v*"}),
        ("!(a)", {"*"}),
        ("{a", None),
        ("(a|b)", None),
        ("{a,b}" * 10, None),
        ("{" * 400, None),
    ],
)
def test_braces_are_expanded_within_bounds(pattern: str, expected: set[str] | None) -> None:
    """Together the answers match at least what the pattern does."""
    answer = expand(pattern)

    assert (None if answer is None else set(answer)) == expected
