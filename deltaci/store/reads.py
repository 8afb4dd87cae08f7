"""The reads of the SQLite store: one synchronous function each, over a reader's connection.

Rule: a row is validated right after it was read; what cannot be decoded raises `SnapshotCorrupt`.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.errors import SnapshotCorrupt
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.recipe import Kept, Recipe
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.domain.states import RunState
from deltaci.store import codec
from deltaci.store.journal import Row, entry_of
from deltaci.store.port import HeldJob, JournalEntry, LogState, NumberedDelivery, Owed, QueuedJob, RunSummary
from deltaci.store.prepare import key_values
from deltaci.store.sql import query
from deltaci.store.writes import ArtifactStored, Delivery, Explanation, Reply, Runner, Token

LAST_ID: Final = "~"  # sorts after every id
ID_MAX: Final = 2**63 - 1
LAST_ENTRIES: Final = 1_000  # of the journal; more than were ever decided at the same time

_LOAD_RUN: Final = query("load_run")
_LOAD_JOB: Final = query("load_job")

# ---- entities ----------------------------------------------------------------------------------------------------


def load_run(connection: sqlite3.Connection, run_id: str) -> Run | None:
    """A run."""
    row = connection.execute(_LOAD_RUN, (run_id,)).fetchone()
    return None if row is None else codec.decode(codec.RUN, row[0], run_id)


def load_job(connection: sqlite3.Connection, job_id: str) -> tuple[Job, PlannedJob] | None:
    """A job and what a runner is told to do for it."""
    row = connection.execute(_LOAD_JOB, (job_id,)).fetchone()
    if row is None:
        return None
    return codec.decode(codec.JOB, row[0], job_id), codec.decode(codec.PLANNED, row[1], job_id)


def load_plan(connection: sqlite3.Connection, run_id: str) -> Plan | None:
    """The plan of a run."""
    row = connection.execute(query("load_plan"), (run_id,)).fetchone()
    return None if row is None else codec.decode(codec.PLAN, row[0], run_id)


def jobs_of_run(connection: sqlite3.Connection, run_id: str) -> tuple[Job, ...]:
    """All jobs of a run in the order of its plan."""
    rows = connection.execute(query("jobs_of_run"), (run_id,))
    return tuple(codec.decode(codec.JOB, snapshot, job_id) for job_id, snapshot in rows)


def latest_run(connection: sqlite3.Connection, key: RunKey) -> Latest | None:
    """The newest run attempt under a key."""
    row = connection.execute(query("latest_run"), key_values(key)).fetchone()
    if row is None:
        return None
    run = codec.decode(codec.RUN, row[1], row[0])
    return Latest(run.id, run.attempt, run.state, run.end_reason, run.cancel.reason if run.cancel else None)


def is_author_approved(connection: sqlite3.Connection, repo_id: str, author: str) -> bool:
    """Whether a run of an author was ever approved in a repository."""
    return connection.execute(query("is_author_approved"), (repo_id, author)).fetchone() is not None


def list_runs(
    connection: sqlite3.Connection, repo_id: str | None, state: RunState | None, before: str | None, limit: int
) -> tuple[RunSummary, ...]:
    """A page of runs, newest first."""
    name = "list_runs" + ("_of_repo" if repo_id is not None else "") + ("_in_state" if state is not None else "")
    values = {
        "repo_id": repo_id,
        "state": None if state is None else state.value,
        "before": LAST_ID if before is None else before,
        "limit": limit,
    }
    rows = connection.execute(query(name), values)
    return tuple(
        RunSummary(run=codec.decode(codec.RUN, snapshot, run_id), repo_name=name) for run_id, snapshot, name in rows
    )


# ---- recipes -----------------------------------------------------------------------------------------------------


def blueprint(connection: sqlite3.Connection, run_id: str) -> Blueprint | None:
    """What the plan of a run was made from."""
    row = connection.execute(query("blueprint_of_run"), (run_id,)).fetchone()
    return None if row is None else codec.decode(codec.BLUEPRINT, row[0], run_id)


def recipes(connection: sqlite3.Connection, repo_id: str) -> tuple[Recipe, ...]:
    """The versions that are kept, the newest first."""
    rows = connection.execute(query("recipes_of_repo"), (repo_id,))
    return tuple(codec.decode(codec.RECIPE, encoded, f"recipe {version} of {repo_id}") for version, encoded in rows)


def recipe(connection: sqlite3.Connection, repo_id: str, version: int) -> Kept | None:
    """A version with what it is made of."""
    row = connection.execute(query("recipe_with_blueprint"), (repo_id, version)).fetchone()
    if row is None:
        return None
    name = f"recipe {version} of {repo_id}"
    return Kept(codec.decode(codec.RECIPE, row[0], name), codec.decode(codec.BLUEPRINT, row[1], name))


# ---- dispatch, timers, recovery ----------------------------------------------------------------------------------


def queued_jobs(connection: sqlite3.Connection) -> Iterator[QueuedJob]:
    """All queued jobs, in order of queueing."""
    for job_id, snapshot in connection.execute(query("queued_jobs")):
        yield QueuedJob.of(codec.decode(codec.JOB, snapshot, job_id))


def held_jobs(connection: sqlite3.Connection) -> Iterator[HeldJob]:
    """Held jobs with their repositories and concurrency groups."""
    yield from map(HeldJob._make, connection.execute(query("held_jobs")))


def ids(connection: sqlite3.Connection, name: str, values: dict[str, Any] | tuple[Any, ...] = ()) -> tuple[str, ...]:
    """The first column of a named query."""
    return tuple(row[0] for row in connection.execute(query(name), values))


def pairs(connection: sqlite3.Connection, name: str, values: tuple[Any, ...] = ()) -> tuple[tuple[str, str], ...]:
    """The two columns of a named query."""
    return tuple((first, second) for first, second in connection.execute(query(name), values))


def newest_runs_of_commit(connection: sqlite3.Connection, repo_id: str, commit_sha: str) -> tuple[Run, ...]:
    """The newest run attempt under each key of a commit."""
    rows = connection.execute(query("newest_runs_of_commit"), (repo_id, commit_sha))
    return tuple(codec.decode(codec.RUN, snapshot, run_id) for run_id, snapshot, _ in rows)


# ---- deliveries, replies, outbox ---------------------------------------------------------------------------------


def delivery(connection: sqlite3.Connection, name: str, repo_id: str, key: str) -> Delivery | None:
    """The first row of a named query over the ledger."""
    row = connection.execute(query(name), (repo_id, key)).fetchone()
    return None if row is None else _delivery(row)


def deliveries(connection: sqlite3.Connection, name: str, values: tuple[Any, ...]) -> tuple[Delivery, ...]:
    """The rows of a named query over the ledger."""
    return tuple(map(_delivery, connection.execute(query(name), values)))


def page_of_deliveries(connection: sqlite3.Connection, after: int, limit: int) -> tuple[tuple[Delivery, ...], int]:
    """A page of the whole ledger, and where the next one begins."""
    rows = connection.execute(query("deliveries"), (after, limit)).fetchall()
    return tuple(map(_delivery, rows)), rows[-1][10] if rows else after


def _delivery(row: tuple[Any, ...]) -> Delivery:
    return Delivery(
        repo_id=row[0],
        delivery_id=row[1],
        body_sha256=row[2],
        received_at_ms=row[3],
        event=row[4],
        run_id=row[5],
        ignored=row[6],
        is_duplicate=bool(row[7]),
        request=None if row[8] is None else codec.decode(codec.REQUEST, row[8], f"delivery {row[1]} of {row[0]}"),
        outcome=row[9],
    )


def newest_deliveries(
    connection: sqlite3.Connection, repo_id: str | None, before: int | None, limit: int
) -> tuple[NumberedDelivery, ...]:
    """A page of the ledger, newest first."""
    values = {"repo_id": repo_id, "before": ID_MAX if before is None else before, "limit": limit}
    name = "newest_deliveries" if repo_id is None else "newest_deliveries_of_repo"
    rows = connection.execute(query(name), values)
    return tuple(NumberedDelivery(number=row[10], delivery=_delivery(row)) for row in rows)


def pull_requests(connection: sqlite3.Connection, name: str, values: tuple[Any, ...]) -> tuple[PullRequest, ...]:
    """The pull requests of a named query."""
    rows = connection.execute(query(name), values)
    return tuple(codec.decode(codec.PULL_REQUEST, snapshot, f"pull request {number}") for number, snapshot in rows)


def remote_id(connection: sqlite3.Connection, repo_id: str, key: str) -> str | None:
    """What the forge calls something of ours."""
    row = connection.execute(query("remote_id"), (repo_id, key)).fetchone()
    return None if row is None else str(row[0])


def reply(connection: sqlite3.Connection, key: str) -> Reply | None:
    """The answer given to an idempotent request."""
    row = connection.execute(query("reply"), (key,)).fetchone()
    if row is None:
        return None
    return Reply(key=row[0], request_sha256=row[1], http_status=row[2], body=row[3], at_ms=row[4])


def owed(connection: sqlite3.Connection, name: str, values: dict[str, Any] | tuple[Any, ...] = ()) -> tuple[Owed, ...]:
    """The debts of a named query."""
    return tuple(
        Owed(
            effect=codec.decode(codec.EFFECT, effect, key),
            generation=generation,
            due_at_ms=due_at_ms,
            tries=tries,
            error=error,
            is_refused=bool(is_refused),
        )
        for key, effect, generation, due_at_ms, tries, error, is_refused in connection.execute(query(name), values)
    )


def next_owed_at_ms(connection: sqlite3.Connection) -> int | None:
    """When the next debt becomes due."""
    at_ms: int | None = connection.execute(query("next_owed_at_ms")).fetchone()[0]
    return at_ms


# ---- journal -----------------------------------------------------------------------------------------------------


def events_of_run(connection: sqlite3.Connection, run_id: str, after_id: int, limit: int) -> tuple[JournalEntry, ...]:
    """Journal of a run and its jobs."""
    return _entries(connection.execute(query("events_of_run"), (run_id, after_id, limit)))


def journal(connection: sqlite3.Connection, after_id: int, limit: int) -> tuple[JournalEntry, ...]:
    """A page of the whole journal."""
    return _entries(connection.execute(query("journal"), (after_id, limit)))


def newest_at_ms(connection: sqlite3.Connection) -> int:
    """The newest instant among the last entries."""
    at_ms: int = connection.execute(query("newest_at_ms"), (LAST_ENTRIES,)).fetchone()[0]
    return at_ms


def _entries(rows: Iterable[Any]) -> tuple[JournalEntry, ...]:
    entries = []
    for row in rows:
        try:
            entries.append(entry_of(Row(*row)))
        except (msgspec.DecodeError, TypeError) as error:
            raise SnapshotCorrupt(f"journal row {row[0]} cannot be decoded: {error}", entity_id=row[1]) from error
    return tuple(entries)


# ---- logs, artifacts, results ------------------------------------------------------------------------------------


def log_state(connection: sqlite3.Connection, job_id: str, attempt: int) -> LogState:
    """How far a log is stored."""
    row = connection.execute(query("log_state"), (job_id, attempt)).fetchone()
    return LogState() if row is None else LogState(size=row[0], is_final=bool(row[1]), crc32=row[2])


def read_log(connection: sqlite3.Connection, job_id: str, attempt: int, offset: int, limit: int) -> bytes:
    """At most `limit` bytes from `offset`; a negative offset counts from the end."""
    if offset < 0:
        offset = max(0, log_state(connection, job_id, attempt).size + offset)
    end = offset + max(0, limit)
    values = {"job_id": job_id, "attempt": attempt, "first": offset, "end": end}
    chunks = [
        data[max(0, offset - start) : end - start] for start, data in connection.execute(query("read_log"), values)
    ]
    return b"".join(chunks)


def artifacts_of_run(connection: sqlite3.Connection, run_id: str) -> tuple[ArtifactStored, ...]:
    """Artifacts of a run's jobs."""
    return tuple(
        ArtifactStored(job_id=job_id, attempt=attempt, name=name, size_bytes=size_bytes, sha256=sha256, at_ms=at_ms)
        for job_id, attempt, name, size_bytes, sha256, at_ms in connection.execute(query("artifacts_of_run"), (run_id,))
    )


def explanations_of_run(connection: sqlite3.Connection, run_id: str) -> tuple[Explanation, ...]:
    """Explanations of a run's attempts."""
    rows = connection.execute(query("explanations_of_run"), (run_id,))
    return tuple(codec.decode(codec.EXPLANATION, explanation, job_id) for job_id, explanation in rows)


def reported(connection: sqlite3.Connection, run_id: str) -> dict[str, str]:
    """Digest last reported by check."""
    return dict(connection.execute(query("reported"), (run_id,)))


# ---- repositories, tokens, runners, counts -----------------------------------------------------------------------


def repos(connection: sqlite3.Connection) -> tuple[Repo, ...]:
    """All repositories by name."""
    return tuple(
        codec.decode(codec.REPO, snapshot, repo_id) for repo_id, snapshot in connection.execute(query("repos"))
    )


def load_repo(connection: sqlite3.Connection, repo_id: str) -> Repo | None:
    """A repository."""
    row = connection.execute(query("load_repo"), (repo_id,)).fetchone()
    return None if row is None else codec.decode(codec.REPO, row[1], row[0])


def token(connection: sqlite3.Connection, token_hash: str) -> Token | None:
    """A token by its hash."""
    row = connection.execute(query("token"), (token_hash,)).fetchone()
    if row is None:
        return None
    return Token(id=row[0], token_hash=row[1], scope=row[2], label=row[3], created_at_ms=row[4])


def runners(connection: sqlite3.Connection, name: str, values: tuple[Any, ...] = ()) -> tuple[Runner, ...]:
    """The runners of a named query."""
    rows = connection.execute(query(name), values)
    return tuple(codec.decode(codec.RUNNER, runner, runner_id) for runner_id, runner in rows)


def counts(connection: sqlite3.Connection) -> dict[str, dict[str, int]]:
    """Row counts by table and state."""
    execute = connection.execute
    return {
        "run": dict(execute(query("count_runs"))),
        "job": dict(execute(query("count_jobs"))),
        "outbox": {"owed": 0, "refused": 0} | dict(execute(query("count_outbox"))),
        "journal": {"entries": execute(query("count_journal")).fetchone()[0]},
    }
