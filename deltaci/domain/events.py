"""Everything that can happen to a run or a job. An event has happened: it is appended, never edited.

Rule 1: the stored state of an entity is the fold of its events, from the first on.
Rule 2: fields added later have defaults, so that old events still decode.
"""

from typing import Any, Final, Literal, TypeAlias

import msgspec

from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState


class Cause(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Who brought it about, and what they used: a delivery, a user's token, a runner, a timer, the system itself."""

    kind: Literal["webhook", "user", "runner", "timer", "system"]
    id: str
    via: str = ""


SYSTEM: Final = Cause("system", "orchestrator")
TIMER: Final = Cause("timer", "deadline")


class _Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, tag_field="type", tag=True, gc=False):
    at_ms: int


# ---- runs --------------------------------------------------------------------------------------------------------


class RunKey(msgspec.Struct, frozen=True):
    """What makes two triggers the same run."""

    repo_id: str
    commit_sha: str
    trigger_type: str
    pr_number: int | None = None


class Trigger(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came from outside: a push, a pull request, a person, or somebody's clock.

    `base_sha` is the commit before a push, or the head of the target branch; None when there is none. `base_ref` is
    the full name of the target branch of a pull request: where a forge does not tell its head, that is looked up.
    `labels` are those of the pull request when it was pushed to.
    `stream` names what a newer run of the same makes superfluous: `branch:main`, `pr:12`.
    """

    kind: Literal["push", "pull_request", "merge_group", "manual", "schedule"]
    ref: str
    commit_sha: str
    base_sha: str | None = None
    pr_number: int | None = None
    stream: str = ""
    is_forced: bool = False
    is_fork: bool = False
    title: str = ""
    author: str = ""
    labels: tuple[str, ...] = ()
    base_ref: str = ""


# What a run waits for before it is planned: nothing, or somebody who lets its commit run.
Hold: TypeAlias = Literal["", "approval"]


class RunCreated(_Event, frozen=True, kw_only=True):
    """`hold_within_ms`: how long a held run waits at most. `approved_by`: who let this commit run before."""

    run_id: str
    key: RunKey
    attempt: int
    trigger: Trigger
    timeout_ms: int
    cancel_within_ms: int
    hold: Hold = ""
    hold_within_ms: int = 0
    approved_by: str = ""


class RunApproved(_Event, frozen=True, kw_only=True):
    """Somebody with the right lets the commit of this run, and no other, be run."""

    by: str


class PlanningStarted(_Event, frozen=True, kw_only=True):
    pass


class JobRef(msgspec.Struct, frozen=True, omit_defaults=True):
    """A job as its run knows it: never changes once the plan is adopted. `needs` are job ids."""

    id: str
    name: str
    is_required: bool = True
    needs: tuple[str, ...] = ()


class PlanAdopted(_Event, frozen=True, kw_only=True):
    """`has_blueprint`: what the plan was made from is stored with it, and the run's end has a say about recipes.

    `is_notifying`: somebody may want to be told of the run's end.
    """

    plan_digest: str
    jobs: tuple[JobRef, ...]
    has_blueprint: bool = False
    is_notifying: bool = False


class RunStarted(_Event, frozen=True, kw_only=True):
    pass


class RunRestored(_Event, frozen=True, kw_only=True):
    """It came back with a backup; its time counts anew from here."""


class RunCancelRequested(_Event, frozen=True, kw_only=True):
    reason: EndReason
    by_ms: int
    detail: str = ""


class RunEnded(_Event, frozen=True, kw_only=True):
    state: RunState
    reason: EndReason
    text: str = ""


RunEvent: TypeAlias = (
    RunCreated | RunApproved | PlanningStarted | PlanAdopted | RunStarted | RunRestored | RunCancelRequested | RunEnded
)

# ---- jobs --------------------------------------------------------------------------------------------------------


FirstState: TypeAlias = Literal[JobState.BLOCKED, JobState.QUEUED, JobState.SKIPPED]


class JobCreated(_Event, frozen=True, kw_only=True):
    """`state` is BLOCKED, QUEUED or, with an `end_reason`, SKIPPED. `concurrency`: its group, empty for none."""

    job_id: str
    run_id: str
    repo_id: str
    name: str
    is_required: bool
    labels: tuple[str, ...]
    priority: int
    retries: int
    timeout_ms: int
    state: JobState
    end_reason: EndReason | None = None
    concurrency: str = ""


class JobReleased(_Event, frozen=True, kw_only=True):
    pass


class JobSkipped(_Event, frozen=True, kw_only=True):
    reason: EndReason
    detail: str = ""


class AttemptLeased(_Event, frozen=True, kw_only=True):
    attempt: int
    lease_hash: str
    runner_id: str
    ack_by_ms: int
    ttl_ms: int


class LeaseAcknowledged(_Event, frozen=True, kw_only=True):
    attempt: int
    expires_at_ms: int


class LeaseRenewed(_Event, frozen=True, kw_only=True):
    attempt: int
    expires_at_ms: int


class AttemptMoved(_Event, frozen=True, kw_only=True):
    """`state` is RUNNING or UPLOADING."""

    attempt: int
    state: AttemptState


class JobCancelRequested(_Event, frozen=True, kw_only=True):
    reason: EndReason
    by_ms: int
    detail: str = ""


class AttemptEnded(_Event, frozen=True, kw_only=True):
    """`result_digest` names the runner's report, so that a repeat of it is told from another one."""

    attempt: int
    state: AttemptState
    reason: EndReason
    lease_state: LeaseState | None = None
    exit_code: int | None = None
    text: str = ""
    result_digest: str = ""


class AttemptQueued(_Event, frozen=True, kw_only=True):
    attempt: int
    not_before_ms: int


class JobEnded(_Event, frozen=True, kw_only=True):
    state: JobState
    reason: EndReason
    detail: str = ""


JobEvent: TypeAlias = (
    JobCreated
    | JobReleased
    | JobSkipped
    | AttemptLeased
    | LeaseAcknowledged
    | LeaseRenewed
    | AttemptMoved
    | JobCancelRequested
    | AttemptEnded
    | AttemptQueued
    | JobEnded
)

_encoder: Final = msgspec.json.Encoder()
_decoder: Final[msgspec.json.Decoder[Any]] = msgspec.json.Decoder(RunEvent | JobEvent)


def encode_event(event: RunEvent | JobEvent) -> bytes:
    """The event as JSON, tag included: what the journal keeps."""
    return _encoder.encode(event)


def decode_event(data: bytes) -> RunEvent | JobEvent:
    """The event that `encode_event` wrote; raises `msgspec.DecodeError` on anything else."""
    return _decoder.decode(data)  # type: ignore[no-any-return]  # the decoder is built for the union


def type_name(event: RunEvent | JobEvent) -> str:
    """The event's tag, as stored and shown."""
    return type(event).__name__
