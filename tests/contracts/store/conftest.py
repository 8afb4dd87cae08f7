"""The suite runs for every store: in memory, on SQLite with threads, on SQLite in-process on Trio."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaci.store.engine import Inline, Threaded
from deltaci.store.memory import MemoryStore
from deltaci.store.port import Store
from deltaci.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite", "sqlite_inline"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def anyio_backend(kind: str) -> str:
    return "trio" if kind == "sqlite_inline" else "asyncio"


@pytest.fixture
async def store(kind: str, tmp_path: Path) -> AsyncIterator[Store]:
    if kind == "memory":
        yield MemoryStore()
        return
    async with SqliteStore.open(
        tmp_path / "store.db", engine=Inline.open if kind == "sqlite_inline" else Threaded.open
    ) as opened:
        yield opened
