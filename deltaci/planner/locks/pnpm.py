"""pnpm-lock.yaml 5.x, 6.x and 9.x: importers (the members), packages, and since 9 their snapshots with peers.

Rule: what is installed for the root of the workspace counts for every member, whose scripts can all use it.
"""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical, relative
from deltaci.planner.locks.reading import mapping, read_yaml, text, without

_VERSIONS: Final = frozenset({"5", "5.0", "5.1", "5.2", "5.3", "5.4", "6.0", "6.1", "9.0"})
_PRODUCTION: Final = ("dependencies", "optionalDependencies")
_KINDS: Final = (*_PRODUCTION, "devDependencies")
_IMPORTER: Final = frozenset({*_KINDS, "specifiers"})
# `catalogs` repeats what the importers say; `time` is when packages were published.
_NO_SETTINGS: Final = frozenset({*_IMPORTER, "importers", "packages", "snapshots", "time", "catalogs"})
_DERIVED: Final = frozenset(
    {"dev", "optional", "deprecated", "transitivePeerDependencies", "dependencies", "optionalDependencies"}
)
_OUTSIDE: Final = "outside: "
_MEMBER: Final = "importer: "
_DEVELOPMENT: Final = "importer with development: "


def read(data: bytes, members: Mapping[str, Member], directory: str) -> Lock:
    """What each importer gets; a lock without `importers` is that of one project in its own directory."""
    content = read_yaml(data)
    version = text(content.get("lockfileVersion"))
    if version not in _VERSIONS:
        raise Odd("a version that is not known")
    settings = without(content, _NO_SETTINGS)
    importers = mapping(content.get("importers"))
    if not importers:
        importers = {".": {name: content[name] for name in _IMPORTER if name in content}}
    packages = mapping(content.get("packages"))
    snapshots = mapping(content.get("snapshots")) if version == "9.0" else packages
    nodes: dict[str, Node] = {_OUTSIDE: Node("", "", "a directory that this lock installs nothing for")}
    for path, importer in importers.items():
        nodes.update(_importer(path, mapping(importer), importers, snapshots))
    for key, snapshot in snapshots.items():
        nodes[key] = _package(key, mapping(snapshot), packages, snapshots, is_split=version == "9.0")
    found = {root: _DEVELOPMENT + relative(root, directory) for root in members}
    known = {root: key for root, key in found.items() if key in nodes}
    return Lock(settings=canonical(settings), nodes=nodes, members=known)


def _importer(
    path: str, importer: dict[str, Any], importers: Mapping[str, Any], snapshots: Mapping[str, Any]
) -> Iterator[tuple[str, Node]]:
    own = canonical(without(importer, _IMPORTER))
    for prefix, kinds in ((_MEMBER, _PRODUCTION), (_DEVELOPMENT, _KINDS)):
        edges = []
        for kind in kinds:
            for name, value in mapping(importer.get(kind)).items():
                reference = text(mapping(value).get("version") if isinstance(value, dict) else value)
                edges += _edge(name, reference, path, importers, snapshots)
        if prefix == _DEVELOPMENT and path != "." and "." in importers:
            edges.append(("root", _DEVELOPMENT + "."))
        yield prefix + path, Node("", "", own, tuple(edges))


def _package(
    key: str, snapshot: dict[str, Any], packages: Mapping[str, Any], snapshots: Mapping[str, Any], *, is_split: bool
) -> Node:
    own = without(snapshot, _DERIVED)
    if is_split:
        base = key.partition("(")[0]
        if base not in packages:
            raise Odd("a snapshot of no package")
        own = {**without(mapping(packages[base]), _DERIVED), **own}
    edges = []
    for kind in _PRODUCTION:
        for name, reference in mapping(snapshot.get(kind)).items():
            edges += _edge(name, text(reference), ".", {}, snapshots)
    name, version = _shown(key)
    return Node(name, version, canonical([key, own]), tuple(edges))


def _edge(
    name: str, reference: str, path: str, importers: Mapping[str, Any], snapshots: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """The edge for a dependency; to a directory that is no importer there is nothing that this lock would install."""
    if reference.startswith("link:"):
        target = posixpath.normpath(posixpath.join(path, reference.removeprefix("link:")))
        return [(f"{name} {reference}", _MEMBER + target if target in importers else _OUTSIDE)]
    # Aliases and packages from elsewhere are named in full; the others by their version, with the name to be added.
    for key in (f"{name}@{reference}", f"/{name}@{reference}", f"/{name}/{reference}", reference):
        if key in snapshots:
            return [(name, key)]
    return [(name, f"nowhere: {name} {reference}")]


def _shown(key: str) -> tuple[str, str]:
    """Name and version, for people, of `name@1.0.0(peer@2.0.0)`, `/name@1.0.0` or `/name/1.0.0_peer@2.0.0`."""
    base = key.partition("(")[0].lstrip("/")
    for separator in ("@", "/"):
        name, _, version = base.partition("_")[0].rpartition(separator)
        if name.strip("@") and version[:1].isdigit():
            return name, version
    return base, ""
