"""Turborepo: which files concern every package, and which tasks run through it.

Rule: a configuration is read as it is written, whatever version of Turborepo it is for: `tasks` or `pipeline`.
"""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from deltaci.planner.discovery.jsonc import jsonc
from deltaci.planner.discovery.node_inputs import Reads, reads_of
from deltaci.planner.discovery.node_packages import Package
from deltaci.planner.discovery.project import Tree, join, table, texts

FILES: Final = ("turbo.json", "turbo.jsonc")
_ROOT: Final = "$TURBO_ROOT$/"


class Turbo(msgspec.Struct, frozen=True, kw_only=True):
    """The configuration at the root of a workspace.

    `tasks` are those of every package, `reads` what concerns every package, `of_package` the tasks with settings of
    their own by the name of the package, `inputs` patterns as seen from each package.
    """

    tasks: frozenset[str]
    reads: Reads
    of_package: dict[str, dict[str, dict[str, Any]]]
    inputs: tuple[str, ...]


class OfPackage(msgspec.Struct, frozen=True, kw_only=True):
    """What Turborepo knows of one package: its tasks, files outside of it, other packages by name."""

    tasks: frozenset[str]
    reads: Reads
    names: frozenset[str]


def turbo_of(tree: Tree, root: str) -> Turbo | None:
    """The configuration at `root`, or None if there is none. Raises PlanFailed if it cannot be read."""
    path = tree.first(root, FILES)
    if path is None:
        return None
    content = jsonc(tree, path)
    tasks = _tasks(content)
    shared: list[str] = []
    for key in ("globalDependencies", "globalDotEnv"):
        shared += texts(content.get(key))
    shared += texts(table(content, "global").get("inputs"))
    inputs: list[str] = []
    of_package: dict[str, dict[str, dict[str, Any]]] = {}
    for name, task in tasks.items():
        package, is_of_one, short = name.partition("#")
        if is_of_one:
            of_package.setdefault(package, {})[short] = task
        else:
            inputs += _inputs(task)
    shared += [each.removeprefix(_ROOT) for each in inputs if each.startswith(_ROOT)]
    return Turbo(
        tasks=frozenset(name for name in tasks if "#" not in name),
        reads=reads_of(root, shared) | Reads(frozenset(join(root, name) for name in FILES)),
        of_package=of_package,
        inputs=tuple(each for each in inputs if each.startswith("../")),
    )


def of_package(tree: Tree, workspace: str, turbo: Turbo, package: Package) -> OfPackage:
    """What the root's configuration, and the package's own, say of one member."""
    path = tree.first(package.root, FILES)
    own = jsonc(tree, path) if path is not None else {}
    tasks = {**turbo.of_package.get(package.name or "", {}), **_tasks(own)}
    patterns = list(turbo.inputs)
    names: set[str] = set(texts(own.get("extends"))) - {"//"}
    for task in tasks.values():
        patterns += _inputs(task)
        for each in texts(task.get("dependsOn")):
            other, is_of_other, _ = each.partition("#")
            names.update((other,) if is_of_other and other not in ("", "//") else ())
    rooted = [each.removeprefix(_ROOT) for each in patterns if each.startswith(_ROOT)]
    outer = [each for each in patterns if each.startswith("../")]
    reads = reads_of(workspace, rooted) | reads_of(package.root, outer)
    return OfPackage(tasks=turbo.tasks | set(tasks), reads=reads, names=frozenset(names))


def _inputs(task: Mapping[str, Any]) -> list[str]:
    return [each for key in ("inputs", "dotEnv") for each in texts(task.get(key))]


def _tasks(content: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    found = table(content, "pipeline") | table(content, "tasks")
    return {name: task for name, task in found.items() if isinstance(task, dict)}
