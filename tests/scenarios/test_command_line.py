"""The command line against a real server: what it prints, how it exits, and that its errors are sentences."""

import json
import socket
import stat
from pathlib import Path

import pytest

from tests.scenarios.support import QUICK, Project, Server, cli, is_port_free, running, step

pytestmark = pytest.mark.slow


def test_every_command_does_what_it_says(tmp_path: Path) -> None:
    """The day of somebody who uses it."""
    jobs = {"test": {"steps": [step('echo "hello from $DELTACI_REPO"; test ! -e broken')]}}
    with running(tmp_path) as (server, project, _):
        failed = project.configure(jobs, broken="x")
        server.cli("run", "watch", failed, code=1)
        job_id = server.view(failed)["jobs"][0]["id"]
        listed = server.cli("run", "list", "--repo", "shop", "--state", "FAILED")
        shown = server.cli("run", "show", failed)
        raw = json.loads(server.cli("run", "show", failed, "--json"))
        log = server.cli("log", job_id)
        followed = server.cli("log", job_id, "--follow", "--attempt", "1")
        again = server.cli("run", "rerun", failed, "--failed").strip()
        server.cli("run", "watch", again, code=1)
        commit = project.commit({"deltaci.yaml": json.dumps({"version": 1, "jobs": {"ok": {"steps": ["true"]}}})})
        project.push({})
        started = server.cli("run", "start", "shop", commit).strip()
        watched = server.cli("run", "watch", started)
        canceled = server.cli("run", "cancel", started)
        approved = server.cli("run", "approve", started)
        repos = server.cli("repo", "list")
        tree = server.cli("actors")
        token = server.cli("runner-token", "create", "--label", "more").splitlines()[-1]

    assert failed in listed
    assert "hello from shop" in log
    assert log == followed
    assert "test" in shown
    assert "FAILED" in shown
    assert set(raw) == {"run", "jobs", "plan", "report"}
    assert raw["run"]["id"] == failed
    assert again.startswith("run_")
    assert again != failed
    assert "SUCCEEDED" in watched
    assert canceled == f"{started} is SUCCEEDED\n"
    assert approved == f"{started} is SUCCEEDED and was not waiting for approval\n"
    assert "shop" in repos
    assert project.secret not in repos
    assert "dispatch" in tree
    assert token.startswith("dci_")


def test_its_errors_are_sentences(tmp_path: Path) -> None:
    """Exit 1 for a "no", 2 for a wrong call; never a traceback."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with Server(tmp_path) as server:
        project = Project(server)
        url = {"DELTACI_URL": server.url, "DELTACI_TOKEN": server.token}
        secret = str(tmp_path / "shop-secret")
        plain = tmp_path / "plain"
        plain.mkdir()
        told = {
            "unknown run": server.cli("run", "show", "run_none", code=1),
            "tricky run": server.cli("run", "show", "../repos", code=1),
            "query in run": server.cli("run", "cancel", "x?y=1#z", code=1),
            "unknown job": server.cli("log", "job_none_0", code=1),
            "unknown state": server.cli("run", "list", "--state", "OPEN", code=1),
            "live rerun": server.cli("run", "rerun", project.configure({"a": {"steps": ["true"]}}), code=1),
            "taken name": server.cli(
                "repo", "add", "shop", "--url", str(project.bare), "--forge", "git", "--secret-file", secret, code=1
            ),
            "no bare repository": server.cli(
                "repo", "add", "plain", "--url", str(plain), "--forge", "git", "--secret-file", secret, code=1
            ),
            "short secret": server.cli(
                "repo", "add", "x", "--url", "https://x/y", "--forge", "git", "--secret-file", "/dev/null", code=1
            ),
            "no secret file": server.cli(
                "repo", "add", "x", "--url", "https://x/y", "--forge", "git", "--secret-file", "/nowhere", code=1
            ),
            "binary token": cli("run", "list", "--token-file", str(binary), code=1, **url),
            "wrong token": cli("run", "list", code=1, DELTACI_URL=server.url, DELTACI_TOKEN="dci_x"),
            "two lines of token": cli("run", "list", code=1, DELTACI_URL=server.url, DELTACI_TOKEN="a\nb"),
            "no server": cli("run", "list", "--server", nobody, code=1),
            "no address": cli("run", "list", "--server", "http://[", code=1),
            "no port": cli("run", "list", "--server", "http://x:y", code=1),
            "no scheme": cli("run", "list", "--server", "localhost:1", code=1),
            "no command": cli("run", "explode", code=2, **url),
            "no such option": cli("run", "list", "--limit", "0", code=2, **url),
            "verify nothing": cli("verify", "--data", str(plain), code=1),
        }

    for name, words in {
        "unknown run": "no run 'run_none' [not_found]",
        "unknown job": "no job",
        "unknown state": "state is one of",
        "live rerun": "wait for run",
        "taken name": "is registered already",
        "no bare repository": "is not a bare git repository",
        "short secret": "secret",
        "no secret file": "--secret-file /nowhere: No such file",
        "binary token": "that is no text",
        "wrong token": "DELTACI_TOKEN",
        "two lines of token": "the one line that was shown",
        "no server": "is it running?",
        "no address": "no answer from http://[",
        "no port": "--server http://x:y: ",
        "verify nothing": "does not exist",
    }.items():
        assert words in told[name], told[name]
    assert all("Error: " in output for output in told.values()), told


def test_an_unsafe_or_wrong_start_is_refused(tmp_path: Path) -> None:
    """Defaults refuse to start in unsafe ways; a bad setting is named with what it accepts."""
    data = tmp_path / "data"
    config = tmp_path / "config.toml"
    config.write_text("[policy]\nlease_ttl = 1\n")
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    shared.chmod(0o755)

    def refusal(*words: str, **environment: str) -> str:
        return cli("serve", "--port", "0", *words, code=1, **environment)

    told = {
        "reachable from outside": refusal("--data", str(data), "--host", "0.0.0.0"),
        "allow_public": refusal("--data", str(data), "--host", "::"),
        "is open to other users (mode 755)": refusal("--data", str(shared)),
        "chmod 700": refusal("--data", str(shared)),
        "no such setting": refusal("--data", str(data), DELTACI_PROT="1"),
        "policy.lease_ttl: no such setting": refusal("--data", str(data), "--config", str(config)),
        "nowhere.toml": refusal("--data", str(data), "--config", "/nowhere.toml"),
        "`int`": refusal("--data", str(data), DELTACI_POLICY_LEASE_TTL_MS="soon"),
        "policy.timer_tick_ms is 0": refusal("--data", str(data), DELTACI_POLICY_TIMER_TICK_MS="0"),
        "at most half of it": refusal("--data", str(data), DELTACI_POLICY_HEARTBEAT_MS="200000"),
    }

    for words, output in told.items():
        assert words in output, output
        assert output.startswith("Error: "), output
    assert not data.exists()
    assert list(shared.iterdir()) == []


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """The most common reason of all."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        told = cli("serve", "--data", str(tmp_path / "data"), "--port", str(port), code=1)

    assert f"cannot listen on 127.0.0.1:{port}" in told
    assert "--port" in told


def test_the_first_start_writes_the_admin_token_and_later_ones_keep_it(tmp_path: Path) -> None:
    """Only its owner reads it; who has it goes on; who removes it gets a new one."""
    with Server(tmp_path) as server:
        file = server.data / "admin-token"
        first, mode = server.token, stat.S_IMODE(file.stat().st_mode)
        directory = stat.S_IMODE(server.data.stat().st_mode)
        codes = [server.stop()]
        server.start()
        second = server.token
        codes.append(server.stop())
        file.unlink()
        server.start()
        third = server.token
        server.get("/runs")
        codes.append(server.stop())
        port = server.port

    assert (mode, directory) == (0o600, 0o700)
    assert first == second != third
    assert codes == [0, 0, 0]
    assert is_port_free(port)
    assert set(QUICK)
