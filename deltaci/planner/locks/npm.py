"""package-lock.json and npm-shrinkwrap.json, versions 2 and 3: a picture of `node_modules` directories.

Rule: what a package gets for a name is what Node would find, looking into `node_modules` from the package upwards.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical, relative
from deltaci.planner.locks.reading import mapping, read_json, text, without

_DERIVED: Final = frozenset(
    {"dev", "optional", "devOptional", "peer", "extraneous", "license", "funding", "deprecated"}
)
_NO_SETTINGS: Final = frozenset({"name", "version", "packages", "dependencies", "requires"})
_SEGMENTS_MAX: Final = 100
_DEVELOPMENT: Final = "with development: "


def read(data: bytes, members: Mapping[str, Member], directory: str) -> Lock:
    """What each member gets, and what is installed at the root of the workspace, which all of them can use."""
    content = read_json(data)
    version = content.get("lockfileVersion")
    if type(version) is not int or version not in (2, 3):
        raise Odd("a version that is not known")
    packages = {path: mapping(entry) for path, entry in mapping(content.get("packages")).items()}
    nodes: dict[str, Node] = {}
    for path, entry in packages.items():
        if entry.get("link") is not True:
            nodes[path] = _node(path, entry, packages)
            if not _is_installed(path):
                nodes[_DEVELOPMENT + path] = _with_development(path, entry, packages)
    found = {}
    for root in members:
        path = relative(root, directory)
        path = "" if path == "." else path
        if path in nodes and not _is_installed(path):
            found[root] = _DEVELOPMENT + path
    return Lock(settings=canonical(without(content, _NO_SETTINGS)), nodes=nodes, members=found)


def _is_installed(path: str) -> bool:
    return path.startswith("node_modules/") or "/node_modules/" in path


def _node(path: str, entry: dict[str, Any], packages: Mapping[str, dict[str, Any]]) -> Node:
    edges: dict[str, str] = {}
    places = _places(path)
    # A peer or an optional package that nothing provides is not installed, and that is known.
    for kind in ("peerDependencies", "optionalDependencies", "dependencies"):
        for name in mapping(entry.get(kind)):
            target = _resolve(name, places, packages)
            if target is not None:
                edges[name] = target
            elif kind == "dependencies" and name not in mapping(entry.get("optionalDependencies")):
                edges[name] = f"nowhere: {name}"
    name = path.rpartition("node_modules/")[2]
    if not _is_installed(path):
        return Node(name, "", "member", tuple(edges.items()))
    shown = text(entry.get("name", name)), str(entry.get("version", ""))
    return Node(*shown, canonical([name, without(entry, _DERIVED)]), tuple(edges.items()))


def _with_development(path: str, entry: dict[str, Any], packages: Mapping[str, dict[str, Any]]) -> Node:
    places = _places(path)
    names = mapping(entry.get("devDependencies"))
    edges = [("", path), *((name, _resolve(name, places, packages) or f"nowhere: {name}") for name in names)]
    if path:
        edges.append(("root", _DEVELOPMENT))
    return Node("", "", "member with development", tuple(edges))


def _places(path: str) -> tuple[str, ...]:
    """The `node_modules` directories that Node looks into, nearest first."""
    return tuple(_upwards(path))


def _upwards(path: str) -> Iterator[str]:
    segments = path.split("/") if path else []
    if len(segments) > _SEGMENTS_MAX:
        raise Odd("a path with too many parts")
    for count in range(len(segments), -1, -1):
        if count == 0 or segments[count - 1] != "node_modules":
            yield "/".join((*segments[:count], "node_modules", ""))


def _resolve(name: str, places: tuple[str, ...], packages: Mapping[str, dict[str, Any]]) -> str | None:
    for place in places:
        entry = packages.get(place + name)
        if entry is not None:
            return text(entry.get("resolved")) if entry.get("link") is True else place + name
    return None
