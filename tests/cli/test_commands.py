"""The commands that there are."""

import subprocess
import sys
from typing import get_args

from click.testing import CliRunner

from deltaci.cli import COMMANDS, main
from deltaci.cli.repo import WEBHOOK_EVENTS
from deltaci.domain.repo import Forge


def test_every_command_is_there_and_explains_itself() -> None:
    """A command that is named and cannot be imported would be found by its first user."""
    runner = CliRunner()

    every = runner.invoke(main, ["--help"])
    each = {name: runner.invoke(main, [name, "--help"]) for name in COMMANDS}
    unknown = runner.invoke(main, ["explode"])

    assert every.exit_code == 0
    assert all(f"  {name} " in every.output for name in COMMANDS)
    assert {name: result.exit_code for name, result in each.items()} == dict.fromkeys(COMMANDS, 0)
    assert unknown.exit_code == 2


def test_asking_a_server_needs_nothing_of_one() -> None:
    """Half of the time of every command would go into imports."""
    script = "import sys, deltaci.cli.remote; print(*sys.modules)"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)

    assert not {"quart", "hypercorn", "aiosqlite", "deltaci.wiring", "deltaci.orchestrator"} & set(done.stdout.split())


def test_a_repository_of_every_forge_can_be_added_and_its_webhook_is_explained() -> None:
    """Whoever adds one has to set up the other side next; only plain git has a hook that is written for them."""
    told = CliRunner().invoke(main, ["repo", "add", "--help"]).output

    assert f"--forge [{'|'.join(get_args(Forge))}]" in told
    assert {"git", *WEBHOOK_EVENTS} == set(get_args(Forge))
