"""What a run and a job say of themselves at length, in markdown: below a check, and in the comment. Pure.

Rule 1: what matters most comes first, because what does not fit is cut from the end.
Rule 2: words of others go through `markdown`; this file writes the markup around them.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from deltaci.domain.job import Job
from deltaci.domain.plan import Plan, PlannedJob
from deltaci.domain.run import Run
from deltaci.domain.script import Reason
from deltaci.domain.states import JobState
from deltaci.reporter.desired import Check, has_failed, job_url, reason_of, run_url, took, why_of
from deltaci.reporter.markdown import block, cell, code, joined, link, words
from deltaci.store.writes import Explanation

# GitHub takes 65,535 characters; in bytes it is never too long
SUMMARY_BYTES_MAX: Final = 65_535
COMMENT_BYTES_MAX: Final = 30_000
COMMENT_FAILURES_MAX: Final = 5
FAILURES_MAX: Final = 20
ROWS_MAX: Final = 400
REASONS_MAX: Final = 10

_WORDS: Final[Mapping[str, str]] = {
    "queued": "waiting",
    "running": "running",
    "success": "✅ succeeded",
    "neutral": "⚠️ failed, which is allowed",
    "skipped": "⏭️ skipped",
    "failure": "❌ failed",
    "timed_out": "❌ timed out",
    "error": "❌ failed, not by the change",
    "canceled": "⏹️ canceled",
}
# In this order the table has them
_ORDER: Final = ("failure", "timed_out", "error", "canceled", "neutral", "running", "queued", "success", "skipped")


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to tell of a run. `checks` as in `desired`: one a job, in the order of `jobs`, then the run's."""

    run: Run
    jobs: tuple[Job, ...]
    checks: tuple[Check, ...]
    explanations: tuple[Explanation, ...]
    plan: Plan | None
    base_url: str

    def whys(self) -> dict[tuple[str, int], Explanation]:
        """The explanations by job and attempt."""
        return {(one.job_id, one.attempt): one for one in self.explanations}

    def planned(self) -> dict[str, PlannedJob]:
        """The jobs of the plan by name."""
        return {one.name: one for one in self.plan.jobs} if self.plan is not None else {}


def of_run(shown: Shown) -> str:
    """Below the check of a run: what failed and why, all jobs, and why these."""
    run, own = shown.run, shown.checks[-1]
    parts = [f"**{words(own.description)}**", *_failures(shown, FAILURES_MAX)]
    if shown.jobs:
        parts.append(_table(shown))
    parts += _of_plan(shown.plan)
    facts = [f"Run {link(run.id, run_url(run, shown.base_url))}"]
    if run.attempt > 1:
        facts.append(f"attempt {run.attempt}")
    parts.append(", ".join(facts) + ".")
    return joined(parts, SUMMARY_BYTES_MAX, f"There is more at {link(run.id, run_url(run, shown.base_url))}.")


def of_job(shown: Shown, number: int, why: Explanation | None, planned: PlannedJob | None) -> str:
    """Below the check of the job `shown.jobs[number]`."""
    job, check = shown.jobs[number], shown.checks[number]
    url = job_url(shown.run, job, shown.base_url)
    parts = [f"**{words(check.description)}**"]
    if why is not None and check.state not in ("success", "skipped"):
        parts += _explained(why)
    if planned is not None and planned.reasons:
        parts.append("\n".join(["Why it is in the plan:" if not planned.is_skipped else "Why it is skipped:", ""]))
        parts[-1] += "\n" + _list(planned.reasons)
    if not job.is_required:
        parts.append("It is allowed to fail.")
    if len(job.attempts) > 1:
        parts.append(_attempts(job))
    parts.append(f"Log and artifacts: {link(job.name, url)}.")
    return joined(parts, SUMMARY_BYTES_MAX, f"There is more at {link(job.name, url)}.")


def of_comment(shown: Shown, marker: str) -> str:
    """The one comment at a pull request, with the hidden line that it is found by."""
    run, own = shown.run, shown.checks[-1]
    sign = {"success": "✅", "canceled": "⏹️"}.get(own.state, "❌")
    head = f"{marker}\n{sign} **Delta CI: {words(own.description)}**"
    where = f"Commit {code(run.trigger.commit_sha[:12])}, run {link(run.id, run_url(run, shown.base_url))}"
    where += f", attempt {run.attempt}." if run.attempt > 1 else "."
    failed = _failures(shown, COMMENT_FAILURES_MAX)
    more = f"There is more at {link(run.id, run_url(run, shown.base_url))}."
    return joined([head, *failed, where], COMMENT_BYTES_MAX, more)


# ---- parts -------------------------------------------------------------------------------------------------------


def _failures(shown: Shown, failures_max: int) -> list[str]:
    """A section for each job that the run failed by; the explained ones first."""
    whys = shown.whys()
    failed = [(job, why_of(job, whys)) for job in shown.jobs if has_failed(job)]
    failed.sort(key=lambda one: one[1] is None)
    descriptions = {check.name: check.description for check in shown.checks}
    parts = []
    for job, why in failed[:failures_max]:
        section = [f"### {link(job.name, job_url(shown.run, job, shown.base_url))}"]
        section += _explained(why) if why is not None else [words(descriptions[job.name])]
        parts.append("\n\n".join(section))
    if len(failed) > failures_max:
        parts.append(f"{len(failed) - failures_max} more jobs failed.")
    return parts


def _explained(why: Explanation) -> list[str]:
    parts = [f"{words(why.summary)} ({code(why.category)}, {round(why.confidence * 100)} % sure)"]
    if why.evidence:
        parts.append(block(why.evidence))
    if why.next_step:
        parts.append(f"Next: {words(why.next_step)}")
    return parts


def _table(shown: Shown) -> str:
    whys = shown.whys()
    planned = shown.planned()
    rows = sorted(zip(shown.jobs, shown.checks, strict=False), key=lambda row: _ORDER.index(row[1].state))
    lines = ["| Job | Result | Took | Why |", "| --- | --- | --- | --- |"]
    for job, check in rows[:ROWS_MAX]:
        about = words(_about(job, check, why_of(job, whys), planned.get(job.name)), 120)
        lines.append(f"| {cell(job.name, 100)} | {_result(job, check)} | {took(job)} | {about} |")
    if len(rows) > ROWS_MAX:
        lines.append(f"| {len(rows) - ROWS_MAX} more | | | |")
    return "\n".join(lines)


def _result(job: Job, check: Check) -> str:
    if job.state is JobState.SKIPPED and check.state != "skipped":
        return "⚠️ never ran, which is allowed" if check.state == "neutral" else "❌ never ran"
    return _WORDS[check.state]


def _about(job: Job, check: Check, why: Explanation | None, planned: PlannedJob | None) -> str:
    """Half a sentence: why it did not succeed, else why it is in the plan."""
    if check.is_final and check.state not in ("success", "skipped"):
        return why.summary if why is not None else reason_of(job)
    return planned.reasons[-1].text if planned is not None and planned.reasons else ""


def _of_plan(plan: Plan | None) -> list[str]:
    if plan is None:
        return []
    files = plan.changed_files_count
    changed = "" if files is None else f", {files} file{'' if files == 1 else 's'} changed"
    base = f" since {code(plan.base_sha[:12])}" if plan.base_sha else ", everything"
    head = f"Planned from {plan.source}{base}{changed}."
    return [head, _list(plan.reasons)] if plan.reasons else [head]


def _list(reasons: Sequence[Reason]) -> str:
    lines = []
    for reason in reasons[:REASONS_MAX]:
        file = f" ({code(reason.file)})" if reason.file else ""
        lines.append(f"- {code(reason.rule)}: {words(reason.text, 300)}{file}")
    if len(reasons) > REASONS_MAX:
        lines.append(f"- and {len(reasons) - REASONS_MAX} more")
    return "\n".join(lines)


def _attempts(job: Job) -> str:
    lines = [f"{len(job.attempts)} attempts:", ""]
    for attempt in job.attempts[-REASONS_MAX:]:
        reason = f", {code(attempt.end_reason)}" if attempt.end_reason is not None else ""
        lines.append(f"{attempt.number}. {code(attempt.state)}{reason}")
    return "\n".join(lines)
