"""What the modules of the ecosystems share: the tree of names, with the few files whose contents they read.

Rule: discovery looks at names first, then reads manifests, and never runs or imports anything.
"""

import json
import posixpath
import re
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, Final

from deltaci.planner.errors import PlanFailed, Problem, printable
from deltaci.planner.repository import Files

MANIFEST_BYTES_MAX: Final = 1024 * 1024
MANIFESTS_MAX: Final = 20_000
# Projects below these are somebody else's, generated, or there to be tested with.
LEFT_OUT_DIRECTORIES: Final = frozenset(
    {
        *("node_modules", "vendor", "third_party", "third-party", "external", "bower_components", "site-packages"),
        *("deps", "extern", "externals", "3rdparty", "thirdparty"),
        *("venv", "virtualenv", "__pycache__", "dist", "target"),
        *("testdata", "test-data", "test_data", "fixtures", "__fixtures__", "fixture", "tests", "test", "__tests__"),
        *("e2e", "e2e-tests", "integration-tests", "integration_tests", "integrationTests"),
        *("examples", "example", "samples", "sample", "demos", "demo", "tutorials", "tutorial"),
        *("playground", "playgrounds", "sandbox", "sandboxes", "templates", "template", "starters", "fuzz", "ci"),
    }
)
# What is in these measures a project; some run it by hand.
MEASURES: Final = frozenset({"bench", "benches", "benchmark", "benchmarks", "perf", "perf-testing", "performance"})
# The parser takes time in the square of the parts of a dotted key; nobody writes more than a handful.
KEY_PARTS_MAX: Final = 32
_LONG_KEY: Final = re.compile(
    rf"""(?<![\w-])(?:(?:[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){{{KEY_PARTS_MAX}}}"""
)
_TEMPLATE_MARKS: Final = ("{{", "{%", "<%", "__name__", "${")


class Tree:
    """The names that discovery may look at, with the contents that it asked for.

    Only files whose names an ecosystem lists in `STRUCTURE` are here, so that as long as none of them comes, goes or
    changes, discovery would find the same again.
    """

    def __init__(self, files: Files, contents: Mapping[str, bytes]) -> None:
        self.files: Final = files
        self._contents = contents

    def has(self, root: str, name: str) -> bool:
        """Whether the project at `root` has a regular file `name`."""
        return self.files.is_file(join(root, name))

    def first(self, root: str, names: Iterable[str]) -> str | None:
        """The first of `names` that the project has, as a path from the root of the repository."""
        return next((join(root, name) for name in names if self.has(root, name)), None)

    def text(self, path: str) -> str:
        """The contents of a file; empty if it was not read (not there, too large)."""
        return self._contents.get(path, b"").decode("utf-8-sig", "replace")

    def data(self, path: str) -> bytes:
        """The contents of a file as they are; empty if it was not read (not there, too large)."""
        return self._contents.get(path, b"")

    def toml(self, path: str) -> dict[str, Any]:
        """A TOML file as a dictionary; empty if it is not there. Raises PlanFailed if it is not TOML."""
        text = self.text(path)
        long = _LONG_KEY.search(text)
        if long is not None:
            line = text.count("\n", 0, long.start()) + 1
            raise broken(path, f"a key of more than {KEY_PARTS_MAX} parts is not read", line)
        try:
            return tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, "TOML", error) from error

    def json(self, path: str) -> dict[str, Any]:
        """A JSON file as a dictionary; empty if it is not there. Raises PlanFailed if it is not a JSON object."""
        try:
            value = json.loads(self.text(path) or "{}")
        except (ValueError, RecursionError) as error:
            raise _unreadable(path, "JSON", error) from error
        if not isinstance(value, dict):
            raise _unreadable(path, "JSON", ValueError("expected an object"))
        return value


def broken(path: str, text: str, line: int | None = None) -> PlanFailed:
    """What to raise for a manifest that its own tool would refuse, too: `text` says why, `line` counts from 1."""
    column = None if line is None else 1
    problem = Problem(file=path, line=line, column=column, text=f"{text}; fix it, or describe the jobs in deltaci.yaml")
    return PlanFailed(str(problem), (problem,))


def _unreadable(path: str, what: str, error: Exception) -> PlanFailed:
    why = printable(str(error)) or type(error).__name__
    line, column = getattr(error, "lineno", None), getattr(error, "colno", None)
    problem = Problem(
        file=path,
        line=line,
        column=column,
        text=f"this is not {what}: {why}; fix it, or describe the jobs in deltaci.yaml",
    )
    return PlanFailed(str(problem), (problem,))


def join(root: str, name: str) -> str:
    """A path from the root of the repository, without `./`."""
    return posixpath.normpath(posixpath.join(root, name))


def parent(path: str) -> str:
    """The directory of a path, `.` for the root."""
    return path.rpartition("/")[0] or "."


def is_left_out(path: str, *, but_for: frozenset[str] = frozenset()) -> bool:
    """Whether a manifest at `path` is not one of this repository's own projects.

    `but_for`: names of directories that an ecosystem keeps its own projects in.
    """
    directories = path.split("/")[:-1]
    return any(
        ((name in LEFT_OUT_DIRECTORIES or name.lstrip("_") in LEFT_OUT_DIRECTORIES) and name not in but_for)
        or name.startswith(".")
        or any(mark in name for mark in _TEMPLATE_MARKS)
        for name in directories
    )


def too_many(count: int) -> PlanFailed:
    """More manifests than are read, `count` of them."""
    return PlanFailed(f"{count} manifests, at most {MANIFESTS_MAX} are read; describe the jobs in deltaci.yaml")


def upward(directory: str) -> list[str]:
    """A directory and all above it, nearest first; the last is `.`, the root of the repository."""
    found = [directory]
    while directory != ".":
        directory = parent(directory)
        found.append(directory)
    return found


def relative(path: str, start: str) -> str:
    """`path` as seen from the directory `start`, both relative to the root of the repository."""
    return posixpath.relpath(f"/{path}", f"/{start}")


def inside(root: str, target: str) -> str | None:
    """The directory that `target` means as seen from `root`, or None if it is outside the repository."""
    path = join(root, target)
    return None if path.startswith(("../", "/")) or path == ".." else path


def table(value: Any, *keys: str) -> dict[str, Any]:
    """The dictionary at a path of keys; empty if there is none: manifests hold whatever people write."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def texts(value: Any) -> list[str]:
    """The strings of a list; empty if it is none."""
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
