"""The disk does not do what it is asked: system calls of a real server are made to fail, or to take long, by strace."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.faults.needs import require_root, require_tools
from tests.faults.support import PATIENT, Client, QuietProject, heard_of, injected, plan_of
from tests.scenarios.support import RunnerProcess, Server, attempts_of, of_jobs, wait_for

pytestmark = pytest.mark.slow

PUSHES = 6


class Scene:
    """A job that goes on until it may end, and pushes that the server has not been told of."""

    def __init__(self, server: Server, runner: RunnerProcess, project: QuietProject) -> None:
        self.server = server
        self.project = project
        self.go = server.home / "go"
        self.acknowledged: dict[str, bytes] = {}
        waiting = project.upload(plan_of(f"while [ ! -e {self.go} ]; do echo on; sleep 0.1; done"))
        self.held = project.client.webhook(project, waiting, "held")
        wait_for("the job's processes", lambda: of_jobs(runner.home))
        names = [f"d{number}" for number in range(PUSHES)]
        self.commits = {name: project.upload({**plan_of("true"), "name": name}, branch=name) for name in names}

    def deliver(self, name: str) -> httpx.Response | None:
        """Tell the server of one push; None when there is no answer. What it acknowledges is kept."""
        data, headers = self.project.webhook(self.commits[name], name, ref=f"refs/heads/{name}")
        try:
            told = self.server.client.post(f"{self.server.url}/api/v1/webhooks/git", content=data, headers=headers)
        except httpx.TransportError:
            return None
        if told.is_success:
            self.acknowledged[name] = told.content
        return told

    def assert_it_ends_as_if_nothing_had_been(self) -> None:
        """What was acknowledged is stored, what was not is accepted now, and each job is executed once."""
        client = self.project.client
        runs = [
            client.webhook(self.project, commit, name, ref=f"refs/heads/{name}")
            for name, commit in self.commits.items()
        ]
        self.go.touch()
        views = [self.server.run_until(run_id) for run_id in (self.held, *runs)]
        client.assert_answered_alike()
        self.server.assert_sound()
        assert {name: client.accepted[name] for name in self.acknowledged} == self.acknowledged
        assert [heard_of(view) for view in views] == [{"job": ["SUCCEEDED"]}] * len(views)


@pytest.fixture
def scene(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scene]:
    require_root()
    require_tools("strace")
    with Server(tmp_path, **{**PATIENT, **getattr(request, "param", {})}) as server:
        project = QuietProject(Client(server))
        with RunnerProcess(server, slots=3) as runner:
            yield Scene(server, runner, project)


@pytest.mark.parametrize("fault", ["fdatasync:error=EIO:when=3", "pwrite64:error=EIO:when=20", "pwrite64:error=EROFS"])
def test_after_an_io_error_the_server_exits_and_recovers_from_disk(scene: Scene, fault: str) -> None:
    """It is unknown what was stored: nobody is told that it was, and nothing is tried again in this life."""
    server = scene.server
    assert server.process is not None
    with injected(server, fault):
        answers = [scene.deliver(name) for name in scene.commits]
        code = server.process.popen.wait(30)
    server.start()

    assert code == 1
    # 500 without a word: the process ended while it was being asked.
    assert {answer.status_code for answer in answers if answer is not None} <= {202, 500, 503}
    assert len(scene.acknowledged) < PUSHES
    assert "restart to recover from disk" in server.log.read_text().split("Error: ")[-1]
    scene.assert_it_ends_as_if_nothing_had_been()


def test_a_disk_that_is_full_for_some_writes_breaks_nothing(scene: Scene) -> None:
    """Rolled back, refused, and the next one is stored: the same process goes on."""
    with injected(scene.server, "pwrite64:error=ENOSPC:when=7+9"):
        refused = [answer for name in scene.commits for _ in range(3) if (answer := scene.deliver(name)) is not None]

    assert {answer.status_code for answer in refused} >= {503}
    assert all("Retry-After" in answer.headers for answer in refused if answer.status_code == 503)
    assert scene.server.log.read_text().count("Delta CI is ready") == 1
    scene.assert_it_ends_as_if_nothing_had_been()


def test_checkpoints_that_fail_lose_nothing(scene: Scene) -> None:
    """SQLite says nothing then and keeps its log; also a server that is killed before one succeeded has everything."""
    server = scene.server
    database = server.data / "deltaci.db"
    before = database.stat().st_mtime_ns
    script = "head -c 7000000 /dev/zero | od -An -v -tx1; exit 0"  # more than goes to the log between two checkpoints
    with injected(server, "fdatasync,pwrite64:error=EIO", only=database):
        commit = scene.project.upload(plan_of(script), branch="loud")
        loud = scene.project.client.webhook(scene.project, commit, "loud", ref="refs/heads/loud")
        view = server.run_until(loud)
        failed = (server.home / "strace").read_text().count("INJECTED")
        told = [scene.deliver(name) for name in scene.commits]
        untouched = database.stat().st_mtime_ns == before
        server.kill()
    server.start()

    assert (failed > 0, untouched) == (True, True)
    assert attempts_of(view) == {"job": [(1, "SUCCEEDED")]}
    assert [answer.status_code for answer in told if answer is not None] == [202] * PUSHES
    scene.assert_it_ends_as_if_nothing_had_been()


@pytest.mark.parametrize("scene", [{"DELTACI_POLICY_LEASE_TTL_MS": "12000"}], indirect=True)
def test_a_slow_disk_costs_no_lease(scene: Scene) -> None:
    """Everything that is stored takes seconds; heartbeats and health do not wait for it."""
    server = scene.server
    healthy = 0

    def waits() -> int:
        return (server.home / "strace").read_text().count("(DELAYED)")

    def renewals() -> int:
        nonlocal healthy
        for path in ("healthz", "readyz"):
            assert server.client.get(f"{server.url}/{path}").is_success
        healthy += 1
        events = server.get(f"/runs/{scene.held}/events?limit=500")["events"]
        return sum(event["type"] == "LeaseRenewed" for event in events)

    with injected(server, "fdatasync:delay_enter=1000000"):
        with ThreadPoolExecutor(len(scene.commits)) as senders:
            told = list(senders.map(scene.deliver, scene.commits))
        healthy, waited, before = 0, waits(), renewals()
        wait_for("two renewals of the lease", lambda: renewals() >= before + 2, pause_s=0.1)
        waited = waits() - waited

    assert [answer.status_code for answer in told if answer is not None] == [202] * PUSHES
    assert healthy > waited > 0
    scene.assert_it_ends_as_if_nothing_had_been()
