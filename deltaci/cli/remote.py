"""The commands that talk to a server: repositories, runner tokens, runs, logs, the actor tree."""

import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import urlparse

import click
from rich.console import Console

from deltaci.cli import show
from deltaci.cli.api import Api, read_secret, segment, with_api
from deltaci.domain.errors import ConfigError
from deltaci.domain.repo import Forge
from deltaci.forge.git import install_hook, post_receive_hook

# Without a terminal nobody looks at the width: a pipe gets whole lines.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

POLL_S = 0.3
# What a webhook is set to at each forge that is not told by a hook of ours.
WEBHOOK_EVENTS: Final[Mapping[str, str]] = {
    "github": "application/json; pushes, pull requests, merge groups, issue comments, repositories",
    "gitlab": "secret or signing token; push, tag push, comment and merge request events",
    "gitea": "application/json; push, delete, pull request, issue and pull request comment, repository events",
}


# ---- repositories ------------------------------------------------------------------------------------------------


@click.group()
def repo() -> None:
    """Repositories."""


@repo.command("add")
@click.argument("name")
@click.option("--url", required=True, help="Where to clone it from; a path for a bare repository on this machine.")
@click.option("--forge", type=click.Choice(get_args(Forge)), required=True, help="gitea is for Forgejo, too.")
@click.option(
    "--secret-file", type=click.Path(path_type=Path, dir_okay=False), required=True, help="At least 16 characters."
)
@click.option("--report-to", default="", help="Where results go: a file or URL (git), or the API's base URL (github).")
@click.option("--api-token-file", type=click.Path(path_type=Path, dir_okay=False), help="Token to set statuses with.")
@click.option("--supersede/--no-supersede", default=True, help="A newer push cancels the older run of its branch.")
@click.option("--running-max", type=click.IntRange(0), default=0, help="Jobs at once; 0 is no limit.")
@click.option("--default-branch", default="main", help="Only pushes to it make recipes.")
@click.option("--hook/--no-hook", default=True, help="Write the post-receive hook of a local bare repository (git).")
@with_api
def add(
    api: Api,
    name: str,
    url: str,
    forge: str,
    secret_file: Path,
    report_to: str,
    api_token_file: Path | None,
    supersede: bool,
    running_max: int,
    default_branch: str,
    hook: bool,
) -> None:
    """Register repository NAME; for the forge `git`, write the hook that posts each push."""
    local = _local_path(url)
    clone_url = local.resolve().as_uri() if local is not None else url
    body = {
        "name": name,
        "forge": forge,
        "clone_url": clone_url,
        "secret": read_secret(secret_file, "--secret-file"),
        "report_to": report_to,
        "api_token": read_secret(api_token_file, "--api-token-file") if api_token_file else "",
        "is_superseding": supersede,
        "running_max": running_max,
        "default_branch": default_branch,
    }
    made = api.post("/repos", body)["repo"]
    click.echo(f"registered {made['name']} as {made['id']}")
    if forge in WEBHOOK_EVENTS:
        click.echo(f"webhook: {api.server}/api/v1/webhooks/{forge}  ({WEBHOOK_EVENTS[forge]})")
    elif hook and local is not None:
        try:
            written = install_hook(local.resolve(), post_receive_hook(api.server, name, secret_file.resolve()))
        except (ConfigError, OSError) as error:
            raise click.ClickException(f"no hook was written: {error}") from error
        click.echo(f"wrote {written}")
    else:
        click.echo("no hook was written: the repository is not a directory on this machine, or --no-hook was given")


def _local_path(url: str) -> Path | None:
    parsed = urlparse(url)
    if parsed.scheme == "file":
        return Path(parsed.path)
    path = Path(url)
    return path if not parsed.scheme and path.is_dir() else None


@repo.command("list")
@with_api
def list_repos(api: Api) -> None:
    """Registered repositories."""
    for one in api.get("/repos")["repos"]:
        click.echo(f"{one['id']}  {one['forge']:6}  {one['name']}  {one['clone_url']}")


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
