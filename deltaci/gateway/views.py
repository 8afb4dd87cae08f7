"""What the API shows of runs, jobs and attempts: names as in the domain, and never a lease id or its hash."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from deltaci.domain.effects import ReportRun
from deltaci.domain.events import JobRef
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.project import Project
from deltaci.domain.reasons import mermaid
from deltaci.domain.recipe import Kept, Recipe
from deltaci.domain.repo import Repo, is_reported
from deltaci.domain.requests import in_words
from deltaci.domain.run import JobSeen, Run, is_held, is_satisfied, waiting_text
from deltaci.domain.states import WaitingReason
from deltaci.domain.waiting import waiting
from deltaci.orchestrator.orchestrator import Orchestrator
from deltaci.store.port import JournalEntry, NumberedDelivery, Owed, Store
from deltaci.store.writes import ArtifactStored, Delivery, Explanation


def run_view(run: Run, repo_name: str) -> dict[str, Any]:
    """A run, without its jobs."""
    return {
        "id": run.id,
        "repo": repo_name,
        "repo_id": run.key.repo_id,
        "commit_sha": run.key.commit_sha,
        "trigger": run.key.trigger_type,
        "pr_number": run.key.pr_number,
        "attempt": run.attempt,
        "ref": run.trigger.ref,
        "base_sha": run.trigger.base_sha,
        "title": run.trigger.title,
        "author": run.trigger.author,
        "state": run.state,
        "end_reason": run.end_reason,
        "text": run.text,
        "waiting_reason": WaitingReason.APPROVAL if is_held(run) else None,
        "waiting_detail": waiting_text(run),
        "approved_by": run.approved_by or None,
        "approved_at_ms": run.approved_at_ms,
        "plan_digest": run.plan_digest or None,
        "created_at_ms": run.created_at_ms,
        "started_at_ms": run.started_at_ms,
        "ended_at_ms": run.ended_at_ms,
    }


async def whole_run(run: Run, store: Store, orchestrator: Orchestrator) -> dict[str, Any]:
    """A run with its jobs, their attempts, why each waits or failed, and the plan with its reasons."""
    # The plan may have been adopted since `run` was read; jobs that it does not know yet are for the next look.
    known = {ref.id for ref in run.jobs}
    jobs = [job for job in await store.jobs_of_run(run.id) if job.id in known]
    plan = await store.load_plan(run.id)
    repo = await store.load_repo(run.key.repo_id)
    explanations = {(one.job_id, one.attempt): one for one in await store.explanations_of_run(run.id)}
    artifacts: dict[str, list[ArtifactStored]] = {}
    for one in await store.artifacts_of_run(run.id):
        artifacts.setdefault(one.job_id, []).append(one)
    around = Surroundings(
        refs={ref.id: ref for ref in run.jobs},
        seen={job.id: JobSeen(job.state, job.end_reason) for job in jobs},
        explanations=explanations,
        artifacts=artifacts,
        now_ms=orchestrator.ports.clock.now_ms(),
        runner_labels=orchestrator.hub.labels(),
        is_repo_at_limit=orchestrator.is_at_limit(run.key.repo_id),
        is_group_held=orchestrator.is_group_held,
    )
    return {
        "run": run_view(run, repo.name if repo else ""),
        "jobs": [job_view(job, around) for job in jobs],
        "plan": plan_view(plan),
        "report": report_view(repo, await store.debt(ReportRun(run.id).key)),
    }


class Surroundings(msgspec.Struct, frozen=True):
    """What the views of all jobs of a run look things up in; made once, for a run may have thousands."""

    refs: Mapping[str, JobRef]
    seen: Mapping[str, JobSeen]
    explanations: Mapping[tuple[str, int], Explanation]
    artifacts: Mapping[str, Sequence[ArtifactStored]]
    now_ms: int
    runner_labels: tuple[frozenset[str], ...]
    is_repo_at_limit: bool
    is_group_held: Callable[[str, str], bool]


def job_view(job: Job, around: Surroundings) -> dict[str, Any]:
    """One job of a run."""
    refs = around.refs
    ref = refs[job.id]
    reason = waiting(
        job,
        now_ms=around.now_ms,
        open_needs=[refs[need].name for need in ref.needs if not is_satisfied(refs[need], around.seen[need])],
        runner_labels=around.runner_labels,
        is_repo_at_limit=around.is_repo_at_limit,
        is_group_held=around.is_group_held(job.repo_id, job.concurrency),
    )
    return {
        "id": job.id,
        "name": job.name,
        "state": job.state,
        "end_reason": job.end_reason,
        "end_detail": job.end_detail,
        "waiting_reason": reason.reason if reason else None,
        "waiting_detail": reason.detail if reason else "",
        "is_required": job.is_required,
        "needs": [refs[need].name for need in ref.needs],
        "labels": job.labels,
        "concurrency": job.concurrency or None,
        "created_at_ms": job.created_at_ms,
        "ended_at_ms": job.ended_at_ms,
        "attempts": [
            {
                "number": attempt.number,
                "state": attempt.state,
                "end_reason": attempt.end_reason,
                "exit_code": attempt.exit_code,
                "text": attempt.text,
                "runner_id": attempt.lease.runner_id if attempt.lease else None,
                "queued_at_ms": attempt.queued_at_ms,
                "leased_at_ms": attempt.lease.granted_at_ms if attempt.lease else None,
                "started_at_ms": attempt.started_at_ms,
                "ended_at_ms": attempt.ended_at_ms,
                "explanation": explanation_view(around.explanations.get((job.id, attempt.number))),
            }
            for attempt in job.attempts
        ],
        "artifacts": [
            {"name": one.name, "attempt": one.attempt, "size_bytes": one.size_bytes, "sha256": one.sha256}
            for one in around.artifacts.get(job.id, ())
        ],
    }


def explanation_view(explanation: Explanation | None) -> dict[str, Any] | None:
    """Why an attempt failed, once that is known."""
    if explanation is None:
        return None
    return {
        "category": explanation.category,
        "confidence": explanation.confidence,
        "summary": explanation.summary,
        "evidence": explanation.evidence,
        "next_step": explanation.next_step,
    }


def report_view(repo: Repo | None, owed: Owed | None) -> dict[str, Any]:
    """Whether the forge was told: `none` (nobody is to be told), `told`, `owed`, or `refused` until something changes.

    `error` is why it was not told at the last of `tries`; `due_at_ms` when that is tried again.
    """
    if repo is None or not is_reported(repo):
        state = "none"
    else:
        state = "told" if owed is None else "refused" if owed.is_refused else "owed"
    return {
        "state": state,
        "error": owed.error if owed is not None else "",
        "tries": owed.tries if owed is not None else 0,
        "due_at_ms": owed.due_at_ms if state == "owed" and owed is not None else None,
    }


def plan_view(plan: Plan | None) -> dict[str, Any] | None:
    """The plan: what was chosen, and the reasons."""
    if plan is None:
        return None
    return {
        "source": plan.source,
        "base_sha": plan.base_sha,
        "changed_files_count": plan.changed_files_count,
        "reasons": plan.reasons,
        "advice": plan.advice,
        "jobs": [
            {
                "name": job.name,
                "needs": job.needs,
                "policy": job.policy,
                "is_skipped": job.is_skipped,
                "matrix": job.matrix,
                "reasons": job.reasons,
            }
            for job in plan.jobs
        ],
    }


def whole_plan(run: Run, plan: Plan) -> dict[str, Any]:
    """The plan as it is stored: `domain.reasons` reads the chain of each job from its `projects`."""
    return {"run_id": run.id, "digest": run.plan_digest, "plan": plan, "mermaid": mermaid(plan)}


def repo_view(repo: Repo) -> dict[str, Any]:
    """A repository, without its secrets."""
    return {
        "id": repo.id,
        "name": repo.name,
        "forge": repo.forge,
        "clone_url": repo.clone_url,
        "report_to": repo.report_to,
        "is_superseding": repo.is_superseding,
        "running_max": repo.running_max,
        "run_timeout_ms": repo.run_timeout_ms,
        "default_branch": repo.default_branch,
        "installation_id": repo.installation_id or None,
        "is_one_run_a_commit": repo.is_one_run_a_commit,
        "watched": repo.watched,
        "approval": repo.approval,
        "has_api_token": bool(repo.api_token),
        "has_previous_secret": bool(repo.previous_secret),
        "removed_because": repo.removed_because or None,
        "created_at_ms": repo.created_at_ms,
    }


def delivery_view(row: NumberedDelivery | Delivery, repo_name: str) -> dict[str, Any]:
    """A row of the ledger. `fate` is one of run, same_run, ignored, asked; `number` is missing for a row by its id."""
    one = row.delivery if isinstance(row, NumberedDelivery) else row
    if one.run_id is not None:
        fate = "same_run" if one.is_duplicate else "run"
    else:
        fate = "ignored" if one.request is None else "asked"
    return {
        "number": row.number if isinstance(row, NumberedDelivery) else None,
        "repo": repo_name,
        "repo_id": one.repo_id,
        "delivery_id": one.delivery_id,
        "event": one.event,
        "received_at_ms": one.received_at_ms,
        "fate": fate,
        "run_id": one.run_id,
        "ignored": one.ignored,
        "request": None if one.request is None else type(one.request).__name__,
        "asked": None if one.request is None else in_words(one.request),
        "outcome": one.outcome,
        "is_duplicate": one.is_duplicate,
    }


def recipe_view(recipe: Recipe) -> dict[str, Any]:
    """A version of a recipe, without its projects."""
    return {
        "version": recipe.version,
        "state": recipe.state,
        "reason": recipe.reason,
        "fingerprint": recipe.fingerprint,
        "projects_count": recipe.projects_count,
        "jobs_count": recipe.jobs_count,
        "made_by": recipe.made_by,
        "made_at_ms": recipe.made_at_ms,
        "confirmed_by": recipe.confirmed_by or None,
        "failed_by": recipe.failed_by or None,
        "at_ms": recipe.at_ms,
    }


def whole_recipe(kept: Kept) -> dict[str, Any]:
    """A version of a recipe with its projects: where each is, what it depends on, what it runs."""
    return {"recipe": recipe_view(kept.recipe), "projects": [project_view(one) for one in kept.blueprint.projects]}


def project_view(project: Project) -> dict[str, Any]:
    """A project of a recipe."""
    return {
        "ecosystem": project.ecosystem,
        "root": project.root,
        "manifest": project.manifest,
        "name": project.name,
        "tools": project.tools,
        "depends_on_names": sorted(project.depends_on_names),
        "depends_on_roots": sorted(project.depends_on_roots),
        "reads": sorted(project.reads),
        "lock": project.lock,
        "jobs": [
            {
                "check": job.check,
                "steps": [msgspec.structs.asdict(step) for step in job.steps],
                "env": job.env,
                "caches": [msgspec.structs.asdict(cache) for cache in job.caches],
                "artifacts": [msgspec.structs.asdict(artifact) for artifact in job.artifacts],
                "reports": job.reports,
            }
            for job in project.jobs
        ],
    }


def event_view(entry: JournalEntry) -> dict[str, Any]:
    """A journal entry of a run; the lease's hash stays inside."""
    data = msgspec.json.decode(entry.data) if entry.data else {}
    if isinstance(data, dict):
        data.pop("lease_hash", None)
    return {
        "id": entry.id,
        "entity_id": entry.entity_id,
        "sequence": entry.sequence,
        "type": entry.type,
        "at_ms": entry.at_ms,
        "cause": {"kind": entry.cause.kind, "id": entry.cause.id, "via": entry.cause.via},
        "data": data,
    }
