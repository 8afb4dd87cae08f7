"""JSON as tools for JavaScript read it: with comments and trailing commas.

Rule: depth is bounded, and what cannot be read is told with file, line and column.
"""

import re
from typing import Any, Final

import pyjson5

from deltaci.planner.discovery.project import Tree
from deltaci.planner.errors import PlanFailed, Problem, printable

DEPTH_MAX: Final = 64
_PLACE: Final = re.compile(r" near (\d{1,9})")


def jsonc(tree: Tree, path: str) -> dict[str, Any]:
    """The file as a dictionary; empty if it is not there. Raises PlanFailed if it is no object, or not to be read."""
    value = _decoded(tree, path)
    if isinstance(value, Problem):
        raise PlanFailed(str(value), (value,))
    return value


def jsonc_or_none(tree: Tree, path: str) -> dict[str, Any] | None:
    """As `jsonc`, but None where that raises."""
    value = _decoded(tree, path)
    return None if isinstance(value, Problem) else value


def _decoded(tree: Tree, path: str) -> dict[str, Any] | Problem:
    text = tree.text(path)
    if not text.strip():
        return {}
    try:
        value = pyjson5.decode(text, maxdepth=DEPTH_MAX)
    except (pyjson5.Json5Exception, ValueError, RecursionError) as error:
        why = str(error.args[0]) if error.args else type(error).__name__
        place = _PLACE.search(why)
        before = text[: int(place[1])] if place is not None else ""
        said = f"this is not JSON with comments: {printable(_PLACE.sub('', why))}"
        return Problem(
            file=path,
            line=before.count("\n") + 1 if place is not None else None,
            column=len(before) - before.rfind("\n") if place is not None else None,
            text=f"{said}; fix it, or describe the jobs in deltaci.yaml",
        )
    if not isinstance(value, dict):
        text = "expected an object; fix it, or describe the jobs in deltaci.yaml"
        return Problem(file=path, line=1, column=1, text=text)
    return value
