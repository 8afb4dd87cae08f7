"""The production owners of a run and of a job, moved by hand: one message in, one commit out, no loop and no system.

A crash is a commit that raises: before it stored (nothing happened) or after (stored, and nobody was told).
Rule: what an owner tells is looked at only when its commit was stored; that nothing is told before is checked here.
"""

from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple

import msgspec
import pytest
from loguru import logger

from deltaci.domain import job as jobs
from deltaci.domain import retry
from deltaci.domain.effects import AnalyzeAttempt, Effect, PlanRun, ReportRun
from deltaci.domain.events import AttemptEnded, AttemptLeased, RunApproved, RunKey, Trigger
from deltaci.domain.ids import job_id
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.plan import Step as PlannedStep
from deltaci.domain.run import Run
from deltaci.domain.states import AttemptState
from deltaci.orchestrator import job_actor, run_actor
from deltaci.orchestrator.ports import Policy, Ports
from deltaci.orchestrator.presence import always_here
from deltaci.store.writes import AddJob, Owe, SaveJob, SavePlan, SaveRun, Write
from tests.exploration.rules import check_job_step, check_run_step, require

UNIT_MS: Final = 30_000
POLICY: Final = Policy(ack_within_ms=UNIT_MS, lease_ttl_ms=2 * UNIT_MS, cancel_within_ms=UNIT_MS)
JOB_TIMEOUT_MS: Final = 10 * UNIT_MS
RUN_TIMEOUT_MS: Final = 10 * UNIT_MS

# Few enough attempts for every story to be told to its end; the production bounds differ in number only.
INFRASTRUCTURE_RETRIES_MAX: Final = 1
UNACKNOWLEDGED_MAX: Final = 2

RUN_ID: Final = "run_1"
JOB_IDS: Final = (job_id(RUN_ID, 0), job_id(RUN_ID, 1))
KEY: Final = RunKey("repo_1", "c0ffee", "push")
TRIGGER: Final = Trigger(kind="push", ref="refs/heads/main", commit_sha="c0ffee", stream="branch:main")

CrashAt = tuple[Literal["before", "after"], int]


class Halted(Exception):
    """The process died at this commit."""


class Stands(NamedTuple):
    """As much of a stored job as a run reads."""

    id: str
    state: Any
    end_reason: Any
    revision: int


class Reaction(NamedTuple):
    """What one message brought about; `answer` is None when the process died first."""

    run: Run | None
    jobs: tuple[Any, ...]
    commits: int
    answer: Any
    told: tuple[tuple[str, Any], ...]


class Bench:
    """Store, clock, policy and ears of one owner at a time; what is not asked for here is not there."""

    def __init__(self) -> None:
        self.ports = Ports(
            store=self,  # type: ignore[arg-type]  # as much of the store as an owner of a run or a job uses
            clock=self,
            entropy=None,  # type: ignore[arg-type]  # decisions draw nothing
            policy=POLICY,
            observer=self,  # type: ignore[arg-type]
            tell=lambda path, message: self.told.append((path, message)),
            push=lambda runner_id, message: self.told.append((runner_id, message)) is None,
            is_reported=lambda _: True,
            running_max=lambda _: 0,
            repos=tuple,
            repo_changed=lambda _repo: None,
            presence=always_here(),
        )

    def limited(self, running_max: int) -> Ports:
        """The same ports for a repository that may run that many jobs at once."""
        return msgspec.structs.replace(self.ports, running_max=lambda _: running_max)

    def lay_out(self, run: Run | None, stored: Sequence[Any], now_ms: int, crash: CrashAt | None) -> None:
        """Begin anew: this is stored, and it is `now_ms`."""
        self.run, self.jobs, self.at_ms, self.crash = run, list(stored), now_ms, crash
        self.commits = 0
        self.told: list[tuple[str, Any]] = []

    def react(self, acting: Coroutine[Any, Any, Any]) -> Reaction:
        """Let an owner act to its end, or to the crash."""
        try:
            acting.send(None)
        except StopIteration as end:
            return Reaction(self.run, tuple(self.jobs), self.commits, end.value, tuple(self.told))
        except Halted:
            return Reaction(self.run, tuple(self.jobs), self.commits, None, tuple(self.told))
        acting.close()
        raise AssertionError("an owner waits for something that is not there")

    # ---- the clock and the observer ------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The instant of this move."""
        return self.at_ms

    def committed(self, _events: Sequence[Any]) -> None:
        """Nothing is measured here."""

    def refused(self, _command: str, _why: str) -> None:
        """Nothing is measured here."""

    def waited(self, _wait_ms: int) -> None:
        """Nothing is measured here."""

    # ---- the store -----------------------------------------------------------------------------------------------

    async def load_run(self, _run_id: str) -> Run | None:
        """The stored run."""
        return self.run

    async def jobs_of_run(self, _run_id: str) -> tuple[Any, ...]:
        """What stands of its jobs."""
        return tuple(self.jobs)

    async def load_plan(self, _run_id: str) -> None:
        """Plans are kept by nobody here."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """All or nothing, against the revision that stands."""
        number = self.commits + 1
        if self.crash == ("before", number):
            raise Halted
        effects = [write.effect for write in writes if isinstance(write, Owe)]
        for write in writes:
            self._store(write, effects)
        self.commits = number
        if self.crash == ("after", number):
            raise Halted

    def _store(self, write: Write, effects: list[Effect]) -> None:
        match write:
            case SaveRun():
                assert self.run is not None
                require(write.expected_revision == self.run.revision, 1, "saved on top of another revision")
                require(write.cause.kind and write.cause.id, 19, "a run was saved without a cause")
                is_approved = any(isinstance(event, RunApproved) for event in write.events)
                require(not is_approved or PlanRun(write.run.id) in effects, 19, "it was approved, and owes no plan")
                require(is_approved or PlanRun(write.run.id) not in effects, 26, "a plan is owed that nobody let be")
                if is_approved or write.run.state is not self.run.state:
                    require(ReportRun(write.run.id) in effects, 19, f"nobody is told that the run is {write.run.state}")
                self.run = write.run
            case SaveJob():
                (before,) = self.jobs
                require(write.expected_revision == before.revision, 1, "saved on top of another revision")
                require(write.cause.kind and write.cause.id, 19, "a job was saved without a cause")
                if write.job.state is not before.state:
                    require(ReportRun(write.job.run_id) in effects, 19, f"nobody is told of {write.job.state}")
                is_grant = any(isinstance(event, AttemptLeased) for event in write.events)
                require(write.is_grant == is_grant, 13, "a grant is stored whatever became of its run")
                for event in write.events:
                    if isinstance(event, AttemptEnded) and event.state in (AttemptState.FAILED, AttemptState.LOST):
                        owed = AnalyzeAttempt(write.job.id, event.attempt)
                        require(owed in effects, 19, f"attempt {event.attempt} is {event.state}, and nobody looks why")
                self.jobs = [write.job]
            case AddJob():
                self.jobs.append(write.job)
            case Owe() | SavePlan():
                pass
            case _:
                assert type(write).__name__ == "Audit", write


def a_job_reacts(
    bench: Bench, job: Job, message: Any, *, now_ms: int, heard_at_ms: int, crash: CrashAt | None = None
) -> Reaction:
    """What the job's owner makes of `message`, and what it tells whom."""
    actor = job_actor.JobActor(job.id, bench.ports)
    actor.is_loaded, actor.heard_at_ms = True, heard_at_ms
    actor.state = job_actor.Owned(job, PLANNED)
    bench.lay_out(None, (job,), now_ms, crash)
    return bench.react(actor.act(message))


def a_run_reacts(
    bench: Bench,
    run: Run,
    view: Sequence[Stands],
    stored: Sequence[Stands],
    message: Any,
    *,
    now_ms: int,
    crash: CrashAt | None = None,
) -> tuple[Reaction, Any]:
    """What the run's owner, who knows `view` of its jobs, makes of `message`; and what it knows afterwards."""
    actor = run_actor.RunActor(run.id, bench.ports)
    actor.is_loaded, actor.state = True, run
    actor.progress = run_actor.Progress(run, tuple(view))  # type: ignore[arg-type]  # as much of a job as it reads
    bench.lay_out(run, stored, now_ms, crash)
    reaction = bench.react(actor.act(message))
    return reaction, actor.progress


PLANNED: Final = PlannedJob(name="test", steps=(PlannedStep(name="test", run="true"),))


def a_plan(*, needs: bool, is_required: tuple[bool, bool], retries: tuple[int, int]) -> Plan:
    """Two jobs a and b; with `needs`, b needs a."""
    planned = tuple(
        PlannedJob(
            name=name,
            steps=PLANNED.steps,
            needs=("a",) if needs and name == "b" else (),
            policy="required" if must else "allow_failure",
            retries=often,
            timeout_ms=JOB_TIMEOUT_MS,
        )
        for name, must, often in zip("ab", is_required, retries, strict=True)
    )
    return Plan(commit_sha="c0ffee", base_sha=None, source="configuration", jobs=planned)


@contextmanager
def every_decision_checked() -> Iterator[pytest.MonkeyPatch]:
    """Owners decide with the production functions, each decision is checked, budgets are small, nothing is logged.

    Yields what bugs may be planted with: undone at the end, like the rest.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retry, "INFRASTRUCTURE_RETRIES_MAX", INFRASTRUCTURE_RETRIES_MAX)
        patch.setattr(retry, "UNACKNOWLEDGED_MAX", UNACKNOWLEDGED_MAX)
        patch.setattr(job_actor, "step", _checked_job_step)
        patch.setattr(run_actor, "step", _checked_run_step)
        logger.disable("deltaci")
        try:
            yield patch
        finally:
            logger.enable("deltaci")


def _checked_job_step(job: Job, command: Any, *, now_ms: int) -> Any:
    answer = jobs.step(job, command, now_ms=now_ms)
    heard_at_ms = command.heard_at_ms if isinstance(command, jobs.Tick) else now_ms
    check_job_step(job, command, answer, now_ms=now_ms, heard_at_ms=heard_at_ms)
    return answer


def _checked_run_step(run: Run, command: Any, *, now_ms: int) -> Any:
    answer = run_actor.runs.step(run, command, now_ms=now_ms)
    check_run_step(run, command, answer)
    return answer
