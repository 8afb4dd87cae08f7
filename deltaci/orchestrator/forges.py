"""The keeper that has forges looked at, each repository in its turn: after a start at once, then from time to time."""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, runtime_checkable

from loguru import logger

from actors import ActorError
from deltaci.domain.errors import DeltaError
from deltaci.domain.repo import Repo
from deltaci.orchestrator.keepers import Watcher
from deltaci.orchestrator.messages import Wake
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.stored import Patience
from deltaci.orchestrator.watch import Ask, Heads, Sent, Watch

LOOKS_AT_ONCE: Final = 4
# What the list of an app's deliveries is looked at under, beside the ids of repositories
APP: Final = "app"
# How much of the time before the last look is looked at again: clocks differ, and deliveries take a while to be listed.
OVERLAP_MS: Final = 600_000

Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


@runtime_checkable
class AppPort(Sent, Protocol):
    """A forge that remembers what it sent, and at which we may be an app."""

    @property
    def has_app(self) -> bool:
        """Whether we are."""
        ...

    def is_app(self, repo: Repo) -> bool:
        """Whether the webhooks of this repository come from the app."""
        ...


class Turns:
    """Whose turn comes when, and who is under way; outlives a crash of the actor, as looks do."""

    def __init__(self) -> None:
        self.next_at_ms: dict[str, int] = {}
        self.looked_at_ms: dict[str, int] = {}
        self.under_way: set[str] = set()


class ForgesActor(Watcher):
    """Starts looks; what they find goes to the repositories' own actors."""

    def __init__(
        self,
        ports: Ports,
        patience: Patience,
        *,
        forges: Mapping[str, Heads],
        ask: Ask,
        spawn: Spawn,
        turns: Turns,
    ) -> None:
        """`forges` by `Repo.forge`; `spawn` runs a look beside the mailbox."""
        super().__init__(ports, patience)
        self.forges = forges
        self.spawn = spawn
        self.turns = turns
        self.watch = Watch(ports, ask)

    def describe_state(self) -> str:
        """How many looks are under way."""
        return f"{len(self.turns.under_way)} under way"

    async def act(self, _message: Wake) -> None:
        """Start the looks that are due, as far as there are places."""
        now_ms = self.ports.clock.now_ms()
        for name, forge in self.forges.items():
            if isinstance(forge, AppPort) and forge.has_app:
                self._start(f"{APP}:{name}", now_ms, partial(self._look_at_app, forge=forge))
        for repo in self.ports.repos():
            asked = self.forges.get(repo.forge)
            if asked is not None and not repo.removed_because and (repo.api_token or repo.installation_id):
                self._start(repo.id, now_ms, partial(self._look_at, repo=repo, forge=asked))

    def _start(self, key: str, now_ms: int, look: Callable[[str], Coroutine[Any, Any, None]]) -> None:
        turns = self.turns
        is_due = turns.next_at_ms.get(key, 0) <= now_ms and key not in turns.under_way
        if not is_due or len(turns.under_way) >= LOOKS_AT_ONCE:
            return
        turns.under_way.add(key)

        async def work() -> None:
            wait_ms = self.ports.policy.forge_look_every_ms
            try:
                await look(key)
                turns.looked_at_ms[key] = now_ms
            except (DeltaError, ActorError, TimeoutError, OSError) as error:
                wait_ms = max(wait_ms, getattr(error, "retry_after_ms", None) or 0)
                logger.info("could not look at the forge for {}: {}", key, error)
            except Exception:  # noqa: BLE001 - a bug behind a port must not stop the other looks
                logger.exception("a look at the forge for {} crashed", key)
            finally:
                turns.next_at_ms[key] = self.ports.clock.now_ms() + wait_ms
                turns.under_way.discard(key)

        self.spawn(work)

    async def _look_at(self, key: str, *, repo: Repo, forge: Heads) -> None:
        await self.watch.look(repo, forge)
        if isinstance(forge, AppPort) and not forge.is_app(repo):
            await self.watch.ask_again(repo, forge, self._since_ms(key))

    async def _look_at_app(self, key: str, *, forge: AppPort) -> None:
        await self.watch.ask_again(None, forge, self._since_ms(key))

    def _since_ms(self, key: str) -> int:
        return max(0, self.turns.looked_at_ms.get(key, 0) - OVERLAP_MS)
