"""When everything runs although it is known what changed."""

from typing import Any

import pytest

from deltaci.domain.plan import Plan
from deltaci.planner.occasion import Occasion
from tests.planner.memory_view import MemoryView, changed
from tests.planner.planned import planned

pytestmark = pytest.mark.anyio

JOBS = "jobs: {app: {steps: [t], paths: [src/**]}}\n"
PR = {"kind": "pull_request", "ref": "refs/pull/7/head"}
NOTHING_RUNS = None


async def plan_of(text: str | None, **occasion: Any) -> Plan:
    files = {"package.json": '{"scripts": {"test": "t"}}', "src/a.py": "", "README.md": ""}
    if text is not None:
        files["deltaci.yaml"] = "version: 1\n" + text + JOBS
    return planned(MemoryView(files), changed("README.md"), base_sha="b" * 40, occasion=Occasion(**occasion))


@pytest.mark.parametrize(
    ("text", "occasion", "why"),
    [
        ("full_run: {branches: [main]}\n", {"ref": "refs/heads/main"}, "on the branch main, which matches 'main'"),
        ("full_run: {branches: ['release/*']}\n", {"ref": "refs/heads/release/1"}, "release/1"),
        ("full_run: {branches: [main]}\n", {"ref": "refs/heads/main", "kind": "manual"}, "branch main"),
        ("full_run: {branches: [main]}\n", {"ref": "refs/heads/feature/main"}, NOTHING_RUNS),
        ("full_run: {branches: [main]}\n", {"ref": "refs/tags/main"}, NOTHING_RUNS),
        ("full_run: {branches: ['**']}\n", PR, NOTHING_RUNS),
        ("full_run: {labels: [everything]}\n", {**PR, "labels": ("bug", "everything")}, "the label 'everything'"),
        ("full_run: {labels: [everything]}\n", {**PR, "labels": ("full-ci",)}, NOTHING_RUNS),
        ("full_run: {labels: []}\n", {**PR, "labels": ("full-ci",)}, NOTHING_RUNS),
        ("full_run: {branches: [main]}\n", {**PR, "labels": ("full-ci",)}, "the label 'full-ci'"),
        ("", {**PR, "labels": ("full-ci",)}, "the label 'full-ci'"),
        ("", {**PR, "labels": ("bug",)}, NOTHING_RUNS),
        ("", {"kind": "schedule", "ref": "refs/heads/main"}, "a scheduled run"),
        ("full_run: {schedule: false}\n", {"kind": "schedule", "ref": "refs/heads/main"}, NOTHING_RUNS),
        (None, {**PR, "labels": ("full-ci",)}, "the label 'full-ci'"),
        (None, {"kind": "schedule", "ref": "refs/heads/main"}, "a scheduled run"),
        (None, PR, NOTHING_RUNS),
    ],
)
async def test_everything_runs_on_the_occasions_that_the_author_names(
    text: str | None, occasion: dict[str, Any], why: str | None
) -> None:
    """A branch, a label, a schedule; with the rule `full-run` for each job and for the plan."""
    plan = await plan_of(text, **occasion)

    reasons = [job.reasons[-1] for job in plan.jobs]
    assert {job.is_skipped for job in plan.jobs} == {why is None}
    assert all((reason.rule == "full-run") == (why is not None) for reason in (*reasons, plan.reasons[-1]))
    assert all((why or "") in reason.text for reason in reasons)


async def test_a_full_run_still_knows_what_changed() -> None:
    """The base and the count stay in the plan: it is no guess."""
    plan = await plan_of("full_run: {branches: [main]}\n", ref="refs/heads/main")

    assert (plan.base_sha, plan.changed_files_count) == ("b" * 40, 1)
