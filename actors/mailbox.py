"""The mailbox of one actor: two bounded lanes, and coalescing in the normal one.

Rule 1: what was accepted keeps its order within its lane; the urgent lane goes first and has room of its own.
Rule 2: a full lane refuses at the sender; nothing that was accepted is ever dropped for lack of room.
Rule 3: an empty mailbox owns no queue, which is what makes an idle actor cheap.
"""

from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Protocol

from pykka._envelope import Envelope

from actors.errors import MailboxFull
from actors.future import Answer

__all__ = ["Envelope", "Lanes", "Mailbox", "MailboxLimits"]


class Lanes(Protocol):
    """How an actor class sorts its mail."""

    @staticmethod
    def is_urgent(message: Any, /) -> bool: ...

    @staticmethod
    def coalesce_key(message: Any, /) -> Hashable | None: ...


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """Messages that may wait in each lane, and what a refused sender is told."""

    normal_max: int = 1000
    urgent_max: int = 1000
    retry_after_s: float = 1.0


DEFAULT_LIMITS = MailboxLimits()


class Mailbox:
    """The inbox of one actor, in the shape Pykka asks for: put, get, empty."""

    __slots__ = ("_by_key", "_normal", "_urgent", "high_water", "lanes", "limits", "path")

    def __init__(self, path: str = "", lanes: Lanes | None = None, limits: MailboxLimits = DEFAULT_LIMITS) -> None:
        self.path = path
        self.lanes = lanes
        self.limits = limits
        self.high_water = 0
        self._urgent: deque[Envelope[Any]] | None = None
        self._normal: deque[Envelope[Any]] | None = None
        self._by_key: dict[Hashable, Envelope[Any]] | None = None

    def __len__(self) -> int:
        return len(self._urgent or ()) + len(self._normal or ())

    def put(self, envelope: Envelope[Any], /) -> None:
        """Queue `envelope` in its lane, or let it replace a waiting one with the same key.

        Raises:
            MailboxFull: the lane has no room; the mailbox is unchanged.
        """
        message = envelope.message
        if self.lanes is not None:
            if self.lanes.is_urgent(message):
                self._put_urgent(envelope)
                return
            key = self.lanes.coalesce_key(message)
            if key is not None and self._coalesce(key, envelope):
                return
        else:
            key = None
        normal = self._normal
        if normal is None:
            normal = self._normal = deque()
        if len(normal) >= self.limits.normal_max:
            raise MailboxFull(self.path, len(normal), self.limits.retry_after_s)
        normal.append(envelope)
        if key is not None:
            if self._by_key is None:
                self._by_key = {}
            self._by_key[key] = envelope
        self._mark()

    def get(self) -> Envelope[Any]:
        """Take the next envelope, urgent ones first. Only for a mailbox that is not `empty()`."""
        if self._urgent:
            return self._urgent.popleft()
        assert self._normal, "get() from an empty mailbox"
        envelope = self._normal.popleft()
        if self._by_key and self.lanes is not None:
            # From here on a newer message with the same key is a message of its own.
            key = self.lanes.coalesce_key(envelope.message)
            if key is not None and self._by_key.get(key) is envelope:
                del self._by_key[key]
        return envelope

    def empty(self) -> bool:
        return not self._urgent and not self._normal

    def shrink(self) -> None:
        """Give the memory of the emptied queues back."""
        assert self.empty()
        self._urgent = self._normal = self._by_key = None

    def _put_urgent(self, envelope: Envelope[Any]) -> None:
        if self._urgent is None:
            self._urgent = deque()
        if len(self._urgent) >= self.limits.urgent_max:
            raise MailboxFull(self.path, len(self._urgent), self.limits.retry_after_s, lane="urgent")
        self._urgent.append(envelope)
        self._mark()

    def _coalesce(self, key: Hashable, newer: Envelope[Any]) -> bool:
        queued = self._by_key.get(key) if self._by_key else None
        if queued is None:
            return False
        queued.message = newer.message
        if queued.reply_to is None:
            queued.reply_to = newer.reply_to
        elif newer.reply_to is not None:
            # Nobody who asked goes unanswered: both get what the newer message is answered with.
            assert isinstance(queued.reply_to, Answer)
            assert isinstance(newer.reply_to, Answer)
            queued.reply_to.share_with(newer.reply_to)
        return True

    def _mark(self) -> None:
        depth = len(self)
        if depth > self.high_water:
            self.high_water = depth
