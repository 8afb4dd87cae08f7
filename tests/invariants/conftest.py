"""What the tests of the invariants share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from deltaci.store.sqlite import SqliteStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "store.db", inline=True) as opened:
        yield opened
