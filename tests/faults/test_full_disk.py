"""The disk of the server is full: a small tmpfs in a mount namespace of its own, which goes when its holder does."""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.faults.needs import require_root, require_tools
from tests.faults.support import Client, QuietProject, plan_of
from tests.scenarios.support import RunnerProcess, Server, attempts_of, of_jobs, wait_for

pytestmark = pytest.mark.slow

MIB = 1024 * 1024
DISK_BYTES = 96 * MIB
RESERVE_BYTES = 32 * MIB
SETTINGS = {
    "DELTACI_POLICY_LEASE_TTL_MS": "20000",
    "DELTACI_POLICY_HEARTBEAT_MS": "300",
    "DELTACI_POLICY_DISK_RESERVE_BYTES": str(RESERVE_BYTES),
}


class SmallDiskServer(Server):
    """A server whose data directory is a file system of its own, seen through the one process that holds it."""

    def __init__(self, home: Path, holder: int) -> None:
        super().__init__(home, **SETTINGS)
        self.before = ("nsenter", f"--mount=/proc/{holder}/ns/mnt", f"--wdns={Path.cwd()}", "--")
        self.data = Path(f"/proc/{holder}/root{home / 'data'}")
        self.filler = self.data / "filler"

    def fill(self, *, leave_bytes: int) -> None:
        """Somebody else takes the space, all but `leave_bytes`."""
        with contextlib.suppress(OSError), self.filler.open("ab", buffering=0) as file:
            while (free := self.free_bytes()) > leave_bytes:
                file.write(bytes(min(MIB, free - leave_bytes)))

    def free_bytes(self) -> int:
        """What is left."""
        words = ("df", "--output=avail", "--block-size=1", str(self.home / "data"))
        done = subprocess.run((*self.before, *words), capture_output=True, text=True, check=True)
        return int(done.stdout.split()[-1])


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SmallDiskServer]:
    require_root()
    require_tools("unshare", "nsenter", "mount", "df")
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    script = f"mount -t tmpfs -o size={DISK_BYTES},mode=700 tmpfs {data} && echo mounted && read -r line"
    command = ("unshare", "--mount", "sh", "-c", script)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "mounted\n"
        with SmallDiskServer(tmp_path, holder.pid) as server:
            yield server
        assert holder.stdin is not None
        holder.stdin.close()


def test_nothing_is_acknowledged_while_the_disk_is_full_and_everything_works_again_when_it_is_not(
    server: SmallDiskServer, tmp_path: Path
) -> None:
    """503 with Retry-After; no lease is lost, no job fails for it, and a first push can be planned afterwards."""
    go = tmp_path / "go"
    client = Client(server)
    project = QuietProject(client)
    with RunnerProcess(server) as runner:
        held = client.webhook(project, project.upload(plan_of(f"while [ ! -e {go} ]; do sleep 0.05; done")), "d1")
        wait_for("the job", lambda: attempts_of(server.view(held)) == {"job": [(1, "RUNNING")]})
        data, headers = project.webhook(project.upload(plan_of("true"), branch="b"), "d2", ref="refs/heads/b")
        server.fill(leave_bytes=0)

        def deliver() -> httpx.Response:
            return server.client.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers)

        refused = [deliver() for _ in range(20)]
        known = server.get("/runs")["runs"]
        go.touch()  # its result cannot be stored either
        wait_for("the end of its processes", lambda: not of_jobs(runner.home))
        kept = server.view(held)
        server.filler.unlink()
        accepted = deliver()
        first, second = server.run_until(held), server.run_until(accepted.json()["run_id"])
    client.assert_answered_alike()
    server.assert_sound()

    assert {answer.status_code for answer in refused} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in refused)
    assert [one["id"] for one in known] == [held]
    assert attempts_of(kept) == {"job": [(1, "RUNNING")]}
    assert (accepted.status_code, accepted.json()["duplicate"]) == (202, False)
    assert attempts_of(first) == attempts_of(second) == {"job": [(1, "SUCCEEDED")]}


def test_a_full_disk_fails_no_run_that_could_not_be_planned_for_it(server: SmallDiskServer) -> None:
    """Nothing is wrong with the commit: the mirror could not be written."""
    client = Client(server)
    project = QuietProject(client)
    server.fill(leave_bytes=MIB)  # enough for state, for a while
    run_id = client.webhook(project, project.upload({**plan_of("true"), "big": secrets.token_hex(2 * MIB)}), "d1")
    wait_for("a plan that is put off", lambda: "put off" in server.log.read_text())
    state = server.view(run_id)["run"]["state"]
    server.filler.unlink()
    with RunnerProcess(server):
        view = server.run_until(run_id)
    server.assert_sound()

    assert state == "PLANNING"
    assert view["run"]["state"] == "SUCCEEDED"


def test_logs_and_artifacts_leave_the_last_space_to_state(server: SmallDiskServer) -> None:
    """A job writes without end; others are pushed, planned, leased, executed, canceled and reported all the same."""
    client = Client(server)
    project = QuietProject(client)
    with RunnerProcess(server, slots=2):
        server.fill(leave_bytes=RESERVE_BYTES + MIB)
        script = f"head -c {MIB} /dev/urandom | od -An -v -tx1; head -c {4 * MIB} /dev/urandom > big"
        artifacts = [{"name": "big", "paths": ["big"]}]
        loud = client.webhook(project, project.upload(plan_of(script, artifacts=artifacts)), "d1")
        wait_for("a log that has to wait", lambda: "logs and artifacts have to wait" in server.log.read_text())
        commit = project.upload(plan_of("sleep 600"), branch="hangs")
        hangs = client.webhook(project, commit, "d2", ref="refs/heads/hangs")
        wait_for("the job", lambda: attempts_of(server.view(hangs)).get("job") == [(1, "RUNNING")])
        client.post(f"/runs/{hangs}/cancel", "c2")
        canceled = server.run_until(hangs, within_s=20)
        waiting = server.view(loud)
        free = server.free_bytes()
        server.filler.unlink()
        done = server.run_until(loud)
        log = client.log(done["jobs"][0]["id"])
    client.assert_answered_alike()
    server.assert_sound()

    assert free > RESERVE_BYTES // 2
    assert attempts_of(canceled) == {"job": [(1, "CANCELED")]}
    assert waiting["run"]["state"] == "RUNNING"
    assert attempts_of(done) == {"job": [(1, "SUCCEEDED")]}
    assert len([line for line in log.splitlines() if not line.startswith("==>")]) == MIB // 16
    assert [one["name"] for one in done["jobs"][0]["artifacts"]] == ["big"]
    assert server.log.read_text().count("logs and artifacts have to wait") == 1
