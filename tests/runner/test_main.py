"""The runner as a process of its own, over real sockets, with real signals."""

import asyncio
import contextlib
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from protocol.messages import Complete
from tests.protocol.wire import WireServer, a_server
from tests.runner.support import FakePlane, Repository, a_job, processes_with

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ROOT = Path(__file__).parents[2]


@contextlib.asynccontextmanager
async def a_runner_process(
    server: WireServer, tmp_path: Path, *words: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    token = tmp_path / "token"
    token.write_text("secret\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "deltaci.runner", "--server", server.url, "--token-file", str(token)),
        *("--work-dir", str(tmp_path / "work"), "--name", "tester", "--cancel-grace-ms", "300", *words),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def stderr_of(process: asyncio.subprocess.Process) -> str:
    async with asyncio.timeout(30):
        _, output = await process.communicate()
    return output.decode()


@pytest.mark.parametrize("transport", ["http", "websocket", "auto"])
async def test_a_job_runs_over_every_transport_and_a_signal_drains(
    tmp_path: Path, repository: Repository, transport: str
) -> None:
    """One meaning over both transports; SIGTERM ends an idle runner with exit code 0."""
    plane = FakePlane(lease_wait_ms=200)
    async with a_server(plane.answer) as server, a_runner_process(server, tmp_path, "--transport", transport) as runner:
        grant = await plane.grant(a_job(repository, "cat README", name="secret-job"))
        result = await plane.result_of(grant)
        runner.send_signal(signal.SIGTERM)
        output = await stderr_of(runner)

    assert isinstance(result, Complete)
    assert result.exit_code == 0
    assert "hello\n" in plane.log_of(grant)
    assert {"http" if transport == "http" else "websocket"} == {transport for transport, _ in server.seen}
    assert runner.returncode == 0
    assert f"run={grant.run_id} job={grant.job_id} attempt=1" in output
    assert "secret " not in output
    assert grant.lease_id not in output


async def test_a_first_signal_drains_and_a_second_gives_the_job_back(tmp_path: Path, repository: Repository) -> None:
    """An operator who is in a hurry says so twice."""
    plane = FakePlane(lease_wait_ms=200)
    async with a_server(plane.answer) as server, a_runner_process(server, tmp_path) as runner:
        grant = await plane.grant(a_job(repository, "echo up; sleep 600"))
        await plane.until(lambda: "up\n" in plane.log_of(grant))
        runner.send_signal(signal.SIGINT)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(runner.wait(), 0.5)
        runner.send_signal(signal.SIGINT)
        result = await plane.result_of(grant)
        await stderr_of(runner)

    assert isinstance(result, Complete)
    assert result.reason == "runner_stopped"
    assert runner.returncode == 0


async def test_a_killed_runner_takes_its_processes_along_and_its_next_life_works(
    tmp_path: Path, repository: Repository
) -> None:
    """The shepherd notices; the workspace is removed at the next start."""
    plane = FakePlane()
    number = f"{secrets.randbelow(10**9) + 10**6}"
    async with a_server(plane.answer) as server:
        async with a_runner_process(server, tmp_path) as runner:
            await plane.grant(a_job(repository, f"(env -i setsid sleep {number} &); trap '' TERM; sleep {number}"))
            await plane.until(lambda: len(processes_with(number)) == 2)
            runner.kill()
            await runner.wait()
            async with asyncio.timeout(20):
                while processes_with(number):  # noqa: ASYNC110  # another process's end
                    await asyncio.sleep(0.01)
        was_left = (tmp_path / "work/slots/0").exists()
        async with a_runner_process(server, tmp_path):
            grant = await plane.grant(a_job(repository, "true"))
            result = await plane.result_of(grant)

    assert was_left
    assert isinstance(result, Complete)
    assert result.exit_code == 0


async def test_a_killed_shepherd_is_replaced_by_the_runner_itself(tmp_path: Path, repository: Repository) -> None:
    """The last net: even a daemon without the mark in its environment is found, as a child of the runner."""
    plane = FakePlane()
    number = f"{secrets.randbelow(10**9) + 10**6}"
    script = f"(env -i setsid sleep {number} &); sleep 0.1; kill -9 $PPID; sleep {number}"
    async with a_server(plane.answer) as server, a_runner_process(server, tmp_path):
        grant = await plane.grant(a_job(repository, script))
        result = await plane.result_of(grant)
        left = processes_with(number)

    assert isinstance(result, Complete)
    assert result.reason == "runner_error"
    assert left == []


async def test_a_restarted_server_gets_log_and_result_of_a_job_that_went_on(
    tmp_path: Path, repository: Repository
) -> None:
    """Nothing is lost: what happened while the server was away is told when it is back."""
    plane = FakePlane()
    script = f"echo up; until test -e {tmp_path}/go; do sleep 0.02; done; echo meanwhile; touch {tmp_path}/gone"
    async with a_server(plane.answer) as server, a_runner_process(server, tmp_path):
        grant = await plane.grant(a_job(repository, script))
        await plane.until(lambda: "up\n" in plane.log_of(grant))
        await server.stop()
        (tmp_path / "go").touch()
        async with asyncio.timeout(20):
            while not (tmp_path / "gone").exists():  # noqa: ASYNC110  # another process tells
                await asyncio.sleep(0.01)
        await server.start()
        result = await plane.result_of(grant)

    assert isinstance(result, Complete)
    assert result.exit_code == 0
    assert "meanwhile\n" in plane.log_of(grant)
    assert result.log_size == len(plane.logs[grant.lease_id])


async def test_a_refused_token_is_exit_code_one_and_a_wrong_setting_two(tmp_path: Path) -> None:
    """A service manager can tell what is worth a restart."""
    plane = FakePlane()
    async with a_server(plane.answer, token="another") as server:
        async with a_runner_process(server, tmp_path) as refused:
            await stderr_of(refused)
        async with a_runner_process(server, tmp_path, "--slots", "0") as wrong:
            text = await stderr_of(wrong)

    assert (refused.returncode, wrong.returncode) == (1, 2)
    assert "slots is 0; it must be between 1 and 256" in text
