"""What people are told of the end of a run, and which of them: derived from committed state and nothing else. Pure.

Rule 1: a run that a newer commit made superfluous is no news.
Rule 2: what a repository or a log says stays one line of plain text.
"""

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

import msgspec

from deltaci.domain.job import Job
from deltaci.domain.plan import Happening, NotifyRule
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.forge.webhook import one_line
from deltaci.reporter.desired import REASONS, run_url, why_of
from deltaci.store.writes import Explanation

NAMED_JOBS_MAX: Final = 10
LINE_CHARACTERS_MAX: Final = 300
SHA_CHARACTERS: Final = 10

Kind: TypeAlias = Literal["success", "failure", "warning"]

_FAILED: Final = frozenset({RunState.FAILED, RunState.TIMED_OUT})
_FAILED_JOB: Final = frozenset({JobState.FAILED, JobState.TIMED_OUT})


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A title of one line, and a body of several; `kind` gives it a colour where there are colours."""

    title: str
    body: str
    kind: Kind


def happened(run: Run, before: Run | None) -> tuple[Happening, ...]:
    """What the end of `run` is, the most telling first; nothing for a run that is not over, or superseded.

    Args:
        before: the run before it on the same branch or pull request that succeeded, failed or timed out.
    """
    if run.state in _FAILED:
        return ("failed",)
    if run.state is RunState.CANCELED and run.end_reason is not EndReason.SUPERSEDED:
        return ("canceled",)
    if run.state is RunState.SUCCEEDED:
        return ("recovered", "succeeded") if before is not None and before.state in _FAILED else ("succeeded",)
    return ()


def channels(rules: Sequence[NotifyRule], happenings: Sequence[Happening]) -> tuple[str, ...]:
    """The channels that are told, each once, in the order of the rules."""
    told = (rule.channel for rule in rules if any(one in rule.on for one in happenings))
    return tuple(dict.fromkeys(told))


def failed_jobs(jobs: Sequence[Job]) -> tuple[Job, ...]:
    """The jobs that did not succeed by their own doing, those that hold the change back first."""
    failed = [job for job in jobs if job.state in _FAILED_JOB]
    return tuple(sorted(failed, key=lambda job: not job.is_required))


def unexplained(jobs: Sequence[Job], explanations: Sequence[Explanation]) -> bool:
    """Whether a failed job is still to be explained."""
    whys = {(one.job_id, one.attempt): one for one in explanations}
    return any(why_of(job, whys) is None for job in failed_jobs(jobs) if job.attempts)


def message(
    run: Run,
    jobs: Sequence[Job],
    explanations: Sequence[Explanation],
    repo: Repo,
    happening: Happening,
    base_url: str,
) -> Message:
    """What is said of the end of `run`.

    Args:
        jobs: all jobs of the run in the order of its plan.
        happening: the most telling of what happened.
        base_url: where people find this server.
    """
    whys = {(one.job_id, one.attempt): one for one in explanations}
    failed = failed_jobs(jobs)
    lines = [_headline(run, failed, len(jobs), happening)]
    for job in failed[:NAMED_JOBS_MAX]:
        lines += _of_job(job, why_of(job, whys))
    if len(failed) > NAMED_JOBS_MAX:
        lines.append(f"- and {len(failed) - NAMED_JOBS_MAX} more")
    lines.append(_commit(run))
    lines.append(run_url(run, base_url))
    return Message(
        title=_line(f"{repo.name} {_subject(run)}: {happening.upper()}"),
        body="\n".join(lines),
        kind="failure" if happening == "failed" else "warning" if happening == "canceled" else "success",
    )


def _headline(run: Run, failed: Sequence[Job], count: int, happening: Happening) -> str:
    if happening == "canceled":
        return _line(f"The run was canceled: {run.text or 'no reason is known'}")
    allowed = sum(not job.is_required for job in failed)
    if happening == "failed":
        what = f"{len(failed) - allowed} of {count} jobs failed"
        return f"The run took longer than it may; {what}." if run.end_reason is EndReason.RUN_TIMEOUT else f"{what}."
    may = f"; {allowed} that may fail did" if allowed else ""
    if happening == "recovered":
        return f"The run succeeded, the one before it had not{may}."
    return f"The run succeeded{may}."


def _of_job(job: Job, why: Explanation | None) -> list[str]:
    reason = REASONS.get(job.end_reason, "") if job.end_reason is not None else ""
    summary = why.summary if why is not None and why.summary else reason
    may = "" if job.is_required else " (may fail)"
    lines = [_line(f"- {job.name}{may}: {summary}")]
    if why is not None and why.next_step:
        lines.append("  " + _line(f"next: {why.next_step}"))
    return lines


def _subject(run: Run) -> str:
    trigger = run.trigger
    if trigger.pr_number is not None:
        return f"#{trigger.pr_number}"
    return trigger.ref.removeprefix("refs/heads/").removeprefix("refs/tags/") or run.key.commit_sha[:SHA_CHARACTERS]


def _commit(run: Run) -> str:
    title = f" {run.trigger.title}" if run.trigger.title else ""
    author = f" ({run.trigger.author})" if run.trigger.author else ""
    return _line(f"commit {run.key.commit_sha[:SHA_CHARACTERS]}{title}{author}")


def _line(text: str) -> str:
    return one_line(text, LINE_CHARACTERS_MAX)
