"""Who is online, and through which channel: memory that neither forgets too late nor grows for ever."""

from typing import Any

from deltaci.orchestrator.runners import RunnerHub
from deltaci.store.writes import Runner
from protocol import messages as wire
from tests.orchestrator.support import ManualClock


def a_runner(runner_id: str) -> Runner:
    return Runner(
        id=runner_id,
        token_id="t",
        name=runner_id,
        labels=(),
        slots=1,
        version="",
        platform="",
        registered_at_ms=0,
    )


class Channel:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def push(self, message: Any) -> bool:
        self.sent.append(message)
        return True


def test_a_closed_channel_is_detached_though_its_method_is_looked_up_anew() -> None:
    """A bound method is another object at each look; compared by identity no channel was ever closed."""
    clock, channel = ManualClock(), Channel()
    hub = RunnerHub(clock, silent_after_ms=1_000)
    hub.hear(a_runner("r"))
    hub.attach("r", channel.push)
    assert hub.push("r", wire.Leases())

    hub.detach("r", channel.push)
    clock.advance(1_001)

    assert not hub.push("r", wire.Leases())
    assert hub.online() == ()
    assert len(channel.sent) == 1


def test_a_newer_channel_is_not_detached_by_the_end_of_an_older_one() -> None:
    """The runner reconnected before the server noticed that the old connection was dead."""
    hub, old, new = RunnerHub(ManualClock(), silent_after_ms=1_000), Channel(), Channel()
    hub.hear(a_runner("r"))
    hub.attach("r", old.push)
    hub.attach("r", new.push)

    hub.detach("r", old.push)

    assert hub.push("r", wire.Leases())
    assert (len(old.sent), len(new.sent)) == (0, 1)


def test_runners_that_come_once_and_go_do_not_pile_up() -> None:
    """A fleet that makes a runner for each job registers a new name each time."""
    clock = ManualClock()
    hub = RunnerHub(clock, silent_after_ms=1_000)

    for number in range(1_000):
        hub.hear(a_runner(f"r{number}"))
        clock.advance(100)

    assert len(hub._online) < 20
