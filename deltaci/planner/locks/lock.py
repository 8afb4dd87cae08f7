"""What a lock file resolves to, whatever its format: packages as nodes, "is installed for" as edges, members on top.

Rule 1: the digest of a member covers all that can be reached from it, so that equal digests mean equal installs.
Rule 2: an edge that leads nowhere makes all that reach it unknown: nobody can say what would be installed.
Rule 3: nothing recurses, and everything is about linear in nodes and edges, cycles included: locks are large, and
may be hostile.
"""

import hashlib
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import msgspec

NODES_MAX: Final = 500_000
EDGES_MAX: Final = 5_000_000


class Odd(Exception):
    """The lock file is not as its format says, or too large; internal: it becomes None at the border."""


class Member(NamedTuple):
    """A project that uses the lock: the name of its package, and its manifest for formats that say less than it."""

    name: str | None
    manifest: bytes = b""


class Node(NamedTuple):
    """One resolved package (or member). `own` is all that tells it from another one except what it depends on.

    `edges` are pairs of a role (the name that is asked for, a marker) and the key of the node that answers to it.
    """

    name: str
    version: str
    own: str
    edges: tuple[tuple[str, str], ...] = ()


class Lock(msgspec.Struct, kw_only=True):
    """A lock file that was understood.

    Args:
        settings: what belongs to no member and may change the meaning of all of them.
        nodes: by key; keys mean something only inside of this lock.
        members: member root -> key of its node; a root that the lock does not know is left out.
    """

    settings: str
    nodes: dict[str, Node]
    members: dict[str, str]

    def check(self) -> None:
        """Raises Odd if there is more than `NODES_MAX` and `EDGES_MAX` allow."""
        if len(self.nodes) > NODES_MAX or sum(len(node.edges) for node in self.nodes.values()) > EDGES_MAX:
            raise Odd("too many packages")


def canonical(value: Any) -> str:
    """Equal values, equal text. Raises Odd for what is nested too deeply."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    except (RecursionError, TypeError, ValueError) as error:
        raise Odd("a value that cannot be compared") from error


def relative(root: str, directory: str) -> str:
    """The path of a member as seen from the directory of its lock; `.` if that is where it is."""
    mine, others = ([] if path == "." else path.split("/") for path in (root, directory))
    common = len(posixpath.commonprefix([mine, others]))
    return "/".join([".."] * (len(others) - common) + mine[common:]) or "."


def digests(lock: Lock) -> dict[str, str | None]:
    """For each member of the lock a digest of all that it resolves to, or None if it reaches something unknown."""
    found = _digests_of(lock.nodes, list(dict.fromkeys(lock.members.values())))
    return {root: found.get(key) for root, key in lock.members.items()}


def closure(nodes: Mapping[str, Node], start: str) -> set[str]:
    """The keys of all nodes that can be reached, `start` included."""
    seen = {start}
    waiting = [start]
    while waiting:
        node = nodes.get(waiting.pop())
        for _, key in node.edges if node is not None else ():
            if key not in seen:
                seen.add(key)
                waiting.append(key)
    return seen


def _digests_of(nodes: Mapping[str, Node], starts: Iterable[str]) -> dict[str, str | None]:
    """Digests from the leaves up; the nodes of a cycle share theirs."""
    found: dict[str, str | None] = {}
    for component in _components(nodes, starts):
        digest = _digest(nodes, component, found)
        found.update(dict.fromkeys(component, digest))
    return found


def _digest(nodes: Mapping[str, Node], component: list[str], found: Mapping[str, str | None]) -> str | None:
    if any(key not in nodes for key in component):
        return None
    inside = set(component)
    # Inside of a cycle a node is told by its own contents; two with the same ones, by where they are as well.
    names = {key: nodes[key].own for key in component}
    if len(set(names.values())) < len(component):
        names = {key: f"{key}\n{own}" for key, own in names.items()}
    parts = []
    for key in component:
        edges = []
        for role, target in nodes[key].edges:
            below = f"={names[target]}" if target in inside else found[target]
            if below is None:
                return None
            edges.append((role, below))
        parts.append(canonical([names[key], sorted(edges)] if len(component) > 1 else [nodes[key].own, sorted(edges)]))
    return hashlib.sha256("\n".join(sorted(parts)).encode("utf-8", "surrogatepass")).hexdigest()


def _components(nodes: Mapping[str, Node], starts: Iterable[str]) -> Iterator[list[str]]:
    """The strongly connected components below `starts`, what is depended on first (Tarjan 1972, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []
    on_path: set[str] = set()
    for start in starts:
        if start in index:
            continue
        calls = [(start, _targets(nodes, start))]
        index[start] = low[start] = len(index)
        path.append(start)
        on_path.add(start)
        while calls:
            key, targets = calls[-1]
            for target in targets:
                if target not in index:
                    index[target] = low[target] = len(index)
                    path.append(target)
                    on_path.add(target)
                    calls.append((target, _targets(nodes, target)))
                    break
                if target in on_path:
                    low[key] = min(low[key], index[target])
            else:
                calls.pop()
                if calls:
                    above = calls[-1][0]
                    low[above] = min(low[above], low[key])
                if low[key] == index[key]:
                    component: list[str] = []
                    while not component or component[-1] != key:
                        component.append(path.pop())
                    on_path.difference_update(component)
                    yield component


def _targets(nodes: Mapping[str, Node], key: str) -> Iterator[str]:
    node = nodes.get(key)
    return iter(()) if node is None else (target for _, target in node.edges)
