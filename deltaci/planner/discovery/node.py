"""Node: install by lock file, then the scripts that package.json defines; a member of a workspace is a project.

A script of the workspace's root runs only if no member defines the same one: it usually runs theirs.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.project import Tree, inside, join, parent, table, texts
from deltaci.planner.globs import GlobInvalid, Globs
from deltaci.planner.yaml_nodes import Fields, Items, Scalar, parse

SOURCES: Final = frozenset({".js", ".cjs", ".mjs", ".jsx", ".ts", ".tsx", ".css", ".html"})
MANIFESTS: Final = ("package.json",)
LINT_SCRIPTS: Final = ("lint", "typecheck", "type-check", "check-types")
TEST_SCRIPTS: Final = ("build", "test")
_LOCKS: Final = ("pnpm-lock.yaml", "yarn.lock", "package-lock.json", "npm-shrinkwrap.json")
STRUCTURE: Final = (*MANIFESTS, *_LOCKS, "pnpm-workspace.yaml", ".yarnrc.yml")
_PACKAGE_MANAGER: Final = re.compile(r"(npm|pnpm|yarn)@(\d{1,4}\.\d{1,4}\.\d{1,4})(?:\+.*)?", re.ASCII)
_DEPENDENCIES: Final = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")
_LOCAL: Final = re.compile(r"(?:file|link|portal):(.+)")


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    return [path for manifest in manifests for path in (manifest, join(parent(manifest), "pnpm-workspace.yaml"))]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The packages, each with the workspace that it belongs to, if any."""
    packages = {parent(manifest): tree.json(manifest) for manifest in manifests}
    home: dict[str, str] = {}
    for root in sorted(packages):
        members = _members(tree, root, packages)
        home.update({member: root for member in members if member not in home})
    return [_project(tree, root, home.get(root, root), packages, home) for root in sorted(packages)]


def _members(tree: Tree, root: str, packages: Mapping[str, dict[str, Any]]) -> list[str]:
    """Directories of the workspace rooted at `root`; empty if it is none."""
    declared = packages[root].get("workspaces")
    patterns = texts(declared if isinstance(declared, list) else table(packages[root], "workspaces").get("packages"))
    if tree.has(root, "pnpm-workspace.yaml"):
        patterns = _pnpm_patterns(tree, root)
    anchored = []
    for pattern in patterns:
        sign = "!" if pattern.startswith("!") else ""
        anchored.append(f"{sign}/{pattern.removeprefix('!').removeprefix('./').lstrip('/')}")
    try:
        globs = Globs(anchored)
    except GlobInvalid:
        globs = Globs(("**",))  # what we cannot read may mean any of them
    prefix = "" if root == "." else root + "/"
    inner = [other for other in sorted(packages) if other not in (root, ".") and other.startswith(prefix)]
    return [other for other in inner if globs.match(other.removeprefix(prefix)) is not None]


def _pnpm_patterns(tree: Tree, root: str) -> list[str]:
    path = join(root, "pnpm-workspace.yaml")
    content = parse(tree.text(path).encode(), path)
    listed = content.get("packages") if isinstance(content, Fields) else None
    if isinstance(listed, Items):
        return [item.text for item in listed.items if isinstance(item, Scalar)]
    # Newer pnpm keeps settings in this file without any package; a file that we refuse to read may list all.
    return [] if isinstance(content, Fields) else ["**"]


def _scripts(package: dict[str, Any]) -> dict[str, str]:
    """The scripts that do something: npm's placeholder for `test` only fails."""
    scripts = {name: body for name, body in table(package, "scripts").items() if isinstance(body, str)}
    return {name: body for name, body in scripts.items() if "no test specified" not in body}


def _project(
    tree: Tree, root: str, workspace: str, packages: Mapping[str, dict[str, Any]], home: Mapping[str, str]
) -> Project:
    package = packages[root]
    scripts = _scripts(package)
    for member in (other for other, at in home.items() if at == root):
        scripts = {name: body for name, body in scripts.items() if name not in _scripts(packages[member])}
    named: set[str] = set()
    roots: set[str | None] = set()
    for kind in _DEPENDENCIES:
        for name, version in table(package, kind).items():
            named.add(name)
            local = _LOCAL.fullmatch(version) if isinstance(version, str) else None
            if local is not None:
                roots.add(inside(root, local[1]))
    own_name = package.get("name")
    shared = () if workspace == root else ("package.json", "pnpm-workspace.yaml", ".npmrc", ".yarnrc.yml")
    return Project(
        ecosystem="node",
        root=root,
        manifest=join(root, "package.json"),
        jobs=_jobs(tree, root, workspace, packages, scripts),
        name=own_name if isinstance(own_name, str) else None,
        depends_on_names=frozenset(named),
        depends_on_roots=frozenset(path for path in roots if path is not None and path != root),
        reads=frozenset(join(workspace, name) for name in shared),
        lock=tree.first(workspace, _LOCKS),
    )


def _jobs(
    tree: Tree, root: str, workspace: str, packages: Mapping[str, dict[str, Any]], scripts: Mapping[str, str]
) -> tuple[ProjectJob, ...]:
    tool, install = _installer(tree, workspace, packages[workspace])
    jobs = []
    for check, names in (("lint", LINT_SCRIPTS), ("test", TEST_SCRIPTS)):
        steps = [Step(name=name, run=f"{tool} run {name}", workdir=root) for name in names if name in scripts]
        if steps:
            setup = Step(name="Install", run=install, workdir=workspace)
            inputs = tuple(join(workspace, name) for name in (*_LOCKS, "package.json"))
            cache = CacheRule(name="npm", paths=(join(workspace, ".cache/npm"),), inputs=inputs)
            is_npm = tool == "npm" and workspace == root
            jobs.append(
                ProjectJob(
                    check=check,
                    steps=(setup, *steps),
                    env={"CI": "true", **({"npm_config_cache": ".cache/npm"} if is_npm else {})},
                    caches=(cache,) if is_npm else (),
                )
            )
    return tuple(jobs)


def _installer(tree: Tree, root: str, package: dict[str, Any]) -> tuple[str, str]:
    """How to call the package manager, and the command that installs exactly what is locked."""
    declared = package.get("packageManager")
    match = _PACKAGE_MANAGER.fullmatch(declared) if isinstance(declared, str) else None
    lock = next((name for name in _LOCKS if tree.has(root, name)), None)
    by_lock = {"pnpm-lock.yaml": "pnpm", "yarn.lock": "yarn"}.get(lock or "", "npm")
    name = match[1] if match else by_lock
    version = f"@{match[2]}" if match else ""
    frozen = lock is not None and by_lock == name
    if name == "pnpm":
        tool = f"npx --yes pnpm{version}"
        return tool, f"{tool} install" + (" --frozen-lockfile" if frozen else "")
    if name == "yarn":
        is_modern = tree.has(root, ".yarnrc.yml") or (match is not None and not match[2].startswith("1."))
        if is_modern:
            return "corepack yarn", "corepack yarn install" + (" --immutable" if frozen else "")
        tool = f"npx --yes yarn{version}"
        return tool, f"{tool} install" + (" --frozen-lockfile" if frozen else "")
    return "npm", "npm ci" if frozen else "npm install --no-audit --no-fund"
