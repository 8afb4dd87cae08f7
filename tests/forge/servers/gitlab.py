"""The GitLab of the tests, written to its documentation of the REST API v4: statuses, merge requests, notes, files.

async with gitlab_server() as gitlab:
    shop = gitlab.add_repo("acme/shop")
    gitlab.add_token("the-token")
"""

import hashlib
import itertools
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from tests.forge.servers.github_answers import moment
from tests.forge.servers.hosted import Comment, HostedRepo, Pull, Shown, blob_sha, trees_of
from tests.forge.servers.wire import Answer, Asked, Route, Server, paged, route, serving

ACCESS_LEVELS = {"admin": 40, "write": 30, "read": 20, "guest": 10}
STATES = frozenset({"pending", "running", "success", "failed", "canceled", "skipped"})
REFUSED_MOVES = {("pending", "pending"), ("running", "running"), ("running", "pending")}
DIFFS_MAX = 1_000
NOTE_CHARACTERS_MAX = 1_000_000
DESCRIPTION_CHARACTERS_MAX = 255


class GitLabServer(Server):
    """`diffs_max` may be made small, to see a comparison that is cut off."""

    LONG_PARAMETERS = frozenset()

    def __init__(self, now_ms: Callable[[], int]) -> None:
        super().__init__(now_ms)
        self.repos: dict[str, HostedRepo] = {}
        self.tokens: dict[str, str] = {}
        self.ids = itertools.count(1_001)
        self.diffs_max = DIFFS_MAX
        self._login = ""

    def add_repo(self, name: str, **fields: Any) -> HostedRepo:
        """A project by its full path."""
        made = self.repos[name.casefold()] = HostedRepo(name=name, id=next(self.ids), **fields)
        return made

    def add_token(self, token: str, *, login: str = "delta-bot") -> None:
        """An access token with the scope `api`."""
        self.tokens[token] = login

    def routed(self, route: Route, asked: Asked) -> Answer:
        """Authenticate and find the project."""
        secret = asked.headers.get("private-token") or asked.headers.get("authorization", "").removeprefix("Bearer ")
        if secret not in self.tokens:
            return Answer(401, {"message": "401 Unauthorized"})
        self._login = self.tokens[secret]
        name = asked.params.get("id", "")
        self._repo = self.repos.get(name.casefold())
        if name and (self._repo is None or self._repo.is_gone):
            return Answer(404, {"message": "404 Project Not Found"})
        return self._tagged(route.handler(self, asked), asked)

    def _tagged(self, made: Answer, asked: Asked) -> Answer:
        if asked.method == "GET" and made.status == 200:
            tag = f'W/"{hashlib.sha256(made.encoded()).hexdigest()[:32]}"'
            made.headers["etag"] = tag
            if asked.headers.get("if-none-match") == tag:
                return Answer(304, None, {"etag": tag})
        return made

    def _here(self) -> HostedRepo:
        assert self._repo is not None, "the route has a project"
        return self._repo

    # ---- statuses ------------------------------------------------------------------------------------------------

    @route("POST", "/api/v4/projects/{id}/statuses/{sha}")
    def set_status(self, asked: Asked) -> Answer:
        repo, sha, wanted = self._here(), asked.params["sha"], asked.json()
        if wanted.get("state") not in STATES or len(wanted.get("description", "")) > DESCRIPTION_CHARACTERS_MAX:
            self.violations.append(f"{asked.method} {asked.path}: {wanted}")
            return Answer(400, {"error": "state does not have a valid value"})
        if sha not in repo.commits:
            return Answer(404, {"message": "404 Commit Not Found"})
        name, state = wanted.get("name", "default"), wanted["state"]
        old = repo.statuses_of(sha).get(name)
        # As its state machine has it: what runs cannot run or wait, and what waits cannot wait once more.
        if old is not None and (old["state"], state) in REFUSED_MOVES:
            event = {"pending": "enqueue", "running": "run"}[state]
            text = (
                f"Cannot transition status via :{event} from :{old['state']} (Reason(s): Status cannot transition via"
            )
            return Answer(400, {"message": f'{text} "{event}")'})
        made = {"id": next(self.ids), "sha": sha, "context": name, **wanted}
        repo.statuses.append(made)
        repo.history.append(Shown(self.now_ms(), "status", sha, name, state, made["id"]))
        return Answer(201, {"id": made["id"], "sha": sha, "name": name, "status": state, "ref": wanted.get("ref")})

    # ---- merge requests and notes --------------------------------------------------------------------------------

    @route("GET", "/api/v4/projects/{id}/merge_requests")
    def list_merge_requests(self, asked: Asked) -> Answer:
        repo, state = self._here(), asked.query.get("state", "all")
        some = [one for one in repo.pulls.values() if state == "all" or one.is_open == (state == "opened")]
        shown, headers = paged([self._merge_request(repo, one) for one in some], asked, self.url, per_page=20)
        return Answer(200, shown, headers)

    @route("GET", "/api/v4/projects/{id}/merge_requests/{iid}")
    def get_merge_request(self, asked: Asked) -> Answer:
        repo = self._here()
        found = repo.pulls.get(int(asked.params["iid"]))
        return Answer(404, {"message": "404 Not found"}) if not found else Answer(200, self._merge_request(repo, found))

    @route("GET", "/api/v4/projects/{id}/merge_requests/{iid}/notes")
    def list_notes(self, asked: Asked) -> Answer:
        notes = [self._note(one) for one in self._here().comments_on(int(asked.params["iid"]))]
        newest_first = asked.query.get("sort", "desc") == "desc"
        shown, headers = paged(notes[::-1] if newest_first else notes, asked, self.url, per_page=20)
        return Answer(200, shown, headers)

    @route("POST", "/api/v4/projects/{id}/merge_requests/{iid}/notes")
    def create_note(self, asked: Asked) -> Answer:
        repo, iid = self._here(), int(asked.params["iid"])
        if iid not in repo.pulls:
            return Answer(404, {"message": "404 Not found"})
        return self._write(asked, Comment(next(self.ids), iid, self._login, ""), 201)

    @route("PUT", "/api/v4/projects/{id}/merge_requests/{iid}/notes/{note_id}")
    def update_note(self, asked: Asked) -> Answer:
        found = self._here().comments.get(int(asked.params["note_id"]))
        if found is None or found.number != int(asked.params["iid"]):
            return Answer(404, {"message": "404 Note Not Found"})
        return self._write(asked, found, 200)

    def _write(self, asked: Asked, comment: Comment, status: int) -> Answer:
        body = asked.json()["body"]
        if not 0 < len(body) <= NOTE_CHARACTERS_MAX:
            return Answer(400, {"message": "400 (Bad request) body is too long"})
        if comment.author != self._login:
            return Answer(403, {"message": "403 Forbidden"})
        comment.body = body
        self._here().comments[comment.id] = comment
        return Answer(status, self._note(comment))

    def _note(self, comment: Comment) -> dict[str, Any]:
        author = {"id": 1, "username": comment.author}
        return {"id": comment.id, "body": comment.body, "author": author, "system": False}

    def _merge_request(self, repo: HostedRepo, pull: Pull) -> dict[str, Any]:
        base = repo.branches.get(pull.base_branch, "0" * 40)
        is_fork = pull.head_repo != repo.name
        return {
            "iid": pull.number,
            "title": pull.title,
            "state": "opened" if pull.is_open else "closed",
            "draft": pull.is_draft,
            "labels": list(pull.labels),
            "author": {"username": pull.author},
            "source_branch": pull.head_branch,
            "target_branch": pull.base_branch,
            "source_project_id": repo.id + 1 if is_fork else repo.id,
            "target_project_id": repo.id,
            "sha": pull.head_sha,
            "updated_at": moment(pull.updated_at_ms).replace("Z", ".000Z"),
            "diff_refs": {"base_sha": base, "start_sha": base, "head_sha": pull.head_sha},
        }

    # ---- people, project, hooks ----------------------------------------------------------------------------------

    @route("GET", "/api/v4/user")
    def get_user(self, asked: Asked) -> Answer:
        return Answer(200, {"id": 1, "username": self._login})

    @route("GET", "/api/v4/projects/{id}/members/all")
    def list_members(self, asked: Asked) -> Answer:
        query = asked.query.get("query", "").casefold()
        some = [
            {"id": index, "username": login, "state": "active", "access_level": ACCESS_LEVELS[role]}
            for index, (login, role) in enumerate(self._here().people.items())
            if query in login.casefold()
        ]
        shown, headers = paged(some, asked, self.url, per_page=20)
        return Answer(200, shown, headers)

    @route("GET", "/api/v4/projects/{id}")
    def get_project(self, asked: Asked) -> Answer:
        repo = self._here()
        named = {"id": repo.id, "path_with_namespace": repo.name, "default_branch": repo.default_branch}
        access = {"project_access": {"access_level": 40}, "group_access": None}
        return Answer(200, {**named, "permissions": access, "visibility": "private" if repo.is_private else "public"})

    @route("GET", "/api/v4/projects/{id}/hooks")
    def list_hooks(self, asked: Asked) -> Answer:
        shown, headers = paged(self._here().hooks, asked, self.url, per_page=20)
        return Answer(200, shown, headers)

    # ---- contents ------------------------------------------------------------------------------------------------

    @route("GET", "/api/v4/projects/{id}/repository/branches")
    def list_branches(self, asked: Asked) -> Answer:
        search = asked.query.get("search", "")
        prefix = search.removeprefix("^")
        assert search.startswith("^") or not search, "only searches for the beginning of a name are played"
        branches = [(name, sha) for name, sha in sorted(self._here().branches.items()) if name.startswith(prefix)]
        some = [{"name": name, "commit": {"id": sha}} for name, sha in branches]
        shown, headers = paged(some, asked, self.url, per_page=20)
        return Answer(200, shown, headers)

    @route("GET", "/api/v4/projects/{id}/repository/merge_base")
    def merge_base(self, asked: Asked) -> Answer:
        repo = self._here()
        one, other = (value for name, value in asked.query_pairs() if name == "refs[]")
        found = repo.merge_base(one, other) if one in repo.commits and other in repo.commits else None
        return Answer(404, {"message": "404 Merge Base Not Found"}) if found is None else Answer(200, {"id": found})

    @route("GET", "/api/v4/projects/{id}/repository/compare")
    def compare(self, asked: Asked) -> Answer:
        repo = self._here()
        old, new = asked.query["from"], asked.query["to"]
        if old not in repo.commits or new not in repo.commits:
            return Answer(404, {"message": "404 Ref Not Found"})
        if asked.query.get("straight", "false") != "true":
            old = repo.merge_base(old, new) or old
        diffs = [
            {
                "old_path": previous or path,
                "new_path": path,
                "new_file": status == "added",
                "deleted_file": status == "removed",
                "renamed_file": status == "renamed",
                "diff": "",
            }
            for status, path, previous in repo.differences(old, new)
        ]
        body = {"commit": {"id": new}, "diffs": diffs[: self.diffs_max], "compare_timeout": len(diffs) > self.diffs_max}
        return Answer(200, body)

    @route("GET", "/api/v4/projects/{id}/repository/tree")
    def tree(self, asked: Asked) -> Answer:
        commit = self._here().resolve(asked.query.get("ref", "main"))
        if commit is None:
            return Answer(404, {"message": "404 Tree Not Found"})
        assert asked.query.get("recursive") == "true", "only whole trees are played"
        entries = [
            {"path": path, "mode": "040000", "type": "tree", "id": blob_sha(path.encode())} for path in trees_of(commit)
        ]
        for path, data in commit.files.items():
            mode = commit.modes.get(path, "100644")
            kind = "commit" if mode == "160000" else "blob"
            entries.append({"path": path, "mode": mode, "type": kind, "id": blob_sha(data)})
        entries.sort(key=lambda entry: entry["path"])
        if asked.query.get("pagination") != "keyset":
            shown, headers = paged(entries, asked, self.url, per_page=20)
            return Answer(200, shown, headers)
        return self._keyset(entries, asked)

    def _keyset(self, entries: list[dict[str, str]], asked: Asked) -> Answer:
        """Pages that are told apart by the last entry of the one before."""
        after, size = asked.query.get("page_token", ""), min(100, int(asked.query.get("per_page", 20)))
        start = next((index + 1 for index, one in enumerate(entries) if one["id"] == after), 0)
        page = entries[start : start + size]
        headers = {}
        if len(entries) > start + size:
            query = {**asked.query, "page_token": page[-1]["id"]}
            said = "&".join(f"{name}={value}" for name, value in query.items())
            headers["link"] = f'<{self.url}{asked.path}?{said}>; rel="next"'
        return Answer(200, page, headers)

    @route("GET", "/api/v4/projects/{id}/repository/files/{file_path}/raw")
    def raw_file(self, asked: Asked) -> Answer:
        commit = self._here().resolve(asked.query.get("ref", "HEAD"))
        data = commit.files.get(asked.params["file_path"]) if commit else None
        if data is None:
            return Answer(404, {"message": "404 File Not Found"})
        return Answer(200, data, {"content-type": "text/plain", "x-gitlab-size": str(len(data))})


@asynccontextmanager
async def gitlab_server(
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    tls: ssl.SSLContext | None = None,
    expects_violations: bool = False,
) -> AsyncIterator[GitLabServer]:
    """A GitLab at `url`, as empty as a new one; its API is under `/api/v4`."""
    async with serving(GitLabServer(now_ms), tls=tls, expects_violations=expects_violations) as server:
        yield server
