"""The runner's directory: mirrors of repositories, caches, spools and one place a slot where an attempt works.

Rule 1: one runner at a time owns a work directory, by a lock that the kernel drops when the process dies.
Rule 2: the place of an attempt names the mark of its processes, so that the next life of the runner can clean up.

    runner.lock   mirrors/<hash>.git   caches/<hash>.tar   spools/<random>.log
    slots/<n>/    attempt.json  checkout/  home/  tmp/  scripts/  artifacts/
"""

import asyncio
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Final, TypeAlias

import msgspec
from loguru import logger

from deltaci.runner.credentials import environment_for
from deltaci.runner.git import GitFailed, git, without_credentials
from deltaci.runner.process import sweep
from deltaci.runner.settings import RunnerConfigError
from protocol.messages import CredentialGiven, JobSpec, LeaseGranted

SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
REF: Final = re.compile(r"refs/[^\s~^:?*\[\\]+")
AskCredential: TypeAlias = Callable[[], Awaitable[CredentialGiven]]


class CheckoutFailed(Exception):
    """The commit could not be fetched or checked out; the text says what git said."""


class Workspace(msgspec.Struct, frozen=True, kw_only=True):
    """Where one attempt works. The path is the same for every attempt in a slot, which build caches rely on."""

    root: Path
    mark: str

    @property
    def checkout(self) -> Path:
        """The files of the commit."""
        return self.root / "checkout"

    @property
    def home(self) -> Path:
        """HOME of the steps, empty at the start."""
        return self.root / "home"

    @property
    def temporary(self) -> Path:
        """TMPDIR of the steps."""
        return self.root / "tmp"

    @property
    def scripts(self) -> Path:
        """The steps as script files."""
        return self.root / "scripts"

    @property
    def artifacts(self) -> Path:
        """Archives on their way out."""
        return self.root / "artifacts"

    async def remove(self) -> None:
        """Remove all of it, whatever permissions the job left behind."""
        await asyncio.to_thread(remove_tree, self.root)


class WorkDir:
    """The whole directory; `open` before use."""

    def __init__(self, root: Path) -> None:
        root = root.absolute()  # mirrors are referred to by path from inside the checkouts
        self.root = root
        self.caches = root / "caches"
        self.spools = root / "spools"
        self._slots = root / "slots"
        self._mirrors = root / "mirrors"
        self._lock: IO[str] | None = None
        self._mirror_locks: dict[Path, asyncio.Lock] = {}

    def open(self) -> None:
        """Take the lock and clean up what an earlier life left: processes, workspaces, spools. Blocks.

        Raises:
            RunnerConfigError: another runner owns the directory, or it cannot be written.
        """
        try:
            for path in (self.root, self.caches, self.spools, self._slots, self._mirrors):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = (self.root / "runner.lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.close()
            raise RunnerConfigError(f"work_dir {self.root} is in use by another runner; give each its own") from error
        except OSError as error:
            raise RunnerConfigError(f"work_dir {self.root} cannot be used: {error.strerror}") from error
        self._clean_up()

    def close(self) -> None:
        """Give up the lock. Idempotent."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def new_workspace(self, slot: int, grant: LeaseGranted, mark: str) -> Workspace:
        """An empty place for one attempt in slot number `slot`. Blocks."""
        workspace = Workspace(root=self._slots / str(slot), mark=mark)
        remove_tree(workspace.root)
        workspace.root.mkdir(mode=0o700)
        note = {"mark": mark, "run_id": grant.run_id, "job_id": grant.job_id, "attempt": grant.attempt}
        (workspace.root / "attempt.json").write_text(json.dumps(note))
        for path in (workspace.home, workspace.temporary, workspace.scripts, workspace.artifacts):
            path.mkdir(mode=0o700)
        return workspace

    async def check_out(
        self, workspace: Workspace, job: JobSpec, *, config: Path | None, ask_credential: AskCredential | None = None
    ) -> None:
        """Bring the job's commit into the workspace, through the mirror of its repository.

        Args:
            ask_credential: asked right before the commit is fetched, and not when it is here already.
        Raises:
            CheckoutFailed: the address or commit is not acceptable, or git could not get it, or there is no credential.
        """
        if not SHA.fullmatch(job.commit_sha):
            raise CheckoutFailed(f"{job.commit_sha!r} is not the id of a commit")
        mirror = self._mirrors / f"{hashlib.sha256(job.clone_url.encode()).hexdigest()[:32]}.git"
        was_known = mirror.exists()
        try:
            try:
                await self._fetch_and_check_out(mirror, workspace, job, config, ask_credential)
            except _MirrorUnusable:
                if not was_known:
                    raise
                # A power cut or a job may have damaged the mirror; everything in it can be had again.
                logger.warning("the mirror {} is unusable and fetched anew", mirror.name)
                async with self._lock_of(mirror):
                    await asyncio.to_thread(remove_tree, mirror)
                await asyncio.to_thread(remove_tree, workspace.checkout)
                await self._fetch_and_check_out(mirror, workspace, job, config, ask_credential)
        except GitFailed as error:
            address = without_credentials(job.clone_url)
            raise CheckoutFailed(f"cannot check out {job.commit_sha} of {address}: {error}") from error

    async def _fetch_and_check_out(
        self, mirror: Path, workspace: Workspace, job: JobSpec, config: Path | None, ask: AskCredential | None
    ) -> None:
        async with self._lock_of(mirror):
            await _fetch(mirror, job, mark=workspace.mark, config=config, ask=ask)
        try:
            await _populate(mirror, workspace, job)
        except GitFailed as error:
            raise _MirrorUnusable(str(error)) from error

    def _lock_of(self, mirror: Path) -> asyncio.Lock:
        return self._mirror_locks.setdefault(mirror, asyncio.Lock())

    def _clean_up(self) -> None:
        for place in sorted(self._slots.iterdir()):
            try:
                note: dict[str, Any] = json.loads((place / "attempt.json").read_bytes())
                logger.warning("attempt {} of job {} was cut off by a crash", note["attempt"], note["job_id"])
                sweep(note["mark"])
            except (OSError, ValueError, KeyError):
                logger.warning("slot {} was left without a note", place.name)
            remove_tree(place)
        for spool in self.spools.iterdir():
            spool.unlink(missing_ok=True)
        for partial in self.caches.glob("*.partial"):
            partial.unlink(missing_ok=True)
        for lock in self._mirrors.rglob("*.lock"):
            lock.unlink(missing_ok=True)  # no git of ours is running: a killed one left it


class _MirrorUnusable(GitFailed):
    """The mirror said it has the commit, and yet it cannot be checked out."""


async def _fetch(mirror: Path, job: JobSpec, *, mark: str, config: Path | None, ask: AskCredential | None) -> None:
    """Make sure that the commit is in the mirror: by its id, or by its ref, or with everything there is."""
    if not (mirror / "HEAD").exists():
        object_format = "sha256" if len(job.commit_sha) == 64 else "sha1"
        words = ("init", "--quiet", "--bare", "--template=", f"--object-format={object_format}")
        await git(*words, "--", str(mirror), mark=mark)

    async def has_commit() -> bool:
        try:
            await git("cat-file", "-e", f"{job.commit_sha}^{{commit}}", mark=mark, cwd=mirror)
        except GitFailed:
            return False
        return True

    if await has_commit():
        return
    given = await ask() if ask is not None else None
    secrets = environment_for(job.clone_url, given)
    # A ref of its own keeps the commit, and tells the server next time what is here already.
    refspecs = [f"+{job.commit_sha}:refs/deltaci/{job.commit_sha}"]
    if REF.fullmatch(job.ref) and ".." not in job.ref:
        refspecs.append(f"+{job.ref}:refs/deltaci/{job.commit_sha}")
    refspecs.append("+refs/*:refs/deltaci/all/*")
    problem = ""
    for refspec in refspecs:
        try:
            words = ("fetch", "--quiet", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head")
            await git(*words, "--", job.clone_url, refspec, mark=mark, config=config, cwd=mirror, secrets=secrets)
        except GitFailed as error:
            problem = str(error)
            continue
        if await has_commit():
            return
    if given is not None and given.withheld_because:
        problem = f"{problem}; no credential was given: {given.withheld_because}"
    raise GitFailed(problem or "the repository does not have this commit")


async def _populate(mirror: Path, workspace: Workspace, job: JobSpec) -> None:
    """A detached checkout that borrows the mirror's objects."""
    checkout, mark = workspace.checkout, workspace.mark
    object_format = "sha256" if len(job.commit_sha) == 64 else "sha1"
    await git("init", "--quiet", "--template=", f"--object-format={object_format}", "--", str(checkout), mark=mark)
    alternates = checkout / ".git" / "objects" / "info" / "alternates"
    alternates.parent.mkdir(exist_ok=True)
    alternates.write_text(f"{mirror / 'objects'}\n")
    await git("remote", "add", "--", "origin", without_credentials(job.clone_url), mark=mark, cwd=checkout)
    # Not `git checkout`: from an unborn branch it succeeds with an empty tree when the mirror lacks objects.
    await git("update-ref", "--no-deref", "HEAD", job.commit_sha, mark=mark, cwd=checkout)
    await git("reset", "--quiet", "--hard", mark=mark, cwd=checkout)


def remove_tree(path: Path) -> None:
    """Remove a tree whatever its permissions; a link is removed, not followed. What resists is logged. Blocks."""

    def open_up(retry: Callable[[str], object], name: str, _problem: Any) -> None:
        # A directory without write or search permission keeps its entries: that is how module caches are unpacked.
        for target in (os.path.dirname(name), name):
            try:
                if stat.S_ISDIR(os.lstat(target).st_mode):
                    os.chmod(target, 0o700)
            except OSError:
                continue
        try:
            if retry in {os.open, os.scandir, os.lstat}:
                shutil.rmtree(name)
            else:
                retry(name)
        except OSError as error:
            logger.warning("cannot remove {}: {}", name, error.strerror)

    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, onerror=open_up)
