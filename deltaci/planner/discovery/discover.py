"""All projects of a commit, and which of their jobs a difference touches.

Rule 1: uncertainty expands: a file that belongs to no project, or that sits at the root beside one, touches all.
Rule 2: what was seen and left out is said, so that nobody wonders why their project does not run.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import ModuleType
from typing import Final

import msgspec

from deltaci.domain.plan import JOBS_MAX, PlannedJob, Reason
from deltaci.planner.discovery import go, node, python, rust
from deltaci.planner.discovery.project import MANIFEST_BYTES_MAX, Project, Tree, is_left_out, parent
from deltaci.planner.errors import PlanFailed, printable
from deltaci.planner.impact import Decision, Difference, is_documentation
from deltaci.planner.repository import Files

MANIFESTS_MAX: Final = 2_000
ECOSYSTEMS: Final[tuple[ModuleType, ...]] = (go, node, python, rust)
# At the root of the repository, a file of one of these kinds concerns its own project and no other.
_OWN_SUFFIXES: Final[Mapping[str, frozenset[str]]] = {
    "go": frozenset({".go", ".mod", ".sum"}),
    "node": frozenset({".js", ".cjs", ".mjs", ".jsx", ".ts", ".tsx", ".css", ".html"}),
    "python": frozenset({".py", ".pyi"}),
    "rust": frozenset({".rs"}),
}


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """The projects, sorted by ecosystem and root, and what was left out with the reason."""

    projects: tuple[Project, ...]
    reasons: tuple[Reason, ...]


def wanted(files: Files) -> list[str]:
    """The files that `discover` needs to read: regular, at most `MANIFEST_BYTES_MAX`, sorted.

    Raises:
        PlanFailed: more than `MANIFESTS_MAX` manifests.
    """
    tree = Tree(files, {})
    paths: set[str] = set()
    for ecosystem, manifests in _manifests(files).items():
        paths.update(ecosystem.wanted(tree, manifests))
    return sorted(path for path in paths if files.is_file(path) and files.size(path) <= MANIFEST_BYTES_MAX)


def discover(files: Files, contents: Mapping[str, bytes], *, jobs_max: int = JOBS_MAX) -> Discovery:
    """The projects of a commit.

    Args:
        contents: of the files that `wanted` named.
    Raises:
        PlanFailed: a manifest cannot be read (the problem has file and line), or there are too many.
    """
    tree = Tree(files, contents)
    projects: list[Project] = []
    for ecosystem, manifests in _manifests(files).items():
        projects += ecosystem.find(tree, manifests)
    count = sum(len(project.jobs) for project in projects)
    if count > jobs_max:
        raise PlanFailed(
            f"{count} jobs were discovered, at most {jobs_max} are accepted; describe the jobs in deltaci.yaml"
        )
    return Discovery(projects=tuple(projects), reasons=tuple(_left_out(files)))


def _manifests(files: Files) -> dict[ModuleType, list[str]]:
    found: dict[ModuleType, list[str]] = {ecosystem: [] for ecosystem in ECOSYSTEMS}
    by_name = {name: ecosystem for ecosystem in ECOSYSTEMS for name in ecosystem.MANIFESTS}
    for path in files.paths:
        ecosystem = by_name.get(path.rsplit("/", 1)[-1])
        if ecosystem is not None and not is_left_out(path) and files.is_file(path):
            if files.size(path) > MANIFEST_BYTES_MAX:
                text = f"{printable(path)} has {files.size(path)} bytes, at most {MANIFEST_BYTES_MAX} are read"
                raise PlanFailed(f"{text}; describe the jobs in deltaci.yaml")
            found[ecosystem].append(path)
    count = sum(len(paths) for paths in found.values())
    if count > MANIFESTS_MAX:
        raise PlanFailed(f"{count} manifests, at most {MANIFESTS_MAX} are read; describe the jobs in deltaci.yaml")
    return found


def _left_out(files: Files) -> list[Reason]:
    names = {name for ecosystem in ECOSYSTEMS for name in ecosystem.MANIFESTS}
    paths = [path for path in files.paths if path.rsplit("/", 1)[-1] in names and is_left_out(path)]
    if not paths:
        return []
    shown = ", ".join(printable(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    text = f"not taken for projects, because of the directories they are in: {shown} ({len(paths)} in all)"
    return [Reason(rule="left-out", file=paths[0], text=text)]


def of_discovered(discovery: Discovery, difference: Difference) -> tuple[PlannedJob, ...]:
    """The jobs of all projects with `is_skipped` and `reasons`, in the order of the projects."""
    decisions = _decide(discovery.projects, difference)
    jobs = []
    for project, decision in zip(discovery.projects, decisions, strict=True):
        found = Reason(
            rule="discovered",
            file=project.manifest,
            text=f"{printable(project.manifest)} is a {project.ecosystem} project",
        )
        jobs += [
            msgspec.structs.replace(job, reasons=(found, decision.reason), is_skipped=decision.is_skipped)
            for job in project.jobs
        ]
    return tuple(jobs)


def _decide(projects: Sequence[Project], difference: Difference) -> list[Decision]:
    whole = difference.whole()
    if whole is not None:
        return [Decision(False, whole) for _ in projects]
    assert difference.paths is not None
    relevant = [path for path in difference.paths if not is_documentation(path)]
    if not relevant:
        first = difference.paths[0]
        text = f"only documentation changed: {printable(first)}" + _and_more(difference.paths)
        return [Decision(True, Reason(rule="documentation-only", file=first, text=text)) for _ in projects]
    touched: dict[int, Reason] = {}
    by_root: dict[str, list[int]] = {}
    for index, project in enumerate(projects):
        by_root.setdefault(project.root, []).append(index)
    for path in relevant:
        for index, reason in _touched_by(path, projects, by_root):
            touched.setdefault(index, reason)
        if len(touched) == len(projects):
            break
    _spread(projects, by_root, touched)
    text = f"none of {len(difference.paths)} changed files touches this project or one that it depends on"
    skip = Reason(rule="not-affected", file=difference.paths[0], text=text)
    return [
        Decision(False, touched[index]) if index in touched else Decision(True, skip) for index in range(len(projects))
    ]


def _touched_by(path: str, projects: Sequence[Project], by_root: Mapping[str, list[int]]) -> list[tuple[int, Reason]]:
    """The projects that a changed file belongs to; all, if it belongs to none or to the repository as a whole."""
    owner = parent(path)
    while owner not in by_root and owner != ".":
        owner = parent(owner)
    owners = by_root.get(owner, [])
    shown = printable(path)
    changed = Reason(rule="project-changed", file=path, text=f"{shown} changed and is part of this project")
    if not owners:
        shared = Reason(
            rule="shared-file", file=path, text=f"{shown} changed and belongs to no project, so to all of them"
        )
        return [(index, shared) for index in range(len(projects))]
    if owner == "." and _concerns_all(path, [projects[index] for index in owners]):
        shared = Reason(
            rule="shared-file", file=path, text=f"{shown} changed at the root, which may concern every project"
        )
        return [(index, changed if index in owners else shared) for index in range(len(projects))]
    return [(index, changed) for index in owners]


def _concerns_all(path: str, owners: Sequence[Project]) -> bool:
    if "/" in path:
        return path.startswith(".")  # .github/, .cargo/, .docker/ ...
    suffix = PurePosixPath(path).suffix
    return not any(path == project.manifest or suffix in _OWN_SUFFIXES[project.ecosystem] for project in owners)


def _spread(projects: Sequence[Project], by_root: Mapping[str, list[int]], touched: dict[int, Reason]) -> None:
    """Add the projects that depend on a touched one, transitively, then those that enclose one of their own kind."""
    by_name: dict[tuple[str, str], list[int]] = {}
    for index, project in enumerate(projects):
        if project.name is not None:
            by_name.setdefault((project.ecosystem, project.name), []).append(index)
    dependents: dict[int, set[int]] = {}
    for index, project in enumerate(projects):
        needed = [found for root in project.depends_on_roots for found in by_root.get(root, ())]
        for name in project.depends_on_names:
            needed += by_name.get((project.ecosystem, name), ())
        for other in needed:
            if other != index:
                dependents.setdefault(other, set()).add(index)
    waiting = sorted(touched)
    while waiting:
        index = waiting.pop(0)
        for dependent in sorted(dependents.get(index, ())):
            if dependent not in touched:
                touched[dependent] = _because(
                    projects[index], touched[index], "dependency-changed", "which this project depends on"
                )
                waiting.append(dependent)
    for index in sorted(touched):
        project = projects[index]
        directory = project.root
        while directory != ".":
            directory = parent(directory)
            for outer in by_root.get(directory, ()):
                if projects[outer].ecosystem == project.ecosystem and outer not in touched:
                    touched[outer] = _because(project, touched[index], "part-changed", "which is inside this project")


def _because(project: Project, reason: Reason, rule: str, relation: str) -> Reason:
    return Reason(
        rule=rule,
        file=reason.file,
        text=f"{printable(reason.file or '')} touches {printable(project.root)}, {relation}",
    )


def _and_more(paths: Sequence[str]) -> str:
    return f" and {len(paths) - 1} more" if len(paths) > 1 else ""
