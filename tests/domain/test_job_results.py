"""Results: what a runner's report becomes, how often it counts, and what follows a failure."""

import pytest

from deltaci.domain import job as jobs
from deltaci.domain import retry
from deltaci.domain.attempt import Attempt
from deltaci.domain.effects import AnalyzeAttempt, ReportRun
from deltaci.domain.events import AttemptQueued
from deltaci.domain.job import Job
from deltaci.domain.machine import Step, Why
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState
from tests.domain.builders import (
    ACK_WITHIN_MS,
    CANCEL_WITHIN_MS,
    HOUR_MS,
    TTL_MS,
    a_cancel,
    a_cancel_ack,
    a_completion,
    a_failure,
    a_heartbeat,
    a_job,
    a_queued_job,
    a_tick,
    accepted,
    an_ack,
    event_types,
    granted,
    held,
    last,
    why,
)

# ---- what a report becomes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "exit_code", "attempt", "job", "reason"),
    [
        (EndReason.SUCCEEDED, 0, AttemptState.SUCCEEDED, JobState.SUCCEEDED, EndReason.SUCCEEDED),
        (EndReason.SUCCEEDED, 1, AttemptState.FAILED, JobState.FAILED, EndReason.STEP_FAILED),
        (EndReason.SUCCEEDED, -9, AttemptState.FAILED, JobState.FAILED, EndReason.STEP_FAILED),
        (EndReason.SUCCEEDED, None, AttemptState.FAILED, JobState.FAILED, EndReason.STEP_FAILED),
        (EndReason.STEP_FAILED, 0, AttemptState.FAILED, JobState.FAILED, EndReason.STEP_FAILED),
        (EndReason.STEP_FAILED, 2, AttemptState.FAILED, JobState.FAILED, EndReason.STEP_FAILED),
        (EndReason.JOB_TIMEOUT, None, AttemptState.TIMED_OUT, JobState.TIMED_OUT, EndReason.JOB_TIMEOUT),
        (EndReason.JOB_TIMEOUT, 0, AttemptState.TIMED_OUT, JobState.TIMED_OUT, EndReason.JOB_TIMEOUT),
        (EndReason.CHECKOUT_FAILED, None, AttemptState.FAILED, JobState.QUEUED, EndReason.CHECKOUT_FAILED),
        (EndReason.RUNNER_ERROR, None, AttemptState.FAILED, JobState.QUEUED, EndReason.RUNNER_ERROR),
        (EndReason.RUNNER_STOPPED, None, AttemptState.FAILED, JobState.QUEUED, EndReason.RUNNER_STOPPED),
    ],
)
def test_states_are_derived_from_what_the_runner_observed(
    said: EndReason, exit_code: int | None, attempt: AttemptState, job: JobState, reason: EndReason
) -> None:
    """A report of success counts only with exit code 0: what a runner says is an observation, never a command."""
    running = held()

    after = accepted(jobs.step(running, a_completion(running, said, exit_code=exit_code), now_ms=1))

    assert (after.attempts[0].state, after.attempts[0].end_reason, after.state) == (attempt, reason, job)


REPORTABLE = {
    EndReason.SUCCEEDED,
    EndReason.STEP_FAILED,
    EndReason.JOB_TIMEOUT,
    EndReason.CHECKOUT_FAILED,
    EndReason.RUNNER_ERROR,
    EndReason.RUNNER_STOPPED,
}


@pytest.mark.parametrize("said", sorted(set(EndReason) - REPORTABLE))
def test_a_reason_that_only_the_control_plane_can_know_counts_as_an_error_of_the_runner(said: EndReason) -> None:
    """A runner could otherwise end a job as superseded, or borrow the retry budget of leases never acknowledged."""
    running = held()

    after = accepted(jobs.step(running, a_completion(running, said, exit_code=None), now_ms=1))

    assert after.attempts[0].end_reason is EndReason.RUNNER_ERROR
    assert after.attempts[0].state is AttemptState.FAILED


def test_a_report_without_a_digest_is_never_taken_for_a_repeat() -> None:
    """An attempt that ended without a report has no digest either: equal emptiness is no accepted result."""
    job = held()
    lost = accepted(jobs.step(job, a_tick(), now_ms=TTL_MS))

    answer = jobs.step(lost, a_completion(job, digest=""), now_ms=TTL_MS)

    assert why(answer) is Why.STALE_LEASE


# ---- cancel ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.BLOCKED, JobState.QUEUED, JobState.RUNNING])
def test_why_a_job_was_canceled_is_kept_whether_it_ran_or_not(state: JobState) -> None:
    """Who waits for a job that never started wants to know why just as much."""
    job = a_job(state)

    after = accepted(jobs.step(job, a_cancel(EndReason.SUPERSEDED, "by run_2"), now_ms=0))
    ended = accepted(jobs.step(after, a_tick(), now_ms=CANCEL_WITHIN_MS))

    assert (ended.state, ended.end_reason, ended.end_detail) == (JobState.CANCELED, EndReason.SUPERSEDED, "by run_2")
