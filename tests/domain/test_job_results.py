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


@pytest.mark.parametrize("state", list(JobState))
def test_a_cancel_is_accepted_in_every_state_and_ends_the_job_within_its_deadline(state: JobState) -> None:
    """A cancel may cross anything: it is never refused, and nobody has to ask twice."""
    job = a_job(state)

    asked = accepted(jobs.step(job, a_cancel(), now_ms=0))
    again = jobs.step(asked, a_cancel(EndReason.SUPERSEDED), now_ms=1)
    ended = accepted(jobs.step(asked, a_tick(), now_ms=CANCEL_WITHIN_MS))

    assert again == Step(asked)
    assert ended.state is (state if state.is_final else JobState.CANCELED)
    assert asked.state.is_final is (state not in (JobState.RUNNING, JobState.CANCEL_REQUESTED))


def test_a_cancel_takes_the_queued_attempt_along() -> None:
    """A job that is over has no attempt that somebody could still lease."""
    after = accepted(jobs.step(a_queued_job(), a_cancel(), now_ms=5))

    assert last(after).state is AttemptState.CANCELED
    assert last(after).lease is None
    assert last(after).ended_at_ms == 5


@pytest.mark.parametrize("phase", [AttemptState.LEASED, AttemptState.STARTING, AttemptState.RUNNING])
def test_a_job_is_ended_by_force_at_the_cancels_deadline_and_not_before(phase: AttemptState) -> None:
    """A holder that does not obey, or never acknowledged, cannot keep a job alive."""
    job = accepted(jobs.step(held(phase), a_cancel(), now_ms=10))

    before = jobs.step(job, a_tick(), now_ms=9 + CANCEL_WITHIN_MS)
    forced = accepted(jobs.step(job, a_tick(), now_ms=10 + CANCEL_WITHIN_MS))

    assert before == Step(job)
    assert jobs.deadline_ms(job) == 10 + CANCEL_WITHIN_MS
    assert (forced.state, forced.end_reason) == (JobState.CANCELED, EndReason.USER_CANCELED)
    assert last(forced).lease is not None
    assert last(forced).lease.state is LeaseState.REVOKED  # type: ignore[union-attr]  # asserted above
    assert jobs.deadline_ms(forced) is None


@pytest.mark.parametrize("phase", [AttemptState.LEASED, AttemptState.STARTING, AttemptState.UPLOADING])
def test_an_obeyed_cancel_ends_job_attempt_and_lease_at_once(phase: AttemptState) -> None:
    """No process is left: there is nothing more to wait for. A repeat of the acknowledgement is welcome."""
    job = accepted(jobs.step(held(phase), a_cancel(), now_ms=0))
    ack = a_cancel_ack(job)

    after = accepted(jobs.step(job, ack, now_ms=1))
    again = jobs.step(after, ack, now_ms=2)

    assert (after.state, last(after).state) == (JobState.CANCELED, AttemptState.CANCELED)
    assert last(after).lease is not None
    assert last(after).lease.state is LeaseState.CANCELED  # type: ignore[union-attr]  # asserted above
    assert again == Step(after)


def test_obeying_a_cancel_that_nobody_requested_is_refused() -> None:
    """A runner cannot cancel a job by itself."""
    job = held()

    answer = jobs.step(job, a_cancel_ack(job), now_ms=0)

    assert why(answer) is Why.ILLEGAL_MOVE


def test_a_completion_after_the_cancel_is_kept_but_the_cancel_wins() -> None:
    """Crossing on the way: the first to be stored decides; the report is remembered, so that its repeat is known."""
    job = accepted(jobs.step(held(), a_cancel(), now_ms=0))
    report = a_completion(job)

    after = accepted(jobs.step(job, report, now_ms=1))
    again = jobs.step(after, report, now_ms=2)

    assert (after.state, after.end_reason) == (JobState.CANCELED, EndReason.USER_CANCELED)
    assert (last(after).state, last(after).exit_code) == (AttemptState.CANCELED, 0)
    assert again == Step(after)


def test_a_cancel_after_the_completion_changes_nothing() -> None:
    """The other order of the same crossing: the result stands."""
    job = held()
    done = accepted(jobs.step(job, a_completion(job), now_ms=0))

    answer = jobs.step(done, a_cancel(), now_ms=1)

    assert answer == Step(done)
    assert done.state is JobState.SUCCEEDED


def test_nothing_is_retried_after_a_cancel() -> None:
    """Whoever cancels does not want another attempt, whatever the holder reports and however many are left."""
    job = accepted(jobs.step(held(retries=5), a_cancel(), now_ms=0))

    after = accepted(jobs.step(job, a_failure(job), now_ms=1))

    assert (after.state, len(after.attempts)) == (JobState.CANCELED, 1)


def test_a_heartbeat_after_the_cancel_is_heard_but_buys_no_time() -> None:
    """The holder may still be cleaning up: it is no stranger, but the deadline stands."""
    job = accepted(jobs.step(held(), a_cancel(), now_ms=0))

    after = accepted(jobs.step(job, a_heartbeat(job), now_ms=CANCEL_WITHIN_MS - 1))

    assert jobs.deadline_ms(after) == CANCEL_WITHIN_MS


# ---- repeats -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [EndReason.SUCCEEDED, EndReason.STEP_FAILED, EndReason.RUNNER_ERROR])
def test_the_repeat_of_an_accepted_result_gets_the_same_answer_for_ever(reason: EndReason) -> None:
    """A runner that cannot tell asks again: equal content, equal answer, whatever became of the job since."""
    first = held(retries=1)
    report = a_completion(first, reason)
    told = accepted(jobs.step(first, report, now_ms=0))
    later = _all_later_states(told)

    answers = [jobs.step(job, report, now_ms=2 * HOUR_MS) for job in later]

    assert answers == [Step(job) for job in later]


@pytest.mark.parametrize("reason", [EndReason.SUCCEEDED, EndReason.STEP_FAILED, EndReason.RUNNER_ERROR])
def test_another_result_of_the_same_attempt_is_refused_for_ever(reason: EndReason) -> None:
    """A result counts once: the second story is refused, and the audit shows that there was one."""
    first = held(retries=1)
    told = accepted(jobs.step(first, a_completion(first, reason), now_ms=0))
    other = a_completion(first, EndReason.STEP_FAILED, exit_code=3, digest="digest_2")
    later = _all_later_states(told)

    answers = [jobs.step(job, other, now_ms=2 * HOUR_MS) for job in later]

    assert {why(answer) for answer in answers} == {Why.CONFLICTING_RESULT}


def _all_later_states(job: Job) -> list[Job]:
    """`job`, and what becomes of it when its next attempt, if there is one, is leased and succeeds."""
    later = [job]
    if job.state is JobState.QUEUED:
        later.append(granted(job, now_ms=HOUR_MS))
        later.append(accepted(jobs.step(later[-1], an_ack(later[-1]), now_ms=HOUR_MS)))
        later.append(accepted(jobs.step(later[-1], a_completion(later[-1], digest="digest_9"), now_ms=HOUR_MS)))
    return later


def test_a_result_that_arrives_after_its_lease_was_lost_is_refused() -> None:
    """The attempt is over and another may be running: the late result must not end it."""
    job = held()
    lost = accepted(jobs.step(job, a_tick(), now_ms=TTL_MS))

    answer = jobs.step(lost, a_completion(job), now_ms=TTL_MS)

    assert why(answer) is Why.STALE_LEASE
    assert lost.state is JobState.QUEUED


# ---- retries -----------------------------------------------------------------------------------------------------


def _lose(job: Job, *, at_ms: int) -> Job:
    """Lease the queued attempt, acknowledge, fall silent."""
    job = granted(job, now_ms=at_ms)
    job = accepted(jobs.step(job, an_ack(job), now_ms=at_ms))
    return accepted(jobs.step(job, a_tick(heard_at_ms=at_ms), now_ms=at_ms + TTL_MS))


def _ignore(job: Job, *, at_ms: int) -> Job:
    """Lease the queued attempt and hear nothing."""
    job = granted(job, now_ms=at_ms)
    return accepted(jobs.step(job, a_tick(heard_at_ms=at_ms), now_ms=at_ms + ACK_WITHIN_MS))


def _fail(job: Job, *, at_ms: int) -> Job:
    """Lease the queued attempt and report that a step failed."""
    job = granted(job, now_ms=at_ms)
    job = accepted(jobs.step(job, an_ack(job), now_ms=at_ms))
    return accepted(jobs.step(job, a_failure(job), now_ms=at_ms))


def test_a_lost_runner_is_retried_twice_and_then_the_job_fails() -> None:
    """Infrastructure has a budget of its own, and it is a bound."""
    job = a_queued_job(retries=0)

    for round_ in range(1, 4):
        job = _lose(job, at_ms=round_ * HOUR_MS)

    assert [attempt.state for attempt in job.attempts] == [AttemptState.LOST] * 3
    assert (job.state, job.end_reason) == (JobState.FAILED, EndReason.RUNNER_LOST)


@pytest.mark.parametrize("retries", [0, 1, 4])
def test_a_failed_step_is_retried_as_often_as_the_plan_says(retries: int) -> None:
    """By default a red test is red: only the author may ask for more."""
    job = a_queued_job(retries=retries)

    for round_ in range(1, retries + 2):
        job = _fail(job, at_ms=round_ * HOUR_MS)

    assert (job.state, job.end_reason, len(job.attempts)) == (JobState.FAILED, EndReason.STEP_FAILED, retries + 1)


def test_leases_never_acknowledged_have_a_bound_of_their_own() -> None:
    """Nothing was started, so nothing was used up; but a job that no runner picks up must end too."""
    job = a_queued_job()

    for round_ in range(1, retry.UNACKNOWLEDGED_MAX + 1):
        assert job.state is JobState.QUEUED
        job = _ignore(job, at_ms=round_ * HOUR_MS)

    assert len(job.attempts) == 5
    assert (job.state, job.end_reason) == (JobState.FAILED, EndReason.NEVER_ACKNOWLEDGED)


def test_a_lease_never_acknowledged_uses_up_neither_retry_budget() -> None:
    """Four unheard leases later, both other budgets are still whole."""
    job = a_queued_job(retries=1)

    for round_ in range(1, 5):
        job = _ignore(job, at_ms=round_ * HOUR_MS)
    job = _lose(_lose(job, at_ms=5 * HOUR_MS), at_ms=6 * HOUR_MS)
    job = _fail(job, at_ms=7 * HOUR_MS)

    assert job.state is JobState.QUEUED
    assert _fail(job, at_ms=8 * HOUR_MS).state is JobState.FAILED


def test_no_history_has_more_attempts_than_all_budgets_together() -> None:
    """1 + 2 infrastructure + `retries` + 4 unacknowledged: however they are mixed."""
    job = a_queued_job(retries=2)

    round_ = 0
    while not job.state.is_final:
        round_ += 1
        ways = (_ignore, _lose, _fail)
        job = ways[round_ % 3](job, at_ms=round_ * HOUR_MS)

    assert len(job.attempts) <= 1 + 2 + 2 + 4
    assert [attempt.number for attempt in job.attempts] == list(range(1, len(job.attempts) + 1))


def test_a_retry_waits_for_its_backoff_and_an_unacknowledged_one_does_not() -> None:
    """A grant before the backoff's end is refused with the instant; a lease nobody saw can be offered again at once."""
    failed = _fail(a_queued_job(retries=1), at_ms=0)
    unseen = _ignore(a_queued_job(), at_ms=0)
    grant = jobs.GrantLease(lease_hash="new", runner_id="runner_1", ack_within_ms=1, ttl_ms=1)
    not_before_ms = last(failed).not_before_ms

    early = jobs.step(failed, grant, now_ms=not_before_ms - 1)
    in_time = jobs.step(failed, grant, now_ms=not_before_ms)

    assert why(early) is Why.TOO_EARLY
    assert event_types(in_time) == ["AttemptLeased"]
    assert last(unseen).not_before_ms == ACK_WITHIN_MS


def test_a_failed_attempt_owes_an_explanation_and_a_successful_one_does_not() -> None:
    """The analyzer is owed every failure, retried or not; and each change of a job's state is owed to the forge."""
    job = held(retries=1)

    failed = jobs.step(job, a_failure(job), now_ms=0)
    succeeded = jobs.step(job, a_completion(job), now_ms=0)

    assert isinstance(failed, Step)
    assert isinstance(succeeded, Step)
    assert failed.effects == (AnalyzeAttempt("job_1_0", 1), ReportRun("run_1"))
    assert succeeded.effects == (ReportRun("run_1"),)


@pytest.mark.parametrize("retry_number", range(40))
def test_backoff_doubles_up_to_a_minute_with_jitter_in_its_last_half(retry_number: int) -> None:
    """A thousand jobs of one lost runner must not come back in the same instant, nor ever wait longer than a minute."""
    full = min(1_000 * 2**retry_number, 60_000)

    waits = [retry.backoff_ms(f"job_{index}", retry_number) for index in range(200)]

    assert full // 2 <= min(waits)
    assert max(waits) <= full
    assert len(set(waits)) > 50


def test_the_same_history_is_answered_the_same_way_for_ever() -> None:
    """Jitter is derived from the job's id: a decision that is made again after a crash is the same decision."""
    job = held(retries=1)

    first, second = (jobs.step(job, a_failure(job), now_ms=7) for _ in range(2))

    assert first == second
    assert isinstance(first, Step)
    assert first.events[-1] == AttemptQueued(at_ms=7, attempt=2, not_before_ms=7 + retry.backoff_ms("job_1_0", 0))


BOUNDED_ELSEWHERE = {EndReason.NEVER_ACKNOWLEDGED, EndReason.RESTORED}


@pytest.mark.parametrize("reason", sorted(set(EndReason) - retry.INFRASTRUCTURE - retry.USER))
def test_no_other_reason_is_ever_retried(reason: EndReason) -> None:
    """What was canceled, superseded or skipped stays so."""
    attempts = (Attempt(number=1, state=AttemptState.QUEUED, queued_at_ms=0),)

    decision = retry.decide("job_1_0", attempts, reason, retries=9, now_ms=0)

    assert isinstance(decision, retry.NoRetry) is (reason not in BOUNDED_ELSEWHERE)
