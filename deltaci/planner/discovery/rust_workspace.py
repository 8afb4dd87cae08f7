"""Which crates of a repository cargo builds together, and which of them stand alone.

Rule 1: as cargo does it: the crates that `members` names, the root's own package, and whatever these depend on by path
below the root; `exclude` takes away, except what `members` names outright.
Rule 2: a crate below a workspace that neither has nor excludes it is no project, since cargo refuses to build it: its
files belong to the package of the workspace's root, or to nobody and so to every project.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from deltaci.planner.discovery.project import Tree, broken, inside, parent, table, texts
from deltaci.planner.discovery.workspace import ancestors, below, is_below, left_out_manifests, members

MANIFEST: Final = "Cargo.toml"
_KINDS: Final = (
    *("dependencies", "dev-dependencies", "build-dependencies"),
    *("dev_dependencies", "build_dependencies"),
)


class Crate(msgspec.Struct, frozen=True):
    """A package at `root`, in the workspace at `workspace`, or alone (None)."""

    root: str
    name: str
    workspace: str | None


class Cargo:
    """The manifests of a repository by directory, parsed when they are first asked for."""

    def __init__(self, tree: Tree, manifests: list[str]) -> None:
        self._tree = tree
        self._parsed: dict[str, dict[str, Any]] = {}
        self._patches: dict[str, frozenset[str]] = {}
        self._excluded: dict[str, _Below] = {}
        self.own = tuple(sorted(parent(path) for path in manifests))
        left_out = (parent(path) for path in left_out_manifests(tree, MANIFEST))
        self.all = tuple(sorted({*self.own, *left_out}))
        self._known = frozenset(self.all)

    def __contains__(self, root: str) -> bool:
        return root in self._known

    def at(self, root: str) -> dict[str, Any]:
        """The manifest of the directory `root`. Raises PlanFailed."""
        if root not in self._parsed:
            self._parsed[root] = self._tree.toml(path_of(root))
        return self._parsed[root]

    def package(self, root: str) -> dict[str, Any]:
        """Its `[package]`, by the old name too; empty for the root of a virtual workspace."""
        content = self.at(root)
        return table(content, "package") or table(content, "project")

    def crates(self) -> list[Crate]:
        """Every package that cargo can build, sorted by root.

        Raises:
            PlanFailed: a manifest is not TOML, has neither package nor workspace, or a package without a name.
        """
        workspaces = [root for root in self.own if "workspace" in self.at(root)]
        for root in workspaces:
            if not isinstance(self.at(root)["workspace"], dict):
                raise broken(path_of(root), "'workspace' is not a table")
        home: dict[str, str] = {}
        for root in workspaces:
            for member in self._members(root):
                home.setdefault(member, root)
        alone = [root for root in self.own if root not in home and self._stands_alone(root, frozenset(workspaces))]
        return [Crate(root, self._name(root), home.get(root)) for root in sorted({*home, *alone})]

    def _name(self, root: str) -> str:
        name = self.package(root).get("name")
        if isinstance(name, str) and name:
            return name
        what = "'package.name' is missing or not a text" if self._has_package(root) else "there is no [package]"
        line = _line(self._tree.text(path_of(root)), "[package]")
        raise broken(path_of(root), f"{what}, without which cargo builds nothing", line)

    def _has_package(self, root: str) -> bool:
        return "package" in self.at(root) or "project" in self.at(root)

    def _members(self, root: str) -> set[str]:
        """The crates of the workspace at `root`, its own package included if it has one."""
        settings = table(self.at(root), "workspace")
        patterns = [*texts(settings.get("members")), *texts(settings.get("default-members"))]
        barred = self._barred(root)
        candidates: Sequence[str] = below(root, self.all)
        if any(".." in pattern.split("/") for pattern in patterns):
            candidates = [each for each in self.all if each != root]
        found: set[str] = set()
        waiting = [(each, False) for each in sorted(members(root, patterns, candidates))]
        if self._has_package(root):
            waiting.append((root, False))
        while waiting:
            crate, is_implicit = waiting.pop()
            if crate in found or barred.has(crate):
                continue
            content = self.at(crate)
            if crate != root and "workspace" in content:
                continue  # a workspace of its own, which cargo would not build as a part of another one
            if is_implicit and not is_below(root, crate) and not self._points_to(crate, root):
                continue
            found.add(crate)
            waiting += [(target, True) for target in sorted(self.paths(crate, root)) if target in self]
        return found

    def _points_to(self, crate: str, workspace: str) -> bool:
        named = self.package(crate).get("workspace")
        return isinstance(named, str) and inside(crate, named) == workspace

    def _stands_alone(self, root: str, workspaces: frozenset[str]) -> bool:
        """Whether cargo builds the crate by itself: below no workspace, or below one that excludes it."""
        if "workspace" in self.at(root):
            return self._has_package(root)
        above = next((each for each in ancestors(root) if each in workspaces), None)
        if above is None:
            return True
        return self._barred(above).has(root)

    def _barred(self, workspace: str) -> "_Below":
        """What a workspace excludes and does not name outright as a member."""
        if workspace not in self._excluded:
            settings = table(self.at(workspace), "workspace")
            places = [[inside(workspace, each) for each in texts(settings.get(key))] for key in ("exclude", "members")]
            self._excluded[workspace] = _Below(*places)
        return self._excluded[workspace]

    def paths(self, root: str, workspace: str | None) -> set[str]:
        """The directories that the crate at `root` names in its dependencies of all kinds."""
        inherited = table(self.at(workspace), "workspace", "dependencies") if workspace is not None else {}
        found: set[str | None] = set()
        for name, value in _dependencies(self.at(root)):
            if not isinstance(value, dict):
                continue
            if value.get("workspace") is True and workspace is not None:
                shared = inherited.get(name)
                if isinstance(shared, dict) and isinstance(shared.get("path"), str):
                    found.add(inside(workspace, shared["path"]))
            elif isinstance(value.get("path"), str):
                found.add(inside(root, value["path"]))
        return {place for place in found if place is not None and place != root}

    def patches(self, root: str) -> frozenset[str]:
        """The directories that take the place of published crates for everything built from `root`."""
        if root not in self._patches:
            self._patches[root] = self._find_patches(root)
        return self._patches[root]

    def _find_patches(self, root: str) -> frozenset[str]:
        content = self.at(root)
        replaced = [*table(content, "patch").values(), table(content, "replace")]
        found = (
            inside(root, value["path"])
            for each in replaced
            for value in table(each).values()
            if isinstance(value, dict) and isinstance(value.get("path"), str)
        )
        return frozenset(place for place in found if place is not None)


class _Below:
    """Whether a directory is at or below one of `excluded`, and at or below none of `outright`."""

    def __init__(self, excluded: Iterable[str | None], outright: Iterable[str | None]) -> None:
        self._excluded = frozenset(excluded)
        self._outright = frozenset(outright)

    def has(self, place: str) -> bool:
        chain = (place, *ancestors(place))
        return any(each in self._excluded for each in chain) and not any(each in self._outright for each in chain)


def _dependencies(content: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for kind in _KINDS:
        yield from table(content, kind).items()
    for target in table(content, "target").values():
        for kind in _KINDS:
            yield from table(target, kind).items()


def path_of(root: str) -> str:
    """The manifest of the crate at `root`."""
    return MANIFEST if root == "." else f"{root}/{MANIFEST}"


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The manifests that a workspace may name, wherever they are."""
    return [*manifests, *left_out_manifests(tree, MANIFEST)] if manifests else []


def _line(text: str, header: str) -> int | None:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip().startswith(header):
            return number
    return None
