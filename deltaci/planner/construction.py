"""Touched projects become jobs, with everything that depends on the commit filled in.

Rule: a cache key is a pure function of the commit: the same lock files and tool versions give the same key anywhere.
"""

import hashlib
from collections.abc import Iterable, Mapping

import msgspec

from deltaci.domain.plan import Cache, PlannedJob, PlannedProject, Reason
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner import reports
from deltaci.planner.errors import printable
from deltaci.planner.graph import ProjectGraph, Touch, project_id
from deltaci.planner.repository import Files


def jobs_of(
    graph: ProjectGraph, chosen: Iterable[int], touched: Mapping[int, Touch], skip: Reason, files: Files
) -> tuple[PlannedJob, ...]:
    """The jobs of the projects `chosen`, in this order; those of projects that are not touched are skipped."""
    jobs = []
    for index in chosen:
        touch = touched.get(index)
        reason = skip if touch is None else touch.reason
        for job in jobs_of_project(graph.projects[index], files):
            why = (*job.reasons, reason)
            jobs.append(msgspec.structs.replace(job, reasons=why, is_skipped=touch is None))
    return tuple(jobs)


def jobs_of_project(project: Project, files: Files) -> list[PlannedJob]:
    """The jobs of a project; of their reasons the first alone, which says how the project was found."""
    text = f"{printable(project.manifest)} is a {project.ecosystem} project"
    found = Reason(rule="discovered", file=project.manifest, text=text)
    return [
        reports.kept(
            PlannedJob(
                name=job_name(project, job),
                steps=job.steps,
                env=job.env,
                artifacts=job.artifacts,
                caches=tuple(_cache(rule, project, files) for rule in job.caches),
                reasons=(found,),
                reports=job.reports,
                project=project_id(project),
            )
        )
        for job in project.jobs
    ]


def projects_of(graph: ProjectGraph, touched: Mapping[int, Touch]) -> tuple[PlannedProject, ...]:
    """The touched projects as the plan tells of them, sorted by id."""
    planned = (
        PlannedProject(
            id=project_id(graph.projects[index]),
            manifest=graph.projects[index].manifest,
            reason=touch.reason,
            via=None if touch.via is None else project_id(graph.projects[touch.via]),
            depends_on=tuple(project_id(graph.projects[other]) for other in graph.depends_on[index]),
        )
        for index, touch in touched.items()
    )
    return tuple(sorted(planned, key=lambda project: project.id))


def job_name(project: Project, job: ProjectJob) -> str:
    """`python-test` at the root of the repository and `python-test (services/api)` below it."""
    where = "" if project.root == "." else f" ({printable(project.root)})"
    return f"{project.ecosystem}-{job.check}{where}"


def _cache(rule: CacheRule, project: Project, files: Files) -> Cache:
    tools = "".join(f"{tool}={version}\n" for tool, version in sorted(project.tools.items()))
    inputs = files.hash_of_files(rule.inputs)
    key = hashlib.sha256(f"{tools}{inputs}".encode()).hexdigest()[:16]
    return Cache(key=f"{rule.name}-{key}", paths=rule.paths)
