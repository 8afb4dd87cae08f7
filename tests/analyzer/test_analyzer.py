"""Explanations of stored attempts, whatever their logs hold."""

import random
import threading
import time

import anyio
import msgspec
import pytest

from deltaci.analyzer.analyzer import TAIL_BYTES, LogAnalyzer
from deltaci.analyzer.classifier import classify
from deltaci.domain.attempt import Attempt
from deltaci.domain.errors import NotFound
from deltaci.domain.job import Job
from deltaci.domain.plan import PlannedJob
from deltaci.domain.repo import Repo
from deltaci.domain.states import AttemptState, EndReason, JobState
from deltaci.store.port import LogState, Store
from deltaci.store.writes import Explanation

pytestmark = pytest.mark.anyio
JOB_ID = "job_x_0"


class OneJob:
    """A store with one failed job and its log."""

    def __init__(self, log: bytes, *, end_reason: EndReason = EndReason.STEP_FAILED, text: str = "") -> None:
        self.log = log
        self.read: list[tuple[int, int]] = []
        self.repo = Repo(
            id="repo_1",
            name="shop",
            forge="git",
            clone_url="https://ci:clone-password@host/shop.git",
            secret="webhook-secret",
            api_token="api-token-value",
            created_at_ms=0,
        )
        attempt = Attempt(
            number=1,
            state=AttemptState.FAILED,
            queued_at_ms=0,
            ended_at_ms=1,
            end_reason=end_reason,
            exit_code=1,
            text=text,
        )
        self.job = Job(
            id=JOB_ID,
            run_id="run_x",
            repo_id="repo_1",
            name="test",
            state=JobState.FAILED,
            is_required=True,
            labels=(),
            priority=0,
            retries=0,
            timeout_ms=1,
            created_at_ms=0,
            revision=1,
            attempts=(attempt,),
            ended_at_ms=1,
            end_reason=end_reason,
        )

    async def load_job(self, job_id: str) -> tuple[Job, PlannedJob] | None:
        return (self.job, PlannedJob(name="test", steps=())) if job_id == JOB_ID else None

    async def load_repo(self, repo_id: str) -> Repo | None:
        return self.repo if repo_id == self.repo.id else None

    async def log_state(self, job_id: str, attempt: int) -> LogState:
        return LogState(size=len(self.log))

    async def read_log(self, job_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        self.read.append((offset, limit))
        return self.log[offset : offset + limit]


def _the_store_has_what_is_read(store: Store) -> LogAnalyzer:
    return LogAnalyzer(store)


async def explained(store: OneJob, **options: object) -> Explanation:
    return await LogAnalyzer(store, **options).explain(JOB_ID, 1, 77)  # type: ignore[arg-type]


async def test_a_failed_attempt_is_explained_from_its_log() -> None:
    """The row that is stored, field by field."""
    store = OneJob(b"collecting\nFAILED tests/test_a.py::test_b - assert 1 == 2\nProcess completed with exit code 1\n")

    explanation = await explained(store)

    assert explanation == Explanation(
        job_id=JOB_ID,
        attempt=1,
        category="user.test",
        confidence=0.9,
        summary="Test tests/test_a.py::test_b failed.",
        evidence=("FAILED tests/test_a.py::test_b - assert 1 == 2",),
        next_step="Run this test locally, and read what it says right above.",
        at_ms=77,
    )


async def test_only_the_end_of_a_long_log_is_read() -> None:
    """A log may have 64 MB; what failed stands at its end."""
    store = OneJob(b"noise\n" * 200_000 + b"src/a.c:1:2: error: boom\n")

    explanation = await explained(store)

    assert explanation.category == "user.compile"
    assert store.read == [(len(store.log) - TAIL_BYTES, TAIL_BYTES)]


@pytest.mark.parametrize("line_end", [b"\n", b""])
async def test_a_secret_cut_in_two_by_the_end_that_is_read_is_not_shown(line_end: bytes) -> None:
    """Half a secret is no value that anybody could recognise, so the ragged beginning is thrown away."""
    secret, rest = b"webhook-secret", line_end + b"x" * (TAIL_BYTES - 8 - 1) + b"\n"
    store = OneJob(b"y" * 100 + secret + rest[: TAIL_BYTES - 8])

    explanation = await explained(store)

    assert "secret" not in repr(explanation)


@pytest.mark.parametrize("secret", ["webhook-secret", "api-token-value", "clone-password", "of-the-server"])
async def test_nothing_secret_of_the_repository_or_the_server_is_shown(secret: str) -> None:
    """In evidence, in the summary, and in what the runner said."""
    log = f"ValueError: {secret}\nerror: {secret}\n{secret}: command not found\n".encode()
    store = OneJob(log, text=f"step failed with {secret}")

    explanation = await explained(store, secrets=["of-the-server"])

    assert secret not in repr(explanation)


async def test_what_the_runner_said_is_read_like_the_log() -> None:
    """Of a checkout that failed there is no other log."""
    store = OneJob(b"", end_reason=EndReason.CHECKOUT_FAILED, text="fatal: Could not resolve host: git.example.com")

    explanation = await explained(store)

    assert explanation.category == "infrastructure.dns"


WEIRD = {
    "nothing": b"",
    "line breaks": b"\n" * 300_000,
    "one line": b"x" * 1_000_000,
    "noughts": b"\x00" * 300_000,
    "escapes": b"\x1b[31m\x1b]0;" * 30_000,
    "carriage returns": b"50%\r" * 80_000,
    "random": random.Random(1).randbytes(300_000),  # a seed, not a secret
    "half a character": b"\xe2\x82" * 1_000,
    "closing lines": b"Process completed with exit code 1\n" * 10_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("log", WEIRD.values(), ids=WEIRD)
async def test_there_is_an_explanation_whatever_was_printed(log: bytes) -> None:
    """An analyzer that fails on a log fails exactly when somebody needs it."""
    explanation = await explained(OneJob(log))

    assert explanation.summary
    assert len(msgspec.json.encode(explanation)) < 16_384


@pytest.mark.parametrize(("job_id", "attempt"), [("job_y_0", 1), (JOB_ID, 2), (JOB_ID, 0)])
async def test_what_does_not_exist_is_not_found(job_id: str, attempt: int) -> None:
    """Nothing is made up about an attempt that never was."""
    with pytest.raises(NotFound, match=f"attempt {attempt} of {job_id}"):
        await LogAnalyzer(OneJob(b"x")).explain(job_id, attempt, 0)


async def test_the_loop_goes_on_while_a_log_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sanitizing takes a while; heartbeats must not wait for it."""
    threads: list[int] = []
    monkeypatch.setattr(
        "deltaci.analyzer.analyzer.classify",
        lambda *said: (threads.append(threading.get_ident()), classify(*said))[1],
    )

    await explained(OneJob(b"x y\n"))

    assert len(threads) == 1
    assert threads != [threading.get_ident()]


@pytest.mark.slow
async def test_an_analysis_that_takes_too_long_is_given_up_with_an_explanation() -> None:
    """The run has ended long ago: what is owed must not stay owed for ever."""
    is_over = threading.Event()

    async def stuck(work: object) -> object:
        return await anyio.to_thread.run_sync(is_over.wait, 5, abandon_on_cancel=True)

    started = time.monotonic()
    explanation = await explained(OneJob(b"x"), timeout_ms=20, in_thread=stuck)
    is_over.set()

    assert (explanation.category, explanation.confidence) == ("unknown", 0.0)
    assert "within 20 ms" in explanation.summary
    assert time.monotonic() - started < 4
