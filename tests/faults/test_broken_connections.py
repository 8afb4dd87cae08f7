"""Single connections fail: reset, forgotten, refused, full of garbage. A proxy does it, so that no root is needed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.faults.proxy import Proxy, proxied
from tests.faults.ticks import Ticks
from tests.scenarios.support import Project, RunnerProcess, Server, attempts_of, of_jobs, wait_for

pytestmark = pytest.mark.slow

TRANSPORTS = pytest.mark.parametrize("transport", ["auto", pytest.param("http", marks=pytest.mark.long)])
LEASE = {"DELTACI_POLICY_LEASE_TTL_MS": "6000"}
LONG_LEASE = {"DELTACI_POLICY_LEASE_TTL_MS": "30000"}


@contextmanager
def through_a_proxy(home: Path, transport: str, ticks: Ticks, **settings: str) -> Iterator[tuple[Server, Proxy, str]]:
    """A runner behind a proxy, in the middle of a job: server, proxy and run."""
    with Server(home, **settings) as server, proxied(server.port) as proxy:
        project = Project(server)
        words = ("--server", f"http://127.0.0.1:{proxy.port}", "--transport", transport)
        with RunnerProcess(server, words=words):
            run_id = project.configure(ticks.jobs())
            wait_for("the job", lambda: len(ticks.of(1)) > 2)
            yield server, proxy, run_id


def heard_again(server: Server, run_id: str) -> None:
    """Returns when more of the first attempt's log is stored than was."""
    job = server.view(run_id)["jobs"][0]["id"]
    stored = len(server.text_of(job, 1))
    wait_for("more of the log", lambda: len(server.text_of(job, 1)) > stored)


def assert_done_at_once(server: Server, run_id: str, ticks: Ticks) -> None:
    """One attempt, and its log as it was printed."""
    ticks.end()
    view = server.run_until(run_id)
    assert attempts_of(view) == {"tick": [(1, "SUCCEEDED")]}
    ticks.assert_logged(server.text_of(view["jobs"][0]["id"]), 1)
    server.assert_sound()
    assert_no_bug(server)


def assert_no_bug(server: Server) -> None:
    """Whatever came over the wire, nothing of ours broke."""
    told = server.log.read_text()
    assert "Traceback" not in told, told
    assert "crashed" not in told, told


@TRANSPORTS
def test_resets_in_the_middle_of_a_job_cost_no_attempt_and_no_byte_of_its_log(tmp_path: Path, transport: str) -> None:
    """Whatever was under way is sent again, over a new connection."""
    ticks = Ticks(tmp_path)
    with through_a_proxy(tmp_path, transport, ticks, **LONG_LEASE) as (server, proxy, run_id):
        resets = 0
        while resets < 12:
            resets += wait_for("a connection", proxy.reset)
            heard_again(server, run_id)
        assert_done_at_once(server, run_id, ticks)


@TRANSPORTS
def test_connections_that_are_forgotten_without_a_word_cost_no_attempt(tmp_path: Path, transport: str) -> None:
    """Nobody tells of it: no answer within a third of the lease does, and there is time to ask again."""
    ticks = Ticks(tmp_path)
    with through_a_proxy(tmp_path, transport, ticks, **LEASE) as (server, proxy, run_id):
        for _ in range(2):
            wait_for("a connection", proxy.forget)
            heard_again(server, run_id)
        assert_done_at_once(server, run_id, ticks)


GARBAGE = [
    b"\x00" * 1_000,
    b"\xff" * 1_000,
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x82\x7e\xff\xff" + b"\xc1" * 70_000,  # a frame of garbage, without a mask
    b"\x82\xfe\xff\xff\x00\x00\x00\x00" + b"\xc1" * 70_000,  # and with one
]


@pytest.mark.parametrize(
    ("transport", "to_server"),
    [
        ("auto", False),
        ("http", True),
        pytest.param("auto", True, marks=pytest.mark.long),
        pytest.param("http", False, marks=pytest.mark.long),
    ],
)
def test_garbage_on_the_wire_costs_no_attempt_and_no_byte_of_the_log(
    tmp_path: Path, transport: str, to_server: bool
) -> None:
    """Each end closes a connection that went mad, and the runner opens another one."""
    ticks = Ticks(tmp_path)
    with through_a_proxy(tmp_path, transport, ticks, **LONG_LEASE) as (server, proxy, run_id):
        for data in GARBAGE:
            wait_for("a connection", lambda data=data: proxy.babble(data, to_server=to_server))
            heard_again(server, run_id)
        assert_done_at_once(server, run_id, ticks)


@TRANSPORTS
def test_a_runner_that_cannot_connect_stops_its_job_before_another_one_begins(tmp_path: Path, transport: str) -> None:
    """Refused is refused, however often it tries; when it is let in again it takes work again."""
    ticks = Ticks(tmp_path)
    with through_a_proxy(tmp_path, transport, ticks, **LEASE) as (server, proxy, run_id):
        with proxy.refusing():
            wait_for("the end of the job", lambda: not of_jobs(server.home / "runner-r1"))
        wait_for("the next attempt", lambda: len(ticks.of(2)) > 2)
        ticks.end()
        view = server.run_until(run_id)
        ticks.assert_logged(server.text_of(view["jobs"][0]["id"]), 2)
        server.assert_sound()
        assert_no_bug(server)

    assert attempts_of(view) == {"tick": [(1, "LOST"), (2, "SUCCEEDED")]}
    ticks.assert_apart(2)
