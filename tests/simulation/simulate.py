"""One seed: a world is built, things go wrong in it for some hours, then all is mended, and everything must end."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio
from loguru import logger

from tests.simulation import coverage
from tests.simulation.forge import SimulatedForge
from tests.simulation.network import Network
from tests.simulation.parameters import Parameters, draw
from tests.simulation.people import Administrator, Forge, Maintainer, User, repos_of
from tests.simulation.runners import Runner
from tests.simulation.scheduler import run_deterministically
from tests.simulation.server import Server
from tests.simulation.watch import Watch
from tests.simulation.world import Outcome, World

LOOK_EVERY_S: Final = 30
LISTEN_EVERY_S: Final = 10
# Once all is mended, jobs take a second each: what is left are deadlines, backoffs and the longest queue.
END_WITHIN_S: Final = 1_800
MEMORY_DISK: Final = Path("/dev/shm")


def simulate(
    seed: int, *, hours: float = 1.0, parameters: Parameters | None = None, tell: Callable[[str], None] | None = None
) -> Outcome:
    """What became of the world of `seed`.

    Args:
        hours: simulated time with faults.
        parameters: instead of those that the seed draws.
        tell: is told each line of the trace.
    """
    began_s = time.process_time()
    world_parameters = parameters or draw(seed, hours=hours)
    logger.disable("actors")
    logger.disable("deltaci")
    try:
        with tempfile.TemporaryDirectory(
            prefix="simulated-", dir=MEMORY_DISK if MEMORY_DISK.is_dir() else None
        ) as home:
            return run_deterministically(_world, world_parameters, Path(home), tell, began_s, seed=seed)
    finally:
        logger.enable("actors")
        logger.enable("deltaci")


async def _world(parameters: Parameters, home: Path, tell: Callable[[str], None] | None, began_s: float) -> Outcome:
    world = World(parameters, is_loud=tell)
    path = home / "deltaci.db"
    watch = Watch(world, path)
    forge = SimulatedForge(world)
    with coverage.counting(world):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_until_broken, world, tasks.cancel_scope)
            network = Network(world, tasks)
            server = Server(world, network, path, watch, forge)
            tasks.start_soon(_listen, watch)
            await _live(world, tasks, network, server, watch)
            tasks.cancel_scope.cancel()
    if not world.violations:
        watch.check_history()
        watch.check_forge(forge)
        watch.check_secrets(forge)
    watch.close()
    return Outcome(
        seed=parameters.seed,
        simulated_s=anyio.current_time(),
        cpu_s=time.process_time() - began_s,
        commits=watch.commits,
        trace_hash=world.trace_hash,
        counts=dict(world.counts),
        covered={" | ".join(what): count for what, count in world.covered.items()},
        violations=world.violations,
        tail=list(world.tail) if world.violations else [],
    )


async def _listen(watch: Watch) -> None:
    while True:
        await anyio.sleep(LISTEN_EVERY_S)
        watch.check_heard()


async def _until_broken(world: World, scope: anyio.CancelScope) -> None:
    await world.failed.wait()
    scope.cancel()


async def _live(world: World, tasks: anyio.abc.TaskGroup, network: Network, server: Server, watch: Watch) -> None:
    parameters = world.parameters
    repos = repos_of(world)
    tasks.start_soon(server.run)
    runners = [Runner(world, network, number) for number in range(parameters.runners)]
    await Administrator(world, network, "admin").add_all(repos)
    async with anyio.create_task_group() as people:
        for repo in repos:
            people.start_soon(Forge(world, network, repo).run)
        for number in range(parameters.users):
            people.start_soon(User(world, network, number, repos).run)
        for number in range(parameters.maintainers):
            people.start_soon(Maintainer(world, network, number, repos).run)
        for runner in runners:
            tasks.start_soon(runner.live)
            tasks.start_soon(runner.haunt)
        tasks.start_soon(server.be_operated)
        for trouble in (server.be_killed, server.be_stopped, server.be_full, server.be_locked_out, server.be_poisoned):
            tasks.start_soon(trouble)
        tasks.start_soon(_cut_lines, world, network, [runner.name for runner in runners])
        await anyio.sleep(parameters.fault_s)
        _heal(world, network, server)
    await _until_all_is_over(world, watch)


def _heal(world: World, network: Network, server: Server) -> None:
    """From now on nothing goes wrong any more: whatever is open must come to its end."""
    world.healed.set()
    world.trace("healed")
    network.heal()
    server.disk.is_full = False


async def _cut_lines(world: World, network: Network, names: list[str]) -> None:
    chance = world.rng("cut")
    while await world.pause("cut_every_s"):
        directions = chance.choice((("to_server",), ("from_server",), ("to_server", "from_server")))
        seconds = world.after(world.faults.cut_s, "cut_s")
        for direction in directions:
            network.cut(chance.choice(names), direction, seconds)


async def _until_all_is_over(world: World, watch: Watch) -> None:
    settled_s = anyio.current_time() + watch.in_time_ms / 1000
    deadline_s = anyio.current_time() + END_WITHIN_S
    while still_open := watch.still_open():
        if anyio.current_time() > deadline_s:
            world.broken("liveness", f"{END_WITHIN_S} s after everything was mended: {'; '.join(still_open[:10])}")
            return
        if anyio.current_time() > settled_s:
            watch.check_settled()
        await anyio.sleep(LOOK_EVERY_S)
    world.trace("all is over")
