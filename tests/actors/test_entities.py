"""Entities: activated by messages, passivated when idle or final, quarantined when they crash too often."""

import anyio
import pytest

from actors import ActorCrashed, ActorRef, Entities, Intensity, Quarantined, Reason, Status, Terminated
from tests.actors.support import QUICK, Crash, Finish, Ledger, Pause, Probe, World, a_system, until

pytestmark = pytest.mark.anyio

ONCE = Intensity(crashes_max=1, period_s=60)


async def test_a_message_activates_an_entity_from_its_snapshot() -> None:
    """Paths are addresses: nobody has to know whether an entity is in memory."""
    world = World(stored={"/s/things/a": ("stored",)})
    async with a_system() as system:
        system.supervisor("/s").entities("things", world.build)
        ref = system.ref("/s/things/a")

        alive_before = ref.is_alive()
        answer = await ref.ask("hello", timeout=5)

        assert answer == ("stored", "hello")
        assert (alive_before, ref.is_alive()) == (False, True)


async def test_an_actor_knows_where_it_lives() -> None:
    """The id comes from the path; below an entity, the parent is that entity's address, live or not."""
    seen: list[tuple[str, str, str | None]] = []

    class Nosy(Probe):
        async def handle(self, message: object) -> ActorRef | None:
            seen.append((self.path, self.entity_id, self.parent.path if self.parent else None))
            return self.parent

    ids: list[tuple[str, ...]] = []

    def build(*path_ids: str) -> Nosy:
        ids.append(path_ids)
        return Nosy(World())

    async with a_system() as system:
        runs = system.supervisor("/s").entities("runs", build)
        jobs = runs.nested("jobs", build)
        steps = jobs.nested("steps", build)

        await runs.ref("r").ask("?", timeout=5)
        parent = await jobs.ref("r", "j").ask("?", timeout=5)
        await steps.ref("r", "j", "x").ask("?", timeout=5)

        assert system.ref("/s/runs/r") == parent
    assert ids == [("r",), ("r", "j"), ("r", "j", "x")]
    assert seen == [
        ("/s/runs/r", "r", None),
        ("/s/runs/r/jobs/j", "j", "/s/runs/r"),
        ("/s/runs/r/jobs/j/steps/x", "x", "/s/runs/r/jobs/j"),
    ]


async def test_an_idle_entity_is_passivated_and_comes_back() -> None:
    """Memory is for those who are spoken to; the sweep goes quiet once nobody is left."""
    world = World()
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", world.build, passivate_after_s=0.02)
        ref = things.ref("a")
        await ref.ask("one", timeout=5)

        await until(lambda: not ref.is_alive())
        live_meanwhile = things.live
        answer = await ref.ask("two", timeout=5)

    assert live_meanwhile == 0
    assert answer == ("one", "two")
    assert world.of("/s/things/a") == ["restore", "one", "passivate", "restore", "two", "passivate"]


async def test_an_entity_that_is_spoken_to_stays() -> None:
    """Passivation counts from the last message, not from the activation."""
    world = World()
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", world.build, passivate_after_s=0.1)

        for number in range(6):
            await things.ref("a").ask(str(number), timeout=5)
            await anyio.sleep(0.03)

        assert "passivate" not in world.of("/s/things/a")


async def test_a_final_entity_goes_as_soon_as_its_mailbox_is_empty() -> None:
    """Finished entities are the majority; they need not wait for the sweep, nor lose what still waits."""
    world = World()
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", world.build, passivate_after_s=None)
        ref = things.ref("a")
        ref.tell(Finish())
        ref.tell("late")

        await until(lambda: not ref.is_alive())

    assert world.of("/s/things/a") == ["restore", "late", "passivate"]


async def test_a_message_that_arrives_during_the_farewell_activates_it_again() -> None:
    """Between deciding to go and being gone there is a gap, and nothing may fall into it."""
    world = World()
    farewell = Pause()

    class Slow(Probe):
        async def on_passivate(self) -> None:
            await super().on_passivate()
            farewell.entered.set()
            await farewell.go.wait()

    async with a_system() as system:
        things = system.supervisor("/s").entities("things", lambda _: Slow(world), passivate_after_s=None)
        ref = things.ref("a")
        ref.tell(Finish())
        await farewell.entered.wait()

        answer = ref.ask("in the gap", timeout=5)
        farewell.go.set()

        assert await answer == ("in the gap",)
    assert world.of("/s/things/a")[:4] == ["restore", "passivate", "restore", "in the gap"]


async def test_a_crash_in_the_farewell_does_not_keep_an_entity_alive() -> None:
    """There is nothing left to restart: it is counted, and the entity goes."""

    class Rude(Probe):
        async def on_passivate(self) -> None:
            raise RuntimeError("no")

    ledger = Ledger()
    async with a_system(observer=ledger) as system:
        things = system.supervisor("/s").entities("things", lambda _: Rude(World()))
        things.ref("a").tell(Finish())

        await until(lambda: ledger.events and not things.live)

    assert ledger.events == [("crashed", "/s/things/a")]


async def test_an_entity_that_crashes_too_often_is_quarantined_alone() -> None:
    """One poisoned entity costs its own work only: siblings go on and nothing escalates."""
    world = World()
    ledger = Ledger()
    async with a_system(observer=ledger) as system:
        things = system.supervisor("/s").entities("things", world.build, intensity=ONCE, backoff=QUICK)
        sick, well = things.ref("sick"), things.ref("well")
        for _ in range(2):
            sick.tell(Crash())
        waiting = sick.ask("waiting", timeout=5)

        with pytest.raises(Quarantined, match=r"/s/things/sick is quarantined.*Boom: handle"):
            await waiting
        with pytest.raises(Quarantined):
            await sick.ask("later", timeout=5)
        sick.tell("told")

        assert await well.ask("hello", timeout=5) == ("hello",)
        assert [letter.message for letter in system.dead_letters] == ["waiting", "later", "told"]
        assert ledger.events[-1] == ("quarantined", "/s/things/sick")


async def test_an_operator_releases_a_quarantine() -> None:
    """Once the cause is mended the entity is an entity like others again, with a clean record."""
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", World().build, intensity=ONCE, backoff=QUICK)
        ref = things.ref("a")
        for _ in range(2):
            with pytest.raises(ActorCrashed):
                await ref.ask(Crash(), timeout=5)

        released = system.release("/s/things/a")

        assert released
        assert not system.release("/s/things/a")
        assert await ref.ask("hello", timeout=5) == ("hello",)
        with pytest.raises(ActorCrashed):
            await ref.ask(Crash(), timeout=5)
        assert await ref.ask("again", timeout=5) == ("hello", "again")


async def test_an_entity_with_recent_crashes_is_not_forgotten() -> None:
    """Passivation would wipe its record, and it could crash for ever without being quarantined."""
    world = World()
    async with a_system() as system:
        intensity = Intensity(crashes_max=1, period_s=0.2)
        things = system.supervisor("/s").entities(
            "things", world.build, intensity=intensity, backoff=QUICK, passivate_after_s=0.0
        )
        ref = things.ref("a")
        with pytest.raises(ActorCrashed):
            await ref.ask(Crash(), timeout=5)
        crashed = anyio.current_time()

        await until(lambda: not ref.is_alive())

        assert anyio.current_time() - crashed >= 0.2


async def test_a_restart_of_the_supervisor_leaves_entities_alone() -> None:
    """They depend on their snapshot and on nobody's memory; reloading ten thousand would only hurt."""
    world = World()
    async with a_system() as system:
        top = system.supervisor("/s", backoff=QUICK)
        inner = top.supervisor("inner", intensity=Intensity(0, 60), backoff=QUICK)
        thing = inner.entities("things", world.build).ref("a")
        await thing.ask("hello", timeout=5)
        permanent = inner.start("permanent", world.build)

        permanent.tell(Crash())
        await until(lambda: inner.restarts == 1)

        assert await thing.ask("again", timeout=5) == ("hello", "again")
        assert world.of("/s/inner/things/a") == ["restore", "hello", "again"]


async def test_nested_entities_live_without_their_parent() -> None:
    """A job may be worked on while its run sleeps; each is activated for itself."""
    async with a_system() as system:
        runs: Entities = system.supervisor("/s").entities("runs", World().build)
        jobs = runs.nested("jobs", World().build)

        await jobs.ref("r", "j").ask("hello", timeout=5)

        assert (runs.live, jobs.live) == (0, 1)
        assert list(system.cells) == ["/s/runs/r/jobs/j"]


async def test_watchers_learn_why_an_entity_is_gone() -> None:
    """Told to a callable or to an actor, each time, until they unwatch."""
    world = World()
    news: list[Terminated] = []
    async with a_system() as system:
        supervisor = system.supervisor("/s")
        watcher = supervisor.start("watcher", world.build)
        things = supervisor.entities("things", world.build, intensity=Intensity(0, 60), passivate_after_s=None)
        system.watch("/s/things/a", news.append)
        system.watch("/s/things/a", watcher)
        ref = things.ref("a")

        ref.tell(Finish())
        await until(lambda: len(news) == 1)
        await ref.ask("hello", timeout=5)
        await system.stop("/s/things/a")
        system.unwatch("/s/things/a", watcher)
        ref.tell(Crash())
        await until(lambda: system.cells["/s/things/a"].status is Status.QUARANTINED)

        assert [terminated.reason for terminated in news] == [Reason.PASSIVATED, Reason.STOPPED, Reason.QUARANTINED]
        assert await watcher.ask("hello", timeout=5) == ("Terminated", "Terminated", "hello")
