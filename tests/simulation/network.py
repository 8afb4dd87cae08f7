"""What lies between the server and everybody else: it loses, doubles, delays, reorders, and is cut from time to time.

Rule 1: a request and its answer are two messages, each with a fate of its own; who gets no answer does not know which
        of the two was lost.
Rule 2: a message to a server that is not there is refused, not kept for the next one.
"""

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import anyio
import anyio.abc

from tests.simulation.world import World

if TYPE_CHECKING:
    from tests.simulation.server import House, Life

Ask = Callable[["House"], Awaitable[Any]]
Direction = Literal["to_server", "from_server"]
HANG_UP_CHANCE: Final = 0.5


class Failed:
    """The server answered that it could not: an error that the client may try again."""

    def __init__(self, error: str) -> None:
        self.error = error

    def __repr__(self) -> str:
        return f"failed: {self.error}"


class NoAnswer:
    """Nothing came back within the client's patience."""

    def __repr__(self) -> str:
        return "no answer"


NO_ANSWER: Final = NoAnswer()


class _Request:
    """One request of a client: the first answer counts, and it may give up."""

    def __init__(self) -> None:
        self.answer: Any = NO_ANSWER
        self.answered = anyio.Event()
        self.scopes: list[anyio.CancelScope] = []

    def settle(self, answer: Any) -> None:
        if not self.answered.is_set():
            self.answer = answer
            self.answered.set()


class Network:
    """Carries requests to the server that is there now, answers back, and pushes to clients that listen."""

    def __init__(self, world: World, tasks: anyio.abc.TaskGroup) -> None:
        self._world = world
        self._tasks = tasks
        self._life: Life | None = None
        self._cuts: dict[tuple[str, Direction], float] = {}

    def bind(self, life: "Life") -> None:
        """The server listens."""
        self._life = life

    def unbind(self, life: "Life") -> None:
        """It does not any more."""
        if self._life is life:
            self._life = None

    def cut(self, who: str, direction: Direction, seconds: float) -> None:
        """Nothing of this client gets through in that direction for a while."""
        self._cuts[who, direction] = anyio.current_time() + seconds

    def heal(self) -> None:
        """All lines are up."""
        self._cuts.clear()

    async def ask(self, who: str, what: str, ask: Ask, *, within_s: float) -> Any:
        """The server's answer, `Failed`, or `NO_ANSWER` after `within_s`."""
        request = _Request()
        self._send(who, what, "to_server", lambda: self._arrive(who, what, ask, request))
        with anyio.move_on_after(within_s):
            await request.answered.wait()
        if not request.answered.is_set():
            self._world.counts["no_answer"] += 1
            if self._world.rng("hang_up").random() < HANG_UP_CHANCE:
                for scope in request.scopes:
                    scope.cancel()  # the connection is closed, and the server notices
        return request.answer

    def push(self, who: str, what: str, deliver: Callable[[], None]) -> None:
        """A message from the server that nobody asked for."""
        self._send(who, what, "from_server", deliver)

    def _send(self, who: str, what: str, direction: Direction, deliver: Callable[[], None]) -> None:
        world = self._world
        world.counts["messages"] += 1
        if self._cuts.get((who, direction), 0) > anyio.current_time():
            world.counts["messages_cut"] += 1
            return
        if world.strikes("message_lost", as_=f"lost:{what}"):
            return
        copies = 2 if world.strikes("message_doubled", as_=f"doubled:{what}") else 1
        for _ in range(copies):
            delay_s = world.after(world.parameters.network_s, "network")
            if world.strikes("message_late", as_=f"late:{what}"):
                delay_s += world.rng("late").uniform(0, world.faults.late_s)
            self._tasks.start_soon(_later, delay_s, deliver)

    def _arrive(self, who: str, what: str, ask: Ask, request: _Request) -> None:
        life = self._life
        if life is None:
            self._world.counts["refused_connections"] += 1
            self._send(who, f"refused:{what}", "from_server", lambda: request.settle(Failed("connection refused")))
            return

        def answer(what_came: Any) -> None:
            self._send(who, f"answer:{what}", "from_server", lambda: request.settle(what_came))

        life.receive(ask, answer, request.scopes)


async def _later(delay_s: float, deliver: Callable[[], None]) -> None:
    await anyio.sleep(delay_s)
    deliver()
