"""How a database comes from one schema to the next: all or nothing, once, and never back."""

import hashlib
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Barrier, Thread

import pytest

from deltaci.domain.errors import SchemaTooNew, SchemaTooOld, StoreError, StoreUnavailable
from deltaci.invariants.verify import verify
from deltaci.store.database import Database, schema_version
from deltaci.store.prepare import prepare
from deltaci.store.sql import migrations
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Token
from tests.builders import a_created_job, a_planned_run

pytestmark = pytest.mark.anyio

NEXT = (
    "CREATE TABLE quota (repo_id TEXT PRIMARY KEY, jobs INTEGER NOT NULL)",
    "ALTER TABLE token ADD COLUMN expires_at_ms INTEGER",
    "UPDATE token SET expires_at_ms = created_at_ms + 1000",
)
A_TOKEN = Token(id="tok_1", token_hash="h" * 64, scope="runner", label="", created_at_ms=5)


@pytest.fixture
def lived_in(path: Path) -> Path:
    """A database of today's schema with something in it, closed in good order."""
    database = Database.open_writer(path)
    assert database.apply([prepare([*a_planned_run(1, (a_created_job(),)), A_TOKEN])]) == [None]
    database.close()
    return path


def plant(monkeypatch: pytest.MonkeyPatch, *more: tuple[str, ...]) -> None:
    """Let the program know further migrations."""
    every = (*migrations(), *more)
    monkeypatch.setattr("deltaci.store.database.migrations", lambda: every)


def content(path: Path) -> list[str]:
    """Schema and rows."""
    connection = sqlite3.connect(path)
    lines = [*connection.iterdump(), str(connection.execute("PRAGMA user_version").fetchone())]
    connection.close()
    return lines


def files(path: Path) -> dict[str, str]:
    """The bytes of the database and of what lies beside it."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in path.parent.iterdir()}


async def test_the_next_migration_is_applied_once_and_keeps_what_is_there(
    lived_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the first start of the new program, and at no later one: the second time it would fail."""
    plant(monkeypatch, NEXT)

    for _ in range(2):
        async with SqliteStore.open(lived_in) as store:
            report = await verify(store)

    connection = sqlite3.connect(lived_in)
    assert connection.execute("SELECT id, expires_at_ms FROM token").fetchall() == [("tok_1", 1005)]
    connection.close()
    assert schema_version(lived_in) == len(migrations()) + 1
    assert report.violations == ()
    assert report.checked["journal"] > 0


async def test_a_statement_that_fails_leaves_schema_rows_and_version(
    lived_in: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two migrations, and the second fails at its end: neither happened, and the old program goes on."""
    before = content(lived_in)
    plant(monkeypatch, NEXT, ("DELETE FROM journal", "INSERT INTO quota VALUES ('repo_1', NULL)"))

    with pytest.raises(StoreUnavailable, match=r"quota\.jobs"):
        async with SqliteStore.open(lived_in):
            pass

    assert content(lived_in) == before
    monkeypatch.undo()
    async with SqliteStore.open(lived_in) as store:
        assert (await verify(store)).violations == ()


KILLED = """
import os, signal, sys
from pathlib import Path
from deltaci.store import database
from tests.store.test_migrations import NEXT

def statements():
    for number, statement in enumerate(NEXT):
        if number == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        yield statement
    os.kill(os.getpid(), signal.SIGKILL)

every = (*database.migrations(), statements())
database.migrations = lambda: every
database.Database.open_writer(Path(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("at", [0, 2, len(NEXT)])
def test_a_kill_in_the_middle_leaves_what_was_there(lived_in: Path, at: int) -> None:
    """Before, within and after the last statement, and before the commit."""
    before = content(lived_in)

    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(lived_in), str(at)], cwd=Path(__file__).parents[2], check=False, timeout=60
    )

    assert killed.returncode == -signal.SIGKILL
    assert content(lived_in) == before


async def test_two_programs_that_start_at_once_migrate_once(lived_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second waits for the first, and finds nothing left to do."""
    plant(monkeypatch, NEXT)
    together, failures = Barrier(2), []

    def start() -> None:
        together.wait(10)
        try:
            Database.open_writer(lived_in).close()
        except StoreError as error:
            failures.append(error)

    threads = [Thread(target=start) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert schema_version(lived_in) == len(migrations()) + 1


# ---- versions that do not fit ------------------------------------------------------------------------------------


def at_rest(path: Path) -> None:
    """A newer program was here and ended in good order."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()


def left_by_a_crash(path: Path) -> None:
    """A newer program migrated and was killed: what it wrote stands in the log alone."""
    migrate = "import os, sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA user_version = 999')"
    script = f"{migrate}; os._exit(0)"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True, timeout=60)
    assert path.with_name("store.db-wal").stat().st_size


@pytest.mark.parametrize("made", [at_rest, left_by_a_crash])
@pytest.mark.parametrize("is_readonly", [False, True])
async def test_not_one_byte_of_a_newer_database_is_touched(
    lived_in: Path, made: Callable[[Path], None], is_readonly: bool
) -> None:
    """Neither its header, nor the log that only its own program can fold in; the index beside it holds nothing."""
    made(lived_in)
    before = {name: digest for name, digest in files(lived_in).items() if not name.endswith("-shm")}

    with pytest.raises(SchemaTooNew, match=r"schema version 999, this program knows \d+: use the newer program"):
        async with SqliteStore.open(lived_in, is_readonly=is_readonly):
            pass

    assert {name: digest for name, digest in files(lived_in).items() if not name.endswith("-shm")} == before


async def test_who_only_looks_migrates_nothing(lived_in: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer `deltaci verify` beside an older server that runs would pull the schema away from under it."""
    before = files(lived_in)
    plant(monkeypatch, NEXT)

    with pytest.raises(SchemaTooOld, match="deltaci serve"):
        async with SqliteStore.open(lived_in, is_readonly=True):
            pass

    assert files(lived_in) == before


async def test_who_only_looks_reads_everything_and_writes_nothing(lived_in: Path) -> None:
    """`verify` on a database at rest leaves it as it is, byte for byte."""
    before = files(lived_in)

    async with SqliteStore.open(lived_in, is_readonly=True) as store:
        report = await verify(store)
        with pytest.raises(StoreUnavailable):
            await store.commit([A_TOKEN])

    assert report.violations == ()
    assert report.checked["runs"] == 1
    assert files(lived_in)["store.db"] == before["store.db"]


async def test_who_only_looks_makes_no_database(path: Path) -> None:
    """A name misspelt is an error, not an empty database."""
    with pytest.raises(StoreError):
        async with SqliteStore.open(path, is_readonly=True):
            pass

    assert files(path) == {}
