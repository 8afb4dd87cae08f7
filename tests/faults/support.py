"""What the tests of faults share: clients that insist, and a server that is started again whenever it died."""

import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from typing import Any, Final

import httpx

from tests.scenarios.support import Project, Server, git, step, wait_for

# A lease outlives the slowest restart on a busy machine; a grant whose answer died is not waited for long.
PATIENT: Final = {
    "DELTACI_POLICY_LEASE_TTL_MS": "30000",
    "DELTACI_POLICY_HEARTBEAT_MS": "300",
    "DELTACI_POLICY_ACK_WITHIN_MS": "3000",
}


class Client:
    """Asks until there is a definite answer, and keeps everything that was promised to it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.accepted: dict[str, bytes] = {}
        self._asked: dict[str, tuple[str, dict[str, Any]]] = {}
        self._http = server.client

    def webhook(self, project: Project, commit_sha: str, delivery: str, **fields: Any) -> str:
        """Deliver until it is accepted; the run's id."""
        data, headers = project.webhook(commit_sha, delivery, **fields)
        run_id: str = self._insist(delivery, "/webhooks/git", content=data, headers=headers).json()["run_id"]
        return run_id

    def add_repo(self, project: Project) -> None:
        """Register it until it is registered: when the answer was lost, the repeat is told that the name is taken."""
        fields = {"name": project.name, "forge": "git", "clone_url": str(project.bare), "secret": project.secret}
        body = {**fields, "report_to": str(project.results)}
        response = self._definite(f"repository {project.name}", "/repos", {"json": body})
        assert response.status_code in (201, 409), response.text

    def runner_token(self) -> str:
        """A token for runners; an answer that was lost leaves one behind that nobody knows."""
        token: str = self._definite("a token", "/admin/runner-tokens", {}).json()["token"]
        return token

    def post(self, path: str, key: str, body: Any = None) -> Any:
        """A request under an idempotency key, until it is accepted; the JSON answer."""
        return self._insist(key, path, json=body or {}, headers={"Idempotency-Key": key}).json()

    def log(self, job_id: str) -> str:
        """What a job wrote, as soon as somebody answers."""

        def look() -> str | None:
            with contextlib.suppress(httpx.TransportError):
                return self.server.text_of(job_id)
            return None

        text: str = wait_for("the log", look)
        return text

    def assert_answered_alike(self) -> None:
        """Everything that was accepted is stored: asked again, it gets the same answer, byte for byte."""
        assert self.accepted
        for name, (path, request) in self._asked.items():
            assert self._definite(f"{name} once more", path, request).content == self.accepted[name]

    def _insist(self, name: str, path: str, **request: Any) -> httpx.Response:
        self._asked[name] = (path, request)
        response = self._definite(name, path, request)
        assert response.is_success, response.text
        self.accepted[name] = response.content
        return response

    def _definite(self, what: str, path: str, request: dict[str, Any]) -> httpx.Response:
        def answer() -> httpx.Response | None:
            try:
                response = self._send(path, request)
            except (httpx.TransportError, FileNotFoundError):
                return None  # nobody is at home, or the first start has not come as far as the token
            return None if response.status_code >= 500 else response

        response: httpx.Response = wait_for(f"an answer to {what}", answer)
        return response

    def _send(self, path: str, request: dict[str, Any]) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.server.token}", **request.get("headers", {})}
        return self._http.post(f"{self.server.url}/api/v1{path}", **{**request, "headers": headers})


def plan_of(script: str, **fields: Any) -> dict[str, str]:
    """The files of a commit with one job, named `job`, of one step; `fields` are the job's."""
    return {"deltaci.yaml": json.dumps({"version": 1, "jobs": {"job": {"steps": [step(script)], **fields}}})}


def heard_of(view: Any) -> dict[str, list[str]]:
    """The states of each job's attempts, without those that no runner ever heard of: a kill may add some of these."""
    return {
        job["name"]: [one["state"] for one in job["attempts"] if one["started_at_ms"] is not None]
        for job in view["jobs"]
    }


@contextmanager
def injected(server: Server, *injections: str, only: Path | None = None) -> Iterator[None]:
    """System calls of the server fail or take their time, as `strace -e inject=...` says, within the block.

    Calls are counted thread by thread, from the moment that the block begins. `only`: those on this file, no others.
    """
    assert server.process is not None
    names = {name for injection in injections for name in injection.partition(":")[0].split(",")}
    words = ["strace", "-f", "-p", str(server.process.popen.pid), "-o", str(server.home / "strace")]
    words += ["-e", f"trace={','.join(sorted(names))}"]
    for injection in injections:
        words += ["-e", f"inject={injection}"]
    words += ["-P", str(only)] if only is not None else []
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as tracer:
        assert tracer.stderr is not None
        said = iter(tracer.stderr.readline, "")
        assert any(" attached" in line for line in said), words
        try:
            yield
        finally:
            tracer.terminate()  # it lets go of the server first, if that still lives
            tracer.communicate(timeout=20)


class KeptServer(Server):
    """A server that is killed by the next of `failpoints` in each of its lives, and started again by its keeper.

    When there are no more failpoints it lives on. See `failing_server.py` for what a failpoint is.
    """

    program = ("-m", "tests.faults.failing_server")

    def __init__(self, home: Path, failpoints: Iterator[str], **settings: str) -> None:
        super().__init__(home, **settings)
        self.kills = 0
        self._failpoints = failpoints
        self._is_over = False
        self._launching = threading.Lock()
        self._keeper = threading.Thread(target=self._keep)

    def start(self) -> None:
        """The keeper begins; returns when a life was ready for the first time."""
        self._keeper.start()
        wait_for("the server", lambda: self.port or not self._keeper.is_alive())

    def __exit__(self, *error: object) -> None:
        with self._launching:
            self._is_over = True
            super().__exit__(*error)
        self._keeper.join()

    def assert_sound(self) -> None:
        """Also: no life ended otherwise than by its failpoint."""
        assert self._keeper.is_alive(), self.log.read_text(errors="replace")[-5000:]
        super().assert_sound()

    def _keep(self) -> None:
        while True:
            seen = self.log.stat().st_size if self.log.exists() else 0
            with self._launching:
                if self._is_over:
                    return
                popen = self.launch(FAILPOINT=next(self._failpoints, "")).popen
            while popen.poll() is None and not (url := self.told_url(seen)):
                time.sleep(0.02)
            if url := self.told_url(seen):
                self.port = int(url.rpartition(":")[2])
            if popen.wait() != -SIGKILL:
                return
            self.kills += not self._is_over


class QuietProject(Project):
    """A repository that was registered by an insisting client, and whose pushes nobody tells the server of."""

    def __init__(self, client: Client, name: str = "shop") -> None:
        self.client = client
        super().__init__(client.server, name)

    def register(self, secret_file: Path, options: Sequence[str]) -> None:
        """Over the API; no hook is written."""
        self.client.add_repo(self)

    def upload(self, files: dict[str, str], *, branch: str = "main") -> str:
        """Commit and push; the commit is there to be fetched."""
        commit_sha = self.commit(files, f"a change of {branch}")
        git("push", "--quiet", "--force", "origin", f"HEAD:refs/heads/{branch}", cwd=self.work)
        return commit_sha
