"""The server runs out of file descriptors: many clients, or careless ones, have taken them."""

import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.needs import require_tools
from tests.faults.support import PATIENT, Client, QuietProject, plan_of
from tests.scenarios.support import RunnerProcess, Server, attempts_of, of_jobs, wait_for

pytestmark = pytest.mark.slow

OUT = "out of file descriptors"
BACK = "there are file descriptors again"


def open_count(server: Server) -> int:
    """How many descriptors it has."""
    assert server.process is not None
    return len(os.listdir(f"/proc/{server.process.popen.pid}/fd"))


@contextmanager
def exhausted(server: Server) -> Iterator[None]:
    """The server may open three more descriptors, which are taken at once, and two dozen clients more are waiting."""
    assert server.process is not None
    pid = server.process.popen.pid
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={open_count(server) + 3}:"], check=True)
    with contextlib.ExitStack() as clients:
        for _ in range(24):
            clients.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=5))
        wait_for("the end of all descriptors", lambda: OUT in server.log.read_text())
        yield
    subprocess.run(["prlimit", f"--pid={pid}", f"--nofile={soft}:{hard}"], check=True)


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_without_descriptors_what_is_under_way_goes_on_and_the_rest_comes_back(tmp_path: Path, loop: str) -> None:
    """Nothing of it is lost, no run fails for it, and the log tells it once."""
    require_tools("prlimit")
    go = tmp_path / "go"
    settings = {**PATIENT, "DELTACI_POLICY_LEASE_TTL_MS": "8000"}
    if loop == "asyncio":
        (tmp_path / "without").mkdir()
        (tmp_path / "without" / "uvloop.py").write_text("raise ImportError('not for this test')\n")
        settings["PYTHONPATH"] = str(tmp_path / "without")
    with Server(tmp_path, **settings) as server:
        client = Client(server)
        project = QuietProject(client)
        with RunnerProcess(server, slots=2) as runner:
            held = client.webhook(project, project.upload(plan_of(f"while [ ! -e {go} ]; do sleep 0.05; done")), "d1")
            wait_for("the job's processes", lambda: of_jobs(runner.home))
            # Accepted on a connection that is open; then there is nothing to start git with.
            commit = project.upload(plan_of("true"), branch="b")
            with httpx.Client(timeout=30) as early:
                early.get(f"{server.url}/healthz")
                with exhausted(server):
                    data, headers = project.webhook(commit, "d2", ref="refs/heads/b")
                    told = early.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers)
                    wait_for("a plan that is put off", lambda: "put off" in server.log.read_text())
                    with pytest.raises(httpx.TransportError):
                        httpx.get(f"{server.url}/healthz", timeout=1)
                    go.touch()
                    wait_for("the job's end", lambda: "run is SUCCEEDED" in server.log.read_text())
            wait_for("descriptors", lambda: BACK in server.log.read_text())
            first, second = server.run_until(held), server.run_until(told.json()["run_id"])
        client.assert_answered_alike()
        server.assert_sound()

    log = server.log.read_text()
    assert told.status_code == 202
    assert attempts_of(first) == attempts_of(second) == {"job": [(1, "SUCCEEDED")]}
    assert (log.count(OUT), log.count(BACK), log.count("out of system resource")) == (1, 1, 0)
    assert len(log.splitlines()) < 60, log


def test_a_connection_is_let_go_when_its_client_is_gone(tmp_path: Path) -> None:
    """Before a request, after one, and without waiting for the answer: none is kept for the idle time of 75 s."""
    with Server(tmp_path) as server:
        httpx.get(f"{server.url}/healthz")
        before = open_count(server)
        for _ in range(20):
            socket.create_connection(("127.0.0.1", server.port)).close()
            httpx.get(f"{server.url}/healthz")
            with socket.create_connection(("127.0.0.1", server.port)) as impatient:
                impatient.sendall(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n")

        wait_for("all of them", lambda: open_count(server) <= before, within_s=20)


def test_the_server_takes_as_many_descriptors_as_it_may_have(tmp_path: Path) -> None:
    """The soft limit is often 1,024; the hard one is what the system means."""
    require_tools("prlimit")
    server = Server(tmp_path)
    server.before = ("prlimit", "--nofile=200:3000", "--")
    with server:
        assert server.process is not None
        limits = resource.prlimit(server.process.popen.pid, resource.RLIMIT_NOFILE)

    assert limits == (3000, 3000)
