"""Where a database's slow calls run: on a thread of its own in production, in-process in simulation and tests.

Rule: whatever crosses the thread boundary crosses it as one function; a call per statement costs 30 times as much.

A thread that comes back from the disk asks for Python's global lock. With the interpreter's default switch interval of
5 ms, a loop whose turns are shorter than that takes the lock again before its neighbour is awake, for up to a second:
commits fell from 10,000/s to 58/s from one run to the next. A server should call `sys.setswitchinterval(0.0005)`, once.
"""

import sqlite3
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, TypeAlias, TypeVar

import aiosqlite
import anyio.lowlevel

from deltaci.domain.errors import StoreError
from deltaci.store.database import Database

T = TypeVar("T")

_ROWS_AT_ONCE: Final = 64  # aiosqlite wants to know; nobody iterates over its cursors


class Engine(Protocol):
    """One database, and where to call what may take long. One call at a time."""

    database: Database

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`, which uses the database."""
        ...

    async def close(self) -> None:
        """Close the database."""
        ...


OpenEngine: TypeAlias = Callable[[Callable[[], Database]], Awaitable[Engine]]


class Inline:
    """Calls in-process: deterministic, on any loop, and in the way of everything else while it lasts."""

    def __init__(self, database: Database) -> None:
        self.database = database

    @classmethod
    async def open(cls, opener: Callable[[], Database]) -> "Inline":
        """An engine over the database that `opener` opens."""
        await anyio.lowlevel.checkpoint()
        return cls(opener())

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`."""
        await anyio.lowlevel.checkpoint()
        return function()

    async def close(self) -> None:
        """Close the database."""
        self.database.close()


class _Connection(aiosqlite.Connection):
    """aiosqlite's connection and its thread, and one thing more: a whole function is run there.

    aiosqlite has no public call for that, only one for each statement; `_execute` is what all of those are made of.
    This class is the one place that knows.
    """

    async def run(self, function: Callable[[], T]) -> T:
        answer: T = await self._execute(function)  # type: ignore[no-untyped-call]
        return answer


class Threaded:
    """Calls on the thread of an aiosqlite connection; asyncio only."""

    def __init__(self, connection: _Connection, database: Database) -> None:
        self.database = database
        self._connection = connection

    @classmethod
    async def open(cls, opener: Callable[[], Database]) -> "Threaded":
        """An engine over the database that `opener` opens, on the engine's thread."""
        opened: list[Database] = []
        failed: list[StoreError] = []

        def connect() -> sqlite3.Connection:
            try:
                opened.append(opener())
            except StoreError as error:
                # A connector that raises leaves aiosqlite's thread to end by itself, maybe after the loop.
                failed.append(error)
                return sqlite3.connect(":memory:")
            return opened[0].connection

        connection = _Connection(connect, _ROWS_AT_ONCE)
        await connection
        if failed:
            await connection.close()
            raise failed[0]
        return cls(connection, opened[0])

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`."""
        return await self._connection.run(function)

    async def close(self) -> None:
        """Close the database and end its thread."""
        await self._connection.close()
