"""Backups: whole or not there, of one instant, and without harm to whoever works on the original."""

import errno
import hashlib
import os
import resource
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deltaci.domain.errors import ConfigError, SchemaTooNew
from deltaci.store import backup
from deltaci.store.backup import BackupFailed, BackupUnusable, Manifest, Sum, examine, make, read_manifest
from deltaci.store.directory import locked
from deltaci.store.sql import migrations
from tests.builders import NOW_MS
from tests.store.support import ARTIFACT_BYTES, SCHEMAS, a_data_directory, database_of

ROOT = Path(__file__).parents[2]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with everything in it, and no server at home."""
    return a_data_directory(tmp_path / "data")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def made(data: Path, target: Path) -> Manifest:
    return make(data, target, program="1.2.3", now_ms=NOW_MS)


def files(root: Path) -> dict[str, str]:
    """Every file below `root`, by its bytes; an empty log and the index of a log hold nothing."""
    found = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".db-shm" and path.stat().st_size)
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_a_backup_holds_what_is_state_and_says_what_that_is(data: Path, target: Path) -> None:
    """Database, artifacts and token; mirrors are fetched again by whoever needs them."""
    (data / "mirrors" / "repo_1").mkdir(parents=True)

    manifest = made(data, target)

    names = {*files(target)}
    (artifact,) = (data / "artifacts").rglob("shop")
    assert names == {"backup.json", "deltaci.db", "admin-token", str(artifact.relative_to(data))}
    assert read_manifest(target) == manifest
    assert (manifest.program, manifest.made_at_ms) == ("1.2.3", NOW_MS)
    assert (manifest.artifacts, manifest.artifact_bytes, manifest.damaged) == (1, len(ARTIFACT_BYTES), ())
    assert manifest.contents == examine(data / "deltaci.db")
    assert manifest.contents.live_runs
    assert manifest.contents.live_jobs
    backup.check(target, manifest)


def test_only_its_owner_can_read_a_backup(data: Path, target: Path) -> None:
    """It holds the secrets of every repository."""
    made(data, target)

    modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in (target, *target.rglob("*"))}

    assert modes == {(True, 0o700), (False, 0o600)}


def test_nothing_in_the_data_directory_is_changed(data: Path, target: Path) -> None:
    """Also a log that a crash left is read, and not folded in: that is for its server."""
    leave_a_log(data)
    before = files(data)

    manifest = made(data, target)

    assert "deltaci.db-wal" in before
    assert files(data) == before
    assert in_log(target) == [("left in the log",)]
    assert not list(target.glob("*-wal"))
    assert manifest.contents.schema_version == len(migrations())


def leave_a_log(data: Path) -> None:
    write = "c.execute(\"UPDATE token SET label = 'left in the log'\"); c.commit()"
    script = f"import os, sqlite3; c = sqlite3.connect({str(data / 'deltaci.db')!r}); {write}; os._exit(0)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def in_log(place: Path) -> list[Any]:
    connection = sqlite3.connect(f"{(place / 'deltaci.db').as_uri()}?mode=ro", uri=True)
    rows = connection.execute("SELECT label FROM token WHERE label LIKE 'left%'").fetchall()
    connection.close()
    return rows


@pytest.mark.slow
def test_a_database_under_load_is_backed_up_as_of_one_instant(tmp_path: Path, target: Path) -> None:
    """Whatever was acknowledged before is in it, nothing in it is half, and the writer goes on meanwhile."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    command = [sys.executable, "-m", "tests.store.writing_process", str(data / "deltaci.db")]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        try:
            for number in range(4):
                acknowledged = dict(writer.stdout.readline().split() for _ in range(400))
                manifest = made(data, target.with_name(f"backup-{number}"))
                stored = revisions(target.with_name(f"backup-{number}"))

                assert all(stored[job_id] >= int(revision) for job_id, revision in acknowledged.items())
                assert manifest.contents.journal_entries == sum(stored.values())
            assert writer.poll() is None
        finally:
            writer.kill()
            writer.stdout.read()


class Busy:
    """A connection to a database into which somebody else writes between any two steps of a copy."""

    def __init__(self, connection: sqlite3.Connection, data: Path) -> None:
        self._connection = connection
        self._data = data
        self.steps = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def backup(self, target: sqlite3.Connection, *, pages: int) -> None:
        def write(*_: int) -> None:
            self.steps += 1
            assert self.steps < 1_000, "the copy begins anew with each step"
            with database_of(self._data) as connection:
                connection.execute("UPDATE token SET label = ?", (f"written {self.steps}",))

        self._connection.backup(target, pages=pages, progress=write)


def test_a_copy_is_not_begun_anew_by_every_write(data: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server under load would otherwise never be backed up; what is written meanwhile is in the next backup."""
    with database_of(data) as connection:
        (before,) = connection.execute("SELECT label FROM token").fetchone()
    connect, busy = backup.connect, []

    def connected(path: Path, **options: Any) -> Any:
        if path.parent != data:
            return connect(path, **options)
        busy.append(Busy(connect(path, **options), data))
        return busy[-1]

    monkeypatch.setattr(backup, "connect", connected)
    monkeypatch.setattr(backup, "PAGES_AT_ONCE", 1)
    made(data, target)
    monkeypatch.undo()

    with database_of(data) as connection:
        assert connection.execute("SELECT label FROM token").fetchall() == [(f"written {busy[0].steps}",)]
    with database_of(target) as connection:
        assert connection.execute("SELECT label FROM token").fetchall() == [(before,)]
    assert busy[0].steps > 50


def revisions(place: Path) -> dict[str, int]:
    """Of every run and job: together, the entries of the journal."""
    with database_of(place) as connection:
        return dict(connection.execute("SELECT id, revision FROM run UNION ALL SELECT id, revision FROM job"))


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda path: str(path.stem))
def test_a_database_of_any_older_schema_can_be_backed_up(tmp_path: Path, target: Path, schema: Path) -> None:
    """A backup is what one makes before the first start of a newer program, with the newer program."""
    data = a_data_directory(tmp_path / "data", schema)

    manifest = made(data, target)

    assert f"{manifest.contents.schema_version:04}" == schema.stem


def test_artifacts_that_are_gone_or_spoilt_are_named(data: Path, target: Path) -> None:
    """The database is worth more than they are: there is a backup, and it says what it lacks."""
    (spoilt,) = (data / "artifacts").rglob("shop")
    spoilt.write_bytes(ARTIFACT_BYTES.upper())
    wrong = made(data, target)
    spoilt.unlink()
    gone = made(data, target.with_name("second"))

    name = str(spoilt.relative_to(data / "artifacts"))
    assert (wrong.damaged, wrong.artifacts, wrong.artifact_bytes) == ((name,), 0, 0)
    assert (gone.damaged, gone.artifacts, gone.artifact_bytes) == ((name,), 0, 0)
    assert not list(target.rglob("shop"))


# ---- what is refused ---------------------------------------------------------------------------------------------


def test_a_backup_replaces_nothing(data: Path, target: Path) -> None:
    """Yesterday's backup must not be lost to a script that forgot the date."""
    target.write_text("precious")

    with pytest.raises(ConfigError, match="replaces nothing"):
        made(data, target)

    assert target.read_text() == "precious"
    assert not target.with_name("backup.partial").exists()


@pytest.mark.parametrize(
    ("words", "where", "says"),
    [
        ("nowhere", "backup", r"deltaci\.db does not exist"),
        ("data", "missing/backup", "there is no directory"),
        ("data", "data/backup", "is inside"),
        ("data", "data/../data/artifacts/backup", "is inside"),
    ],
)
def test_a_place_that_cannot_be_right_is_refused(data: Path, tmp_path: Path, words: str, where: str, says: str) -> None:
    """Each with what is wrong about it; nothing is made."""
    before = files(tmp_path)

    with pytest.raises(ConfigError, match=says):
        made(tmp_path / words, tmp_path / where)

    assert files(tmp_path) == before


def test_a_database_of_a_newer_program_is_refused_and_left_alone(data: Path, target: Path) -> None:
    """This program cannot know what else of it is state."""
    with database_of(data) as connection:
        connection.execute("PRAGMA user_version = 999")
    before = files(data)

    with pytest.raises(SchemaTooNew, match="999"):
        made(data, target)

    assert files(data) == before
    assert not target.exists()


def test_a_damaged_database_is_no_backup(data: Path, target: Path) -> None:
    """Better no backup than one that nobody can restore: the earlier ones are kept for longer then."""
    with database_of(data) as connection:
        connection.execute("UPDATE journal SET at_ms = at_ms + 1 WHERE id = 5")

    with pytest.raises(BackupFailed, match=r"is damaged: .* entry 5 of the journal .* keep your earlier backups"):
        made(data, target)

    assert no_trace(target)


def test_pages_that_are_damaged_are_found(data: Path, target: Path) -> None:
    """The journal may be whole and the rest not."""
    with database_of(data) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'job_by_run'").fetchone()
    with (data / "deltaci.db").open("r+b") as file:
        file.seek((page - 1) * 4096 + 8)
        file.write(b"\xff" * 600)

    with pytest.raises(BackupFailed, match="is damaged"):
        made(data, target)

    assert no_trace(target)


def no_trace(target: Path) -> bool:
    return not [path for path in target.parent.iterdir() if path.name.startswith(target.name)]


# ---- disks, kills, and two at once -------------------------------------------------------------------------------


def test_what_does_not_fit_is_not_begun(data: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the server's own disk some room is left for the server: a backup must not be what stops it."""
    disk = os.statvfs(data)
    needed = (data / "deltaci.db").stat().st_size + len(ARTIFACT_BYTES)

    def free(spare_bytes: int) -> None:
        blocks = (backup.RESERVE_BYTES + needed + spare_bytes) // disk.f_frsize + 1
        monkeypatch.setattr(
            os,
            "statvfs",
            lambda _: os.statvfs_result((*disk[:4], blocks, *disk[5:])),
        )

    free(-disk.f_frsize)
    with pytest.raises(BackupFailed, match=rf"takes {needed} bytes, and the disk has \d+ to spare"):
        made(data, target)
    assert no_trace(target)
    free(0)
    made(data, target)


@contextmanager
def file_size_limit(bytes_max: int) -> Iterator[None]:
    """No file may grow beyond it: writing more fails like on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_max, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("bytes_max", [0, 5, 100, 4096, 50_000, 150_000])
def test_a_disk_that_takes_no_more_leaves_no_half_backup(data: Path, target: Path, bytes_max: int) -> None:
    """In the database's copy or in a file beside it; the original is as it was, and the next backup works."""
    before = files(data)

    with file_size_limit(bytes_max), pytest.raises(BackupFailed, match="nothing of it was kept"):
        made(data, target)

    assert no_trace(target)
    assert files(data) == before
    made(data, target)


def test_no_failure_on_the_way_to_the_disk_leaves_a_half_backup(
    data: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the syncs fails, up to the one after which the backup has its name."""
    sync, failures = backup._sync, 0
    while True:
        calls: list[Path] = []

        def failing(path: Path, flags: int, calls: list[Path] = calls, nth: int = failures) -> None:
            calls.append(path)
            if len(calls) > nth:
                raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
            sync(path, flags)

        monkeypatch.setattr(backup, "_sync", failing)
        try:
            made(data, target)
        except BackupFailed:
            if target.exists():  # its name is there and may not stand a power cut
                break
            assert no_trace(target)
            failures += 1
    assert failures >= 7, "each file and each directory"
    monkeypatch.undo()
    backup.check(target, read_manifest(target))


KILLED = """
import os, signal, sys
from pathlib import Path
from deltaci.store import backup
setattr(backup, sys.argv[3], lambda *_: os.kill(os.getpid(), signal.SIGKILL))
backup.make(Path(sys.argv[1]), Path(sys.argv[2]), program="", now_ms=0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", ["examine", "_copy_artifacts", "sync_tree"])
def test_a_killed_backup_has_no_name_and_is_in_nobodys_way(data: Path, target: Path, at: str) -> None:
    """What it left is no backup for `restore`, and the next one to the same name takes it away."""
    killed = subprocess.run([sys.executable, "-c", KILLED, str(data), str(target), at], cwd=ROOT, check=False)

    left = target.with_name("backup.partial")
    assert killed.returncode == -signal.SIGKILL
    assert left.exists()
    assert not target.exists()
    if at != "sync_tree":
        with pytest.raises(BackupUnusable, match="is no backup"):
            read_manifest(left)
    backup.check(target, made(data, target))
    assert not left.exists()


def test_two_backups_of_one_name_at_once_do_not_mix(data: Path, target: Path) -> None:
    """A slow one and the next of cron: the second is refused."""
    partial = target.with_name("backup.partial")
    partial.mkdir()
    (partial / "work").touch()

    with locked(partial), pytest.raises(ConfigError, match="another process works on"):
        made(data, target)

    assert [path.name for path in partial.iterdir()] == ["work"]
    assert not target.exists()


def test_a_difference_is_named(tmp_path: Path) -> None:
    """What a person reads when a backup cannot be restored."""
    file = tmp_path / "file"
    file.write_bytes(b"abc")
    right = Sum(3, hashlib.sha256(b"abc").hexdigest())

    assert backup.difference(file, right) == ""
    assert backup.difference(file, Sum(4, right.sha256)) == "has 3 bytes instead of 4: it was cut off or changed"
    assert backup.difference(file, Sum(3, "0" * 64)) == "was changed: its SHA-256 differs"
    assert backup.difference(tmp_path / "none", right) == "cannot be read: No such file or directory"
