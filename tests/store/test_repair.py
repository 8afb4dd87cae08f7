"""What changes in a restored database, and what does not."""

from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from deltaci.domain import run as runs
from deltaci.domain.effects import AnalyzeAttempt, PlanRun, ReportRun
from deltaci.domain.job import STARTED, Job
from deltaci.domain.run import Run
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from deltaci.invariants.verify import verify
from deltaci.store import repair as repairs
from deltaci.store.backup import Manifest, Sum, examine
from deltaci.store.engine import Inline
from deltaci.store.port import JournalEntry
from deltaci.store.repair import Repaired, repair
from deltaci.store.sqlite import SqliteStore
from tests.store.support import a_data_directory

pytestmark = pytest.mark.anyio

DAY_MS = 86_400_000


class Restored(msgspec.Struct):
    """A database as a backup had it, about to be repaired a day later."""

    store: SqliteStore
    manifest: Manifest
    now_ms: int
    runs: dict[str, Run]
    jobs: dict[str, Job]

    async def repair(self, report_since_ms: int = 0) -> Repaired:
        return await repair(self.store, self.manifest, now_ms=self.now_ms, report_since_ms=report_since_ms)


@pytest.fixture
async def restored(tmp_path: Path) -> AsyncIterator[Restored]:
    database = a_data_directory(tmp_path / "data") / "deltaci.db"
    async with SqliteStore.open(database, engine=Inline.open) as store:
        last = [entry async for entry in store.journal()][-1]
        manifest = Manifest(
            program="",
            made_at_ms=last.at_ms,
            database=Sum(0, ""),
            contents=examine(database),
            artifacts=0,
            artifact_bytes=0,
        )
        of_runs, of_jobs = await everything(store)
        yield Restored(store, manifest, last.at_ms + DAY_MS, of_runs, of_jobs)


async def everything(store: SqliteStore) -> tuple[dict[str, Run], dict[str, Job]]:
    """Runs and jobs by their ids."""
    of_runs = {one.run.id: one.run for one in await store.list_runs(limit=1_000)}
    return of_runs, {job.id: job for run_id in of_runs for job in await store.jobs_of_run(run_id)}


async def added(restored: Restored) -> list[JournalEntry]:
    """What the repair journaled."""
    return [entry async for entry in restored.store.journal() if entry.id > restored.manifest.contents.journal_entries]


async def test_the_story_has_a_seam(restored: Restored) -> None:
    """Whoever reads the journal later finds which entry was the last before the gap, and when it was closed."""
    await restored.repair()

    first, *others = await added(restored)
    contents = restored.manifest.contents
    assert (first.type, first.sequence, first.at_ms) == ("Restored", None, restored.now_ms)
    assert msgspec.json.decode(first.data) == {
        "last_entry": str(contents.journal_entries),
        "last_hash": contents.journal_hash,
        "backup_made_at_ms": str(restored.manifest.made_at_ms),
    }
    assert {(entry.cause.kind, entry.cause.id) for entry in (first, *others)} == {("system", "restore")}
    assert (await verify(restored.store)).violations == ()


async def test_every_lease_is_revoked_and_its_job_queued_again(restored: Restored) -> None:
    """Whatever phase it was in; nothing else of any job changes."""
    held = {job_id for job_id, job in restored.jobs.items() if job.state is JobState.RUNNING}
    stopping = {job_id for job_id, job in restored.jobs.items() if job.state is JobState.CANCEL_REQUESTED}

    repaired = await restored.repair()

    _, after = await everything(restored.store)
    assert {restored.jobs[job_id].attempts[-1].state for job_id in held} == {
        AttemptState.LEASED,
        AttemptState.STARTING,
        AttemptState.RUNNING,
        AttemptState.UPLOADING,
    }
    for job_id in held:
        *_, lost, queued = after[job_id].attempts
        assert (lost.state, lost.end_reason) == (AttemptState.LOST, EndReason.RESTORED)
        assert lost.lease is not None
        assert lost.lease.state is LeaseState.REVOKED
        assert (after[job_id].state, queued.not_before_ms) == (JobState.QUEUED, restored.now_ms)
    assert stopping
    assert {after[job_id].state for job_id in stopping} == {JobState.CANCELED}
    assert not [job for job in after.values() if job.state in STARTED]
    assert await restored.store.held_jobs() == ()
    unchanged = after.keys() - held - stopping
    assert {job_id: after[job_id] for job_id in unchanged} == {job_id: restored.jobs[job_id] for job_id in unchanged}
    assert repaired.leases_revoked == len(held) + len(stopping)


async def test_live_runs_have_all_their_time_and_others_are_as_they_were(restored: Restored) -> None:
    """What was to be canceled has ended with its last lease; nothing that was over has moved."""
    repaired = await restored.repair()

    after, _ = await everything(restored.store)
    states = Counter((run.state, after[run.id].state) for run in restored.runs.values() if not run.state.is_final)
    live = [run for run in after.values() if not run.state.is_final]
    assert (RunState.CANCEL_REQUESTED, RunState.CANCELED) in states
    assert {first for first, then in states if first is not then} == {RunState.CANCEL_REQUESTED}
    held = {run.id for run in live if runs.is_held(run)}
    assert held == {run.id for run in restored.runs.values() if runs.is_held(run)} != set()
    time_ms = {run.id: run.hold_within_ms if run.id in held else run.timeout_ms for run in live}
    assert {run.id: runs.deadline_ms(run) for run in live} == {one: restored.now_ms + ms for one, ms in time_ms.items()}
    assert repaired.runs_restored == len(live) > 1
    assert {run_id: after[run_id] for run_id, run in restored.runs.items() if run.state.is_final} == {
        run_id: run for run_id, run in restored.runs.items() if run.state.is_final
    }


async def test_the_forge_is_told_everything_again_the_oldest_run_first(restored: Restored) -> None:
    """What it was told last is not known; of the runs of one commit the newest must have the last word."""
    told_before = {run_id: await restored.store.reported(run_id) for run_id in restored.runs}
    reporting = sorted(run.id for run in restored.runs.values() if run.key.repo_id == "repo_1")

    repaired = await restored.repair()

    owed = await restored.store.owed(ReportRun, restored.now_ms, 1_000)
    told = {run_id: await restored.store.reported(run_id) for run_id in restored.runs}
    assert [one.effect.run_id for one in owed] == reporting
    assert any(told_before.values())
    assert told == {run_id: dict.fromkeys(checks, "") for run_id, checks in told_before.items()}
    assert repaired.runs_to_report == len(reporting) < len(restored.runs)


async def test_runs_that_were_over_long_before_are_not_told_again(restored: Restored) -> None:
    """A forge takes some 5,000 statuses an hour: years of runs would keep the new ones waiting."""
    over = sorted(run.created_at_ms for run in restored.runs.values() if run.state.is_final)
    middle_ms = over[len(over) // 2]

    await restored.repair(report_since_ms=middle_ms)

    owed = {one.effect.run_id for one in await restored.store.owed(ReportRun, restored.now_ms, 1_000)}
    assert owed == {
        run.id
        for run in restored.runs.values()
        if run.key.repo_id == "repo_1" and (not run.state.is_final or run.created_at_ms >= middle_ms)
    }


async def test_debts_are_owed_as_before_and_each_revoked_attempt_is_explained(restored: Restored) -> None:
    """Plans and explanations that were made in the lost time are made again."""
    late_ms = restored.now_ms + DAY_MS
    plans = await restored.store.owed(PlanRun, late_ms, 100)
    explanations = await restored.store.owed(AnalyzeAttempt, late_ms, 100)

    await restored.repair()

    held = {(job_id, len(job.attempts)) for job_id, job in restored.jobs.items() if job.state is JobState.RUNNING}
    after = await restored.store.owed(AnalyzeAttempt, late_ms, 100)
    assert await restored.store.owed(PlanRun, late_ms, 100) == plans
    assert {(one.effect.job_id, one.effect.attempt) for one in after} == held | {
        (one.effect.job_id, one.effect.attempt) for one in explanations
    }


async def test_many_runs_are_repaired_in_pieces_like_few(restored: Restored, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and commits have a bound; what comes of them is the same."""
    monkeypatch.setattr(repairs, "PAGE", 1)
    monkeypatch.setattr(repairs, "WRITES_AT_ONCE", 1)

    repaired = await restored.repair()

    of_runs, of_jobs = await everything(restored.store)
    live = [run for run in of_runs.values() if not run.state.is_final]
    reporting = [run for run in of_runs.values() if run.key.repo_id == "repo_1"]
    revoked = [
        one for job in of_jobs.values() for one in job.attempts if one.lease and one.lease.state is LeaseState.REVOKED
    ]
    assert repaired == Repaired(len(revoked), len(live), len(reporting))
    assert (await verify(restored.store)).violations == ()
