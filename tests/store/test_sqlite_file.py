"""The database file: who may read it, how it comes to its schema, what it keeps."""

import os
import resource
import sqlite3
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest

from deltaci.domain import job as jobs
from deltaci.domain.errors import SchemaTooNew, SnapshotCorrupt, StoreUnavailable
from deltaci.domain.events import SYSTEM
from deltaci.store import rows
from deltaci.store.database import Database
from deltaci.store.engine import Inline, Threaded
from deltaci.store.sql import migrations, queries
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Audit
from tests.builders import a_created_job, a_created_run, a_job, a_planned_run, a_run_id, leased, save_job, save_run

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("is_inline_first", [True, False])
async def test_a_store_opened_again_has_everything(path: Path, is_inline_first: bool) -> None:
    """Threads or none, it is the same file."""
    async with SqliteStore.open(path, engine=Inline.open if is_inline_first else Threaded.open) as store:
        await store.commit(a_planned_run(1, (a_created_job(),)))
        await store.commit([save_job(leased(a_job()))])
        before = [entry async for entry in store.journal()]

    async with SqliteStore.open(path, engine=Threaded.open if is_inline_first else Inline.open) as store:
        after = [entry async for entry in store.journal()]
        loaded = await store.load_job(a_job().id)

    assert before == after
    assert loaded is not None
    assert leased(a_job()).state == loaded[0]


async def test_nobody_else_can_read_the_files(store: SqliteStore, path: Path) -> None:
    """They hold secrets of repositories; also the log and the index beside the database."""
    await store.commit([save_run(a_created_run())])

    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}

    assert modes == {"store.db": 0o600, "store.db-wal": 0o600, "store.db-shm": 0o600}


async def test_a_commit_waits_for_the_disk(store: SqliteStore) -> None:
    """Write-ahead log with full synchronisation: anything less loses acknowledged commits in a power cut."""
    connection = store._writer.database.connection

    settings = [connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous")]

    assert settings == ["wal", 2]


async def test_readers_cannot_write(store: SqliteStore) -> None:
    """There is one writer, and the database enforces it."""
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        store._reader.connection.execute("DELETE FROM run")


async def test_an_empty_file_comes_to_the_newest_schema(store: SqliteStore, path: Path) -> None:
    """Every migration is applied, once, and the version says so."""
    connection = store._writer.database.connection
    before = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    store._writer.database.migrate(path)

    assert before == connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    assert (len(migrations()),) == connection.execute("PRAGMA user_version").fetchone()


async def test_a_newer_database_is_refused_and_left_alone(path: Path) -> None:
    """An older program would write what the newer one cannot read."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()

    with pytest.raises(SchemaTooNew, match="999"):
        async with SqliteStore.open(path):
            pass

    connection = sqlite3.connect(path)
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    connection.close()


async def test_a_failing_migration_leaves_the_old_schema(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All or nothing: a half-migrated database fits no program."""
    async with SqliteStore.open(path):
        pass
    broken = (*migrations(), ("CREATE TABLE fresh (id INTEGER)", "CREATE TABLE fresh (id INTEGER)"))
    monkeypatch.setattr("deltaci.store.database.migrations", lambda: broken)

    with pytest.raises(StoreUnavailable, match="fresh"):
        async with SqliteStore.open(path):
            pass

    monkeypatch.undo()
    async with SqliteStore.open(path) as store:
        assert (await store.counts())["journal"] == {"entries": 0}


@pytest.fixture
def no_database(path: Path) -> Path:
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    return path


@pytest.mark.parametrize("is_inline", [True, False])
async def test_a_file_that_is_no_database_cannot_be_opened(no_database: Path, is_inline: bool) -> None:
    """The error names the file, and no thread is left behind."""
    with pytest.raises(StoreUnavailable, match=r"store\.db"):
        async with SqliteStore.open(no_database, engine=Inline.open if is_inline else Threaded.open):
            pass


async def test_a_directory_that_is_not_there_cannot_be_opened(tmp_path: Path) -> None:
    """Making it is the caller's decision."""
    with pytest.raises(StoreUnavailable):
        async with SqliteStore.open(tmp_path / "missing" / "store.db"):
            pass


async def test_an_error_inside_comes_out_as_it_is(path: Path) -> None:
    """Not wrapped into a group: callers catch it by its class."""
    with pytest.raises(KeyError):
        async with SqliteStore.open(path):
            raise KeyError("inside")


async def test_closing_answers_what_was_accepted(path: Path) -> None:
    """Who was taken in is served; who comes later is told."""
    results: list[str] = []

    async def commit(number: int) -> None:
        await store.commit([save_run(a_created_run(number))])
        results.append("stored")

    async with anyio.create_task_group() as group:
        async with SqliteStore.open(path) as store:
            for number in range(10):
                group.start_soon(commit, number)
            await anyio.wait_all_tasks_blocked()
        with pytest.raises(StoreUnavailable):
            await store.commit([save_run(a_created_run(11))])
        with pytest.raises(StoreUnavailable):
            await store.load_run(a_run_id())

    assert results == ["stored"] * 10


async def test_a_snapshot_that_cannot_be_decoded_names_its_entity(store: SqliteStore) -> None:
    """One broken row must be found, and must not be guessed at."""
    await store.commit([save_run(a_created_run(1)), save_run(a_created_run(2))])
    store._writer.database.connection.execute("UPDATE run SET snapshot = x'00' WHERE id = ?", (a_run_id(1),))

    with pytest.raises(SnapshotCorrupt) as caught:
        await store.load_run(a_run_id(1))

    assert {"entity_id": a_run_id(1)} == caught.value.details
    assert a_created_run(2).state == await store.load_run(a_run_id(2))


async def test_a_second_program_may_append_in_between(store: SqliteStore, path: Path) -> None:
    """A command line tool on a live database goes on with the same chain."""
    await store.commit([save_run(a_created_run(1))])

    async with SqliteStore.open(path, engine=Inline.open) as other:
        await other.commit([Audit(at_ms=0, cause=SYSTEM, type="TokenMade")])
    await store.commit([save_run(a_created_run(2))])

    assert [entry.type async for entry in store.journal()] == ["RunCreated", "TokenMade", "RunCreated"]


async def test_the_rows_of_a_run_are_read_as_of_one_instant(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another connection commits between two of its statements is not seen by the second."""
    await store.commit(a_planned_run(1, (a_created_job(),)))
    read_jobs, other = rows._jobs, sqlite3.connect(path, isolation_level=None)

    def read_late(connection: sqlite3.Connection, run_id: str) -> Any:
        other.execute("UPDATE job SET revision = 9")
        return read_jobs(connection, run_id)

    monkeypatch.setattr(rows, "_jobs", read_late)
    first = await store.rows_of_run(a_run_id(1))
    second = await store.rows_of_run(a_run_id(1))

    other.close()
    assert first is not None
    assert second is not None
    assert [one.jobs[0].columns.revision for one in (first, second)] == [1, 9]


# Rows from the end, everything there is, or counts.
SCANNING = {
    "journal_tail",
    "newest_at_ms",
    "queued_jobs",
    "repos",
    "runners",
    "count_runs",
    "count_jobs",
    "count_outbox",
    "count_journal",
    "outbox",
    "every_artifact",
    "artifact_bytes",
}
PARAMETERS = ("before", "limit", "repo_id", "run_id", "state", "now_ms", "job_id", "attempt", "first", "end")


def scans(connection: sqlite3.Connection, sql: str) -> bool:
    """Whether the query reads a whole table; a list that it is given (`json_each`) is none."""
    values: Any = dict.fromkeys(PARAMETERS, 1) if ":" in sql else (1,) * sql.count("?")
    details = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]
    details = [detail for detail in details if not detail.startswith("SCAN json_each VIRTUAL TABLE")]
    return any(detail.startswith("SCAN") and "USING" not in detail and "(" not in detail for detail in details)


def test_no_query_reads_a_whole_table(path: Path) -> None:
    """With millions of finished runs, every query but those that list or count all must find its rows by an index."""
    database = Database.open_writer(path)

    scanning = {name for name, sql in queries().items() if scans(database.connection, sql)}

    database.close()
    assert set() == scanning - SCANNING


async def test_a_large_commit_opens_no_file(store: SqliteStore) -> None:
    """What a savepoint may have to undo stays in memory: without descriptors, opening a file for it would be fatal."""
    events = tuple(a_created_job(index=index) for index in range(600))
    await store.commit(a_planned_run(1, events))
    large = [save_job(leased(jobs.created(event))) for event in events]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    newest = os.open(os.devnull, os.O_RDONLY)
    os.close(newest)

    resource.setrlimit(resource.RLIMIT_NOFILE, (newest, hard))
    try:
        await store.commit(large)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert not store.is_broken
    assert len(await store.held_jobs()) == len(events)
