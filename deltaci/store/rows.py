"""Everything stored of one run, read by the SQLite store in one consistent instant: for checks.

Rule: it reads what stands in the columns and derives nothing, so that a check can compare.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from deltaci.domain.errors import SnapshotCorrupt
from deltaci.domain.events import RunKey
from deltaci.domain.repo import is_reported
from deltaci.domain.run import Run
from deltaci.store import codec, reads
from deltaci.store.journal import cause_of
from deltaci.store.port import Columns, JobRow, LogRow, LogState, Rows, RunRow
from deltaci.store.prepare import NO_PR
from deltaci.store.sql import query
from deltaci.store.writes import Delivery


def rows_of_run(connection: sqlite3.Connection, run_id: str) -> Rows | None:
    """A run with all its tables; raises `SnapshotCorrupt`."""
    with _one_instant(connection):
        row = connection.execute(query("row_of_run"), (run_id,)).fetchone()
        if row is None:
            return None
        run = codec.decode(codec.RUN, row[0], run_id)
        repo = codec.decode(codec.REPO, row[10], row[4]) if row[10] is not None else None
        plan_row = connection.execute(query("plan_row"), (run_id,)).fetchone()
        return Rows(
            journal_id=connection.execute(query("count_journal")).fetchone()[0],
            run=RunRow(
                run=run,
                columns=Columns(state=row[1], revision=row[2], due_at_ms=row[3], approved_author=row[12]),
                key=RunKey(row[4], row[5], row[6], None if row[7] == NO_PR else row[7]),
                attempt=row[8],
                stream=row[9],
            ),
            jobs=_jobs(connection, run_id),
            plan=None if plan_row is None else codec.decode(codec.PLAN, plan_row[1], run_id),
            plan_digest="" if plan_row is None else plan_row[0],
            deliveries=_deliveries(connection, run, row[11]),
            owed=reads.owed(connection, "owed_of_run", {"run_id": run_id}),
            explanations=reads.explanations_of_run(connection, run_id),
            reported=reads.reported(connection, run_id),
            logs=_logs(connection, run_id),
            is_reported=repo is not None and is_reported(repo),
            has_blueprint=bool(connection.execute(query("has_blueprint"), (run_id,)).fetchone()[0]),
        )


@contextmanager
def _one_instant(connection: sqlite3.Connection) -> Iterator[None]:
    """Within it every read sees the database as the first one did."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _jobs(connection: sqlite3.Connection, run_id: str) -> tuple[JobRow, ...]:
    needs: dict[str, list[str]] = defaultdict(list)
    for job_id, need_id in connection.execute(query("needs_of_run"), (run_id,)):
        needs[job_id].append(need_id)
    return tuple(
        JobRow(
            job=codec.decode(codec.JOB, snapshot, job_id),
            columns=Columns(
                state=state, revision=revision, due_at_ms=due_at_ms, queued_at_ms=queued_at_ms, concurrency=concurrency
            ),
            planned=None if planned is None else codec.decode(codec.PLANNED, planned, job_id),
            needs=tuple(needs[job_id]),
        )
        for job_id, snapshot, state, revision, due_at_ms, queued_at_ms, concurrency, planned in connection.execute(
            query("job_rows_of_run"), (run_id,)
        )
    )


def _deliveries(connection: sqlite3.Connection, run: Run, cause: bytes | None) -> tuple[Delivery, ...]:
    """By the keys that the ledger has: the one that the first event names, and the shared ones."""
    try:
        made_by = None if cause is None else cause_of(cause)
    except msgspec.DecodeError as error:
        raise SnapshotCorrupt(f"the cause of {run.id} cannot be decoded: {error}", entity_id=run.id) from error
    first = None
    if made_by is not None and made_by.kind == "webhook":
        first = reads.delivery(connection, "delivery", run.key.repo_id, made_by.id)
    is_first = first is not None and first.run_id == run.id and not first.is_duplicate
    shared = reads.deliveries(connection, "shared_deliveries", (run.id,))
    return (first, *shared) if first is not None and is_first else shared


def _logs(connection: sqlite3.Connection, run_id: str) -> tuple[LogRow, ...]:
    states = {
        (job_id, attempt): LogState(size=size, is_final=bool(is_final), crc32=crc32)
        for job_id, attempt, size, is_final, crc32 in connection.execute(query("log_states_of_run"), (run_id,))
    }
    chunks: dict[tuple[str, int], list[tuple[int, int]]] = {key: [] for key in states}
    for job_id, attempt, start, length in connection.execute(query("log_chunks_of_run"), (run_id,)):
        chunks.setdefault((job_id, attempt), []).append((start, length))
    return tuple(
        LogRow(job_id=job_id, attempt=attempt, state=states.get((job_id, attempt), LogState()), chunks=tuple(extents))
        for (job_id, attempt), extents in sorted(chunks.items())
    )
