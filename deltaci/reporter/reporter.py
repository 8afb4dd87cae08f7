"""Brings what a forge shows of a run to what is committed, and remembers what it was told.

Rule 1: it reads committed state right before each sending, so that what is shown never goes back.
Rule 2: what was told is committed after each sending: a crash between the two repeats one, which changes nothing.
Rule 3: it changes no run, and no run waits for it. It never waits itself: what may not go yet is put off.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import anyio

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable, NotFound
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.repo import Repo, is_reported
from deltaci.domain.run import Run
from deltaci.domain.states import JobState
from deltaci.forge.checks import Annotation
from deltaci.reporter.pace import Budget, Pace
from deltaci.reporter.ports import KeptReports, ReportStore, ResultsPort, Snapshot
from deltaci.reporter.tellings import Telling, open_tellings
from deltaci.store.writes import Reported, SaveRemoteId

NEXT_TURN_MS: Final = 1_000
REPORTS_READ_MAX: Final = 50


class _Parts(NamedTuple):
    store: ReportStore
    base_url: str
    clock: Clock
    pace: Pace
    reports: KeptReports | None


class StatusReporter:
    """Reports runs to the forges of their repositories."""

    def __init__(
        self,
        store: ReportStore,
        forges: Mapping[str, ResultsPort],
        base_url: str,
        clock: Clock,
        *,
        budget: Budget,
        reports: KeptReports | None = None,
    ) -> None:
        """Report from `store` to `forges`, by `Repo.forge`; `base_url` is where people find this server.

        `budget` is counted down by those that `forges` send with.
        """
        self._store = store
        self._forges = forges
        self._parts = _Parts(store, base_url, clock, Pace(budget), reports)
        self._turns: dict[str, tuple[anyio.Lock, int]] = {}

    async def report(self, run_id: str) -> None:
        """Tell the forge what differs from what it was told last; nothing differs the second time.

        A run with a later attempt is not reported any more: its checks belong to that one. One refused check does not
        keep the others, nor the run's own, from being told.

        Raises:
            ForgeUnavailable: try again later; what was told until then stays told.
            ForgeRejected: something will never be accepted, or the repository is gone; the rest was told.
            NotFound: there is no such run.
        """
        run = await loaded(self._store, run_id)
        repo = await self._store.load_repo(run.key.repo_id)
        if repo is None:
            raise ForgeRejected(
                f"cannot report run {run_id}: the repository {run.key.repo_id} is not registered any more"
            )
        if not is_reported(repo):
            return
        if repo.removed_because:
            raise ForgeRejected(f"cannot report run {run_id}: {repo.name} is not ours any more: {repo.removed_because}")
        forge = self._forges.get(repo.forge)
        if forge is None:
            raise ForgeRejected(f"cannot report run {run_id}: this server tells no results to the forge {repo.forge}")
        # Two runs of one commit share its checks: told at the same time, the older could have the last word.
        async with self._turn(f"{repo.id}:{run.key.commit_sha}"):
            await _Report(self._parts, forge, repo, run).tell_all()

    @asynccontextmanager
    async def _turn(self, key: str) -> AsyncIterator[None]:
        lock, waiting = self._turns.get(key, (anyio.Lock(), 0))
        self._turns[key] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._turns.pop(key)
            if waiting > 1:
                self._turns[key] = (lock, waiting - 1)


async def loaded(store: ReportStore, run_id: str) -> Run:
    """The run as committed; raises `NotFound`."""
    run = await store.load_run(run_id)
    if run is None:
        raise NotFound(f"cannot report run {run_id}: there is none")
    return run


class _Report:
    """One report of one run: holds what was found out on the way, and nothing that outlives it."""

    def __init__(self, parts: _Parts, forge: ResultsPort, repo: Repo, run: Run) -> None:
        self._store, self._base_url, self._clock, self._pace, self._reports = parts
        self._forge = forge
        self._repo = repo
        self._run_id = run.id
        self._account = forge.account(repo)
        self._plan: Plan | None = None
        self._lines: dict[tuple[str, int], tuple[Annotation, ...]] = {}
        self._refused: dict[str, ForgeRejected] = {}
        self._told = 0

    async def tell_all(self) -> None:
        """See `StatusReporter.report`."""
        while True:
            snapshot = await self._read()
            if snapshot is None:
                break
            told = await self._store.reported(self._run_id)
            tellings = open_tellings(self._forge.wanted(snapshot), told, self._refused)
            if not tellings:
                break
            await self._tell(snapshot, self._next(tellings))
        self._pace.succeeded(self._run_id)
        if self._refused:
            raise next(iter(self._refused.values()))

    def _next(self, tellings: tuple[Telling, ...]) -> Telling:
        """What may be told now; raises `ForgeUnavailable` if that is nothing."""
        if self._account is None:
            return tellings[0]
        now_ms = self._clock.now_ms()
        if self._pace.is_turn_over(self._account, self._run_id, self._told, now_ms):
            self._pace.put_off(self._account, self._run_id, now_ms)
            raise ForgeUnavailable(f"other runs are to be told: {len(tellings)} left here", retry_after_ms=NEXT_TURN_MS)
        chosen = self._pace.choose(self._account, tellings, now_ms)
        if isinstance(chosen, Telling):
            return chosen
        self._pace.put_off(self._account, self._run_id, now_ms)
        raise ForgeUnavailable(
            f"the forge takes no more writes for {-(-chosen // 1000)} s: {len(tellings)} left to tell",
            retry_after_ms=chosen,
        )

    async def _tell(self, snapshot: Snapshot, telling: Telling) -> None:
        try:
            sent = await self._forge.send(snapshot, telling, self)
        except ForgeRejected as error:
            self._pace.succeeded(self._run_id)
            self._refused[telling.check] = error
            return
        except ForgeUnavailable as error:
            if error.retry_after_ms is None:
                raise ForgeUnavailable(str(error), retry_after_ms=self._pace.failed(self._run_id)) from error
            if self._account is not None:
                self._pace.leave_alone(self._account, error.retry_after_ms, self._clock.now_ms())
            raise
        self._pace.succeeded(self._run_id)
        self._told += 1
        digest = telling.digest if sent.is_whole else f"{telling.state}:not whole"
        told = Reported(run_id=self._run_id, check=telling.check, digest=digest, at_ms=self._clock.now_ms())
        notes = [SaveRemoteId(repo_id=self._repo.id, key=key, remote_id=value) for key, value in sent.notes]
        await self._store.commit((told, *notes))

    # ---- what is committed ---------------------------------------------------------------------------------------

    async def _read(self) -> Snapshot | None:
        """The run as it is now; None if a later attempt has taken its place."""
        run = await loaded(self._store, self._run_id)
        latest = await self._store.latest_run(run.key)
        if latest is not None and latest.run_id != run.id:
            return None
        if self._plan is None and (run.jobs or not self._told):
            self._plan = await self._store.load_plan(run.id)
        jobs = await self._store.jobs_of_run(run.id)
        number = run.trigger.pr_number
        return Snapshot(
            repo=self._repo,
            run=run,
            jobs=jobs,
            explanations=await self._store.explanations_of_run(run.id),
            plan=self._plan,
            base_url=self._base_url,
            pull_request=await self._store.pull_request(self._repo.id, number) if number is not None else None,
            comment_id=await self.recall(f"comment:{number}") or "" if number is not None else "",
            reports=await self._lines_of(jobs),
        )

    async def _lines_of(self, jobs: tuple[Job, ...]) -> dict[str, tuple[Annotation, ...]]:
        if self._reports is None or not self._forge.reads_reports(self._repo):
            return {}
        ended = [job for job in jobs if job.attempts and job.state in (JobState.FAILED, JobState.TIMED_OUT)]
        found = {}
        for job in ended[:REPORTS_READ_MAX]:
            key = (job.id, len(job.attempts))
            if key not in self._lines:
                self._lines[key] = await self._reports.failures(self._repo, job, self._plan)
            found[job.id] = self._lines[key]
        return found

    # ---- the memory of a forge's results -------------------------------------------------------------------------

    async def recall(self, key: str) -> str | None:
        """See `Memory`."""
        return await self._store.remote_id(self._repo.id, key)

    async def note(self, key: str, remote_id: str) -> None:
        """See `Memory`."""
        await self._store.commit((SaveRemoteId(repo_id=self._repo.id, key=key, remote_id=remote_id),))
