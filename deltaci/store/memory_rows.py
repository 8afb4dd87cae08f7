"""What a database would hold or find, from what the memory store keeps: rows, their journal, runs of one stream.

Rule: every column is derived from the snapshot, so that there is nothing here to disagree with it.
"""

from collections.abc import Iterable, Mapping, Sequence

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import PlannedJob
from deltaci.domain.run import Run
from deltaci.domain.states import JobState, RunState
from deltaci.domain.trust import approved_author
from deltaci.store.journal import Draft, drafts_of_events
from deltaci.store.port import Columns, JobRow, RunRow
from deltaci.store.writes import AddJob, SaveJob

_MOVED = (JobState.RUNNING, JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT)


def run_row(run: Run) -> RunRow:
    """What the row of a run says beside its snapshot."""
    columns = Columns(
        state=run.state.value,
        revision=run.revision,
        due_at_ms=runs.deadline_ms(run),
        approved_author=approved_author(run),
    )
    return RunRow(run=run, columns=columns, key=run.key, attempt=run.attempt, stream=run.trigger.stream)


def job_row(job: Job, planned: PlannedJob, needs: tuple[str, ...]) -> JobRow:
    """What the row of a job says beside its snapshot; `needs` are the ids of the jobs that it waits for."""
    columns = Columns(
        state=job.state.value,
        revision=job.revision,
        due_at_ms=jobs.deadline_ms(job),
        queued_at_ms=job.attempts[-1].queued_at_ms if job.state is JobState.QUEUED else None,
        concurrency=job.concurrency,
    )
    return JobRow(job=job, columns=columns, planned=planned, needs=tuple(sorted(needs)))


def is_of_stream(run: Run, other: Run) -> bool:
    """Whether both runs are of one stream, of which the newest supersedes the others."""
    stream = run.trigger.stream
    return stream != "" and stream == other.trigger.stream and run.key.repo_id == other.key.repo_id


def newest_attempts(several: Iterable[Run]) -> tuple[Run, ...]:
    """The newest attempt under each key, oldest first."""
    newest: dict[RunKey, Run] = {}
    for run in several:
        known = newest.get(run.key)
        if known is None or known.attempt < run.attempt:
            newest[run.key] = run
    return tuple(sorted(newest.values(), key=lambda run: run.id))


def is_to_advance(run: Run, jobs_of_run: Sequence[Job], needs: Mapping[str, Sequence[str]]) -> bool:
    """Whether a live run missed a wake-up: by the states of its jobs it should have moved, or moved one of them.

    `needs` has, by job, the ids of those that it waits for.
    """
    states = {job.id: job.state for job in jobs_of_run}
    if states and all(state.is_final for state in states.values()):
        return True
    if run.state is RunState.QUEUED and any(state in _MOVED for state in states.values()):
        return True
    if run.state is RunState.CANCEL_REQUESTED:
        unreached = [state for state in states.values() if not state.is_final]
        if any(state is not JobState.CANCEL_REQUESTED for state in unreached):
            return True
    return any(
        state is JobState.BLOCKED and all(need not in states or states[need].is_final for need in needs[job_id])
        for job_id, state in states.items()
    )


def run_keys(run_id: str) -> frozenset[str]:
    """The keys under which something may be owed for a run itself."""
    return frozenset(f"{kind}:{run_id}" for kind in ("plan", "report", "recipe", "cancel", "notify"))


def drafts_of_job(write: SaveJob | AddJob, first: int) -> list[Draft]:
    """The journal's entries of a job's events, the first of them with sequence `first`."""
    return drafts_of_events(write.job.id, write.job.run_id, first, write.events, write.cause)
