"""Plans of repositories in memory, for the tests of what is not a language of its own."""

from collections.abc import Mapping

from deltaci.domain.plan import Plan
from deltaci.domain.project import Project
from deltaci.planner.discovery.discover import Discovery, discover, structure, wanted
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned


def discovery_of(files: Mapping[str, str | bytes], modes: Mapping[str, str] | None = None) -> Discovery:
    """What is found, reading only what discovery asks for."""
    view = MemoryView(files, modes=modes)
    seen = structure(Files(view.entries()))
    return discover(seen, {path: view.contents[path] for path in wanted(seen)})


def projects_of(files: Mapping[str, str | bytes], modes: Mapping[str, str] | None = None) -> dict[str, Project]:
    """The projects by `<ecosystem>:<root>`."""
    return {f"{each.ecosystem}:{each.root}": each for each in discovery_of(files, modes).projects}


async def plan_of(files: Mapping[str, str | bytes], *paths: str) -> Plan:
    """The plan for a change of `paths`, or for an unknown one."""
    return planned(MemoryView(files), changed(*paths) if paths else None, base_sha="b" * 40)


async def running(files: Mapping[str, str | bytes], *paths: str) -> set[str]:
    """The names of the jobs that a change of `paths` runs."""
    return {job.name for job in (await plan_of(files, *paths)).jobs if not job.is_skipped}


def runs(project: Project, check: str) -> list[str]:
    """The commands of one job."""
    return [step.run for job in project.jobs if job.check == check for step in job.steps]


def checks(project: Project) -> list[str]:
    """The checks of a project's jobs."""
    return [job.check for job in project.jobs]
