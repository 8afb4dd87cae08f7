"""Every asynchronous test here runs on asyncio and on Trio, there with a clock that jumps instead of waiting."""

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest
from loguru import logger
from trio.testing import MockClock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Planted crashes are logged with their traceback, which takes longer than most of the tests."""
    logger.disable("actors")
    yield
    logger.enable("actors")
