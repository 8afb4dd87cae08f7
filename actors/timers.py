"""All delays of one system in one heap and one task, however many actors wait for a restart.

Rule: a callback never runs early; callbacks due at the same instant run in the order they were asked for.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from math import inf

import anyio

__all__ = ["Timers"]


class Timers:
    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = count()
        self._bell = anyio.Event()

    def after(self, delay_s: float, callback: Callable[[], None]) -> None:
        """Call `callback`, which must not block or raise, `delay_s` seconds from now."""
        due = anyio.current_time() + delay_s
        heappush(self._heap, (due, next(self._sequence), callback))
        if self._heap[0][0] >= due:
            self._bell.set()  # the sleeper waits for a later one, or for none at all

    async def run(self) -> None:
        """Fire what is due, for ever."""
        while True:
            self._bell = anyio.Event()
            now = anyio.current_time()
            while self._heap and self._heap[0][0] <= now:
                heappop(self._heap)[2]()
            deadline = self._heap[0][0] if self._heap else inf
            with anyio.CancelScope(deadline=deadline):
                await self._bell.wait()
