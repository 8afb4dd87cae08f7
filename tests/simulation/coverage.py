"""What the simulation reached: each (state, command) of the machines, and what happened to the commit that followed.

Rule: a situation that no seed reaches is a situation that is not tested; the report names those, from the same tables
that the machines decide by.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Final

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.machine import Refusal
from deltaci.orchestrator import job_actor, run_actor
from deltaci.store.prepare import Prepared
from deltaci.store.writes import SaveJob, SaveRun, Write
from tests.simulation.world import World

FATES: Final = (
    "stored",
    "not stored",
    "stored, unknown",
    "killed before the commit",
    "killed in the transaction",
    "killed after the commit",
    "crashed before the commit",
    "crashed after the commit",
)

# What no world can reach, and why.
UNREACHABLE: Final[Mapping[tuple[str, str], str]] = {
    ("job BLOCKED", "Tick"): "a job that waits for others has no deadline",
    ("job SKIPPED", "Tick"): "it never had one",
    ("run CREATED", "Advance"): "a run without jobs has nothing to tell it",
    ("run PLANNING", "Advance"): "the same",
}
# Decided while a backup is restored, by a database at rest: no owner is there.
AT_REST: Final = (jobs.Revoke, runs.Restore)

# (entity, its state, the command) of the last decision made in this task
_deciding: ContextVar[tuple[str, str, str]] = ContextVar("deciding", default=("", "", ""))
_under_way: dict[int, tuple[str, str]] = {}


@contextmanager
def counting(world: World) -> Iterator[None]:
    """Count every decision that the two machines make in this world."""
    job_step, run_step = job_actor.step, run_actor.step

    def of_job(job: jobs.Job, command: Any, *, now_ms: int) -> Any:
        return _counted(world, job.id, f"job {job.state}", command, job_step(job, command, now_ms=now_ms))

    def of_run(run: runs.Run, command: Any, *, now_ms: int) -> Any:
        return _counted(world, run.id, f"run {run.state}", command, run_step(run, command, now_ms=now_ms))

    job_actor.step, run_actor.step = of_job, of_run  # type: ignore[assignment]
    try:
        yield
    finally:
        job_actor.step, run_actor.step = job_step, run_step
        _under_way.clear()


def _counted(world: World, entity_id: str, state: str, command: Any, decision: Any) -> Any:
    name = type(command).__name__
    fate = f"refused: {decision.why}" if isinstance(decision, Refusal) else "decided"
    world.covered[state, name, fate] += 1
    _deciding.set((entity_id, state, name))
    return decision


def note(world: World, writes: Sequence[Write], fate: str) -> None:
    """The commit of a decision met this fate."""
    for write in writes:
        if (decided := _decided(write)) is not None:
            world.covered[(*decided, fate)] += 1


def remember(writes: Sequence[Write]) -> None:
    """This commit is on its way to the writer, who does not know what decided it."""
    for write in writes:
        if (decided := _decided(write)) is not None:
            _under_way[id(write)] = decided


def forget(writes: Sequence[Write]) -> None:
    """The writer has answered."""
    for write in writes:
        _under_way.pop(id(write), None)


def hit(world: World, batch: Sequence[Prepared], fate: str) -> None:
    """All commits of this batch met that fate."""
    for prepared in batch:
        for condition in prepared.conditions:
            if (decided := _under_way.get(id(condition.write))) is not None:
                world.covered[(*decided, fate)] += 1


def _decided(write: Write) -> tuple[str, str] | None:
    """The state and command behind a write, if it is what this task decided last."""
    entity_id, state, command = _deciding.get()
    written = write.job.id if isinstance(write, SaveJob) else write.run.id if isinstance(write, SaveRun) else ""
    return (state, command) if written and written == entity_id else None


def never_reached(covered: dict[tuple[str, str, str], int]) -> list[str]:
    """Legal (state, command) pairs that were never decided, and fates that no commit of a machine ever met."""
    reached = {(state, command) for state, command, _ in covered}
    missing = [
        f"{machine} {state} <- {command.__name__}"
        for machine, table in (("job", jobs.LEGAL_IN), ("run", runs.LEGAL_IN))
        for command, states in table.items()  # type: ignore[attr-defined]
        if command not in AT_REST
        for state in sorted(states)
        if (f"{machine} {state}", command.__name__) not in reached | UNREACHABLE.keys()
    ]
    fates = {fate for _, _, fate in covered}
    return missing + [f"no commit was {fate}" for fate in FATES if fate not in fates]
