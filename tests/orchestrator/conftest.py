"""What the orchestrator's tests share."""

from collections.abc import Iterator

import pytest
from loguru import logger


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Planted crashes are logged with their traceback, which takes longer than most of the tests."""
    logger.disable("actors")
    logger.disable("deltaci")
    yield
    logger.enable("actors")
    logger.enable("deltaci")
