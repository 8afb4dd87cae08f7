"""Ordered stops, the drain, dead letters, and what is left when time runs out."""

import anyio
import pykka
import pytest

from actors import ActorStopped, DeadLetter
from tests.actors.support import QUICK, Crash, Ledger, Pause, Probe, World, a_system, until

pytestmark = pytest.mark.anyio


async def test_a_shutdown_handles_what_was_accepted_in_reverse_start_order() -> None:
    """What was started first is what the others rely on, up to their last message."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s")
        refs = [supervisor.start(name, world.build) for name in "ab"]
        runs = supervisor.entities("runs", world.build)
        jobs = runs.nested("jobs", world.build)
        answers = [ref.ask("last", timeout=5) for ref in (*refs, runs.ref("r"), jobs.ref("r", "j"))]

        drained = await system.shutdown(5)

        assert drained
        assert [await answer for answer in answers] == [("last",)] * 4
    order = [path for path, what in world.journal if what == "passivate"]
    assert order == ["/s/runs/r/jobs/j", "/s/runs/r", "/s/b", "/s/a"]


async def test_leaving_the_block_drains_too() -> None:
    """The usual way out loses nothing either."""
    world = World()
    async with a_system() as system:
        system.supervisor("/s").start("a", world.build).tell("hello")

    assert world.of("/s/a") == ["restore", "hello", "passivate"]


async def test_a_shutdown_that_runs_out_of_time_fails_those_who_wait() -> None:
    """A handler that hangs must not keep the process alive, nor its askers waiting for ever."""
    world = World()
    ledger = Ledger()
    async with a_system(observer=ledger) as system:
        ref = system.supervisor("/s").start("a", world.build)
        pause = Pause()
        at_work, waiting = ref.ask(pause), ref.ask("waiting")
        await pause.entered.wait()

        drained = await system.shutdown(0.01)

        assert not drained
        for answer in (at_work, waiting):
            with pytest.raises(ActorStopped):
                await answer
    assert ["waiting", pause] == [letter.message for letter in ledger.letters]


async def test_a_crash_during_the_drain_is_restarted_and_the_drain_goes_on() -> None:
    """A stop is no excuse to lose the messages behind the one that crashed."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s", backoff=QUICK)
        ref = supervisor.start("a", world.build)
        thing = supervisor.entities("things", world.build, backoff=QUICK).ref("t")
        for target in (ref, thing):
            target.tell(Crash())
            target.tell("behind")

        drained = await system.shutdown(5)

    assert drained
    assert world.of("/s/a") == ["restore", "restore", "behind", "passivate"]
    assert world.of("/s/things/t") == ["restore", "restore", "behind", "passivate"]


async def test_after_the_stop_tells_become_dead_letters_and_asks_fail() -> None:
    """A tell has nobody to hear of it, so the list does; to Pykka's callers it is the error they know."""
    async with a_system(dead_letters_max=2) as system:
        ref = system.supervisor("/s").start("a", World().build)
        await system.stop("/s/a")

        for number in range(3):
            ref.tell(str(number))
        with pytest.raises(pykka.ActorDeadError):
            await ref.ask("3", timeout=5)

        letters = list(system.dead_letters)
    assert [letter.message for letter in letters] == ["2", "3"]
    assert isinstance(letters[0], DeadLetter)
    assert (len(system.dead_letters), system.dead_letters.total) == (2, 4)


async def test_a_stopped_system_activates_nobody() -> None:
    """A late message must not bring an entity to life on a loop that is going away."""
    world = World()
    async with a_system() as system:
        thing = system.supervisor("/s").entities("things", world.build).ref("a")
        await system.shutdown(5)

        with pytest.raises(ActorStopped):
            await thing.ask("late", timeout=5)

    assert world.journal == []


async def test_a_stopped_entity_and_all_below_come_back_with_the_next_message() -> None:
    """Stopping an entity clears memory; it takes nothing out of the world."""
    world = World()
    async with a_system() as system:
        runs = system.supervisor("/s").entities("runs", world.build)
        jobs = runs.nested("jobs", world.build)
        for ref in (runs.ref("r"), jobs.ref("r", "1"), jobs.ref("r", "2"), runs.ref("other")):
            await ref.ask("hello", timeout=5)

        await system.stop("/s/runs/r")

        order = [path for path, what in world.journal if what == "passivate"]
        assert order == ["/s/runs/r/jobs/2", "/s/runs/r/jobs/1", "/s/runs/r"]
        assert list(system.cells) == ["/s/runs/other"]
        assert await runs.ref("r").ask("again", timeout=5) == ("hello", "again")


async def test_a_stop_handles_more_than_one_turn_of_messages() -> None:
    """An actor says goodbye when its mailbox is empty, not when its turn is over."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", world.build)
        for number in range(200):
            ref.tell(str(number))

        assert await system.shutdown(5)

    assert world.of("/s/a") == ["restore", *map(str, range(200)), "passivate"]


async def test_a_message_during_the_farewell_does_not_undo_a_stop() -> None:
    """It is handled by a fresh incarnation, and whoever waits for the stop still sees its end."""
    world = World()
    farewell = Pause()

    class Slow(Probe):
        async def on_passivate(self) -> None:
            farewell.entered.set()
            await farewell.go.wait()

    async with a_system() as system:
        ref = system.supervisor("/s").entities("things", lambda _: Slow(world)).ref("a")
        await ref.ask("hello", timeout=5)
        async with anyio.create_task_group() as stopping:
            stopping.start_soon(system.stop, "/s/things/a")
            await farewell.entered.wait()
            answer = ref.ask("in the gap", timeout=5)
            farewell.go.set()

        assert await answer == ("hello", "in the gap")
        assert not ref.is_alive()


async def test_a_stopped_permanent_child_gives_its_name_up() -> None:
    """It stays in sight as stopped until somebody starts another under the name."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s")
        supervisor.start("a", world.build)
        await system.stop("/s/a")

        ref = supervisor.start("a", world.build)

        assert await ref.ask("hello", timeout=5) == ("hello",)


async def test_a_quarantined_entity_does_not_hold_up_the_stop() -> None:
    """It has no mail left to handle and nobody to restore it."""
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", World().build, backoff=QUICK)
        for _ in range(6):
            things.ref("a").tell(Crash())
        await until(lambda: not things.ref("a").is_alive())

        assert await system.shutdown(5)


async def test_an_aborted_system_answers_those_who_asked_from_outside() -> None:
    """They may live in another task group, which nobody cancels."""
    outcome: list[BaseException] = []

    async def ask(answer: "pykka.Future[object]") -> None:
        try:
            await answer
        except ActorStopped as stopped:
            outcome.append(stopped)

    async with anyio.create_task_group() as outside:
        with pytest.raises(ZeroDivisionError):  # noqa: PT012 - the system is what raises
            async with a_system() as system:
                ref = system.supervisor("/s").start("a", World().build)
                pause = Pause()
                outside.start_soon(ask, ref.ask(pause))
                outside.start_soon(ask, ref.ask("waiting"))
                await pause.entered.wait()
                _ = 1 / 0

    assert len(outcome) == 2
