"""What a forge should show, state by state."""

import msgspec
import pytest

from deltaci.domain.job import Job
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.reporter.desired import (
    CONTEXT_CHARACTERS_MAX,
    LIVE_JOBS_MAX,
    REASONS,
    Check,
    context,
    desired,
    digest,
)
from deltaci.reporter.document import document
from tests.reporter.runs import RUN_ID, SHA, a_job, a_plan, a_run, an_explanation, failed, refs, succeeded

URL = "https://ci.example.com"


def of_job(job: Job, **given: object) -> Check:
    explanations = given.get("explanations", ())
    return desired(a_run(), [job], explanations, given.get("plan"), URL)[0]  # type: ignore[arg-type]


def of_run(run: Run, *jobs: Job) -> Check:
    return desired(run, jobs, (), None, URL)[-1]


def test_each_job_has_a_check_and_the_run_has_the_last_one() -> None:
    """Whoever waits for the run finds all others settled; the address leads to the job."""
    checks = desired(a_run(), [a_job("lint"), a_job("test")], (), None, URL + "/")

    assert [check.context for check in checks] == ["deltaci/lint", "deltaci/test", "deltaci"]
    assert [f"{URL}/runs/{RUN_ID}#job_x_lint", f"{URL}/runs/{RUN_ID}#job_x_test", f"{URL}/runs/{RUN_ID}"] == [
        check.target_url for check in checks
    ]


SUPERSEDED = EndReason.SUPERSEDED
JOBS: tuple[tuple[Job, str, str], ...] = (
    (a_job(state=JobState.BLOCKED, attempts=0), "pending", "Waiting"),
    (a_job(state=JobState.QUEUED), "pending", "Waiting"),
    (a_job(state=JobState.RUNNING), "pending", "Running"),
    (a_job(state=JobState.CANCEL_REQUESTED), "pending", "Being canceled"),
    (succeeded(), "success", "Succeeded in 1 min 5 s"),
    (succeeded(took_ms=999), "success", "Succeeded in 0 s"),
    (failed(), "failure", "Failed in 1 min 5 s: a step failed"),
    (failed(is_required=False), "success", "Failed in 1 min 5 s, which is allowed: a step failed"),
    (failed(reason=EndReason.RUNNER_LOST), "error", "Failed in 1 min 5 s: the runner was lost"),
    (
        failed(reason=EndReason.CHECKOUT_FAILED, took_ms=1_000),
        "error",
        "Failed in 1 s: the commit could not be fetched",
    ),
    (
        a_job(state=JobState.TIMED_OUT, reason=EndReason.JOB_TIMEOUT),
        "failure",
        "Timed out in 1 min 5 s: the job took longer than it may",
    ),
    (
        a_job(state=JobState.TIMED_OUT, reason=EndReason.JOB_TIMEOUT, is_required=False, attempts=0),
        "success",
        "Timed out, which is allowed: the job took longer than it may",
    ),
    (
        a_job(state=JobState.CANCELED, reason=SUPERSEDED, attempts=0),
        "error",
        "Canceled: superseded by a newer commit",
    ),
    (
        a_job(state=JobState.CANCELED, reason=SUPERSEDED, attempts=0, is_required=False),
        "error",
        "Canceled: superseded by a newer commit",
    ),
    (
        a_job(state=JobState.SKIPPED, reason=EndReason.NOT_AFFECTED, attempts=0),
        "success",
        "Skipped: nothing it covers changed",
    ),
    (
        a_job(state=JobState.SKIPPED, reason=EndReason.NEEDS_FAILED, attempts=0, end_detail="build"),
        "failure",
        "Never ran: a job it needs did not succeed (build)",
    ),
    (
        a_job(state=JobState.SKIPPED, reason=EndReason.NEEDS_FAILED, attempts=0, is_required=False),
        "success",
        "Never ran, which is allowed: a job it needs did not succeed",
    ),
)


@pytest.mark.parametrize(("job", "state", "description"), JOBS)
def test_a_job_is_shown_as_it_is(job: Job, state: str, description: str) -> None:
    """Green if and only if it does not hold the change back; the text tells the rest."""
    check = of_job(job)

    assert (state, description) == (check.state, check.description)


def test_a_failed_job_says_why_its_last_attempt_failed() -> None:
    """People should not have to open a log to learn that a test failed."""
    job = failed(attempts=1)
    old, new = an_explanation(job, "first"), an_explanation(job, "Test a::b failed.", attempt=2)
    twice = msgspec.structs.replace(job, attempts=(*job.attempts, msgspec.structs.replace(job.attempts[0], number=2)))

    check = of_job(twice, explanations=(new, old))

    assert check.description == "Failed in 1 min 5 s, attempt 2: Test a::b failed."


def test_a_skipped_job_gives_the_reason_of_the_plan() -> None:
    """It names what was looked at."""
    job = a_job("docs", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0)

    check = of_job(job, plan=a_plan(docs="no file below docs/ changed"))

    assert check.description == "Skipped: no file below docs/ changed"


ALL = (succeeded("a"), succeeded("b"), a_job("c", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0))
RUNS: tuple[tuple[Run, tuple[Job, ...], str, str], ...] = (
    (a_run(RunState.CREATED), (), "pending", "Planning what must run"),
    (a_run(RunState.CREATED, hold="approval"), (), "pending", "Waits for approval"),
    (
        a_run(RunState.CREATED, hold="approval", approved_by="alice", approved_at_ms=1),
        (),
        "pending",
        "Planning what must run",
    ),
    (a_run(RunState.PLANNING), (), "pending", "Planning what must run"),
    (a_run(RunState.QUEUED), (a_job(),), "pending", "Waiting for a runner"),
    (a_run(RunState.RUNNING), (a_job(),), "pending", "Running"),
    (a_run(RunState.CANCEL_REQUESTED), (a_job(),), "pending", "Being canceled"),
    (a_run(RunState.SUCCEEDED, EndReason.NOTHING_TO_RUN), (), "success", "Nothing to run"),
    (a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED), (succeeded(),), "success", "1 job succeeded"),
    (
        a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED),
        (*ALL, failed("d", is_required=False)),
        "success",
        "2 jobs succeeded, 1 skipped, 1 failed (allowed)",
    ),
    (a_run(RunState.FAILED, EndReason.JOBS_FAILED), (succeeded("a"), failed("b")), "failure", "Failed: b"),
    (
        a_run(RunState.FAILED, EndReason.JOBS_FAILED),
        tuple(failed(name) for name in "abcde"),
        "failure",
        "Failed: a, b, c and 2 more",
    ),
    (
        a_run(RunState.FAILED, EndReason.JOBS_FAILED),
        (failed("a", EndReason.RUNNER_LOST), failed("b", is_required=False)),
        "error",
        "Failed: a",
    ),
    (
        a_run(RunState.FAILED, EndReason.JOBS_FAILED),
        (failed("a", EndReason.RUNNER_LOST), failed("b")),
        "failure",
        "Failed: a, b",
    ),
    (
        a_run(RunState.FAILED, EndReason.PLAN_FAILED, text="ci.yml:3: no steps"),
        (),
        "failure",
        "No plan: ci.yml:3: no steps",
    ),
    (
        a_run(RunState.TIMED_OUT, EndReason.JOB_TIMEOUT),
        (a_job("slow", JobState.TIMED_OUT, EndReason.JOB_TIMEOUT),),
        "failure",
        "Timed out: slow",
    ),
    (
        a_run(RunState.TIMED_OUT, EndReason.RUN_TIMEOUT, text="not over after 60 s"),
        (),
        "failure",
        "Timed out: the run took longer than it may (not over after 60 s)",
    ),
    (a_run(RunState.CANCELED, EndReason.SUPERSEDED), (), "error", "Canceled: superseded by a newer commit"),
    (a_run(RunState.CANCELED, EndReason.USER_CANCELED), (), "error", "Canceled: somebody canceled it"),
)


@pytest.mark.parametrize(("run", "jobs", "state", "description"), RUNS)
def test_a_run_is_shown_as_it_is(run: Run, jobs: tuple[Job, ...], state: str, description: str) -> None:
    """The one check that a branch is protected by."""
    check = of_run(run, *jobs)

    assert (state, description) == (check.state, check.description)


def test_only_what_is_over_is_told_as_over() -> None:
    """A check that was green once must not turn back."""
    for state in RunState:
        assert (of_run(a_run(state, None if not state.is_final else EndReason.SUCCEEDED)).state == "pending") != (
            state.is_final
        )
    for state in JobState:
        job = a_job(state=state, reason=EndReason.SUCCEEDED if state.is_final else None)
        assert (of_job(job).state == "pending") != state.is_final


def test_every_reason_has_words() -> None:
    """A reason that was added later must not be a crash."""
    assert set(EndReason) == set(REASONS)


def test_in_a_large_run_waiting_and_running_are_told_alike() -> None:
    """Each job is then two requests, not three: a forge takes 80 a minute."""
    jobs = [
        a_job(str(number), JobState.RUNNING if number % 2 else JobState.QUEUED) for number in range(LIVE_JOBS_MAX + 1)
    ]

    checks = desired(a_run(), jobs, (), None, URL)[:-1]

    assert {("pending", "Not over yet")} == {(check.state, check.description) for check in checks}


def test_a_description_is_one_line_that_fits() -> None:
    """Explanations may be long, and the forge would refuse them."""
    job = failed()

    check = of_job(job, explanations=(an_explanation(job, "a\nb" + "x" * 300),))

    assert check.description.startswith("Failed in 1 min 5 s: a bxxx")
    assert (len(check.description), check.description[-1]) == (140, "…")


def test_long_job_names_stay_apart() -> None:
    """Cut to the same beginning they would overwrite each other."""
    first, second = context("x" * 300 + "1"), context("x" * 300 + "2")

    assert first != second
    assert CONTEXT_CHARACTERS_MAX == len(first) == len(second)


def test_only_what_people_see_counts_as_a_difference() -> None:
    """A server that moved must not tell everything again."""
    run, jobs = a_run(), [a_job()]

    here, there = (desired(run, jobs, (), None, url)[0] for url in (URL, "https://elsewhere"))

    assert digest(here) == digest(there)
    assert digest(here) != digest(of_job(succeeded()))


def test_the_document_tells_the_run_and_its_jobs() -> None:
    """For plain git it is all that people get."""
    jobs = (failed("b"), a_job("c", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0))
    run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, jobs=refs(*jobs))

    told = msgspec.json.decode(document(run, jobs, (an_explanation(jobs[0], "why"),), a_plan(c="no docs"), URL))

    assert told["run_id"] == RUN_ID
    assert (told["sha"], told["ref"]) == (SHA, "refs/heads/main")
    assert (told["state"], told["end_reason"], told["is_final"]) == ("FAILED", "jobs_failed", True)
    assert (told["status"], told["description"]) == ("failure", "Failed: b")
    first, second = told["jobs"]
    assert (first["name"], first["state"], first["attempts"], first["explanation"]) == ("b", "FAILED", 1, "why")
    assert (second["state"], second["end_reason"]) == ("SKIPPED", "not_affected")
    assert second["reasons"] == [{"rule": "impact", "text": "no docs"}]


def test_the_document_is_one_line_and_the_same_for_the_same_state() -> None:
    """It is compared by its digest, and appended to files line by line."""
    run, jobs = a_run(text="a\nb"), [a_job("x\ny")]

    first, second = (document(run, jobs, (), None, URL) for _ in range(2))

    assert first == second
    assert b"\n" not in first
