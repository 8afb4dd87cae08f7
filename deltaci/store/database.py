"""The synchronous core of the SQLite store: one connection, batches in, answers out. No thread, no loop, no clock.

A batch has two halves. Staging executes its statements: memory and cached pages, microseconds each. Finishing is the
COMMIT, which waits for the disk. They are apart because every statement gives Python's global lock away and asks for it
back, which on a thread of its own means to queue behind the loop: beside a loop that spins, 64 producers got 1,400 to
5,100 commits/s with the whole batch on the thread, 4,100 to 13,100 with only the COMMIT there.

Rule 1: a batch is one transaction, but each commit in it is answered by itself: a lost race takes nobody else along.
Rule 2: after an I/O error it is unknown what reached the disk, and asking again can lie: a second fsync succeeds
        without having written what the first one lost. Broken for good, then: exit, and recover from disk.
Rule 3: a full disk, and another process that holds the database, break nothing: rolled back, works again later.
"""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from deltaci.domain.errors import SchemaTooNew, SchemaTooOld, StoreError, StoreUnavailable
from deltaci.store.journal import GENESIS, Row, chained
from deltaci.store.prepare import Prepared
from deltaci.store.rules import refused
from deltaci.store.sql import migrations, query

T = TypeVar("T")

BUSY_TIMEOUT_MS: Final = 5_000
WRITER_CACHE_KIB: Final = 64 * 1024
READER_CACHE_KIB: Final = 16 * 1024
STATEMENTS_KEPT: Final = 256
# Checkpoints run inside a commit and rewrite hot pages: 16 MiB between two. If one fails SQLite says nothing and keeps
# the log; that is safe, as the next one writes the same pages from the synced log again.
CHECKPOINT_PAGES: Final = 4_000

# The header of a database file: what it begins with, and where `user_version` stands.
_MAGIC: Final = b"SQLite format 3\0"
_USER_VERSION: Final = slice(60, 64)

_INSERT_JOURNAL: Final = query("insert_journal")
_JOURNAL_TAIL: Final = query("journal_tail")

_FATAL: Final = frozenset(
    {
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
    }
)
_ROLLED_BACK: Final = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})
# A full disk may show while the shared index is extended, before anything is written.
_FULL_TOO: Final = frozenset({sqlite3.SQLITE_IOERR_SHMSIZE})

_UNEXPECTED: Final = (sqlite3.Error, OverflowError, TypeError, ValueError)


class Staged(NamedTuple):
    """The answers of a batch, not to be given before it is finished."""

    answers: list[StoreError | None]
    is_open: bool


class Held(NamedTuple):
    """Another process holds the database."""


class Database:
    """One connection. Writer and readers alike; a reader's connection cannot write."""

    def __init__(self, connection: sqlite3.Connection, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> None:
        self.connection = connection
        self.busy_timeout_ms = busy_timeout_ms
        self.broken_by = ""
        self.batches = 0

    @classmethod
    def open_writer(cls, path: Path, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS) -> "Database":
        """Open, create if need be (mode 0600, also of the files beside it) and bring to this program's schema.

        Raises `SchemaTooNew`, and `StoreUnavailable` when it cannot be opened or somebody holds it for too long.
        """
        check_not_newer(schema_version(path), f"the database {path}")
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            database = cls(connect(path, busy_timeout_ms), busy_timeout_ms=busy_timeout_ms)
        except (OSError, sqlite3.Error) as error:
            raise StoreUnavailable(f"the database {path} cannot be opened: {error}") from error
        try:
            pragmas = (
                f"cache_size = -{WRITER_CACHE_KIB}",
                "journal_mode = WAL",
                "synchronous = FULL",
                f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
                # Else what a savepoint may have to undo goes to a file of its own, which cannot be opened when there
                # are no descriptors, and not be written when there is no space where temporary files are.
                "temp_store = MEMORY",
            )
            for pragma in pragmas:
                database.connection.execute(f"PRAGMA {pragma}")
            database.migrate(path)
            # From here on only a patient call waits for another process: the others must not stop the loop.
            database.connection.execute("PRAGMA busy_timeout = 0")
        except sqlite3.Error as error:
            database.close()
            raise StoreUnavailable(f"the database {path} cannot be prepared: {error}") from error
        except BaseException:
            database.close()
            raise
        return database

    @classmethod
    def open_reader(
        cls, path: Path, *, busy_timeout_ms: int = BUSY_TIMEOUT_MS, is_readonly: bool = False
    ) -> "Database":
        """Open a database that a writer has brought to its schema.

        `is_readonly`: no writer of ours did; not one byte of it is changed, whatever state it is in. Raises
        `SchemaTooNew` and `SchemaTooOld` then.
        """
        if is_readonly:
            _check_same(schema_version(path), path)
        try:
            database = cls(connect(path, busy_timeout_ms, is_readonly=is_readonly), busy_timeout_ms=busy_timeout_ms)
            database.connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
            database.connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database {path} cannot be read: {error}") from error
        return database

    def migrate(self, path: Path) -> None:
        """Apply the migrations that this file has not seen, all or none."""
        execute = self.connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            version: int = execute("PRAGMA user_version").fetchone()[0]
            check_not_newer(version, f"the database {path}")
            for statements in migrations()[version:]:
                for statement in statements:
                    execute(statement)
            execute(f"PRAGMA user_version = {len(migrations())}")
            execute("COMMIT")
        except BaseException:
            if self.connection.in_transaction:
                execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Close the connection; the last one to close folds the log into the database."""
        self.connection.close()

    # ---- writing -------------------------------------------------------------------------------------------------

    def apply(self, batch: Sequence[Prepared]) -> list[StoreError | None]:
        """Put `batch` on disk as one transaction; answer each commit with None or why nothing of it was stored."""
        staged = self.stage(batch)
        if isinstance(staged, Held):
            staged = self.stage(batch, is_patient=True)
        return self.finish(staged)

    def stage(self, batch: Sequence[Prepared], *, is_patient: bool = False) -> "Staged | Held":
        """Begin a transaction and execute the batch in it. Touches memory and cached pages: short, writes no file.

        Answers `Held` when another process holds the database; with `is_patient` that is waited out as long as
        `busy_timeout_ms` says. What is staged must be finished before the next batch is staged.
        """
        if self.broken_by:
            return Staged([StoreUnavailable(self.broken_by)] * len(batch), is_open=False)
        try:
            self._begin(is_patient=is_patient)
        except sqlite3.OperationalError as error:
            if not is_patient and _code(error) & 0xFF == sqlite3.SQLITE_BUSY:
                return Held()
            return self._nothing_stored(batch, error)
        except sqlite3.Error as error:
            return self._nothing_stored(batch, error)
        self.batches += 1
        try:
            return Staged(self._execute(batch, is_careful=False), is_open=True)
        except _UNEXPECTED as error:
            if _is_fatal(error) or _is_rolled_back(error):
                return self._nothing_stored(batch, error)
        # One commit cannot be stored at all, and it is not known which: once more, each behind a savepoint of its own.
        try:
            self.connection.execute("ROLLBACK")
            self._begin(is_patient=is_patient)
            return Staged(self._execute(batch, is_careful=True), is_open=True)
        except _UNEXPECTED as error:
            return self._nothing_stored(batch, error)

    def finish(self, staged: "Staged | Held") -> list[StoreError | None]:
        """Bring what was staged to disk and give the answers. This is where the time goes: it waits for the disk."""
        if isinstance(staged, Held):
            raise TypeError("nothing was staged")
        if staged.is_open:
            try:
                self.connection.execute("COMMIT")
            except sqlite3.Error as error:
                if not _is_rolled_back(error):
                    self._break(error)
                return self._nothing_stored(staged.answers, error).answers
        return staged.answers

    def _begin(self, *, is_patient: bool) -> None:
        if not is_patient:
            self.connection.execute("BEGIN IMMEDIATE")
            return
        self.connection.execute(f"PRAGMA busy_timeout = {self.busy_timeout_ms}")
        try:
            self.connection.execute("BEGIN IMMEDIATE")
        finally:
            self.connection.execute("PRAGMA busy_timeout = 0")

    def _execute(self, batch: Sequence[Prepared], *, is_careful: bool) -> list[StoreError | None]:
        cursor = self.connection.cursor()
        # Read anew in each transaction: a command line tool may have appended in between.
        last_id, last_hash = cursor.execute(_JOURNAL_TAIL).fetchone() or (0, GENESIS)
        answers: list[StoreError | None] = []
        rows: list[Row] = []
        for commit in batch:
            if is_careful:
                answer, added = _apply_alone(cursor, commit, last_id, last_hash)
            else:
                answer, added = _apply(cursor, commit, last_id, last_hash)
                rows += added
            if added:
                last_id, last_hash = added[-1].id, added[-1].hash
            answers.append(answer)
        if rows:
            cursor.executemany(_INSERT_JOURNAL, rows)
        return answers

    def _nothing_stored(self, batch: Sequence[Any], error: Exception) -> "Staged":
        """Roll back, and answer every commit of the batch with why."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error as worse:
            self._break(worse)
        if _is_fatal(error):
            self._break(error)
        text = self.broken_by or f"nothing was stored: {error}; try again later"
        return Staged([StoreUnavailable(text)] * len(batch), is_open=False)

    def _break(self, error: Exception) -> None:
        self.broken_by = f"an I/O error makes it unknown what is on disk: {error}; restart to recover from disk"

    # ---- reading -------------------------------------------------------------------------------------------------

    def read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """The answer of `call`; raises `StoreUnavailable` when the database does not answer."""
        try:
            return call(self.connection)
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database cannot be read: {error}") from error


def _apply(
    cursor: sqlite3.Cursor, commit: Prepared, last_id: int, last_hash: bytes
) -> tuple[StoreError | None, list[Row]]:
    """Execute a commit; its journal rows are returned and still to be inserted.

    A commit with one condition is refused before it changed anything; only one with several needs a savepoint.
    """
    is_guarded = len(commit.conditions) > 1
    if is_guarded:
        cursor.execute("SAVEPOINT one")
    refusal = _run(cursor, commit)
    if is_guarded:
        if refusal is not None:
            cursor.execute("ROLLBACK TO one")
        cursor.execute("RELEASE one")
    if refusal is not None:
        return refusal, []
    return None, list(chained(commit.drafts, last_id=last_id, last_hash=last_hash)) if commit.drafts else []


def _apply_alone(
    cursor: sqlite3.Cursor, commit: Prepared, last_id: int, last_hash: bytes
) -> tuple[StoreError | None, list[Row]]:
    """Execute a commit with its journal rows so that whatever is wrong with it is undone with it."""
    rows: list[Row] = []
    cursor.execute("SAVEPOINT one")
    try:
        refusal = _run(cursor, commit)
        if refusal is None:
            rows = list(chained(commit.drafts, last_id=last_id, last_hash=last_hash))
            cursor.executemany(_INSERT_JOURNAL, rows)
    except _UNEXPECTED as error:
        if _is_fatal(error) or _is_rolled_back(error):
            raise
        refusal = StoreError(f"this commit cannot be stored: {error}")
    if refusal is not None:
        cursor.execute("ROLLBACK TO one")
        rows = []
    cursor.execute("RELEASE one")
    return refusal, rows


def _run(cursor: sqlite3.Cursor, commit: Prepared) -> StoreError | None:
    for sql, values, write in commit.conditions:
        try:
            cursor.execute(sql, values)
        except sqlite3.IntegrityError:
            return refused(write)
        if cursor.rowcount != 1:
            return refused(write)
    for sql, values in commit.statements:
        cursor.execute(sql, values)
    return None


def schema_version(path: Path) -> int:
    """The schema version of the database at `path`, of which nothing is changed; 0 when there is none yet.

    Without a log beside it the file's own header tells, and no connection is needed, which would leave files behind.
    Raises `StoreUnavailable` when it is no database or cannot be read.
    """
    log = path.with_name(f"{path.name}-wal")
    try:
        if log.exists() and log.stat().st_size:
            connection = connect(path, is_readonly=True)
            try:
                version: int = connection.execute("PRAGMA user_version").fetchone()[0]
            finally:
                connection.close()
            return version
        with path.open("rb") as file:
            header = file.read(_USER_VERSION.stop)
    except FileNotFoundError:
        return 0
    except (OSError, sqlite3.Error) as error:
        raise StoreUnavailable(f"the database {path} cannot be read: {error}") from error
    if header and not header.startswith(_MAGIC):
        raise StoreUnavailable(f"{path} is no database: name the directory given to `deltaci serve`, or a backup")
    return int.from_bytes(header[_USER_VERSION], "big")


def check_not_newer(version: int, what: str) -> None:
    """Raise `SchemaTooNew` when `what` has a schema version that this program does not know."""
    if version > len(migrations()):
        raise SchemaTooNew(
            f"{what} has schema version {version}, this program knows {len(migrations())}: "
            "use the newer program, or restore a backup that this one made"
        )


def _check_same(version: int, path: Path) -> None:
    check_not_newer(version, f"the database {path}")
    if version < len(migrations()):
        raise SchemaTooOld(
            f"the database {path} has schema version {version}, this program reads {len(migrations())}: the next "
            "`deltaci serve` brings it there, or `deltaci restore` if it is a backup; until then use the older program"
        )


def connect(path: Path, busy_timeout_ms: int = BUSY_TIMEOUT_MS, *, is_readonly: bool = False) -> sqlite3.Connection:
    """A connection without transactions of its own making; a read-only one never changes a byte of the database."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=ro" if is_readonly else path,
        timeout=busy_timeout_ms / 1_000,
        isolation_level=None,
        cached_statements=STATEMENTS_KEPT,
        check_same_thread=False,  # a batch is staged on the loop's thread and finished on another: one at a time
        uri=is_readonly,
    )


def _is_fatal(error: Exception) -> bool:
    return _code(error) & 0xFF in _FATAL and _code(error) not in _FULL_TOO


def _is_rolled_back(error: Exception) -> bool:
    return _code(error) & 0xFF in _ROLLED_BACK or _code(error) in _FULL_TOO


def _code(error: Exception) -> int:
    """The extended SQLite result code; 0 for errors that are not SQLite's own."""
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code
