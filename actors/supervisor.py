"""Supervisors of permanent children, and families of entities.

Rule 1: permanent children share their supervisor's window of crashes; one crash too many and the supervisor escalates:
        its parent treats it as one crashed child. At the root the system fails as a whole.
Rule 2: every entity has a window of its own; one crash too many and it is quarantined. It never escalates, and a
        restart of the supervisor above leaves entities alone: they depend on their snapshot and on nobody's memory.
Rule 3: what is held or stopped is held or stopped in the reverse of the start order, and comes back in start order.
"""

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anyio
import loguru
from pykka import ActorRegistry

from actors.actor import Actor
from actors.cell import Cell
from actors.errors import ActorError, IntensityExceeded
from actors.observer import Reason
from actors.policy import Backoff, Intensity, Strategy

if TYPE_CHECKING:
    from actors.ref import ActorRef
    from actors.system import ActorSystem

__all__ = ["Entities", "Supervisor"]


class Supervisor:
    """Starts permanent children, restarts them when they crash, and gives up when that happens too often."""

    def __init__(
        self,
        system: "ActorSystem",
        parent: "Supervisor | None",
        path: str,
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> None:
        self.system = system
        self.path = path
        self.strategy = strategy
        self.intensity = intensity
        self.backoff = backoff
        self.children: dict[str, Cell | Supervisor | Entities] = {}
        self.restarts = 0
        self.last_crash: str | None = None
        self.is_stopped = False
        self._parent = parent
        self._factories: dict[str, Callable[[], Actor[Any]]] = {}
        self._crashed_at: deque[float] = deque()
        self._restarting = anyio.Lock()

    def start(self, name: str, factory: Callable[[], Actor[Any]]) -> "ActorRef":
        """Start the permanent child `name`; `factory` is called now and again for every restart.

        The child restores in the background: its first messages wait for that in its mailbox.
        """
        if not self.system.is_running or self.is_stopped:
            raise ActorError(f"{self.path} cannot start {name!r}: enter the system first, and start nothing in a stop")
        path = self._new_path(name)
        self._factories[path] = factory
        cell = Cell(self.system, self, path)
        self.children[name] = cell
        self.system.cells[path] = cell
        ref = self.system.ref(path)
        ActorRegistry.register(ref)
        cell.begin()
        return ref

    def supervisor(
        self,
        name: str,
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> "Supervisor":
        """Nest a supervisor, which escalates to this one."""
        path = self._new_path(name)
        child = Supervisor(self.system, self, path, strategy=strategy, intensity=intensity, backoff=backoff)
        self.children[name] = child
        return child

    def entities(
        self,
        name: str,
        factory: Callable[[str], Actor[Any]],
        *,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
        passivate_after_s: float | None = 60.0,
    ) -> "Entities":
        """Declare a family of entities `<path>/<name>/<entity_id>`, each live only while it is spoken to.

        Args:
            factory: builds the actor for an entity id; called at each activation and restart.
            intensity: crashes allowed to one entity; one more quarantines it.
            passivate_after_s: an entity without messages for so long is dropped; None keeps it.
        """
        path = self._new_path(name)
        ids_from = path.count("/") + 1
        family = Entities(self.system, path, factory, ids_from, intensity, backoff, passivate_after_s)
        self.children[name] = family
        return family

    async def stop(self) -> None:
        """Stop the children one by one in reverse start order; each handles what it accepted."""
        self.is_stopped = True
        for child in reversed(tuple(self.children.values())):
            if isinstance(child, Cell):
                child.is_open = False
            await child.stop()

    # What a cell asks of its owner.

    def build(self, path: str) -> Actor[Any]:
        return self._factories[path]()

    def parent_of(self, _path: str) -> "ActorRef | None":
        return None

    def on_gone(self, child: Cell) -> None:
        """Keep the stopped child in sight: it was meant to be there for good."""
        ActorRegistry.unregister(self.system.ref(child.path))

    def on_crash(self, child: "Cell | Supervisor", cause: BaseException) -> None:
        """Restart whom the strategy names, or give up."""
        self.last_crash = f"{type(cause).__name__}: {cause}"
        crashes = self.intensity.count(self._crashed_at, anyio.current_time())
        if crashes <= self.intensity.crashes_max:
            delay_s = self.backoff.delay_s(crashes, self.system.rng)
            self.system.spawn(self._restart, child, delay_s)
            return
        self._crashed_at.clear()  # what comes after the parent's restart is counted afresh
        self.system.observer.escalated(self.path, cause)
        loguru.logger.error("{} escalates: its children crashed {} times", self.path, crashes)
        if self._parent is not None:
            self._parent.on_crash(self, cause)
        else:
            too_many = IntensityExceeded(self.path, self.intensity.crashes_max, self.intensity.period_s, cause)
            self.system.fail(too_many)

    # Restarting.

    async def _restart(self, child: "Cell | Supervisor", delay_s: float) -> None:
        affected = self._affected_by(child)
        if len(affected) == 1:
            await anyio.sleep(delay_s)
            await affected[0].revive_and_wait()
            return
        # One group at a time, or two restarts would undo each other's order.
        async with self._restarting:
            for member in reversed(affected):
                await member.hold()
            await anyio.sleep(delay_s)
            for member in affected:
                if not await member.revive_and_wait():
                    return  # it crashed again, which restarts the members after it too

    def _affected_by(self, child: "Cell | Supervisor") -> "list[Cell | Supervisor]":
        members = [
            member
            for member in self.children.values()
            if isinstance(member, Supervisor) or (isinstance(member, Cell) and member.is_open)
        ]
        if child not in members:  # it is being stopped and has mail left to handle
            return [child]
        match self.strategy:
            case Strategy.ONE_FOR_ONE:
                return [child]
            case Strategy.ONE_FOR_ALL:
                return members
            case Strategy.REST_FOR_ONE:
                return members[members.index(child) :]

    async def hold(self) -> None:
        """Take every permanent child below out of service, in reverse start order."""
        for child in reversed(tuple(self.children.values())):
            if not isinstance(child, Entities):
                await child.hold()

    async def revive_and_wait(self) -> bool:
        """Restart the whole of it: hold what still runs, then restore in start order; whether all came back."""
        async with self._restarting:
            await self.hold()
            self.restarts += 1
            for child in tuple(self.children.values()):
                if not isinstance(child, Entities) and not await child.revive_and_wait():
                    return False
        return True

    def _new_path(self, name: str) -> str:
        check_name(name)
        taken = self.children.get(name)
        if taken is not None and not (isinstance(taken, Cell) and not taken.is_open):
            raise ActorError(f"{self.path} already has a child named {name!r}; stop it first or take another name")
        self.children.pop(name, None)  # a stopped one gives up its place, and its rank in the start order
        return f"{self.path}/{name}"


class Entities:
    """A family of entities with the path `<family>/<entity_id>`, activated by messages and passivated when idle."""

    def __init__(
        self,
        system: "ActorSystem",
        path: str,
        factory: Callable[..., Actor[Any]],
        ids_from: int,
        intensity: Intensity,
        backoff: Backoff,
        passivate_after_s: float | None,
    ) -> None:
        self.system = system
        self.path = path
        self.intensity = intensity
        self.backoff = backoff
        self.passivate_after_s = passivate_after_s
        self.families: dict[str, Entities] = {}
        self.live = 0
        self.is_open = True
        self._factory = factory
        self._ids_from = ids_from

    def nested(
        self,
        name: str,
        factory: Callable[..., Actor[Any]],
        *,
        intensity: Intensity | None = None,
        backoff: Backoff | None = None,
        passivate_after_s: float | None = None,
    ) -> "Entities":
        """Declare a family below each entity: `<family>/<parent_id>/<name>/<entity_id>`. Costs nothing until used.

        Args:
            factory: called with the ids on the path, outermost first: `factory(parent_id, entity_id)`.
            intensity, backoff, passivate_after_s: as for this family if left out.
        """
        check_name(name)
        if name in self.families:
            raise ActorError(f"{self.path} already has a family named {name!r} below its entities; take another name")
        family = Entities(
            self.system,
            f"{self.path}/*/{name}",
            factory,
            self._ids_from,
            intensity or self.intensity,
            backoff or self.backoff,
            self.passivate_after_s if passivate_after_s is None else passivate_after_s,
        )
        self.families[name] = family
        return family

    def ref(self, *ids: str) -> "ActorRef":
        """The address of an entity, by the ids on its path, outermost first."""
        path = self.path
        for entity_id in ids[:-1]:
            path = path.replace("*", entity_id, 1)
        if not ids or "*" in path:
            raise ActorError(f"{self.path} takes one id per * and one for the entity, got {len(ids)}")
        return self.system.ref(f"{path}/{ids[-1]}")

    def activate(self, path: str) -> Cell:
        """Make the entity live; its actor is built now and restored by a worker before its first message."""
        cell = Cell(self.system, self, path)
        cell.is_open = self.is_open
        if self.is_open:
            self.system.cells[path] = cell
            self.live += 1
            self.system.expect_idleness(self)
            cell.begin()
        return cell

    async def stop(self) -> None:
        """Activate nobody any more; handle what was accepted, in the families below first, then here."""
        self.is_open = False
        for family in reversed(tuple(self.families.values())):
            await family.stop()
        members = [cell for cell in self.system.cells.values() if cell.owner is self]
        members.reverse()
        for cell in members:
            cell.is_open = False
            cell.leave(Reason.STOPPED)
        for cell in members:
            await cell.stop()

    # What a cell asks of its owner.

    def build(self, path: str) -> Actor[Any]:
        return self._factory(*path.split("/")[self._ids_from :: 2])

    def parent_of(self, path: str) -> "ActorRef | None":
        above = self.entity_above(path)
        return self.system.ref(above) if above is not None else None

    def entity_above(self, path: str) -> str | None:
        """The path of the entity that the one at `path` lies below, if any."""
        segments = path.split("/")
        return "/".join(segments[:-2]) if len(segments) > self._ids_from + 1 else None

    def on_gone(self, child: Cell) -> None:
        if self.system.cells.get(child.path) is child:
            del self.system.cells[child.path]
            self.live -= 1

    def on_crash(self, child: Cell, cause: Exception) -> None:
        """Restart this entity after a while, or quarantine it; nobody else notices."""
        del cause
        if child.crashed_at is None:
            child.crashed_at = deque()
        crashes = self.intensity.count(child.crashed_at, anyio.current_time())
        if crashes > self.intensity.crashes_max:
            child.quarantine()
        else:
            self.system.timers.after(self.backoff.delay_s(crashes, self.system.rng), child.revive)


def check_name(name: str) -> None:
    if not name or "/" in name or name == "*":
        raise ActorError(f"{name!r} is not a path segment: it must not be empty, hold a slash or be a star")
