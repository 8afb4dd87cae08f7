"""One seed, one order of events: Trio with a clock that jumps to the next thing to do, and a scheduler with a seed.

Rule: the private names of Trio that make its scheduler deterministic are used here and nowhere else; Trio is pinned,
and a test asserts that they are there and that they do something.
"""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import trio
from trio._core import _run as scheduler
from trio.testing import MockClock

T = TypeVar("T")


def run_deterministically(main: Callable[..., Awaitable[T]], *args: Any, seed: int) -> T:
    """The result of `main(*args)`, on a loop on which equal seeds give equal orders of events, and waiting is free."""
    was_allowed = scheduler._ALLOW_DETERMINISTIC_SCHEDULING
    scheduler._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc]
    scheduler._r.seed(seed)
    try:
        return trio.run(main, *args, clock=MockClock(autojump_threshold=0))
    finally:
        scheduler._ALLOW_DETERMINISTIC_SCHEDULING = was_allowed  # type: ignore[misc]
