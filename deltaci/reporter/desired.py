"""What a forge should show of a run: derived from committed state, and from nothing else. Pure.

Rule 1: a check is green if and only if it does not hold the change back; its text tells how it came to that.
        - A job that is allowed to fail is green and says that it failed: a red mark beside a run that succeeded would
          make GitHub call the commit broken.
        - A job that was skipped because nothing it covers changed is green: no pull request waits for it for ever.
        - A required job that never ran because another one failed is red: green would let a change pass a check that
          nobody made.
Rule 2: `failure` is the change's, `error` is not: canceled, superseded, or the fault of the machinery.
Rule 3: the run's own check comes last, so that whoever waits for it finds all others settled.
"""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.retry import INFRASTRUCTURE
from deltaci.domain.run import Run, is_held
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.store.port import Explanation

CheckState: TypeAlias = Literal["pending", "success", "failure", "error"]

RUN_CONTEXT: Final = "deltaci"
DESCRIPTION_CHARACTERS_MAX: Final = 140
CONTEXT_CHARACTERS_MAX: Final = 200
# Above so many jobs, waiting and running are told alike: GitHub takes 80 statuses a minute and 500 an hour.
LIVE_JOBS_MAX: Final = 20
NAMED_JOBS_MAX: Final = 3

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
    """One line that a forge shows at a commit. `name` is the job's, empty for the run itself."""

    name: str
    context: str
    state: CheckState
    description: str
    target_url: str


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
    is_large = len(jobs) > LIVE_JOBS_MAX
    checks = []
    for job in jobs:
        state, description = _of_job(job, why_of(job, whys), reasons.get(job.name, ""), is_large=is_large)
        checks.append(_check(job.name, state, description, f"{run_url(run, base_url)}#{job.id}"))
    state, description = _of_run(run, jobs)
    return (*checks, _check("", state, description, run_url(run, base_url)))


def context(job_name: str) -> str:
    """`deltaci` for the run, `deltaci/<job>` for a job; of a name too long, its beginning and a digest."""
    if not job_name:
        return RUN_CONTEXT
    full = f"{RUN_CONTEXT}/{job_name}"
    if len(full) <= CONTEXT_CHARACTERS_MAX:
        return full
    return f"{full[: CONTEXT_CHARACTERS_MAX - 9]}~{hashlib.sha256(job_name.encode()).hexdigest()[:8]}"


def digest(check: Check) -> str:
    """Names what people see of a check: its state and what it says."""
    return hashlib.sha256(f"{check.state}\n{check.description}".encode()).hexdigest()


def run_url(run: Run, base_url: str) -> str:
    """Where a run is shown."""
    return f"{base_url.rstrip('/')}/runs/{run.id}"


def why_of(job: Job, whys: Mapping[tuple[str, int], Explanation]) -> Explanation | None:
    """The explanation of the job's last attempt."""
    return whys.get((job.id, job.attempts[-1].number)) if job.attempts else None


def skip_reasons(plan: Plan | None) -> dict[str, str]:
    """Why each skipped job of the plan is skipped, by name: the last reason decided."""
    if plan is None:
        return {}
    return {job.name: job.reasons[-1].text for job in plan.jobs if job.is_skipped and job.reasons}


def _check(name: str, state: CheckState, description: str, url: str) -> Check:
    said = " ".join(description.split())
    if len(said) > DESCRIPTION_CHARACTERS_MAX:
        said = said[: DESCRIPTION_CHARACTERS_MAX - 1] + "…"
    return Check(name=name, context=context(name), state=state, description=said, target_url=url)


# ---- jobs --------------------------------------------------------------------------------------------------------


def _of_job(job: Job, why: Explanation | None, skipped_for: str, *, is_large: bool) -> tuple[CheckState, str]:
    if not job.state.is_final:
        return "pending", "Not over yet" if is_large else _of_live_job(job)
    if job.state is JobState.CANCELED:
        return "error", f"Canceled: {_reason(job)}"
    if job.state is JobState.SUCCEEDED:
        return "success", f"Succeeded{_effort(job)}"
    if job.state is JobState.SKIPPED:
        if job.end_reason is not EndReason.NEEDS_FAILED:
            return "success", f"Skipped: {skipped_for or _reason(job)}"
        said = f"Never ran: {_reason(job)}"
    elif job.state is JobState.TIMED_OUT:
        said = f"Timed out{_effort(job)}: {_reason(job)}"
    else:
        said = f"Failed{_effort(job)}: {why.summary if why is not None else _reason(job)}"
    if not job.is_required:
        return "success", said.replace(":", ", which is allowed:", 1)
    return "error" if job.end_reason in _MACHINERY else "failure", said


def _of_live_job(job: Job) -> str:
    again = f", attempt {job.attempts[-1].number}" if len(job.attempts) > 1 else ""
    match job.state:
        case JobState.RUNNING:
            return f"Running{again}"
        case JobState.CANCEL_REQUESTED:
            return "Being canceled"
        case _:
            return f"Waiting{again}"


def _reason(job: Job) -> str:
    assert job.end_reason is not None, "a final job has a reason"
    text = REASONS[job.end_reason]
    return f"{text} ({job.end_detail})" if job.end_detail else text


def _effort(job: Job) -> str:
    """How long the last attempt took and which it was: ` in 1 min 5 s, attempt 2`."""
    if not job.attempts:
        return ""
    last = job.attempts[-1]
    took = ""
    if last.started_at_ms is not None and last.ended_at_ms is not None:
        seconds = max(0, last.ended_at_ms - last.started_at_ms) // 1000
        took = f" in {seconds // 60} min {seconds % 60} s" if seconds >= 60 else f" in {seconds} s"
    return f"{took}, attempt {last.number}" if last.number > 1 else took


# ---- the run -----------------------------------------------------------------------------------------------------


def _of_run(run: Run, jobs: Sequence[Job]) -> tuple[CheckState, str]:
    match run.state:
        case RunState.CREATED if is_held(run):
            return "pending", "Waits for approval"
        case RunState.CREATED | RunState.PLANNING:
            return "pending", "Planning what must run"
        case RunState.QUEUED:
            return "pending", "Waiting for a runner"
        case RunState.RUNNING:
            return "pending", "Running"
        case RunState.CANCEL_REQUESTED:
            return "pending", "Being canceled"
        case RunState.SUCCEEDED:
            return "success", _counts(jobs) if jobs else "Nothing to run"
        case RunState.CANCELED:
            return "error", f"Canceled: {_run_reason(run)}"
        case RunState.TIMED_OUT:
            late = [job.name for job in jobs if job.is_required and job.state is JobState.TIMED_OUT]
            is_a_job = run.end_reason is EndReason.JOB_TIMEOUT and late
            return "failure", f"Timed out: {_named(late) if is_a_job else _run_reason(run)}"
        case RunState.FAILED:
            return _of_failed_run(run, jobs)


def _of_failed_run(run: Run, jobs: Sequence[Job]) -> tuple[CheckState, str]:
    if run.end_reason is EndReason.PLAN_FAILED:
        return "failure", f"No plan: {run.text}" if run.text else "No plan can be made"
    failed = [job for job in jobs if job.is_required and job.state in (JobState.FAILED, JobState.TIMED_OUT)]
    is_machinery = bool(failed) and all(job.end_reason in _MACHINERY for job in failed)
    said = f"Failed: {_named([job.name for job in failed])}" if failed else f"Failed: {_run_reason(run)}"
    return "error" if is_machinery else "failure", said


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_JOBS_MAX} more" if len(names) > NAMED_JOBS_MAX else ""
    return ", ".join(names[:NAMED_JOBS_MAX]) + more


def _run_reason(run: Run) -> str:
    assert run.end_reason is not None, "a final run has a reason"
    return f"{REASONS[run.end_reason]} ({run.text})" if run.text else REASONS[run.end_reason]


def _counts(jobs: Sequence[Job]) -> str:
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
