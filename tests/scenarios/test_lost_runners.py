"""A runner is killed in the middle of a job: the job is done by another one, and nothing of the first is left."""

from pathlib import Path

import pytest

from tests.scenarios.support import Project, RunnerProcess, Server, attempts_of, of_jobs, running, step, wait_for

pytestmark = pytest.mark.slow

FIRST_HANGS = 'echo "attempt $DELTACI_ATTEMPT"; if [ "$DELTACI_ATTEMPT" = 1 ]; then sleep 300 & sleep 300; fi'


def test_the_job_of_a_killed_runner_is_lost_and_done_by_another_one(tmp_path: Path) -> None:
    """The lease expires, the attempt is LOST, and the next one succeeds elsewhere."""
    with Server(tmp_path) as server:
        project = Project(server)
        with RunnerProcess(server) as first:
            run_id = project.configure({"test": {"steps": [step(FIRST_HANGS)]}})
            wait_for("the job's processes", lambda: len(of_jobs(first.home)) >= 2)
            first.kill()
            wait_for("the end of its processes", lambda: not of_jobs(first.home), within_s=20)
            with RunnerProcess(server, "r2") as second:
                view = server.run_until(run_id)
                log = server.text_of(view["jobs"][0]["id"])
                second.stop()
        server.assert_sound()

    assert view["run"]["state"] == "SUCCEEDED"
    assert attempts_of(view) == {"test": [(1, "LOST"), (2, "SUCCEEDED")]}
    lost, done = view["jobs"][0]["attempts"]
    assert lost["end_reason"] == "runner_lost"
    assert lost["runner_id"] != done["runner_id"]
    assert "attempt 2" in log


def test_a_killed_runner_that_comes_back_does_its_job_again(tmp_path: Path) -> None:
    """The same runner in a new life: what it held is lost, its workspace is cleaned, its slot is free."""
    with running(tmp_path) as (server, project, runner):
        run_id = project.configure({"test": {"steps": [step(FIRST_HANGS)]}})
        wait_for("the job's processes", lambda: len(of_jobs(runner.home)) >= 2)
        runner.kill()
        runner.start()
        view = server.run_until(run_id)
        server.assert_sound()

    assert attempts_of(view) == {"test": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert len({attempt["runner_id"] for attempt in view["jobs"][0]["attempts"]}) == 1


def test_a_job_that_loses_every_runner_fails_within_its_bound(tmp_path: Path) -> None:
    """A job that takes its runner down with it must not go round for ever."""
    with running(tmp_path) as (server, project, runner):
        run_id = project.configure({"poison": {"steps": [step("sleep 300")]}})

        def is_over() -> bool:
            return server.view(run_id)["run"]["ended_at_ms"] is not None

        while wait_for("the job's processes, or the end", lambda: of_jobs(runner.home) or is_over()) and not is_over():
            runner.kill()
            wait_for("the end of its processes", lambda: not of_jobs(runner.home), within_s=20)
            runner.start()
        view = server.run_until(run_id)
        server.assert_sound()

    assert view["run"]["state"] == "FAILED"
    assert attempts_of(view) == {"poison": [(1, "LOST"), (2, "LOST"), (3, "LOST")]}
    assert view["jobs"][0]["end_reason"] == "runner_lost"
