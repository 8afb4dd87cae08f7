"""The API for people and their tools: runs, jobs and logs."""

from typing import Annotated, Final, Literal

import msgspec
from quart import Blueprint, Response, request

from deltaci.domain.errors import MalformedRequest, NotFound
from deltaci.domain.events import Trigger
from deltaci.domain.ids import RANDOM_BYTES, new_id, run_of
from deltaci.domain.machine import Refusal
from deltaci.domain.states import RunState
from deltaci.forge.webhook import full_ref
from deltaci.gateway import answers, views
from deltaci.gateway.asking import admin, body_as, house_of, number_in_query, repo_named
from deltaci.gateway.auth import user

bp = Blueprint("api", __name__, url_prefix="/api/v1")

# `\Z`, because `$` also matches before a line break at the end
SHA: Final = r"^[0-9a-f]{40}([0-9a-f]{24})?\Z"


class NewRun(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/v1/runs`: a run that nobody pushed for. `repo` is a name.

    `trigger` is `schedule` where a clock asks: then everything runs, unless the repository says otherwise.
    """

    repo: str
    commit_sha: Annotated[str, msgspec.Meta(pattern=SHA)]
    ref: str = "refs/heads/main"
    trigger: Literal["manual", "schedule"] = "manual"
    base_sha: Annotated[str, msgspec.Meta(pattern=SHA)] | None = None


class NewAttempt(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/v1/runs/{id}/rerun`."""

    jobs: Literal["all", "failed"] = "all"


def _idempotency_key(scope: str) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if len(key) > 200 or not key.isprintable():
        raise MalformedRequest("Idempotency-Key is printable and at most 200 characters long")
    if not key:
        ports = house_of().orchestrator.ports
        key = new_id("key", now_ms=ports.clock.now_ms(), random=ports.entropy.token_bytes(RANDOM_BYTES))
    return f"{scope}:{key}"


# ---- runs --------------------------------------------------------------------------------------------------------


@bp.get("/runs")
async def list_runs() -> Response:
    """Newest first; `?repo=NAME&state=STATE&before=RUN_ID&limit=N`."""
    await admin()
    house = house_of()
    repo_id = repo_named(request.args["repo"]).id if "repo" in request.args else None
    state = None
    if "state" in request.args:
        try:
            state = RunState(request.args["state"])
        except ValueError as error:
            raise MalformedRequest(f"state is one of {', '.join(RunState)}") from error
    limit = number_in_query("limit", 50, low=1, high=house.limits.page_size_max)
    found = await house.store.list_runs(repo_id=repo_id, state=state, before=request.args.get("before"), limit=limit)
    return answers.ok({"runs": [views.run_view(one.run, one.repo_name) for one in found]})


@bp.post("/runs")
async def start_run() -> Response:
    """Run a commit that nobody pushed; `Idempotency-Key` makes a repeat harmless."""
    token = await admin()
    new = await body_as(NewRun)
    trigger = Trigger(
        kind=new.trigger, ref=full_ref(new.ref), commit_sha=new.commit_sha, base_sha=new.base_sha, author=token.label
    )
    reply = await house_of().orchestrator.start_run(
        repo_named(new.repo).id, trigger, user(token), key=_idempotency_key(token.id)
    )
    return Response(reply.body, reply.http_status, content_type="application/json")


@bp.get("/runs/<run_id>")
async def show_run(run_id: str) -> Response:
    """`{"run", "jobs", "plan"}`: everything but leases."""
    await admin()
    house = house_of()
    run = await house.orchestrator.run(run_id)
    return answers.ok(await views.whole_run(run, house.store, house.orchestrator))


@bp.get("/runs/<run_id>/plan")
async def show_plan(run_id: str) -> Response:
    """`{"run_id", "digest", "plan", "mermaid"}`: the whole plan, with the touched projects, and a chart.

    404 as long as the run has none: it is being planned, or its plan failed.
    """
    await admin()
    house = house_of()
    run = await house.orchestrator.run(run_id)
    plan = await house.store.load_plan(run_id)
    if plan is None:
        raise NotFound(f"run {run_id} is {run.state} and has no plan", run_id=run_id)
    return answers.ok(views.whole_plan(run, plan))


@bp.post("/runs/<run_id>/cancel")
async def cancel_run(run_id: str) -> Response:
    """Stop the run; accepted in every state; `Idempotency-Key` gets a repeat the equal answer."""
    token = await admin()
    reply = await house_of().orchestrator.cancel_once(run_id, user(token), key=_idempotency_key(token.id))
    return Response(reply.body, reply.http_status, content_type="application/json")


@bp.post("/runs/<run_id>/approve")
async def approve_run(run_id: str) -> Response:
    """Let a held run go on: this commit, and no other. Accepted in every state; `approved_by` says whether it counts.

    `Idempotency-Key` gets a repeat the equal answer.
    """
    token = await admin()
    reply = await house_of().orchestrator.approve_once(run_id, user(token), key=_idempotency_key(token.id))
    return Response(reply.body, reply.http_status, content_type="application/json")


@bp.post("/runs/<run_id>/rerun")
async def rerun(run_id: str) -> Response:
    """A new attempt of a run that is over: `{"jobs": "all" | "failed"}`."""
    token = await admin()
    new = await body_as(NewAttempt)
    answer = await house_of().orchestrator.rerun(
        run_id, user(token), is_failed_only=new.jobs == "failed", key=_idempotency_key(token.id)
    )
    if isinstance(answer, Refusal):
        return answers.refused(answer)
    return Response(answer.body, answer.http_status, content_type="application/json")


@bp.get("/runs/<run_id>/events")
async def run_events(run_id: str) -> Response:
    """The run's journal in order; `?after=ID` goes on from the last one seen."""
    await admin()
    house = house_of()
    await house.orchestrator.run(run_id)
    limit = number_in_query("limit", house.limits.page_size_max, low=1, high=house.limits.page_size_max)
    entries = await house.store.events_of_run(run_id, after_id=number_in_query("after", 0), limit=limit)
    return answers.ok({"events": [views.event_view(entry) for entry in entries]})


# ---- jobs --------------------------------------------------------------------------------------------------------


@bp.get("/jobs/<job_id>/log")
async def job_log(job_id: str) -> Response:
    """Bytes of an attempt's log from `?offset=`, the last attempt's by default; the size so far is in X-Log-Size."""
    await admin()
    house = house_of()
    loaded = await house.store.load_job(job_id) if run_of(job_id) else None
    if loaded is None:
        raise NotFound(f"no job {job_id[:100]!r}", job_id=job_id[:100])
    job, _ = loaded
    attempt = number_in_query("attempt", max(1, len(job.attempts)), low=1)
    if attempt > max(1, len(job.attempts)):
        raise NotFound(f"job {job.id} has {len(job.attempts)} attempts, not {attempt}", job_id=job.id)
    # A runner that is gone never closes its log; what an attempt did not send before its end never comes.
    is_over = job.attempts[attempt - 1].state.is_final if job.attempts else job.state.is_final
    state = await house.store.log_state(job.id, attempt)
    data = await house.store.read_log(
        job.id, attempt, offset=number_in_query("offset", 0), limit=house.limits.log_read_bytes_max
    )
    response = Response(data, 200, content_type="text/plain; charset=utf-8")
    response.headers["X-Log-Size"] = str(state.size)
    response.headers["X-Log-Final"] = "true" if state.is_final or is_over else "false"
    return response
