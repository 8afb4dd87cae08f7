"""Bare mirrors of repositories below the data directory, filled by fetching what is asked for.

Rule 1: nothing is ever checked out or executed; what is read of a mirror is read through `local.py`.
Rule 2: whatever comes from outside (URL, ref, commit) is checked before git sees it, and every command is bounded, in
time and in what it may bring.
One process owns a mirror directory; several nodes keep mirrors of their own.
"""

import base64
import hashlib
import re
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Final, Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from deltaci.domain.errors import ForgeError
from deltaci.forge.git_command import DEFAULT_PROTOCOLS, GitError, GitOutputTooLarge, GitResult, GitTimedOut, run_git
from deltaci.forge.git_now import NO_PROTOCOL
from deltaci.forge.left_out import (
    NoteInvalid,
    clear_away,
    expect_fewer_packs,
    expect_left_out,
    lacks_more_than,
    note_packs,
    packs_here,
    write_note,
)
from deltaci.forge.local import LocalRepository, MirrorError, MirrorLimits, MirrorUnavailable, last_line

_REF_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f~^:?*\[\\]|\.\.|@\{|//|/\.|\.lock(?:/|$)")
_SCP_LIKE: Final = re.compile(r"[A-Za-z0-9_][\w.-]*@[A-Za-z0-9][\w.-]*:[^\s:-][^\s]*", re.ASCII)
# What git says, in its own words and in those of the C locale, when it may not write a larger file.
_TOO_LARGE: Final = re.compile(r"^(?:fatal|error): .*(?:File too large|died of signal 25)", re.MULTILINE)

_NO_FILTER: Final = "filtering not recognized by server"
_FILTER_REFUSED: Final = re.compile(r"filter .*not (?:supported|allowed|valid)|invalid filter", re.IGNORECASE)
# What came is the difference to a file that is not here, and that the remote does not give by its id.
_BASE_MISSING: Final = re.compile(r"unresolved delta|promisor remote|lazy fetching disabled")
# What fetching git knows the clone URL by, for want of which it would write the URL into the mirror's configuration.
_REMOTE: Final = "origin"
# It may ask that same address for what a difference is to, within its own bounds.
_BASES: Final = {"GIT_NO_LAZY_FETCH": "0"}

T = TypeVar("T")
Authorize: TypeAlias = Callable[[], Awaitable[str | None]]


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
        authorize: Authorize | None = None,
    ) -> None:
        """Nothing is read or written yet.

        Args:
            clone_url: `https://`, `ssh://`, `user@host:path`, `file://` or an absolute path; without a password.
            directory: of this mirror alone; made by the first `ensure`.
            protocols: git's allow-list of transports, colon separated.
            authorize: asked before each fetch for the value of the HTTP Authorization header (see
                `basic_authorization`); the answer is for that fetch alone, and for this address.
        Raises:
            MirrorError: the URL is not one that we would hand to git.
        """
        self.repo_id: Final = repo_id
        self.limits: Final = limits or MirrorLimits()
        self.directory: Final = directory
        self._protocols = protocols
        self._lock = anyio.Lock()
        self._is_open = False
        self._is_partial = self.limits.is_partial
        self.clone_url = _checked_url(clone_url, repo_id)
        self.authorize = authorize

    def error(self, asked: str, why: str, *, is_retryable: bool = False) -> MirrorError:
        """A `MirrorError` of this mirror: could not do `asked`, because `why`."""
        kind = MirrorUnavailable if is_retryable else MirrorError
        return kind(f"could not {asked} of repository {self.repo_id}: {why}", repo_id=self.repo_id)

    async def ensure(self, commit_sha: str, ref: str | None = None) -> None:
        """Have `commit_sha` and its history here, fetching only if it is missing.

        Tries `ref`, then the commit itself, then every branch and tag, then every pull request head: the branch may
        have moved on, or be gone, by the time we look.

        Raises:
            MirrorError: malformed sha or ref; the commit is nowhere to be found; the forge gives no credential; no
                answer in time (retryable).
        """
        self.local().check_sha(commit_sha)
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
                    header = _header(self.clone_url, await self._authorization(asked))
                    for refspecs in _attempts(commit_sha, ref):
                        result = await self._fetch(refspecs, header)
                        if result.exit_code == 0 and await self.has(commit_sha):
                            return
                        if result.exit_code != 0:
                            if _TOO_LARGE.search(result.stderr):
                                most = self.limits.fetch_bytes_max
                                raise self.error(
                                    asked, f"it takes more than {most} bytes (setting planner.fetch_bytes_max)"
                                )
                            said.append(result.stderr)
            except (TimeoutError, GitTimedOut) as error:
                raise self.error(
                    asked, f"no answer from {self.clone_url} within {self.limits.fetch_ms} ms", is_retryable=True
                ) from error
        last = last_line(said[-1]) if said else "the remote has no such commit any more"
        raise self.error(
            asked, f"{last}; check that {self.clone_url} is right and that we may read it", is_retryable=True
        )

    def is_filled(self) -> bool:
        """Whether anything was fetched into it, so that the next fetch brings only what is new."""
        return any((self.directory / "objects" / "pack").glob("*.pack"))

    async def _authorization(self, asked: str) -> str | None:
        try:
            return await self.authorize() if self.authorize is not None else None
        except ForgeError as error:
            refused = self.error(asked, f"no credential: {error}", is_retryable=error.is_retryable)
            refused.retry_after_ms = error.retry_after_ms
            raise refused from error

    async def tip(self, ref: str) -> str:
        """The commit that `ref` of the remote names now; it is here then, with its history.

        Raises:
            MirrorError: malformed ref; there is none of that name, or no answer in time (retryable).
        """
        self._check_ref(ref)
        asked = f"fetch {ref}"
        async with self._lock:
            await self._open()
            header = _header(self.clone_url, await self._authorization(asked))
            result = await self._fetch((f"+{ref}:{_name_here(ref)}",), header)
            if result.exit_code != 0:
                raise self.error(asked, last_line(result.stderr), is_retryable=True)
            found = await self._git(
                ["rev-parse", "--verify", f"{_name_here(ref)}^{{commit}}"], asked, must_succeed=True
            )
            return found.stdout.decode("ascii").strip()

    async def has(self, commit_sha: str) -> bool:
        """Whether the commit is here already. Raises MirrorError on a malformed sha."""
        self.local().check_sha(commit_sha)
        if not self._is_made():
            return False
        result = await self._git(["cat-file", "-e", f"{commit_sha}^{{commit}}"], f"look for commit {commit_sha}")
        return result.exit_code == 0

    def local(self) -> LocalRepository:
        """How to read what is here, without a loop; not while it is discarded."""
        return LocalRepository(self.directory, repo_id=self.repo_id, limits=self.limits)

    async def compact(self) -> None:
        """Pack what many small fetches left behind; loses nothing. For a quiet hour: it may take minutes.

        Raises:
            MirrorError: git failed or took longer than `fetch_ms`; the mirror stays readable.
        """
        async with self._lock:
            if not self._is_made():
                return
            await self._open()
            await self._on_disk(expect_fewer_packs, self.directory)
            try:
                await self._git(
                    ["repack", "--geometric=2", "-d", "-l", "-q"],
                    "compact the mirror",
                    timeout_ms=self.limits.fetch_ms,
                    must_succeed=True,
                )
            finally:
                await self._on_disk(note_packs, self.directory)

    async def discard(self) -> None:
        """Remove a mirror that is damaged: everything in it can be had again."""
        async with self._lock:
            await self._remove()

    async def _remove(self) -> None:
        self._is_open = False
        await anyio.to_thread.run_sync(partial(shutil.rmtree, self.directory, ignore_errors=True))

    async def _open(self) -> None:
        """Make the bare repository if need be; under the lock, once for each life of this object."""
        if self._is_open:
            return
        if await self._on_disk(
            lacks_more_than, self.directory, self.limits.file_bytes_max if self._is_partial else None
        ):
            await self._remove()  # it was filled under other limits
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
        await self._on_disk(clear_away, self.directory)
        await self._on_disk(note_packs, self.directory)
        self._is_open = True

    async def _on_disk(self, do: Callable[..., T], *arguments: object) -> T:
        """Have a thread do something to the mirror, to its end. Raises MirrorError (retryable)."""
        with anyio.CancelScope(shield=True):
            try:
                done = await anyio.to_thread.run_sync(do, *arguments)
            except (OSError, NoteInvalid) as error:
                self._is_open = False
                raise self.error("keep the mirror", str(error), is_retryable=True) from error
        return done

    def _is_made(self) -> bool:
        return (self.directory / "HEAD").is_file() and (self.directory / "objects").is_dir()

    async def _fetch(self, refspecs: tuple[str, ...], header: Mapping[str, str]) -> GitResult:
        """Without large files if the remote can leave them out, else with all there is."""
        if not self._is_partial:
            return await self._fetch_once(self.clone_url, refspecs, header)
        bytes_min = self.limits.file_bytes_max + 1
        before = await self._on_disk(packs_here, self.directory)
        was_whole = await self._on_disk(expect_left_out, self.directory, bytes_min)
        filtering = {
            f"remote.{_REMOTE}.url": self.clone_url,
            f"remote.{_REMOTE}.promisor": "true",
            f"remote.{_REMOTE}.partialCloneFilter": f"blob:limit={bytes_min}",
        }
        result = await self._fetch_once(_REMOTE, refspecs, {**header, **filtering})
        is_refused = result.exit_code != 0 and _FILTER_REFUSED.search(result.stderr) is not None
        is_ignored = was_whole and _NO_FILTER in result.stderr
        if is_refused or is_ignored:
            self._is_partial = False
        if was_whole and (is_ignored or before == await self._on_disk(packs_here, self.directory)):
            await self._on_disk(write_note, self.directory, None)  # nothing was left out
        is_stuck = result.exit_code != 0 and bool(before) and _BASE_MISSING.search(result.stderr) is not None
        if is_stuck or (is_refused and not was_whole):
            await self._remove()
            await self._open()
        return await self._fetch(refspecs, header) if is_refused or is_stuck else result

    async def _fetch_once(self, remote: str, refspecs: tuple[str, ...], configuration: Mapping[str, str]) -> GitResult:
        options = ("--quiet", "--force", "--prune", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
        is_whole = False
        try:
            result = await self._git(
                ["fetch", *options, "--", remote, *refspecs],
                "fetch",
                timeout_ms=self.limits.fetch_ms,
                protocols=self._protocols,
                extra_environment={**_configured(configuration), **({} if remote != _REMOTE else _BASES)},
                file_bytes_max=self.limits.fetch_bytes_max,
            )
            is_whole = result.exit_code == 0
        finally:
            if not is_whole:
                await self._on_disk(clear_away, self.directory)
            await self._on_disk(note_packs, self.directory)
        return result

    async def _git(
        self,
        arguments: list[str],
        asked: str,
        *,
        git_dir: Path | Literal["mirror"] | None = "mirror",
        timeout_ms: int | None = None,
        output_bytes_max: int = 1024 * 1024,
        stdin: bytes = b"",
        protocols: str = NO_PROTOCOL,
        extra_environment: Mapping[str, str] | None = None,
        file_bytes_max: int | None = None,
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
                protocols=protocols,
                extra_environment=extra_environment,
                file_bytes_max=file_bytes_max,
            )
        except GitOutputTooLarge as error:
            raise self.error(asked, str(error)) from error
        except GitError as error:
            raise self.error(asked, str(error), is_retryable=True) from error
        if must_succeed and result.exit_code != 0:
            # Not the commit's fault: no space, no descriptors, killed for the memory it took.
            why = f"git {arguments[0]} exited with {result.exit_code}: {last_line(result.stderr)}"
            raise self.error(asked, why, is_retryable=True)
        return result

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

    def of(self, *, repo_id: str, clone_url: str, authorize: Authorize | None = None) -> Mirror:
        """The mirror of `repo_id`; a changed URL or `authorize` holds from the next fetch on.

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
                authorize=authorize,
            )
            self._mirrors[repo_id] = mirror
        mirror.clone_url = _checked_url(clone_url, repo_id)
        mirror.authorize = authorize
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
        yield (f"+{ref}:{_name_here(ref)}",)
    yield (f"+{commit_sha}:refs/delta/{commit_sha}",)
    yield ("+refs/heads/*:refs/remotes/heads/*", "+refs/tags/*:refs/remotes/tags/*")
    yield ("+refs/pull/*/head:refs/remotes/pull/*", "+refs/merge-requests/*/head:refs/remotes/merge-requests/*")


def _name_here(ref: str) -> str:
    """A name of our own for each ref: `a` that became `a/b` would otherwise collide with its former self."""
    return f"refs/delta/{hashlib.sha256(ref.encode()).hexdigest()[:40]}"


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
    """Configuration that has an authorization sent to this address alone."""
    if authorization is None or not url.startswith(("https://", "http://")):
        return {}
    parts = urlsplit(url)
    return {f"http.{parts.scheme}://{parts.netloc}{parts.path}.extraHeader": f"Authorization: {authorization}"}


def _configured(configuration: Mapping[str, str]) -> dict[str, str]:
    """The environment of a git with this configuration: not in the arguments, and not in a file, which others read."""
    environment = {"GIT_CONFIG_COUNT": str(len(configuration))}
    for number, (key, value) in enumerate(configuration.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment
