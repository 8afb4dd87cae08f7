"""The second beat of every change: what a decision stores, as the writes of one commit."""

import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain.effects import Effect, ReportRun
from deltaci.domain.events import Cause
from deltaci.domain.job import Job
from deltaci.domain.machine import Step
from deltaci.domain.run import CancelIntent, Run
from deltaci.orchestrator import paths
from deltaci.orchestrator.messages import DoJob, Wake
from deltaci.orchestrator.ports import Ports
from deltaci.store.writes import Owe, SaveJob, SaveRun, Write


def run_writes(step: Step[Run], expected_revision: int, cause: Cause, ports: Ports) -> list[Write]:
    """The run's snapshot, its events, and the effects it owes."""
    save = SaveRun(run=step.state, expected_revision=expected_revision, events=step.events, cause=cause)  # type: ignore[arg-type]  # a run's step holds run events
    return [save, *owed(step.effects, step.state.key.repo_id, ports)]


def job_writes(
    step: Step[Job], expected_revision: int, cause: Cause, ports: Ports, *, is_grant: bool = False
) -> list[Write]:
    """The job's snapshot, its events, and the effects it owes."""
    save = SaveJob(
        job=step.state,
        expected_revision=expected_revision,
        events=step.events,  # type: ignore[arg-type]  # a job's step holds job events
        cause=cause,
        is_grant=is_grant,
    )
    return [save, *owed(step.effects, step.state.repo_id, ports)]


def cancel_of(run: Run, cancel: CancelIntent, now_ms: int) -> DoJob:
    """What a run whose cancel is stored has to tell each of its jobs."""
    within_ms = max(0, cancel.by_ms - now_ms)
    command = jobs.RequestCancel(reason=cancel.reason, within_ms=within_ms, detail=cancel.detail)
    return DoJob(command=command, cause=Cause("system", run.id, via=cancel.reason))


def wake_outbox(writes: Iterable[Write], ports: Ports) -> None:
    """Tell the relay which kinds of effects these writes owe; it looks for all of them from time to time anyway."""
    for kind in {type(write.effect): None for write in writes if isinstance(write, Owe)}:
        ports.tell(paths.OUTBOX, Wake(kind=kind))


def sha256_of(request: Any) -> str:
    """Names a request by its content: what an idempotency key stands for."""
    return hashlib.sha256(msgspec.json.encode(request)).hexdigest()


def owed(effects: Iterable[Effect], repo_id: str, ports: Ports) -> list[Write]:
    """The effects as outbox rows, due at once; a report of a repository that reports nowhere is owed to nobody."""
    now_ms = ports.clock.now_ms()
    return [
        Owe(effect=effect, due_at_ms=now_ms)
        for effect in effects
        if not isinstance(effect, ReportRun) or ports.is_reported(repo_id)
    ]
