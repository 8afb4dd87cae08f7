"""What the end of a run does to the recipes of its repository."""

from typing import Any

import msgspec
import pytest

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.job import Job
from deltaci.domain.recipe import Change, Recipe, RecipeState, after_run, has_a_say
from deltaci.domain.run import CancelIntent, Run
from deltaci.domain.states import EndReason, JobState, RunState
from tests.builders import NOW_MS, a_job, a_project, a_repo, a_run, a_run_id, a_trigger

USED = Blueprint(fingerprint="f1", projects=(a_project(),))
OTHER = Blueprint(fingerprint="f2", projects=(a_project("web"),))
REASONS = {RunState.SUCCEEDED: EndReason.SUCCEEDED, RunState.TIMED_OUT: EndReason.JOB_TIMEOUT}


def an_ended(state: RunState, number: int = 1, **more: Any) -> Run:
    """A run that ended."""
    values = {"state": state, "end_reason": REASONS.get(state, EndReason.JOBS_FAILED)} | more
    return msgspec.structs.replace(a_run(number), **values)


def a_job_in(state: JobState, reason: EndReason) -> Job:
    """A job that ended."""
    return msgspec.structs.replace(a_job(), state=state, end_reason=reason)


GOOD = (a_job_in(JobState.SUCCEEDED, EndReason.SUCCEEDED),)
BAD = (a_job_in(JobState.FAILED, EndReason.STEP_FAILED),)


def told(run: Run, jobs: tuple[Job, ...], used: Blueprint, latest: Recipe | None) -> Change | None:
    return after_run(run, jobs, used, latest, now_ms=NOW_MS)


def made(number: int = 1, used: Blueprint = USED, latest: Recipe | None = None) -> Recipe:
    """The recipe that a successful run makes."""
    change = told(an_ended(RunState.SUCCEEDED, number), GOOD, used, latest)
    assert change is not None
    return change.recipes[-1]


def from_recipe(version: int = 1, blueprint: Blueprint = USED) -> Blueprint:
    """What a run used that was planned from a recipe."""
    return msgspec.structs.replace(blueprint, recipe=version)


def test_the_first_success_makes_version_one() -> None:
    """With the projects and the fingerprint that it was planned from, and the run that proved them."""
    change = told(an_ended(RunState.SUCCEEDED), GOOD, USED, None)

    assert change is not None
    (recipe,) = change.recipes
    assert (change.what, change.blueprint) == ("RecipeKept", USED)
    assert (1, 1, RecipeState.ACTIVE, a_run_id(), "f1") == (
        recipe.version,
        recipe.revision,
        recipe.state,
        recipe.made_by,
        recipe.fingerprint,
    )
    assert (recipe.projects_count, recipe.jobs_count) == (1, 1)


@pytest.mark.parametrize("used", [USED, from_recipe()])
def test_the_same_again_confirms_the_version(used: Blueprint) -> None:
    """Whether it was discovered anew or planned from the recipe itself."""
    latest = made()

    change = told(an_ended(RunState.SUCCEEDED, 2), GOOD, used, latest)

    expected = msgspec.structs.replace(
        latest, confirmed_by=a_run_id(2), last_run_id=a_run_id(2), at_ms=NOW_MS, revision=2
    )
    assert Change("RecipeConfirmed", (expected,)) == change


@pytest.mark.parametrize(
    "used", [OTHER, Blueprint(fingerprint="f2", projects=USED.projects), Blueprint(fingerprint="f1")]
)
def test_other_projects_or_another_fingerprint_make_the_next_version(used: Blueprint) -> None:
    """And the one before is not used again."""
    latest = made()

    change = told(an_ended(RunState.SUCCEEDED, 2), GOOD, used, latest)

    assert change is not None
    assert [(one.version, one.state, one.revision) for one in change.recipes] == [(1, "STALE", 2), (2, "ACTIVE", 1)]
    assert "version 2" in change.recipes[0].reason
    assert change.blueprint == used


@pytest.mark.parametrize(
    ("state", "jobs"),
    [
        (RunState.FAILED, (*GOOD, *BAD)),
        (RunState.TIMED_OUT, (a_job_in(JobState.TIMED_OUT, EndReason.JOB_TIMEOUT),)),
    ],
)
def test_a_failure_of_its_jobs_marks_the_recipe_that_was_used(state: RunState, jobs: tuple[Job, ...]) -> None:
    """With the job and the run in the reason."""
    latest = made()

    change = told(an_ended(state, 2), jobs, from_recipe(), latest)

    assert change is not None
    (recipe,) = change.recipes
    assert ("RecipeStale", RecipeState.STALE, a_run_id(2)) == (change.what, recipe.state, recipe.failed_by)
    assert jobs[-1].name in recipe.reason
    assert a_run_id(2) in recipe.reason


def test_a_stale_version_that_works_again_is_active_again() -> None:
    """Discovered afresh and found to be the same: the failure was the commit's, not the recipe's."""
    change = told(an_ended(RunState.FAILED, 2), BAD, from_recipe(), made())
    assert change is not None

    again = made(3, USED, change.recipes[0])

    assert (
        again.version,
        again.state,
        again.reason,
        again.failed_by,
        again.revision,
    ) == (1, RecipeState.ACTIVE, "", "", 3)


@pytest.mark.parametrize(
    ("run", "jobs", "used"),
    [
        (an_ended(RunState.FAILED, 2), (a_job_in(JobState.FAILED, EndReason.RUNNER_LOST),), from_recipe()),
        (an_ended(RunState.FAILED, 2), (a_job_in(JobState.FAILED, EndReason.CHECKOUT_FAILED),), from_recipe()),
        (an_ended(RunState.CANCELED, 2, end_reason=EndReason.SUPERSEDED), BAD, from_recipe()),
        (an_ended(RunState.CANCELED, 2, end_reason=EndReason.USER_CANCELED), GOOD, from_recipe()),
        (
            an_ended(RunState.TIMED_OUT, 2, cancel=CancelIntent(EndReason.RUN_TIMEOUT, 1)),
            (a_job_in(JobState.TIMED_OUT, EndReason.JOB_TIMEOUT),),
            from_recipe(),
        ),
        (an_ended(RunState.FAILED, 2), BAD, USED),
        (an_ended(RunState.FAILED, 2), BAD, from_recipe(7)),
        (an_ended(RunState.SUCCEEDED, 2), (a_job_in(JobState.SKIPPED, EndReason.NOT_AFFECTED),), OTHER),
        (an_ended(RunState.SUCCEEDED, 2, end_reason=EndReason.NOTHING_TO_RUN), (), OTHER),
        (an_ended(RunState.SUCCEEDED, 1), GOOD, OTHER),
        (an_ended(RunState.FAILED, 0), BAD, from_recipe()),
    ],
    ids=(
        *("lost", "checkout", "superseded", "stopped", "run-timeout"),
        *("discovered", "forgotten", "skipped", "empty", "told-again", "older"),
    ),
)
def test_what_proves_nothing_changes_nothing(run: Run, jobs: tuple[Job, ...], used: Blueprint) -> None:
    """Neither what runners and people did, nor a run that ran nothing, nor one that spoke before or is older."""
    assert told(run, jobs, used, made()) is None


def test_a_stale_version_is_not_marked_twice() -> None:
    """The first reason stays."""
    change = told(an_ended(RunState.FAILED, 2), BAD, from_recipe(), made())
    assert change is not None

    assert told(an_ended(RunState.FAILED, 3), BAD, from_recipe(), change.recipes[0]) is None


@pytest.mark.parametrize(
    ("trigger", "expected"),
    [
        ({}, True),
        ({"is_fork": True}, False),
        ({"ref": "refs/heads/feature"}, False),
        ({"ref": "refs/tags/main"}, False),
        ({"kind": "manual"}, False),
        ({"kind": "pull_request", "pr_number": 7}, False),
    ],
)
def test_only_a_push_to_the_default_branch_has_a_say(trigger: dict[str, Any], expected: bool) -> None:
    """What others use must not hang on what somebody proposes."""
    assert has_a_say(a_trigger(**trigger), a_repo()) is expected


def test_a_recipe_without_a_reason_is_not_stale() -> None:
    """And one with a reason is not used."""
    with pytest.raises(ValueError, match="STALE with reason ''"):
        msgspec.structs.replace(made(), state=RecipeState.STALE)
