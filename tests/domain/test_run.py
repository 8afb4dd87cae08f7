"""The run machine: from its creation to its result."""

from deltaci.domain import run as runs
from deltaci.domain.states import RunState
from tests.domain.builders import a_run

# ---- deadlines ---------------------------------------------------------------------------------------------------


def test_a_run_that_waits_for_its_canceled_jobs_has_no_timer_of_its_own() -> None:
    """Its jobs are ended by force at theirs; a timer that changes nothing would fire at every look for ever."""
    run = a_run(RunState.CANCEL_REQUESTED)

    assert runs.deadline_ms(run) is None
