"""Leases: who is heard, until when, and what ends them."""

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain import lease as leases
from deltaci.domain.machine import Refusal, Step, Why
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState
from tests.domain.builders import (
    ACK_WITHIN_MS,
    CANCEL_WITHIN_MS,
    HOUR_MS,
    JOB_TIMEOUT_MS,
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

# ---- the acknowledgement window ----------------------------------------------------------------------------------


def test_a_lease_that_nobody_acknowledged_is_lost_when_its_window_closes() -> None:
    """The answer may never have reached the runner: the attempt must not wait for a whole TTL."""
    job = granted(a_queued_job())

    before = jobs.step(job, a_tick(), now_ms=ACK_WITHIN_MS - 1)
    after = accepted(jobs.step(job, a_tick(), now_ms=ACK_WITHIN_MS))

    assert before == Step(job)
    assert after.attempts[0].state is AttemptState.LOST
    assert after.attempts[0].end_reason is EndReason.NEVER_ACKNOWLEDGED
    assert after.attempts[0].lease is not None
    assert after.attempts[0].lease.state is LeaseState.REVOKED


def test_a_restart_opens_the_acknowledgement_window_once_more() -> None:
    """The acknowledgement may have knocked while nobody was at home: it gets its window again, and only once."""
    job = granted(a_queued_job())
    restored_at_ms = HOUR_MS

    renewed = jobs.step(job, a_tick(heard_at_ms=restored_at_ms), now_ms=restored_at_ms)
    second = jobs.step(accepted(renewed), a_tick(heard_at_ms=restored_at_ms), now_ms=restored_at_ms + ACK_WITHIN_MS)

    assert event_types(renewed) == ["LeaseRenewed"]
    assert jobs.deadline_ms(accepted(renewed)) == restored_at_ms + ACK_WITHIN_MS
    assert event_types(second) == ["AttemptEnded", "AttemptQueued"]


def test_a_lease_whose_window_was_opened_again_can_be_acknowledged() -> None:
    """Extending a window does not activate the lease: the acknowledgement still does."""
    job = accepted(jobs.step(granted(a_queued_job()), a_tick(heard_at_ms=HOUR_MS), now_ms=HOUR_MS))

    acknowledged = accepted(jobs.step(job, an_ack(job), now_ms=HOUR_MS + 1))

    assert last(acknowledged).state is AttemptState.STARTING
    assert jobs.deadline_ms(acknowledged) == HOUR_MS + 1 + TTL_MS


# ---- fencing -----------------------------------------------------------------------------------------------------

NOT_HELD = [JobState.BLOCKED, JobState.QUEUED, JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT]


@pytest.mark.parametrize("state", [*NOT_HELD, JobState.CANCELED, JobState.SKIPPED])
def test_an_old_holder_is_told_that_its_lease_is_stale_whatever_became_of_the_job(state: JobState) -> None:
    """A runner stops on StaleLease; "illegal move" would leave it working on a job that is over or somebody else's."""
    old = held()
    messages = (an_ack(old), a_heartbeat(old), a_completion(old, digest="other"), a_cancel_ack(old))
    job = a_job(state)

    answers = [jobs.step(job, message, now_ms=1) for message in messages]

    stopping = {Why.STALE_LEASE, Why.CONFLICTING_RESULT}
    if state is JobState.CANCELED:
        assert answers.pop() == Step(job)  # the repeat of the acknowledgement that ended it
    assert stopping >= {why(answer) for answer in answers}
    assert why(answers[1]) is Why.STALE_LEASE


@pytest.mark.parametrize("phase", [AttemptState.LEASED, AttemptState.STARTING, AttemptState.UPLOADING])
@pytest.mark.parametrize(
    "wrong", [{"lease_hash": "guessed"}, {"runner_id": "runner_2"}, {"attempt": 2}, {"attempt": 0}, {"attempt": -1}]
)
def test_only_the_holder_is_heard(phase: AttemptState, wrong: dict[str, object]) -> None:
    """The token, the runner that it was granted to and the attempt must all match: two of three are a stranger."""
    job = held(phase)
    messages = (an_ack(job), a_heartbeat(job), a_completion(job), a_cancel_ack(job))

    answers = [jobs.step(job, _with(message, wrong), now_ms=1) for message in messages]

    assert [why(answer) for answer in answers] == [Why.STALE_LEASE] * 4


def test_the_first_attempts_lease_is_worth_nothing_once_the_second_is_leased() -> None:
    """A runner that woke up late must change nothing, neither under its own number nor under the current one."""
    first = held()
    lost = accepted(jobs.step(first, a_tick(), now_ms=TTL_MS))
    second = granted(lost, now_ms=HOUR_MS, runner="runner_2")
    messages = (an_ack(first), a_heartbeat(first), a_completion(first), a_cancel_ack(first))
    renumbered = [_with(message, {"attempt": 2}) for message in messages]

    answers = [jobs.step(second, message, now_ms=HOUR_MS) for message in (*messages, *renumbered)]

    assert [why(answer) for answer in answers] == [Why.STALE_LEASE] * 8


def test_the_same_runner_needs_its_new_lease_for_its_second_attempt() -> None:
    """Being the same runner is no right: only the token of the current lease is."""
    first = held()
    second = granted(accepted(jobs.step(first, a_tick(), now_ms=TTL_MS)), now_ms=HOUR_MS)

    old = jobs.step(second, _with(an_ack(second), {"lease_hash": "lease_1"}), now_ms=HOUR_MS)
    new = jobs.step(second, an_ack(second), now_ms=HOUR_MS)

    assert why(old) is Why.STALE_LEASE
    assert last(accepted(new)).state is AttemptState.STARTING


def _with(message: jobs.JobCommand, changes: dict[str, object]) -> jobs.JobCommand:
    return msgspec.structs.replace(message, **changes)


# ---- heartbeats --------------------------------------------------------------------------------------------------


def test_a_second_acknowledgement_is_accepted_and_changes_nothing() -> None:
    """The first answer may have been lost on the way: the runner asks again and must not be stopped for it."""
    job = held(AttemptState.STARTING)

    again = jobs.step(job, an_ack(job), now_ms=HOUR_MS)

    assert again == Step(job)


def test_a_heartbeat_before_the_acknowledgement_is_refused_with_what_to_do() -> None:
    """An unacknowledged lease has no TTL that could be renewed."""
    job = held(AttemptState.LEASED)

    answer = jobs.step(job, a_heartbeat(job), now_ms=1)

    assert answer == Refusal(Why.ILLEGAL_MOVE, "job_1_0", JobState.RUNNING, "Heartbeat", "acknowledge the lease first")


def test_a_result_before_the_acknowledgement_is_refused_with_what_to_do() -> None:
    """What was never started cannot have an end."""
    job = held(AttemptState.LEASED)

    answer = jobs.step(job, a_completion(job), now_ms=1)

    assert answer == Refusal(Why.ILLEGAL_MOVE, "job_1_0", JobState.RUNNING, "Complete", "acknowledge the lease first")


@pytest.mark.parametrize(("now_ms", "renewals"), [(0, 0), (TTL_MS // 2, 0), (TTL_MS // 2 + 1, 1), (TTL_MS - 1, 1)])
def test_a_heartbeat_moves_the_stored_deadline_only_under_half_a_ttl(now_ms: int, renewals: int) -> None:
    """Twenty thousand runners send a heartbeat every twenty seconds: most of them must cost no write."""
    job = held()

    answer = jobs.step(job, a_heartbeat(job), now_ms=now_ms)

    assert event_types(answer) == ["LeaseRenewed"] * renewals


def test_a_renewed_lease_lives_one_ttl_from_the_heartbeat_that_renewed_it() -> None:
    """The deadline follows the holder, not the former deadline."""
    job = held()

    renewed = accepted(jobs.step(job, a_heartbeat(job), now_ms=100_000))

    assert jobs.deadline_ms(renewed) == 100_000 + TTL_MS


@pytest.mark.parametrize(
    ("at", "phase", "expected"),
    [
        (AttemptState.STARTING, AttemptState.STARTING, AttemptState.STARTING),
        (AttemptState.STARTING, AttemptState.RUNNING, AttemptState.RUNNING),
        (AttemptState.STARTING, AttemptState.UPLOADING, AttemptState.UPLOADING),
        (AttemptState.RUNNING, AttemptState.STARTING, AttemptState.RUNNING),
        (AttemptState.RUNNING, AttemptState.UPLOADING, AttemptState.UPLOADING),
        (AttemptState.UPLOADING, AttemptState.RUNNING, AttemptState.UPLOADING),
        (AttemptState.RUNNING, AttemptState.SUCCEEDED, AttemptState.RUNNING),
        (AttemptState.RUNNING, AttemptState.LOST, AttemptState.RUNNING),
    ],
)
def test_a_heartbeats_phase_moves_an_attempt_forward_and_never_to_its_end(
    at: AttemptState, phase: AttemptState, expected: AttemptState
) -> None:
    """Heartbeats may be reordered on the way, and what a runner says is an observation, never a command."""
    job = held(at)

    after = accepted(jobs.step(job, a_heartbeat(job, phase), now_ms=1))

    assert last(after).state is expected


# ---- expiry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", [AttemptState.STARTING, AttemptState.RUNNING, AttemptState.UPLOADING])
@pytest.mark.parametrize("heard_at_ms", [0, 1, 59_999, 60_000, 119_999, 120_000])
def test_a_lease_expires_one_ttl_after_its_holder_was_last_heard_and_never_earlier(
    phase: AttemptState, heard_at_ms: int
) -> None:
    """Heartbeats that cost no write still count: the instant in memory moves the end, the stored one only bounds it."""
    job = held(phase)
    end_ms = heard_at_ms + TTL_MS

    before = accepted(jobs.step(job, a_tick(heard_at_ms=heard_at_ms), now_ms=end_ms - 1))
    after = accepted(jobs.step(before, a_tick(heard_at_ms=heard_at_ms), now_ms=end_ms))

    assert last(before).state is phase
    assert after.attempts[0].state is AttemptState.LOST
    assert after.attempts[0].end_reason is EndReason.RUNNER_LOST
    assert after.attempts[0].lease is not None
    assert after.attempts[0].lease.state is LeaseState.EXPIRED


def test_a_restart_gives_a_silent_holder_one_full_ttl() -> None:
    """The control plane was away, not the runner: no lease is lost by our own restart."""
    job = held()
    restored_at_ms = HOUR_MS // 2

    at_once = jobs.step(job, a_tick(heard_at_ms=restored_at_ms), now_ms=restored_at_ms)
    later = jobs.step(accepted(at_once), a_tick(heard_at_ms=restored_at_ms), now_ms=restored_at_ms + TTL_MS)

    assert event_types(at_once) == ["LeaseRenewed"]
    assert jobs.deadline_ms(accepted(at_once)) == restored_at_ms + TTL_MS
    assert accepted(later).attempts[0].state is AttemptState.LOST


def test_a_holder_that_is_heard_after_its_deadline_but_before_anybody_looked_keeps_its_lease() -> None:
    """Until the expiry is stored the lease is the current one: the token decides, not the clock."""
    job = held()

    answer = jobs.step(job, a_heartbeat(job), now_ms=TTL_MS + 5)

    assert event_types(answer) == ["LeaseRenewed"]


@pytest.mark.parametrize("now_ms", [0, TTL_MS - 1])
def test_expires_at_is_what_a_look_at_that_instant_finds(now_ms: int) -> None:
    """Dispatch shows it, the tick decides by it: they are the same function."""
    job = held()

    assert jobs.expires_at_ms(job, heard_at_ms=now_ms) == now_ms + TTL_MS
    assert jobs.expires_at_ms(a_queued_job(), heard_at_ms=now_ms) is None


# ---- the job's own time ------------------------------------------------------------------------------------------


def test_the_server_enforces_a_jobs_timeout_after_a_margin() -> None:
    """The runner should have done it by itself; one that lives but does not stop is told to."""
    job = held()
    end_ms = JOB_TIMEOUT_MS + jobs.TIMEOUT_MARGIN_MS
    heard = a_tick(heard_at_ms=end_ms)

    before = accepted(jobs.step(job, heard, now_ms=end_ms - 1))
    after = accepted(jobs.step(before, heard, now_ms=end_ms))

    assert before.state is JobState.RUNNING
    assert jobs.deadline_ms(before) == end_ms
    assert after.state is JobState.CANCEL_REQUESTED
    assert after.cancel == jobs.CancelIntent(EndReason.JOB_TIMEOUT, end_ms + CANCEL_WITHIN_MS)


def test_a_job_whose_time_ran_out_between_two_lives_of_the_server_is_left_to_its_holder() -> None:
    """The clock may have been set by hours, or the result be ready to be told; the timer does not fire for it again."""
    job = held()
    restored_at_ms = 5 * HOUR_MS
    tick = a_tick(heard_at_ms=restored_at_ms, began_at_ms=restored_at_ms)

    restored = jobs.step(job, tick, now_ms=restored_at_ms)
    later = jobs.step(accepted(restored), tick, now_ms=restored_at_ms + TTL_MS - 1)
    done = jobs.step(accepted(restored), a_completion(job), now_ms=restored_at_ms + 1)
    silent = jobs.step(accepted(restored), tick, now_ms=restored_at_ms + TTL_MS)

    assert event_types(restored) == ["LeaseRenewed"]
    assert jobs.deadline_ms(accepted(restored)) == restored_at_ms + TTL_MS
    assert later == Step(accepted(restored))
    assert accepted(done).state is JobState.SUCCEEDED
    assert accepted(silent).attempts[0].end_reason is EndReason.RUNNER_LOST


def test_a_job_whose_time_runs_out_after_a_restart_is_stopped_as_ever() -> None:
    """Also when a heartbeat that renews the lease comes just before the timer looks: then one lease later at most."""
    job = held()
    end_ms = JOB_TIMEOUT_MS + jobs.TIMEOUT_MARGIN_MS
    renewed = accepted(jobs.step(job, a_heartbeat(job), now_ms=end_ms + 1))

    after = accepted(jobs.step(renewed, a_tick(heard_at_ms=end_ms, began_at_ms=end_ms), now_ms=end_ms + 2))

    assert jobs.deadline_ms(renewed) == end_ms + 1 + TTL_MS
    assert after.state is JobState.CANCEL_REQUESTED


def test_a_time_that_ran_out_just_before_a_restart_does_not_fire_again_and_again() -> None:
    """Nobody is heard; the timer that is let pass once would come back at every look, in front of all others."""
    job = held()
    began_at_ms = JOB_TIMEOUT_MS + jobs.TIMEOUT_MARGIN_MS + 1
    renewed = accepted(jobs.step(job, a_heartbeat(job), now_ms=began_at_ms - TTL_MS // 2))

    passed = jobs.step(renewed, a_tick(heard_at_ms=began_at_ms, began_at_ms=began_at_ms), now_ms=began_at_ms)

    assert event_types(passed) == ["LeaseRenewed"]
    assert jobs.deadline_ms(accepted(passed)) == began_at_ms + TTL_MS


@pytest.mark.parametrize("reason", [EndReason.JOB_TIMEOUT, EndReason.RUN_TIMEOUT])
@pytest.mark.parametrize("end", ["obeyed", "completed", "forced"])
def test_a_job_that_was_stopped_for_its_time_ends_timed_out(reason: EndReason, end: str) -> None:
    """However the stop ends, the reason why it was asked for is what people are told."""
    job = accepted(jobs.step(held(), a_cancel(reason), now_ms=0))
    ends: dict[str, jobs.JobCommand] = {"obeyed": a_cancel_ack(job), "completed": a_completion(job), "forced": a_tick()}

    after = accepted(jobs.step(job, ends[end], now_ms=CANCEL_WITHIN_MS))

    assert after.state is JobState.TIMED_OUT
    assert after.end_reason is reason
    assert last(after).state is AttemptState.TIMED_OUT


# ---- a restored backup -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "phase", [AttemptState.LEASED, AttemptState.STARTING, AttemptState.RUNNING, AttemptState.UPLOADING]
)
def test_a_revoked_lease_is_worth_nothing_and_the_job_is_queued_at_once(phase: AttemptState) -> None:
    """What its holder was told "stored" may be gone: a success without its log's end and artifacts would be hollow."""
    job = held(phase)

    after = accepted(jobs.step(job, jobs.Revoke(), now_ms=HOUR_MS))
    late = jobs.step(after, a_completion(job), now_ms=HOUR_MS)

    first, second = after.attempts
    assert (first.state, first.end_reason) == (AttemptState.LOST, EndReason.RESTORED)
    assert first.lease is not None
    assert first.lease.state is LeaseState.REVOKED
    assert (second.state, second.not_before_ms) == (AttemptState.QUEUED, HOUR_MS)
    assert why(late) is Why.STALE_LEASE


def test_a_revoked_lease_costs_nothing_of_any_budget() -> None:
    """Neither the job nor its runner failed: however often a backup is restored, the retries are all still there."""
    job = held(retries=1)
    for _ in range(9):
        job = accepted(jobs.step(job, jobs.Revoke(), now_ms=0))
        job = granted(job)

    lost = 0
    while not job.state.is_final:
        lost += 1
        job = accepted(jobs.step(job, an_ack(job), now_ms=lost * HOUR_MS))
        job = accepted(jobs.step(job, a_completion(job, EndReason.RUNNER_ERROR), now_ms=lost * HOUR_MS))
        if not job.state.is_final:
            job = granted(job, now_ms=lost * HOUR_MS + 60_000)

    assert lost == 1 + 2


def test_a_job_that_was_asked_to_stop_is_stopped_by_its_revocation() -> None:
    """Its holder is not waited for: nothing it could still say would change the end."""
    job = accepted(jobs.step(held(), a_cancel(EndReason.SUPERSEDED), now_ms=0))

    after = accepted(jobs.step(job, jobs.Revoke(), now_ms=1))

    assert (after.state, after.end_reason) == (JobState.CANCELED, EndReason.SUPERSEDED)
    assert last(after).lease is not None
    assert last(after).lease.state is LeaseState.REVOKED  # type: ignore[union-attr]  # asserted above


def test_every_state_of_an_ended_lease_has_its_move() -> None:
    """A lease ends in exactly one of the ways that have a name."""
    assert {state for state in LeaseState if state.is_final} == set(leases.END_MOVES)


def test_a_failure_ends_the_lease_as_completed() -> None:
    """The lease was used up by a report, good or bad."""
    job = held()

    after = accepted(jobs.step(job, a_failure(job), now_ms=1))

    assert last(after).lease is not None
    assert last(after).lease.state is LeaseState.COMPLETED  # type: ignore[union-attr]  # asserted above
