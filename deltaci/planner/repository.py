"""What the planner needs of a repository: the port, and an index of its files that forgets their order.

Rule: everything here sorts; two views with the same files give the same plan, however they list them.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from deltaci.planner.globs import MATCHES_MAX, GlobInvalid, Globs

Kind: TypeAlias = Literal["file", "symlink", "submodule"]
# So many changed files are kept beside those that they replace, so that a small change copies little.
NEWER_MAX: Final = 1_000
_KINDS: Final[Mapping[str, Kind]] = {"120000": "symlink", "160000": "submodule"}


class Entry(Protocol):
    """One file of a commit; `mode` is git's, `size` in bytes, `sha` the id of its contents."""

    @property
    def path(self) -> str: ...
    @property
    def mode(self) -> str: ...
    @property
    def sha(self) -> str: ...
    @property
    def size(self) -> int: ...


class Change(Protocol):
    """One changed file; a rename counts for both its paths. Which kind of change it is decides nothing."""

    @property
    def path(self) -> str: ...
    @property
    def old_path(self) -> str | None: ...


class RepositoryView(Protocol):
    """The files of one commit. `deltaci.forge.local.CommitView` is one."""

    @property
    def commit_sha(self) -> str: ...

    def entries(self) -> Sequence[Entry]:
        """Every file, symlink and submodule, in any order; their sizes may be 0."""
        ...

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of the files and symlinks among `paths`; what is not there, and submodules, are left out."""
        ...

    def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        """The contents of files; raises if one is missing or larger than `bytes_max`."""
        ...


class _Index(NamedTuple):
    """Files by path, as `newer` has them where it has any (None: nothing is there); and the paths, sorted."""

    by_path: dict[str, Entry]
    newer: dict[str, Entry | None]
    paths: tuple[str, ...]


class Files:
    """The files of a commit by path, sorted; directories are what the paths tell. Never changes."""

    def __init__(self, entries: Iterable[Entry] = (), *, indexed: _Index | None = None) -> None:
        """The files `entries`; or those of an index, which stays as it is."""
        if indexed is None:
            by_path = {entry.path: entry for entry in entries}
            indexed = _Index(by_path, {}, tuple(sorted(by_path)))
        self._index: Final = indexed
        self.paths: Final = indexed.paths
        self._hashes: dict[tuple[str, ...], str] = {}
        self._matches = 0

    def fresh(self) -> "Files":
        """The same files for another plan: what may be matched is counted for each plan anew."""
        return Files(indexed=self._index)

    def only(self, is_wanted: Callable[[str], bool]) -> "Files":
        """Those whose path `is_wanted`."""
        return Files(entry for entry in self.entries() if is_wanted(entry.path))

    def changed(self, changes: Mapping[str, Entry | None]) -> "Files":
        """The files after each path of `changes` holds what it says there, or nothing. Shares what did not change."""
        by_path, newer = self._index.by_path, {**self._index.newer, **changes}
        paths = self._paths_after(changes)
        if len(newer) > NEWER_MAX:
            by_path = {path: entry for path, entry in (by_path | newer).items() if entry is not None}
            newer = {}
        return Files(indexed=_Index(by_path, newer, paths))

    def _paths_after(self, changes: Mapping[str, Entry | None]) -> tuple[str, ...]:
        moved = sorted(path for path, entry in changes.items() if (entry is None) != (self.entry(path) is None))
        if not moved:
            return self.paths
        paths: list[str] = []
        start = 0
        for path in moved:
            place = bisect_left(self.paths, path, start)
            paths += self.paths[start:place]
            if changes[path] is None:
                start = place + 1
            else:
                paths.append(path)
                start = place
        return (*paths, *self.paths[start:])

    def entries(self) -> Iterable[Entry]:
        """All of them, in no order."""
        by_path, newer = self._index.by_path, self._index.newer
        if not newer:
            return by_path.values()
        return [entry for path in self.paths if (entry := self.entry(path)) is not None]

    def entry(self, path: str) -> Entry | None:
        """What is at `path`, or None if nothing, or a directory, is."""
        by_path, newer, _ = self._index
        return newer[path] if path in newer else by_path.get(path)

    def sha(self, path: str) -> str:
        """The object id of what is at `path`; empty if nothing is."""
        entry = self.entry(path)
        return "" if entry is None else entry.sha

    def kind(self, path: str) -> Kind | None:
        """What is at `path`, or None if nothing, or a directory, is."""
        entry = self.entry(path)
        return None if entry is None else _KINDS.get(entry.mode, "file")

    def is_file(self, path: str) -> bool:
        """Whether a regular file is at `path`."""
        return self.kind(path) == "file"

    def is_executable(self, path: str) -> bool:
        """Whether a regular file is at `path` that a shell may start by its name."""
        entry = self.entry(path)
        return entry is not None and entry.mode == "100755"

    def size(self, path: str) -> int:
        """Bytes of the file at `path`; 0 if there is none."""
        entry = self.entry(path)
        return 0 if entry is None else entry.size

    def is_directory(self, path: str) -> bool:
        """Whether files are below `path`."""
        return bool(self.below(path))

    def below(self, directory: str) -> tuple[str, ...]:
        """The paths of all files below a directory, sorted; `.` is the root."""
        if directory == ".":
            return self.paths
        # "0" is the character after "/": between the two are exactly the names that begin with "directory/".
        return self.paths[bisect_left(self.paths, f"{directory}/") : bisect_left(self.paths, f"{directory}0")]

    def hash_of_files(self, paths: Iterable[str]) -> str:
        """As `hash_of`, of exactly these paths; those that do not exist count as absent."""
        found = ((path, self.entry(path)) for path in sorted(set(paths)))
        return _digest(found)

    def hash_of(self, patterns: Sequence[str]) -> str:
        """16 hex digits that change when a matching file is added, removed, renamed or edited, and only then.

        Computed from object ids: no content is read. No matching file has a hash, too.

        Raises:
            GlobInvalid: malformed patterns, or more than `MATCHES_MAX` matches over all calls.
        """
        key = tuple(patterns)
        if key not in self._hashes:
            globs = Globs(patterns)
            self._matches += len(patterns) * len(self.paths)
            if self._matches > MATCHES_MAX:
                raise GlobInvalid(
                    f"too many patterns for {len(self.paths)} files; hash fewer, or name files without '*'"
                )
            matching = (path for path in self.paths if globs.match(path) is not None)
            self._hashes[key] = _digest((path, self.entry(path)) for path in matching)
        return self._hashes[key]


def _digest(entries: Iterable[tuple[str, Entry | None]]) -> str:
    whole = hashlib.sha256()
    for path, entry in entries:
        if entry is not None:
            whole.update(f"{path}\0{entry.sha}\0".encode())
    return whole.hexdigest()[:16]


def changed_paths(changes: Iterable[Change]) -> tuple[str, ...]:
    """Every path that a difference touches, the old path of a rename included; sorted, each once."""
    return tuple(sorted({path for change in changes for path in (change.path, change.old_path) if path is not None}))
