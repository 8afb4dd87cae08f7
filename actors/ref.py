"""The address of an actor, live or not."""

import threading
from typing import TYPE_CHECKING, Any

import anyio.from_thread
import pykka
from pykka._envelope import Envelope

from actors.actor import Actor
from actors.errors import ActorStopped
from actors.future import Answer

if TYPE_CHECKING:
    from actors.mailbox import Mailbox
    from actors.system import ActorSystem

__all__ = ["ActorRef"]


class ActorRef(pykka.ActorRef[Actor[Any]]):
    """A Pykka ref that stays valid for ever: it names a path, and a message to it activates who is not live.

    Equal refs name the same path of the same system.
    """

    def __init__(self, system: "ActorSystem", path: str) -> None:
        self.system = system
        self.path = path

    def __repr__(self) -> str:
        return f"<ActorRef {self.path}>"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ActorRef) and self.path == other.path and self.system is other.system

    def __hash__(self) -> int:
        return hash(self.path)

    def is_alive(self) -> bool:
        """Whether an actor is live under this path now; a message may activate one that is not."""
        cell = self.system.cells.get(self.path)
        return cell is not None and cell.is_open

    def tell(self, message: Any) -> None:
        """Queue `message`, from any thread. One that cannot be delivered becomes a dead letter, without an error.

        Raises:
            MailboxFull: there is no room; nothing was queued.
            UnknownPath: nobody can ever be live under this path.
        """
        self._put(Envelope(message))

    def ask(self, message: Any, *, block: bool = False, timeout: float | None = None) -> Any:
        """Queue `message` and return the future of its answer, to be awaited: `await ref.ask(message, timeout=5)`.

        Args:
            block: as in Pykka, wait here and return the answer itself; only in a thread without an event loop.
            timeout: seconds that awaiting (or blocking) may take; None waits for ever.

        Raises:
            MailboxFull: there is no room; nothing was queued.
            UnknownPath: nobody can ever be live under this path.

        The future raises `ActorCrashed`, `AskTimedOut`, `Quarantined` or `ActorStopped`.
        """
        answer: Answer[Any] = Answer()
        answer.expect(self.path, message, timeout)
        self._put(Envelope(message, reply_to=answer))
        return answer.get(timeout=timeout) if block else answer

    def stop(self, *, block: bool = False, timeout: float | None = None) -> Any:
        """Let the actor stop once its mailbox is empty; the future says whether there was one to stop."""
        if not self.is_alive():
            answer: Answer[bool] = Answer()
            answer.set(False)
            return False if block else answer
        return super().stop(block=block, timeout=timeout)

    def _put(self, envelope: Envelope[Any]) -> None:
        if threading.get_ident() == self.system.thread_id:
            self.system.deliver(self.path, envelope)
        else:
            anyio.from_thread.run_sync(self.system.deliver, self.path, envelope, token=self.system.token)

    # What Pykka's proxies and registry look at.

    @property
    def actor_urn(self) -> str:  # type: ignore[override]
        return self.path

    @property
    def actor_class(self) -> type[Actor[Any]]:  # type: ignore[override]
        return type(self._live())

    @property
    def actor_inbox(self) -> "Mailbox":  # type: ignore[override]
        return self._live()._cell.mailbox  # noqa: SLF001 - ours

    @property
    def actor_stopped(self) -> threading.Event:  # type: ignore[override]
        flag = threading.Event()
        if not self.is_alive():
            flag.set()
        return flag

    def _actor_weakref(self) -> Actor[Any]:  # type: ignore[override]
        return self._live()

    def _live(self) -> Actor[Any]:
        cell = self.system.cells.get(self.path)
        if cell is None or cell.actor is None:
            raise ActorStopped(self.path)
        return cell.actor
