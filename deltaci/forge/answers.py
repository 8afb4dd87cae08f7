"""What an answer of a forge means to us.

Rule 1: "again later" and "never" are the only two kinds of failure that a caller must tell apart.
Rule 2: the error says what was asked; what the other side says is shown cut, cleaned, and without our secrets.
Rule 3: an answer is typed before it is believed: whatever it holds, it is an answer or one of the two failures.
"""

from collections.abc import Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Final, TypeVar

import msgspec

from deltaci.domain.errors import ForgeError, ForgeRejected, ForgeUnavailable
from deltaci.forge.webhook import one_line

RETRY_AFTER_DEFAULT_MS: Final = 60_000
RETRY_AFTER_MAX_MS: Final = 2 * 3_600_000
_SHOWN_CHARACTERS_MAX: Final = 200
# A secret shorter than that would be found in any text
_SECRET_CHARACTERS_MIN: Final = 6

_ADVICE: Final[Mapping[int, str]] = {
    401: "the token is wrong or has expired",
    403: "the token lacks the right to do this",
    404: "there is no such address or commit, or the token may not see it",
    422: "the request is not acceptable, or the commit is unknown there",
}

T = TypeVar("T")


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that was expected. Header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class AnswerTooLong(ForgeRejected):
    """The answer is longer than anything we would read."""


def read(answer: Answer, shape: type[T], *, asked: str) -> T:
    """The JSON of an answer as `shape`; raises `ForgeUnavailable` for anything else: a proxy may have said it."""
    try:
        answer.body.decode("utf-8")
        return msgspec.json.decode(answer.body, type=shape)
    except (UnicodeDecodeError, RecursionError, msgspec.DecodeError) as error:
        why = one_line(str(error), _SHOWN_CHARACTERS_MAX)
        raise ForgeUnavailable(f"cannot {asked}: the answer is not what this forge gives: {why}") from error


def hidden(text: str, secrets: Sequence[str]) -> str:
    """`text` on one line, cut, with stars for each of `secrets`."""
    for secret in secrets:
        if len(secret) >= _SECRET_CHARACTERS_MIN:
            text = text.replace(secret, "***")
    return one_line(" ".join(text.split()), _SHOWN_CHARACTERS_MAX)


def failure(
    status: int, headers: Mapping[str, str], answer: str, *, asked: str, now_ms: int, secrets: Sequence[str] = ()
) -> ForgeError:
    """What an answer other than 2xx means. `headers` finds names in lower case."""
    said = hidden(answer, secrets)
    text = f"cannot {asked}: answered {status}" + (f" {said!r}" if said else "")
    wait_ms = asked_to_wait_ms(headers, now_ms)
    if is_limited(status, headers, answer):
        return ForgeUnavailable(f"{text}; asked to wait", retry_after_ms=wait_ms or RETRY_AFTER_DEFAULT_MS)
    if status >= 500 or status == 408:
        return ForgeUnavailable(text, retry_after_ms=wait_ms)
    if 300 <= status < 400:
        text = f"{text}; redirects are not followed, so give the new address or name"
    elif status in _ADVICE:
        text = f"{text}; {_ADVICE[status]}"
    return ForgeRejected(text, status=str(status))


def is_limited(status: int, headers: Mapping[str, str], answer: str) -> bool:
    """Whether the answer is about how often we ask."""
    speaks_of_it = is_spent(headers) or "rate limit" in answer.lower() or "retry-after" in headers
    return status == 429 or (status == 403 and speaks_of_it)


def is_spent(headers: Mapping[str, str]) -> bool:
    """Whether the forge takes nothing more from this account until its limit is reset."""
    return _left(headers) == "0"


def asked_to_wait_ms(headers: Mapping[str, str], now_ms: int) -> int | None:
    """How long the other side asks to wait, within 1 s and 2 h; None if it does not say.

    Times of day are compared with its own clock where it shows one: ours may be hours off.
    """
    now_ms = instant_ms(headers.get("date", "")) or now_ms
    asked = headers.get("retry-after", "").strip()
    reset = headers.get("x-ratelimit-reset", headers.get("ratelimit-reset", "")).strip()
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        wait = int(asked) * 1000
    elif asked:
        until_ms = instant_ms(asked)
        if until_ms is None:
            return None
        wait = until_ms - now_ms
    elif is_spent(headers) and reset.isascii() and reset.isdigit() and len(reset) < 13:
        wait = int(reset) * 1000 - now_ms
    else:
        return None
    return min(max(wait, 1_000), RETRY_AFTER_MAX_MS)


def instant_ms(date: str) -> int | None:
    """Milliseconds since the epoch of an HTTP date; None for anything else."""
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


def _left(headers: Mapping[str, str]) -> str | None:
    """What is left of the limit: GitHub's header, or the one of GitLab."""
    return headers.get("x-ratelimit-remaining", headers.get("ratelimit-remaining"))
