"""Node: install by lock file, then the scripts that package.json defines; a member of a workspace is a project.

A script of the workspace's root that members define as well runs if it is the root's own: if it runs none of theirs,
and most do without it. The modules
`node_*` beside this one know the parts: packages, workspaces, package managers, TypeScript, Nx, Turborepo, jobs.
"""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from deltaci.domain.project import Project
from deltaci.planner.discovery.node_inputs import Reads, rooted
from deltaci.planner.discovery.node_jobs import Setup, Through, builds_of, jobs_of
from deltaci.planner.discovery.node_nx import NAME as NX_NAME
from deltaci.planner.discovery.node_nx import Nx, NxProject, described, nearest, project_of, workspaces_of
from deltaci.planner.discovery.node_packages import (
    BUILDS,
    NAME,
    Local,
    Names,
    Package,
    candidates,
    forced_by,
    is_built,
    needs_of,
    package_of,
)
from deltaci.planner.discovery.node_reports import CONFIGS as REPORT_CONFIGS
from deltaci.planner.discovery.node_reports import reports_of
from deltaci.planner.discovery.node_scripts import LINTS, TESTS, Filter, needs_a_server, scripts_that_test
from deltaci.planner.discovery.node_tools import LOCKS, VERSION_FILES, Manager, Tools, cache_of, lock_of, manager_of
from deltaci.planner.discovery.node_turbo import FILES as TURBO_FILES
from deltaci.planner.discovery.node_turbo import Turbo, of_package, turbo_of
from deltaci.planner.discovery.node_typescript import TypeScript, is_config
from deltaci.planner.discovery.node_workspaces import Matching, declared, delegates, members, whole
from deltaci.planner.discovery.own_ci import OwnCi
from deltaci.planner.discovery.project import MEASURES, Tree, is_left_out, join, parent
from deltaci.planner.errors import PlanFailed, printable

SOURCES: Final = frozenset({".js", ".cjs", ".mjs", ".jsx", ".ts", ".tsx", ".css", ".html"})
MANIFESTS: Final = ("package.json",)
# Where one of these changed and there is no project, it was deleted: who depended on it cannot be told any more.
ALWAYS: Final = MANIFESTS
STRUCTURE: Final = (
    *(*MANIFESTS, *LOCKS, *VERSION_FILES, "pnpm-workspace.yaml", ".yarnrc.yml"),
    *("nx.json", "project.json", ".nxignore", *TURBO_FILES, "tsconfig*.json", "jsconfig.json"),
    *(f"*.config.{suffix}" for suffix in ("js", "cjs", "mjs", "ts", "cts", "mts", "json")),
    *(".mocharc.*", "vitest.workspace.*"),
)
# Directories with a package.json where projects are usually somebody else's: read, since a workspace may declare them.
CANDIDATES_MAX: Final = 10_000
# What a member's commands may read at the root of its workspace.
_SHARED: Final = ("package.json", "pnpm-workspace.yaml", ".npmrc", ".yarnrc.yml", ".yarnrc", "bunfig.toml", "patches")
_SHARED_GLOBS: Final = (".*", "*.config.*", "*.preset.*", "*.setup.*", "*.workspace.*", "tsconfig*.json")
_READ: Final = re.compile(
    r"(?:nx\.json|project\.json|\.nxignore|turbo\.jsonc?|pnpm-workspace\.yaml|\.yarnrc\.yml|"
    r"\.nvmrc|\.node-version|\.tool-versions)"
)
_ASIDE: Final = frozenset({"docs", "doc", "documentation", "website", "site", "www"}) | MEASURES
_MAPPINGS: Final = ("tsconfig.base.json", "tsconfig.json")


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    names = Names(tree.files)
    inner = candidates(tree)[:CANDIDATES_MAX]
    paths = [*manifests, *(join(root, "package.json") for root in inner)]
    packages = {parent(path) for path in paths}
    has_nx = any("nx.json" in found for found in names.by_directory.values())
    for directory, found in names.by_directory.items():
        is_package = directory in packages
        for name in found:
            is_read = _READ.fullmatch(name) or is_config(name) or (is_package and REPORT_CONFIGS.fullmatch(name))
            path = join(directory, name)
            if is_read and (is_package or not is_left_out(path) or (has_nx and name == "project.json")):
                paths.append(path)
    return paths


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The packages and Nx projects, each with the workspace that it belongs to, if any.

    Raises:
        PlanFailed: a manifest, or a configuration of Nx or Turborepo, cannot be read.
    """
    repository = _Repository(tree, manifests)
    return [repository.project(root) for root in sorted(repository.packages)]


class _Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """What the members of one workspace have in common; of a package that is in none, its own."""

    root: str
    package: Package
    manager: Manager
    turbo: Turbo | None
    forced: frozenset[str]
    reads: Reads
    # Scripts that the members have, and the names of packages here that the root itself needs.
    member_scripts: frozenset[str]
    root_needs: frozenset[str]
    # For scripts of the root that run those of members: for which.
    filters: dict[str, Filter]


class _Repository:
    """Packages by root; which are members of which workspace; all lookups that projects share."""

    def __init__(self, tree: Tree, manifests: list[str]) -> None:
        self._tree = tree
        self._ci = OwnCi(tree)
        self._names = Names(tree.files)
        self._tools = Tools(tree)
        self._typescript = TypeScript(tree)
        self.packages = {parent(path): self._package(parent(path), path, tree.json(path)) for path in manifests}
        self._home: dict[str, str] = {}
        self._take_members()
        self._nx = workspaces_of(tree, self._nx_roots())
        self._nx_projects: dict[str, NxProject] = {}
        self._managed = frozenset(self._home)
        self._take_nx_projects()
        self._local = Local(self.packages.values())
        self._members: dict[str, list[str]] = {}
        for member, root in sorted(self._home.items()):
            self._members.setdefault(root, []).append(member)
        self._workspaces: dict[str, _Workspace] = {}
        self._mapped: dict[str, tuple[frozenset[str], bool]] = {}
        self._configs: dict[str, list[str]] = {}
        for directory, names in sorted(self._names.by_directory.items()):
            configs = [join(directory, name) for name in sorted(names) if is_config(name)]
            at = self._owner(directory) if configs else None
            if at is not None:
                self._configs.setdefault(at, []).extend(configs)
        self._edges = {root: self._inner_edges(root) for root in self._managed}

    def _package(self, root: str, path: str, content: dict[str, Any]) -> Package:
        """As `package_of` has it; of two scripts that may build, the one that the repository's own CI runs."""
        builds = tuple(sorted(BUILDS, key=lambda name: name not in self._ci.scripts))
        return package_of(root, path, content, builds)

    def _take_members(self) -> None:
        """Find the members of every workspace; declared ones count wherever they are."""
        roots = sorted({*self.packages, *candidates(self._tree)})
        matching = Matching()
        for root in sorted(self.packages):
            patterns = declared(self._tree, self.packages[root])
            for member in members(root, patterns, roots, matching) if patterns else ():
                self._home.setdefault(member, root)
                if member not in self.packages:
                    self._add(member, join(member, "package.json"))

    def _add(self, root: str, path: str) -> None:
        content = self._tree.json(path)
        if not content and self._tree.files.size(path) > 2 and not self._tree.text(path):
            text = f"{printable(path)} is declared in a workspace, but is too large, or one of too many, to be read"
            raise PlanFailed(f"{text}; describe the jobs in deltaci.yaml")
        self.packages[root] = self._package(root, path, content)

    def _nx_roots(self) -> list[str]:
        found = (at for at, names in self._names.by_directory.items() if "nx.json" in names)
        return sorted(at for at in found if not is_left_out(join(at, "nx.json")))

    def _take_nx_projects(self) -> None:
        settings = described(self._tree, self._names, self._nx)
        for root in settings:
            if root not in self.packages:
                has_package = "package.json" in self._names.at(root)
                path = join(root, "package.json" if has_package else "project.json")
                content = self._tree.json(path) if has_package else {}
                self.packages[root] = self._package(root, path, content)
        for root, package in sorted(self.packages.items()):
            nx = nearest(root, self._nx)
            if nx is None:
                continue
            if root in settings or self._home.get(root) == nx.root or (root == nx.root and "nx" in package.content):
                self._nx_projects[root] = project_of(package, settings.get(root, {}))
                nx.add(self._nx_projects[root])
            if root in settings and root != nx.root and self._tree.first(root, LOCKS) is None:
                self._home.setdefault(root, nx.root)  # one package.json for all

    def _owner(self, path: str) -> str | None:
        """The root of the project that a path belongs to, if any."""
        at = path
        while at not in self.packages:
            if at == ".":
                return None
            at = parent(at)
        return at

    def _inner_edges(self, root: str) -> tuple[str, ...]:
        names = needs_of(self.packages[root], self._local, frozenset()).names
        return self._edges_to(names, root, self._home[root])

    def _edges_to(self, names: Iterable[str], root: str, home: str) -> tuple[str, ...]:
        """The members of a workspace other than `root` that names mean."""
        named = [name for name in names if not self._local.is_crowded(name)]
        roots = {other for name in named for other in self._local.roots(name)}
        return tuple(sorted(other for other in roots if other != root and self._home.get(other) == home))

    def _workspace(self, root: str) -> _Workspace:
        if root not in self._workspaces:
            self._workspaces[root] = self._make_workspace(root)
        return self._workspaces[root]

    def _make_workspace(self, root: str) -> _Workspace:
        package = self.packages.get(root) or self._package(root, join(root, "package.json"), {})
        turbo = turbo_of(self._tree, root)
        forced = forced_by(package.content)
        shared = Reads(
            frozenset(join(root, name) for name in (*_SHARED, ".yarn")),
            frozenset(rooted(root) + glob for glob in _SHARED_GLOBS),
        )
        inner = self._members.get(root, ())
        counts = Counter(name for member in inner for name in self.packages[member].scripts)
        member_scripts = frozenset(
            name
            for name, count in counts.items()
            if name in package.scripts and (2 * count > len(inner) or delegates(name, package.scripts))
        )
        return _Workspace(
            root=root,
            package=package,
            manager=manager_of(self._tree, root, package.content, self._tools.of(root, [package.content])),
            turbo=turbo,
            forced=forced,
            reads=shared if turbo is None else shared | turbo.reads,
            member_scripts=member_scripts,
            root_needs=needs_of(package, self._local, forced).names,
            filters={
                name: Filter(whole(name, package.scripts), root) for name in (*LINTS, *TESTS) if name in member_scripts
            },
        )

    def project(self, root: str) -> Project:
        """The project at `root`."""
        package = self.packages[root]
        workspace = self._workspace(self._home.get(root, root))
        needs = needs_of(package, self._local, workspace.forced)
        outside = self._typescript.outside(self._configs.get(root, ()))
        reads = workspace.reads if root != workspace.root else Reads()
        names = set(needs.names) | {name for name in outside.names if self._local.roots(name)}
        tasks: frozenset[str] = frozenset()
        if workspace.turbo is not None and root != workspace.root:
            own = of_package(self._tree, workspace.root, workspace.turbo, package)
            tasks, reads = own.tasks, reads | own.reads
            # What the root depends on concerns every package, as Turborepo has it.
            names |= own.names | workspace.root_needs
        roots, paths = self._sorted_out(root, needs.paths | outside.paths)
        paths |= {workspace.root} if outside.is_unclear else set()
        if any(self._local.is_crowded(name) for name in names):
            names = {name for name in names if not self._local.is_crowded(name)}
            paths.add(".")
        nx_project = self._nx_projects.get(root)
        nx = nearest(root, self._nx) if nx_project is not None else None
        if nx is not None and nx_project is not None:
            reads = reads | nx.reads | nx.at(nx_project)
            self._take_nx_edges(nx, nx_project, names, roots, paths)
        return Project(
            ecosystem="node",
            root=root,
            manifest=package.manifest,
            jobs=jobs_of(self._setup(package, workspace, tasks, nx)),
            name=package.name,
            tools=self._tools.of(root, [package.content, workspace.package.content]),
            depends_on_names=frozenset(names),
            depends_on_roots=frozenset(roots),
            reads=frozenset(paths | reads.paths),
            reads_globs=reads.globs,
            lock=lock_of(self._tree, workspace.root, workspace.manager.name),
        )

    def _sorted_out(self, root: str, targets: Iterable[str]) -> tuple[set[str], set[str]]:
        """The roots of other projects that paths lead to, and the paths that lead to none, outside of `root`."""
        roots: set[str] = set()
        paths: set[str] = set()
        for path in targets:
            owner = self._owner(path)
            if owner == root:
                continue
            is_above = owner is not None and (owner == "." or root.startswith(owner + "/"))
            if owner is not None and (owner == path or not is_above):
                roots.add(owner)
            else:
                paths.add(path)
        return roots, paths

    def _take_nx_edges(self, nx: Nx, project: NxProject, names: set[str], roots: set[str], paths: set[str]) -> None:
        edges = nx.edges(project)
        is_all = edges.is_all
        roots |= edges.roots
        if project.root not in self._managed and project.root != nx.root:
            # Its dependencies are in its sources alone, which are not read: it may import whatever can be imported.
            mapped, is_unclear = self._importable(nx)
            roots |= mapped
            is_all |= is_unclear
        roots -= edges.without | {project.root}
        names -= {name for name in names if set(self._local.roots(name)) <= edges.without}
        if is_all:
            paths.add(nx.root)

    def _importable(self, nx: Nx) -> tuple[frozenset[str], bool]:
        """The projects that imports are mapped to, and whether it may be any."""
        if nx.root not in self._mapped:
            config = self._tree.first(nx.root, _MAPPINGS)
            found = self._typescript.mapped(config) if config is not None else None
            roots = frozenset(self._sorted_out(nx.root, found.paths)[0]) if found is not None else frozenset[str]()
            self._mapped[nx.root] = (roots, found is not None and found.is_unclear)
        return self._mapped[nx.root]

    def _builds(self, workspace: _Workspace, root: str) -> tuple[Package, ...] | None:
        """As `builds_of` has it; the root of a workspace is no member, and has needs of its own."""
        edges = self._edges
        if root == workspace.root and root in self._members:
            edges = {**edges, root: self._edges_to(workspace.root_needs, root, root)}
        return builds_of(root, self.packages, edges)

    def _is_inside_member(self, root: str) -> bool:
        """Whether a package is inside of a member, but neither one itself nor locked: a template, or to test with.

        Nobody installs it where it is.
        """
        above = self._owner(parent(root)) if root != "." else None
        home = self._home.get(above) if above is not None else None
        if home is None or home == above or root in self._home or root in self._members:
            return False
        return self._tree.first(home, LOCKS) is not None and self._tree.first(root, LOCKS) is None

    def _scripts(self, package: Package, workspace: _Workspace) -> dict[str, str]:
        """The scripts of a package that are for CI to run there."""
        root, scripts = package.root, package.scripts
        if self._is_inside_member(root) or self._is_aside(root):
            return {}
        if root == workspace.root:
            own = {
                name: body
                for name, body in scripts.items()
                if name not in workspace.member_scripts
                and (name in (*LINTS, *TESTS) or root not in self._members or not delegates(name, scripts))
            }
            tests = scripts_that_test(own, self._run_by_ci(package, workspace))
            if tests and "build" in scripts and self._has_built_members(root):
                own["build"] = scripts["build"]
            return own
        if is_left_out(package.manifest):
            if self._owner(parent(root)) not in (None, workspace.root):
                return {}  # a member only to be installed, for the tests of the one around it
            known = workspace.package.scripts.keys() - workspace.member_scripts
            if workspace.turbo is None and self._nx_projects.get(root) is None:
                # The root has scripts of its own by these names: that is where its examples are seen to.
                scripts = {name: body for name, body in scripts.items() if name not in known}
            if "test" not in scripts or needs_a_server(scripts["test"]):
                scripts = {name: body for name, body in scripts.items() if name not in (*TESTS, *BUILDS)}
        filters = workspace.filters
        return {
            name: body
            for name, body in scripts.items()
            if name not in filters or not filters[name].leaves_out(root, package.name)
        }

    def _is_aside(self, root: str) -> bool:
        """Whether it is a package among documents or measurements, in no workspace, that the own CI does not know."""
        return root not in self._home and bool(_ASIDE.intersection(root.split("/"))) and not self._ci.knows(root)

    def _has_built_members(self, root: str) -> bool:
        """Whether tests of the workspace's root would find in its members what a build has put there."""
        return any(is_built(self.packages[member]) for member in self._members.get(root, ()))

    def _run_by_ci(self, package: Package, workspace: _Workspace) -> tuple[str, ...]:
        """Of a member, only what the root runs of all: others mean the root's own scripts, by the same names."""
        scripts = self._ci.scripts
        if package.root == workspace.root:
            return scripts
        return tuple(name for name in scripts if name in workspace.member_scripts)

    def _is_built_by_root(self, workspace: _Workspace, root: str) -> bool:
        """Whether a member needs others that have something built to them, which only the root's own `build` does."""
        if root == workspace.root or "build" not in workspace.package.scripts or "build" in workspace.member_scripts:
            return False
        needed = [self.packages[other] for other in self._edges.get(root, ())]
        if workspace.package.name in needs_of(self.packages[root], self._local, workspace.forced).names:
            needed.append(workspace.package)
        return any(is_built(each) and (each is workspace.package or each.build is None) for each in needed)

    def _setup(self, package: Package, workspace: _Workspace, tasks: frozenset[str], nx: Nx | None) -> Setup:
        root, manager = package.root, workspace.manager
        scripts = self._scripts(package, workspace)
        through: Through | None = None
        found = self._names.at(root)
        project = self._nx_projects.get(root)
        if nx is not None and project is not None and NX_NAME.fullmatch(project.name):
            known = nx.targets(project, msgspec.structs.replace(package, scripts=scripts), found)
            if is_left_out(package.manifest) and known is not None and "test" not in known:
                known -= {"build"}
            through = Through(tool="nx", name=project.name, tasks=known)
        elif workspace.turbo is not None and root != workspace.root and NAME.fullmatch(package.name or ""):
            through = Through(tool="turbo", name=package.name or "", tasks=tasks)
        return Setup(
            package=package,
            workspace=workspace.root,
            manager=manager,
            scripts=scripts,
            through=through,
            builds=self._builds(workspace, root) if through is None else (),
            can_build_all="build" in workspace.package.scripts,
            must_build_all=through is None and self._is_built_by_root(workspace, root),
            run_by_ci=self._run_by_ci(package, workspace),
            cache=cache_of(manager, workspace.root, root),
            reports=reports_of(self._tree, root, found, package.content, package.scripts.get("test", "")),
        )
