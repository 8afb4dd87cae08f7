"""yarn.lock in both its notations: classic (version 1), and that of yarn 2 and later, which is YAML.

Rule: classic locks do not know members; what those depend on is in their manifests, as they are now, for the lock of
before as well: whose manifest changed is touched by that. What the root of the workspace gets counts for all of them.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import unquote

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical, relative
from deltaci.planner.locks.reading import mapping, read_json, read_text, read_yaml, text, without

_CLASSIC: Final = re.compile(r"^# yarn lockfile v1\r?$", re.MULTILINE)
_METADATA: Final = re.compile(rb"^__metadata:", re.MULTILINE)
_VERSIONS: Final = frozenset({"4", "5", "6", "7", "8"})
_EDGES: Final = frozenset({"dependencies", "optionalDependencies", "peerDependencies", "peerDependenciesMeta"})
# A quote that is not closed takes the rest of the line, so that no part of it is tried twice.
_WORD: Final = re.compile(r'"((?:[^"\\\n]|\\.?)*+)(?:"|\Z)|([^\s:",][^\s:",]*+(?::[^\s",]++)*+)')
_PATCHES_MAX: Final = 64
_PRODUCTION: Final = ("dependencies", "optionalDependencies")
_KINDS: Final = (*_PRODUCTION, "devDependencies")


def read(data: bytes, members: Mapping[str, Member], directory: str) -> Lock:
    """What each member gets."""
    if _METADATA.search(data) is not None:
        return _modern(read_yaml(data), members, directory)
    content = read_text(data)
    if _CLASSIC.search(content) is None:
        raise Odd("neither of the two notations")
    return _classic(content, members, directory)


# ---- yarn 2 and later -----------------------------------------------------------------------------------------------


def _modern(content: dict[str, Any], members: Mapping[str, Member], directory: str) -> Lock:
    metadata = mapping(content.pop("__metadata"))
    if metadata.get("version") not in _VERSIONS:
        raise Odd("a version that is not known")
    by_descriptor: dict[str, str] = {}
    patched: dict[str, list[str]] = {}
    workspaces: dict[str, str] = {}
    for key, entry in content.items():
        for descriptor in key.split(", "):
            if by_descriptor.setdefault(descriptor, key) != key:
                raise Odd("a descriptor twice")
            name, _, source = descriptor[1:].partition("@patch:")
            if source:
                same = patched.setdefault(f"{descriptor[0]}{name}", [])
                same.append(key)
                if len(same) > _PATCHES_MAX:
                    raise Odd("a package with too many patches")
        path = text(mapping(entry).get("resolution")).partition("@workspace:")[2]
        if path:
            workspaces[path] = key
    root = workspaces.get(".")
    nodes = {key: _entry(key, mapping(entry), by_descriptor, patched) for key, entry in content.items()}
    found = {}
    for member in members:
        workspace = workspaces.get(relative(member, directory))
        if workspace is not None:
            found[member] = f"member: {workspace}"
            edges = (("", workspace), *(("root", key) for key in (root,) if key is not None))
            nodes[found[member]] = Node("", "", "member", edges)
    return Lock(settings=canonical(metadata), nodes=nodes, members=found)


def _entry(key: str, entry: dict[str, Any], by_descriptor: Mapping[str, str], patched: Mapping[str, list[str]]) -> Node:
    edges = []
    resolution = text(entry.get("resolution"))
    name = resolution[0:1] + resolution[1:].partition("@")[0]
    for wanted, value in mapping(entry.get("dependencies")).items():
        asked = text(value)
        target = by_descriptor.get(f"{wanted}@{asked}") or by_descriptor.get(f"{wanted}@npm:{asked}")
        edges.append((wanted, target if target is not None else f"nowhere: {wanted}@{asked}"))
        # A built-in or own patch takes the place of the package whenever its source is what is asked for.
        source = asked.removeprefix("npm:")
        others = [other for other in patched.get(wanted, ()) if other not in (key, target) and source in unquote(other)]
        edges += [(f"{wanted} patched", other) for other in others]
    if entry.get("linkType") == "soft" and "@workspace:" in resolution:
        return Node(name, "", canonical(["member", entry.get("dependenciesMeta")]), tuple(edges))
    return Node(name, text(entry.get("version")), canonical(without(entry, _EDGES)), tuple(edges))


# ---- classic --------------------------------------------------------------------------------------------------------


def _classic(content: str, members: Mapping[str, Member], directory: str) -> Lock:
    manifests = {root: read_json(member.manifest or b"{}") for root, member in members.items()}
    if any("resolutions" in manifest for manifest in manifests.values()):
        raise Odd("resolutions in a manifest say what the lock does not")
    by_pattern: dict[str, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    for patterns, entry in _entries(content):
        key = ", ".join(patterns)
        entries[key] = entry
        for pattern in patterns:
            if by_pattern.setdefault(pattern, key) != key:
                raise Odd("a pattern twice")
    nodes: dict[str, Node] = {}
    for key, entry in entries.items():
        edges = [
            (name, by_pattern.get(f"{name}@{asked}", f"nowhere: {name}@{asked}"))
            for kind in _PRODUCTION
            for name, asked in mapping(entry.get(kind)).items()
        ]
        name = key[0] + key[1:].partition("@")[0]
        own = canonical([name, without(entry, _EDGES)])
        nodes[key] = Node(name, text(entry.get("version")), own, tuple(edges))
    by_name = {member.name: root for root, member in members.items() if member.name is not None}
    for root, manifest in manifests.items():
        for prefix, kinds in (("member: ", _PRODUCTION), ("member with development: ", _KINDS)):
            edges = list(_wanted(manifest, kinds, by_pattern, by_name))
            if prefix != "member: " and root != directory:
                edges.append(("root", f"member with development: {directory}"))
            nodes[prefix + root] = Node("", "", "member", tuple(edges))
    found = {root: f"member with development: {root}" for root in members}
    return Lock(settings="", nodes=nodes, members=found)


def _wanted(
    manifest: dict[str, Any], kinds: Iterable[str], by_pattern: Mapping[str, str], by_name: Mapping[str, str]
) -> Iterable[tuple[str, str]]:
    for kind in kinds:
        for name, asked in mapping(manifest.get(kind)).items():
            pattern = f"{name}@{text(asked)}"
            if pattern in by_pattern:
                yield name, by_pattern[pattern]
            elif name in by_name:
                yield name, f"member: {by_name[name]}"
            else:
                yield name, f"nowhere: {pattern}"


def _entries(content: str) -> Iterable[tuple[list[str], dict[str, Any]]]:
    """Blocks of a line that ends in a colon and fields, two spaces deep, or groups of fields, four spaces deep."""
    patterns: list[str] = []
    entry: dict[str, Any] = {}
    group: dict[str, Any] = {}
    for whole in content.split("\n"):
        line = whole.rstrip("\r")
        if not line.strip() or line.startswith("#"):
            continue
        depth = len(line) - len(line.lstrip(" "))
        is_header = line.endswith(":")
        words = [a or b for a, b in _WORD.findall(line.rstrip(":") if is_header else line)]
        if depth == 0 and is_header and words:
            if patterns:
                yield patterns, entry
            patterns, entry, group = words, {}, {}
        elif depth == 2 and is_header and len(words) == 1 and patterns and words[0] not in entry:
            entry[words[0]] = group = {}
        elif depth == 2 and not is_header and len(words) == 2 and patterns and words[0] not in entry:
            entry[words[0]], group = words[1], {}
        elif depth == 4 and not is_header and len(words) == 2 and patterns and words[0] not in group:
            group[words[0]] = words[1]
        else:
            raise Odd("a line that is not of this notation")
    if patterns:
        yield patterns, entry
