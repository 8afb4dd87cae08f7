"""One crash is one crash, wherever it happens."""

from typing import Any

import anyio
import pytest

from actors import ActorCrashed, Intensity, Status
from tests.actors.support import QUICK, Boom, Crash, Ledger, Pause, Probe, Urgent, World, a_system, until

pytestmark = pytest.mark.anyio


async def test_the_asker_of_a_crash_gets_its_cause() -> None:
    """The text names the path and says what to do; the traceback is chained for whoever debugs."""
    async with a_system() as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", World().build)

        with pytest.raises(ActorCrashed, match="/s/a crashed on the message: Boom: handle") as crash:
            await ref.ask(Crash(), timeout=5)

    assert isinstance(crash.value.__cause__, Boom)


@pytest.mark.parametrize("by_ask", [True, False])
async def test_a_crash_drops_the_state_and_keeps_the_rest_of_the_mailbox(by_ask: bool) -> None:
    """Half-changed state is never seen again; ask and tell make no difference; the culprit is not replayed."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", world.build)
        ref.tell("before")
        crash = ref.ask(Crash(), timeout=5) if by_ask else ref.tell(Crash())
        ref.tell("waiting")
        last = ref.ask("last", timeout=5)

        if by_ask:
            with pytest.raises(ActorCrashed):
                await crash
        answer = await last

        assert answer == ("before", "waiting", "last")
        assert world.of("/s/a") == ["restore", "before", "restore", "waiting", "last"]


async def test_senders_queue_while_an_actor_restarts() -> None:
    """A restart is not an outage: messages wait for it, urgent ones in front."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", world.build)
        ref.tell(Crash())
        await until(lambda: system.cells["/s/a"].status is Status.RESTARTING)

        ref.tell("normal")
        answer = await ref.ask(Urgent("urgent"), timeout=5)

        assert answer == ("urgent",)
        await until(lambda: world.stored["/s/a"] == ("urgent", "normal"))


async def test_a_failing_restore_is_a_crash_and_is_tried_again() -> None:
    """The snapshot may be out of reach for a moment; the message that waits did nothing wrong and stays."""
    world = World(failing_restores=2)
    ledger = Ledger()
    async with a_system(observer=ledger) as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", world.build)

        answer = await ref.ask("hello", timeout=5)

    assert answer == ("hello",)
    assert ledger.events == [("crashed", "/s/a"), ("restarted", "/s/a")] * 2


async def test_a_failing_factory_is_a_crash_and_is_tried_again() -> None:
    """Whoever sends the first message is not the one to blame for a constructor."""
    world = World(failing_builds=1)
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", world.build, backoff=QUICK)

        answer = await things.ref("a").ask("hello", timeout=5)

        assert answer == ("hello",)
        assert system.cells["/s/things/a"].last_crash == "Boom: build"


async def test_an_exception_from_is_final_is_a_crash() -> None:
    """Everything a subclass overrides may be wrong; nothing of it takes a worker down."""

    class Odd(Probe):
        def is_final(self) -> bool:
            raise Boom("is_final")

    async with a_system() as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", lambda: Odd(World()))

        assert await ref.ask("hello", timeout=5) == ("hello",)
        await until(lambda: system.cells["/s/a"].restarts == 1)


async def test_cancellation_of_the_system_is_not_a_crash() -> None:
    """Tearing down is nobody's fault: no restart, no crash counted."""
    ledger = Ledger()
    pause = Pause()
    async with anyio.create_task_group() as outside, a_system(observer=ledger) as system:
        ref = system.supervisor("/s").start("a", World().build)
        ref.tell(pause)
        await pause.entered.wait()
        outside.cancel_scope.cancel()
        await anyio.sleep_forever()

    assert ledger.events == []


async def test_a_restarted_actor_is_a_fresh_object() -> None:
    """Not only `state` is dropped: no attribute that a crashed handler half-changed survives."""
    built: list[Probe] = []

    def build() -> Probe:
        built.append(Probe(World()))
        return built[-1]

    async with a_system() as system:
        ref = system.supervisor("/s", backoff=QUICK).start("a", build)
        with pytest.raises(ActorCrashed):
            await ref.ask(Crash(), timeout=5)
        await ref.ask("hello", timeout=5)

    assert len(built) == 2


async def test_a_group_of_exceptions_is_one_crash() -> None:
    """A handler may run a task group of its own; what comes out of it is an exception like any other."""

    class Grouping(Probe):
        async def handle(self, message: Any) -> Any:
            async with anyio.create_task_group() as group:
                group.start_soon(super().handle, message)

    ledger = Ledger()
    async with a_system(observer=ledger) as system:
        ref = system.supervisor("/s", backoff=QUICK, intensity=Intensity(1, 60)).start("a", lambda: Grouping(World()))

        with pytest.raises(ActorCrashed) as crash:
            await ref.ask(Crash(), timeout=5)

    assert isinstance(crash.value.__cause__, ExceptionGroup)
    assert ledger.events.count(("crashed", "/s/a")) == 1
