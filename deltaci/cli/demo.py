"""`deltaci demo`: the main job on this machine: a push that fails, the one that mends it, everything live."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.rule import Rule

from deltaci.cli import show
from deltaci.cli.api import Api
from deltaci.cli.remote import follow
from deltaci.forge.git import install_hook, post_receive_hook

console = Console(highlight=False)

STOP_WITHIN_S: Final = 10
START_WITHIN_S: Final = 20

CONFIGURATION: Final = """\
version: 1
jobs:
  lint:
    steps:
      - python3 -m compileall -q shop tests
  test:
    needs: [lint]
    matrix:
      suite: [prices, stock]
    steps:
      - name: unit tests
        run: python3 -m unittest -v tests.test_${{ matrix.suite }}
  spelling:
    policy: allow_failure
    steps:
      - name: look for words that we do not use
        run: "! grep -rn teh shop README.md"
  package:
    needs: [test]
    steps:
      - mkdir -p dist && tar -czf dist/shop.tar.gz shop
    artifacts:
      - name: shop
        paths: [dist/*.tar.gz]
  handbook:
    paths: [docs/**]
    steps:
      - test -s docs/handbook.md
  smoke:
    needs: [package]
    steps:
      - python3 -c "from shop.prices import total; print(total([1, 2, 3]))"
"""

FILES: Final[Mapping[str, str]] = {
    "deltaci.yaml": CONFIGURATION,
    "README.md": "# Shop\n\nSells teh best things.\n",
    "docs/handbook.md": "# Handbook\n",
    "shop/__init__.py": "",
    "shop/prices.py": 'def total(prices):\n    """The sum of all prices."""\n    return sum(prices)\n',
    "shop/stock.py": "def left(stock, sold):\n    return stock - sold\n",
    "tests/__init__.py": "",
    "tests/test_prices.py": (
        "import unittest\n\nfrom shop.prices import total\n\n\n"
        "class Prices(unittest.TestCase):\n"
        "    def test_the_total_is_the_sum(self):\n        self.assertEqual(6, total([1, 2, 3]))\n"
    ),
    "tests/test_stock.py": (
        "import unittest\n\nfrom shop.stock import left\n\n\n"
        "class Stock(unittest.TestCase):\n"
        "    def test_what_is_sold_is_gone(self):\n        self.assertEqual(3, left(5, 2))\n"
    ),
}
BROKEN: Final = 'def total(prices):\n    """The sum of all prices."""\n    return sum(prices[1:])\n'


@click.command()
@click.option("--keep", is_flag=True, help="Leave server and runner running at the end, until Ctrl-C.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of the server; a free one by default.")
def demo(keep: bool, port: int) -> None:
    """Start a server and a runner, push a commit that fails and one that mends it."""
    started = time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="deltaci-demo-"))
    try:
        with _server(home, port) as api, _runner(home, api):
            project = _project(home, api)
            _say("A commit that breaks the sum of all prices")
            first = _push(project, api, {"shop/prices.py": BROKEN}, "Leave the first price out")
            _expect(api, first, "FAILED")
            _say("The commit that mends it; only what it touches runs")
            second = _push(project, api, {"shop/prices.py": FILES["shop/prices.py"]}, "Add all prices up again")
            _expect(api, second, "SUCCEEDED", tree=True)
            _say(f"Done in {time.monotonic() - started:.0f} s")
            if keep:
                _keep(home, api)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _say(text: str) -> None:
    console.print(Rule(show.text(text), align="left", style="bright_black"))


def _keep(home: Path, api: Api) -> None:
    console.print(f"Still running. Try, in another terminal:\n\n  export DELTACI_URL={api.server}")
    console.print(f"  export DELTACI_TOKEN=$(cat {home}/data/admin-token)")
    console.print(
        f"  deltaci run list\n  cd {home}/work && git commit --allow-empty -m again && git push\n\nCtrl-C ends it."
    )
    try:
        signal.pause()
    except KeyboardInterrupt:
        console.print("ending")


# ---- processes ---------------------------------------------------------------------------------------------------


@contextmanager
def _server(home: Path, port: int) -> Iterator[Api]:
    log = home / "server.log"
    command = [sys.executable, "-m", "deltaci", "serve", "--data", str(home / "data"), "--port", str(port)]
    with log.open("wb") as stream, _process(command, stdout=subprocess.PIPE, stderr=stream) as process:
        assert process.stdout is not None
        line = process.stdout.readline().decode().strip()
        if not line:
            raise click.ClickException(f"the server did not start:\n{log.read_text(errors='replace')}")
        console.print(line)
        token = (home / "data" / "admin-token").read_text().strip()
        yield Api(line.rpartition(" ")[2], token)


@contextmanager
def _runner(home: Path, api: Api) -> Iterator[None]:
    token_file = home / "runner-token"
    token_file.touch(mode=0o600)
    token_file.write_text(api.post("/admin/runner-tokens", {"label": "demo"})["token"] + "\n")
    command = [sys.executable, "-m", "deltaci.runner", "--server", api.server, "--token-file", str(token_file)]
    command += ["--slots", "2", "--work-dir", str(home / "runner"), "--name", "demo"]
    with (home / "runner.log").open("wb") as stream, _process(command, stdout=stream, stderr=stream):
        deadline = time.monotonic() + START_WITHIN_S
        while not any(one["is_online"] for one in api.get("/runners")["runners"]):
            if time.monotonic() > deadline:
                log = (home / "runner.log").read_text(errors="replace")
                raise click.ClickException(f"the runner did not register within {START_WITHIN_S} s:\n{log}")
            time.sleep(0.05)
        console.print("a runner with 2 slots is online")
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


# ---- the repository ----------------------------------------------------------------------------------------------


def _git(*arguments: str, cwd: Path) -> str:
    environment = {
        **os.environ,
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_AUTHOR_NAME": "Demo",
        "GIT_AUTHOR_EMAIL": "demo@example.org",
        "GIT_COMMITTER_NAME": "Demo",
        "GIT_COMMITTER_EMAIL": "demo@example.org",
    }
    done = subprocess.run(  # noqa: S603 - fixed arguments
        ["git", *arguments],  # noqa: S607
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise click.ClickException(f"git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout + done.stderr


def _project(home: Path, api: Api) -> Path:
    """A bare repository with the hook, and a clone of it with a first commit that was pushed before the hook."""
    bare, work = home / "shop.git", home / "work"
    _git("init", "--quiet", "--bare", "--initial-branch=main", str(bare), cwd=home)
    _git("clone", "--quiet", str(bare), str(work), cwd=home)
    _git("checkout", "--quiet", "-B", "main", cwd=work)
    _commit(work, FILES, "Open the shop")
    _git("push", "--quiet", "origin", "main", cwd=work)
    secret_file = home / "secret"
    secret_file.touch(mode=0o600)
    secret_file.write_text(secrets.token_hex(32))
    body = {
        "name": "shop",
        "forge": "git",
        "clone_url": bare.as_uri(),
        "secret": secret_file.read_text(),
        "report_to": str(home / "results.jsonl"),
    }
    api.post("/repos", body)
    install_hook(bare, post_receive_hook(api.server, "shop", secret_file))
    return work


def _commit(work: Path, files: Mapping[str, str], title: str) -> None:
    for name, content in files.items():
        path = work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    _git("add", "--all", cwd=work)
    _git("commit", "--quiet", "--message", title, cwd=work)


def _push(work: Path, api: Api, files: Mapping[str, str], title: str) -> str:
    _commit(work, files, title)
    said = _git("push", "--quiet", "origin", "main", cwd=work)
    for line in said.splitlines():
        console.print(show.text(line.strip()))
    commit = _git("rev-parse", "HEAD", cwd=work).strip()
    for run in api.get("/runs", limit=5)["runs"]:
        if run["commit_sha"] == commit:
            return str(run["id"])
    raise click.ClickException(f"the push of {commit} did not become a run:\n{said}")


def _expect(api: Api, run_id: str, state: str, *, tree: bool = False) -> None:
    """Follow the run, print it (and the actors in the middle of it), and fail if it did not end as announced."""
    shown: list[Any] = []

    def when_running(view: Any) -> None:
        if tree and not shown and any(job["state"] == "RUNNING" for job in view["jobs"]):
            shown.append(api.get("/admin/actors")["tree"])

    view = follow(api, run_id, each=when_running)
    show.print_run(console, view)
    if shown:
        _say("The actors in the middle of it")
        console.print(show.actor_tree(shown[0]))
    if view["run"]["state"] != state:
        raise click.ClickException(f"run {run_id} was meant to end {state} and is {view['run']['state']}")
