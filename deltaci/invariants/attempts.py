"""Rules over the attempts of one job: numbered without gaps, one at a time, decided when over, bounded."""

from typing import Final

from deltaci.domain.events import (
    AttemptEnded,
    AttemptLeased,
    AttemptMoved,
    AttemptQueued,
    JobEnded,
    LeaseAcknowledged,
    LeaseRenewed,
)
from deltaci.domain.job import Job
from deltaci.domain.retry import INFRASTRUCTURE, INFRASTRUCTURE_RETRIES_MAX, UNACKNOWLEDGED_MAX, USER
from deltaci.domain.states import AttemptState, EndReason, JobState
from deltaci.invariants.past import Change
from deltaci.invariants.rules import Found, Rule

OF_AN_ATTEMPT: Final = (AttemptLeased, LeaseAcknowledged, LeaseRenewed, AttemptMoved, AttemptEnded)

# How a job ends with its last attempt.
ENDS: Final = {
    AttemptState.SUCCEEDED: JobState.SUCCEEDED,
    AttemptState.FAILED: JobState.FAILED,
    AttemptState.LOST: JobState.FAILED,
    AttemptState.TIMED_OUT: JobState.TIMED_OUT,
    AttemptState.CANCELED: JobState.CANCELED,
}


def attempts_dense(change: Change) -> Found | None:
    """The attempts of a job are numbered 1, 2, 3 ..., and only the last one moves."""
    before: Job = change.before
    expected = len(before.attempts) + isinstance(change.event, AttemptQueued)
    if change.event.attempt != expected:
        return Found(f"{change.entry.type} is about attempt {change.event.attempt} where {expected} is expected")
    return None


def one_attempt_at_a_time(change: Change) -> Found | None:
    """The next attempt exists only after the one before ended."""
    before: Job = change.before
    still_open = [attempt.number for attempt in before.attempts if not attempt.state.is_final]
    if still_open:
        return Found(f"attempt {change.event.attempt} is queued while {still_open} are not over")
    return None


def end_decided_at_once(change: Change) -> Found | None:
    """With the end of an attempt its job ends, or the next attempt is queued, in the same commit."""
    last = change.past.tracks[change.entry.entity_id]
    is_decision = isinstance(change.event, AttemptQueued | JobEnded)
    if isinstance(last.last_event, AttemptEnded):
        if not is_decision:
            return Found(f"{change.entry.type} follows an attempt's end that decided nothing", (last.last_id,))
        if change.entry.id != last.last_id + 1:
            return Found("an attempt's end was stored without what follows from it", (last.last_id,))
    elif isinstance(change.event, AttemptQueued):
        return Found("an attempt is queued though none has just ended", (last.last_id,))
    return None


def ends_as_its_attempt(change: Change) -> Found | None:
    """A job ends as its last attempt did; without an attempt it can only be canceled."""
    before: Job = change.before
    if not before.attempts:
        is_canceled = change.event.state is JobState.CANCELED
        return None if is_canceled else Found(f"it ends as {change.event.state} without an attempt")
    last = before.attempts[-1]
    if ENDS.get(last.state) is not change.event.state:
        return Found(f"it ends as {change.event.state} while attempt {last.number} is {last.state}")
    return None


def retries_bounded(change: Change) -> Found | None:
    """Each kind of failure has its budget of retries; success and cancel have none."""
    before: Job = change.before
    reasons = [attempt.end_reason for attempt in before.attempts]
    last = reasons[-1] if reasons else None
    if last in INFRASTRUCTURE:
        count, most = sum(reason in INFRASTRUCTURE for reason in reasons), INFRASTRUCTURE_RETRIES_MAX
    elif last in USER:
        count, most = sum(reason in USER for reason in reasons), before.retries
    elif last is EndReason.NEVER_ACKNOWLEDGED:
        count, most = reasons.count(last), UNACKNOWLEDGED_MAX - 1
    elif last is EndReason.RESTORED:
        return None  # bounded by how often somebody restores a backup
    else:
        return Found(f"attempt {change.event.attempt} follows one that ended with {last}")
    if count > most:
        return Found(f"attempt {change.event.attempt} is retry {count} of this kind ({last}), at most {most} are due")
    return None


def backoff_kept(change: Change) -> Found | None:
    """A retry is leased only after its backoff."""
    queued = change.before.attempts[-1]
    if change.event.at_ms < queued.not_before_ms:
        early_ms = queued.not_before_ms - change.event.at_ms
        return Found(f"attempt {queued.number} is leased {early_ms} ms before its backoff is over")
    return None


RULES: Final = (
    Rule(3, attempts_dense, (AttemptQueued, *OF_AN_ATTEMPT)),
    Rule(3, one_attempt_at_a_time, (AttemptQueued,)),
    Rule(3, end_decided_at_once, (AttemptQueued, JobEnded, *OF_AN_ATTEMPT)),
    Rule(10, ends_as_its_attempt, (JobEnded,)),
    Rule(3, retries_bounded, (AttemptQueued,)),
    Rule(3, backoff_kept, (AttemptLeased,)),
)
