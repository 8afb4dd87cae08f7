"""Backups: a data directory's state as a directory of its own, whole or not there at all.

Rule 1: the database is copied page by page under one read transaction: the copy is the state of one instant, and no
        writer waits for it. Artifacts are written before their rows, so those of that instant are there afterwards.
Rule 2: a backup has its name only when it is complete, checked and on disk. What fails leaves nothing behind.
Rule 3: it is made from a database of any older schema as well; nothing in the data directory is changed.

Synchronous, for processes of their own: no loop, no clock, no chance.
"""

import errno
import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from deltaci.domain.errors import ConfigError, StoreError
from deltaci.domain.states import JobState, RunState
from deltaci.store import directory
from deltaci.store.artifacts import relative_path
from deltaci.store.database import check_not_newer, connect, schema_version
from deltaci.store.journal import GENESIS, Draft, Row, row_hash
from deltaci.store.sql import query

FORMAT: Final = 1
PARTIAL: Final = ".partial"
PAGES_AT_ONCE: Final = 1_000
CHUNK_BYTES: Final = 1024 * 1024
# On the disk of the server itself, so much stays free for the server: four of its logs, and the next minutes' rows.
RESERVE_BYTES: Final = 128 * 1024 * 1024


class BackupFailed(StoreError):
    """The backup could not be made; nothing of it was kept."""

    code = "backup_failed"
    is_retryable = False


class BackupUnusable(StoreError):
    """This is no whole backup, or it was changed since it was made: take another one."""

    code = "backup_unusable"
    is_retryable = False


class Sum(msgspec.Struct, frozen=True):
    """What a file must be like, to the byte."""

    size_bytes: int
    sha256: str


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a database holds, whose pages, indexes and journal were found in order."""

    schema_version: int
    journal_entries: int
    journal_hash: str
    runs: int
    live_runs: int
    jobs: int
    live_jobs: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The last file of a backup: what is in it. `damaged`: artifacts that were missing or wrong in the original."""

    format: int = FORMAT
    program: str
    made_at_ms: int
    database: Sum
    contents: Contents
    artifacts: int
    artifact_bytes: int
    damaged: tuple[str, ...] = ()
    admin_token: Sum | None = None


class Artifact(NamedTuple):
    """An artifact's row, and where its file lies below the directory of all of them."""

    path: Path
    sum: Sum


def make(data: Path, target: Path, *, program: str, now_ms: int) -> Manifest:
    """Back up the data directory `data`, whether a server works on it or not, as the new directory `target`.

    Raises `ConfigError` when there is nothing to back up or no place for it, `SchemaTooNew`, and `BackupFailed` when a
    disk does not take it or the database is damaged.
    """
    database = data / directory.DATABASE_FILE
    if not database.exists():
        raise ConfigError(f"{database} does not exist: --data names the directory given to `deltaci serve`")
    check_not_newer(schema_version(database), f"the database {database}")
    _check_target(data, target)
    with _place(target) as partial:
        copy = partial / directory.DATABASE_FILE
        _copy_database(database, copy, _room(data, partial))
        try:
            contents = examine(copy)
        except BackupUnusable as error:
            raise BackupFailed(
                f"the database {database} is damaged: {error}; keep your earlier backups, see `deltaci verify`"
            ) from error
        found = artifacts(copy)
        damaged = _copy_artifacts(found, data / directory.ARTIFACTS, partial / directory.ARTIFACTS)
        manifest = Manifest(
            program=program,
            made_at_ms=now_ms,
            database=sum_of(copy),
            contents=contents,
            artifacts=len(found) - len(damaged),
            artifact_bytes=sum(one.sum.size_bytes for one in found if str(one.path) not in damaged),
            damaged=damaged,
            admin_token=_copy_token(data, partial),
        )
        with new_file(partial / directory.MANIFEST_FILE) as file:
            file.write(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
        sync_tree(partial)
    return manifest


# ---- what a backup is like ---------------------------------------------------------------------------------------


def read_manifest(source: Path) -> Manifest:
    """What the backup `source` says of itself; raises `BackupUnusable` when that is nothing."""
    file = source / directory.MANIFEST_FILE
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise BackupUnusable(
            f"{source} is no backup: it has no {directory.MANIFEST_FILE}, which `deltaci backup` writes last"
        ) from error
    except OSError as error:
        raise BackupUnusable(f"{file} cannot be read: {error.strerror}") from error
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BackupUnusable(f"{file} was changed or cut off: {error}; take another backup") from error
    if manifest.format > FORMAT:
        raise BackupUnusable(
            f"{source} was made by a newer program ({manifest.program}) in format {manifest.format}, this one reads "
            f"{FORMAT}: use the newer program"
        )
    check_not_newer(manifest.contents.schema_version, f"the backup {source}")
    return manifest


def check(source: Path, manifest: Manifest) -> None:
    """Raise `BackupUnusable` unless database and token are, to the byte, what the manifest says."""
    files = [(directory.DATABASE_FILE, manifest.database)]
    if manifest.admin_token is not None:
        files.append((directory.ADMIN_TOKEN_FILE, manifest.admin_token))
    for name, expected in files:
        why = difference(source / name, expected)
        if why:
            raise BackupUnusable(f"{source / name} {why}; take another backup")
    contents = examine(source / directory.DATABASE_FILE)
    if contents != manifest.contents:
        raise BackupUnusable(f"{source} holds {contents} and says that it holds {manifest.contents}")


def difference(file: Path, expected: Sum) -> str:
    """What is wrong with a file, or nothing."""
    try:
        size_bytes = file.stat().st_size
        if size_bytes != expected.size_bytes:
            return f"has {size_bytes} bytes instead of {expected.size_bytes}: it was cut off or changed"
        return "" if sum_of(file) == expected else "was changed: its SHA-256 differs"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def examine(database: Path) -> Contents:
    """What is in a database that nobody writes to; raises `BackupUnusable` when its pages or its journal are broken."""
    try:
        with closing(connect(database, is_readonly=True)) as connection:
            execute = connection.execute
            (found,) = execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise BackupUnusable(f"{database}: {found}")
            entries, last_hash = _check_chain(connection, database)
            run_states = {RunState(state): count for state, count in execute(query("count_runs"))}
            job_states = {JobState(state): count for state, count in execute(query("count_jobs"))}
            return Contents(
                schema_version=execute("PRAGMA user_version").fetchone()[0],
                journal_entries=entries,
                journal_hash=last_hash.hex(),
                runs=sum(run_states.values()),
                live_runs=sum(count for state, count in run_states.items() if not state.is_final),
                jobs=sum(job_states.values()),
                live_jobs=sum(count for state, count in job_states.items() if not state.is_final),
            )
    except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
        raise BackupUnusable(f"{database} cannot be read: {error}") from error


def _check_chain(connection: sqlite3.Connection, database: Path) -> tuple[int, bytes]:
    """The last entry's id and hash."""
    last_id, last_hash = 0, GENESIS
    for columns in connection.execute(query("journal"), (0, -1)):
        row = Row(*columns)
        if row.id != last_id + 1 or row.hash != row_hash(last_hash, row.id, Draft(*row[1:-1])):
            raise BackupUnusable(f"{database}: entry {row.id} of the journal does not follow entry {last_id}")
        last_id, last_hash = row.id, row.hash
    return last_id, last_hash


def artifacts(database: Path) -> list[Artifact]:
    """The artifacts that a database names."""
    with closing(connect(database, is_readonly=True)) as connection:
        return [
            Artifact(relative_path(job_id, attempt, name), Sum(size_bytes, sha256))
            for job_id, attempt, name, size_bytes, sha256 in connection.execute(query("every_artifact"))
        ]


# ---- copying -----------------------------------------------------------------------------------------------------


def _check_target(data: Path, target: Path) -> None:
    if os.path.lexists(target):
        raise ConfigError(f"--to {target} exists, and a backup replaces nothing: name a new directory")
    if not target.parent.is_dir():
        raise ConfigError(f"--to {target}: there is no directory {target.parent}")
    if target.absolute().resolve().is_relative_to(data.resolve()):
        raise ConfigError(f"--to {target} is inside {data}: a backup must not be lost with what it is a backup of")


@contextmanager
def _place(target: Path) -> Iterator[Path]:
    """A directory under a temporary name, which becomes `target` at the end, or nothing."""
    partial = target.with_name(target.name + PARTIAL)
    try:
        partial.mkdir(mode=0o700, exist_ok=True)
        with directory.locked(partial):
            # A backup that was killed left it: nobody holds it any more.
            clear(partial)
            try:
                yield partial
                partial.rename(target)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        sync_directory(target.parent)
    except sqlite3.Error as error:
        raise BackupFailed(f"{target} was not made, and nothing of it was kept: {error}") from error
    except OSError as error:
        raise BackupFailed(
            f"{target} was not made, and nothing of it was kept: {error.strerror} ({error.filename or 'disk'})"
        ) from error


def _room(data: Path, partial: Path) -> int:
    """How many bytes the backup may take: what is free, and on the server's own disk less than that."""
    disk = os.statvfs(partial)
    free = disk.f_bavail * disk.f_frsize
    return free - RESERVE_BYTES if partial.stat().st_dev == data.stat().st_dev else free


def _copy_database(source: Path, target: Path, room: int) -> None:
    new_file(target).close()
    with closing(connect(source, is_readonly=True)) as live, closing(connect(target)) as copy:
        # One instant from here on: if each step looked for itself, a busy server would make it begin anew for ever.
        live.execute("BEGIN")
        (needed,) = live.execute(query("artifact_bytes")).fetchone()
        pages, page_bytes = (live.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
        needed += pages * page_bytes
        if needed > room:
            raise OSError(
                errno.ENOSPC, f"it takes {needed} bytes, and the disk has {max(room, 0)} to spare for it", str(target)
            )
        # Nothing to roll back to, and nothing to keep in order yet: it is synced as a whole.
        copy.execute("PRAGMA journal_mode = OFF")
        copy.execute("PRAGMA synchronous = OFF")
        live.backup(copy, pages=PAGES_AT_ONCE)
    with closing(connect(target)) as copy:
        # One file, that can be read where nothing can be written.
        copy.execute("PRAGMA journal_mode = DELETE")


def _copy_artifacts(found: list[Artifact], source: Path, target: Path) -> tuple[str, ...]:
    """Copy what is as its row says; answers the names of all others."""
    return tuple(str(one.path) for one in found if copy_file(source / one.path, target / one.path, one.sum))


def _copy_token(data: Path, partial: Path) -> Sum | None:
    source, target = data / directory.ADMIN_TOKEN_FILE, partial / directory.ADMIN_TOKEN_FILE
    if not source.exists():
        return None
    copy_file(source, target)
    return sum_of(target)


def copy_file(source: Path, target: Path, expected: Sum | None = None) -> str:
    """Copy a file, mode 0600; answers what is wrong with it, and makes no copy then. Raises `OSError` of the target."""
    try:
        reading = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    with open(reading, "rb") as original:
        _make_places(target.parent)
        digest, size_bytes = hashlib.sha256(), 0
        with new_file(target) as copy:
            while chunk := original.read(CHUNK_BYTES):
                digest.update(chunk)
                size_bytes += len(chunk)
                copy.write(chunk)
    if expected not in (None, Sum(size_bytes, digest.hexdigest())):
        target.unlink()
        return "was cut off or changed: its bytes are not those that were uploaded"
    return ""


def _make_places(place: Path) -> None:
    """`Path.mkdir` would open the parents that it makes to everybody."""
    if not place.is_dir():
        _make_places(place.parent)
        place.mkdir(mode=0o700)


def new_file(path: Path) -> BinaryIO:
    """A file that was not there, and that nobody else may read."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")


def sum_of(file: Path) -> Sum:
    """Size and SHA-256 of a file."""
    with file.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        return Sum(stream.tell(), sha256)


def clear(place: Path) -> None:
    """Empty a directory."""
    for entry in place.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def sync_tree(root: Path) -> None:
    """Bring every file below `root` to disk, and then the directories that name them."""
    for place, _, names in os.walk(root, topdown=False):
        for name in names:
            _sync(Path(place) / name, os.O_RDONLY)
        sync_directory(Path(place))


def sync_directory(place: Path) -> None:
    """Bring the names in a directory to disk."""
    _sync(place, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
