"""Things to test with: each builder gives a valid one, with whatever the test cares about as keywords."""

from typing import Any

import msgspec

from deltaci.domain import ids
from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import (
    SYSTEM,
    AttemptEnded,
    AttemptMoved,
    Cause,
    Hold,
    JobCreated,
    JobRef,
    LeaseAcknowledged,
    RunCreated,
    RunKey,
    Trigger,
)
from deltaci.domain.job import Job
from deltaci.domain.machine import Step
from deltaci.domain.plan import Artifact, Plan, PlannedJob, digest
from deltaci.domain.plan import Step as Script
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState
from deltaci.store.writes import AddJob, Delivery, Owe, SaveJob, SavePlan, SaveRun

NOW_MS = 1_700_000_000_000
HOLD_WITHIN_MS = 7 * 24 * 3_600_000
SOMEBODY = Cause("user", "tok_1", via="test")


def a_run_id(number: int = 1) -> str:
    """Run ids that sort by `number`."""
    return ids.new_id("run", now_ms=NOW_MS + number, random=bytes(7))


def a_repo(**more: Any) -> Repo:
    """A repository."""
    values = {
        "id": "repo_1",
        "name": "team/project",
        "forge": "git",
        "clone_url": "https://forge.example/team/project.git",
        "secret": "s3cret",
        "created_at_ms": NOW_MS,
    }
    return Repo(**(values | more))


def a_trigger(**more: Any) -> Trigger:
    """A push to main."""
    values = {"kind": "push", "ref": "refs/heads/main", "commit_sha": "c" * 40, "stream": "branch:main"}
    return Trigger(**(values | more))


def a_created_run(
    number: int = 1,
    *,
    repo_id: str = "repo_1",
    attempt: int = 1,
    now_ms: int = NOW_MS,
    hold: Hold = "",
    approved_by: str = "",
    **trigger: Any,
) -> Step[Run]:
    """The first step of a run; a commit of its own for each number unless the trigger says otherwise."""
    what = a_trigger(**({"commit_sha": f"{number:040x}"} | trigger))
    key = RunKey(repo_id, what.commit_sha, what.kind, what.pr_number)
    return runs.create(
        a_run_id(number),
        key,
        what,
        attempt=attempt,
        now_ms=now_ms,
        timeout_ms=3_600_000,
        cancel_within_ms=60_000,
        hold=hold,
        hold_within_ms=HOLD_WITHIN_MS if hold else 0,
        approved_by=approved_by,
    )


def a_run(number: int = 1, **more: Any) -> Run:
    """A run in state CREATED."""
    return a_created_run(number, **more).state


def a_planned_job(**more: Any) -> PlannedJob:
    """A job of a plan with one step."""
    values = {"name": "test", "steps": (Script(name="test", run="make test"),), "labels": ("linux",)}
    return PlannedJob(**(values | more))


def a_plan(*planned: PlannedJob, **more: Any) -> Plan:
    """A plan of the given jobs, or of one."""
    values = {
        "commit_sha": "c" * 40,
        "base_sha": None,
        "source": "configuration",
        "jobs": planned or (a_planned_job(),),
    }
    return Plan(**(values | more))


def a_created_job(run_id: str | None = None, index: int = 0, **more: Any) -> JobCreated:
    """The first event of a job, QUEUED."""
    run_id = run_id or a_run_id()
    values = {
        "at_ms": NOW_MS,
        "job_id": ids.job_id(run_id, index),
        "run_id": run_id,
        "repo_id": "repo_1",
        "name": f"test-{index}",
        "is_required": True,
        "labels": ("linux",),
        "priority": 0,
        "retries": 0,
        "timeout_ms": 600_000,
        "state": JobState.QUEUED,
    }
    return JobCreated(**(values | more))


def a_job(run_id: str | None = None, index: int = 0, **more: Any) -> Job:
    """A job in state QUEUED."""
    return jobs.created(a_created_job(run_id, index, **more))


def a_delivery(**more: Any) -> Delivery:
    """A webhook that made a run."""
    values = {
        "repo_id": "repo_1",
        "delivery_id": "delivery-1",
        "body_sha256": "b" * 64,
        "received_at_ms": NOW_MS,
        "event": "push",
    }
    if not {"ignored", "run_id"} & more.keys():
        values["run_id"] = a_run_id()
    return Delivery(**(values | more))


# ---- steps and writes --------------------------------------------------------------------------------------------


def stepped(before: Any, command: Any, *, now_ms: int = NOW_MS) -> Step[Any]:
    """What `command` makes of a run or a job; fails the test when it is refused."""
    machine: Any = runs if isinstance(before, Run) else jobs
    step = machine.step(before, command, now_ms=now_ms)
    assert isinstance(step, Step), step
    return step


def save_run(step: Step[Run]) -> SaveRun:
    """The write that stores a step of a run; somebody created it."""
    expected = step.state.revision - len(step.events)
    cause = SOMEBODY if isinstance(step.events[0], RunCreated) else SYSTEM
    return SaveRun(run=step.state, expected_revision=expected, events=step.events, cause=cause)  # type: ignore[arg-type]


def save_job(step: Step[Job]) -> SaveJob:
    """The write that stores a step of a job; what only its lease's holder may bring about, the holder did."""
    expected = step.state.revision - len(step.events)
    event = step.events[0]
    is_told = isinstance(event, LeaseAcknowledged | AttemptMoved | AttemptEnded)
    lease = step.state.attempts[event.attempt - 1].lease if is_told else None
    cause = SYSTEM if lease is None else Cause("runner", lease.runner_id)
    return SaveJob(job=step.state, expected_revision=expected, events=step.events, cause=cause)  # type: ignore[arg-type]


def owed(step: Step[Any]) -> list[Owe]:
    """The writes that owe a step's effects."""
    return [Owe(effect=effect, due_at_ms=step.events[0].at_ms) for effect in step.effects]


def add_job(event: JobCreated | None = None, *, needs: tuple[str, ...] = (), **planned: Any) -> AddJob:
    """The write that inserts a job as its first event makes it."""
    event = event or a_created_job()
    return AddJob(
        job=jobs.created(event),
        planned=a_planned_job(**({"name": event.name} | planned)),
        needs=needs,
        events=(event,),
        cause=SYSTEM,
    )


def a_planned_run(
    number: int, events: tuple[JobCreated, ...], needs: dict[str, tuple[str, ...]] | None = None
) -> list[Any]:
    """The writes that make a run with these jobs, its plan stored and adopted: state QUEUED. `needs` by job id."""
    needs = needs or {}
    names = {event.job_id: event.name for event in events}
    planned = {
        event.job_id: a_planned_job(
            name=event.name, needs=tuple(names[need] for need in needs.get(event.job_id, ())), retries=event.retries
        )
        for event in events
    }
    plan = a_plan(*planned.values())
    created = a_created_run(number)
    planning = stepped(created.state, runs.StartPlanning())
    refs = tuple(
        JobRef(id=event.job_id, name=event.name, is_required=event.is_required, needs=needs.get(event.job_id, ()))
        for event in events
    )
    adopted = stepped(planning.state, runs.AdoptPlan(plan_digest=digest(plan), jobs=refs))
    added = [
        AddJob(
            job=jobs.created(event),
            planned=planned[event.job_id],
            needs=needs.get(event.job_id, ()),
            events=(event,),
            cause=SYSTEM,
        )
        for event in events
    ]
    save_plan = SavePlan(run_id=created.state.id, plan=plan, digest=digest(plan))
    return [save_run(created), save_run(planning), save_run(adopted), save_plan, *added]


# ---- a job's life ------------------------------------------------------------------------------------------------


def leased(job: Job, *, lease_hash: str = "", now_ms: int = NOW_MS, runner_id: str = "runner_1") -> Step[Job]:
    """The job's queued attempt given to a runner, under a lease of its own."""
    lease_hash = lease_hash or f"lease of {job.id}, attempt {len(job.attempts)}"
    command = jobs.GrantLease(lease_hash=lease_hash, runner_id=runner_id, ack_within_ms=30_000, ttl_ms=120_000)
    return stepped(job, command, now_ms=now_ms)


def acknowledged(job: Job, *, now_ms: int = NOW_MS) -> Step[Job]:
    """The lease acknowledged by its holder."""
    return stepped(job, from_holder(jobs.AckLease, job), now_ms=now_ms)


def completed(job: Job, *, exit_code: int = 0, now_ms: int = NOW_MS) -> Step[Job]:
    """The attempt ended by its holder's report."""
    reason = EndReason.SUCCEEDED if exit_code == 0 else EndReason.STEP_FAILED
    command = from_holder(jobs.Complete, job, reason=reason, exit_code=exit_code, text="", result_digest="r" * 64)
    return stepped(job, command, now_ms=now_ms)


def from_holder(command: Any, job: Job, **more: Any) -> Any:
    """A command of the current lease's holder."""
    attempt = job.attempts[-1]
    assert attempt.lease is not None
    values: dict[str, Any] = {"attempt": attempt.number, "lease_hash": attempt.lease.token_hash}
    if "runner_id" in {field.name for field in msgspec.structs.fields(command)}:
        values["runner_id"] = attempt.lease.runner_id
    return command(**(values | more))


def a_project(root: str = "services/api", **more: Any) -> Project:
    """A project with a test."""
    job = ProjectJob(
        check="test",
        steps=(Script(name="Test", run="go test ./...", workdir=root),),
        env={"CI": "true"},
        caches=(CacheRule(name="go", paths=(f"{root}/.cache/go",), inputs=(f"{root}/go.sum",)),),
        artifacts=(Artifact(name="report", paths=(f"{root}/report.xml",)),),
    )
    values = {"ecosystem": "go", "root": root, "manifest": f"{root}/go.mod", "jobs": (job,), "name": f"shop/{root}"}
    return Project(**(values | more))
