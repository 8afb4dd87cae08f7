"""The outside world behind the ports: a planner that reads commits that nobody wrote, forges that are told results.

Rule: what a commit asks for follows from its name alone, so that every life of the server plans it alike.
"""

import random
from collections import defaultdict
from typing import Final

import anyio
import msgspec

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable, PlanFailed
from deltaci.domain.plan import Plan, PlannedJob, Reason, Step
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.forge.api import Status
from deltaci.forge.github_api import STATES
from tests.simulation.world import PlantedCrash, World

LABELS: Final = ("linux", "arm")
BROKEN_SHARE: Final = 0.05
HANG_S: Final = 90


class SimulatedPlanner:
    """Makes the plan that the commit's name stands for; fails as often as the world says."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def plan(self, run: Run, repo: Repo) -> Plan:
        """See the planner port."""
        world = self._world
        await anyio.sleep(world.after(0.5, "planner"))
        if world.strikes("repository_away"):
            raise ForgeUnavailable(f"{repo.name} does not answer")
        if world.strikes("planner_bug"):
            if world.rng("planner_hangs").random() < 1 / 4:
                await anyio.sleep(HANG_S)
            raise PlantedCrash("in the planner")
        return plan_of(run.key.commit_sha, jobs_max=world.parameters.jobs_max)


def plan_of(sha: str, *, jobs_max: int) -> Plan:
    """The plan of a commit: up to `jobs_max` jobs that need some of those before them. Raises `PlanFailed`."""
    chance = random.Random(f"plan:{sha}")
    if chance.random() < BROKEN_SHARE:
        raise PlanFailed("deltaci.yaml, line 3: no such key")
    planned: list[PlannedJob] = []
    for number in range(chance.randint(0 if chance.random() < BROKEN_SHARE else 1, jobs_max)):
        names = [job.name for job in planned]
        planned.append(
            PlannedJob(
                name=f"job{number}",
                steps=(Step(name="do", run="true"),),
                needs=tuple(sorted(chance.sample(names, min(len(names), chance.choice((0, 0, 1, 2)))))),
                labels=tuple(chance.sample(LABELS, chance.choice((0, 0, 0, 1)))),
                timeout_ms=chance.choice((60_000, 600_000, 3_600_000)),
                retries=chance.choice((0, 0, 1, 2)),
                policy="required" if chance.random() < 0.8 else "allow_failure",
                priority=chance.choice((0, 0, 5)),
                is_skipped=chance.random() < 0.1,
                concurrency=chance.choice((None, None, None, "deploy", "docs")),
                reasons=(Reason(rule="simulated", text="it was drawn"),),
            )
        )
    return Plan(commit_sha=sha, base_sha=None, source="configuration", jobs=tuple(planned))


class Told(msgspec.Struct, frozen=True):
    """One thing that a forge was told, in the order in which it heard them."""

    commit_sha: str
    check: str
    state: str
    body: bytes = b""


class SimulatedForge:
    """Takes statuses and documents, and remembers all of them; away or refusing as often as the world says."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.told: dict[str, list[Told]] = defaultdict(list)  # by repository

    async def set_status(self, repo: Repo, commit_sha: str, status: Status) -> None:
        """As GitHub's client does."""
        text = f"{status.description} {status.target_url}".encode()
        await self._hear(repo, Told(commit_sha, status.context, STATES[status.state], text))

    async def publish(self, repo: Repo, commit_sha: str, document: bytes, *, key: str) -> None:
        """As the client for plain git does."""
        assert key
        await self._hear(repo, Told(commit_sha, "", "", document))

    async def _hear(self, repo: Repo, told: Told) -> None:
        world = self._world
        if world.strikes("forge_refuses"):
            raise ForgeRejected("422: no")
        is_away = world.strikes("forge_away")
        is_heard = not is_away or world.rng("forge_heard").random() < 1 / 2
        if is_heard:
            # At the beginning: a request of a process that dies meanwhile must not overtake one of the next process.
            self.told[repo.id].append(told)
            world.counts["told"] += 1
        await anyio.sleep(world.after(0.2, "forge"))
        if is_away:
            raise ForgeUnavailable("the forge does not answer")
