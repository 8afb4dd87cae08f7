"""Databases of every schema there ever was, with data in them, opened by the program of today.

The dumps in `schemas/` were printed by the programs that made those schemas, and are never changed again.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from deltaci.domain.effects import AnalyzeAttempt, PlanRun, ReportRun
from deltaci.domain.ids import hashed
from deltaci.domain.run import Run
from deltaci.domain.states import JobState, RunState
from deltaci.invariants.verify import verify
from deltaci.store.port import Store
from deltaci.store.sql import migrations
from deltaci.store.sqlite import SqliteStore
from protocol import messages as wire
from tests.orchestrator.support import ManualClock, Stage, a_job, staged
from tests.store.whole_database import FOR_EVER_MS, REPORTING, RUNNER_TOKEN

pytestmark = pytest.mark.anyio

SCHEMAS = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
LABELS = ("granted", "starting", "running", "uploading", "again", "fails", "never", "stop", "nobody")


@pytest.fixture(params=SCHEMAS, ids=lambda path: str(path.stem))
def old(request: pytest.FixtureRequest, path: Path) -> Path:
    """A database file of an old schema."""
    connection = sqlite3.connect(path)
    connection.executescript(request.param.read_text())
    connection.close()
    return path


def tables(path: Path) -> Mapping[str, int]:
    """How many rows each table has."""
    connection = sqlite3.connect(path)
    names = [name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names}
    connection.close()
    return counts


def schema(path: Path) -> set[tuple[str, ...]]:
    """Every table and index, as it was declared."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT type, name, tbl_name, coalesce(sql, '') FROM sqlite_schema").fetchall()
    connection.close()
    return {(*row[:3], " ".join(row[3].split())) for row in rows}


def test_every_schema_version_is_kept_with_data_in_it() -> None:
    """Whoever adds a migration freezes what it makes: `python -m tests.store.whole_database > schemas/000N.sql`."""
    assert [path.stem for path in SCHEMAS] == [f"{number:04}" for number in range(1, len(migrations()) + 1)]


def test_every_table_has_rows_and_every_state_is_there(old: Path) -> None:
    """A promise about an empty table is none."""
    connection = sqlite3.connect(old)
    run_states = {state for (state,) in connection.execute("SELECT state FROM run")}
    job_states = {state for (state,) in connection.execute("SELECT state FROM job")}
    connection.close()

    assert all(tables(old).values()), tables(old)
    assert run_states == {*RunState}
    assert job_states == {*JobState}


async def test_an_old_database_comes_to_the_schema_of_a_fresh_one_and_keeps_its_rows(old: Path, tmp_path: Path) -> None:
    """Also one migration edited afterwards, instead of a new one, is found here."""
    before = tables(old)

    async with SqliteStore.open(old), SqliteStore.open(tmp_path / "fresh.db"):
        pass

    after = tables(old)
    assert schema(old) == schema(tmp_path / "fresh.db")
    assert {name: after[name] for name in before} == before


async def test_everything_in_an_old_database_can_be_read(old: Path) -> None:
    """Snapshots and events were encoded by a program that is long gone."""
    async with SqliteStore.open(old) as store:
        report = await verify(store)
        read = await everything(store)

    assert report.violations == ()
    assert report.checked["runs"] == len(read["runs"]) >= len(RunState)
    assert [name for name, found in read.items() if not found] == []


async def everything(store: Store) -> dict[str, Any]:
    """An answer of each read of the port."""
    runs = [summary.run for summary in await store.list_runs(limit=1_000)]
    jobs = [job for run in runs for job in await store.jobs_of_run(run.id)]
    late_ms = FOR_EVER_MS
    deliveries = [await store.delivery(REPORTING.id, name) for name in ("d-ping", "d-again")]
    return {
        "runs": runs,
        "jobs": [await store.load_job(job.id) for job in jobs],
        "plans": [plan for run in runs if (plan := await store.load_plan(run.id))],
        "latest": [await store.latest_run(run.key) for run in runs],
        "queued": await store.queued_jobs(),
        "held": await store.held_jobs(),
        "due": await store.due(late_ms * 2, 100),
        "deliveries": all(deliveries) and deliveries,
        "by digest": await store.delivery_by_digest(REPORTING.id, f"b-{'1' * 40}-main"),
        "replies": all([await store.reply(key) for key in ("again-1", "stop-1", "start-1")]),
        "plan debts": await store.owed(PlanRun, late_ms, 100),
        "analysis debts": await store.owed(AnalyzeAttempt, late_ms, 100),
        "refused reports": (await store.counts())["outbox"]["refused"] and not await store.owed(ReportRun, late_ms, 1),
        "events": [await store.events_of_run(run.id) for run in runs],
        "logs": [log for job in jobs if (log := await store.read_log(job.id, 1, offset=0, limit=99))],
        "log states": [state for job in jobs if (state := await store.log_state(job.id, 1)).is_final],
        "artifacts": [one for run in runs for one in await store.artifacts_of_run(run.id)],
        "explanations": [one for run in runs for one in await store.explanations_of_run(run.id)],
        "reported": [told for run in runs if (told := await store.reported(run.id))],
        "repos": await store.repos(),
        "token": await store.token(hashed(RUNNER_TOKEN)),
        "runners": [await store.runner_by_name(one.token_id, one.name) for one in await store.runners()],
    }


async def test_work_goes_on_in_an_old_database(old: Path) -> None:
    """What was planned is planned, what was held is lost and done again, what was queued is done; every run ends."""
    async with SqliteStore.open(old) as store:
        now_ms = max([entry.at_ms async for entry in store.journal()])
        clock = ManualClock(now_ms + 60_000)
        async with staged(store, a_job("late"), repo=REPORTING, clock=clock, seed=3) as stage:
            runner = await stage.runner("new", labels=LABELS, slots=9)
            with anyio.fail_after(30):
                while await live_runs(store):
                    await work(stage, runner)
                    clock.advance(60_000)
            fresh = await stage.push("f" * 40, branch="fresh")
            await stage.execute(runner)
            await stage.run_until(fresh, "SUCCEEDED")
        report = await verify(store)

    assert report.violations == ()


async def live_runs(store: Store) -> list[Run]:
    """Runs that have not ended."""
    return [summary.run for summary in await store.list_runs(limit=1_000) if not summary.run.state.is_final]


async def work(stage: Stage, runner: Any) -> None:
    """Do what is queued."""
    for lease in await stage.lease(runner, slots=9, wait_ms=50):
        assert isinstance(await stage.say(runner, wire.AckLease, lease), wire.LeaseAcked)
        assert isinstance(await stage.say(runner, wire.Complete, lease, exit_code=0), wire.CompleteAck)
