"""Leases: who is heard, until when, and what ends them."""


from deltaci.domain import job as jobs
from deltaci.domain.machine import Step
from deltaci.domain.states import AttemptState, EndReason, LeaseState
from tests.domain.builders import (
    ACK_WITHIN_MS,
    HOUR_MS,
    TTL_MS,
    a_queued_job,
    a_tick,
    accepted,
    an_ack,
    event_types,
    granted,
    last,
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
