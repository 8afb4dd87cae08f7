"""Planning without a clone: what the API of a forge tells of a commit, and of the one that it is compared with.

Rule 1: an answer that was cut off, that is late, or whose bytes are not those of its object id, is no answer.
Rule 2: where there is no answer, `NotTold` or `Told.lacking` says what was asked: the caller reads a clone instead.
Rule 3: nothing here decides what runs; a plan made of a commit's API and one made of its clone are equal.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

import anyio
import msgspec

from deltaci.domain.errors import ForgeError
from deltaci.domain.repo import Repo
from deltaci.forge.api import ForgeApi, RemoteEntry
from deltaci.planner.bounds import Bounds
from deltaci.planner.difference import CONFIGURATION_NAMES, no_base, rewritten, too_many_changes
from deltaci.planner.messages import REQUEST_BYTES_MAX, Remote, Wants

# A request to the process that plans has room for two lists and all contents, with some to spare: 190,000 usual names.
LIST_BYTES_MAX: Final = REQUEST_BYTES_MAX // 4
_BYTES_AN_ENTRY: Final = 110
_DIRECTORY: Final = frozenset({"40000", "040000"})
# How decoders show what is not UTF-8; a clone shows the bytes.
_UNREADABLE: Final = re.compile("[\ufffd\ud800-\udfff]")
_SHA1_DIGITS: Final = 40
_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?", re.ASCII)


class NotTold(Exception):
    """The API does not tell what a plan takes; the text says what, for people."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a plan is for. `base_sha` is as the trigger has it: it may be None or zeros."""

    commit_sha: str
    base_sha: str | None
    is_pull_request: bool
    is_trusted: bool


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """The files of a commit, and the difference as far as it is known.

    `start_sha`: the commit to compare with; `unknown_because`: why there is no difference, as a clone would say too;
    `lacking`: what the API did not tell and a clone might. `base`: the files of the trigger's base, asked for if the
    configuration is taken from there.
    """

    files: Mapping[str, RemoteEntry]
    start_sha: str | None = None
    start_files: Mapping[str, RemoteEntry] = {}
    unknown_because: str | None = None
    base: Mapping[str, RemoteEntry] | None = None
    lacking: str = ""

    def remote(self, changes_max: int) -> tuple[Remote, str | None]:
        """It as the process that plans takes it, and why there is no difference."""
        unknown_because = self.unknown_because
        changed: tuple[str, ...] | None = None
        if self.start_sha is not None:
            changed = differing(self.start_files, self.files)
            if len(changed) > changes_max:
                changed, unknown_because = None, too_many_changes(changes_max)
        before = (self.start_files.get(path) for path in changed or ())
        remote = Remote(
            entries=tuple(self.files.values()),
            changed=changed,
            base_entries=tuple(entry for entry in before if entry is not None),
            configuration_entries=tuple(entry for path, entry in (self.base or {}).items() if _may_configure(path)),
        )
        return remote, unknown_because


def differing(before: Mapping[str, RemoteEntry], after: Mapping[str, RemoteEntry]) -> tuple[str, ...]:
    """The paths at which two commits differ in contents, mode or presence, sorted."""
    return tuple(sorted(path for path in before.keys() | after.keys() if _key(before, path) != _key(after, path)))


def _key(files: Mapping[str, RemoteEntry], path: str) -> tuple[str, str] | None:
    entry = files.get(path)
    return None if entry is None else (entry.mode, entry.sha)


class AtForge(msgspec.Struct, frozen=True):
    """A repository whose forge has an API."""

    api: ForgeApi
    repo: Repo


class Reading:
    """What is asked of a forge for one plan, within what one plan may ask."""

    def __init__(self, at: AtForge, asked: Asked, bounds: Bounds) -> None:
        """Nobody is asked yet."""
        self._api = at.api
        self._repo = at.repo
        self._asked = asked
        self._bounds = bounds
        self._left_s = bounds.api_ms / 1000
        self._files_left = bounds.api_files_max
        self._bytes_left = min(bounds.api_bytes_max, REQUEST_BYTES_MAX // 4)
        self.told = Told(files={})

    async def tell(self) -> Told:
        """The commit's files, and the difference. Raises NotTold if not even the files are known."""
        lacking = ""
        try:
            with self._in_time():
                self.told = Told(files=await self._tree(self._asked.commit_sha))
                await self._tell_base()
        except NotTold as error:
            lacking = str(error)
        if lacking and not self.told.files:
            raise NotTold(lacking)
        self.told = msgspec.structs.replace(self.told, lacking=lacking)
        return self.told

    async def read(self, wants: Wants) -> dict[str, bytes]:
        """The contents of what the process that plans wants, by object id: all of it.

        Raises:
            NotTold: not all of it was told in time, or it is more than is read through an API.
        """
        told, asked = self.told, self._asked
        known = {asked.base_sha: told.base, told.start_sha: told.start_files, asked.commit_sha: told.files}
        files = known.get(wants.commit_sha) or {}
        entries = [files[path] for path in wants.paths if path in files]
        if len(entries) != len(wants.paths):
            raise NotTold("files are to be read that it does not know of")
        self._files_left -= len(entries)
        if self._files_left < 0:
            raise NotTold(f"more than {self._bounds.api_files_max} files would be read (setting planner.api_files_max)")
        self._count_bytes(entry.size or 0 for entry in entries)
        with self._in_time():
            read = await self._api.read_files(self._repo, wants.commit_sha, wants.paths, bytes_max=wants.bytes_max)
        self._count_bytes(len(read.get(entry.path, b"")) for entry in entries if entry.size is None)
        for entry in entries:
            if entry.path not in read:
                raise NotTold(f"the forge does not give all files of commit {wants.commit_sha}")
            if object_id(read[entry.path], entry.sha) != entry.sha:
                raise NotTold(f"the forge gives other bytes than were committed in {wants.commit_sha}")
        return {entry.sha: read[entry.path] for entry in entries}

    async def _tell_base(self) -> None:
        """Raises NotTold; what was told until then is kept."""
        asked, base_sha, why = self._asked, self._asked.base_sha, no_base(self._asked.base_sha)
        if base_sha is None or why is not None:
            self.told = msgspec.structs.replace(self.told, unknown_because=why)
            return
        if _SHA.fullmatch(base_sha) is None:
            raise NotTold("the base is not named by the id of a commit")
        if not asked.is_trusted:
            self.told = msgspec.structs.replace(self.told, base=await self._tree(base_sha))
        start = await self._api.merge_base(self._repo, base_sha, asked.commit_sha)
        if start is None:
            raise NotTold(f"the forge knows no merge base of {base_sha} and {asked.commit_sha}")
        if not asked.is_pull_request and start != base_sha:
            self.told = msgspec.structs.replace(self.told, unknown_because=rewritten(base_sha, asked.commit_sha))
            return
        known = {asked.commit_sha: self.told.files, base_sha: self.told.base}
        files = known.get(start) or await self._tree(start)
        self.told = msgspec.structs.replace(self.told, start_sha=start, start_files=files)

    async def _tree(self, commit_sha: str) -> Mapping[str, RemoteEntry]:
        tree = await self._api.tree(self._repo, commit_sha)
        if tree.entries is None:
            raise NotTold(f"the forge does not list all files of commit {commit_sha} ({tree.unknown_because})")
        if len(tree.entries) > self._bounds.entries_max:
            raise NotTold(f"commit {commit_sha} has more than {self._bounds.entries_max} files")
        found = {entry.path: _canonical(entry) for entry in tree.entries if entry.mode not in _DIRECTORY}
        if sum(len(path.encode("utf-8", "replace")) + _BYTES_AN_ENTRY for path in found) > LIST_BYTES_MAX:
            raise NotTold(f"the names of the {len(found)} files of commit {commit_sha} are too long for one list")
        if not all(map(_is_exact, found)):
            raise NotTold(f"commit {commit_sha} has names that are not UTF-8")
        return found

    def _count_bytes(self, sizes: Iterable[int]) -> None:
        self._bytes_left -= sum(sizes)
        if self._bytes_left < 0:
            raise NotTold(f"more than {self._bounds.api_bytes_max} bytes would be read (setting planner.api_bytes_max)")

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        began_at_s = anyio.current_time()
        try:
            with anyio.fail_after(self._left_s):
                yield
        except ForgeError as error:
            raise NotTold(f"the forge did not answer: {error}") from error
        except TimeoutError as error:
            raise NotTold(f"the forge took longer than {self._bounds.api_ms} ms (setting planner.api_ms)") from error
        finally:
            self._left_s -= anyio.current_time() - began_at_s


def object_id(data: bytes, like: str) -> str:
    """The id that git gives to a file of these bytes, in the kind of hash that `like` is."""
    kind = hashlib.sha1 if len(like) == _SHA1_DIGITS else hashlib.sha256
    whole = kind(b"blob %d\0" % len(data), usedforsecurity=False)
    whole.update(data)
    return whole.hexdigest()


def _may_configure(path: str) -> bool:
    """Whether it is at, or below, a name that a configuration may have."""
    return path.partition("/")[0] in CONFIGURATION_NAMES


def _canonical(entry: RemoteEntry) -> RemoteEntry:
    """As `git ls-tree` shows it: old commits have files of modes that git takes for one of two."""
    if not entry.mode.startswith("100") or entry.mode in ("100644", "100755"):
        return entry
    return msgspec.structs.replace(entry, mode="100755" if entry.mode[3] in "1357" else "100644")


def _is_exact(path: str) -> bool:
    return path.isascii() or _UNREADABLE.search(path) is None
