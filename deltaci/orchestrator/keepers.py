"""The two that look at the store from time to time, so that nothing depends on a message that arrives.

Timers: whose deadline has passed? Reconciler: what should a notification have told, and did not?
"""

from typing import Any, Final

from deltaci.orchestrator import paths
from deltaci.orchestrator.messages import Due, Look, Wake
from deltaci.orchestrator.repo_actor import superseded
from deltaci.orchestrator.stored import Keeper

PAGE: Final = 1_000


class Watcher(Keeper[None]):
    """A keeper that holds nothing, and looks whenever it is woken."""

    async def load(self) -> None:
        """Nothing: the store knows."""

    def nothing(self) -> None:
        """Nothing."""

    @staticmethod
    def coalesce_key(message: Any) -> str | None:
        """One waiting wake-up is enough."""
        return "wake" if isinstance(message, Wake) else None

    def describe_state(self) -> str:
        """Nothing is kept."""
        return "watching"


class TimersActor(Watcher):
    """Tells the runs and jobs whose stored deadline has passed; they decide what that means."""

    async def act(self, _message: Wake) -> None:
        """One page of due deadlines, the earliest first; the next wake-up goes on."""
        due = await self.ports.store.due(self.ports.clock.now_ms(), PAGE)
        self.patience.renew()
        for entity_id in due:
            path = paths.entity_path(entity_id)
            assert path is not None, f"{entity_id} has a deadline and is neither run nor job"
            self.ports.tell(path, Due())


class ReconcilerActor(Watcher):
    """Finds by query what an in-memory notification should have told, and tells it again."""

    async def act(self, _message: Wake) -> None:
        """Runs that missed a wake-up, older runs of a stream, dispatch's copy of the queue, the outbox."""
        store, tell = self.ports.store, self.ports.tell
        for run_id in await store.runs_to_advance(PAGE):
            self.ports.observer.missed("run")
            tell(paths.run_path(run_id), Look())
        for older, newer in await store.superseded_runs(PAGE):
            self.ports.observer.missed("superseded")
            tell(paths.run_path(older), superseded(newer))
        tell(paths.DISPATCH, Look())
        tell(paths.OUTBOX, Wake())
