"""The repair of a restored database: the world went on after the backup was made, and the database does not know how.

Rule: every change is a commit through the store port, decided by the machines, after an audit record that names the
      last entry of the backup: the story has a seam, and no hole.

What the lost time may have brought, and what becomes of it:

- A lease may have been told "stored" of what is gone, or have ended. It is revoked, and its job queued again.
- A run's time has passed while it could not run: it counts anew.
- A forge may show what nobody knows any more: what it was told is forgotten, and the runs are reported again.
- Debts that were settled are owed again, deliveries and requests that were answered are unknown again: their receivers
  and senders are idempotent, and nothing has to be done.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.effects import Effect, ReportRun
from deltaci.domain.events import Cause
from deltaci.domain.job import Job
from deltaci.domain.machine import Refusal, Step
from deltaci.domain.repo import is_reported
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import RunState
from deltaci.store.backup import Manifest
from deltaci.store.port import Store
from deltaci.store.writes import Audit, Owe, Reported, SaveJob, SaveRun, Write

E = TypeVar("E", Run, Job)

PAGE: Final = 200
WRITES_AT_ONCE: Final = 500
CAUSE: Final = Cause("system", "restore")


class Repaired(msgspec.Struct):
    """What was changed because the world went on."""

    leases_revoked: int = 0
    runs_restored: int = 0
    runs_to_report: int = 0


async def repair(store: Store, manifest: Manifest, *, now_ms: int, report_since_ms: int) -> Repaired:
    """Make the restored database fit a world that went on.

    Args:
        report_since_ms: runs created from this instant on are reported again also if they are over: somebody may have
            run them again since, and the forge shows what came of it.
    """
    made = manifest.contents
    restored = Audit(
        at_ms=now_ms,
        cause=CAUSE,
        type="Restored",
        details={
            "last_entry": str(made.journal_entries),
            "last_hash": made.journal_hash,
            "backup_made_at_ms": str(manifest.made_at_ms),
        },
    )
    await store.commit((restored,))
    repaired = Repaired()
    reported = {repo.id for repo in await store.repos() if is_reported(repo)}
    waiting: list[Write] = []
    # The oldest first: of the runs of one commit the newest has the last word at the forge.
    for run_id in sorted({run.id async for run in _concerned(store, report_since_ms)}):
        waiting += await _writes(store, run_id, repaired, now_ms=now_ms, reported=reported)
        if len(waiting) >= WRITES_AT_ONCE:
            await store.commit(waiting)
            waiting = []
    if waiting:
        await store.commit(waiting)
    return repaired


async def _concerned(store: Store, since_ms: int) -> AsyncIterator[Run]:
    """Live runs, and those created since an instant."""
    for state in (state for state in RunState if not state.is_final):
        async for run in _pages(store, state):
            yield run
    async for run in _pages(store, None):
        if run.created_at_ms < since_ms:
            return
        yield run


async def _pages(store: Store, state: RunState | None) -> AsyncIterator[Run]:
    before: str | None = None
    while page := await store.list_runs(state=state, before=before, limit=PAGE):
        for summary in page:
            yield summary.run
        before = page[-1].run.id


async def _writes(store: Store, run_id: str, repaired: Repaired, *, now_ms: int, reported: set[str]) -> Sequence[Write]:
    """What changes of a run, its jobs, and what the forge is owed of them."""
    run = await store.load_run(run_id)
    assert run is not None, f"{run_id} was listed and is not there"
    writes: list[Write] = []
    effects: dict[str, Effect] = {}
    seen: dict[str, JobSeen] = {}
    for job in await store.jobs_of_run(run_id):
        after = job
        if job.state in jobs.STARTED:
            revoked = _accepted(jobs.step(job, jobs.Revoke(), now_ms=now_ms))
            after = revoked.state
            save = SaveJob(job=after, expected_revision=job.revision, events=revoked.events, cause=CAUSE)  # type: ignore[arg-type]  # a job's step holds job events
            writes.append(save)
            effects |= {effect.key: effect for effect in revoked.effects}
            repaired.leases_revoked += 1
        seen[job.id] = JobSeen(after.state, after.end_reason)
    given_back = _accepted(runs.step(run, runs.Restore(), now_ms=now_ms))
    repaired.runs_restored += bool(given_back.events)
    # What was about to be canceled ended with its last lease.
    advanced = _accepted(runs.step(given_back.state, runs.Advance(jobs=seen), now_ms=now_ms))
    if events := (*given_back.events, *advanced.events):
        writes.append(SaveRun(run=advanced.state, expected_revision=run.revision, events=events, cause=CAUSE))  # type: ignore[arg-type]  # a run's step holds run events
    effects |= {effect.key: effect for effect in advanced.effects}
    report = ReportRun(run_id)
    effects.pop(report.key, None)
    if run.key.repo_id in reported:
        repaired.runs_to_report += 1
        effects[report.key] = report
        # What was told last is not known: no digest is empty, so all of it is told again.
        told = await store.reported(run_id)
        writes += [Reported(run_id=run_id, check=check_name, digest="", at_ms=now_ms) for check_name in told]
    return [*writes, *(Owe(effect=effect, due_at_ms=now_ms) for effect in effects.values())]


def _accepted(answer: Step[E] | Refusal) -> Step[E]:
    assert isinstance(answer, Step), answer.text
    return answer
