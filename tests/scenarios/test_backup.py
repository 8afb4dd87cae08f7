"""Backups of a server at work, restored beside it and in its place; the runners and the forge never heard of it."""

import contextlib
import json
import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from deltaci.store.backup import make
from tests.scenarios.support import (
    FINAL,
    Project,
    RunnerProcess,
    Server,
    attempts_of,
    cli,
    git,
    running,
    step,
    wait_for,
)

pytestmark = pytest.mark.slow

RUNS = 9
# Long enough for a busy machine: what is taken back here is taken back by the restore, not by the clock.
PATIENT = {
    "DELTACI_POLICY_LEASE_TTL_MS": "60000",
    "DELTACI_POLICY_HEARTBEAT_MS": "300",
    "DELTACI_POLICY_ACK_WITHIN_MS": "30000",
}


def backed_up(server: Server, name: str) -> tuple[Path, str]:
    """A backup of the live server, and what was said about it."""
    target = server.home / name
    return target, cli("backup", "--data", str(server.data), "--to", str(target))


def assert_nothing_leaked(secrets: list[str], *texts: str) -> None:
    """None of the secrets is in any of the texts."""
    assert all(secrets)
    assert [secret for secret in secrets for text in texts if secret in text] == []


def all_runs(server: Server) -> list[Any]:
    return server.get("/runs?limit=100")["runs"]


def test_every_backup_of_a_server_under_load_can_be_restored(tmp_path: Path) -> None:
    """Taken at any moment: each is whole, and in each world every run ends well."""
    go = tmp_path / "go"
    quick = step("echo $DELTACI_JOB_NAME > out.txt; sleep 0.2")
    first = {"steps": [quick], "artifacts": [{"name": "out", "paths": ["out.txt"]}]}
    backups: list[Path] = []
    with Server(tmp_path, **PATIENT) as server:
        project = Project(server, options=["--no-supersede"])
        with RunnerProcess(server, slots=RUNS // 3 + 1):
            for number in range(RUNS):
                # The run before each backup is surely live in it, however slow this machine is.
                last = waiting_for(go) if number % 3 == 2 else {"steps": [quick]}
                project.configure({"first": first, "second": {"needs": ["first"], **last}}, number=str(number))
                if number % 3 == 2:
                    backups.append(tmp_path / f"backup-{number}")
                    made = make(server.data, backups[-1], program="", now_ms=time.time_ns() // 1_000_000)
                    assert made.contents.live_runs
            go.touch()
            wait_for("all runs", lambda: all(run["state"] in FINAL for run in all_runs(server)))
            server.assert_sound()
        secrets = [project.secret, server.token, (tmp_path / "token-r1").read_text()]
        known = {run["id"] for run in all_runs(server)}
        server.stop()

    texts = [(path / "backup.json").read_text() for path in backups]
    for number, path in enumerate(backups):
        world = tmp_path / f"world-{number}"
        world.mkdir()
        shutil.copy(tmp_path / "token-r1", world)
        texts.append(cli("restore", "--from", str(path), "--data", str(world / "data")))
        with Server(world, **PATIENT) as restored, RunnerProcess(restored, slots=3):
            assert len(all_runs(restored)) >= 3 * (number + 1)
            assert {run["id"] for run in all_runs(restored)} <= known
            wait_for("all runs", lambda restored=restored: all(run["state"] in FINAL for run in all_runs(restored)))
            views = [restored.view(run["id"]) for run in all_runs(restored)]
            texts += [json.dumps(views), json.dumps(restored.get(f"/runs/{views[0]['run']['id']}/events"))]
            restored.assert_sound()
            # A revoked attempt may have left one as well.
            with_artifact = {path.parents[1].name for path in (restored.data / "artifacts").rglob("out")}
        texts += [restored.log.read_text(), (world / "runner-r1.log").read_text()]

        assert {view["run"]["state"] for view in views} == {"SUCCEEDED"}
        assert with_artifact == {view["jobs"][0]["id"] for view in views}
        reasons = {attempt["end_reason"] for view in views for job in view["jobs"] for attempt in job["attempts"]}
        assert reasons <= {"succeeded", "restored"}
    assert_nothing_leaked(secrets, *texts)


def in_its_place(server: Server, backup: Path) -> str:
    """The server dies, its disk with it, and another one is made of the backup, under the same address."""
    server.kill()
    server.data.rename(server.home / "lost")
    told = cli("restore", "--from", str(backup), "--data", str(server.data))
    server.start()
    return told


def waiting_for(file: Path) -> dict[str, Any]:
    """A job that ends when `file` is there."""
    return {"steps": [step(f"while [ ! -e {file} ]; do sleep 0.05; done")]}


def state_of(server: Server, run_id: str) -> str:
    """Of the newest attempt of the run's first job, once there is one."""
    with contextlib.suppress(httpx.HTTPError, IndexError):
        return str(server.view(run_id)["jobs"][0]["attempts"][-1]["state"])
    return ""


def test_a_runner_that_works_through_a_restore_is_stopped_and_begins_again(tmp_path: Path) -> None:
    """It holds a lease of the backup: what it was told since is not known, so another attempt counts."""
    go = tmp_path / "go"
    with running(tmp_path, **PATIENT) as (server, project, runner):
        run_id = project.configure({"held": waiting_for(go)})
        wait_for("the step", lambda: state_of(server, run_id) == "RUNNING")
        backup, _ = backed_up(server, "backup")
        told = in_its_place(server, backup)
        wait_for("the second attempt", lambda: len(server.view(run_id)["jobs"][0]["attempts"]) == 2)
        wait_for("its step", lambda: state_of(server, run_id) == "RUNNING")
        go.touch()
        view = server.run_until(run_id)
        log = runner.log.read_text()
        server.assert_sound()

    assert attempts_of(view) == {"held": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert view["jobs"][0]["attempts"][0]["end_reason"] == "restored"
    assert "revoked       1 leases" in told
    assert "stale" in log.lower()


def test_the_world_comes_back_to_what_the_database_says(tmp_path: Path) -> None:
    """A result, a delivery, a run and a runner's job that came after the backup: lost, and made good."""
    go, later = tmp_path / "go", tmp_path / "later"
    with running(tmp_path, **PATIENT) as (server, project, runner):
        first = project.configure({"short": waiting_for(go)})
        wait_for("the step", lambda: state_of(server, first) == "RUNNING")
        backup, _ = backed_up(server, "backup")

        # The time that will be lost
        go.touch()
        server.run_until(first)
        commit = project.commit({"deltaci.yaml": json.dumps({"version": 1, "jobs": {"more": {"steps": ["true"]}}})})
        git("push", "--quiet", str(project.bare), "HEAD:refs/heads/topic", cwd=project.work)
        data, headers = project.webhook(commit, "d-lost", ref="refs/heads/topic")
        lost = httpx.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers, timeout=30).json()
        server.run_until(lost["run_id"])
        unknown = project.configure({"held": waiting_for(later)})
        wait_for("its step", lambda: state_of(server, unknown) == "RUNNING")
        told_before = wait_for("the reports", lambda: len(project.reported()) >= 2 and len(project.reported()))

        in_its_place(server, backup)
        again = server.run_until(first)
        gone = httpx.get(
            f"{server.url}/api/v1/runs/{lost['run_id']}", headers={"Authorization": f"Bearer {server.token}"}
        )
        anew, repeated = (
            httpx.post(f"{server.url}/api/v1/webhooks/git", content=data, headers=headers, timeout=30).json()
            for _ in range(2)
        )
        server.run_until(anew["run_id"])
        known = {run["id"] for run in all_runs(server)}
        first_sha = again["run"]["commit_sha"]

        def reported_again() -> Any:
            documents = project.reported()[told_before:]
            return [one for one in documents if first_sha in json.dumps(one)] and documents

        documents = wait_for("the reports", reported_again)
        runner.stop()
        server.assert_sound()

    assert attempts_of(again) == {"short": [(1, "LOST"), (2, "SUCCEEDED")]}
    assert again["run"]["state"] == "SUCCEEDED"
    assert gone.status_code == 404
    assert anew == repeated
    assert (anew["duplicate"], anew["run_id"] == lost["run_id"]) == (False, False)
    assert known == {first, anew["run_id"]}
    assert documents


def test_a_live_servers_directory_is_nobody_elses(tmp_path: Path) -> None:
    """Neither a second server nor a restore gets in, also when somebody removed the database in between."""
    with Server(tmp_path) as server:
        backup, _ = backed_up(server, "backup")
        second = cli("serve", "--data", str(server.data), "--port", "0", code=1)
        onto = cli("restore", "--from", str(backup), "--data", str(server.data), code=1)
        for file in [*server.data.iterdir()]:
            file.rename(tmp_path / file.name)
        into = cli("restore", "--from", str(backup), "--data", str(server.data), code=1)
        left = [*server.data.iterdir()]

    assert f"another process works on {server.data}" in second
    assert f"another process works on {server.data}" in onto
    assert f"another process works on {server.data}" in into
    assert left == []
