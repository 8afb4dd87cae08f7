"""The version of Java that a directory asks for, in the files that version managers read.

Rule: the nearest file wins; what it says wins over what a build script says, since it is what people have installed.
"""

import re
from collections.abc import Mapping
from typing import Final

from deltaci.planner.discovery.project import Tree, join, upward

VERSION_FILES: Final = (".java-version", ".sdkmanrc", ".tool-versions")
_PATTERNS: Final[Mapping[str, re.Pattern[str]]] = {
    ".java-version": re.compile(r"^[ \t]*([A-Za-z0-9][\w.+-]{0,40})[ \t]*$", re.MULTILINE | re.ASCII),
    ".sdkmanrc": re.compile(r"^[ \t]*java[ \t]*=[ \t]*([\w.+-]{1,40})", re.MULTILINE | re.ASCII),
    ".tool-versions": re.compile(r"^java[ \t]+([\w.+-]{1,40})", re.MULTILINE | re.ASCII),
}
_BYTES_READ_MAX: Final = 4096  # it is read for every project below it
_VERSION: Final = re.compile(r"[\w.+-]{1,40}", re.ASCII)


def version_files(tree: Tree) -> list[str]:
    """All files of version managers in the repository."""
    return [path for path in tree.files.paths if path.rpartition("/")[2] in VERSION_FILES]


def java_tools(tree: Tree, root: str, declared: str | None) -> dict[str, str]:
    """`{"java": version}` for the project at `root`; `declared` is what its build asks for. Empty if nothing does."""
    for directory in upward(root):
        for name in VERSION_FILES:
            if tree.has(directory, name):
                head = tree.data(join(directory, name))[:_BYTES_READ_MAX].decode("utf-8-sig", "replace")
                found = _PATTERNS[name].search(head)
                if found is not None:
                    return {"java": found[1]}
    if declared is not None and _VERSION.fullmatch(declared):
        return {"java": declared}
    return {}
