"""Explains why an attempt failed, from the end of its log. Reads only; what it writes is somebody else's to store.

Rule 1: the log is sanitized before anything else looks at it.
Rule 2: whatever a job printed, there is an explanation, in bounded time and memory.
"""

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, Protocol
from urllib.parse import urlsplit

import anyio
import anyio.to_thread

from deltaci.analyzer.classifier import LINE_CHARACTERS_MAX, Classification, classify
from deltaci.analyzer.rules import UNKNOWN
from deltaci.analyzer.sanitizer import Sanitizer
from deltaci.domain.attempt import Attempt
from deltaci.domain.errors import NotFound
from deltaci.domain.job import Job
from deltaci.domain.plan import PlannedJob
from deltaci.domain.repo import Repo
from deltaci.domain.states import EndReason
from deltaci.store.port import LogState
from deltaci.store.writes import Explanation

TAIL_BYTES: Final = 256 * 1024
LINES_MAX: Final = 4_000
# A log read from its middle may begin inside a secret, which then is not recognised: so much is thrown away there.
RAGGED_CHARACTERS_MAX: Final = 8 * 1024
TIMEOUT_MS: Final = 15_000

Work = Callable[[], Classification]


class LogReads(Protocol):
    """What the analyzer reads of the store."""

    async def load_job(self, job_id: str) -> tuple[Job, PlannedJob] | None:
        """See `Store`."""
        ...

    async def load_repo(self, repo_id: str) -> Repo | None:
        """See `Store`."""
        ...

    async def log_state(self, job_id: str, attempt: int) -> LogState:
        """See `Store`."""
        ...

    async def read_log(self, job_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        """See `Store`."""
        ...


class LogAnalyzer:
    """Explains attempts from what is stored of them."""

    def __init__(
        self,
        store: LogReads,
        *,
        secrets: Iterable[str] = (),
        timeout_ms: int = TIMEOUT_MS,
        in_thread: Callable[[Work], Awaitable[Classification]] | None = None,
    ) -> None:
        """Explain from `store`.

        Args:
            secrets: values that must never be seen in an explanation, besides those of the repository itself.
            in_thread: how the work is kept off the loop; by default two threads of this analyzer's own.
        """
        self._store = store
        self._secrets = tuple(secrets)
        self._timeout_ms = timeout_ms
        self._in_thread = in_thread or self._in_own_threads
        self._limiter: anyio.CapacityLimiter | None = None

    async def explain(self, job_id: str, attempt: int, now_ms: int) -> Explanation:
        """Why the attempt failed.

        Raises:
            NotFound: there is no such job or attempt.
            StoreUnavailable: it cannot be read now.
        """
        loaded = await self._store.load_job(job_id)
        found = next((one for one in loaded[0].attempts if one.number == attempt), None) if loaded else None
        if loaded is None or found is None:
            raise NotFound(f"cannot explain attempt {attempt} of {job_id}: there is none")
        repo = await self._store.load_repo(loaded[0].repo_id)
        size = (await self._store.log_state(job_id, attempt)).size
        offset = max(0, size - TAIL_BYTES)
        tail = await self._store.read_log(job_id, attempt, offset=offset, limit=TAIL_BYTES) if size else b""
        secrets = (*self._secrets, *secrets_of(repo)) if repo is not None else self._secrets
        why = await self._bounded(partial(explained, found, tail, is_ragged=offset > 0, secrets=secrets))
        return Explanation(
            job_id=job_id,
            attempt=attempt,
            category=why.category,
            confidence=why.confidence,
            summary=why.summary,
            evidence=why.evidence,
            next_step=why.next_step,
            at_ms=now_ms,
        )

    async def _bounded(self, work: Work) -> Classification:
        with anyio.move_on_after(self._timeout_ms / 1000):
            return await self._in_thread(work)
        return Classification(
            category=UNKNOWN,
            confidence=0.0,
            summary=f"The log could not be analyzed within {self._timeout_ms} ms.",
            evidence=(),
            next_step="Read the end of the log.",
        )

    async def _in_own_threads(self, work: Work) -> Classification:
        if self._limiter is None:
            self._limiter = anyio.CapacityLimiter(2)
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=self._limiter)


def secrets_of(repo: Repo) -> tuple[str, ...]:
    """What of a repository must never be shown."""
    try:
        in_url = urlsplit(repo.clone_url).password
    except ValueError:
        in_url = None
    return tuple(secret for secret in (repo.secret, repo.api_token, in_url) if secret)


def explained(attempt: Attempt, tail: bytes, *, is_ragged: bool, secrets: Iterable[str]) -> Classification:
    """Why `attempt` failed, from the last bytes of its log; `is_ragged`: the log did not begin there."""
    sanitizer = Sanitizer(secrets)
    text = sanitizer.clean(tail)
    if is_ragged:
        line_end = text.find("\n", 0, RAGGED_CHARACTERS_MAX)
        text = text[line_end + 1 if line_end >= 0 else RAGGED_CHARACTERS_MAX :]
    # What the runner said comes last, as if it had printed it: of a checkout that failed, there is nothing else.
    lines = (*lines_of(text), *lines_of(sanitizer.clean(attempt.text.encode("utf-8", "replace"))))
    reason = attempt.end_reason if attempt.end_reason is not EndReason.SUCCEEDED else None
    return classify(reason, attempt.exit_code, lines[-LINES_MAX:])


def lines_of(text: str) -> tuple[str, ...]:
    """The last lines of `text`, each cut to what is looked at."""
    return tuple(line[:LINE_CHARACTERS_MAX] for line in text.rsplit("\n", LINES_MAX)[-LINES_MAX:])
