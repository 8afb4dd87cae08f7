"""What every machine of the house shares: a table of moves, a step, a refusal.

Rule 1: a table names each move with the states it may start from and the state it leads to; the diagram in the docs,
        the exhaustive test and the text of a refusal are all made from that table.
Rule 2: a step carries events; its state is what folding them over the old state gives, by construction.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

from deltaci.domain.effects import Effect
from deltaci.domain.events import JobEvent, RunEvent

S = TypeVar("S")
E = TypeVar("E", bound=StrEnum)


class Why(StrEnum):
    """Why a command was refused."""

    ILLEGAL_MOVE = "illegal_move"
    STALE_LEASE = "stale_lease"
    CONFLICTING_RESULT = "conflicting_result"
    TOO_EARLY = "too_early"
    NOT_FOUND = "not_found"
    LIMIT = "limit"
    NOT_OVER = "not_over"
    NOT_APPROVED = "not_approved"


class Refusal(msgspec.Struct, frozen=True):
    """A normal "no": nothing changed. Names the command, the state it met and what to do."""

    why: Why
    entity_id: str
    at: str
    command: str
    hint: str = ""

    @property
    def text(self) -> str:
        """One sentence for people."""
        return (
            f"{self.command} refused for {self.entity_id} in state {self.at}: {self.why}{self.hint and '; '}{self.hint}"
        )


class Step(msgspec.Struct, Generic[S], frozen=True, gc=False):
    """The next state, the events that lead to it and the effects owed. No events: accepted before, nothing to store."""

    state: S
    events: tuple[RunEvent | JobEvent, ...] = ()
    effects: tuple[Effect, ...] = ()


class Move(msgspec.Struct, Generic[E], frozen=True):
    """From any of `sources` to `target`."""

    sources: frozenset[E]
    target: E


class IllegalMove(Exception):
    """A decision wanted a move that its table does not have: a bug, never a peer's fault."""


def moved(table: Mapping[str, Move[E]], state: E, name: str) -> E:
    """The state after move `name`; raises `IllegalMove` when the table does not allow it from `state`."""
    move = table[name]
    if state not in move.sources:
        raise IllegalMove(f"no move {name!r} from {state}: it starts from {', '.join(sorted(move.sources))}")
    return move.target
