"""The part of the memory store that keeps what is owed to the world, until it was delivered."""

from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec

from deltaci.domain.effects import Effect
from deltaci.store.port import Owed
from deltaci.store.writes import Hasten, Owe, Postpone, Settle

Put = Callable[[MutableMapping[Any, Any], Any, Any], None]
Take = Callable[[MutableMapping[Any, Any], Any], None]


class MemoryOutbox:
    """Debts by key; `put` and `take` note how to undo what they do."""

    def __init__(self, put: Put, take: Take) -> None:
        self._put = put
        self._take = take
        self._owed: dict[str, Owed] = {}
        self._generation = 0

    def apply(self, write: Owe | Settle | Postpone | Hasten) -> None:
        """One write; none of them is refused."""
        match write:
            case Owe():
                self._generation += 1
                owed = Owed(effect=write.effect, generation=self._generation, due_at_ms=write.due_at_ms, tries=0)
                self._put(self._owed, write.effect.key, owed)
            case Settle():
                if self._current(write) is not None:
                    self._take(self._owed, write.key)
            case Postpone():
                self._postpone(write)
            case Hasten():
                for key, one in list(self._owed.items()):
                    if not one.is_refused and one.due_at_ms > write.latest_at_ms:
                        self._put(self._owed, key, msgspec.structs.replace(one, due_at_ms=write.latest_at_ms))

    def _current(self, write: Settle | Postpone) -> Owed | None:
        """The debt that is meant, unless it was owed anew in the meantime."""
        owed = self._owed.get(write.key)
        return owed if owed is not None and owed.generation == write.generation else None

    def _postpone(self, write: Postpone) -> None:
        owed = self._current(write)
        if owed is not None:
            later = msgspec.structs.replace(
                owed,
                due_at_ms=write.due_at_ms,
                tries=owed.tries + 1,
                error=write.error,
                is_refused=write.is_refused,
            )
            self._put(self._owed, write.key, later)

    def all(self) -> tuple[Owed, ...]:
        """Everything owed, in order of owing."""
        return tuple(sorted(self._owed.values(), key=lambda owed: owed.generation))

    def due(self, kind: type[Effect], now_ms: int, limit: int) -> tuple[Owed, ...]:
        """Effects of a kind that are due and not refused, the earliest first."""
        open_ones = [owed for owed in self._owed.values() if isinstance(owed.effect, kind) and not owed.is_refused]
        due = [owed for owed in open_ones if owed.due_at_ms <= now_ms]
        return tuple(sorted(due, key=lambda owed: (owed.due_at_ms, owed.generation))[:limit])

    def next_at_ms(self) -> int | None:
        """When the next effect that is not refused becomes due."""
        return min((owed.due_at_ms for owed in self._owed.values() if not owed.is_refused), default=None)

    def debt(self, key: str) -> Owed | None:
        """What is owed under a key."""
        return self._owed.get(key)
