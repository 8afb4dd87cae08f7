"""The store in memory: what the SQLite store does, in dictionaries. For tests and for trying things out.

Rule: the same errors, and nothing of a failed commit stays; every change notes how to undo it.
"""

from collections import Counter
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from typing import Any, TypeVar, assert_never

import anyio.lowlevel

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.blueprint import Blueprint
from deltaci.domain.effects import AnalyzeAttempt, Effect
from deltaci.domain.errors import StoreUnavailable
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob, digest
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.recipe import Kept, Recipe
from deltaci.domain.repo import Latest, Repo, is_reported
from deltaci.domain.run import Run
from deltaci.domain.states import JobState, RunState
from deltaci.domain.trust import approved_author
from deltaci.store.journal import GENESIS, Draft, Row, chained, draft_of_audit, drafts_of_events, entry_of
from deltaci.store.memory_forges import MemoryForges
from deltaci.store.memory_logs import MemoryLogs
from deltaci.store.memory_outbox import MemoryOutbox
from deltaci.store.memory_recipes import MemoryRecipes
from deltaci.store.memory_registry import MemoryRegistry
from deltaci.store.memory_rows import (
    drafts_of_job,
    is_of_stream,
    is_to_advance,
    job_row,
    newest_attempts,
    run_keys,
    run_row,
)
from deltaci.store.port import HeldJob, JournalEntry, LogState, NumberedDelivery, Owed, QueuedJob, Rows, RunSummary
from deltaci.store.rules import check, position_of, refused
from deltaci.store.writes import (
    AddJob,
    ArtifactStored,
    Audit,
    ChangeRepo,
    Delivery,
    DeliveryActed,
    DropBlueprint,
    Explanation,
    Hasten,
    LogChunk,
    Owe,
    Postpone,
    Reply,
    Reported,
    Runner,
    SaveBlueprint,
    SaveJob,
    SavePlan,
    SavePullRequest,
    SaveRecipe,
    SaveRemoteId,
    SaveRepo,
    SaveRun,
    Settle,
    Token,
    Write,
)

K = TypeVar("K")
V = TypeVar("V")

_HELD = (JobState.RUNNING, JobState.CANCEL_REQUESTED)


class MemoryStore:
    """A store that forgets everything with the process."""

    def __init__(self) -> None:
        self._runs: dict[str, Run] = {}
        self._run_keys: dict[tuple[RunKey, int], str] = {}
        self._plans: dict[str, Plan] = {}
        self._jobs: dict[str, tuple[Job, PlannedJob]] = {}
        self._jobs_of_run: dict[str, tuple[str, ...]] = {}
        self._needs: dict[str, tuple[str, ...]] = {}
        self._replies: dict[str, Reply] = {}
        self._artifacts: dict[tuple[str, int, str], ArtifactStored] = {}
        self._explanations: dict[tuple[str, int], Explanation] = {}
        self._reported: dict[tuple[str, str], str] = {}
        self._recipes = MemoryRecipes(self._put, self._take)
        self._forges = MemoryForges(self._put)
        self._outbox = MemoryOutbox(self._put, self._take)
        self._registry = MemoryRegistry(self._put)
        self._logs = MemoryLogs(self._put)
        self._journal: list[Row] = []
        self._undo: list[Callable[[], Any]] = []
        self.is_broken = False

    # ---- writing -------------------------------------------------------------------------------------------------

    async def commit(self, writes: Sequence[Write]) -> None:
        """Apply all `writes` or none. Raises what each write's docstring says."""
        for write in writes:
            check(write)
        await self._beat()
        self._undo = []
        drafts: list[Draft] = []
        try:
            for write in writes:
                drafts += self._apply(write)
            tail = self._journal[-1] if self._journal else None
            rows = list(chained(drafts, last_id=tail.id if tail else 0, last_hash=tail.hash if tail else GENESIS))
        except BaseException:
            for undo in reversed(self._undo):
                undo()
            raise
        self._journal += rows

    def _put(self, table: MutableMapping[K, V], key: K, value: V) -> None:
        if key in table:
            old = table[key]
            self._undo.append(lambda: table.update({key: old}))
        else:
            self._undo.append(lambda: table.pop(key))
        table[key] = value

    def _take(self, table: MutableMapping[K, V], key: K) -> None:
        old = table.pop(key)
        self._undo.append(lambda: table.update({key: old}))

    def _insert(self, table: MutableMapping[K, V], key: K, value: V, write: Write) -> None:
        if key in table:
            raise refused(write)
        self._put(table, key, value)

    def _apply(self, write: Write) -> list[Draft]:  # noqa: C901 - one case a kind of write, nothing else
        match write:
            case SaveRun():
                return self._save_run(write)
            case SaveJob():
                stored = self._jobs.get(write.job.id)
                if stored is None or stored[0].revision != write.expected_revision or self._is_kept_out(write):
                    raise refused(write)
                self._put(self._jobs, write.job.id, (write.job, stored[1]))
                return drafts_of_job(write, write.expected_revision + 1)
            case AddJob():
                return self._add_job(write)
            case SavePlan():
                self._insert(self._plans, write.run_id, write.plan, write)
            case SaveBlueprint() | DropBlueprint() | SaveRecipe():
                self._recipes.apply(write)
            case Owe() | Settle() | Postpone() | Hasten():
                self._outbox.apply(write)
            case Delivery() | DeliveryActed() | SavePullRequest() | SaveRemoteId():
                self._forges.apply(write)
            case Reply():
                self._insert(self._replies, write.key, write, write)
            case LogChunk():
                self._logs.append(write)
            case Audit():
                return [draft_of_audit(write)]
            case SaveRepo() | ChangeRepo() | Token() | Runner():
                self._registry.apply(write)
            case Explanation():
                self._put(self._explanations, (write.job_id, write.attempt), write)
            case Reported():
                self._put(self._reported, (write.run_id, write.check), write.digest)
            case ArtifactStored():
                self._insert(self._artifacts, (write.job_id, write.attempt, write.name), write, write)
            case _:
                assert_never(write)
        return []

    def _save_run(self, write: SaveRun) -> list[Draft]:
        run = write.run
        stored = self._runs.get(run.id)
        if write.expected_revision == 0:
            if stored is not None:
                raise refused(write)
            self._insert(self._run_keys, (run.key, run.attempt), run.id, write)
        elif stored is None or stored.revision != write.expected_revision:
            raise refused(write)
        self._put(self._runs, run.id, run)
        return drafts_of_events(run.id, run.id, write.expected_revision + 1, write.events, write.cause)

    def _add_job(self, write: AddJob) -> list[Draft]:
        job = write.job
        self._insert(self._jobs, job.id, (job, write.planned), write)
        siblings = (*self._jobs_of_run.get(job.run_id, ()), job.id)
        self._put(self._jobs_of_run, job.run_id, tuple(sorted(siblings, key=position_of)))
        self._put(self._needs, job.id, write.needs)
        return drafts_of_job(write, 1)

    def _is_kept_out(self, write: SaveJob) -> bool:
        if not write.is_grant:
            return False
        run, job = self._runs.get(write.job.run_id), write.job
        is_canceled = run is not None and run.state is RunState.CANCEL_REQUESTED
        return is_canceled or self._holder(job.repo_id, job.concurrency) is not None

    def _holder(self, repo_id: str, concurrency: str) -> str | None:
        held = (job for job, _ in self._jobs.values() if concurrency and job.state in _HELD)
        return next((job.id for job in held if (job.repo_id, job.concurrency) == (repo_id, concurrency)), None)

    async def _beat(self) -> None:
        """Let others run, as a store that goes to disk does."""
        await anyio.lowlevel.checkpoint()
        if self.is_broken:
            raise StoreUnavailable("the store is broken")

    # ---- entities ------------------------------------------------------------------------------------------------

    async def load_run(self, run_id: str) -> Run | None:
        """A run."""
        await self._beat()
        return self._runs.get(run_id)

    async def load_job(self, job_id: str) -> tuple[Job, PlannedJob] | None:
        """A job and what a runner is told to do for it."""
        await self._beat()
        return self._jobs.get(job_id)

    async def load_plan(self, run_id: str) -> Plan | None:
        """The plan of a run."""
        await self._beat()
        return self._plans.get(run_id)

    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        """All jobs of a run in the order of its plan."""
        await self._beat()
        return self._jobs_in(run_id)

    async def latest_run(self, key: RunKey) -> Latest | None:
        """The newest run attempt under `key`."""
        await self._beat()
        attempts = [run for run in self._runs.values() if run.key == key]
        if not attempts:
            return None
        run = max(attempts, key=lambda run: run.attempt)
        return Latest(run.id, run.attempt, run.state, run.end_reason, run.cancel.reason if run.cancel else None)

    async def is_author_approved(self, repo_id: str, author: str) -> bool:
        """Whether a run of this author was ever approved in this repository."""
        await self._beat()
        return any(author == approved_author(run) != "" for run in self._runs.values() if run.key.repo_id == repo_id)

    async def list_runs(
        self, *, repo_id: str | None = None, state: RunState | None = None, before: str | None = None, limit: int = 50
    ) -> tuple[RunSummary, ...]:
        """Newest first; `before` is the id of the last run of the previous page."""
        await self._beat()
        wanted = [
            run
            for run in self._runs.values()
            if (repo_id is None or run.key.repo_id == repo_id)
            and (state is None or run.state is state)
            and (before is None or run.id < before)
        ]
        wanted.sort(key=lambda run: run.id, reverse=True)
        return tuple(RunSummary(run=run, repo_name=self._registry.name_of(run.key.repo_id)) for run in wanted[:limit])

    # ---- recipes -------------------------------------------------------------------------------------------------

    async def blueprint(self, run_id: str) -> Blueprint | None:
        """What the plan of a run was made from."""
        await self._beat()
        return self._recipes.blueprint(run_id)

    async def recipes(self, repo_id: str) -> tuple[Recipe, ...]:
        """The versions that are kept, the newest first."""
        await self._beat()
        return self._recipes.of_repo(repo_id)

    async def recipe(self, repo_id: str, version: int) -> Kept | None:
        """A version with what it is made of."""
        await self._beat()
        return self._recipes.one(repo_id, version)

    # ---- dispatch, timers, recovery ------------------------------------------------------------------------------

    async def queued_jobs(self) -> tuple[QueuedJob, ...]:
        """All queued jobs, in order of queueing."""
        await self._beat()
        queued = [job for job, _ in self._jobs.values() if job.state is JobState.QUEUED]
        queued.sort(key=lambda job: (job.attempts[-1].queued_at_ms, job.run_id, position_of(job.id)))
        return tuple(QueuedJob.of(job) for job in queued)

    async def due(self, now_ms: int, limit: int) -> tuple[str, ...]:
        """Ids of runs and jobs whose deadline is at or before `now_ms`, the earliest first."""
        await self._beat()
        deadlines = [(runs.deadline_ms(run), run.id) for run in self._runs.values()]
        deadlines += [(jobs.deadline_ms(job), job.id) for job, _ in self._jobs.values()]
        due = sorted((at_ms, entity_id) for at_ms, entity_id in deadlines if at_ms is not None and at_ms <= now_ms)
        return tuple(entity_id for _, entity_id in due[:limit])

    async def held_jobs(self) -> tuple[HeldJob, ...]:
        """Each job with a live lease."""
        await self._beat()
        held = (job for job, _ in self._jobs.values() if job.state in _HELD)
        return tuple(sorted(HeldJob(job.id, job.repo_id, job.concurrency) for job in held))

    async def holder_of_group(self, repo_id: str, concurrency: str) -> str | None:
        """The job of this group that has a live lease."""
        await self._beat()
        return self._holder(repo_id, concurrency)

    async def runs_to_advance(self, limit: int) -> tuple[str, ...]:
        """Live runs that missed a wake-up."""
        await self._beat()
        return tuple(
            sorted(run.id for run in self._live_runs() if is_to_advance(run, self._jobs_in(run.id), self._needs))[
                :limit
            ]
        )

    async def superseded_runs(self, limit: int) -> tuple[tuple[str, str], ...]:
        """(older, newer) for each live run that a newer one of its stream makes superfluous."""
        await self._beat()
        pairs, shared = [], self._shared_runs()
        for run in self._live_runs():
            repo = self._registry.repo(run.key.repo_id)
            if repo is None or not repo.is_superseding or run.state is RunState.CANCEL_REQUESTED:
                continue
            if run.id in shared and run.key.pr_number is None:
                continue
            newer = [other.id for other in self._runs.values() if is_of_stream(other, run) and other.id > run.id]
            if newer:
                pairs.append((run.id, max(newer)))
        return tuple(sorted(pairs)[:limit])

    async def live_runs_of_stream(self, repo_id: str, stream: str) -> tuple[str, ...]:
        """Ids of the runs of a stream that have not ended and are not shared, oldest first."""
        await self._beat()
        shared = self._shared_runs()
        live = (run for run in self._live_runs() if run.key.repo_id == repo_id and run.trigger.stream == stream)
        return tuple(sorted(run.id for run in live if run.id not in shared or run.key.pr_number is not None))

    async def live_runs_of_pull_request(self, repo_id: str, number: int) -> tuple[str, ...]:
        """Ids of the runs of a pull request that have not ended, oldest first."""
        await self._beat()
        live = (run for run in self._live_runs() if (run.key.repo_id, run.key.pr_number) == (repo_id, number))
        return tuple(sorted(run.id for run in live))

    async def live_runs_of_repo(self, repo_id: str) -> tuple[str, ...]:
        """Ids of all runs of a repository that have not ended, oldest first."""
        await self._beat()
        return tuple(sorted(run.id for run in self._live_runs() if run.key.repo_id == repo_id))

    async def newest_runs_of_commit(self, repo_id: str, commit_sha: str) -> tuple[Run, ...]:
        """The newest run attempt under each key of a commit, oldest first."""
        await self._beat()
        return newest_attempts(
            run for run in self._runs.values() if (run.key.repo_id, run.key.commit_sha) == (repo_id, commit_sha)
        )

    async def run_before(self, run_id: str) -> Run | None:
        """The newest older run of the same stream that ended by itself."""
        await self._beat()
        run = self._runs.get(run_id)
        if run is None:
            return None
        older = (one for one in self._runs.values() if is_of_stream(run, one) and one.id < run_id)
        ended = [one for one in older if one.state in (RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT)]
        return max(ended, key=lambda one: one.id, default=None)

    def _shared_runs(self) -> set[str | None]:
        return {one.run_id for one in self._forges.all() if one.is_duplicate}

    # ---- deliveries, replies, outbox -----------------------------------------------------------------------------

    async def delivery(self, repo_id: str, delivery_id: str) -> Delivery | None:
        """A webhook by its id."""
        await self._beat()
        return self._forges.delivery(repo_id, delivery_id)

    async def delivery_by_digest(self, repo_id: str, body_sha256: str) -> Delivery | None:
        """The first delivery with this content that made or found a run, or asked for something."""
        await self._beat()
        return self._forges.by_digest(repo_id, body_sha256)

    async def newest_deliveries(
        self, *, repo_id: str | None = None, before: int | None = None, limit: int = 50
    ) -> tuple[NumberedDelivery, ...]:
        """A page of the ledger, newest first."""
        await self._beat()
        return self._forges.newest(repo_id, before, limit)

    async def pull_request(self, repo_id: str, number: int) -> PullRequest | None:
        """A pull request."""
        await self._beat()
        return self._forges.pull_request(repo_id, number)

    async def open_pull_requests(self, repo_id: str) -> tuple[PullRequest, ...]:
        """Those that are open as far as we know, by number."""
        await self._beat()
        return self._forges.open_pull_requests(repo_id)

    async def known_deliveries(self, delivery_ids: Sequence[str]) -> frozenset[str]:
        """Those of `delivery_ids` that are in the ledger."""
        await self._beat()
        return self._forges.known(delivery_ids)

    async def remote_ids(self, repo_id: str, prefix: str) -> dict[str, str]:
        """What the forge calls things of ours, those whose key begins with `prefix`."""
        await self._beat()
        return self._forges.remote_ids(repo_id, prefix)

    async def remote_id(self, repo_id: str, key: str) -> str | None:
        """What the forge calls something of ours."""
        await self._beat()
        return self._forges.remote_id(repo_id, key)

    async def reply(self, key: str) -> Reply | None:
        """The answer given to an idempotent request."""
        await self._beat()
        return self._replies.get(key)

    async def owed(self, kind: type[Effect], now_ms: int, limit: int) -> tuple[Owed, ...]:
        """Effects of `kind` due at or before `now_ms` that are not refused, the earliest due first."""
        await self._beat()
        return self._outbox.due(kind, now_ms, limit)

    async def next_owed_at_ms(self) -> int | None:
        """When the next effect that is not refused becomes due."""
        await self._beat()
        return self._outbox.next_at_ms()

    async def debt(self, key: str) -> Owed | None:
        """What is owed under a key, refused or not."""
        await self._beat()
        return self._outbox.debt(key)

    # ---- journal -------------------------------------------------------------------------------------------------

    async def events_of_run(self, run_id: str, *, after_id: int = 0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """State events and audit records of a run and its jobs, in order."""
        await self._beat()
        rows = [row for row in self._journal[after_id:] if row.run_id == run_id and run_id]
        return tuple(entry_of(row) for row in rows[:limit])

    async def journal(self, *, after_id: int = 0) -> AsyncIterator[JournalEntry]:
        """Every entry after `after_id`."""
        await self._beat()
        for row in self._journal[after_id:]:
            yield entry_of(row)

    async def newest_at_ms(self) -> int:
        """The newest instant of the journal; 0 when it is empty."""
        await self._beat()
        return max((row.at_ms for row in self._journal), default=0)

    # ---- logs, artifacts, results --------------------------------------------------------------------------------

    async def log_state(self, job_id: str, attempt: int) -> LogState:
        """How far an attempt's log is stored."""
        await self._beat()
        return self._logs.state(job_id, attempt)

    async def read_log(self, job_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`; a negative offset counts from the end."""
        await self._beat()
        data = self._logs.data(job_id, attempt)
        if offset < 0:
            offset = max(0, len(data) + offset)
        return data[offset : offset + max(0, limit)]

    async def artifacts_of_run(self, run_id: str) -> tuple[ArtifactStored, ...]:
        """Artifacts of a run's jobs."""
        await self._beat()
        return tuple(
            self._artifacts[key]
            for job in self._jobs_in(run_id)
            for key in sorted(key for key in self._artifacts if key[0] == job.id)
        )

    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]:
        """Explanations of a run's attempts."""
        await self._beat()
        return tuple(
            self._explanations[key]
            for job in self._jobs_in(run_id)
            for key in sorted(key for key in self._explanations if key[0] == job.id)
        )

    async def reported(self, run_id: str) -> dict[str, str]:
        """Digest last reported by check."""
        await self._beat()
        return {check: digest for (run, check), digest in sorted(self._reported.items()) if run == run_id}

    # ---- repositories, tokens, runners, counts -------------------------------------------------------------------

    async def repos(self) -> tuple[Repo, ...]:
        """All repositories by name."""
        await self._beat()
        return self._registry.repos()

    async def load_repo(self, repo_id: str) -> Repo | None:
        """A repository."""
        await self._beat()
        return self._registry.repo(repo_id)

    async def token(self, token_hash: str) -> Token | None:
        """A token by its hash."""
        await self._beat()
        return self._registry.token(token_hash)

    async def runner(self, runner_id: str) -> Runner | None:
        """A runner."""
        await self._beat()
        return self._registry.runner(runner_id)

    async def runner_by_name(self, token_id: str, name: str) -> Runner | None:
        """The runner of a token that has this name."""
        await self._beat()
        return self._registry.runner_by_name(token_id, name)

    async def runners(self) -> tuple[Runner, ...]:
        """All runners by name."""
        await self._beat()
        return self._registry.runners()

    # ---- for checks ----------------------------------------------------------------------------------------------

    async def run_ids(self, *, after: str = "", limit: int = 1000) -> tuple[str, ...]:
        """Ids of all runs in order, those after `after`."""
        await self._beat()
        return tuple(sorted(run_id for run_id in self._runs if run_id > after)[:limit])

    async def rows_of_run(self, run_id: str) -> Rows | None:
        """Everything stored of a run, as of one instant. Columns are made as they are asked for."""
        await self._beat()
        run = self._runs.get(run_id)
        if run is None:
            return None
        job_ids = self._jobs_of_run.get(run_id, ())
        plan, repo = self._plans.get(run_id), self._registry.repo(run.key.repo_id)
        own_keys = run_keys(run_id)
        return Rows(
            journal_id=len(self._journal),
            run=run_row(run),
            jobs=tuple(job_row(*self._jobs[job_id], self._needs[job_id]) for job_id in job_ids),
            plan=plan,
            plan_digest="" if plan is None else digest(plan),
            deliveries=tuple(one for one in self._forges.all() if one.run_id == run_id),
            owed=tuple(
                owed
                for owed in self._outbox.all()
                if owed.effect.key in own_keys
                or (isinstance(owed.effect, AnalyzeAttempt) and owed.effect.job_id in job_ids)
            ),
            explanations=tuple(one for key, one in sorted(self._explanations.items()) if key[0] in job_ids),
            reported={check: told for (run, check), told in sorted(self._reported.items()) if run == run_id},
            logs=self._logs.rows(job_ids),
            is_reported=repo is not None and is_reported(repo),
            has_blueprint=self._recipes.blueprint(run_id) is not None,
        )

    async def deliveries(self) -> AsyncIterator[Delivery]:
        """The whole ledger of webhooks in order of arrival."""
        await self._beat()
        for delivery in self._forges.all():
            yield delivery

    async def outbox(self) -> tuple[Owed, ...]:
        """Everything owed, what was refused included, in order of owing."""
        await self._beat()
        return self._outbox.all()

    async def counts(self) -> dict[str, dict[str, int]]:
        """Row counts by table and state."""
        await self._beat()
        owed = self._outbox.all()
        refused_count = sum(one.is_refused for one in owed)
        return {
            "run": dict(Counter(run.state.value for run in self._runs.values())),
            "job": dict(Counter(job.state.value for job, _ in self._jobs.values())),
            "outbox": {"owed": len(owed) - refused_count, "refused": refused_count},
            "journal": {"entries": len(self._journal)},
        }

    # ---- looking things up ---------------------------------------------------------------------------------------

    def _live_runs(self) -> list[Run]:
        return [run for run in self._runs.values() if not run.state.is_final]

    def _jobs_in(self, run_id: str) -> tuple[Job, ...]:
        return tuple(self._jobs[job_id][0] for job_id in self._jobs_of_run.get(run_id, ()))
