"""The run machine: one evaluation of a trigger, from its creation to its result.

Rule 1: what a run does next is decided in this file and in no other.
Rule 2: a run never stores what its jobs did; it reads their states and moves when those demand it. A final job never
        changes again, so a decision made from final states can never be wrong later.
Rule 3: a run ends when all its jobs have, and its result is recomputable from theirs.
Rule 4: a run may be created held: then it is CREATED, owes no plan and has no job until somebody approves it, or its
        time to be approved is over. An approval is of one run, and so of one commit; its own time begins with it.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, assert_never

import msgspec

from deltaci.domain.effects import Effect, KeepRecipe, Notify, PlanRun, ReportRun
from deltaci.domain.events import (
    Hold,
    JobRef,
    PlanAdopted,
    PlanningStarted,
    RunApproved,
    RunCancelRequested,
    RunCreated,
    RunEnded,
    RunEvent,
    RunKey,
    RunRestored,
    RunStarted,
    Trigger,
)
from deltaci.domain.machine import Move, Refusal, Step, Why, moved
from deltaci.domain.states import EndReason, JobState, RunState

BEFORE_THE_END: Final = frozenset(state for state in RunState if not state.is_final)
ANY: Final = frozenset(RunState)

# Where a run can be that was never planned.
UNPLANNED: Final = frozenset({RunState.CREATED, RunState.CANCEL_REQUESTED, RunState.CANCELED})

# A job in one of these has been with a runner: its run is running.
STARTED: Final = frozenset(
    {JobState.RUNNING, JobState.CANCEL_REQUESTED, JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT}
)

MOVES: Final[Mapping[str, Move[RunState]]] = {
    "plan": Move(frozenset({RunState.CREATED}), RunState.PLANNING),
    "adopt_plan": Move(frozenset({RunState.PLANNING}), RunState.QUEUED),
    "start": Move(frozenset({RunState.QUEUED}), RunState.RUNNING),
    "request_cancel": Move(BEFORE_THE_END - {RunState.CANCEL_REQUESTED}, RunState.CANCEL_REQUESTED),
    "succeed": Move(frozenset({RunState.QUEUED, RunState.RUNNING}), RunState.SUCCEEDED),
    "fail": Move(frozenset({RunState.PLANNING, RunState.QUEUED, RunState.RUNNING}), RunState.FAILED),
    "time_out": Move(frozenset({RunState.QUEUED, RunState.RUNNING, RunState.CANCEL_REQUESTED}), RunState.TIMED_OUT),
    "cancel": Move(frozenset({RunState.QUEUED, RunState.RUNNING, RunState.CANCEL_REQUESTED}), RunState.CANCELED),
}

END_MOVES: Final[Mapping[RunState, str]] = {
    RunState.SUCCEEDED: "succeed",
    RunState.FAILED: "fail",
    RunState.TIMED_OUT: "time_out",
    RunState.CANCELED: "cancel",
}


class CancelIntent(msgspec.Struct, frozen=True):
    """Why the run is to stop, and by when its jobs are ended by force."""

    reason: EndReason
    by_ms: int
    detail: str = ""


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run as stored. `revision` is the number of its events; `jobs` is empty until a plan is adopted.

    `has_blueprint`: what its plan was made from is kept until its end has been told to the recipes. `is_notifying`: its
    plan says who is to be told of its end.
    `hold`: what it had to wait for before it was planned; `approved_by` and `approved_at_ms`: who ended that, and when.
    """

    id: str
    key: RunKey
    attempt: int
    trigger: Trigger
    state: RunState
    created_at_ms: int
    timeout_ms: int
    cancel_within_ms: int
    revision: int
    jobs: tuple[JobRef, ...] = ()
    plan_digest: str = ""
    has_blueprint: bool = False
    is_notifying: bool = False
    cancel: CancelIntent | None = None
    hold: Hold = ""
    hold_within_ms: int = 0
    approved_by: str = ""
    approved_at_ms: int | None = None
    started_at_ms: int | None = None
    restored_at_ms: int | None = None
    ended_at_ms: int | None = None
    end_reason: EndReason | None = None
    text: str = ""

    def __post_init__(self) -> None:
        if self.state.is_final != (self.end_reason is not None):
            raise ValueError(f"run {self.id} is {self.state} with end reason {self.end_reason}")
        if is_waiting_for_approval(self) and (self.state not in UNPLANNED or self.jobs):
            raise ValueError(f"run {self.id} is {self.state} though nobody has approved it")


def is_waiting_for_approval(run: Run) -> bool:
    """Whether the run may not be planned, and never was: nobody has let its commit run."""
    return run.hold != "" and run.approved_at_ms is None


def is_held(run: Run) -> bool:
    """Whether the run waits for somebody to approve it: it has not been canceled either."""
    return run.state is RunState.CREATED and is_waiting_for_approval(run)


class JobSeen(msgspec.Struct, frozen=True):
    """What a run knows of one of its jobs: the committed state and, at the end, the reason."""

    state: JobState
    end_reason: EndReason | None = None


JobsSeen: TypeAlias = Mapping[str, JobSeen]

# ---- commands ----------------------------------------------------------------------------------------------------


class _Command(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Approve(_Command, frozen=True, kw_only=True):
    """Somebody who may lets a held run go on; without effect on any other."""

    by: str


class StartPlanning(_Command, frozen=True, kw_only=True):
    """The planner has been asked; refused with `not_approved` as long as the run is held."""


class AdoptPlan(_Command, frozen=True, kw_only=True):
    """The planner answered with these jobs; `has_blueprint`: what they were made from is stored as well.

    `is_notifying`: the plan says who is to be told of the run's end.
    """

    plan_digest: str
    jobs: tuple[JobRef, ...]
    has_blueprint: bool = False
    is_notifying: bool = False


class FailPlan(_Command, frozen=True, kw_only=True):
    """No plan can be made; `text` explains it to the author of the change."""

    text: str


class Advance(_Command, frozen=True, kw_only=True):
    """The jobs moved: start or end the run if their states demand it. `jobs` covers every job of the run."""

    jobs: JobsSeen


class RequestCancel(_Command, frozen=True, kw_only=True):
    """Stop, whatever it takes."""

    reason: EndReason
    detail: str = ""


class Tick(_Command, frozen=True, kw_only=True):
    """A deadline may have passed."""


class Restore(_Command, frozen=True, kw_only=True):
    """It came back with a backup: the time between is nobody's fault, and its jobs are to run again."""


RunCommand: TypeAlias = Approve | StartPlanning | AdoptPlan | FailPlan | Advance | RequestCancel | Tick | Restore

LEGAL_IN: Final[Mapping[type[RunCommand], frozenset[RunState]]] = {
    Approve: ANY,  # what is not held, or not any more, needs no approval
    StartPlanning: frozenset({RunState.CREATED}),
    AdoptPlan: frozenset({RunState.PLANNING}),
    FailPlan: frozenset({RunState.PLANNING}),
    Advance: ANY,  # the jobs of a run that is over may still be reported
    RequestCancel: ANY,  # after the end it is accepted and changes nothing
    Tick: ANY,
    Restore: ANY,  # what is over, or was asked to stop, needs no time
}


def create(
    run_id: str,
    key: RunKey,
    trigger: Trigger,
    *,
    attempt: int,
    now_ms: int,
    timeout_ms: int,
    cancel_within_ms: int,
    hold: Hold = "",
    hold_within_ms: int = 0,
    approved_by: str = "",
) -> Step[Run]:
    """The first step of a run; owes a first report, and a plan unless it is held.

    Args:
        hold: what the run waits for before it is planned, for `hold_within_ms` at most.
        approved_by: who has let its commit run before; then it waits for nobody.
    """
    event = RunCreated(
        at_ms=now_ms,
        run_id=run_id,
        key=key,
        attempt=attempt,
        trigger=trigger,
        timeout_ms=timeout_ms,
        cancel_within_ms=cancel_within_ms,
        hold=hold,
        hold_within_ms=hold_within_ms,
        approved_by=approved_by,
    )
    run = created(event)
    plan = () if is_held(run) else (PlanRun(run_id),)
    return Step(run, (event,), (*plan, ReportRun(run_id)))


def created(event: RunCreated) -> Run:
    """The run as its first event makes it."""
    return Run(
        id=event.run_id,
        key=event.key,
        attempt=event.attempt,
        trigger=event.trigger,
        state=RunState.CREATED,
        created_at_ms=event.at_ms,
        timeout_ms=event.timeout_ms,
        cancel_within_ms=event.cancel_within_ms,
        hold=event.hold,
        hold_within_ms=event.hold_within_ms,
        approved_by=event.approved_by,
        approved_at_ms=event.at_ms if event.approved_by else None,
        revision=1,
    )


def step(run: Run, command: RunCommand, *, now_ms: int) -> Step[Run] | Refusal:
    """Decide what `command` does to `run`; change nothing.

    Args:
        now_ms: wall clock, milliseconds since the Unix epoch, UTC.
    Returns:
        The next run with the events and effects it owes, or a refusal that leaves `run` as it is.
    """
    if run.state not in LEGAL_IN[type(command)]:
        return Refusal(Why.ILLEGAL_MOVE, entity_id=run.id, at=run.state, command=type(command).__name__)
    match command:
        case Approve():
            return _approve(run, command.by, now_ms)
        case StartPlanning() if is_held(run):
            return Refusal(Why.NOT_APPROVED, run.id, run.state, "StartPlanning", hint=waiting_text(run))
        case StartPlanning():
            return _stepped(run, (PlanningStarted(at_ms=now_ms),))
        case AdoptPlan():
            return _adopt(run, command, now_ms)
        case FailPlan():
            ended = RunEnded(at_ms=now_ms, state=RunState.FAILED, reason=EndReason.PLAN_FAILED, text=command.text)
            return _stepped(run, (ended,))
        case Advance():
            return _advance(run, command.jobs, now_ms)
        case RequestCancel():
            return _request_cancel(run, command.reason, command.detail, now_ms)
        case Tick():
            return _tick(run, now_ms)
        case Restore():
            return Step(run) if deadline_ms(run) is None else _stepped(run, (RunRestored(at_ms=now_ms),))
        case _:
            assert_never(command)


def deadline_ms(run: Run) -> int | None:
    """When the run must be looked at again if nobody speaks: its one timer. None when it waits for its jobs only.

    After a cancel those have deadlines of their own; one here, which no tick could move, would fire for ever.
    """
    if run.state.is_final or run.state is RunState.CANCEL_REQUESTED:
        return None
    return counts_from_ms(run) + (run.hold_within_ms if is_held(run) else run.timeout_ms)


def counts_from_ms(run: Run) -> int:
    """Since when the time counts that the run has: it is not over while nobody let it run, nor while it was away."""
    return max(run.restored_at_ms or run.created_at_ms, run.approved_at_ms or 0)


def waiting_text(run: Run) -> str:
    """What a held run waits for, for people; empty for any other."""
    if not is_held(run):
        return ""
    return f"it waits for approval of commit {run.key.commit_sha} by somebody who may write"


# ---- what the jobs demand ----------------------------------------------------------------------------------------


def is_satisfied(job: JobRef, seen: JobSeen) -> bool:
    """Whether a job that needs `job` may start: it succeeded, was skipped for a good reason, or is allowed to fail."""
    if seen.state is JobState.SUCCEEDED:
        return True
    if seen.state is JobState.SKIPPED:
        return seen.end_reason is not EndReason.NEEDS_FAILED or not job.is_required
    return seen.state.is_final and seen.state is not JobState.CANCELED and not job.is_required


def unblocked(
    run: Run, jobs: JobsSeen, candidates: Sequence[JobRef] | None = None
) -> tuple[tuple[str, ...], dict[str, str]]:
    """The blocked jobs that may start now, and those that never will, each with the name of the need that failed.

    None of either once a cancel was requested: it ends them all, and nothing may be leased after it.
    `candidates` restricts the look to these jobs of the run; by default all are looked at.
    """
    if run.cancel is not None or not (candidates is None or candidates):
        return (), {}
    by_id = {job.id: job for job in run.jobs}
    release: list[str] = []
    skip: dict[str, str] = {}
    for job in run.jobs if candidates is None else candidates:
        if jobs[job.id].state is not JobState.BLOCKED:
            continue
        needs = [(by_id[need], jobs[need]) for need in job.needs]
        failed = [need.name for need, seen in needs if seen.state.is_final and not is_satisfied(need, seen)]
        if failed:
            skip[job.id] = failed[0]
        elif all(seen.state.is_final for _, seen in needs):
            release.append(job.id)
    return tuple(release), skip


def result(run: Run, jobs: JobsSeen) -> tuple[RunState, EndReason]:
    """How a run ends whose jobs are all final: by its required jobs alone, failure before time-out before cancel.

    A job skipped for its needs only follows them: it decides when nothing else did (its need was allowed to fail).
    """
    required = [jobs[job.id] for job in run.jobs if job.is_required]
    states = {seen.state for seen in required}
    if JobState.FAILED in states:
        return RunState.FAILED, EndReason.JOBS_FAILED
    if JobState.TIMED_OUT in states:
        return RunState.TIMED_OUT, EndReason.JOB_TIMEOUT
    if JobState.CANCELED in states:
        return RunState.CANCELED, EndReason.USER_CANCELED
    if any(seen.end_reason is EndReason.NEEDS_FAILED for seen in required):
        return RunState.FAILED, EndReason.JOBS_FAILED
    return RunState.SUCCEEDED, EndReason.SUCCEEDED if run.jobs else EndReason.NOTHING_TO_RUN


# ---- deciding ----------------------------------------------------------------------------------------------------


def _stepped(run: Run, events: tuple[RunEvent, ...], effects: tuple[Effect, ...] = ()) -> Step[Run]:
    after = run
    for event in events:
        after = evolve(after, event)
    if after.state is not run.state:
        effects = (*effects, ReportRun(run.id))
        if after.state.is_final and after.has_blueprint:
            effects = (*effects, KeepRecipe(run.id))
        if after.state.is_final and after.is_notifying:
            effects = (*effects, Notify(run.id))
    return Step(after, events, effects)


def _approve(run: Run, by: str, now_ms: int) -> Step[Run]:
    if not is_held(run):
        return Step(run)
    # Its state is the same, and yet what a forge shows of it is not.
    return _stepped(run, (RunApproved(at_ms=now_ms, by=by),), (PlanRun(run.id), ReportRun(run.id)))


def _adopt(run: Run, command: AdoptPlan, now_ms: int) -> Step[Run]:
    adopted = PlanAdopted(
        at_ms=now_ms,
        plan_digest=command.plan_digest,
        jobs=command.jobs,
        has_blueprint=command.has_blueprint,
        is_notifying=command.is_notifying,
    )
    if command.jobs:
        return _stepped(run, (adopted,))
    ended = RunEnded(
        at_ms=now_ms, state=RunState.SUCCEEDED, reason=EndReason.NOTHING_TO_RUN, text="the plan has no job"
    )
    return _stepped(run, (adopted, ended))


def _advance(run: Run, jobs: JobsSeen, now_ms: int) -> Step[Run]:
    if run.state.is_final or not run.jobs:
        return Step(run)
    if all(jobs[job.id].state.is_final for job in run.jobs):
        if run.cancel is not None:
            state = RunState.TIMED_OUT if run.cancel.reason is EndReason.RUN_TIMEOUT else RunState.CANCELED
            ended = RunEnded(at_ms=now_ms, state=state, reason=run.cancel.reason, text=run.cancel.detail)
        else:
            state, reason = result(run, jobs)
            ended = RunEnded(at_ms=now_ms, state=state, reason=reason)
        return _stepped(run, (ended,))
    has_started = any(seen.state in STARTED for seen in jobs.values())
    if run.state is RunState.QUEUED and has_started:
        return _stepped(run, (RunStarted(at_ms=now_ms),))
    return Step(run)


def _request_cancel(run: Run, reason: EndReason, detail: str, now_ms: int) -> Step[Run]:
    if run.state.is_final or run.state is RunState.CANCEL_REQUESTED:
        return Step(run)
    requested = RunCancelRequested(at_ms=now_ms, reason=reason, by_ms=now_ms + run.cancel_within_ms, detail=detail)
    if run.jobs:
        return _stepped(run, (requested,))
    # Nothing was started yet, so nobody has to be waited for; a plan that arrives later is refused.
    state = RunState.TIMED_OUT if reason is EndReason.RUN_TIMEOUT else RunState.CANCELED
    return _stepped(run, (requested, RunEnded(at_ms=now_ms, state=state, reason=reason, text=detail)))


def _tick(run: Run, now_ms: int) -> Step[Run]:
    due_at_ms = deadline_ms(run)
    if due_at_ms is not None and now_ms >= due_at_ms:
        if is_held(run):
            text = f"nobody approved commit {run.key.commit_sha} within {run.hold_within_ms // 1000} s"
            return _request_cancel(run, EndReason.NEVER_APPROVED, text, now_ms)
        return _request_cancel(run, EndReason.RUN_TIMEOUT, f"not over after {run.timeout_ms // 1000} s", now_ms)
    return Step(run)


# ---- folding -----------------------------------------------------------------------------------------------------


def evolve(run: Run, event: RunEvent) -> Run:
    """The run after `event`; raises `IllegalMove` when the table does not have that move."""
    replace = msgspec.structs.replace
    revision = run.revision + 1
    match event:
        case RunCreated():
            return created(event)
        case RunApproved():
            return replace(run, approved_by=event.by, approved_at_ms=event.at_ms, revision=revision)
        case PlanningStarted():
            return replace(run, state=moved(MOVES, run.state, "plan"), revision=revision)
        case PlanAdopted():
            state = moved(MOVES, run.state, "adopt_plan")
            return replace(
                run,
                state=state,
                plan_digest=event.plan_digest,
                jobs=event.jobs,
                has_blueprint=event.has_blueprint,
                is_notifying=event.is_notifying,
                revision=revision,
            )
        case RunStarted():
            return replace(run, state=moved(MOVES, run.state, "start"), started_at_ms=event.at_ms, revision=revision)
        case RunRestored():
            return replace(run, restored_at_ms=event.at_ms, revision=revision)
        case RunCancelRequested():
            return replace(
                run,
                state=moved(MOVES, run.state, "request_cancel"),
                cancel=CancelIntent(event.reason, event.by_ms, event.detail),
                revision=revision,
            )
        case RunEnded():
            return replace(
                run,
                state=moved(MOVES, run.state, END_MOVES[event.state]),
                ended_at_ms=event.at_ms,
                end_reason=event.reason,
                text=event.text,
                revision=revision,
            )
        case _:
            assert_never(event)
