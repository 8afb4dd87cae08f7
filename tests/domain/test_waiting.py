"""Why a job waits: people look at this first when nothing moves."""

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain.job import Job
from deltaci.domain.states import JobState, WaitingReason
from deltaci.domain.waiting import Waiting, waiting
from tests.domain.builders import a_failure, a_job, a_queued_job, accepted, held, last

LINUX = frozenset({"linux"})
GPU = frozenset({"gpu"})


def _why(job: Job, *runners: frozenset[str], is_repo_at_limit: bool = False, now_ms: int = 0) -> Waiting | None:
    return waiting(
        job, now_ms=now_ms, open_needs=["build", "lint"], runner_labels=runners, is_repo_at_limit=is_repo_at_limit
    )


def _labelled(*labels: str) -> Job:
    return msgspec.structs.replace(a_queued_job(), labels=labels)


@pytest.mark.parametrize("state", sorted(set(JobState) - {JobState.BLOCKED, JobState.QUEUED}))
def test_a_job_that_runs_or_is_over_waits_for_nothing(state: JobState) -> None:
    """Only a job that is not running yet has a waiting reason."""
    assert _why(a_job(state)) is None


def test_a_blocked_job_names_the_jobs_that_it_waits_for() -> None:
    """Whatever the runners do, its needs come first."""
    assert _why(a_job(JobState.BLOCKED)) == Waiting(WaitingReason.NEEDS, "build, lint")


def test_a_retry_names_the_instant_until_which_it_waits() -> None:
    """As long as its backoff lasts, no runner could change anything."""
    job = held(retries=1)
    job = accepted(jobs.step(job, a_failure(job), now_ms=0))
    until_ms = last(job).not_before_ms

    assert _why(job, LINUX, now_ms=until_ms - 1) == Waiting(WaitingReason.RETRY_BACKOFF, str(until_ms))
    assert _why(job, LINUX, now_ms=until_ms) == Waiting(WaitingReason.RUNNERS_BUSY)


def test_a_queued_job_without_any_runner_says_so() -> None:
    """The first thing that goes wrong in a new installation."""
    assert _why(_labelled("linux")) == Waiting(WaitingReason.NO_RUNNER_ONLINE)


@pytest.mark.parametrize(
    ("labels", "missing"), [(("linux", "arm"), "arm"), (("b", "a"), "a, b"), (("linux", "gpu"), "gpu, linux")]
)
def test_a_label_that_no_runner_has_is_named(labels: tuple[str, ...], missing: str) -> None:
    """Or all labels, if each is to be had but no runner has them together."""
    assert _why(_labelled(*labels), LINUX, GPU) == Waiting(WaitingReason.NO_RUNNER_WITH_LABELS, missing)


def test_a_job_behind_its_repositorys_limit_says_so_and_else_the_runners_are_busy() -> None:
    """The limit is somebody's decision, busy runners are not."""
    assert _why(_labelled("linux"), LINUX, is_repo_at_limit=True) == Waiting(WaitingReason.REPO_LIMIT)
    assert _why(_labelled("linux"), LINUX | GPU) == Waiting(WaitingReason.RUNNERS_BUSY)
