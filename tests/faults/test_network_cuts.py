"""The network between server and runner fails, in all the ways in which it can: for a while, and for good."""

from pathlib import Path
from typing import Any

import pytest

from tests.faults.needs import require_root, require_tools
from tests.faults.network import SERVER_ADDRESS, TOOLS, Fault, network
from tests.faults.ticks import Ticks, boot_s
from tests.scenarios.support import Project, RunnerProcess, Server, attempts_of, of_jobs, step, wait_for

pytestmark = pytest.mark.slow

TTL_S = 6.0
PUBLIC = {
    "DELTACI_HOST": "0.0.0.0",
    "DELTACI_ALLOW_PUBLIC": "true",
    "DELTACI_POLICY_LEASE_TTL_MS": str(int(TTL_S * 1000)),
}


def only_on(label: str, jobs: dict[str, Any]) -> dict[str, Any]:
    return {name: {**job, "labels": [label]} for name, job in jobs.items()}


FAULTS = [
    "cut both ways",
    "nothing reaches the runner",
    pytest.param("nothing reaches the server", marks=pytest.mark.long),
    pytest.param("reset", marks=pytest.mark.long),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_network_costs_an_attempt_only_if_it_outlasts_the_lease(tmp_path: Path, fault: Fault) -> None:
    """Short: the job goes on. Long: the runner stops it by itself, and only then another runner does it."""
    require_root()
    require_tools(*TOOLS)
    ticks = Ticks(tmp_path)
    with network() as net, Server(tmp_path, **PUBLIC) as server:
        project = Project(server)
        words = ("--server", f"http://{SERVER_ADDRESS}:{server.port}", "--labels", "any,far")
        with RunnerProcess(server, "far", words=words, before=net.on_runner()) as far:
            run_id = project.configure(only_on("any", ticks.jobs()))
            wait_for("the job", lambda: len(ticks.of(1)) > 2)
            with net.broken(fault):
                until_s = boot_s() + TTL_S * 0.6
                wait_for("time to pass", lambda: boot_s() > until_s)
            job = server.view(run_id)["jobs"][0]["id"]
            heard = len(server.text_of(job, 1))
            wait_for("the holder to be heard again", lambda: len(server.text_of(job, 1)) > heard)
            survived = server.view(run_id)["jobs"][0]["attempts"]
            with RunnerProcess(server, "near", words=("--labels", "any")):
                with net.broken(fault):
                    wait_for("the next attempt", lambda: len(ticks.of(2)) > 2)
                    wait_for("the end of the old one", lambda: not of_jobs(far.home))
                ticks.end()
                view = server.run_until(run_id)
                following = server.run_until(
                    project.configure(only_on("far", {"next": {"steps": [step("echo next")]}}))
                )
            ticks.assert_logged(server.text_of(job), 2)
            server.assert_sound()

    assert [one["number"] for one in survived] == [1]
    assert attempts_of(view) == {"tick": [(1, "LOST"), (2, "SUCCEEDED")]}
    ticks.assert_apart(2)
    assert following["run"]["state"] == "SUCCEEDED"
