"""Brings what a forge shows of a run to what is committed, and remembers what it was told.

Rule 1: it reads committed state right before each sending, so that what is shown never goes back.
Rule 2: what was told is committed after each sending: a crash between the two repeats one, which changes nothing.
Rule 3: it changes no run, and no run waits for it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final, Protocol

import anyio
import msgspec

from deltaci.domain.clock import Clock
from deltaci.domain.errors import ForgeRejected, NotFound
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.store.port import Explanation, Reported, Write

REJECTIONS_MAX: Final = 3


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is committed of a run, as far as forges show it. `jobs` in the order of the plan."""

    run: Run
    jobs: tuple[Job, ...]
    explanations: tuple[Explanation, ...]
    plan: Plan | None
    base_url: str


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a forge should be told. `check` is the job's name, or empty for the run; `body` is the forge's."""

    check: str
    digest: str
    body: object


class ResultsPort(Protocol):
    """A kind of forge that shows results."""

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """All it should show of the run, the run's own last. Pure; equal tellings have equal digests."""
        ...

    async def send(self, repo: Repo, run: Run, telling: Telling) -> None:
        """Tell it; telling it again does no harm. Raises `ForgeUnavailable` or `ForgeRejected`."""
        ...


class ReportStore(Protocol):
    """What the reporter needs of the store."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """See `Store`."""
        ...

    async def load_run(self, run_id: str) -> Run | None:
        """See `Store`."""
        ...

    async def load_plan(self, run_id: str) -> Plan | None:
        """See `Store`."""
        ...

    async def load_repo(self, repo_id: str) -> Repo | None:
        """See `Store`."""
        ...

    async def latest_run(self, key: RunKey) -> Latest | None:
        """See `Store`."""
        ...

    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        """See `Store`."""
        ...

    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]:
        """See `Store`."""
        ...

    async def reported(self, run_id: str) -> dict[str, str]:
        """See `Store`."""
        ...


class StatusReporter:
    """Reports runs to the forges of their repositories."""

    def __init__(self, store: ReportStore, forges: Mapping[str, ResultsPort], base_url: str, clock: Clock) -> None:
        """Report from `store` to `forges`, by `Repo.forge`; `base_url` is where people find this server."""
        self._store = store
        self._forges = forges
        self._base_url = base_url
        self._clock = clock
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
        run = await self._run(run_id)
        repo = await self._store.load_repo(run.key.repo_id)
        if repo is None:
            raise ForgeRejected(
                f"cannot report run {run_id}: the repository {run.key.repo_id} is not registered any more"
            )
        if repo.removed_because:
            raise ForgeRejected(f"cannot report run {run_id}: {repo.name} was removed: {repo.removed_because}")
        if not repo.report_to:
            return
        forge = self._forges.get(repo.forge)
        if forge is None:
            raise ForgeRejected(f"cannot report run {run_id}: this server tells no results to the forge {repo.forge}")
        # Two runs of one commit share its checks: told at the same time, the older could have the last word.
        async with self._turn(f"{repo.id}:{run.key.commit_sha}"):
            await self._tell_all(repo, forge, run_id)

    async def _tell_all(self, repo: Repo, forge: ResultsPort, run_id: str) -> None:
        plan = await self._store.load_plan(run_id)
        refused: dict[str, ForgeRejected] = {}
        while True:
            run = await self._run(run_id)
            latest = await self._store.latest_run(run.key)
            if latest is not None and latest.run_id != run_id:
                break
            if plan is None and run.jobs:
                plan = await self._store.load_plan(run_id)
            telling = await self._next(forge, run, plan, refused)
            if telling is None:
                break
            try:
                await forge.send(repo, run, telling)
            except ForgeRejected as error:
                refused[telling.check] = error
                continue
            told = Reported(run_id=run_id, check=telling.check, digest=telling.digest, at_ms=self._clock.now_ms())
            await self._store.commit((told,))
        if refused:
            raise next(iter(refused.values()))

    async def _next(
        self, forge: ResultsPort, run: Run, plan: Plan | None, refused: Mapping[str, ForgeRejected]
    ) -> Telling | None:
        """The first thing to tell that differs from what was told, read afresh; None if there is none."""
        snapshot = Snapshot(
            run=run,
            jobs=await self._store.jobs_of_run(run.id),
            explanations=await self._store.explanations_of_run(run.id),
            plan=plan,
            base_url=self._base_url,
        )
        told = await self._store.reported(run.id)
        has_enough = len(refused) >= REJECTIONS_MAX  # a wrong token is refused for each job alike
        for telling in forge.wanted(snapshot):
            if telling.check in refused or (has_enough and telling.check):
                continue
            if told.get(telling.check) != telling.digest:
                return telling
        return None

    async def _run(self, run_id: str) -> Run:
        run = await self._store.load_run(run_id)
        if run is None:
            raise NotFound(f"cannot report run {run_id}: there is none")
        return run

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
