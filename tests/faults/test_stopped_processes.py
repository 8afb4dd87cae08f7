"""SIGSTOP for longer than a lease lives: whoever wakes is the old holder, and changes nothing."""

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.faults.ticks import OVERLAP_MAX_S, Ticks, boot_s
from tests.scenarios.support import Process, RunnerProcess, Server, attempts_of, of_jobs, running, step, wait_for

pytestmark = pytest.mark.slow

TTL_S = 3.0  # of the quick settings


@contextmanager
def stopped(*pids: int) -> Iterator[None]:
    """The processes stand still; they go on at the end, whatever happens."""
    try:
        for pid in pids:
            _send(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            _send(pid, signal.SIGCONT)


def _send(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def pid_of(process: Process | None) -> int:
    assert process is not None
    return process.popen.pid


def wait_out(seconds: float) -> None:
    """Nothing tells that a time has passed in which nothing was done: the one wait for time itself."""
    until_s = boot_s() + seconds
    wait_for("time to pass", lambda: boot_s() >= until_s)


def changes_after(server: Server, run_id: str, event_id: int) -> list[Any]:
    """What changed since; refusals are in the journal too, and change nothing."""
    events = server.get(f"/runs/{run_id}/events?after={event_id}")["events"]
    return [event for event in events if event["sequence"] is not None]


def test_a_stopped_runner_loses_its_job_and_the_job_ends_without_it(tmp_path: Path) -> None:
    """Its job's processes are not stopped with it: they end with the lease, before another runner begins."""
    ticks = Ticks(tmp_path)
    with running(tmp_path) as (server, project, first):
        run_id = project.configure(ticks.jobs())
        wait_for("the job", lambda: len(ticks.of(1)) > 2)
        with RunnerProcess(server, "r2"):
            with stopped(pid_of(first.process)):
                wait_for("the next attempt", lambda: len(ticks.of(2)) > 2)
                wait_for("the end of the old one", lambda: not of_jobs(first.home))
                ticks.end()
                view = server.run_until(run_id)
                last_id = server.get(f"/runs/{run_id}/events")["events"][-1]["id"]
            wait_for("the word of the old holder", lambda: "is lost" in first.log.read_text())
            following = server.run_until(project.configure({"next": {"steps": [step("echo next")]}}))
        late = changes_after(server, run_id, last_id)
        log = server.text_of(view["jobs"][0]["id"], 1)
        server.assert_sound()

    assert attempts_of(view) == {"tick": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert view["jobs"][0]["attempts"][0]["end_reason"] == "runner_lost"
    ticks.assert_apart(2)
    assert late == []
    assert "end of attempt" not in log
    assert following["run"]["state"] == "SUCCEEDED"


def test_a_host_that_stood_still_kills_its_job_as_soon_as_it_goes_on(tmp_path: Path) -> None:
    """Runner and job stop together, as when a virtual machine is paused; awake, the job must not go on."""
    ticks = Ticks(tmp_path)
    with running(tmp_path) as (server, project, first):
        run_id = project.configure(ticks.jobs())
        wait_for("the job", lambda: len(ticks.of(1)) > 2)
        with RunnerProcess(server, "r2"):
            with stopped(pid_of(first.process), *(process.pid for process in of_jobs(first.home))):
                wait_for("the next attempt", lambda: len(ticks.of(2)) > 2)
                woken_s = boot_s()
            wait_for("the end of the old one", lambda: not of_jobs(first.home))
            wait_for("the word of the old holder", lambda: "is lost" in first.log.read_text())
            ticks.end()
            view = server.run_until(run_id)
        server.assert_sound()

    assert attempts_of(view) == {"tick": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert ticks.of(1)[-1] - woken_s <= OVERLAP_MAX_S


def test_a_result_that_waits_while_the_server_stands_still_counts(tmp_path: Path) -> None:
    """The attempt was over in time; that nobody read its result for longer than a lease lives is our own fault."""
    ticks = Ticks(tmp_path)
    with running(tmp_path) as (server, project, runner):
        run_id = project.configure(ticks.jobs())
        wait_for("the job", lambda: len(ticks.of(1)) > 2)
        with stopped(pid_of(server.process)):
            ticks.end()
            wait_for("the end of the job", lambda: not of_jobs(runner.home))
            wait_out(TTL_S * 1.3)
        view = server.run_until(run_id)
        log = server.text_of(view["jobs"][0]["id"])
        server.assert_sound()

    assert attempts_of(view) == {"tick": [(1, "SUCCEEDED")]}
    assert "end of attempt 1" in log


def test_a_server_that_stood_still_gives_the_job_to_one_runner_at_a_time(tmp_path: Path) -> None:
    """The holder was not answered for as long as its lease lives, so it stopped; the server finds that out later."""
    ticks = Ticks(tmp_path)
    with running(tmp_path) as (server, project, first), RunnerProcess(server, "r2") as second:
        run_id = project.configure(ticks.jobs())
        wait_for("the job", lambda: len(ticks.of(1)) > 2)
        with stopped(pid_of(server.process)):
            wait_for("the end of the job", lambda: not of_jobs(first.home) and not of_jobs(second.home))
            ended_s = boot_s()
        wait_for("the next attempt", lambda: len(ticks.of(2)) > 2)
        ticks.end()
        view = server.run_until(run_id)
        server.assert_sound()

    assert attempts_of(view) == {"tick": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert ticks.of(1)[-1] <= ended_s
    ticks.assert_apart(2)


def test_a_server_that_stands_still_for_less_than_a_lease_costs_no_attempt(tmp_path: Path) -> None:
    """What waits in its sockets is read and answered; the holder never had to stop."""
    ticks = Ticks(tmp_path)
    settings = {"DELTACI_POLICY_LEASE_TTL_MS": "10000"}
    with running(tmp_path, **settings) as (server, project, _):
        run_id = project.configure(ticks.jobs())
        wait_for("the job", lambda: len(ticks.of(1)) > 2)
        for _round in range(2):
            with stopped(pid_of(server.process)):
                wait_out(2.5)
            wait_for("the server", lambda: server.get("/runners"))
        ticks.end()
        view = server.run_until(run_id)
        server.assert_sound()

    assert attempts_of(view) == {"tick": [(1, "SUCCEEDED")]}
