"""The SQLite store: callers' commits queue up and go to the database in batches, one transaction a batch.

Rule 1: one writer connection; the readers cannot write. A read that starts after a commit was answered sees it.
Rule 2: a commit is answered after its transaction is on disk, never before.
Rule 3: what waits (for the disk, for another process, for a scan) waits on a thread; what looks up a few cached rows
        does not: on a thread every row waits for Python's global lock behind a busy loop.
"""

import json
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from sqlite3 import Connection
from typing import Any, Concatenate, Final, ParamSpec, TypeAlias, TypeVar

import anyio
import anyio.lowlevel

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.effects import Effect
from deltaci.domain.errors import StoreError, StoreUnavailable
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.recipe import Kept, Recipe
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.domain.states import RunState
from deltaci.store import reads, rows
from deltaci.store.batching import Batcher
from deltaci.store.database import BUSY_TIMEOUT_MS, Database, Held
from deltaci.store.engine import Engine, OpenEngine, Threaded
from deltaci.store.port import HeldJob, JournalEntry, LogState, NumberedDelivery, Owed, QueuedJob, Rows, RunSummary
from deltaci.store.prepare import Prepared, prepare
from deltaci.store.writes import ArtifactStored, Delivery, Explanation, Reply, Runner, Token, Write

P = ParamSpec("P")
T = TypeVar("T")
Scan: TypeAlias = Callable[[Connection], Any]

# A batch is staged in one go, about 50 us a commit: more of them would be felt by everything else on the loop.
COMMITS_MAX: Final = 128
BYTES_MAX: Final = 4 * 1024 * 1024
SCANS_MAX: Final = 16
ROWS_AT_ONCE: Final = 200


class SqliteStore:
    """The store on one SQLite file; open it with `async with SqliteStore.open(path) as store`."""

    def __init__(self, writer: Engine, scanner: Engine, reader: Database, lister: Database) -> None:
        self._writer = writer
        self._reader = reader
        self._lister = lister
        self._is_listing = anyio.Lock()
        self._writes: Batcher[Prepared] = Batcher(self._apply, count_max=COMMITS_MAX, size_max=BYTES_MAX)
        self._scans: Batcher[Scan] = Batcher(partial(_scan, scanner), count_max=SCANS_MAX, size_max=SCANS_MAX)

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        path: Path | str,
        *,
        engine: OpenEngine = Threaded.open,
        busy_timeout_ms: int = BUSY_TIMEOUT_MS,
        is_readonly: bool = False,
    ) -> AsyncIterator["SqliteStore"]:
        """The store in the file at `path`, made if it is not there. On leaving, what was accepted is answered first.

        Args:
            engine: what runs the slow calls; `Inline.open` uses no thread at all, for tests and for Trio.
            busy_timeout_ms: how long to wait for another process that holds the database.
            is_readonly: look at a database that belongs to somebody else: it is neither made nor migrated, not one byte
                of it changes, and every commit fails.

        Raises `SchemaTooNew`, `SchemaTooOld` when it would have to be migrated and must not be, and `StoreUnavailable`
        when it cannot be opened.
        """
        options: dict[str, Any] = {"busy_timeout_ms": busy_timeout_ms}
        open_reader = partial(Database.open_reader, Path(path), **options, is_readonly=is_readonly)
        open_writer = open_reader if is_readonly else partial(Database.open_writer, Path(path), **options)
        failure: Exception | None = None
        async with AsyncExitStack() as stack:
            writer = await engine(open_writer)
            stack.push_async_callback(_close, writer)
            scanner = await engine(open_reader)
            stack.push_async_callback(_close, scanner)
            reader, lister = open_reader(), open_reader()
            stack.callback(reader.close)
            stack.callback(lister.close)
            store = cls(writer, scanner, reader, lister)
            async with anyio.create_task_group() as group:
                group.start_soon(store._writes.serve)
                group.start_soon(store._scans.serve)
                try:
                    yield store
                except Exception as error:  # noqa: BLE001 - raised below: leaving the task group would wrap it
                    failure = error
                finally:
                    store._writes.close()
                    store._scans.close()
        if failure is not None:
            raise failure

    @property
    def is_broken(self) -> bool:
        """Whether an I/O error made it unknown what is on disk; the process should exit and recover from disk."""
        return bool(self._writer.database.broken_by)

    @property
    def depth(self) -> int:
        """How many commits wait for the writer."""
        return self._writes.depth

    @property
    def batches(self) -> int:
        """How many batches of commits went to the writer so far."""
        return self._writer.database.batches

    async def commit(self, writes: Sequence[Write]) -> None:
        """Apply all `writes` or none; return once they are on disk. Raises what each write's docstring says."""
        prepared = prepare(writes)
        await self._writes.ask(prepared, prepared.size)

    async def _apply(self, batch: Sequence[Prepared]) -> Sequence[StoreError | None]:
        database = self._writer.database
        staged = database.stage(batch)
        if isinstance(staged, Held):
            staged = await self._writer.run(partial(database.stage, batch, is_patient=True))
        return await self._writer.run(partial(database.finish, staged))

    async def _read(self, read: Callable[Concatenate[Connection, P], T], *args: P.args, **more: P.kwargs) -> T:
        """The answer of a read of few rows, by key: quicker than any way to a thread and back."""
        await anyio.lowlevel.checkpoint()
        self._check()
        return self._reader.read(lambda connection: read(connection, *args, **more))

    async def _scan(self, read: Callable[Concatenate[Connection, P], T], *args: P.args, **more: P.kwargs) -> T:
        """The answer of a read that may look at many rows and answers with few: on a thread."""
        self._check()
        answer: T = await self._scans.ask(lambda connection: read(connection, *args, **more))
        return answer

    async def _list(self, read: Callable[[Connection], Iterator[T]]) -> tuple[T, ...]:
        """The answer of a read of very many rows, as of one instant; others go on in between.

        On a thread each row would wait for Python's global lock. The connection is this read's alone: others would
        see the database as it was when the list was begun.
        """
        self._check()
        rows: list[T] = []
        async with self._is_listing:
            iterator = self._lister.read(read)
            try:
                while chunk := self._lister.read(lambda _: list(islice(iterator, ROWS_AT_ONCE))):
                    rows += chunk
                    await anyio.lowlevel.checkpoint()
            finally:
                # An open cursor would keep the instant for the next list.
                self._lister.read(lambda _: iterator.close() if isinstance(iterator, Generator) else None)
        return tuple(rows)

    def _check(self) -> None:
        if self._writes.is_closed:
            raise StoreUnavailable("the store is closed")
        if self.is_broken:
            raise StoreUnavailable(self._writer.database.broken_by)

    # ---- entities ------------------------------------------------------------------------------------------------

    async def load_run(self, run_id: str) -> Run | None:
        """A run."""
        return await self._read(reads.load_run, run_id)

    async def load_job(self, job_id: str) -> tuple[Job, PlannedJob] | None:
        """A job and what a runner is told to do for it."""
        return await self._read(reads.load_job, job_id)

    async def load_plan(self, run_id: str) -> Plan | None:
        """The plan of a run."""
        return await self._read(reads.load_plan, run_id)

    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        """All jobs of a run in the order of its plan."""
        return await self._read(reads.jobs_of_run, run_id)

    async def latest_run(self, key: RunKey) -> Latest | None:
        """The newest run attempt under `key`."""
        return await self._read(reads.latest_run, key)

    async def is_author_approved(self, repo_id: str, author: str) -> bool:
        """Whether a run of this author was ever approved in this repository."""
        return await self._read(reads.is_author_approved, repo_id, author)

    async def list_runs(
        self, *, repo_id: str | None = None, state: RunState | None = None, before: str | None = None, limit: int = 50
    ) -> tuple[RunSummary, ...]:
        """Newest first; `before` is the id of the last run of the previous page."""
        return await self._read(reads.list_runs, repo_id, state, before, limit)

    # ---- recipes -------------------------------------------------------------------------------------------------

    async def blueprint(self, run_id: str) -> Blueprint | None:
        """What the plan of a run was made from."""
        return await self._read(reads.blueprint, run_id)

    async def recipes(self, repo_id: str) -> tuple[Recipe, ...]:
        """The versions that are kept, the newest first."""
        return await self._read(reads.recipes, repo_id)

    async def recipe(self, repo_id: str, version: int) -> Kept | None:
        """A version with what it is made of."""
        return await self._read(reads.recipe, repo_id, version)

    # ---- dispatch, timers, recovery ------------------------------------------------------------------------------

    async def queued_jobs(self) -> tuple[QueuedJob, ...]:
        """All queued jobs, in order of queueing."""
        return await self._list(reads.queued_jobs)

    async def due(self, now_ms: int, limit: int) -> tuple[str, ...]:
        """Ids of runs and jobs whose deadline is at or before `now_ms`, the earliest first."""
        return await self._read(reads.ids, "due", {"now_ms": now_ms, "limit": limit})

    async def held_jobs(self) -> tuple[HeldJob, ...]:
        """Each job with a live lease."""
        return await self._list(reads.held_jobs)

    async def holder_of_group(self, repo_id: str, concurrency: str) -> str | None:
        """The job of this group that has a live lease."""
        found = await self._read(reads.ids, "holder_of_group", (repo_id, concurrency))
        return found[0] if found else None

    async def runs_to_advance(self, limit: int) -> tuple[str, ...]:
        """Live runs that missed a wake-up."""
        return await self._scan(reads.ids, "runs_to_advance", (limit,))

    async def superseded_runs(self, limit: int) -> tuple[tuple[str, str], ...]:
        """(older, newer) for each live run that a newer one of its stream makes superfluous."""
        return await self._scan(reads.pairs, "superseded_runs", (limit,))

    async def live_runs_of_stream(self, repo_id: str, stream: str) -> tuple[str, ...]:
        """Ids of the runs of a stream that have not ended and are not shared, oldest first."""
        return await self._read(reads.ids, "live_runs_of_stream", (repo_id, stream))

    async def live_runs_of_pull_request(self, repo_id: str, number: int) -> tuple[str, ...]:
        """Ids of the runs of a pull request that have not ended, oldest first."""
        return await self._read(reads.ids, "live_runs_of_pull_request", (repo_id, number))

    async def live_runs_of_repo(self, repo_id: str) -> tuple[str, ...]:
        """Ids of all runs of a repository that have not ended, oldest first."""
        return await self._read(reads.ids, "live_runs_of_repo", (repo_id,))

    async def newest_runs_of_commit(self, repo_id: str, commit_sha: str) -> tuple[Run, ...]:
        """The newest run attempt under each key of a commit, oldest first."""
        return await self._read(reads.newest_runs_of_commit, repo_id, commit_sha)

    async def run_before(self, run_id: str) -> Run | None:
        """The newest older run of the same stream that ended by itself."""
        found = await self._read(reads.ids, "run_before", (run_id,))
        return await self.load_run(found[0]) if found else None

    # ---- deliveries, replies, outbox -----------------------------------------------------------------------------

    async def delivery(self, repo_id: str, delivery_id: str) -> Delivery | None:
        """A webhook by its id."""
        return await self._read(reads.delivery, "delivery", repo_id, delivery_id)

    async def delivery_by_digest(self, repo_id: str, body_sha256: str) -> Delivery | None:
        """The first delivery with this content that made or found a run, or asked for something."""
        return await self._read(reads.delivery, "delivery_by_digest", repo_id, body_sha256)

    async def newest_deliveries(
        self, *, repo_id: str | None = None, before: int | None = None, limit: int = 50
    ) -> tuple[NumberedDelivery, ...]:
        """A page of the ledger, newest first."""
        return await self._read(reads.newest_deliveries, repo_id, before, limit)

    async def pull_request(self, repo_id: str, number: int) -> PullRequest | None:
        """A pull request."""
        return next(iter(await self._read(reads.pull_requests, "pull_request", (repo_id, number))), None)

    async def open_pull_requests(self, repo_id: str) -> tuple[PullRequest, ...]:
        """Those that are open as far as we know, by number."""
        return await self._read(reads.pull_requests, "open_pull_requests", (repo_id,))

    async def known_deliveries(self, delivery_ids: Sequence[str]) -> frozenset[str]:
        """Those of `delivery_ids` that are in the ledger."""
        return frozenset(await self._read(reads.ids, "known_deliveries", (json.dumps(delivery_ids),)))

    async def remote_ids(self, repo_id: str, prefix: str) -> dict[str, str]:
        """What the forge calls things of ours, those whose key begins with `prefix`."""
        found = await self._read(reads.pairs, "remote_ids", (repo_id, prefix, f"{prefix}\U0010ffff"))
        return {key.removeprefix(prefix): remote_id for key, remote_id in found}

    async def remote_id(self, repo_id: str, key: str) -> str | None:
        """What the forge calls something of ours."""
        return await self._read(reads.remote_id, repo_id, key)

    async def reply(self, key: str) -> Reply | None:
        """The answer given to an idempotent request."""
        return await self._read(reads.reply, key)

    async def owed(self, kind: type[Effect], now_ms: int, limit: int) -> tuple[Owed, ...]:
        """Effects of `kind` due at or before `now_ms` that are not refused, the earliest due first."""
        return await self._read(reads.owed, "owed", (kind.__name__, now_ms, limit))

    async def next_owed_at_ms(self) -> int | None:
        """When the next effect that is not refused becomes due."""
        return await self._read(reads.next_owed_at_ms)

    async def debt(self, key: str) -> Owed | None:
        """What is owed under a key, refused or not."""
        return next(iter(await self._read(reads.owed, "debt", (key,))), None)

    # ---- journal -------------------------------------------------------------------------------------------------

    async def events_of_run(self, run_id: str, *, after_id: int = 0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """State events and audit records of a run and its jobs, in order."""
        return await self._read(reads.events_of_run, run_id, after_id, limit)

    async def journal(self, *, after_id: int = 0) -> AsyncIterator[JournalEntry]:
        """Every entry after `after_id`, read in pages."""
        last_id = after_id
        while page := await self._read(reads.journal, last_id, ROWS_AT_ONCE):
            for entry in page:
                yield entry
            last_id = page[-1].id

    async def newest_at_ms(self) -> int:
        """The newest instant among the last entries of the journal; 0 when it is empty."""
        return await self._read(reads.newest_at_ms)

    # ---- logs, artifacts, results --------------------------------------------------------------------------------

    async def log_state(self, job_id: str, attempt: int) -> LogState:
        """How far an attempt's log is stored."""
        return await self._read(reads.log_state, job_id, attempt)

    async def read_log(self, job_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`; a negative offset counts from the end."""
        return await self._read(reads.read_log, job_id, attempt, offset, limit)

    async def artifacts_of_run(self, run_id: str) -> tuple[ArtifactStored, ...]:
        """Artifacts of a run's jobs."""
        return await self._read(reads.artifacts_of_run, run_id)

    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]:
        """Explanations of a run's attempts."""
        return await self._read(reads.explanations_of_run, run_id)

    async def reported(self, run_id: str) -> dict[str, str]:
        """Digest last reported by check."""
        return await self._read(reads.reported, run_id)

    # ---- repositories, tokens, runners, counts -------------------------------------------------------------------

    async def repos(self) -> tuple[Repo, ...]:
        """All repositories by name."""
        return await self._read(reads.repos)

    async def load_repo(self, repo_id: str) -> Repo | None:
        """A repository."""
        return await self._read(reads.load_repo, repo_id)

    async def token(self, token_hash: str) -> Token | None:
        """A token by its hash."""
        return await self._read(reads.token, token_hash)

    async def runner(self, runner_id: str) -> Runner | None:
        """A runner."""
        return next(iter(await self._read(reads.runners, "runner", (runner_id,))), None)

    async def runner_by_name(self, token_id: str, name: str) -> Runner | None:
        """The runner of a token that has this name."""
        return next(iter(await self._read(reads.runners, "runner_by_name", (token_id, name))), None)

    async def runners(self) -> tuple[Runner, ...]:
        """All runners by name."""
        return await self._read(reads.runners, "runners")

    # ---- for checks ----------------------------------------------------------------------------------------------

    async def run_ids(self, *, after: str = "", limit: int = 1000) -> tuple[str, ...]:
        """Ids of all runs in order, those after `after`."""
        return await self._read(reads.ids, "run_ids", (after, limit))

    async def rows_of_run(self, run_id: str) -> Rows | None:
        """Everything stored of a run, as of one instant."""
        return await self._read(rows.rows_of_run, run_id)

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """The whole ledger of webhooks in order of arrival, read in pages."""
        after = 0
        while True:
            page, after = await self._read(reads.page_of_deliveries, after, ROWS_AT_ONCE)
            if not page:
                return
            for delivery in page:
                yield delivery

    async def outbox(self) -> tuple[Owed, ...]:
        """Everything owed, what was refused included, in order of owing."""
        return await self._read(reads.owed, "outbox")

    async def counts(self) -> dict[str, dict[str, int]]:
        """Row counts by table and state."""
        return await self._scan(reads.counts)


async def _scan(engine: Engine, batch: Sequence[Scan]) -> Sequence[Any]:
    return await engine.run(partial(_answers, engine.database, batch))


def _answers(database: Database, batch: Sequence[Scan]) -> list[Any]:
    answers: list[Any] = []
    for scan in batch:
        try:
            answers.append(database.read(scan))
        except StoreError as error:
            answers.append(error)
    return answers


async def _close(engine: Engine) -> None:
    # Shielded: a connection that stays open keeps its thread, and the process with it.
    with anyio.CancelScope(shield=True):
        await engine.close()
