"""The run machine: from its creation to its result."""

import pytest

from deltaci.domain import run as runs
from deltaci.domain.effects import Notify, PlanRun, ReportRun
from deltaci.domain.machine import Step, Why
from deltaci.domain.states import EndReason, JobState, RunState
from tests.domain.builders import (
    A_KEY,
    A_TRIGGER,
    HOUR_MS,
    RUN_TIMEOUT_MS,
    a_run,
    accepted,
    all_seen,
    event_types,
    folded_run,
    ref,
    seen,
    why,
)

# ---- deadlines ---------------------------------------------------------------------------------------------------


def test_a_run_that_waits_for_its_canceled_jobs_has_no_timer_of_its_own() -> None:
    """Its jobs are ended by force at theirs; a timer that changes nothing would fire at every look for ever."""
    run = a_run(RunState.CANCEL_REQUESTED)

    assert runs.deadline_ms(run) is None


# ---- results -----------------------------------------------------------------------------------------------------


def test_a_job_skipped_because_its_need_was_canceled_does_not_make_the_run_a_failure() -> None:
    """Nothing failed: the chain was canceled at its root, and that is what the author is told."""
    run = a_run(RunState.RUNNING, ref("build"), ref("test", "build"))
    states = {"build": seen(JobState.CANCELED), "test": seen(JobState.SKIPPED, EndReason.NEEDS_FAILED)}

    assert runs.result(run, states) == (RunState.CANCELED, EndReason.USER_CANCELED)


# ---- needs -------------------------------------------------------------------------------------------------------


def test_a_run_that_is_being_canceled_releases_and_skips_nothing() -> None:
    """A job released now would be leased after the cancel; its own cancel ends it."""
    run = a_run(RunState.RUNNING, ref("build"), ref("test", "build"))
    states = {"build": seen(JobState.SUCCEEDED), "test": seen(JobState.BLOCKED)}
    canceled = accepted(runs.step(run, runs.RequestCancel(reason=EndReason.USER_CANCELED), now_ms=0))

    assert runs.unblocked(run, states) == (("test",), {})
    assert runs.unblocked(canceled, states) == ((), {})


# ---- moving with the jobs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", list(JobState))
def test_a_run_starts_with_the_first_job_that_a_runner_has(state: JobState) -> None:
    """Also when its running was missed: a job that is being canceled, or ended by a runner, has been started."""
    run = a_run(RunState.QUEUED, ref("build"), ref("test", "build"))
    states = {"build": seen(state), "test": seen(JobState.BLOCKED)}

    after = accepted(runs.step(run, runs.Advance(jobs=states), now_ms=3))

    never_ran = {JobState.BLOCKED, JobState.QUEUED, JobState.SKIPPED, JobState.CANCELED}
    assert after.state is (RunState.QUEUED if state in never_ran else RunState.RUNNING)
    assert after.started_at_ms == (None if state in never_ran else 3)


# ---- plans -------------------------------------------------------------------------------------------------------


def test_a_new_run_owes_a_plan_and_a_first_report() -> None:
    """The author sees a pending check before anything was planned."""
    step = runs.create("run_1", A_KEY, A_TRIGGER, attempt=1, now_ms=0, timeout_ms=1, cancel_within_ms=1)

    assert step.effects == (PlanRun("run_1"), ReportRun("run_1"))
    assert step.state == folded_run(step.state, step.events)
    assert step.state.revision == len(step.events)


def test_a_plan_that_cannot_be_made_ends_the_run_with_its_explanation() -> None:
    """The author must be able to mend it: the text says why and where."""
    run = a_run(RunState.PLANNING)

    after = accepted(runs.step(run, runs.FailPlan(text="ci.yml:3: unknown key"), now_ms=5))

    assert (after.state, after.end_reason) == (RunState.FAILED, EndReason.PLAN_FAILED)
    assert (after.text, after.ended_at_ms) == ("ci.yml:3: unknown key", 5)


def test_a_plan_without_jobs_is_a_success_with_the_reason() -> None:
    """Nothing that changed is covered by a job: no pull request waits for ever."""
    run = a_run(RunState.PLANNING)

    answer = runs.step(run, runs.AdoptPlan(plan_digest="empty", jobs=()), now_ms=0)

    assert event_types(answer) == ["PlanAdopted", "RunEnded"]
    assert accepted(answer).end_reason is EndReason.NOTHING_TO_RUN


@pytest.mark.parametrize("state", [RunState.CREATED, RunState.PLANNING])
def test_a_cancel_before_the_plan_ends_the_run_at_once(state: RunState) -> None:
    """Nobody has to be waited for; a plan that arrives later is refused."""
    run = a_run(state)

    after = accepted(runs.step(run, runs.RequestCancel(reason=EndReason.SUPERSEDED, detail="by run_2"), now_ms=0))
    late = [runs.step(after, late, now_ms=1) for late in (_a_plan(), runs.FailPlan(text=""), runs.StartPlanning())]

    assert (after.state, after.end_reason, after.text) == (RunState.CANCELED, EndReason.SUPERSEDED, "by run_2")
    assert [why(answer) for answer in late] == [Why.ILLEGAL_MOVE] * 3


def test_a_plan_is_adopted_once() -> None:
    """The planner may answer twice: jobs are created from the first answer alone."""
    run = a_run(RunState.QUEUED)

    assert why(runs.step(run, _a_plan(), now_ms=0)) is Why.ILLEGAL_MOVE


def _a_plan() -> runs.AdoptPlan:
    return runs.AdoptPlan(plan_digest="plan_1", jobs=(ref("test"),))


# ---- cancel and time ---------------------------------------------------------------------------------------------


def test_a_canceled_run_ends_with_its_last_job_and_says_why_it_was_canceled() -> None:
    """It waits for its jobs, and their results no longer count."""
    run = a_run(RunState.RUNNING, ref("build"), ref("test"))
    canceled = accepted(runs.step(run, runs.RequestCancel(reason=EndReason.SUPERSEDED, detail="by run_2"), now_ms=0))
    one_left = {"build": seen(JobState.SUCCEEDED), "test": seen(JobState.CANCEL_REQUESTED)}

    waiting = runs.step(canceled, runs.Advance(jobs=one_left), now_ms=1)
    after = accepted(runs.step(canceled, runs.Advance(jobs=all_seen(run, JobState.SUCCEEDED)), now_ms=2))

    assert waiting == Step(canceled)
    assert (after.state, after.end_reason, after.text) == (RunState.CANCELED, EndReason.SUPERSEDED, "by run_2")


def test_a_second_cancel_changes_nothing() -> None:
    """The first reason stands, and so does the first deadline."""
    run = a_run(RunState.CANCEL_REQUESTED)

    assert runs.step(run, runs.RequestCancel(reason=EndReason.SUPERSEDED), now_ms=9) == Step(run)


@pytest.mark.parametrize("state", [RunState.SUCCEEDED, RunState.FAILED, RunState.TIMED_OUT, RunState.CANCELED])
def test_nothing_moves_a_run_that_is_over(state: RunState) -> None:
    """It has been reported; what comes later is answered and changes nothing."""
    run = a_run(state)
    commands = (runs.RequestCancel(reason=EndReason.USER_CANCELED), runs.Tick(), runs.Advance(jobs={}))

    assert [runs.step(run, command, now_ms=99 * HOUR_MS) for command in commands] == [Step(run)] * 3
    assert runs.deadline_ms(run) is None


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING])
def test_a_run_whose_time_is_up_cancels_its_jobs_and_ends_timed_out(state: RunState) -> None:
    """A run that waits for a runner that never comes must end, too."""
    run = a_run(state)

    before = runs.step(run, runs.Tick(), now_ms=RUN_TIMEOUT_MS - 1)
    asked = accepted(runs.step(run, runs.Tick(), now_ms=RUN_TIMEOUT_MS))
    after = accepted(runs.step(asked, runs.Advance(jobs=all_seen(run, JobState.TIMED_OUT)), now_ms=RUN_TIMEOUT_MS))

    assert before == Step(run)
    assert runs.deadline_ms(run) == RUN_TIMEOUT_MS
    assert asked.state is RunState.CANCEL_REQUESTED
    assert (after.state, after.end_reason) == (RunState.TIMED_OUT, EndReason.RUN_TIMEOUT)
    assert after.text == "not over after 21600 s"


@pytest.mark.parametrize("state", [RunState.CREATED, RunState.PLANNING])
def test_a_run_that_never_got_a_plan_times_out(state: RunState) -> None:
    """A planner that never answers cannot keep a run alive."""
    after = accepted(runs.step(a_run(state), runs.Tick(), now_ms=RUN_TIMEOUT_MS))

    assert (after.state, after.end_reason) == (RunState.TIMED_OUT, EndReason.RUN_TIMEOUT)


@pytest.mark.parametrize("state", [RunState.CREATED, RunState.PLANNING, RunState.QUEUED, RunState.RUNNING])
def test_a_look_at_a_runs_deadline_always_moves_it(state: RunState) -> None:
    """A timer that finds the same deadline again would spin."""
    run = a_run(state)
    deadline_ms = runs.deadline_ms(run)
    assert deadline_ms is not None

    after = accepted(runs.step(run, runs.Tick(), now_ms=deadline_ms))

    assert runs.deadline_ms(after) is None


@pytest.mark.parametrize("state", [RunState.CREATED, RunState.PLANNING, RunState.QUEUED, RunState.RUNNING])
def test_a_restored_run_has_all_its_time_again(state: RunState) -> None:
    """Last night's backup is older than most runs may take: all of them would end before their jobs ran again."""
    late_ms = 9 * RUN_TIMEOUT_MS

    restored = runs.step(a_run(state), runs.Restore(), now_ms=late_ms)
    in_time = runs.step(accepted(restored), runs.Tick(), now_ms=late_ms + RUN_TIMEOUT_MS - 1)
    too_late = accepted(runs.step(accepted(restored), runs.Tick(), now_ms=late_ms + RUN_TIMEOUT_MS))

    assert event_types(restored) == ["RunRestored"]
    assert accepted(restored).state is state
    assert runs.deadline_ms(accepted(restored)) == late_ms + RUN_TIMEOUT_MS
    assert in_time == Step(accepted(restored))
    assert too_late.cancel is not None
    assert too_late.cancel.reason is EndReason.RUN_TIMEOUT


@pytest.mark.parametrize("state", sorted({RunState.CANCEL_REQUESTED} | {each for each in RunState if each.is_final}))
def test_a_run_that_is_over_or_about_to_be_comes_back_as_it_was(state: RunState) -> None:
    """It has no time to count."""
    run = a_run(state)

    assert runs.step(run, runs.Restore(), now_ms=HOUR_MS) == Step(run)


# ---- priorities of the result ------------------------------------------------------------------------------------

S, F, T, C, K = JobState.SUCCEEDED, JobState.FAILED, JobState.TIMED_OUT, JobState.CANCELED, JobState.SKIPPED


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((S, S, S), (RunState.SUCCEEDED, EndReason.SUCCEEDED)),
        ((S, K, S), (RunState.SUCCEEDED, EndReason.SUCCEEDED)),
        ((K, K, K), (RunState.SUCCEEDED, EndReason.SUCCEEDED)),
        ((S, F, S), (RunState.FAILED, EndReason.JOBS_FAILED)),
        ((T, S, S), (RunState.TIMED_OUT, EndReason.JOB_TIMEOUT)),
        ((S, S, C), (RunState.CANCELED, EndReason.USER_CANCELED)),
        ((T, C, S), (RunState.TIMED_OUT, EndReason.JOB_TIMEOUT)),
        ((T, C, F), (RunState.FAILED, EndReason.JOBS_FAILED)),
    ],
)
def test_failure_comes_before_time_out_before_cancel(
    states: tuple[JobState, ...], expected: tuple[RunState, EndReason]
) -> None:
    """One word must stand for all: the one that says most about the change."""
    run = a_run(RunState.RUNNING, ref("a"), ref("b"), ref("c"))
    jobs = {job.id: seen(state) for job, state in zip(run.jobs, states, strict=True)}

    assert runs.result(run, jobs) == expected
    assert runs.result(run, dict(reversed(jobs.items()))) == expected


@pytest.mark.parametrize("state", [F, T, C, K])
def test_a_job_that_is_allowed_to_fail_never_decides(state: JobState) -> None:
    """It is reported, not counted."""
    run = a_run(RunState.RUNNING, ref("test"), ref("nightly", is_required=False))
    jobs = {"test": seen(S), "nightly": seen(state)}

    assert runs.result(run, jobs) == (RunState.SUCCEEDED, EndReason.SUCCEEDED)


@pytest.mark.parametrize(
    ("root", "expected"),
    [
        (F, (RunState.FAILED, EndReason.JOBS_FAILED)),
        (T, (RunState.TIMED_OUT, EndReason.JOB_TIMEOUT)),
        (C, (RunState.CANCELED, EndReason.USER_CANCELED)),
    ],
)
def test_a_chain_ends_as_its_root_did(root: JobState, expected: tuple[RunState, EndReason]) -> None:
    """Those that were skipped for it add nothing."""
    run = a_run(RunState.RUNNING, ref("a"), ref("b", "a"), ref("c", "b"))
    skipped = seen(K, EndReason.NEEDS_FAILED)

    assert runs.result(run, {"a": seen(root), "b": skipped, "c": skipped}) == expected


def test_a_required_job_that_could_not_run_fails_the_run_even_if_no_required_job_failed() -> None:
    """It needed a job that is allowed to fail but was canceled: nobody knows what it would have said."""
    run = a_run(RunState.RUNNING, ref("a", is_required=False), ref("b", "a"))

    assert runs.result(run, {"a": seen(C), "b": seen(K, EndReason.NEEDS_FAILED)}) == (
        RunState.FAILED,
        EndReason.JOBS_FAILED,
    )


# ---- needs, one by one -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_required", [True, False])
@pytest.mark.parametrize("state", list(JobState))
def test_a_need_is_satisfied_by_success_a_good_skip_or_a_failure_that_is_allowed(
    state: JobState, is_required: bool
) -> None:
    """A canceled need satisfies nobody: somebody wanted it to stop."""
    expected = state in (S, K) or (not is_required and state in (F, T))

    assert runs.is_satisfied(ref("a", is_required=is_required), seen(state)) is expected


@pytest.mark.parametrize("reason", [EndReason.NOT_AFFECTED, EndReason.CARRIED_OVER])
def test_a_need_that_had_no_reason_to_run_satisfies(reason: EndReason) -> None:
    """What it covers did not change: it stands as it was."""
    assert runs.is_satisfied(ref("a"), seen(K, reason))


def test_a_need_that_was_skipped_for_its_own_needs_does_not_satisfy() -> None:
    """The failure travels down the chain, unless a job on the way is allowed to fail."""
    skipped = seen(K, EndReason.NEEDS_FAILED)

    assert not runs.is_satisfied(ref("a"), skipped)
    assert runs.is_satisfied(ref("a", is_required=False), skipped)


def test_a_job_waits_for_all_its_needs() -> None:
    """In a diamond the bottom starts with the later of the two sides."""
    run = a_run(RunState.RUNNING, ref("top"), ref("left", "top"), ref("right", "top"), ref("bottom", "left", "right"))
    b, r = seen(JobState.BLOCKED), seen(JobState.RUNNING)

    rounds = [
        runs.unblocked(run, dict(zip(("top", "left", "right", "bottom"), states, strict=True)))
        for states in [(r, b, b, b), (seen(S), b, b, b), (seen(S), seen(S), r, b), (seen(S), seen(S), seen(S), b)]
    ]

    assert rounds == [((), {}), (("left", "right"), {}), ((), {}), (("bottom",), {})]


def test_a_job_is_skipped_as_soon_as_one_need_has_failed_and_names_it() -> None:
    """Nobody has to wait for the other side of the diamond to learn it."""
    run = a_run(RunState.RUNNING, ref("left"), ref("right"), ref("bottom", "left", "right"))
    states = {"left": seen(JobState.RUNNING), "right": seen(F), "bottom": seen(JobState.BLOCKED)}

    assert runs.unblocked(run, states) == ((), {"bottom": "right"})


def test_a_failure_that_is_allowed_releases_what_needs_it() -> None:
    """Allowed means allowed: also for the dependents."""
    run = a_run(RunState.RUNNING, ref("flaky", is_required=False), ref("test", "flaky"))

    assert runs.unblocked(run, {"flaky": seen(F), "test": seen(JobState.BLOCKED)}) == (("test",), {})


def test_the_look_can_be_restricted_to_some_jobs() -> None:
    """In a run of a thousand jobs only the dependents of the one that moved need a look."""
    run = a_run(RunState.RUNNING, ref("top"), ref("left", "top"), ref("right", "top"))
    states = {"top": seen(S), "left": seen(JobState.BLOCKED), "right": seen(JobState.BLOCKED)}

    assert runs.unblocked(run, states, [run.jobs[2]]) == (("right",), {})


# ---- who is told -------------------------------------------------------------------------------------------------


def test_a_run_whose_plan_says_so_owes_the_news_of_its_end_and_of_nothing_else() -> None:
    """Nobody wants to hear that it was planned, or that it began."""
    planning = a_run(RunState.PLANNING)
    adopt = runs.AdoptPlan(plan_digest="d", jobs=(ref("build"),), is_notifying=True)
    silent = runs.AdoptPlan(plan_digest="d", jobs=())

    queued = runs.step(planning, adopt, now_ms=0)
    assert isinstance(queued, Step)
    ended = runs.step(queued.state, runs.Advance(jobs={ref("build").id: seen(JobState.FAILED)}), now_ms=0)
    unheard = runs.step(planning, silent, now_ms=0)

    assert isinstance(ended, Step)
    assert isinstance(unheard, Step)
    assert Notify(planning.id) not in queued.effects
    assert ended.effects.count(Notify(planning.id)) == 1
    assert (unheard.state.state, Notify(planning.id) in unheard.effects) == (RunState.SUCCEEDED, False)
