"""A store that fails on demand, clients that ask again, and a look at what was stored in the end."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import anyio

from actors import ActorError, Node, Status
from deltaci.domain.errors import RevisionConflict, StoreError, StoreUnavailable
from deltaci.domain.run import Run
from deltaci.invariants.verify import verify
from deltaci.orchestrator.dispatch import Offer
from deltaci.store.port import Store
from deltaci.store.writes import Runner, Write
from protocol import messages as wire
from tests.orchestrator.support import Stage

T = TypeVar("T")
Fault = Literal["before", "after", "conflict"]


class FaultyStore:
    """Another store, which fails at the commits and during the times that a test chooses."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.commits = 0
        self.faults: dict[int, Fault] = {}
        self.is_full = False
        self.is_unreadable = False
        self.is_broken = False
        self.refused_commits = 0
        self.committed: list[Sequence[Write]] = []

    async def commit(self, writes: Sequence[Write]) -> None:
        self.commits += 1
        fault = self.faults.pop(self.commits, None)
        if self.is_full or self.is_unreadable or fault == "before":
            self.refused_commits += 1
            await anyio.lowlevel.checkpoint()
            raise StoreUnavailable("nothing was stored: database or disk is full")
        if fault == "conflict":
            raise RevisionConflict("another writer was first")
        await self._store.commit(writes)
        self.committed.append(writes)
        if fault == "after":
            raise StoreUnavailable("stored, but nobody knows")

    def __getattr__(self, name: str) -> Any:
        read = getattr(self._store, name)

        async def reading(*args: Any, **more: Any) -> Any:
            if self.is_unreadable:
                await anyio.lowlevel.checkpoint()
                raise StoreUnavailable("the database cannot be read")
            return await read(*args, **more)

        return read if name in ("journal", "deliveries") else reading

    def writes(self, kind: type[T]) -> list[T]:
        """Everything of one kind that was committed."""
        return [write for writes in self.committed for write in writes if isinstance(write, kind)]


def lose(stage: Stage, is_lost: Callable[[str, Any], bool]) -> None:
    """Drop messages that nobody waits for."""
    system, deliver = stage.orchestrator.system, stage.orchestrator.system.deliver

    def lossy(path: str, envelope: Any) -> None:
        # A runner's wish is a request: it has an answer of its own, though it is told.
        is_notification = envelope.reply_to is None and not isinstance(envelope.message, Offer)
        if is_notification and is_lost(path, envelope.message):
            return
        deliver(path, envelope)

    system.deliver = lossy  # type: ignore[method-assign]


async def insistently(call: Callable[[], Awaitable[T]]) -> T:
    """Ask until there is a definite answer, as every client does that cannot know what became of its request."""
    with anyio.fail_after(10):
        while True:
            try:
                return await call()
            except (ActorError, StoreError):
                await anyio.sleep(0.005)


async def until(condition: Callable[[], Any]) -> None:
    """Go on once the condition holds; fails after 5 s."""
    with anyio.fail_after(5):
        while True:
            if condition():
                return
            await anyio.sleep(0.002)


async def nothing_owed(store: Any) -> None:
    """Go on once the outbox holds nothing that will be tried; fails after 5 s."""
    with anyio.fail_after(5):
        while True:
            if await store.next_owed_at_ms() is None:
                return
            await anyio.sleep(0.002)


async def work_until_over(
    stage: Stage, runner: Runner, run_id: str, *, exit_codes: dict[str, int] | None = None
) -> Run:
    """Execute whatever is offered until the run is over; time passes when there is nothing to do."""
    with anyio.fail_after(20):
        while True:
            run = await insistently(lambda: stage.store.load_run(run_id))
            assert run is not None
            if run.state.is_final:
                return run
            leases = await insistently(lambda: stage.lease(runner, wait_ms=10))
            if not leases:
                stage.clock.advance(15_000)
            for lease in leases:
                if isinstance(await insistently(lambda: stage.say(runner, wire.AckLease, lease)), wire.LeaseAcked):  # noqa: B023
                    exit_code = (exit_codes or {}).get(lease.job.name, 0)
                    await insistently(lambda: stage.say(runner, wire.Complete, lease, exit_code=exit_code))  # noqa: B023


async def assert_sound(store: Any) -> None:
    """What must hold of everything stored, whatever happened: every invariant that can be decided from it."""
    assert (await verify(store)).violations == ()


def nodes(tree: Node) -> dict[str, Node]:
    """Every node of the tree by path."""
    found = {tree.path: tree}
    for child in tree.children:
        found |= nodes(child)
    return found


def quarantined(stage: Stage) -> list[str]:
    """Paths in quarantine."""
    tree = nodes(stage.orchestrator.system.tree())
    return [path for path, node in tree.items() if node.status is Status.QUARANTINED]
