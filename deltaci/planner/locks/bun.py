"""bun.lock, the textual lock of Bun: workspaces, and packages by the chain of names that leads to them.

Rule: as with `node_modules`, a name means what the longest chain above its dependent has for it.
"""

from collections.abc import Mapping
from typing import Any, Final

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical, relative
from deltaci.planner.locks.reading import items, mapping, read_json, text, without

_PRODUCTION: Final = ("peerDependencies", "optionalDependencies", "dependencies")
_PACKAGES: Final = frozenset({"lockfileVersion", "workspaces", "packages"})
_EDGES: Final = frozenset({*_PRODUCTION, "optionalPeers"})
_CHAIN_MAX: Final = 100


def read(data: bytes, members: Mapping[str, Member], directory: str) -> Lock:
    """What each workspace gets, and what the root one has, which all of them can use."""
    content = read_json(data, is_loose=True)
    version = content.get("lockfileVersion")
    if type(version) is not int or version not in (0, 1):
        raise Odd("a version that is not known")
    workspaces = {path: mapping(value) for path, value in mapping(content.get("workspaces")).items()}
    packages = {key: items(value) for key, value in mapping(content.get("packages")).items()}
    nodes = {
        f"package: {key}": _package(key, value, packages)
        for key, value in packages.items()
        if _workspace_of(value) is None
    }
    for path, workspace in workspaces.items():
        chain = (text(workspace.get("name")),) if path and "name" in workspace else ()
        edges = _edges(chain, workspace, _PRODUCTION, packages)
        nodes[f"member: {path}"] = Node("", "", "member", tuple(edges))
        edges = [("", f"member: {path}"), *_edges(chain, workspace, ("devDependencies",), packages)]
        if path:
            edges.append(("root", "member with development: "))
        nodes[f"member with development: {path}"] = Node("", "", "member with development", tuple(edges))
    found = {}
    for root in members:
        path = relative(root, directory)
        key = f"member with development: {'' if path == '.' else path}"
        if key in nodes:
            found[root] = key
    return Lock(settings=canonical([version, without(content, _PACKAGES)]), nodes=nodes, members=found)


def _workspace_of(value: list[Any]) -> str | None:
    """The path of the workspace that a package is, if it is one."""
    name, _, path = text(value[0] if value else None).partition("@workspace:")
    return path if name and path else None


def _package(key: str, value: list[Any], packages: Mapping[str, list[Any]]) -> Node:
    about: dict[str, Any] = next((part for part in value if isinstance(part, dict)), {})
    rest = [without(part, _EDGES) if isinstance(part, dict) else part for part in value]
    name, _, version = text(value[0] if value else None).rpartition("@")
    edges = _edges(_chain(key), about, _PRODUCTION, packages)
    return Node(name or version, version if name else "", canonical(rest), tuple(edges))


def _chain(key: str) -> tuple[str, ...]:
    """The names of `a/@b/c/d`: a, @b/c and d."""
    names: list[str] = []
    for part in key.split("/"):
        if names and names[-1].startswith("@") and "/" not in names[-1]:
            names[-1] += f"/{part}"
        else:
            names.append(part)
    if len(names) > _CHAIN_MAX:
        raise Odd("a chain of too many names")
    return tuple(names)


def _edges(
    chain: tuple[str, ...], about: dict[str, Any], kinds: tuple[str, ...], packages: Mapping[str, list[Any]]
) -> list[tuple[str, str]]:
    places = ["/".join((*chain[:count], "")) for count in range(len(chain), -1, -1)]
    edges: dict[str, str] = {}
    for kind in kinds:
        for name in mapping(about.get(kind)):
            key = next((place + name for place in places if place + name in packages), None)
            if key is not None:
                workspace = _workspace_of(packages[key])
                edges[name] = f"package: {key}" if workspace is None else f"member: {workspace}"
            elif kind in ("dependencies", "devDependencies") and name not in mapping(about.get("optionalDependencies")):
                edges[name] = f"nowhere: {name}"
    return list(edges.items())
