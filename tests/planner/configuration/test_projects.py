"""`projects:` of a job: it runs if one of them is touched, dependencies included; and the names must mean something."""

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from deltaci.domain.plan import Plan
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned

pytestmark = pytest.mark.anyio

TREE = {
    "libs/x/pyproject.toml": '[project]\nname = "x"\n',
    "libs/x/x.py": "",
    "services/api/pyproject.toml": '[project]\nname = "api"\ndependencies = ["x"]\n',
    "services/api/go.mod": "module example.org/api\n",
    "services/web/package.json": '{"name": "web", "scripts": {"test": "t"}}',
    "docs/guide.txt": "",
    "README.md": "",
}


class Watched(MemoryView):
    """Remembers what was read."""

    def __init__(self, files: Mapping[str, str | bytes], **more: Any) -> None:
        super().__init__(files, **more)
        self.asked: list[str] = []

    def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        asked = list(paths)
        self.asked += asked
        return super().read_many(asked, bytes_max=bytes_max)


def a_view(*jobs: str, top: str = "", **more: str) -> Watched:
    text = "version: 1\n" + top + "jobs:\n" + "".join(f"  {job}\n" for job in jobs)
    return Watched({**TREE, **more, "deltaci.yaml": text})


async def plan_of(view: MemoryView, *paths: str, base: str | None = "b" * 40) -> Plan:
    return planned(view, changed(*paths) if base else None, base_sha=base)


def runs(plan: Plan) -> dict[str, str | None]:
    """The rule that made each job run, None if it is skipped."""
    return {job.name: None if job.is_skipped else job.reasons[-1].rule for job in plan.jobs}


@pytest.mark.parametrize(
    ("path", "rule"),
    [
        ("services/api/main.py", "project-changed"),
        ("libs/x/x.py", "dependency-changed"),
        ("services/web/index.js", None),
        ("README.md", None),
        ("Makefile", "shared-file"),
        ("deltaci.yaml", "configuration-changed"),
    ],
)
async def test_a_job_runs_if_one_of_its_projects_is_touched(path: str, rule: str | None) -> None:
    """By a file of it, of one that it depends on, or of all; the reason is the project's."""
    plan = await plan_of(a_view("api: {steps: [t], projects: [services/api]}"), path)

    assert runs(plan) == {"api": rule}


async def test_a_skip_names_the_projects_and_the_file() -> None:
    """Whoever waits for a job that does not come reads this first."""
    plan = await plan_of(a_view("x: {steps: [t], projects: 'python:libs/x'}"), "services/web/index.js")

    (job,) = plan.jobs
    assert job.is_skipped
    assert job.reasons[0].rule == "not-affected"
    assert "none of 1 changed files touches python:libs/x" in job.reasons[0].text
    assert job.reasons[0].file == "services/web/index.js"


async def test_the_plan_has_the_projects_and_the_job_its_own() -> None:
    """A directory may hold two projects: then the job is of neither alone."""
    view = a_view(
        "x: {steps: [t], projects: [libs/x]}", "both: {steps: [t], projects: [./services/api/]}", "free: {steps: [t]}"
    )

    plan = await plan_of(view, "libs/x/x.py")

    assert {job.name: job.project for job in plan.jobs} == {"x": "python:libs/x", "both": None, "free": None}
    assert [project.id for project in plan.projects] == ["python:libs/x", "python:services/api"]


@pytest.mark.parametrize(
    ("path", "rule"),
    [("docs/guide.txt", "paths"), ("libs/x/x.py", "project-changed"), ("services/web/index.js", None)],
)
async def test_with_patterns_and_projects_either_makes_the_job_run(path: str, rule: str | None) -> None:
    """They are two ways of saying what the job is about."""
    plan = await plan_of(a_view("job: {steps: [t], projects: [libs/x], paths: ['docs/**']}"), path)

    assert runs(plan) == {"job": rule}


async def test_a_matrix_may_name_a_project_for_each_value() -> None:
    """One job for each service is what a monorepo wants to write once."""
    view = a_view("test: {steps: [t], matrix: {where: [api, web]}, projects: ['services/${{ matrix.where }}']}")

    plan = await plan_of(view, "services/web/index.js")

    assert runs(plan) == {"test (where=api)": None, "test (where=web)": "project-changed"}


async def test_an_unknown_project_is_a_problem_at_its_line_with_the_nearest_name() -> None:
    """A typing error must not mean that the job never runs."""
    view = a_view("api: {steps: [t], projects: [services/api, servics/web, 'node:libs/x']}")

    with pytest.raises(ConfigurationInvalid) as caught:
        await plan_of(view, "README.md")

    first, second = caught.value.problems
    assert (first.line, first.column, first.key) == (3, 46, "jobs.api.projects[1]")
    assert "no project 'servics/web' was discovered (did you mean 'services/web'?)" in first.text
    assert "there are go:services/api, node:services/web, python:libs/x" in first.text
    assert second.key == "jobs.api.projects[2]"


async def test_only_a_configuration_that_names_projects_needs_discovery() -> None:
    """Nobody else reads manifests, and a broken one is no matter of theirs."""
    broken = {"services/web/package.json": "{"}
    view = a_view("test: {steps: ['grep projects']}", **broken)

    plan = await plan_of(view, "README.md")

    assert view.asked == ["deltaci.yaml"]
    assert runs(plan) == {"test": "configured"}
    with pytest.raises(PlanFailed, match=r"package\.json"):
        await plan_of(a_view("test: {steps: [t], projects: [libs/x]}", **broken), "README.md")


async def test_everything_runs_where_the_base_is_unknown() -> None:
    """Projects are no exception to the rule that doubt expands a plan."""
    plan = await plan_of(a_view("api: {steps: [t], projects: [libs/x]}"), base=None)

    assert runs(plan) == {"api": "base-unknown"}
    assert len(plan.projects) == 4


@pytest.mark.parametrize(
    ("patterns", "path", "rule"),
    [
        ("[docs/**]", "docs/guide.txt", None),
        ("[docs/**]", "README.md", None),
        ("['!README.md']", "README.md", "shared-file"),
        ("[docs/**, '!docs/guide.txt']", "docs/guide.txt", "shared-file"),
    ],
)
async def test_documentation_is_what_the_author_says_besides_what_is_built_in(
    patterns: str, path: str, rule: str | None
) -> None:
    """Patterns add files, and take back with '!', also what is documentation by its name."""
    view = a_view("api: {steps: [t], projects: [libs/x]}", top=f"documentation: {patterns}\n")

    plan = await plan_of(view, path)

    assert runs(plan) == {"api": rule}


async def test_what_is_ignored_needs_patterns_beside_projects() -> None:
    """Without 'paths' it would mean nothing, and its author believes that it does."""
    with pytest.raises(ConfigurationInvalid, match="narrows 'paths'"):
        await plan_of(a_view("api: {steps: [t], projects: [libs/x], paths_ignore: [docs/**]}"), "README.md")
