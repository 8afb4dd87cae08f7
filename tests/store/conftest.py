"""These tests are about SQLite: on threads unless they say otherwise."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaci.store.sqlite import SqliteStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(path, busy_timeout_ms=100) as opened:
        yield opened
