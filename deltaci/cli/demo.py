"""`deltaci demo`: the main job on this machine: a push that fails, the one that mends it, everything live."""

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.rule import Rule

from deltaci.cli import show
from deltaci.cli.api import Api
from deltaci.cli.household import runner, server
from deltaci.cli.remote import follow
from deltaci.forge.git import install_hook, post_receive_hook

console = Console(highlight=False)

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
        with server(home, port=port) as api, runner(home, api, name="demo"):
            console.print(f"deltaci is serving at {api.server}")
            console.print("a runner with 2 slots is online")
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
