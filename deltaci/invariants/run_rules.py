"""Rules over a run and its jobs together: why it exists, which jobs it has, when they start, how it ends."""

from typing import Final

from deltaci.domain import run as runs
from deltaci.domain.events import (
    AttemptLeased,
    JobCreated,
    JobReleased,
    JobSkipped,
    RunApproved,
    RunCreated,
    RunEnded,
    RunStarted,
)
from deltaci.domain.job import Job
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.invariants.past import Change, Past
from deltaci.invariants.rules import Found, Rule

CAUSES: Final = frozenset({"webhook", "user"})
SKIPPED_FROM_THE_START: Final = frozenset({EndReason.NOT_AFFECTED, EndReason.CARRIED_OVER})


def run_has_a_cause(change: Change) -> Found | None:
    """A run is there because of a webhook or a person."""
    cause = change.entry.cause
    if cause.kind not in CAUSES:
        return Found(f"it was created by {cause.kind} {cause.id}")
    return None


def one_run_a_key(change: Change) -> Found | None:
    """The attempts under one run key are numbered 1, 2, 3 ..., each one run."""
    event: RunCreated = change.event
    known = change.past.runs_by_key
    twin = known.get((event.key, event.attempt))
    if twin is not None:
        return Found(f"{twin} is attempt {event.attempt} of the same key", change.past.ids(twin))
    if event.attempt != 1 and (event.key, event.attempt - 1) not in known:
        return Found(f"it is attempt {event.attempt} of a key that has no attempt {event.attempt - 1}")
    return None


def approved_once_by_a_person(change: Change) -> Found | None:
    """A run is approved by a person, at most once, and only while it is held."""
    run: Run = change.before
    if not run.hold or run.approved_at_ms is not None or run.state is not RunState.CREATED:
        return Found(f"it is approved while it is {run.state}, hold {run.hold!r}, approved at {run.approved_at_ms}")
    if change.entry.cause.kind != "user" or not change.event.by:
        return Found(f"it is approved by {change.event.by!r}, brought about by a {change.entry.cause.kind}")
    return None


def earlier_approval_is_stored(change: Change) -> Found | None:
    """A run is created as approved only if an earlier attempt of the same commit was."""
    event: RunCreated = change.event
    if not event.approved_by:
        return None
    before = change.past.folded.get(change.past.runs_by_key.get((event.key, event.attempt - 1), ""))
    if not isinstance(before, Run) or before.approved_by != event.approved_by:
        return Found(f"it says that {event.approved_by} had approved its commit; the attempt before says otherwise")
    return None


def jobs_as_planned(change: Change) -> Found | None:
    """A run's jobs are those of the plan it adopted, each created once."""
    event: JobCreated = change.event
    run = change.past.run_of(change.after)
    ref = change.past.refs.get(event.job_id)
    if run is None or ref is None:
        return Found(f"{event.run_id} has adopted no plan with this job")
    told = (event.name, event.is_required, event.repo_id)
    if told != (ref.name, ref.is_required, run.key.repo_id):
        return Found(f"it is {told}, planned as {(ref.name, ref.is_required, run.key.repo_id)}")
    return None


def starts_when_needs_allow(change: Change) -> Found | None:
    """A job starts only when all it needs are over and allow it."""
    job: Job = change.after
    event = change.event
    is_start = job.state is not JobState.SKIPPED and job.state is not JobState.BLOCKED
    ref = change.past.refs.get(job.id)
    if not is_start or ref is None or not ref.needs:
        return None
    if isinstance(event, AttemptLeased) and event.attempt > 1:
        return None  # what allowed the first attempt is final
    unmet = [need for need in ref.needs if not _allows(change.past, need)]
    if unmet:
        return Found(f"{change.entry.type} while {', '.join(unmet)} does not allow it", change.past.ids(*unmet))
    return None


def skipped_for_a_reason(change: Change) -> Found | None:
    """A job is skipped because nothing of it changed, or because one that it needs did not allow it."""
    job: Job = change.after
    if isinstance(change.event, JobCreated):
        if job.state is JobState.SKIPPED and job.end_reason not in SKIPPED_FROM_THE_START:
            return Found(f"it is skipped from the start with {job.end_reason}")
        return None
    ref = change.past.refs.get(job.id)
    needs = () if ref is None else ref.needs
    failed = [need for need in needs if _is_over(change.past, need) and not _allows(change.past, need)]
    if change.event.reason is not EndReason.NEEDS_FAILED or not failed:
        return Found(
            f"it is skipped with {change.event.reason}, and none of {', '.join(needs) or 'no needs'} demands it"
        )
    return None


def run_starts_with_a_job(change: Change) -> Found | None:
    """A run is running once one of its jobs has been with a runner."""
    jobs = _jobs_of(change.past, change.before)
    # A job whose first attempt was lost is queued again before its run has heard that it had begun.
    if not any(attempt.lease is not None for job in jobs for attempt in job.attempts):
        return Found("it starts while none of its jobs has been with a runner")
    return None


def run_ends_with_its_jobs(change: Change) -> Found | None:
    """A run ends only when all its jobs have."""
    run: Run = change.before
    jobs = {job.id: job for job in _jobs_of(change.past, run)}
    missing = [ref.id for ref in run.jobs if ref.id not in jobs or not jobs[ref.id].state.is_final]
    if missing:
        return Found(f"it ends while {', '.join(missing)} have not", change.past.ids(*missing))
    return None


def result_recomputable(change: Change) -> Found | None:
    """A run's result is what its jobs' ends, its cancel or its plan's failure make it."""
    run: Run = change.before
    event: RunEnded = change.event
    jobs = _jobs_of(change.past, run)
    if {job.id for job in jobs} != {ref.id for ref in run.jobs} or not all(job.state.is_final for job in jobs):
        return None  # another rule's finding
    if run.cancel is not None:
        has_timed_out = run.cancel.reason is EndReason.RUN_TIMEOUT
        expected = (RunState.TIMED_OUT if has_timed_out else RunState.CANCELED, run.cancel.reason)
    elif run.state is RunState.PLANNING:
        expected = (RunState.FAILED, EndReason.PLAN_FAILED)
    else:
        expected = runs.result(run, {job.id: JobSeen(job.state, job.end_reason) for job in jobs})
    if (event.state, event.reason) != expected:
        text = f"it ends as {event.state}, {event.reason}; its jobs make it {expected[0]}, {expected[1]}"
        return Found(text, change.past.ids(*(job.id for job in jobs)))
    return None


def _jobs_of(past: Past, run: Run) -> list[Job]:
    jobs = (past.job(job_id) for job_id in past.jobs_of_run.get(run.id, ()))
    return [job for job in jobs if job is not None]


def _is_over(past: Past, need: str) -> bool:
    job = past.job(need)
    return job is not None and job.state.is_final


def _allows(past: Past, need: str) -> bool:
    job, ref = past.job(need), past.refs.get(need)
    return job is not None and ref is not None and runs.is_satisfied(ref, JobSeen(job.state, job.end_reason))


RULES: Final = (
    Rule(9, run_has_a_cause, (RunCreated,)),
    Rule(8, one_run_a_key, (RunCreated,)),
    Rule(26, approved_once_by_a_person, (RunApproved,)),
    Rule(26, earlier_approval_is_stored, (RunCreated,)),
    Rule(11, jobs_as_planned, (JobCreated,)),
    Rule(11, starts_when_needs_allow, (JobCreated, JobReleased, AttemptLeased)),
    Rule(11, skipped_for_a_reason, (JobCreated, JobSkipped)),
    Rule(10, run_starts_with_a_job, (RunStarted,)),
    Rule(10, run_ends_with_its_jobs, (RunEnded,)),
    Rule(10, result_recomputable, (RunEnded,)),
)
