"""Dispatch: brings queued jobs and waiting runners together.

It keeps a copy of what the store says (`queue.py`) and never decides about a job: it offers, the job's actor grants.
"""

from collections import deque
from typing import Any

import anyio
from loguru import logger

from deltaci.domain.errors import StoreUnavailable
from deltaci.orchestrator.messages import Gone, Held, Look, Queued, Wake
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.queue import JobQueue, Labels
from deltaci.orchestrator.stored import Keeper, Patience
from deltaci.store.port import QueuedJob


class Offer:
    """A runner's wish for up to `slots` jobs. Filled at most once, and not after it was closed."""

    def __init__(self, labels: Labels, slots: int) -> None:
        self.labels = labels
        self.slots = slots
        self.jobs: tuple[QueuedJob, ...] = ()
        self.is_open = True
        self._filled = anyio.Event()

    def fill(self, jobs: tuple[QueuedJob, ...]) -> None:
        """Hand over the jobs; the runner's request wakes up."""
        self.jobs = jobs
        self.is_open = False
        self._filled.set()

    async def wait(self, wait_ms: int) -> tuple[QueuedJob, ...]:
        """The jobs, or none when `wait_ms` have passed; closed afterwards."""
        try:
            with anyio.move_on_after(wait_ms / 1000):
                await self._filled.wait()
        finally:
            self.is_open = False  # also when the runner hung up: nobody would take what is offered now
        return self.jobs


class DispatchActor(Keeper[JobQueue]):
    """Owns the queue in memory; rebuilt from the store at a start, after a crash, and when the two differ."""

    def __init__(self, ports: Ports, patience: Patience) -> None:
        super().__init__(ports, patience)
        self.offers: deque[Offer] = deque()
        self.is_suspect = False

    async def load(self) -> JobQueue:
        """All queued and held jobs."""
        queue = JobQueue()
        now_ms = self.ports.clock.now_ms()
        for repo in await self.ports.store.repos():
            queue.limit(repo.id, repo.running_max)
        for job_id, repo_id in await self.ports.store.held_jobs():
            queue.hold(job_id, repo_id)
        for job in await self.ports.store.queued_jobs():
            queue.put(job, now_ms=now_ms)
        return queue

    def nothing(self) -> JobQueue:
        """An empty queue."""
        return JobQueue()

    def describe_state(self) -> str:
        """How many wait, on both sides."""
        return f"{len(self.state)} queued, {self.state.held_count} held, {len(self.offers)} runners waiting"

    @staticmethod
    def coalesce_key(message: Any) -> str | None:
        """One waiting wake-up is enough."""
        return "wake" if isinstance(message, Wake) else None

    async def handle(self, message: Any) -> Any:
        """Also: a runner that asks while the store does not answer waits like any other."""
        answer = await super().handle(message)
        if isinstance(answer, StoreUnavailable) and isinstance(message, Offer) and message.is_open:
            self.offers.append(message)
        return answer

    async def act(self, message: Any) -> Any:
        """A job changed place, a runner asks, or time passed."""
        now_ms = self.ports.clock.now_ms()
        match message:
            case Offer():
                if message.is_open and not self._fill(message, now_ms):
                    self.offers.append(message)
                return
            case Queued():
                for job in message.jobs:
                    self.state.put(job, now_ms=now_ms)
            case Held():
                self.state.hold(message.job_id, message.repo_id)
                return
            case Gone():
                self.state.drop(message.job_id)
            case Look():
                await self._compare()
            case Wake():
                self.offers = deque(offer for offer in self.offers if offer.is_open)
        self._serve(now_ms)

    def _fill(self, offer: Offer, now_ms: int) -> bool:
        jobs = self.state.take(offer.labels, offer.slots, now_ms=now_ms)
        if jobs:
            offer.fill(jobs)
        return bool(jobs)

    def _serve(self, now_ms: int) -> None:
        """Offer what is queued to the runners that wait, the longest waiting first."""
        unserved: list[Offer] = []
        while self.offers and len(self.state):
            offer = self.offers.popleft()
            if offer.is_open and not self._fill(offer, now_ms):
                unserved.append(offer)
        self.offers.extendleft(reversed(unserved))

    async def _compare(self) -> None:
        """A notification may have got lost: if the store counts differently twice in a row, start from its rows."""
        counts = (await self.ports.store.counts())["job"]
        differs = counts.get("QUEUED", 0) != len(self.state)
        if differs and self.is_suspect:
            logger.warning("dispatch had {} jobs queued, the store {}", len(self.state), counts.get("QUEUED", 0))
            self.ports.observer.missed("dispatch")
            self.state = await self.load()
            differs = False
        self.is_suspect = differs
