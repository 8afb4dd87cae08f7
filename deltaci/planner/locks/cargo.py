"""Cargo.lock, versions 1 to 4: packages with what they depend on; those without a source are of the repository.

Rule: a workspace gets all that is locked, a crate what its package reaches. Features are not in the lock: those that
another member turns on are a change to that member's manifest.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical
from deltaci.planner.locks.reading import items, mapping, read_toml, text, without

_NO_SETTINGS: Final = frozenset({"package", "metadata", "root"})
_DEPENDENCY: Final = re.compile(r"(\S+)(?: ([^\s(]\S*))?(?: \((.+)\))?")
_CANDIDATES_MAX: Final = 200


def read(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """What each crate gets."""
    content = read_toml(data)
    version = content.get("version", 1)
    if type(version) is not int or version not in (1, 2, 3, 4):
        raise Odd("a version that is not known")
    # Before version 2 checksums are kept apart, by "checksum name version (source)".
    metadata = dict(mapping(content.get("metadata")))
    packages: dict[str, dict[str, Any]] = {}
    by_name: dict[str, list[str]] = {}
    # `root` was the first package, in the oldest files.
    for entry in [*items(content.get("package")), *([content["root"]] if "root" in content else [])]:
        package = dict(mapping(entry))
        name, number, source = text(package.get("name")), text(package.get("version")), package.get("source")
        key = f"{name} {number} ({source})"
        if key in packages:
            raise Odd("a package twice")
        checksum = metadata.pop(f"checksum {key}", None)
        packages[key] = package if checksum is None else {**package, "checksum": checksum}
        same = by_name.setdefault(name, [])
        same.append(key)
        if len(same) > _CANDIDATES_MAX:
            raise Odd("a package in too many versions")
    nodes = {key: _node(package, packages, by_name) for key, package in packages.items()}
    found = _members(members, packages, nodes)
    settings = canonical([version, metadata, without(content, _NO_SETTINGS)])
    return Lock(settings=settings, nodes=nodes, members=found)


def _node(package: dict[str, Any], packages: Mapping[str, dict[str, Any]], by_name: Mapping[str, list[str]]) -> Node:
    edges = []
    for entry in items(package.get("dependencies")):
        wanted = _DEPENDENCY.fullmatch(text(entry))
        if wanted is None:
            raise Odd("a dependency that cannot be read")
        name, number, source = wanted.groups()
        found = [
            key
            for key in by_name.get(name, ())
            if (number is None or packages[key]["version"] == number)
            and (source is None or packages[key].get("source") == source)
        ]
        edges += [(name, key) for key in found or [f"nowhere: {entry}"]]
    if "source" not in package:
        return Node("", "", canonical(["member", package["name"]]), tuple(edges))
    return Node(
        package["name"], package["version"], canonical(without(package, frozenset({"dependencies"}))), tuple(edges)
    )


def _members(
    members: Mapping[str, Member], packages: Mapping[str, dict[str, Any]], nodes: dict[str, Node]
) -> dict[str, str]:
    crates = {package["name"]: key for key, package in packages.items() if "source" not in package}
    found = {}
    every = tuple(("", key) for key in packages)
    for root, member in members.items():
        try:
            manifest = read_toml(member.manifest)
        except Odd:
            manifest = {"workspace": {}}
        name = member.name or mapping(manifest.get("package")).get("name")
        if "workspace" in manifest or not isinstance(name, str):
            found[root] = "workspace: "
            nodes["workspace: "] = Node("", "", "workspace", every)
        elif name in crates:
            found[root] = crates[name]
    return found
