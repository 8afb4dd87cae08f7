"""A repository view of a dictionary, for tests that need no git."""

import hashlib
from collections.abc import Iterable, Mapping

from deltaci.forge.local import Change, TreeEntry


class MemoryView:
    """Files by path; `modes` says which are not regular."""

    def __init__(
        self,
        files: Mapping[str, str | bytes],
        *,
        modes: Mapping[str, str] | None = None,
        commit_sha: str = "c" * 40,
    ) -> None:
        self.commit_sha = commit_sha
        self.contents = {path: text.encode() if isinstance(text, str) else text for path, text in files.items()}
        self.modes = modes or {}

    def entries(self) -> tuple[TreeEntry, ...]:
        return tuple(
            TreeEntry(
                path=path,
                mode=self.modes.get(path, "100644"),
                sha=hashlib.sha1(data).hexdigest(),
                size=len(data),
            )
            for path, data in self.contents.items()
        )

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        return {path: len(self.contents[path]) for path in paths if path in self.contents}

    def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        read = {path: self.contents[path] for path in paths}
        assert all(bytes_max is None or len(data) <= bytes_max for data in read.values())
        return read


def changed(*paths: str) -> tuple[Change, ...]:
    """A difference that modifies `paths`."""
    return tuple(Change(path=path, kind="modified") for path in paths)
