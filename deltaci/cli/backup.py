"""`deltaci backup` of a data directory, live or at rest, and `deltaci restore` into a new one."""

import signal
import sqlite3
from pathlib import Path
from typing import Any, Final

import anyio
import click

from deltaci import VERSION
from deltaci.domain.errors import DeltaError
from deltaci.store import backup as backups
from deltaci.store.backup import Manifest
from deltaci.store.repair import Repaired, repair
from deltaci.store.restore import restoring
from deltaci.store.sqlite import SqliteStore
from deltaci.wiring import SystemClock

HOUR_MS: Final = 3_600_000
TERMINATED: Final = 128 + signal.SIGTERM

_directory = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.option("--data", type=_directory, required=True, help="The directory given to `deltaci serve`.")
@click.option("--to", "target", type=click.Path(path_type=Path), required=True, help="A directory, made by this.")
def backup(data: Path, target: Path) -> None:
    """Back up a data directory, whether a server works on it or not.

    Exit 1 if there is no backup, or if it lacks artifacts that are damaged or gone in the original.
    """
    _end_in_order()
    try:
        manifest = backups.make(data, target, program=VERSION, now_ms=SystemClock().now_ms())
    except DeltaError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"backed up {data} to {target}")
    _tell(manifest)
    if manifest.damaged:
        _name(manifest.damaged, "artifacts are damaged or gone in the original, and not in the backup")
        raise SystemExit(1)


@click.command()
@click.option("--from", "source", type=_directory, required=True, help="What `deltaci backup` made.")
@click.option("--data", type=_directory, required=True, help="The new data directory, for `deltaci serve`.")
@click.option(
    "--report-hours",
    type=click.IntRange(0),
    default=24,
    show_default=True,
    help="Tell the forges again, also of runs that are over, as far as they began so long before the backup.",
)
@click.option("--leave-out-damaged", is_flag=True, help="Restore without the artifacts whose bytes are damaged.")
def restore(source: Path, data: Path, report_hours: int, leave_out_damaged: bool) -> None:
    """Make a data directory of a backup, and fit it into the world that went on without it."""
    _end_in_order()
    try:
        with restoring(source, data, can_leave_out=leave_out_damaged) as half:
            since_ms = half.manifest.made_at_ms - report_hours * HOUR_MS
            repaired = anyio.run(_repair, half.database, half.manifest, since_ms)
    except DeltaError as error:
        raise click.ClickException(str(error)) from error
    except sqlite3.Error as error:
        raise click.ClickException(f"{source} was not restored: {error}") from error
    click.echo(f"restored {source} to {data}")
    _tell(half.manifest)
    click.echo(f"given back    {repaired.runs_restored} live runs, with all their time")
    click.echo(f"revoked       {repaired.leases_revoked} leases; their jobs are queued again")
    click.echo(f"to report     {repaired.runs_to_report} runs")
    if half.left_out:
        _name(half.left_out, "artifacts are damaged in the backup, and were left out")
    click.echo(f"what came after the backup is not known any more; start the server: deltaci serve --data {data}")


async def _repair(database: Path, manifest: Manifest, report_since_ms: int) -> Repaired:
    async with SqliteStore.open(database) as store:
        return await repair(store, manifest, now_ms=SystemClock().now_ms(), report_since_ms=report_since_ms)


def _tell(manifest: Manifest) -> None:
    contents = manifest.contents
    click.echo(f"journal       {contents.journal_entries} entries, the last one {contents.journal_hash or 'none'}")
    click.echo(f"runs          {contents.runs}, of which {contents.live_runs} live")
    click.echo(f"jobs          {contents.jobs}, of which {contents.live_jobs} live")
    click.echo(f"artifacts     {manifest.artifacts} files, {manifest.artifact_bytes} bytes")
    click.echo(f"database      {manifest.database.size_bytes} bytes, schema version {contents.schema_version}")


def _name(paths: tuple[str, ...], what: str) -> None:
    click.echo(f"{len(paths)} {what}:", err=True)
    for path in paths:
        click.echo(f"  {path!r}", err=True)


def _end_in_order() -> None:
    """SIGTERM ends it like Ctrl-C: what is half done is taken away."""

    def end(*_: Any) -> None:
        raise SystemExit(TERMINATED)

    signal.signal(signal.SIGTERM, end)
