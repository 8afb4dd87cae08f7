"""The cell: what stays of an actor while its incarnations come and go: path, mailbox, counters, status.

Rule 1: the status is changed here and nowhere else. RUNNING means "with the workers" (queued or at work); only an
        IDLE cell is scheduled by a message, so that no cell is ever with the workers twice.
Rule 2: what was accepted is answered, handled, failed or listed as a dead letter; it never just disappears.
"""

from collections import deque
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

import anyio
import loguru
from pykka import messages

from actors.actor import Actor
from actors.errors import ActorCrashed, ActorError, ActorStopped, Quarantined
from actors.mailbox import Envelope
from actors.observer import Reason

if TYPE_CHECKING:
    from actors.ref import ActorRef
    from actors.system import ActorSystem

__all__ = ["Cell", "Owner", "Status"]

BURST_MAX = 64
"""Messages one actor handles before the next actor has its turn."""
STOP = messages._ActorStop  # noqa: SLF001 - what ActorRef.stop() sends
PYKKA_MESSAGES = frozenset({STOP, messages.ProxyCall, messages.ProxyGetAttr, messages.ProxySetAttr})


class Status(StrEnum):
    """Where a cell is in its life."""

    RUNNING = "running"
    IDLE = "idle"
    RESTARTING = "restarting"
    QUARANTINED = "quarantined"
    STOPPED = "stopped"


class Owner(Protocol):
    """Who builds a cell's actor and decides what follows a crash: a supervisor or an entity family."""

    def build(self, path: str) -> Actor[Any]: ...

    def on_crash(self, child: "Cell", cause: Exception) -> None: ...

    def on_gone(self, child: "Cell") -> None: ...

    def parent_of(self, path: str) -> "ActorRef | None": ...


class Cell:
    __slots__ = (
        "_changed",
        "_failure",
        "_is_held",
        "_leaving",
        "actor",
        "crashed_at",
        "handled",
        "is_open",
        "is_restored",
        "last_crash",
        "mailbox",
        "owner",
        "path",
        "restarts",
        "started_at",
        "status",
        "system",
        "tick",
    )

    def __init__(self, system: "ActorSystem", owner: Owner, path: str) -> None:
        self.system = system
        self.owner = owner
        self.path = path
        self.status = Status.IDLE
        self.is_open = True
        self.is_restored = False
        self.actor: Actor[Any] | None = None
        self.handled = 0
        self.restarts = 0
        self.last_crash: str | None = None
        self.crashed_at: deque[float] | None = None
        self.started_at = anyio.current_time()
        self.tick = system.tick
        self._failure: Exception | None = None
        self._changed: anyio.Event | None = None
        self._is_held = False
        self._leaving: Reason | None = None
        self.mailbox = Actor._create_actor_inbox()  # noqa: SLF001 - Pykka's hook
        self.mailbox.path = path
        self.mailbox.limits = system.mailbox_limits

    def parent(self) -> "ActorRef | None":
        return self.owner.parent_of(self.path)

    # Sending.

    def post(self, envelope: Envelope[Any]) -> None:
        """Queue a message, or refuse it for good.

        Raises:
            MailboxFull: its lane has no room.
        """
        if not self.is_open:
            self.system.refuse(self.path, envelope, self._refusal())
            return
        self.mailbox.put(envelope)
        if self.status is Status.IDLE:
            self.schedule()

    def schedule(self) -> None:
        self.status = Status.RUNNING
        self.system.workers.schedule(self)

    def _refusal(self) -> ActorError:
        if self.status is Status.QUARANTINED:
            return Quarantined(self.path, self.last_crash or "unknown")
        return ActorStopped(self.path)

    # Working.

    def begin(self) -> None:
        """Build the first incarnation and let a worker restore it."""
        self._incarnate()
        if self.actor is not None:
            self.actor._start_actor_loop()  # noqa: SLF001 - Pykka's hook
        else:
            self.schedule()

    async def work(self) -> int:
        """Handle up to BURST_MAX messages and answer how many. Only a worker calls this."""
        handled = 0
        envelope: Envelope[Any] | None = None
        try:
            if not self.is_restored:
                await self._restore()
            actor = self.actor
            assert actor is not None
            mailbox = self.mailbox
            while handled < BURST_MAX and not mailbox.empty() and not self._is_held:
                envelope = mailbox.get()
                message = envelope.message
                if type(message) in PYKKA_MESSAGES:
                    answer = await self._handle_pykka(actor, message)
                else:
                    answer = await actor.handle(message)
                handled += 1
                self.handled += 1
                if envelope.reply_to is not None:
                    envelope.reply_to.set(answer)
                envelope = None
            is_final = handled > 0 and mailbox.empty() and self.crashed_at is None and actor.is_final()
        except Exception as cause:  # noqa: BLE001 - any exception is a crash, and the owner acts on it
            self._crash(cause, envelope)
            return handled + 1
        except BaseException:
            # The system is being torn down around the handler: not its fault, but its asker must not wait for ever.
            if envelope is not None:
                self.system.refuse(self.path, envelope, ActorStopped(self.path))
            raise
        if is_final and self._leaving is None:
            self._leaving = Reason.PASSIVATED
        if self._leaving is not None and mailbox.empty() and not self._is_held and self.status is Status.RUNNING:
            await self._leave(actor)
        else:
            self._rest()
        return handled

    def _rest(self) -> None:
        """Make room for the next cell after a burst."""
        if self.status is not Status.RUNNING:
            return  # abandoned in the middle of it
        if self._is_held:
            self._drop()
            self._become(Status.RESTARTING)
        elif not self.mailbox.empty():
            self.schedule()
        else:
            self.tick = self.system.tick
            self.mailbox.shrink()
            self._become(Status.IDLE)

    async def _restore(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure
        assert self.actor is not None
        self.actor.state = await self.actor.restore()
        self.is_restored = True
        self._become(Status.RUNNING)

    async def _handle_pykka(self, actor: Actor[Any], message: Any) -> Any:
        if type(message) is STOP:
            self._leaving = Reason.STOPPED
            return None
        answer = actor._handle_receive(message)  # noqa: SLF001 - Pykka's own dispatch of proxy messages
        return await answer if hasattr(answer, "__await__") else answer

    def _incarnate(self) -> None:
        """Build a fresh actor; should the factory raise, a worker reports it as the crash it is."""
        try:
            actor = self.owner.build(self.path)
        except Exception as failure:  # noqa: BLE001 - raised again by the worker
            self._failure = failure
            return
        actor.attach(self)
        self.actor = actor
        self.mailbox.lanes = type(actor)

    # Crashing and coming back.

    def _crash(self, cause: Exception, envelope: Envelope[Any] | None) -> None:
        if envelope is not None and envelope.reply_to is not None:
            envelope.reply_to.set_exception((ActorCrashed, ActorCrashed(self.path, cause), None))
        self._report(cause)
        self._drop()
        self._become(Status.RESTARTING)
        self.owner.on_crash(self, cause)

    def _report(self, cause: Exception) -> None:
        self.last_crash = f"{type(cause).__name__}: {cause}"
        class_name = type(self.actor).__name__ if self.actor is not None else "Actor"
        loguru.logger.opt(exception=cause).error("{} ({}) crashed: {}", self.path, class_name, self.last_crash)
        self.system.observer.crashed(self.path, class_name, cause)

    def _drop(self) -> None:
        self.actor = None
        self.is_restored = False

    def revive(self) -> None:
        """Go on after a crash or a hold, with a fresh actor and the mailbox as it is. Does nothing to others."""
        if self.status is not Status.RESTARTING:
            return
        self.restarts += 1
        self._is_held = False
        self.system.observer.restarted(self.path)
        self._incarnate()
        self.schedule()

    async def revive_and_wait(self) -> bool:
        """Revive, and wait until it is restored; False if it crashed again instead."""
        self.revive()
        await self._until(lambda: self.is_restored or self.status is not Status.RUNNING)
        return self.status is not Status.RESTARTING

    async def hold(self) -> None:
        """Take the actor out of service, once the message it is at is done; `revive` ends that."""
        if self.status is Status.IDLE:
            self._drop()
            self._become(Status.RESTARTING)
        elif self.status is Status.RUNNING:
            self._is_held = True
            await self._until(lambda: self.status is not Status.RUNNING)

    def quarantine(self) -> None:
        """Take no more messages; those that wait fail with `Quarantined`."""
        self.is_open = False
        self._become(Status.QUARANTINED)
        self._return_mail()
        self.system.observer.quarantined(self.path, self.last_crash or "unknown")
        self.system.announce(self.path, Reason.QUARANTINED)

    # Leaving.

    def leave(self, reason: Reason) -> None:
        """Go once the mailbox is empty."""
        self._leaving = reason
        if self.status is Status.IDLE:
            self.schedule()

    async def stop(self) -> None:
        """Handle what was accepted, then go; returns when that is done. A quarantined one stays where it is."""
        self.leave(Reason.STOPPED)
        await self._until(lambda: self.status in (Status.STOPPED, Status.QUARANTINED))

    def abandon(self) -> None:
        """Go at once: what still waits becomes dead letters."""
        if self.status is not Status.STOPPED:
            self._gone(Reason.STOPPED)

    async def _leave(self, actor: Actor[Any]) -> None:
        try:
            await actor.on_passivate()
        except Exception as cause:  # noqa: BLE001 - a crash like any other, but there is nothing left to restart
            self._report(cause)
        if self.mailbox.empty():
            self._gone(self._leaving or Reason.PASSIVATED)
            return
        # A message came in while we said goodbye: it gets a fresh incarnation, which stays unless somebody waits for
        # the stop.
        if self._leaving is not Reason.STOPPED:
            self._leaving = None
        self._drop()
        self._incarnate()
        self.schedule()

    def _gone(self, reason: Reason) -> None:
        self.is_open = False
        self._drop()
        self._return_mail()
        self._become(Status.STOPPED)
        self.owner.on_gone(self)
        self.system.announce(self.path, reason)

    def _return_mail(self) -> None:
        while not self.mailbox.empty():
            self.system.refuse(self.path, self.mailbox.get(), self._refusal())
        self.mailbox.shrink()

    # Waiting for a change, which only supervisors do.

    def _become(self, status: Status) -> None:
        self.status = status
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    async def _until(self, is_so: Callable[[], bool]) -> None:
        while not is_so():
            if self._changed is None:
                self._changed = anyio.Event()
            await self._changed.wait()
