"""Every story of a run of three or four jobs in every shape, with every mix of required and allowed to fail.

The run is decided by the production function; its jobs move as their table allows, in any order. What the run tells its
jobs (release, skip, cancel) may arrive at any time later, what they tell the run is their committed state.
"""

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator
from typing import NamedTuple

import pytest

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import JobRef
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import EndReason, JobState, RunState
from tests.domain.builders import HOLD_WITHIN_MS, RUN_TIMEOUT_MS, a_held_run, a_run, ref
from tests.exploration.explorer import Explored, explore
from tests.exploration.rules import check_run, check_run_step

SHAPES = {
    "chain": {"a": (), "b": ("a",), "c": ("b",)},
    "fork": {"a": (), "b": ("a",), "c": ("a",)},
    "join": {"a": (), "b": (), "c": ("a", "b")},
    "diamond": {"a": (), "b": ("a",), "c": ("a",), "d": ("b", "c")},
    "triangle": {"a": (), "b": ("a",), "c": ("a", "b")},
}
RUN_CANCELED = "the run is canceled"
RUN_TIME_UP = "the run's time is up"
STEPS = (
    ("lease", EndReason.SUCCEEDED),
    ("requeue", EndReason.SUCCEEDED),
    ("request_cancel", EndReason.USER_CANCELED),
    ("cancel", EndReason.USER_CANCELED),
    ("succeed", EndReason.SUCCEEDED),
    ("fail", EndReason.STEP_FAILED),
    ("time_out", EndReason.JOB_TIMEOUT),
)


class World(NamedTuple):
    """A run, what is committed of its jobs, and the orders to them that are still on the way."""

    run: Run
    jobs: tuple[JobSeen, ...]
    orders: frozenset[tuple[str, int]] = frozenset()


# ---- what may happen ---------------------------------------------------------------------------------------------


def _moves(plan: tuple[JobRef, ...]) -> Callable[[World], Iterator[tuple[str, Callable[[], World | None]]]]:
    def moves(world: World) -> Iterator[tuple[str, Callable[[], World | None]]]:
        do = functools.partial(functools.partial, _decided, world)
        yield "planning starts", do(runs.StartPlanning())
        yield "the plan cannot be made", do(runs.FailPlan(text="no"))
        yield "the plan arrives", do(runs.AdoptPlan(plan_digest="plan_1", jobs=plan))
        yield RUN_CANCELED, do(runs.RequestCancel(reason=EndReason.SUPERSEDED))
        yield "a backup is restored", do(runs.Restore(), now_ms=1)
        yield RUN_TIME_UP, do(runs.Tick(), now_ms=HOLD_WITHIN_MS if runs.is_held(world.run) else RUN_TIMEOUT_MS)
        yield "somebody approves it", do(runs.Approve(by="alice"))
        if not world.run.jobs:
            return
        yield "the run looks at its jobs", do(runs.Advance(jobs=_seen(world)))
        yield "orders are sent", lambda: world._replace(orders=world.orders | _orders(world))
        for order in sorted(world.orders):
            yield f"{order[0]} reaches {plan[order[1]].name}", functools.partial(_obeyed, world, order)
        for index, (name, reason) in itertools.product(range(len(world.jobs)), STEPS):
            move = jobs.MOVES[name]
            if world.jobs[index].state in move.sources:
                yield f"{plan[index].name}: {name}", functools.partial(_with_job, world, index, move.target, reason)

    return moves


def _decided(world: World, command: runs.RunCommand, *, now_ms: int = 0) -> World | None:
    before = world.run
    answer = runs.step(before, command, now_ms=now_ms)
    check_run_step(before, command, answer)
    if isinstance(answer, Refusal):
        if runs.is_held(before) and isinstance(command, runs.StartPlanning):
            assert answer.why is Why.NOT_APPROVED, answer.text
            return None
        assert before.state not in runs.LEGAL_IN[type(command)], answer.text
        return None
    after = answer.state
    committed = world.jobs
    if after.jobs and not before.jobs:
        committed = tuple(JobSeen(JobState.BLOCKED if job.needs else JobState.QUEUED) for job in after.jobs)
    return World(after, committed, world.orders)


def _orders(world: World) -> frozenset[tuple[str, int]]:
    """What the run would tell its jobs now."""
    run = world.run
    if run.state is RunState.CANCEL_REQUESTED:
        live = (index for index, job in enumerate(world.jobs) if not job.state.is_final)
        return frozenset(("cancel", index) for index in live)
    release, skip = runs.unblocked(run, _seen(world))
    index = {job.id: number for number, job in enumerate(run.jobs)}
    return frozenset([("release", index[each]) for each in release] + [("skip", index[each]) for each in skip])


def _obeyed(world: World, order: tuple[str, int]) -> World:
    """An order arrives, once or again: one that no longer fits its job changes nothing."""
    name, index = order
    state = world.jobs[index].state
    if name == "cancel" and state is JobState.RUNNING:
        name = "request_cancel"
    move = jobs.MOVES[name]
    if state not in move.sources or (name == "cancel" and state is JobState.CANCEL_REQUESTED):
        return world
    return _with_job(world, index, move.target, EndReason.NEEDS_FAILED if name == "skip" else EndReason.USER_CANCELED)


def _with_job(world: World, index: int, state: JobState, reason: EndReason) -> World:
    changed = JobSeen(state, reason if state.is_final else None)
    orders = world.orders
    if state.is_final:  # orders to a job that is over change nothing: forget them, there are enough worlds
        orders = frozenset(order for order in orders if order[1] != index)
    return World(world.run, (*world.jobs[:index], changed, *world.jobs[index + 1 :]), orders)


def _seen(world: World) -> dict[str, JobSeen]:
    return {job.id: seen for job, seen in zip(world.run.jobs, world.jobs, strict=True)}


def _check(world: World) -> None:
    check_run(world.run, _seen(world))


# ---- exploring ---------------------------------------------------------------------------------------------------


def _key(world: World) -> Hashable:
    run = world.run
    approval = (run.hold, run.approved_by)
    cancel = run.cancel and run.cancel.reason
    return (run.state, run.end_reason, cancel, approval, bool(run.jobs), world.jobs, world.orders)


def _plans() -> Iterator[tuple[str, tuple[JobRef, ...]]]:
    for shape, needs in SHAPES.items():
        for mix in itertools.product([True, False], repeat=len(needs)):
            policies = zip(needs, mix, strict=True)
            plan = tuple(ref(name, *needs[name], is_required=is_required) for name, is_required in policies)
            yield shape + "-" + "".join("r" if is_required else "o" for is_required in mix), plan


PLANS = dict(_plans())


def explored(plan: tuple[JobRef, ...]) -> Explored[World]:
    """Every world of a run of this plan; raises the story of a broken rule."""
    first = [World(run, ()) for run in (a_run(RunState.CREATED), a_held_run())]
    found = explore(first, _moves(plan), key=_key, check=_check, worlds_max=100_000)
    found.require_a_way_to(lambda world: world.run.state.is_final)
    found.require_a_way_to(
        lambda world: world.run.state.is_final or world.run.cancel is not None,
        by=lambda name: name not in (RUN_CANCELED, RUN_TIME_UP) and "cancel" not in name,
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("plan", list(PLANS.values()), ids=list(PLANS))
def test_no_story_of_a_run_breaks_a_rule(plan: tuple[JobRef, ...]) -> None:
    """Every rule holds in every world, and from each there is a way to the end, also if nobody cancels."""
    found = explored(plan)

    assert {world.run.state for world in found.worlds} >= set(RunState) - {RunState.TIMED_OUT}
