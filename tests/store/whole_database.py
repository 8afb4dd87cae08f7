"""A database with rows in every table and entities in every state, made by the real orchestrator.

`python -m tests.store.whole_database` prints it as SQL. What it prints is frozen in `schemas/`, one file a schema
version, when that version is made, and never printed again: later programs must read what the earlier ones wrote.
"""

import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import anyio
import msgspec

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.events import SYSTEM, Trigger
from deltaci.domain.ids import hashed
from deltaci.domain.plan import Plan, PlannedJob, Reason
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import EndStream
from deltaci.domain.run import Run
from deltaci.orchestrator.messages import Admit
from deltaci.store.port import Store
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import (
    ArtifactStored,
    Audit,
    Delivery,
    Explanation,
    Reported,
    Runner,
    SavePullRequest,
    SaveRemoteId,
    Token,
)
from protocol import messages as wire
from tests.builders import a_project
from tests.orchestrator.support import ME, ManualClock, Stage, a_job, a_repo, staged

FOR_EVER_MS: Final = 200 * 365 * 86_400_000
REPORTING: Final = a_repo(report_to="results.jsonl", run_timeout_ms=FOR_EVER_MS, approval="forks")
OTHER: Final = a_repo(id="repo_2", name="tools", is_superseding=False, running_max=3)
RUNNER_TOKEN: Final = "dci_runner_of_the_first_schema"
BLUEPRINT: Final = Blueprint(fingerprint="0123456789abcdef", projects=(a_project(),))
ARTIFACT: Final = b"what was built"


def a_skipped_job(name: str) -> PlannedJob:
    """A job that nothing in the change touches."""
    return a_job(name, is_skipped=True, reasons=(Reason(rule="paths", text="nothing it covers changed"),))


async def fill(store: Store) -> None:
    """Live through everything that leaves a row."""
    clock = ManualClock()
    jobs = (a_job("build"), a_job("test", needs=("build",), retries=1), a_skipped_job("docs"))
    async with staged(store, *jobs, repo=REPORTING, clock=clock) as stage:
        await stage.orchestrator.add_repo(OTHER, ME)
        await store.commit(
            [
                Token(
                    id="tok_r",
                    token_hash=hashed(RUNNER_TOKEN),
                    scope="runner",
                    label="first",
                    created_at_ms=clock.at_ms,
                ),
                Audit(at_ms=clock.at_ms, cause=SYSTEM, type="TokenCreated", entity_id="tok_r"),
            ]
        )
        runner = await stage.runner(slots=9)
        await _finished_runs(stage, runner)
        await _deliveries(stage)
        await _held_runs(stage, runner)
    async with staged(store, repo=REPORTING, clock=clock, seed=2, plans_at_once=1, approval_within_ms=600_000) as stage:
        await _debts(stage, await stage.runner("fails", labels=("fails",)))


async def _finished_runs(stage: Stage, runner: Runner) -> None:
    """Succeeded, failed with a retry, run again, canceled, timed out."""
    stage.planner.blueprint = BLUEPRINT
    good = await stage.push("1" * 40)
    lease = await _started(stage, runner)
    await stage.say(runner, wire.AppendLog, lease, offset=0, data=b"building\n")
    await stage.say(runner, wire.AppendLog, lease, offset=9, data=b"done\n", is_final=True)
    digest = hashed(ARTIFACT.decode())
    artifact = ArtifactStored(
        job_id=lease.job_id, attempt=1, name="shop", size_bytes=len(ARTIFACT), sha256=digest, at_ms=stage.clock.at_ms
    )
    await stage.store.commit([artifact])
    await stage.say(runner, wire.Complete, lease, exit_code=0)
    await stage.execute(runner)
    await stage.run_until(good, "SUCCEEDED")
    await _recipes_until(stage, "ACTIVE")

    stage.planner.blueprint = Blueprint(fingerprint=BLUEPRINT.fingerprint, recipe=1)
    bad = await stage.push("2" * 40)
    await stage.execute(runner)
    await stage.execute(runner, exit_code=1)
    stage.clock.advance(120_000)
    await stage.execute(runner, exit_code=1)
    await stage.run_until(bad, "FAILED")
    await _recipes_until(stage, "STALE")
    stage.planner.blueprint = None
    with anyio.fail_after(10):
        while True:
            if len(await stage.store.explanations_of_run(bad)) == len(stage.analyzer.asked) == 2:
                break
            await anyio.sleep(0.005)
    for run_id in (good, bad):
        told = [Reported(run_id=run_id, check=check, digest=hashed(check), at_ms=1) for check in ("", "build")]
        await stage.store.commit(told)
    await stage.orchestrator.rerun(bad, ME, is_failed_only=True, key="again-1")
    await stage.execute(runner)

    stopped = await stage.push("3" * 40)
    (lease,) = await stage.lease(runner)
    await stage.orchestrator.cancel_once(stopped, ME, key="stop-1")
    await stage.say(runner, wire.CancelAck, lease)
    await stage.run_until(stopped, "CANCELED")

    stage.planner.jobs = (a_job("slow"),)
    trigger = Trigger(kind="manual", ref="refs/heads/main", commit_sha="4" * 40)
    reply = await stage.orchestrator.start_run(OTHER.id, trigger, ME, key="start-1")
    lease = await _started(stage, runner)
    await stage.say(runner, wire.Complete, lease, reason="job_timeout")
    await stage.run_until(msgspec.json.decode(reply.body)["run_id"], "TIMED_OUT")


async def _recipes_until(stage: Stage, state: str) -> None:
    with anyio.fail_after(10):
        while True:
            if [recipe.state for recipe in await stage.store.recipes(REPORTING.id)] == [state]:
                break
            await anyio.sleep(0.005)


async def _deliveries(stage: Stage) -> None:
    """One that is ignored, one that finds a run of another, one that asks for something; and what they told."""
    ignored = Admit(delivery_id="d-ping", body_sha256="b-ping", event="ping", trigger=None, ignored="a ping")
    await stage.orchestrator.admit(stage.repo.id, ignored)
    await stage.push("1" * 40, delivery="d-again", body=f"b-{'1' * 40}-main")
    closed = Delivery(
        repo_id=stage.repo.id,
        delivery_id="d-closed",
        body_sha256="b-closed",
        received_at_ms=stage.clock.at_ms,
        event="pull_request",
        request=EndStream(stream="pr:7", because="pull request 7 was closed"),
        outcome="no run of it was live",
    )
    told = PullRequest(
        repo_id=stage.repo.id,
        number=7,
        head_sha="7" * 40,
        head_ref="refs/heads/topic",
        base_ref="refs/heads/main",
        base_sha="1" * 40,
        is_open=False,
    )
    named = SaveRemoteId(repo_id=stage.repo.id, key="comment:7", remote_id="4711")
    await stage.store.commit([closed, SavePullRequest(pull_request=told), named])
    stage.planner.jobs = (a_job("fails", labels=("fails",)),)
    await stage.run_until(await stage.push("5" * 40, branch="failing"), "QUEUED")


async def _held_runs(stage: Stage, runner: Runner) -> None:
    """A job in each phase of a lease, one queued again after its runner was lost, one asked to stop."""
    phases = (a_job(name, labels=(name,), concurrency="deploy" if name == "running" else None) for name in PHASES)
    stage.planner.jobs = (*phases, a_job("after", needs=PHASES[:1]))
    await stage.push("6" * 40, branch="held")
    for name in PHASES:
        holder = await stage.runner(name, labels=(name,))
        (lease,) = await stage.lease(holder)
        if name == "granted":
            continue
        await stage.say(holder, wire.AckLease, lease)
        if name in ("running", "uploading"):
            await stage.say(holder, wire.AppendLog, lease, offset=0, data=b"begun\n")
            await stage.say(holder, wire.Heartbeat, lease, phase=name)
        if name == "again":
            await stage.say(holder, wire.Complete, lease, reason="runner_error", exit_code=None)
    stage.planner.jobs = (a_job("stop", labels=("stop",)), a_job("never", labels=("never",)))
    stopping = await stage.push("7" * 40, branch="stopping")
    (lease,) = await stage.lease(await stage.runner("stop", labels=("stop",)))
    await stage.say(await stage.runner("stop", labels=("stop",)), wire.AckLease, lease)
    await stage.orchestrator.cancel(stopping, ME)
    await stage.run_until(stopping, "CANCEL_REQUESTED")
    stage.planner.jobs = (a_job("waits", labels=("nobody",), concurrency="deploy"),)
    stage.planner.blueprint = BLUEPRINT
    await stage.run_until(await stage.push("8" * 40), "QUEUED")
    stage.planner.blueprint = None


# The runs that change in the last of these lives
REFUSED: Final = 2
PHASES: Final = ("granted", "starting", "running", "uploading", "again")


async def _debts(stage: Stage, runner: Runner) -> None:
    """An attempt that nobody explains, a run that a forge refuses, a plan under way, and one that waits behind it."""
    asked = anyio.Event()

    async def report(run_id: str) -> None:
        raise ForgeRejected(f"the token may not report {run_id}")

    async def explain(job_id: str, attempt: int, now_ms: int) -> Explanation:
        raise ForgeUnavailable(f"nobody explains attempt {attempt} of {job_id} at {now_ms}", retry_after_ms=60_000)

    async def plan(run: Run, repo: Repo) -> Plan:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError(run, repo)

    stage.reporter.report = report  # type: ignore[method-assign]
    stage.analyzer.explain = explain  # type: ignore[method-assign]
    stage.planner.plan = plan  # type: ignore[method-assign]
    lease = await _started(stage, runner)
    await stage.say(runner, wire.Complete, lease, exit_code=1)
    planning = await stage.push("9" * 40, branch="planning")
    with anyio.fail_after(10):
        await asked.wait()
    await stage.run_until(planning, "PLANNING")
    await _forks(stage)
    await stage.push("a" * 40, branch="created")
    with anyio.fail_after(10):
        while True:
            if (await stage.store.counts())["outbox"]["refused"] >= REFUSED:
                break
            await anyio.sleep(0.005)


async def _forks(stage: Stage) -> None:
    """A run that waits for approval, and one that was approved and waits to be planned."""
    runs = []
    for number, sha in ((8, "b" * 40), (9, "d" * 40)):
        trigger = Trigger(
            kind="pull_request",
            ref=f"refs/pull/{number}/head",
            commit_sha=sha,
            base_sha="1" * 40,
            pr_number=number,
            stream=f"pr:{number}",
            is_fork=True,
            author="mallory",
        )
        opened = Admit(delivery_id=f"d-fork-{number}", body_sha256=f"b-{sha}", event="pull_request", trigger=trigger)
        admitted = await stage.orchestrator.admit(stage.repo.id, opened)
        assert admitted.run_id is not None
        runs.append(admitted.run_id)
    await stage.orchestrator.approve(runs[1], ME)


async def _started(stage: Stage, runner: Runner) -> wire.LeaseGranted:
    (lease,) = await stage.lease(runner)
    await stage.say(runner, wire.AckLease, lease)
    return lease


def dump(path: Path) -> Iterator[str]:
    """The database at `path` as SQL: schema, rows and version."""
    connection = sqlite3.connect(path)
    try:
        yield from connection.iterdump()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        yield f"PRAGMA user_version = {version};"
    finally:
        connection.close()


async def main() -> None:
    """Print the SQL."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "deltaci.db"
        async with SqliteStore.open(path) as store:
            await fill(store)
        for line in dump(path):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    anyio.run(main)
