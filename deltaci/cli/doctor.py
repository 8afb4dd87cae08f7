"""`deltaci doctor`: what is missing for forges, runners and people to get what they are owed, and what to do."""

import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import click
from rich.table import Table

from deltaci.cli import show
from deltaci.cli.api import Api, with_api
from deltaci.cli.remote import console

CLOCKS_MS_MAX: Final = 5_000
SERVER: Final = "server"


@click.command()
@click.option("--repo", "repo_name", help="Only this repository, besides the server itself.")
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@with_api
def doctor(api: Api, repo_name: str | None, as_json: bool) -> None:
    """Ask the server what is missing, its forges included; exit 1 if anything is."""
    asked_at_ms = time.time_ns() // 1_000_000
    answer = api.get("/doctor", repo=repo_name)
    answered_at_ms = time.time_ns() // 1_000_000
    answer["server"].append(clocks(answer["now_ms"], asked_at_ms, answered_at_ms))
    findings = list(_all(answer))
    bad = sum(not one["is_good"] for _, one in findings)
    if as_json:
        click.echo(show.as_json(answer))
    else:
        _print(findings, bad)
    sys.exit(1 if bad else 0)


def clocks(server_ms: int, asked_at_ms: int, answered_at_ms: int) -> dict[str, Any]:
    """Whether the server's clock shows what this machine's does, as far as can be seen from an answer."""
    apart_ms = max(asked_at_ms - server_ms, server_ms - answered_at_ms, 0)
    is_good = apart_ms <= CLOCKS_MS_MAX
    advice = "set the clocks by NTP; a forge refuses the App's tokens of a clock that is a minute off"
    return {
        "what": "clock",
        "is_good": is_good,
        "detail": "as on this machine" if is_good else f"{apart_ms // 1000} s apart from this machine's",
        "advice": "" if is_good else advice,
    }


def _all(answer: Any) -> Iterator[tuple[str, Any]]:
    yield from ((SERVER, one) for one in answer["server"])
    for name, findings in answer["repos"].items():
        yield from ((name, one) for one in findings)


def _print(findings: list[tuple[str, Any]], bad: int) -> None:
    about = None
    for subject, one in findings:
        if subject != about:
            about = subject
            console.print(f"[bold]{show.text(subject)}[/]")
        detail = f": {show.text(one['detail'])}" if one["detail"] else ""
        said = Table.grid(padding=(0, 1))
        for width in (1, 3, None):
            said.add_column(width=width)
        said.add_row(" ", "[green]ok[/]" if one["is_good"] else "[red]BAD[/]", f"{show.text(one['what'])}{detail}")
        if one["advice"]:
            said.add_row(" ", "", f"-> {show.text(one['advice'])}")
        console.print(said)
    console.print(f"{bad} of {len(findings)} are not as they should be" if bad else "everything is as it should be")
