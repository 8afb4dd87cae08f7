"""What a rule is, and what it finds.

Rule 1: a rule is one small function; its name is the rule's name, its docstring's first line says what must hold.
Rule 2: it looks, and answers with what is wrong; it changes nothing and repairs nothing.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec


class Violation(msgspec.Struct, frozen=True):
    """A rule that does not hold for an entity. `entity_id` is empty where it is about the store.

    `events` are the ids of the journal's entries to look at, in order.
    """

    rule: str
    entity_id: str
    text: str
    events: tuple[int, ...] = ()


class Found(NamedTuple):
    """What a rule found. No `entity_id`: it is about the entity that the rule looks at."""

    text: str
    events: tuple[int, ...] = ()
    entity_id: str = ""


class Rule(msgspec.Struct, frozen=True):
    """One line of the catalogue: which of the invariants it belongs to, and the function that decides it.

    `kinds`: the events after which it is looked at; empty for rules over something else than events.
    """

    invariant: int
    check: Callable[..., Any]
    kinds: tuple[type, ...] = ()

    @property
    def name(self) -> str:
        """What a violation is called."""
        return self.check.__name__

    @property
    def text(self) -> str:
        """What must hold, in one sentence."""
        return (self.check.__doc__ or "").partition("\n")[0]


def violation(rule: Rule, entity_id: str, found: Found, event_id: int | None = None) -> Violation:
    """What `rule` found about an entity, and about which event."""
    events = found.events if event_id is None else (*found.events, event_id)
    return Violation(rule.name, found.entity_id or entity_id, found.text, events)


def violations(rules: tuple[Rule, ...], entity_id: str, *looked_at: Any) -> Iterator[Violation]:
    """What `rules` that answer with any number of findings find."""
    for rule in rules:
        for found in rule.check(*looked_at):
            yield violation(rule, entity_id, found)
