"""The committed files of a repository on this disk, read by short git processes: listed, compared, read by object id.

Rule 1: nothing is ever checked out, executed or fetched; contents are the bytes that were committed.
Rule 2: how much is read is bounded, and what is more than the bound is said with the name of the setting.
It is synchronous, for the process that plans: the loop of the server waits for no disk.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

from deltaci.domain.errors import ForgeError
from deltaci.forge.git_command import GitError, GitOutputTooLarge, GitResult
from deltaci.forge.git_now import run_git_now
from deltaci.forge.left_out import NoteInvalid, read_note, why_damaged

ChangeKind: TypeAlias = Literal["added", "modified", "deleted", "renamed", "type_changed"]

ENTRY_BYTES_MEAN_MAX: Final = 256
SUBMODULE: Final = "160000"
_ABSENT: Final = "000000"
# Names of files on one command line, far below what systems accept.
_NAMES_AT_ONCE: Final = 500
_SHA: Final = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
_OUT_OF_MEMORY: Final = re.compile(r"out of memory|cannot allocate memory|mmap failed", re.IGNORECASE)
# Of what is not there git says just that; of what is there and cannot be read it complains.
_COMPLAINT: Final = re.compile(r"^(?:error|fatal): ", re.MULTILINE)
_SIGKILL: Final = -9
_KINDS: Final[Mapping[str, ChangeKind]] = {"A": "added", "M": "modified", "D": "deleted", "T": "type_changed"}


class MirrorError(ForgeError):
    """A repository could not be read; the text says what was asked, of which repository, and what to do."""

    code = "mirror"

    def __init__(self, text: str, *, repo_id: str) -> None:
        super().__init__(text, repo_id=repo_id)
        self.repo_id = repo_id


class MirrorUnavailable(MirrorError):
    """The same call may succeed later, with nothing changed by anybody: the network failed, or a time limit ran out."""

    code = "mirror_unavailable"
    is_retryable = True


class MirrorDamaged(MirrorUnavailable):
    """Objects of a commit are not here though the commit is: the mirror has to be fetched anew."""

    code = "mirror_damaged"


class MirrorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a repository is fetched and read. Times are milliseconds, sizes bytes.

    `fetch_bytes_max`: the pack that one fetch may bring; `is_partial`: files larger than `file_bytes_max` are left out
    of it, where the remote can do that; `contents_bytes_max`: all contents read for one plan.
    """

    fetch_ms: int = 600_000
    fetch_bytes_max: int = 8 * 1024**3
    is_partial: bool = True
    read_ms: int = 60_000
    entries_max: int = 1_000_000
    changes_max: int = 50_000
    file_bytes_max: int = 8 * 1024 * 1024
    contents_bytes_max: int = 256 * 1024 * 1024


class TreeEntry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One file of a commit. `mode` is git's (`100644`, `100755`, `120000` symlink, `160000` submodule).

    `path` is UTF-8; bytes that are not are shown as `\\xNN`. `size` is in bytes, 0 for a submodule and where nobody
    asked for it.
    """

    path: str
    mode: str
    sha: str
    size: int = 0


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One changed file between two commits. `entry` is what is there now, if anything is.

    A renamed file is one that is deleted and one that is added; who has it as one gives both `old_path` and `path`.
    """

    path: str
    kind: ChangeKind
    old_path: str | None = None
    entry: TreeEntry | None = None


class Listing(msgspec.Struct, frozen=True):
    """All files of a commit in git's order. `is_exact` unless a name is not UTF-8: two such names may look the same."""

    entries: tuple[TreeEntry, ...]
    is_exact: bool


class LocalRepository:
    """A bare repository, or the `.git` of a working copy. Safe beside fetches into it."""

    def __init__(self, directory: Path, *, repo_id: str, limits: MirrorLimits | None = None) -> None:
        """Nothing is read yet."""
        self.directory: Final = directory
        self.repo_id: Final = repo_id
        self.limits: Final = limits or MirrorLimits()
        self._diffs: dict[tuple[str, str], tuple[Change, ...] | None] = {}

    def error(self, asked: str, why: str, *, kind: type[MirrorError] = MirrorError) -> MirrorError:
        """An error of this repository: could not do `asked`, because `why`."""
        return kind(f"could not {asked} of repository {self.repo_id}: {why}", repo_id=self.repo_id)

    def damaged(self, asked: str, why: str) -> MirrorError:
        """Objects are missing that a commit has."""
        return self.error(asked, f"the mirror is damaged ({why}) and will be fetched anew", kind=MirrorDamaged)

    def view(self, commit_sha: str, only: Sequence[str] | None = None) -> "CommitView":
        """The files of a commit, or those at or below the paths `only`; nothing is read before it is asked for.

        Raises:
            MirrorError: a malformed sha.
        """
        self.check_sha(commit_sha)
        return CommitView(self, commit_sha, only)

    def listing(self, commit_sha: str, only: Sequence[str] = ()) -> Listing:
        """The files of a commit, or those at or below the paths `only`, without their sizes.

        Raises:
            MirrorError: more than `entries_max` files.
            MirrorDamaged: not all of the commit is here.
        """
        self.check_sha(commit_sha)
        asked = f"list the files in commit {commit_sha}"
        most = self.limits.entries_max
        too_many = self.error(asked, f"it has more than {most} files, or their names are too long (entries_max)")
        try:
            result = self._run(
                ["ls-tree", "-r", "-z", "--full-tree", "--end-of-options", commit_sha, *only],
                asked,
                output_bytes_max=max(1024 * 1024, most * ENTRY_BYTES_MEAN_MAX),
            )
        except GitOutputTooLarge as error:
            raise too_many from error
        if result.exit_code != 0:
            raise self.damaged(asked, last_line(result.stderr))
        if result.stdout.count(b"\0") > most:
            raise too_many
        return _listing(result.stdout)

    def sizes(self, shas: Iterable[str]) -> dict[str, int]:
        """Bytes of blobs by id, without reading them; of one that was left out, the fewest that it can have.

        Those are more than `file_bytes_max`. Raises MirrorDamaged if one is missing for another reason.
        """
        wanted = list(dict.fromkeys(shas))
        if not wanted:
            return {}
        asked = f"measure {len(wanted)} files"
        result = self._succeed(
            ["cat-file", "--batch-check", "--buffer"],
            asked,
            stdin="".join(f"{sha}\n" for sha in wanted).encode(),
            output_bytes_max=256 * len(wanted),
        )
        found: dict[str, int] = {}
        missing: list[str] = []
        for line in result.stdout.decode("ascii", "replace").splitlines():
            fields = line.split(" ")
            if len(fields) == 3 and fields[1] == "blob":
                found[fields[0]] = int(fields[2])
            elif fields[1:] == ["missing"] and not _COMPLAINT.search(result.stderr):
                missing.append(fields[0])
            else:
                raise self.damaged(asked, line)
        if missing:
            found.update(dict.fromkeys(missing, self._left_out(asked, missing)))
        return found

    def _left_out(self, asked: str, missing: Sequence[str]) -> int:
        """The fewest bytes that blobs have which no fetch asked for. Raises MirrorDamaged if these are not such."""
        try:
            note = read_note(self.directory)
            why = f"{missing[0]} missing" if note is None else why_damaged(self.directory, note, missing)
        except (NoteInvalid, OSError) as error:
            raise self.damaged(asked, str(error)) from error
        if note is None or why is not None:
            raise self.damaged(asked, why or "")
        if note.bytes_min <= self.limits.file_bytes_max:
            raise self.damaged(asked, f"files of {note.bytes_min} bytes and more were left out")
        return note.bytes_min

    def read_blobs(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """The contents of blobs by id; `sizes` are what `sizes` told. Raises as `sizes`, and on too much in all."""
        if not sizes:
            return {}
        asked = f"read {len(sizes)} files"
        total, most = sum(sizes.values()), self.limits.contents_bytes_max
        if total > most:
            raise self.error(asked, f"they have {total} bytes in all, at most {most} are read for one plan")
        result = self._succeed(
            ["cat-file", "--batch", "--buffer"],
            asked,
            stdin="".join(f"{sha}\n" for sha in sizes).encode(),
            output_bytes_max=total + 256 * len(sizes),
        )
        blobs: dict[str, bytes] = {}
        data, position = result.stdout, 0
        while position < len(data):
            end = data.index(b"\n", position)
            header = data[position:end].decode("ascii", "replace").split(" ")
            if len(header) != 3 or header[1] != "blob":
                raise self.damaged(asked, " ".join(header))
            size = int(header[2])
            blobs[header[0]] = data[end + 1 : end + 1 + size]
            position = end + 1 + size + 1
        return blobs

    def has(self, commit_sha: str) -> bool:
        """Whether the commit is here. Raises MirrorError on a malformed sha."""
        self.check_sha(commit_sha)
        return self._run(["cat-file", "-e", f"{commit_sha}^{{commit}}"], f"look for {commit_sha}").exit_code == 0

    def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor of two commits, or None if one is not here or they have no history in common."""
        self.check_sha(one)
        self.check_sha(other)
        result = self._run(["merge-base", "--end-of-options", one, other], f"find the merge base of {one} and {other}")
        if result.exit_code != 0:
            return None
        # Criss-cross merges have several best ancestors; git prints the first, and the same one each time.
        sha = result.stdout.decode("ascii", "replace").split("\n", 1)[0]
        self.check_sha(sha)
        return sha

    def diff(self, base_sha: str | None, head_sha: str) -> tuple[Change, ...] | None:
        """What changed from `base_sha` to `head_sha`, sorted by path; None means unknown, which is not "nothing".

        Unknown is: no base, a base that is not here, or more than `changes_max` changed files. No content is looked
        at: whether a file that came is one that went decides nothing, and finding out would read both.

        Raises:
            MirrorError: malformed sha, or git failed on commits that are here.
        """
        self.check_sha(head_sha)
        if base_sha is None or not self.has(base_sha):
            return None
        return self.diff_of_known(base_sha, head_sha)

    def diff_of_known(self, base_sha: str, head_sha: str) -> tuple[Change, ...] | None:
        """As `diff`, of commits that are known to be here; asked again, it is not computed again."""
        key = (base_sha, head_sha)
        if key not in self._diffs:
            self._diffs[key] = self._diff(base_sha, head_sha)
        return self._diffs[key]

    def _diff(self, base_sha: str, head_sha: str) -> tuple[Change, ...] | None:
        self.check_sha(base_sha)
        self.check_sha(head_sha)
        most = self.limits.changes_max
        try:
            result = self._succeed(
                [
                    *("diff-tree", "-r", "-z", "--raw", "--no-abbrev", "--no-renames", "--no-textconv"),
                    *("--no-ext-diff", "--ignore-submodules=none", "--end-of-options", base_sha, head_sha, "--"),
                ],
                f"compare {base_sha} with {head_sha}",
                output_bytes_max=max(1024 * 1024, most * 2 * ENTRY_BYTES_MEAN_MAX),
            )
        except GitOutputTooLarge:
            return None
        changes = _changes(result.stdout)
        return changes if len(changes) <= most else None

    def _succeed(
        self, arguments: list[str], asked: str, *, stdin: bytes = b"", output_bytes_max: int = 1024 * 1024
    ) -> GitResult:
        result = self._run(arguments, asked, stdin=stdin, output_bytes_max=output_bytes_max)
        if result.exit_code != 0:
            # Not the commit's fault: no space, no descriptors.
            why = f"git {arguments[0]} exited with {result.exit_code}: {last_line(result.stderr)}"
            raise self.error(asked, why, kind=MirrorUnavailable)
        return result

    def _run(
        self, arguments: list[str], asked: str, *, stdin: bytes = b"", output_bytes_max: int = 1024 * 1024
    ) -> GitResult:
        """Raises GitOutputTooLarge, MirrorUnavailable, and MemoryError when git had too little of it."""
        try:
            result = run_git_now(
                arguments,
                git_dir=self.directory,
                cwd=self.directory,
                timeout_ms=self.limits.read_ms,
                output_bytes_max=output_bytes_max,
                stdin=stdin,
            )
        except GitOutputTooLarge:
            raise
        except GitError as error:
            raise self.error(asked, str(error), kind=MirrorUnavailable) from error
        if result.exit_code == _SIGKILL or (result.exit_code != 0 and _OUT_OF_MEMORY.search(result.stderr)):
            raise MemoryError(f"git {arguments[0]}: {last_line(result.stderr)}")
        return result

    def check_sha(self, sha: str) -> None:
        """Raise MirrorError unless `sha` can only be the id of an object."""
        if not _SHA.fullmatch(sha):
            raise self.error(f"use {sha!r} as a commit", "a commit is named by 40 (or 64) lower-case hex digits")


class CommitView:
    """The files of one commit, or of a part of it. Never changes, like the commit; contents are read on demand."""

    def __init__(self, repository: LocalRepository, commit_sha: str, only: Sequence[str] | None = None) -> None:
        self.commit_sha: Final = commit_sha
        self.repository: Final = repository
        self._only = only
        self._listing: Listing | None = None
        self._found: dict[str, TreeEntry] = {}

    @property
    def is_listed(self) -> bool:
        """Whether all its entries were asked for."""
        return self._listing is not None

    @property
    def is_exact(self) -> bool:
        """Whether every name is one in UTF-8."""
        return self._list().is_exact

    def entries(self) -> tuple[TreeEntry, ...]:
        """Every file, symlink and submodule, in git's order."""
        return self._list().entries

    def adopt(self, found: Iterable[TreeEntry]) -> None:
        """What is at some paths of this commit, as somebody knows already: they are not looked up again."""
        self._found.update((entry.path, entry) for entry in found)

    def entry(self, path: str) -> TreeEntry | None:
        """The file at `path`, relative to the root of the repository, or None."""
        return self._at((path,)).get(path)

    def sizes(self, paths: Iterable[str]) -> dict[str, int]:
        """Bytes of the files and symlinks among `paths`; what is not there, and submodules, are left out."""
        entries = {path: entry for path, entry in self._at(paths).items() if entry.mode != SUBMODULE}
        sizes = self.repository.sizes(entry.sha for entry in entries.values())
        return {path: sizes[entry.sha] for path, entry in entries.items()}

    def read(self, path: str, *, bytes_max: int | None = None) -> bytes:
        """The committed bytes of one file; of a symlink, the path that it points to.

        Raises:
            MirrorError: no such file, a submodule, or larger than `bytes_max` (default: `file_bytes_max`).
        """
        return self.read_many((path,), bytes_max=bytes_max)[path]

    def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        """The committed bytes of several files; `bytes_max` holds for each. Raises as `read`."""
        ceiling = self.repository.limits.file_bytes_max
        limit = ceiling if bytes_max is None else min(bytes_max, ceiling)
        wanted = list(paths)
        sizes, entries = self.sizes(wanted), self._at(wanted)
        for path in wanted:
            asked = f"read {path!r} in commit {self.commit_sha}"
            if path not in sizes:
                raise self.repository.error(asked, "there is no such file")
            if sizes[path] > limit:
                # Not how many: of what was left out nobody knows, and a plan must not tell which mirror it is made of.
                raise self.repository.error(asked, f"it has more than {limit} bytes, which is the limit")
        blobs = self.repository.read_blobs({entries[path].sha: sizes[path] for path in wanted})
        return {path: blobs[entries[path].sha] for path in wanted}

    def _list(self) -> Listing:
        if self._listing is None:
            self._listing = self.repository.listing(self.commit_sha, self._only or ())
            self.adopt(self._listing.entries)
        return self._listing

    def _at(self, paths: Iterable[str]) -> dict[str, TreeEntry]:
        wanted = list(paths)
        if self._listing is None:
            unknown = [path for path in wanted if path not in self._found and _is_plain(path)]
            for start in range(0, len(unknown), _NAMES_AT_ONCE):
                some = unknown[start : start + _NAMES_AT_ONCE]
                self.adopt(self.repository.listing(self.commit_sha, some).entries)
        return {path: self._found[path] for path in wanted if path in self._found}


def last_line(text: str) -> str:
    """What git complains of most, for people."""
    lines = [line for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or ["git said nothing"])[0][:500]


def _is_plain(path: str) -> bool:
    """Whether `ls-tree` takes `path` for the name of a file: it refuses names that lead out of the repository."""
    return bool(path) and not path.startswith("/") and ".." not in path.split("/") and "\0" not in path


def _decoded(data: bytes) -> tuple[str, bool]:
    try:
        return data.decode(), True
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace"), False


def _listing(data: bytes) -> Listing:
    """Parse `<mode> SP <type> SP <object> TAB <path> NUL`, repeated."""
    text, is_exact = _decoded(data)
    modes: dict[str, str] = {}
    entries = []
    for record in text.split("\0"):
        if record:
            head, _, path = record.partition("\t")
            mode, _kind, sha = head.split(" ")
            entries.append(TreeEntry(path=path, mode=modes.setdefault(mode, mode), sha=sha))
    return Listing(tuple(entries), is_exact)


def _changes(data: bytes) -> tuple[Change, ...]:
    """Parse `:<old mode> <mode> <old object> <object> <status> NUL <path> NUL`, repeated."""
    fields = _decoded(data)[0].split("\0")
    changes = []
    for head, path in zip(fields[0:-1:2], fields[1::2], strict=True):
        _old_mode, mode, _old_sha, sha, status = head.split(" ")
        entry = None if mode == _ABSENT else TreeEntry(path=path, mode=mode, sha=sha)
        # An unmerged or unknown letter cannot come out of two trees; should it, a change is the safe reading.
        changes.append(Change(path=path, kind=_KINDS.get(status[:1], "modified"), entry=entry))
    return tuple(sorted(changes, key=lambda change: change.path))
