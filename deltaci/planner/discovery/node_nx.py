"""Nx: its projects, the edges between them that it is told of, which files concern them, which targets they have.

Rule 1: a project.json below an nx.json is a project, wherever it is, unless .nxignore leaves it out.
Rule 2: targets that plugins infer are told from the files that they look for; what a plugin that we do not know may
infer is any target.
"""

import fnmatch
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from deltaci.planner.discovery.jsonc import jsonc
from deltaci.planner.discovery.node_inputs import Reads, reads_of
from deltaci.planner.discovery.node_packages import Names, Package, clean, is_own
from deltaci.planner.discovery.node_scripts import LINTS, TESTS
from deltaci.planner.discovery.project import Tree, join, parent, table, texts
from deltaci.planner.globs import GlobInvalid, Globs

NAME: Final = re.compile(r"[A-Za-z0-9@/_.:+-]{1,200}", re.ASCII)
# What matches more projects than this counts as the whole workspace: edges must not grow with its square.
MATCHED_MAX: Final = 200
IMPLICIT_MAX: Final = 200
_GLOB: Final = re.compile(r"[*?\[{(]")
_ROOT: Final = "{workspaceRoot}/"
# `@nx/vite:test`, `nx:run-commands`, `./tools:x`: no names of targets, though those may have colons, too.
_EXECUTOR: Final = re.compile(r"(?:@|\./|nx:|nx/)")
_CONFIG: Final = r"\.(?:config|workspace|preset)\.[cm]?[jt]s"
# Plugin -> files that it looks for in a project, and the options that name its targets, with what they are called else.
_INFERRED: Final[Mapping[str, tuple[str | None, Mapping[str, str]]]] = {
    "@nx/eslint/plugin": (None, {"targetName": "lint"}),
    "@nx/jest/plugin": (r"jest\.config\.(?:[cm]?[jt]s|json)", {"targetName": "test"}),
    "@nx/vite/plugin": (rf"(?:vite|vitest){_CONFIG}", {"buildTargetName": "build", "testTargetName": "test"}),
    "@nx/vitest": (rf"(?:vite|vitest){_CONFIG}", {"testTargetName": "test"}),
    "@nx/js/typescript": (r"tsconfig[^/]*\.json", {"typecheck.targetName": "typecheck", "build.targetName": "build"}),
    "@nx/webpack/plugin": (rf"webpack{_CONFIG}", {"buildTargetName": "build"}),
    "@nx/rspack/plugin": (rf"rspack{_CONFIG}", {"buildTargetName": "build"}),
    "@nx/rollup/plugin": (rf"rollup{_CONFIG}", {"buildTargetName": "build"}),
    "@nx/next/plugin": (rf"next{_CONFIG}", {"buildTargetName": "build"}),
    "@nx/nuxt/plugin": (rf"nuxt{_CONFIG}", {"buildTargetName": "build"}),
    "@nx/remix/plugin": (rf"(?:remix|vite){_CONFIG}", {"buildTargetName": "build", "typecheckTargetName": "typecheck"}),
    # Their targets are none of those that run here.
    "@nx/cypress/plugin": ("(?!)", {}),
    "@nx/playwright/plugin": ("(?!)", {}),
    "@nx/storybook/plugin": ("(?!)", {}),
    "@nx/docker": ("(?!)", {}),
}


class NxProject(msgspec.Struct, frozen=True, kw_only=True):
    """One project: its name as Nx has it, what project.json says (or the manifest's `nx`), and the patterns in it."""

    root: str
    name: str
    settings: tuple[dict[str, Any], ...]
    tags: tuple[str, ...]


class Edges(msgspec.Struct, frozen=True):
    """Roots of projects to depend on and not to; `is_all` if on so many that it is the whole workspace."""

    roots: frozenset[str] = frozenset()
    without: frozenset[str] = frozenset()
    is_all: bool = False


class Nx:
    """One Nx workspace."""

    def __init__(self, tree: Tree, root: str) -> None:
        """Raises PlanFailed if nx.json cannot be read."""
        self.root: Final = root
        self._content = jsonc(tree, join(root, "nx.json"))
        self._by_name: dict[str, NxProject] = {}
        self._matched: dict[str, frozenset[str] | None] = {}
        self._sorted: list[NxProject] = []
        self._roots: set[str] = set()
        inputs = [table(self._content, "namedInputs"), *_run_targets(table(self._content, "targetDefaults"))]
        shared = list(_workspace_files(inputs)) + list(table(self._content, "implicitDependencies"))
        plugins = self._content.get("plugins")
        self._plugins = _plugins(plugins if isinstance(plugins, list) else [])
        local = [name for name, _ in self._plugins if name.startswith("./")]
        own = Reads(frozenset({join(root, "nx.json"), join(root, ".nxignore")}))
        self.reads: Final = reads_of(root, shared) | reads_of(root, local) | own

    def add(self, project: NxProject) -> None:
        """Take in a project; the first of a name counts."""
        self._by_name.setdefault(project.name, project)
        self._sorted.append(project)
        self._roots.add(project.root)

    def at(self, project: NxProject) -> Reads:
        """The files of the workspace that targets and named inputs of a project itself name."""
        inputs = [part for each in project.settings for part in (table(each, "namedInputs"), table(each, "targets"))]
        return reads_of(self.root, _workspace_files(inputs))

    def edges(self, project: NxProject) -> Edges:
        """The edges that `implicitDependencies` and targets of other projects add or take away."""
        wanted: set[str] = set()
        without: set[str] = set()
        is_all = False
        for pattern in self._patterns(project):
            found = self._matching(pattern.removeprefix("!"))
            if pattern.startswith("!"):
                without.update(found or ())
            elif found is None:
                is_all = True
            else:
                wanted.update(found)
        # A directory that Nx takes for what it depends on is a project as well; itself is none of them.
        return Edges(frozenset(wanted - without - {project.root}), frozenset(without), is_all)

    def _patterns(self, project: NxProject) -> Iterable[str]:
        patterns = [each for one in project.settings for each in texts(one.get("implicitDependencies"))]
        for one in project.settings:
            for target in table(one, "targets").values():
                depends = target.get("dependsOn") if isinstance(target, dict) else None
                for each in depends if isinstance(depends, list) else ():
                    patterns += _of_target(each)
        if len(patterns) > IMPLICIT_MAX:
            return ["*"]
        return patterns

    def _matching(self, pattern: str) -> frozenset[str] | None:
        """The roots of the projects that a name, a tag or a glob means; None if they are too many."""
        if pattern not in self._matched:
            self._matched[pattern] = self._find(pattern)
        return self._matched[pattern]

    def _find(self, pattern: str) -> frozenset[str] | None:
        if pattern in self._by_name:
            return frozenset({self._by_name[pattern].root})
        if not pattern.startswith("tag:") and _GLOB.search(pattern) is None:
            return frozenset({pattern} & self._roots)
        if pattern == "*" or len(self._matched) > IMPLICIT_MAX:
            return None
        is_tag = pattern.startswith("tag:")
        glob = re.compile(fnmatch.translate(re.sub(r"\*+", "*", pattern.removeprefix("tag:")[:200])))
        found = {
            project.root
            for project in self._sorted
            if any(glob.match(each) for each in (project.tags if is_tag else (project.name, project.root)))
        }
        return frozenset(found) if len(found) <= MATCHED_MAX else None

    def targets(self, project: NxProject, package: Package, names: set[str]) -> frozenset[str] | None:
        """The targets of a project; None if it may have any. `names` are the files in its directory."""
        included = table(package.content, "nx").get("includedScripts")
        scripts = texts(included) if isinstance(included, list) else list(package.scripts)
        found = set(scripts) | {name for each in project.settings for name in table(each, "targets")}
        for plugin, options in self._plugins:
            known = _INFERRED.get(plugin)
            if known is None:
                return None
            files, targets = known
            if files is None or any(re.fullmatch(files, name) for name in names):
                found.update(_option(options, key) or name for key, name in targets.items())
        return frozenset(found)


def _option(options: Mapping[str, Any], key: str) -> str | None:
    at, _, last = key.rpartition(".")
    value = (table(options, at) if at else options).get(last)
    return value if isinstance(value, str) and NAME.fullmatch(value) else None


def _plugins(listed: Sequence[Any]) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for each in listed[:100]:
        name = each.get("plugin") if isinstance(each, dict) else each
        if isinstance(name, str):
            found.append((name, table(each, "options") if isinstance(each, dict) else {}))
    return found


def _of_target(each: Any) -> list[str]:
    """The projects that a task waits for besides its own and those that it depends on anyway."""
    if isinstance(each, dict):
        projects = each.get("projects")
        named = texts(projects if isinstance(projects, list) else [projects])
        return [name for name in named if name not in ("self", "dependencies", "{self}", "{dependencies}")]
    if isinstance(each, str) and ":" in each and not each.startswith("^"):
        return [each.partition(":")[0]]
    return []


def _run_targets(defaults: Mapping[str, Any]) -> list[Any]:
    """The defaults of the targets that jobs run, of what those depend on, and of executors: any target may have one."""
    found: dict[str, Any] = {name: each for name, each in defaults.items() if _EXECUTOR.match(name)}
    waiting = [*LINTS, *TESTS, *(name for name in defaults if "*" in name)]
    for each in found.values():
        waiting += _needed(each)
    while waiting:
        name = waiting.pop()
        if name in defaults and name not in found:
            found[name] = defaults[name]
            waiting += _needed(defaults[name])
    return list(found.values())


def _needed(target: Any) -> list[str]:
    """The names of targets, of whatever project, that a target depends on."""
    depends = target.get("dependsOn") if isinstance(target, dict) else None
    names = [
        each.get("target") if isinstance(each, dict) else each
        for each in (depends if isinstance(depends, list) else ())
    ]
    return [part for name in names if isinstance(name, str) for part in (name.lstrip("^"), name.partition(":")[2])]


def _workspace_files(values: Iterable[Any]) -> Iterable[str]:
    """Patterns of files from the workspace's root, anywhere in settings of inputs; those taken away are not among."""
    waiting = list(values)
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and value.startswith(_ROOT):
            yield value.removeprefix(_ROOT)


def workspaces_of(tree: Tree, roots: Iterable[str]) -> dict[str, Nx]:
    """The Nx workspaces among directories with a nx.json, by root."""
    return {root: Nx(tree, root) for root in roots if tree.has(root, "nx.json")}


def nearest(root: str, workspaces: Mapping[str, Nx]) -> Nx | None:
    """The Nx workspace that the directory is in, if any."""
    at = root
    while at not in workspaces:
        if at == ".":
            return None
        at = parent(at)
    return workspaces[at]


def described(tree: Tree, names: Names, workspaces: Mapping[str, Nx]) -> dict[str, dict[str, Any]]:
    """What project.json says, by directory, of every project of an Nx workspace that has one.

    Raises:
        PlanFailed: one cannot be read, so that Nx could not read it either.
    """
    if not workspaces:
        return {}
    ignored = {root: _ignored(tree, root) for root in workspaces}
    found = {}
    for directory in sorted(names.by_directory):
        path = join(directory, "project.json")
        nx = nearest(directory, workspaces) if "project.json" in names.at(directory) else None
        if nx is None or not is_own(path):
            continue
        below = path if nx.root == "." else path.removeprefix(nx.root + "/")
        if ignored[nx.root].match(below) is None:
            found[directory] = jsonc(tree, path)
    return found


def _ignored(tree: Tree, root: str) -> Globs:
    lines = (line.strip() for line in tree.text(join(root, ".nxignore")).splitlines()[:500])
    try:
        return Globs([line for line in lines if line and not line.startswith("#")])
    except GlobInvalid:
        return Globs(())


def project_of(package: Package, settings: Mapping[str, Any]) -> NxProject:
    """A package as Nx sees it, with what project.json says of it."""
    own = table(package.content, "nx")
    name = clean(settings.get("name")) or clean(own.get("name")) or package.name or package.root.rpartition("/")[2]
    return NxProject(
        root=package.root,
        name=name,
        settings=(dict(settings), own),
        tags=tuple(tag for each in (settings, own) for tag in texts(each.get("tags"))[:50]),
    )
