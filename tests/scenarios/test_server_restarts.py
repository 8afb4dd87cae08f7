"""The server is killed and started again on the same data and port; the run goes on as if nothing had been."""

import contextlib
import json
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.scenarios.support import Project, Server, attempts_of, git, running, step, wait_for

pytestmark = pytest.mark.slow

# Long enough for a slow start on a busy machine: no lease may be lost by a restart alone.
PATIENT = {
    "DELTACI_POLICY_LEASE_TTL_MS": "30000",
    "DELTACI_POLICY_HEARTBEAT_MS": "300",
    "DELTACI_POLICY_ACK_WITHIN_MS": "10000",
}


def jobs_that_leave_marks(marks: Path) -> dict[str, Any]:
    """Four jobs in a diamond, three steps each, a line in `marks` for every step that is executed."""
    mark = f'echo "$DELTACI_RUN_ID $DELTACI_JOB_NAME $DELTACI_ATTEMPT {{}}" >> {marks}; sleep 0.25'
    steps = [step(mark.format(number), f"step {number}") for number in range(3)]
    return {
        "first": {"steps": steps},
        "left": {"needs": ["first"], "steps": steps},
        "right": {"needs": ["first"], "steps": steps},
        "last": {"needs": ["left", "right"], "steps": steps},
    }


def events_after(server: Server, run_id: str, event_id: int) -> list[Any]:
    """What was journaled of the run after `event_id`; nothing from a server that does not answer."""
    with contextlib.suppress(httpx.HTTPError):
        found: list[Any] = server.get(f"/runs/{run_id}/events?after={event_id}")["events"]
        return found
    return []


def assert_executed_once(server: Server, view: Any, marks: Path) -> None:
    """Every job succeeded, every attempt is accounted for, and no step of one ran twice."""
    run_id = view["run"]["id"]
    assert view["run"]["state"] == "SUCCEEDED", view
    lines = [line.split(" ", 1)[1] for line in marks.read_text().splitlines() if line.startswith(run_id)]
    expected = []
    for job in view["jobs"]:
        numbers = [attempt["number"] for attempt in job["attempts"]]
        assert numbers == list(range(1, len(numbers) + 1))
        *lost, last = job["attempts"]
        assert last["state"] == "SUCCEEDED"
        # A grant whose answer died with the server was never heard of, and is the only attempt that may be lost.
        assert all(one["state"] == "LOST" and one["started_at_ms"] is None for one in lost), job
        expected += [f"{job['name']} {last['number']} {number}" for number in range(3)]
    assert Counter(lines) == Counter(expected)
    server.assert_sound()


def test_a_run_survives_ten_kills_of_the_server(tmp_path: Path) -> None:
    """After each event that a watcher sees; no execution is lost, none is repeated."""
    marks = tmp_path / "marks"
    kills = 0
    with running(tmp_path, slots=2, **PATIENT) as (server, project, _):
        run_id = project.configure(jobs_that_leave_marks(marks))
        seen = 0
        while kills < 10:
            events = wait_for("an event", partial(events_after, server, run_id, seen))
            if any(event["type"] == "RunEnded" for event in events):
                break
            seen = events[-1]["id"]
            server.kill()
            kills += 1
            server.start()
        view = server.run_until(run_id)

        assert kills >= 8
        assert_executed_once(server, view, marks)


def test_a_kill_in_any_slice_of_time_after_the_push_loses_nothing(tmp_path: Path) -> None:
    """What was answered 2xx is on disk: also when the very next thing is a kill."""
    marks = tmp_path / "marks"
    with running(tmp_path, slots=2, **PATIENT) as (server, project, _):
        views = []
        for delay_ms in (0, 15, 60, 150, 400):
            commit = project.commit({"deltaci.yaml": configuration(marks), "n": str(delay_ms)})
            push_without_hook(project)
            data, headers = project.webhook(commit, f"d-{delay_ms}")
            told = httpx.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers, timeout=30)
            time.sleep(delay_ms / 1000)
            server.kill()
            server.start()
            again = httpx.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers, timeout=30)
            assert again.content == told.content
            views.append(server.run_until(told.json()["run_id"]))

        for view in views:
            assert_executed_once(server, view, marks)


def configuration(marks: Path) -> str:
    """What `Project.configure` would push."""
    return json.dumps({"version": 1, "jobs": jobs_that_leave_marks(marks)})


def push_without_hook(project: Project) -> None:
    """The commit is there to be fetched, and nobody told the server yet."""
    hook = project.bare / "hooks" / "post-receive"
    hook.unlink(missing_ok=True)
    git("push", "--quiet", "origin", "HEAD:refs/heads/main", cwd=project.work)


def test_a_server_that_is_asked_to_end_finishes_what_it_accepted(tmp_path: Path) -> None:
    """SIGTERM: exit code 0 in good time; the runner comes back and its job was never interrupted."""
    go = tmp_path / "go"
    jobs = {"wait": {"steps": [step(f"while [ ! -e {go} ]; do sleep 0.05; done; echo done")]}}
    with running(tmp_path, **PATIENT) as (server, project, runner):
        run_id = project.configure(jobs)
        server.run_until(run_id, "RUNNING")
        wait_for("the step", lambda: server.view(run_id)["jobs"][0]["attempts"][0]["state"] == "RUNNING")
        started = time.monotonic()
        code = server.stop()
        took_s = time.monotonic() - started
        go.touch()
        server.start()
        view = server.run_until(run_id)
        wait_for("the runner", runner.is_online)
        server.assert_sound()

    assert code == 0
    assert took_s < 10
    assert attempts_of(view) == {"wait": [(1, "SUCCEEDED")]}


def test_a_job_that_ends_while_the_server_is_away_is_reported_when_it_is_back(tmp_path: Path) -> None:
    """The runner keeps result and log, and resends both until there is a definite answer."""
    started, go, ended = tmp_path / "started", tmp_path / "go", tmp_path / "ended"
    script = f"echo early; touch {started}; while [ ! -e {go} ]; do sleep 0.05; done; echo late; touch {ended}"
    jobs = {"short": {"steps": [step(script)]}}
    with running(tmp_path, **PATIENT) as (server, project, _):
        run_id = project.configure(jobs)
        wait_for("the step", started.exists)
        server.kill()
        go.touch()
        wait_for("the end of the step", ended.exists)
        server.start()
        view = server.run_until(run_id)
        log = server.text_of(view["jobs"][0]["id"])
        server.assert_sound()

    assert attempts_of(view) == {"short": [(1, "SUCCEEDED")]}
    assert [line for line in log.splitlines() if not line.startswith("==>")] == ["early", "late"]
