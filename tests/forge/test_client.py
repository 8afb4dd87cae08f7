"""The one client of all forges: bounded, patient within limits, and never anywhere but at the configured address."""

from collections.abc import Callable
from email.utils import formatdate
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from deltaci.domain.errors import ConfigError, ForgeRejected, ForgeUnavailable
from deltaci.forge.answers import AnswerTooLong
from deltaci.forge.breaker import Breaker
from deltaci.forge.client import Ask, ForgeClient, HttpSettings, Identity, all_of, http_client, path_of
from tests.forge.asking import VirtualTime, Watcher, asking
from tests.forge.certificates import private_authority
from tests.forge.servers.wire import HANG, RESET, Answer, Asked, Fault, Server, route, serving

pytestmark = pytest.mark.anyio
SECRET = "the-secret-token"
WHO = Identity(account="me", headers={"authorization": f"Bearer {SECRET}"}, secrets=(SECRET,))
LOOK = Ask(path="/thing", asked="look at it")
MAKE = Ask(path="/thing", method="POST", body=b"{}", asked="make it")


class Forge(Server):
    """A forge with one thing, whose answers a test may set."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.said = Answer(200, {"id": 1})
        self.links: list[str] = []

    @route("GET", "/thing")
    @route("POST", "/thing")
    def thing(self, asked: Asked) -> Answer:
        said = Answer(self.said.status, self.said.body, dict(self.said.headers))
        is_known = "etag" in said.headers and asked.headers.get("if-none-match") == said.headers["etag"]
        return Answer(304, None, said.headers) if is_known else said

    @route("GET", "/api/list")
    def list(self, asked: Asked) -> Answer:
        links = {"link": f'<{self.links.pop(0)}>; rel="next"'} if self.links else {}
        return Answer(200, [int(asked.query.get("page", 1))], links)


def a_forge(time: VirtualTime | None = None, **fields: Any) -> Any:
    return serving(Forge((time or VirtualTime()).now_ms), **fields)


async def get(client: ForgeClient, forge: Server, ask: Ask = LOOK, who: Identity = WHO) -> bytes:
    return (await client.send(forge.url, ask, who)).body


# ---- again, and when -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(status=502), RESET])
@pytest.mark.parametrize(
    ("method", "is_repeatable", "tries"), [("GET", False, 3), ("POST", False, 1), ("POST", True, 3)]
)
async def test_what_does_no_harm_twice_is_asked_three_times(
    fault: Fault, method: str, is_repeatable: bool, tries: int
) -> None:
    """A comment made twice is seen twice: what is not known to be safe is left to the caller."""
    ask = Ask(path="/thing", method=method, asked="do it", is_repeatable=is_repeatable)
    async with a_forge() as forge, asking() as client:
        forge.fail_next(*[fault] * 5)

        with pytest.raises(ForgeUnavailable, match="cannot do it"):
            await get(client, forge, ask)

        assert len(forge.asked) == tries


async def test_a_passing_failure_is_not_noticed() -> None:
    """Each wait is longer, and never the same for all who wait."""
    time = VirtualTime()
    async with a_forge() as forge, asking(time) as client:
        forge.fail_next(RESET, Fault(status=503))

        assert await get(client, forge) == b'{"id":1}'

        assert [0.125 <= time.slept[0] <= 0.25, 0.25 <= time.slept[1] <= 0.5] == [True, True]


@pytest.mark.parametrize(("header", "waits"), [("2", [2.0]), ("60", [])])
async def test_a_wait_that_was_asked_for_is_kept_or_handed_on(header: str, waits: list[float]) -> None:
    """A moment is waited for; a longer time is for whoever has a queue."""
    time = VirtualTime()
    async with a_forge() as forge, asking(time) as client:
        forge.fail_next(Fault(status=503, headers={"retry-after": header}))

        if waits:
            await get(client, forge)
        else:
            with pytest.raises(ForgeUnavailable) as caught:
                await get(client, forge)
            assert caught.value.retry_after_ms == 60_000

        assert time.slept == waits


@pytest.mark.parametrize(
    "limit",
    [
        Fault(status=429, headers={"retry-after": "60"}),
        Fault(status=403, body=b"secondary rate limit", headers={"retry-after": "60"}),
        Fault(status=200, body=b"{}", headers={"x-ratelimit-remaining": "0", "x-ratelimit-reset": "1700000060"}),
        Fault(status=200, body=b"{}", headers={"ratelimit-remaining": "0", "ratelimit-reset": "1700000060"}),
    ],
)
async def test_who_was_asked_to_wait_does_not_ask_before(limit: Fault) -> None:
    """Going on regardless is what gets an account shut out; another account is not held back."""
    time = VirtualTime()
    async with a_forge() as forge, asking(time) as client:
        forge.fail_next(limit)
        if limit.status == 200:
            await get(client, forge)
        else:
            with pytest.raises(ForgeUnavailable):
                await get(client, forge)

        with pytest.raises(ForgeUnavailable, match="asked to wait for 60 s more") as caught:
            await get(client, forge)
        await get(client, forge, who=Identity(account="you"))
        time.at_ms += 60_000
        await get(client, forge)

        assert caught.value.retry_after_ms == 60_000
        assert len(forge.asked) == 3


@pytest.mark.slow
async def test_a_forge_that_never_answers_is_given_up() -> None:
    """One dead forge must not hold what is owed to the others."""
    async with a_forge() as forge, asking(pace={"timeout_ms": 300, "tries_max": 1}) as client:
        forge.fail_next(HANG)

        with pytest.raises(ForgeUnavailable, match="cannot look at it: no answer within 300 ms"):
            await get(client, forge)


async def test_a_forge_that_is_not_there_is_unavailable() -> None:
    """It may be restarting."""
    async with a_forge() as forge:
        pass
    async with asking() as client:
        with pytest.raises(ForgeUnavailable, match="cannot look at it"):
            await get(client, forge)


# ---- the breaker -----------------------------------------------------------------------------------------------------


async def test_a_host_that_fails_in_a_row_is_left_alone_and_tried_again() -> None:
    """Everybody hears at once that there is no use, and it is seen that it is so."""
    time, watcher = VirtualTime(), Watcher()
    breaker = partial(Breaker, failures_max=3, pause_ms=10_000)
    async with (
        a_forge() as forge,
        a_forge() as other,
        asking(time, breaker=breaker, observer=watcher, pace={"tries_max": 1}) as client,
    ):
        forge.fail_next(*[RESET] * 4)
        for _ in range(3):
            with pytest.raises(ForgeUnavailable):
                await get(client, forge)

        with pytest.raises(ForgeUnavailable, match="left alone for a while") as caught:
            await get(client, forge)
        await get(client, other)
        time.at_ms += 10_000
        with pytest.raises(ForgeUnavailable):
            await get(client, forge)
        time.at_ms += 20_000
        await get(client, forge)

        assert caught.value.retry_after_ms == 10_000
        assert len(forge.asked) == 5
        assert watcher.states == ["open", "half_open", "open", "half_open", "closed"]
        assert watcher.outcomes.count("failed") == 4
        assert client.breaker_state(forge.url) == "closed"


async def test_a_refusal_is_not_a_failure_of_the_host() -> None:
    """One repository without rights must not keep all others from being told."""
    async with a_forge() as forge, asking(breaker=partial(Breaker, failures_max=2)) as client:
        forge.said = Answer(404, {"message": "Not Found"})
        for _ in range(5):
            with pytest.raises(ForgeRejected):
                await get(client, forge)

        assert len(forge.asked) == 5


async def test_a_probe_that_is_given_up_lets_the_next_one_try() -> None:
    """Otherwise a canceled request would leave the host alone for ever."""
    time = VirtualTime()
    breaker = partial(Breaker, failures_max=1, pause_ms=1_000)
    async with a_forge() as forge, asking(time, breaker=breaker, pace={"tries_max": 1}) as client:
        forge.fail_next(RESET, HANG)
        with pytest.raises(ForgeUnavailable):
            await get(client, forge)
        time.at_ms += 1_000
        async with anyio.create_task_group() as group:
            group.start_soon(get, client, forge)
            await forge.until(lambda: len(forge.asked) == 2)
            group.cancel_scope.cancel()

        assert await get(client, forge) == b'{"id":1}'


# ---- nowhere else ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    """Following it would hand the token to whoever is at the other end."""
    async with a_forge() as other, a_forge() as forge, asking() as client:
        forge.said = Answer(status, {}, {"location": f"{other.url}/thing"})

        with pytest.raises(ForgeRejected, match="redirects are not followed"):
            await get(client, forge)

        assert other.asked == []


async def pages_of(client: ForgeClient, forge: Server, **fields: Any) -> list[int]:
    ask = Ask(path="/list", asked="list it")
    return [one async for page in client.pages(f"{forge.url}/api", ask, WHO, list[int], **fields) for one in page]


async def test_pages_are_followed_as_the_forge_links_them() -> None:
    """However it numbers them."""
    async with a_forge() as forge, asking() as client:
        forge.links = [f"{forge.url}/api/list?page=7", f"{forge.url}/api/list?page=9&x=%2F"]

        assert await pages_of(client, forge) == [1, 7, 9]

        assert forge.asked[-1].target == "/api/list?page=9&x=%2F"


@pytest.mark.parametrize(
    "link",
    ["OTHER/api/list?page=2", "//evil/api/list", "/api/list?page=2", "HERE/secret", "HERE/api/../secret", "HEREevil"],
)
async def test_a_link_to_anywhere_else_is_refused(link: str) -> None:
    """The next page of a list is a place to send the token to."""
    async with a_forge() as other, a_forge() as forge, asking() as client:
        forge.links = [link.replace("OTHER", other.url).replace("HERE", forge.url)]

        with pytest.raises(ForgeRejected, match="at another address"):
            await pages_of(client, forge)

        assert (len(forge.asked), other.asked) == (1, [])


async def test_pages_that_do_not_end_are_given_up() -> None:
    """A forge that links a page to itself must not keep us for ever."""
    async with a_forge() as forge, asking() as client:
        forge.links = [f"{forge.url}/api/list?page=1"] * 10

        with pytest.raises(AnswerTooLong, match="more than 3 pages"):
            await pages_of(client, forge, pages_max=3)


@pytest.mark.parametrize(
    "base",
    ["ftp://x", "nowhere", "http://[::1", "http://", "https://me:pw@host", "https://host/#x", "http://host:port"],
)
async def test_what_is_no_address_is_rejected(base: str) -> None:
    """Asking again later would not help."""
    async with asking() as client:
        with pytest.raises(ForgeRejected, match="cannot look at it"):
            await client.send(base, LOOK, WHO)


@pytest.mark.parametrize("header", [f"{SECRET}\nx: y", f"é{SECRET}"])
async def test_a_header_that_cannot_be_sent_is_rejected_without_being_shown(header: str) -> None:
    """The library's own error would show it."""
    who = Identity(account="me", headers={"authorization": header})
    async with a_forge() as forge, asking() as client:
        with pytest.raises(ForgeRejected, match="header is not valid") as caught:
            await get(client, forge, who=who)

        assert SECRET not in repr(caught.value) + repr(caught.value.__cause__)
        assert forge.asked == []


def test_a_path_is_exactly_its_segments() -> None:
    """A crafted name must not reach another address."""
    assert path_of("repos", "a/b?c#d", 7, "é") == "/repos/a%2Fb%3Fc%23d/7/%C3%A9"
    for segment in ("", ".", ".."):
        with pytest.raises(ForgeRejected):
            path_of("repos", segment)


# ---- what comes back -------------------------------------------------------------------------------------------------


async def test_an_answer_may_be_as_long_as_was_said_and_no_longer() -> None:
    """What a hostile forge sends without end is not read to its end."""
    async with a_forge() as forge, asking() as client:
        forge.said = Answer(200, b"x" * 1_000)

        assert len(await get(client, forge, Ask(path="/thing", asked="read it", bytes_max=1_000))) == 1_000
        with pytest.raises(AnswerTooLong, match="longer than 999 bytes"):
            await get(client, forge, Ask(path="/thing", asked="read it", bytes_max=999))


async def test_a_failure_shows_one_line_and_no_secret() -> None:
    """What the other side says is not trusted, and some echo what they were sent."""
    async with a_forge() as forge, asking() as client:
        forge.said = Answer(422, b"\x1b[31m" + SECRET.encode() + b"y" * 1_000_000)

        with pytest.raises(ForgeRejected) as caught:
            await get(client, forge)

        assert SECRET not in str(caught.value)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 500
        assert caught.value.details == {"status": "422"}


async def test_what_has_not_changed_is_not_sent_again() -> None:
    """It costs nothing of the rate; another account sees for itself."""
    async with a_forge() as forge, asking() as client:
        forge.said = Answer(200, {"id": 1}, {"etag": '"1"'})
        first = await get(client, forge)
        again = await get(client, forge)
        await get(client, forge, who=Identity(account="you"))
        forge.said = Answer(200, {"id": 2}, {"etag": '"2"'})
        newer = await get(client, forge)

        assert [first, again, newer] == [b'{"id":1}', b'{"id":1}', b'{"id":2}']
        assert [one.headers.get("if-none-match") for one in forge.asked] == [None, '"1"', None, '"1"']


async def test_only_so_many_answers_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, whatever is asked."""
    monkeypatch.setattr("deltaci.forge.client.CACHED_MAX", 2)
    async with a_forge() as forge, asking() as client:
        forge.said = Answer(200, {"id": 1}, {"etag": '"1"'})
        asks = [Ask(path="/thing", query={"n": str(number)}, asked="look") for number in range(3)]
        for ask in [*asks, asks[0], asks[2]]:
            await get(client, forge, ask)

        assert [one.headers.get("if-none-match") for one in forge.asked] == [None, None, None, None, '"1"']


async def test_how_far_the_clocks_are_apart_is_learned_from_every_answer() -> None:
    """Ours may be hours ahead after a start, and a proof of who we are is good for minutes."""
    time = VirtualTime()
    async with a_forge() as forge, asking(time) as client:
        forge.said = Answer(404, {}, {"date": formatdate(time.at_ms / 1000 - 3_600, usegmt=True)})
        with pytest.raises(ForgeRejected):
            await get(client, forge)

        assert client.offset_ms(forge.url) == -3_600_000


async def test_many_are_asked_a_few_at_a_time_and_the_first_failure_is_told() -> None:
    """An error is the error, not a group of it."""
    running = most = 0

    async def call(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await anyio.lowlevel.checkpoint()
        running -= 1
        if number == 13:
            raise ForgeRejected("thirteen")
        return number

    assert await all_of([partial(call, number) for number in range(10)], at_once=3) == list(range(10))
    assert most == 3
    with pytest.raises(ForgeRejected, match="thirteen"):
        await all_of([partial(call, number) for number in range(20)])


# ---- how it is reached -----------------------------------------------------------------------------------------------


async def test_a_private_authority_is_trusted_where_it_is_set(tmp_path: Path) -> None:
    """Self-hosted forges often have one; without the setting nothing is sent to them."""
    ca_file, tls = private_authority(tmp_path)
    async with a_forge(tls=tls) as forge:
        async with asking(http=HttpSettings(ca_file=str(ca_file))) as client:
            assert await get(client, forge) == b'{"id":1}'
        async with asking() as client:
            with pytest.raises(ForgeUnavailable, match="CERTIFICATE_VERIFY_FAILED"):
                await get(client, forge)

        assert len(forge.asked) == 1


class Proxy(Server):
    """A proxy that answers everything itself."""

    def answer(self, asked: Asked) -> Answer:
        return Answer(200, {"via": asked.target})


async def test_a_proxy_is_asked_where_it_is_set() -> None:
    """Some networks have no other way out."""
    async with serving(Proxy(VirtualTime().now_ms)) as proxy, asking(http=HttpSettings(proxy=proxy.url)) as client:
        answer = await client.send("http://forge.invalid/api", LOOK, WHO)

        assert answer.body == b'{"via":"http://forge.invalid/api/thing"}'
        assert proxy.asked[0].headers["user-agent"] == "delta-ci"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (HttpSettings(ca_file="/nowhere"), "http.ca_file is '/nowhere'"),
        (HttpSettings(ca_file=__file__), "it holds no certificates"),
        (HttpSettings(proxy="socks9://host"), "http.proxy"),
        (HttpSettings(proxy="http://me:secret-proxy@[::"), "http.proxy"),
    ],
)
def test_a_setting_that_cannot_be_used_is_told_at_the_start(settings: HttpSettings, says: str) -> None:
    """Not when the first webhook comes."""
    with pytest.raises(ConfigError, match=says.replace("[", "\\[")) as refused:
        http_client(settings)

    assert "secret-proxy" not in str(refused.value)
