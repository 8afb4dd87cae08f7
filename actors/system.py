"""The actor system: one event loop, one tree of actors, one place where messages find their way.

Rule 1: everything here happens on the loop's thread; a tell or an ask from another thread is handed over to it.
Rule 2: time is `anyio.current_time()` and chance the injected `rng`, so that a simulation controls both.
"""

import contextvars
import threading
from collections.abc import Awaitable, Callable, Iterable
from random import Random
from types import TracebackType
from typing import Any, Self

import anyio
import anyio.abc
import anyio.lowlevel
from pykka._envelope import Envelope

from actors.cell import Cell, Status
from actors.errors import ActorError, ActorStopped, MailboxFull, UnknownPath
from actors.mailbox import MailboxLimits
from actors.observer import DeadLetter, DeadLetters, Observer, Reason, Terminated
from actors.policy import Backoff, Intensity, Strategy
from actors.ref import ActorRef
from actors.supervisor import Entities, Supervisor
from actors.timers import Timers
from actors.tree import Node, picture
from actors.workers import Workers

__all__ = ["ActorSystem"]

Watcher = ActorRef | Callable[[Terminated], None]
CELLS_BETWEEN_CHECKPOINTS = 1000
"""Idle actors one sweep looks at before it lets others have the loop (about 0.1 ms)."""


class ActorSystem:
    """The root of the tree; its actors live inside `async with`.

    Leaving the block in good order stops all actors as `shutdown` does; leaving it by an exception or a cancellation
    abandons them. If a supervisor escalates to the root, the block is canceled and raises `IntensityExceeded`.
    """

    def __init__(
        self,
        *,
        rng: Random,
        name: str = "",
        mailbox_size: int = 1000,
        urgent_size: int = 1000,
        retry_after_s: float = 1.0,
        dead_letters_max: int = 200,
        sweep_s: float = 5.0,
        shutdown_timeout_s: float = 10.0,
        observer: Observer | None = None,
    ) -> None:
        """
        Args:
            rng: the source of backoff jitter.
            mailbox_size, urgent_size: messages that may wait in each lane of an actor.
            retry_after_s: what a sender refused by a full mailbox is told.
            sweep_s: how often idle entities are looked for; they go at most two sweeps after their time.
            shutdown_timeout_s: how long leaving the block in good order waits for the drain.
        """
        self.rng = rng
        self.name = name
        self.mailbox_limits = MailboxLimits(mailbox_size, urgent_size, retry_after_s)
        self.observer = observer or Observer()
        self.dead_letters = DeadLetters(dead_letters_max)
        self.supervisors: dict[str, Supervisor] = {}
        self.cells: dict[str, Cell] = {}
        """Every permanent actor and every live entity by path, in start order."""
        self.timers = Timers()
        self.workers = Workers(self.spawn)
        self.tick = 0
        self.started_at = 0.0
        self.is_running = False
        self.thread_id: int | None = None
        self.token: anyio.lowlevel.EventLoopToken | None = None
        self._sweep_s = sweep_s
        self._shutdown_timeout_s = shutdown_timeout_s
        self._is_sweep_due = False
        self._watchers: dict[str, list[Watcher]] = {}
        self._failure: BaseException | None = None
        self._context = contextvars.Context()
        self._block: anyio.abc.TaskGroup
        self._tasks: anyio.abc.TaskGroup

    # Life.

    async def __aenter__(self) -> Self:
        self.started_at = anyio.current_time()
        self.thread_id = threading.get_ident()
        self.token = anyio.lowlevel.current_token()
        # Workers outlive whoever told the first message: they must not inherit, say, a request's context variables.
        self._context = contextvars.copy_context()
        self._block = anyio.create_task_group()
        await self._block.__aenter__()
        await self._block.start(self._run)
        self.is_running = True
        return self

    async def _run(self, *, task_status: anyio.abc.TaskStatus[None]) -> None:
        async with anyio.create_task_group() as self._tasks:
            self._tasks.start_soon(self._guard, self.timers.run, ())
            task_status.started()

    async def __aexit__(
        self,
        error_class: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        del error_class, traceback
        if error is not None or not self.is_running:
            return await self._close(error)
        try:
            await self.shutdown(self._shutdown_timeout_s)
        except BaseException as interruption:
            if not await self._close(interruption):
                raise
            return False
        return await self._close(None)

    async def _close(self, error: BaseException | None) -> bool:
        """Abandon what still lives; whether `error` is the cancellation of our own block, and ends here."""
        self._abandon()
        self._block.cancel_scope.cancel()
        # The task group is shown nothing but cancellations: it would wrap any other exception of the block's.
        if isinstance(error, (anyio.get_cancelled_exc_class(), BaseExceptionGroup)):
            is_ours = bool(await self._block.__aexit__(type(error), error, error.__traceback__))
        else:
            await self._block.__aexit__(None, None, None)
            is_ours = False
        if self._failure is not None:
            raise self._failure
        return is_ours

    def spawn(self, work: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Run a task of the runtime's own; should it raise, that is a bug and the system fails."""
        self._context.run(self._tasks.start_soon, self._guard, work, args)

    async def _guard(self, work: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
        try:
            await work(*args)
        except Exception as bug:  # noqa: BLE001 - raised again where the system was entered
            self.fail(bug)

    def fail(self, error: BaseException) -> None:
        """Cancel the `async with` block and everything in it; it raises `error`."""
        if self._failure is None:
            self._failure = error
            self._block.cancel_scope.cancel()

    async def shutdown(self, timeout_s: float | None = None) -> bool:
        """Stop all in reverse start order, handling what was accepted; not to be awaited by an actor.

        Returns:
            True if everything was handled; False if `timeout_s` ran out: handlers still at work were canceled, what
            waited became dead letters, and those who asked get `ActorStopped`.
        """
        with anyio.move_on_after(timeout_s) as limit:
            for supervisor in reversed(tuple(self.supervisors.values())):
                await supervisor.stop()
        self._abandon()
        self._tasks.cancel_scope.cancel()
        return not limit.cancelled_caught

    def _abandon(self) -> None:
        self.is_running = False
        for cell in reversed(tuple(self.cells.values())):
            cell.abandon()

    # Structure.

    def supervisor(
        self,
        path: str,
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
        backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    ) -> Supervisor:
        """Add a supervisor: at the root for a path of one segment ("/orchestrator"), else below the one named."""
        above, _, name = path.rpartition("/")
        if above:
            parent = self._find(above)
            if not isinstance(parent, Supervisor):
                raise UnknownPath(above)
            return parent.supervisor(name, strategy=strategy, intensity=intensity, backoff=backoff)
        if not path.startswith("/") or not name:
            raise ActorError(f"{path!r} is not an absolute path such as '/orchestrator'")
        if name in self.supervisors:
            raise ActorError(f"there is a supervisor {path!r} already; take another name")
        root = Supervisor(self, None, path, strategy=strategy, intensity=intensity, backoff=backoff)
        self.supervisors[name] = root
        return root

    def ref(self, path: str) -> ActorRef:
        """The address of an actor, live or not, started or not yet."""
        return ActorRef(self, path)

    async def stop(self, path: str) -> None:
        """Stop what is at `path` and below, children first; returns when what was accepted is handled.

        An entity comes back with the next message; a permanent actor, a supervisor and a family do not.
        """
        node = self.cells.get(path) or self._find(path)
        if isinstance(node, (Supervisor, Entities)) and node.path == path:
            await node.stop()
            return
        below = [cell for at, cell in self.cells.items() if at == path or at.startswith(f"{path}/")]
        below.sort(key=lambda cell: cell.path.count("/"))  # stable: start order within a depth
        for cell in reversed(below):
            if isinstance(cell.owner, Supervisor):
                cell.is_open = False
            await cell.stop()

    def release(self, path: str) -> bool:
        """Lift the quarantine of an entity: the next message activates it anew. False if it had none."""
        cell = self.cells.get(path)
        if cell is None or cell.status is not Status.QUARANTINED:
            return False
        cell.owner.on_gone(cell)
        return True

    def tree(self) -> Node:
        """A frozen picture of everything, at any time."""
        return picture(self)

    def _find(self, path: str) -> Supervisor | Entities:
        """The supervisor or family at `path`, or the family that the entity at `path` belongs to."""
        root, *segments = path.split("/")
        node: Supervisor | Entities | Cell | None = None
        if not root and segments:
            node = self.supervisors.get(segments.pop(0))
        rest = iter(segments)
        for segment in rest:
            if isinstance(node, Supervisor):
                node = node.children.get(segment)
            elif isinstance(node, Entities):
                below = next(rest, None)  # `segment` is an entity's id
                node = node if below is None else node.families.get(below)
        if node is None or isinstance(node, Cell) or "" in segments:
            raise UnknownPath(path)
        return node

    # Messages.

    def deliver(self, path: str, envelope: Envelope[Any]) -> None:
        """Queue a message for `path`, activating an entity that is not live. On the loop's thread only."""
        if not self.is_running:
            self.refuse(path, envelope, ActorStopped(path))
            return
        cell = self.cells.get(path)
        if cell is None:
            cell = self._activate(path)
        cell.post(envelope)

    def _activate(self, path: str) -> Cell:
        family = self._find(path)
        # A family's own path has the depth of its pattern; an entity's path is one segment longer.
        if not isinstance(family, Entities) or path.count("/") != family.path.count("/") + 1:
            raise UnknownPath(path)
        return family.activate(path)

    def refuse(self, path: str, envelope: Envelope[Any], error: ActorError) -> None:
        """List an undeliverable message; whoever asked gets `error`."""
        letter = DeadLetter(path, envelope.message, str(error))
        self.dead_letters.add(letter)
        self.observer.undelivered(letter)
        if envelope.reply_to is not None:
            envelope.reply_to.set_exception((type(error), error, None))

    # Death watch.

    def watch(self, path: str, watcher: Watcher) -> None:
        """Tell `watcher`, an actor's ref or a callable that must not raise, whenever `path` stops being live."""
        self._watchers.setdefault(path, []).append(watcher)

    def unwatch(self, path: str, watcher: Watcher) -> None:
        """Undo one `watch`; watching nothing is fine."""
        watchers = self._watchers.get(path, [])
        if watcher in watchers:
            watchers.remove(watcher)
        if not watchers:
            self._watchers.pop(path, None)

    def announce(self, path: str, reason: Reason) -> None:
        """Tell the watchers of `path` that its actor is gone."""
        for watcher in tuple(self._watchers.get(path, ())):
            news = Terminated(path, reason)
            if not isinstance(watcher, ActorRef):
                watcher(news)
                continue
            try:
                watcher.tell(news)
            except MailboxFull as full:
                self.refuse(watcher.path, Envelope(news), full)

    # Passivation.

    def expect_idleness(self, family: Entities) -> None:
        """See to it that a sweep comes; none runs while there is nothing to passivate."""
        if family.passivate_after_s is not None and not self._is_sweep_due:
            self._is_sweep_due = True
            self.timers.after(self._sweep_s, self._start_sweep)

    def _start_sweep(self) -> None:
        self._is_sweep_due = False
        self.tick += 1
        self.spawn(self._sweep, tuple(self.cells.values()))

    async def _sweep(self, cells: Iterable[Cell]) -> None:
        now = anyio.current_time()
        for seen, cell in enumerate(cells, 1):
            if isinstance(cell.owner, Entities) and cell.status is not Status.QUARANTINED:
                self._passivate_if_idle(cell, cell.owner, now)
                self.expect_idleness(cell.owner)
            if seen % CELLS_BETWEEN_CHECKPOINTS == 0:
                await anyio.lowlevel.checkpoint()

    def _passivate_if_idle(self, cell: Cell, family: Entities, now: float) -> None:
        if cell.status is not Status.IDLE or family.passivate_after_s is None:
            return
        # Went idle during tick `cell.tick`, so at least this many whole ticks ago.
        idle_ticks = self.tick - cell.tick - 1
        has_crashed_lately = cell.crashed_at is not None and cell.crashed_at[-1] > now - family.intensity.period_s
        # Its window of crashes would be forgotten with it, and it could crash for ever.
        if idle_ticks * self._sweep_s < family.passivate_after_s or has_crashed_lately:
            return
        if cell.actor is None or cell.actor.can_passivate():
            cell.leave(Reason.PASSIVATED)
