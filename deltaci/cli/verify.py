"""`deltaci verify`: the invariants over a database, live or at rest."""

from pathlib import Path

import anyio
import click

from deltaci.domain.errors import DeltaError
from deltaci.invariants.catalogue import INVARIANTS
from deltaci.invariants.verify import Report
from deltaci.invariants.verify import verify as check
from deltaci.store.sqlite import SqliteStore
from deltaci.wiring import DATABASE_FILE, SystemClock


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
@click.option("--at-rest", is_flag=True, help="Also report what a server left in peace should have done by now.")
@click.option("--late", default=60.0, show_default=True, help="With --at-rest: how late it may be, in seconds.")
def verify(data: Path, at_rest: bool, late: float) -> None:
    """Check every invariant over journal and tables; exit 1 if any is violated."""
    file = data / DATABASE_FILE
    if not file.exists():
        raise click.ClickException(f"{file} does not exist: --data names the directory given to `deltaci serve`")
    now_ms = SystemClock().now_ms() if at_rest else None

    async def run() -> Report:
        async with SqliteStore.open(file, is_readonly=True) as store:
            return await check(store, now_ms=now_ms, late_ms=int(late * 1000))

    try:
        report = anyio.run(run)
    except DeltaError as error:
        raise click.ClickException(str(error)) from error
    _show(report)
    raise SystemExit(1 if report.violations else 0)


def _show(report: Report) -> None:
    for name, count in report.checked.items():
        click.echo(f"checked {count} {name}")
    for number, count in report.looks.items():
        click.echo(f"invariant {number:2} looked at {count} times: {INVARIANTS[number]}")
    for one in report.violations:
        about = f" (journal {', '.join(map(str, one.events))})" if one.events else ""
        click.echo(f"VIOLATION {one.rule} {one.entity_id or '-'}: {one.text}{about}")
    click.echo("no violations" if not report.violations else f"{len(report.violations)} violations")
