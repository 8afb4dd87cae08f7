"""Every asynchronous test here runs on asyncio and on Trio, there with a clock that jumps instead of waiting."""

import importlib.util
from typing import Any

import pytest
from trio.testing import MockClock


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    if request.param == "trio":
        return "trio", {"clock": MockClock(autojump_threshold=0)}
    return "asyncio", {"use_uvloop": importlib.util.find_spec("uvloop") is not None}
