"""What the tests of the invariants share."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from loguru import logger

from deltaci.store.engine import Inline
from deltaci.store.sqlite import SqliteStore


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """What fails on purpose is logged, and nobody reads it."""
    logger.disable("deltaci")
    yield
    logger.enable("deltaci")


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path / "store.db", engine=Inline.open) as opened:
        yield opened
