"""Globs of files that Nx and Turborepo count as inputs, as what a project reads.

Rule: the files read are at least those meant: negations are dropped, and what we cannot express is a directory.
"""

import re
from collections.abc import Iterable
from typing import Final

import msgspec

from deltaci.planner.discovery.node_workspaces import expand
from deltaci.planner.discovery.project import inside
from deltaci.planner.globs import GlobInvalid, Globs

GLOBS_MAX: Final = 100
# More patterns than these in one place are not looked at one by one: all files are read.
PATTERNS_MAX: Final = 1_000
_SPECIAL: Final = re.compile(r"[*?\[\]{}()!\\]")


class Reads(msgspec.Struct, frozen=True):
    """Paths of files and directories, and globs, from the root of the repository."""

    paths: frozenset[str] = frozenset()
    globs: frozenset[str] = frozenset()

    def __or__(self, other: "Reads") -> "Reads":
        return Reads(self.paths | other.paths, self.globs | other.globs)


def reads_of(base: str, patterns: Iterable[str]) -> Reads:
    """The files that `patterns`, as seen from the directory `base`, mean; those outside the repository are none."""
    paths: set[str] = set()
    globs: set[str] = set()
    for count, pattern in enumerate(patterns):
        if count >= PATTERNS_MAX:
            return Reads(frozenset({"."}))
        if pattern.startswith("!") or not pattern.isprintable():
            continue
        directory, rest = _split(base, pattern)
        if directory is None:
            continue
        if rest in ("", "**", "**/*") or len(globs) >= GLOBS_MAX:
            paths.add(directory)
        else:
            each = _globs(directory, rest)
            globs.update(each or ())
            paths.update(() if each is not None else (directory,))
    return Reads(frozenset(paths), frozenset(globs))


def _split(base: str, pattern: str) -> tuple[str | None, str]:
    """The directory that a pattern begins with, and the rest of it from its first wildcard on."""
    special = _SPECIAL.search(pattern)
    if special is None:
        return inside(base, pattern.lstrip("/") or "."), ""
    literal = pattern[: special.start()].rpartition("/")[0]
    return inside(base, literal.lstrip("/") or "."), pattern[len(literal) :].lstrip("/")


def _globs(directory: str, rest: str) -> list[str] | None:
    expanded = expand(rest)
    if expanded is None:
        return None
    globs = [f"{rooted(directory)}{each}" for each in expanded]
    try:
        Globs(globs)
    except GlobInvalid:
        return None
    return globs


def rooted(directory: str) -> str:
    """A glob that is exactly `directory`, with a slash at its end."""
    return "/" if directory == "." else "/" + re.sub(r"([*?\[\]\\!])", r"\\\1", directory) + "/"
