"""Bare mirrors of repositories below the data directory: how the planner sees files and differences.

Rule 1: nothing is ever checked out or executed; contents are read by object id, as the bytes that were committed.
Rule 2: whatever comes from outside (URL, ref, commit) is checked before git sees it, and every command is bounded.
One process owns a mirror directory; several nodes keep mirrors of their own.
"""

import base64
import hashlib
import re
import shutil
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import msgspec

from deltaci.domain.errors import ForgeError
from deltaci.forge.git_command import DEFAULT_PROTOCOLS, GitError, GitOutputTooLarge, GitResult, GitTimedOut, run_git

ChangeKind: TypeAlias = Literal["added", "modified", "deleted", "renamed", "type_changed"]

ENTRY_BYTES_MEAN_MAX: Final = 512
RENAMES_MAX: Final = 400
_LACKS_BLOB: Final = b" BAD\t"  # where ls-tree shows the size of a file that is not here
_SHA: Final = re.compile(r"(?:[0-9a-f]{40}|[0-9a-f]{64})", re.ASCII)
_REF_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_SCP_LIKE: Final = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9][\w.-]*:[^\s:-][^\s]*", re.ASCII)
_KINDS: Final[Mapping[str, ChangeKind]] = {
    "A": "added",
    "C": "added",
    "M": "modified",
    "D": "deleted",
    "R": "renamed",
    "T": "type_changed",
}


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


class MirrorLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a repository is read. Times are milliseconds, sizes bytes."""

    fetch_ms: int = 600_000
    read_ms: int = 60_000
    entries_max: int = 200_000
    changes_max: int = 50_000
    file_bytes_max: int = 4 * 1024 * 1024


class TreeEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One file of a commit. `mode` is git's (`100644`, `100755`, `120000` symlink, `160000` submodule).

    `path` is UTF-8; bytes that are not are shown as `\\xNN`. `size` is in bytes, 0 for a submodule.
    """

    path: str
    mode: str
    sha: str
    size: int


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One changed file between two commits; a rename changes both its paths, `old_path` and `path`."""

    path: str
    kind: ChangeKind
    old_path: str | None = None


class CommitView:
    """The files of one commit: entries at hand, contents on demand. Never changes, like the commit."""

    def __init__(self, mirror: "Mirror", commit_sha: str, entries: tuple[TreeEntry, ...]) -> None:
        self.commit_sha: Final = commit_sha
        self._mirror = mirror
        self._entries = entries
        self._by_path = {entry.path: entry for entry in entries}

    def entries(self) -> tuple[TreeEntry, ...]:
        """Every file, symlink and submodule of the commit, in git's order."""
        return self._entries

    def entry(self, path: str) -> TreeEntry | None:
        """The file at `path`, relative to the root of the repository, or None."""
        return self._by_path.get(path)

    def exists(self, path: str) -> bool:
        """Whether a file (not a directory) is at `path`."""
        return path in self._by_path

    async def read(self, path: str, *, bytes_max: int | None = None) -> bytes:
        """The committed bytes of one file; of a symlink, the path that it points to.

        Raises:
            MirrorError: no such file, a submodule, or larger than `bytes_max` (default: `file_bytes_max`).
        """
        return (await self.read_many((path,), bytes_max=bytes_max))[path]

    async def read_many(self, paths: Iterable[str], *, bytes_max: int | None = None) -> dict[str, bytes]:
        """The committed bytes of several files with one git process; `bytes_max` holds for each. Raises as `read`."""
        ceiling = self._mirror.limits.file_bytes_max
        limit = ceiling if bytes_max is None else min(bytes_max, ceiling)
        wanted: dict[str, TreeEntry] = {}
        for path in paths:
            entry = self._by_path.get(path)
            if entry is None or entry.mode == "160000":
                raise self._mirror.error(f"read {path!r} in commit {self.commit_sha}", "there is no such file")
            if entry.size > limit:
                raise self._mirror.error(
                    f"read {path!r} in commit {self.commit_sha}", f"it has {entry.size} bytes, the limit is {limit}"
                )
            wanted[path] = entry
        blobs = await self._mirror.read_blobs({entry.sha: entry.size for entry in wanted.values()})
        return {path: blobs[entry.sha] for path, entry in wanted.items()}


class Mirror:
    """A bare mirror of one repository, filled by fetching what is asked for.

    Concurrent calls are safe: fetches of one mirror wait for each other, reads do not wait.
    """

    def __init__(
        self,
        *,
        repo_id: str,
        clone_url: str,
        directory: Path,
        limits: MirrorLimits | None = None,
        protocols: str = DEFAULT_PROTOCOLS,
        authorization: str | None = None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            clone_url: `https://`, `ssh://`, `user@host:path`, `file://` or an absolute path; without a password.
            directory: of this mirror alone; made by the first `ensure`.
            protocols: git's allow-list of transports, colon separated.
            authorization: the value of the HTTP Authorization header for this host (see `basic_authorization`).
        Raises:
            MirrorError: the URL is not one that we would hand to git.
        """
        self.repo_id: Final = repo_id
        self.limits: Final = limits or MirrorLimits()
        self.directory: Final = directory
        self._protocols = protocols
        self._lock = anyio.Lock()
        self._is_open = False
        self.clone_url = _checked_url(clone_url, repo_id)
        self.authorization = authorization

    def error(self, asked: str, why: str, *, is_retryable: bool = False) -> MirrorError:
        """A `MirrorError` of this mirror: could not do `asked`, because `why`."""
        kind = MirrorUnavailable if is_retryable else MirrorError
        return kind(f"could not {asked} of repository {self.repo_id}: {why}", repo_id=self.repo_id)

    async def ensure(self, commit_sha: str, ref: str | None = None) -> None:
        """Have `commit_sha` and its history here, fetching only if it is missing.

        Tries `ref`, then the commit itself, then every branch and tag, then every pull request head: the branch may
        have moved on, or be gone, by the time we look.

        Raises:
            MirrorError: malformed sha or ref; the commit is nowhere to be found; no answer in time (retryable).
        """
        self._check_sha(commit_sha)
        if ref is not None:
            self._check_ref(ref)
        async with self._lock:
            await self._open()
            if await self.has(commit_sha):
                return
            said: list[str] = []
            asked = f"fetch commit {commit_sha}"
            try:
                with anyio.fail_after(self.limits.fetch_ms / 1000):
                    for refspecs in _attempts(commit_sha, ref):
                        result = await self._fetch(refspecs)
                        if result.exit_code == 0 and await self.has(commit_sha):
                            return
                        if result.exit_code != 0:
                            said.append(result.stderr)
            except (TimeoutError, GitTimedOut) as error:
                raise self.error(
                    asked, f"no answer from {self.clone_url} within {self.limits.fetch_ms} ms", is_retryable=True
                ) from error
        last = _last_line(said[-1]) if said else "the remote has no such commit any more"
        raise self.error(
            asked, f"{last}; check that {self.clone_url} is right and that we may read it", is_retryable=True
        )

    async def has(self, commit_sha: str) -> bool:
        """Whether the commit is here already. Raises MirrorError on a malformed sha."""
        self._check_sha(commit_sha)
        if not self._is_made():
            return False
        result = await self._git(["cat-file", "-e", f"{commit_sha}^{{commit}}"], f"look for commit {commit_sha}")
        return result.exit_code == 0

    async def view(self, commit_sha: str) -> CommitView:
        """The files of a commit that `ensure` brought here.

        Raises:
            MirrorError: the commit has more than `entries_max` files; or not all of it is here (retryable: then the
                mirror is removed, since everything in it can be had again).
        """
        self._check_sha(commit_sha)
        asked = f"list the files in commit {commit_sha}"
        result = await self._git(
            ["ls-tree", "-r", "-z", "-l", "--full-tree", "--end-of-options", commit_sha],
            asked,
            output_bytes_max=self.limits.entries_max * ENTRY_BYTES_MEAN_MAX,
        )
        if result.exit_code != 0 or _LACKS_BLOB in result.stdout:
            await self._discard()
            raise self.error(
                asked,
                f"the mirror is damaged ({_last_line(result.stderr)}) and will be fetched anew",
                is_retryable=True,
            )
        if result.stdout.count(b"\0") > self.limits.entries_max:
            raise self.error(asked, f"it has more than {self.limits.entries_max} files (setting entries_max)")
        # 200,000 entries take a good part of a second: not on the loop that answers heartbeats.
        return CommitView(self, commit_sha, await anyio.to_thread.run_sync(_entries, result.stdout))

    async def read_blobs(self, sizes: Mapping[str, int]) -> dict[str, bytes]:
        """The contents of blobs by id; `sizes` are what the tree told. Raises MirrorError if one is missing."""
        for sha in sizes:
            self._check_sha(sha)
        if not sizes:
            return {}
        asked = f"read {len(sizes)} files"
        result = await self._git(
            ["cat-file", "--batch"],
            asked,
            stdin="".join(f"{sha}\n" for sha in sizes).encode(),
            output_bytes_max=sum(sizes.values()) + 128 * len(sizes),
            must_succeed=True,
        )
        return self._blobs(result.stdout, asked)

    def _blobs(self, data: bytes, asked: str) -> dict[str, bytes]:
        """Parse `<sha> blob <size> LF <contents> LF`, repeated."""
        blobs: dict[str, bytes] = {}
        position = 0
        while position < len(data):
            end = data.index(b"\n", position)
            header = data[position:end].decode("ascii", "replace").split(" ")
            if len(header) != 3 or header[1] != "blob":
                raise self.error(
                    asked, f"git answered {' '.join(header)!r}; the mirror {self.directory} may be damaged"
                )
            size = int(header[2])
            blobs[header[0]] = data[end + 1 : end + 1 + size]
            position = end + 1 + size + 1
        return blobs

    async def merge_base(self, one: str, other: str) -> str | None:
        """The best common ancestor of two commits, or None if one is not here or they have no history in common."""
        self._check_sha(one)
        self._check_sha(other)
        if not (await self.has(one) and await self.has(other)):
            return None
        result = await self._git(
            ["merge-base", "--end-of-options", one, other], f"find the merge base of {one} and {other}"
        )
        if result.exit_code != 0:
            return None
        # Criss-cross merges have several best ancestors; git prints the first, and the same one each time.
        sha = result.stdout.decode("ascii", "replace").split("\n", 1)[0]
        self._check_sha(sha)
        return sha

    async def diff(self, base_sha: str | None, head_sha: str) -> tuple[Change, ...] | None:
        """What changed from `base_sha` to `head_sha`, sorted by path; None means unknown, which is not "nothing".

        Unknown is: no base, a base that is not here, or more than `changes_max` changed files.

        Raises:
            MirrorError: malformed sha, or git failed on commits that are here.
        """
        self._check_sha(head_sha)
        if base_sha is None or not await self.has(base_sha):
            return None
        result = await self._git(
            [
                *("diff-tree", "-r", "-z", "-M", f"-l{RENAMES_MAX}", "--name-status", "--no-textconv", "--no-ext-diff"),
                *("--ignore-submodules=none", "--end-of-options", base_sha, head_sha, "--"),
            ],
            f"compare {base_sha} with {head_sha}",
            output_bytes_max=2 * self.limits.entries_max * ENTRY_BYTES_MEAN_MAX,
            must_succeed=True,
        )
        changes = await anyio.to_thread.run_sync(_changes, result.stdout)
        return changes if len(changes) <= self.limits.changes_max else None

    async def compact(self) -> None:
        """Pack what many small fetches left behind; loses nothing. For a quiet hour: it may take minutes.

        Raises:
            MirrorError: git failed or took longer than `fetch_ms`; the mirror stays readable.
        """
        async with self._lock:
            if self._is_made():
                await self._git(
                    ["repack", "--geometric=2", "-d", "-l", "-q"],
                    "compact the mirror",
                    timeout_ms=self.limits.fetch_ms,
                    must_succeed=True,
                )

    async def _discard(self) -> None:
        async with self._lock:
            self._is_open = False
            await anyio.to_thread.run_sync(partial(shutil.rmtree, self.directory, ignore_errors=True))

    async def _open(self) -> None:
        """Make the bare repository if need be; under the lock, once for each life of this object."""
        if self._is_open:
            return
        await anyio.Path(self.directory).mkdir(parents=True, exist_ok=True)
        if not self._is_made():
            await self._git(
                ["init", "--bare", "--quiet", "--template=", "--", str(self.directory)],
                "make the mirror",
                git_dir=None,
                must_succeed=True,
            )
        # A crash in the middle of a fetch leaves locks that nobody holds, and every later fetch would fail on them.
        async for lock in anyio.Path(self.directory).glob("refs/**/*.lock"):
            await lock.unlink(missing_ok=True)
        await (anyio.Path(self.directory) / "packed-refs.lock").unlink(missing_ok=True)
        self._is_open = True

    def _is_made(self) -> bool:
        return (self.directory / "HEAD").is_file() and (self.directory / "objects").is_dir()

    async def _fetch(self, refspecs: tuple[str, ...]) -> GitResult:
        return await self._git(
            [
                *(
                    "fetch",
                    "--quiet",
                    "--force",
                    "--prune",
                    "--no-tags",
                    "--no-recurse-submodules",
                    "--no-write-fetch-head",
                ),
                *("--", self.clone_url, *refspecs),
            ],
            "fetch",
            timeout_ms=self.limits.fetch_ms,
            extra_environment=_header(self.clone_url, self.authorization),
        )

    async def _git(
        self,
        arguments: list[str],
        asked: str,
        *,
        git_dir: Path | Literal["mirror"] | None = "mirror",
        timeout_ms: int | None = None,
        output_bytes_max: int = 1024 * 1024,
        stdin: bytes = b"",
        extra_environment: Mapping[str, str] | None = None,
        must_succeed: bool = False,
    ) -> GitResult:
        try:
            result = await run_git(
                arguments,
                git_dir=self.directory if git_dir == "mirror" else git_dir,
                cwd=self.directory,
                timeout_ms=timeout_ms or self.limits.read_ms,
                output_bytes_max=output_bytes_max,
                stdin=stdin,
                protocols=self._protocols,
                extra_environment=extra_environment,
            )
        except GitOutputTooLarge as error:
            raise self.error(asked, str(error)) from error
        except GitError as error:
            raise self.error(asked, str(error), is_retryable=True) from error
        if must_succeed and result.exit_code != 0:
            # Not the commit's fault: no space, no descriptors, killed for the memory it took.
            why = f"git {arguments[0]} exited with {result.exit_code}: {_last_line(result.stderr)}"
            raise self.error(asked, why, is_retryable=True)
        return result

    def _check_sha(self, sha: str) -> None:
        if not _SHA.fullmatch(sha):
            raise self.error(f"use {sha!r} as a commit", "a commit is named by 40 (or 64) lower-case hex digits")

    def _check_ref(self, ref: str) -> None:
        is_plain = bool(ref) and len(ref) <= 1024 and ref[0] not in "-+/." and not ref.endswith(("/", "."))
        if not is_plain or ref == "@" or _REF_FORBIDDEN.search(ref):
            raise self.error(f"use {ref!r} as a ref", "give a plain name such as refs/heads/main")


class Mirrors:
    """All mirrors of one data directory: the same repository is always the same `Mirror`, so its fetches serialize."""

    def __init__(
        self, data_directory: Path, *, limits: MirrorLimits | None = None, protocols: str = DEFAULT_PROTOCOLS
    ) -> None:
        # Absolute: git runs inside a mirror, where a relative path would mean a place below that mirror.
        self._root = data_directory.absolute() / "mirrors"
        self._limits = limits
        self._protocols = protocols
        self._mirrors: dict[str, Mirror] = {}

    def of(self, *, repo_id: str, clone_url: str, authorization: str | None = None) -> Mirror:
        """The mirror of `repo_id`; a changed URL or authorization holds from the next fetch on.

        Raises:
            MirrorError: the URL is not one that we would hand to git.
        """
        mirror = self._mirrors.get(repo_id)
        if mirror is None:
            mirror = Mirror(
                repo_id=repo_id,
                clone_url=clone_url,
                directory=self._root / directory_name(repo_id),
                limits=self._limits,
                protocols=self._protocols,
                authorization=authorization,
            )
            self._mirrors[repo_id] = mirror
        mirror.clone_url = _checked_url(clone_url, repo_id)
        mirror.authorization = authorization
        return mirror


def directory_name(repo_id: str) -> str:
    """A file name of its own for each `repo_id`, whatever characters that has, still telling people which it is."""
    readable = re.sub(r"[^A-Za-z0-9]+", "-", repo_id).strip("-")[:40] or "repo"
    return f"{readable}-{hashlib.sha256(repo_id.encode('utf-8', 'surrogatepass')).hexdigest()[:16]}.git"


def basic_authorization(user: str, token: str) -> str:
    """The Authorization header value for `user` and `token`; GitHub takes `x-access-token`, GitLab `oauth2` as user."""
    return "Basic " + base64.b64encode(f"{user}:{token}".encode()).decode("ascii")


def _attempts(commit_sha: str, ref: str | None) -> Iterable[tuple[str, ...]]:
    if ref is not None:
        # A name of our own for each ref: `a` that became `a/b` would otherwise collide with its former self.
        yield (f"+{ref}:refs/delta/{hashlib.sha256(ref.encode()).hexdigest()[:40]}",)
    yield (f"+{commit_sha}:refs/delta/{commit_sha}",)
    yield ("+refs/heads/*:refs/remotes/heads/*", "+refs/tags/*:refs/remotes/tags/*")
    yield ("+refs/pull/*/head:refs/remotes/pull/*", "+refs/merge-requests/*/head:refs/remotes/merge-requests/*")


def _checked_url(url: str, repo_id: str) -> str:
    """Raise unless `url` can only mean a place to fetch from: no option, no remote helper, no password."""
    parts = urlsplit(url) if "://" in url else None
    if not url or url.startswith("-") or re.search(r"[\x00-\x20\x7f]", url):
        why = "it is empty, starts with '-' or has white space in it"
    elif parts is not None and parts.password is not None:
        why = "it carries a password, which would end up in logs; give it as authorization instead"
        url = f"{parts.scheme}://***@{parts.hostname or ''}{parts.path}"
    elif parts is not None and (parts.hostname or "").startswith("-"):
        why = "its host starts with '-'"
    elif parts is None and not url.startswith("/") and not _SCP_LIKE.fullmatch(url):
        why = "it is neither scheme://..., user@host:path nor an absolute path"
    else:
        return url
    raise MirrorError(f"could not use {url!r} as the clone URL of repository {repo_id}: {why}", repo_id=repo_id)


def _header(url: str, authorization: str | None) -> dict[str, str]:
    """Authorization through the environment, bound to the host: not in the arguments, not in a file, not elsewhere."""
    if authorization is None or not url.startswith(("https://", "http://")):
        return {}
    parts = urlsplit(url)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"http.{parts.scheme}://{parts.netloc}/.extraHeader",
        "GIT_CONFIG_VALUE_0": f"Authorization: {authorization}",
    }


def _path(raw: bytes) -> str:
    return raw.decode("utf-8", "backslashreplace")


def _entries(data: bytes) -> tuple[TreeEntry, ...]:
    """Parse `<mode> SP <type> SP <object> SP* <size> TAB <path> NUL`, repeated."""
    entries = []
    for record in data.split(b"\0")[:-1]:
        head, _, raw_path = record.partition(b"\t")
        mode, _kind, sha, size = head.split()
        entries.append(
            TreeEntry(path=_path(raw_path), mode=mode.decode(), sha=sha.decode(), size=0 if size == b"-" else int(size))
        )
    return tuple(entries)


def _changes(data: bytes) -> tuple[Change, ...]:
    """Parse `<status> NUL <path> NUL [<new path> NUL]`, repeated; renames and copies have two paths."""
    fields = iter(data.split(b"\0")[:-1])
    changes = []
    for status in fields:
        letter = status[:1].decode("ascii", "replace")
        first = _path(next(fields))
        if letter in "RC":
            second = _path(next(fields))
            changes.append(Change(path=second, kind=_KINDS[letter], old_path=first if letter == "R" else None))
        else:
            # An unmerged or unknown letter cannot come out of two trees; should it, a change is the safe reading.
            changes.append(Change(path=first, kind=_KINDS.get(letter, "modified")))
    return tuple(sorted(changes, key=lambda change: (change.path, change.old_path or "")))


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if line.startswith(("fatal:", "error:"))]
    return (fatal or lines or ["git said nothing"])[0][:500]
