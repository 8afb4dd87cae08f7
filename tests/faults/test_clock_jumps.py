"""The wall clock is set by hours, forth and back, under a running server and between two lives of it.

Only the server's clock jumps (libfaketime, the monotonic clock left alone): runner and forge are other machines.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.needs import require_tools
from tests.faults.support import Client, QuietProject, plan_of
from tests.scenarios.support import RunnerProcess, Server, attempts_of, of_jobs, wait_for

pytestmark = pytest.mark.slow

# Long enough for a start on a busy machine, short beside the hours that the clock jumps.
TTL = {"DELTACI_POLICY_LEASE_TTL_MS": "5000", "DELTACI_POLICY_HEARTBEAT_MS": "300"}
FIRST_HANGS = '[ "$DELTACI_ATTEMPT" != 1 ] || sleep 600'


class ClockedServer(Server):
    """A server whose wall clock is set by `jump`."""

    def __init__(self, home: Path, **settings: str) -> None:
        self._clock = home / "clock"
        self.jump("+0")
        library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        faked = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DISABLE_SHM": "1",
            # Else waiting for the interpreter with a timeout turns into a busy loop.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        super().__init__(home, **TTL, **faked, **settings)

    def jump(self, by: str) -> None:
        """From now on its wall clock shows the true time and `by`, such as +5h."""
        following = self._clock.with_suffix(".new")
        following.write_text(f"{by}\n")
        following.replace(self._clock)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ClockedServer]:
    require_tools("faketime")
    with ClockedServer(tmp_path) as server:
        yield server


def upload(project: QuietProject, script: str, branch: str) -> str:
    """A commit with one job of one step, which may take ten minutes."""
    return project.upload(plan_of(script, timeout="10m"), branch=branch)


def push(client: Client, project: QuietProject, script: str, delivery: str, *, branch: str = "main") -> str:
    """A run of such a commit."""
    return client.webhook(project, upload(project, script, branch), delivery, ref=f"refs/heads/{branch}")


def wait_for_a_ttl(server: Server, run_id: str) -> None:
    """Until the run's lease was renewed twice, each time for having less than half of its TTL left."""

    def renewals() -> int:
        events = server.get(f"/runs/{run_id}/events?limit=500")["events"]
        return sum(event["type"] == "LeaseRenewed" for event in events)

    before = renewals()
    wait_for("two renewals of the lease", lambda: renewals() >= before + 2, within_s=30)


def test_a_clock_that_jumps_under_a_running_server_moves_nothing(server: ClockedServer) -> None:
    """Leases live on while their holder is heard and end when it is not; the newer of two pushes wins."""
    client = Client(server)
    project = QuietProject(client)
    with RunnerProcess(server, "r1") as first:
        held = push(client, project, FIRST_HANGS, "d1")
        wait_for("the job's processes", lambda: of_jobs(first.home))
        server.jump("+5h")
        older = push(client, project, "true", "d2", branch="other")
        wait_for_a_ttl(server, held)
        server.jump("-7h")
        newer = push(client, project, "true", "d3", branch="other")
        wait_for_a_ttl(server, held)
        before = server.view(held)
        first.kill()
    with RunnerProcess(server, "r2"):
        after, superseded, done = server.run_until(held, within_s=30), server.run_until(older), server.run_until(newer)
    client.assert_answered_alike()
    server.assert_sound()

    assert attempts_of(before) == {"job": [(1, "RUNNING")]}
    assert attempts_of(after) == {"job": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert (superseded["run"]["end_reason"], done["run"]["state"]) == ("superseded", "SUCCEEDED")
    assert older < newer


def test_a_clock_set_back_between_two_lives_keeps_nothing_waiting_for_hours(server: ClockedServer) -> None:
    """A lease and a plan that were stored with instants of the earlier clock come to their end; the newer push wins."""
    client = Client(server)
    project = QuietProject(client)
    with RunnerProcess(server, "r1") as first:
        held = push(client, project, FIRST_HANGS, "d1")
        wait_for("the job's processes", lambda: of_jobs(first.home))
        commit, outdated = upload(project, "true", "unplanned"), upload(project, "true", "other")
        away = project.bare.rename(project.bare.with_suffix(".away"))
        unplanned = client.webhook(project, commit, "d2", ref="refs/heads/unplanned")
        older = client.webhook(project, outdated, "d3", ref="refs/heads/other")
        wait_for("plans that are put off", lambda: server.log.read_text().count("put off") >= 4)
        first.kill()
    server.kill()
    server.jump("-5h")
    away.rename(project.bare)
    server.start()
    newer = push(client, project, "true", "d4", branch="other")
    with RunnerProcess(server, "r2"):
        after, superseded, done = server.run_until(held, within_s=30), server.run_until(older), server.run_until(newer)
        planned = server.run_until(unplanned)
    client.assert_answered_alike()
    server.assert_sound()

    assert "the wall clock is 1" in server.log.read_text()
    assert attempts_of(after) == {"job": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert (superseded["run"]["end_reason"], done["run"]["state"]) == ("superseded", "SUCCEEDED")
    assert planned["run"]["state"] == "SUCCEEDED"
    assert max(held, unplanned, older) < newer


def test_a_clock_set_forth_between_two_lives_ends_no_lease_and_no_job(server: ClockedServer, tmp_path: Path) -> None:
    """By the new clock the lease is over for hours, and so is the job's time; its runner knows better."""
    go = tmp_path / "go"
    client = Client(server)
    project = QuietProject(client)
    with RunnerProcess(server, "r1") as runner:
        held = push(client, project, f"while [ ! -e {go} ]; do sleep 0.05; done", "d1")
        wait_for("the job's processes", lambda: of_jobs(runner.home))
        server.kill()
        server.jump("+5h")
        server.start()
        wait_for_a_ttl(server, held)
        go.touch()
        view = server.run_until(held)
    client.assert_answered_alike()
    server.assert_sound()

    assert attempts_of(view) == {"job": [(1, "SUCCEEDED")]}
