"""Fixtures of the runner's tests."""

from pathlib import Path

import pytest

from tests.runner.support import Repository


@pytest.fixture
def anyio_backend() -> str:
    """The runner is asyncio alone, because its WebSocket library is."""
    return "asyncio"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """A git repository with one commit."""
    return Repository.create(tmp_path / "origin", {"README": "hello\n", "src/app.py": "print(1)\n"})
