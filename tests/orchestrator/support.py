"""A whole orchestrator in the process of the test: real actors and decisions, a real store; time and chance by hand."""

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec

from actors import Observer as ActorObserver
from deltaci.domain.blueprint import Blueprint
from deltaci.domain.errors import PlanFailed
from deltaci.domain.events import Cause, Trigger
from deltaci.domain.job import Job
from deltaci.domain.plan import NotifyRule, Plan, PlannedJob, Source, Step
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.orchestrator.messages import Admit
from deltaci.orchestrator.orchestrator import NOBODY_TO_ASK, NOTHING_TO_SEE, Orchestrator, running
from deltaci.orchestrator.ports import Credentials, Policy, Rights
from deltaci.orchestrator.watch import Heads
from deltaci.store.port import Store
from deltaci.store.space import endless
from deltaci.store.writes import Explanation, Reported, Runner
from protocol import messages as wire

ME = Cause("user", "tok_me", via="test")
SHA = "a" * 40


class ManualClock:
    """Stands still until it is told."""

    def __init__(self, now_ms: int = 1_700_000_000_000) -> None:
        self.at_ms = now_ms

    def now_ms(self) -> int:
        return self.at_ms

    def advance(self, duration_ms: int) -> None:
        self.at_ms += duration_ms


class SeededEntropy:
    """Random bits that repeat."""

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)

    def token_bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class FakePlanner:
    """Answers with the plan it was given, or fails as it was told."""

    def __init__(self, *jobs: PlannedJob) -> None:
        self.jobs = jobs
        self.blueprint: Blueprint | None = None
        self.notify: tuple[NotifyRule, ...] = ()
        self.failures: list[Exception] = []
        self.calls = 0

    async def plan(self, run: Run, repo: Repo) -> Plan:
        self.calls += 1
        if self.failures:
            raise self.failures.pop(0)
        source: Source = "configuration" if self.blueprint is None else "discovery"
        return Plan(
            commit_sha=run.key.commit_sha,
            base_sha=None,
            source=source,
            jobs=self.jobs,
            blueprint=self.blueprint,
            notify=self.notify,
        )


class FakeAnalyzer:
    """Explains everything alike, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []

    async def explain(self, job_id: str, attempt: int, now_ms: int) -> Explanation:
        self.asked.append((job_id, attempt))
        return Explanation(
            job_id=job_id,
            attempt=attempt,
            category="user.test",
            confidence=0.9,
            summary="a test failed",
            evidence=("E assert 1 == 2",),
            next_step="mend it",
            at_ms=now_ms,
        )


class FakeReporter:
    """Remembers which runs it was asked to report, stores that it did, and fails as it was told."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.reported: list[str] = []
        self.failures: list[Exception] = []

    async def report(self, run_id: str) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.reported.append(run_id)
        await self.store.commit((Reported(run_id=run_id, check="", digest="told", at_ms=0),))


class Witness:
    """Remembers what was committed, refused and missed."""

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.refusals: list[tuple[str, str]] = []
        self.misses: list[str] = []

    def committed(self, events: Sequence[Any]) -> None:
        self.events.extend(events)

    def refused(self, command: str, why: str) -> None:
        self.refusals.append((command, why))

    def waited(self, wait_ms: int) -> None:
        assert wait_ms >= 0

    def missed(self, what: str) -> None:
        self.misses.append(what)


class Stage(msgspec.Struct):
    """An orchestrator with everything around it."""

    orchestrator: Orchestrator
    store: Store
    clock: ManualClock
    planner: FakePlanner
    analyzer: FakeAnalyzer
    reporter: FakeReporter
    witness: Witness
    repo: Repo

    async def push(self, sha: str = SHA, *, branch: str = "main", delivery: str = "", body: str = "") -> str:
        """A push arrives; answers with the run's id."""
        trigger = Trigger(kind="push", ref=f"refs/heads/{branch}", commit_sha=sha, stream=f"branch:{branch}")
        admitted = await self.orchestrator.admit(
            self.repo.id,
            Admit(
                delivery_id=delivery or f"d-{sha}-{branch}",
                body_sha256=body or f"b-{sha}-{branch}",
                event="push",
                trigger=trigger,
                ignored=None,
            ),
        )
        assert admitted.run_id is not None
        return admitted.run_id

    async def runner(self, name: str = "r1", *, labels: tuple[str, ...] = (), slots: int = 1) -> Runner:
        """A registered runner."""
        runner, _ = await self.orchestrator.desk.register("tok_r", wire.Register(name=name, labels=labels, slots=slots))
        return runner

    async def lease(self, runner: Runner, *, slots: int = 1, wait_ms: int = 2_000) -> tuple[wire.LeaseGranted, ...]:
        """What the runner gets."""
        answer = await self.orchestrator.desk.serve(
            runner, wire.Lease(runner_id=runner.id, slots=slots, wait_ms=wait_ms)
        )
        assert isinstance(answer, wire.Leases)
        return answer.leases

    async def say(self, runner: Runner, kind: Any, lease: wire.LeaseGranted, **fields: Any) -> wire.ServerMessage:
        """One message of the lease's holder."""
        fence = {"lease_id": lease.lease_id, "job_id": lease.job_id, "attempt": lease.attempt}
        return await self.orchestrator.desk.serve(runner, kind(**{**fence, **fields}))

    async def execute(self, runner: Runner, *, exit_code: int = 0) -> wire.LeaseGranted:
        """Lease one job, acknowledge it and complete it."""
        (lease,) = await self.lease(runner)
        assert isinstance(await self.say(runner, wire.AckLease, lease), wire.LeaseAcked)
        answer = await self.say(runner, wire.Complete, lease, exit_code=exit_code)
        assert isinstance(answer, wire.CompleteAck), answer
        return lease

    async def run_until(self, run_id: str, *states: str) -> Run:
        """The run once it is in one of `states`; fails after 10 s."""
        with anyio.fail_after(10):
            while True:
                run = await self.store.load_run(run_id)
                assert run is not None
                if run.state in states:
                    return run
                await anyio.sleep(0.005)

    async def job_until(self, job_id: str, *states: str) -> Job:
        """The job once it is in one of `states`; fails after 10 s."""
        with anyio.fail_after(10):
            while True:
                loaded = await self.store.load_job(job_id)
                if loaded is not None and loaded[0].state in states:
                    return loaded[0]
                await anyio.sleep(0.005)

    async def jobs(self, run_id: str) -> dict[str, Job]:
        """The run's jobs by name."""
        return {job.name: job for job in await self.store.jobs_of_run(run_id)}


def a_job(name: str = "test", **fields: Any) -> PlannedJob:
    """A planned job with one step."""
    return PlannedJob(**{"name": name, "steps": (Step(name="do", run="true"),), **fields})


def a_repo(**fields: Any) -> Repo:
    """A repository of the git forge."""
    defaults = {
        "id": "repo_1",
        "name": "shop",
        "forge": "git",
        "clone_url": "file:///srv/shop.git",
        "secret": "s" * 20,
        "created_at_ms": 1,
    }
    return Repo(**{**defaults, **fields})


@asynccontextmanager
async def staged(
    store: Store,
    *jobs: PlannedJob,
    repo: Repo | None = None,
    clock: ManualClock | None = None,
    actor_observer: ActorObserver | None = None,
    seed: int = 1,
    uptime_s: Callable[[], float] | None = None,
    has_room: Callable[[int], bool] = endless,
    credentials: Credentials | None = None,
    rights: Mapping[str, Rights] = NOBODY_TO_ASK,
    forges: Mapping[str, Heads] = NOTHING_TO_SEE,
    **policy: Any,
) -> AsyncIterator[Stage]:
    """The stage with one repository; the keepers look around every few milliseconds."""
    fast = {"timer_tick_ms": 5, "reconcile_every_ms": 10, "effect_retry_first_ms": 1, **policy}
    clock = clock or ManualClock()
    planner, analyzer, reporter, witness = FakePlanner(*jobs), FakeAnalyzer(), FakeReporter(store), Witness()
    async with running(
        store,
        clock=clock,
        entropy=SeededEntropy(seed),
        rng=random.Random(seed),
        policy=Policy(**fast),
        planner=planner,
        analyzer=analyzer,
        reporter=reporter,
        observer=witness,
        actor_observer=actor_observer,
        uptime_s=uptime_s,
        has_room=has_room,
        credentials=credentials,
        rights=rights,
        forges=forges,
    ) as orchestrator:
        repo = repo or a_repo()
        if all(known.id != repo.id for known in orchestrator.repos.all()):
            await orchestrator.add_repo(repo, ME)
        yield Stage(orchestrator, store, clock, planner, analyzer, reporter, witness, repo)


__all__ = ["ME", "SHA", "ManualClock", "PlanFailed", "Stage", "a_job", "a_repo", "staged"]
