"""The world went on after the backup: what runners, forges and people find who remember the time that was lost."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from deltaci.domain.plan import PlannedJob
from deltaci.domain.states import AttemptState
from deltaci.invariants.verify import verify
from deltaci.store.backup import make
from deltaci.store.repair import repair
from deltaci.store.restore import restoring
from deltaci.store.sqlite import SqliteStore
from protocol import messages as wire
from tests.orchestrator.support import ME, ManualClock, Stage, a_job, a_repo, staged

pytestmark = pytest.mark.anyio

REPORTING = a_repo(report_to="results.jsonl")
HOUR_MS = 3_600_000


class Worlds:
    """The world until a backup, the time that is lost, and the world after the restore."""

    def __init__(self, home: Path, *jobs: PlannedJob) -> None:
        self.home = home
        self.jobs = jobs
        self.clock = ManualClock()

    @asynccontextmanager
    async def first(self) -> AsyncIterator[Stage]:
        """A server at work."""
        (self.home / "first").mkdir(mode=0o700)
        async with (
            SqliteStore.open(self.home / "first" / "deltaci.db") as store,
            staged(store, *self.jobs, repo=REPORTING, clock=self.clock) as stage,
        ):
            yield stage

    async def backup(self) -> None:
        """Of the server at work."""
        now_ms = self.clock.at_ms
        await anyio.to_thread.run_sync(
            lambda: make(self.home / "first", self.home / "backup", program="", now_ms=now_ms)
        )

    @asynccontextmanager
    async def second(self, *, after_ms: int = 12 * HOUR_MS) -> AsyncIterator[Stage]:
        """The server on what was restored, some time after the backup; at its end, everything is in order."""
        self.clock.advance(after_ms)
        with restoring(self.home / "backup", self.home / "second", can_leave_out=False) as half:
            async with SqliteStore.open(half.database) as store:
                await repair(store, half.manifest, now_ms=self.clock.at_ms, report_since_ms=0)
        async with SqliteStore.open(self.home / "second" / "deltaci.db") as store:
            async with staged(store, *self.jobs, repo=REPORTING, clock=self.clock, seed=2) as stage:
                yield stage
            assert (await verify(store)).violations == ()


async def started(stage: Stage, runner: Any) -> wire.LeaseGranted:
    (lease,) = await stage.lease(runner)
    await stage.say(runner, wire.AckLease, lease)
    return lease


async def test_a_holder_of_a_lease_of_the_backup_is_told_to_stop_and_its_job_runs_again(tmp_path: Path) -> None:
    """Its log's end and its artifacts may be gone with the time that was lost: only a whole attempt counts."""
    worlds = Worlds(tmp_path, a_job())
    async with worlds.first() as stage:
        run_id = await stage.push()
        runner = await stage.runner()
        lease = await started(stage, runner)
        await worlds.backup()
        log = await stage.say(runner, wire.AppendLog, lease, offset=0, data=b"all of it", is_final=True)
        assert log == wire.LogAck(lease_id=lease.lease_id, job_id=lease.job_id, attempt=1, size=9)

    async with worlds.second() as stage:
        known = await stage.orchestrator.desk.identify("tok_r", runner.id)
        answers = [
            await stage.say(known, wire.Heartbeat, lease, phase="running"),
            await stage.say(known, wire.AppendLog, lease, offset=9, data=b"more"),
            await stage.say(known, wire.Complete, lease, exit_code=0),
        ]
        again = await started(stage, known)
        await stage.say(known, wire.Complete, again, exit_code=0)
        await stage.run_until(run_id, "SUCCEEDED")
        attempts = (await stage.jobs(run_id))["test"].attempts

    assert [type(answer) for answer in answers] == [wire.StaleLease] * 3
    assert (again.job_id, again.attempt) == (lease.job_id, 2)
    assert [one.state for one in attempts] == [AttemptState.LOST, AttemptState.SUCCEEDED]


async def test_a_result_that_was_accepted_in_the_lost_time_is_not_known_and_not_taken_again(tmp_path: Path) -> None:
    """The job runs once more; the old result, sent again by whoever kept it, belongs to a lease that is over."""
    worlds = Worlds(tmp_path, a_job())
    async with worlds.first() as stage:
        run_id = await stage.push()
        runner = await stage.runner()
        lease = await started(stage, runner)
        await worlds.backup()
        accepted = await stage.say(runner, wire.Complete, lease, exit_code=0)
        await stage.run_until(run_id, "SUCCEEDED")

    async with worlds.second() as stage:
        known = await stage.orchestrator.desk.identify("tok_r", runner.id)
        repeated = await stage.say(known, wire.Complete, lease, exit_code=0)
        again = await started(stage, known)
        late = await stage.say(known, wire.Complete, lease, exit_code=0)
        failed = await stage.say(known, wire.Complete, again, exit_code=1)
        run = await stage.run_until(run_id, "FAILED")

    assert isinstance(accepted, wire.CompleteAck)
    assert isinstance(repeated, wire.StaleLease)
    assert isinstance(late, wire.StaleLease)
    assert isinstance(failed, wire.CompleteAck)
    assert run.state == "FAILED"


async def test_a_lease_that_the_backup_does_not_know_is_stale(tmp_path: Path) -> None:
    """A later attempt of a job that it knows, and a job that it does not know: both runners are told to stop."""
    worlds = Worlds(tmp_path, a_job(retries=3))
    async with worlds.first() as stage:
        first = await stage.push()
        runner = await stage.runner(slots=2)
        lost = await started(stage, runner)
        await worlds.backup()
        await stage.say(runner, wire.Complete, lost, exit_code=1)
        await stage.run_until(await stage.push("b" * 40, branch="other"), "QUEUED")
        worlds.clock.advance(60_000)
        leases: list[wire.LeaseGranted] = []
        while len(leases) < 2:  # dispatch may hear of the two one after the other
            leases += await stage.lease(runner, slots=2 - len(leases))
        for lease in leases:
            await stage.say(runner, wire.AckLease, lease)

    async with worlds.second() as stage:
        known = await stage.orchestrator.desk.identify("tok_r", runner.id)
        answers = [await stage.say(known, wire.Heartbeat, lease, phase="running") for lease in leases]
        await stage.execute(known)
        after = [await stage.say(known, wire.Complete, lease, exit_code=0) for lease in leases]
        await stage.run_until(first, "SUCCEEDED")

    assert sorted(lease.attempt for lease in leases) == [1, 2]
    assert [type(answer) for answer in (*answers, *after)] == [wire.StaleLease] * 4


async def test_a_delivery_of_the_lost_time_makes_its_run_anew_when_it_is_repeated(tmp_path: Path) -> None:
    """Its id is unknown again, so a redelivery is how a forge brings it back; the lost run's id is nobody else's."""
    worlds = Worlds(tmp_path, a_job())
    async with worlds.first() as stage:
        kept = await stage.push()
        await stage.runner()
        await worlds.backup()
        lost = await stage.push("b" * 40, branch="other", delivery="d-lost")
        request = {"is_failed_only": False, "key": "again-1"}
        await stage.orchestrator.cancel(kept, ME)
        await stage.run_until(kept, "CANCELED")
        told = await stage.orchestrator.rerun(kept, ME, **request)

    async with worlds.second() as stage:
        nobody = await stage.store.load_run(lost)
        same = await stage.push()
        anew = await stage.push("b" * 40, branch="other", delivery="d-lost")
        repeated = await stage.push("b" * 40, branch="other", delivery="d-lost")
        await stage.orchestrator.cancel(kept, ME)
        await stage.run_until(kept, "CANCELED")
        asked = await stage.orchestrator.rerun(kept, ME, **request)
        everybody = {summary.run.id for summary in await stage.store.list_runs()}

    assert nobody is None
    assert same == kept
    assert anew == repeated != lost
    assert told != asked
    assert lost not in everybody
    assert len(everybody) == 3


async def test_a_runner_of_the_lost_time_registers_anew(tmp_path: Path) -> None:
    """It is told to register, as any runner that the server does not know, and works on under its new id."""
    worlds = Worlds(tmp_path, a_job())
    async with worlds.first() as stage:
        run_id = await stage.push()
        await worlds.backup()
        runner = await stage.runner("late")
        lease = await started(stage, runner)

    async with worlds.second() as stage:
        again = await stage.runner("late")
        stale = await stage.say(again, wire.Heartbeat, lease, phase="running")
        await stage.execute(again)
        await stage.run_until(run_id, "SUCCEEDED")

    assert again.id != runner.id
    assert isinstance(stale, wire.StaleLease)


async def test_everything_that_a_forge_may_show_is_told_again(tmp_path: Path) -> None:
    """The run that was live, and the one that was over: what the forge was told since is not known."""
    worlds = Worlds(tmp_path, a_job())
    async with worlds.first() as stage:
        over = await stage.push()
        runner = await stage.runner()
        await stage.execute(runner)
        await stage.run_until(over, "SUCCEEDED")
        live = await stage.push("b" * 40, branch="other")
        await stage.run_until(live, "QUEUED")
        await worlds.backup()

    async with worlds.second() as stage:
        with anyio.fail_after(10):
            while True:
                if {over, live} <= {*stage.reporter.reported}:
                    break
                await anyio.sleep(0.005)
        await stage.execute(await stage.runner())
        await stage.run_until(live, "SUCCEEDED")

    assert stage.reporter.reported.index(over) < stage.reporter.reported.index(live)
