"""A bug in one entity: it is restarted or quarantined in everybody's sight, and nobody else notices."""

from typing import Any

import pytest

from actors import ActorCrashed, Quarantined, Status
from deltaci.domain import job as jobs
from deltaci.orchestrator import job_actor
from deltaci.orchestrator.messages import Due
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.faults import assert_sound, nodes, quarantined, until, work_until_over
from tests.orchestrator.support import ME, Stage, a_job, staged

THREE = (a_job("poisoned"), a_job("one"), a_job("two"))


def path_of(stage: Stage, run_id: str, job_id: str) -> str:
    return f"/orchestrator/runs/{run_id}/jobs/{job_id}"


class Poison:
    """Makes the job machine raise for one job, a number of times."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.name = "poisoned"
        self.doses = 0
        real = job_actor.step

        def step(job: jobs.Job, command: Any, *, now_ms: int) -> Any:
            if job.name == self.name and self.doses > 0:
                self.doses -= 1
                raise RuntimeError("a planted bug")
            return real(job, command, now_ms=now_ms)

        monkeypatch.setattr(job_actor, "step", step)


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> Poison:
    return Poison(monkeypatch)


@pytest.mark.anyio
async def test_a_job_that_crashes_once_is_restarted_in_sight_and_its_run_ends_well(poison: Poison) -> None:
    """The holder's message is not replayed: it asks again, and the job goes on from what is stored."""
    async with staged(MemoryStore(), *THREE) as stage:
        run_id, runner = await stage.push(), await stage.runner(slots=3)
        await stage.run_until(run_id, "QUEUED")
        leases = {lease.job.name: lease for lease in await stage.lease(runner, slots=3)}
        mine = leases["poisoned"]

        poison.doses = 1
        with pytest.raises(ActorCrashed, match="a planted bug"):
            await stage.say(runner, wire.AckLease, mine)
        assert isinstance(await stage.say(runner, wire.AckLease, mine), wire.LeaseAcked)

        tree = nodes(stage.orchestrator.system.tree())
        node = tree[path_of(stage, run_id, mine.job_id)]
        assert (node.restarts, node.last_crash) == (1, "RuntimeError: a planted bug")
        assert all(tree[path_of(stage, run_id, lease.job_id)].restarts == 0 for lease in (leases["one"], leases["two"]))
        for lease in leases.values():
            await stage.say(runner, wire.AckLease, lease)
            await stage.say(runner, wire.Complete, lease, exit_code=0)
        assert (await stage.run_until(run_id, "SUCCEEDED")).end_reason == "succeeded"
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_a_poisoned_job_is_quarantined_and_its_siblings_end(poison: Poison) -> None:
    """Named in the tree, with the crash; after a release it goes on from what is stored, and its run ends."""
    async with staged(MemoryStore(), *THREE) as stage:
        run_id, runner = await stage.push(), await stage.runner(slots=3)
        await stage.run_until(run_id, "QUEUED")
        mine = next(job for name, job in (await stage.jobs(run_id)).items() if name == "poisoned")
        path = path_of(stage, run_id, mine.id)

        poison.doses = 1_000_000
        for _ in range(4):
            stage.orchestrator.ports.tell(path, Due())
        await until(lambda: quarantined(stage) == [path])
        assert await stage.lease(runner, wait_ms=0) == ()  # the offer of the poisoned job came to nothing
        for _ in range(2):
            await stage.execute(runner)

        node = nodes(stage.orchestrator.system.tree())[path]
        assert (node.status, node.last_crash) == (Status.QUARANTINED, "RuntimeError: a planted bug")
        done = await stage.jobs(run_id)
        assert {name: str(job.state) for name, job in done.items()} == {
            "poisoned": "QUEUED",
            "one": "SUCCEEDED",
            "two": "SUCCEEDED",
        }
        assert await stage.lease(runner, wait_ms=0) == ()

        poison.doses = 0
        assert stage.orchestrator.system.release(path)
        stage.clock.advance(10_000)
        assert (await work_until_over(stage, runner, run_id)).state == "SUCCEEDED"


@pytest.mark.anyio
async def test_a_quarantined_job_is_not_offered_without_end(poison: Poison) -> None:
    """Each poll would come back empty at once, and the runner would ask again at once."""
    async with staged(MemoryStore(), *THREE[:1]) as stage:
        run_id, runner = await stage.push(), await stage.runner()
        await stage.run_until(run_id, "QUEUED")
        asked: list[str] = []
        ask = stage.orchestrator.desk._ask

        async def counted(job_id: str, message: Any) -> Any:
            asked.append(job_id)
            return await ask(job_id, message)

        stage.orchestrator.desk._ask = counted  # type: ignore[method-assign]
        poison.doses = 1_000_000

        for _ in range(20):
            await stage.lease(runner, wait_ms=5)

        assert len(asked) == 1


@pytest.mark.anyio
async def test_a_run_with_a_quarantined_job_can_be_seen_and_canceled_as_far_as_it_goes(poison: Poison) -> None:
    """The rest of the run stops; the poisoned job waits for its release, and then ends as canceled."""
    async with staged(MemoryStore(), *THREE) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")
        mine = next(job for name, job in (await stage.jobs(run_id)).items() if name == "poisoned")
        path = path_of(stage, run_id, mine.id)
        poison.doses = 1_000_000
        for _ in range(4):
            stage.orchestrator.ports.tell(path, Due())
        await until(lambda: quarantined(stage) == [path])
        with pytest.raises(Quarantined):
            await stage.orchestrator.system.ref(path).ask(Due())

        run = await stage.orchestrator.cancel(run_id, ME)
        assert run.state == "CANCEL_REQUESTED"
        for name in ("one", "two"):
            await stage.job_until((await stage.jobs(run_id))[name].id, "CANCELED")
        poison.doses = 0
        stage.orchestrator.system.release(path)

        assert (await stage.run_until(run_id, "CANCELED")).end_reason == "user_canceled"


@pytest.mark.anyio
async def test_a_crash_after_the_commit_changes_nothing_that_was_stored(monkeypatch: pytest.MonkeyPatch) -> None:
    """The notifications of the fourth beat are lost with the crash; the reconciler tells them again."""
    async with staged(MemoryStore(), a_job("a"), a_job("b", needs=("a",))) as stage:
        run_id, runner = await stage.push(), await stage.runner()
        real, crashes = job_actor.JobActor._act, [RuntimeError("a planted bug")] * 3

        def act(self: Any, before: jobs.Job, after: jobs.Job) -> None:
            if crashes and after.state.is_final:
                raise crashes.pop()
            real(self, before, after)

        monkeypatch.setattr(job_actor.JobActor, "_act", act)

        assert (await work_until_over(stage, runner, run_id)).state == "SUCCEEDED"
        assert "run" in stage.witness.misses
        await assert_sound(stage.store)
