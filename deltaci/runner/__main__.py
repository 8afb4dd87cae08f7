"""`python -m deltaci.runner`: the runner without the rest of the command line."""

import asyncio
import sys
from pathlib import Path

import click

from deltaci.runner.logs import configure_logs
from deltaci.runner.runner import run
from deltaci.runner.settings import RunnerConfigError, RunnerSettings


@click.command(name="runner", help="Lease jobs from a Delta CI server and execute them on this host.")
@click.option("--server", required=True, help="Address of the server, http(s)://host:port.")
@click.option("--token-file", required=True, type=click.Path(path_type=Path), help="File with the runner's token.")
@click.option("--labels", default="", help="Comma-separated labels that jobs may ask for.")
@click.option("--slots", default=1, show_default=True, help="Jobs executed at once.")
@click.option("--work-dir", required=True, type=click.Path(path_type=Path), help="Mirrors, caches and workspaces.")
@click.option("--name", default="", help="Name of the runner; the host name if not given.")
@click.option("--transport", type=click.Choice(["auto", "http", "websocket"]), default="auto", show_default=True)
@click.option("--cancel-grace-ms", default=10_000, show_default=True, help="From SIGTERM to SIGKILL.")
@click.option("--pass-env", multiple=True, help="A further variable of this environment that jobs may see.")
@click.option("--git-config", type=click.Path(path_type=Path), help="git configuration file used for fetching.")
@click.option("--log-level", default="INFO", show_default=True)
def main(
    server: str,
    token_file: Path,
    labels: str,
    slots: int,
    work_dir: Path,
    name: str,
    transport: str,
    cancel_grace_ms: int,
    pass_env: tuple[str, ...],
    git_config: Path | None,
    log_level: str,
) -> None:
    """Run until signaled; exits 2 on a wrong setting."""
    configure_logs(log_level.upper())
    try:
        settings = RunnerSettings(
            server=server,
            token_file=token_file,
            work_dir=work_dir,
            labels=tuple(label.strip() for label in labels.split(",") if label.strip()),
            slots=slots,
            name=name,
            transport="http" if transport == "http" else "websocket" if transport == "websocket" else "auto",
            cancel_grace_ms=cancel_grace_ms,
            pass_env=pass_env,
            git_config=git_config,
        )
        sys.exit(asyncio.run(run(settings)))
    except RunnerConfigError as error:
        raise click.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
