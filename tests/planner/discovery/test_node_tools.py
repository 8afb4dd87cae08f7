"""Package managers, versions, caches and reports of Node projects."""

import json

import pytest

from deltaci.domain.project import Project
from tests.planner.discovery.node_support import found, install, job, package


def one(files: dict[str, str]) -> Project:
    return found(files)["."]


@pytest.mark.parametrize(
    ("files", "content", "expected"),
    [
        ({"bun.lock": ""}, {}, "npx --yes bun install --frozen-lockfile"),
        ({"bun.lockb": ""}, {"packageManager": "bun@1.2.0"}, "npx --yes bun@1.2.0 install --frozen-lockfile"),
        ({"yarn.lock": "", ".yarnrc.yml": ""}, {}, "corepack yarn install --immutable"),
        (
            {"yarn.lock": ""},
            {"packageManager": "yarn@1.22.22+sha512.ab"},
            "npx --yes yarn@1.22.22 install --frozen-lockfile",
        ),
        ({"pnpm-lock.yaml": ""}, {"volta": {"pnpm": "9.1.0"}}, "npx --yes pnpm@9.1.0 install --frozen-lockfile"),
        (
            {"pnpm-lock.yaml": ""},
            {"engines": {"pnpm": ">=9 <10"}},
            "npx --yes 'pnpm@>=9 <10' install --frozen-lockfile",
        ),
        ({"pnpm-lock.yaml": ""}, {"engines": {"pnpm": "9; rm -rf /"}}, "npx --yes pnpm install --frozen-lockfile"),
        (
            {"pnpm-lock.yaml": "", ".tool-versions": "pnpm 9.2.0\n"},
            {},
            "npx --yes pnpm@9.2.0 install --frozen-lockfile",
        ),
        (
            {},
            {"devEngines": {"packageManager": {"name": "pnpm", "version": "10.0.1"}}},
            "npx --yes pnpm@10.0.1 install",
        ),
        ({"pnpm-workspace.yaml": ""}, {}, "npx --yes pnpm install"),
        ({"package-lock.json": "", "pnpm-lock.yaml": ""}, {"packageManager": "npm@10.0.0"}, "npm ci"),
        ({"npm-shrinkwrap.json": ""}, {}, "npm ci"),
        ({"package-lock.json": ""}, {"packageManager": "pnpm@9.0.0"}, "npx --yes pnpm@9.0.0 install"),
    ],
)
def test_the_package_manager_is_the_one_that_the_repository_says(
    files: dict[str, str], content: dict[str, object], expected: str
) -> None:
    """Its field, then Volta and version files, then engines, then the lock file; frozen only if that is its own."""
    project = one({"package.json": package("a", **content), **files})

    assert install(project).run == expected


@pytest.mark.parametrize(
    ("files", "content", "expected"),
    [
        ({".nvmrc": "v20.11.0\n"}, {}, {"node": "v20.11.0"}),
        ({".nvmrc": "# ours\nlts/iron # long\n"}, {"engines": {"node": ">=18"}}, {"node": "lts/iron"}),
        ({".node-version": "20\n"}, {}, {"node": "20"}),
        (
            {".tool-versions": "# x\nnodejs 20.1.0\npython 3.11\nyarn 1.22.0 1.21.0\n"},
            {},
            {"node": "20.1.0", "yarn": "1.22.0"},
        ),
        ({}, {"engines": {"node": ">=18 <21", "npm": "x;y"}}, {"node": ">=18 <21"}),
        ({".nvmrc": "18"}, {"volta": {"node": "20.1.0", "npm": "10.2.0"}}, {"node": "20.1.0", "npm": "10.2.0"}),
        ({}, {"devEngines": {"runtime": {"name": "node", "version": "22.x"}}}, {"node": "22.x"}),
        ({}, {"packageManager": "pnpm@9.0.0-rc.1+sha256.x"}, {"pnpm": "9.0.0-rc.1"}),
        ({".nvmrc": "$(id)\n"}, {"engines": [1], "volta": "x", "devEngines": {"runtime": [2]}}, {}),
    ],
)
def test_versions_are_what_the_repository_pins(
    files: dict[str, str], content: dict[str, object], expected: dict[str, str]
) -> None:
    """Exact pins before ranges; what is no version is not said."""
    assert one({"package.json": package("a", **content), **files}).tools == expected


def test_a_member_has_the_versions_of_its_workspace_and_of_directories_above() -> None:
    """Unless it says something itself."""
    files = {
        ".nvmrc": "18",
        "web/.tool-versions": "nodejs 20.0.0",
        "web/package.json": json.dumps({"workspaces": ["*"], "packageManager": "pnpm@9.0.0"}),
        "web/a/package.json": package("a"),
        "web/b/package.json": package("b", engines={"node": "1"}, volta={"node": "22.0.0"}),
        "other/package.json": package("other"),
    }

    answer = {root: project.tools for root, project in found(files).items()}

    assert answer["web/a"] == {"node": "20.0.0", "pnpm": "9.0.0"}
    assert answer["web/b"] == {"node": "22.0.0", "pnpm": "9.0.0"}
    assert answer["other"] == {"node": "18"}


@pytest.mark.parametrize(
    ("lock", "name", "paths", "env"),
    [
        ("package-lock.json", "npm", (".cache/npm",), {"npm_config_cache": ".cache/npm"}),
        (
            "pnpm-lock.yaml",
            "pnpm",
            (".cache/npm", ".cache/pnpm"),
            {
                "npm_config_cache": ".cache/npm",
                "npm_config_store_dir": ".cache/pnpm",
                "pnpm_config_store_dir": ".cache/pnpm",
            },
        ),
        (
            "yarn.lock",
            "yarn",
            (".cache/npm", ".cache/yarn"),
            {"npm_config_cache": ".cache/npm", "YARN_CACHE_FOLDER": ".cache/yarn"},
        ),
        (
            "bun.lock",
            "bun",
            (".cache/npm", ".cache/bun"),
            {"npm_config_cache": ".cache/npm", "BUN_INSTALL_CACHE_DIR": ".cache/bun"},
        ),
    ],
)
def test_every_package_manager_caches_inside_the_checkout(
    lock: str, name: str, paths: tuple[str, ...], env: dict[str, str]
) -> None:
    """Under a key of its lock file; what is outside of the checkout cannot be kept."""
    test = job(one({"package.json": package("a"), lock: ""}))

    assert (test.caches[0].name, test.caches[0].paths) == (name, paths)
    assert {lock, "package.json", ".nvmrc"} <= set(test.caches[0].inputs)
    assert test.env == {"CI": "true", **env}


def test_modern_yarn_caches_where_it_would_be_checked_in() -> None:
    """So that a repository that checks its cache in goes on using it."""
    test = job(one({"package.json": package("a", packageManager="yarn@4.1.0"), "yarn.lock": ""}))

    assert test.caches[0].paths == (".yarn/cache", ".cache/corepack")
    assert test.env["YARN_ENABLE_GLOBAL_CACHE"] == "false"


def test_a_cache_of_a_workspace_is_named_as_seen_from_each_step() -> None:
    """A relative directory in a variable would else be another one in each directory."""
    files = {
        "web/package.json": '{"workspaces": ["*"]}',
        "web/package-lock.json": "",
        "web/a/package.json": package("a"),
    }

    test = job(found(files)["web/a"])

    assert test.caches[0].paths == ("web/.cache/npm",)
    assert [(step.workdir, step.env) for step in test.steps] == [
        ("web", {"npm_config_cache": ".cache/npm"}),
        ("web/a", {"npm_config_cache": "../.cache/npm"}),
    ]
    assert test.env == {"CI": "true"}


@pytest.mark.parametrize(
    ("files", "content", "expected"),
    [
        ({}, {}, ()),
        ({"jest.config.js": "module.exports = {reporters: ['default']}"}, {}, ()),
        ({"jest.config.js": "module.exports = {reporters: ['default', 'jest-junit']}"}, {}, ("a/junit.xml",)),
        (
            {"jest.config.ts": "reporters: [['jest-junit', {outputDirectory: 'out', outputName: \"r.xml\"}]]"},
            {},
            ("a/out/r.xml",),
        ),
        (
            {},
            {"jest": {"reporters": [["jest-junit", {}]]}, "jest-junit": {"outputDirectory": "../all"}},
            ("all/junit.xml",),
        ),
        ({}, {"scripts": {"test": "vitest run --reporter=junit --outputFile=./r.xml"}}, ("a/r.xml",)),
        ({}, {"scripts": {"test": "vitest run --reporter junit --outputFile.junit r.xml"}}, ("a/r.xml",)),
        ({"vitest.config.ts": "test: {reporters: ['junit'], outputFile: {junit: 'x/j.xml'}}"}, {}, ("a/x/j.xml",)),
        ({"vite.config.mts": "test: {reporters: ['junit'], outputFile: 'j.xml'}"}, {}, ("a/j.xml",)),
        ({".mocharc.json": '{"reporter": "mocha-junit-reporter"}'}, {}, ("a/test-results.xml",)),
        ({}, {"scripts": {"test": "mocha -R mocha-junit-reporter -O mochaFile=./m.[hash].xml"}}, ("a/m.*.xml",)),
        (
            {},
            {"scripts": {"test": "node --test --test-reporter=junit --test-reporter-destination=n.xml"}},
            ("a/n.xml",),
        ),
        ({}, {"scripts": {"test": "node --test --test-reporter=junit --test-reporter-destination=stdout"}}, ()),
        ({}, {"scripts": {"test": "vitest --reporter=junit --outputFile=/etc/x 'unclosed"}}, ()),
        ({}, {"scripts": {"test": "vitest --reporter=junit --outputFile=../../../x"}}, ()),
    ],
)
def test_reports_are_named_where_the_repository_configures_them(
    files: dict[str, str], content: dict[str, object], expected: tuple[str, ...]
) -> None:
    """And nowhere else: a glob that nothing matches is a promise that is broken."""
    project = found({"a/package.json": package("a", **content)} | {f"a/{name}": text for name, text in files.items()})

    assert job(project["a"]).reports == expected


def test_the_settings_of_yarn_count_below_the_directory_that_they_are_in() -> None:
    """A site with a lock of its own beside the packages of a repository: the first Yarn could not read that lock."""
    files = {".yarnrc.yml": "", "website/package.json": package("site"), "website/yarn.lock": ""}

    assert install(found(files)["website"]).run == "corepack yarn install --immutable"
