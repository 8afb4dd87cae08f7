"""The reporter through its real client, against a GitHub that enforces its own description, rates and limits.

The clock is the test's: waiting takes no time, and what GitHub allows in a minute it allows in a minute of that clock.
"""

import random
from collections.abc import Callable

import msgspec
import pytest

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.forge.budget import WriteBudget
from deltaci.reporter.checks import CheckResults
from deltaci.reporter.reporter import StatusReporter
from tests.forge.github_world import World, a_world
from tests.forge.servers.wire import RESET, Asked, Fault
from tests.reporter.committed import Committed, ended, jobs_of, run_of

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

MINUTE_MS = 60_000
SUCCEEDED, FAILED, RUNNING = JobState.SUCCEEDED, JobState.FAILED, JobState.RUNNING
ORDER = ("queued", "in_progress", "")  # what is last is a conclusion


def mishaps(share: float, seed: int) -> Callable[[Asked], Fault | None]:
    """So many requests go wrong, in one way or another; of some that fail, what was asked was done."""
    chance = random.Random(seed)
    ways = [Fault(status=502), Fault(status=500, is_done=True), RESET, Fault("reset", is_done=True)]
    return lambda _: chance.choice(ways) if chance.random() < share else None


async def told(world: World, store: Committed, run_id: str, budget: WriteBudget) -> int:
    """Report until nothing is left; how long that took, in milliseconds of the world's clock."""
    reporter = StatusReporter(
        store, {"github": CheckResults(world.api)}, "https://ci.example.com", world.time, budget=budget
    )
    began_ms = world.time.at_ms
    while True:
        try:
            await reporter.report(run_id)
        except ForgeUnavailable as error:
            world.time.at_ms += error.retry_after_ms or 1_000
        else:
            return world.time.at_ms - began_ms


def committed(world: World, jobs: int, state: JobState = JobState.QUEUED) -> Committed:
    """A store with one run, of the head of the shop, whose jobs are all in one state."""
    store, run = Committed(), run_of(1)
    run = msgspec.structs.replace(
        run,
        key=msgspec.structs.replace(run.key, commit_sha=world.head),
        trigger=msgspec.structs.replace(run.trigger, commit_sha=world.head),
    )
    store.repo = msgspec.structs.replace(world.repo, report_to="")
    store.add(run, *jobs_of(run, jobs, state))
    world.shop.open_pull(run.key.pr_number or 0, world.head)
    return store


def end(store: Committed, jobs: int, *failed: int) -> None:
    """All jobs are over, and with them the run."""
    run = store.runs["run_1"]
    store.move(run.id, *jobs_of(run, jobs, SUCCEEDED, EndReason.SUCCEEDED))
    lost = jobs_of(run, jobs, FAILED, EndReason.STEP_FAILED)
    store.move(run.id, *(lost[number] for number in failed))
    is_bad = bool(failed)
    state, reason = (RunState.FAILED, EndReason.JOBS_FAILED) if is_bad else (SUCCEEDED, EndReason.SUCCEEDED)
    store.move(run.id, run=ended(run, RunState(state), reason))


def conclusions(world: World) -> dict[str, str | None]:
    return {name: check["conclusion"] for name, check in world.shop.checks_of(world.head).items()}


def backwards(world: World) -> list[str]:
    """The names of checks whose states were ever seen to go back."""
    found = []
    for name in world.shop.checks_of(world.head):
        ranks = [ORDER.index(state) if state in ORDER else 2 for state in world.shop.states_of(name)]
        found += [name] * (ranks != sorted(ranks))
    return found


@pytest.mark.parametrize("share", [0.0, 0.08])
async def test_300_jobs_are_told_within_ten_minutes(share: float) -> None:
    """Each check once, whatever goes wrong, in requests that GitHub's own description accepts."""
    budget = WriteBudget()
    async with a_world(budget=budget) as world:
        world.github.fault_of = mishaps(share, 3)
        store = committed(world, 300)
        await told(world, store, "run_1", budget)
        end(store, 300, 17, 299)

        took_ms = await told(world, store, "run_1", budget)

        shown = conclusions(world)
        assert took_ms < 10 * MINUTE_MS
        assert {name for name, one in shown.items() if one == "failure"} == {
            "deltaci", "deltaci/j17", "deltaci/j299",
        }  # fmt: skip
        assert list(shown.values()).count("success") == 298
        assert len(world.shop.checks) == 301
        assert backwards(world) == []
        assert world.github.limits.refused == 0
        assert len(world.shop.comments) == 1


async def test_ten_jobs_are_told_within_ten_seconds_and_on_their_way() -> None:
    """And a report when nothing changed asks for nothing."""
    budget = WriteBudget()
    async with a_world(budget=budget) as world:
        store = committed(world, 10)
        await told(world, store, "run_1", budget)
        store.move("run_1", *jobs_of(store.runs["run_1"], 10, RUNNING))
        await told(world, store, "run_1", budget)
        end(store, 10)

        took_ms = await told(world, store, "run_1", budget)
        asked = len(world.github.asked)
        await told(world, store, "run_1", budget)

        assert took_ms < 10_000
        assert world.shop.states_of("deltaci/j3") == ["queued", "in_progress", "success"]
        assert list(conclusions(world).values()) == ["success"] * 11
        assert len(world.github.asked) == asked


async def test_a_cut_connection_and_a_request_to_wait_only_delay() -> None:
    """GitHub hangs up, then asks for patience, as it does of those who write too much."""
    budget = WriteBudget()
    async with a_world(budget=budget) as world:
        store = committed(world, 3)
        end(store, 3)
        wait = Fault(status=403, body=b'{"message": "You have exceeded a secondary rate limit"}')
        world.github.fail_next(RESET, wait, on="POST /repos/acme/shop/check-runs")

        await told(world, store, "run_1", budget)

        assert list(conclusions(world).values()) == ["success"] * 4


async def test_a_repository_that_is_gone_is_a_refusal_and_no_endless_try() -> None:
    """Whoever looks at the run reads why."""
    budget = WriteBudget()
    async with a_world(budget=budget) as world:
        store = committed(world, 2)
        world.shop.is_gone = True

        with pytest.raises(ForgeRejected, match="acme/shop"):
            await told(world, store, "run_1", budget)
        assert len(world.github.asked) < 10
