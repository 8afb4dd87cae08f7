"""What the runtime tells the outside: counters for a metrics page, undeliverable messages, ended actors."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

__all__ = ["DeadLetter", "DeadLetters", "Observer", "Reason", "Terminated"]


class Reason(StrEnum):
    """Why an actor is no longer live."""

    STOPPED = "stopped"
    PASSIVATED = "passivated"
    QUARANTINED = "quarantined"


@dataclass(frozen=True, slots=True)
class Terminated:
    """Told to everyone who watches `path`. An entity may come back: the next message activates it."""

    path: str
    reason: Reason


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that reached nobody; `reason` is the text of the error its asker got or would have got."""

    path: str
    message: Any
    reason: str


class DeadLetters:
    """The newest undeliverable messages, at most `size_max` of them, and how many there ever were."""

    def __init__(self, size_max: int) -> None:
        self._letters: deque[DeadLetter] = deque(maxlen=size_max)
        self.total = 0

    def add(self, letter: DeadLetter) -> None:
        self._letters.append(letter)
        self.total += 1

    def __len__(self) -> int:
        return len(self._letters)

    def __iter__(self) -> Iterator[DeadLetter]:
        return iter(tuple(self._letters))


class Observer:
    """Override what you count. The methods run on the loop in the middle of things: they must not block or raise."""

    def crashed(self, path: str, class_name: str, cause: BaseException) -> None:
        """A handler, a restore or a factory raised."""

    def restarted(self, path: str) -> None:
        """A crashed or held actor is being restored from its snapshot."""

    def quarantined(self, path: str, last_crash: str) -> None:
        """An entity crashed too often; it takes no messages until it is released."""

    def escalated(self, path: str, cause: BaseException) -> None:
        """A supervisor gave up and left the decision to its parent."""

    def undelivered(self, letter: DeadLetter) -> None:
        """A message became a dead letter."""
