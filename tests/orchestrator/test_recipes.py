"""The end of a run reaches the recipes of its repository, whoever crashes and whatever is told twice."""

from typing import Any

import anyio
import msgspec
import pytest

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.effects import KeepRecipe
from deltaci.domain.events import Trigger
from deltaci.domain.recipe import Recipe
from deltaci.orchestrator.messages import Admit
from deltaci.store.memory import MemoryStore
from deltaci.store.port import Store
from deltaci.store.writes import Owe
from protocol import messages as wire
from tests.builders import a_project
from tests.orchestrator.faults import FaultyStore, assert_sound, insistently, nothing_owed, work_until_over
from tests.orchestrator.support import ME, ManualClock, Stage, a_job, a_repo, staged
from tests.orchestrator.test_recovery import Handle

pytestmark = pytest.mark.anyio

BLUEPRINT = Blueprint(fingerprint="f1", projects=(a_project(),))
COMMITS = 16


async def recipes(store: Store) -> list[Recipe]:
    return list(await store.recipes("repo_1"))


async def a_push(stage: Stage, number: int, *, exit_code: int = 0, **more: Any) -> str:
    """A push that ran to its end, and was heard."""
    run_id = await insistently(lambda: stage.push(f"{number:040x}", **more))
    runner = await insistently(stage.runner)
    run = await work_until_over(stage, runner, run_id, exit_codes={"test": exit_code})
    assert run.state == ("SUCCEEDED" if exit_code == 0 else "FAILED")
    await insistently(lambda: nothing_owed(stage.store))
    return run_id


async def test_success_keeps_failure_marks_and_the_next_success_brings_back() -> None:
    """Versions with their runs; nothing of what the plans were made from is left behind."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        stage.planner.blueprint = BLUEPRINT
        first = await a_push(stage, 1)
        made = await recipes(store)
        stage.planner.blueprint = Blueprint(fingerprint="f1", recipe=1)
        second = await a_push(stage, 2)
        confirmed = await recipes(store)
        third = await a_push(stage, 3, exit_code=1)
        stale = await recipes(store)
        stage.planner.blueprint = BLUEPRINT
        fourth = await a_push(stage, 4)
        again = await recipes(store)
        stage.planner.blueprint = msgspec.structs.replace(BLUEPRINT, fingerprint="f2")
        await a_push(stage, 5)
        await assert_sound(store)

    assert [("ACTIVE", first, "")] == [(one.state, one.made_by, one.confirmed_by) for one in made]
    assert [("ACTIVE", second)] == [(one.state, one.confirmed_by) for one in confirmed]
    assert [("STALE", third)] == [(one.state, one.failed_by) for one in stale]
    assert "test ended as FAILED" in stale[0].reason
    assert [(1, "ACTIVE", fourth, "")] == [(one.version, one.state, one.confirmed_by, one.reason) for one in again]
    assert [(one.version, one.state, one.fingerprint) for one in await recipes(store)] == [
        (2, "ACTIVE", "f2"),
        (1, "STALE", "f1"),
    ]
    told = [entry.type async for entry in store.journal() if entry.type.startswith("Recipe")]
    assert told == ["RecipeKept", "RecipeConfirmed", "RecipeStale", "RecipeConfirmed", "RecipeKept"]
    for summary in await store.list_runs():
        assert await store.blueprint(summary.run.id) is None
        plan = await store.load_plan(summary.run.id)
        assert plan is not None
        assert plan.blueprint is None


@pytest.mark.parametrize(
    "trigger",
    [
        {"kind": "pull_request", "pr_number": 7, "stream": "pr:7"},
        {"kind": "push", "is_fork": True},
        {"kind": "push", "ref": "refs/heads/feature"},
    ],
    ids=["pull-request", "fork", "branch"],
)
@pytest.mark.parametrize("exit_code", [0, 1])
async def test_what_is_not_pushed_to_the_default_branch_changes_no_recipe(
    trigger: dict[str, Any], exit_code: int
) -> None:
    """It may be planned from one; neither its success nor its failure counts."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        stage.planner.blueprint = BLUEPRINT
        await a_push(stage, 1)
        before = await recipes(store)
        stage.planner.blueprint = (
            Blueprint(fingerprint="f9") if exit_code == 0 else Blueprint(fingerprint="f1", recipe=1)
        )
        what = Trigger(**{"ref": "refs/heads/main", "commit_sha": "e" * 40, **trigger})
        admitted = await stage.orchestrator.admit(
            "repo_1", Admit(delivery_id="d", body_sha256="b", event="x", trigger=what, ignored=None)
        )
        assert admitted.run_id is not None
        await work_until_over(stage, await stage.runner(), admitted.run_id, exit_codes={"test": exit_code})
        await nothing_owed(store)

        assert before == await recipes(store)
        assert await store.blueprint(admitted.run_id) is None
        await assert_sound(store)


async def test_a_configuration_and_a_rerun_make_no_recipe() -> None:
    """One says itself what runs; the other is an old plan that somebody wants to see again."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        configured = await a_push(stage, 1)
        stage.planner.blueprint = BLUEPRINT
        failed = await a_push(stage, 2, exit_code=1)
        reply = await stage.orchestrator.rerun(failed, ME, is_failed_only=False, key="again")
        assert not hasattr(reply, "why")
        again = msgspec.json.decode(reply.body)["run_id"]  # type: ignore[union-attr]
        run = await work_until_over(stage, await stage.runner(), again)
        await nothing_owed(store)

    assert run.state == "SUCCEEDED"
    assert await recipes(store) == []
    assert await store.blueprint(configured) is None


async def test_a_run_that_is_stopped_leaves_the_recipe_and_no_blueprint() -> None:
    """A cancel says nothing of the recipe."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        stage.planner.blueprint = BLUEPRINT
        await a_push(stage, 1)
        before = await recipes(store)
        stage.planner.blueprint = Blueprint(fingerprint="f1", recipe=1)
        stopped = await stage.push("b" * 40)
        await stage.run_until(stopped, "QUEUED")
        kept = await store.blueprint(stopped)
        await stage.orchestrator.cancel(stopped, ME)
        await stage.run_until(stopped, "CANCELED")
        await nothing_owed(store)
        await assert_sound(store)

    assert kept is not None
    assert await store.blueprint(stopped) is None
    assert before == await recipes(store)


async def test_a_recipe_that_was_forgotten_while_a_run_used_it_is_not_missed() -> None:
    """The run has nothing to say any more, and its debt is settled."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        stage.planner.blueprint = Blueprint(fingerprint="f1", recipe=9)
        run_id = await a_push(stage, 1)

    assert await recipes(store) == []
    assert await store.blueprint(run_id) is None


@pytest.mark.parametrize("fault", ["before", "after", "conflict"])
async def test_a_commit_that_fails_is_made_again_and_counts_once(fault: Any) -> None:
    """Stored or not, lost to another or not: in the end there is one version, of one revision."""
    inner = MemoryStore()
    store = FaultyStore(inner)
    async with staged(store, a_job()) as stage:
        stage.planner.blueprint = BLUEPRINT
        run_id = await stage.push()
        (lease,) = await stage.lease(await stage.runner())
        runner = await stage.runner()
        await stage.say(runner, wire.AckLease, lease)
        await stage.run_until(run_id, "RUNNING")
        plain = store.commit

        async def commit(writes: Any) -> None:
            if any(type(write).__name__ == "SaveRecipe" for write in writes) and not store.refused_commits:
                store.refused_commits += 1
                store.faults[store.commits + 1] = fault
            await plain(writes)

        store.commit = commit  # type: ignore[method-assign]
        await stage.say(runner, wire.Complete, lease, exit_code=0)
        await stage.run_until(run_id, "SUCCEEDED")
        with anyio.fail_after(5):
            while await inner.next_owed_at_ms() is not None:
                stage.clock.advance(1_000)
                await anyio.sleep(0.005)
        await assert_sound(inner)

    assert store.refused_commits >= 1
    assert [(1, 1, run_id)] == [(one.version, one.revision, one.made_by) for one in await recipes(inner)]


async def test_a_debt_that_is_told_again_changes_nothing() -> None:
    """At least once is what the outbox promises."""
    store = MemoryStore()
    async with staged(store, a_job()) as stage:
        stage.planner.blueprint = BLUEPRINT
        run_id = await a_push(stage, 1)
        before = await recipes(store)
        await store.commit((Owe(effect=KeepRecipe(run_id), due_at_ms=0),))
        await nothing_owed(store)

    assert before == await recipes(store)


async def one_life(store: Store, nth: int, clock: ManualClock, *, is_stored: bool) -> bool:
    """A run that makes a recipe, by a process that dies at a commit; False if it saw the end."""
    handle = Handle(store, nth, is_stored=is_stored)
    is_over = False
    with anyio.CancelScope() as life:
        async with anyio.create_task_group() as tasks:

            async def killer() -> None:
                await handle.died.wait()
                life.cancel()

            tasks.start_soon(killer)
            async with staged(handle, a_job(), clock=clock) as stage:
                stage.planner.blueprint = BLUEPRINT
                await a_push(stage, 1)
                is_over = True
            tasks.cancel_scope.cancel()
    return not is_over


async def test_the_recipe_is_kept_before_the_last_kill() -> None:
    """Otherwise the test below would leave the last commits out."""
    store = MemoryStore()

    assert not await one_life(store, COMMITS, ManualClock(), is_stored=True)
    assert len(await recipes(store)) == 1


@pytest.mark.parametrize("is_stored", [False, True])
@pytest.mark.parametrize("nth", range(2, COMMITS))
async def test_a_process_killed_at_a_commit_leaves_the_recipe_to_the_next(nth: int, is_stored: bool) -> None:
    """In the end the run was heard exactly once."""
    store, clock = MemoryStore(), ManualClock()
    await one_life(store, nth, clock, is_stored=is_stored)

    async with staged(store, a_job(), repo=a_repo(), clock=clock, seed=1_000 + nth) as stage:
        stage.planner.blueprint = BLUEPRINT
        run_id = await stage.push(f"{1:040x}")
        await work_until_over(stage, await stage.runner(), run_id)
        with anyio.fail_after(5):
            while await store.next_owed_at_ms() is not None:
                clock.advance(1_000)
                await anyio.sleep(0.005)
        await assert_sound(store)

    assert [(1, 1, run_id)] == [(one.version, one.revision, one.made_by) for one in await recipes(store)]
    assert await store.blueprint(run_id) is None
