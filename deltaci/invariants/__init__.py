"""The invariants, as code: what must hold of everything stored, and of everything that anybody outside was told.

`Journal` looks at the events one by one, `check_rows` at the tables of a run after any commit, `check_history` at what
runners and clients saw, `check` at all of it from scratch. Every rule is a function named in `catalogue.RULES`.

Rule 1: pure. No I/O, clock, loop or randomness; `verify` alone reads, through the store's port.
Rule 2: rules look at what was stored and said, never at how: they know no actor, no queue and no socket.
"""

from collections.abc import Iterable, Mapping, Sequence

from deltaci.invariants import history as heard
from deltaci.invariants import tables
from deltaci.invariants.history import Answered, Delivered, Granted, Heard, Replied, Worked
from deltaci.invariants.journal import Journal
from deltaci.invariants.ledger import Ledger
from deltaci.invariants.rules import Violation, violations
from deltaci.store.port import JournalEntry, Rows


def check_rows(journal: Journal, rows: Rows) -> list[Violation]:
    """What is wrong with the tables of a run and its jobs.

    Raises `ValueError` unless the journal was taken exactly up to the instant of `rows`.
    """
    if journal.last_id != rows.journal_id:
        raise ValueError(f"rows as of entry {rows.journal_id}, the journal was taken up to {journal.last_id}")
    return list(violations(tables.RULES, rows.run.run.id, journal.past, rows))


def check_history(
    journal: Journal,
    history: Sequence[Heard],
    *,
    ledger: Ledger | None = None,
    overlap_ms: int = 0,
    slots: Mapping[str, int] | None = None,
) -> list[Violation]:
    """What runners and clients saw and the events do not bear out.

    Args:
        journal: taken at least as far as it was when the last of `history` was heard.
        ledger: the deliveries as stored, if they are to be compared.
        overlap_ms: how long two runners may work on one job at the same time.
        slots: how many jobs each runner may work on at the same time, for those to be checked.
    """
    view = heard.View(journal.past, history, ledger=ledger, overlap_ms=overlap_ms, slots=slots or {})
    return list(violations(heard.RULES, "", view))


def check(
    events: Iterable[JournalEntry], rows: Iterable[Rows], history: Sequence[Heard], *, overlap_ms: int = 0
) -> list[Violation]:
    """Everything that is wrong: all `events` from the first on, the tables as of the last one, and what was heard."""
    journal = Journal()
    found = [one for entry in events for one in journal.take(entry)]
    found += [one for of_a_run in rows for one in check_rows(journal, of_a_run)]
    return found + check_history(journal, history, overlap_ms=overlap_ms)


__all__ = [
    "Answered",
    "Delivered",
    "Granted",
    "Heard",
    "Journal",
    "Ledger",
    "Replied",
    "Rows",
    "Violation",
    "Worked",
    "check",
    "check_history",
    "check_rows",
]
