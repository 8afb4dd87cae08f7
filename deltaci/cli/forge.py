"""The commands that help to attach a forge: what to give it, printed here."""

import html
from typing import Any, Final
from urllib.parse import quote, urlsplit

import click

from deltaci.cli import show

NAME_CHARACTERS_MAX: Final = 34
PAGE: Final = """<!doctype html>
<title>Create a GitHub App for Delta CI</title>
<form action="{action}" method="post">
<textarea name="manifest" rows="32" cols="100">{manifest}</textarea>
<p><button>Create the App at GitHub</button></p>
</form>"""


@click.group()
def forge() -> None:
    """What forges need to be told."""


@forge.command("manifest")
@click.option("--url", required=True, help="Where GitHub reaches this server: https://ci.example.org")
@click.option("--name", default="Delta CI", help="What the App is called; no other App of GitHub may be.")
@click.option("--html", "is_html", is_flag=True, help="A page with a button that takes it to GitHub.")
@click.option("--organization", help="Whose App it is to be; yours, if this is left out. With --html.")
@click.option("--github-url", default="https://github.com", help="Where people find GitHub. With --html.")
def manifest(url: str, name: str, is_html: bool, organization: str | None, github_url: str) -> None:
    """Print the manifest of a GitHub App for the server at URL, as JSON or as a page that creates it."""
    text = show.as_json(app_manifest(url, name))
    if not is_html:
        click.echo(text)
        return
    owner = f"organizations/{quote(organization, safe='')}/" if organization else ""
    action = f"{github_url.rstrip('/')}/{owner}settings/apps/new"
    click.echo(PAGE.format(action=html.escape(action), manifest=html.escape(text)))


def app_manifest(url: str, name: str) -> dict[str, Any]:
    """What GitHub makes an App from; raises `click.BadParameter` for an address that it could not reach."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise click.BadParameter(f"{url!r} is not an address of the form https://ci.example.org", param_hint="--url")
    if not 1 <= len(name) <= NAME_CHARACTERS_MAX:
        raise click.BadParameter(f"an App's name has 1 to {NAME_CHARACTERS_MAX} characters", param_hint="--name")
    here = url.rstrip("/")
    return {
        "name": name,
        "url": here,
        "hook_attributes": {"url": f"{here}/api/v1/webhooks/github", "active": True},
        "redirect_url": here,
        "public": False,
        "default_permissions": dict(PERMISSIONS),
        "default_events": list(EVENTS),
    }


# Each with what it is for; installation events come without being asked for.
PERMISSIONS: Final = {
    "checks": "write",  # a check for each job and one for the run, with annotations
    "contents": "read",  # clone, trees and diffs
    "issues": "read",  # GitHub tells comments at pull requests to nobody who may not read issues
    "merge_queues": "read",  # merge_group events
    "metadata": "read",  # who may approve, rerun and cancel; GitHub wants it of every App
    "pull_requests": "write",  # pull requests, and the comment
    "statuses": "write",  # commit statuses, where a repository is used with a token
}
EVENTS: Final = (
    "check_run",
    "check_suite",
    "issue_comment",
    "merge_group",
    "pull_request",
    "push",
    "repository",
)
