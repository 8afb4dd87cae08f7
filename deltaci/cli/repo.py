"""The commands about repositories: register, list, change, remove."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args
from urllib.parse import quote, urlparse

import click

from deltaci.cli.api import Api, Command, read_secret, with_api
from deltaci.domain.errors import ConfigError
from deltaci.domain.repo import Forge
from deltaci.forge.git import install_hook, post_receive_hook

# What a webhook is set to at each forge that is not told by a hook of ours.
WEBHOOK_EVENTS: Final[Mapping[str, str]] = {
    "github": "application/json; pushes, pull requests, merge groups, issue comments, repositories",
    "gitlab": "secret or signing token; push, tag push, comment and merge request events",
    "gitea": "application/json; push, delete, pull request, issue and pull request comment, repository events",
}
a_file = click.Path(path_type=Path, dir_okay=False)


@click.group()
def repo() -> None:
    """Repositories."""


def settings(command: Command) -> Command:
    """The options that `repo add` and `repo set` share; what is not given is None."""
    for option in reversed(
        (
            click.option("--report-to", help="Where results go: a file or URL (git), or the API's base URL."),
            click.option("--api-token-file", type=a_file, help="Token to ask the forge with, and to set statuses."),
            click.option("--supersede/--no-supersede", default=None, help="A newer push cancels the older run."),
            click.option("--running-max", type=click.IntRange(0), help="Jobs at once; 0 is no limit."),
            click.option("--default-branch", help="Only pushes to it make recipes (main)."),
            click.option("--installation", type=click.IntRange(0), help="Of our GitHub App; 0 for none."),
            click.option("--approval", type=click.Choice(["none", "first_time", "forks"]), help="Whose changes wait."),
            click.option(
                "--one-run-a-commit/--two-runs",
                "one_run",
                default=None,
                help="Where a pull request is open, its event runs the commit, and not the push as well.",
            ),
            click.option("--watch", "watched", multiple=True, metavar="GLOB", help="Branches to look after; repeat."),
        )
    ):
        command = option(command)
    return command


def body_of(
    report_to: str | None,
    api_token_file: Path | None,
    supersede: bool | None,
    running_max: int | None,
    default_branch: str | None,
    installation: int | None,
    approval: str | None,
    one_run: bool | None,
    watched: tuple[str, ...],
) -> dict[str, Any]:
    """The settings that were given, as the API names them."""
    given = {
        "report_to": report_to,
        "api_token": read_secret(api_token_file, "--api-token-file") if api_token_file else None,
        "is_superseding": supersede,
        "running_max": running_max,
        "default_branch": default_branch,
        "installation_id": installation,
        "approval": approval,
        "is_one_run_a_commit": one_run,
        "watched": [glob for glob in watched if glob] if watched else None,
    }
    return {name: value for name, value in given.items() if value is not None}


@repo.command("add")
@click.argument("name")
@click.option("--url", required=True, help="Where to clone it from; a path for a bare repository on this machine.")
@click.option("--forge", type=click.Choice(get_args(Forge)), required=True, help="gitea is for Forgejo, too.")
@click.option("--secret-file", type=a_file, required=True, help="At least 16 characters.")
@click.option("--hook/--no-hook", default=True, help="Write the post-receive hook of a local bare repository (git).")
@settings
@with_api
def add(api: Api, name: str, url: str, forge: str, secret_file: Path, hook: bool, **given: Any) -> None:
    """Register repository NAME; for the forge `git`, write the hook that posts each push."""
    local = _local_path(url)
    body = {
        "name": name,
        "forge": forge,
        "clone_url": local.resolve().as_uri() if local is not None else url,
        "secret": read_secret(secret_file, "--secret-file"),
        **body_of(**given),
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


@repo.command("list")
@with_api
def list_repos(api: Api) -> None:
    """Registered repositories."""
    for one in api.get("/repos")["repos"]:
        removed = f"  ({one['removed_because']})" if one["removed_because"] else ""
        click.echo(f"{one['id']}  {one['forge']:6}  {one['name']}  {one['clone_url']}{removed}")


@repo.command("set")
@click.argument("name")
@click.option("--name", "new_name", help="Another name.")
@click.option("--clone-url", help="Another address to clone it from.")
@click.option("--secret-file", type=a_file, help="A new secret; the old one is valid beside it until it is dropped.")
@click.option("--drop-previous-secret", is_flag=True, help="Only the new secret counts from now on.")
@click.option("--bring-back", is_flag=True, help="Build it again after it was removed.")
@settings
@with_api
def change(
    api: Api,
    name: str,
    new_name: str | None,
    clone_url: str | None,
    secret_file: Path | None,
    drop_previous_secret: bool,
    bring_back: bool,
    **given: Any,
) -> None:
    """Change settings of repository NAME (or its id); what is not named stays. `--watch ''` watches nothing more.

    To change a webhook's secret without losing one: set the new secret here, then at the forge, then drop the old one.
    """
    asked: dict[str, Any] = {
        "name": new_name,
        "clone_url": clone_url,
        "secret": read_secret(secret_file, "--secret-file") if secret_file else None,
        "drop_previous_secret": drop_previous_secret or None,
        "is_removed": False if bring_back else None,
    }
    body = {key: value for key, value in asked.items() if value is not None} | body_of(**given)
    if not body:
        raise click.UsageError("name at least one setting to change; see --help")
    made = api.patch(path_of(name), body)["repo"]
    click.echo(f"changed {made['name']} ({made['id']})")
    if made["has_previous_secret"]:
        click.echo(
            f"two secrets are valid now; when the forge uses the new one: repo set {name} --drop-previous-secret"
        )


@repo.command("remove")
@click.argument("name")
@with_api
def remove(api: Api, name: str) -> None:
    """Build repository NAME no more: what runs is canceled, its history stays. `set NAME --bring-back` undoes it."""
    made = api.delete(path_of(name))["repo"]
    click.echo(f"{made['name']} is built no more: {made['removed_because']}")


def path_of(name: str) -> str:
    """Where a repository is; its name may have slashes in it."""
    return f"/repos/{quote(name, safe='/')}"


def _local_path(url: str) -> Path | None:
    parsed = urlparse(url)
    if parsed.scheme == "file":
        return Path(parsed.path)
    path = Path(url)
    return path if not parsed.scheme and path.is_dir() else None
