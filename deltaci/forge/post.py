"""One bounded POST of JSON to a forge, and what its answer means to us.

Rule 1: a redirect is never followed: it could carry a token to somebody else.
Rule 2: time and answer are bounded, whatever the other side does; what it says is shown cut and cleaned.
Rule 3: the error says what was asked. "Again later" and "never" are the only two kinds a caller must tell apart.
"""

from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final

import anyio
import httpx

from deltaci.domain.errors import ForgeError, ForgeRejected, ForgeUnavailable
from deltaci.forge.webhook import one_line

DEFAULT_TIMEOUT_MS: Final = 10_000
ANSWER_BYTES_MAX: Final = 16 * 1024
RETRY_AFTER_DEFAULT_MS: Final = 60_000
RETRY_AFTER_MAX_MS: Final = 2 * 3_600_000
_SHOWN_CHARACTERS_MAX: Final = 200

_ADVICE: Final[Mapping[int, str]] = {
    401: "the token is wrong or has expired",
    403: "the token lacks the right to do this",
    404: "there is no such address or commit, or the token may not see it",
    422: "the request is not acceptable, or the commit is unknown there",
}


def forge_client() -> httpx.AsyncClient:
    """A client as forges should be called: no redirects, few connections. Close it at the end."""
    return httpx.AsyncClient(
        follow_redirects=False,
        limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
        headers={"user-agent": "delta-ci"},
    )


async def post_json(
    client: httpx.AsyncClient,
    url: str,
    body: bytes,
    *,
    headers: Mapping[str, str],
    asked: str,
    timeout_ms: int,
    now_ms: Callable[[], int],
) -> None:
    """POST `body`; return when the answer is a 2xx.

    Args:
        asked: what the request is for, after "cannot": it opens every error's text.
        timeout_ms: for all of it, from the connection to the end of the answer.
    Raises:
        ForgeUnavailable: no answer, a 5xx, or a request to wait (`retry_after_ms`).
        ForgeRejected: any other answer, redirects included.
    """
    sent = {**headers, "content-type": "application/json"}
    try:
        with anyio.fail_after(timeout_ms / 1000):
            async with client.stream(
                "POST", url, content=body, headers=sent, follow_redirects=False, timeout=timeout_ms / 1000
            ) as response:
                if response.is_success:
                    return
                answer = await _start_of(response)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise ForgeUnavailable(f"cannot {asked}: no answer within {timeout_ms} ms") from error
    except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeEncodeError, httpx.LocalProtocolError) as error:
        raise ForgeRejected(f"cannot {asked}: the address or a header is not valid") from error
    except httpx.HTTPError as error:
        what = one_line(str(error), _SHOWN_CHARACTERS_MAX) or type(error).__name__
        raise ForgeUnavailable(f"cannot {asked}: {what}") from error
    raise failure(response.status_code, response.headers, answer, asked=asked, now_ms=now_ms())


def failure(status: int, headers: Mapping[str, str], answer: str, *, asked: str, now_ms: int) -> ForgeError:
    """What an answer other than 2xx means. `headers` finds names in lower case."""
    said = one_line(" ".join(answer.split()), _SHOWN_CHARACTERS_MAX)
    text = f"cannot {asked}: answered {status}" + (f" {said!r}" if said else "")
    wait_ms = _wait_ms(headers, now_ms)
    is_limited = headers.get("x-ratelimit-remaining") == "0" or "rate limit" in answer.lower()
    if status == 429 or (status == 403 and (is_limited or "retry-after" in headers)):
        return ForgeUnavailable(f"{text}; asked to wait", retry_after_ms=wait_ms or RETRY_AFTER_DEFAULT_MS)
    if status >= 500 or status == 408:
        return ForgeUnavailable(text, retry_after_ms=wait_ms)
    if 300 <= status < 400:
        return ForgeRejected(f"{text}; redirects are not followed, so give the new address or name")
    advice = _ADVICE.get(status)
    return ForgeRejected(f"{text}; {advice}" if advice else text)


def _wait_ms(headers: Mapping[str, str], now_ms: int) -> int | None:
    """How long the other side asks to wait, within 1 s and 2 h; None if it does not say.

    Times of day are compared with its own clock where it shows one: ours may be hours off.
    """
    now_ms = _instant_ms(headers.get("date", "")) or now_ms
    asked = headers.get("retry-after", "").strip()
    reset = headers.get("x-ratelimit-reset", "").strip()
    if asked.isascii() and asked.isdigit() and len(asked) < 10:
        wait = int(asked) * 1000
    elif asked:
        until_ms = _instant_ms(asked)
        if until_ms is None:
            return None
        wait = until_ms - now_ms
    elif headers.get("x-ratelimit-remaining") == "0" and reset.isascii() and reset.isdigit() and len(reset) < 13:
        wait = int(reset) * 1000 - now_ms
    else:
        return None
    return min(max(wait, 1_000), RETRY_AFTER_MAX_MS)


def _instant_ms(date: str) -> int | None:
    """Milliseconds since the epoch of an HTTP date; None for anything else."""
    try:
        return int(parsedate_to_datetime(date).timestamp() * 1000)
    except (ValueError, OverflowError, OSError):
        return None


async def _start_of(response: httpx.Response) -> str:
    got = bytearray()
    async for chunk in response.aiter_raw():  # raw: an answer cannot be a compression bomb
        got += chunk
        if len(got) >= ANSWER_BYTES_MAX:
            break
    return bytes(got[:ANSWER_BYTES_MAX]).decode("utf-8", "replace")
