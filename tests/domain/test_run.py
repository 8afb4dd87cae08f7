"""The run machine: from its creation to its result."""

import pytest

from deltaci.domain import run as runs
from deltaci.domain.states import EndReason, JobState, RunState
from tests.domain.builders import a_run, accepted, ref, seen

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
