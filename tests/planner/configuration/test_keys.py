"""Reports, concurrency groups, and what is wrong with the new keys."""

import textwrap

import pytest

from deltaci.domain.plan import Artifact, PlannedJob
from deltaci.planner.configuration import configure, load
from deltaci.planner.errors import ConfigurationInvalid, Problem
from deltaci.planner.reports import kept
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView
from tests.planner.planned import planned

NO_FILES = Files(())


def jobs_of(*lines: str) -> dict[str, PlannedJob]:
    text = "version: 1\njobs:\n" + "".join(f"  {line}\n" for line in lines)
    return {each.job.name: each.job for each in load(text.encode(), NO_FILES)}


def problems_of(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigurationInvalid) as caught:
        configure(textwrap.dedent(text).encode(), NO_FILES)
    return caught.value.problems


def test_a_group_is_named_for_each_combination() -> None:
    """One deployment of each environment at a time, not one of all."""
    group = "'deploy-${{ matrix.to }}'"
    jobs = jobs_of(f"deploy: {{steps: [d], matrix: {{to: [test, live]}}, concurrency: {group}}}", "a: {steps: [t]}")

    assert [job.concurrency for job in jobs.values()] == ["deploy-test", "deploy-live", None]


@pytest.mark.anyio
async def test_reports_are_kept_as_an_artifact_of_their_own() -> None:
    """So that they can be read when the runner has gone; a job that only reports is not run for those who need it."""
    text = """
        version: 1
        jobs:
          test: {steps: [t], reports: ["out/${{ matrix.x }}-*.xml"], matrix: {x: [1]}, paths: [src/**]}
          after: {steps: [t], needs: test}
    """
    view = MemoryView({"deltaci.yaml": textwrap.dedent(text), "src/a": "", "b": ""})

    plan = planned(view, (), base_sha="b" * 40)

    assert plan.jobs[0].reports == ("out/1-*.xml",)
    assert plan.jobs[0].artifacts == (Artifact(name="reports", paths=("out/1-*.xml",)),)


def test_an_artifact_of_that_name_is_the_authors() -> None:
    """Whoever uploads reports already keeps doing so as they said."""
    mine = Artifact(name="reports", paths=("all/**",))
    (job,) = jobs_of("test: {steps: [t], reports: [a.xml], artifacts: [{name: reports, paths: ['all/**']}]}").values()

    assert kept(job).artifacts == (mine,)


@pytest.mark.parametrize(
    ("text", "line", "column", "key", "part"),
    [
        ("jobs: {a: {steps: [t], concurrency: {group: x}}}", 2, 37, "jobs.a.concurrency", "the name of a group"),
        ("jobs: {a: {steps: [t], concurrency: ' x'}}", 2, 37, "jobs.a.concurrency", "1 to 100 letters"),
        (
            "jobs: {a: {steps: [t], matrix: {v: ['a\"b']}, concurrency: '${{ matrix.v }}'}}",
            *(2, 59, "jobs.a.concurrency", "1 to 100 letters"),
        ),
        ("jobs: {a: {steps: [t], concurrency: '${{ ref }}'}}", 2, 37, "jobs.a.concurrency", "accepted: matrix.<axis>"),
        ("jobs: {a: {steps: [t], projects: []}}", 2, 34, "jobs.a.projects", "empty list"),
        ("jobs: {a: {steps: [t], reports: [../x.xml]}}", 2, 34, "jobs.a.reports[0]", "stays inside"),
        ("full_run: [main]\njobs: {a: {steps: [t]}}", 2, 11, "full_run", "branches, labels and schedule"),
        ("full_run: {branch: main}\njobs: {a: {steps: [t]}}", 2, 12, "full_run.branch", "did you mean 'branches'?"),
        ("full_run: {branches: ['!x']}\njobs: {a: {steps: [t]}}", 2, 23, "full_run.branches[0]", "without '!'"),
        ("full_run: {branches: ['a/../b']}\njobs: {a: {steps: [t]}}", 2, 23, "full_run.branches[0]", "'..'"),
        ("full_run: {schedule: yes}\njobs: {a: {steps: [t]}}", 2, 22, "full_run.schedule", "true or false"),
        ("documentation: {}\njobs: {a: {steps: [t]}}", 2, 16, "documentation", "patterns"),
    ],
)
def test_a_mistake_in_a_new_key_is_told_with_its_place(text: str, line: int, column: int, key: str, part: str) -> None:
    """Line, column, key, and what to write instead."""
    (problem, *_) = problems_of(f"version: 1\n{text}\n")

    assert (problem.line, problem.column, problem.key) == (line, column, key)
    assert part in problem.text
