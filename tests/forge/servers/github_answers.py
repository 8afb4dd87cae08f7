"""What the GitHub of the tests says, in GitHub's words; what its description requires besides is filled in later."""

from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, Literal

from tests.forge.servers.github_rules import Account, App
from tests.forge.servers.hosted import Comment, HostedRepo, Pull, Shown, blob_sha, trees_of
from tests.forge.servers.wire import Answer, Asked

COMPARE_FILES_MAX = 300
TREE_ENTRIES_MAX = 100_000
CONTENT_BYTES_MAX = 1024 * 1024


def moment(at_ms: int) -> str:
    """As GitHub writes a time."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class GitHubAnswers:
    """The bodies. `tree_entries_max` may be made small, to see a cut tree."""

    now_ms: Callable[[], int]
    ids: Iterator[int]
    app: App | None
    tree_entries_max = TREE_ENTRIES_MAX
    _asker: Account
    _asked_repo: HostedRepo | None

    def show(
        self, repo: HostedRepo, kind: Literal["check", "status"], made: dict[str, Any], sha: str, name: str, state: str
    ) -> None:
        """Note what people see from now on."""
        repo.history.append(Shown(self.now_ms(), kind, sha, name, state, made["id"]))

    def installation(self, number: int, app: App) -> dict[str, Any]:
        named = {"id": number, "app_id": app.id, "app_slug": app.slug, "repository_selection": "selected"}
        return {**named, "permissions": app.permissions, "events": list(app.events), "account": self.user("acme")}

    def delivery(self, one: Any) -> dict[str, Any]:
        is_good = 200 <= one.status_code < 300
        return {
            "id": one.id,
            "guid": one.guid,
            "delivered_at": moment(one.delivered_at_ms),
            "redelivery": one.is_redelivery,
            "duration": 0.1,
            "status": "OK" if is_good else "failed to connect to host",
            "status_code": one.status_code,
            "event": one.event,
            "action": one.action,
            "installation_id": one.repo.installation_id or None if one.repo else None,
            "repository_id": one.repo.id if one.repo else None,
        }

    def check(self, check: dict[str, Any], app: App) -> dict[str, Any]:
        output = check.get("output", {})
        shown = {key: value for key, value in check.items() if key not in ("annotations", "actions", "output")}
        count = {"annotations_count": len(check["annotations"]), "annotations_url": "https://example.com"}
        text = {"title": output.get("title"), "summary": output.get("summary"), "text": output.get("text")}
        return {**shown, "output": {**text, **count}, "app": {"id": app.id, "slug": app.slug}, "pull_requests": []}

    def user(self, login: str) -> dict[str, Any]:
        return {"login": login, "id": sum(login.encode()), "type": "User", "site_admin": False}

    def collaborator(self, login: str) -> dict[str, Any]:
        return {**self.user(login), "permissions": {"pull": True, "push": False, "admin": False}, "role_name": "read"}

    def comment(self, comment: Comment) -> dict[str, Any]:
        app = None if comment.app_id is None else {"id": comment.app_id, "name": "Delta CI"}
        user = self.user(comment.author)
        return {"id": comment.id, "body": comment.body, "user": user, "performed_via_github_app": app}

    def wrote(self, asked: Asked, repo: HostedRepo, comment_id: int, number: int, status: int) -> Answer:
        is_app = self._asker.kind == "installation" and self.app is not None
        author = f"{self.app.slug}[bot]" if is_app and self.app else self._asker.name
        old = repo.comments.get(comment_id)
        made = Comment(
            id=comment_id,
            number=number,
            author=author if old is None else old.author,
            body=asked.json()["body"],
            app_id=(self.app.id if is_app and self.app else None) if old is None else old.app_id,
        )
        repo.comments[comment_id] = made
        return Answer(status, self.comment(made))

    def repository(self, repo: HostedRepo, asker: Account) -> dict[str, Any]:
        owner, name = repo.name.split("/")
        rights = {"admin": False, "maintain": False, "push": asker.kind == "token", "triage": False, "pull": True}
        named = {"id": repo.id, "name": name, "full_name": repo.name, "owner": self.user(owner)}
        return {**named, "private": repo.is_private, "default_branch": repo.default_branch, "permissions": rights}

    def ref(self, name: str, sha: str) -> dict[str, Any]:
        return {"ref": name, "object": {"type": "commit", "sha": sha, "url": "https://example.com"}}

    def pull(self, repo: HostedRepo, pull: Pull) -> dict[str, Any]:
        def side(branch: str, sha: str, name: str) -> dict[str, Any]:
            other = {"id": repo.id if name == repo.name else repo.id + 1, "full_name": name, "name": name.split("/")[1]}
            owner = self.user(name.split("/")[0])
            return {"ref": branch, "sha": sha, "label": f"{owner['login']}:{branch}", "repo": other, "user": owner}

        labels = [{"id": index, "name": name, "color": "ededed"} for index, name in enumerate(pull.labels)]
        return {
            "id": pull.number + 10_000,
            "number": pull.number,
            "state": "open" if pull.is_open else "closed",
            "title": pull.title,
            "user": self.user(pull.author),
            "labels": labels,
            "draft": pull.is_draft,
            "updated_at": moment(pull.updated_at_ms),
            "head": side(pull.head_branch, pull.head_sha, pull.head_repo),
            "base": side(pull.base_branch, repo.branches.get(pull.base_branch, "0" * 40), repo.name),
        }

    def comparison(self, repo: HostedRepo, old: str, new: str) -> Answer:
        one, other = repo.resolve(old), repo.resolve(new)
        base = repo.merge_base(one.sha, other.sha) if one and other else None
        if one is None or other is None or base is None:
            return Answer(404, {"message": "Not Found"})
        files = [
            {"filename": path, "status": status, "sha": blob_sha(other.files.get(path, b""))}
            | ({"previous_filename": previous} if previous else {})
            for status, path, previous in repo.differences(base, other.sha)
        ]
        ahead, behind = other.sha != base, one.sha != base
        status = {(True, True): "diverged", (True, False): "ahead", (False, True): "behind"}.get((ahead, behind))
        body = {
            "status": status or "identical",
            "base_commit": {"sha": one.sha},
            "merge_base_commit": {"sha": base},
            "ahead_by": int(ahead),
            "behind_by": int(behind),
            "total_commits": int(ahead),
            "commits": [],
            "files": files[:COMPARE_FILES_MAX],
        }
        return Answer(200, body)

    def tree(self, repo: HostedRepo, name: str) -> Answer:
        commit = repo.resolve(name)
        if commit is None:
            return Answer(404, {"message": "Not Found"})
        entries: list[dict[str, Any]] = [
            {"path": path, "mode": "040000", "type": "tree", "sha": blob_sha(path.encode())}
            for path in trees_of(commit)
        ]
        for path, data in commit.files.items():
            mode = commit.modes.get(path, "100644")
            entry = {"path": path, "mode": mode, "sha": blob_sha(data)}
            is_module = mode == "160000"
            entries.append({**entry, "type": "commit"} if is_module else {**entry, "type": "blob", "size": len(data)})
        entries.sort(key=lambda entry: entry["path"])
        is_cut = len(entries) > self.tree_entries_max
        return Answer(200, {"sha": commit.sha, "tree": entries[: self.tree_entries_max], "truncated": is_cut})

    def contents(self, repo: HostedRepo, ref: str, path: str) -> Answer:
        commit = repo.resolve(ref)
        if commit is not None and path in trees_of(commit):
            return Answer(200, [])
        if commit is None or path not in commit.files:
            return Answer(404, {"message": "Not Found"})
        data = commit.files[path]
        named = {"type": "file", "path": path, "name": path.split("/")[-1], "sha": blob_sha(data), "size": len(data)}
        links = {"git": None, "html": None, "self": "https://example.com"}
        blank = {"url": "https://example.com", "git_url": None, "html_url": None, "download_url": None, "_links": links}
        is_long = len(data) > CONTENT_BYTES_MAX
        content = {"encoding": "none", "content": ""} if is_long else {"encoding": "base64", "content": _base64(data)}
        return Answer(200, {**named, **blank, **content})

    def blob(self, repo: HostedRepo, sha: str, encode: Callable[[bytes], bytes]) -> Answer:
        for commit in repo.commits.values():
            for data in commit.files.values():
                if blob_sha(data) == sha:
                    said = {"sha": sha, "size": len(data), "encoding": "base64", "content": encode(data).decode()}
                    return Answer(200, said)
        return Answer(404, {"message": "Not Found"})


def _base64(data: bytes) -> str:
    """With a line break every 60 characters, as GitHub does."""
    text = b64encode(data).decode()
    return "".join(f"{text[start : start + 60]}\n" for start in range(0, len(text), 60))
