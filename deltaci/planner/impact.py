"""Which configured jobs and which projects a difference touches.

Rule 1: uncertainty expands the plan: an unknown base, an empty difference or a changed configuration runs everything.
Rule 2: each answer names the rule that decided and, where there is one, the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Final, NamedTuple

import msgspec

from deltaci.domain.plan import PlannedJob, Reason
from deltaci.domain.project import Project
from deltaci.planner.configuration import FILE, ConfiguredJob
from deltaci.planner.discovery.discover import ALWAYS, SOURCES
from deltaci.planner.discovery.project import is_left_out, parent
from deltaci.planner.errors import PlanFailed, printable
from deltaci.planner.globs import MATCHES_MAX, Globs
from deltaci.planner.graph import ProjectGraph, Touch, project_id
from deltaci.planner.locks.formats import differences
from deltaci.planner.locks.lock import Member
from deltaci.planner.other_ci import is_of_other_ci

_DOCUMENT_SUFFIXES: Final = frozenset({".md", ".markdown", ".rst", ".adoc", ".asciidoc"})
_DOCUMENT_NAMES: Final = frozenset(
    {
        "LICENSE",
        "LICENCE",
        "COPYING",
        "NOTICE",
        "AUTHORS",
        "CONTRIBUTORS",
        "CODEOWNERS",
        "LICENSE.txt",
        "CHANGELOG",
        "README",
    }
)
_ASSET_SUFFIXES: Final = frozenset({".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".pdf", ".drawio", ".puml"})
_DOCUMENT_DIRECTORIES: Final = frozenset({"docs", "doc"})
# A Markdown file below one of these may well be what a test or a program reads.
_INPUT_DIRECTORIES: Final = frozenset(
    {"tests", "test", "__tests__", "spec", "testdata", "fixtures", "src", "data", "content", "templates", "examples"}
)


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The changed paths, sorted; None if they are unknown, and then `unknown_because` says why, as half a sentence.

    `locks` has the contents of the changed files that `locks_wanted` named, before and after, None where there are
    none or they could not be read; `manifests` those of manifests, after. `full_run`: why everything runs although it
    is known what changed.
    """

    paths: tuple[str, ...] | None
    unknown_because: str = "the base of the change is unknown"
    locks: Mapping[str, tuple[bytes | None, bytes | None]] = {}
    manifests: Mapping[str, bytes] = {}
    full_run: Reason | None = None

    def whole(self) -> Reason | None:
        """Why everything runs, whatever the rules of single jobs say; None if single jobs decide."""
        if self.full_run is not None:
            return self.full_run
        if self.paths is None:
            return Reason(rule="base-unknown", text=f"everything runs: {self.unknown_because}")
        if not self.paths:
            return Reason(
                rule="empty-difference", text="everything runs: no file changed, so a run is all that was asked for"
            )
        return None


class Decision(NamedTuple):
    """Whether a job is skipped, and why or why not."""

    is_skipped: bool
    reason: Reason


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """The projects that jobs name: the graph, by job the positions there, and what the change touches."""

    graph: ProjectGraph
    of_job: Mapping[str, tuple[int, ...]]
    touched: Mapping[int, Touch]


def of_configured(
    jobs: Sequence[ConfiguredJob], difference: Difference, named: Named | None = None
) -> tuple[PlannedJob, ...]:
    """The jobs with `is_skipped` and `reasons`, in the same order.

    A job with patterns and projects runs if either says so.

    A skipped need counts as satisfied, except that a job with artifacts runs if one that needs it runs: what is
    downloaded has to be made first.

    Raises:
        PlanFailed: so many patterns and changed files that matching them would take longer than a plan may.
    """
    distinct = {each.paths for each in jobs} | {each.paths_ignore for each in jobs}
    if sum(map(len, distinct)) * len(difference.paths or ()) > MATCHES_MAX:
        raise PlanFailed(
            f"too many patterns in {FILE} for {len(difference.paths or ())} changed files; use fewer patterns"
        )
    decisions: dict[str, Decision] = {}
    by_patterns: dict[tuple[tuple[str, ...], tuple[str, ...], bool], Decision] = {}
    for each in jobs:
        key = (each.paths, each.paths_ignore, bool(each.projects))
        if key not in by_patterns:
            by_patterns[key] = _decide(each, difference)
        decisions[each.job.name] = by_patterns[key]
        if each.projects and named is not None and difference.whole() is None:
            decisions[each.job.name] = _with_projects(each, by_patterns[key], difference, named)
    _pull_in_producers(jobs, decisions)
    return tuple(
        msgspec.structs.replace(
            each.job,
            reasons=(decisions[each.job.name].reason,),
            is_skipped=decisions[each.job.name].is_skipped,
            project=None if named is None else _only_project(named, each.job.name),
        )
        for each in jobs
    )


def _only_project(named: Named, job: str) -> str | None:
    indexes = named.of_job.get(job, ())
    return project_id(named.graph.projects[indexes[0]]) if len(indexes) == 1 else None


def _with_projects(each: ConfiguredJob, patterns: Decision, difference: Difference, named: Named) -> Decision:
    """Without patterns of its own such a job does not run on every change: its projects decide alone."""
    assert difference.paths
    if patterns.reason.rule == "configuration-changed" or (each.paths and not patterns.is_skipped):
        return patterns
    indexes = named.of_job[each.job.name]
    for index in indexes:
        touch = named.touched.get(index)
        if touch is not None:
            return Decision(False, touch.reason)
    names = ", ".join(printable(project_id(named.graph.projects[index]), length_max=60) for index in indexes[:5])
    more = f" and {len(indexes) - 5} more" if len(indexes) > 5 else ""
    first = difference.paths[0]
    text = f"none of {len(difference.paths)} changed files touches {names}{more}; the first is {printable(first)}"
    return Decision(True, Reason(rule="not-affected", file=first, text=text))


def _decide(each: ConfiguredJob, difference: Difference) -> Decision:
    if not (each.paths or each.paths_ignore or each.projects):
        return Decision(False, Reason(rule="configured", file=FILE, text="runs on every change: it has no 'paths'"))
    whole = difference.whole()
    if whole is not None:
        return Decision(False, whole)
    assert difference.paths is not None
    if FILE in difference.paths:
        return Decision(False, Reason(rule="configuration-changed", file=FILE, text=f"{FILE} itself changed"))
    ignored = Globs(each.paths_ignore)
    candidates = (
        [path for path in difference.paths if ignored.match(path) is None] if each.paths_ignore else difference.paths
    )
    if not candidates:
        first = difference.paths[0]
        text = f"all {len(difference.paths)} changed files match 'paths_ignore', {printable(first)} first"
        return Decision(True, Reason(rule="paths-ignore", file=first, text=text))
    if not each.paths:
        text = f"{printable(candidates[0])} changed and is not in 'paths_ignore'"
        return Decision(False, Reason(rule="paths-ignore", file=candidates[0], text=text))
    found = Globs(each.paths).first(candidates)
    if found is not None:
        path, pattern = found
        return Decision(
            False, Reason(rule="paths", file=path, text=f"{printable(path)} changed and matches {pattern!r}")
        )
    text = (
        f"none of {len(difference.paths)} changed files matches 'paths'; the first is {printable(difference.paths[0])}"
    )
    return Decision(True, Reason(rule="paths", file=difference.paths[0], text=text))


def _pull_in_producers(jobs: Sequence[ConfiguredJob], decisions: dict[str, Decision]) -> None:
    by_name = {each.job.name: each.job for each in jobs}
    waiting = [each.job for each in jobs if not decisions[each.job.name].is_skipped]
    while waiting:
        consumer = waiting.pop(0)
        for need in consumer.needs:
            if decisions[need].is_skipped and by_name[need].artifacts:
                text = f"{consumer.name} runs and needs the artifacts of this job"
                decisions[need] = Decision(False, Reason(rule="artifacts-needed", text=text))
                waiting.append(by_name[need])


# ---- projects ----------------------------------------------------------------------------------------------------


def of_projects(
    graph: ProjectGraph, difference: Difference, documentation: Sequence[str] = ()
) -> tuple[dict[int, Touch], Reason]:
    """The touched projects by position, and why the others are not touched.

    Args:
        documentation: further patterns of files that touch nothing; what they take back with `!` is none.

    Uncertainty expands: a file that belongs to no project, or that sits at the root beside one, touches all. Files of
    other CI systems are no uncertainty: they touch who reads them.
    """
    whole = difference.whole()
    if whole is not None:
        return {index: Touch(whole) for index in range(len(graph.projects))}, whole
    assert difference.paths is not None
    relevant = _relevant(difference.paths, documentation)
    if not relevant:
        first = difference.paths[0]
        more = f" and {len(difference.paths) - 1} more" if len(difference.paths) > 1 else ""
        text = f"only documentation changed: {printable(first)}{more}"
        return {}, Reason(rule="documentation-only", file=first, text=text)
    touched: dict[int, Reason] = {}
    for path in relevant:
        found = touched_by_lock(path, graph, difference) if path in graph.by_lock else _touched_by(path, graph)
        for index, reason in found:
            touched.setdefault(index, reason)
        if len(touched) == len(graph.projects):
            break
    if not touched and all(map(is_of_other_ci, relevant)):
        shown = printable(relevant[0]) + (f" and {len(relevant) - 1} more" if len(relevant) > 1 else "")
        text = f"no project reads what changed, which is for another CI system or for the forge: {shown}"
        return {}, Reason(rule="other-ci", file=relevant[0], text=text)
    text = f"none of {len(difference.paths)} changed files touches this project or one that it depends on"
    return graph.spread(touched), Reason(rule="not-affected", file=difference.paths[0], text=text)


def locks_wanted(graph: ProjectGraph, difference: Difference) -> tuple[str, ...]:
    """The changed lock files whose contents decide which projects are touched, sorted."""
    return tuple(path for path in difference.paths or () if path in graph.by_lock)


def touched_by_lock(path: str, graph: ProjectGraph, difference: Difference) -> list[tuple[int, Reason]]:
    """Of the projects that a changed lock file is the lock of, those whose resolved dependencies changed.

    If that cannot be told, all of them; besides, other projects that read the file. What else is above it is not
    concerned, not even at the root of the repository.
    """
    users = graph.by_lock[path]
    members = {
        project.root: Member(project.name, difference.manifests.get(project.manifest, b""))
        for project in (graph.projects[index] for index in users)
    }
    old, new = difference.locks.get(path, (None, None))
    why = differences(PurePosixPath(path).name, old, new, members, parent(path))
    shown = printable(path)
    found = [
        (index, Reason(rule="lock-changed", file=path, text=f"{shown} {why[graph.projects[index].root]}"))
        for index in users
        if graph.projects[index].root in why
    ]
    read = Reason(rule="shared-file", file=path, text=f"{shown} changed, which this project reads")
    return found + [(index, read) for index in graph.readers(path) if index not in users]


def _relevant(paths: Sequence[str], documentation: Sequence[str]) -> list[str]:
    """Those of `paths` that are no documentation. Raises PlanFailed if matching would take too long."""
    if not documentation:
        return [path for path in paths if not is_documentation(path)]
    if len(documentation) * len(paths) > MATCHES_MAX:
        raise PlanFailed(f"too many patterns in 'documentation' of {FILE} for {len(paths)} changed files; use fewer")
    added, kept = Globs(documentation), Globs(("**", *documentation))
    return [path for path in paths if (kept if is_documentation(path) else added).match(path) is None]


def _touched_by(path: str, graph: ProjectGraph) -> list[tuple[int, Reason]]:
    """The projects that a changed file belongs to or concerns; all, if it may concern the repository as a whole."""
    shown = printable(path)
    changed = Reason(rule="project-changed", file=path, text=f"{shown} changed and is part of this project")
    owners, readers = graph.owners(path), graph.readers(path)
    if is_of_other_ci(path) and all(graph.projects[index].root == "." for index in owners):
        read = Reason(rule="shared-file", file=path, text=f"{shown} changed, which this project reads")
        return [(index, read) for index in graph.readers(path, is_meant=True)]
    found = [(index, changed) for index in owners]
    if not owners and not graph.is_claimed(path):
        text = f"{shown} changed and belongs to no project, so to all of them"
        shared = Reason(rule="shared-file", file=path, text=text)
        return [(index, shared) for index in range(len(graph.projects))]
    is_read = any(not graph.projects[index].is_guest for index in readers)
    idle = [index for index in owners if not graph.projects[index].jobs and not is_read]
    if idle:
        # Nothing runs for the file itself: it may be what the projects inside are built with.
        text = f"{shown} changed, which nothing runs for by itself, so for all that is beside it"
        beside = Reason(rule="shared-file", file=path, text=text)
        found += [(index, beside) for each in idle for index in graph.inside(each, any_ecosystem=idle == [*owners])]
    found += _gone(path, graph)
    read = Reason(rule="shared-file", file=path, text=f"{shown} changed, which this project reads")
    found += [(index, read) for index in readers]
    if owners and graph.projects[owners[0]].root == "." and _concerns_all(path, [graph.projects[i] for i in owners]):
        text = f"{shown} changed at the root, which may concern every project"
        shared = Reason(rule="shared-file", file=path, text=text)
        found += [(index, shared) for index in range(len(graph.projects))]
    return found


def _gone(path: str, graph: ProjectGraph) -> list[tuple[int, Reason]]:
    """All projects of an ecosystem that lost one: who depended on what is gone cannot be told."""
    root, name = parent(path), PurePosixPath(path).name
    ecosystems = {ecosystem for ecosystem, names in ALWAYS.items() if name in names}
    here = {graph.projects[index].ecosystem for index in graph.by_root.get(root, ())}
    if not ecosystems - here or is_left_out(path):
        return []
    text = f"{printable(path)} is gone, and with it a project that others may have depended on"
    reason = Reason(rule="project-gone", file=path, text=text)
    return [(index, reason) for index, each in enumerate(graph.projects) if each.ecosystem in ecosystems - here]


def _concerns_all(path: str, owners: Sequence[Project]) -> bool:
    if "/" in path:
        return path.startswith(".")  # .github/, .cargo/, .docker/ ...
    suffix = PurePosixPath(path).suffix
    return not any(
        path == project.manifest or suffix in SOURCES.get(project.ecosystem, frozenset()) for project in owners
    )


def is_documentation(path: str) -> bool:
    """Whether no build or test can depend on `path`, as far as its name tells; in doubt it is not documentation."""
    pure = PurePosixPath(path)
    directories = set(pure.parts[:-1])
    if directories & _INPUT_DIRECTORIES:
        return False
    if pure.suffix.lower() in _DOCUMENT_SUFFIXES or pure.name in _DOCUMENT_NAMES:
        return True
    return pure.suffix.lower() in _ASSET_SUFFIXES and bool(directories & _DOCUMENT_DIRECTORIES)
