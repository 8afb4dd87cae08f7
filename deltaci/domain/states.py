"""The words for where a thing is in its life, and why it ended or waits.

One spelling everywhere: code, tables, URLs, logs, UI.
"""

from enum import StrEnum
from typing import Final


class RunState(StrEnum):
    """One evaluation of a trigger."""

    CREATED = "CREATED"
    PLANNING = "PLANNING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL_RUN


class JobState(StrEnum):
    """A unit of work of a run."""

    BLOCKED = "BLOCKED"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    CANCEL_REQUESTED = "CANCEL_REQUESTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    SKIPPED = "SKIPPED"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL_JOB


class AttemptState(StrEnum):
    """One execution of a job."""

    QUEUED = "QUEUED"
    LEASED = "LEASED"
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    UPLOADING = "UPLOADING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    TIMED_OUT = "TIMED_OUT"
    CANCELED = "CANCELED"
    LOST = "LOST"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL_ATTEMPT


class LeaseState(StrEnum):
    """The right to execute one attempt."""

    GRANTED = "GRANTED"
    ACTIVE = "ACTIVE"
    COMPLETED = "COMPLETED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"

    @property
    def is_final(self) -> bool:
        """Whether nothing can follow."""
        return self in FINAL_LEASE


FINAL_RUN: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELED})
FINAL_JOB: Final = frozenset(
    {JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELED, JobState.SKIPPED}
)
FINAL_ATTEMPT: Final = frozenset(
    {AttemptState.SUCCEEDED, AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.CANCELED, AttemptState.LOST}
)
FINAL_LEASE: Final = frozenset({LeaseState.COMPLETED, LeaseState.CANCELED, LeaseState.EXPIRED, LeaseState.REVOKED})
HELD: Final = frozenset({AttemptState.LEASED, AttemptState.STARTING, AttemptState.RUNNING, AttemptState.UPLOADING})


class EndReason(StrEnum):
    """Why a run, a job or an attempt ended as it did; machine-readable."""

    SUCCEEDED = "succeeded"
    STEP_FAILED = "step_failed"
    JOB_TIMEOUT = "job_timeout"
    RUN_TIMEOUT = "run_timeout"
    USER_CANCELED = "user_canceled"
    SUPERSEDED = "superseded"
    CLOSED = "closed"
    RUNNER_LOST = "runner_lost"
    NEVER_ACKNOWLEDGED = "never_acknowledged"
    CHECKOUT_FAILED = "checkout_failed"
    RUNNER_ERROR = "runner_error"
    RUNNER_STOPPED = "runner_stopped"
    CANCEL_DEADLINE = "cancel_deadline"
    NEVER_APPROVED = "never_approved"
    RESTORED = "restored"
    PLAN_FAILED = "plan_failed"
    NOT_AFFECTED = "not_affected"
    CARRIED_OVER = "carried_over"
    NEEDS_FAILED = "needs_failed"
    NOTHING_TO_RUN = "nothing_to_run"
    JOBS_FAILED = "jobs_failed"


class WaitingReason(StrEnum):
    """Why a job is not running yet, or, `APPROVAL` alone, why a run is not even planned."""

    NEEDS = "needs"
    RETRY_BACKOFF = "retry_backoff"
    NO_RUNNER_ONLINE = "no_runner_online"
    NO_RUNNER_WITH_LABELS = "no_runner_with_labels"
    CONCURRENCY = "concurrency"
    REPO_LIMIT = "repo_limit"
    RUNNERS_BUSY = "runners_busy"
    APPROVAL = "approval"
