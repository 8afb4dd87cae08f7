"""The server: one life of its process after the other, on the same disk.

Rule 1: a killed process first loses its disk and its network, and only then are its tasks unwound: what their `finally`
        blocks do is no longer part of the world.
Rule 2: a process that ends by itself must have a reason that the house declares; anything else is a violation.
"""

import contextlib
import random
import sqlite3
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.abc

from actors import ActorError, IntensityExceeded, Status
from actors import Observer as ActorObserver
from deltaci.analyzer.analyzer import LogAnalyzer
from deltaci.domain.errors import DeltaError, StoreError, StoreUnavailable
from deltaci.domain.job import Job
from deltaci.forge.budget import WriteBudget
from deltaci.orchestrator import orchestrator as house_of
from deltaci.orchestrator.dispatch import Offer
from deltaci.orchestrator.orchestrator import Orchestrator
from deltaci.reporter.reporter import StatusReporter
from deltaci.reporter.results import GitDocuments, StatusResults
from deltaci.store.port import Store
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Hasten, Runner
from protocol import messages as wire
from tests.simulation.forge import SimulatedForge, SimulatedPeople, SimulatedPlanner
from tests.simulation.network import Ask, Failed, Network
from tests.simulation.storage import FlakyStore, SlowEngine
from tests.simulation.watch import Watch
from tests.simulation.world import Clock, PlantedCrash, World

TOKEN_ID: Final = "tok_runners"
GRACE_S: Final = 15.0
RELEASE_EVERY_S: Final = 90.0
# What is put off for an hour by a forge's limits would be a debt that nobody pays within the time of a simulation.
NO_BOUND: Final = {"a_minute": 10**9, "an_hour": 10**9}
EXPECTED: Final = (DeltaError, ActorError, PlantedCrash, TimeoutError)


class Disk:
    """What ails the disk just now; it outlives processes. `poisoned`: the job whose rows crash whoever touches them."""

    is_full = False
    poisoned = ""


class House:
    """What a client can ask of a life of the server: the gateway's work without HTTP."""

    def __init__(self, life: "Life", orchestrator: Orchestrator) -> None:
        self.orchestrator = orchestrator
        self._life = life

    async def register(self, message: wire.Register, listen: Callable[[wire.ServerMessage], None]) -> wire.Registered:
        """A runner opens its channel: from now on it hears what is pushed."""
        runner, registered = await self.orchestrator.desk.register(TOKEN_ID, message)

        def push(pushed: wire.ServerMessage) -> bool:
            self._life.push(message.name, pushed, listen)
            return True

        self.orchestrator.hub.attach(runner.id, push)
        return registered

    async def say(self, runner_id: str, message: wire.RunnerMessage) -> wire.ServerMessage:
        """One message of a runner."""
        runner: Runner = await self.orchestrator.desk.identify(TOKEN_ID, runner_id)
        return await self.orchestrator.desk.serve(runner, message)


class Life:
    """One life of the server process, from its start to its end."""

    def __init__(self, server: "Server", number: int, clock: Clock) -> None:
        self.server = server
        self.world = server.world
        self.disk = server.disk
        self.number = number
        self.clock = clock
        self.is_dead = False
        self.scope = anyio.CancelScope()
        self._stop = anyio.Event()
        self._house: House | None = None
        self._requests: anyio.abc.TaskGroup
        self._open_requests = 0
        self._answered = anyio.Event()

    async def live(self) -> None:
        """Start, serve until killed, stopped or broken; returns when nothing of it is left."""
        with self.scope:
            try:
                await self._serve()
            except* (StoreUnavailable, IntensityExceeded, PlantedCrash) as group:
                # The house gave up on purpose, or could not start on a disk that fails: the process exits, not with 0.
                self.world.counts["gave_up"] += 1
                self.world.trace("life", self.number, "gave up:", _first(group))
            except* Exception as group:  # noqa: BLE001 - a violation, which ends the world
                if not self.is_dead:
                    self.world.broken("unexpected", f"life {self.number} ended with {_first(group)!r}")
        self.is_dead = True
        self.server.network.unbind(self)

    async def _serve(self) -> None:
        world, parameters = self.world, self.world.parameters
        async with AsyncExitStack() as stack:
            opened = SqliteStore.open(self.server.path, engine=SlowEngine.opener(self), busy_timeout_ms=0)
            sqlite = await stack.enter_async_context(opened)
            store: Any = FlakyStore(sqlite, self)
            clock = await self._go_on(store)
            statuses: Any = self.server.forge
            budget = WriteBudget(**NO_BOUND)
            results = {
                "git": GitDocuments(statuses),
                "github": StatusResults(statuses, account=lambda repo: repo.id),
            }
            running = house_of.running(
                store,
                clock=clock,
                entropy=self.server.entropy,
                rng=random.Random(f"jitter:{parameters.seed}:{self.number}"),
                policy=parameters.policy,
                planner=SimulatedPlanner(world),
                analyzer=LogAnalyzer(store, in_thread=_at_once),
                reporter=StatusReporter(store, results, base_url="https://ci.example.org", clock=clock, budget=budget),
                observer=Witness(world),
                actor_observer=Coroner(world),
                rights={"github": SimulatedPeople(world)},
            )
            orchestrator = await stack.enter_async_context(running)
            self._requests = await stack.enter_async_context(anyio.create_task_group())
            self._make_notifications_unreliable(orchestrator)
            self._house = House(self, orchestrator)
            stack.callback(self.server.network.unbind, self)  # whatever ends it: nobody is let in any more
            self.server.network.bind(self)
            world.trace("life", self.number, "serves")
            await self._stop.wait()
            # As the production server ends on SIGTERM: no new leases, what was read is answered, then the house closes.
            self.server.network.unbind(self)
            orchestrator.desk.close()
            with anyio.move_on_after(GRACE_S):
                while self._open_requests:
                    self._answered = anyio.Event()
                    await self._answered.wait()
            self._requests.cancel_scope.cancel()

    async def _go_on(self, store: Store) -> Clock:
        """As the wiring does: this life begins no earlier than what is stored, and no debt is put off for that."""
        ahead_ms = max(0, await store.newest_at_ms() - self.clock.now_ms())
        self.clock.offset_ms += ahead_ms
        latest_at_ms = self.clock.now_ms() + self.world.parameters.policy.effect_retry_max_ms
        await store.commit((Hasten(latest_at_ms=latest_at_ms),))
        self.server.watch.started(self.clock.now_ms())
        return self.clock

    def _make_notifications_unreliable(self, orchestrator: Orchestrator) -> None:
        system, deliver = orchestrator.system, orchestrator.system.deliver

        def unreliable(path: str, envelope: Any) -> None:
            # A runner's wish is a request, though it is told: its loss is the network's business.
            is_notification = envelope.reply_to is None and not isinstance(envelope.message, Offer)
            kind = type(envelope.message).__name__
            if is_notification and self.world.strikes("notification_lost", as_=f"lost_notification:{kind}"):
                self.world.disturb()
                return
            deliver(path, envelope)
            if is_notification and self.world.strikes("notification_doubled", as_=f"doubled_notification:{kind}"):
                delay_s = self.world.rng("again").uniform(0, self.world.faults.late_s)
                self._requests.start_soon(_tell_again, orchestrator, path, envelope.message, delay_s)

        system.deliver = unreliable  # type: ignore[method-assign]

    # ---- requests ------------------------------------------------------------------------------------------------

    def receive(self, ask: Ask, answer: Callable[[Any], None], scopes: list[anyio.CancelScope]) -> None:
        """A request arrived."""
        if not self.is_dead and self._house is not None:
            self._requests.start_soon(self._handle, ask, answer, scopes)

    async def _handle(self, ask: Ask, answer: Callable[[Any], None], scopes: list[anyio.CancelScope]) -> None:
        assert self._house is not None
        self._open_requests += 1
        try:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                try:
                    said = await ask(self._house)
                except Exception as error:  # noqa: BLE001 - what is expected is answered, the rest is a violation
                    said = self._failed(error)
                if not self.is_dead:
                    answer(said)
        finally:
            self._open_requests -= 1
            self._answered.set()

    def _failed(self, error: BaseException) -> Failed:
        for one in _leaves(error):
            if not isinstance(one, EXPECTED) and not self.is_dead:
                self.world.broken("unexpected", f"a request failed with {one!r}")
        first = _leaves(error)[0]
        self.world.counts[f"answered:{type(first).__name__}"] += 1
        return Failed(f"{type(first).__name__}: {first}")

    def push(self, who: str, message: wire.ServerMessage, listen: Callable[[wire.ServerMessage], None]) -> None:
        """Send to a runner's channel, while there is somebody to send."""
        if not self.is_dead:
            self.server.network.push(who, f"push:{type(message).__name__}", lambda: listen(message))

    # ---- the end -------------------------------------------------------------------------------------------------

    def die(self, when: str) -> None:
        """kill -9."""
        if not self.is_dead:
            self.is_dead = True
            self.world.counts["process_crashes"] += 1
            self.world.trace("life", self.number, "is killed", when)
            self.server.network.unbind(self)
            self.scope.cancel()

    async def end_here(self, when: str) -> None:
        """kill -9 at this very point of the caller."""
        self.die(when)
        await anyio.sleep_forever()

    def stop(self) -> None:
        """SIGTERM."""
        self._stop.set()

    def look(self) -> None:
        """Something was committed: is all of it sound?"""
        self.server.watch.look()

    def release_quarantined(self) -> None:
        """What an operator does after having mended the cause."""
        if self._house is None or self.is_dead:
            return
        system = self._house.orchestrator.system
        for path in [path for path, cell in system.cells.items() if cell.status is Status.QUARANTINED]:
            self.world.disturb()
            self.world.counts["released"] += 1
            system.release(path)


class Server:
    """Starts a new life whenever one has ended, and does to it what the world's faults say."""

    def __init__(self, world: World, network: Network, path: Path, watch: Watch, forge: SimulatedForge) -> None:
        self.world = world
        self.network = network
        self.path = path
        self.watch = watch
        self.forge = forge
        self.disk = Disk()
        self.entropy = Entropy(world.parameters.seed)
        self.life: Life | None = None
        self._offset_ms = 0

    async def run(self) -> None:
        """For ever."""
        number = 0
        while True:
            number += 1
            self.world.clock = Clock(self._offset_ms)
            self.life = Life(self, number, self.world.clock)
            self.world.counts["starts"] += 1
            await self.life.live()
            await anyio.sleep(self.world.after(self.world.faults.down_s, "down") if not self.world.is_healed else 1)
            if self.world.strikes("clock_jump"):
                jump_s = self.world.faults.clock_jump_s
                self._offset_ms += int(self.world.rng("jump").uniform(-jump_s, jump_s) * 1000)

    # ---- faults --------------------------------------------------------------------------------------------------

    async def be_killed(self) -> None:
        """At any moment, whatever it is at."""
        while await self.world.pause("kill_every_s"):
            if self.life is not None:
                self.life.die("at any moment")

    async def be_stopped(self) -> None:
        """In good order."""
        while await self.world.pause("stop_every_s"):
            if self.life is not None:
                self.world.trace("life", self.life.number, "is stopped")
                self.life.stop()

    async def be_full(self) -> None:
        """The disk has no room for a while."""
        while await self.world.pause("disk_full_every_s"):
            self.disk.is_full = True
            await anyio.sleep(self.world.after(self.world.faults.disk_trouble_s, "disk_trouble"))
            self.disk.is_full = False
            self.world.disturb()

    async def be_locked_out(self) -> None:
        """Another process holds the database for a while."""
        while await self.world.pause("disk_held_every_s"):
            other = sqlite3.connect(self.path, isolation_level=None, timeout=0)
            try:
                other.execute("BEGIN IMMEDIATE")
                await anyio.sleep(self.world.after(self.world.faults.disk_trouble_s, "disk_trouble"))
            except sqlite3.OperationalError:
                await anyio.sleep(1)  # somebody else held it
            finally:
                other.close()
                self.world.disturb()

    async def be_poisoned(self) -> None:
        """One job crashes its owner again and again, as a row does that a bug in a handler cannot stand."""
        while await self.world.pause("poison_every_s"):
            live = [
                one.id for one in self.watch.journal.folded.values() if isinstance(one, Job) and not one.state.is_final
            ]
            if not live:
                continue
            self.disk.poisoned = self.world.rng("poisoned").choice(live)
            self.world.trace("poisoned", self.disk.poisoned)
            await self.world.until_healed(self.world.after(self.world.faults.poison_s, "poison"))
            self.disk.poisoned = ""
            self.world.disturb()

    async def be_operated(self) -> None:
        """Somebody looks at the tree from time to time and releases what is quarantined."""
        while True:
            await anyio.sleep(RELEASE_EVERY_S)
            if self.life is not None:
                self.life.release_quarantined()


class Entropy:
    """Random bits that repeat with the seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(f"entropy:{seed}")

    def token_bytes(self, count: int) -> bytes:
        """See the port."""
        return self._random.randbytes(count)


class Witness:
    """The orchestrator's observer: counts."""

    def __init__(self, world: World) -> None:
        self._world = world

    def committed(self, events: Any) -> None:
        """See the port."""
        for event in events:
            self._world.counts[f"event:{type(event).__name__}"] += 1

    def refused(self, command: str, why: str) -> None:
        """See the port."""
        self._world.counts[f"refused:{command}:{why}"] += 1

    def waited(self, wait_ms: int) -> None:
        """See the port."""
        del wait_ms

    def missed(self, what: str) -> None:
        """See the port."""
        self._world.counts[f"found_by_reconciler:{what}"] += 1
        if what == "notification":
            self._world.disturb()  # a mailbox was full


class Coroner(ActorObserver):
    """The actor system's observer."""

    def __init__(self, world: World) -> None:
        self._world = world

    def crashed(self, path: str, class_name: str, cause: BaseException) -> None:
        """An actor crashed: of something planted, of a lost race, or of a bug."""
        self._world.disturb()
        self._world.counts["actor_crashes"] += 1
        self._world.counts[f"actor_crash:{class_name}"] += 1
        self._world.trace("crash", path, repr(cause))
        if not isinstance(cause, PlantedCrash | StoreError | anyio.get_cancelled_exc_class()):
            self._world.broken("crash", f"{class_name} crashed with {cause!r}", path)

    def quarantined(self, path: str, last_crash: str) -> None:
        """It crashed too often."""
        self._world.counts["quarantined"] += 1
        self._world.trace("quarantine", path, last_crash)


async def _tell_again(orchestrator: Orchestrator, path: str, message: Any, delay_s: float) -> None:
    await anyio.sleep(delay_s)
    with contextlib.suppress(ActorError):
        orchestrator.system.ref(path).tell(message)


async def _at_once(work: Callable[[], Any]) -> Any:
    await anyio.lowlevel.checkpoint()
    return work()


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for one in error.exceptions for leaf in _leaves(one)]
    return [error]


def _first(error: BaseException) -> str:
    return repr(_leaves(error)[0])
