"""Rules over cancels and time-outs: nothing starts after one, it ends as it was asked, neither too early nor too late.

A run's cancel is stored before it is told to its jobs. No lease is stored in between, but a job may be queued: it hears
of the cancel a moment later. How long that may take is for whoever calls to say (`reach_ms`).
"""

from typing import Final

from deltaci.domain.events import (
    AttemptEnded,
    AttemptLeased,
    AttemptQueued,
    JobCancelRequested,
    JobEnded,
    JobReleased,
    RunCancelRequested,
)
from deltaci.domain.job import TIMEOUT_MARGIN_MS, TIMEOUTS, Job
from deltaci.domain.run import Run
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState
from deltaci.invariants.past import Change
from deltaci.invariants.rules import Found, Rule


def nothing_starts_after_cancel(change: Change) -> Found | None:
    """After a job's cancel was requested it is neither leased nor retried."""
    if change.before.cancel is not None:
        track = change.past.tracks[change.entry.entity_id]
        return Found(f"{change.entry.type} follows the job's cancel", (track.cancel_id,))
    return None


def nothing_leased_after_runs_cancel(change: Change) -> Found | None:
    """After a run's cancel is stored none of its jobs is leased, whether they have heard of it or not."""
    run = change.past.run_of(change.before)
    if run is not None and run.cancel is not None:
        return Found(f"it is leased after the cancel of {run.id}", (change.past.tracks[run.id].cancel_id,))
    return None


def cancel_reaches_jobs(change: Change) -> Found | None:
    """A run's cancel reaches its jobs in time: none is queued later than that."""
    reach_ms, run = change.past.reach_ms, change.past.run_of(change.before)
    if reach_ms is None or run is None or run.cancel is None:
        return None
    canceled_at_ms = run.cancel.by_ms - run.cancel_within_ms
    late_ms = change.event.at_ms - max(canceled_at_ms, change.past.started_at_ms or 0, change.past.disturbed_at_ms)
    if late_ms > reach_ms:
        track = change.past.tracks[run.id]
        return Found(
            f"{change.entry.type} {late_ms} ms after the run's cancel could have been told", (track.cancel_id,)
        )
    return None


def cancel_has_a_cause(change: Change) -> Found | None:
    """A job is canceled only because its run is, or because its own time is up."""
    job: Job = change.before
    event, run = change.event, change.past.run_of(job)
    if isinstance(event, JobEnded) and (event.state is not JobState.CANCELED or job.cancel is not None):
        return None
    if isinstance(event, JobCancelRequested) and event.reason is EndReason.JOB_TIMEOUT:
        return None
    if run is None or run.cancel is None or run.cancel.reason is not event.reason:
        return Found(f"it is canceled with {event.reason}; its run has {run and run.cancel}")
    return None


def canceled_as_asked(change: Change) -> Found | None:
    """After a cancel was requested, attempt and job end as that cancel says, whatever crossed it."""
    job: Job = change.before
    if job.cancel is None:
        return None
    word = "TIMED_OUT" if job.cancel.reason in TIMEOUTS else "CANCELED"
    if (change.event.state, change.event.reason) != (word, job.cancel.reason):
        track = change.past.tracks[job.id]
        text = f"it ends as {change.event.state}, {change.event.reason}; asked for was {word}, {job.cancel.reason}"
        return Found(text, (track.cancel_id,))
    return None


def cancel_forced_in_time(change: Change) -> Found | None:
    """A canceled lease is revoked at its deadline, neither earlier nor much later."""
    job: Job = change.before
    event: AttemptEnded = change.event
    if job.cancel is None:
        return None
    track = change.past.tracks[job.id]
    if event.lease_state is LeaseState.REVOKED and event.at_ms < job.cancel.by_ms:
        return Found(f"it is revoked {job.cancel.by_ms - event.at_ms} ms before the deadline", (track.cancel_id,))
    late_ms = change.past.late_ms
    since_ms = max(job.cancel.by_ms, change.past.started_at_ms or 0, change.past.disturbed_at_ms)
    if late_ms is not None and event.at_ms > since_ms + late_ms:
        return Found(f"it ends {event.at_ms - since_ms} ms after the deadline", (track.cancel_id,))
    return None


def revoked_for_a_reason(change: Change) -> Found | None:
    """A lease ends by the holder's word, by silence, or by a cancel's deadline."""
    job: Job = change.before
    event: AttemptEnded = change.event
    if event.lease_state is LeaseState.CANCELED and job.cancel is None:
        return Found("its cancel is obeyed though none was requested")
    if event.lease_state is LeaseState.REVOKED and job.cancel is None and event.state is not AttemptState.LOST:
        return Found("its lease is revoked though no cancel was requested and it was acknowledged")
    return None


def timed_out_in_time(change: Change) -> Found | None:
    """A time-out is never declared before the time is out, nor is a held run given up."""
    event, before = change.event, change.before
    if event.reason is EndReason.JOB_TIMEOUT and isinstance(before, Job) and before.attempts:
        started_at_ms = before.attempts[-1].started_at_ms
        if started_at_ms is None:
            return Found("it times out before it started")
        ends_at_ms = started_at_ms + before.timeout_ms + TIMEOUT_MARGIN_MS
    elif event.reason is EndReason.RUN_TIMEOUT and isinstance(before, Run):
        since_ms = before.restored_at_ms or before.created_at_ms
        ends_at_ms = max(since_ms, before.approved_at_ms or since_ms) + before.timeout_ms
    elif event.reason is EndReason.NEVER_APPROVED and isinstance(before, Run):
        ends_at_ms = (before.restored_at_ms or before.created_at_ms) + before.hold_within_ms
    else:
        return None
    if event.at_ms < ends_at_ms:
        return Found(f"it times out {ends_at_ms - event.at_ms} ms early")
    return None


RULES: Final = (
    Rule(13, nothing_starts_after_cancel, (AttemptLeased, AttemptQueued, JobReleased)),
    Rule(13, nothing_leased_after_runs_cancel, (AttemptLeased,)),
    Rule(13, cancel_reaches_jobs, (AttemptQueued, JobReleased)),
    Rule(13, cancel_has_a_cause, (JobCancelRequested, JobEnded)),
    Rule(14, canceled_as_asked, (AttemptEnded, JobEnded)),
    Rule(13, cancel_forced_in_time, (AttemptEnded,)),
    Rule(13, revoked_for_a_reason, (AttemptEnded,)),
    Rule(15, timed_out_in_time, (JobCancelRequested, RunCancelRequested)),
)
