"""Known bugs, planted into the production code on demand: each of them the simulation must find.

Rule 1: a bug is planted by name for the time of one simulation, and only from here: production code knows of none.
Rule 2: each is a mistake that somebody could make, or that another system was once paid for with. No check was written
        for one of them alone.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Final, TypeAlias
from unittest import mock

import anyio.lowlevel
import msgspec

from deltaci.analyzer.sanitizer import Sanitizer
from deltaci.domain import job as jobs
from deltaci.domain import retry, trust
from deltaci.domain import run as runs
from deltaci.domain.events import AttemptQueued, Cause
from deltaci.domain.job import Job
from deltaci.domain.machine import Move, Step
from deltaci.domain.repo import run_key
from deltaci.domain.states import JobState
from deltaci.orchestrator.job_actor import JobActor
from deltaci.orchestrator.keepers import ReconcilerActor, TimersActor
from deltaci.orchestrator.messages import Admit, Admitted
from deltaci.orchestrator.outbox import OutboxActor
from deltaci.orchestrator.repo_actor import RepoActor
from deltaci.orchestrator.run_actor import RunActor
from deltaci.store import batching, prepare
from deltaci.store.database import Database
from deltaci.store.port import Owed
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Settle

Patches: TypeAlias = list[Any]
MESSAGES_A_TURN: Final = 3


def missing_fence() -> Patches:
    """Whoever speaks about the current attempt is believed, whatever lease he holds."""
    return [mock.patch.object(jobs, "_is_holder", return_value=True)]


def deduplication_in_memory() -> Patches:
    """The actor remembers which deliveries it has seen, and forgets it with everything else."""

    real = RepoActor._admit

    async def admit(self: RepoActor, message: Admit) -> Any:
        repo = self.state
        if message.request is not None or repo is None:
            return await real(self, message)
        seen: dict[str, Admitted] = self.__dict__.setdefault("seen", {})
        if message.delivery_id in seen:
            return seen[message.delivery_id]
        admitted = Admitted(run_id=None, is_duplicate=False, ignored=message.ignored)
        known = await self.ports.store.delivery(repo.id, message.delivery_id)
        if message.trigger is None:
            if known is None:
                await self.ports.store.commit((self._delivery(message, ignored=message.ignored),))
        else:
            latest = await self.ports.store.latest_run(run_key(repo.id, message.trigger))
            attempt = 1 if latest is None else latest.attempt + 1
            cause = Cause("webhook", message.delivery_id)
            run_id, writes = await self._new_run(repo, message.trigger, attempt, cause)
            ledger = [self._delivery(message, run_id=run_id)] if known is None else []
            await self._begin(repo, message.trigger, run_id, [*ledger, *writes])
            admitted = Admitted(run_id=run_id, is_duplicate=False, ignored=None)
        seen[message.delivery_id] = admitted
        return admitted

    return [mock.patch.object(RepoActor, "_admit", admit)]


def answer_before_the_commit() -> Patches:
    """A caller is answered when its commit has a place in the queue, not when it is on disk."""

    async def commit(self: SqliteStore, writes: Any) -> None:
        prepared = prepare.prepare(writes)
        self._writes._waiting.append(batching._Ticket(prepared, prepared.size))
        self._writes._wake.set()
        await anyio.lowlevel.checkpoint()

    return [mock.patch.object(SqliteStore, "commit", commit)]


def lost_wake_up() -> Patches:
    """Nobody looks for what a notification should have told."""

    async def act(self: ReconcilerActor, message: Any) -> None:
        del self, message

    return [mock.patch.object(ReconcilerActor, "act", act)]


def retry_without_bound() -> Patches:
    """A lost runner is no fault of the job: it is tried again for ever."""

    def decide(job_id: str, attempts: Any, reason: Any, *, retries: int, now_ms: int) -> Any:
        del job_id, attempts, retries
        return retry.RetryAt(now_ms + 1_000) if reason in retry.INFRASTRUCTURE else retry.NoRetry()

    return [mock.patch.object(retry, "decide", decide)]


def resurrected_final_state() -> Patches:
    """The repeat of a failed result queues the job once more, and the table allows it."""
    evolve, after_the_end = jobs.evolve, jobs._after_the_end

    def reopened(job: Job, event: Any) -> Job:
        if isinstance(event, AttemptQueued) and job.state.is_final:
            job = msgspec.structs.replace(job, state=JobState.RUNNING, end_reason=None, ended_at_ms=None)
        return evolve(job, event)

    def again(job: Job, said: Any, command: Any) -> Any:
        if isinstance(command, jobs.Complete) and job.state is JobState.FAILED and said is job.attempts[-1]:
            queued = AttemptQueued(at_ms=said.ended_at_ms, attempt=said.number + 1, not_before_ms=0)
            return Step(reopened(job, queued), (queued,))
        return after_the_end(job, said, command)

    requeue = Move(frozenset({JobState.RUNNING, JobState.FAILED}), JobState.QUEUED)
    return [
        mock.patch.dict(jobs.MOVES, {"requeue": requeue}),
        mock.patch.object(jobs, "evolve", reopened),
        mock.patch.object(jobs, "_after_the_end", again),
    ]


def cancel_that_forgets_a_queued_job() -> Patches:
    """A canceled run stops what runs, and forgets what still waits for a runner."""
    cancel_jobs = RunActor._cancel_jobs

    def cancel_running(self: RunActor, run: Any) -> None:
        seen = self.progress.seen
        self.progress.seen = {each: one for each, one in seen.items() if one.state is not JobState.QUEUED}
        cancel_jobs(self, run)
        self.progress.seen = seen

    return [mock.patch.object(RunActor, "_cancel_jobs", cancel_running)]


def timer_lost_on_restart() -> Patches:
    """A lease's timer lives in the process that granted it: what a process leaves behind never fires."""
    act, clock_of_start = TimersActor.act, "began_ms"

    async def act_on_own(self: TimersActor, message: Any) -> None:
        began_ms = self.system.__dict__.setdefault(clock_of_start, self.ports.clock.now_ms())
        tell = self.ports.tell

        def tell_own(path: str, due: Any) -> None:
            job = known.get(path.rpartition("/")[2])
            lease = job.attempts[-1].lease if job is not None and job.attempts else None
            if lease is None or lease.granted_at_ms >= began_ms:
                tell(path, due)

        known: dict[str, Job] = {}
        for entity_id in await self.ports.store.due(self.ports.clock.now_ms(), 1_000):
            loaded = await self.ports.store.load_job(entity_id) if entity_id.startswith("job_") else None
            if loaded is not None:
                known[entity_id] = loaded[0]
        ports = self.ports
        self.ports = msgspec.structs.replace(ports, tell=tell_own)
        try:
            await act(self, message)
        finally:
            self.ports = ports

    return [mock.patch.object(TimersActor, "act", act_on_own)]


def outbox_settled_before_it_is_sent() -> Patches:
    """A debt is taken out of the outbox, and then paid."""
    act = OutboxActor._act

    async def settle_first(self: OutboxActor, owed: Owed) -> None:
        await self.ports.store.commit((Settle(key=owed.effect.key, generation=owed.generation),))
        await act(self, owed)

    return [mock.patch.object(OutboxActor, "_act", settle_first)]


def two_owners_and_no_revision_check() -> Patches:
    """A job has two owners that take turns, and nothing in the database tells the one that is behind."""
    act, handled = JobActor.act, [0]
    waiting: dict[str, Any] = {}

    async def act_in_turns(self: JobActor, message: Any) -> Any:
        handled[0] += 1
        cells, path = self.system.cells, self.path
        if handled[0] % MESSAGES_A_TURN == 0 and cells.get(path) is self._cell:
            other = waiting.pop(path, None)
            waiting[path] = cells.pop(path)
            if other is not None and other.system is self.system and other.is_open:
                cells[path] = other
        return await act(self, message)

    unchecked = prepare.UPDATE_JOB.replace("AND revision = ?", "AND ? >= 0")
    assert unchecked != prepare.UPDATE_JOB
    return [mock.patch.object(JobActor, "act", act_in_turns), mock.patch.object(prepare, "UPDATE_JOB", unchecked)]


def no_grace_after_a_start() -> Patches:
    """Nobody was heard before the start, and so everybody has been silent for ever."""
    load = JobActor.load

    async def load_unheard(self: JobActor) -> Any:
        loaded = await load(self)
        self.heard_at_ms = 1
        return loaded

    return [mock.patch.object(JobActor, "load", load_unheard)]


def group_held_in_memory_alone() -> Patches:
    """Dispatch knows who holds a group, and the store takes every lease that it offers."""
    migrate = Database.migrate

    def without_index(self: Database, path: Any) -> None:
        migrate(self, path)
        self.connection.execute("DROP INDEX IF EXISTS job_holding_group")

    blind = prepare.GRANT_JOB.replace("holder.concurrency <> ''", "holder.concurrency <> '' AND 0")
    assert blind != prepare.GRANT_JOB
    return [mock.patch.object(prepare, "GRANT_JOB", blind), mock.patch.object(Database, "migrate", without_index)]


def second_result_accepted() -> Patches:
    """A result is answered as accepted also when another one was accepted before."""
    after_the_end = jobs._after_the_end

    def accept(job: Job, said: Any, command: Any) -> Any:
        return Step(job) if isinstance(command, jobs.Complete) else after_the_end(job, said, command)

    return [mock.patch.object(jobs, "_after_the_end", accept)]


def held_run_planned_without_approval() -> Patches:
    """Who must be asked is stored with the run, and nobody looks at it."""
    return [mock.patch.object(runs, "is_waiting_for_approval", return_value=False)]


def approval_of_a_later_commit() -> Patches:
    """A comment approves whatever waits when it arrives, not what was there when it was written."""
    return [mock.patch.object(trust, "meant_by", return_value="")]


def author_known_without_approval() -> Patches:
    """Whoever had a run here before is no first-time contributor, whether somebody approved it or not."""
    return [mock.patch.object(prepare, "approved_author", lambda run: run.trigger.author)]


def unredacted_explanation() -> Patches:
    """What a failed job printed is quoted as it stands."""

    def clean(self: Sanitizer, data: bytes) -> str:
        del self
        return data.decode("utf-8", "replace")

    return [mock.patch.object(Sanitizer, "clean", clean)]


BUGS: Final[Mapping[str, Callable[[], Patches]]] = {
    plant.__name__: plant
    for plant in (
        missing_fence,
        deduplication_in_memory,
        answer_before_the_commit,
        lost_wake_up,
        retry_without_bound,
        resurrected_final_state,
        cancel_that_forgets_a_queued_job,
        timer_lost_on_restart,
        outbox_settled_before_it_is_sent,
        two_owners_and_no_revision_check,
        no_grace_after_a_start,
        group_held_in_memory_alone,
        second_result_accepted,
        held_run_planned_without_approval,
        approval_of_a_later_commit,
        author_known_without_approval,
        unredacted_explanation,
    )
}


@contextmanager
def planted(name: str) -> Iterator[None]:
    """The production code with this bug in it; with none for an empty name."""
    with ExitStack() as stack:
        for patch in BUGS[name]() if name else ():
            stack.enter_context(patch)
        yield
