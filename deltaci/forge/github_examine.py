"""What `deltaci doctor` looks at on GitHub: the App with its rights, events and webhook, or the token's."""

from typing import Final

from deltaci.domain.repo import Repo
from deltaci.forge import findings
from deltaci.forge import github_shapes as shapes
from deltaci.forge.access import leads_here, named
from deltaci.forge.answers import read
from deltaci.forge.api import Finding
from deltaci.forge.client import Ask
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_app import METADATA, GitHubApp
from deltaci.forge.github_deliveries import HOOK_PATH

PERMISSIONS: Final = {"metadata": "read", "contents": "read", "pull_requests": "write", "checks": "write"}
LEVELS: Final = ("none", "read", "write", "admin")
APP_EVENTS: Final = ("push", "pull_request", "check_run", "check_suite", "issue_comment", "merge_group")
HOOK_EVENTS: Final = ("push", "pull_request", "issue_comment")


async def examined(access: GitHubAccess, repo: Repo, hook_url: str) -> tuple[Finding, ...]:
    """See `ForgeApi.examine`."""
    if access.is_app(repo) and access.app is not None:
        return await _app(access, access.app, repo, hook_url)
    return await _token(access, repo, hook_url)


async def _app(access: GitHubAccess, app: GitHubApp, repo: Repo, hook_url: str) -> tuple[Finding, ...]:
    asked = "look at the GitHub App"
    advice = "check github.app_id, github.private_key_file and this machine's clock"

    async def view() -> shapes.AppView:
        return read(await app.send(Ask(path="/app", asked=asked)), shapes.AppView, asked=asked)

    seen, known = await findings.look(view, what="GitHub App", advice=advice)
    if seen is None:
        return (known,)
    found = [known]
    where = f"look at the installation of the App on {named(repo)}"

    async def installation() -> shapes.AppView:
        path = access.path(repo, "installation", asked=where)
        return read(await app.send(Ask(path=path, asked=where)), shapes.AppView, asked=where)

    installed, finding = await findings.look(installation, what="installation", advice="install the App on it")
    found.append(finding)
    if installed is not None:
        found += _installation(installed, repo)
    what = "look at the webhook of the App"

    async def config() -> shapes.HookConfig:
        return read(await app.send(Ask(path="/app/hook/config", asked=what)), shapes.HookConfig, asked=what)

    hook, finding = await findings.look(config, what="webhook", advice="set the App's webhook")
    if hook is None:
        return (*found, finding)
    wrong = [] if hook.content_type == "json" else [f"its content type is {hook.content_type}, not json"]
    is_ours = leads_here(hook.url, hook_url, HOOK_PATH)
    return (*found, findings.webhook(is_ours, wrong=wrong, hook_url=hook_url))


def _installation(installed: shapes.AppView, repo: Repo) -> list[Finding]:
    missing = [
        f"{name}: {level}"
        for name, level in PERMISSIONS.items()
        if LEVELS.index(level) > _level(installed.permissions.get(name, "none"))
    ]
    advice = "give the App these permissions, and have the installation accept them"
    events = [event for event in APP_EVENTS if event not in installed.events]
    found = [
        findings.having("permissions of the App", missing, advice=advice),
        findings.having("events of the App", events, advice="subscribe the App to these events"),
    ]
    if installed.id != repo.installation_id:
        detail = f"the repository is registered with the installation {repo.installation_id}, and is in {installed.id}"
        found.append(Finding(what="installation", is_good=False, detail=detail, advice="register it with that one"))
    if installed.suspended_at is not None:
        found.append(
            Finding(what="installation", is_good=False, detail="it is suspended", advice="have its owner resume it")
        )
    return found


async def _token(access: GitHubAccess, repo: Repo, hook_url: str) -> tuple[Finding, ...]:
    asked = f"look at {named(repo)}"

    async def repository() -> shapes.RepositoryView:
        ask = Ask(path=access.path(repo, asked=asked), asked=asked)
        return read(await access.send(repo, ask, METADATA), shapes.RepositoryView, asked=asked)

    advice = "give the repository a token that may read it and write statuses, or install the GitHub App"
    seen, finding = await findings.look(repository, what="repository", advice=advice)
    if seen is None:
        return (finding,)
    missing = [] if seen.permissions.get("push") else ["write access, which commit statuses take"]
    found = [finding, findings.having("rights of the token", missing, advice=advice)]

    async def hooks() -> list[shapes.Hook]:
        ask = Ask(path=access.path(repo, "hooks", asked=asked), asked=asked, query={"per_page": "100"})
        return [hook async for page in access.pages(repo, ask, METADATA, list[shapes.Hook]) for hook in page]

    advice = "let the token read webhooks (admin:repo_hook), or look at the repository's settings yourself"
    listed, finding = await findings.look(hooks, what="webhook", advice=advice)
    if listed is None:
        return (*found, finding)
    ours = next((hook for hook in listed if leads_here(hook.config.url, hook_url, HOOK_PATH)), None)
    return (*found, findings.webhook(ours is not None, wrong=_wrong(ours) if ours else [], hook_url=hook_url))


def _wrong(hook: shapes.Hook) -> list[str]:
    missing = [event for event in HOOK_EVENTS if event not in hook.events and "*" not in hook.events]
    wrong = [f"it lacks the events {', '.join(missing)}"] if missing else []
    if hook.config.content_type != "json":
        wrong.append(f"its content type is {hook.config.content_type}, not json")
    return wrong if hook.active else [*wrong, "it is not active"]


def _level(name: str) -> int:
    return LEVELS.index(name) if name in LEVELS else 0
