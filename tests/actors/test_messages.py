"""Telling, asking, and what askers are told."""

import contextvars

import anyio
import anyio.to_thread
import pykka
import pytest

from actors import ActorCrashed, ActorError, AskTimedOut, MailboxFull, UnknownPath, WouldBlock
from tests.actors.support import Crash, Pause, Probe, Urgent, World, a_system, until

pytestmark = pytest.mark.anyio


async def test_messages_are_handled_one_at_a_time_and_in_order() -> None:
    """The mailbox is what serialises changes of state; there is no lock anywhere else."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", world.build)
        pause = Pause()
        ref.tell(pause)
        ref.tell("one")
        await pause.entered.wait()

        while_paused = world.of("/s/a")
        pause.go.set()
        answer = await ref.ask("two", timeout=5)

    assert while_paused == ["restore"]
    assert answer == ("one", "two")


async def test_an_ask_times_out_without_disturbing_the_handler() -> None:
    """The asker stops waiting; the handler is not canceled half-way, and its late answer is dropped silently."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", world.build)
        pause = Pause()

        with pytest.raises(AskTimedOut, match=r"/s/a did not answer Pause within 0\.01 s") as timed_out:
            await ref.ask(pause, timeout=0.01)
        pause.go.set()

        assert isinstance(timed_out.value, pykka.Timeout)
        assert await ref.ask("after", timeout=5) == ("after",)
        assert world.of("/s/a") == ["restore", "after"]


async def test_an_asker_that_is_canceled_leaves_its_message_behind() -> None:
    """Accepted is accepted: a client that hangs up does not undo its command."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", world.build)
        pause = Pause()
        ref.tell(pause)

        with anyio.move_on_after(0.01):
            await ref.ask("asked")
        pause.go.set()

        assert await ref.ask("then", timeout=5) == ("asked", "then")


async def test_a_full_mailbox_refuses_tells_and_asks_at_the_sender() -> None:
    """Both learn it at once, and the urgent lane still takes what must get through."""
    world = World()
    async with a_system(mailbox_size=1) as system:
        ref = system.supervisor("/s").start("a", world.build)
        pause = Pause()
        ref.tell(pause)
        await pause.entered.wait()
        ref.tell("fits")

        with pytest.raises(MailboxFull):
            ref.tell("too much")
        with pytest.raises(MailboxFull):
            await ref.ask("too much")
        urgent = ref.ask(Urgent("cancel"), timeout=5)
        pause.go.set()

        assert await urgent == ("cancel",)
        await until(lambda: world.of("/s/a") == ["restore", "cancel", "fits"])


async def test_an_address_nobody_can_answer_is_a_mistake_of_the_sender() -> None:
    """A misspelt path must not disappear among the dead letters."""
    async with a_system() as system:
        system.supervisor("/s").entities("things", World().build)

        for path in ("/s", "/s/things", "/s/things/a/b", "/s/things/", "/t/x", "s/things/a", "", "/"):
            with pytest.raises(UnknownPath):
                system.ref(path).tell("hello")


async def test_a_blocking_ask_on_the_loop_is_refused_instead_of_hanging() -> None:
    """It would wait for an answer that only this very thread can produce."""
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", World().build)

        with pytest.raises(WouldBlock):
            ref.ask("hello", block=True)


async def test_other_threads_tell_and_ask_as_in_pykka() -> None:
    """A ref may be passed to a thread; there the blocking ask of Pykka works."""
    world = World()
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", world.build)

        def in_a_thread() -> tuple[str, ...]:
            ref.tell("told")
            return ref.ask("asked", block=True, timeout=5)  # type: ignore[no-any-return]

        answer = await anyio.to_thread.run_sync(in_a_thread)

    assert answer == ("told", "asked")


async def test_futures_compose_as_in_pykka_and_can_be_awaited() -> None:
    """Pykka builds map, join and stop on synchronous hooks, which must not block the loop."""
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", World().build)

        length = ref.ask("a").map(len)
        joined = ref.ask("b").join(ref.ask("c"))

        assert await length == 1
        assert await joined == [("a", "b"), ("a", "b", "c")]
        assert await ref.stop()
        assert not await ref.stop()


async def test_a_proxy_calls_methods_in_the_actors_turn() -> None:
    """Pykka's proxies are messages like others, and one that raises is a crash like others."""
    async with a_system() as system:
        ref = system.supervisor("/s").start("a", World().build)
        await ref.ask("word")

        proxy = ref.proxy()

        assert await proxy.describe_state() == "1 words"
        assert await proxy.state == ("word",)
        with pytest.raises(ActorCrashed):
            await proxy.handle(Crash())


async def test_an_actor_starts_under_a_supervisor_only() -> None:
    """An actor without one would have nobody to restart it."""
    with pytest.raises(ActorError, match=r"supervisor\.start"):
        Probe.start(World())


async def test_a_suspended_handler_does_not_hold_up_other_actors() -> None:
    """Workers are lent, not shared: whoever waits for the disk keeps one, and the rest go on with others."""
    world = World()
    async with a_system() as system:
        things = system.supervisor("/s").entities("things", world.build)
        pauses = [Pause() for _ in range(100)]
        answers = [things.ref(str(number)).ask(pause, timeout=5) for number, pause in enumerate(pauses)]
        for pause in pauses:
            await pause.entered.wait()

        meanwhile = await things.ref("another").ask("hello", timeout=5)
        for pause in pauses:
            pause.go.set()

        assert meanwhile == ("hello",)
        assert [await answer for answer in answers] == [()] * 100


async def test_a_flood_to_one_actor_leaves_others_their_turn() -> None:
    """Sixty-four messages are a turn; then the next actor is served."""
    world = World()
    async with a_system(mailbox_size=1000) as system:
        supervisor = system.supervisor("/s")
        busy, other = supervisor.start("busy", world.build), supervisor.start("other", world.build)
        for number in range(500):
            busy.tell(str(number))

        await other.ask("hello", timeout=5)

    assert world.journal.index(("/s/other", "hello")) < world.journal.index(("/s/busy", "499"))


async def test_a_worker_does_not_inherit_the_context_of_whoever_told_first() -> None:
    """A request's context variables must not leak into actors that outlive the request."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request", default="none")

    class Nosy(Probe):
        async def handle(self, message: object) -> str:
            return request.get()

    async with a_system() as system:
        token = request.set("mine")
        answer = await system.supervisor("/s").start("a", lambda: Nosy(World())).ask("?", timeout=5)
        request.reset(token)

    assert answer == "none"
