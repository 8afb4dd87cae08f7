"""The files of a work tree as they are now, committed or not: what a plan before the push is made of.

Rule 1: git tells names alone. It is not asked what changed: to answer, it would run the filters of the repository.
Rule 2: contents are read as they lie on disk, never through a symlink, and only of regular files. Where a filter or
a change of line ends would make them equal to what is committed, they count as changed: that runs more, not less.
"""

import hashlib
import os
import stat
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from deltaci.forge.git_now import run_git_now
from deltaci.forge.local import ENTRY_BYTES_MEAN_MAX, SUBMODULE, Change, LocalRepository, TreeEntry, last_line

# What is larger is known by its size and time of change, not by its contents.
HASHED_BYTES_MAX: Final = 64 * 1024 * 1024
_SHA1_DIGITS: Final = 40


class WorkingCopy:
    """A view of the work tree at `root`, tracked and new files that are not ignored, on top of the commit `head_sha`.

    It looks once, at the first question; what changes on disk afterwards is not seen, or seen in part.
    """

    def __init__(self, repository: LocalRepository, root: Path, head_sha: str) -> None:
        """Nothing is read yet. `repository` is the `.git` of the work tree."""
        repository.check_sha(head_sha)
        self.commit_sha: Final = head_sha
        self._repository = repository
        self._root = root
        self._found: dict[str, TreeEntry] | None = None
        self._on_disk: dict[str, str] = {}
        self._is_directory = lru_cache(maxsize=100_000)(self._is_real_directory)

    def entries(self) -> tuple[TreeEntry, ...]:
        """Every file, symlink and submodule. Raises MirrorError on more than `entries_max`."""
        return tuple(self._files().values())

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of the files and symlinks among `paths`; what is not there, and submodules, are left out."""
        found = ((path, self._files().get(path)) for path in paths)
        return {path: entry.size for path, entry in found if entry is not None and entry.mode != SUBMODULE}

    def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        """The contents of files; of a symlink, the path that it points to. Raises MirrorError."""
        limit = min(self._repository.limits.file_bytes_max, bytes_max or self._repository.limits.file_bytes_max)
        read = {}
        for path in paths:
            data = self._contents(self._on_disk[path], limit) if path in self._files() else None
            if data is None:
                raise self._repository.error(f"read {path!r} in the work tree", "there is no such file")
            if len(data) > limit:
                why = f"it has more than {limit} bytes, which is the limit"
                raise self._repository.error(f"read {path!r} in the work tree", why)
            read[path] = data
        return read

    def changes(self, base_sha: str) -> tuple[Change, ...]:
        """What is different from a commit, sorted by path."""
        base = {entry.path: entry for entry in self._repository.view(base_sha).entries()}
        now = self._files()
        changed = (path for path in base.keys() | now.keys() if _differs(base.get(path), now.get(path)))
        return tuple(Change(path=path, kind="modified", entry=now.get(path)) for path in sorted(changed))

    def _files(self) -> dict[str, TreeEntry]:
        if self._found is None:
            staged = dict(self._staged())
            names = [*staged, *(path for path in self._list("-o", "--exclude-standard") if not path.endswith("/"))]
            most = self._repository.limits.entries_max
            if len(names) > most:
                raise self._repository.error("list the work tree", f"it has more than {most} files (entries_max)")
            found = ((path, self._entry(path, staged.get(path))) for path in names)
            there = [(path, entry) for path, entry in found if entry is not None]
            self._on_disk = {entry.path: path for path, entry in there}
            self._found = {entry.path: entry for _, entry in there}
        return self._found

    def _staged(self) -> Iterable[tuple[str, TreeEntry]]:
        for record in self._list("-s"):
            head, _, path = record.partition("\t")
            mode, sha, _stage = head.split(" ")
            yield path, TreeEntry(path=path, mode=mode, sha=sha)

    def _list(self, *options: str) -> list[str]:
        """The records of `git ls-files`: it reads the index and directories, and runs nothing."""
        result = run_git_now(
            [f"--work-tree={self._root}", "ls-files", "-z", "--full-name", *options],
            git_dir=self._repository.directory,
            cwd=self._root,
            timeout_ms=self._repository.limits.read_ms,
            output_bytes_max=max(1024 * 1024, self._repository.limits.entries_max * ENTRY_BYTES_MEAN_MAX),
        )
        if result.exit_code != 0:
            raise self._repository.error(f"list the files in {self._root}", last_line(result.stderr))
        return [os.fsdecode(record) for record in result.stdout.split(b"\0") if record]

    def _entry(self, path: str, staged: TreeEntry | None) -> TreeEntry | None:
        """What is at `path`, None if nothing that git would track is. Its name is shown as of a commit."""
        shown = os.fsencode(path).decode("utf-8", "backslashreplace")
        if staged is not None and staged.mode == SUBMODULE:
            return TreeEntry(path=shown, mode=SUBMODULE, sha=staged.sha)
        status = self._status(path)
        if status is None or not (stat.S_ISREG(status.st_mode) or stat.S_ISLNK(status.st_mode)):
            return None
        mode = "120000" if stat.S_ISLNK(status.st_mode) else "100755" if status.st_mode & stat.S_IXUSR else "100644"
        if status.st_size > HASHED_BYTES_MAX:
            return TreeEntry(
                path=shown, mode=mode, sha=f"{status.st_size:020x}{status.st_mtime_ns:020x}", size=status.st_size
            )
        data = self._contents(path, HASHED_BYTES_MAX)
        if data is None:
            return None
        kind = hashlib.sha1 if len(self.commit_sha) == _SHA1_DIGITS else hashlib.sha256
        sha = kind(b"blob %d\0" % len(data), usedforsecurity=False)
        sha.update(data)
        return TreeEntry(path=shown, mode=mode, sha=sha.hexdigest(), size=len(data))

    def _contents(self, path: str, bytes_max: int) -> bytes | None:
        """At most a byte more than `bytes_max`; None if there is nothing to read, or no longer."""
        status = self._status(path)
        if status is None:
            return None
        place = self._root / path
        try:
            if stat.S_ISLNK(status.st_mode):
                return os.fsencode(os.readlink(place))
            descriptor = os.open(place, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            return file.read(bytes_max + 1) if stat.S_ISREG(os.fstat(descriptor).st_mode) else None

    def _status(self, path: str) -> os.stat_result | None:
        """Of what is at `path` itself, if all above it are directories of this work tree and no links out of it."""
        if not self._is_directory(path.rpartition("/")[0]):
            return None
        try:
            return os.lstat(self._root / path)
        except OSError:
            return None

    def _is_real_directory(self, path: str) -> bool:
        if not path:
            return True
        try:
            is_directory = stat.S_ISDIR(os.lstat(self._root / path).st_mode)
        except OSError:
            return False
        return is_directory and self._is_directory(path.rpartition("/")[0])


def _differs(one: TreeEntry | None, other: TreeEntry | None) -> bool:
    return one is None or other is None or (one.mode, one.sha) != (other.mode, other.sha)
