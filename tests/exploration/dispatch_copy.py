"""Dispatch and its copy of the queue: two jobs of one repository, a runner for each, and notices that may get lost.

The jobs move as they are stored; what they tell dispatch may arrive late, again, or never. An offer may be granted, be
refused by the job that it is about, or never get that far.
"""

import functools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, Final, NamedTuple

from deltaci.domain.states import JobState
from deltaci.orchestrator.dispatch import LOOKS_A_LISTING, Board, DispatchActor, Offer
from deltaci.orchestrator.messages import Gone, Held, Look, Queued
from deltaci.orchestrator.queue import JobQueue
from deltaci.orchestrator.stored import Patience
from deltaci.store.port import HeldJob, QueuedJob
from tests.exploration.explorer import Explored, explore
from tests.exploration.owners import JOB_IDS, Bench
from tests.exploration.rules import require

# The life of a job as far as dispatch is concerned: it may end at any time.
LIFE: Final = (
    JobState.BLOCKED,
    JobState.QUEUED,
    JobState.RUNNING,
    JobState.QUEUED,
    JobState.RUNNING,
    JobState.SUCCEEDED,
)
OVER: Final = len(LIFE) - 1
LOOK: Final = "dispatch compares its copy with the store"
WORLDS_MAX: Final = 100_000


class World(NamedTuple):
    """How far each job is, what the copy says of each, whom dispatch suspects, and how often it looked."""

    lives: tuple[int, ...]
    copy: tuple[str, ...]
    suspects: frozenset[str] = frozenset()
    looks: int = 0


def _queued(index: int, concurrency: str) -> QueuedJob:
    return QueuedJob(
        job_id=JOB_IDS[index],
        repo_id="repo_1",
        labels=("ab"[index],),
        priority=0,
        queued_at_ms=0,
        not_before_ms=0,
        concurrency=concurrency,
    )


class StoredJobs(Bench):
    """The store as dispatch asks it."""

    lives: tuple[int, ...] = ()
    concurrency = ""

    async def counts(self) -> dict[str, dict[str, int]]:
        """Jobs by state."""
        return {"job": Counter(LIFE[life] for life in self.lives)}

    async def queued_jobs(self) -> tuple[QueuedJob, ...]:
        """All queued jobs."""
        queued = (index for index, life in enumerate(self.lives) if LIFE[life] is JobState.QUEUED)
        return tuple(_queued(index, self.concurrency) for index in queued)

    async def held_jobs(self) -> tuple[HeldJob, ...]:
        """All held jobs."""
        held = (index for index, life in enumerate(self.lives) if LIFE[life] is JobState.RUNNING)
        return tuple(HeldJob(JOB_IDS[index], "repo_1", self.concurrency) for index in held)

    def missed(self, _what: str) -> None:
        """Nothing is measured here."""


class DispatchCopy:
    """The moves of dispatch with a limit on the jobs that the repository may run at once (0: none).

    `concurrency`: the group that both jobs are of, empty for none.
    """

    def __init__(self, *, running_max: int = 0, concurrency: str = "") -> None:
        self._concurrency = concurrency
        self._bench = StoredJobs()
        self._bench.concurrency = concurrency
        self._ports = self._bench.limited(running_max)
        self._running_max = running_max

    def explore(self) -> Explored[World]:
        """Every world; looks alone bring the copy right, and then a runner that asks gets what is queued."""
        found = explore([World((0, 0), ("", ""))], self.moves, check=lambda _: None, worlds_max=WORLDS_MAX)
        found.require_a_way_to(is_right, by=LOOK.__eq__, goal="a copy that says what is stored")
        found.require_a_way_to(
            lambda world: all(LIFE[life] is not JobState.QUEUED for life in world.lives),
            by=lambda name: name == LOOK or "gets" in name or "ends" in name,
            goal="a lease for each queued job",
        )
        return found

    def moves(self, world: World) -> Iterator[tuple[str, Callable[[], World]]]:
        """Everything that may happen next."""
        for index, life in enumerate(world.lives):
            name = "ab"[index]
            yield from self._asks(world, index)
            if life + 1 < OVER and LIFE[life + 1] is JobState.QUEUED:
                yield f"{name} is queued", functools.partial(_lived, world, index, life + 1)
            if life < OVER:
                yield f"{name} ends", functools.partial(_lived, world, index, OVER)
            if life > 0:
                yield f"a notice arrives that {name} is queued", self._told(world, self._is_queued(index))
            if life > 1:
                yield f"a notice arrives that {name} is held", self._told(world, self._is_held(index))
            if life == OVER:
                yield f"a notice arrives that {name} is over", self._told(world, Gone(job_id=JOB_IDS[index]))
        yield LOOK, self._told(world, Look())
        yield "restart", lambda: self._restarted(world)

    def _asks(self, world: World, index: int) -> Iterator[tuple[str, Callable[[], World]]]:
        offer = Offer(frozenset("ab"[index]), 1)
        asked = self._told(world, offer)()
        if not offer.jobs:
            return
        (job,) = offer.jobs
        require(job.job_id == JOB_IDS[index], 12, f"the runner of job {index} was offered {job.job_id}")
        held = sum(says == "held" for says in world.copy)
        assert not self._running_max or held < self._running_max, "more was offered than the limit allows"
        require(not (self._concurrency and held), 12, "a job was offered whose group dispatch believes to be held")
        yield f"{'ab'[index]} is offered, and the runner has gone", lambda: asked
        life = world.lives[index]
        if LIFE[life] is JobState.QUEUED and self._concurrency and LIFE[world.lives[1 - index]] is JobState.RUNNING:
            # The store keeps the grant out; the job tells who holds its group, and that it is still queued itself.
            told = self._told(asked, self._is_held(1 - index))()
            yield f"{'ab'[index]} is kept out by its group", self._told(told, self._is_queued(index))
            return
        if LIFE[life] is JobState.QUEUED:
            yield f"the runner gets {'ab'[index]}", functools.partial(_lived, asked, index, life + 1)
            return
        refused = self._is_held(index) if LIFE[life] is JobState.RUNNING else Gone(job_id=job.job_id)
        yield f"{'ab'[index]} refuses the runner", self._told(asked, refused)

    def _is_queued(self, index: int) -> Queued:
        return Queued(jobs=(_queued(index, self._concurrency),))

    def _is_held(self, index: int) -> Held:
        return Held(job_id=JOB_IDS[index], repo_id="repo_1", concurrency=self._concurrency)

    # ---- dispatch, moved by hand ---------------------------------------------------------------------------------

    def _told(self, world: World, message: Any) -> Callable[[], World]:
        def move() -> World:
            actor = self._actor(world)
            self._react(actor.act(message))
            return self._world(world, actor)

        return move

    def _restarted(self, world: World) -> World:
        actor = self._actor(World(world.lives, ("", "")))
        actor.state = self._react(actor.load())
        after = self._world(world, actor)
        require(is_right(after), 12, "a copy made anew is not what is stored")
        return after

    def _react(self, acting: Coroutine[Any, Any, Any]) -> Any:
        self._bench.lay_out(None, (), 0, None)
        return self._bench.react(acting).answer

    def _actor(self, world: World) -> DispatchActor:
        self._bench.lives = world.lives
        actor = DispatchActor(self._ports, Patience(self._ports), Board())
        actor.is_loaded = True
        actor.state = queue = JobQueue()
        queue.limit("repo_1", self._running_max)
        for index, says in enumerate(world.copy):
            if says == "queued":
                queue.put(_queued(index, self._concurrency), now_ms=0)
            elif says == "held":
                queue.hold(JOB_IDS[index], "repo_1", self._concurrency)
        actor.suspects, actor.looks = set(world.suspects), world.looks
        return actor

    def _world(self, world: World, actor: DispatchActor) -> World:
        queued, held = set(actor.state.job_ids()), set(actor.state.held_ids())
        copy = tuple("queued" if each in queued else "held" if each in held else "" for each in JOB_IDS)
        return World(world.lives, copy, frozenset(actor.suspects), actor.looks % LOOKS_A_LISTING)


def is_right(world: World) -> bool:
    """Whether the copy says what is stored."""
    says = {JobState.QUEUED: "queued", JobState.RUNNING: "held"}
    return all(says.get(LIFE[life], "") == copy for life, copy in zip(world.lives, world.copy, strict=True))


def _lived(world: World, index: int, life: int) -> World:
    return world._replace(lives=(*world.lives[:index], life, *world.lives[index + 1 :]))
