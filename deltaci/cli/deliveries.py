"""The commands about the ledger of webhooks: what became of each, and acting once more on one."""

from typing import Any

import click
from rich.table import Table

from deltaci.cli import show
from deltaci.cli.api import Api, with_api
from deltaci.cli.remote import console

PAGE = 500
NO_REPO = "-"


@click.group()
def deliveries() -> None:
    """Webhooks that were received."""


@deliveries.command("list")
@click.option("--repo", "repo_name", help=f"Only of this repository; {NO_REPO} for those about none.")
@click.option("--limit", type=click.IntRange(1, PAGE), default=20, help="How many, or how many a page.")
@click.option("--all-pages", is_flag=True, help="Back to the first one.")
@with_api
def list_deliveries(api: Api, repo_name: str | None, limit: int, all_pages: bool) -> None:
    """The newest webhooks, and the fate of each."""
    before = None
    while True:
        repo = "" if repo_name == NO_REPO else repo_name
        rows = api.get("/deliveries", repo=repo, before=before, limit=limit)["deliveries"]
        if rows or before is None:
            console.print(table_of(rows))
        if not all_pages or len(rows) < limit:
            return
        before = rows[-1]["number"]


@deliveries.command("replay")
@click.argument("repo_name")
@click.argument("delivery_id")
@with_api
def replay(api: Api, repo_name: str, delivery_id: str) -> None:
    """Act once more on what DELIVERY_ID of REPO_NAME asked for; what was done is not done again.

    A webhook that made a run, or was ignored, is only shown. REPO_NAME is - for one about no repository.
    """
    repo = "" if repo_name == NO_REPO else repo_name
    row = api.post("/deliveries/replay", {"repo": repo, "delivery_id": delivery_id})["delivery"]
    if row["fate"] == "asked":
        click.echo("owed once more; `deltaci deliveries list` tells what became of it. Before, it was:")
    click.echo(show.plain(fate_of(row)))


def table_of(rows: list[dict[str, Any]]) -> Table:
    """Newest first."""
    table = Table(box=None, pad_edge=False)
    table.add_column("number", no_wrap=True)
    table.add_column("time", no_wrap=True)
    for heading in ("repo", "event", "delivery"):
        table.add_column(heading, overflow="fold")
    table.add_column("fate", min_width=24, overflow="fold")
    for row in rows:
        table.add_row(
            str(row["number"]),
            show.moment(row["received_at_ms"]),
            show.text(row["repo"] or NO_REPO),
            show.text(row["event"]),
            show.text(row["delivery_id"]),
            show.text(fate_of(row)),
        )
    return table


def fate_of(row: dict[str, Any]) -> str:
    """What became of a webhook, in words."""
    match row["fate"]:
        case "run":
            return str(row["run_id"])
        case "same_run":
            return f"the same run: {row['run_id']}"
        case "ignored":
            return f"ignored: {row['ignored']}"
        case _:
            return f"{row['asked']} -> {row['outcome'] or 'owed'}"
