"""How many commits a second does bare SQLite manage by group commit: the most that a store could do here?"""

import asyncio
import queue
import sqlite3
import threading
import time
from pathlib import Path

from benchmarks import load
from benchmarks.results import Row

PRODUCERS = 64
SCHEMA = """
CREATE TABLE job (id INTEGER PRIMARY KEY, state TEXT NOT NULL, revision INTEGER NOT NULL, snapshot BLOB NOT NULL);
CREATE INDEX job_by_state ON job (state);
CREATE TABLE event (id INTEGER PRIMARY KEY, entity INTEGER NOT NULL, sequence INTEGER NOT NULL, type TEXT NOT NULL,
    data BLOB NOT NULL, UNIQUE (entity, type, sequence));
CREATE INDEX event_by_entity ON event (entity);
"""
SNAPSHOT = bytes(300)
STATES = ("QUEUED", "RUNNING")
NOTE = (
    "sqlite3 alone: WAL, synchronous=FULL, one writer thread; a commit is one event (two indexes) and one versioned "
    "update; each of 64 producers waits for its own answer."
)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """The baseline by itself."""
    row = Row(name="bare SQLite group commit, 64 producers", unit="commits/s", values=[], note=NOTE)
    for number in range(plan.rounds):
        row.values.append(await rate(plan, scratch / f"bare-{number}.db"))
    return [row]


async def rate(plan: load.Plan, path: Path) -> float:
    """Commits a second on a fresh file."""
    bare = BareGroupCommit(path)
    bare.start()
    counted, is_over = 0, False

    async def produce(entity: int) -> None:
        nonlocal counted
        revision = 0
        while not is_over:
            await bare.commit(entity, revision)
            revision += 1
            counted += 1

    tasks = [asyncio.create_task(produce(entity)) for entity in range(PRODUCERS)]
    try:
        await asyncio.sleep(plan.warm_s)
        started, before = time.perf_counter(), counted
        await asyncio.sleep(plan.window_s)
        result = (counted - before) / (time.perf_counter() - started)
        is_over = True
        await asyncio.gather(*tasks)
    finally:
        await asyncio.to_thread(bare.stop)
    return result


class BareGroupCommit:
    """A writer thread that puts whatever waits into one transaction."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[int, int, asyncio.Future[None]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write)

    def start(self) -> None:
        """Open the file."""
        self._thread.start()

    def stop(self) -> None:
        """Close the file."""
        self._waiting.put(None)
        self._thread.join()

    def commit(self, entity: int, revision: int) -> "asyncio.Future[None]":
        """One event and one update, on disk."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._waiting.put((entity, revision, done))
        return done

    def _write(self) -> None:
        connection = sqlite3.connect(self._path, isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        connection.executemany(
            "INSERT INTO job VALUES (?, 'QUEUED', 0, ?)", [(entity, SNAPSHOT) for entity in range(PRODUCERS)]
        )
        while (first := self._waiting.get()) is not None:
            batch = [first]
            while not self._waiting.empty():
                more = self._waiting.get()
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            connection.execute("BEGIN IMMEDIATE")
            for entity, revision, _ in batch:
                changed = connection.execute(
                    "UPDATE job SET state = ?, revision = ?, snapshot = ? WHERE id = ? AND revision = ?",
                    (STATES[revision % 2], revision + 1, SNAPSHOT, entity, revision),
                )
                assert changed.rowcount == 1
                connection.execute(
                    "INSERT INTO event (entity, sequence, type, data) VALUES (?, ?, 'Moved', ?)",
                    (entity, revision + 1, SNAPSHOT[:120]),
                )
            connection.execute("COMMIT")
            self._loop.call_soon_threadsafe(_answer, [done for _, _, done in batch])
        connection.close()


def _answer(batch: "list[asyncio.Future[None]]") -> None:
    for done in batch:
        if not done.done():
            done.set_result(None)
