"""What a forge should show of a run: derived from committed state, and from nothing else. Pure.

Rule 1: a check is green if and only if it does not hold the change back; its text tells how it came to that.
        - A job that is allowed to fail is green (`neutral`) and says that it failed: a red mark beside a run that
          succeeded would make GitHub call the commit broken.
        - A job that was skipped because nothing it covers changed is green: no pull request waits for it for ever.
        - A required job that never ran because another one failed is red: green would let a change pass a check that
          nobody made.
Rule 2: `failure` and `timed_out` are the change's, `error` is not: it is the fault of the machinery.
Rule 3: the run's own check comes last, so that whoever waits for it finds all others settled.
Rule 4: what a check says while it is not over changes seldom: a forge takes 80 writes a minute and 500 an hour.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.retry import INFRASTRUCTURE
from deltaci.domain.run import Run, is_held
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.reporter.names import context
from deltaci.store.writes import Explanation

CheckState: TypeAlias = Literal[
    "queued", "running", "success", "neutral", "skipped", "failure", "timed_out", "error", "canceled"
]  # fmt: skip
Verdict: TypeAlias = Literal["pending", "success", "failure", "error"]

# In these four words a commit status of GitHub or Gitea says it, and the document of plain git.
VERDICTS: Final[Mapping[CheckState, Verdict]] = {
    "queued": "pending",
    "running": "pending",
    "success": "success",
    "neutral": "success",
    "skipped": "success",
    "failure": "failure",
    "timed_out": "failure",
    "error": "error",
    "canceled": "error",
}

DESCRIPTION_CHARACTERS_MAX: Final = 140
NAMED_JOBS_MAX: Final = 3
# In so many steps a run that is not over tells how far it is
PROGRESS_STEPS: Final = 10

_MACHINERY: Final = INFRASTRUCTURE | {EndReason.NEVER_ACKNOWLEDGED}

REASONS: Final[Mapping[EndReason, str]] = {
    EndReason.SUCCEEDED: "succeeded",
    EndReason.STEP_FAILED: "a step failed",
    EndReason.JOB_TIMEOUT: "the job took longer than it may",
    EndReason.RUN_TIMEOUT: "the run took longer than it may",
    EndReason.USER_CANCELED: "somebody canceled it",
    EndReason.SUPERSEDED: "superseded by a newer commit",
    EndReason.CLOSED: "what it was for is gone",
    EndReason.RUNNER_LOST: "the runner was lost",
    EndReason.NEVER_ACKNOWLEDGED: "no runner ever started it",
    EndReason.CHECKOUT_FAILED: "the commit could not be fetched",
    EndReason.RUNNER_ERROR: "the runner failed",
    EndReason.RUNNER_STOPPED: "the runner was shut down",
    EndReason.CANCEL_DEADLINE: "canceled, and the runner did not obey in time",
    EndReason.NEVER_APPROVED: "nobody approved it",
    EndReason.RESTORED: "the control plane was restored from a backup",
    EndReason.PLAN_FAILED: "no plan can be made",
    EndReason.NOT_AFFECTED: "nothing it covers changed",
    EndReason.CARRIED_OVER: "succeeded in an earlier attempt",
    EndReason.NEEDS_FAILED: "a job it needs did not succeed",
    EndReason.NOTHING_TO_RUN: "nothing to run",
    EndReason.JOBS_FAILED: "jobs failed",
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line that a forge shows at a commit. `name` is the job's, empty for the run itself; `id` is that of either.

    `description` is one line of at most 140 characters.
    """

    id: str
    name: str
    context: str
    state: CheckState
    description: str
    target_url: str
    started_at_ms: int | None = None
    ended_at_ms: int | None = None

    @property
    def is_final(self) -> bool:
        """Whether it will not change again in this attempt of the run."""
        return VERDICTS[self.state] != "pending"


def desired(
    run: Run,
    jobs: Sequence[Job],
    explanations: Sequence[Explanation],
    plan: Plan | None,
    base_url: str,
) -> tuple[Check, ...]:
    """All checks of a run as they should be now, those of its jobs in the order of the plan, its own last.

    Args:
        jobs: all jobs of the run in the order of its plan; empty until there is one.
        base_url: where people find this server.
    """
    whys = {(one.job_id, one.attempt): one for one in explanations}
    reasons = skip_reasons(plan)
    checks = []
    for job in jobs:
        state, description = _of_job(job, why_of(job, whys), reasons.get(job.name, ""))
        checks.append(
            Check(
                id=job.id,
                name=job.name,
                context=context(run.trigger, job.name),
                state=state,
                description=_fitting(description),
                target_url=job_url(run, job, base_url),
                started_at_ms=next((one.started_at_ms for one in job.attempts if one.started_at_ms is not None), None),
                ended_at_ms=job.ended_at_ms,
            )
        )
    return (*checks, own(run, jobs, base_url))


def own(run: Run, jobs: Sequence[Job], base_url: str) -> Check:
    """The check of the run itself."""
    state, description = _of_run(run, jobs)
    return Check(
        id=run.id,
        name="",
        context=context(run.trigger),
        state=state,
        description=_fitting(description),
        target_url=run_url(run, base_url),
        started_at_ms=run.started_at_ms,
        ended_at_ms=run.ended_at_ms,
    )


def run_url(run: Run, base_url: str) -> str:
    """Where a run is shown."""
    return f"{base_url.rstrip('/')}/runs/{run.id}"


def job_url(run: Run, job: Job, base_url: str) -> str:
    """Where a job of it is shown."""
    return f"{run_url(run, base_url)}#{job.id}"


def why_of(job: Job, whys: Mapping[tuple[str, int], Explanation]) -> Explanation | None:
    """The explanation of the job's last attempt."""
    return whys.get((job.id, job.attempts[-1].number)) if job.attempts else None


def skip_reasons(plan: Plan | None) -> dict[str, str]:
    """Why each skipped job of the plan is skipped, by name: the last reason decided."""
    if plan is None:
        return {}
    return {job.name: job.reasons[-1].text for job in plan.jobs if job.is_skipped and job.reasons}


def _fitting(description: str) -> str:
    said = " ".join(description.split())
    if len(said) > DESCRIPTION_CHARACTERS_MAX:
        said = said[: DESCRIPTION_CHARACTERS_MAX - 1] + "…"
    return said


# ---- jobs --------------------------------------------------------------------------------------------------------


def _of_job(job: Job, why: Explanation | None, skipped_for: str) -> tuple[CheckState, str]:
    if not job.state.is_final:
        return _of_live_job(job)
    if job.state is JobState.CANCELED:
        return "canceled", f"Canceled: {reason_of(job)}"
    if job.state is JobState.SUCCEEDED:
        return "success", f"Succeeded{_effort(job)}"
    state: CheckState = "error" if job.end_reason in _MACHINERY else "failure"
    if job.state is JobState.SKIPPED:
        if job.end_reason is not EndReason.NEEDS_FAILED:
            return "skipped", f"Skipped: {skipped_for or reason_of(job)}"
        said = f"Never ran: {reason_of(job)}"
    elif job.state is JobState.TIMED_OUT:
        state, said = "timed_out", f"Timed out{_effort(job)}: {reason_of(job)}"
    else:
        said = f"Failed{_effort(job)}: {why.summary if why is not None else reason_of(job)}"
    if not job.is_required:
        return "neutral", said.replace(":", ", which is allowed:", 1)
    return state, said


def _of_live_job(job: Job) -> tuple[CheckState, str]:
    again = f", attempt {job.attempts[-1].number}" if len(job.attempts) > 1 else ""
    match job.state:
        case JobState.RUNNING:
            return "running", f"Running{again}"
        case JobState.CANCEL_REQUESTED:
            return "running", "Being canceled"
        case _:
            return "queued", f"Waiting{again}"


def reason_of(job: Job) -> str:
    """Why a job that is over ended as it did, in words."""
    assert job.end_reason is not None, "a final job has a reason"
    text = REASONS[job.end_reason]
    return f"{text} ({job.end_detail})" if job.end_detail else text


def took(job: Job) -> str:
    """How long the last attempt took: `1 min 5 s`; empty if that is not known."""
    last = job.attempts[-1] if job.attempts else None
    if last is None or last.started_at_ms is None or last.ended_at_ms is None:
        return ""
    return duration(last.ended_at_ms - last.started_at_ms)


def duration(length_ms: int) -> str:
    """`59 s`, `1 min 5 s`, `2 h 0 min`."""
    seconds = max(0, length_ms) // 1000
    if seconds < 60:
        return f"{seconds} s"
    return (
        f"{seconds // 60} min {seconds % 60} s" if seconds < 3600 else f"{seconds // 3600} h {seconds // 60 % 60} min"
    )


def _effort(job: Job) -> str:
    """How long the last attempt took and which it was: ` in 1 min 5 s, attempt 2`."""
    length = took(job)
    in_it = f" in {length}" if length else ""
    return f"{in_it}, attempt {job.attempts[-1].number}" if len(job.attempts) > 1 else in_it


# ---- the run -----------------------------------------------------------------------------------------------------


def _of_run(run: Run, jobs: Sequence[Job]) -> tuple[CheckState, str]:
    match run.state:
        case RunState.CREATED if is_held(run):
            return "queued", "Waits for approval"
        case RunState.CREATED | RunState.PLANNING:
            return "queued", "Planning what must run"
        case RunState.QUEUED:
            return "queued", "Waiting for a runner"
        case RunState.RUNNING:
            return "running", _progress(jobs)
        case RunState.CANCEL_REQUESTED:
            return "running", "Being canceled"
        case RunState.SUCCEEDED:
            return "success", counts(jobs) if jobs else "Nothing to run"
        case RunState.CANCELED:
            return "canceled", f"Canceled: {run_reason(run)}"
        case RunState.TIMED_OUT:
            late = [job.name for job in jobs if job.is_required and job.state is JobState.TIMED_OUT]
            is_a_job = run.end_reason is EndReason.JOB_TIMEOUT and late
            return "timed_out", f"Timed out: {_named(late) if is_a_job else run_reason(run)}"
        case RunState.FAILED:
            return _of_failed_run(run, jobs)


def _of_failed_run(run: Run, jobs: Sequence[Job]) -> tuple[CheckState, str]:
    if run.end_reason is EndReason.PLAN_FAILED:
        return "failure", f"No plan: {run.text}" if run.text else "No plan can be made"
    failed = [job for job in jobs if has_failed(job)]
    is_machinery = bool(failed) and all(job.end_reason in _MACHINERY for job in failed)
    said = f"Failed: {_named([job.name for job in failed])}" if failed else f"Failed: {run_reason(run)}"
    return "error" if is_machinery else "failure", said


def has_failed(job: Job) -> bool:
    """Whether the run fails by it, and not by another one that it needs."""
    return job.is_required and job.state in (JobState.FAILED, JobState.TIMED_OUT)


def _progress(jobs: Sequence[Job]) -> str:
    """`Running: 40 of 300 jobs are over, failed: a`, in tenths of them all."""
    over = sum(job.state.is_final for job in jobs)
    step = -(-len(jobs) // PROGRESS_STEPS)
    shown = over // step * step if step else 0
    if not shown:
        return "Running"
    # In the order in which they failed, so that the names told first stay.
    failed = [job.name for job in sorted(jobs, key=lambda job: job.ended_at_ms or 0) if has_failed(job)]
    said = f"Running: {shown} of {len(jobs)} jobs are over"
    # How many more failed is left for the end: each would be another write.
    more = " and more" if len(failed) > NAMED_JOBS_MAX else ""
    return f"{said}, failed: {', '.join(failed[:NAMED_JOBS_MAX])}{more}" if failed else said


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_JOBS_MAX} more" if len(names) > NAMED_JOBS_MAX else ""
    return ", ".join(names[:NAMED_JOBS_MAX]) + more


def run_reason(run: Run) -> str:
    """Why a run that is over ended as it did, in words."""
    assert run.end_reason is not None, "a final run has a reason"
    return f"{REASONS[run.end_reason]} ({run.text})" if run.text else REASONS[run.end_reason]


def counts(jobs: Sequence[Job]) -> str:
    """`5 jobs succeeded, 2 skipped, 1 failed (allowed)`."""
    succeeded = sum(job.state is JobState.SUCCEEDED for job in jobs)
    skipped = sum(job.state is JobState.SKIPPED for job in jobs)
    allowed = len(jobs) - succeeded - skipped
    parts = [f"{succeeded} job{'' if succeeded == 1 else 's'} succeeded"]
    if skipped:
        parts.append(f"{skipped} skipped")
    if allowed:
        parts.append(f"{allowed} failed (allowed)")
    return ", ".join(parts)
