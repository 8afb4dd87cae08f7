"""What CMake, Meson and make have in common: the suffixes of C and C++, and sources that are outside of the project.

Rule: a path that cannot be followed for sure is followed as far up as it may lead.
"""

import re
from collections.abc import Iterable
from typing import Final

from deltaci.planner.discovery.project import inside

SOURCES: Final = frozenset(
    {".c", ".cc", ".cpp", ".cxx", ".c++", ".h", ".hh", ".hpp", ".hxx", ".inl", ".ipp", ".S", ".asm", ".m", ".mm"}
)
READS_MAX: Final = 100
# Nested below another project, a directory named like this has what its tests try out, not a project of its own.
TRIAL: Final = re.compile(
    r"(?:^|[-_. ])(?:tests?|testing|examples?|samples?|demos?|bench(?:marks?)?|fixtures?|fuzz(?:ing)?|docs?)"
    r"(?:$|[-_. ])",
    re.IGNORECASE,
)
_UPWARD: Final = re.compile(r"(?<![\w.-])\.\.(?:/\.\.)*+(?:/[\w+-][\w.+-]*+)*+")


def is_trial(root: str) -> bool:
    """Whether a directory is named like one that only tests or shows something."""
    return any(TRIAL.search(name) is not None for name in root.split("/"))


def is_within(path: str, root: str) -> bool:
    """Whether `path` is `root` or below it."""
    return root == "." or path == root or path.startswith(root + "/")


def upward(words: Iterable[str], directory: str) -> set[str]:
    """Where the relative paths with `..` in `words` lead, as seen from `directory`, if that is in the repository."""
    found = {inside(directory, match[0]) for word in words if ".." in word for match in _UPWARD.finditer(word)}
    return {path for path in found if path is not None}


def outside(paths: Iterable[str], root: str) -> frozenset[str]:
    """Those that are not in the project at `root`; too many of them count as the whole repository."""
    kept = frozenset(path for path in paths if not is_within(path, root))
    return kept if len(kept) <= READS_MAX and "." not in kept else frozenset({"."})
