"""One HTTP client for all forges: it asks the configured address and no other, and never longer or more than it may.

Rule 1: a redirect is never followed, and a link to another page only below the address that was asked: either could
        carry a token to somebody else.
Rule 2: time and answer are bounded, whatever the other side does.
Rule 3: only what does no harm twice is asked again; a longer wait is the caller's, who has a queue for it.
Rule 4: who was asked to wait does not ask before; a host that fails again and again is left alone for a while.
"""

import random
import ssl
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol, TypeAlias, TypeVar
from urllib.parse import quote, urlencode, urlsplit

import anyio
import httpx
import msgspec
from loguru import logger

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ConfigError, ForgeError, ForgeRejected, ForgeUnavailable
from deltaci.forge.answers import (
    Answer,
    AnswerTooLong,
    asked_to_wait_ms,
    failure,
    hidden,
    instant_ms,
    is_limited,
    is_spent,
    read,
)
from deltaci.forge.breaker import Breaker, BreakerState

USER_AGENT: Final = "delta-ci"
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
ERROR_BYTES_MAX: Final = 16 * 1024
AT_ONCE_MAX: Final = 16
PAGES_MAX: Final = 100
CACHED_MAX: Final = 2_000
CACHED_BYTES_MAX: Final = 32 * 1024 * 1024
CACHED_ANSWER_BYTES_MAX: Final = 512 * 1024
WAITING_MAX: Final = 10_000

Outcome: TypeAlias = Literal["ok", "not_modified", "refused", "limited", "failed"]
T = TypeVar("T")


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How patient the client is. `timeout_ms` is for one try, from the connection to the end of the answer.

    Before the n-th repetition it waits between half and all of `delay_ms * 2**(n-1)`, or as long as it was asked to,
    if that is at most `wait_max_ms`.
    """

    timeout_ms: int = 10_000
    tries_max: int = 3
    delay_ms: int = 250
    wait_max_ms: int = 3_000


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks. `account` names what the forge counts requests for; `secrets` are kept out of every text."""

    account: str
    headers: Mapping[str, str] = {}
    secrets: tuple[str, ...] = ()


NOBODY: Final = Identity(account="")


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """One request. `path` is made by `path_of`; `asked` says what it is for, after "cannot", and opens every error.

    `accepts`: statuses besides 2xx that are answers and no failures. `is_repeatable`: doing it twice is doing it once;
    reading always is.
    """

    path: str
    asked: str
    method: str = "GET"
    query: Mapping[str, str | Sequence[str]] = {}
    body: bytes | None = None
    headers: Mapping[str, str] = {}
    accepts: frozenset[int] = frozenset()
    is_repeatable: bool = False
    bytes_max: int = ANSWER_BYTES_MAX
    timeout_ms: int | None = None


class ForgeObserver(Protocol):
    """Sees how forges answer."""

    def forge_asked(self, host: str, outcome: Outcome) -> None:
        """One request was sent, and this became of it."""
        ...

    def forge_breaker(self, host: str, state: BreakerState) -> None:
        """The breaker of a host has moved."""
        ...


class _NoObserver:
    def forge_asked(self, host: str, outcome: Outcome) -> None:
        """Nobody looks."""

    def forge_breaker(self, host: str, state: BreakerState) -> None:
        """Nobody looks."""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How forges are reached: `ca_file` (PEM) is trusted besides the public authorities; `proxy` is an http address."""

    ca_file: str = ""
    proxy: str = ""


def http_client(settings: HttpSettings | None = None) -> httpx.AsyncClient:
    """The pool of connections. Close it at the end. Raises `ConfigError` if a setting cannot be used."""
    settings = settings or HttpSettings()
    verify = httpx.create_ssl_context()
    if settings.ca_file:
        try:
            verify.load_verify_locations(cafile=str(Path(settings.ca_file)))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"http.ca_file is {settings.ca_file!r}: it holds no certificates: {error}") from error
    if settings.proxy and not settings.proxy.startswith(("http://", "https://")):
        raise ConfigError("http.proxy is no address of the form http://host:port")
    try:
        return httpx.AsyncClient(
            follow_redirects=False,
            verify=verify,
            proxy=settings.proxy or None,
            limits=httpx.Limits(max_connections=4 * AT_ONCE_MAX, max_keepalive_connections=8),
            # An answer that is not compressed cannot be a compression bomb.
            headers={"user-agent": USER_AGENT, "accept-encoding": "identity"},
        )
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError("http.proxy is no address of the form http://host:port") from error


def path_of(*segments: str | int) -> str:
    """`/a/b%2Fc`: a path of exactly these segments, whatever they hold; raises `ForgeRejected` for `.` and `..`."""
    for segment in segments:
        if str(segment) in ("", ".", ".."):
            raise ForgeRejected(f"cannot ask for {segments!r}: {segment!r} is no name")
    return "".join(f"/{quote(str(segment), safe='')}" for segment in segments)


def base_of(address: str, *, asked: str) -> str:
    """The address as the beginning of others; raises `ForgeRejected` unless it is a plain http(s) one."""
    try:
        parts = urlsplit(address)
        is_plain = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_plain = False
    if not is_plain or parts.scheme not in ("http", "https") or parts.username is not None or parts.fragment:
        raise ForgeRejected(f"cannot {asked}: the forge's address is not of the form https://host/path")
    return address.rstrip("/")


class ForgeClient:
    """Asks forges. One for the process: breakers, waits and known answers are kept a host, an account, an address."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        clock: Clock,
        rng: random.Random,
        *,
        pace: Pace | None = None,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
        observer: ForgeObserver | None = None,
        breaker: Callable[[], Breaker] = Breaker,
    ) -> None:
        """Ask over `http`; `rng` draws jitter, `sleep` (seconds) waits, `breaker` makes one for each host."""
        self._http = http
        self._clock = clock
        self._rng = rng
        self._pace = pace or Pace()
        self._sleep = sleep
        self._observer = observer or _NoObserver()
        self._make_breaker = breaker
        self._breakers: dict[str, Breaker] = {}
        self._places: dict[str, anyio.CapacityLimiter] = {}
        self._offsets: dict[str, int] = {}
        self._waits: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._known = _Known()

    async def send(self, base: str, ask: Ask, who: Identity = NOBODY) -> Answer:
        """Ask below the address `base`; the answer, if it is a 2xx or one that `ask` accepts.

        Raises:
            ForgeUnavailable: no answer, a 5xx, a request to wait (`retry_after_ms`), or the host is left alone for now.
            ForgeRejected: any other answer, redirects included; `details["status"]` is the answer's.
        """
        url = f"{base_of(base, asked=ask.asked)}{ask.path}"
        if ask.query:
            url += f"?{urlencode(ask.query, doseq=True)}"
        is_repeatable = ask.is_repeatable or ask.method == "GET"
        tries = self._pace.tries_max if is_repeatable else 1
        for number in range(1, tries + 1):
            try:
                return await self._admitted(url, ask, who)
            except ForgeUnavailable as error:
                delay_ms = self._delay_ms(number, error.retry_after_ms)
                if number == tries or delay_ms > self._pace.wait_max_ms:
                    raise
            await self._sleep(delay_ms / 1000)
        raise AssertionError("the last try returns or raises")

    async def pages(
        self, base: str, ask: Ask, who: Identity, shape: type[T], *, pages_max: int = PAGES_MAX
    ) -> AsyncGenerator[T, None]:
        """Each page as `shape`, as the Link headers lead; raises as `send`, `AnswerTooLong` after `pages_max`."""
        for _ in range(pages_max):
            answer = await self.send(base, ask, who)
            yield read(answer, shape, asked=ask.asked)
            following = _next_page(answer.headers)
            if following is None:
                return
            ask = msgspec.structs.replace(ask, path=_below(base, following, asked=ask.asked), query={})
        raise AnswerTooLong(f"cannot {ask.asked}: there are more than {pages_max} pages")

    def offset_ms(self, base: str) -> int:
        """How much the forge's clock is ahead of ours, as its last answer said; 0 before the first."""
        return self._offsets.get(_origin(base), 0)

    def breaker_state(self, base: str) -> BreakerState:
        """Whether the host of `base` is asked at present."""
        breaker = self._breakers.get(_origin(base))
        return "closed" if breaker is None else breaker.state

    # ---- one try -------------------------------------------------------------------------------------------------

    async def _admitted(self, url: str, ask: Ask, who: Identity) -> Answer:
        """One try, if neither the host's breaker nor a wait that the account was asked for is in the way."""
        origin = _origin(url)
        place = self._places.setdefault(origin, anyio.CapacityLimiter(AT_ONCE_MAX))
        async with place:  # a queue of ours is not the host's fault: its time does not run yet
            wait_ms = self._waits.get((origin, who.account), 0) - self._clock.now_ms()
            if wait_ms > 0:
                text = f"cannot {ask.asked}: asked to wait for {-(-wait_ms // 1000)} s more"
                raise ForgeUnavailable(text, retry_after_ms=wait_ms)
            async with self._watched(origin, ask):
                return await self._exchange(origin, url, ask, who)

    @asynccontextmanager
    async def _watched(self, origin: str, ask: Ask) -> AsyncIterator[None]:
        """Tell the breaker of `origin` what becomes of a request."""
        breaker = self._breakers.setdefault(origin, self._make_breaker())
        before = breaker.state
        wait_ms = breaker.admit(self._clock.now_ms())
        if wait_ms:
            text = f"cannot {ask.asked}: {origin} failed again and again, and is left alone for a while"
            raise ForgeUnavailable(text, retry_after_ms=wait_ms)
        self._moved(origin, before, breaker.state)
        before = breaker.state
        try:
            yield
        except _HostFailed:
            breaker.failed(self._clock.now_ms())
            raise
        except ForgeError:
            breaker.succeeded()
            raise
        except BaseException:
            breaker.abandoned(self._clock.now_ms())
            raise
        else:
            breaker.succeeded()
        finally:
            self._moved(origin, before, breaker.state)

    def _moved(self, origin: str, before: BreakerState, after: BreakerState) -> None:
        if before == after:
            return
        self._observer.forge_breaker(_host(origin), after)
        if after == "open":
            logger.warning("the forge {} failed again and again: it is left alone for a while", origin)
        elif after == "closed":
            logger.info("the forge {} answers again", origin)

    async def _exchange(self, origin: str, url: str, ask: Ask, who: Identity) -> Answer:
        """Send and read, and note what the answer says of clock, rate and content."""
        key = (url, who.account, ask.headers.get("accept", ""))
        known = self._known.of(key) if ask.method == "GET" else None
        headers = {"accept": "application/json", **who.headers, **ask.headers}
        if ask.body is not None:
            headers.setdefault("content-type", "application/json")
        if known is not None:
            headers["if-none-match"] = known.headers["etag"]
        try:
            answer = await self._bounded(url, ask, who, headers)
        except _HostFailed:
            self._observer.forge_asked(_host(origin), "failed")
            raise
        self._note(origin, answer, who)
        if answer.status == 304 and known is not None:
            self._observer.forge_asked(_host(origin), "not_modified")
            return known
        if 200 <= answer.status < 300 or answer.status in ask.accepts:
            self._observer.forge_asked(_host(origin), "ok")
            if ask.method == "GET" and answer.status == 200:
                self._known.keep(key, answer)
            return answer
        raise self._failed(origin, answer, ask, who)

    def _failed(self, origin: str, answer: Answer, ask: Ask, who: Identity) -> ForgeError:
        said = answer.body.decode("utf-8", "replace")
        error = failure(
            answer.status,
            answer.headers,
            said,
            asked=ask.asked,
            now_ms=self._clock.now_ms(),
            secrets=who.secrets,
        )
        if is_limited(answer.status, answer.headers, said):
            self._wait(origin, who, error.retry_after_ms or 0)
            self._observer.forge_asked(_host(origin), "limited")
        elif answer.status >= 500:
            self._observer.forge_asked(_host(origin), "failed")
            return _HostFailed(str(error), retry_after_ms=error.retry_after_ms)
        else:
            self._observer.forge_asked(_host(origin), "refused")
        return error

    def _note(self, origin: str, answer: Answer, who: Identity) -> None:
        now_ms = self._clock.now_ms()
        theirs_ms = instant_ms(answer.headers.get("date", ""))
        if theirs_ms is not None:
            self._offsets[origin] = theirs_ms - now_ms
        if is_spent(answer.headers) and answer.headers.get("x-ratelimit-resource", "core") == "core":
            self._wait(origin, who, asked_to_wait_ms(answer.headers, now_ms) or 0)

    def _wait(self, origin: str, who: Identity, wait_ms: int) -> None:
        """Ask nothing for the account before that."""
        key = (origin, who.account)
        self._waits[key] = max(self._waits.pop(key, 0), self._clock.now_ms() + wait_ms)
        while len(self._waits) > WAITING_MAX:
            self._waits.popitem(last=False)

    async def _bounded(self, url: str, ask: Ask, who: Identity, headers: Mapping[str, str]) -> Answer:
        """One exchange within the time and size that it may take; an error says neither address nor secret."""
        timeout_ms = ask.timeout_ms or self._pace.timeout_ms
        try:
            with anyio.fail_after(timeout_ms / 1000):
                async with self._http.stream(
                    ask.method,
                    url,
                    content=ask.body,
                    headers=dict(headers),
                    follow_redirects=False,
                    timeout=timeout_ms / 1000,
                ) as response:
                    return await _answer(response, ask)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _HostFailed(f"cannot {ask.asked}: no answer within {timeout_ms} ms") from error
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, UnicodeEncodeError, httpx.LocalProtocolError) as error:
            # No cause: its text may hold the header, and with it the token.
            raise ForgeRejected(f"cannot {ask.asked}: the address or a header is not valid") from _without_text(error)
        except httpx.HTTPError as error:
            what = hidden(str(error), who.secrets) or type(error).__name__
            raise _HostFailed(f"cannot {ask.asked}: {what}") from _without_text(error)

    def _delay_ms(self, number: int, asked_ms: int | None) -> int:
        """How long to wait after the `number`-th try: as long as asked to, or longer each time and never alike."""
        longest = self._pace.delay_ms << (number - 1)
        return max(asked_ms or 0, longest // 2 + self._rng.randint(0, longest // 2))


class _HostFailed(ForgeUnavailable):
    """The host did not do what a host does: it counts against it."""


class _Known:
    """Answers with their entity tags, the newest kept: asking again costs nothing of the rate where nothing changed."""

    def __init__(self) -> None:
        self._answers: OrderedDict[tuple[str, str, str], Answer] = OrderedDict()
        self._bytes = 0

    def of(self, key: tuple[str, str, str]) -> Answer | None:
        answer = self._answers.get(key)
        if answer is not None:
            self._answers.move_to_end(key)
        return answer

    def keep(self, key: tuple[str, str, str], answer: Answer) -> None:
        old = self._answers.pop(key, None)
        self._bytes -= len(old.body) if old is not None else 0
        if "etag" not in answer.headers or len(answer.body) > CACHED_ANSWER_BYTES_MAX:
            return
        self._answers[key] = answer
        self._bytes += len(answer.body)
        while self._bytes > CACHED_BYTES_MAX or len(self._answers) > CACHED_MAX:
            _, gone = self._answers.popitem(last=False)
            self._bytes -= len(gone.body)


async def found_among(names: Sequence[str], find: Callable[[str], Awaitable[T | None]]) -> dict[str, T]:
    """What `find` returns for each of `names`, a few at a time; without those for which that is None. As `all_of`."""
    found = zip(names, await all_of([partial(find, name) for name in names]), strict=True)
    return {name: one for name, one in found if one is not None}


async def all_of(calls: Sequence[Callable[[], Awaitable[T]]], *, at_once: int = 8) -> list[T]:
    """What each of `calls` returns, in their order, a few at a time; raises what the first one to fail raised."""
    results: dict[int, T] = {}
    failed: list[ForgeError] = []
    places = anyio.CapacityLimiter(at_once)

    async def run(index: int) -> None:
        async with places:
            if failed:
                return
            try:
                results[index] = await calls[index]()
            except ForgeError as error:
                failed.append(error)

    async with anyio.create_task_group() as group:
        for index in range(len(calls)):
            group.start_soon(run, index)
    if failed:
        raise failed[0]
    return [results[index] for index in range(len(calls))]


async def _answer(response: httpx.Response, ask: Ask) -> Answer:
    """What came, up to what may come; of a failure only its beginning."""
    is_wanted = response.is_success or response.status_code in ask.accepts
    most = ask.bytes_max if is_wanted else ERROR_BYTES_MAX
    got = bytearray()
    async for chunk in response.aiter_raw():  # raw: even who compresses against our wish sends no bomb
        got += chunk
        if len(got) > most:
            if is_wanted:
                raise AnswerTooLong(f"cannot {ask.asked}: the answer is longer than {most} bytes")
            break
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Answer(status=response.status_code, headers=headers, body=bytes(got[:most]))


def _without_text(error: Exception) -> Exception:
    """The kind of an error alone, as a cause that can be logged."""
    return RuntimeError(type(error).__name__)


def _next_page(headers: Mapping[str, str]) -> str | None:
    links = httpx.Response(200, headers={"link": headers.get("link", "")}).links
    return links.get("next", {}).get("url")


def _below(base: str, address: str, *, asked: str) -> str:
    """What follows `base` in `address`; raises `ForgeRejected` if that is somewhere else."""
    prefix = base.rstrip("/")
    is_same = address.startswith(f"{prefix}/") and ".." not in address and "\\" not in address
    if not is_same:
        raise ForgeRejected(f"cannot {asked}: the next page is said to be at another address, which is not asked")
    return address.removeprefix(prefix)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower()


def _host(origin: str) -> str:
    return origin.partition("://")[2]
