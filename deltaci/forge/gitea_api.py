"""Gitea and Forgejo, asked over their API v1 with an access token that may write to the repository.

Rule 1: what differs is found by both trees: a comparison of theirs lists commits, not the difference.
Rule 2: pages of a tree are numbered and not linked; a tree whose pages do not end is unknown.
"""

from collections.abc import Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import Final

import msgspec

from deltaci.domain.errors import ForgeRejected
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Right
from deltaci.forge import findings
from deltaci.forge.access import TokenAccess, leads_here, named, owner_and_name
from deltaci.forge.answers import Answer, AnswerTooLong, read
from deltaci.forge.api import Changed, Credential, Finding, RemoteEntry, RemoteTree, Status, StatusState
from deltaci.forge.client import Ask, ForgeClient, all_of, found_among, path_of
from deltaci.forge.trees import differing
from deltaci.forge.webhook import AUTHOR_CHARACTERS_MAX, TITLE_CHARACTERS_MAX, one_line

API_PATH: Final = "/api/v1"
# Only the token counts; a name must be there
CLONE_USER: Final = "token"
HOOK_PATH: Final = "/api/v1/webhooks/gitea"
DESCRIPTION_CHARACTERS_MAX: Final = 255
COMMENT_CHARACTERS_MAX: Final = 65_535
# Larger pages are not given
PAGE: Final = {"limit": "50"}
TREE_PAGE: Final = 1_000
TREE_PAGES_MAX: Final = 100
TREE_BYTES_MAX: Final = 16 * 1024 * 1024
HOOK_EVENTS: Final = ("push", "pull_request")

STATES: Final[Mapping[StatusState, str]] = {
    "queued": "pending",
    "running": "pending",
    "success": "success",
    "skipped": "success",
    "failure": "failure",
    "error": "error",
    "canceled": "error",
}
RIGHTS: Final[Mapping[str, Right]] = {"owner": "admin", "admin": "admin", "write": "write", "read": "read"}


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _User(_Shape, frozen=True, kw_only=True):
    login: str


class _Label(_Shape, frozen=True, kw_only=True):
    name: str = ""


class _Side(_Shape, frozen=True, kw_only=True):
    ref: str
    sha: str
    repo_id: int = 0


class _Pull(_Shape, frozen=True, kw_only=True):
    number: int
    state: str
    head: _Side
    base: _Side
    updated_at: datetime
    title: str = ""
    draft: bool = False
    user: _User | None = None
    labels: list[_Label] | None = None


class _Commit(_Shape, frozen=True, kw_only=True):
    id: str


class _Branch(_Shape, frozen=True, kw_only=True):
    name: str
    commit: _Commit


class _Permission(_Shape, frozen=True, kw_only=True):
    permission: str


class _Entry(_Shape, frozen=True, kw_only=True):
    path: str
    mode: str
    type: str
    sha: str
    size: int | None = None


class _Tree(_Shape, frozen=True, kw_only=True):
    tree: list[_Entry] | None
    truncated: bool = False


class _Comment(_Shape, frozen=True, kw_only=True):
    id: int
    body: str = ""
    user: _User | None = None


class _Repository(_Shape, frozen=True, kw_only=True):
    full_name: str
    permissions: dict[str, bool] = {}


class _HookConfig(_Shape, frozen=True, kw_only=True):
    url: str = ""
    content_type: str = ""


class _Hook(_Shape, frozen=True, kw_only=True):
    config: _HookConfig
    active: bool = True
    events: list[str] = []


class GiteaApi:
    """See `ForgeApi`."""

    def __init__(self, client: ForgeClient, *, web_url: str = "", hook_url: str = "") -> None:
        """`web_url`: where people find Gitea; `hook_url`: where it should send its webhooks."""
        api_url = f"{web_url.rstrip('/')}{API_PATH}" if web_url else ""
        self._access = TokenAccess(client, api_url=api_url, scheme="token", setting="gitea.web_url")
        self._hook_url = hook_url
        self._logins: dict[str, str] = {}

    # ---- requests and branches -----------------------------------------------------------------------------------

    async def pull_request(self, repo: Repo, number: int) -> PullRequest | None:
        """See `ForgeApi`."""
        asked = f"look at pull request {number} of {named(repo)}"
        answer = await self._access.send(repo, self._ask(repo, asked, "pulls", number, accepts={404}))
        return None if answer.status == 404 else _pull_request(repo, read(answer, _Pull, asked=asked))

    async def open_pull_requests(self, repo: Repo) -> tuple[PullRequest, ...]:
        """See `ForgeApi`."""
        asked = f"list the open pull requests of {named(repo)}"
        ask = self._ask(repo, asked, "pulls", query={"state": "open", "sort": "oldest", **PAGE})
        pages = self._access.pages(repo, ask, list[_Pull])
        found = {one.number: _pull_request(repo, one) async for page in pages for one in page}
        return tuple(found[number] for number in sorted(found))

    async def branch_heads(self, repo: Repo, patterns: Sequence[str]) -> Mapping[str, str]:
        """See `ForgeApi`."""
        ask = self._ask(repo, f"list the branches of {named(repo)}", "branches", query=PAGE)
        pages = self._access.pages(repo, ask, list[_Branch])
        heads = {one.name: one.commit.id async for page in pages for one in page}
        return {
            f"refs/heads/{name}": sha
            for name, sha in sorted(heads.items())
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }

    async def right_of(self, repo: Repo, login: str) -> Right:
        """See `ForgeApi`. The token's owner must be an administrator of the repository, or `login` itself."""
        asked = f"look at what {one_line(login, 100)} may do in {named(repo)}"
        ask = self._ask(repo, asked, "collaborators", login, "permission", accepts={404})
        answer = await self._access.send(repo, ask)
        if answer.status == 404:
            return "none"
        return RIGHTS.get(read(answer, _Permission, asked=asked).permission, "none")

    # ---- contents ------------------------------------------------------------------------------------------------

    async def changed_paths(self, repo: Repo, base_sha: str, head_sha: str) -> Changed:
        """See `ForgeApi`."""
        old, new = await all_of([partial(self.tree, repo, sha) for sha in (base_sha, head_sha)])
        return differing(old, new)

    async def merge_base(self, repo: Repo, base_sha: str, head_sha: str) -> str | None:  # noqa: ARG002
        """None: Gitea's comparison does not say where it starts. A clone tells."""
        return None

    async def tree(self, repo: Repo, commit_sha: str) -> RemoteTree:
        """See `ForgeApi`."""
        asked = f"list the files of {named(repo)}@{commit_sha}"
        entries: list[RemoteEntry] = []
        try:
            for number in range(1, TREE_PAGES_MAX + 1):
                query = {"recursive": "true", "page": str(number), "per_page": str(TREE_PAGE)}
                ask = self._ask(
                    repo, asked, "git", "trees", commit_sha, query=query, accepts={404}, bytes_max=TREE_BYTES_MAX
                )
                answer = await self._access.send(repo, ask)
                if answer.status == 404:
                    return RemoteTree(entries=None, unknown_because=f"Gitea knows no commit {commit_sha}")
                page = read(answer, _Tree, asked=asked)
                entries += [_entry(one) for one in page.tree or () if one.type != "tree"]
                if not page.truncated:
                    return RemoteTree(entries=tuple(entries))
        except AnswerTooLong:
            pass
        return RemoteTree(entries=None, unknown_because=f"the tree of {commit_sha} is larger than we would read")

    async def read_files(
        self, repo: Repo, commit_sha: str, paths: Sequence[str], *, bytes_max: int
    ) -> dict[str, bytes]:
        """See `ForgeApi`."""
        return await found_among(paths, lambda path: self._read_file(repo, commit_sha, path, bytes_max))

    async def _read_file(self, repo: Repo, commit_sha: str, path: str, bytes_max: int) -> bytes | None:
        asked = f"read {one_line(path, 200)} of {named(repo)}@{commit_sha}"
        query = {"ref": commit_sha}
        ask = self._ask(repo, asked, "raw", *path.split("/"), query=query, accepts={404}, bytes_max=bytes_max)
        try:
            answer = await self._access.send(repo, ask)
        except AnswerTooLong:
            return None
        return None if answer.status == 404 else answer.body

    # ---- what we tell --------------------------------------------------------------------------------------------

    async def set_status(self, repo: Repo, commit_sha: str, status: Status) -> None:
        """See `ForgeApi`."""
        asked = f"set the status {status.context} to {status.state} on {named(repo)}@{commit_sha}"
        body = {
            "state": STATES[status.state],
            "context": status.context,
            "description": one_line(status.description, DESCRIPTION_CHARACTERS_MAX),
        } | ({"target_url": status.target_url} if status.target_url else {})
        await self._write(repo, asked, "statuses", commit_sha, body=body, is_repeatable=True)

    async def put_comment(self, repo: Repo, number: int, body: str, *, marker: str, remote_id: str | None) -> str:
        """See `ForgeApi`. A token that may not say whose it is finds its comment by the marker alone."""
        asked = f"comment on pull request {number} of {named(repo)}"
        text = {"body": body[:COMMENT_CHARACTERS_MAX]}
        known = remote_id
        for _ in range(2):
            comment_id = known or await self._own_comment(repo, number, marker, asked)
            if comment_id is None:
                break
            address = ("issues", "comments", comment_id)
            answer = await self._write(
                repo, asked, *address, method="PATCH", body=text, accepts={404}, is_repeatable=True
            )
            if answer.status != 404:
                return comment_id
            known = None
        answer = await self._write(repo, asked, "issues", number, "comments", body=text)
        return str(read(answer, _Comment, asked=asked).id)

    async def _own_comment(self, repo: Repo, number: int, marker: str, asked: str) -> str | None:
        me = await self._login(repo)
        ask = self._ask(repo, asked, "issues", number, "comments")
        async with aclosing(self._access.pages(repo, ask, list[_Comment])) as pages:
            async for page in pages:
                for one in page:
                    is_ours = me is None or (one.user is not None and one.user.login.casefold() == me)
                    if is_ours and marker in one.body:
                        return str(one.id)
        return None

    async def _login(self, repo: Repo) -> str | None:
        account = self._access.account(repo)
        if account not in self._logins:
            asked = f"look at who writes to {named(repo)}"
            try:
                answer = await self._access.send(repo, Ask(path="/user", asked=asked))
            except ForgeRejected:  # the token lacks the scope for it
                return None
            self._logins[account] = read(answer, _User, asked=asked).login.casefold()
        return self._logins[account]

    # ---- credentials and doctor ----------------------------------------------------------------------------------

    async def credential(self, repo: Repo) -> Credential | None:
        """See `ForgeApi`. The token itself: Gitea makes none that lasts shorter."""
        return self._access.credential(repo, username=CLONE_USER)

    async def examine(self, repo: Repo) -> tuple[Finding, ...]:
        """See `ForgeApi`."""
        asked = f"look at {named(repo)}"

        async def repository() -> _Repository:
            return read(await self._access.send(repo, self._ask(repo, asked)), _Repository, asked=asked)

        advice = "give the repository a token with write:repository and write:issue, of somebody who may write to it"
        seen, finding = await findings.look(repository, what="repository", advice=advice)
        if seen is None:
            return (finding,)
        missing = [] if seen.permissions.get("push") else ["write access, which commit statuses take"]
        found = (finding, findings.having("rights of the token", missing, advice=advice))

        async def hooks() -> list[_Hook]:
            ask = self._ask(repo, asked, "hooks", query=PAGE)
            return [hook async for page in self._access.pages(repo, ask, list[_Hook]) for hook in page]

        advice = "take the token of an administrator of the repository, or look at its webhooks yourself"
        listed, finding = await findings.look(hooks, what="webhook", advice=advice)
        if listed is None:
            return (*found, finding)
        ours = next((hook for hook in listed if leads_here(hook.config.url, self._hook_url, HOOK_PATH)), None)
        wrong = _wrong(ours) if ours is not None else []
        return (*found, findings.webhook(ours is not None, wrong=wrong, hook_url=self._hook_url))

    # ---- asking --------------------------------------------------------------------------------------------------

    def _ask(
        self,
        repo: Repo,
        asked: str,
        *segments: str | int,
        query: Mapping[str, str] | None = None,
        accepts: set[int] | None = None,
        bytes_max: int | None = None,
    ) -> Ask:
        path = path_of("repos", *owner_and_name(repo, asked=asked), *segments)
        ask = Ask(path=path, asked=asked, query=query or {}, accepts=frozenset(accepts or ()))
        return ask if bytes_max is None else msgspec.structs.replace(ask, bytes_max=bytes_max)

    async def _write(
        self,
        repo: Repo,
        asked: str,
        *segments: str | int,
        body: object,
        method: str = "POST",
        accepts: set[int] | None = None,
        is_repeatable: bool = False,
    ) -> Answer:
        ask = msgspec.structs.replace(
            self._ask(repo, asked, *segments, accepts=accepts),
            method=method,
            body=msgspec.json.encode(body),
            is_repeatable=is_repeatable,
        )
        return await self._access.send(repo, ask)


def _entry(one: _Entry) -> RemoteEntry:
    return RemoteEntry(path=one.path, mode=one.mode, sha=one.sha, size=one.size)


def _pull_request(repo: Repo, pull: _Pull) -> PullRequest:
    return PullRequest(
        repo_id=repo.id,
        number=pull.number,
        head_sha=pull.head.sha,
        head_ref=f"refs/heads/{pull.head.ref}",
        base_ref=f"refs/heads/{pull.base.ref}",
        base_sha=pull.base.sha,
        is_open=pull.state == "open",
        is_fork=pull.head.repo_id != pull.base.repo_id,
        is_draft=pull.draft,
        author=one_line(pull.user.login, AUTHOR_CHARACTERS_MAX) if pull.user is not None else "",
        title=one_line(pull.title, TITLE_CHARACTERS_MAX),
        labels=tuple(sorted(one_line(label.name, 100) for label in pull.labels or () if label.name)),
        updated_at_ms=int(pull.updated_at.timestamp() * 1000),
    )


def _wrong(hook: _Hook) -> list[str]:
    missing = [event for event in HOOK_EVENTS if event not in hook.events]
    wrong = [f"it lacks the events {', '.join(missing)}"] if missing else []
    if hook.config.content_type != "json":
        wrong.append(f"its content type is {hook.config.content_type}, not json")
    return wrong if hook.active else [*wrong, "it is not active"]
