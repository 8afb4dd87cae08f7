"""A recipe as the text of a `deltaci.yaml`: a proposal for people who want to say themselves what runs.

Rule 1: loaded again, it gives jobs with the same commands, environments, caches and artifacts.
Rule 2: whatever changes, it runs at least what the recipe would run: where patterns cannot say exactly when, they say
        more often.
Rule 3: it is checked by the reader of configurations before anybody sees it; what that refuses is not handed out.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import yaml

from deltaci.domain.errors import DeltaError
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.domain.recipe import Kept
from deltaci.domain.script import Step
from deltaci.planner.configuration import FILE, load
from deltaci.planner.configuration.expressions import OPEN
from deltaci.planner.errors import ConfigurationInvalid, printable
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.repository import Files
from deltaci.planner.yaml_nodes import BYTES_MAX

NAME_CHARACTERS_MAX: Final = 100
PATTERNS_OF_A_JOB_MAX: Final = 900
# All jobs together: with this many a plan may still have four thousand changed files.
PATTERNS_MAX: Final = 5_000
HASHED_AT_ONCE: Final = 20
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9_ .:/+-]", re.ASCII)
_WIDTH: Final = 1 << 20  # a folded line is harder to read than a long one


class NotExportable(DeltaError):
    """This recipe cannot be written as a configuration."""

    code = "not_exportable"
    http_status = 422


def configuration_of(kept: Kept, repo_name: str) -> str:
    """The text of a `deltaci.yaml` that does what the recipe does.

    Raises:
        NotExportable: nothing that a configuration may say does; the text says what is in the way.
    """
    graph = ProjectGraph(kept.blueprint.projects)
    names = _names(graph.projects)
    if not names:
        raise NotExportable(f"version {kept.recipe.version} of the recipe of {repo_name} has no job to write down")
    filters = _filters(graph)
    text = _text(kept, repo_name, graph, names, filters)
    if filters is not None and len(text.encode()) > BYTES_MAX:
        text = _text(kept, repo_name, graph, names, None)
    try:
        # The hashes are of no commit: only that they can be taken is asked.
        load(text.encode(), Files(()))
    except ConfigurationInvalid as error:
        problem = error.problems[0]
        raise NotExportable(f"version {kept.recipe.version} of the recipe of {repo_name}: {problem}") from error
    return text


def _text(
    kept: Kept,
    repo_name: str,
    graph: ProjectGraph,
    names: Mapping[tuple[int, str], str],
    filters: Sequence[Sequence[str]] | None,
) -> str:
    jobs: dict[str, Any] = {}
    comments: list[str] = []
    for (index, check), name in names.items():
        project = graph.projects[index]
        job = next(job for job in project.jobs if job.check == check)
        jobs[name] = _job(project, job, None if filters is None else filters[index])
        of_reports = f"; JUnit reports: {', '.join(map(printable, job.reports))}" if job.reports else ""
        comments.append(f"  # {printable(project.manifest)}{of_reports}\n")
    dumped = yaml.dump(
        {"version": 1, "jobs": jobs},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=False,
        width=_WIDTH,
    )
    lines: list[str] = []
    waiting = iter(comments)
    for line in dumped.splitlines(keepends=True):
        # Everything inside a job is deeper: what stands at two spaces is the name of the next one.
        if line.startswith("  ") and line[2:3] not in (" ", "\n"):
            lines.append(next(waiting))
        lines.append(line)
    return _header(kept, repo_name, is_filtered=filters is not None) + "".join(lines)


def _header(kept: Kept, repo_name: str, *, is_filtered: bool) -> str:
    recipe = kept.recipe
    confirmed = f", last confirmed by {recipe.confirmed_by}" if recipe.confirmed_by else ""
    lines = [
        f"A proposal for {FILE}, made from version {recipe.version} of the recipe of {printable(repo_name)}.",
        f"The recipe was made by {recipe.made_by}{confirmed}; it is {recipe.state}.",
        "Once committed at the root of the repository, it decides what runs: discovery and recipes are not asked.",
    ]
    if is_filtered:
        lines += [
            "",
            "`paths` name what a job's project, and all that it depends on, is made of; the last match wins.",
            "Files that belong to no project, and files at the root, run everything: take them back with '!' where",
            "they concern nobody.",
        ]
    else:
        lines += ["", "No job has `paths`: there are too many projects. Each runs on every change."]
    return "".join(f"# {line}".rstrip() + "\n" for line in lines) + "\n"


def _names(projects: Sequence[Project]) -> dict[tuple[int, str], str]:
    """A name that a configuration accepts for each job of each project, by position and check; no two are equal."""
    names: dict[tuple[int, str], str] = {}
    taken: set[str] = set()
    for index, project in enumerate(projects):
        for job in project.jobs:
            wanted = f"{project.ecosystem}-{job.check}" + ("" if project.root == "." else f":{project.root}")
            name = _NO_NAME.sub("_", wanted).strip(" .:/+-")
            if name != wanted or len(name) > NAME_CHARACTERS_MAX or name in taken:
                mark = hashlib.sha256(wanted.encode("utf-8", "surrogatepass")).hexdigest()[:8]
                name = f"{name[: NAME_CHARACTERS_MAX - 9]}-{mark}"
            taken.add(name)
            names[index, job.check] = name
    return names


def _job(project: Project, job: ProjectJob, paths: Sequence[str] | None) -> dict[str, Any]:
    value: dict[str, Any] = {}
    if paths:
        value["paths"] = list(paths)
    if job.env:
        value["env"] = {name: _literal(text) for name, text in job.env.items()}
    value["steps"] = [_step(step) for step in job.steps]
    if job.caches:
        caches = ({"key": _key(rule, project), "paths": [_literal(path) for path in rule.paths]} for rule in job.caches)
        value["caches"] = list(caches)
    if job.artifacts:
        value["artifacts"] = [
            {"name": _literal(each.name), "paths": [_literal(path) for path in each.paths]} for each in job.artifacts
        ]
    return value


def _step(step: Step) -> dict[str, Any]:
    value: dict[str, Any] = {"name": _literal(step.name), "run": _literal(step.run)}
    if step.workdir != ".":
        value["workdir"] = step.workdir
    if step.env:
        value["env"] = {name: _literal(text) for name, text in step.env.items()}
    return value


def _literal(text: str) -> str:
    """`text` so that no part of it is an expression."""
    return text.replace(OPEN, f"${OPEN}")


def _key(rule: CacheRule, project: Project) -> str:
    """A key that changes when the tools or one of the inputs do."""
    tools = "".join(f"{tool}={version}\n" for tool, version in sorted(project.tools.items()))
    parts = [_literal(rule.name)]
    if tools:
        parts.append(hashlib.sha256(tools.encode()).hexdigest()[:8])
    patterns = [_exactly(path).replace("'", "?").replace("}", "?") for path in rule.inputs]
    for start in range(0, len(patterns), HASHED_AT_ONCE):
        arguments = ", ".join(f"'{pattern}'" for pattern in patterns[start : start + HASHED_AT_ONCE])
        parts.append(f"{OPEN} hash({arguments}) }}}}")
    return "-".join(parts)


# ---- when a job runs ---------------------------------------------------------------------------------------------


def _filters(graph: ProjectGraph) -> list[tuple[str, ...]] | None:
    """For each project the patterns under which its jobs run; None if it would be more than a plan can match."""
    roots = sorted(graph.by_root, key=lambda root: (root != ".", root.count("/"), root))
    jobs = sum(bool(project.jobs) for project in graph.projects)
    # Told before they are made: each has about as many as there are roots.
    if len(roots) > PATTERNS_OF_A_JOB_MAX or len(roots) * jobs > PATTERNS_MAX:
        return None
    filters = [_patterns(graph, index, roots) for index in range(len(graph.projects))]
    longest = max(map(len, filters), default=0)
    return None if longest > PATTERNS_OF_A_JOB_MAX or sum(map(len, set(filters))) > PATTERNS_MAX else filters


def _patterns(graph: ProjectGraph, index: int, roots: Sequence[str]) -> tuple[str, ...]:
    """What touches a project or one that it depends on, however far away; empty: everything does."""
    needed = _closure(graph, index)
    own = {graph.projects[one].root for one in needed}
    if own >= set(roots):
        return ()
    # A project at the root owns what is in no other; of that, top-level files and hidden directories concern all.
    patterns = ["/*", "!/*/", "/.*/"] if "." in graph.by_root and "." not in own else ["**"]
    patterns += [f"{'' if root in own else '!'}{_exactly(root)}/" for root in roots if root != "."]
    read = {path for one in needed for path in _read_by(graph.projects[one])}
    patterns += sorted(_exactly(path) for path in read)
    # Each once, where it stands last: the last match wins.
    return tuple(reversed(dict.fromkeys(reversed(patterns))))


def _read_by(project: Project) -> set[str]:
    return {*project.reads, project.manifest, *([project.lock] if project.lock is not None else [])}


def _closure(graph: ProjectGraph, index: int) -> set[int]:
    found = {index}
    waiting = [index]
    while waiting:
        for other in graph.depends_on[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def _exactly(path: str) -> str:
    """The pattern of one path, or of a directory with all below it."""
    if path == ".":
        return "**"
    return "/" + re.sub(r"([*?\[\\])", r"\\\1", path)


class _Dumper(yaml.SafeDumper):
    """Lists are indented below their key, scripts are blocks, and nothing is written as a reference."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002 - PyYAML's signature
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - PyYAML's signature
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text_node)
