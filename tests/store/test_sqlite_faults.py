"""What goes wrong around a database: races for the file, full disks, I/O errors, commits that cannot be stored."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import anyio
import pytest

from deltaci.domain.effects import ReportRun
from deltaci.domain.errors import StoreError, StoreUnavailable
from deltaci.invariants.verify import verify
from deltaci.store.engine import Inline, Threaded
from deltaci.store.sqlite import COMMITS_MAX, SqliteStore
from deltaci.store.writes import LogChunk, Owe, Write
from tests.builders import NOW_MS, a_created_job, a_created_run, a_job, a_planned_run, a_run_id, owed, save_run

pytestmark = pytest.mark.anyio

HOLDER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
print("free", flush=True)
"""


def a_chunk(offset: int, size: int) -> LogChunk:
    return LogChunk(job_id=a_job().id, attempt=1, offset=offset, data=b"x" * size, at_ms=NOW_MS)


@pytest.fixture
def held(path: Path) -> Callable[[], AbstractContextManager[None]]:
    """Another process that holds the database within a `with held():`."""

    @contextmanager
    def hold() -> Iterator[None]:
        command = [sys.executable, "-c", HOLDER, str(path)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
            assert holder.stdin is not None
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            yield
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert holder.stdout.readline() == "free\n"

    return hold


@pytest.mark.slow
@pytest.mark.parametrize("is_inline", [True, False])
async def test_a_database_held_by_another_process_is_waited_for_with_a_bound(
    path: Path, held: Callable[[], AbstractContextManager[None]], is_inline: bool
) -> None:
    """A clear error and nothing half done; afterwards it works as before. Reads go on all the time."""
    async with SqliteStore.open(path, engine=Inline.open if is_inline else Threaded.open, busy_timeout_ms=50) as store:
        await store.commit([save_run(a_created_run(1))])

        with held():
            with pytest.raises(StoreUnavailable, match="locked"):
                await store.commit([save_run(a_created_run(2))])
            read = await store.load_run(a_run_id(1))
        await store.commit([save_run(a_created_run(3))])

        assert a_created_run(1).state == read
        assert not store.is_broken
        assert [a_run_id(3), a_run_id(1)] == [one.run.id for one in await store.list_runs()]


async def test_a_short_hold_is_waited_out(path: Path) -> None:
    """A tool that appends a row must not make the server fail."""
    async with SqliteStore.open(path, busy_timeout_ms=5_000) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")

        async with anyio.create_task_group() as group:
            group.start_soon(store.commit, [save_run(a_created_run(1))])
            await anyio.wait_all_tasks_blocked()
            other.execute("ROLLBACK")
        other.close()

        assert a_created_run(1).state == await store.load_run(a_run_id(1))


async def test_a_full_disk_stores_nothing_and_breaks_nothing(store: SqliteStore) -> None:
    """No acknowledgement while it is full; it works again when there is space."""
    connection = store._writer.database.connection
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    connection.execute(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(StoreUnavailable, match="full"):
        await store.commit([save_run(a_created_run(1)), a_chunk(0, 100_000)])
    was_broken = store.is_broken
    nothing = await store.counts()
    connection.execute("PRAGMA max_page_count = 1000000")
    await store.commit([save_run(a_created_run(1)), a_chunk(0, 100_000)])

    assert (was_broken, nothing["run"]) == (False, {})
    assert (await store.log_state(a_job().id, 1)).size == 100_000


class Failing:
    """A connection on which one statement fails as the disk would make it fail."""

    def __init__(self, connection: sqlite3.Connection, statement: str, code: int) -> None:
        self._connection = connection
        self._statement = statement
        self._code = code

    def __getattr__(self, name: str) -> object:
        return getattr(self._connection, name)

    def execute(self, sql: str, *values: object) -> sqlite3.Cursor:
        if sql == self._statement:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(sql, *values)


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_CORRUPT])
async def test_after_an_io_error_on_commit_nothing_is_answered_any_more(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """It is unknown what reached the disk, and a second fsync would lie: everybody is told, for good."""
    database = store._writer.database
    failing = Failing(database.connection, "COMMIT", code)
    answers: list[StoreError] = []

    async def commit(number: int) -> None:
        try:
            await store.commit([save_run(a_created_run(number))])
        except StoreUnavailable as error:
            answers.append(error)

    with monkeypatch.context() as patched:
        patched.setattr(database, "connection", failing)
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(commit, number)

    await commit(6)
    with pytest.raises(StoreUnavailable, match="restart"):
        await store.load_run(a_run_id(1))
    assert (len(answers), store.is_broken) == (6, True)


async def test_a_full_disk_found_by_the_commit_itself_breaks_nothing(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log file is written then, and the disk may be full only there."""
    database = store._writer.database
    failing = Failing(database.connection, "COMMIT", sqlite3.SQLITE_FULL)

    with monkeypatch.context() as patched:
        patched.setattr(database, "connection", failing)
        with pytest.raises(StoreUnavailable):
            await store.commit([save_run(a_created_run(1))])

    await store.commit([save_run(a_created_run(1))])
    assert (store.is_broken, len(await store.list_runs())) == (False, 1)


async def test_a_commit_that_cannot_be_stored_fails_alone(store: SqliteStore) -> None:
    """A number that SQLite does not take is one caller's trouble; the batch runs again without it."""
    answers: dict[int, StoreError] = {}

    async def commit(number: int) -> None:
        writes: list[Write] = [save_run(a_created_run(number)), *owed(a_created_run(number))]
        if number == 3:
            writes.append(Owe(effect=ReportRun(a_run_id(3)), due_at_ms=2**70))
        try:
            await store.commit(writes)
        except StoreError as error:
            answers[number] = error

    async with anyio.create_task_group() as group:
        for number in range(8):
            group.start_soon(commit, number)

    assert list(answers) == [3]
    assert [a_run_id(number) for number in (7, 6, 5, 4, 2, 1, 0)] == [one.run.id for one in await store.list_runs()]
    assert (await verify(store)).violations == ()


async def test_callers_share_transactions(store: SqliteStore) -> None:
    """A transaction a commit would be a wait for the disk a commit."""
    count = 3 * COMMITS_MAX
    before = store.batches

    async with anyio.create_task_group() as group:
        for number in range(count):
            group.start_soon(store.commit, [save_run(a_created_run(number))])

    assert store.batches - before <= 4
    assert {"CREATED": count} == (await store.counts())["run"]


def acknowledged_until_killed(path: Path, count: int) -> dict[str, int]:
    """Revisions by job that a writing process acknowledged; it is killed after `count` acknowledgements were read."""
    command = [sys.executable, "-m", "tests.store.writing_process", str(path)]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as child:
        assert child.stdout is not None
        lines = [child.stdout.readline() for _ in range(count)]
        child.kill()
        lines += child.stdout.read().splitlines(keepends=True)
    # The last line may be cut: it was never said.
    return {job_id: int(revision) for job_id, revision in (line.split() for line in lines if line.endswith("\n"))}


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 60, 700])
async def test_a_killed_process_loses_nothing_that_it_acknowledged(path: Path, count: int) -> None:
    """SIGKILL in the midst of writing; every acknowledged step is there, and the journal is whole."""
    acknowledged = acknowledged_until_killed(path, count)

    async with SqliteStore.open(path) as store:
        stored = {job_id: loaded[0].revision for job_id in acknowledged if (loaded := await store.load_job(job_id))}
        report = await verify(store)

    assert report.violations == ()
    assert len(acknowledged) >= 1
    assert {job_id: revision for job_id, revision in acknowledged.items() if stored.get(job_id, 0) < revision} == {}


async def test_verify_reads_a_store_that_is_being_written(store: SqliteStore) -> None:
    """What moves between its looks is no violation."""
    await store.commit(a_planned_run(1, (a_created_job(),)))

    reports = []

    async def look() -> None:
        reports.append(await verify(store))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        for number in range(2, 40):
            await store.commit(a_planned_run(number, (a_created_job(a_run_id(number)),)))

    assert [report.violations for report in reports] == [()]
