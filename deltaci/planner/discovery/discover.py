"""All projects of a commit, from the names of its files and the manifests among them.

Rule 1: only files that an ecosystem lists in `STRUCTURE` are looked at, so that a change to any other file leaves what
was discovered as it is; `fingerprint` says whether it does.
Rule 2: what was seen and left out is said, so that nobody wonders why their project does not run.
"""

import fnmatch
import hashlib
import re
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Final

import msgspec

from deltaci.domain.plan import Reason
from deltaci.domain.project import Project
from deltaci.planner.discovery import go, node, python, rust
from deltaci.planner.discovery.project import MANIFEST_BYTES_MAX, Tree, is_left_out, join
from deltaci.planner.errors import PlanFailed, printable
from deltaci.planner.repository import Files

MANIFESTS_MAX: Final = 20_000
# Each has MANIFESTS (names of files that make a project), STRUCTURE (names of all files that it looks at, as in
# `fnmatch`), SOURCES (suffixes), `wanted` (the paths to read, from the names) and `find` (the projects, from names and
# contents); the ecosystem of its projects is the name of the module.
ECOSYSTEMS: Final[tuple[ModuleType, ...]] = (go, node, python, rust)
# At the root of the repository, a file of one of these kinds concerns its own project and no other.
SOURCES: Final[Mapping[str, frozenset[str]]] = {
    ecosystem.__name__.rpartition(".")[2]: ecosystem.SOURCES for ecosystem in ECOSYSTEMS
}

# Manifests that always make a project, unless they are left out; `node` has them as ALWAYS.
ALWAYS: Final[Mapping[str, frozenset[str]]] = {
    ecosystem.__name__.rpartition(".")[2]: frozenset(getattr(ecosystem, "ALWAYS", ())) for ecosystem in ECOSYSTEMS
}


class Discovery(msgspec.Struct, frozen=True, kw_only=True):
    """The projects, sorted by ecosystem and root, and what was left out with the reason."""

    projects: tuple[Project, ...]
    reasons: tuple[Reason, ...] = ()


def _names(attribute: str) -> re.Pattern[str]:
    patterns = sorted({name for ecosystem in ECOSYSTEMS for name in getattr(ecosystem, attribute)})
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in patterns))


_STRUCTURE: Final = _names("STRUCTURE")
_MANIFEST: Final = _names("MANIFESTS")


def is_structural(path: str) -> bool:
    """Whether discovery may look at a file of this name."""
    return _STRUCTURE.match(path.rpartition("/")[2]) is not None


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
    paths: set[str] = set()
    for ecosystem, manifests in _manifests(seen).items():
        paths.update(ecosystem.wanted(tree, manifests))
    return sorted(path for path in paths if seen.is_file(path) and seen.size(path) <= MANIFEST_BYTES_MAX)


def fingerprint(seen: Files, read: list[str]) -> str:
    """16 hex digits: as long as they are the same, so is what `discover` finds. `read` is what `wanted` answered."""
    contents = set(read)
    whole = hashlib.sha256()
    for path in seen.paths:
        whole.update(f"{path}\0{seen.kind(path)}\0{seen.sha(path) if path in contents else ''}\n".encode())
    return whole.hexdigest()[:16]


def discover(seen: Files, contents: Mapping[str, bytes]) -> Discovery:
    """The projects of a commit.

    Args:
        seen: what `structure` answered.
        contents: of the files that `wanted` named.
    Raises:
        PlanFailed: a manifest cannot be read (the problem has file and line), or there are too many.
    """
    tree = Tree(seen, contents)
    projects: list[Project] = []
    for ecosystem, manifests in _manifests(seen).items():
        projects += ecosystem.find(tree, manifests)
    return Discovery(projects=tuple(projects), reasons=tuple(_left_out(seen, projects)))


def _manifests(seen: Files) -> dict[ModuleType, list[str]]:
    found: dict[ModuleType, list[str]] = {ecosystem: [] for ecosystem in ECOSYSTEMS}
    patterns = {ecosystem: _of(ecosystem.MANIFESTS) for ecosystem in ECOSYSTEMS}
    for path in seen.paths:
        name = path.rpartition("/")[2]
        if _MANIFEST.match(name) is None or is_left_out(path) or not seen.is_file(path):
            continue
        if seen.size(path) > MANIFEST_BYTES_MAX:
            text = f"{printable(path)} has {seen.size(path)} bytes, at most {MANIFEST_BYTES_MAX} are read"
            raise PlanFailed(f"{text}; describe the jobs in deltaci.yaml")
        for ecosystem, pattern in patterns.items():
            if pattern.match(name) is not None:
                found[ecosystem].append(path)
    count = sum(len(paths) for paths in found.values())
    if count > MANIFESTS_MAX:
        raise PlanFailed(f"{count} manifests, at most {MANIFESTS_MAX} are read; describe the jobs in deltaci.yaml")
    return found


def _of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(fnmatch.translate(name) for name in names))


def _left_out(seen: Files, projects: Sequence[Project]) -> list[Reason]:
    taken = {join(project.root, project.manifest.rpartition("/")[2]) for project in projects}
    paths = [path for path in seen.paths if _MANIFEST.match(path.rpartition("/")[2]) and is_left_out(path)]
    paths = [path for path in paths if path not in taken]  # some are declared by a workspace
    if not paths:
        return []
    shown = ", ".join(printable(path) for path in paths[:3]) + (", ..." if len(paths) > 3 else "")
    text = f"not taken for projects, because of the directories they are in: {shown} ({len(paths)} in all)"
    return [Reason(rule="left-out", file=paths[0], text=text)]
