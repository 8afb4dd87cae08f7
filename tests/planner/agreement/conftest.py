"""What both comparisons need."""

import pytest

from tests.planner.agreement.tools import require_tools


@pytest.fixture(autouse=True)
def _tools() -> None:
    require_tools()
