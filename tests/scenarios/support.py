"""A real server and real runners as processes, on ports that the system chooses, all their files in one directory.

Whatever a test does to them, at the end of its `with` blocks no process of it lives.
"""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self

import httpx
import psutil
import pytest

from deltaci.forge.webhook import signature

ROOT: Final = Path(__file__).parents[2]
PATIENCE_S: Final = 60
NO_DELTACI: Final = {name: value for name, value in os.environ.items() if not name.startswith(("DELTACI", "GIT_"))}
GIT: Final = {
    **NO_DELTACI,
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "ann",
    "GIT_AUTHOR_EMAIL": "ann@example.org",
    "GIT_COMMITTER_NAME": "ann",
    "GIT_COMMITTER_EMAIL": "ann@example.org",
}
# Small times, so that what must expire does so within a test.
QUICK: Final = {
    "DELTACI_POLICY_LEASE_TTL_MS": "3000",
    "DELTACI_POLICY_HEARTBEAT_MS": "400",
    "DELTACI_POLICY_ACK_WITHIN_MS": "2000",
    "DELTACI_POLICY_CANCEL_WITHIN_MS": "4000",
    "DELTACI_POLICY_LEASE_WAIT_MS": "2000",
    "DELTACI_POLICY_TIMER_TICK_MS": "50",
    "DELTACI_POLICY_RECONCILE_EVERY_MS": "500",
    "DELTACI_POLICY_EFFECT_RETRY_FIRST_MS": "100",
    "DELTACI_SHUTDOWN_WITHIN_S": "5",
}
FINAL: Final = frozenset({"SUCCEEDED", "FAILED", "TIMED_OUT", "CANCELED"})


def wait_for(what: str, look: Callable[[], Any], *, within_s: float = PATIENCE_S, pause_s: float = 0.03) -> Any:
    """The first true answer of `look`; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while True:
        if found := look():
            return found
        if time.monotonic() > deadline:
            pytest.fail(f"waited {within_s} s for {what}")
        time.sleep(pause_s)


class Process:
    """A child in a session of its own, its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as stream:
            self.popen = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**NO_DELTACI, **environment},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )

    def kill(self) -> None:
        """`kill -9`; returns when it is gone."""
        self.popen.kill()
        self.popen.wait(10)

    def terminate(self, within_s: float = 20) -> int:
        """SIGTERM; the exit code."""
        self.popen.terminate()
        return self.popen.wait(within_s)


class Server:
    """`deltaci serve` on `home`/data; keeps its port over restarts.

    `program` is what Python runs, `before` a command that executes it in its turn.
    """

    program: Sequence[str] = ("-m", "deltaci")
    before: Sequence[str] = ()

    def __init__(self, home: Path, **settings: str) -> None:
        self.home = home
        self.data = home / "data"
        self.log = home / "server.log"
        self.settings = {**QUICK, **settings}
        self.port = 0
        self.process: Process | None = None
        self.client = httpx.Client(timeout=30)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        if self.process is not None and self.process.popen.poll() is None:
            self.process.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def token(self) -> str:
        return (self.data / "admin-token").read_text().strip()

    def start(self) -> None:
        """Start it, on the same port as before; returns when it is ready."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        process = self.launch()

        def url() -> str | None:
            if process.popen.poll() is not None:
                pytest.fail(f"the server ended:\n{self.log.read_text(errors='replace')}")
            return self.told_url(seen)

        self.port = int(wait_for("the server", url).rpartition(":")[2])

    def launch(self, **environment: str) -> Process:
        """Start it without waiting for it."""
        words = ("serve", "--data", str(self.home / "data"), "--port", str(self.port))
        command = (*self.before, sys.executable, *self.program, *words)
        self.process = Process(command, self.log, {**self.settings, **environment})
        return self.process

    def told_url(self, seen: int) -> str | None:
        """The URL at which it said to be ready, in what it logged after the first `seen` bytes."""
        told = self.log.read_bytes()[seen:] if self.log.exists() else b""
        lines = [line for line in told.split(b"\n")[:-1] if line.startswith(b"Delta CI is ready at ")]
        return lines[0].rpartition(b" ")[2].decode() if lines else None

    def kill(self) -> None:
        """`kill -9`."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        return self.process.terminate()

    # ---- the API -------------------------------------------------------------------------------------------------

    def get(self, path: str) -> Any:
        """The JSON answer; raises `httpx.HTTPError` when there is none."""
        response = self.client.get(f"{self.url}/api/v1{path}", headers={"Authorization": f"Bearer {self.token}"})
        response.raise_for_status()
        return response.json()

    def post(self, path: str, body: Any = None) -> Any:
        """The JSON answer; raises `httpx.HTTPError` when there is none."""
        headers = {"Authorization": f"Bearer {self.token}"}
        response = self.client.post(f"{self.url}/api/v1{path}", json=body or {}, headers=headers)
        response.raise_for_status()
        return response.json()

    def view(self, run_id: str) -> Any:
        """A run with its jobs."""
        return self.get(f"/runs/{run_id}")

    def runs(self) -> list[Any]:
        """Every run without its jobs, newest first, page by page."""
        found: list[Any] = []
        while page := self.get("/runs?limit=500" + (f"&before={found[-1]['id']}" if found else ""))["runs"]:
            found += page
        return found

    def run_until(self, run_id: str, *states: str, within_s: float = PATIENCE_S) -> Any:
        """The run's view once it is in one of `states`; by default, at its end. Patient with a server that restarts."""
        wanted = frozenset(states) or FINAL
        last: list[Any] = [None]

        def look() -> Any:
            with contextlib.suppress(httpx.HTTPError):
                last[0] = self.view(run_id)
                return last[0] if last[0]["run"]["state"] in wanted else None
            return None

        try:
            return wait_for(f"run {run_id}", look, within_s=within_s)
        except pytest.fail.Exception:
            pytest.fail(f"{last[0]}\n{self.log.read_text(errors='replace')[-5000:]}")

    def text_of(self, job_id: str, attempt: int | None = None) -> str:
        """The log of a job."""
        suffix = f"?attempt={attempt}" if attempt else ""
        headers = {"Authorization": f"Bearer {self.token}"}
        return self.client.get(f"{self.url}/api/v1/jobs/{job_id}/log{suffix}", headers=headers).text

    def cli(self, *words: str, code: int = 0, **environment: str) -> str:
        """What `deltaci` prints; asserts its exit code."""
        return cli(*words, code=code, DELTACI_URL=self.url, DELTACI_TOKEN=self.token, **environment)

    def assert_sound(self) -> None:
        """`deltaci verify` finds nothing, on the live database."""
        output = cli("verify", "--data", str(self.home / "data"), before=self.before)
        assert output.splitlines()[-1] == "no violations", output


class RunnerProcess:
    """`deltaci runner` as a process of its own."""

    def __init__(
        self,
        server: Server,
        name: str = "r1",
        *,
        slots: int = 1,
        words: Sequence[str] = (),
        before: Sequence[str] = (),
    ) -> None:
        """Args: words: more options; before: a command that executes the runner in its turn."""
        self.server = server
        self.name = name
        self.home = server.home / f"runner-{name}"
        self.log = server.home / f"runner-{name}.log"
        self.slots = slots
        self.words = words
        self.before = before
        self.process: Process | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        if self.process.popen.poll() is None:
            self.process.kill()
        for process in of_jobs(self.home):
            with contextlib.suppress(psutil.Error):
                process.kill()

    def start(self) -> None:
        """Start it; returns when the server knows it."""
        token_file = self.server.home / f"token-{self.name}"
        if not token_file.exists():
            token_file.write_text(self.server.post("/admin/runner-tokens", {"label": self.name})["token"])
        command = (
            *self.before,
            *(sys.executable, "-m", "deltaci.runner", "--server", self.server.url, "--token-file", str(token_file)),
            *("--work-dir", str(self.home), "--name", self.name, "--slots", str(self.slots)),
            *("--cancel-grace-ms", "500", *self.words),
        )
        self.process = Process(command, self.log, {})
        wait_for("the runner", self.is_online)

    def is_online(self) -> bool:
        """Whether the server heard of it; not, as far as a server tells that does not answer."""
        with contextlib.suppress(httpx.HTTPError):
            return any(one["name"] == self.name and one["is_online"] for one in self.server.get("/runners")["runners"])
        return False

    def kill(self) -> None:
        """`kill -9`, of the runner alone: what becomes of its job's processes is the question."""
        assert self.process is not None
        self.process.kill()

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        return self.process.terminate()


def of_jobs(home: Path) -> list[psutil.Process]:
    """Living processes that work below a runner's directory, or were started by one of its jobs."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(home) in process.environ().get("HOME", "") or str(home / "slots") in process.cwd():
                found.append(process)
    return found


class Project:
    """A bare repository with the hook, and a clone of it to push from."""

    def __init__(self, server: Server, name: str = "shop", *, options: Sequence[str] = ()) -> None:
        self.server = server
        self.name = name
        self.bare = server.home / f"{name}.git"
        self.work = server.home / f"{name}-work"
        self.results = server.home / f"{name}-results.jsonl"
        self.secret = secrets.token_hex(16)
        secret_file = server.home / f"{name}-secret"
        secret_file.write_text(self.secret)
        git("init", "--quiet", "--bare", "--initial-branch=main", str(self.bare), cwd=server.home)
        git("init", "--quiet", "--initial-branch=main", str(self.work), cwd=server.home)
        git("remote", "add", "origin", str(self.bare), cwd=self.work)
        self.register(secret_file, options)

    def register(self, secret_file: Path, options: Sequence[str]) -> None:
        """Make it known to the server, which writes the hook."""
        words = ("--url", str(self.bare), "--forge", "git", "--secret-file", str(secret_file))
        words = (*words, "--report-to", str(self.results), *options)
        self.added = self.server.cli("repo", "add", self.name, *words)

    def commit(self, files: Mapping[str, str], title: str = "a change") -> str:
        """A commit of `files` in the clone; its id."""
        for name, content in files.items():
            path = self.work / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        git("add", "--all", cwd=self.work)
        git("commit", "--quiet", "--allow-empty", "--message", title, cwd=self.work)
        return git("rev-parse", "HEAD", cwd=self.work).strip()

    def push(self, files: Mapping[str, str], title: str = "a change", *, branch: str = "main") -> str:
        """Commit and `git push`; the id of the run that the hook told the pusher about."""
        self.commit(files, title)
        said = git("push", "--quiet", "origin", f"HEAD:refs/heads/{branch}", cwd=self.work)
        for word in said.split():
            if word.startswith("run_"):
                return word
        raise AssertionError(f"no run:\n{said}")

    def configure(self, jobs: Mapping[str, Any], **files: str) -> str:
        """Push a configuration with `jobs`, as JSON, which is YAML too; the run's id."""
        return self.push({"deltaci.yaml": json.dumps({"version": 1, "jobs": jobs}), **files})

    def webhook(self, commit_sha: str, delivery: str, **fields: Any) -> tuple[bytes, dict[str, str]]:
        """Body and headers of a delivery of the hook."""
        body = {"repository": self.name, "ref": "refs/heads/main", "before": "0" * 40, "after": commit_sha, **fields}
        data = json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            "X-Deltaci-Repo": self.name,
            "X-Deltaci-Event": "push",
            "X-Deltaci-Delivery": delivery,
            "X-Deltaci-Signature": signature(self.secret, data),
        }
        return data, headers

    def reported(self) -> list[Any]:
        """The documents in the results file."""
        return [json.loads(line) for line in self.results.read_text().splitlines()] if self.results.exists() else []


def git(*words: str, cwd: Path) -> str:
    """What git prints, on both streams."""
    done = subprocess.run(["git", *words], cwd=cwd, env=GIT, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def cli(*words: str, code: int = 0, before: Sequence[str] = (), **environment: str) -> str:
    """What `deltaci` prints, on both streams; asserts its exit code, and that it never shows a traceback."""
    done = subprocess.run(
        [*before, sys.executable, "-m", "deltaci", *words],
        cwd=ROOT,
        env={**NO_DELTACI, "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    output = done.stderr + done.stdout
    assert done.returncode == code, output
    assert "Traceback" not in output, output
    return output


def is_port_free(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as trial:
        return trial.connect_ex(("127.0.0.1", port)) != 0


def step(script: str, name: str = "do") -> dict[str, str]:
    """A step of a configuration."""
    return {"name": name, "run": script}


def attempts_of(view: Any) -> dict[str, list[tuple[int, str]]]:
    """(number, state) of each attempt by job."""
    return {job["name"]: [(one["number"], one["state"]) for one in job["attempts"]] for job in view["jobs"]}


@contextmanager
def running(home: Path, *, slots: int = 1, **settings: str) -> Iterator[tuple[Server, Project, RunnerProcess]]:
    """A server, a project and a runner."""
    with Server(home, **settings) as server:
        project = Project(server)
        with RunnerProcess(server, slots=slots) as runner:
            yield server, project, runner
