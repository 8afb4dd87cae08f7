import pytest


@pytest.fixture
def anyio_backend() -> str:
    """Quart runs on asyncio alone."""
    return "asyncio"
