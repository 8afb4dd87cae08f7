"""A commit as the API of its forge told it: all names, and those contents that were asked for so far.

Rule: what is not known is never guessed. A question for it ends the plan with `Missing`, which says what to ask the
forge for; then the plan is made again from the beginning, with the answers.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from deltaci.forge.api import RemoteEntry
from deltaci.forge.local import SUBMODULE, Change, MirrorError, MirrorLimits, TreeEntry
from deltaci.planner.repository import Files


class Missing(Exception):
    """The contents of these files of a commit, each of at most `bytes_max`, are needed to go on."""

    def __init__(self, commit_sha: str, paths: Sequence[str], bytes_max: int) -> None:
        super().__init__(f"{len(paths)} files of commit {commit_sha}")
        self.commit_sha = commit_sha
        self.paths = tuple(paths)
        self.bytes_max = bytes_max


class RemoteView:
    """The files of one commit, or of a part of it."""

    def __init__(
        self,
        commit_sha: str,
        entries: Iterable[RemoteEntry],
        blobs: Mapping[str, bytes],
        *,
        place: str,
        limits: MirrorLimits,
    ) -> None:
        """`blobs`: contents by object id; `place`: what the repository is remembered by."""
        self.commit_sha: Final = commit_sha
        self.place: Final = place
        self._entries = {entry.path: entry for entry in entries}
        self._blobs = blobs
        self._limits = limits

    def entries(self) -> tuple[TreeEntry, ...]:
        """Every file, symlink and submodule."""
        return tuple(map(_entry, self._entries.values()))

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of the files and symlinks among `paths`; what is not there, and submodules, are left out.

        Raises:
            Missing: the forge did not tell all of them; contents have a size.
        """
        found, unknown = {}, []
        for path in paths:
            entry = self._entries.get(path)
            if entry is None or entry.mode == SUBMODULE:
                continue
            if entry.size is not None:
                found[path] = entry.size
            elif entry.sha in self._blobs:
                found[path] = len(self._blobs[entry.sha])
            else:
                unknown.append(path)
        if unknown:
            raise Missing(self.commit_sha, unknown, self._limits.file_bytes_max)
        return found

    def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        """The contents of files; of a symlink, the path that it points to.

        Raises:
            Missing: not all of them are here yet.
            MirrorError: no such file, a submodule, or larger than `bytes_max`.
        """
        ceiling = self._limits.file_bytes_max
        limit = ceiling if bytes_max is None else min(bytes_max, ceiling)
        wanted = [self._at(path) for path in paths]
        missing = [entry.path for entry in wanted if entry.sha not in self._blobs]
        if missing:
            raise Missing(self.commit_sha, missing, limit)
        for entry in wanted:
            if len(self._blobs[entry.sha]) > limit:
                raise self._error(entry.path, f"it has more than {limit} bytes, which is the limit")
        return {entry.path: self._blobs[entry.sha] for entry in wanted}

    def changes_from(self, files: Files) -> tuple[Change, ...]:
        """What is different from the files of another commit, sorted by path."""
        before = {entry.path: (entry.mode, entry.sha) for entry in files.entries()}
        changed = (path for path, entry in self._entries.items() if before.get(path) != (entry.mode, entry.sha))
        gone = (path for path in before if path not in self._entries)
        return self.changes((*changed, *gone))

    def changes(self, paths: Iterable[str]) -> tuple[Change, ...]:
        """These paths as changes to what is there now, sorted."""
        now = ((path, self._entries.get(path)) for path in sorted(paths))
        return tuple(
            Change(path=path, kind="modified", entry=None if entry is None else _entry(entry)) for path, entry in now
        )

    def _at(self, path: str) -> RemoteEntry:
        entry = self._entries.get(path)
        if entry is None or entry.mode == SUBMODULE:
            raise self._error(path, "there is no such file")
        return entry

    def _error(self, path: str, why: str) -> MirrorError:
        return MirrorError(f"could not read {path!r} in commit {self.commit_sha}: {why}", repo_id=self.place)


def _entry(entry: RemoteEntry) -> TreeEntry:
    return TreeEntry(path=entry.path, mode=entry.mode, sha=entry.sha)
