"""The commands about recipes: what was kept of the runs that worked, and one of them as a `deltaci.yaml`."""

from pathlib import Path
from typing import Any

import click

from deltaci.cli import show
from deltaci.cli.api import Api, segment, with_api
from deltaci.cli.remote import console

of_repo = click.argument("repo_name")
of_version = click.option("--version", type=click.IntRange(1), help="The newest one by default.")


@click.group()
def recipe() -> None:
    """Recipes: plans that worked."""


@recipe.command("list")
@of_repo
@with_api
def list_recipes(api: Api, repo_name: str) -> None:
    """The versions that are kept, the newest first."""
    console.print(show.recipes_table(_versions(api, repo_name)))


@recipe.command("show")
@of_repo
@of_version
@click.option("--json", "as_json", is_flag=True, help="As the API answers it.")
@with_api
def show_recipe(api: Api, repo_name: str, version: int | None, as_json: bool) -> None:
    """What a version is made of: projects, commands, caches, artifacts."""
    path = _path(api, repo_name, version)
    if as_json:
        click.echo(api.raw("GET", path).text)
        return
    show.print_recipe(console, api.get(path))


@recipe.command("export")
@of_repo
@of_version
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="A file that is not there yet.")
@with_api
def export(api: Api, repo_name: str, version: int | None, output: Path | None) -> None:
    """A version as a proposal for deltaci.yaml, to standard output or to a new file."""
    text = api.raw("GET", f"{_path(api, repo_name, version)}/export").text
    if output is None:
        click.echo(text, nl=False)
        return
    try:
        with output.open("x", encoding="utf-8", newline="\n") as stream:
            stream.write(text)
    except FileExistsError as error:
        raise click.ClickException(f"--output {output}: it is there already; name a new file") from error
    except OSError as error:
        raise click.ClickException(f"--output {output}: {error.strerror}") from error
    click.echo(f"wrote {output}", err=True)


def _versions(api: Api, repo_name: str) -> list[Any]:
    found: list[Any] = api.get(f"/repos/{segment(repo_name)}/recipes")["recipes"]
    return found


def _path(api: Api, repo_name: str, version: int | None) -> str:
    """Where a version is; raises `click.ClickException` when there is none at all."""
    if version is None:
        versions = _versions(api, repo_name)
        if not versions:
            raise click.ClickException(
                f"{repo_name} has no recipe: the first push to its default branch that succeeds without a deltaci.yaml "
                "makes one"
            )
        version = versions[0]["version"]
    return f"/repos/{segment(repo_name)}/recipes/{version}"
