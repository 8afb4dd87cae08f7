"""`deltaci verify`: checks of a database, live or at rest."""

from pathlib import Path

import anyio
import click

from deltaci.domain.errors import DeltaError
from deltaci.store.sqlite import SqliteStore
from deltaci.store.verify import verify as check
from deltaci.wiring import DATABASE_FILE


@click.command()
@click.option("--data", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
def verify(data: Path) -> None:
    """Check journal chain and invariants; exit 1 if any is violated."""
    file = data / DATABASE_FILE
    if not file.exists():
        raise click.ClickException(f"{file} does not exist: --data names the directory given to `deltaci serve`")

    async def run() -> int:
        async with SqliteStore.open(file) as store:
            report = await check(store)
        for name, count in report.checked.items():
            click.echo(f"checked {count} {name}")
        for violation in report.violations:
            click.echo(f"VIOLATION {violation.rule} {violation.entity_id}: {violation.text}")
        click.echo("no violations" if not report.violations else f"{len(report.violations)} violations")
        return 1 if report.violations else 0

    try:
        code = anyio.run(run)
    except DeltaError as error:
        raise click.ClickException(str(error)) from error
    raise SystemExit(code)
