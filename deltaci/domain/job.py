"""The job machine: every legal move of a unit of work, with its attempts and leases inside.

Rule 1: what a job does next is decided in this file and in no other.
Rule 2: only the current lease's holder is heard; a stale one is refused and nothing moves.
Rule 3: a result counts once. Its repeat gets the same answer for ever, another content is refused.
Rule 4: `step` decides events, `evolve` folds them; the stored state is that fold and nothing else.
"""

from collections.abc import Mapping
from typing import Final, TypeAlias, assert_never

import msgspec

from deltaci.domain import attempt as attempts
from deltaci.domain import retry
from deltaci.domain.attempt import Attempt
from deltaci.domain.effects import AnalyzeAttempt, Effect, ReportRun
from deltaci.domain.events import (
    AttemptEnded,
    AttemptLeased,
    AttemptMoved,
    AttemptQueued,
    JobCancelRequested,
    JobCreated,
    JobEnded,
    JobEvent,
    JobReleased,
    JobSkipped,
    LeaseAcknowledged,
    LeaseRenewed,
)
from deltaci.domain.lease import Lease
from deltaci.domain.machine import Move, Refusal, Step, Why, moved
from deltaci.domain.states import HELD, AttemptState, EndReason, JobState, LeaseState

LIVE: Final = frozenset(JobState) - frozenset(state for state in JobState if state.is_final)
STARTED: Final = frozenset({JobState.RUNNING, JobState.CANCEL_REQUESTED})
ANY: Final = frozenset(JobState)

MOVES: Final[Mapping[str, Move[JobState]]] = {
    "release": Move(frozenset({JobState.BLOCKED}), JobState.QUEUED),
    "skip": Move(frozenset({JobState.BLOCKED}), JobState.SKIPPED),
    "lease": Move(frozenset({JobState.QUEUED}), JobState.RUNNING),
    "requeue": Move(frozenset({JobState.RUNNING}), JobState.QUEUED),
    "request_cancel": Move(frozenset({JobState.RUNNING}), JobState.CANCEL_REQUESTED),
    "cancel": Move(LIVE - {JobState.RUNNING}, JobState.CANCELED),
    "succeed": Move(frozenset({JobState.RUNNING}), JobState.SUCCEEDED),
    "fail": Move(frozenset({JobState.RUNNING}), JobState.FAILED),
    "time_out": Move(STARTED, JobState.TIMED_OUT),
}

END_MOVES: Final[Mapping[JobState, str]] = {
    JobState.SUCCEEDED: "succeed",
    JobState.FAILED: "fail",
    JobState.TIMED_OUT: "time_out",
    JobState.CANCELED: "cancel",
    JobState.SKIPPED: "skip",
}

TIMEOUTS: Final = frozenset({EndReason.JOB_TIMEOUT, EndReason.RUN_TIMEOUT})

# The server enforces a job's timeout this much after the runner should have done it by itself.
TIMEOUT_MARGIN_MS: Final = 30_000


class CancelIntent(msgspec.Struct, frozen=True):
    """Why the job is to stop, and when it is ended by force."""

    reason: EndReason
    by_ms: int


class Job(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """A job as stored. `revision` is the number of its events; `concurrency` its group, empty for none."""

    id: str
    run_id: str
    repo_id: str
    name: str
    state: JobState
    is_required: bool
    labels: tuple[str, ...]
    priority: int
    retries: int
    timeout_ms: int
    created_at_ms: int
    revision: int
    attempts: tuple[Attempt, ...] = ()
    cancel: CancelIntent | None = None
    ended_at_ms: int | None = None
    end_reason: EndReason | None = None
    end_detail: str = ""
    concurrency: str = ""

    def __post_init__(self) -> None:
        if self.state.is_final != (self.end_reason is not None):
            raise ValueError(f"job {self.id} is {self.state} with end reason {self.end_reason}")


# ---- commands ----------------------------------------------------------------------------------------------------


class _Command(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    pass


class _FromHolder(_Command, frozen=True, kw_only=True):
    """Fenced twice: by the token, and by the runner that it was granted to (a stolen token alone is worth nothing)."""

    attempt: int
    lease_hash: str
    runner_id: str


class Release(_Command, frozen=True, kw_only=True):
    """All its needs are satisfied."""


class Skip(_Command, frozen=True, kw_only=True):
    """It will never run."""

    reason: EndReason
    detail: str = ""


class GrantLease(_Command, frozen=True, kw_only=True):
    """Give the queued attempt to a runner."""

    lease_hash: str
    runner_id: str
    ack_within_ms: int
    ttl_ms: int


class AckLease(_FromHolder, frozen=True, kw_only=True):
    """The runner has the lease and starts."""


class Heartbeat(_FromHolder, frozen=True, kw_only=True):
    """The holder lives; `phase` is the attempt state it observes."""

    phase: AttemptState


class Complete(_FromHolder, frozen=True, kw_only=True):
    """The runner's report. `reason` is what it observed; the states are derived here."""

    reason: EndReason
    exit_code: int | None
    text: str
    result_digest: str


class CancelAck(_FromHolder, frozen=True, kw_only=True):
    """The holder obeyed the cancel."""


class RequestCancel(_Command, frozen=True, kw_only=True):
    """Stop, whatever it takes: by the holder if there is one, else at once."""

    reason: EndReason
    within_ms: int
    detail: str = ""


class Tick(_Command, frozen=True, kw_only=True):
    """A deadline may have passed. `heard_at_ms`: the last accepted heartbeat, or when this state was restored.

    It is later by the time for which nobody has listened since.
    `began_at_ms`: when this life of the server began.
    """

    heard_at_ms: int
    cancel_within_ms: int
    began_at_ms: int = 0


class Revoke(_Command, frozen=True, kw_only=True):
    """The job came back with a backup: what its holder was answered since is not known any more."""


JobCommand: TypeAlias = (
    Release | Skip | GrantLease | AckLease | Heartbeat | Complete | CancelAck | RequestCancel | Tick | Revoke
)

LEGAL_IN: Final[Mapping[type[JobCommand], frozenset[JobState]]] = {
    Release: frozenset({JobState.BLOCKED}),
    Skip: frozenset({JobState.BLOCKED}),
    GrantLease: frozenset({JobState.QUEUED}),
    AckLease: ANY,  # whoever holds no lease, or an old one, is told so in every state
    Heartbeat: ANY,
    Complete: ANY,  # a repeat of the accepted report is answered in every state
    CancelAck: ANY,
    RequestCancel: ANY,  # after the end it is accepted and changes nothing
    Tick: ANY,
    Revoke: STARTED,
}


def created(event: JobCreated) -> Job:
    """The job as its first event makes it."""
    first = Attempt(number=1, state=AttemptState.QUEUED, queued_at_ms=event.at_ms)
    return Job(
        id=event.job_id,
        run_id=event.run_id,
        repo_id=event.repo_id,
        name=event.name,
        state=event.state,
        is_required=event.is_required,
        labels=event.labels,
        priority=event.priority,
        retries=event.retries,
        timeout_ms=event.timeout_ms,
        created_at_ms=event.at_ms,
        revision=1,
        attempts=(first,) if event.state is JobState.QUEUED else (),
        ended_at_ms=event.at_ms if event.state is JobState.SKIPPED else None,
        end_reason=event.end_reason,
        concurrency=event.concurrency,
    )


def step(job: Job, command: JobCommand, *, now_ms: int) -> Step[Job] | Refusal:
    """Decide what `command` does to `job`; change nothing.

    Args:
        now_ms: wall clock, milliseconds since the Unix epoch, UTC.
    Returns:
        The next job with the events and effects it owes, or a refusal that leaves `job` as it is.
    """
    if job.state not in LEGAL_IN[type(command)]:
        return _refused(job, command, Why.ILLEGAL_MOVE)
    match command:
        case Release():
            return _stepped(job, (JobReleased(at_ms=now_ms),))
        case Skip():
            return _stepped(job, (JobSkipped(at_ms=now_ms, reason=command.reason, detail=command.detail),))
        case GrantLease():
            return _grant(job, command, now_ms)
        case AckLease() | Heartbeat() | Complete() | CancelAck():
            return _from_holder(job, command, now_ms)
        case RequestCancel():
            return _request_cancel(job, command, now_ms)
        case Tick():
            return _tick(job, command, now_ms)
        case Revoke():
            return _revoke(job, now_ms)
        case _:
            assert_never(command)


def deadline_ms(job: Job) -> int | None:
    """When the job must be looked at again if nobody speaks: its one timer. None when it waits for others only."""
    if job.cancel is not None and job.state is JobState.CANCEL_REQUESTED:
        return job.cancel.by_ms
    current = current_attempt(job)
    if current is None or current.lease is None or current.state not in HELD:
        return None
    expires_at_ms, backstop_ms = current.lease.expires_at_ms, _backstop_ms(job, current)
    if backstop_ms is None or backstop_ms < expires_at_ms - current.lease.ttl_ms:
        # Passed before the lease was last renewed, it was let pass (see `_tick`), and would fire for ever. Where it was
        # not, it is looked at again when the lease runs out.
        return expires_at_ms
    return min(expires_at_ms, backstop_ms)


def current_attempt(job: Job) -> Attempt | None:
    """The attempt that is queued or held, or the last one; None before the first."""
    return job.attempts[-1] if job.attempts else None


def expires_at_ms(job: Job, *, heard_at_ms: int) -> int | None:
    """When the current lease ends if its holder, last heard at `heard_at_ms`, stays silent; None without a lease."""
    current = current_attempt(job)
    if current is None or current.lease is None or current.state not in HELD:
        return None
    if current.state is AttemptState.LEASED:
        # The window starts anew with a restart: the acknowledgement may have knocked while nobody was at home.
        return max(current.lease.expires_at_ms, heard_at_ms + current.lease.ack_within_ms)
    return max(current.lease.expires_at_ms, heard_at_ms + current.lease.ttl_ms)


# ---- deciding ----------------------------------------------------------------------------------------------------


def _refused(job: Job, command: JobCommand, why: Why, hint: str = "") -> Refusal:
    return Refusal(why, entity_id=job.id, at=job.state, command=type(command).__name__, hint=hint)


def _stepped(job: Job, events: tuple[JobEvent, ...], effects: tuple[Effect, ...] = ()) -> Step[Job]:
    after = job
    for event in events:
        after = evolve(after, event)
    is_held = bool(after.attempts) and after.attempts[-1].state in HELD
    assert (after.state in STARTED) == is_held, f"job {after.id} is {after.state} with attempts {after.attempts}"
    if after.state is not job.state:
        effects = (*effects, ReportRun(job.run_id))
    return Step(after, events, effects)


def _grant(job: Job, command: GrantLease, now_ms: int) -> Step[Job] | Refusal:
    queued = job.attempts[-1]
    if queued.not_before_ms > now_ms:
        return _refused(job, command, Why.TOO_EARLY, f"its retry backoff ends at {queued.not_before_ms}")
    leased = AttemptLeased(
        at_ms=now_ms,
        attempt=queued.number,
        lease_hash=command.lease_hash,
        runner_id=command.runner_id,
        ack_by_ms=now_ms + command.ack_within_ms,
        ttl_ms=command.ttl_ms,
    )
    return _stepped(job, (leased,))


def _from_holder(job: Job, command: AckLease | Heartbeat | Complete | CancelAck, now_ms: int) -> Step[Job] | Refusal:
    said = _attempt(job, command.attempt)
    if said is None or said.lease is None or not _is_holder(said.lease, command):
        return _refused(job, command, Why.STALE_LEASE, "stop: this lease is not the current one")
    if said.state.is_final:
        return _after_the_end(job, said, command)
    match command:
        case AckLease():
            return _acknowledge(job, said, now_ms)
        case Heartbeat():
            return _heartbeat(job, said, command, now_ms)
        case Complete():
            return _complete(job, said, command, now_ms)
        case CancelAck():
            if job.state is not JobState.CANCEL_REQUESTED:
                return _refused(job, command, Why.ILLEGAL_MOVE, "no cancel was requested")
            return _canceled(job, said, now_ms, LeaseState.CANCELED)
        case _:
            assert_never(command)


def _is_holder(lease: Lease, command: AckLease | Heartbeat | Complete | CancelAck) -> bool:
    return lease.token_hash == command.lease_hash and lease.runner_id == command.runner_id


def _after_the_end(
    job: Job, said: Attempt, command: AckLease | Heartbeat | Complete | CancelAck
) -> Step[Job] | Refusal:
    """The attempt is final: only the repeat of what was accepted gets its answer again."""
    match command:
        case Complete() if said.result_digest and said.result_digest == command.result_digest:
            return Step(job)
        case Complete() if said.result_digest:
            return _refused(job, command, Why.CONFLICTING_RESULT, "another result of this attempt was accepted")
        case CancelAck() if said.lease is not None and said.lease.state is LeaseState.CANCELED:
            return Step(job)
        case _:
            return _refused(job, command, Why.STALE_LEASE, f"stop: attempt {said.number} is {said.state}")


def _acknowledge(job: Job, said: Attempt, now_ms: int) -> Step[Job] | Refusal:
    if said.lease is None or said.state is not AttemptState.LEASED:
        return Step(job)
    return _stepped(
        job, (LeaseAcknowledged(at_ms=now_ms, attempt=said.number, expires_at_ms=now_ms + said.lease.ttl_ms),)
    )


def _heartbeat(job: Job, said: Attempt, command: Heartbeat, now_ms: int) -> Step[Job] | Refusal:
    lease = said.lease
    if lease is None or said.state is AttemptState.LEASED:
        return _refused(job, command, Why.ILLEGAL_MOVE, "acknowledge the lease first")
    events: tuple[JobEvent, ...] = ()
    if command.phase is AttemptState.RUNNING and said.state is AttemptState.STARTING:
        events = (AttemptMoved(at_ms=now_ms, attempt=said.number, state=AttemptState.RUNNING),)
    elif command.phase is AttemptState.UPLOADING and said.state is not AttemptState.UPLOADING:
        events = (AttemptMoved(at_ms=now_ms, attempt=said.number, state=AttemptState.UPLOADING),)
    # The stored deadline moves only when half of the TTL is used up: a heartbeat costs no write.
    if lease.expires_at_ms - now_ms < lease.ttl_ms // 2:
        events = (*events, LeaseRenewed(at_ms=now_ms, attempt=said.number, expires_at_ms=now_ms + lease.ttl_ms))
    return _stepped(job, events) if events else Step(job)


def _complete(job: Job, said: Attempt, command: Complete, now_ms: int) -> Step[Job] | Refusal:
    if said.state is AttemptState.LEASED:
        return _refused(job, command, Why.ILLEGAL_MOVE, "acknowledge the lease first")
    if job.state is JobState.CANCEL_REQUESTED:
        return _canceled(job, said, now_ms, LeaseState.COMPLETED, command)
    match command.reason:
        case EndReason.SUCCEEDED if command.exit_code == 0:
            state, reason = AttemptState.SUCCEEDED, EndReason.SUCCEEDED
        case EndReason.JOB_TIMEOUT:
            state, reason = AttemptState.TIMED_OUT, EndReason.JOB_TIMEOUT
        case EndReason.SUCCEEDED | EndReason.STEP_FAILED:
            state, reason = AttemptState.FAILED, EndReason.STEP_FAILED
        case EndReason.CHECKOUT_FAILED | EndReason.RUNNER_ERROR | EndReason.RUNNER_STOPPED:
            state, reason = AttemptState.FAILED, command.reason
        case _:  # not for a runner to say: taken at its word, it could end a job as superseded or choose its budget
            state, reason = AttemptState.FAILED, EndReason.RUNNER_ERROR
    ended = AttemptEnded(
        at_ms=now_ms,
        attempt=said.number,
        state=state,
        reason=reason,
        lease_state=LeaseState.COMPLETED,
        exit_code=command.exit_code,
        text=command.text,
        result_digest=command.result_digest,
    )
    return _after_attempt(job, ended, now_ms)


def _after_attempt(job: Job, ended: AttemptEnded, now_ms: int) -> Step[Job]:
    """An attempt is over: the job ends with it, or the next one is queued."""
    effects: tuple[Effect, ...] = ()
    if ended.state is not AttemptState.SUCCEEDED:
        effects = (AnalyzeAttempt(job.id, ended.attempt),)
        decision = retry.decide(job.id, job.attempts, ended.reason, retries=job.retries, now_ms=now_ms)
        if isinstance(decision, retry.RetryAt):
            queued = AttemptQueued(at_ms=now_ms, attempt=ended.attempt + 1, not_before_ms=decision.not_before_ms)
            return _stepped(job, (ended, queued), effects)
    match ended.state:
        case AttemptState.SUCCEEDED:
            state = JobState.SUCCEEDED
        case AttemptState.TIMED_OUT:
            state = JobState.TIMED_OUT
        case _:
            state = JobState.FAILED
    return _stepped(job, (ended, JobEnded(at_ms=now_ms, state=state, reason=ended.reason)), effects)


def _request_cancel(job: Job, command: RequestCancel, now_ms: int) -> Step[Job] | Refusal:
    if job.state.is_final or job.state is JobState.CANCEL_REQUESTED:
        return Step(job)
    if job.state is JobState.RUNNING:
        requested = JobCancelRequested(
            at_ms=now_ms, reason=command.reason, by_ms=now_ms + command.within_ms, detail=command.detail
        )
        return _stepped(job, (requested,))
    events: tuple[JobEvent, ...] = (
        JobEnded(at_ms=now_ms, state=JobState.CANCELED, reason=command.reason, detail=command.detail),
    )
    if job.state is JobState.QUEUED:
        queued = job.attempts[-1]
        ended = AttemptEnded(at_ms=now_ms, attempt=queued.number, state=AttemptState.CANCELED, reason=command.reason)
        events = (ended, *events)
    return _stepped(job, events)


def _canceled(
    job: Job, said: Attempt, now_ms: int, lease_state: LeaseState, report: Complete | None = None
) -> Step[Job]:
    """The cancel was obeyed, crossed by a result, or ran out of time: one end for all three."""
    reason = job.cancel.reason if job.cancel else EndReason.USER_CANCELED
    has_timed_out = reason in TIMEOUTS
    ended = AttemptEnded(
        at_ms=now_ms,
        attempt=said.number,
        state=AttemptState.TIMED_OUT if has_timed_out else AttemptState.CANCELED,
        reason=reason,
        lease_state=lease_state,
        exit_code=report.exit_code if report else None,
        text=report.text if report else "",
        result_digest=report.result_digest if report else "",
    )
    end = JobEnded(at_ms=now_ms, state=JobState.TIMED_OUT if has_timed_out else JobState.CANCELED, reason=reason)
    return _stepped(job, (ended, end), (AnalyzeAttempt(job.id, said.number),) if has_timed_out else ())


def _tick(job: Job, command: Tick, now_ms: int) -> Step[Job] | Refusal:
    said = current_attempt(job)
    if said is None or said.lease is None or said.state not in HELD:
        return Step(job)
    if job.cancel is not None and job.state is JobState.CANCEL_REQUESTED:
        if now_ms < job.cancel.by_ms:
            return Step(job)
        return _canceled(job, said, now_ms, LeaseState.REVOKED)
    expires = expires_at_ms(job, heard_at_ms=command.heard_at_ms)
    if expires is not None and now_ms >= expires:
        never = said.state is AttemptState.LEASED
        lost = AttemptEnded(
            at_ms=now_ms,
            attempt=said.number,
            state=AttemptState.LOST,
            reason=EndReason.NEVER_ACKNOWLEDGED if never else EndReason.RUNNER_LOST,
            lease_state=LeaseState.REVOKED if never else LeaseState.EXPIRED,
        )
        return _after_attempt(job, lost, now_ms)
    backstop_ms = _backstop_ms(job, said)
    # One that passed between two lives of the server is let pass: the time may be nothing but a jump of the clock, and
    # a holder that is heard again has kept the job's time itself and may have its result ready. One that is not heard
    # loses its lease.
    if backstop_ms is not None and command.began_at_ms <= backstop_ms <= now_ms:
        by_ms = now_ms + command.cancel_within_ms
        return _stepped(job, (JobCancelRequested(at_ms=now_ms, reason=EndReason.JOB_TIMEOUT, by_ms=by_ms),))
    is_let_pass = backstop_ms is not None and backstop_ms <= now_ms
    has_fired = said.lease.expires_at_ms <= now_ms or is_let_pass
    if expires is not None and expires > said.lease.expires_at_ms and has_fired:
        # Heard in time, or restored since, but the stored deadline has passed: store the later one, or this timer
        # fires for ever.
        return _stepped(job, (LeaseRenewed(at_ms=now_ms, attempt=said.number, expires_at_ms=expires),))
    return Step(job)


def _revoke(job: Job, now_ms: int) -> Step[Job]:
    """The holder may have been told "stored" of a log's end or an artifact that is gone: its result would be a hollow
    success. So the attempt counts for nothing, against no budget, and the next one begins at once."""
    said = job.attempts[-1]
    if job.state is JobState.CANCEL_REQUESTED:
        return _canceled(job, said, now_ms, LeaseState.REVOKED)
    lost = AttemptEnded(
        at_ms=now_ms,
        attempt=said.number,
        state=AttemptState.LOST,
        reason=EndReason.RESTORED,
        lease_state=LeaseState.REVOKED,
    )
    return _after_attempt(job, lost, now_ms)


def _backstop_ms(job: Job, held: Attempt) -> int | None:
    """When the server ends an attempt whose runner should have done so; None before it started."""
    return None if held.started_at_ms is None else held.started_at_ms + job.timeout_ms + TIMEOUT_MARGIN_MS


def _attempt(job: Job, number: int) -> Attempt | None:
    return job.attempts[number - 1] if 1 <= number <= len(job.attempts) else None


# ---- folding -----------------------------------------------------------------------------------------------------


def evolve(job: Job, event: JobEvent) -> Job:
    """The job after `event`; raises `IllegalMove` when a table does not have that move."""
    replace = msgspec.structs.replace
    revision = job.revision + 1
    match event:
        case JobCreated():
            return created(event)
        case JobReleased():
            first = Attempt(number=1, state=AttemptState.QUEUED, queued_at_ms=event.at_ms)
            return replace(job, state=moved(MOVES, job.state, "release"), attempts=(first,), revision=revision)
        case JobSkipped():
            return replace(
                job,
                state=moved(MOVES, job.state, "skip"),
                end_reason=event.reason,
                end_detail=event.detail,
                ended_at_ms=event.at_ms,
                revision=revision,
            )
        case JobCancelRequested():
            return replace(
                job,
                state=moved(MOVES, job.state, "request_cancel"),
                cancel=CancelIntent(event.reason, event.by_ms),
                end_detail=event.detail,
                revision=revision,
            )
        case JobEnded():
            # A job that ends was seen through its attempt's end first: RUNNING still stands in `state` here.
            return replace(
                job,
                state=moved(MOVES, job.state, END_MOVES[event.state]),
                end_reason=event.reason,
                end_detail=event.detail or job.end_detail,
                ended_at_ms=event.at_ms,
                revision=revision,
            )
        case AttemptQueued():
            following = Attempt(
                number=event.attempt,
                state=AttemptState.QUEUED,
                queued_at_ms=event.at_ms,
                not_before_ms=event.not_before_ms,
            )
            return replace(
                job,
                state=moved(MOVES, job.state, "requeue"),
                attempts=(*job.attempts, following),
                revision=revision,
            )
        case AttemptLeased():
            changed = attempts.evolve(job.attempts[-1], event)
            state = moved(MOVES, job.state, "lease")
            return replace(job, state=state, attempts=(*job.attempts[:-1], changed), revision=revision)
        case LeaseAcknowledged() | LeaseRenewed() | AttemptMoved() | AttemptEnded():
            changed = attempts.evolve(job.attempts[-1], event)
            return replace(job, attempts=(*job.attempts[:-1], changed), revision=revision)
        case _:
            assert_never(event)
