"""The server is killed before, in and after each of its transactions; every time it ends as if it had not been.

One scenario with everything that is ever committed: webhooks, plans, grants, logs, a failed attempt and its retry, jobs
that wait for others, a cancel, results, reports. Clients insist until they have an answer, as forges and people do.
"""

import json
from collections import Counter
from collections.abc import Iterator
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest

from tests.faults.failing_server import NAMES
from tests.faults.support import PATIENT, Client, KeptServer, QuietProject, heard_of
from tests.scenarios.support import RunnerProcess, step, wait_for

pytestmark = pytest.mark.slow

# The sweep is dealt out to this many tests a place, so that all cores take part.
SHARES = 8
# What the scenario commits at the very least, however much of it happens to share a transaction.
BATCHES_MIN = 20
LINES = 400
LOG = f'i=0; while [ $i -lt {LINES} ]; do echo "line $i"; i=$((i+1)); done'


def plans(marks: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two plans whose steps each leave a line in `marks`: in one a job fails when it runs first, the other hangs."""
    mark = f'echo "$DELTACI_JOB_NAME $DELTACI_ATTEMPT {{}}" >> {marks}'
    works = {
        "build": {"steps": [step(f"{mark.format(0)}; {LOG}; sleep 0.3; {LOG}"), step(mark.format(1))]},
        "flaky": {"retries": 1, "steps": [step(f"{mark.format(0)}; ! mkdir {marks}.tried")]},
        "ship": {"needs": ["build", "flaky"], "steps": [step(mark.format(0))]},
    }
    return works, {"hangs": {"steps": [step(f"{mark.format(0)}; sleep 600")]}}


def play(home: Path, failpoints: Iterator[str]) -> int:
    """Play the scenario under `failpoints`, assert that it ends as it must, and answer how often the server died."""
    marks = home / "marks"
    works, hangs = plans(marks)
    with KeptServer(home, failpoints, **PATIENT) as server:
        client = Client(server)
        project = QuietProject(client)
        (home / "token-r1").write_text(client.runner_token())
        with RunnerProcess(server, slots=3) as runner:
            commit = project.upload({"deltaci.yaml": json.dumps({"version": 1, "jobs": works})})
            worked = client.webhook(project, commit, "d-works")
            commit = project.upload({"deltaci.yaml": json.dumps({"version": 1, "jobs": hangs})}, branch="hangs")
            hung = client.webhook(project, commit, "d-hangs", ref="refs/heads/hangs")
            wait_for("the job that hangs", lambda: marks.exists() and "hangs" in marks.read_text())
            assert client.post(f"/runs/{hung}/cancel", "c-hangs")["run_id"] == hung
            first, second = server.run_until(worked), server.run_until(hung)
            wait_for("both reports", lambda: ended(project) >= {(worked, "success"), (hung, "error")})
            client.assert_answered_alike()
            log = client.log(first["jobs"][0]["id"])
            server.assert_sound()
            runner.stop()
        kills = server.kills

    assert (first["run"]["state"], second["run"]["state"]) == ("SUCCEEDED", "CANCELED")
    assert {**heard_of(first), **heard_of(second)} == {
        "build": ["SUCCEEDED"],
        "flaky": ["FAILED", "SUCCEEDED"],
        "ship": ["SUCCEEDED"],
        "hangs": ["CANCELED"],
    }
    expected = [f"line {number}" for number in range(LINES)] * 2
    assert expected == [line for line in log.splitlines() if not line.startswith("==>")]
    assert executed(first, second) == Counter(marks.read_text().splitlines())
    return kills


def ended(project: QuietProject) -> set[tuple[str, str]]:
    """(run, status) of each final report."""
    return {(one["run_id"], one["status"]) for one in project.reported() if one["is_final"]}


def executed(first: Any, second: Any) -> Counter[str]:
    """The marks that exactly one execution of each acknowledged attempt leaves."""
    steps = {"build": 2, "flaky": 1, "ship": 1, "hangs": 1}
    return Counter(
        f"{job['name']} {one['number']} {number}"
        for job in (*first["jobs"], *second["jobs"])
        for one in job["attempts"]
        if one["started_at_ms"] is not None
        for number in range(steps[job["name"]])
    )


def test_kills_all_over_a_scenario_change_nothing(tmp_path: Path) -> None:
    """A dozen lives, each ended at another place of a later commit; the last one lives on."""
    batches = (1, 2, 3, 4, 6, 5, 9, 4, 7, 13, 5, 8)

    kills = play(tmp_path, (f"{name}:{at}:kill" for name, at in zip(cycle(NAMES), batches, strict=False)))

    assert kills >= 8


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("share", range(SHARES))
@pytest.mark.parametrize("name", NAMES)
def test_a_kill_at_any_commit_changes_nothing(tmp_path: Path, name: str, share: int) -> None:
    """N = 1, 2, ... until the scenario ends before its N-th commit; each test takes every eighth N."""
    for at in count(1 + share, SHARES):
        home = tmp_path / str(at)
        home.mkdir()
        if not play(home, iter([f"{name}:{at}:kill"])):
            assert at > BATCHES_MIN
            return
