"""just, where no other module found a project: the recipes that people type.

Rule: nothing is evaluated. A recipe counts if its name is written out and it can be called without arguments.
"""

import re
from typing import Final

from deltaci.domain.project import Project
from deltaci.planner.discovery.others import Found, Roots, Runner, found, jobs_of_tasks
from deltaci.planner.discovery.project import Tree, parent

SOURCES: Final[frozenset[str]] = frozenset()
MANIFESTS: Final = ("justfile", "Justfile", "JUSTFILE", ".justfile")
STRUCTURE: Final = MANIFESTS
_NAME: Final = re.compile(r"@?([A-Za-z][A-Za-z0-9_-]*+)[ \t]*+")
_ALIAS: Final = re.compile(r"alias[ \t]++([A-Za-z][\w-]*+)[ \t]*+:=")
_STRINGS: Final = re.compile(r"\"[^\"\n]*\"|'[^'\n]*'|`[^`\n]*`")


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    return manifests


def find(tree: Tree, manifests: list[str], roots: Roots) -> Found:
    """The directories whose justfile is all there is to say what to run."""
    runners: dict[str, Runner] = {}
    for manifest in sorted(manifests):
        root = parent(manifest)
        text = tree.text(manifest)
        recipes = _recipes(text)
        jobs = jobs_of_tasks(recipes, "just", root)
        if jobs and root not in runners:
            project = Project(ecosystem="just", root=root, manifest=manifest, jobs=jobs)
            called = (recipes[name] for name in ("lint", "build", "test", "check", "ci") if name in recipes)
            runners[root] = Runner(project=project, text=text, commands="\n".join(called))
    return found(runners.values(), roots)


def _recipes(text: str) -> dict[str, str]:
    """Recipes that need no arguments, with their lines and what they depend on."""
    recipes: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.split("\n"):
        if line.startswith((" ", "\t")):
            if current is not None:
                current.append(line.strip())
        elif line.strip():
            current = None
            name, rest = _head(line)
            if name is not None:
                current = recipes.setdefault(name, [])
                current.append(rest)
    return {name: "\n".join(lines) for name, lines in recipes.items()}


def _head(line: str) -> tuple[str | None, str]:
    """The name of the recipe that a line begins, if it is one that can be called as it is, and its dependencies."""
    alias = _ALIAS.match(line)
    if alias is not None:
        return alias[1], ""
    match = _NAME.match(line)
    if match is None:
        return None, ""
    parameters, colon, rest = _STRINGS.sub("''", line[match.end() :]).partition(":")
    if not colon or rest.startswith("="):
        return None, ""
    is_optional = all(each.startswith("*") or "=" in each for each in parameters.split())
    return (match[1], rest) if is_optional else (None, "")
