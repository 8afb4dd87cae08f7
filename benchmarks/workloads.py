"""The seeded workloads: repositories, plans, webhooks, and databases that are already full. Equal seeds, equal bytes.

Databases are filled through the store's own API, with states that the domain's own steps decided.
"""

import asyncio
import hashlib
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.processes import Server
from benchmarks.wire import post
from deltaci.domain import ids
from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import SYSTEM, Cause, JobCreated, JobRef, RunKey, Trigger
from deltaci.domain.job import Job
from deltaci.domain.machine import Step as Decision
from deltaci.domain.plan import Plan, PlannedJob, Reason, digest
from deltaci.domain.plan import Step as Script
from deltaci.domain.repo import Repo
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import AttemptState, JobState
from deltaci.forge.webhook import signature
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import AddJob, Runner, SaveJob, SavePlan, SaveRepo, SaveRun, Token, Write

SEED = 20_240_229
SECRET = "benchmarks sign with this"
TOKEN = "dci_benchmarks-runner-token"
TOKEN_ID = "tok_benchmarks"
REPOS = 16
LABELS = ("linux", "x86_64")
LOG_CHUNK = (b"2024-02-29T12:00:00Z compiling module_00 of the benchmark, nothing to see here\n" * 16)[:1024]
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

# No lease of a load runs out by itself, however long a measurement takes.
PATIENT = {
    "DELTACI_POLICY_ACK_WITHIN_MS": str(HOUR_MS),
    "DELTACI_POLICY_LEASE_TTL_MS": str(HOUR_MS),
}


# ---- plans -------------------------------------------------------------------------------------------------------


def planned_job(index: int, needs: tuple[str, ...] = ()) -> PlannedJob:
    """A job of one step, as a small configuration makes it."""
    return PlannedJob(
        name=f"test-{index}",
        steps=(Script(name="unit tests", run="python3 -m unittest discover --verbose tests"),),
        needs=needs,
        labels=LABELS,
        env={"CI": "true"},
        reasons=(Reason(rule="configuration", text="deltaci.yaml names it", file="deltaci.yaml"),),
    )


def plan(commit_sha: str, count: int, *, is_chain: bool = False) -> Plan:
    """`count` jobs, side by side or each after the one before."""
    planned = tuple(planned_job(index, (f"test-{index - 1}",) if is_chain and index else ()) for index in range(count))
    return Plan(commit_sha=commit_sha, base_sha=None, source="configuration", jobs=planned)


# ---- webhooks ----------------------------------------------------------------------------------------------------


class Webhooks:
    """Signed pushes of the git forge, each of a commit of its own."""

    def __init__(self, server: Server, seed: int = SEED) -> None:
        self._server = server
        self._rng = random.Random(seed)
        self._count = 0

    def make(self, title: str, *, repos: int = 1) -> bytes:
        """The next request, round-robin over the first `repos` repositories."""
        self._count += 1
        name = f"bench-{self._count % repos:02}"
        push = {
            "repository": name,
            "ref": "refs/heads/main",
            "before": f"{self._rng.getrandbits(160):040x}",
            "after": f"{self._rng.getrandbits(160):040x}",
            "push": f"{self._rng.getrandbits(64):016x}",
            "forced": False,
            "author": "Bench Mark",
            "title": title,
        }
        body = json.dumps(push).encode()
        headers = {
            "content-type": "application/json",
            "user-agent": "delta-ci-post-receive",
            "x-deltaci-repo": name,
            "x-deltaci-event": "push",
            "x-deltaci-delivery": hashlib.sha256(body).hexdigest()[:40],
            "x-deltaci-signature": signature(SECRET, body),
        }
        return post(self._server, "/api/v1/webhooks/git", body, headers)


# ---- databases ---------------------------------------------------------------------------------------------------


class Full:
    """What a filled database holds, for whoever loads its server."""

    def __init__(self) -> None:
        self.held: list[tuple[str, str]] = []  # (job id, lease id)
        self.queued = 0


@asynccontextmanager
async def prepared(data: Path) -> AsyncIterator["Filler"]:
    """A database with repositories, a runner's token and one registered runner, open for filling."""
    data.mkdir(mode=0o700, exist_ok=True)  # noqa: ASYNC240 - nothing else runs here
    async with SqliteStore.open(data / "deltaci.db") as store:
        filler = Filler(store)
        await filler.begin()
        yield filler


async def fresh(data: Path) -> None:
    """A database with nothing but repositories and the token."""
    async with prepared(data):
        pass


class Filler:
    """Writes runs and jobs as the domain decides them."""

    def __init__(self, store: SqliteStore, seed: int = SEED) -> None:
        self.store = store
        self.now_ms = time.time_ns() // 1_000_000
        self.runner_id = ids.new_id("rnr", now_ms=self.now_ms, random=bytes(7))
        self._rng = random.Random(seed)
        self._runs = 0

    async def begin(self) -> None:
        """Repositories, token, runner."""
        writes: list[Write] = [
            SaveRepo(
                repo=Repo(
                    id=repo_id(index),
                    name=f"bench-{index:02}",
                    forge="git",
                    clone_url=f"file:///nowhere/bench-{index:02}.git",
                    secret=SECRET,
                    created_at_ms=self.now_ms,
                    is_superseding=False,
                )
            )
            for index in range(REPOS)
        ]
        writes.append(
            Token(id=TOKEN_ID, token_hash=ids.hashed(TOKEN), scope="runner", label="", created_at_ms=self.now_ms)
        )
        writes.append(
            Runner(
                id=self.runner_id,
                token_id=TOKEN_ID,
                name="bench-host",
                labels=tuple(sorted(LABELS)),
                slots=1000,
                version="",
                platform="",
                registered_at_ms=self.now_ms,
            )
        )
        await self.store.commit(writes)

    async def add_run(self, count: int, *, held_since_ms: int | None = None, full: Full) -> None:
        """A run of `count` jobs: all queued, or all held and running since `held_since_ms`."""
        at_ms = self.now_ms if held_since_ms is None else held_since_ms
        self._runs += 1
        repo = repo_id(self._runs % REPOS)
        run_id = ids.new_id("run", now_ms=at_ms, random=self._rng.randbytes(7))
        sha = f"{self._rng.getrandbits(160):040x}"
        trigger = Trigger(kind="push", ref="refs/heads/main", commit_sha=sha, stream="branch:main", title="benchmark")
        planned = [planned_job(index) for index in range(count)]
        events = [_job_created(run_id, repo, index, one, at_ms) for index, one in enumerate(planned)]
        created = [jobs.created(event) for event in events]
        held = (
            []
            if held_since_ms is None
            else [_held(job, self._lease(full, job), self.runner_id, at_ms) for job in created]
        )
        plan = Plan(commit_sha=sha, base_sha=None, source="configuration", jobs=tuple(planned))
        queued = self._queued_run(run_id, RunKey(repo, sha, "push"), trigger, created, plan, at_ms)
        writes: list[Write] = [_save_run(queued), SavePlan(run_id=run_id, plan=plan, digest=digest(plan))]
        writes += [
            AddJob(job=job, planned=one, needs=(), events=(event,), cause=SYSTEM)
            for job, one, event in zip(created, planned, events, strict=True)
        ]
        holder = Cause("runner", self.runner_id)
        writes += [SaveJob(job=step.state, expected_revision=1, events=step.events, cause=holder) for step in held]  # type: ignore[arg-type]
        if held:
            seen = {step.state.id: JobSeen(step.state.state) for step in held}
            writes.append(_save_run(_decided(queued.state, runs.Advance(jobs=seen), at_ms=at_ms)))
        await self.store.commit(writes)
        if not held:
            full.queued += count

    def _lease(self, full: Full, job: Job) -> str:
        lease_id = f"{self._rng.getrandbits(128):032x}"
        full.held.append((job.id, lease_id))
        return lease_id

    def _queued_run(
        self, run_id: str, key: RunKey, trigger: Trigger, created: list[Job], plan: Plan, at_ms: int
    ) -> Decision[Run]:
        first = runs.create(run_id, key, trigger, attempt=1, now_ms=at_ms, timeout_ms=DAY_MS, cancel_within_ms=30_000)
        commands: list[Any] = [
            runs.StartPlanning(),
            runs.AdoptPlan(plan_digest=digest(plan), jobs=tuple(JobRef(id=job.id, name=job.name) for job in created)),
        ]
        run, events = first.state, list(first.events)
        for command in commands:
            step = _decided(run, command, at_ms=at_ms)
            run = step.state
            events += step.events
        return Decision(run, tuple(events))


def _decided(run: Run, command: runs.RunCommand, *, at_ms: int) -> Decision[Run]:
    step = runs.step(run, command, now_ms=at_ms)
    assert isinstance(step, Decision), step
    return step


def _save_run(step: Decision[Run]) -> SaveRun:
    expected = step.state.revision - len(step.events)
    return SaveRun(run=step.state, expected_revision=expected, events=step.events, cause=Cause("user", "bench"))  # type: ignore[arg-type]


def repo_id(index: int) -> str:
    """The id of a repository of the benchmarks."""
    return f"repo_bench{index:02}"


def _job_created(run_id: str, repo: str, index: int, planned: PlannedJob, at_ms: int) -> JobCreated:
    return JobCreated(
        at_ms=at_ms,
        job_id=ids.job_id(run_id, index),
        run_id=run_id,
        repo_id=repo,
        name=planned.name,
        is_required=True,
        labels=planned.labels,
        priority=0,
        retries=0,
        timeout_ms=DAY_MS,
        state=JobState.QUEUED,
    )


def _held(job: Job, lease_id: str, runner_id: str, at_ms: int) -> Decision[Job]:
    """The job leased, acknowledged and running at `at_ms`: its stored lease ends one TTL after that."""
    holder = {"attempt": 1, "lease_hash": ids.hashed(lease_id), "runner_id": runner_id}
    grant = jobs.GrantLease(lease_hash=ids.hashed(lease_id), runner_id=runner_id, ack_within_ms=30_000, ttl_ms=120_000)
    events: list[Any] = []
    for command in (grant, jobs.AckLease(**holder), jobs.Heartbeat(phase=AttemptState.RUNNING, **holder)):
        step = jobs.step(job, command, now_ms=at_ms)
        assert isinstance(step, Decision), step
        job = step.state
        events += step.events
    return Decision(job, tuple(events))


# ---- looking into a database -------------------------------------------------------------------------------------


def rows(data: Path, sql: str, *values: Any) -> list[tuple[Any, ...]]:
    """What the database says, read beside its server."""
    with closing(sqlite3.connect(f"file:{data / 'deltaci.db'}?mode=ro", uri=True, timeout=10)) as connection:
        return connection.execute(sql, values).fetchall()


def queued_count(data: Path) -> int:
    """Jobs in state QUEUED."""
    return int(rows(data, "SELECT count(*) FROM job WHERE state = 'QUEUED'")[0][0])


async def until_queued(data: Path, count: int) -> None:
    """Wait until so many jobs are queued."""
    while queued_count(data) < count:  # noqa: ASYNC110 - the event is in another process
        await asyncio.sleep(0.02)


def queued_at_ms(data: Path, job_ids: set[str]) -> dict[str, int]:
    """When it was decided to queue each of these jobs, by the journal."""
    journal = rows(data, "SELECT entity_id, type, at_ms, data FROM journal WHERE type IN ('JobCreated', 'JobReleased')")
    return {
        entity_id: at_ms
        for entity_id, kind, at_ms, event in journal
        if entity_id in job_ids and (kind == "JobReleased" or msgspec.json.decode(event)["state"] == "QUEUED")
    }


def batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    """`items` in slices of `size`."""
    for start in range(0, len(items), size):
        yield items[start : start + size]
