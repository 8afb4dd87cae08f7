"""The future behind an ask: awaited on the loop, or waited for from another thread.

Rule 1: it is settled on the loop's thread and never blocks it: a get() that would is an error.
Rule 2: settling an answer that nobody waits for any more is silent.
"""

import sys
import threading
from collections.abc import Generator
from types import TracebackType
from typing import Any, TypeVar

import anyio
import anyio.lowlevel
import pykka

from actors.errors import AskTimedOut, WouldBlock

__all__ = ["Answer"]

T = TypeVar("T")


class Answer(pykka.Future[T]):
    """One answer to come; `await` it as often as you like.

    `filter`, `join`, `map` and `reduce` work as in Pykka, awaited too.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_settled = False
        self._value: Any = None
        self._error: BaseException | None = None
        self._bell: anyio.Event | None = None
        self._thread_bell: threading.Event | None = None
        self._twins: list[Answer[Any]] | None = None
        self._path = ""
        self._message: Any = None
        self._timeout_s: float | None = None

    def expect(self, path: str, message: Any, timeout_s: float | None) -> None:
        """Let awaiting give up with `AskTimedOut`, which names `path` and `message`, after `timeout_s` seconds."""
        self._path = path
        self._message = message
        self._timeout_s = timeout_s

    def share_with(self, twin: "Answer[Any]") -> None:
        """Settle `twin` with whatever settles this one."""
        if self._twins is None:
            self._twins = []
        self._twins.append(twin)

    def set(self, value: T | None = None) -> None:
        self._settle(value, None)

    def set_exception(
        self,
        exc_info: tuple[type[BaseException] | None, BaseException | None, TracebackType | None] | None = None,
    ) -> None:
        error = (exc_info or sys.exc_info())[1]
        assert error is not None, "set_exception() outside an except block needs the exception"
        self._settle(None, error)

    def fail(self, error: BaseException) -> None:
        """Settle with an exception that was not raised yet."""
        self._settle(None, error)

    def get(self, *, timeout: float | None = None) -> Any:
        """Answer at once if settled; otherwise block, which only a thread without an event loop may do."""
        if self._get_hook is not None:
            return super().get(timeout=timeout)
        if not self._is_settled:
            if is_on_a_loop():
                raise WouldBlock(self)
            self._thread_bell = self._thread_bell or threading.Event()
            # Settled between the two looks: the bell was perhaps hung too late to be rung.
            if not self._is_settled and not self._thread_bell.wait(timeout):
                raise AskTimedOut(self._path, self._message, timeout or 0)
        return self._outcome()

    def __await__(self) -> Generator[Any, None, T]:
        return self._answered().__await__()

    __iter__ = __await__

    async def _answered(self) -> Any:
        if self._get_hook is None:
            if not self._is_settled:
                await self._wait()
            return self._outcome()
        while True:
            # Pykka composes futures by synchronous hooks: wait for whichever one is missing, then try again.
            try:
                return self.get()
            except WouldBlock as blocked:
                missing = blocked.future
            assert isinstance(missing, Answer)
            await missing._wait()  # noqa: SLF001 - another of our own

    async def _wait(self) -> None:
        if self._bell is None:
            self._bell = anyio.Event()
        if self._timeout_s is None:
            await self._bell.wait()
            return
        with anyio.move_on_after(self._timeout_s):
            await self._bell.wait()
        if not self._is_settled:
            raise AskTimedOut(self._path, self._message, self._timeout_s)

    def _settle(self, value: Any, error: BaseException | None) -> None:
        if self._is_settled or self._get_hook is not None:
            raise RuntimeError("this future already has its value; an answer is given once")
        self._value = value
        self._error = error
        self._is_settled = True
        if self._bell is not None:
            self._bell.set()
        if self._thread_bell is not None:
            self._thread_bell.set()
        for twin in self._twins or ():
            twin._settle(value, error)  # noqa: SLF001 - another of our own

    def _outcome(self) -> Any:
        if self._error is not None:
            raise self._error
        return self._value


def is_on_a_loop() -> bool:
    """Whether the calling thread runs an event loop right now."""
    try:
        anyio.lowlevel.current_token()
    except RuntimeError:
        return False
    return True
