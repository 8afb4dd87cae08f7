"""The Gitea (or Forgejo) of the tests, written to its documentation of the API v1.

async with gitea_server() as gitea:
    shop = gitea.add_repo("acme/shop")
    gitea.add_token("the-token")
"""

import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.forge.servers.github_answers import moment
from tests.forge.servers.hosted import Comment, HostedRepo, Pull, Shown, blob_sha, trees_of
from tests.forge.servers.wire import Answer, Asked, Route, Server, paged, route, serving

STATES = frozenset({"pending", "success", "error", "failure", "warning"})
PAGE_MAX = 50


class GiteaServer(Server):
    """`tree_page` is the largest page of a tree (the setting DEFAULT_GIT_TREES_PER_PAGE)."""

    LONG_PARAMETERS = frozenset({"filepath", "basehead"})

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.repos: dict[str, HostedRepo] = {}
        self.tokens: dict[str, tuple[str, bool]] = {}
        self.ids = itertools.count(1_001)
        self.tree_page = 1_000
        self._login = ""

    def add_repo(self, name: str, **fields: Any) -> HostedRepo:
        """A repository as `owner/name`."""
        made = self.repos[name.casefold()] = HostedRepo(name=name, id=next(self.ids), **fields)
        return made

    def add_token(self, token: str, *, login: str = "delta-bot", can_read_user: bool = True) -> None:
        """A token that may write to repositories and, unless it lacks the scope, say whose it is."""
        self.tokens[token] = (login, can_read_user)

    def routed(self, route: Route, asked: Asked) -> Answer:
        """Authenticate and find the repository."""
        secret = asked.headers.get("authorization", "").removeprefix("token ")
        if secret not in self.tokens:
            return Answer(401, {"message": "token is required"})
        self._login, can_read_user = self.tokens[secret]
        if route.template == "/api/v1/user" and not can_read_user:
            return Answer(403, {"message": "token does not have at least one of required scope(s): [read:user]"})
        if "owner" in asked.params:
            self._repo = self.repos.get(f"{asked.params['owner']}/{asked.params['repo']}".casefold())
            if self._repo is None or self._repo.is_gone:
                return Answer(404, {"message": "The target couldn't be found."})
        return route.handler(self, asked)

    def _here(self) -> HostedRepo:
        assert self._repo is not None, "the route has a repository"
        return self._repo

    def _page(self, items: list[Any], asked: Asked) -> Answer:
        assert int(asked.query.get("limit", 1)) <= PAGE_MAX, "it gives no larger pages"
        shown, headers = paged(items, asked, self.url)
        return Answer(200, shown, {**headers, "x-total-count": str(len(items))})

    # ---- statuses and comments -----------------------------------------------------------------------------------

    @route("POST", "/api/v1/repos/{owner}/{repo}/statuses/{sha}")
    def set_status(self, asked: Asked) -> Answer:
        repo, sha, wanted = self._here(), asked.params["sha"], asked.json()
        if wanted.get("state") not in STATES or set(wanted) - {"state", "context", "description", "target_url"}:
            self.violations.append(f"{asked.method} {asked.path}: {wanted}")
            return Answer(422, {"message": "[State]: unknown"})
        if sha not in repo.commits:
            return Answer(404, {"message": "The target couldn't be found."})
        made = {"id": next(self.ids), "sha": sha, **wanted}
        repo.statuses.append(made)
        repo.history.append(Shown(self.now_ms(), "status", sha, wanted["context"], wanted["state"], made["id"]))
        return Answer(201, {"id": made["id"], "status": wanted["state"], "context": wanted["context"]})

    @route("GET", "/api/v1/repos/{owner}/{repo}/issues/{index}/comments")
    def list_comments(self, asked: Asked) -> Answer:
        return Answer(200, [self._comment(one) for one in self._here().comments_on(int(asked.params["index"]))])

    @route("POST", "/api/v1/repos/{owner}/{repo}/issues/{index}/comments")
    def create_comment(self, asked: Asked) -> Answer:
        repo, index = self._here(), int(asked.params["index"])
        if index not in repo.pulls:
            return Answer(404, {"message": "issue does not exist"})
        made = Comment(next(self.ids), index, self._login, asked.json()["body"])
        repo.comments[made.id] = made
        return Answer(201, self._comment(made))

    @route("PATCH", "/api/v1/repos/{owner}/{repo}/issues/comments/{id}")
    def update_comment(self, asked: Asked) -> Answer:
        found = self._here().comments.get(int(asked.params["id"]))
        if found is None:
            return Answer(404, {"message": "comment does not exist"})
        found.body = asked.json()["body"]
        return Answer(200, self._comment(found))

    def _comment(self, comment: Comment) -> dict[str, Any]:
        return {"id": comment.id, "body": comment.body, "user": {"login": comment.author}}

    # ---- pull requests, people, hooks ----------------------------------------------------------------------------

    @route("GET", "/api/v1/repos/{owner}/{repo}/pulls")
    def list_pulls(self, asked: Asked) -> Answer:
        repo, state = self._here(), asked.query.get("state", "open")
        some = [one for one in repo.pulls.values() if state == "all" or one.is_open == (state == "open")]
        return self._page([self._pull(repo, one) for one in some], asked)

    @route("GET", "/api/v1/repos/{owner}/{repo}/pulls/{index}")
    def get_pull(self, asked: Asked) -> Answer:
        repo = self._here()
        found = repo.pulls.get(int(asked.params["index"]))
        return Answer(404, {"message": "not found"}) if found is None else Answer(200, self._pull(repo, found))

    def _pull(self, repo: HostedRepo, pull: Pull) -> dict[str, Any]:
        is_fork = pull.head_repo != repo.name
        base = {"ref": pull.base_branch, "sha": repo.branches.get(pull.base_branch, "0" * 40), "repo_id": repo.id}
        return {
            "number": pull.number,
            "title": pull.title,
            "state": "open" if pull.is_open else "closed",
            "draft": pull.is_draft,
            "user": {"login": pull.author},
            "labels": [{"name": name} for name in pull.labels],
            "updated_at": moment(pull.updated_at_ms),
            "head": {"ref": pull.head_branch, "sha": pull.head_sha, "repo_id": repo.id + 1 if is_fork else repo.id},
            "base": base,
        }

    @route("GET", "/api/v1/user")
    def get_user(self, asked: Asked) -> Answer:
        return Answer(200, {"id": 1, "login": self._login})

    @route("GET", "/api/v1/repos/{owner}/{repo}/collaborators/{collaborator}/permission")
    def get_permission(self, asked: Asked) -> Answer:
        login = asked.params["collaborator"]
        if login not in self._here().people:
            return Answer(404, {"message": "user does not exist"})
        return Answer(200, {"permission": self._here().people[login], "role_name": "", "user": {"login": login}})

    @route("GET", "/api/v1/repos/{owner}/{repo}")
    def get_repo(self, asked: Asked) -> Answer:
        repo = self._here()
        rights = {"admin": True, "push": True, "pull": True}
        return Answer(200, {"id": repo.id, "full_name": repo.name, "private": repo.is_private, "permissions": rights})

    @route("GET", "/api/v1/repos/{owner}/{repo}/hooks")
    def list_hooks(self, asked: Asked) -> Answer:
        return self._page(self._here().hooks, asked)

    # ---- contents ------------------------------------------------------------------------------------------------

    @route("GET", "/api/v1/repos/{owner}/{repo}/branches")
    def list_branches(self, asked: Asked) -> Answer:
        branches = sorted(self._here().branches.items())
        return self._page([{"name": name, "commit": {"id": sha}} for name, sha in branches], asked)

    @route("GET", "/api/v1/repos/{owner}/{repo}/git/trees/{sha}")
    def tree(self, asked: Asked) -> Answer:
        commit = self._here().resolve(asked.params["sha"])
        if commit is None:
            return Answer(404, {"message": "sha not found"})
        entries: list[dict[str, Any]] = [
            {"path": path, "mode": "040000", "type": "tree", "sha": blob_sha(path.encode()), "size": 0}
            for path in trees_of(commit)
        ]
        for path, data in commit.files.items():
            mode = commit.modes.get(path, "100644")
            kind = "commit" if mode == "160000" else "blob"
            entries.append({"path": path, "mode": mode, "type": kind, "sha": blob_sha(data), "size": len(data)})
        entries.sort(key=lambda entry: str(entry["path"]))
        page, size = int(asked.query.get("page", 1)), self.tree_page
        shown = entries[(page - 1) * size : page * size]
        more = len(entries) > page * size
        said = {"sha": commit.sha, "tree": shown, "truncated": more, "page": page, "total_count": len(entries)}
        return Answer(200, said)

    @route("GET", "/api/v1/repos/{owner}/{repo}/raw/{filepath}")
    def raw(self, asked: Asked) -> Answer:
        commit = self._here().resolve(asked.query.get("ref", "main"))
        data = commit.files.get(asked.params["filepath"]) if commit else None
        if data is None:
            return Answer(404, {"message": "object does not exist"})
        return Answer(200, data, {"content-type": "application/octet-stream"})


@asynccontextmanager
async def gitea_server(
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    tls: ssl.SSLContext | None = None,
    expects_violations: bool = False,
) -> AsyncIterator[GiteaServer]:
    """A Gitea at `url`, as empty as a new one; its API is under `/api/v1`."""
    async with serving(GiteaServer(now_ms), tls=tls, expects_violations=expects_violations) as server:
        yield server
