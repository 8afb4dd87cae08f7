"""A new run attempt: what runs again, what is carried over."""

from typing import Any

import pytest

from deltaci.domain.plan import Plan, PlannedJob, Reason
from deltaci.domain.rerun import CARRIED_OVER_RULE, plan_again
from deltaci.domain.states import JobState

WHY = Reason(rule="touched", text="src/a.py changed", file="src/a.py")


def _job(name: str, *needs: str, is_skipped: bool = False) -> PlannedJob:
    return PlannedJob(name=name, steps=(), needs=needs, is_skipped=is_skipped, reasons=(WHY,))


def _plan(*jobs: PlannedJob) -> Plan:
    return Plan(commit_sha="c0ffee", base_sha=None, source="discovery", jobs=jobs)


def _skipped(plan: Plan) -> dict[str, bool]:
    return {job.name: job.is_skipped for job in plan.jobs}


def _again(plan: Plan, *, failed_only: bool = True, earlier_attempt: int = 1, **states: JobState) -> Plan:
    return plan_again(plan, states, failed_only=failed_only, earlier_attempt=earlier_attempt)


def test_a_full_rerun_of_a_first_attempt_is_the_same_plan() -> None:
    """The same commit, the same plan: only the attempt is new."""
    plan = _plan(_job("build"), _job("docs", is_skipped=True))

    assert _again(plan, failed_only=False, build=JobState.FAILED, docs=JobState.SKIPPED) == plan


def test_a_full_rerun_after_a_partial_one_runs_the_carried_over_jobs_too() -> None:
    """ "Everything" is what the first attempt was asked for, not what the second one happened to repeat."""
    plan = _plan(_job("lint"), _job("test"), _job("docs", is_skipped=True))
    states: dict[str, Any] = {"lint": JobState.SUCCEEDED, "test": JobState.FAILED, "docs": JobState.SKIPPED}
    second = _again(plan, **states)

    third = _again(second, failed_only=False, earlier_attempt=2, lint=JobState.SKIPPED, test=JobState.SUCCEEDED)

    assert third == plan


def test_a_partial_rerun_carries_over_what_succeeded_with_the_reason() -> None:
    """The check of a carried-over job is reported again as success, and says from where."""
    plan = _plan(_job("lint"), _job("test"))

    again = _again(plan, lint=JobState.SUCCEEDED, test=JobState.FAILED)

    assert _skipped(again) == {"lint": True, "test": False}
    assert again.jobs[0].reasons == (WHY, Reason(rule=CARRIED_OVER_RULE, text="succeeded in run attempt 1"))


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELED, JobState.SKIPPED])
def test_a_partial_rerun_repeats_whatever_did_not_succeed(state: JobState) -> None:
    """SKIPPED here is a job whose need failed: the plan itself did not skip it."""
    again = _again(_plan(_job("test")), test=state)

    assert _skipped(again) == {"test": False}


def test_a_partial_rerun_repeats_all_that_depends_on_what_it_repeats() -> None:
    """A success was made from the former result of its need: with a new one it proves nothing."""
    plan = _plan(
        _job("lint"), _job("flaky"), _job("test", "flaky"), _job("deploy", "test", "lint"), _job("docs", "lint")
    )
    states: dict[str, Any] = dict.fromkeys(("lint", "test", "deploy", "docs"), JobState.SUCCEEDED)

    again = _again(plan, flaky=JobState.FAILED, **states)

    assert _skipped(again) == {"lint": True, "flaky": False, "test": False, "deploy": False, "docs": True}


def test_a_job_that_the_plan_skipped_stays_skipped_for_its_own_reason() -> None:
    """Nothing it covers changed: a rerun of the same commit does not change that."""
    plan = _plan(_job("test"), _job("docs", "test", is_skipped=True))

    again = _again(plan, test=JobState.FAILED, docs=JobState.SKIPPED)

    assert again.jobs[1] == plan.jobs[1]


def test_a_second_partial_rerun_keeps_where_a_job_succeeded_first() -> None:
    """Carried over twice, run once: the reason names the attempt that really ran it."""
    plan = _plan(_job("lint"), _job("test"))
    second = _again(plan, lint=JobState.SUCCEEDED, test=JobState.FAILED)

    third = _again(second, earlier_attempt=2, lint=JobState.SKIPPED, test=JobState.FAILED)

    assert third == second
