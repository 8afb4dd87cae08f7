"""The front of the orchestrator: builds the supervision tree, keeps it going, and is all that the gateway talks to."""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from random import Random
from types import MappingProxyType
from typing import Any, Final

import anyio
import msgspec
from loguru import logger

from actors import ActorError, ActorSystem, Backoff, Intensity
from actors import Observer as ActorObserver
from deltaci.domain import run as runs
from deltaci.domain.clock import Clock, Entropy
from deltaci.domain.effects import ActOnDelivery, Effect
from deltaci.domain.errors import DeltaError, DuplicateKey, NotFound
from deltaci.domain.events import Cause, Trigger
from deltaci.domain.machine import Refusal
from deltaci.domain.repo import Repo, is_reported
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason
from deltaci.orchestrator import paths
from deltaci.orchestrator.beats import sha256_of, wake_outbox
from deltaci.orchestrator.deliveries import removal
from deltaci.orchestrator.desk import RunnerDesk
from deltaci.orchestrator.dispatch import Board, DispatchActor
from deltaci.orchestrator.forges import ForgesActor, Turns
from deltaci.orchestrator.job_actor import JobActor
from deltaci.orchestrator.keepers import ReconcilerActor, TimersActor
from deltaci.orchestrator.messages import Admit, Admitted, Alter, Answer, DoRun, Rerun, StartRun, Wake
from deltaci.orchestrator.outbox import OutboxActor
from deltaci.orchestrator.ports import (
    Analyzer,
    AppHome,
    Credentials,
    NoChannels,
    NoCredentials,
    Notifier,
    Observer,
    Planner,
    Policy,
    Ports,
    Reporter,
    Rights,
    Tell,
)
from deltaci.orchestrator.presence import Presence, always_here
from deltaci.orchestrator.repo_actor import IdempotencyConflict, RepoActor
from deltaci.orchestrator.run_actor import RunActor
from deltaci.orchestrator.runners import RunnerHub
from deltaci.orchestrator.stored import Patience
from deltaci.orchestrator.watch import Ask, Heads
from deltaci.store.port import Store
from deltaci.store.space import endless
from deltaci.store.writes import Audit, Delivery, Owe, Reply, SaveRepo

# A permanent actor that crashes this often is broken: the process ends, and the service manager starts it anew.
KEEPER_INTENSITY: Final = Intensity(crashes_max=10, period_s=60)
ENTITY_INTENSITY: Final = Intensity(crashes_max=3, period_s=60)
NOBODY_TO_ASK: Final[Mapping[str, Rights]] = MappingProxyType({})
NOTHING_TO_SEE: Final[Mapping[str, Heads]] = MappingProxyType({})


class Orchestrator:
    """Everything that changes state, behind a handful of methods. Make one with `running(...)`."""

    def __init__(self, system: ActorSystem, ports: Ports, hub: RunnerHub, repos: "RepoDirectory", board: Board) -> None:
        self.system = system
        self.ports = ports
        self.hub = hub
        self.repos = repos
        self.desk = RunnerDesk(system, ports, hub)
        self._board = board

    # ---- repositories and triggers -------------------------------------------------------------------------------

    async def add_repo(self, repo: Repo, cause: Cause) -> None:
        """Register a repository; raises `DuplicateKey` when its name is taken."""
        audit = Audit(
            at_ms=self.ports.clock.now_ms(),
            cause=cause,
            type="RepoAdded",
            entity_id=repo.id,
            details={"name": repo.name},
        )
        await self.ports.store.commit((SaveRepo(repo=repo), audit))
        self.repos.add(repo)

    async def change_repo(
        self, repo_id: str, changes: Mapping[str, Any], details: dict[str, str], cause: Cause
    ) -> Repo:
        """The repository with these fields changed; raises `NameTaken` and `NotFound`.

        Args:
            details: what the audit record tells of it: no secret.
        """
        message = Alter(changes=changes, what="RepoChanged", details=details, cause=cause)
        return await self._alter(repo_id, message)

    async def remove_repo(self, repo: Repo, because: str, cause: Cause) -> Repo:
        """Build it no more and cancel what runs of it; its history stays. Without effect when it was removed before."""
        return await self._alter(repo.id, removal(repo, because, cause))

    async def _alter(self, repo_id: str, message: Alter) -> Repo:
        answer = await self._ask(paths.repo_path(repo_id), message)
        assert isinstance(answer, Repo)
        return answer

    async def admit(self, repo_id: str, message: Admit) -> Admitted:
        """What an authentic webhook becomes, once it is on disk; raises `DeliveryReused`.

        Args:
            repo_id: empty for what is about no repository; then there is no trigger.
        """
        answer = await self._ask(paths.repo_path(repo_id), message)
        assert isinstance(answer, Admitted)
        return answer

    async def replay(self, repo_id: str, delivery_id: str, cause: Cause) -> Delivery:
        """A delivery as it is stored. If it is a request, it is owed once more: what was done is not done again.

        Raises `NotFound`.
        """
        delivery = await self.ports.store.delivery(repo_id, delivery_id)
        if delivery is None:
            raise NotFound(f"no delivery {delivery_id[:100]!r}: see `deltaci deliveries list`")
        if delivery.request is not None:
            now_ms = self.ports.clock.now_ms()
            details = {"repo_id": repo_id, "delivery_id": delivery_id}
            audit = Audit(at_ms=now_ms, cause=cause, type="DeliveryReplayed", entity_id=repo_id, details=details)
            writes = (Owe(effect=ActOnDelivery(repo_id, delivery_id), due_at_ms=now_ms), audit)
            await self.ports.store.commit(writes)
            wake_outbox(writes, self.ports)
        return delivery

    async def start_run(self, repo_id: str, trigger: Trigger, cause: Cause, *, key: str) -> Reply:
        """A run that a person asked for; the same idempotency key gets the same run."""
        request = sha256_of(["start", repo_id, trigger])
        message = StartRun(trigger=trigger, cause=cause, reply_key=key, request_sha256=request)
        reply = await self._ask(paths.repo_path(repo_id), message)
        assert isinstance(reply, Reply)
        return reply

    async def rerun(self, run_id: str, cause: Cause, *, is_failed_only: bool, key: str) -> Reply | Refusal:
        """A new attempt of a run that is over; the same idempotency key gets the same attempt."""
        request = sha256_of(["rerun", run_id, is_failed_only])
        run = await self.run(run_id)
        message = Rerun(
            run_id=run_id, is_failed_only=is_failed_only, cause=cause, reply_key=key, request_sha256=request
        )
        answer = await self._ask(paths.repo_path(run.key.repo_id), message)
        assert isinstance(answer, Reply | Refusal)
        return answer

    async def cancel(self, run_id: str, cause: Cause) -> Run:
        """Stop a run; accepted in every state, and without effect after the end. Raises `NotFound`."""
        await self.run(run_id)
        command = runs.RequestCancel(reason=EndReason.USER_CANCELED, detail=f"canceled by {cause.id}")
        answer: Answer[Run] = await self._ask(paths.run_path(run_id), DoRun(command=command, cause=cause))
        assert not isinstance(answer, Refusal), answer.text
        return answer.state

    async def cancel_once(self, run_id: str, cause: Cause, *, key: str) -> Reply:
        """`cancel`, and the same idempotency key gets the same answer, whatever became of the run meanwhile."""

        async def act() -> dict[str, str | None]:
            run = await self.cancel(run_id, cause)
            return {"run_id": run.id, "state": run.state}

        return await self._once(["cancel", run_id], act, key=key)

    async def approve(self, run_id: str, cause: Cause) -> Run:
        """Let a held run go on; accepted in every state, and without effect on one that is not held.

        Whoever calls knows that `cause` is somebody who may. Raises `NotFound`.
        """
        await self.run(run_id)
        command = runs.Approve(by=cause.id)
        answer: Answer[Run] = await self._ask(paths.run_path(run_id), DoRun(command=command, cause=cause))
        assert not isinstance(answer, Refusal), answer.text
        return answer.state

    async def approve_once(self, run_id: str, cause: Cause, *, key: str) -> Reply:
        """`approve`, and the same idempotency key gets the same answer, whatever became of the run meanwhile."""

        async def act() -> dict[str, str | None]:
            run = await self.approve(run_id, cause)
            return {"run_id": run.id, "state": run.state, "approved_by": run.approved_by or None}

        return await self._once(["approve", run_id], act, key=key)

    async def _once(self, what: list[str], act: Callable[[], Awaitable[dict[str, str | None]]], *, key: str) -> Reply:
        request = sha256_of(what)
        kept = await self._kept(key, request)
        if kept is not None:
            return kept
        body = msgspec.json.encode(await act())
        now_ms = self.ports.clock.now_ms()
        reply = Reply(key=key, request_sha256=request, http_status=202, body=body, at_ms=now_ms)
        try:
            await self.ports.store.commit((reply,))
        except DuplicateKey:
            return await self._kept(key, request) or reply
        return reply

    async def _kept(self, key: str, request_sha256: str) -> Reply | None:
        kept = await self.ports.store.reply(key)
        if kept is not None and kept.request_sha256 != request_sha256:
            raise IdempotencyConflict
        return kept

    async def run(self, run_id: str) -> Run:
        """The committed run; raises `NotFound`."""
        run = await self.ports.store.load_run(run_id)
        if run is None:
            raise NotFound(f"no run {run_id[:100]!r}", run_id=run_id[:100])
        return run

    def is_at_limit(self, repo_id: str) -> bool:
        """Whether the repository has as many jobs running as it may, as far as dispatch knows."""
        return self._board.queue.is_at_limit(repo_id)

    def is_group_held(self, repo_id: str, concurrency: str) -> bool:
        """Whether a job of this concurrency group is with a runner, as far as dispatch knows."""
        return self._board.queue.is_group_held(repo_id, concurrency)

    # ---- inside --------------------------------------------------------------------------------------------------

    async def _ask(self, path: str, message: Any) -> Any:
        return await asking(self.system, self.ports.policy)(path, message)


class RepoDirectory:
    """Where each repository's results go, in memory: loaded at a start, completed by every repository added."""

    def __init__(self, repos: tuple[Repo, ...]) -> None:
        self._by_id = {repo.id: repo for repo in repos}

    def add(self, repo: Repo) -> None:
        """The repository is stored so; whoever read it before it was changed is not believed."""
        known = self._by_id.get(repo.id)
        if known is None or known.revision <= repo.revision:
            self._by_id[repo.id] = repo

    def all(self) -> tuple[Repo, ...]:
        """Every repository, in order of registration, also those that were removed."""
        return tuple(self._by_id.values())

    def named(self, name: str) -> Repo | None:
        """The repository with this name or id."""
        return self._by_id.get(name) or next((repo for repo in self._by_id.values() if repo.name == name), None)

    def running_max(self, repo_id: str) -> int:
        """How many of its jobs may run at once; 0: any number."""
        repo = self._by_id.get(repo_id)
        return 0 if repo is None else repo.running_max

    def is_reported(self, repo_id: str) -> bool:
        """Whether its results go anywhere."""
        repo = self._by_id.get(repo_id)
        return repo is not None and is_reported(repo)


@asynccontextmanager
async def running(
    store: Store,
    *,
    clock: Clock,
    entropy: Entropy,
    rng: Random,
    policy: Policy,
    planner: Planner,
    analyzer: Analyzer,
    reporter: Reporter,
    observer: Observer,
    notifier: Notifier | None = None,
    actor_observer: ActorObserver | None = None,
    uptime_s: Callable[[], float] | None = None,
    has_room: Callable[[int], bool] = endless,
    credentials: Credentials | None = None,
    rights: Mapping[str, Rights] = NOBODY_TO_ASK,
    forges: Mapping[str, Heads] = NOTHING_TO_SEE,
    app_home: AppHome = AppHome(),  # noqa: B008 - it is frozen
) -> AsyncIterator[Orchestrator]:
    """The orchestrator at work: everything that was under way before goes on. Leaving it handles what was accepted.

    Args:
        rights: who may ask for what, by `Repo.forge`; of a forge that is not in it nobody may.
        forges: what is looked at for what no webhook told, by `Repo.forge`.
        app_home: where the repositories of installations of our app are.
        notifier: tells people of the ends of runs; None: nobody can be told.
        uptime_s: a clock that goes on while this process is stopped, for noticing that it was; None: it never is.

    Raises what escalated to the root of the tree; the process should then end and be started again.
    """
    repos = RepoDirectory(await store.repos())
    hub = RunnerHub(clock, policy.runner_silent_after_ms)
    async with (
        ActorSystem(rng=rng, mailbox_size=policy.mailbox_size, observer=actor_observer) as system,
        anyio.create_task_group() as background,
    ):

        def tell(path: str, message: Any) -> None:
            try:
                system.ref(path).tell(message)
            except ActorError as error:
                # A notification only: the reconciler finds what it was about.
                observer.missed("notification")
                logger.debug("not told: {}", error)

        tick_ms = policy.timer_tick_ms
        presence = Presence(uptime_s, tick_ms=tick_ms) if uptime_s is not None else always_here()
        ports = Ports(
            store=store,
            clock=clock,
            entropy=entropy,
            policy=policy,
            presence=presence,
            observer=observer,
            tell=tell,
            push=hub.push,
            began_at_ms=clock.now_ms(),
            is_reported=repos.is_reported,
            running_max=repos.running_max,
            repos=repos.all,
            repo_changed=repos.add,
            has_room=has_room,
            credentials=credentials or NoCredentials(),
        )

        def spawn(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
            # While the system empties its mailboxes at the end, what is owed stays owed until the next start.
            if not background.cancel_scope.cancel_called:
                background.start_soon(work)

        patience, board = Patience(ports), Board()
        under_way: dict[str, type[Effect]] = {}
        outbox = lambda: OutboxActor(  # noqa: E731 - a factory, called again after each crash
            ports,
            patience,
            planner=planner,
            analyzer=analyzer,
            reporter=reporter,
            notifier=notifier or NoChannels(),
            spawn=spawn,
            under_way=under_way,
            rights=rights,
            app_home=app_home,
        )
        turns = Turns()
        watching = lambda: ForgesActor(  # noqa: E731 - likewise
            ports, patience, forges=forges, ask=asking(system, policy), spawn=spawn, turns=turns
        )
        grow(system, ports, patience, board, outbox, watching)
        background.start_soon(_listen, presence, tick_ms)
        background.start_soon(_pulse, tell, tick_ms, (paths.TIMERS, paths.DISPATCH, paths.OUTBOX))
        background.start_soon(_pulse, tell, policy.reconcile_every_ms, (paths.RECONCILER, paths.FORGES))
        try:
            yield Orchestrator(system, ports, hub, repos, board)
        finally:
            background.cancel_scope.cancel()


def asking(system: ActorSystem, policy: Policy) -> Ask:
    """Asks the actor at a path, and raises what it answers with."""

    async def ask(path: str, message: Any) -> Any:
        answer = await system.ref(path).ask(message, timeout=policy.ask_timeout_ms / 1000)
        if isinstance(answer, DeltaError):
            raise answer
        return answer

    return ask


def grow(
    system: ActorSystem,
    ports: Ports,
    patience: Patience,
    board: Board,
    outbox: Callable[[], OutboxActor],
    watching: Callable[[], ForgesActor],
) -> None:
    """The supervision tree: five keepers that are always there, and repositories, runs and jobs that come and go."""
    passivate_after_s = ports.policy.passivate_after_ms / 1000
    root = system.supervisor(paths.ROOT, intensity=KEEPER_INTENSITY, backoff=Backoff())
    root.start("dispatch", lambda: DispatchActor(ports, patience, board))
    root.start("outbox", outbox)
    root.start("timers", lambda: TimersActor(ports, patience))
    root.start("reconciler", lambda: ReconcilerActor(ports, patience))
    root.start("forges", watching)
    root.entities(
        "repos",
        lambda repo_id: RepoActor("" if repo_id == paths.NO_REPO else repo_id, ports),
        intensity=ENTITY_INTENSITY,
        passivate_after_s=passivate_after_s,
    )
    run_family = root.entities(
        "runs",
        lambda run_id: RunActor(run_id, ports),
        intensity=ENTITY_INTENSITY,
        passivate_after_s=passivate_after_s,
    )
    run_family.nested(
        "jobs",
        lambda _run_id, job_id: JobActor(job_id, ports),
        intensity=ENTITY_INTENSITY,
        passivate_after_s=passivate_after_s,
    )


async def _listen(presence: Presence, every_ms: int) -> None:
    """Looks for ever: a gap between two looks is an absence."""
    while True:
        presence.absent_ms()
        await anyio.sleep(every_ms / 1000)


async def _pulse(tell: Tell, every_ms: int, told: tuple[str, ...]) -> None:
    """Wakes the keepers for ever, also one whose mailbox is full just now; a waiting wake-up is not doubled."""
    while True:
        for path in told:
            tell(path, Wake())
        await anyio.sleep(every_ms / 1000)
