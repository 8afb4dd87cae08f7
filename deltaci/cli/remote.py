"""The commands that talk to a server: runner tokens, runs, logs, the actor tree."""

import sys
import time
from collections.abc import Callable
from typing import Any

import click
from rich.console import Console

from deltaci.cli import show
from deltaci.cli.api import Api, segment, with_api

# Without a terminal nobody looks at the width: a pipe gets whole lines.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

POLL_S = 0.3


# ---- runners -----------------------------------------------------------------------------------------------------


@click.group("runner-token")
def runner_token() -> None:
    """Tokens for runners."""


@runner_token.command("create")
@click.option("--label", default="", help="What it is for; shown in lists.")
@with_api
def create_token(api: Api, label: str) -> None:
    """Create a token for runners; it is the last line printed, and is not shown again."""
    made = api.post("/admin/runner-tokens", {"label": label})
    click.echo(f"created {made['id']}; keep the token, it is not shown again:", err=True)
    click.echo(made["token"])


# ---- runs --------------------------------------------------------------------------------------------------------


@click.group()
def run() -> None:
    """Runs."""


@run.command("list")
@click.option("--repo", "repo_name", help="Only this repository.")
@click.option("--state", help="Only in this state.")
@click.option("--limit", type=click.IntRange(1, 500), default=20)
@with_api
def list_runs(api: Api, repo_name: str | None, state: str | None, limit: int) -> None:
    """The newest runs."""
    console.print(show.runs_table(api.get("/runs", repo=repo_name, state=state, limit=limit)["runs"]))


@run.command("show")
@click.argument("run_id")
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@with_api
def show_run(api: Api, run_id: str, as_json: bool) -> None:
    """A run with its jobs, why each is there, waits or failed."""
    if as_json:
        click.echo(api.raw("GET", f"/runs/{segment(run_id)}").text)
        return
    show.print_run(console, api.get(f"/runs/{segment(run_id)}"))


@run.command("watch")
@click.argument("run_id")
@with_api
def watch(api: Api, run_id: str) -> None:
    """Follow a run to its end; exit 0 if it succeeded, 1 otherwise."""
    raise SystemExit(0 if follow(api, run_id)["run"]["state"] == "SUCCEEDED" else 1)


def follow(api: Api, run_id: str, *, each: Callable[[Any], None] | None = None) -> Any:
    """Print each change of state as it is committed; the run's view at its end. `each` sees every view on the way."""
    after = 0
    names: dict[str, str] = {}
    while True:
        view = api.get(f"/runs/{segment(run_id)}")
        if each is not None:
            each(view)
        names.update({job["id"]: job["name"] for job in view["jobs"]})
        events = api.get(f"/runs/{segment(run_id)}/events", after=after)["events"]
        for event in events:
            after = event["id"]
            line = show.event_line(event, names)
            if line:
                console.print(line)
        if view["run"]["ended_at_ms"] is not None and not events:
            return view
        time.sleep(POLL_S)


@run.command("start")
@click.argument("repo_name")
@click.argument("commit_sha")
@click.option("--ref", default="refs/heads/main")
@click.option("--base", help="Plan against this commit; without it everything runs.")
@with_api
def start(api: Api, repo_name: str, commit_sha: str, ref: str, base: str | None) -> None:
    """Run a commit that nobody pushed."""
    made = api.post("/runs", {"repo": repo_name, "commit_sha": commit_sha, "ref": ref, "base_sha": base})
    click.echo(made["run_id"])


@run.command("cancel")
@click.argument("run_id")
@with_api
def cancel(api: Api, run_id: str) -> None:
    """Stop a run."""
    answer = api.post(f"/runs/{segment(run_id)}/cancel")
    click.echo(f"{answer['run_id']} is {answer['state']}")


@run.command("approve")
@click.argument("run_id")
@with_api
def approve(api: Api, run_id: str) -> None:
    """Let a run go on that waits for approval: its commit, and no other."""
    answer = api.post(f"/runs/{segment(run_id)}/approve")
    if answer["approved_by"]:
        click.echo(f"{answer['run_id']} is {answer['state']}, approved by {answer['approved_by']}")
    else:
        click.echo(f"{answer['run_id']} is {answer['state']} and was not waiting for approval")


@run.command("rerun")
@click.argument("run_id")
@click.option("--failed", is_flag=True, help="Only what did not succeed, with all that depends on it.")
@with_api
def rerun(api: Api, run_id: str, failed: bool) -> None:
    """A new attempt of a run that is over."""
    answer = api.post(f"/runs/{segment(run_id)}/rerun", {"jobs": "failed" if failed else "all"})
    click.echo(answer["run_id"])


# ---- logs, actors ------------------------------------------------------------------------------------------------


@click.command()
@click.argument("job_id")
@click.option("--attempt", type=click.IntRange(1), help="The last one by default.")
@click.option("--follow", "is_following", is_flag=True, help="Go on until the log is closed.")
@with_api
def log(api: Api, job_id: str, attempt: int | None, is_following: bool) -> None:
    """The log of a job."""
    offset = 0
    while True:
        parameters = {"offset": offset, **({"attempt": attempt} if attempt else {})}
        response = api.raw("GET", f"/jobs/{segment(job_id)}/log", params=parameters)
        sys.stdout.buffer.write(show.safe_bytes(response.content) if sys.stdout.isatty() else response.content)
        sys.stdout.buffer.flush()
        offset += len(response.content)
        is_complete = offset >= int(response.headers["X-Log-Size"])
        if is_complete and (not is_following or response.headers["X-Log-Final"] == "true"):
            return
        if is_complete:
            time.sleep(POLL_S)


@click.command()
@with_api
def actors(api: Api) -> None:
    """The live actor tree."""
    view = api.get("/admin/actors")
    console.print(show.actor_tree(view["tree"]))
    if view["dead_letters"]["total"]:
        console.print(f"{view['dead_letters']['total']} dead letters")
