"""Dispatch: brings queued jobs and waiting runners together.

It keeps a copy of what the store says (`queue.py`) and never decides about a job: it offers, the job's actor grants.
"""

from collections import deque
from typing import Any, Final

import anyio
from loguru import logger

from deltaci.domain.errors import StoreUnavailable
from deltaci.domain.states import JobState
from deltaci.orchestrator.messages import Gone, Held, Look, Queued, Wake
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.queue import JobQueue, Labels
from deltaci.orchestrator.stored import Keeper, Patience
from deltaci.store.port import QueuedJob

# How long a runner that does not want to wait waits all the same for dispatch to look at its wish
LOOK_WITHIN_S: Final = 1.0
# Listing 100,000 queued jobs takes half a second of the loop in slices: with a queue this long, not at every look
LONG_QUEUE: Final = 5_000
# ... nor where the counts agree, but then as well: one job too many and another too few are the right number
LOOKS_A_LISTING: Final = 6


class Board:
    """The present queue, for whoever wants a look at it."""

    def __init__(self) -> None:
        self.queue = JobQueue()


class Offer:
    """A runner's wish for up to `slots` jobs. Filled at most once, and not after it was closed."""

    def __init__(self, labels: Labels, slots: int) -> None:
        self.labels = labels
        self.slots = slots
        self.jobs: tuple[QueuedJob, ...] = ()
        self.is_open = True
        self._seen = anyio.Event()
        self._filled = anyio.Event()

    def see(self) -> None:
        """Dispatch has looked whether there is a job."""
        self._seen.set()

    def fill(self, jobs: tuple[QueuedJob, ...]) -> None:
        """Hand over the jobs; the runner's request wakes up."""
        self.jobs = jobs
        self.is_open = False
        self._filled.set()

    def withdraw(self) -> None:
        """The runner's request wakes up with nothing, unless it was filled."""
        self.is_open = False
        self._seen.set()
        self._filled.set()

    async def wait(self, wait_ms: int) -> tuple[QueuedJob, ...]:
        """The jobs, or none when `wait_ms` have passed and dispatch has looked; closed afterwards."""
        deadline = anyio.current_time() + wait_ms / 1000
        try:
            with anyio.move_on_after(max(wait_ms / 1000, LOOK_WITHIN_S)):
                await self._seen.wait()
            with anyio.CancelScope(deadline=deadline):
                await self._filled.wait()
        finally:
            # Also when the runner hung up: an open wish would swallow the next job.
            self.is_open = False
        return self.jobs


class DispatchActor(Keeper[JobQueue]):
    """Owns the queue in memory; built from the store at a start and after a crash, mended when the two differ."""

    def __init__(self, ports: Ports, patience: Patience, board: Board) -> None:
        super().__init__(ports, patience)
        self.board = board
        self.offers: deque[Offer] = deque()
        self.suspects: set[str] = set()
        self.looks = 0

    async def load(self) -> JobQueue:
        """All queued and held jobs."""
        queue = JobQueue()
        now_ms = self.ports.clock.now_ms()
        for held in await self.ports.store.held_jobs():
            queue.hold(*held)
        for job in await self.ports.store.queued_jobs():
            self._put(queue, job, now_ms)
        self.board.queue = queue
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
                message.see()
                return
            case Queued():
                for job in message.jobs:
                    self._put(self.state, job, now_ms)
            case Held():
                self.state.hold(message.job_id, message.repo_id, message.concurrency)
                return
            case Gone():
                self.state.drop(message.job_id)
            case Look():
                await self._compare()
            case Wake():
                self.offers = deque(offer for offer in self.offers if offer.is_open)
        self._serve(now_ms)

    def _put(self, queue: JobQueue, job: QueuedJob, now_ms: int) -> None:
        # The limit is asked for with each job: repositories are added while we run.
        queue.limit(job.repo_id, self.ports.running_max(job.repo_id))
        queue.put(job, now_ms=now_ms)

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
        """A notification may have got lost: mend what differs from the store at two listings running.

        With traffic the two differ at most looks, by what is on its way; a job that is out of place twice is not.
        """
        store, queue = self.ports.store, self.state
        counts = (await store.counts())["job"]
        held_count = counts.get(JobState.RUNNING, 0) + counts.get(JobState.CANCEL_REQUESTED, 0)
        is_equal = counts.get(JobState.QUEUED, 0) == len(queue) and held_count == queue.held_count
        self.looks += 1
        if (is_equal or len(queue) > LONG_QUEUE) and self.looks % LOOKS_A_LISTING:
            return
        queued = {job.job_id: job for job in await store.queued_jobs()}
        held = {job.job_id: job for job in await store.held_jobs()}
        in_queue, in_hold = set(queue.job_ids()), set(queue.held_ids())
        wrong = (queued.keys() ^ in_queue) | (held.keys() ^ in_hold)
        proven, self.suspects = wrong & self.suspects, wrong
        for job_id in sorted(proven):
            self.ports.observer.missed("dispatch")
            if job_id in queued:
                self._put(queue, queued[job_id], self.ports.clock.now_ms())
            elif job_id in held:
                queue.hold(*held[job_id])
            else:
                queue.drop(job_id)
        if proven:
            logger.warning("dispatch had {} jobs out of place, such as {}", len(proven), min(proven))
