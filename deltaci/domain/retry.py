"""Whether an attempt that did not succeed is followed by another one, and when.

Rule 1: every budget is a bound: infrastructure and user failures are counted apart, never-acknowledged leases have a
        bound of their own and use up neither. Attempts that a restored backup took back are bounded by the person who
        restores.
Rule 2: the jitter is derived from the job's id, so that the same history always gives the same answer.
"""

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from deltaci.domain.attempt import Attempt
from deltaci.domain.states import EndReason

INFRASTRUCTURE: Final = frozenset(
    {EndReason.RUNNER_LOST, EndReason.CHECKOUT_FAILED, EndReason.RUNNER_ERROR, EndReason.RUNNER_STOPPED}
)
USER: Final = frozenset({EndReason.STEP_FAILED, EndReason.JOB_TIMEOUT})

INFRASTRUCTURE_RETRIES_MAX: Final = 2
UNACKNOWLEDGED_MAX: Final = 5
BACKOFF_FIRST_MS: Final = 1_000
BACKOFF_MAX_MS: Final = 60_000


class RetryAt(msgspec.Struct, frozen=True):
    """Queue the next attempt, not to be leased before this instant."""

    not_before_ms: int


class NoRetry(msgspec.Struct, frozen=True):
    """The job ends with this attempt."""


def decide(
    job_id: str, attempts: Sequence[Attempt], reason: EndReason, *, retries: int, now_ms: int
) -> RetryAt | NoRetry:
    """What follows the last of `attempts`, which ends with `reason`.

    Args:
        attempts: all attempts of the job so far, the ending one included (its stored end reason is not read).
        retries: how often a failure of the user's own steps may be retried.
    """
    if reason is EndReason.RESTORED:
        return RetryAt(now_ms)
    earlier = [attempt.end_reason for attempt in attempts[:-1]]
    if reason is EndReason.NEVER_ACKNOWLEDGED:
        used = earlier.count(EndReason.NEVER_ACKNOWLEDGED)
        return RetryAt(now_ms) if used + 1 < UNACKNOWLEDGED_MAX else NoRetry()
    if reason in INFRASTRUCTURE:
        used = sum(one in INFRASTRUCTURE for one in earlier)
        budget = INFRASTRUCTURE_RETRIES_MAX
    elif reason in USER:
        used = sum(one in USER for one in earlier)
        budget = retries
    else:
        return NoRetry()
    if used >= budget:
        return NoRetry()
    return RetryAt(now_ms + backoff_ms(job_id, used))


def backoff_ms(job_id: str, retry: int) -> int:
    """1 s, doubled with each retry up to 60 s, of which the last half is jitter."""
    full: int = min(BACKOFF_FIRST_MS * 2**retry, BACKOFF_MAX_MS)
    return full // 2 + zlib.crc32(f"{job_id}:{retry}".encode()) % (full // 2 + 1)
