"""Which file is a lock of which format, and what two of them say of the members that use them.

Rule: nothing raises for what is in a file; what cannot be told is None, and whoever asks takes it for a change.
"""

import fnmatch
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeAlias

from deltaci.planner.errors import printable
from deltaci.planner.locks import bun, cargo, npm, pnpm, single, uv, yarn
from deltaci.planner.locks.lock import Lock, Member, Node, Odd, closure, digests

Reader: TypeAlias = Callable[[bytes, Mapping[str, Member], str], Lock]

FORMATS: Final[Mapping[str, Reader]] = {
    "package-lock.json": npm.read,
    "npm-shrinkwrap.json": npm.read,
    "pnpm-lock.yaml": pnpm.read,
    "yarn.lock": yarn.read,
    "bun.lock": bun.read,
    "uv.lock": uv.read,
    "Cargo.lock": cargo.read,
    "poetry.lock": single.poetry,
    "pdm.lock": single.poetry,
    "Pipfile.lock": single.pipenv,
    "packages.lock.json": single.nuget,
    "go.sum": single.go,
    "go.work.sum": single.go,
    "gradle.lockfile": single.gradle,
    "*.txt": single.requirements,
}
PACKAGES_SHOWN_MAX: Final = 3
# How many nodes are visited, for all members of two locks together, to name the packages that changed.
VISITS_MAX: Final = 500_000


def read(name: str, data: bytes, members: Mapping[str, Member], directory: str = ".") -> Lock | None:
    """What a lock file says, or None if that cannot be told.

    Args:
        name: its basename.
        members: the roots, from the root of the repository, of the projects that use it.
        directory: where the lock file is, from the root of the repository.
    """
    reader = FORMATS.get(name) or next(
        (reader for pattern, reader in FORMATS.items() if fnmatch.fnmatchcase(name, pattern)), None
    )
    if reader is None:
        return None
    try:
        lock = reader(data, members, directory)
        lock.check()
    except Odd:
        return None
    return lock


def resolutions(
    name: str, data: bytes, members: Mapping[str, Member], directory: str = "."
) -> Mapping[str, str | None] | None:
    """For each member a digest of all that its install resolves to, None where that cannot be told.

    Equal digests of one member in two locks mean that it gets the same. Arguments are as in `read`.
    """
    lock = read(name, data, members, directory)
    if lock is None:
        return None
    found = digests(lock)
    return {
        root: None if (digest := found.get(root)) is None else f"{digest}-{_short(lock.settings)}" for root in members
    }


def _short(settings: str) -> str:
    return digests(Lock(settings="", nodes={"": Node("", "", settings)}, members={"": ""}))[""] or ""


def differences(
    name: str, old: bytes | None, new: bytes | None, members: Mapping[str, Member], directory: str = "."
) -> dict[str, str]:
    """The members that get something else by the new lock than by the old one, or may do so: root -> why.

    Each reason is half a sentence that goes on from the name of the file. Arguments are as in `read`.
    """
    if old is None or new is None:
        which = "before" if old is None else "now"
        return dict.fromkeys(members, f"changed, and there is nothing to compare, because {which} it could not be read")
    before, after = (read(name, data, members, directory) for data in (old, new))
    if before is None or after is None:
        which = "before" if before is None else "now"
        return dict.fromkeys(members, f"changed, and who is concerned cannot be told from what it is {which}")
    if before.settings != after.settings:
        return dict.fromkeys(members, "changed in its settings, which concern all that use it")
    olds, news = digests(before), digests(after)
    names = _Names(before, after)
    found = {}
    for root in members:
        one, other = olds.get(root), news.get(root)
        if one is None or other is None:
            found[root] = "changed, and what it resolves to for this project cannot be told"
        elif one != other:
            found[root] = names.of(root)
    return found


class _Names:
    """Names the packages that changed for a member, as long as that is cheap."""

    def __init__(self, before: Lock, after: Lock) -> None:
        self._before, self._after = before, after
        self._visits = 0

    def of(self, root: str) -> str:
        if self._visits > VISITS_MAX:
            return "resolves otherwise for this project"
        one = self._packages(self._before, root)
        other = self._packages(self._after, root)
        names = sorted({name for name, _, _ in one ^ other})
        if not names:
            return "resolves otherwise for this project"
        shown = ", ".join(_change(name, one - other, other - one) for name in names[:PACKAGES_SHOWN_MAX])
        more = f" and {len(names) - PACKAGES_SHOWN_MAX} more" if len(names) > PACKAGES_SHOWN_MAX else ""
        return f"resolves otherwise for this project: {shown}{more}"

    def _packages(self, lock: Lock, root: str) -> AbstractSet[tuple[str, str, str]]:
        keys = closure(lock.nodes, lock.members[root])
        self._visits += len(keys)
        nodes = (lock.nodes[key] for key in keys)
        return {(node.name, node.version, node.own) for node in nodes if node.name}


def _change(name: str, gone: AbstractSet[tuple[str, str, str]], come: AbstractSet[tuple[str, str, str]]) -> str:
    old, new = (
        "/".join(sorted({version for other, version, _ in packages if other == name})[:2]) for packages in (gone, come)
    )
    if old and new:
        return printable(f"{name} {old}" if old == new else f"{name} {old} -> {new}")
    return printable(f"{name} {old} removed" if old else f"{name} {new} added")
