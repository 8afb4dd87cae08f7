"""Which scripts of a package are its checks, and for which members a script of the root is."""

import json

import pytest

from deltaci.planner.discovery.node_scripts import Filter, scripts_that_lint, scripts_that_test
from tests.planner.discovery.node_support import commands, found, package


@pytest.mark.parametrize(
    ("scripts", "run_by_ci", "expected"),
    [
        ({"lint": "eslint .", "typecheck": "tsc", "test": "x"}, [], ("lint", "typecheck")),
        # What mends succeeds for what nobody has committed.
        ({"lint": "eslint --fix .", "lint:check": "eslint ."}, [], ("lint:check",)),
        ({"lint": "biome lint --write", "lint:ci": "biome ci"}, [], ("lint:ci",)),
        ({"lint": "eslint --fix .", "format": "prettier --write ."}, ["format"], ("lint",)),
        ({"lint": "eslint --fix-dry-run ."}, [], ("lint",)),
        # Its own CI knows more names than we do.
        ({"lint": "eslint .", "format:check": "prettier -c .", "knip": "knip"}, ["knip", "format:check", "lint"],
         ("lint", "knip", "format:check")),
        ({"lint": "x", "lint-js": "eslint .", "lint-md": "mdl"}, ["lint-md", "lint-js"], ("lint-md", "lint-js")),
        # Formatters write what they find, unless they are told to look at it only.
        ({"lint": "x", "format": "oxfmt", "fmt": "prettier -l ."}, ["format", "fmt"], ("lint", "fmt")),
        ({"test": "x", "test:types": "tsc"}, ["test", "test:types"], ("test:types",)),
        ({"check": "svelte-check"}, ["check", "install", "deploy"], ("check",)),
        # What looks at something else than the change, or is never there.
        ({"lint": "x", "format:docs": "y", "check:links": "z", "check:size": "z"}, ["format:docs", "check:links",
         "check:size", "lint", "types"], ("lint",)),
    ],
)  # fmt: skip
def test_the_code_is_looked_at_by_what_checks_it(
    scripts: dict[str, str], run_by_ci: list[str], expected: tuple[str, ...]
) -> None:
    """The usual names first, then those that the repository's own CI runs."""
    assert scripts_that_lint(scripts, run_by_ci) == expected


@pytest.mark.parametrize(
    ("scripts", "run_by_ci", "expected"),
    [
        ({"build": "tsc", "test": "vitest"}, [], ("build", "test")),
        ({"test": "jest --watch", "test:ci": "jest --ci"}, [], ("test:ci",)),
        ({"test": "vitest --watch=false", "test:ci": "x"}, [], ("test",)),
        ({"test": "jest --watchAll", "test:unit": "jest"}, ["test:unit"], ("test:unit",)),
        ({"test": "jest --watch"}, [], ("test",)),
        ({"test:unit": "vitest run"}, [], ("test:unit",)),
        ({"unit": "x", "test:e2e": "y"}, ["test:e2e", "unit"], ("unit",)),
        ({"test": "x", "test-ci": "y"}, ["test-ci"], ("test-ci",)),
        ({"test": "x", "test-ci": "y"}, ["test-ci", "test"], ("test",)),
        ({"test": "x", "test:bun": "y"}, ["test:bun"], ("test",)),
        ({"build": "x", "test:browser": "y"}, ["test:browser"], ("build",)),
        ({}, ["test"], ()),
    ],
)
def test_it_is_run_by_the_script_that_ends(
    scripts: dict[str, str], run_by_ci: list[str], expected: tuple[str, ...]
) -> None:
    """A script that waits for changes would hold a runner until its time is up."""
    assert scripts_that_test(scripts, run_by_ci) == expected


@pytest.mark.parametrize(
    ("script", "left_out"),
    [
        ('pnpm run --filter="./packages/**/*" build', {"play/p", "apps/w"}),
        ("pnpm -r --filter='!./play/*' build", {"play/p"}),
        ("turbo build --filter=./packages/* --filter=w", {"play/p"}),
        ("pnpm --filter {packages/*} build", {"play/p", "apps/w"}),
        ("pnpm -F '@x/*' build", {"play/p", "apps/w"}),
        ("yarn workspaces foreach -A --include '@x/*' --include w run build", {"play/p"}),
        ("yarn workspaces foreach -A --exclude p run build", {"play/p"}),
        ("lerna run build --scope @x/a", {"play/p", "apps/w"}),
        ("pnpm -r --filter '!p' build && pnpm --filter p build", {"packages/a", "apps/w"}),
        # What also means others, or cannot be read, leaves out nobody.
        ("pnpm --filter ./packages/a... build", set()),
        ("turbo build --filter=[HEAD^1]", set()),
        ("turbo build --filter=$WHAT", set()),
        ("pnpm --filter '/' build", set()),
        ("pnpm -r build", set()),
        ("pnpm --filter 'unclosed build", set()),
    ],
)
def test_a_filter_of_the_root_says_whom_its_script_is_for(script: str, left_out: set[str]) -> None:
    """By directories or by names, as pnpm and Turborepo have it."""
    members = {"packages/a": "@x/a", "play/p": "p", "apps/w": "w"}
    rule = Filter(script, ".")

    assert {root for root, name in members.items() if rule.leaves_out(root, name)} == left_out


@pytest.mark.parametrize(
    ("own_ci", "expected"),
    [
        ("npm run compile --workspace=a", "npm run compile -w a\nnpm run build -w b\nnpm run compile -w c"),
        ("npm run build", "npm run build -w a -w b\nnpm run compile -w c"),
    ],
)
def test_a_package_is_built_by_the_script_that_the_own_ci_runs(own_ci: str, expected: str) -> None:
    """Some call it `compile`, some have both."""
    files = {
        "package.json": json.dumps({"workspaces": ["packages/*"]}),
        "packages/a/package.json": package("a", scripts={"build": "bundle", "compile": "tsc"}),
        "packages/b/package.json": package("b", scripts={"build": "x"}),
        "packages/c/package.json": package("c", scripts={"compile": "tsc", "test": "npm run compile && mocha"}),
        "packages/d/package.json": package("d", dependencies={"a": "*", "b": "*", "c": "*"}),
        ".github/workflows/ci.yml": f"steps:\n  - run: {own_ci}\n",
    }

    projects = found(files)

    assert commands(projects["packages/d"])[0] == (expected, ".")
    assert commands(projects["packages/c"]) == [("npm run test", "packages/c")]


def test_a_site_is_built_if_the_own_ci_knows_it() -> None:
    """Documents may hold packages to try a protocol with, and sites that are published by hand."""
    files = {"package.json": package("a"), "docs/x/package.json": package("x"), "docs/x/package-lock.json": ""}
    ci = {".github/workflows/ci.yml": "steps:\n  - run: npm test\n"}
    knows = {".github/workflows/ci.yml": "steps:\n  - run: npm run build\n    working-directory: docs/x\n"}

    assert [bool(found(files | more)["docs/x"].jobs) for more in ({}, ci, knows)] == [True, False, True]


def workspace(scripts: dict[str, str], **members: str) -> dict[str, str]:
    root = json.dumps({"workspaces": ["packages/*", "play/*"], "scripts": scripts})
    return {"package.json": root} | {f"{at}/package.json": text for at, text in members.items()}


def test_the_root_tests_what_was_built_where_its_members_are_found_built() -> None:
    """`main` points to what nobody commits: without a build first, the tests would not find their own packages."""
    scripts = {"build": "pnpm -r build", "test": "jest"}
    member = {"packages/a": package("a", main="./dist/index.js", scripts={"build": "tsc"})}
    in_source = {"packages/a": package("a", main="./src/index.js", scripts={"build": "tsc"})}

    assert commands(found(workspace(scripts, **member))["."]) == [("npm run build", "."), ("npm run test", ".")]
    assert commands(found(workspace(scripts, **in_source))["."]) == [("npm run test", ".")]
    others = {"build": "pnpm -r build", "test": "npm run test:unit && pnpm -r test", "test:unit": "jest"}
    tested = {"packages/a": package("a", main="./dist/index.js", scripts={"build": "tsc", "test": "jest"})}
    assert commands(found(workspace(others, **tested))["."]) == [("npm run build", "."), ("npm run test:unit", ".")]


def test_a_member_that_the_root_leaves_out_is_not_built() -> None:
    """Such as a template or a playground; one with tests of its own is tested as any other."""
    scripts = {"build": "pnpm --filter './packages/*' build"}
    members = {
        "packages/a": package("a", scripts={"build": "x"}),
        "play/p": package("p", scripts={"build": "x"}),
        "play/q": package("q", scripts={"build": "x", "test": "y"}),
    }

    projects = found(workspace(scripts, **members))

    assert commands(projects["packages/a"]) == [("npm run build", "packages/a")]
    assert projects["play/p"].jobs == ()
    assert commands(projects["play/q"]) == [("npm run test", "play/q")]


def test_a_member_inside_the_tests_of_another_has_no_job() -> None:
    """It is one only to be installed; the tests of the package around it use it."""
    files = {
        "package.json": json.dumps({"workspaces": ["packages/*", "packages/*/test/fixtures/*"]}),
        "packages/a/package.json": package("a"),
        "packages/a/test/fixtures/f/package.json": package("f"),
    }

    projects = found(files)

    assert projects["packages/a/test/fixtures/f"].jobs == ()
    assert commands(projects["packages/a"]) == [("npm run test", "packages/a")]


def test_an_example_is_checked_only_if_the_root_has_no_script_of_its_own_for_that() -> None:
    """A root that tests its packages by a script that calls another one, with a filter, leaves the examples out."""
    scripts = {"test": "yarn test:all", "test:all": "yarn workspaces foreach -A --include '@x/*' run test"}
    members = {"packages/a": package("@x/a"), "play/examples/e": package("e"), "play/p": package("p")}
    members |= {f"packages/{name}": package(name, scripts={}) for name in "bcde"}  # tested by the root, if by anybody
    files = workspace(scripts, **members)
    files["package.json"] = files["package.json"].replace('"play/*"', '"play/*", "play/examples/*"')
    own = files | {"package.json": files["package.json"].replace("yarn test:all", "vitest run")}

    assert {root for root, project in found(files).items() if project.jobs} == {"packages/a"}
    assert {root for root, project in found(own).items() if project.jobs} == {".", "packages/a", "play/p"}


def test_an_example_that_is_looked_at_by_a_browser_is_not_tested() -> None:
    """Somebody has to start it first; other checks of it are run."""
    scripts = {"test": "playwright test", "build": "next build", "lint": "eslint ."}
    files = {
        "package.json": json.dumps({"workspaces": ["examples/*"]}),
        "examples/a/package.json": package("a", scripts=scripts),
    }

    assert [job.check for job in found(files)["examples/a"].jobs] == ["lint"]


def test_the_root_builds_what_its_members_have_no_script_for() -> None:
    """One build for all packages, as compilers have it: an example that uses them is tested after it."""
    scripts = {"build": "node scripts/build.js", "test": "x"}
    members = {
        "packages/a": package("a", main="build/index.js", scripts={}),
        "play/p": package("p", dependencies={"a": "*"}),
        "play/q": package("q"),
    }

    projects = found(workspace(scripts, **members))

    assert commands(projects["play/p"]) == [("npm run build", "."), ("npm run test", "play/p")]
    assert commands(projects["play/q"]) == [("npm run test", "play/q")]


def test_the_root_is_built_for_a_member_that_needs_the_root_itself() -> None:
    """A library whose sites and trials are the members of its workspace."""
    files = workspace({}, **{"play/p": package("p", devDependencies={"whole": "workspace:*"}), "play/q": package("q")})
    content = json.loads(files["package.json"])
    content |= {"name": "whole", "main": "dist/index.js", "scripts": {"build": "rollup -c"}}

    projects = found(files | {"package.json": json.dumps(content)})

    assert commands(projects["play/p"]) == [("npm run build", "."), ("npm run test", "play/p")]
    assert commands(projects["play/q"]) == [("npm run test", "play/q")]


def test_the_own_ci_of_a_repository_names_scripts_of_its_root() -> None:
    """Of members only those that the root runs of all: by the same name it means its own."""
    ci = {".github/workflows/ci.yml": "      - run: npm run check\n      - run: npm run format:check\n"}
    scripts = {"check": "npm run check --workspaces", "format:check": "prettier -c ."}
    members = {f"packages/{name}": package(name, scripts={"check": "tsc"}) for name in "bcd"}
    members["packages/a"] = package("a", scripts={"check": "tsc", "format:check": "prettier -c ."})

    projects = found(workspace(scripts, **members) | ci)

    assert commands(projects["."], "lint") == [("npm run format:check", ".")]
    assert commands(projects["packages/a"], "lint") == [("npm run check", "packages/a")]
