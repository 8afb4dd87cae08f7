"""Every story that a run with two jobs, and one job with a clock, can live through; and the bugs that must be found.

Names of worlds and what each covers: `core.SCENARIOS`. The rules by number: `rules.RULES`.
"""

import sys
from typing import Any

import pytest

from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from tests.exploration.core import HELD, SCENARIOS, SMALL, Core, Flaws, Scenario
from tests.exploration.dispatch_copy import DispatchCopy
from tests.exploration.explorer import Size
from tests.exploration.owners import every_decision_checked
from tests.exploration.planted import BUGS, Bug, found
from tests.exploration.rules import RULES
from tests.exploration.timed_job import TimedJob

WITHOUT_A_STORY = 0


def _tell(name: str, size: Size) -> None:
    sys.stdout.write(f"{name}: {size.worlds:,} worlds, {size.moves:,} moves, {size.depth} deep, {size.seconds:.1f} s\n")


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_story_of_a_run_and_its_jobs_breaks_a_rule(scenario: Scenario) -> None:
    """Every rule in every world; from each a way to the end by timers and the reconciler alone, and by good runners.

    Where nothing has gone wrong for good, runners that help lead to success.
    """
    with every_decision_checked():
        core = Core(scenario, Flaws())
        explored = core.explore()

    _tell(scenario.name, explored.size)
    assert explored.size.worlds > 25_000
    assert {core.run_of(world).state for world in explored.worlds} == set(RunState)
    for moves in core.jobs:
        reached = {node.job.state for node in moves.nodes}
        assert reached >= set(JobState) - {JobState.BLOCKED, JobState.SKIPPED}
        assert max(len(node.job.attempts) for node in moves.nodes) == 3 + scenario.retries[0]
    held = [attempt for moves in core.jobs for node in moves.nodes for attempt in node.job.attempts]
    phases = {phase for habits in scenario.habits for phase in habits.phases}
    assert {attempt.state for attempt in held} >= {AttemptState.LOST, AttemptState.STARTING, *phases}
    ended = {attempt.lease.state for attempt in held if attempt.lease is not None}
    assert ended >= set(LeaseState) - {LeaseState.CANCELED}  # a canceled job is known by one of its stories
    waiting = {JobState.BLOCKED, JobState.SKIPPED} if scenario.is_required[0] else {JobState.BLOCKED}
    assert not scenario.needs or waiting <= {node.job.state for node in core.jobs[1].nodes}


@pytest.mark.slow
def test_no_story_of_a_held_run_breaks_a_rule() -> None:
    """Approved at any time, again and again, or never; canceled before and after: it ends, and is planned if it may."""
    with every_decision_checked():
        core = Core(HELD, Flaws())
        explored = core.explore()

    _tell(HELD.name, explored.size)
    met = [core.run_of(world) for world in explored.worlds]
    assert {run.state for run in met if not run.approved_by} == {RunState.CREATED, RunState.CANCELED}
    assert {run.end_reason for run in met} >= {EndReason.NEVER_APPROVED, EndReason.SUCCEEDED, EndReason.RUN_TIMEOUT}
    assert {run.state for run in met if run.approved_by} == set(RunState)


@pytest.mark.slow
@pytest.mark.parametrize(("is_blocked", "retries"), [(True, 0), (False, 1)])
def test_no_story_of_a_job_with_a_clock_breaks_a_rule(is_blocked: bool, retries: int) -> None:
    """No window, deadline or timeout is kept a unit too short or too long; silence alone takes back every lease."""
    with every_decision_checked():
        explored = TimedJob(is_blocked=is_blocked, retries=retries).explore()

    _tell(f"one job with a clock, {retries} retries", explored.size)
    jobs = [world.job for world in explored.worlds]
    assert {job.state for job in jobs} >= set(JobState) - {JobState.BLOCKED, JobState.SKIPPED}
    assert max(len(job.attempts) for job in jobs) == 3 + retries
    assert explored.size.worlds > 5_000


@pytest.mark.parametrize(("running_max", "concurrency"), [(0, ""), (1, ""), (0, "deploy")])
def test_no_lost_or_late_notice_keeps_a_queued_job_from_its_runner(running_max: int, concurrency: str) -> None:
    """Looks alone bring the copy of dispatch right, and then each queued job is there for whoever may run it."""
    with every_decision_checked():
        explored = DispatchCopy(running_max=running_max, concurrency=concurrency).explore()

    _tell(f"dispatch, limit {running_max or 'none'}, group {concurrency or 'none'}", explored.size)
    assert {says for world in explored.worlds for says in world.copy} == {"", "queued", "held"}
    assert any(world.suspects for world in explored.worlds)
    assert explored.size.worlds > 2_000


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
def test_a_planted_bug_is_found_by_the_rule_that_it_breaks(bug: Bug) -> None:
    """An exploration that finds nothing must be known to be able to; its story is short enough to be read."""
    counterexample = found(bug)

    assert counterexample is not None
    sys.stdout.write(f"{bug.name}: {len(counterexample.story)} moves\n{counterexample}\n")
    assert counterexample.number == bug.rule, str(counterexample)
    assert 1 <= len(counterexample.story) <= bug.moves_max, str(counterexample)


@pytest.mark.parametrize("where", sorted({bug.where for bug in BUGS}))
def test_where_no_bug_is_planted_none_is_found(where: Any) -> None:
    """What finds the bugs is their planting, not the small world in which they are looked for."""
    assert found(Bug("none", WITHOUT_A_STORY, 0, where=where)) is None


def test_every_rule_is_known_to_be_able_to_break() -> None:
    """A rule that no planted bug breaks may be one that cannot."""
    assert {bug.rule for bug in BUGS} == set(RULES) - {WITHOUT_A_STORY}
    assert len({bug.name for bug in BUGS}) == len(BUGS)


def test_a_world_that_does_not_fit_is_an_error_and_no_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is cut off in silence."""
    monkeypatch.setattr("tests.exploration.core.WORLDS_MAX", 100)

    with every_decision_checked(), pytest.raises(AssertionError, match="more than 100 worlds"):
        Core(SMALL, Flaws()).explore()
