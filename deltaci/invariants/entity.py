"""Rules over the events of any one entity, run or job: numbered, decodable, legal, caused, in one chain.

Rules 1, 2 and 20 of the catalogue. The others trust what is established here: they see only events that fold.
"""

from typing import Final

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import JobCreated, JobEvent, RunCreated, RunEvent, decode_event, type_name
from deltaci.domain.job import Job
from deltaci.domain.machine import IllegalMove
from deltaci.domain.run import Run
from deltaci.invariants.past import Change, Track
from deltaci.invariants.rules import Found, Rule
from deltaci.store.journal import draft_of, row_hash
from deltaci.store.port import JournalEntry

# What decoding and folding an event that does not belong there may raise, besides an illegal move.
CANNOT_READ: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
CANNOT_FOLLOW: Final = (ValueError, LookupError, TypeError, AttributeError, AssertionError)


def chain(last_id: int, last_hash: bytes, entry: JournalEntry) -> Found | None:
    """Entries are numbered without a gap, and each hash covers the entry and the hash before it."""
    if entry.id != last_id + 1:
        return Found(f"entry {entry.id} follows entry {last_id}")
    if entry.hash != row_hash(last_hash, entry.id, draft_of(entry)).hex():
        return Found(f"entry {entry.id} or one before it was changed: its hash differs")
    return None


def dense(track: Track, entry: JournalEntry) -> Found | None:
    """The events of an entity are numbered 1, 2, 3 ... without gap or repeat."""
    if entry.sequence != track.sequence + 1:
        return Found(f"event {entry.sequence} stands where {track.sequence + 1} is expected", (track.last_id,))
    return None


def readable(event: RunEvent | JobEvent | Exception) -> Found | None:
    """Every event can be decoded."""
    if isinstance(event, Exception):
        return Found(f"it cannot be decoded: {event}")
    return None


def nothing_after_end(track: Track, before: Run | Job | None) -> Found | None:
    """Nothing follows a final state."""
    if before is not None and before.state.is_final:
        return Found(f"it follows the end as {before.state}", (track.end_id,) if track.end_id else ())
    return None


def legal_move(after: Run | Job | Exception) -> Found | None:
    """Every transition is in its machine's table."""
    if isinstance(after, IllegalMove):
        return Found(f"it is no legal move: {after}")
    return None


def fold(after: Run | Job | Exception) -> Found | None:
    """Every event can follow the ones before it."""
    if isinstance(after, Exception):
        return Found(f"it cannot follow: {after}")
    return None


def read(data: bytes) -> RunEvent | JobEvent | Exception:
    """The event of an entry, or why there is none."""
    try:
        return decode_event(data)
    except CANNOT_READ as error:
        return error


def followed(before: Run | Job | None, event: RunEvent | JobEvent) -> Run | Job | Exception:
    """The entity after `event`, or why it cannot follow."""
    try:
        return evolved(before, event)
    except (IllegalMove, *CANNOT_FOLLOW) as error:
        return error


def evolved(before: Run | Job | None, event: RunEvent | JobEvent) -> Run | Job:
    """The entity after `event`; raises what folding an event that does not belong there raises."""
    match before, event:
        case None, RunCreated():
            return runs.created(event)
        case None, JobCreated():
            return jobs.created(event)
        case _, RunCreated() | JobCreated():
            raise ValueError("it exists already")
        case Run(), _:
            return runs.evolve(before, event)  # type: ignore[arg-type]  # a job's event fails there
        case Job(), _:
            return jobs.evolve(before, event)  # type: ignore[arg-type]  # a run's event fails there
        case _:
            raise ValueError("the first event is not its creation")


def entry_says_the_same(change: Change) -> Found | None:
    """An entry's columns say what its event says: whose, of which run, which kind, when."""
    entry, event, after = change.entry, change.event, change.after
    run_id = after.run_id if isinstance(after, Job) else after.id
    told = (entry.entity_id, entry.run_id, entry.type, entry.at_ms)
    if told != (after.id, run_id, type_name(event), event.at_ms):
        return Found(f"the entry says {told}, its event {(after.id, run_id, type_name(event), event.at_ms)}")
    return None


def caused(change: Change) -> Found | None:
    """Every event names who brought it about."""
    if not change.entry.cause.id:
        return Found(f"{change.entry.type} names no {change.entry.cause.kind} as its cause")
    return None


CHAIN: Final = Rule(20, chain)
DENSE: Final = Rule(1, dense)
READABLE: Final = Rule(1, readable)
END: Final = Rule(2, nothing_after_end)
FOLDS: Final = (Rule(2, legal_move), Rule(1, fold))

ALWAYS: Final = (
    Rule(20, entry_says_the_same),
    Rule(20, caused),
)

RULES: Final = (CHAIN, DENSE, READABLE, END, *FOLDS, *ALWAYS)
