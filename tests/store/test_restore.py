"""Restoring: a whole data directory or none, of a whole backup or of none."""

import errno
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from deltaci.domain.errors import ConfigError, SchemaTooNew, StoreUnavailable
from deltaci.store import backup, directory
from deltaci.store import restore as restores
from deltaci.store.backup import BackupUnusable, examine, make, read_manifest
from deltaci.store.database import Database, schema_version
from deltaci.store.restore import RestoreFailed, restoring
from deltaci.store.sql import migrations
from tests.builders import NOW_MS
from tests.store.support import ARTIFACT_BYTES, SCHEMAS, a_data_directory, database_of
from tests.store.test_migrations import NEXT, plant


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A backup of everything."""
    made = tmp_path / "backup"
    make(a_data_directory(tmp_path / "original"), made, program="1.2.3", now_ms=NOW_MS)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Where to restore to; not there yet."""
    return tmp_path / "data"


def restore(source: Path, data: Path, *, can_leave_out: bool = False) -> tuple[str, ...]:
    """Restore and repair nothing."""
    with restoring(source, data, can_leave_out=can_leave_out) as half:
        Database.open_writer(half.database).close()
    return half.left_out


def names(place: Path) -> set[str]:
    return {path.name for path in place.iterdir()}


def test_a_restored_directory_is_one_that_a_server_starts_on(source: Path, data: Path) -> None:
    """Everything that the backup holds, closed to others, and nothing else."""
    left_out = restore(source, data)

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (data, *data.rglob("*")) if path.is_dir()}
    with directory.held(data):
        assert names(data) == {"deltaci.db", "admin-token", "artifacts"}
    assert modes == {0o700}
    assert examine(data / "deltaci.db") == read_manifest(source).contents
    assert (data / "admin-token").read_bytes() == (source / "admin-token").read_bytes()
    assert [path.read_bytes() for path in (data / "artifacts").rglob("shop")] == [ARTIFACT_BYTES]
    assert left_out == ()
    backup.check(source, read_manifest(source))


def test_a_directory_made_for_it_is_used_as_it_is(source: Path, data: Path) -> None:
    """A mount point, or one with the mirrors of before: those are a cache, by repository id."""
    (data / "mirrors").mkdir(parents=True)
    data.chmod(0o700)

    restore(source, data)

    assert names(data) == {"deltaci.db", "admin-token", "artifacts", "mirrors"}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root restores for somebody else")
def test_what_root_restores_belongs_to_the_owner_of_the_directory(source: Path, data: Path) -> None:
    """The server is not root: at three in the morning it would not be able to read its own database."""
    data.mkdir(mode=0o700)
    os.chown(data, 12_345, 54_321)

    restore(source, data)

    assert {(path.stat().st_uid, path.stat().st_gid) for path in data.rglob("*")} == {(12_345, 54_321)}


def test_a_backup_of_an_older_schema_comes_to_this_programs(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is migrated in its new place; the backup stays what it is, for the older program as well."""
    plant(monkeypatch, NEXT)

    restore(source, data)

    assert schema_version(data / "deltaci.db") == len(migrations()) + 1
    assert schema_version(source / "deltaci.db") == len(migrations())
    backup.check(source, read_manifest(source))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: str(path.stem))
def test_a_backup_of_every_schema_can_be_restored(tmp_path: Path, data: Path, schema: Path) -> None:
    """However long it lay there."""
    source = tmp_path / "backup"
    make(a_data_directory(tmp_path / "original", schema), source, program="", now_ms=NOW_MS)

    restore(source, data)

    assert schema_version(data / "deltaci.db") == len(migrations())


# ---- backups that are none ---------------------------------------------------------------------------------------


def changed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        (file,) = source.rglob(name)
        file.write_bytes(change(file.read_bytes()))

    return spoil


def removed(name: str) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        (file,) = source.rglob(name)
        file.unlink()

    return spoil


def said(**fields: object) -> Callable[[Path], None]:
    def spoil(source: Path) -> None:
        file = source / "backup.json"
        file.write_bytes(msgspec.json.encode(msgspec.json.decode(file.read_bytes()) | fields))

    return spoil


def both_changed(source: Path) -> None:
    """Database and manifest, so that they agree again: somebody who covers his tracks, and forgets the chain."""
    with database_of(source) as connection:
        connection.execute("UPDATE journal SET at_ms = 1 WHERE id = 3")
    sums = msgspec.to_builtins(backup.sum_of(source / "deltaci.db"))
    said(database=sums)(source)


def another_count(source: Path) -> None:
    contents = msgspec.structs.replace(read_manifest(source).contents, runs=1_000)
    said(contents=msgspec.to_builtins(contents))(source)


def flipped(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (removed("backup.json"), "is no backup: it has no backup.json"),
        (changed("backup.json", lambda data: data[:-20]), "was changed or cut off"),
        (changed("backup.json", lambda _: b"[]"), "was changed or cut off"),
        (changed("backup.json", lambda _: b"\xff"), "was changed or cut off"),
        (said(format=2), r"made by a newer program \(1\.2\.3\) in format 2, this one reads 1: use the newer program"),
        (removed("deltaci.db"), r"deltaci\.db cannot be read: No such file"),
        (changed("deltaci.db", lambda data: data[:-4096]), "it was cut off or changed; take another backup"),
        (changed("deltaci.db", lambda data: data + b"\0"), "it was cut off or changed; take another backup"),
        (changed("deltaci.db", flipped), "was changed: its SHA-256 differs; take another backup"),
        (changed("admin-token", lambda data: data[::-1]), "admin-token was changed"),
        (removed("admin-token"), "admin-token cannot be read"),
        (both_changed, "entry 3 of the journal does not follow entry 2"),
        (another_count, "says that it holds"),
        (changed("shop", flipped), r"1 artifacts of the backup are damaged.*--leave-out-damaged"),
        (removed("shop"), r"1 artifacts of the backup are damaged.*--leave-out-damaged"),
    ],
)
def test_a_backup_that_is_not_whole_is_refused(
    source: Path, data: Path, spoil: Callable[[Path], None], says: str
) -> None:
    """With what is wrong and what to do, before anything is made."""
    spoil(source)

    with pytest.raises(BackupUnusable, match=says):
        restore(source, data)

    assert not data.exists()


def test_a_backup_of_a_newer_program_is_refused(source: Path, data: Path) -> None:
    """By its manifest already: this program need not be able to read anything else of it."""
    contents = msgspec.structs.replace(read_manifest_as_it_is(source), schema_version=999)
    said(contents=msgspec.to_builtins(contents))(source)

    with pytest.raises(SchemaTooNew, match=r"the backup .* has schema version 999, .* use the newer program"):
        restore(source, data)

    assert not data.exists()


def read_manifest_as_it_is(source: Path) -> backup.Contents:
    return read_manifest(source).contents


@pytest.mark.parametrize("spoil", [changed("shop", flipped), removed("shop")])
def test_damaged_artifacts_can_be_left_out(source: Path, data: Path, spoil: Callable[[Path], None]) -> None:
    """One flipped bit in an old archive must not stand between a team and its database."""
    spoil(source)

    left_out = restore(source, data, can_leave_out=True)

    assert [name.endswith("/1/shop") for name in left_out] == [True]
    assert not list(data.rglob("shop"))


def test_what_was_missing_in_the_original_is_not_missed(tmp_path: Path, data: Path) -> None:
    """The backup said so when it was made; nobody can help it now."""
    original = a_data_directory(tmp_path / "original")
    shutil.rmtree(original / "artifacts")
    make(original, tmp_path / "backup", program="", now_ms=NOW_MS)

    assert restore(tmp_path / "backup", data) == ()
    assert names(data) == {"deltaci.db", "admin-token"}


# ---- directories that are used -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["deltaci.db", "deltaci.db-wal", "deltaci.db-shm", "deltaci.db-journal", "artifacts", "admin-token"]
)
def test_a_directory_with_anything_of_an_earlier_life_is_refused(source: Path, data: Path, name: str) -> None:
    """A log that is left of a database that is gone would even be folded into the new one."""
    data.mkdir(mode=0o700)
    (data / name).touch()

    with pytest.raises(ConfigError, match=rf"has {name} already: move the directory away and keep it"):
        restore(source, data)

    assert names(data) == {name}


def test_a_backup_is_no_place_to_restore_to(source: Path) -> None:
    """Two arguments mixed up cost nothing."""
    with pytest.raises(ConfigError, match="is a backup itself"):
        restore(source, source)

    backup.check(source, read_manifest(source))


def test_a_directory_whose_server_is_alive_is_refused(source: Path, data: Path) -> None:
    """Also if its database was removed from under it: it still writes to that, and would never see the new one."""
    with directory.held(data), pytest.raises(ConfigError, match="another process works on"):
        restore(source, data)

    assert names(data) == set()


def test_a_directory_that_others_can_read_is_refused(source: Path, data: Path) -> None:
    """As `deltaci serve` would refuse it."""
    data.mkdir()
    data.chmod(0o755)

    with pytest.raises(ConfigError, match="chmod 700"):
        restore(source, data)


# ---- failures and kills ------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process ends here, without a word."""


def stop_at(monkeypatch: pytest.MonkeyPatch, nth: int, error: BaseException) -> list[str]:
    """Raise at the nth step that changes the disk; answers the steps that were made."""
    steps: list[str] = []

    def counted(name: str, function: Callable[..., object]) -> Callable[..., object]:
        def step(*args: object, **more: object) -> object:
            steps.append(name)
            if len(steps) > nth:
                raise error
            return function(*args, **more)

        return step

    for module, name in (
        (restores, "copy_file"),
        (restores, "sync_directory"),
        (restores, "sync_tree"),
        (restores, "_give_to_owner"),
    ):
        monkeypatch.setattr(module, name, counted(name, getattr(module, name)))
    for name in ("mkdir", "rename", "rmdir"):
        monkeypatch.setattr(Path, name, counted(name, getattr(Path, name)))
    return steps


def test_a_failure_leaves_the_directory_as_it_was(source: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever step it is, until the database has its name; the next restore works."""
    failures: list[str] = []
    data.mkdir(mode=0o700)
    while True:
        with monkeypatch.context() as patch:
            stop_at(patch, len(failures), OSError(errno.ENOSPC, "No space left on device"))
            try:
                restore(source, data)
            except (RestoreFailed, ConfigError) as error:
                failures.append(str(error))
        if (data / "deltaci.db").exists():
            break
        assert names(data) == set(), failures

    assert len(failures) >= 10
    assert all("No space left on device" in text for text in failures)
    assert examine(data / "deltaci.db") == read_manifest(source).contents


def test_a_directory_that_was_made_for_a_restore_that_failed_is_gone(source: Path, data: Path) -> None:
    """Also when it fails outside of here: a database that cannot be repaired is no database."""
    with pytest.raises(StoreUnavailable), restoring(source, data, can_leave_out=False):
        raise StoreUnavailable

    assert not data.exists()


def test_a_killed_restore_is_no_home_for_a_server_and_is_done_again(
    source: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that started on half of it would begin a new life, and the admin would believe that all is lost."""
    kills = 0
    while True:
        with monkeypatch.context() as patch:
            steps = stop_at(patch, kills, Killed())
            patch.setattr(restores, "_undo", lambda *_, **__: None)
            try:
                restore(source, data)
            except Killed:
                pass
            else:
                break
        if (data / "deltaci.db").exists():
            with directory.held(data):
                assert names(data) >= {"deltaci.db", "admin-token", "artifacts"}, steps
                break
        if (data / directory.UNFINISHED).exists():
            with pytest.raises(ConfigError, match="did not finish"), directory.held(data):
                pass
        restore(source, data)
        assert names(data) == {"deltaci.db", "admin-token", "artifacts"}, steps
        shutil.rmtree(data)
        kills += 1

    assert kills >= 10, kills
    assert examine(data / "deltaci.db") == read_manifest(source).contents
