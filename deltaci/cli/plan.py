"""`deltaci plan` and `deltaci exec`: what would run for a change of a repository here, and running it."""

import shutil
import sys
import tempfile
from functools import partial
from pathlib import Path

import anyio
import click
import msgspec
from rich.console import Console

from deltaci.cli import show
from deltaci.cli.checkout import Comparison, compare
from deltaci.cli.household import runner, server
from deltaci.cli.remote import follow
from deltaci.domain.plan import Plan, digest
from deltaci.domain.reasons import mermaid
from deltaci.planner.errors import PlanFailed, PlanUnavailable
from deltaci.planner.service import RepositoryPlanner

# Without a terminal nobody looks at the width: a pipe gets whole lines.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)

directory_option = click.option(
    "--repo",
    "directory",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    default=".",
    help="A directory of the repository; the current one by default.",
)
base_option = click.option(
    "--base",
    metavar="REV",
    help="Compare with where HEAD left this revision. By default the default branch, or on it the commit before.",
)
full_option = click.option(
    "--full", "is_full", is_flag=True, help="Everything, as if nothing were known of the change."
)
head_option = click.option("--head", metavar="REV", default="HEAD", show_default=True, help="The commit to plan for.")


@click.command()
@directory_option
@base_option
@full_option
@head_option
@click.option("--uncommitted", "is_uncommitted", is_flag=True, help="The files as they are now, on top of HEAD.")
@click.option("--json", "as_json", is_flag=True, help="The whole plan as JSON: equal inputs give equal bytes.")
@click.option("--graph", "as_graph", is_flag=True, help="Files, projects and jobs as a Mermaid flow chart.")
@click.option("--all", "shows_all", is_flag=True, help="Every job, however many.")
def plan(
    directory: Path,
    base: str | None,
    is_full: bool,
    head: str,
    is_uncommitted: bool,
    as_json: bool,
    as_graph: bool,
    shows_all: bool,
) -> None:
    """Show what would run for a change, and why. Needs no server and runs nothing.

    Plans what is committed, unless told otherwise.

    Exits 1 if no plan can be made: the text says why, with file and line where one is to be mended.
    """
    compared = compare(directory, base, head, is_full=is_full, is_uncommitted=is_uncommitted)
    made = _made(compared)
    if as_json:
        sys.stdout.buffer.write(msgspec.json.encode(made, order="deterministic") + b"\n")
    elif as_graph:
        click.echo(mermaid(made), nl=False)
    else:
        _print_base(compared, made)
        show.print_plan(console, made, digest(made), shows_all=shows_all)


@click.command("exec")
@directory_option
@base_option
@full_option
@head_option
@click.option("--slots", type=click.IntRange(1, 64), default=2, show_default=True, help="Jobs at the same time.")
@click.option("--keep", is_flag=True, help="Leave data, logs and artifacts behind and say where.")
def execute(directory: Path, base: str | None, is_full: bool, head: str, slots: int, keep: bool) -> None:
    """Run the plan of a change on this machine, by a server and a runner that last as long as this command.

    The jobs run the repository's own commands, as you, with nothing to hold them back. Exits 1 if the run fails.
    """
    compared = compare(directory, base, head, is_full=is_full)
    made = _made(compared)
    _print_base(compared, made)
    labels = tuple(sorted({label for job in made.jobs for label in job.labels}))
    home = Path(tempfile.mkdtemp(prefix="deltaci-exec-"))
    try:
        with server(home) as api, runner(home, api, name="exec", slots=slots, labels=labels):
            repo = {"name": "local", "forge": "git", "clone_url": compared.git_dir.as_uri()}
            api.post("/repos", {**repo, "secret": "nobody-sends-webhooks-here", "report_to": ""})
            trigger = {
                "repo": "local",
                "ref": "refs/deltaci/exec",
                "commit_sha": compared.head_sha,
                "base_sha": compared.base_sha,
            }
            run_id = api.post("/runs", {name: value for name, value in trigger.items() if value is not None})["run_id"]
            view = follow(api, run_id)
            show.print_run(console, view)
            for job in view["jobs"]:
                if job["state"] in ("FAILED", "TIMED_OUT"):
                    _print_log(api.raw("GET", f"/jobs/{job['id']}/log").content, job["name"])
    finally:
        if keep:
            click.echo(f"left behind: {home}")
        else:
            shutil.rmtree(home, ignore_errors=True)
    if view["run"]["state"] != "SUCCEEDED":
        sys.exit(1)


def _print_base(compared: Comparison, made: Plan) -> None:
    against = "nothing" if made.base_sha is None else made.base_sha[:12]
    files = "" if made.changed_files_count is None else f", changed files: {made.changed_files_count}"
    what = f"commit {compared.head_sha[:12]}"
    if compared.work_tree is not None:
        what = f"{compared.work_tree} on top of {what}"
    console.print(f"{show.text(what)} compared with {against} ({show.text(compared.because)}){files}")


def _print_log(data: bytes, name: str) -> None:
    console.print(f"\nlog of [bold]{show.text(name)}[/]")
    sys.stdout.flush()
    sys.stdout.buffer.write(show.safe_bytes(data) if sys.stdout.isatty() else data)
    sys.stdout.buffer.flush()


def _made(compared: Comparison) -> Plan:
    # No mirror is made: the repository is read where it is.
    planner = RepositoryPlanner(compared.git_dir)
    try:
        return anyio.run(
            partial(
                planner.plan_here,
                compared.git_dir,
                commit_sha=compared.head_sha,
                base_sha=compared.base_sha,
                work_tree=compared.work_tree,
            )
        )
    except (PlanFailed, PlanUnavailable) as error:
        raise click.ClickException(str(error)) from error
    finally:
        planner.close()
