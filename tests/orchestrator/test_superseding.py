"""A newer push makes the older run of its branch superfluous, and no other."""

from typing import Any

import anyio
import pytest

from deltaci.orchestrator.messages import Supersede
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.faults import work_until_over
from tests.orchestrator.support import ME, ManualClock, Stage, a_job, a_repo, staged

A, B = "a" * 40, "b" * 40


@pytest.mark.anyio
async def test_a_newer_push_cancels_the_older_run_of_its_branch() -> None:
    """With the reason and the run that took its place."""
    async with staged(MemoryStore(), a_job()) as stage:
        older = await stage.push(A)
        await stage.run_until(older, "QUEUED")

        newer = await stage.push(B)

        run = await stage.run_until(older, "CANCELED")
        assert run.end_reason == "superseded"
        assert newer in run.text
        assert (await work_until_over(stage, await stage.runner(), newer)).state == "SUCCEEDED"


@pytest.mark.anyio
async def test_a_push_to_another_branch_cancels_nothing() -> None:
    """Streams are apart."""
    async with staged(MemoryStore(), a_job()) as stage:
        main = await stage.push(A)
        await stage.run_until(main, "QUEUED")

        await stage.run_until(await stage.push(B, branch="feature"), "QUEUED")
        await anyio.sleep(0.05)

        assert (await stage.orchestrator.run(main)).state == "QUEUED"


@pytest.mark.anyio
async def test_a_repository_may_turn_superseding_off() -> None:
    """Every push is then run to its end."""
    async with staged(MemoryStore(), a_job(), repo=a_repo(is_superseding=False)) as stage:
        older = await stage.push(A)
        await stage.run_until(older, "QUEUED")

        await stage.run_until(await stage.push(B), "QUEUED")
        await anyio.sleep(0.05)

        assert (await stage.orchestrator.run(older)).state == "QUEUED"


@pytest.mark.anyio
async def test_a_lost_notification_is_made_up_for() -> None:
    """The reconciler finds the older run by query."""
    async with staged(MemoryStore(), a_job()) as stage:
        drop(stage, Supersede)
        older = await stage.push(A)
        await stage.run_until(older, "QUEUED")

        await stage.push(B)

        assert (await stage.run_until(older, "CANCELED")).end_reason == "superseded"
        assert "superseded" in stage.witness.misses


def drop(stage: Stage, *kinds: Any) -> None:
    """Lose every message of these kinds."""
    system, deliver = stage.orchestrator.system, stage.orchestrator.system.deliver
    system.deliver = lambda path, envelope: (  # type: ignore[method-assign]
        None if isinstance(envelope.message, kinds) else deliver(path, envelope)
    )


@pytest.mark.anyio
async def test_a_commit_that_becomes_current_again_is_run_again() -> None:
    """A, B, A: the first run of A was superseded, so that A would stay without a result."""
    async with staged(MemoryStore(), a_job()) as stage:
        first = await stage.push(A)
        await stage.push(B)
        await stage.run_until(first, "CANCELED")

        again = await stage.push(A, delivery="third", body="third")

        assert again != first
        run = await work_until_over(stage, await stage.runner(), again)
        assert (run.attempt, run.state) == (2, "SUCCEEDED")


@pytest.mark.anyio
async def test_a_commit_that_becomes_current_again_before_the_cancel_arrived_is_run_again() -> None:
    """A, B, A in a row: the first run of A still looks alive, and is about to be canceled for B."""
    async with staged(MemoryStore(), a_job(), reconcile_every_ms=60_000) as stage:
        drop(stage, Supersede)
        first, second = await stage.push(A), await stage.push(B)

        again = await stage.push(A, delivery="third", body="third")

        assert again not in (first, second)
        assert (await stage.orchestrator.run(again)).attempt == 2


@pytest.mark.anyio
async def test_pushes_of_one_millisecond_are_in_the_order_of_their_arrival() -> None:
    """Ids sort by time; were the rest chance, the newest push would be canceled for an older one half of the time."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_ids = [await stage.push(f"{number:040x}") for number in range(12)]

        assert run_ids == sorted(run_ids)
        for older in run_ids[:-1]:
            await stage.run_until(older, "CANCELED")
        assert (await work_until_over(stage, await stage.runner(), run_ids[-1])).state == "SUCCEEDED"


@pytest.mark.anyio
async def test_the_newer_push_wins_though_the_clock_was_set_back_in_between() -> None:
    """Ids are made from the clock; the next one is newer than every stored one all the same."""
    store, clock = MemoryStore(), ManualClock()
    async with staged(store, a_job(), clock=clock) as stage:
        older = await stage.push(A)
        await stage.run_until(older, "QUEUED")

    async with staged(store, a_job(), clock=ManualClock(clock.now_ms() - 5 * 3_600_000), seed=2) as stage:
        newer = await stage.push(B)

        assert older < newer
        assert (await stage.run_until(older, "CANCELED")).end_reason == "superseded"
        assert (await work_until_over(stage, await stage.runner(), newer)).state == "SUCCEEDED"


@pytest.mark.anyio
async def test_the_rerun_of_an_old_commit_does_not_cancel_the_newer_push() -> None:
    """Somebody wants to see it again; the branch has moved on all the same."""
    async with staged(MemoryStore(), a_job()) as stage:
        older = await stage.push(A)
        await stage.execute(await stage.runner(), exit_code=1)
        await stage.run_until(older, "FAILED")
        newer = await stage.push(B)
        await stage.run_until(newer, "QUEUED")

        await stage.orchestrator.rerun(older, ME, is_failed_only=False, key="again")
        await anyio.sleep(0.05)

        assert (await stage.orchestrator.run(newer)).state == "QUEUED"


@pytest.mark.anyio
async def test_the_holder_of_a_superseded_job_is_told() -> None:
    """It stops, acknowledges, and the run ends as superseded, not as a failure of anybody."""
    async with staged(MemoryStore(), a_job()) as stage:
        older, runner = await stage.push(A), await stage.runner()
        (lease,) = await stage.lease(runner)
        await stage.say(runner, wire.AckLease, lease)

        await stage.push(B)
        await stage.job_until(lease.job_id, "CANCEL_REQUESTED")
        heard = await stage.say(runner, wire.Heartbeat, lease)
        assert isinstance(heard, wire.HeartbeatAck)
        assert heard.is_cancel_requested
        await stage.say(runner, wire.CancelAck, lease)

        assert (await stage.run_until(older, "CANCELED")).end_reason == "superseded"
