"""A planted secret is found wherever it may not stand, and is not told again by what finds it."""

import msgspec
import pytest

from deltaci.domain.events import Cause
from deltaci.invariants.secrecy import secrets_found
from tests.invariants.stored import stored, with_run
from tests.invariants.story import RUN

SECRET = b'hu"sh-\xc3\xa4-0123456789'


def test_a_secret_in_the_journal_is_found() -> None:
    """In an event, where JSON writes it in its own way, and in a cause."""
    entries, _, _ = stored()
    event = msgspec.structs.replace(entries[3], data=msgspec.json.encode({"text": SECRET.decode()}))
    cause = msgspec.structs.replace(entries[4], cause=Cause("user", SECRET.decode()))

    found = secrets_found([b"other", SECRET], [*entries[:3], event, cause])

    assert [one.events for one in found] == [(4,), (5,)]
    assert not any(SECRET.decode() in one.text for one in found)


def test_a_secret_in_the_tables_or_in_any_text_is_found() -> None:
    """By the name of the place."""
    _, rows, _ = stored()
    texts = {"metrics": b"a 1\n", "error page": b"<p>" + SECRET + b"</p>", "log": b"\xff"}

    found = secrets_found([SECRET, b"\xff\xfe"], rows=[rows, with_run(rows, text=SECRET.decode())], texts=texts)

    assert [(one.entity_id, one.text) for one in found] == [
        (RUN, "secret 0 stands in its tables"),
        ("", "secret 0 stands in error page"),
    ]


def test_an_empty_secret_is_refused() -> None:
    """It would be found everywhere, or hide that the caller had none."""
    with pytest.raises(ValueError, match="empty"):
        secrets_found([b""])


def test_what_holds_no_secret_is_clean() -> None:
    """The lease's token is no secret once it is hashed."""
    entries, rows, _ = stored()

    assert secrets_found([SECRET], entries, [rows], {"log": b"nothing"}) == []
