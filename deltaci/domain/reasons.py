"""A plan told as a story: which file touched which project by which rule, who depends on it, and what therefore runs.

Rule: everything here is read from the plan alone, so that a stored plan can be explained for as long as it is kept.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from deltaci.domain.plan import Plan, PlannedJob, PlannedProject, Reason

DEPTH_MAX: Final = 30

Kind: TypeAlias = Literal["cause", "project", "job", "skips"]


class Node(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One place in the tree of a plan, and what follows from it.

    `kind` is `cause` (a file, or why everything runs), `project` (its id), `job` (its name), or `skips` (the skipped
    jobs by the reason that they share); `rule` is the rule that led here from the node above.
    """

    kind: Kind
    name: str
    rule: str = ""
    text: str = ""
    follows: tuple["Node", ...] = ()


def chain(plan: Plan, job: PlannedJob) -> tuple[Reason, ...]:
    """The reasons for which a job is there or skipped, from the changed file on to the job's own project.

    A job of no project has its own reasons alone.
    """
    projects = {project.id: project for project in plan.projects}
    found: list[Reason] = []
    at = projects.get(job.project or "")
    if at is None:
        return job.reasons
    while at is not None:
        found.append(at.reason)
        at = projects.get(at.via or "")
    return tuple(reversed(found))


def tree(plan: Plan) -> tuple[Node, ...]:
    """Causes with the projects and jobs that follow from them, each project under the nearest one; then the skips.

    No deeper than `DEPTH_MAX` projects; those that are further away are beside the last ones.
    """
    causes: dict[str, list[PlannedProject]] = {}
    for project in plan.projects:
        if project.via is None:
            causes.setdefault(_cause(project.reason), []).append(project)
    children = _children(plan.projects)
    jobs: dict[str | None, list[PlannedJob]] = {}
    told = {project.id for project in plan.projects}
    for job in plan.jobs:
        if not job.is_skipped:
            jobs.setdefault(job.project if job.project in told else None, []).append(job)
    built: dict[str, Node] = {}
    for project in _deepest_first([one for found in causes.values() for one in found], children):
        built[project.id] = Node(
            kind="project",
            name=project.id,
            rule=project.reason.rule,
            text=project.reason.text,
            follows=(
                *(Node(kind="job", name=job.name) for job in jobs.get(project.id, ())),
                *(built[child.id] for child in children.get(project.id, ())),
            ),
        )
    loose: dict[str, list[Node]] = {}
    for job in jobs.get(None, ()):
        reason = job.reasons[-1] if job.reasons else Reason(rule="", text="")
        cause = _cause(reason)
        causes.setdefault(cause, [])
        loose.setdefault(cause, []).append(Node(kind="job", name=job.name, rule=reason.rule, text=reason.text))
    found = [
        Node(
            kind="cause",
            name=cause,
            follows=(*(built[project.id] for project in projects), *loose.get(cause, ())),
        )
        for cause, projects in sorted(causes.items())
    ]
    return (*found, *_skips(plan.jobs))


def _children(projects: Sequence[PlannedProject]) -> dict[str, list[PlannedProject]]:
    """Who is shown below whom: below `via`, as long as that is not too deep."""
    by_via: dict[str | None, list[PlannedProject]] = {}
    for project in projects:
        by_via.setdefault(project.via, []).append(project)
    children: dict[str, list[PlannedProject]] = {}
    level = [(project.id, project.id) for project in by_via.get(None, ())]
    depth = 1
    while level:
        below = []
        for shown_as, project_id in level:
            for child in by_via.get(project_id, ()):
                children.setdefault(shown_as, []).append(child)
                below.append((shown_as if depth >= DEPTH_MAX else child.id, child.id))
        level, depth = below, depth + 1
    return children


def _cause(reason: Reason) -> str:
    # Why everything runs has no file; a job without a path filter runs because of the configuration, whatever changed.
    return reason.file if reason.file is not None and reason.rule != "configured" else reason.text


def _skips(jobs: Sequence[PlannedJob]) -> list[Node]:
    skipped: dict[tuple[str, str], list[Node]] = {}
    for job in jobs:
        if job.is_skipped:
            reason = job.reasons[-1] if job.reasons else Reason(rule="", text="")
            skipped.setdefault((reason.rule, reason.text), []).append(Node(kind="job", name=job.name))
    return [
        Node(kind="skips", name="skipped", rule=rule, text=text, follows=tuple(nodes))
        for (rule, text), nodes in skipped.items()
    ]


def _deepest_first(roots: Sequence[PlannedProject], children: dict[str, list[PlannedProject]]) -> list[PlannedProject]:
    # A chain of projects may be longer than the interpreter's stack is deep.
    ordered, waiting = [], list(roots)
    while waiting:
        project = waiting.pop()
        ordered.append(project)
        waiting += children.get(project.id, ())
    return ordered[::-1]


def mermaid(plan: Plan) -> str:
    """The plan as a Mermaid flow chart: causes, touched projects with the edges that touched them, jobs with needs."""
    lines = ["flowchart LR"]
    ids: dict[tuple[str, str], str] = {}

    def node(kind: str, name: str) -> str:
        if (kind, name) not in ids:
            ids[kind, name] = f"n{len(ids)}"
            left, right = {"cause": ('>"', '"]'), "project": ('["', '"]')}.get(kind, ('(["', '"])'))
            lines.append(f"    {ids[kind, name]}{left}{_quoted(name)}{right}")
        return ids[kind, name]

    def edge(start: str, end: str, label: str = "") -> None:
        lines.append(f"    {start} -->{f'|{label}|' if label else ''} {end}")

    for project in plan.projects:
        start = node("cause", _cause(project.reason)) if project.via is None else node("project", project.via)
        edge(start, node("project", project.id), project.reason.rule)
    told = {project.id for project in plan.projects}
    for job in plan.jobs:
        if job.is_skipped:
            continue
        if job.project in told:
            edge(node("project", job.project or ""), node("job", job.name))
        elif job.reasons:
            edge(node("cause", _cause(job.reasons[-1])), node("job", job.name), job.reasons[-1].rule)
        for need in job.needs:
            edge(node("job", need), node("job", job.name), "needs")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside a quoted Mermaid label: what could end the label, or be markup, as character references."""
    return "".join(c if c.isalnum() or c in " ./_:-(),=" else f"#{ord(c)};" for c in text[:200])
