"""The events of Gitea and Forgejo in the shape of their documentation, and what each becomes."""

from typing import Any

from deltaci.domain.events import Trigger
from deltaci.domain.requests import Approve, CancelRuns, EndStream, RemoveRepo, RunAgain
from tests.forge.cases import Case
from tests.forge.hooks import NEW, OLD, TAG_OBJECT, ZERO

MONA = {
    "id": 1,
    "login": "mona",
    "login_name": "",
    "full_name": "Mona",
    "email": "mona@noreply.example.com",
    "avatar_url": "https://gitea.example.com/avatars/1",
    "language": "en-US",
    "is_admin": False,
    "username": "mona",
}
REPOSITORY = {
    "id": 140,
    "owner": MONA | {"login": "acme", "username": "acme"},
    "name": "shop",
    "full_name": "acme/shop",
    "description": "",
    "empty": False,
    "private": False,
    "fork": False,
    "parent": None,
    "mirror": False,
    "size": 0,
    "html_url": "https://gitea.example.com/acme/shop",
    "ssh_url": "git@gitea.example.com:acme/shop.git",
    "clone_url": "https://gitea.example.com/acme/shop.git",
    "default_branch": "main",
    "archived": False,
}
COMMIT = {
    "id": NEW,
    "message": "Add a cart\n\nBecause.\n",
    "url": f"https://gitea.example.com/acme/shop/commit/{NEW}",
    "author": {"name": "Mona", "email": "mona@example.com", "username": "mona"},
    "committer": {"name": "Mona", "email": "mona@example.com", "username": "mona"},
    "verification": None,
    "timestamp": "2024-03-13T13:52:11-04:00",
    "added": ["cart.py"],
    "removed": [],
    "modified": [],
}
AT_MS = 1715786433000


def a_push(**fields: Any) -> dict[str, Any]:
    return {
        "ref": "refs/heads/main",
        "before": OLD,
        "after": NEW,
        "compare_url": f"https://gitea.example.com/acme/shop/compare/{OLD}...{NEW}",
        "commits": [COMMIT],
        "total_commits": 1,
        "head_commit": COMMIT,
        "repository": REPOSITORY,
        "pusher": MONA,
        "sender": MONA,
        **fields,
    }


def a_ref(kind: str, ref: str, **fields: Any) -> dict[str, Any]:
    return {"ref": ref, "ref_type": kind, "repository": REPOSITORY, "sender": MONA, **fields}


def a_pull_request(action: str = "opened", *, changes: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    body = {
        "action": action,
        "number": 12,
        "pull_request": {
            "id": 7,
            "url": "https://gitea.example.com/acme/shop/pulls/12",
            "number": 12,
            "user": MONA,
            "title": "Add a cart",
            "body": "",
            "labels": [],
            "milestone": None,
            "assignee": None,
            "assignees": None,
            "requested_reviewers": None,
            "state": "open",
            "draft": False,
            "is_locked": False,
            "comments": 0,
            "html_url": "https://gitea.example.com/acme/shop/pulls/12",
            "mergeable": True,
            "merged": False,
            "merged_at": None,
            "merge_commit_sha": None,
            "merged_by": None,
            "base": {"label": "main", "ref": "main", "sha": OLD, "repo_id": 140, "repo": REPOSITORY},
            "head": {"label": "cart", "ref": "cart", "sha": NEW, "repo_id": 140, "repo": REPOSITORY},
            "merge_base": OLD,
            "due_date": None,
            "created_at": "2024-05-15T15:00:00Z",
            "updated_at": "2024-05-15T17:20:33+02:00",
            "closed_at": None,
            **fields,
        },
        "requested_reviewer": None,
        "repository": REPOSITORY,
        "sender": MONA,
        "commit_id": "",
        "review": None,
    }
    return body | ({"changes": changes} if changes is not None else {})


def a_comment(text: str, *, action: str = "created", is_pull: bool = True, **fields: Any) -> dict[str, Any]:
    pull_request = {"merged": False, "merged_at": None, "draft": False} if is_pull else None
    return {
        "action": action,
        "issue": {"id": 3, "number": 12, "user": MONA, "title": "Add a cart", "pull_request": pull_request},
        "comment": {
            "id": 5,
            "html_url": "https://gitea.example.com/acme/shop/pulls/12#issuecomment-5",
            "user": MONA,
            "original_author": "",
            "body": text,
            "assets": [],
            "created_at": "2024-05-15T17:20:33+02:00",
            "updated_at": "2024-05-15T17:20:33+02:00",
            **fields,
        },
        "repository": REPOSITORY,
        "sender": MONA,
        "is_pull": is_pull,
    }


def a_repository(action: str) -> dict[str, Any]:
    return {"action": action, "repository": REPOSITORY, "organization": REPOSITORY["owner"], "sender": MONA}


PULL_RUN = Trigger(
    kind="pull_request",
    ref="refs/pull/12/head",
    commit_sha=NEW,
    base_sha=OLD,
    base_ref="refs/heads/main",
    pr_number=12,
    stream="pr:12",
    title="Add a cart",
    author="mona",
)
PUSH_RUN = Trigger(
    kind="push",
    ref="refs/heads/main",
    commit_sha=NEW,
    base_sha=OLD,
    stream="branch:main",
    title="Add a cart",
    author="mona",
)
PR = a_pull_request

EVENTS = (
    Case("push", "a branch", a_push(), PUSH_RUN),
    Case(
        "push",
        "a tag",
        a_push(ref="refs/tags/v1", before=ZERO, after=TAG_OBJECT),
        Trigger(kind="push", ref="refs/tags/v1", commit_sha=NEW, stream="tag:v1", title="Add a cart", author="mona"),
    ),
    Case(
        "push",
        "a deletion",
        a_push(after=ZERO, head_commit=None, commits=[]),
        EndStream(stream="branch:main", because="the branch main was deleted"),
    ),
    Case("push", "a test delivery", a_push(before=NEW), "did not change"),
    Case("create", "any", a_ref("branch", "cart", sha=NEW), "is told by a push"),
    Case(
        "delete",
        "a branch or tag",
        a_ref("branch", "cart", pusher_type="user"),
        EndStream(stream="branch:cart", because="the branch cart was deleted"),
    ),
    *(
        Case("pull_request", action, PR(action), PULL_RUN, is_kept=True)
        for action in ("opened", "synchronized", "reopened")
    ),
    Case("pull_request_sync", "synchronized", PR("synchronized"), PULL_RUN, is_kept=True),
    Case(
        "pull_request", "edited: another base", PR("edited", changes={"ref": {"from": "old"}}), PULL_RUN, is_kept=True
    ),
    Case(
        "pull_request",
        "edited: anything else",
        PR("edited", changes={"title": {"from": "a"}}),
        "the action edited changes nothing",
        is_kept=True,
    ),
    Case(
        "pull_request",
        "closed",
        PR("closed", state="closed"),
        EndStream(stream="pr:12", because="pull request 12 was closed"),
        is_kept=True,
    ),
    *(
        Case("pull_request", action, PR(action), "a label counts from the next push on", is_kept=True)
        for action in ("label_updated", "label_cleared")
    ),
    Case("pull_request", "any other", PR("review_requested"), "review_requested", is_kept=True),
    Case(
        "issue_comment",
        "created: `/retest`",
        a_comment("/retest"),
        RunAgain(by="mona", right="write", pr_number=12, is_failed_only=True),
    ),
    Case(
        "issue_comment",
        "created: `/retest all`",
        a_comment("/retest all"),
        RunAgain(by="mona", right="write", pr_number=12),
    ),
    Case(
        "issue_comment", "created: `/cancel`", a_comment("/cancel"), CancelRuns(by="mona", right="write", pr_number=12)
    ),
    Case(
        "issue_comment",
        "created: `/approve`",
        a_comment("/approve"),
        Approve(by="mona", right="write", pr_number=12, at_ms=AT_MS),
    ),
    Case("issue_comment", "created: no command", a_comment("Looks good."), "holds no command"),
    Case("issue_comment", "edited or deleted", a_comment("/retest", action="edited"), "was edited"),
    Case("issue_comment", "at an issue", a_comment("/retest", is_pull=False), "at an issue"),
    Case(
        "pull_request_comment",
        "created: `/cancel`",
        a_comment("/cancel"),
        CancelRuns(by="mona", right="write", pr_number=12),
    ),
    Case(
        "pull_request_comment",
        "a review",
        PR("reviewed") | {"review": {"type": "pull_request_review_comment", "content": "/retest"}},
        "a review is no command",
    ),
    Case("pull_request_approved", "any", PR("reviewed"), "the event pull_request_approved starts no run"),
    Case("repository", "deleted", a_repository("deleted"), RemoveRepo(because="the repository was deleted")),
    Case("repository", "created", a_repository("created"), "the action created changes nothing"),
    Case("status", "any", {"sha": NEW, "state": "success", "repository": REPOSITORY}, "told by us"),
    Case("release", "any", {"action": "published", "repository": REPOSITORY}, "the event release starts no run"),
)

# Signed, about no repository that is registered.
OF_OTHERS = (
    Case(
        "push",
        "of a repository that is not registered",
        a_push(repository=REPOSITORY | {"full_name": "acme/new"}),
        "acme/new is not registered",
    ),
    Case("package", "any", {"action": "created", "package": {"id": 1}, "sender": MONA}, "about no repository"),
)
