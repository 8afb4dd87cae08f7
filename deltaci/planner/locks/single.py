"""Locks that are for one project: all that they list is installed for each project that uses them.

Rule: what says how or from what the lock was made (hashes of manifests, comments, the order of lines) is left out.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from deltaci.planner.locks.lock import Lock, Member, Node, Odd, canonical
from deltaci.planner.locks.reading import items, mapping, read_json, read_text, read_toml, text, without

_MADE_FROM: Final = frozenset({"content-hash", "content_hash", "hash"})
_PROJECT: Final = "\nproject"
_COMMENT: Final = re.compile(r"(?:^|(?<=\s))#.*")
_REQUIREMENT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*+)[^=@;]*+(?:===?\s*([^\s;]++))?")
_INCLUDES: Final = re.compile(r"-[rce]|--(?:requirement|constraint|editable)\b")


def _lock(settings: Any, packages: Iterable[tuple[str, Node]], members: Mapping[str, Member]) -> Lock:
    nodes: dict[str, Node] = {}
    for key, node in packages:
        if nodes.setdefault(key, node) != node:
            raise Odd("a package twice")
    every = tuple(("", key) for key in nodes)
    nodes[_PROJECT] = Node("", "", "project", every)
    return Lock(settings=canonical(settings), nodes=nodes, members=dict.fromkeys(members, _PROJECT))


def poetry(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """poetry.lock 1.x and 2.x, and pdm.lock 4.x: an array of packages."""
    content = read_toml(data)
    metadata = mapping(content.get("metadata"))
    version = str(metadata.get("lock-version", metadata.get("lock_version", "")))
    if version.partition(".")[0] not in ("1", "2", "4"):
        raise Odd("a version that is not known")
    settings = [without(metadata, _MADE_FROM), without(content, frozenset({"metadata", "package"}))]
    packages = []
    for entry in items(content.get("package")):
        package = mapping(entry)
        own = canonical(package)
        packages.append((own, Node(text(package.get("name")), str(package.get("version", "")), own)))
    return _lock(settings, packages, members)


def pipenv(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """Pipfile.lock, version 6: packages by category."""
    content = read_json(data)
    meta = mapping(content.get("_meta"))
    if meta.get("pipfile-spec") != 6:
        raise Odd("a version that is not known")
    packages = []
    for category, entries in content.items():
        for name, entry in mapping(entries).items() if category != "_meta" else ():
            version = str(mapping(entry).get("version", "")).removeprefix("==")
            packages.append((f"{category} {name}", Node(name, version, canonical([category, name, entry]))))
    return _lock(without(meta, _MADE_FROM), packages, members)


def nuget(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """packages.lock.json of NuGet, versions 1 and 2: packages by target framework."""
    content = read_json(data)
    if type(content.get("version")) is not int or content["version"] not in (1, 2):
        raise Odd("a version that is not known")
    packages = []
    for framework, entries in mapping(content.get("dependencies")).items():
        for name, entry in mapping(entries).items():
            version = str(mapping(entry).get("resolved", ""))
            packages.append((f"{framework} {name}", Node(name, version, canonical([framework, name, entry]))))
    return _lock(without(content, frozenset({"dependencies"})), packages, members)


def go(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """go.sum and go.work.sum: a module, a version and a hash on each line. Which of them a build uses is not told."""
    packages = []
    for line in read_text(data).split("\n"):
        words = line.split()
        if not words:
            continue
        if len(words) != 3:
            raise Odd("a line that is not of this notation")
        own = " ".join(words)
        packages.append((own, Node(words[0], words[1].removesuffix("/go.mod"), own)))
    return _lock("", packages, members)


def gradle(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """gradle.lockfile: `group:artifact:version=configurations` on each line."""
    packages = []
    for line in read_text(data).split("\n"):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        coordinates, equals, configurations = stripped.partition("=")
        name, _, version = coordinates.rpartition(":")
        if not equals or (coordinates != "empty" and ":" not in name):
            raise Odd("a line that is not of this notation")
        own = f"{coordinates}={','.join(sorted(configurations.split(',')))}"
        packages.append((own, Node(name, version, own)))
    return _lock("", packages, members)


def requirements(data: bytes, members: Mapping[str, Member], _directory: str) -> Lock:
    """requirements.txt as pip-compile writes it; one that includes other files or directories is not told by itself."""
    packages = []
    for line in read_text(data).replace("\r\n", "\n").replace("\\\n", " ").split("\n"):
        own = " ".join(_COMMENT.sub("", line).split())
        if not own:
            continue
        if _INCLUDES.match(own) is not None or own.startswith((".", "/", "file:")):
            raise Odd("another file or directory")
        found = _REQUIREMENT.match(own)
        name, version = (found[1], found[2] or "") if found is not None else ("", "")
        packages.append((own, Node(name, version, own)))
    return _lock("", packages, members)
