"""Runs and jobs as committed, in any state."""

from typing import Any

from deltaci.domain.attempt import Attempt
from deltaci.domain.events import JobRef, RunKey, Trigger
from deltaci.domain.job import Job
from deltaci.domain.lease import Lease
from deltaci.domain.plan import Plan, PlannedJob, Reason
from deltaci.domain.run import Run
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from deltaci.store.writes import Explanation

SHA = "b" * 40
RUN_ID = "run_x"
PR = 12
_LEASE = Lease(
    token_hash="h", runner_id="runner_1", state=LeaseState.ACTIVE, granted_at_ms=0, expires_at_ms=9, ttl_ms=9
)  # fmt: skip


def a_run(state: RunState = RunState.RUNNING, reason: EndReason | None = None, **fields: Any) -> Run:
    return Run(
        **{
            "id": RUN_ID,
            "key": RunKey("repo_1", SHA, "pull_request", PR),
            "attempt": 1,
            "trigger": Trigger(kind="pull_request", ref=f"refs/pull/{PR}/head", commit_sha=SHA, pr_number=PR),
            "state": state,
            "created_at_ms": 0,
            "timeout_ms": 1,
            "cancel_within_ms": 1,
            "revision": 1,
            "end_reason": reason,
            "ended_at_ms": 5 if reason is not None else None,
            **fields,
        }
    )


def a_job(name: str = "test", state: JobState = JobState.QUEUED, reason: EndReason | None = None, **fields: Any) -> Job:
    """`attempts`: how many; the last one took `took_ms` if the job is over."""
    count, took_ms = fields.pop("attempts", 1), fields.pop("took_ms", 65_000)
    made = [_attempt(number, state, reason if number == count else None, took_ms) for number in range(1, count + 1)]
    return Job(
        **{
            "id": f"job_x_{name}",
            "run_id": RUN_ID,
            "repo_id": "repo_1",
            "name": name,
            "state": state,
            "is_required": True,
            "labels": (),
            "priority": 0,
            "retries": 0,
            "timeout_ms": 1,
            "created_at_ms": 0,
            "revision": 1,
            "attempts": tuple(made),
            "end_reason": reason,
            "ended_at_ms": 5 if reason is not None else None,
            **fields,
        }
    )


def _attempt(number: int, state: JobState, reason: EndReason | None, took_ms: int) -> Attempt:
    if reason is not None:
        ended = AttemptState.SUCCEEDED if state is JobState.SUCCEEDED else AttemptState.FAILED
        return Attempt(
            number=number,
            state=ended,
            queued_at_ms=0,
            started_at_ms=0,
            ended_at_ms=took_ms,
            end_reason=reason,
            exit_code=0 if state is JobState.SUCCEEDED else 1,
        )
    if state in (JobState.RUNNING, JobState.CANCEL_REQUESTED):
        return Attempt(number=number, state=AttemptState.RUNNING, queued_at_ms=0, lease=_LEASE)
    return Attempt(number=number, state=AttemptState.QUEUED, queued_at_ms=0)


def failed(name: str = "test", reason: EndReason = EndReason.STEP_FAILED, **fields: Any) -> Job:
    return a_job(name, JobState.FAILED, reason, **fields)


def succeeded(name: str = "test", **fields: Any) -> Job:
    return a_job(name, JobState.SUCCEEDED, EndReason.SUCCEEDED, **fields)


def an_explanation(job: Job, summary: str, attempt: int = 1) -> Explanation:
    return Explanation(
        job_id=job.id,
        attempt=attempt,
        category="user.test",
        confidence=0.9,
        summary=summary,
        evidence=(),
        next_step="",
        at_ms=0,
    )


def a_plan(**skipped: str) -> Plan:
    jobs = tuple(
        PlannedJob(name=name, steps=(), is_skipped=True, reasons=(Reason(rule="impact", text=text),))
        for name, text in skipped.items()
    )
    return Plan(commit_sha=SHA, base_sha=None, source="discovery", jobs=jobs)


def refs(*jobs: Job) -> tuple[JobRef, ...]:
    return tuple(JobRef(id=job.id, name=job.name, is_required=job.is_required) for job in jobs)
