"""Strategies, intensity, backoff and escalation for permanent children."""

from collections.abc import Callable

import anyio
import pytest

from actors import ActorCrashed, ActorError, Backoff, Intensity, IntensityExceeded, Status, Strategy
from tests.actors.support import QUICK, Boom, Crash, Ledger, Pause, Probe, World, a_system, until

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("strategy", "restarted"),
    [
        (Strategy.ONE_FOR_ONE, ["/s/b"]),
        (Strategy.REST_FOR_ONE, ["/s/b", "/s/c"]),
        (Strategy.ONE_FOR_ALL, ["/s/a", "/s/b", "/s/c"]),
    ],
)
async def test_the_strategy_names_who_is_restored_again(strategy: Strategy, restarted: list[str]) -> None:
    """Children that depend on each other start afresh together, in start order."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s", strategy=strategy, backoff=QUICK)
        refs = [supervisor.start(name, world.build) for name in "abc"]
        for ref in refs:
            await ref.ask("hello", timeout=5)
        world.journal.clear()

        with pytest.raises(ActorCrashed):
            await refs[1].ask(Crash(), timeout=5)
        await until(lambda: len(world.journal) == len(restarted))
        answers = [await ref.ask("again", timeout=5) for ref in refs]

    assert restarted == [path for path, what in world.journal if what == "restore"]
    assert answers == [("hello", "again")] * 3


async def test_a_sibling_finishes_its_message_before_it_is_restarted() -> None:
    """A group restart holds; it does not tear a handler apart between its commit and its answer."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s", strategy=Strategy.ONE_FOR_ALL, backoff=QUICK)
        a, b = supervisor.start("a", world.build), supervisor.start("b", world.build)
        pause = Pause()
        answer = a.ask(pause, timeout=5)
        await pause.entered.wait()
        waiting = a.ask("waiting", timeout=5)
        b.tell(Crash())
        await until(lambda: system.cells["/s/b"].status is Status.RESTARTING)

        pause.go.set()

        assert await answer == ()
        assert await waiting == ("waiting",)
        assert world.of("/s/a") == ["restore", "restore", "waiting"]


async def test_a_member_that_crashes_again_during_a_group_restart_restarts_the_group() -> None:
    """The first attempt stops there; nobody after the broken member is revived before it works."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s", strategy=Strategy.ONE_FOR_ALL, backoff=QUICK)
        a, b = supervisor.start("a", world.build), supervisor.start("b", world.build)
        await a.ask("hello", timeout=5)
        await b.ask("hello", timeout=5)
        world.journal.clear()

        world.failing_restores = 1
        b.tell(Crash())
        await until(lambda: len(world.journal) == 3)

        assert world.journal == [("/s/a", "restore"), ("/s/a", "restore"), ("/s/b", "restore")]
        assert await b.ask("again", timeout=5) == ("hello", "again")


async def test_a_restart_waits_for_the_backoff() -> None:
    """A broken dependency gets time to come back."""
    async with a_system() as system:
        backoff = Backoff(first_s=0.03, factor=2, max_s=1, jitter=0)
        ref = system.supervisor("/s", backoff=backoff).start("a", World().build)
        ref.tell(Crash())
        ref.tell(Crash())
        before = anyio.current_time()

        await ref.ask("hello", timeout=5)

        assert anyio.current_time() - before >= 0.03 + 0.06


async def test_one_crash_too_many_at_the_root_raises_out_of_the_system() -> None:
    """The process exits non-zero and the service manager starts it afresh; hiding the failure would help nobody."""
    ledger = Ledger()
    with pytest.raises(IntensityExceeded, match=r"/s crashed more than 2 times within 60 s.*Boom") as exceeded:  # noqa: PT012 - the system is what raises
        async with a_system(observer=ledger) as system:
            ref = system.supervisor("/s", intensity=Intensity(2, 60), backoff=QUICK).start("a", World().build)
            for _ in range(3):
                ref.tell(Crash())
            await anyio.sleep_forever()

    assert isinstance(exceeded.value.__cause__, Boom)
    assert ledger.events.count(("crashed", "/s/a")) == 3
    assert ("escalated", "/s") in ledger.events


async def test_a_supervisor_escalates_to_its_parent_which_restarts_the_whole_of_it() -> None:
    """The parent knows less and restarts more: a fresh start of the subtree often helps where a child's did not."""
    world = World()
    async with a_system() as system:
        top = system.supervisor("/s", backoff=QUICK)
        inner = top.supervisor("inner", intensity=Intensity(1, 60), backoff=QUICK)
        a, b = inner.start("a", world.build), inner.start("b", world.build)
        outer = top.start("outer", world.build)
        for ref in (a, b, outer):
            await ref.ask("hello", timeout=5)
        world.journal.clear()

        a.tell(Crash())
        a.tell(Crash())
        await until(lambda: inner.restarts == 1 and len(world.journal) == 3)

        assert world.journal == [("/s/inner/a", "restore")] * 2 + [("/s/inner/b", "restore")]
        assert await a.ask("again", timeout=5) == ("hello", "again")


async def test_crashes_spread_over_time_do_not_escalate() -> None:
    """The window slides: one crash now and then is what supervision is for."""
    async with a_system() as system:
        ref = system.supervisor("/s", intensity=Intensity(1, 0.03), backoff=QUICK).start("a", World().build)

        for _ in range(4):
            with pytest.raises(ActorCrashed):
                await ref.ask(Crash(), timeout=5)
            await anyio.sleep(0.05)

        assert await ref.ask("hello", timeout=5) == ("hello",)


async def test_a_supervisor_that_gives_up_during_the_drain_fails_the_system_too() -> None:
    """The block was already left in good order; the failure must come out all the same, and no bare cancellation."""
    world = World()
    with pytest.raises(IntensityExceeded):  # noqa: PT012 - the system is what raises
        async with a_system() as system:
            ref = system.supervisor("/s", intensity=Intensity(1, 60), backoff=QUICK).start("a", world.build)
            ref.tell(Crash())
            ref.tell(Crash())


async def test_a_cancellation_from_outside_during_the_drain_passes_through() -> None:
    """Whoever canceled the block waits for the cancellation to come out again."""
    async with a_system() as outer:
        with anyio.move_on_after(0.01) as limit:
            async with a_system() as system:
                system.supervisor("/s").start("a", World().build).tell(Pause())

        assert limit.cancelled_caught
        assert outer.is_running


async def test_a_child_that_crashes_while_it_is_stopped_comes_back_for_its_mail() -> None:
    """Even when its supervisor escalates meanwhile: what was accepted is handled."""
    world = World()
    async with a_system() as system:
        inner = system.supervisor("/s", backoff=QUICK).supervisor("inner", intensity=Intensity(0, 60), backoff=QUICK)
        ref = inner.start("a", world.build)
        ref.tell(Crash())
        ref.tell("behind")

        assert await system.shutdown(5)

    assert world.of("/s/inner/a") == ["restore", "restore", "behind", "passivate"]


async def test_a_bug_in_an_observer_fails_the_system_loudly() -> None:
    """A runtime that goes on with a broken part of itself is worse than one that starts afresh."""

    class Broken(Ledger):
        def restarted(self, path: str) -> None:
            raise Boom("observer")

    with pytest.raises(Boom, match="observer"):  # noqa: PT012 - the system is what raises
        async with a_system(observer=Broken()) as system:
            system.supervisor("/s").entities("things", World().build, backoff=QUICK).ref("a").tell(Crash())
            await anyio.sleep_forever()


async def test_an_exception_in_the_block_comes_out_as_it_is() -> None:
    """Whoever wrote `except Boom` around the system must not have to know about task groups."""
    with pytest.raises(Boom):  # noqa: PT012 - the system is what raises
        async with a_system() as system:
            system.supervisor("/s").start("a", World().build)
            raise Boom("in the block")


@pytest.mark.parametrize("name", ["", "a/b", "*", "taken"])
async def test_a_name_that_is_no_path_segment_or_taken_is_refused(name: str) -> None:
    """Two actors under one address could not be told apart."""
    async with a_system() as system:
        supervisor = system.supervisor("/s")
        supervisor.start("taken", World().build)

        actions: list[Callable[[], object]] = [
            lambda: supervisor.start(name, World().build),
            lambda: supervisor.supervisor(name),
            lambda: supervisor.entities(name, lambda _: Probe(World())),
        ]

        for action in actions:
            with pytest.raises(ActorError):
                action()


async def test_a_supervisor_may_be_added_by_its_path() -> None:
    """Wiring that builds the tree from a table needs no variables for the levels between."""
    async with a_system() as system:
        system.supervisor("/s")
        nested = system.supervisor("/s/deeper")

        assert await nested.start("a", World().build).ask("hello", timeout=5) == ("hello",)
        for path in ("relative", "/", "/s", "/unknown/x"):
            with pytest.raises(ActorError):
                system.supervisor(path)


async def test_nothing_starts_outside_the_system() -> None:
    """Before it is entered there is no loop to run on; the error says so instead of failing deep below."""
    supervisor = a_system().supervisor("/s")

    with pytest.raises(ActorError, match="enter the system first"):
        supervisor.start("a", World().build)
