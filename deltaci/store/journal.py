"""The journal's rows and the chain of hashes over them, the same for every backend and for whoever verifies.

Rule 1: rows are numbered 1, 2, 3 ... over the whole store; none is ever changed or taken out.
Rule 2: each row's hash covers the previous row's hash, so that an edit anywhere breaks the chain from there on.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from deltaci.domain import ids
from deltaci.domain.events import Cause, JobEvent, RunEvent, encode_event, type_name
from deltaci.store.port import JournalEntry
from deltaci.store.writes import Audit

GENESIS: Final = bytes(32)  # the "previous hash" of the first row

_encode_json: Final = msgspec.json.Encoder(order="deterministic").encode
_decode_cause: Final = msgspec.json.Decoder(Cause).decode


class Draft(NamedTuple):
    """A row before it has its place in the chain. `cause` and `data` are JSON."""

    entity_id: str
    run_id: str
    sequence: int | None
    type: str
    at_ms: int
    cause: bytes
    data: bytes


class Row(NamedTuple):
    """A row as stored, columns in the order of the table."""

    id: int
    entity_id: str
    run_id: str
    sequence: int | None
    type: str
    at_ms: int
    cause: bytes
    data: bytes
    hash: bytes


def row_hash(previous: bytes, row_id: int, draft: Draft) -> bytes:
    """SHA-256 over the previous row's 32 bytes of hash, then a header, then the fields.

    The header is ASCII: id, time, sequence (`-` for none) and the lengths in bytes of the five fields that follow, in
    decimal, separated by single spaces and ended by a newline. The fields are entity id, run id, type (UTF-8), cause
    and data (JSON), without separators: the lengths make every split unambiguous.
    """
    entity, run, kind = draft.entity_id.encode(), draft.run_id.encode(), draft.type.encode()
    sequence = "-" if draft.sequence is None else draft.sequence
    header = (
        f"{row_id} {draft.at_ms} {sequence} {len(entity)} {len(run)} {len(kind)} {len(draft.cause)} {len(draft.data)}\n"
    )
    return hashlib.sha256(b"".join((previous, header.encode(), entity, run, kind, draft.cause, draft.data))).digest()


def chained(drafts: Iterable[Draft], *, last_id: int, last_hash: bytes) -> Iterator[Row]:
    """Give the drafts their ids and hashes, going on after the row `last_id` (0: from the start)."""
    for row_id, draft in enumerate(drafts, start=last_id + 1):
        last_hash = row_hash(last_hash, row_id, draft)
        yield Row(row_id, *draft, last_hash)


def draft_of(entry: JournalEntry) -> Draft:
    """The fields of a stored entry that its hash covers, besides its id."""
    return Draft(
        entry.entity_id,
        entry.run_id,
        entry.sequence,
        entry.type,
        entry.at_ms,
        _encode_json(entry.cause),
        entry.data,
    )


def entry_of(row: Row) -> JournalEntry:
    """What a reader of the journal gets; raises `TypeError` or `msgspec.DecodeError` on what was never written so."""
    if not (isinstance(row.data, bytes) and isinstance(row.hash, bytes)):
        raise TypeError(f"data is {type(row.data).__name__}, hash is {type(row.hash).__name__}")
    return JournalEntry(
        id=row.id,
        entity_id=row.entity_id,
        run_id=row.run_id,
        sequence=row.sequence,
        type=row.type,
        at_ms=row.at_ms,
        cause=cause_of(row.cause),
        data=row.data,
        hash=row.hash.hex(),
    )


def cause_of(data: bytes) -> Cause:
    """The cause as a row keeps it; raises `msgspec.DecodeError`."""
    return _decode_cause(data)


def drafts_of_events(
    entity_id: str, run_id: str, first: int, events: Sequence[RunEvent] | Sequence[JobEvent], cause: Cause
) -> list[Draft]:
    """Rows for the events of one entity, numbered from `first` on."""
    because = _encode_json(cause)
    return [
        Draft(entity_id, run_id, sequence, type_name(event), event.at_ms, because, encode_event(event))
        for sequence, event in enumerate(events, start=first)
    ]


def draft_of_audit(audit: Audit) -> Draft:
    """The row of an audit record; it belongs to the run that its entity belongs to, if any."""
    entity_id = audit.entity_id
    run_id = entity_id if entity_id.startswith("run_") else ids.run_of(entity_id) or ""
    return Draft(
        entity_id, run_id, None, audit.type, audit.at_ms, _encode_json(audit.cause), _encode_json(audit.details)
    )
