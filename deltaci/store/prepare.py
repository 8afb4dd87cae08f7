"""A commit as SQL statements with their values, made on the caller's side, before the commit queues for the writer.

Rule 1: whatever can fail without the database (encoding, contradictions) fails here and for the caller alone.
Rule 2: conditional statements stand first, so that a commit with one condition can be refused before it changed a row.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.recipe import VERSIONS_MAX
from deltaci.domain.states import JobState
from deltaci.domain.trust import approved_author
from deltaci.store import codec
from deltaci.store.journal import Draft, draft_of_audit, drafts_of_events
from deltaci.store.rules import check, position_of
from deltaci.store.sql import query
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

Values: TypeAlias = tuple[Any, ...]

INSERT_RUN: Final = query("insert_run")
UPDATE_RUN: Final = query("update_run")
INSERT_JOB: Final = query("insert_job")
UPDATE_JOB: Final = query("update_job")
GRANT_JOB: Final = query("grant_job")
INSERT_PLANNED: Final = query("insert_planned")
INSERT_NEED: Final = query("insert_need")
INSERT_PLAN: Final = query("insert_plan")
INSERT_BLUEPRINT: Final = query("insert_blueprint")
DROP_BLUEPRINT: Final = query("drop_blueprint")
INSERT_RECIPE: Final = query("insert_recipe")
UPDATE_RECIPE: Final = query("update_recipe")
INSERT_RECIPE_BLUEPRINT: Final = query("insert_recipe_blueprint")
FORGET_RECIPES: Final = (query("forget_recipes"), query("forget_recipe_blueprints"))
OWE: Final = query("owe")
SETTLE: Final = query("settle")
POSTPONE: Final = query("postpone")
HASTEN: Final = query("hasten")
INSERT_DELIVERY: Final = query("insert_delivery")
ACT_ON_DELIVERY: Final = query("act_on_delivery")
UPSERT_PULL_REQUEST: Final = query("upsert_pull_request")
UPSERT_REMOTE_ID: Final = query("upsert_remote_id")
INSERT_REPLY: Final = query("insert_reply")
BEGIN_LOG: Final = query("begin_log")
EXTEND_LOG: Final = query("extend_log")
INSERT_LOG_CHUNK: Final = query("insert_log_chunk")
INSERT_REPO: Final = query("insert_repo")
CHANGE_REPO: Final = query("change_repo")
INSERT_TOKEN: Final = query("insert_token")
UPSERT_RUNNER: Final = query("upsert_runner")
UPSERT_EXPLANATION: Final = query("upsert_explanation")
UPSERT_REPORTED: Final = query("upsert_reported")
INSERT_ARTIFACT: Final = query("insert_artifact")

NO_PR: Final = -1


class Condition(NamedTuple):
    """A statement that changes exactly one row, or `write` is refused."""

    sql: str
    values: Values
    write: Write


class Prepared(msgspec.Struct):
    """A commit, ready for the writer. `size` is about its bytes."""

    conditions: list[Condition]
    statements: list[tuple[str, Values]]
    drafts: list[Draft]
    size: int = 0


def prepare(writes: Sequence[Write]) -> Prepared:
    """The statements of a commit; raises `ValueError` if a write contradicts itself."""
    prepared = Prepared([], [], [])
    for write in writes:
        check(write)
        _prepare(prepared, write)
    return prepared


def key_values(key: RunKey) -> Values:
    """A run's key as its four columns."""
    return (key.repo_id, key.commit_sha, key.trigger_type, NO_PR if key.pr_number is None else key.pr_number)


def _prepare(prepared: Prepared, write: Write) -> None:  # noqa: C901 - one case a kind of write, nothing else
    match write:
        case SaveJob():
            snapshot = codec.encode(write.job)
            values = (*_job_values(write.job), snapshot, write.job.id, write.expected_revision)
            update = GRANT_JOB if write.is_grant else UPDATE_JOB
            prepared.conditions.append(Condition(update, values, write))
            _job_drafts(prepared, write, write.expected_revision + 1)
            prepared.size += len(snapshot)
        case Owe():
            effect = write.effect
            values = (effect.key, type(effect).__name__, codec.encode(effect), write.due_at_ms)
            prepared.statements.append((OWE, values))
        case Settle():
            prepared.statements.append((SETTLE, (write.generation, write.key)))
        case Postpone():
            values = (write.due_at_ms, write.error, write.is_refused, write.generation, write.key)
            prepared.statements.append((POSTPONE, values))
        case Hasten():
            prepared.statements.append((HASTEN, (write.latest_at_ms, write.latest_at_ms)))
        case LogChunk():
            _prepare_log_chunk(prepared, write)
        case SaveRun():
            _prepare_run(prepared, write)
        case AddJob():
            _prepare_new_job(prepared, write)
        case SavePlan():
            plan = codec.encode(write.plan)
            prepared.conditions.append(Condition(INSERT_PLAN, (write.run_id, write.digest, plan), write))
            prepared.size += len(plan)
        case SaveBlueprint():
            blueprint = codec.encode(write.blueprint)
            prepared.conditions.append(Condition(INSERT_BLUEPRINT, (write.run_id, blueprint), write))
            prepared.size += len(blueprint)
        case DropBlueprint():
            prepared.statements.append((DROP_BLUEPRINT, (write.run_id,)))
        case SaveRecipe():
            _prepare_recipe(prepared, write)
        case Audit():
            prepared.drafts.append(draft_of_audit(write))
        case Explanation():
            values = (write.job_id, write.attempt, codec.encode(write))
            prepared.statements.append((UPSERT_EXPLANATION, values))
        case Reported():
            prepared.statements.append((UPSERT_REPORTED, (write.run_id, write.check, write.digest, write.at_ms)))
        case Runner():
            values = (write.id, write.token_id, write.name, codec.encode(write))
            prepared.conditions.append(Condition(UPSERT_RUNNER, values, write))
        case SaveRepo():
            values = (write.repo.id, write.repo.name, write.repo.is_superseding, codec.encode(write.repo))
            prepared.conditions.append(Condition(INSERT_REPO, values, write))
        case ChangeRepo():
            repo = write.repo
            values = (repo.name, repo.is_superseding, repo.revision, codec.encode(repo), repo.id, repo.revision - 1)
            prepared.conditions.append(Condition(CHANGE_REPO, values, write))
        case Delivery():
            request = None if write.request is None else codec.encode(write.request)
            values = (*_fields(write)[:8], request, write.outcome)
            prepared.conditions.append(Condition(INSERT_DELIVERY, values, write))
        case DeliveryActed():
            prepared.statements.append((ACT_ON_DELIVERY, (write.outcome, write.repo_id, write.delivery_id)))
        case SavePullRequest():
            one = write.pull_request
            prepared.statements.append((UPSERT_PULL_REQUEST, (one.repo_id, one.number, one.is_open, codec.encode(one))))
        case SaveRemoteId():
            prepared.statements.append((UPSERT_REMOTE_ID, _fields(write)))
        case Reply():
            prepared.conditions.append(Condition(INSERT_REPLY, _fields(write), write))
            prepared.size += len(write.body)
        case Token():
            prepared.conditions.append(Condition(INSERT_TOKEN, _fields(write), write))
        case ArtifactStored():
            prepared.conditions.append(Condition(INSERT_ARTIFACT, _fields(write), write))
        case _:
            assert_never(write)


def _prepare_run(prepared: Prepared, write: SaveRun) -> None:
    run = write.run
    snapshot = codec.encode(run)
    due_at_ms = runs.deadline_ms(run)
    if write.expected_revision == 0:
        values: Values = (
            run.id,
            *key_values(run.key),
            run.attempt,
            run.trigger.stream,
            approved_author(run),
            run.state.value,
            due_at_ms,
            run.revision,
            snapshot,
        )
        prepared.conditions.append(Condition(INSERT_RUN, values, write))
    else:
        columns = (approved_author(run), run.state.value, due_at_ms)
        values = (*columns, run.revision, snapshot, run.id, write.expected_revision)
        prepared.conditions.append(Condition(UPDATE_RUN, values, write))
    prepared.drafts += drafts_of_events(run.id, run.id, write.expected_revision + 1, write.events, write.cause)
    prepared.size += len(snapshot)


def _prepare_new_job(prepared: Prepared, write: AddJob) -> None:
    job = write.job
    snapshot = codec.encode(job)
    planned = codec.encode(write.planned)
    values = (job.id, job.run_id, job.repo_id, position_of(job.id), job.concurrency, *_job_values(job), snapshot)
    prepared.conditions.append(Condition(INSERT_JOB, values, write))
    prepared.statements.append((INSERT_PLANNED, (job.id, planned)))
    prepared.statements += [(INSERT_NEED, (job.id, need)) for need in write.needs]
    _job_drafts(prepared, write, 1)
    prepared.size += len(snapshot) + len(planned)


def _prepare_recipe(prepared: Prepared, write: SaveRecipe) -> None:
    recipe = write.recipe
    key, encoded = (recipe.repo_id, recipe.version), codec.encode(recipe)
    prepared.size += len(encoded)
    if write.blueprint is None:
        values = (recipe.revision, encoded, *key, recipe.revision - 1)
        prepared.conditions.append(Condition(UPDATE_RECIPE, values, write))
        return
    blueprint = codec.encode(write.blueprint)
    prepared.conditions.append(Condition(INSERT_RECIPE, (*key, recipe.revision, encoded), write))
    prepared.statements.append((INSERT_RECIPE_BLUEPRINT, (*key, blueprint)))
    prepared.statements += [(forget, (recipe.repo_id, recipe.version - VERSIONS_MAX)) for forget in FORGET_RECIPES]
    prepared.size += len(blueprint)


def _prepare_log_chunk(prepared: Prepared, write: LogChunk) -> None:
    size = write.offset + len(write.data)
    changed = (size, write.is_final, write.crc32, write.at_ms)
    if write.offset == 0:
        prepared.conditions.append(Condition(BEGIN_LOG, (write.job_id, write.attempt, *changed), write))
    else:
        values = (*changed, write.job_id, write.attempt, write.offset)
        prepared.conditions.append(Condition(EXTEND_LOG, values, write))
    if write.data:
        chunk = (write.job_id, write.attempt, write.offset, write.data)
        prepared.statements.append((INSERT_LOG_CHUNK, chunk))
        prepared.size += len(write.data)


def _job_values(job: Job) -> Values:
    """State, queueing time, timer and revision."""
    queued_at_ms = job.attempts[-1].queued_at_ms if job.state is JobState.QUEUED and job.attempts else None
    return (job.state.value, queued_at_ms, jobs.deadline_ms(job), job.revision)


def _job_drafts(prepared: Prepared, write: SaveJob | AddJob, first: int) -> None:
    prepared.drafts += drafts_of_events(write.job.id, write.job.run_id, first, write.events, write.cause)


def _fields(write: Delivery | SaveRemoteId | Reply | Token | ArtifactStored) -> Values:
    """The fields in the order in which the struct declares them: the columns of its table."""
    return msgspec.structs.astuple(write)
