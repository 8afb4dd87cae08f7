"""What each answer of a forge means: again later, or never; and what of it is believed and shown."""

from datetime import UTC, datetime
from email.utils import format_datetime

import msgspec
import pytest

from deltaci.domain.errors import ForgeError, ForgeRejected, ForgeUnavailable
from deltaci.forge.answers import RETRY_AFTER_MAX_MS, Answer, failure, read
from tests.forge.loopback import FixedClock

NOW_MS = FixedClock.INSTANT


class Shape(msgspec.Struct):
    id: int


@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry_after_ms"),
    [
        (500, {}, ForgeUnavailable, None),
        (502, {"retry-after": "7"}, ForgeUnavailable, 7_000),
        (503, {"retry-after": "0"}, ForgeUnavailable, 1_000),
        (408, {}, ForgeUnavailable, None),
        (429, {}, ForgeUnavailable, 60_000),
        (429, {"retry-after": "30"}, ForgeUnavailable, 30_000),
        (429, {"retry-after": "999999999"}, ForgeUnavailable, RETRY_AFTER_MAX_MS),
        (429, {"retry-after": "9" * 400}, ForgeUnavailable, 60_000),
        (429, {"retry-after": "soon"}, ForgeUnavailable, 60_000),
        (403, {"retry-after": "30"}, ForgeUnavailable, 30_000),
        (
            403,
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(NOW_MS // 1000 + 90)},
            ForgeUnavailable,
            90_000,
        ),
        (403, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1"}, ForgeUnavailable, 1_000),
        (403, {"x-ratelimit-remaining": "0"}, ForgeUnavailable, 60_000),
        (403, {"x-ratelimit-remaining": "12", "x-ratelimit-reset": "1"}, ForgeRejected, None),
        (401, {}, ForgeRejected, None),
        (404, {}, ForgeRejected, None),
        (422, {}, ForgeRejected, None),
        (301, {}, ForgeRejected, None),
        (400, {}, ForgeRejected, None),
    ],
)
def test_each_answer_means_again_later_or_never(
    status: int, headers: dict[str, str], kind: type[ForgeError], retry_after_ms: int | None
) -> None:
    """The two must not be confused: one fills the outbox for ever, the other loses a result."""
    error = failure(status, headers, '{\n "message": "Not now"}', asked="set it", now_ms=NOW_MS)

    assert (kind, retry_after_ms) == (type(error), error.retry_after_ms)
    assert str(error).startswith(f"cannot set it: answered {status}")
    assert "Not now" in str(error)


def test_a_date_to_retry_after_is_understood() -> None:
    """HTTP allows a date as well as seconds; proxies send it."""
    date = format_datetime(datetime.fromtimestamp(NOW_MS / 1000 + 20, UTC), usegmt=True)

    error = failure(503, {"retry-after": date}, "", asked="set it", now_ms=NOW_MS)

    assert error.retry_after_ms == 20_000


@pytest.mark.parametrize("off_ms", [5 * 3_600_000, -5 * 3_600_000])
@pytest.mark.parametrize("how", ["retry-after", "x-ratelimit-reset"])
def test_a_time_to_wait_for_is_taken_by_the_clock_of_who_asks(how: str, off_ms: int) -> None:
    """Ours may be hours off: then it would be asked every second, or not for hours."""
    theirs_s = (NOW_MS + off_ms) / 1000
    date, until = (format_datetime(datetime.fromtimestamp(theirs_s + s, UTC), usegmt=True) for s in (0, 90))
    asked = {"retry-after": until} if how == "retry-after" else {"x-ratelimit-reset": str(int(theirs_s + 90))}

    error = failure(403, {"x-ratelimit-remaining": "0", "date": date, **asked}, "", asked="set it", now_ms=NOW_MS)

    assert error.retry_after_ms == 90_000


def test_a_secondary_rate_limit_is_told_by_its_text() -> None:
    """GitHub sends it as 403 and not always with a header."""
    answer = '{"message": "You have exceeded a secondary rate limit"}'

    error = failure(403, {}, answer, asked="set it", now_ms=NOW_MS)

    assert isinstance(error, ForgeUnavailable)


def test_a_secret_that_the_answer_repeats_is_not_shown() -> None:
    """The text is stored and shown; some servers echo what they were sent."""
    error = failure(401, {}, "bad token ghs_abcdef\x1b[31m", asked="set it", now_ms=NOW_MS, secrets=("ghs_abcdef",))

    assert "ghs_abcdef" not in str(error)
    assert "bad token ***" in str(error)
    assert str(error).isprintable()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Log in</html>",
        b"[]",
        b"null",
        b'{"id": "1"}',
        b'{"id": 1, "x": "\xff"}',
        b"[" * 100_000,
        b'{"id": 1',
    ],
)
def test_an_answer_that_is_not_what_was_asked_for_is_no_answer(body: bytes) -> None:
    """A proxy, a login page, a forge in the middle of an upgrade: it may be better later, and it is no crash."""
    with pytest.raises(ForgeUnavailable, match="cannot look: the answer is not what this forge gives"):
        read(Answer(status=200, headers={}, body=body), Shape, asked="look")
