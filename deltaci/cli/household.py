"""A server and a runner of this machine, for as long as one command lasts."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import click

from deltaci.cli.api import Api

STOP_WITHIN_S: Final = 10
START_WITHIN_S: Final = 20


@contextmanager
def server(home: Path, *, port: int = 0) -> Iterator[Api]:
    """A server with its data and log below `home`; a free port by default. Yields an admin's way to ask it."""
    log = home / "server.log"
    command = [sys.executable, "-m", "deltaci", "serve", "--data", str(home / "data"), "--port", str(port)]
    with log.open("wb") as stream, _process(command, stdout=subprocess.PIPE, stderr=stream) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode().strip()
        if not line:
            raise click.ClickException(f"the server did not start:\n{log.read_text(errors='replace')}")
        token = (home / "data" / "admin-token").read_text().strip()
        with closing(Api(line.rpartition(" ")[2], token)) as api:
            yield api


@contextmanager
def runner(home: Path, api: Api, *, name: str, slots: int = 2, labels: tuple[str, ...] = ()) -> Iterator[None]:
    """A runner that is online, with its work directory and log below `home`."""
    token_file = home / "runner-token"
    token_file.touch(mode=0o600)
    token_file.write_text(api.post("/admin/runner-tokens", {"label": name})["token"] + "\n")
    command = [sys.executable, "-m", "deltaci.runner", "--server", api.server, "--token-file", str(token_file)]
    command += ["--slots", str(slots), "--work-dir", str(home / "runner"), "--name", name]
    command += ["--labels", ",".join(labels)]
    with (home / "runner.log").open("wb") as stream, _process(command, stdout=stream, stderr=stream) as process:
        deadline = time.monotonic() + START_WITHIN_S
        while not any(one["is_online"] for one in api.get("/runners")["runners"]):
            if time.monotonic() > deadline or process.poll() is not None:
                log = (home / "runner.log").read_text(errors="replace")
                raise click.ClickException(f"the runner did not register within {START_WITHIN_S} s:\n{log}")
            time.sleep(0.05)
        yield


@contextmanager
def _process(command: list[str], **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child that is ended in good order, and by force if that takes too long."""
    # A session of its own: Ctrl-C at the terminal is ours to pass on, in the right order.
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, **streams)  # noqa: S603
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
