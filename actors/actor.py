"""What a user of this package subclasses: state, restore, handle.

Rule 1: `handle` is called with one message at a time; `self.state` is what `restore` returned until `handle` assigns.
Rule 2: an exception in `handle` or `restore` is a crash: this object is thrown away, a new one is built and restored.
Rule 3: no actor asks its parent or a sibling and waits for the answer; two that did would wait for each other.
"""

import threading
from abc import abstractmethod
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

import loguru
import pykka

from actors.errors import ActorError
from actors.future import Answer
from actors.mailbox import Mailbox

if TYPE_CHECKING:
    from actors.cell import Cell
    from actors.ref import ActorRef
    from actors.system import ActorSystem

__all__ = ["Actor"]

S = TypeVar("S")


class Actor(pykka.Actor, Generic[S]):
    """One owner of one piece of state, on the event loop of an `ActorSystem`.

    Start it with `supervisor.start(name, factory)` or let an entity family build it; `restore` stands where Pykka
    has `on_start`, `handle` where it has `on_receive`, `on_passivate` where it has `on_stop`. Path, system, parent
    and refs are known from `restore` on, not in `__init__`.
    """

    state: S
    _cell: "Cell"

    def __init__(self) -> None:
        """Take ports and clocks here; it need not be called by a subclass that overrides it."""
        # Pykka's own would give every actor a threading.Event (1.2 KiB) and a random URN.

    @abstractmethod
    async def restore(self) -> S:
        """Load the persisted snapshot: before the first message, and after each crash in a fresh object."""

    @abstractmethod
    async def handle(self, message: Any) -> Any:
        """Handle one message; what it returns is the answer to an ask."""

    async def on_passivate(self) -> None:
        """Run before the actor is dropped in good order; not after a crash. It must not rely on being called."""

    def is_final(self) -> bool:
        """Whether nothing is left to do, so that the actor may go as soon as its mailbox is empty."""
        return False

    def can_passivate(self) -> bool:
        """Whether an idle actor may be dropped now; False while it holds what no snapshot has."""
        return True

    @staticmethod
    def is_urgent(_message: Any, /) -> bool:
        """Whether the message belongs in the urgent lane, which is emptied first and has its own room."""
        return False

    @staticmethod
    def coalesce_key(_message: Any, /) -> Hashable | None:
        """A key that only messages which make each other superfluous share, or None.

        The newer message takes the place of the one that waits; askers of both get the newer one's answer.
        """
        return None

    def describe_state(self) -> str:
        """A word for the tree."""
        return type(self.state).__name__

    @property
    def path(self) -> str:
        return self._cell.path

    @property
    def entity_id(self) -> str:
        """The last segment of the path."""
        return self._cell.path.rpartition("/")[2]

    @property
    def system(self) -> "ActorSystem":
        return self._cell.system

    @property
    def parent(self) -> "ActorRef | None":
        """The entity above in the path, or None below a supervisor. Tell it; never ask it and wait."""
        return self._cell.parent()

    @property
    def log(self) -> "loguru.Logger":
        """The logger with the path bound as `actor`; made when asked for, so that an idle actor carries none."""
        return loguru.logger.bind(actor=self._cell.path)

    def attach(self, cell: "Cell") -> None:
        """Make this object the present incarnation of `cell`. For the runtime alone."""
        self._cell = cell
        self.actor_inbox = cell.mailbox

    # What follows is Pykka's contract with implementors of actor types.

    @classmethod
    def start(cls, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise ActorError(f"{cls.__name__} needs a supervisor: use supervisor.start(name, factory) or an entity family")

    @staticmethod
    def _create_actor_inbox() -> Mailbox:
        return Mailbox()

    @staticmethod
    def _create_future() -> Answer[Any]:
        return Answer()

    def _start_actor_loop(self) -> None:
        # There is no loop of one's own: the cell takes a place in the queue for a worker.
        self._cell.schedule()

    @property
    def actor_urn(self) -> str:  # type: ignore[override]  # the path is unique already
        return self._cell.path

    @property
    def actor_ref(self) -> "ActorRef":
        return self._cell.system.ref(self._cell.path)

    @property
    def actor_stopped(self) -> threading.Event:  # type: ignore[override]  # kept as a status, an Event costs 1.2 KiB
        flag = threading.Event()
        if self._cell.actor is not self:
            flag.set()
        return flag
