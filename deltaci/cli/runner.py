"""`deltaci runner`: the reference runner, a process of its own that imports nothing of the server."""

import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def runner(arguments: tuple[str, ...]) -> None:
    """Start a runner: deltaci runner --server URL --token-file F --labels a,b --slots N --work-dir DIR."""
    from deltaci.runner.__main__ import main

    sys.exit(main(args=list(arguments), prog_name="deltaci runner", standalone_mode=True))
