"""A runner fetches a private repository with what the forge gives for its lease: over real sockets, all the way."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypercorn.asyncio import serve
from hypercorn.config import Config
from loguru import logger

from deltaci.domain.clone_credential import Credential
from deltaci.domain.plan import Step
from protocol.client import Transport, connect
from tests.forge.private_git import HEADER, PASSWORD, USER, files_with, private_git
from tests.gateway.support import RUNNER, Gateway, opened
from tests.orchestrator.support import a_job, a_repo
from tests.orchestrator.test_credentials import NOW_MS, Given
from tests.planner.repositories import Bare
from tests.runner.support import FakePlane, a_runner

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
    yield lines
    logger.remove(sink)


@asynccontextmanager
async def on_a_port(gateway: Gateway) -> AsyncIterator[str]:
    """The gateway on a loopback port; answers with its address."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    listener.setblocking(False)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config, stop = Config(), asyncio.Event()
    config.bind = [f"fd://{listener.detach()}"]
    config.graceful_timeout = 0.2
    config.errorlog = config.accesslog = None
    task = asyncio.create_task(serve(gateway.app, config, shutdown_trigger=stop.wait))
    try:
        yield url
    finally:
        gateway.house.drain()
        stop.set()
        await task


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_private_repository_is_built(tmp_path: Path, transport: Transport, log: list[str]) -> None:
    """Whatever carries the protocol; afterwards the secret is on no disk and in no log."""
    origin = Bare(tmp_path / "served" / "shop.git")
    head = origin.commit({"README": "hello\n"})
    given = Given(Credential(username=USER, password=PASSWORD, expires_at_ms=NOW_MS + 3_600_000))
    job = a_job(steps=(Step(name="do", run="cat README; env; git config --list"),))
    with private_git(tmp_path / "served") as server:
        repo = a_repo(clone_url=f"{server.url}/shop.git")
        async with opened(tmp_path, job, repo=repo, credentials=given) as gateway, on_a_port(gateway) as url:
            run_id = await gateway.stage.push(head)
            async with a_runner(
                FakePlane(),
                tmp_path,
                client=lambda on_push, on_registered: connect(
                    url, RUNNER, transport=transport, on_push=on_push, on_registered=on_registered
                ),
            ):
                run = await gateway.stage.run_until(run_id, "SUCCEEDED", "FAILED")
                (done,) = await gateway.store.jobs_of_run(run_id)
                chunks = await gateway.store.read_log(done.id, 1, offset=0, limit=1_000_000)

    assert run.state == "SUCCEEDED", log
    assert b"hello" in chunks
    assert len(given.asked) == 1
    assert set(server.authorizations) == {HEADER}
    assert files_with(PASSWORD, tmp_path) == []
    said = [*log, *server.command_lines, chunks.decode()]
    assert [text for text in said if PASSWORD in text or HEADER.removeprefix("Basic ") in text] == []
