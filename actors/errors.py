"""What can go wrong with a message, said so that the sender knows what to do next.

A refusal ("no, that lease has expired") is a value that a handler returns; it is never one of these.
"""

from typing import Any, ClassVar

import pykka

__all__ = [
    "ActorCrashed",
    "ActorError",
    "ActorStopped",
    "AskTimedOut",
    "IntensityExceeded",
    "MailboxFull",
    "Quarantined",
    "UnknownPath",
    "WouldBlock",
]


class ActorError(Exception):
    """A message was not answered, or an actor could not be reached."""

    retryable: ClassVar[bool] = False
    """Whether sending the same message again, later, may succeed."""


class ActorCrashed(ActorError):
    """The actor crashed on this very message; `__cause__` is the exception. It is unknown what took effect.

    The actor is restarted from its snapshot and the message is not replayed, so asking again is safe only with
    an idempotent message.
    """

    retryable = True

    def __init__(self, path: str, cause: BaseException) -> None:
        super().__init__(
            f"{path} crashed on the message: {type(cause).__name__}: {cause}. It is restarted from its snapshot; "
            "the message is not replayed, ask again if it is idempotent"
        )
        self.path = path
        self.__cause__ = cause


class AskTimedOut(ActorError, pykka.Timeout, TimeoutError):
    """No answer within the time the asker gave. The message may still be handled; its late answer is dropped."""

    retryable = True

    def __init__(self, path: str, message: Any, timeout_s: float) -> None:
        super().__init__(
            f"{path} did not answer {type(message).__name__} within {timeout_s} s; it may still handle it, "
            "ask again if the message is idempotent"
        )
        self.path = path
        self.message = message
        self.timeout_s = timeout_s


class MailboxFull(ActorError):
    """The lane of the mailbox that the message belongs to has no room; nothing was queued."""

    retryable = True

    def __init__(self, path: str, size: int, retry_after_s: float, lane: str = "normal") -> None:
        super().__init__(
            f"the {lane} lane of {path} already holds {size} messages; send again in {retry_after_s} s or later"
        )
        self.path = path
        self.size = size
        self.retry_after_s = retry_after_s
        self.lane = lane


class Quarantined(ActorError):
    """The entity crashed too often and takes no messages until an operator releases it."""

    def __init__(self, path: str, last_crash: str) -> None:
        super().__init__(
            f"{path} is quarantined after repeated crashes, the last one being {last_crash}; "
            "mend the cause, then release the path"
        )
        self.path = path
        self.last_crash = last_crash


class ActorStopped(ActorError, pykka.ActorDeadError):
    """The actor stopped, or is stopping, before it could handle the message."""

    retryable = True

    def __init__(self, path: str) -> None:
        super().__init__(f"{path} is stopped or stopping and did not handle the message; ask again after a restart")
        self.path = path


class UnknownPath(ActorError, LookupError):
    """Nobody was started under this path and no entity family covers it: a misspelt address or a missing start."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no actor was started as {path!r} and no entity family covers it; start it or mend the path")
        self.path = path


class IntensityExceeded(ActorError):
    """A supervisor saw more crashes than it may restart, up to the root: the process has to start afresh."""

    def __init__(self, path: str, crashes_max: int, period_s: float, cause: BaseException) -> None:
        super().__init__(
            f"the children of {path} crashed more than {crashes_max} times within {period_s} s, "
            f"the last time with {type(cause).__name__}: {cause}"
        )
        self.path = path
        self.__cause__ = cause


class WouldBlock(ActorError):
    """A blocking get() was called on the event loop, where it would wait for ever; await the future instead."""

    def __init__(self, future: "pykka.Future[Any]") -> None:
        super().__init__("get() would block the event loop before there is an answer; await the future instead")
        self.future = future
