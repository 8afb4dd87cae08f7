"""Fixtures of the protocol's tests."""

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The client is asyncio alone, because its WebSocket library is."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback goes nowhere else, whatever the host's proxy settings are."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
