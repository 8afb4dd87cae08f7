"""What every actor of the orchestrator shares: it outlives a store that does not answer for a while.

Rule 1: after `StoreUnavailable` nobody knows what was stored. The state is loaded again before the next message, and
        whoever asked gets the error, to ask again. It is no crash: a full disk must not quarantine the entities that
        happened to be spoken to while it was full.
Rule 2: everything else that is raised is a crash; a lost race (`RevisionConflict`) is one too, and is restarted.
Rule 3: the keepers wait for the store as well, but not for ever: when it knows that it is broken, or could not even be
        read for `store_patience_ms`, they fail the system on purpose: the process ends and recovers from disk. A store
        that can be read but takes no writes (a full disk) is waited for as long as that lasts.
"""

from abc import abstractmethod
from typing import Any, Generic, TypeVar

from loguru import logger

from actors import Actor
from deltaci.domain.errors import StoreUnavailable
from deltaci.orchestrator.ports import Ports

S = TypeVar("S")


class Stored(Actor[S], Generic[S]):
    """Subclasses say what to `load`, what to be before that worked (`nothing`), and how to `act` on a message."""

    is_loaded = False

    def __init__(self, ports: Ports) -> None:
        super().__init__()
        self.ports = ports

    @abstractmethod
    async def load(self) -> S:
        """What is committed."""

    @abstractmethod
    def nothing(self) -> S:
        """What to be while nothing could be loaded yet."""

    @abstractmethod
    async def act(self, message: Any) -> Any:
        """Handle one message; what it returns is the answer to an ask."""

    async def restore(self) -> S:
        """The committed state, or nothing while the store does not answer."""
        try:
            state = await self.load()
        except StoreUnavailable as error:
            self.on_unavailable(error)
            return self.nothing()
        self.is_loaded = True
        return state

    async def handle(self, message: Any) -> Any:
        """One message, on the committed state. Answers with the error while the store does not answer."""
        try:
            if not self.is_loaded:
                self.state = await self.load()
                self.is_loaded = True
            return await self.act(message)
        except StoreUnavailable as error:
            self.is_loaded = False
            self.on_unavailable(error)
            return error

    def on_unavailable(self, error: StoreUnavailable) -> None:
        """The store did not answer."""
        logger.bind(actor=self.path).warning("{} waits for the store: {}", self.path, error)


class Patience:
    """How long the store has been without an answer, as the keepers together see it."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._since_ms: int | None = None

    def renew(self) -> None:
        """The store answered."""
        self._since_ms = None

    def is_over(self) -> bool:
        """The store did not answer once more: whether waiting for it is pointless by now."""
        now_ms = self._ports.clock.now_ms()
        if self._since_ms is None:
            self._since_ms = now_ms
        # Not part of the port: a store that knows that it is broken for good is believed.
        is_broken = bool(getattr(self._ports.store, "is_broken", False))
        return is_broken or now_ms - self._since_ms >= self._ports.policy.store_patience_ms


class Keeper(Stored[S], Generic[S]):
    """A permanent actor: patient with the store, until patience is over."""

    def __init__(self, ports: Ports, patience: Patience) -> None:
        super().__init__(ports)
        self.patience = patience

    def on_unavailable(self, error: StoreUnavailable) -> None:
        """Also: once patience is over, the whole system fails with this error."""
        if self.patience.is_over():
            self.system.fail(error)
        super().on_unavailable(error)
