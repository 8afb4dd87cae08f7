"""The command line: `deltaci serve` starts a server; what works without one says so, everything else talks to one."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

from deltaci import VERSION

# In the order of `--help`: name of the command, module below this package, name in it
COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "plan": ("plan", "plan"),
    "exec": ("plan", "execute"),
    "serve": ("serve", "serve"),
    "lint": ("lint", "lint"),
    "doctor": ("doctor", "doctor"),
    "forge": ("forge", "forge"),
    "verify": ("verify", "verify"),
    "backup": ("backup", "backup"),
    "restore": ("backup", "restore"),
    "runner": ("runner", "runner"),
    "repo": ("repo", "repo"),
    "runner-token": ("remote", "runner_token"),
    "run": ("remote", "run"),
    "recipe": ("recipe", "recipe"),
    "deliveries": ("deliveries", "deliveries"),
    "log": ("remote", "log"),
    "actors": ("remote", "actors"),
    "demo": ("demo", "demo"),
}


class _Commands(click.Group):
    """Imports a command when it is called: to ask a server one needs none of what makes one."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in COMMANDS:
            return None
        module, name = COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"deltaci.cli.{module}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="deltaci")
def main() -> None:
    """Delta CI: a control plane that plans from what changed, and never loses, doubles or forgets anything.

    Commands that talk to a server find it by --server or DELTACI_URL, and their token by --token-file or DELTACI_TOKEN.
    """
