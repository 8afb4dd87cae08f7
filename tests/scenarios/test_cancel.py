"""A cancel in every state: it ends in time, stays ended, and leaves no process."""

import time
from pathlib import Path

import pytest

from tests.scenarios.support import Project, Server, attempts_of, of_jobs, running, step, wait_for

pytestmark = pytest.mark.slow

STUBBORN = """\
trap '' TERM INT HUP
(trap '' TERM INT HUP; while true; do sleep 1; done) &
setsid sh -c "trap '' TERM INT HUP; while true; do sleep 1; done" &
echo ready
while true; do sleep 1; done
"""


def test_what_waits_is_canceled_at_once(tmp_path: Path) -> None:
    """Queued and blocked jobs have nobody to ask."""
    with Server(tmp_path) as server:
        project = Project(server)
        steps = [step("true")]
        run_id = project.configure({"queued": {"steps": steps}, "blocked": {"needs": ["queued"], "steps": steps}})
        server.run_until(run_id, "QUEUED")
        said = server.cli("run", "cancel", run_id)
        view = server.run_until(run_id)
        again = server.cli("run", "cancel", run_id)
        server.assert_sound()

    assert said.startswith(f"{run_id} is CANCEL")
    assert (view["run"]["state"], view["run"]["end_reason"]) == ("CANCELED", "user_canceled")
    assert {job["state"] for job in view["jobs"]} == {"CANCELED"}
    assert again == f"{run_id} is CANCELED\n"


def test_a_run_is_canceled_before_it_is_planned(tmp_path: Path) -> None:
    """A cancel that comes with the push must not be overtaken by the plan."""
    with Server(tmp_path) as server:
        project = Project(server)
        run_id = project.configure({"a": {"steps": [step("true")]}})
        server.post(f"/runs/{run_id}/cancel")
        view = server.run_until(run_id)
        time.sleep(0.3)
        later = server.view(run_id)
        server.assert_sound()

    assert view["run"]["state"] == "CANCELED"
    assert later["run"] == view["run"]


@pytest.mark.parametrize("transport", ["websocket", "http"])
def test_a_job_that_ignores_every_signal_is_gone_in_time(tmp_path: Path, transport: str) -> None:
    """SIGTERM to all, a grace, SIGKILL to all: also to children that ignore it, and to one in a session of its own."""
    with running(tmp_path) as (server, project, runner):
        runner.stop()
        runner.words = ("--transport", transport)
        runner.start()
        run_id = project.configure(
            {"stubborn": {"steps": [step(STUBBORN)]}, "after": {"needs": ["stubborn"], "steps": [step("true")]}}
        )
        wait_for("the job's processes", lambda: len(of_jobs(runner.home)) >= 4)
        started = time.monotonic()
        server.cli("run", "cancel", run_id)
        view = server.run_until(run_id)
        took_s = time.monotonic() - started
        left = wait_for("nothing", lambda: not of_jobs(runner.home), within_s=2)
        next_id = project.configure({"next": {"steps": [step("echo next")]}})
        following = server.run_until(next_id)
        server.assert_sound()

    assert left
    assert took_s < 8
    assert attempts_of(view) == {"stubborn": [(1, "CANCELED")], "after": []}
    assert view["run"]["end_reason"] == "user_canceled"
    assert following["run"]["state"] == "SUCCEEDED"


def test_a_cancel_whose_runner_is_dead_ends_at_its_deadline(tmp_path: Path) -> None:
    """Nobody can acknowledge it; the deadline decides."""
    with running(tmp_path, DELTACI_POLICY_LEASE_TTL_MS="60000") as (server, project, runner):
        run_id = project.configure({"test": {"steps": [step("sleep 300")]}})
        wait_for("the job's processes", lambda: of_jobs(runner.home))
        runner.kill()
        started = time.monotonic()
        server.post(f"/runs/{run_id}/cancel")
        view = server.run_until(run_id)
        took_s = time.monotonic() - started
        server.assert_sound()

    assert view["run"]["state"] == "CANCELED"
    assert 3.5 < took_s < 10
    assert attempts_of(view) == {"test": [(1, "CANCELED")]}


def test_a_newer_push_cancels_the_older_run_of_its_branch(tmp_path: Path) -> None:
    """What nobody waits for any more makes room."""
    with running(tmp_path) as (server, project, _):
        older = project.configure({"test": {"steps": [step("sleep 300")]}})
        server.run_until(older, "RUNNING")
        newer = project.configure({"test": {"steps": [step("true")]}})
        first, second = server.run_until(older), server.run_until(newer)
        server.assert_sound()

    assert (first["run"]["state"], first["run"]["end_reason"]) == ("CANCELED", "superseded")
    assert second["run"]["state"] == "SUCCEEDED"
