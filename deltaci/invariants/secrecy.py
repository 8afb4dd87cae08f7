"""The look for secrets where none may be: whoever planted them asks for each place that he can read."""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from deltaci.invariants.rules import Found, Rule, Violation, violation
from deltaci.store.port import JournalEntry, Rows

_encode: Final = msgspec.msgpack.Encoder().encode


def no_secret(secrets: Iterable[bytes], where: str, data: bytes) -> Found | None:
    """No secret is ever found in events, tables, logs, audit, metrics, traces or answers."""
    for number, secret in enumerate(secrets):
        if any(form in data for form in _forms(secret)):
            return Found(f"secret {number} stands in {where}")  # which one, and never the secret itself
    return None


def secrets_found(
    secrets: Iterable[bytes],
    entries: Iterable[JournalEntry] = (),
    rows: Iterable[Rows] = (),
    texts: Mapping[str, bytes] | None = None,
) -> list[Violation]:
    """Where any of `secrets` stands: in journal entries, in the tables of runs, in anything else by its name.

    A secret is looked for as it is and as JSON writes it; none of them may be empty.
    """
    known = tuple(secrets)
    if not all(known):
        raise ValueError("an empty secret stands everywhere")
    found = []
    for entry in entries:
        # What it says, besides its hash: hexadecimal digits may spell anything.
        said = _encode((entry.entity_id, entry.type, entry.cause)) + entry.data
        wrong = no_secret(known, f"entry {entry.id}, {entry.type}", said)
        if wrong is not None:
            found.append(violation(SECRECY, entry.entity_id, wrong, entry.id))
    for of_a_run in rows:
        wrong = no_secret(known, "its tables", _encode(of_a_run))
        if wrong is not None:
            found.append(violation(SECRECY, of_a_run.run.run.id, wrong))
    for where, data in (texts or {}).items():
        wrong = no_secret(known, where, data)
        if wrong is not None:
            found.append(violation(SECRECY, "", wrong))
    return found


def _forms(secret: bytes) -> tuple[bytes, ...]:
    try:
        return (secret, msgspec.json.encode(secret.decode())[1:-1])
    except UnicodeDecodeError:
        return (secret,)


SECRECY: Final = Rule(21, no_secret)
RULES: Final = (SECRECY,)
