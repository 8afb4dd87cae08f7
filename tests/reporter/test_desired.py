"""What a forge should show, state by state."""

import msgspec
import pytest

from deltaci.domain.events import Trigger
from deltaci.domain.job import Job
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.reporter.desired import PROGRESS_STEPS, REASONS, Check, desired
from deltaci.reporter.document import document
from deltaci.reporter.names import CONTEXT_CHARACTERS_MAX, context
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
    (a_job(state=JobState.BLOCKED, attempts=0), "queued", "Waiting"),
    (a_job(state=JobState.QUEUED), "queued", "Waiting"),
    (a_job(state=JobState.RUNNING), "running", "Running"),
    (a_job(state=JobState.CANCEL_REQUESTED), "running", "Being canceled"),
    (succeeded(), "success", "Succeeded in 1 min 5 s"),
    (succeeded(took_ms=999), "success", "Succeeded in 0 s"),
    (failed(), "failure", "Failed in 1 min 5 s: a step failed"),
    (failed(is_required=False), "neutral", "Failed in 1 min 5 s, which is allowed: a step failed"),
    (failed(reason=EndReason.RUNNER_LOST), "error", "Failed in 1 min 5 s: the runner was lost"),
    (
        failed(reason=EndReason.CHECKOUT_FAILED, took_ms=1_000),
        "error",
        "Failed in 1 s: the commit could not be fetched",
    ),
    (
        a_job(state=JobState.TIMED_OUT, reason=EndReason.JOB_TIMEOUT),
        "timed_out",
        "Timed out in 1 min 5 s: the job took longer than it may",
    ),
    (
        a_job(state=JobState.TIMED_OUT, reason=EndReason.JOB_TIMEOUT, is_required=False, attempts=0),
        "neutral",
        "Timed out, which is allowed: the job took longer than it may",
    ),
    (
        a_job(state=JobState.CANCELED, reason=SUPERSEDED, attempts=0),
        "canceled",
        "Canceled: superseded by a newer commit",
    ),
    (
        a_job(state=JobState.CANCELED, reason=SUPERSEDED, attempts=0, is_required=False),
        "canceled",
        "Canceled: superseded by a newer commit",
    ),
    (
        a_job(state=JobState.SKIPPED, reason=EndReason.NOT_AFFECTED, attempts=0),
        "skipped",
        "Skipped: nothing it covers changed",
    ),
    (
        a_job(state=JobState.SKIPPED, reason=EndReason.NEEDS_FAILED, attempts=0, end_detail="build"),
        "failure",
        "Never ran: a job it needs did not succeed (build)",
    ),
    (
        a_job(state=JobState.SKIPPED, reason=EndReason.NEEDS_FAILED, attempts=0, is_required=False),
        "neutral",
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
    (a_run(RunState.CREATED), (), "queued", "Planning what must run"),
    (a_run(RunState.CREATED, hold="approval"), (), "queued", "Waits for approval"),
    (
        a_run(RunState.CREATED, hold="approval", approved_by="alice", approved_at_ms=1),
        (),
        "queued",
        "Planning what must run",
    ),
    (a_run(RunState.PLANNING), (), "queued", "Planning what must run"),
    (a_run(RunState.QUEUED), (a_job(),), "queued", "Waiting for a runner"),
    (a_run(RunState.RUNNING), (a_job(),), "running", "Running"),
    (a_run(RunState.CANCEL_REQUESTED), (a_job(),), "running", "Being canceled"),
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
        "timed_out",
        "Timed out: slow",
    ),
    (
        a_run(RunState.TIMED_OUT, EndReason.RUN_TIMEOUT, text="not over after 60 s"),
        (),
        "timed_out",
        "Timed out: the run took longer than it may (not over after 60 s)",
    ),
    (a_run(RunState.CANCELED, EndReason.SUPERSEDED), (), "canceled", "Canceled: superseded by a newer commit"),
    (a_run(RunState.CANCELED, EndReason.USER_CANCELED), (), "canceled", "Canceled: somebody canceled it"),
)


@pytest.mark.parametrize(("run", "jobs", "state", "description"), RUNS)
def test_a_run_is_shown_as_it_is(run: Run, jobs: tuple[Job, ...], state: str, description: str) -> None:
    """The one check that a branch is protected by."""
    check = of_run(run, *jobs)

    assert (state, description) == (check.state, check.description)


def test_only_what_is_over_is_told_as_over() -> None:
    """A check that was green once must not turn back."""
    for state in RunState:
        run = a_run(state, None if not state.is_final else EndReason.SUCCEEDED)
        assert of_run(run).is_final == state.is_final
    for job_state in JobState:
        job = a_job(state=job_state, reason=EndReason.SUCCEEDED if job_state.is_final else None)
        assert of_job(job).is_final == job_state.is_final


def test_every_reason_has_words() -> None:
    """A reason that was added later must not be a crash."""
    assert set(EndReason) == set(REASONS)


def test_a_run_tells_how_far_it_is_in_a_few_steps() -> None:
    """Each word of it is a write: 300 jobs that end one by one, in any order, are not 300 of them."""
    said = []
    for over in range(301):
        ends = [failed(str(number), ended_at_ms=1_000 - number) for number in range(300 - over, 300)]
        said.append(of_run(a_run(), *(a_job(str(number)) for number in range(300 - over)), *ends).description)

    assert said[0] == "Running"
    assert said[59] == "Running: 30 of 300 jobs are over, failed: 299, 298, 297 and more"
    assert len(set(said)) <= PROGRESS_STEPS + 1


def test_a_description_is_one_line_that_fits() -> None:
    """Explanations may be long, and the forge would refuse them."""
    job = failed()

    check = of_job(job, explanations=(an_explanation(job, "a\nb" + "x" * 300),))

    assert check.description.startswith("Failed in 1 min 5 s: a bxxx")
    assert (len(check.description), check.description[-1]) == (140, "…")


A_PUSH = Trigger(kind="push", ref="refs/heads/main", commit_sha=SHA)


def test_a_pull_request_and_its_way_through_the_merge_queue_have_one_name() -> None:
    """A branch is protected by one name: it must be told at both places, or nothing is ever merged."""
    gates = [msgspec.structs.replace(A_PUSH, kind=kind) for kind in ("pull_request", "merge_group")]

    assert [(context(one), context(one, "test")) for one in gates] == [("deltaci", "deltaci/test")] * 2


def test_what_runs_the_same_commit_for_another_reason_has_names_of_its_own() -> None:
    """The push of a branch plans against another base: its green must not stand for that of the pull request."""
    kinds = ("pull_request", "push", "schedule", "manual")
    names = [context(msgspec.structs.replace(A_PUSH, kind=kind), job) for kind in kinds for job in ("", "(push)", "a")]

    assert len(names) == len(set(names))
    assert (context(A_PUSH), context(A_PUSH, "a")) == ("deltaci (push)", "deltaci (push)/a")


def test_long_job_names_stay_apart() -> None:
    """Cut to the same beginning they would overwrite each other."""
    first, second = context(A_PUSH, "x" * 300 + "1"), context(A_PUSH, "x" * 300 + "2")

    assert first != second
    assert CONTEXT_CHARACTERS_MAX == len(first) == len(second)


def test_the_document_tells_the_run_and_its_jobs() -> None:
    """For plain git it is all that people get."""
    jobs = (failed("b"), a_job("c", JobState.SKIPPED, EndReason.NOT_AFFECTED, attempts=0))
    run = a_run(RunState.FAILED, EndReason.JOBS_FAILED, jobs=refs(*jobs))

    told = msgspec.json.decode(document(run, jobs, (an_explanation(jobs[0], "why"),), a_plan(c="no docs"), URL))

    assert told["run_id"] == RUN_ID
    assert (told["sha"], told["ref"]) == (SHA, "refs/pull/12/head")
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
