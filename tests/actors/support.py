"""An actor that does what its messages say, and the world it acts in."""

from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio

from actors import Actor, ActorSystem, Backoff, DeadLetter, Observer

QUICK = Backoff(first_s=0.005, factor=1, max_s=0.005, jitter=0)


class Boom(Exception):
    """The crash we planted."""


@dataclass(frozen=True)
class Crash:
    """Makes the handler raise."""


@dataclass(frozen=True)
class Finish:
    """Makes the actor final."""


@dataclass(frozen=True)
class Urgent:
    word: str


@dataclass(frozen=True)
class Keyed:
    key: str
    word: str


@dataclass
class Pause:
    """Keeps the handler waiting until `go` is set."""

    go: anyio.Event = field(default_factory=anyio.Event)
    entered: anyio.Event = field(default_factory=anyio.Event)


@dataclass
class World:
    """What outlives crashes: the words stored, and a journal of (path, what happened)."""

    stored: dict[str, tuple[str, ...]] = field(default_factory=dict)
    journal: list[tuple[str, Any]] = field(default_factory=list)
    failing_restores: int = 0
    failing_builds: int = 0

    def of(self, path: str) -> list[Any]:
        return [what for at, what in self.journal if at == path]

    def build(self, *_ids: str) -> "Probe":
        if self.failing_builds:
            self.failing_builds -= 1
            raise Boom("build")
        return Probe(self)


class Probe(Actor[tuple[str, ...]]):
    """Stores words, and answers with all words stored so far."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.is_finished = False

    async def restore(self) -> tuple[str, ...]:
        self.world.journal.append((self.path, "restore"))
        if self.world.failing_restores:
            self.world.failing_restores -= 1
            raise Boom("restore")
        return self.world.stored.get(self.path, ())

    async def handle(self, message: Any) -> Any:
        match message:
            case Crash():
                self.state = ("half", "changed")
                raise Boom("handle")
            case Finish():
                self.is_finished = True
            case Pause():
                message.entered.set()
                await message.go.wait()
            case Urgent() | Keyed():
                self._store(message.word)
            case str():
                self._store(message)
            case _:
                self._store(type(message).__name__)
        return self.state

    async def on_passivate(self) -> None:
        self.world.journal.append((self.path, "passivate"))

    def is_final(self) -> bool:
        return self.is_finished

    @staticmethod
    def is_urgent(message: Any, /) -> bool:
        return isinstance(message, Urgent)

    @staticmethod
    def coalesce_key(message: Any, /) -> str | None:
        return message.key if isinstance(message, Keyed) else None

    def describe_state(self) -> str:
        return f"{len(self.state)} words"

    def _store(self, word: str) -> None:
        self.world.journal.append((self.path, word))
        self.state = (*self.state, word)
        self.world.stored[self.path] = self.state


class Ledger(Observer):
    """Counts what the runtime reports."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []
        self.letters: list[DeadLetter] = []

    def crashed(self, path: str, class_name: str, cause: BaseException) -> None:
        self.events.append(("crashed", path))

    def restarted(self, path: str) -> None:
        self.events.append(("restarted", path))

    def quarantined(self, path: str, last_crash: str) -> None:
        self.events.append(("quarantined", path))

    def escalated(self, path: str, cause: BaseException) -> None:
        self.events.append(("escalated", path))

    def undelivered(self, letter: DeadLetter) -> None:
        self.letters.append(letter)


def a_system(**settings: Any) -> ActorSystem:
    return ActorSystem(**{"rng": Random(7), "sweep_s": 0.01, **settings})


async def until(is_so: Any) -> None:
    """Let others run until `is_so()`; a test that gets stuck here fails after ten seconds (virtual ones on Trio)."""
    with anyio.fail_after(10):
        while not is_so():  # noqa: ASYNC110 - it waits for what no event announces
            await anyio.sleep(0.001)
