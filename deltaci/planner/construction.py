"""Touched projects become jobs, with everything that depends on the commit filled in.

Rule: a cache key is a pure function of the commit: the same lock files and tool versions give the same key anywhere.
"""

import hashlib
from collections.abc import Mapping, Sequence

from deltaci.domain.plan import Cache, PlannedJob, PlannedProject, Reason
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.errors import PlanFailed, printable
from deltaci.planner.graph import ProjectGraph, Touch, project_id
from deltaci.planner.repository import Files


def jobs_of(
    graph: ProjectGraph, touched: Mapping[int, Touch], skip: Reason, files: Files, *, jobs_max: int
) -> tuple[tuple[PlannedJob, ...], tuple[Reason, ...]]:
    """The jobs of all projects in their order, skipped ones marked; and what there is to say about the plan.

    Jobs that are skipped are left out if there would be more than `jobs_max` in all, and the reasons say so.

    Raises:
        PlanFailed: more than `jobs_max` jobs would run.
    """
    running = sum(len(graph.projects[index].jobs) for index in touched)
    if running > jobs_max:
        raise PlanFailed(
            f"{running} jobs would run, at most {jobs_max} are accepted (policy.jobs_max); "
            "describe the jobs in deltaci.yaml"
        )
    total = sum(len(project.jobs) for project in graph.projects)
    chosen: Sequence[int] = range(len(graph.projects)) if total <= jobs_max else sorted(touched)
    jobs = [job for index in chosen for job in _jobs(graph.projects[index], touched.get(index), skip, files)]
    if total <= jobs_max:
        return tuple(jobs), ()
    text = (
        f"{total - running} skipped jobs of {len(graph.projects) - len(touched)} projects are not listed: {skip.text}"
    )
    return tuple(jobs), (Reason(rule="skips-not-listed", text=text),)


def projects_of(graph: ProjectGraph, touched: Mapping[int, Touch]) -> tuple[PlannedProject, ...]:
    """The touched projects as the plan tells of them, sorted by id."""
    ids = [project_id(project) for project in graph.projects]
    planned = (
        PlannedProject(
            id=ids[index],
            manifest=graph.projects[index].manifest,
            reason=touch.reason,
            via=None if touch.via is None else ids[touch.via],
            depends_on=tuple(ids[other] for other in graph.depends_on[index]),
        )
        for index, touch in touched.items()
    )
    return tuple(sorted(planned, key=lambda project: project.id))


def _jobs(project: Project, touch: Touch | None, skip: Reason, files: Files) -> list[PlannedJob]:
    text = f"{printable(project.manifest)} is a {project.ecosystem} project"
    found = Reason(rule="discovered", file=project.manifest, text=text)
    reason = skip if touch is None else touch.reason
    return [
        PlannedJob(
            name=job_name(project, job),
            steps=job.steps,
            env=job.env,
            artifacts=job.artifacts,
            caches=tuple(_cache(rule, project, files) for rule in job.caches),
            reasons=(found, reason),
            is_skipped=touch is None,
            reports=job.reports,
            project=project_id(project),
        )
        for job in project.jobs
    ]


def job_name(project: Project, job: ProjectJob) -> str:
    """`python-test` at the root of the repository and `python-test (services/api)` below it."""
    where = "" if project.root == "." else f" ({printable(project.root)})"
    return f"{project.ecosystem}-{job.check}{where}"


def _cache(rule: CacheRule, project: Project, files: Files) -> Cache:
    tools = "".join(f"{tool}={version}\n" for tool, version in sorted(project.tools.items()))
    inputs = files.hash_of_files(rule.inputs)
    key = hashlib.sha256(f"{tools}{inputs}".encode()).hexdigest()[:16]
    return Cache(key=f"{rule.name}-{key}", paths=rule.paths)
