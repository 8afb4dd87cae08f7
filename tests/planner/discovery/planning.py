"""Plans of repositories that are dictionaries, as the tests of single ecosystems look at them."""

from collections.abc import Mapping

from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.project import Project
from deltaci.planner.discovery.discover import discover, structure, wanted
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned


async def plan_of(files: Mapping[str, str | bytes], *paths: str, programs: tuple[str, ...] = ()) -> Plan:
    """The plan of a commit; with `paths`, of one that changed these. `programs` are executable."""
    view = MemoryView(files, modes=dict.fromkeys(programs, "100755"))
    return planned(view, changed(*paths) if paths else None, base_sha="b" * 40)


async def jobs_of(files: Mapping[str, str | bytes], *, programs: tuple[str, ...] = ()) -> dict[str, PlannedJob]:
    """All jobs by name."""
    return {job.name: job for job in (await plan_of(files, programs=programs)).jobs}


async def running(files: Mapping[str, str | bytes], *paths: str) -> set[str]:
    """The names of the jobs that a change runs."""
    return {job.name for job in (await plan_of(files, *paths)).jobs if not job.is_skipped}


def commands(job: PlannedJob) -> list[tuple[str, str]]:
    """Where each step runs, and what."""
    return [(step.workdir, step.run) for step in job.steps]


def discovered(files: Mapping[str, str | bytes]) -> dict[str, Project]:
    """The projects by root, for a repository with one ecosystem."""
    view = MemoryView(files)
    seen = structure(Files(view.entries()))
    found = discover(seen, {path: view.contents[path] for path in wanted(seen)})
    return {project.root: project for project in found.projects}
