"""The API for repositories: registered, shown without their secrets, changed, and removed with their history kept.

Rule: an audit record says which secret was changed, and never to what.
"""

import re
from typing import Annotated, Any, Final, TypeAlias

import msgspec
from msgspec import UNSET, Meta, UnsetType
from quart import Blueprint, Response

from deltaci.domain.errors import MalformedRequest
from deltaci.domain.ids import RANDOM_BYTES, new_id
from deltaci.domain.repo import Approval, Forge, Repo
from deltaci.gateway import answers, views
from deltaci.gateway.asking import admin, body_as, house_of, repo_named
from deltaci.gateway.auth import user
from deltaci.orchestrator.deliveries import SOMEBODY

bp = Blueprint("repos", __name__, url_prefix="/api/v1/repos")

# `\Z`, because `$` also matches before a line break at the end
NAME: Final = r"^[A-Za-z0-9_.][A-Za-z0-9_./-]{0,199}\Z"
ONE_LINE: Final = r"^[^\x00-\x1f\x7f]*\Z"
WATCHED_MAX: Final = 100

Name: TypeAlias = Annotated[str, Meta(pattern=NAME)]
CloneUrl: TypeAlias = Annotated[str, Meta(min_length=1, max_length=2_000, pattern=ONE_LINE)]
Secret: TypeAlias = Annotated[str, Meta(min_length=16, max_length=1_000, pattern=ONE_LINE)]
ReportTo: TypeAlias = Annotated[str, Meta(max_length=2_000, pattern=ONE_LINE)]
ApiToken: TypeAlias = Annotated[str, Meta(max_length=1_000, pattern=ONE_LINE)]
RunningMax: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000)]
Branch: TypeAlias = Annotated[str, Meta(min_length=1, max_length=200, pattern=ONE_LINE)]
RunTimeout: TypeAlias = Annotated[int, Meta(ge=1_000, le=30 * 24 * 3_600_000)]
InstallationId: TypeAlias = Annotated[int, Meta(ge=0, le=2**53 - 1)]
Watched: TypeAlias = Annotated[tuple[Branch, ...], Meta(max_length=WATCHED_MAX)]

# What stands before the host of an address may be a password.
_LOGIN: Final = re.compile(r"//[^/@]*@")
SECRETS: Final = frozenset({"secret", "previous_secret", "api_token"})


class NewRepo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `POST /api/v1/repos`."""

    name: Name
    forge: Forge
    clone_url: CloneUrl
    secret: Secret
    report_to: ReportTo = ""
    api_token: ApiToken = ""
    is_superseding: bool = True
    running_max: RunningMax = 0
    default_branch: Branch = "main"
    run_timeout_ms: RunTimeout = 6 * 3_600_000
    installation_id: InstallationId = 0
    is_one_run_a_commit: bool = False
    watched: Watched = ()
    approval: Approval = "none"


class RepoChanges(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of `PATCH /api/v1/repos/{name}`: what is there is changed.

    A new `secret` leaves the old one valid beside it until `drop_previous_secret`; both at once replace it.
    `is_removed` false takes back a removal.
    """

    name: Name | UnsetType = UNSET
    clone_url: CloneUrl | UnsetType = UNSET
    secret: Secret | UnsetType = UNSET
    drop_previous_secret: bool = False
    report_to: ReportTo | UnsetType = UNSET
    api_token: ApiToken | UnsetType = UNSET
    is_superseding: bool | UnsetType = UNSET
    running_max: RunningMax | UnsetType = UNSET
    default_branch: Branch | UnsetType = UNSET
    run_timeout_ms: RunTimeout | UnsetType = UNSET
    installation_id: InstallationId | UnsetType = UNSET
    is_one_run_a_commit: bool | UnsetType = UNSET
    watched: Watched | UnsetType = UNSET
    approval: Approval | UnsetType = UNSET
    is_removed: bool | UnsetType = UNSET


@bp.get("")
async def list_repos() -> Response:
    """Every repository, without secrets."""
    await admin()
    return answers.ok({"repos": [views.repo_view(repo) for repo in house_of().orchestrator.repos.all()]})


@bp.post("")
async def add_repo() -> Response:
    """Register a repository; 409 when the name is taken."""
    token = await admin()
    new = await body_as(NewRepo)
    orchestrator = house_of().orchestrator
    now_ms = orchestrator.ports.clock.now_ms()
    repo = Repo(
        id=new_id("repo", now_ms=now_ms, random=orchestrator.ports.entropy.token_bytes(RANDOM_BYTES)),
        created_at_ms=now_ms,
        **{name: getattr(new, name) for name in new.__struct_fields__},
    )
    taken = next((known for known in orchestrator.repos.all() if known.name.lower() == repo.name.lower()), None)
    if taken is not None:
        text = f"a repository named {taken.name} is registered already"
        if taken.removed_because:
            text += f", and was removed ({taken.removed_because}): `deltaci repo set {taken.name} --bring-back`"
        return answers.problem(409, "duplicate", text, {"name": repo.name})
    await orchestrator.add_repo(repo, user(token))
    return answers.ok({"repo": views.repo_view(repo)}, 201)


@bp.get("/<path:repo>")
async def show_repo(repo: str) -> Response:
    """One repository, without secrets."""
    await admin()
    return answers.ok({"repo": views.repo_view(repo_named(repo))})


@bp.patch("/<path:repo>")
async def change_repo(repo: str) -> Response:
    """`{"repo"}` with what the body says changed; 409 when the new name is taken."""
    token = await admin()
    known, asked = repo_named(repo), await body_as(RepoChanges)
    changes = changes_of(known, asked)
    if not changes:
        raise MalformedRequest(f"nothing is to change in {known.name}: name at least one setting")
    details = {name: "changed" if name in SECRETS else _shown(value) for name, value in changes.items()}
    after = await house_of().orchestrator.change_repo(known.id, changes, {"name": known.name, **details}, user(token))
    return answers.ok({"repo": views.repo_view(after)})


@bp.delete("/<path:repo>")
async def remove_repo(repo: str) -> Response:
    """Build it no more: what runs is canceled, nothing new begins, what was stays. Without effect the second time."""
    token = await admin()
    after = await house_of().orchestrator.remove_repo(repo_named(repo), SOMEBODY, user(token))
    return answers.ok({"repo": views.repo_view(after)})


def changes_of(repo: Repo, asked: RepoChanges) -> dict[str, Any]:
    """The fields of `Repo` that a request changes, with their new values. Pure."""
    values = {name: getattr(asked, name) for name in asked.__struct_fields__ if name in Repo.__struct_fields__}
    changes = {name: value for name, value in values.items() if value is not UNSET}
    if "secret" in changes and not asked.drop_previous_secret:
        if changes["secret"] != repo.secret:
            changes["previous_secret"] = repo.secret
    elif asked.drop_previous_secret:
        changes["previous_secret"] = ""
    if asked.is_removed is True:
        raise MalformedRequest(f"DELETE removes {repo.name}; is_removed can only be false")
    if asked.is_removed is False:
        changes["removed_because"] = ""
    return changes


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else _LOGIN.sub("//", str(value))
