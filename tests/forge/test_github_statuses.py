"""Commit statuses over a real socket, and what each answer of GitHub means."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import pytest

from deltaci.domain.errors import ForgeError, ForgeRejected, ForgeUnavailable
from deltaci.domain.repo import Repo
from deltaci.forge.github import GitHubStatuses
from deltaci.forge.post import RETRY_AFTER_MAX_MS, failure, forge_client
from tests.forge.hooks import NEW, a_repo
from tests.forge.loopback import FixedClock, Say, serving

pytestmark = pytest.mark.anyio
NOW_MS = FixedClock.INSTANT
TOKEN = "the-api-token"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with forge_client() as made:
        yield made


def at(url: str, **fields: Any) -> Repo:
    return a_repo(**{"report_to": url, "api_token": TOKEN, **fields})


async def set_success(client: httpx.AsyncClient, repo: Repo, *, timeout_ms: int = 5_000) -> None:
    statuses = GitHubStatuses(client, FixedClock(), timeout_ms=timeout_ms)
    await statuses.set_status(repo, NEW, state="success", context="deltaci/test", description="x" * 200, target_url="u")


async def test_a_status_is_one_request_with_the_fields_github_takes(client: httpx.AsyncClient) -> None:
    """Path, token and body are the contract; a description that is too long would be refused."""
    with serving() as github:
        await set_success(client, at(github.url + "/"))

    (asked,) = github.asked
    assert (asked.method, asked.path) == ("POST", f"/repos/acme/shop/statuses/{NEW}")
    assert asked.headers["authorization"] == f"Bearer {TOKEN}"
    assert asked.json() == {
        "state": "success",
        "context": "deltaci/test",
        "description": "x" * 139 + "…",
        "target_url": "u",
    }


async def test_a_redirect_is_not_followed(client: httpx.AsyncClient) -> None:
    """Following it would hand the token to whoever is at the other end."""
    with serving() as other, serving(Say(307, headers={"location": other.url})) as github:
        with pytest.raises(ForgeRejected, match="redirects are not followed"):
            await set_success(client, at(github.url))

        assert other.asked == []


@pytest.mark.slow
async def test_a_server_that_never_answers_is_given_up(client: httpx.AsyncClient) -> None:
    """One dead forge must not hold what is owed to the others."""
    with serving(Say(hangs=True)) as github, pytest.raises(ForgeUnavailable, match="no answer within 300 ms"):
        await set_success(client, at(github.url), timeout_ms=300)


async def test_a_server_that_is_not_there_is_unavailable(client: httpx.AsyncClient) -> None:
    """It may be restarting."""
    with serving() as github:
        gone = github.url

    with pytest.raises(ForgeUnavailable, match="set the status deltaci/test to success on acme/shop@"):
        await set_success(client, at(gone))


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "shop"},
        {"name": "acme/shop/../../user"},
        {"name": "acme/.."},
        {"name": "acme/shop?x"},
        {"api_token": ""},
        {"api_token": "line\nbreak"},
        {"api_token": "é"},
        {"url": "ftp://x"},
        {"url": "nowhere"},
        {"url": "http://[::1"},
    ],
)
async def test_what_can_never_work_is_rejected_without_a_request(
    client: httpx.AsyncClient, fields: dict[str, Any]
) -> None:
    """Asking again later would not help, and a crafted name must not reach another address."""
    with serving() as github:
        with pytest.raises(ForgeRejected):
            await set_success(client, at(**{"url": github.url, **fields}))

        assert github.asked == []


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


async def test_an_error_never_shows_the_token_nor_more_than_a_line(client: httpx.AsyncClient) -> None:
    """The text is stored and shown; what the other side says is not trusted."""
    hostile = b"\x1b[31m" + b"y" * 1_000_000
    with serving(Say(422, body=hostile)) as github, pytest.raises(ForgeRejected) as caught:
        await set_success(client, at(github.url))

    text = str(caught.value)
    assert TOKEN not in text
    assert text.isprintable()
    assert len(text) < 500
