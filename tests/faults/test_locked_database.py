"""Another process holds the database for longer than the server is willing to wait."""

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.faults.support import PATIENT, Client, QuietProject, plan_of
from tests.scenarios.support import RunnerProcess, Server, attempts_of, wait_for

pytestmark = pytest.mark.slow


@contextmanager
def held(server: Server) -> Iterator[None]:
    """Somebody is in the midst of a write that does not end within the block."""
    connection = sqlite3.connect(server.data / "deltaci.db", isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_a_held_database_is_waited_for_and_then_everybody_is_told_to_come_back(tmp_path: Path) -> None:
    """503 with Retry-After and nothing half done; whoever reads is answered; afterwards all of it works."""
    go = tmp_path / "go"
    with Server(tmp_path, **PATIENT) as server:
        client = Client(server)
        project = QuietProject(client)
        with RunnerProcess(server):
            waiting = project.upload(plan_of(f"while [ ! -e {go} ]; do sleep 0.05; done"))
            run_id = client.webhook(project, waiting, "d0")
            wait_for("the job", lambda: attempts_of(server.view(run_id)) == {"job": [(1, "RUNNING")]})
            pushes = [
                project.webhook(project.upload(plan_of("true"), branch=name), name, ref=f"refs/heads/{name}")
                for name in ("d1", "d2", "d3")
            ]

            def deliver(push: tuple[bytes, dict[str, str]]) -> httpx.Response:
                data, headers = push
                url = f"{server.url}/api/v1/webhooks/git"
                return httpx.post(url, content=data, headers=headers, timeout=30)

            with ThreadPoolExecutor(len(pushes)) as senders:
                with held(server):
                    answers = [senders.submit(deliver, push) for push in pushes]
                    while wait(answers, timeout=0.2).not_done:
                        assert server.client.get(f"{server.url}/healthz", timeout=2).is_success
                        assert attempts_of(server.view(run_id)) == {"job": [(1, "RUNNING")]}
                    known = server.get("/runs")["runs"]
                repeated = list(senders.map(deliver, pushes))
            go.touch()
            views = [server.run_until(one) for one in (run_id, *(answer.json()["run_id"] for answer in repeated))]
        server.assert_sound()

    assert [answer.result().status_code for answer in answers] == [503] * 3
    assert all(int(answer.result().headers["Retry-After"]) >= 1 for answer in answers)
    assert {answer.result().json()["error"]["code"] for answer in answers} == {"store_unavailable"}
    assert [one["id"] for one in known] == [run_id]
    assert [(answer.status_code, answer.json()["duplicate"]) for answer in repeated] == [(202, False)] * 3
    assert [attempts_of(view) for view in views] == [{"job": [(1, "SUCCEEDED")]}] * 4
