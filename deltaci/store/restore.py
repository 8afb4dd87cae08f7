"""Restoring: a data directory made of a backup, whole or not at all.

Rule 1: a data directory has its database only when the restore is complete and on disk. What fails leaves nothing; one
        that was killed leaves a directory that no server starts on, and that the next restore begins anew.
Rule 2: nothing of two lives is mixed: a directory with anything of an earlier one is refused.

What has to change in the database, because the world went on, is in `repair.py`.
"""

import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from deltaci.domain.errors import ConfigError
from deltaci.store import directory
from deltaci.store.backup import (
    BackupFailed,
    BackupUnusable,
    Manifest,
    Sum,
    artifacts,
    check,
    copy_file,
    difference,
    read_manifest,
    sync_directory,
    sync_tree,
)

# In this order, so that the database comes last.
RESTORED: Final = (directory.ARTIFACTS, directory.ADMIN_TOKEN_FILE, directory.DATABASE_FILE)


class RestoreFailed(BackupFailed):
    """The backup could not be restored; the data directory is as it was."""

    code = "restore_failed"


class Half(msgspec.Struct, frozen=True):
    """A restore under way: the copied database, and artifacts that were left out because their bytes are wrong."""

    manifest: Manifest
    database: Path
    left_out: tuple[str, ...]


@contextmanager
def restoring(source: Path, data: Path, *, can_leave_out: bool) -> Iterator[Half]:
    """Copy the backup `source` towards `data`; it gets there when the block ends without an exception.

    Args:
        can_leave_out: restore without the artifacts whose bytes are not the uploaded ones, instead of not at all.

    Raises `BackupUnusable` or `SchemaTooNew` when this backup cannot be restored by this program, `ConfigError` when
    `data` is in use or not empty, and `RestoreFailed` when the disk does not take it.
    """
    manifest = read_manifest(source)
    check(source, manifest)
    wrong = _wrong_artifacts(source, manifest)
    if wrong and not can_leave_out:
        raise BackupUnusable(
            f"{len(wrong)} artifacts of the backup are damaged, such as {wrong[0]}: take another backup, or restore "
            "this one without them (--leave-out-damaged)"
        )
    is_new = not data.exists()
    directory.prepare(data)
    with directory.locked(data):
        _refuse_used(data)
        partial = data / directory.UNFINISHED
        try:
            _begin(data, partial)
            _copy(source, partial, {*wrong, *manifest.damaged})
            yield Half(manifest, partial / directory.DATABASE_FILE, wrong)
            _install(data, partial)
        except BaseException as error:
            _undo(data, partial, is_new=is_new)
            if isinstance(error, OSError | sqlite3.Error):
                why = getattr(error, "strerror", None) or error
                raise RestoreFailed(f"{source} was not restored, {data} is as it was: {why}") from error
            raise


def _wrong_artifacts(source: Path, manifest: Manifest) -> tuple[str, ...]:
    """Those that were whole when the backup was made."""
    found = artifacts(source / directory.DATABASE_FILE)
    root = source / directory.ARTIFACTS
    known = set(manifest.damaged)
    return tuple(str(one.path) for one in found if str(one.path) not in known and difference(root / one.path, one.sum))


def _refuse_used(data: Path) -> None:
    """Nothing of two lives may be mixed; also the log of a database that is gone would be folded into the new one."""
    if (data / directory.MANIFEST_FILE).exists():
        raise ConfigError(f"--data {data} is a backup itself: name another directory")
    is_half = (data / directory.UNFINISHED).exists() and not (data / directory.DATABASE_FILE).exists()
    mine = {directory.ARTIFACTS, directory.ADMIN_TOKEN_FILE} if is_half else set()
    files = {f"{directory.DATABASE_FILE}{suffix}" for suffix in ("", "-wal", "-shm", "-journal")}
    there = sorted(name for name in (files | set(RESTORED)) - mine if os.path.lexists(data / name))
    if there:
        raise ConfigError(
            f"--data {data} has {', '.join(there)} already: move the directory away and keep it, it may tell what was "
            "lost; then restore into a new one"
        )


def _begin(data: Path, partial: Path) -> None:
    if partial.exists():
        # An earlier restore was killed: what it had put in place is from a backup, and comes from this one again.
        _undo(data, partial, is_new=False)
    partial.mkdir(mode=0o700)
    sync_directory(data)


def _copy(source: Path, partial: Path, left_out: set[str]) -> None:
    wanted = [(one.path, one.sum) for one in artifacts(source / directory.DATABASE_FILE)]
    for path, expected in wanted:
        if str(path) not in left_out:
            _copied(source / directory.ARTIFACTS / path, partial / directory.ARTIFACTS / path, expected)
    for name in (directory.ADMIN_TOKEN_FILE, directory.DATABASE_FILE):
        if (source / name).exists():
            _copied(source / name, partial / name)


def _copied(source: Path, target: Path, expected: Sum | None = None) -> None:
    why = copy_file(source, target, expected)
    if why:
        raise BackupUnusable(f"{source} {why}; take another backup")


def _install(data: Path, partial: Path) -> None:
    """Everything under its own name, the database last: without one nobody takes the directory for a whole one."""
    leftover = [entry.name for entry in partial.iterdir() if entry.name not in RESTORED]
    assert not leftover, f"{leftover} would be left behind"
    sync_tree(partial)
    _give_to_owner(data, partial)
    for name in RESTORED:
        if (partial / name).exists():
            (partial / name).rename(data / name)
            sync_directory(data)
    partial.rmdir()
    sync_directory(data)


def _give_to_owner(data: Path, partial: Path) -> None:
    """What root restores must be readable by the server, which is not root."""
    owner = data.stat()
    if os.geteuid() != 0 or owner.st_uid == 0:
        return
    for place, places, names in os.walk(partial):
        for name in (*places, *names):
            os.chown(Path(place) / name, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _undo(data: Path, partial: Path, *, is_new: bool) -> None:
    if (data / directory.DATABASE_FILE).exists():
        return  # it is complete: the error came after the last rename
    if partial.exists():
        for name in (directory.ARTIFACTS, directory.ADMIN_TOKEN_FILE):
            path = data / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
    if is_new:
        data.rmdir()
