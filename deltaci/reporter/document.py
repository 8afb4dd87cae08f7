"""The result of a run as one JSON document: what plain git gets, where nobody shows checks. Pure."""

import hashlib
from collections.abc import Sequence

import msgspec

from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, Reason
from deltaci.domain.run import Run
from deltaci.reporter.desired import VERDICTS, own, run_url, why_of
from deltaci.store.writes import Explanation

DOCUMENT_VERSION = 1


class JobResult(msgspec.Struct, frozen=True, kw_only=True):
    """A job in the document. `attempts` counts them; `explanation` is the summary for the last one, if any."""

    name: str
    state: str
    end_reason: str | None
    is_required: bool
    attempts: int
    exit_code: int | None
    explanation: str | None
    category: str | None
    reasons: tuple[Reason, ...]


class Document(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its jobs, in the words of the API. `status` and `description` are what the run's check would say."""

    version: int
    run_id: str
    attempt: int
    sha: str
    ref: str
    pr_number: int | None
    state: str
    end_reason: str | None
    is_final: bool
    status: str
    description: str
    url: str
    created_at_ms: int
    ended_at_ms: int | None
    jobs: tuple[JobResult, ...]
    reasons: tuple[Reason, ...]


def document(
    run: Run, jobs: Sequence[Job], explanations: Sequence[Explanation], plan: Plan | None, base_url: str
) -> bytes:
    """The document, on one line; equal state gives equal bytes."""
    whys = {(one.job_id, one.attempt): one for one in explanations}
    reasons = {job.name: job.reasons for job in plan.jobs} if plan is not None else {}
    check = own(run, jobs, base_url)
    results = []
    for job in jobs:
        why = why_of(job, whys)
        results.append(
            JobResult(
                name=job.name,
                state=job.state,
                end_reason=job.end_reason,
                is_required=job.is_required,
                attempts=len(job.attempts),
                exit_code=job.attempts[-1].exit_code if job.attempts else None,
                explanation=why.summary if why is not None else None,
                category=why.category if why is not None else None,
                reasons=reasons.get(job.name, ()),
            )
        )
    return msgspec.json.encode(
        Document(
            version=DOCUMENT_VERSION,
            run_id=run.id,
            attempt=run.attempt,
            sha=run.trigger.commit_sha,
            ref=run.trigger.ref,
            pr_number=run.trigger.pr_number,
            state=run.state,
            end_reason=run.end_reason,
            is_final=run.state.is_final,
            status=VERDICTS[check.state],
            description=check.description,
            url=run_url(run, base_url),
            created_at_ms=run.created_at_ms,
            ended_at_ms=run.ended_at_ms,
            jobs=tuple(results),
            reasons=plan.reasons if plan is not None else (),
        )
    )


def document_digest(data: bytes) -> str:
    """Names the document."""
    return hashlib.sha256(data).hexdigest()
