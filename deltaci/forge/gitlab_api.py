"""GitLab, asked over its REST API v4 with a project, group or personal access token of the scope `api`.

Rule 1: a state that GitLab's own state machine refuses because it is there already, is there already.
Rule 2: a comparison that GitLab cuts off is found out by both trees, or is unknown.
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
from deltaci.forge.access import TokenAccess, leads_here, literal_beginning, named
from deltaci.forge.answers import AnswerTooLong, read
from deltaci.forge.api import Changed, Credential, Finding, RemoteEntry, RemoteTree, Status, StatusState
from deltaci.forge.client import Ask, ForgeClient, all_of, found_among, path_of
from deltaci.forge.trees import differing
from deltaci.forge.webhook import AUTHOR_CHARACTERS_MAX, TITLE_CHARACTERS_MAX, one_line

GITLAB_URL: Final = "https://gitlab.com"
API_PATH: Final = "/api/v4"
CLONE_USER: Final = "oauth2"
HOOK_PATH: Final = "/api/v1/webhooks/gitlab"
DESCRIPTION_CHARACTERS_MAX: Final = 255
NOTE_CHARACTERS_MAX: Final = 1_000_000
COMPARED_BYTES_MAX: Final = 16 * 1024 * 1024
# A hundred entries to a page
TREE_PAGES_MAX: Final = 300

STATES: Final[Mapping[StatusState, str]] = {
    "queued": "pending",
    "running": "running",
    "success": "success",
    "skipped": "skipped",
    "failure": "failed",
    "error": "failed",
    "canceled": "canceled",
}
# From which access level on: Reporter, Developer, Maintainer
RIGHTS: Final[tuple[tuple[int, Right], ...]] = ((40, "admin"), (30, "write"), (20, "read"))


class _Shape(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _User(_Shape, frozen=True, kw_only=True):
    username: str


class _Refs(_Shape, frozen=True, kw_only=True):
    base_sha: str | None = None
    start_sha: str | None = None
    head_sha: str | None = None


class _MergeRequest(_Shape, frozen=True, kw_only=True):
    iid: int
    state: str
    source_branch: str
    target_branch: str
    source_project_id: int | None
    target_project_id: int
    sha: str | None
    updated_at: datetime
    title: str = ""
    draft: bool = False
    labels: list[str] = []
    author: _User | None = None
    diff_refs: _Refs | None = None


class _Listed(_Shape, frozen=True, kw_only=True):
    iid: int


class _Commit(_Shape, frozen=True, kw_only=True):
    id: str


class _Branch(_Shape, frozen=True, kw_only=True):
    name: str
    commit: _Commit


class _Member(_Shape, frozen=True, kw_only=True):
    username: str
    access_level: int
    state: str = "active"


class _Diff(_Shape, frozen=True, kw_only=True):
    old_path: str
    new_path: str


class _Compared(_Shape, frozen=True, kw_only=True):
    diffs: list[_Diff]
    compare_timeout: bool = False


class _Entry(_Shape, frozen=True, kw_only=True):
    path: str
    mode: str
    type: str
    id: str


class _Note(_Shape, frozen=True, kw_only=True):
    id: int
    body: str = ""
    author: _User | None = None


class _Access(_Shape, frozen=True, kw_only=True):
    access_level: int = 0


class _Permissions(_Shape, frozen=True, kw_only=True):
    project_access: _Access | None = None
    group_access: _Access | None = None


class _Project(_Shape, frozen=True, kw_only=True):
    path_with_namespace: str
    permissions: _Permissions = _Permissions()


class _Hook(_Shape, frozen=True, kw_only=True):
    url: str
    push_events: bool = False
    tag_push_events: bool = False
    merge_requests_events: bool = False
    note_events: bool = False
    alert_status: str = "executable"


class GitLabApi:
    """See `ForgeApi`."""

    def __init__(self, client: ForgeClient, *, web_url: str = GITLAB_URL, hook_url: str = "") -> None:
        """`web_url`: where people find GitLab; `hook_url`: where it should send its webhooks."""
        api_url = f"{web_url.rstrip('/')}{API_PATH}" if web_url else ""
        self._access = TokenAccess(client, api_url=api_url, scheme="Bearer", setting="gitlab.web_url")
        self._hook_url = hook_url
        self._logins: dict[str, str] = {}

    # ---- requests and branches -----------------------------------------------------------------------------------

    async def pull_request(self, repo: Repo, number: int) -> PullRequest | None:
        """See `ForgeApi`."""
        asked = f"look at merge request {number} of {named(repo)}"
        ask = self._ask(repo, asked, "merge_requests", number, accepts={404})
        answer = await self._access.send(repo, ask)
        if answer.status == 404:
            return None
        return _pull_request(repo, read(answer, _MergeRequest, asked=asked))

    async def open_pull_requests(self, repo: Repo) -> tuple[PullRequest, ...]:
        """See `ForgeApi`. One by one: only that tells the commit each of them is for."""
        asked = f"list the open merge requests of {named(repo)}"
        query = {"state": "opened", "order_by": "created_at", "sort": "asc", "per_page": "100"}
        ask = self._ask(repo, asked, "merge_requests", query=query)
        numbers = [one.iid async for page in self._access.pages(repo, ask, list[_Listed]) for one in page]
        found = await all_of([partial(self.pull_request, repo, number) for number in sorted(set(numbers))])
        return tuple(one for one in found if one is not None and one.is_open)

    async def branch_heads(self, repo: Repo, patterns: Sequence[str]) -> Mapping[str, str]:
        """See `ForgeApi`."""
        asked, heads = f"list the branches of {named(repo)}", {}
        for prefix in sorted({literal_beginning(pattern) for pattern in patterns}):
            query = {"per_page": "100"} | ({"search": f"^{prefix}"} if prefix else {})
            ask = self._ask(repo, asked, "repository", "branches", query=query)
            async for page in self._access.pages(repo, ask, list[_Branch]):
                heads.update({one.name: one.commit.id for one in page})
        return {
            f"refs/heads/{name}": sha
            for name, sha in sorted(heads.items())
            if any(fnmatchcase(name, pattern) for pattern in patterns)
        }

    async def right_of(self, repo: Repo, login: str) -> Right:
        """See `ForgeApi`. Members of the project and of the groups above it; others have none, also in public ones."""
        asked = f"look at what {one_line(login, 100)} may do in {named(repo)}"
        ask = self._ask(repo, asked, "members", "all", query={"query": login, "per_page": "100"})
        right: Right = "none"
        async for page in self._access.pages(repo, ask, list[_Member]):
            for one in page:
                if one.username.casefold() == login.casefold() and one.state == "active":
                    right = next((given for level, given in RIGHTS if one.access_level >= level), "none")
        return right

    # ---- contents ------------------------------------------------------------------------------------------------

    async def changed_paths(self, repo: Repo, base_sha: str, head_sha: str) -> Changed:
        """See `ForgeApi`."""
        asked = f"compare {base_sha} with {head_sha} of {named(repo)}"
        query = {"from": base_sha, "to": head_sha, "straight": "true"}
        ask = self._ask(repo, asked, "repository", "compare", query=query, accepts={404}, bytes_max=COMPARED_BYTES_MAX)
        try:
            answer = await self._access.send(repo, ask)
            if answer.status == 404:
                return Changed(paths=None, unknown_because=f"GitLab does not know {base_sha} or {head_sha}")
            compared = read(answer, _Compared, asked=asked)
            if not compared.compare_timeout:  # which also says that there were more files than it shows
                names = {name for one in compared.diffs for name in (one.old_path, one.new_path)}
                return Changed(paths=tuple(sorted(names)))
        except AnswerTooLong:
            pass
        old, new = await all_of([partial(self.tree, repo, sha) for sha in (base_sha, head_sha)])
        return differing(old, new)

    async def merge_base(self, repo: Repo, base_sha: str, head_sha: str) -> str | None:
        """The newest commit that both have in their history; None if GitLab does not say."""
        asked = f"find where {base_sha} and {head_sha} of {named(repo)} parted"
        path = f"{self._project(repo)}{path_of('repository', 'merge_base')}"
        ask = Ask(path=path, asked=asked, query={"refs[]": [base_sha, head_sha]}, accepts=frozenset({400, 404}))
        answer = await self._access.send(repo, ask)
        return read(answer, _Commit, asked=asked).id if answer.status == 200 else None

    async def tree(self, repo: Repo, commit_sha: str) -> RemoteTree:
        """See `ForgeApi`. GitLab does not tell sizes."""
        asked = f"list the files of {named(repo)}@{commit_sha}"
        query = {"ref": commit_sha, "recursive": "true", "per_page": "100", "pagination": "keyset"}
        ask = self._ask(repo, asked, "repository", "tree", query=query)
        entries = []
        try:
            async for page in self._access.pages(repo, ask, list[_Entry], pages_max=TREE_PAGES_MAX):
                entries += [RemoteEntry(path=one.path, mode=one.mode, sha=one.id) for one in page if one.type != "tree"]
        except AnswerTooLong:
            return RemoteTree(entries=None, unknown_because=f"the tree of {commit_sha} is larger than we would read")
        except ForgeRejected as error:
            if error.details.get("status") != "404":
                raise
            return RemoteTree(entries=None, unknown_because=f"GitLab knows no commit {commit_sha}")
        return RemoteTree(entries=tuple(entries))

    async def read_files(
        self, repo: Repo, commit_sha: str, paths: Sequence[str], *, bytes_max: int
    ) -> dict[str, bytes]:
        """See `ForgeApi`."""
        return await found_among(paths, lambda path: self._read_file(repo, commit_sha, path, bytes_max))

    async def _read_file(self, repo: Repo, commit_sha: str, path: str, bytes_max: int) -> bytes | None:
        asked = f"read {one_line(path, 200)} of {named(repo)}@{commit_sha}"
        query = {"ref": commit_sha}
        ask = self._ask(
            repo, asked, "repository", "files", path, "raw", query=query, accepts={404}, bytes_max=bytes_max
        )
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
            "name": status.context,
            "description": one_line(status.description, DESCRIPTION_CHARACTERS_MAX),
        }
        for prefix in ("refs/heads/", "refs/tags/", "refs/merge-requests/"):
            if status.ref.startswith(prefix):
                body["ref"] = status.ref if prefix == "refs/merge-requests/" else status.ref.removeprefix(prefix)
        if status.target_url:
            body["target_url"] = status.target_url
        ask = msgspec.structs.replace(
            self._ask(repo, asked, "statuses", commit_sha, accepts={400}),
            method="POST",
            body=msgspec.json.encode(body),
            is_repeatable=True,
        )
        answer = await self._access.send(repo, ask)
        if answer.status == 400 and b"Cannot transition status" not in answer.body:
            said = one_line(answer.body[:500].decode("utf-8", "replace").replace(repo.api_token, "***"), 200)
            raise ForgeRejected(f"cannot {asked}: answered 400 {said!r}", status="400")

    async def put_comment(self, repo: Repo, number: int, body: str, *, marker: str, remote_id: str | None) -> str:
        """See `ForgeApi`. Only a note of our own is rewritten, whoever copies the marker."""
        asked = f"comment on merge request {number} of {named(repo)}"
        text = msgspec.json.encode({"body": body[:NOTE_CHARACTERS_MAX]})
        known = remote_id
        for _ in range(2):
            note_id = known or await self._own_note(repo, number, marker, asked)
            if note_id is None:
                break
            ask = msgspec.structs.replace(
                self._ask(repo, asked, "merge_requests", number, "notes", note_id, accepts={404}),
                method="PUT",
                body=text,
                is_repeatable=True,
            )
            if (await self._access.send(repo, ask)).status != 404:
                return note_id
            known = None
        ask = msgspec.structs.replace(
            self._ask(repo, asked, "merge_requests", number, "notes"), method="POST", body=text
        )
        return str(read(await self._access.send(repo, ask), _Note, asked=asked).id)

    async def _own_note(self, repo: Repo, number: int, marker: str, asked: str) -> str | None:
        me = await self._login(repo)
        query = {"sort": "asc", "order_by": "created_at", "per_page": "100"}
        ask = self._ask(repo, asked, "merge_requests", number, "notes", query=query)
        async with aclosing(self._access.pages(repo, ask, list[_Note])) as pages:
            async for page in pages:
                for one in page:
                    if one.author is not None and one.author.username == me and marker in one.body:
                        return str(one.id)
        return None

    async def _login(self, repo: Repo) -> str:
        account = self._access.account(repo)
        if account not in self._logins:
            asked = f"look at who writes to {named(repo)}"
            answer = await self._access.send(repo, Ask(path="/user", asked=asked))
            self._logins[account] = read(answer, _User, asked=asked).username
        return self._logins[account]

    # ---- credentials and doctor ----------------------------------------------------------------------------------

    async def credential(self, repo: Repo) -> Credential | None:
        """See `ForgeApi`. The token itself: GitLab makes none that lasts shorter."""
        return self._access.credential(repo, username=CLONE_USER)

    async def examine(self, repo: Repo) -> tuple[Finding, ...]:
        """See `ForgeApi`."""
        asked = f"look at {named(repo)}"

        async def project() -> _Project:
            return read(await self._access.send(repo, self._ask(repo, asked)), _Project, asked=asked)

        advice = "give the repository a project access token with the scope api and the role Developer or more"
        seen, finding = await findings.look(project, what="project", advice=advice)
        if seen is None:
            return (finding,)
        accesses = (seen.permissions.project_access, seen.permissions.group_access)
        level = max(one.access_level if one is not None else 0 for one in accesses)
        missing = [] if level >= 30 else ["the role Developer, which commit statuses take"]
        found = (finding, findings.having("rights of the token", missing, advice=advice))

        async def hooks() -> list[_Hook]:
            ask = self._ask(repo, asked, "hooks", query={"per_page": "100"})
            return [hook async for page in self._access.pages(repo, ask, list[_Hook]) for hook in page]

        advice = "give the token the role Maintainer, or look at the project's webhooks yourself"
        listed, finding = await findings.look(hooks, what="webhook", advice=advice)
        if listed is None:
            return (*found, finding)
        ours = next((hook for hook in listed if leads_here(hook.url, self._hook_url, HOOK_PATH)), None)
        wrong = _wrong(ours) if ours is not None else []
        return (*found, findings.webhook(ours is not None, wrong=wrong, hook_url=self._hook_url))

    # ---- asking --------------------------------------------------------------------------------------------------

    def _project(self, repo: Repo) -> str:
        return path_of("projects", repo.name)

    def _ask(
        self,
        repo: Repo,
        asked: str,
        *segments: str | int,
        query: Mapping[str, str] | None = None,
        accepts: set[int] | None = None,
        bytes_max: int | None = None,
    ) -> Ask:
        path = f"{self._project(repo)}{path_of(*segments)}"
        ask = Ask(path=path, asked=asked, query=query or {}, accepts=frozenset(accepts or ()))
        return ask if bytes_max is None else msgspec.structs.replace(ask, bytes_max=bytes_max)


def _pull_request(repo: Repo, request: _MergeRequest) -> PullRequest:
    refs = request.diff_refs or _Refs()
    return PullRequest(
        repo_id=repo.id,
        number=request.iid,
        head_sha=request.sha or refs.head_sha or "",
        head_ref=f"refs/heads/{request.source_branch}",
        base_ref=f"refs/heads/{request.target_branch}",
        base_sha=refs.start_sha or refs.base_sha or "",
        is_open=request.state == "opened",
        is_fork=request.source_project_id != request.target_project_id,
        is_draft=request.draft,
        author=one_line(request.author.username, AUTHOR_CHARACTERS_MAX) if request.author is not None else "",
        title=one_line(request.title, TITLE_CHARACTERS_MAX),
        labels=tuple(sorted(one_line(label, 100) for label in request.labels)),
        updated_at_ms=int(request.updated_at.timestamp() * 1000),
    )


def _wrong(hook: _Hook) -> list[str]:
    needed = {
        "Push events": hook.push_events,
        "Tag push events": hook.tag_push_events,
        "Comments": hook.note_events,
        "Merge request events": hook.merge_requests_events,
    }
    missing = [name for name, is_on in needed.items() if not is_on]
    wrong = [f"it lacks {', '.join(missing)}"] if missing else []
    if hook.alert_status != "executable":
        wrong.append("GitLab has switched it off after failures")
    return wrong
