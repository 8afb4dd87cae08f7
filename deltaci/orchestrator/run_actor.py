"""The owner of one run: creates its jobs, releases those whose needs are met, and ends it when they have.

What its jobs did is never stored here: it is read from their rows when the actor starts, and told by each job after its
commit. A notification that gets lost is found by the reconciler, which sends `Look`.
"""

from typing import Any

import msgspec
from loguru import logger

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import SYSTEM, TIMER, Cause, FirstState, JobCreated, JobRef
from deltaci.domain.ids import job_id
from deltaci.domain.job import Job
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.plan import Plan, PlannedJob, digest
from deltaci.domain.rerun import CARRIED_OVER_RULE
from deltaci.domain.run import JobSeen, Run, RunCommand, step, unblocked
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.orchestrator import paths
from deltaci.orchestrator.beats import cancel_of, run_writes, wake_outbox
from deltaci.orchestrator.messages import Accepted, Answer, DoJob, DoRun, Due, JobMoved, Look, Queued, UsePlan
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.stored import Stored
from deltaci.store.port import QueuedJob
from deltaci.store.writes import AddJob, SaveBlueprint, SavePlan, Write


class Progress:
    """What a run knows of its jobs, and who waits for whom; built once a life, then kept up to date."""

    def __init__(self, run: Run, loaded: tuple[Job, ...]) -> None:
        self.seen: dict[str, JobSeen] = {job.id: JobSeen(job.state, job.end_reason) for job in loaded}
        self.revisions: dict[str, int] = {job.id: job.revision for job in loaded}
        self.open_count = sum(not job.state.is_final for job in loaded)
        self.dependents: dict[str, list[JobRef]] = {}
        for ref in run.jobs:
            for need in ref.needs:
                self.dependents.setdefault(need, []).append(ref)

    def note(self, moved: JobMoved) -> bool:
        """Take in what a job told; False if it is older than what is known."""
        if self.revisions.get(moved.job_id, 0) >= moved.revision:
            return False
        was_final = self.seen[moved.job_id].state.is_final
        self.seen[moved.job_id] = moved.seen
        self.revisions[moved.job_id] = moved.revision
        if moved.seen.state.is_final and not was_final:
            self.open_count -= 1
        return True


class RunActor(Stored[Run | None]):
    """Owns one run; its state is None when there is no such run."""

    progress: Progress

    def __init__(self, run_id: str, ports: Ports) -> None:
        super().__init__(ports)
        self.run_id = run_id

    async def load(self) -> Run | None:
        """The committed run, and the committed states of its jobs."""
        run = await self.ports.store.load_run(self.run_id)
        if run is not None:
            loaded = await self.ports.store.jobs_of_run(run.id) if run.jobs else ()
            self.progress = Progress(run, loaded)
        return run

    def nothing(self) -> None:
        """No run."""

    def is_final(self) -> bool:
        """A run that is over needs no actor."""
        return self.state is None or self.state.state.is_final

    def describe_state(self) -> str:
        """The run's state."""
        return "unknown" if self.state is None else str(self.state.state)

    @staticmethod
    def is_urgent(message: Any) -> bool:
        """A cancel overtakes what the jobs have to tell."""
        return isinstance(message, DoRun) and isinstance(message.command, runs.RequestCancel)

    async def act(self, message: Any) -> Any:
        """One command, through the four beats."""
        run = self.state
        if run is None:
            return Refusal(Why.NOT_FOUND, entity_id=self.run_id, at="nowhere", command=type(message).__name__)
        match message:
            case JobMoved():
                return await self._job_moved(run, message)
            case DoRun():
                return await self._do(run, message.command, message.cause)
            case UsePlan():
                return await self._use(run, message.plan)
            case Due():
                answer = await self._do(run, runs.Tick(), TIMER)
                return answer if isinstance(answer, Refusal) else await self._look()
            case Look():
                return await self._look()
        raise TypeError(f"run {self.run_id} was sent {type(message).__name__}")

    async def _do(self, run: Run, command: RunCommand, cause: Cause) -> Answer[Run]:
        decision = step(run, command, now_ms=self.ports.clock.now_ms())
        if isinstance(decision, Refusal):
            self.ports.observer.refused(decision.command, decision.why)
            return decision
        if decision.events:
            await self._commit(run_writes(decision, run.revision, cause, self.ports), decision)
            if decision.state.state is RunState.CANCEL_REQUESTED:
                self._cancel_jobs(decision.state)
        return Accepted(decision.state)

    async def _commit(self, writes: list[Write], decision: Any) -> None:
        before = self.state
        await self.ports.store.commit(writes)
        self.state = decision.state
        self.ports.observer.committed(decision.events)
        wake_outbox(writes, self.ports)
        if before is None or before.state is not decision.state.state:
            reason = decision.state.end_reason or ""
            logger.bind(run=self.run_id).info("run is {} {}", decision.state.state, reason)

    # ---- the plan becomes jobs -----------------------------------------------------------------------------------

    async def _use(self, run: Run, plan: Plan) -> Answer[Run]:
        ids = {planned.name: job_id(run.id, index) for index, planned in enumerate(plan.jobs)}
        refs = tuple(
            JobRef(
                id=ids[planned.name],
                name=planned.name,
                is_required=planned.policy == "required",
                needs=tuple(ids[need] for need in planned.needs),
            )
            for planned in plan.jobs
        )
        now_ms = self.ports.clock.now_ms()
        blueprint, plan = plan.blueprint, msgspec.structs.replace(plan, blueprint=None)
        plan_digest = digest(plan)
        adopt = runs.AdoptPlan(
            plan_digest=plan_digest,
            jobs=refs,
            has_blueprint=blueprint is not None,
            is_notifying=bool(plan.notify) and not run.trigger.is_fork,  # strangers make no noise here
        )
        decision = step(run, adopt, now_ms=now_ms)
        if isinstance(decision, Refusal):
            return decision
        cause = Cause("system", "planner")
        events = first_events(run, plan, refs, now_ms)
        added = tuple(jobs.created(event) for event in events)
        writes = run_writes(decision, run.revision, cause, self.ports)
        if await self.ports.store.load_plan(run.id) is None:
            writes.append(SavePlan(run_id=run.id, plan=plan, digest=plan_digest))
        if blueprint is not None:
            writes.append(SaveBlueprint(run_id=run.id, blueprint=blueprint))
        for job, planned, ref, event in zip(added, plan.jobs, refs, events, strict=True):
            writes.append(AddJob(job=job, planned=planned, needs=ref.needs, events=(event,), cause=cause))
        await self._commit(writes, decision)
        self.ports.observer.committed(events)
        self.progress = Progress(decision.state, added)
        queued = tuple(QueuedJob.of(job) for job in added if job.state is JobState.QUEUED)
        if queued:
            self.ports.tell(paths.DISPATCH, Queued(jobs=queued))
        return await self._advance(decision.state)

    # ---- the jobs move the run -----------------------------------------------------------------------------------

    async def _job_moved(self, run: Run, moved: JobMoved) -> Answer[Run]:
        if moved.job_id not in self.progress.seen or not self.progress.note(moved):
            return Accepted(run)
        if moved.seen.state.is_final and run.cancel is None:
            self._unblock(run, self.progress.dependents.get(moved.job_id, []))
        if self.progress.open_count == 0 or run.state is RunState.QUEUED:
            return await self._advance(run)
        return Accepted(run)

    async def _advance(self, run: Run) -> Answer[Run]:
        return await self._do(run, runs.Advance(jobs=self.progress.seen), SYSTEM)

    async def _look(self) -> Answer[Run]:
        self.state = run = await self.load()
        if run is None or run.state.is_final:
            return Refusal(Why.ILLEGAL_MOVE, entity_id=self.run_id, at=run.state if run else "nowhere", command="Look")
        if run.state is RunState.CANCEL_REQUESTED:
            self._cancel_jobs(run)
        else:
            self._unblock(run, list(run.jobs))
        return await self._advance(run)

    def _unblock(self, run: Run, candidates: list[JobRef]) -> None:
        release, skip = unblocked(run, self.progress.seen, candidates)
        for each in release:
            self._tell_job(each, DoJob(command=jobs.Release(), cause=SYSTEM))
        for each, need in skip.items():
            command = jobs.Skip(reason=EndReason.NEEDS_FAILED, detail=f"needs {need}")
            self._tell_job(each, DoJob(command=command, cause=SYSTEM))

    def _cancel_jobs(self, run: Run) -> None:
        if run.cancel is None:
            return
        message = cancel_of(run, run.cancel, self.ports.clock.now_ms())
        for each, seen in self.progress.seen.items():
            if not seen.state.is_final and seen.state is not JobState.CANCEL_REQUESTED:
                self._tell_job(each, message)

    def _tell_job(self, each: str, message: DoJob) -> None:
        path = paths.job_path(each)
        assert path is not None, f"{each} is no job id"
        self.ports.tell(path, message)


def first_events(run: Run, plan: Plan, refs: tuple[JobRef, ...], now_ms: int) -> tuple[JobCreated, ...]:
    """The first event of each job of `plan`: skipped, queued at once, or blocked by what it needs."""
    skipped = {ref.id for ref, planned in zip(refs, plan.jobs, strict=True) if planned.is_skipped}
    events = []
    for ref, planned in zip(refs, plan.jobs, strict=True):
        state, reason = _first_state(ref, planned, skipped)
        events.append(
            JobCreated(
                at_ms=now_ms,
                job_id=ref.id,
                run_id=run.id,
                repo_id=run.key.repo_id,
                name=ref.name,
                is_required=ref.is_required,
                labels=planned.labels,
                priority=planned.priority,
                retries=planned.retries,
                timeout_ms=planned.timeout_ms,
                state=state,
                end_reason=reason,
                concurrency=planned.concurrency or "",
            )
        )
    return tuple(events)


def _first_state(ref: JobRef, planned: PlannedJob, skipped: set[str]) -> tuple[FirstState, EndReason | None]:
    if planned.is_skipped:
        is_carried = any(reason.rule == CARRIED_OVER_RULE for reason in planned.reasons)
        return JobState.SKIPPED, EndReason.CARRIED_OVER if is_carried else EndReason.NOT_AFFECTED
    if all(need in skipped for need in ref.needs):
        return JobState.QUEUED, None
    return JobState.BLOCKED, None
