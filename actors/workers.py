"""The pool that lends a task to an actor for as long as its mailbox is not empty.

Rule 1: a cell is in the ready queue or with one worker, never both: that is what "one message at a time" rests on.
Rule 2: while a cell is ready, at least one worker is looking for work. A worker that handles messages without
        suspending counts as looking, since it comes back by itself; a burst of tells therefore wakes one worker,
        and a second one is called only when a handler really waits for something.
"""

import types
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Protocol

import anyio
import anyio.lowlevel

__all__ = ["Workable", "Workers"]

IDLE_MAX = 64
"""Workers kept for reuse; waking one costs a fifth of spawning one."""
MESSAGES_BETWEEN_CHECKPOINTS = 256
"""Messages a worker handles without suspending before it lets others have the loop."""


class Workable(Protocol):
    async def work(self) -> int:
        """Handle a bounded number of messages and answer how many."""


class Workers:
    def __init__(self, spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], None]) -> None:
        self._spawn = spawn
        self._ready: deque[Workable] = deque()
        self._idle: list[anyio.Event] = []
        self._looking = 0

    def schedule(self, cell: Workable) -> None:
        """Have a worker call `cell.work()`, in turn."""
        self._ready.append(cell)
        if self._looking == 0:
            self._call_one()

    def _call_one(self) -> None:
        self._looking += 1  # from the call on, or a burst of tells would call a worker each
        if self._idle:
            self._idle.pop().set()
        else:
            self._spawn(self._run)

    async def _run(self) -> None:
        handled = 0
        while True:
            while self._ready:
                handled += await self._noting_suspension(self._ready.popleft().work())
                if handled >= MESSAGES_BETWEEN_CHECKPOINTS:
                    handled = 0
                    await anyio.lowlevel.checkpoint()
            self._looking -= 1
            if len(self._idle) >= IDLE_MAX:
                return
            bell = anyio.Event()
            self._idle.append(bell)
            await bell.wait()  # who rings it has already counted this worker as looking

    @types.coroutine
    def _noting_suspension(self, work: Coroutine[Any, Any, int]) -> Generator[Any, Any, int]:
        """Await `work`; should it suspend, see to it that another worker looks after what is ready meanwhile.

        The first step is made by hand because nothing else tells a coroutine that suspends from one that returns.
        """
        try:
            waits_for = work.send(None)
        except StopIteration as done:
            return int(done.value)
        self._looking -= 1
        if self._ready and self._looking == 0:
            self._call_one()
        try:
            while True:
                try:
                    sent = yield waits_for
                except GeneratorExit:
                    work.close()
                    raise
                except BaseException as thrown:  # noqa: BLE001 - cancellation belongs to the handler, not to us
                    waits_for = work.throw(thrown)
                else:
                    waits_for = work.send(sent)
        except StopIteration as done:
            return int(done.value)
        finally:
            self._looking += 1
