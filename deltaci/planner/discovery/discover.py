"""All projects of a commit, from the names of its files and the manifests among them.

Rule 1: only files that an ecosystem lists in `STRUCTURE`, and those of `own_ci`, are looked at, so that a change to any
other file leaves what was discovered as it is; `fingerprint` says whether it does.
Rule 2: what was seen and left out is said, so that nobody wonders why their project does not run.
Rule 3: languages come first, then task runners for what no language explains, then images of what was found.
"""

import fnmatch
import hashlib
import re
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Final

import msgspec

from deltaci.domain.plan import Reason
from deltaci.domain.project import Project
from deltaci.planner.discovery import (
    cmake,
    docker,
    dotnet,
    go,
    gradle,
    just,
    make,
    maven,
    meson,
    node,
    own_ci,
    python,
    rust,
    submodules,
    task,
)
from deltaci.planner.discovery.others import Roots, outermost
from deltaci.planner.discovery.project import (
    MANIFEST_BYTES_MAX,
    MANIFESTS_MAX,
    Tree,
    is_left_out,
    join,
    parent,
    table,
    too_many,
)
from deltaci.planner.errors import PlanFailed, printable
from deltaci.planner.other_ci import PLACES, looks_at_them
from deltaci.planner.program import program
from deltaci.planner.repository import Files

# Each has MANIFESTS (names of files that make a project), STRUCTURE (names of all files that it looks at, as in
# `fnmatch`), SOURCES (suffixes), `wanted` (the paths to read, from the names) and `find` (the projects, from names and
# contents); the ecosystem of its projects is the name of the module.
ECOSYSTEMS: Final[tuple[ModuleType, ...]] = (cmake, dotnet, go, gradle, maven, meson, node, python, rust)
# The same, but `find` takes the roots of what was found before as well, and answers what it leaves unused besides.
# Nothing that these read is needed to build anything, so that none of it can fail a plan.
FALLBACKS: Final[tuple[ModuleType, ...]] = (make, just, task)
IMAGES: Final[tuple[ModuleType, ...]] = (docker,)
LATER_MANIFESTS_MAX: Final = 5_000
_IN_MANY_DIRECTORIES: Final = frozenset({*cmake.MANIFESTS, *meson.MANIFESTS, *make.MAKEFILES})
MODULES: Final = (*ECOSYSTEMS, *FALLBACKS, *IMAGES)
# At the root of the repository, a file of one of these kinds concerns its own project and no other.
SOURCES: Final[Mapping[str, frozenset[str]]] = {
    module.__name__.rpartition(".")[2]: module.SOURCES for module in MODULES
}

_RUNNERS: Final = frozenset(module.__name__.rpartition(".")[2] for module in FALLBACKS)

# Manifests that always make a project, unless they are left out; `node` has them as ALWAYS.
ALWAYS: Final[Mapping[str, frozenset[str]]] = {
    module.__name__.rpartition(".")[2]: frozenset(getattr(module, "ALWAYS", ())) for module in MODULES
}


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """The projects, sorted by ecosystem and root, and what was left out with the reason."""

    projects: tuple[Project, ...]
    reasons: tuple[Reason, ...] = ()


class _Names:
    """Basename patterns. Nearly all are plain names: one look into a set tells, where a hundred thousand are asked."""

    def __init__(self, patterns: Iterable[str]) -> None:
        every = set(patterns)
        self._plain = frozenset(pattern for pattern in every if not set(pattern) & set("*?["))
        wild = sorted(every - self._plain)
        self._wild = re.compile("|".join(fnmatch.translate(pattern) for pattern in wild) if wild else "(?!)")

    def match(self, name: str) -> bool:
        return name in self._plain or self._wild.match(name) is not None


_STRUCTURE: Final = _Names(name for module in MODULES for name in module.STRUCTURE)
_MANIFEST: Final = _Names(name for module in MODULES for name in module.MANIFESTS)


def is_structural(path: str) -> bool:
    """Whether discovery may look at a file of this name."""
    return _STRUCTURE.match(path.rpartition("/")[2]) or own_ci.lists_commands(path) or path == submodules.FILE


def structure(files: Files) -> Files:
    """Those of `files` that discovery may look at."""
    return files.only(is_structural)


def wanted(seen: Files) -> list[str]:
    """The files that `discover` needs to read: regular, at most `MANIFEST_BYTES_MAX`, sorted.

    Args:
        seen: what `structure` answered.
    Raises:
        PlanFailed: more than `MANIFESTS_MAX` manifests, or one that is too large.
    """
    tree = Tree(seen, {})
    paths = {*own_ci.wanted(seen), *submodules.wanted(tree)}
    for module, manifests in _manifests(seen)[0].items():
        paths.update(module.wanted(tree, manifests))
    return sorted(path for path in paths if seen.is_file(path) and seen.size(path) <= MANIFEST_BYTES_MAX)


def fingerprint(seen: Files, read: list[str]) -> str:
    """As long as it is the same, so is what `discover` finds: 16 hex digits of the files, `-`, 8 of this program.

    `read` is what `wanted` answered.
    """
    contents = set(read)
    whole = hashlib.sha256()
    for path in seen.paths:
        kind = "program" if seen.is_executable(path) else seen.kind(path)
        whole.update(f"{path}\0{kind}\0{seen.sha(path) if path in contents else ''}\n".encode())
    return f"{whole.hexdigest()[:16]}-{program()}"


def discover(seen: Files, contents: Mapping[str, bytes]) -> Discovery:
    """The projects of a commit.

    Args:
        seen: what `structure` answered.
        contents: of the files that `wanted` named.
    Raises:
        PlanFailed: a manifest cannot be read (the problem has file and line), or there are too many.
    """
    tree = Tree(seen, contents)
    manifests, unread = _manifests(seen)
    projects: list[Project] = []
    for module in ECOSYSTEMS:
        projects += module.find(tree, manifests[module])
    reasons = [*_left_out(seen, projects), *unread]
    for group in (FALLBACKS, IMAGES):
        roots = Roots(project.root for project in projects)
        found = [module.find(tree, manifests[module], roots) for module in group]
        new = [project for each in found for project in each.projects]
        projects += outermost(new) if group is FALLBACKS else new
        reasons += [reason for each in found for reason in each.reasons]
    projects = submodules.with_submodules(tree, [_with_other_ci(tree, project) for project in projects])
    projects.sort(key=lambda project: (project.ecosystem, project.root))
    return Discovery(projects=tuple(projects), reasons=tuple(reasons))


def _with_other_ci(tree: Tree, project: Project) -> Project:
    """A project at the root reads the files of other CI systems if one of its scripts may look at them."""
    if project.root != "." or not project.jobs:
        return project
    scripts = [step.run for job in project.jobs for step in job.steps]
    if project.ecosystem == "node":
        scripts += [body for body in table(tree.json(project.manifest), "scripts").values() if isinstance(body, str)]
    elif project.ecosystem in _RUNNERS:
        scripts.append(tree.text(project.manifest))
    if not any(map(looks_at_them, scripts)):
        return project
    return msgspec.structs.replace(project, reads=project.reads | PLACES)


def _manifests(seen: Files) -> tuple[dict[ModuleType, list[str]], list[Reason]]:
    """For each module the files that make its projects; and which of them are not looked at, for being too many."""
    found: dict[ModuleType, list[str]] = {module: [] for module in MODULES}
    patterns = {module: _Names(module.MANIFESTS) for module in MODULES}
    oversized: list[str] = []
    for path in seen.paths:
        name = path.rpartition("/")[2]
        if not _MANIFEST.match(name) or is_left_out(path) or not seen.is_file(path):
            continue
        for module, pattern in patterns.items():
            if not pattern.match(name):
                continue
            if seen.size(path) <= MANIFEST_BYTES_MAX:
                found[module].append(path)
            elif module in ECOSYSTEMS:
                text = f"{printable(path)} has more than {MANIFEST_BYTES_MAX} bytes, which is the most that is read"
                raise PlanFailed(f"{text}; describe the jobs in deltaci.yaml")
            else:
                oversized.append(path)
    count = sum(len(found[module]) for module in ECOSYSTEMS)
    if count > MANIFESTS_MAX:
        raise too_many(count)
    reasons = []
    if oversized:
        text = f"more than {MANIFEST_BYTES_MAX} bytes, and not read: {_shown(oversized)}"
        reasons.append(Reason(rule="not-read", file=oversized[0], text=text))
    for module in (*FALLBACKS, *IMAGES):
        if len(found[module]) > LATER_MANIFESTS_MAX:
            nearest = sorted(found[module], key=lambda path: (path.count("/"), path))
            found[module], rest = sorted(nearest[:LATER_MANIFESTS_MAX]), nearest[LATER_MANIFESTS_MAX:]
            text = f"not read, since {LATER_MANIFESTS_MAX} such files are nearer to the root: {_shown(rest)}"
            reasons.append(Reason(rule="not-read", file=rest[0], text=text))
    return found, reasons


def _left_out(seen: Files, projects: list[Project]) -> list[Reason]:
    taken = {project.root for project in projects}  # a declared member is a project wherever it is
    paths = [
        path
        for path in seen.paths
        if _MANIFEST.match(path.rpartition("/")[2])
        and is_left_out(path)
        and parent(path) not in taken
        and not _is_part(seen, path)
    ]
    if not paths:
        return []
    text = f"not taken for projects, because of the directories they are in: {_shown(paths)} ({len(paths)} in all)"
    return [Reason(rule="left-out", file=paths[0], text=text)]


def _is_part(seen: Files, path: str) -> bool:
    """Whether it is one of those files that a project has in many of its directories, as for its tests."""
    name = path.rpartition("/")[2]
    return name in _IN_MANY_DIRECTORIES and seen.is_file(join(parent(parent(path)), name))


def _shown(paths: list[str]) -> str:
    return ", ".join(printable(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
