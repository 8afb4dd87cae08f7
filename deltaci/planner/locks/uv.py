"""uv.lock, version 1: packages by name, version and source; members are those from a directory of the repository.

Rule: a member gets all its extras and groups, as its jobs ask for; of another package, the extras that are asked for.
A dependency that several versions answer to, by markers, is on all of them.
"""

from collections.abc import Mapping
from typing import Any, Final

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical, relative
from deltaci.planner.locks.reading import items, mapping, read_toml, text, without

_NO_SETTINGS: Final = frozenset({"package", "revision", "manifest"})
_EDGES: Final = frozenset(
    {"dependencies", "optional-dependencies", "dev-dependencies", "metadata", "sdist", "wheels", "resolution-markers"}
)
_DIRECTORIES: Final = ("editable", "virtual", "directory")
_FILE_NOTES: Final = frozenset({"size", "upload-time"})
_CANDIDATES_MAX: Final = 200


def read(data: bytes, members: Mapping[str, Member], directory: str) -> Lock:
    """What each member gets."""
    content = read_toml(data)
    if type(content.get("version")) is not int or content["version"] != 1:
        raise Odd("a version that is not known")
    settings = [without(content, _NO_SETTINGS), without(mapping(content.get("manifest")), frozenset({"members"}))]
    packages: dict[str, dict[str, Any]] = {}
    by_name: dict[str, list[str]] = {}
    for entry in items(content.get("package")):
        package = mapping(entry)
        key = canonical([text(package.get("name")), package.get("version"), mapping(package.get("source"))])
        if key in packages:
            raise Odd("a package twice")
        packages[key] = package
        same = by_name.setdefault(package["name"], [])
        same.append(key)
        if len(same) > _CANDIDATES_MAX:
            raise Odd("a package in too many versions")
    nodes: dict[str, Node] = {}
    by_path: dict[str, str] = {}
    for key, package in packages.items():
        _add(key, package, nodes, packages, by_name)
        for kind in _DIRECTORIES:
            if kind in mapping(package.get("source")):
                by_path[text(package["source"][kind])] = f"all: {key}"
    paths = {root: relative(root, directory) for root in members}
    found = {root: by_path[path] for root, path in paths.items() if path in by_path}
    return Lock(settings=canonical(settings), nodes=nodes, members=found)


def _add(
    key: str,
    package: dict[str, Any],
    nodes: dict[str, Node],
    packages: Mapping[str, dict[str, Any]],
    by_name: Mapping[str, list[str]],
) -> None:
    """The package, its extras, and all of it at once for a member."""
    name = package["name"]
    is_member = any(kind in mapping(package.get("source")) for kind in _DIRECTORIES)
    files = [mapping(package.get("sdist")), *(mapping(wheel) for wheel in items(package.get("wheels")))]
    own = [without(package, _EDGES), sorted(canonical(without(file, _FILE_NOTES)) for file in files)]
    shown = "" if is_member else name
    version = "" if is_member else str(package.get("version", ""))
    edges = _edges(package.get("dependencies"), packages, by_name)
    nodes[key] = Node(shown, version, canonical(["member", name] if is_member else own), tuple(edges))
    parts = [("", key)]
    for extra, wanted in mapping(package.get("optional-dependencies")).items():
        part = _extra(key, extra)
        nodes[part] = Node("", "", f"extra {extra}", (("", key), *_edges(wanted, packages, by_name)))
        parts.append((f"extra {extra}", part))
    if is_member:
        for group, wanted in mapping(package.get("dev-dependencies")).items():
            parts += [(f"{group} {role}", target) for role, target in _edges(wanted, packages, by_name)]
        nodes[f"all: {key}"] = Node("", "", "member with all of it", tuple(parts))


def _extra(key: str, extra: str) -> str:
    return f"extra {extra}: {key}"


def _edges(
    wanted: Any, packages: Mapping[str, dict[str, Any]], by_name: Mapping[str, list[str]]
) -> list[tuple[str, str]]:
    edges = []
    for entry in items(wanted):
        dependency = mapping(entry)
        name = text(dependency.get("name"))
        role = f"{name} {canonical(dependency.get('marker'))}"
        found = [key for key in by_name.get(name, ()) if _answers(packages[key], dependency)]
        if not found:
            edges.append((role, f"nowhere: {name}"))
        for key in found:
            edges.append((role, key))
            extras = dependency.get("extra")
            asked = [extras] if isinstance(extras, str) else [text(extra) for extra in items(extras)]
            # An extra that the package does not have is nothing; uv warns and goes on.
            known = mapping(packages[key].get("optional-dependencies"))
            edges += [(f"{role} {extra}", _extra(key, extra)) for extra in asked if extra in known]
    return edges


def _answers(package: dict[str, Any], dependency: dict[str, Any]) -> bool:
    return all(dependency[part] == package.get(part) for part in ("version", "source") if part in dependency)
