"""The command line: `deltaci serve` starts a server, everything else talks to one."""

import click

from deltaci import VERSION
from deltaci.cli import demo, remote, runner, serve, verify


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(VERSION, prog_name="deltaci")
def main() -> None:
    """Delta CI: a control plane that plans from what changed, and never loses, doubles or forgets anything.

    Commands that talk to a server find it by --server or DELTACI_URL, and their token by --token-file or DELTACI_TOKEN.
    """


for command in (
    serve.serve,
    verify.verify,
    runner.runner,
    remote.repo,
    remote.runner_token,
    remote.run,
    remote.log,
    remote.actors,
    demo.demo,
):
    main.add_command(command)
