"""The store port: everything durable goes through it.

Rule 1: a commit is data, a sequence of writes, so that a backend may put many commits into one transaction. Each commit
        is all or nothing and is answered by itself, after it is on disk.
Rule 2: a write to an entity is conditional on its revision; one with a lost race fails alone with `RevisionConflict`.
Rule 3: after any `StoreError` it is unknown what was stored: drop your state and load again.
"""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol

import msgspec

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.effects import Effect
from deltaci.domain.events import Cause, RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.recipe import Kept, Recipe
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.domain.states import RunState
from deltaci.store.writes import ArtifactStored, Delivery, Explanation, Reply, Runner, Token, Write

# ---- what reads answer -------------------------------------------------------------------------------------------


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    pass


class QueuedJob(_Row, frozen=True, kw_only=True):
    """What dispatch needs to know of a queued job."""

    job_id: str
    repo_id: str
    labels: tuple[str, ...]
    priority: int
    queued_at_ms: int
    not_before_ms: int
    concurrency: str = ""

    @classmethod
    def of(cls, job: Job) -> "QueuedJob":
        """The same of a job in state QUEUED."""
        queued = job.attempts[-1]
        return cls(
            job_id=job.id,
            repo_id=job.repo_id,
            labels=job.labels,
            priority=job.priority,
            queued_at_ms=queued.queued_at_ms,
            not_before_ms=queued.not_before_ms,
            concurrency=job.concurrency,
        )


class HeldJob(NamedTuple):
    """What dispatch needs to know of a job with a live lease. `concurrency` is its group, empty for none."""

    job_id: str
    repo_id: str
    concurrency: str = ""


class Owed(_Row, frozen=True, kw_only=True):
    """An outbox row."""

    effect: Effect
    generation: int
    due_at_ms: int
    tries: int
    error: str = ""
    is_refused: bool = False


class NumberedDelivery(_Row, frozen=True, kw_only=True):
    """A delivery and its place in the ledger, in order of arrival."""

    number: int
    delivery: Delivery


class JournalEntry(_Row, frozen=True, kw_only=True):
    """A row of the journal: a state event (with `sequence`) or an audit record (without). `id` is the order of all.

    `hash` is the SHA-256, hex, over the previous entry's hash and this row's fields.
    """

    id: int
    entity_id: str
    run_id: str
    sequence: int | None
    type: str
    at_ms: int
    cause: Cause
    data: bytes
    hash: str


class RunSummary(_Row, frozen=True, kw_only=True):
    """A run for lists."""

    run: Run
    repo_name: str


class LogState(_Row, frozen=True, kw_only=True):
    """How far an attempt's log is stored."""

    size: int = 0
    is_final: bool = False
    crc32: int | None = None


# ---- everything stored of a run, for checks --------------------------------------------------------------------


class Columns(_Row, frozen=True, kw_only=True):
    """What stands beside a snapshot, derived from it on every save.

    `queued_at_ms` and `concurrency` are a job's alone, `approved_author` is a run's: see `is_author_approved`.
    """

    state: str
    revision: int
    due_at_ms: int | None
    queued_at_ms: int | None = None
    concurrency: str = ""
    approved_author: str = ""


class RunRow(_Row, frozen=True, kw_only=True):
    """A run, and what its row says of it besides."""

    run: Run
    columns: Columns
    key: RunKey
    attempt: int
    stream: str


class JobRow(_Row, frozen=True, kw_only=True):
    """A job, what its row says of it besides, what a runner is told to do for it, and whom it waits for."""

    job: Job
    columns: Columns
    planned: PlannedJob | None
    needs: tuple[str, ...]


class LogRow(_Row, frozen=True, kw_only=True):
    """The log of an attempt: how far it is stored, and (start, length) of each chunk in order."""

    job_id: str
    attempt: int
    state: LogState
    chunks: tuple[tuple[int, int], ...]


class Rows(_Row, frozen=True, kw_only=True):
    """Everything stored of one run and its jobs at one instant: when `journal_id` was the journal's last entry.

    `jobs` in the order of the plan. `deliveries`: the webhook that made the run, and those that found it.
    `is_reported`: whether the results of its repository are told to a forge. `has_blueprint`: whether what its plan
    was made from is still kept.
    """

    journal_id: int
    run: RunRow
    jobs: tuple[JobRow, ...]
    plan: Plan | None
    plan_digest: str
    deliveries: tuple[Delivery, ...]
    owed: tuple[Owed, ...]
    explanations: tuple[Explanation, ...]
    reported: dict[str, str]
    logs: tuple[LogRow, ...]
    is_reported: bool
    has_blueprint: bool = False


class Store(Protocol):
    """Everything durable. All methods raise `StoreUnavailable` when the backend does not answer."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """Apply all `writes` or none; return once they are on disk. Raises what each write's docstring says."""
        ...

    # entities: `None` when there is no such row
    async def load_run(self, run_id: str) -> Run | None: ...
    async def load_job(self, job_id: str) -> tuple[Job, PlannedJob] | None: ...
    async def load_plan(self, run_id: str) -> Plan | None: ...
    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        """All jobs of a run in the order of its plan."""
        ...

    async def latest_run(self, key: RunKey) -> Latest | None:
        """The newest run attempt under `key`."""
        ...

    async def is_author_approved(self, repo_id: str, author: str) -> bool:
        """Whether a run of this author was ever approved in this repository; never for an empty name."""
        ...

    async def list_runs(
        self, *, repo_id: str | None = None, state: RunState | None = None, before: str | None = None, limit: int = 50
    ) -> tuple[RunSummary, ...]:
        """Newest first; `before` is the id of the last run of the previous page."""
        ...

    # recipes
    async def blueprint(self, run_id: str) -> Blueprint | None:
        """What the plan of a run was made from; None once its end was told to the recipes."""
        ...

    async def recipes(self, repo_id: str) -> tuple[Recipe, ...]:
        """The versions that are kept, the newest first."""
        ...

    async def recipe(self, repo_id: str, version: int) -> Kept | None: ...

    # dispatch, timers, recovery
    async def queued_jobs(self) -> tuple[QueuedJob, ...]:
        """All queued jobs, in order of queueing."""
        ...

    async def due(self, now_ms: int, limit: int) -> tuple[str, ...]:
        """Ids of runs and jobs whose deadline is at or before `now_ms`, the earliest first."""
        ...

    async def held_jobs(self) -> tuple[HeldJob, ...]:
        """Each job with a live lease: RUNNING or CANCEL_REQUESTED."""
        ...

    async def holder_of_group(self, repo_id: str, concurrency: str) -> str | None:
        """The id of the job of this concurrency group that has a live lease."""
        ...

    async def runs_to_advance(self, limit: int) -> tuple[str, ...]:
        """Live runs that missed a wake-up: all jobs final; a blocked job whose needs are all final; a job that moved
        while the run is still QUEUED; CANCEL_REQUESTED with a job that is neither final nor CANCEL_REQUESTED."""
        ...

    async def superseded_runs(self, limit: int) -> tuple[tuple[str, str], ...]:
        """(older, newest) for each run of a superseding repository that is live, has no cancel requested, and has a
        newer run of the same non-empty trigger stream. Newer: created later (ids sort by time). Shared runs, which
        another delivery found as well, are left out: their commit may be the head of a second branch. Those of a pull
        request are not shared with anything else."""
        ...

    async def live_runs_of_stream(self, repo_id: str, stream: str) -> tuple[str, ...]:
        """Ids of the runs of a stream that have not ended and are not shared, oldest first."""
        ...

    async def live_runs_of_pull_request(self, repo_id: str, number: int) -> tuple[str, ...]:
        """Ids of the runs of a pull request that have not ended, oldest first, of whatever stream."""
        ...

    async def live_runs_of_repo(self, repo_id: str) -> tuple[str, ...]:
        """Ids of all runs of a repository that have not ended, oldest first."""
        ...

    async def newest_runs_of_commit(self, repo_id: str, commit_sha: str) -> tuple[Run, ...]:
        """The newest run attempt under each key of a commit, oldest first."""
        ...

    async def run_before(self, run_id: str) -> Run | None:
        """The newest run of the same non-empty stream that was created before `run_id` and has told whether the
        stream is sound: it succeeded, failed or timed out."""
        ...

    # deliveries and idempotent requests
    async def delivery(self, repo_id: str, delivery_id: str) -> Delivery | None: ...
    async def delivery_by_digest(self, repo_id: str, body_sha256: str) -> Delivery | None:
        """The first delivery with this content that made or found a run, or asked for something."""
        ...

    async def newest_deliveries(
        self, *, repo_id: str | None = None, before: int | None = None, limit: int = 50
    ) -> tuple[NumberedDelivery, ...]:
        """A page of the ledger, newest first; `before` is the number of the last one of the previous page."""
        ...

    async def reply(self, key: str) -> Reply | None: ...

    # pull requests, and what forges call what is ours
    async def pull_request(self, repo_id: str, number: int) -> PullRequest | None: ...
    async def open_pull_requests(self, repo_id: str) -> tuple[PullRequest, ...]:
        """Those that are open as far as we know, by number."""
        ...

    async def known_deliveries(self, delivery_ids: Sequence[str]) -> frozenset[str]:
        """Those of `delivery_ids` that are in the ledger, of whatever repository."""
        ...

    async def remote_ids(self, repo_id: str, prefix: str) -> dict[str, str]:
        """All that are stored under keys that begin with `prefix`, without it; those that are empty are left out."""
        ...

    async def remote_id(self, repo_id: str, key: str) -> str | None:
        """See `SaveRemoteId`."""
        ...

    # outbox
    async def owed(self, kind: type[Effect], now_ms: int, limit: int) -> tuple[Owed, ...]:
        """Effects of `kind` due at or before `now_ms` that are not refused, the earliest due first."""
        ...

    async def next_owed_at_ms(self) -> int | None:
        """When the next effect that is not refused becomes due."""
        ...

    async def debt(self, key: str) -> Owed | None:
        """What is owed under a key, refused or not; None if it was delivered or never owed."""
        ...

    # journal
    async def events_of_run(self, run_id: str, *, after_id: int = 0, limit: int = 1000) -> tuple[JournalEntry, ...]:
        """State events and audit records of a run and its jobs, in order."""
        ...

    def journal(self, *, after_id: int = 0) -> AsyncIterator[JournalEntry]:
        """Every entry after `after_id`, by default from the first on, read in pages."""
        ...

    async def newest_at_ms(self) -> int:
        """The newest instant among the last entries of the journal; 0 when it is empty."""
        ...

    # logs, artifacts, results
    async def log_state(self, job_id: str, attempt: int) -> LogState: ...
    async def read_log(self, job_id: str, attempt: int, *, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset`; a negative offset counts from the end."""
        ...

    async def artifacts_of_run(self, run_id: str) -> tuple[ArtifactStored, ...]: ...
    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]: ...
    async def reported(self, run_id: str) -> dict[str, str]:
        """Digest last reported by check."""
        ...

    # repositories, tokens, runners
    async def repos(self) -> tuple[Repo, ...]: ...
    async def load_repo(self, repo_id: str) -> Repo | None: ...
    async def token(self, token_hash: str) -> Token | None: ...
    async def runner(self, runner_id: str) -> Runner | None: ...
    async def runner_by_name(self, token_id: str, name: str) -> Runner | None: ...
    async def runners(self) -> tuple[Runner, ...]: ...

    # for checks: whatever is stored, whole and in pages
    async def run_ids(self, *, after: str = "", limit: int = 1000) -> tuple[str, ...]:
        """Ids of all runs in order, those after `after`."""
        ...

    async def rows_of_run(self, run_id: str) -> Rows | None:
        """Everything stored of a run, as of one instant."""
        ...

    def deliveries(self) -> AsyncIterator[Delivery]:
        """The whole ledger of webhooks in order of arrival, read in pages."""
        ...

    async def outbox(self) -> tuple[Owed, ...]:
        """Everything owed, what was refused included, in order of owing."""
        ...

    # measurements for metrics: counts by state
    async def counts(self) -> dict[str, dict[str, int]]:
        """Row counts by table and state: tables `run`, `job`, `outbox` (owed, refused) and `journal` (entries)."""
        ...
