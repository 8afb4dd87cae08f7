"""Where things are: members of workspaces, directories above a project, and the project that a file is nearest to.

Rule 1: nothing here loops over all files for each project; what is answered for a directory is remembered.
Rule 2: a pattern that cannot be understood, or would take too long, matches every candidate: uncertainty expands.
"""

import fnmatch
import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final

from deltaci.planner.discovery.project import Tree, inside, is_left_out

# Globs times candidates of one workspace: about a second. Plain paths are looked up and cost nothing.
MEMBER_MATCHES_MAX: Final = 500_000
PATTERN_CHARACTERS_MAX: Final = 500
PATTERN_NAMES_MAX: Final = 32
ANCESTORS_MAX: Final = 32
# Manifests below directories that are left out: read because a workspace may declare them its members.
LEFT_OUT_READ_MAX: Final = 5_000
FOREIGN_DIRECTORIES: Final = frozenset({"node_modules", "site-packages", "bower_components", "venv", "__pycache__"})
_WILD: Final = re.compile(r"[*?\[]")


def directory(path: str) -> str:
    """The directory of a path relative to the root of the repository, which is `.`."""
    return path.rpartition("/")[0] or "."


def is_below(root: str, path: str) -> bool:
    """Whether `path` is `root` or below it."""
    return root in (".", path) or path.startswith(root + "/")


def ancestors(root: str) -> list[str]:
    """The directories above `root`, nearest first, the root of the repository last; at most `ANCESTORS_MAX`."""
    found: list[str] = []
    while root != "." and len(found) < ANCESTORS_MAX:
        root = directory(root)
        found.append(root)
    return found


def left_out_manifests(tree: Tree, name: str) -> list[str]:
    """Regular files called `name` below directories that are left out, sorted, at most `LEFT_OUT_READ_MAX`.

    Those below installed packages and hidden directories are nobody's members.
    """
    found: list[str] = [
        path
        for path in tree.files.paths
        if path.endswith(name)
        and path.rpartition("/")[2] == name
        and is_left_out(path)
        and tree.files.is_file(path)
        and not _is_foreign(path)
    ]
    return found[:LEFT_OUT_READ_MAX]


def _is_foreign(path: str) -> bool:
    return any(name in FOREIGN_DIRECTORIES or name.startswith(".") for name in path.split("/")[:-1])


def below(root: str, places: Sequence[str]) -> Sequence[str]:
    """Those of the sorted `places` that are below `root`, without itself."""
    if root == ".":
        return [place for place in places if place != "."]
    # "0" is the character after "/": between the two are exactly the names that begin with "root/".
    return places[bisect_left(places, f"{root}/") : bisect_left(places, f"{root}0")]


class Nearest:
    """Tells for a directory which of `roots` is the nearest at or above it; each directory is resolved once.

    Below a hidden directory, or one with installed packages, nothing belongs to a root outside of it.
    """

    def __init__(self, roots: Iterable[str]) -> None:
        self._known: dict[str, str | None] = {root: root for root in roots}
        self._known.setdefault(".", None)

    def root(self, place: str) -> str | None:
        """The nearest root, None if there is none."""
        chain = []
        while place not in self._known:
            chain.append(place)
            place = directory(place)
        found = self._known[place]
        for below in reversed(chain):
            name = below.rpartition("/")[2]
            if name in FOREIGN_DIRECTORIES or name.startswith("."):
                found = None
            self._known[below] = found
        return found


def members(root: str, patterns: Iterable[str], candidates: Sequence[str]) -> set[str]:
    """Those of `candidates` (directories, relative to the repository) that `patterns` name, as seen from `root`.

    A pattern names directories as a shell would: `*` and `?` stay within one name, `**` crosses directories, and what
    is below a directory that matches does not match by that.
    """
    plain: set[str] = set()
    globs: set[tuple[str, ...]] = set()
    for pattern in patterns:
        place = inside(root, pattern)
        if place is None:
            continue
        if _WILD.search(place) is None:
            plain.add(place)
        else:
            globs.add(tuple(place.split("/")))
    found = plain.intersection(candidates)
    if len(globs) * len(candidates) > MEMBER_MATCHES_MAX or any(_is_unclear(each) for each in globs):
        return set(candidates)
    matchers = [_matcher(each) for each in sorted(globs)]
    found.update(each for each in candidates if any(matches(each) for matches in matchers))
    return found


def _is_unclear(pattern: tuple[str, ...]) -> bool:
    return len(pattern) > PATTERN_NAMES_MAX or sum(map(len, pattern)) > PATTERN_CHARACTERS_MAX


def _matcher(pattern: tuple[str, ...]) -> Callable[[str], bool]:
    rules = [None if name == "**" else re.compile(fnmatch.translate(name)) for name in pattern]

    def matches(place: str) -> bool:
        names = [] if place == "." else place.split("/")[: PATTERN_NAMES_MAX * 4]
        # reached[i]: the first i rules can match the names so far; `**` matches any number of them.
        reached = [True] + [False] * len(rules)
        _skip(rules, reached)
        for name in names:
            following = [False] * len(reached)
            for index, rule in enumerate(rules):
                if reached[index] and rule is None:
                    following[index] = True
                elif reached[index] and rule is not None and rule.match(name):
                    following[index + 1] = True
            reached = following
            _skip(rules, reached)
        return reached[-1]

    return matches


def _skip(rules: Sequence[re.Pattern[str] | None], reached: list[bool]) -> None:
    for index, rule in enumerate(rules):
        if rule is None and reached[index]:
            reached[index + 1] = True


def split_targets(
    root: str, targets: Iterable[str], roots: AbstractSet[str] | Mapping[str, object]
) -> tuple[set[str], set[str]]:
    """Paths that a manifest at `root` depends on, as roots of projects and as other files and directories to read.

    `targets` are relative to the repository. What is inside `root` and no project is part of this one anyhow.
    """
    projects: set[str] = set()
    reads: set[str] = set()
    for target in targets:
        if target in roots:
            projects.add(target)
        elif not is_below(root, target):
            reads.add(target)
    projects.discard(root)
    return projects, reads
