"""What a server has still to do: nothing of it is wrong right after a commit, all of it is once there was time.

For whoever knows that faults are over and the last one is long enough ago. This is the part of liveness that can be
read off the tables; that it comes to pass within a bound is for those to say who hold the clock.
"""

from collections.abc import Iterator
from typing import Final

from deltaci.domain import run as runs
from deltaci.domain.run import JobSeen
from deltaci.domain.states import JobState, RunState
from deltaci.invariants.past import Past
from deltaci.invariants.rules import Found, Rule
from deltaci.store.port import Rows


def run_ended(past: Past, rows: Rows, _now_ms: int, _late_ms: int) -> Iterator[Found]:
    """A run whose jobs have all ended has ended."""
    run = rows.run.run
    if rows.jobs and not run.state.is_final and all(row.job.state.is_final for row in rows.jobs):
        yield Found(f"it is {run.state} though all its jobs have ended", past.ids(run.id), run.id)


def jobs_unblocked(past: Past, rows: Rows, _now_ms: int, _late_ms: int) -> Iterator[Found]:
    """A job whose needs are all over is queued or skipped; one failed need of several may wait for the others."""
    seen = {row.job.id: JobSeen(row.job.state, row.job.end_reason) for row in rows.jobs}
    if {*seen} != {ref.id for ref in rows.run.run.jobs}:
        return  # another rule's finding
    release, skip = runs.unblocked(rows.run.run, seen)
    needs = {ref.id: ref.needs for ref in rows.run.run.jobs}
    for job_id in (*release, *skip):
        if not all(seen[need].state.is_final for need in needs[job_id]):
            continue  # nobody looks for it before they are; who was told skips it at once
        yield Found("it is blocked though its needs are over", past.ids(job_id), job_id)


def cancel_told(past: Past, rows: Rows, _now_ms: int, _late_ms: int) -> Iterator[Found]:
    """A run's cancel has reached every job that has not ended."""
    run = rows.run.run
    if run.state is not RunState.CANCEL_REQUESTED:
        return
    for row in rows.jobs:
        if not row.job.state.is_final and row.job.state is not JobState.CANCEL_REQUESTED:
            yield Found(f"it is {row.job.state} though its run is canceled", past.ids(run.id, row.job.id), row.job.id)


def deadlines_kept(past: Past, rows: Rows, now_ms: int, late_ms: int) -> Iterator[Found]:
    """No deadline has passed without having been looked at."""
    everything = [(rows.run.run.id, rows.run.columns), *((row.job.id, row.columns) for row in rows.jobs)]
    for entity_id, columns in everything:
        if columns.due_at_ms is not None and columns.due_at_ms + late_ms < now_ms:
            text = f"it is {columns.state}; its deadline passed {now_ms - columns.due_at_ms} ms ago"
            yield Found(text, past.ids(entity_id), entity_id)


def effects_delivered(_past: Past, rows: Rows, now_ms: int, late_ms: int) -> Iterator[Found]:
    """What is due to the world has been delivered, or was refused for good."""
    for owed in rows.owed:
        if not owed.is_refused and owed.due_at_ms + late_ms < now_ms:
            text = f"{owed.effect.key} has been due for {now_ms - owed.due_at_ms} ms after {owed.tries} tries"
            yield Found(f"{text}: {owed.error}" if owed.error else text)


RULES: Final = (
    Rule(12, run_ended),
    Rule(12, jobs_unblocked),
    Rule(13, cancel_told),
    Rule(17, deadlines_kept),
    Rule(19, effects_delivered),
)
