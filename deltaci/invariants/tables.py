"""Rules over the tables of one run, as of the instant up to which the journal was taken.

They hold after every commit, whatever the server is about to do next; what it has still to do is `unsettled`'s to say.
"""

from collections.abc import Iterator
from typing import Final

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.effects import KeepRecipe, PlanRun, ReportRun
from deltaci.domain.job import Job
from deltaci.domain.lease import LIVE
from deltaci.domain.plan import digest
from deltaci.domain.run import Run
from deltaci.domain.states import HELD, AttemptState, JobState, RunState
from deltaci.invariants.ledger import owed_for_what_is_stored
from deltaci.invariants.past import LogSeen, Past
from deltaci.invariants.rules import Found, Rule
from deltaci.store.port import Columns, LogRow, Rows

NO_EVENTS: Final = Found("it has a row, and no events")
ANALYZED: Final = frozenset({AttemptState.FAILED, AttemptState.TIMED_OUT, AttemptState.LOST})


def stored_is_fold(past: Past, rows: Rows) -> Iterator[Found]:
    """The stored state of an entity is the fold of its events."""
    everything: tuple[Run | Job, ...] = (rows.run.run, *(row.job for row in rows.jobs))
    for stored in everything:
        folded = past.folded.get(stored.id)
        track = past.tracks.get(stored.id)
        if track is None:
            yield NO_EVENTS._replace(entity_id=stored.id)
        elif folded != stored and not track.is_unfoldable:
            fields = stored.__struct_fields__
            names = [name for name in fields if getattr(stored, name) != getattr(folded, name, None)]
            text = f"the stored state is not the fold of its events: {', '.join(names)}"
            yield Found(text, past.ids(stored.id), stored.id)

    stored_ids = {row.job.id for row in rows.jobs}
    for job_id in past.jobs_of_run.get(rows.run.run.id, ()):
        if job_id not in stored_ids:
            yield no_row(past, job_id)


def no_row(past: Past, entity_id: str) -> Found:
    """What is found of an entity that has events, and no row."""
    return Found("it has events, and no row", past.ids(entity_id), entity_id)


def columns_of_snapshot(past: Past, rows: Rows) -> Iterator[Found]:
    """The columns beside a snapshot say what the snapshot says: state, revision, queueing, group, key, whose."""
    run, columns = rows.run.run, rows.run.columns
    of_run = (columns.state, columns.revision, rows.run.key, rows.run.attempt, rows.run.stream)
    author = run.trigger.author if run.approved_by else ""
    expected = (run.state.value, run.revision, run.key, run.attempt, run.trigger.stream)
    if (*of_run, columns.approved_author) != (*expected, author):
        yield Found(f"its columns say {of_run}", past.ids(run.id), run.id)
    for row in rows.jobs:
        job, columns = row.job, row.columns
        queued_at_ms = job.attempts[-1].queued_at_ms if job.state is JobState.QUEUED and job.attempts else None
        told = (columns.state, columns.revision, columns.queued_at_ms, columns.concurrency)
        if told != (job.state.value, job.revision, queued_at_ms, job.concurrency):
            yield Found(f"its columns say {columns}", past.ids(job.id), job.id)


def one_timer(past: Past, rows: Rows) -> Iterator[Found]:
    """Every state with a deadline has its one timer, a final one has none."""
    run = rows.run.run
    everything: list[tuple[Run | Job, Columns, int | None]] = [(run, rows.run.columns, runs.deadline_ms(run))]
    everything += [(row.job, row.columns, jobs.deadline_ms(row.job)) for row in rows.jobs]
    for stored, columns, deadline_ms in everything:
        expected = None if stored.state.is_final else deadline_ms
        if columns.due_at_ms != expected:
            text = f"it is {stored.state} with a timer at {columns.due_at_ms}; its deadline is {expected}"
            yield Found(text, past.ids(stored.id), stored.id)


def held_while_leased(past: Past, rows: Rows) -> Iterator[Found]:
    """A job is with a runner if and only if its last attempt has a live lease; an ended job's attempts have ended."""
    for row in rows.jobs:
        job = row.job
        last = job.attempts[-1] if job.attempts else None
        is_held = last is not None and last.state in HELD
        is_live = last is not None and last.lease is not None and last.lease.state in LIVE
        is_open = last is not None and not last.state.is_final
        if not (job.state in jobs.STARTED) == is_held == is_live or (job.state.is_final and is_open):
            state, lease = (last.state, last.lease and last.lease.state) if last else (None, None)
            yield Found(f"it is {job.state}, its attempt {state}, its lease {lease}", past.ids(job.id), job.id)


def jobs_of_plan(past: Past, rows: Rows) -> Iterator[Found]:
    """A run's jobs are those of its plan, in its order, each with its needs and what a runner is told to do."""
    run, plan = rows.run.run, rows.plan
    planned, stored = [ref.id for ref in run.jobs], [row.job.id for row in rows.jobs]
    if planned != stored:
        different = sorted({*planned} ^ {*stored}) or "the order"
        yield Found(f"in its plan or stored, and not both: {different}", past.ids(run.id), run.id)
        return
    if not run.plan_digest:
        return
    if plan is None or not run.plan_digest == rows.plan_digest == digest(plan):
        yield Found(f"it adopted plan {run.plan_digest}; stored is {rows.plan_digest or 'none'}", (), run.id)
        return
    ids = {ref.name: ref.id for ref in run.jobs}
    for ref, row, job in zip(run.jobs, rows.jobs, plan.jobs, strict=False):
        needs = {ids.get(need, need) for need in job.needs}
        if row.planned != job or not {*ref.needs} == {*row.needs} == needs:
            yield Found("it is not stored as it was planned", past.ids(ref.id), ref.id)


def run_of_its_delivery(past: Past, rows: Rows) -> Iterator[Found]:
    """A run that a webhook made is in the ledger of webhooks, under the delivery that made it."""
    run = rows.run.run
    track = past.tracks.get(run.id)
    if track is None or track.cause.kind != "webhook":
        return
    made = [one.delivery_id for one in rows.deliveries if not one.is_duplicate and one.repo_id == run.key.repo_id]
    if made != [track.cause.id]:
        yield Found(f"delivery {track.cause.id} made it; the ledger says {made}", past.ids(run.id), run.id)


def effects_are_owed(past: Past, rows: Rows) -> Iterator[Found]:
    """What a state owes to the world is owed until it is done: a plan, an explanation, a report."""
    run = rows.run.run
    owed = {one.effect.key for one in rows.owed}
    explained = {(one.job_id, one.attempt) for one in rows.explanations}
    is_planned_for = run.state is RunState.PLANNING or (run.state is RunState.CREATED and not _is_unapproved(run))
    if is_planned_for and PlanRun(run.id).key not in owed:
        yield Found(f"it is {run.state}, and no plan is owed", past.ids(run.id), run.id)
    if run.has_blueprint and not run.state.is_final and not rows.has_blueprint:
        yield Found("what its plan was made from is gone before its end", past.ids(run.id), run.id)
    if rows.has_blueprint and run.state.is_final and KeepRecipe(run.id).key not in owed:
        yield Found("it is over, and nobody owes that to the recipes", past.ids(run.id), run.id)
    for row in rows.jobs:
        for attempt in row.job.attempts:
            is_owed = (row.job.id, attempt.number) in explained or f"analyze:{row.job.id}:{attempt.number}" in owed
            if attempt.state in ANALYZED and not is_owed:
                text = f"attempt {attempt.number} is {attempt.state}, neither explained nor to be explained"
                yield Found(text, past.ids(row.job.id), row.job.id)
    is_newest = (run.key, run.attempt + 1) not in past.runs_by_key
    if rows.is_reported and is_newest and ReportRun(run.id).key not in owed and "" not in rows.reported:
        yield Found("its forge was told nothing of it, and no report is owed", past.ids(run.id), run.id)


def held_is_untouched(past: Past, rows: Rows) -> Iterator[Found]:
    """A run that nobody approved has no job, adopted no plan, and owes none."""
    run = rows.run.run
    if not _is_unapproved(run):
        return
    if rows.jobs or run.plan_digest:
        yield Found(f"it was never approved and has {len(rows.jobs)} jobs", past.ids(run.id), run.id)
    if PlanRun(run.id).key in {one.effect.key for one in rows.owed}:
        yield Found("it was never approved, and a plan is owed", past.ids(run.id), run.id)


def _is_unapproved(run: Run) -> bool:
    return run.hold != "" and run.approved_at_ms is None


def effects_have_a_cause(past: Past, rows: Rows) -> Iterator[Found]:
    """What is owed or explained is about something that is stored."""
    for owed in rows.owed:
        wrong = owed_for_what_is_stored(past, owed)
        if wrong is not None:
            yield wrong
    attempts = {(row.job.id, one.number): one.state for row in rows.jobs for one in row.job.attempts}
    for one in rows.explanations:
        state = attempts.get((one.job_id, one.attempt))
        if state not in ANALYZED:
            yield Found(f"attempt {one.attempt} is explained and is {state}", past.ids(one.job_id), one.job_id)


def logs_contiguous(_past: Past, rows: Rows) -> Iterator[Found]:
    """The chunks of a log follow each other without gap or overlap, up to the stored size."""
    for log in rows.logs:
        end = 0
        for start, length in log.chunks:
            if start != end:
                yield Found(f"log of attempt {log.attempt}: a chunk at {start} follows {end}", (), log.job_id)
            end = max(end, start + length)
        if end != log.state.size:
            text = f"log of attempt {log.attempt}: {log.state.size} bytes are acknowledged, {end} stored"
            yield Found(text, (), log.job_id)


def logs_of_leases(past: Past, rows: Rows) -> Iterator[Found]:
    """A log belongs to an attempt that was leased."""
    leased = {(row.job.id, one.number) for row in rows.jobs for one in row.job.attempts if one.lease is not None}
    for log in rows.logs:
        if (log.job_id, log.attempt) not in leased:
            yield Found(f"there is a log of attempt {log.attempt}, never leased", past.ids(log.job_id), log.job_id)


def logs_end(past: Past, rows: Rows) -> Iterator[Found]:
    """A log never shrinks, and nothing is added after it was closed or its attempt ended."""
    over = {(row.job.id, one.number) for row in rows.jobs for one in row.job.attempts if one.state.is_final}
    for log in rows.logs:
        key = (log.job_id, log.attempt)
        seen = past.logs.get(key)
        if seen is not None and not _may_follow(seen, log):
            text = f"log of attempt {log.attempt} goes from {seen.size} to {log.state.size} bytes"
            yield Found(text + (" after its end" if seen.is_over else ""), past.ids(log.job_id), log.job_id)
        past.logs[key] = LogSeen(log.state.size, is_over=log.state.is_final or key in over)


def _may_follow(seen: LogSeen, log: LogRow) -> bool:
    return log.state.size == seen.size if seen.is_over else log.state.size >= seen.size


STORED: Final = Rule(1, stored_is_fold)

RULES: Final = (
    STORED,
    Rule(1, columns_of_snapshot),
    Rule(17, one_timer),
    Rule(5, held_while_leased),
    Rule(11, jobs_of_plan),
    Rule(9, run_of_its_delivery),
    Rule(19, effects_are_owed),
    Rule(26, held_is_untouched),
    Rule(19, effects_have_a_cause),
    Rule(18, logs_contiguous),
    Rule(18, logs_of_leases),
    Rule(18, logs_end),
)
