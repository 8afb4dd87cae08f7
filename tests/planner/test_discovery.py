"""What runs without a configuration: the jobs that users of each ecosystem expect, for what the change touches."""

import pytest

from deltaci.domain.plan import Plan, PlannedJob
from deltaci.planner.errors import PlanFailed
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned

pytestmark = pytest.mark.anyio


async def plan_of(files: dict[str, str], *paths: str) -> Plan:
    return planned(MemoryView(files), changed(*paths) if paths else None, base_sha="b" * 40)


async def jobs_of(files: dict[str, str]) -> dict[str, PlannedJob]:
    return {job.name: job for job in (await plan_of(files)).jobs}


async def running(files: dict[str, str], *paths: str) -> dict[str, str]:
    """The rule that runs each job that is not skipped."""
    plan = await plan_of(files, *paths)
    return {job.name: job.reasons[-1].rule for job in plan.jobs if not job.is_skipped}


def runs(job: PlannedJob) -> list[str]:
    return [step.run for step in job.steps]


@pytest.mark.parametrize(
    ("lock", "extra", "install", "test"),
    [
        ("package-lock.json", "", "npm ci", "npm run test"),
        ("", "", "npm install --no-audit --no-fund", "npm run test"),
        ("pnpm-lock.yaml", "", "npx --yes pnpm install --frozen-lockfile", "npx --yes pnpm run test"),
        (
            "pnpm-lock.yaml",
            ', "packageManager": "pnpm@9.1.0"',
            "npx --yes pnpm@9.1.0 install --frozen-lockfile",
            "npx --yes pnpm@9.1.0 run test",
        ),
        ("yarn.lock", "", "npx --yes yarn install --frozen-lockfile", "npx --yes yarn run test"),
        (
            "yarn.lock",
            ', "packageManager": "yarn@4.0.2"',
            "corepack yarn install --immutable",
            "corepack yarn run test",
        ),
        (
            "yarn.lock",
            ', "packageManager": "yarn@1; rm -rf /"',
            "npx --yes yarn install --frozen-lockfile",
            "npx --yes yarn run test",
        ),
    ],
)
async def test_a_node_lock_file_decides_who_installs(lock: str, extra: str, install: str, test: str) -> None:
    """What was locked is what is tested; a declared version is used if it is one."""
    files = {"package.json": f'{{"scripts": {{"test": "jest"}}{extra}}}'} | ({lock: ""} if lock else {})

    jobs = await jobs_of(files)

    assert runs(jobs["node-test"]) == [install, test]


async def test_only_the_scripts_that_a_package_defines_are_run() -> None:
    """And not the placeholder that npm init writes, which only fails."""
    scripts = (
        '{"scripts": {"test": "echo \\"Error: no test specified\\" && exit 1", "lint": "eslint .", "build": "tsc"}}'
    )

    jobs = await jobs_of({"package.json": scripts})

    assert runs(jobs["node-lint"])[1:] == ["npm run lint"]
    assert runs(jobs["node-test"])[1:] == ["npm run build"]


WORKSPACE = {
    "package.json": '{"workspaces": ["packages/*"], "scripts": {"test": "turbo test", "lint": "eslint ."}}',
    "package-lock.json": "",
    "packages/ui/package.json": '{"name": "@x/ui", "scripts": {"test": "jest"}}',
    "packages/app/package.json": '{"name": "app", "dependencies": {"@x/ui": "*"}, "scripts": {"test": "jest"}}',
    "packages/cli/package.json": '{"name": "cli", "scripts": {"test": "jest"}}',
}


async def test_members_of_a_workspace_are_installed_at_its_root_and_tested_alone() -> None:
    """The root's own test script would run them all again; its lint script is nobody else's."""
    jobs = await jobs_of(WORKSPACE)

    ui = jobs["node-test (packages/ui)"]
    assert [(step.run, step.workdir) for step in ui.steps] == [("npm ci", "."), ("npm run test", "packages/ui")]
    assert "node-test" not in jobs
    assert "node-lint" in jobs


async def test_a_change_in_a_package_runs_it_and_what_depends_on_it() -> None:
    """Impact goes through names; the root's own scripts see every member."""
    answer = await running(WORKSPACE, "packages/ui/a.js")

    assert answer == {
        "node-lint": "part-changed",
        "node-test (packages/app)": "dependency-changed",
        "node-test (packages/ui)": "project-changed",
    }


async def test_a_change_at_the_root_of_a_workspace_runs_all_members() -> None:
    """The lock file and the shared settings are everybody's."""
    answer = await running(WORKSPACE, "package-lock.json")

    assert set(answer) == set(await jobs_of(WORKSPACE))


MONOREPO = {
    "services/api/pyproject.toml": '[build-system]\n[project]\nname = "api"\ndependencies = ["shared_lib>=1"]',
    "libs/shared/pyproject.toml": '[build-system]\n[project]\nname = "shared-lib"',
    "gateway/go.mod": "module g\nreplace example.com/x => ../libs/gox\n",
    "gateway/a.go": "",
    "libs/gox/go.mod": "module example.com/x\n",
    "libs/gox/a.go": "",
    "web/package.json": '{"scripts": {"test": "jest"}}',
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("web/a.ts", {"node-test (web)": "project-changed"}),
        (
            "libs/shared/a.py",
            {"python-test (libs/shared)": "project-changed", "python-test (services/api)": "dependency-changed"},
        ),
        ("libs/gox/a.go", {"go-test (libs/gox)": "project-changed", "go-test (gateway)": "dependency-changed"}),
        ("README.md", {}),
        ("docs/logo.png", {}),
    ],
)
async def test_a_change_runs_the_projects_that_it_touches(path: str, expected: dict[str, str]) -> None:
    """The promise of the product: what changed, and what must therefore run."""
    answer = await running(MONOREPO, path)

    assert answer == expected


@pytest.mark.parametrize("path", ["Makefile", "proto/api.proto", ".github/workflows/x.sh", "ci/.travis.yml"])
async def test_a_file_outside_every_project_runs_all_of_them(path: str) -> None:
    """Nobody can tell who includes it; uncertainty expands the plan."""
    answer = await running(MONOREPO, path)

    assert set(answer.values()) == {"shared-file"}
    assert len(answer) == 5


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".github/workflows/x.yml",
            ".github/actions/setup/index.js",
            ".github/ISSUE_TEMPLATE/bug.yaml",
            ".gitlab-ci.yml",
        ),
        *(".github/dependabot.yml", ".circleci/config.yml", "azure-pipelines.yml", "Jenkinsfile", ".travis.yml"),
    ],
)
async def test_a_file_of_another_ci_system_runs_nothing_and_the_plan_says_so(path: str) -> None:
    """What that system does with it, it does; no job here hangs on it."""
    root = {"package.json": '{"workspaces": ["web"], "scripts": {"test": "x"}}'}
    plan = await plan_of(MONOREPO | root, path)

    assert {(job.is_skipped, job.reasons[-1].rule) for job in plan.jobs} == {(True, "other-ci")}
    assert path in plan.jobs[0].reasons[-1].text
    assert await running(MONOREPO, path, "gateway/a.go") == {"go-test (gateway)": "project-changed"}


@pytest.mark.parametrize(
    ("files", "job"),
    [
        ({"package.json": '{"scripts": {"lint": "npm run -s all", "all": "prettier --check ."}}'}, "node-lint"),
        ({"pyproject.toml": '[project]\nname = "a"', ".pre-commit-config.yaml": "repos: []"}, "python-lint"),
        ({"Dockerfile": "FROM alpine\nCOPY . /x\n"}, "docker-build"),
    ],
)
async def test_who_reads_files_of_another_ci_system_is_touched_by_them(files: dict[str, str], job: str) -> None:
    """A linter of everything, or an image of everything; the projects beside it are not concerned."""
    web = {"web/go.mod": "module web\n", "web/a.go": ""}

    answer = await running(files | web, ".github/workflows/x.yml")

    assert answer[job] == "shared-file"
    assert "go-test (web)" not in answer


async def test_a_task_runner_that_lints_files_of_another_ci_system_is_touched_by_them() -> None:
    """Its text tells; one that only tests is not."""
    tests = "test:\n\tbats tests\n"

    assert await running({"Makefile": tests}, ".github/workflows/x.yml") == {}
    assert "make-lint" in await running({"Makefile": tests + "lint:\n\tactionlint\n"}, ".github/workflows/x.yml")


async def test_source_at_the_root_does_not_concern_other_ecosystems() -> None:
    """A root package and a frontend below it: only settings at the root are shared."""
    files = {"pyproject.toml": '[project]\nname = "a"', "app.py": "", "web/package.json": '{"scripts": {"test": "x"}}'}

    assert await running(files, "app.py") == {"python-test": "project-changed"}
    assert await running(files, "web/a.js") == {"node-test (web)": "project-changed"}
    assert await running(files, "Dockerfile") == {"python-test": "project-changed", "node-test (web)": "shared-file"}


async def test_markdown_that_a_test_may_read_is_not_documentation() -> None:
    """In doubt it runs."""
    answer = await running(MONOREPO, "web/src/page.md")

    assert answer == {"node-test (web)": "project-changed"}


async def test_projects_of_others_are_left_out_and_the_plan_says_so() -> None:
    """Vendored code, fixtures and templates are full of manifests."""
    places = ("node_modules/x", "vendor/x", "tests/fixtures/x", ".venv/x", "third_party/x", "{{cookiecutter.slug}}")
    files = {f"{place}/package.json": "not json" for place in places} | {"go.mod": "module a", "a.go": ""}

    plan = await plan_of(files)

    assert [job.name for job in plan.jobs] == ["go-test"]
    assert [(r.rule, r.file) for r in plan.reasons[1:2]] == [("left-out", ".venv/x/package.json")]


@pytest.mark.parametrize(
    ("path", "text", "part"),
    [
        ("package.json", '{"a": 1,\n}', "package.json:2:1: this is not JSON"),
        ("package.json", "[1]", "expected an object"),
        ("package.json", "[" * 100_000, "not JSON"),
        ("pyproject.toml", "[project\n", "pyproject.toml: this is not TOML"),
        ("Cargo.toml", "a = " + "[" * 50_000, "not TOML"),
    ],
)
async def test_a_manifest_that_cannot_be_read_fails_the_plan(path: str, text: str, part: str) -> None:
    """Going on without it would report success for a project that nobody built."""
    with pytest.raises(PlanFailed) as caught:
        await plan_of({path: text})

    assert part in str(caught.value)


@pytest.mark.parametrize("content", ['{"scripts": [1], "workspaces": 3, "dependencies": "x", "name": {}}', "{}"])
async def test_a_manifest_of_an_unexpected_shape_is_no_crash(content: str) -> None:
    """People write what they like; package managers will tell them."""
    plan = await plan_of({"package.json": content})

    assert plan.jobs == ()
