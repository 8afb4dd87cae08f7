"""Sound beginnings of stories, and single events to go on with."""

from typing import Any, Final

from deltaci.domain.events import TIMER, AttemptEnded, AttemptLeased, AttemptQueued, Cause, JobEnded, LeaseAcknowledged
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState
from tests.builders import NOW_MS
from tests.invariants.story import HOLDER, JOB, TTL_MS, Story

HELD_BY: Final = Cause("runner", HOLDER)


def planned(*needs: tuple[int, ...], **more: Any) -> Story:
    """A run whose plan is adopted, by default with one queued job."""
    story = Story()
    story.create()
    story.plan(*(needs or ((),)), **more)
    return story


def running(*needs: tuple[int, ...], **more: Any) -> Story:
    """The same, its first job with a runner."""
    story = planned(*needs, **more)
    story.start()
    return story


def leased(attempt: int = 1, **more: Any) -> AttemptLeased:
    """The grant of an attempt under a lease of its own."""
    values: dict[str, Any] = {"at_ms": NOW_MS, "ack_by_ms": NOW_MS + 30_000, "ttl_ms": TTL_MS, "runner_id": HOLDER}
    return AttemptLeased(**({**values, "lease_hash": f"lease-{attempt}", "attempt": attempt} | more))


def lost(attempt: int = 1, **more: Any) -> AttemptEnded:
    """The end of an attempt whose holder was silent."""
    values: dict[str, Any] = {"at_ms": NOW_MS + TTL_MS, "reason": EndReason.RUNNER_LOST}
    values |= {"state": AttemptState.LOST, "lease_state": LeaseState.EXPIRED}
    return AttemptEnded(attempt=attempt, **(values | more))


def reported(attempt: int = 1, **more: Any) -> AttemptEnded:
    """The end of an attempt by its holder's result."""
    values: dict[str, Any] = {"at_ms": NOW_MS, "reason": EndReason.SUCCEEDED, "state": AttemptState.SUCCEEDED}
    values |= {"lease_state": LeaseState.COMPLETED, "exit_code": 0, "result_digest": "r"}
    return AttemptEnded(attempt=attempt, **(values | more))


def queued(attempt: int, **more: Any) -> AttemptQueued:
    """The next attempt."""
    return AttemptQueued(**({"at_ms": NOW_MS + TTL_MS, "attempt": attempt, "not_before_ms": 0} | more))


def ended(state: JobState, reason: EndReason, **more: Any) -> JobEnded:
    """The end of a job."""
    return JobEnded(**({"at_ms": NOW_MS, "state": state, "reason": reason} | more))


def retried(reason: EndReason, times: int, **more: Any) -> Story:
    """A job whose attempts ended with `reason` and were retried, one time after the other."""
    story = planned(**more)
    is_told = reason not in (EndReason.RUNNER_LOST, EndReason.NEVER_ACKNOWLEDGED)
    told: dict[str, Any] = {"reason": reason}
    if is_told:
        told |= {"state": AttemptState.FAILED, "lease_state": LeaseState.COMPLETED, "result_digest": "r"}
    elif reason is EndReason.NEVER_ACKNOWLEDGED:
        told |= {"lease_state": LeaseState.REVOKED}
    for number in range(1, times + 1):
        start_ms = NOW_MS + number * 10 * TTL_MS
        end_ms = start_ms + TTL_MS
        story.say(JOB, leased(number, at_ms=start_ms, ack_by_ms=start_ms + 30_000), cause=HELD_BY)
        if reason is not EndReason.NEVER_ACKNOWLEDGED:
            acknowledged = LeaseAcknowledged(at_ms=start_ms, attempt=number, expires_at_ms=end_ms)
            story.say(JOB, acknowledged, cause=HELD_BY)
        cause = HELD_BY if is_told else TIMER
        story.say(JOB, lost(number, at_ms=end_ms, **told), queued(number + 1, at_ms=end_ms), cause=cause)
    return story
