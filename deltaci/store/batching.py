"""Many callers, one worker: whatever waits at the same time is handed over as one batch, and each caller is answered.

Rule 1: the queue is bounded; what does not fit is refused at once.
Rule 2: a caller that goes away harms nobody: what was not yet taken is dropped, what was taken is done unheard.
Rule 3: closing answers everything that was accepted before it returns.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

import anyio

from deltaci.domain.errors import StoreUnavailable

Item = TypeVar("Item")

WAITING_MAX: Final = 100_000
BUSY_RETRY_MS: Final = 1_000


class _Ticket(Generic[Item]):
    __slots__ = ("answer", "done", "is_abandoned", "item", "size")

    def __init__(self, item: Item, size: int) -> None:
        self.item = item
        self.size = size
        self.done = anyio.Event()
        self.answer: Any = None
        self.is_abandoned = False


class Batcher(Generic[Item]):
    """A queue whose contents go to `work` in batches.

    Args:
        work: answers a batch item by item; an answer that is an exception is raised at its caller.
        count_max: items in a batch.
        size_max: sum of sizes in a batch; a larger item goes alone.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Any]]], *, count_max: int, size_max: int
    ) -> None:
        self._work = work
        self._count_max = count_max
        self._size_max = size_max
        self._waiting: deque[_Ticket[Item]] = deque()
        self._wake = anyio.Event()
        self.is_closed = False

    @property
    def depth(self) -> int:
        """How many items wait."""
        return len(self._waiting)

    async def ask(self, item: Item, size: int = 0) -> Any:
        """The answer to `item`; raises `StoreUnavailable` when closed or full, and what the work answers."""
        if self.is_closed:
            raise StoreUnavailable("the store is closed")
        if len(self._waiting) >= WAITING_MAX:
            raise StoreUnavailable(f"{WAITING_MAX} calls wait for the store", retry_after_ms=BUSY_RETRY_MS)
        ticket = _Ticket(item, size)
        self._waiting.append(ticket)
        self._wake.set()
        try:
            await ticket.done.wait()
        except BaseException:
            ticket.is_abandoned = True
            raise
        if isinstance(ticket.answer, Exception):
            raise ticket.answer
        return ticket.answer

    async def serve(self) -> None:
        """Work until closed and empty. Not stopped by cancellation: accepted items would stay unanswered."""
        taken: list[_Ticket[Item]] = []
        try:
            with anyio.CancelScope(shield=True):
                while True:
                    taken = self._take()
                    if taken:
                        answers = await self._work([ticket.item for ticket in taken])
                        for ticket, answer in zip(taken, answers, strict=True):
                            ticket.answer = answer
                            ticket.done.set()
                    elif self.is_closed:
                        return
                    else:
                        self._wake = anyio.Event()
                        await self._wake.wait()
        finally:
            # Reached with work undone only through a bug or a killed loop: nobody may wait for ever.
            self.is_closed = True
            for ticket in (*taken, *self._waiting):
                if not ticket.done.is_set():
                    ticket.answer = StoreUnavailable("the store stopped: it is unknown what was stored")
                    ticket.done.set()
            self._waiting.clear()

    def close(self) -> None:
        """Accept nothing more; `serve` returns when everything accepted is answered."""
        self.is_closed = True
        self._wake.set()

    def _take(self) -> list[_Ticket[Item]]:
        taken: list[_Ticket[Item]] = []
        size = 0
        while self._waiting and len(taken) < self._count_max:
            ticket = self._waiting[0]
            if ticket.is_abandoned:
                self._waiting.popleft()
                continue
            if taken and size + ticket.size > self._size_max:
                break
            size += ticket.size
            taken.append(self._waiting.popleft())
        return taken
