"""What is said of the end of a run, and to whom."""

import pytest

from deltaci.domain.events import Trigger
from deltaci.domain.plan import NotifyRule
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, RunState
from deltaci.notifier.message import channels, happened, message, unexplained
from deltaci.store.writes import Explanation
from tests.reporter.runs import SHA, a_run, an_explanation, failed, succeeded

REPO = Repo(id="repo_1", name="shop", forge="git", clone_url="", secret="s", created_at_ms=0)
FAILED = a_run(RunState.FAILED, EndReason.JOBS_FAILED)
LATE = a_run(RunState.TIMED_OUT, EndReason.RUN_TIMEOUT)
SUCCEEDED = a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED)
CANCELED = a_run(RunState.CANCELED, EndReason.USER_CANCELED, text="canceled by ann")
SUPERSEDED = a_run(RunState.CANCELED, EndReason.SUPERSEDED)


@pytest.mark.parametrize(
    ("run", "before", "expected"),
    [
        (FAILED, None, ("failed",)),
        (FAILED, FAILED, ("failed",)),
        (LATE, SUCCEEDED, ("failed",)),
        (SUCCEEDED, None, ("succeeded",)),
        (SUCCEEDED, SUCCEEDED, ("succeeded",)),
        (SUCCEEDED, FAILED, ("recovered", "succeeded")),
        (SUCCEEDED, LATE, ("recovered", "succeeded")),
        (CANCELED, FAILED, ("canceled",)),
        (SUPERSEDED, FAILED, ()),
        (a_run(), FAILED, ()),
    ],
)
def test_how_a_run_ended_is_seen_with_the_one_before_it(
    run: Run, before: Run | None, expected: tuple[str, ...]
) -> None:
    """Superseded is no news: the newer run will tell."""
    assert expected == happened(run, before)


def test_a_channel_is_told_once_whatever_names_it() -> None:
    """In the order of the rules."""
    rules = (
        NotifyRule(channel="all", on=("succeeded",)),
        NotifyRule(channel="ops", on=("failed", "recovered")),
        NotifyRule(channel="all", on=("recovered", "failed")),
    )

    assert channels(rules, ("recovered", "succeeded")) == ("all", "ops")
    assert channels(rules, ("failed",)) == ("ops", "all")
    assert channels(rules, ("canceled",)) == ()


def test_a_failure_is_told_with_what_failed_why_and_what_to_do() -> None:
    """Those that hold the change back first; of what a log says, one line."""
    lint, test = failed("lint", is_required=False), failed("test")
    whys: list[Explanation] = [an_explanation(lint, "1 file\nwould change\x1b[0m"), an_explanation(test, "1 of 9")]
    trigger = Trigger(kind="push", ref="refs/heads/main", commit_sha=SHA, title="Mend\nit", author="ann")
    run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, trigger=trigger)

    told = message(run, (succeeded(), lint, test), whys, REPO, "failed", "https://ci.example.org/")

    assert (told.title, told.kind) == ("shop main: FAILED", "failure")
    assert told.body.splitlines() == [
        "1 of 3 jobs failed.",
        "- test: 1 of 9",
        "- lint (may fail): 1 file",
        f"commit {SHA[:10]} Mend",
        "https://ci.example.org/runs/run_x",
    ]


def test_the_next_step_is_told_and_of_many_failures_the_first() -> None:
    """A message is read on a telephone."""
    jobs = [failed(f"test-{number}") for number in range(12)]
    why = Explanation(
        job_id=jobs[0].id,
        attempt=1,
        category="user.test",
        confidence=1,
        summary="it broke",
        evidence=(),
        next_step="mend it",
        at_ms=0,
    )

    lines = message(FAILED, jobs, [why], REPO, "failed", "").body.splitlines()

    assert lines[:3] == ["12 of 12 jobs failed.", "- test-0: it broke", "  next: mend it"]
    assert lines[3] == "- test-1: a step failed"
    assert "- and 2 more" in lines


def test_other_ends_have_words_of_their_own() -> None:
    """A pull request is called by its number."""
    trigger = Trigger(kind="pull_request", ref="refs/pull/7/head", commit_sha=SHA, pr_number=7)
    pull_request = a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED, trigger=trigger)

    recovered = message(pull_request, (failed(is_required=False),), (), REPO, "recovered", "")
    canceled = message(CANCELED, (), (), REPO, "canceled", "")
    late = message(LATE, (), (), REPO, "failed", "")

    assert (recovered.title, recovered.kind) == ("shop #7: RECOVERED", "success")
    assert recovered.body.startswith("The run succeeded, the one before it had not; 1 that may fail did.")
    assert (canceled.title, canceled.kind) == ("shop #12: CANCELED", "warning")
    assert canceled.body.startswith("The run was canceled: canceled by ann")
    assert late.body.startswith("The run took longer than it may; ")


def test_a_failure_without_its_explanation_can_be_seen() -> None:
    """The analysis runs beside the run's end."""
    job = failed()

    assert unexplained((job, succeeded("lint")), ())
    assert not unexplained((job, succeeded("lint")), (an_explanation(job, "why"),))
