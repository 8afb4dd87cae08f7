"""What is committed of several runs, and a relay that reports them as the outbox would, in the time of a mock clock."""

from collections.abc import Callable, Sequence
from typing import Any

import anyio
import msgspec
import trio
from trio.testing import MockClock

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.reporter.checks import CheckResults
from deltaci.reporter.ports import KeptReports
from deltaci.reporter.reporter import StatusReporter
from deltaci.store.writes import Explanation, Reported, SaveRemoteId, Write
from tests.reporter.github import FakeGitHub
from tests.reporter.runs import PR, a_job, a_run, refs

BACKOFF_MAX_S = 300
REPO = Repo(
    id="repo_1",
    name="acme/shop",
    forge="github",
    clone_url="",
    secret="s",
    created_at_ms=0,
    report_to="https://api.github.com",
    installation_id=7,
)


class VirtualClock:
    """The time of the loop that runs."""

    def now_ms(self) -> int:
        return int(trio.current_time() * 1000)


class Committed:
    """A store with runs; `step` is awaited at the beginning and at the end of everything that is asked of it."""

    def __init__(self) -> None:
        self.runs: dict[str, Run] = {}
        self.jobs: dict[str, dict[str, Job]] = {}
        self.newest: dict[RunKey, str] = {}
        self.explanations: dict[str, Explanation] = {}
        self.told: dict[str, dict[str, str]] = {}
        self.remote_ids: dict[str, str] = {}
        self.pull_requests: dict[int, PullRequest] = {}
        self.owed: dict[str, anyio.Event] = {}
        self.step: Callable[[], Any] = anyio.lowlevel.checkpoint
        self.repo = REPO

    def add(self, run: Run, *jobs: Job) -> None:
        """A run is made, or a new attempt of it."""
        self.runs[run.id] = msgspec.structs.replace(run, jobs=refs(*jobs))
        self.jobs[run.id] = {job.name: job for job in jobs}
        self.newest[run.key] = run.id
        self.owed[run.id] = anyio.Event()
        self.owed[run.id].set()

    def move(self, run_id: str, *jobs: Job, run: Run | None = None) -> None:
        """Jobs, and the run itself, are in another state now."""
        self.jobs[run_id] |= {job.name: job for job in jobs}
        if run is not None:
            self.runs[run_id] = msgspec.structs.replace(run, jobs=self.runs[run_id].jobs)
        self.owed[run_id].set()

    async def commit(self, writes: Sequence[Write]) -> None:
        await self.step()
        for write in writes:
            if isinstance(write, SaveRemoteId):
                self.remote_ids[write.key] = write.remote_id
            else:
                assert isinstance(write, Reported)
                self.told.setdefault(write.run_id, {})[write.check] = write.digest
        await self.step()

    async def load_run(self, run_id: str) -> Run | None:
        await self.step()
        return self.runs.get(run_id)

    async def load_plan(self, run_id: str) -> Plan | None:
        return None

    async def load_repo(self, repo_id: str) -> Repo | None:
        return self.repo

    async def latest_run(self, key: RunKey) -> Latest | None:
        await self.step()
        return Latest(run_id=self.newest[key], attempt=1, state=RunState.RUNNING)

    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        await self.step()
        return tuple(self.jobs[run_id].values())

    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]:
        ids = {job.id for job in self.jobs[run_id].values()}
        return tuple(one for job_id, one in self.explanations.items() if job_id in ids)

    async def reported(self, run_id: str) -> dict[str, str]:
        await self.step()
        return dict(self.told.get(run_id, {}))

    async def pull_request(self, repo_id: str, number: int) -> PullRequest | None:
        return self.pull_requests.get(number)

    async def remote_id(self, repo_id: str, key: str) -> str | None:
        await self.step()
        return self.remote_ids.get(key)


class Relay:
    """Reports what is owed, at most eight runs at once; `done` when nothing is owed any more."""

    def __init__(self, store: Committed, github: FakeGitHub, *, reports: KeptReports | None = None) -> None:
        self.store = store
        self.reporter = StatusReporter(
            store,
            {"github": CheckResults(github)},
            "https://ci.example.com",
            VirtualClock(),
            budget=github.budget,
            reports=reports,
        )
        self.places = anyio.CapacityLimiter(8)
        self.refused: dict[str, str] = {}
        self.idle: set[str] = set()
        self.is_idle = anyio.Event()

    async def serve(self, run_id: str) -> None:
        """Report one run until cancelled."""
        tries = 0
        while True:
            await self.store.owed[run_id].wait()
            self.idle.discard(run_id)
            self.store.owed[run_id] = anyio.Event()
            wait_s: float = 0
            async with self.places:
                try:
                    await self.reporter.report(run_id)
                    tries = 0
                except ForgeRejected as error:
                    self.refused[run_id] = str(error)
                except ForgeUnavailable as error:
                    asked_ms = error.retry_after_ms
                    wait_s = asked_ms / 1000 if asked_ms is not None else min(2**tries, BACKOFF_MAX_S)
                    tries += 1
            if wait_s:
                with anyio.move_on_after(wait_s):
                    await self.store.owed[run_id].wait()
                self.store.owed[run_id].set()
            elif not self.store.owed[run_id].is_set():
                self.idle.add(run_id)
                self.is_idle.set()

    async def done(self) -> None:
        """All that there are now are told."""
        while not all(run_id in self.idle and not owed.is_set() for run_id, owed in self.store.owed.items()):
            self.is_idle = anyio.Event()
            await self.is_idle.wait()


def in_virtual_time(main: Callable[[], Any]) -> None:
    """Run it on a clock that jumps to whatever is waited for."""
    trio.run(main, clock=MockClock(autojump_threshold=0))


def run_of(number: int) -> Run:
    """The run of a pull request."""
    run = a_run(id=f"run_{number}")
    key = RunKey("repo_1", f"{number:040x}", "pull_request", PR + number)
    trigger = msgspec.structs.replace(run.trigger, commit_sha=key.commit_sha, pr_number=key.pr_number)
    return msgspec.structs.replace(run, key=key, trigger=trigger)


def jobs_of(run: Run, count: int, state: JobState = JobState.QUEUED, reason: EndReason | None = None) -> list[Job]:
    """So many jobs of it in the same state."""
    return [a_job(f"j{number}", state, reason, id=f"{run.id}_job{number}", run_id=run.id) for number in range(count)]


def ended(run: Run, state: RunState = RunState.SUCCEEDED, reason: EndReason = EndReason.SUCCEEDED) -> Run:
    """The same run when it is over."""
    return msgspec.structs.replace(run, state=state, end_reason=reason, ended_at_ms=5)
