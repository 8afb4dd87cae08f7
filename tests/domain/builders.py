"""Runs and jobs in any state, brought there by the machines' own commands, so that only reachable ones are tested."""

from typing import TypeVar

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.attempt import Attempt
from deltaci.domain.events import JobCreated, JobEvent, JobRef, RunEvent, RunKey, Trigger
from deltaci.domain.job import Job
from deltaci.domain.machine import Refusal, Step, Why
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import AttemptState, EndReason, JobState, RunState

S = TypeVar("S")

TTL_MS = 120_000
ACK_WITHIN_MS = 30_000
CANCEL_WITHIN_MS = 30_000
JOB_TIMEOUT_MS = 3_600_000
RUN_TIMEOUT_MS = 6 * 3_600_000
HOUR_MS = 3_600_000

# ---- answers -----------------------------------------------------------------------------------------------------


def accepted(answer: Step[S] | Refusal) -> S:
    """The state after a step that must not be a refusal."""
    assert isinstance(answer, Step), answer.text
    return answer.state


def why(answer: Step[S] | Refusal) -> Why:
    """Why a command was refused that must be."""
    assert isinstance(answer, Refusal), answer
    return answer.why


def event_types(answer: Step[S] | Refusal) -> list[str]:
    """The names of the events of a step, in order."""
    assert isinstance(answer, Step), answer.text
    return [type(event).__name__ for event in answer.events]


def folded_job(job: Job, events: tuple[RunEvent | JobEvent, ...]) -> Job:
    """`job` after `events`, folded by hand."""
    for event in events:
        job = jobs.evolve(job, event)  # type: ignore[arg-type]  # steps carry events of either machine
    return job


def folded_run(run: Run, events: tuple[RunEvent | JobEvent, ...]) -> Run:
    """`run` after `events`, folded by hand."""
    for event in events:
        run = runs.evolve(run, event)  # type: ignore[arg-type]  # steps carry events of either machine
    return run


# ---- jobs --------------------------------------------------------------------------------------------------------


def a_job_created(
    state: JobState = JobState.QUEUED, *, retries: int = 0, timeout_ms: int = JOB_TIMEOUT_MS, at_ms: int = 0
) -> JobCreated:
    """The first event of a job."""
    return JobCreated(
        at_ms=at_ms,
        job_id="job_1_0",
        run_id="run_1",
        repo_id="repo_1",
        name="test",
        is_required=True,
        labels=(),
        priority=0,
        retries=retries,
        timeout_ms=timeout_ms,
        state=state,
        end_reason=EndReason.NOT_AFFECTED if state is JobState.SKIPPED else None,
    )


def a_queued_job(*, retries: int = 0, timeout_ms: int = JOB_TIMEOUT_MS) -> Job:
    """A job whose first attempt waits for a runner since instant 0."""
    return jobs.created(a_job_created(retries=retries, timeout_ms=timeout_ms))


def granted(job: Job, *, now_ms: int = 0, lease: str = "", runner: str = "runner_1") -> Job:
    """The queued `job` leased to `runner`; the lease is named after the attempt unless told."""
    command = jobs.GrantLease(
        lease_hash=lease or f"lease_{len(job.attempts)}",
        runner_id=runner,
        ack_within_ms=ACK_WITHIN_MS,
        ttl_ms=TTL_MS,
    )
    return accepted(jobs.step(job, command, now_ms=now_ms))


def an_ack(job: Job) -> jobs.AckLease:
    """The current holder acknowledges."""
    current = last(job)
    assert current.lease is not None
    return jobs.AckLease(attempt=current.number, lease_hash=current.lease.token_hash, runner_id=current.lease.runner_id)


def a_heartbeat(job: Job, phase: AttemptState = AttemptState.RUNNING) -> jobs.Heartbeat:
    """The current holder lives."""
    ack = an_ack(job)
    return jobs.Heartbeat(attempt=ack.attempt, lease_hash=ack.lease_hash, runner_id=ack.runner_id, phase=phase)


def a_completion(
    job: Job,
    reason: EndReason = EndReason.SUCCEEDED,
    *,
    exit_code: int | None = 0,
    digest: str = "digest_1",
) -> jobs.Complete:
    """The current holder's report."""
    ack = an_ack(job)
    return jobs.Complete(
        attempt=ack.attempt,
        lease_hash=ack.lease_hash,
        runner_id=ack.runner_id,
        reason=reason,
        exit_code=exit_code,
        text="",
        result_digest=digest,
    )


def a_failure(job: Job, *, digest: str = "digest_1") -> jobs.Complete:
    """The current holder reports that a step failed."""
    return a_completion(job, EndReason.STEP_FAILED, exit_code=1, digest=digest)


def a_cancel_ack(job: Job) -> jobs.CancelAck:
    """The current holder obeyed."""
    ack = an_ack(job)
    return jobs.CancelAck(attempt=ack.attempt, lease_hash=ack.lease_hash, runner_id=ack.runner_id)


def a_cancel(reason: EndReason = EndReason.USER_CANCELED, detail: str = "") -> jobs.RequestCancel:
    """Somebody wants the job to stop."""
    return jobs.RequestCancel(reason=reason, within_ms=CANCEL_WITHIN_MS, detail=detail)


def a_tick(*, heard_at_ms: int = 0, began_at_ms: int = 0) -> jobs.Tick:
    """The timer looks at the job; the holder was last heard at `heard_at_ms`."""
    return jobs.Tick(heard_at_ms=heard_at_ms, cancel_within_ms=CANCEL_WITHIN_MS, began_at_ms=began_at_ms)


def held(
    phase: AttemptState = AttemptState.RUNNING,
    *,
    retries: int = 0,
    timeout_ms: int = JOB_TIMEOUT_MS,
    now_ms: int = 0,
) -> Job:
    """A RUNNING job whose first attempt is held in `phase` since `now_ms`."""
    job = granted(a_queued_job(retries=retries, timeout_ms=timeout_ms), now_ms=now_ms)
    if phase is AttemptState.LEASED:
        return job
    job = accepted(jobs.step(job, an_ack(job), now_ms=now_ms))
    if phase is AttemptState.STARTING:
        return job
    return accepted(jobs.step(job, a_heartbeat(job, phase), now_ms=now_ms))


def a_job(state: JobState, phase: AttemptState = AttemptState.RUNNING) -> Job:
    """A job in `state`; `phase` is its attempt's where it is held."""
    match state:
        case JobState.BLOCKED | JobState.QUEUED | JobState.SKIPPED:
            return jobs.created(a_job_created(state))
        case JobState.RUNNING:
            return held(phase)
        case JobState.CANCEL_REQUESTED:
            return accepted(jobs.step(held(phase), a_cancel(), now_ms=0))
        case JobState.SUCCEEDED:
            return accepted(jobs.step(held(phase), a_completion(held(phase)), now_ms=0))
        case JobState.FAILED:
            return accepted(jobs.step(held(phase), a_failure(held(phase)), now_ms=0))
        case JobState.TIMED_OUT:
            report = a_completion(held(phase), EndReason.JOB_TIMEOUT, exit_code=None)
            return accepted(jobs.step(held(phase), report, now_ms=0))
        case JobState.CANCELED:
            job = a_job(JobState.CANCEL_REQUESTED, phase)
            return accepted(jobs.step(job, a_cancel_ack(job), now_ms=0))


def last(job: Job) -> Attempt:
    """The job's newest attempt."""
    return job.attempts[-1]


# ---- runs --------------------------------------------------------------------------------------------------------

A_TRIGGER = Trigger(kind="push", ref="refs/heads/main", commit_sha="c0ffee", stream="branch:main")
A_KEY = RunKey("repo_1", "c0ffee", "push")


def ref(name: str, *needs: str, is_required: bool = True) -> JobRef:
    """A job of a run, with its name as id."""
    return JobRef(id=name, name=name, is_required=is_required, needs=needs)


def a_run(state: RunState = RunState.QUEUED, *job_refs: JobRef) -> Run:
    """A run in `state`, created at instant 0; of one job unless told."""
    refs = job_refs or (ref("test"),)
    run = runs.create(
        "run_1", A_KEY, A_TRIGGER, attempt=1, now_ms=0, timeout_ms=RUN_TIMEOUT_MS, cancel_within_ms=CANCEL_WITHIN_MS
    ).state
    if state is RunState.CREATED:
        return run
    run = accepted(runs.step(run, runs.StartPlanning(), now_ms=0))
    if state is RunState.PLANNING:
        return run
    run = accepted(runs.step(run, runs.AdoptPlan(plan_digest="plan_1", jobs=refs), now_ms=0))
    if state is RunState.QUEUED:
        return run
    run = accepted(runs.step(run, runs.Advance(jobs=all_seen(run, JobState.RUNNING)), now_ms=0))
    if state is RunState.RUNNING:
        return run
    if state in (RunState.CANCEL_REQUESTED, RunState.CANCELED):
        run = accepted(runs.step(run, runs.RequestCancel(reason=EndReason.USER_CANCELED), now_ms=0))
        if state is RunState.CANCEL_REQUESTED:
            return run
    return accepted(runs.step(run, runs.Advance(jobs=all_seen(run, JobState(state.value))), now_ms=0))


HOLD_WITHIN_MS = 7 * 24 * HOUR_MS
A_FORK_TRIGGER = Trigger(
    kind="pull_request",
    ref="refs/pull/7/head",
    commit_sha="c" * 40,
    base_sha="b" * 40,
    pr_number=7,
    stream="pr:7",
    is_fork=True,
    author="mallory",
)
A_FORK_KEY = RunKey("repo_1", "c" * 40, "pull_request", 7)


def a_held_run(*, approved_by: str = "", now_ms: int = 0) -> Run:
    """A run of a fork's commit, created at `now_ms`, that waits for approval, unless it was approved before."""
    return runs.create(
        "run_1",
        A_FORK_KEY,
        A_FORK_TRIGGER,
        attempt=1,
        now_ms=now_ms,
        timeout_ms=RUN_TIMEOUT_MS,
        cancel_within_ms=CANCEL_WITHIN_MS,
        hold="approval",
        hold_within_ms=HOLD_WITHIN_MS,
        approved_by=approved_by,
    ).state


def all_seen(run: Run, state: JobState) -> dict[str, JobSeen]:
    """Every job of `run` in `state`."""
    return {job.id: seen(state) for job in run.jobs}


def seen(state: JobState, end_reason: EndReason | None = None) -> JobSeen:
    """What a run knows of a job in `state`."""
    usual = {
        JobState.SUCCEEDED: EndReason.SUCCEEDED,
        JobState.FAILED: EndReason.STEP_FAILED,
        JobState.TIMED_OUT: EndReason.JOB_TIMEOUT,
        JobState.CANCELED: EndReason.USER_CANCELED,
        JobState.SKIPPED: EndReason.NOT_AFFECTED,
    }
    return JobSeen(state, end_reason or usual.get(state))


def with_revision(thing: S, revision: int) -> S:
    """The same with another revision: for comparing states that were reached by different ways."""
    return msgspec.structs.replace(thing, revision=revision)  # type: ignore[type-var]  # a run or a job
