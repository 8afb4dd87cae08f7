"""GitLab's events in the shape of its documentation, and what each becomes."""

from typing import Any

from deltaci.domain.events import Trigger
from deltaci.domain.requests import Approve, CancelRuns, EndStream, RemoveRepo, RenameRepo, RunAgain
from tests.forge.cases import Case
from tests.forge.hooks import NEW, OLD, TAG_OBJECT, ZERO

PROJECT = {
    "id": 15,
    "name": "Shop",
    "description": "",
    "web_url": "https://gitlab.example.com/acme/web/shop",
    "avatar_url": None,
    "git_ssh_url": "git@gitlab.example.com:acme/web/shop.git",
    "git_http_url": "https://gitlab.example.com/acme/web/shop.git",
    "namespace": "Web",
    "visibility_level": 0,
    "path_with_namespace": "acme/web/shop",
    "default_branch": "main",
    "ci_config_path": "",
    "homepage": "https://gitlab.example.com/acme/web/shop",
    "url": "git@gitlab.example.com:acme/web/shop.git",
    "ssh_url": "git@gitlab.example.com:acme/web/shop.git",
    "http_url": "https://gitlab.example.com/acme/web/shop.git",
}
REPOSITORY = {
    "name": "Shop",
    "url": "git@gitlab.example.com:acme/web/shop.git",
    "description": "",
    "homepage": "https://gitlab.example.com/acme/web/shop",
}
MONA = {"id": 4, "name": "Mona", "username": "mona", "avatar_url": "https://x.example.com/a.png", "email": "[REDACTED]"}
LABEL = {
    "id": 206,
    "title": "full-ci",
    "color": "#ffffff",
    "project_id": 15,
    "created_at": "2023-12-03T17:15:43Z",
    "updated_at": "2023-12-03T17:15:43Z",
    "template": False,
    "description": "",
    "type": "ProjectLabel",
    "group_id": None,
}
COMMIT = {
    "id": NEW,
    "message": "Add a cart\n\nBecause.",
    "title": "Add a cart",
    "timestamp": "2024-01-03T23:36:29+02:00",
    "url": f"https://gitlab.example.com/acme/web/shop/-/commit/{NEW}",
    "author": {"name": "Mona", "email": "mona@example.com"},
}
AT_MS = 1715786433000


def a_push(**fields: Any) -> dict[str, Any]:
    return {
        "object_kind": "push",
        "event_name": "push",
        "before": OLD,
        "after": NEW,
        "ref": "refs/heads/main",
        "ref_protected": True,
        "checkout_sha": NEW,
        "user_id": 4,
        "user_name": "Mona",
        "user_username": "mona",
        "user_email": "",
        "user_avatar": None,
        "project_id": 15,
        "project": PROJECT,
        "repository": REPOSITORY,
        "commits": [COMMIT | {"id": OLD}, COMMIT | {"added": ["cart.py"], "modified": [], "removed": []}],
        "total_commits_count": 2,
        **fields,
    }


def a_tag(**fields: Any) -> dict[str, Any]:
    told = {"object_kind": "tag_push", "event_name": "tag_push", "ref": "refs/tags/v1", "before": ZERO, "commits": []}
    return a_push(**told, after=TAG_OBJECT, **fields)


def a_merge_request(
    action: str = "open", *, changes: dict[str, Any] | None = None, user: dict[str, Any] = MONA, **fields: Any
) -> dict[str, Any]:
    return {
        "object_kind": "merge_request",
        "event_type": "merge_request",
        "user": user,
        "project": PROJECT,
        "repository": REPOSITORY,
        "object_attributes": {
            "id": 99,
            "iid": 12,
            "target_branch": "main",
            "source_branch": "cart",
            "source_project_id": 15,
            "author_id": 4,
            "assignee_ids": [],
            "assignee_id": None,
            "reviewer_ids": [],
            "title": "Add a cart",
            "created_at": "2024-05-15T15:00:00Z",
            "updated_at": "2024-05-15 15:20:33 UTC",
            "last_edited_at": None,
            "last_edited_by_id": None,
            "milestone_id": None,
            "state_id": 1,
            "state": "opened",
            "blocking_discussions_resolved": True,
            "work_in_progress": False,
            "draft": False,
            "first_contribution": False,
            "merge_status": "unchecked",
            "target_project_id": 15,
            "description": "",
            "prepared_at": "2024-05-15T15:00:01Z",
            "total_time_spent": 0,
            "url": "https://gitlab.example.com/acme/web/shop/-/merge_requests/12",
            "source": PROJECT,
            "target": PROJECT,
            "last_commit": COMMIT,
            "labels": [LABEL],
            "action": action,
            "detailed_merge_status": "mergeable",
            **fields,
        },
        "labels": [LABEL],
        "changes": changes or {},
    }


def a_note(text: str, *, user: dict[str, Any] = MONA, **fields: Any) -> dict[str, Any]:
    request = a_merge_request()["object_attributes"]
    return {
        "object_kind": "note",
        "event_type": "note",
        "user": user,
        "project_id": 15,
        "project": PROJECT,
        "repository": REPOSITORY,
        "object_attributes": {
            "id": 1244,
            "note": text,
            "noteable_type": "MergeRequest",
            "author_id": 4,
            "created_at": "2024-05-15 15:20:33 UTC",
            "updated_at": "2024-05-15 15:20:33 UTC",
            "project_id": 15,
            "attachment": None,
            "line_code": None,
            "commit_id": "",
            "noteable_id": 99,
            "system": False,
            "st_diff": None,
            "action": "create",
            "url": "https://gitlab.example.com/acme/web/shop/-/merge_requests/12#note_1244",
            **fields,
        },
        "merge_request": {name: value for name, value in request.items() if name != "action"},
    }


def of_project(event: str, **fields: Any) -> dict[str, Any]:
    """An event of a system hook."""
    return {
        "created_at": "2012-07-21T07:30:58Z",
        "updated_at": "2012-07-21T07:38:22Z",
        "event_name": event,
        "name": "Shop",
        "owner_email": "mona@example.com",
        "owner_name": "Mona",
        "owners": [{"name": "Mona", "email": "mona@example.com"}],
        "path": "shop",
        "path_with_namespace": "acme/web/shop",
        "project_id": 15,
        "project_namespace_id": 23,
        "project_visibility": "private",
        **fields,
    }


def of_work(kind: str) -> dict[str, Any]:
    return {"object_kind": kind, "project": PROJECT, "user": MONA, "object_attributes": {"id": 31, "status": "success"}}


PULL_RUN = Trigger(
    kind="pull_request",
    ref="refs/merge-requests/12/head",
    commit_sha=NEW,
    base_ref="refs/heads/main",
    pr_number=12,
    stream="pr:12",
    title="Add a cart",
    author="mona",
    labels=("full-ci",),
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
READY = {"draft": {"previous": True, "current": False}}
MR = a_merge_request


def ended(how: str) -> EndStream:
    return EndStream(stream="pr:12", because=f"pull request 12 was {how}")


EVENTS = (
    Case("Push Hook", "a branch", a_push(), PUSH_RUN),
    Case(
        "Push Hook",
        "a deletion",
        a_push(after=ZERO, checkout_sha=None, commits=[]),
        EndStream(stream="branch:main", because="the branch main was deleted"),
    ),
    Case(
        "Tag Push Hook",
        "a tag",
        a_tag(),
        Trigger(kind="push", ref="refs/tags/v1", commit_sha=NEW, stream="tag:v1", author="mona"),
    ),
    Case(
        "Tag Push Hook",
        "a deletion",
        a_tag() | {"before": OLD, "after": ZERO, "checkout_sha": None},
        EndStream(stream="tag:v1", because="the tag v1 was deleted"),
    ),
    *(Case("Merge Request Hook", action, MR(action), PULL_RUN, is_kept=True) for action in ("open", "reopen")),
    Case("Merge Request Hook", "update: new commits", MR("update", oldrev=OLD), PULL_RUN, is_kept=True),
    Case(
        "Merge Request Hook",
        "update: another target",
        MR("update", changes={"target_branch": {"previous": "old", "current": "main"}}),
        PULL_RUN,
        is_kept=True,
    ),
    Case("Merge Request Hook", "update: a draft no more", MR("update", changes=READY), PULL_RUN, is_kept=True),
    Case(
        "Merge Request Hook",
        "update: labels",
        MR("update", changes={"labels": {"previous": [], "current": [LABEL]}}),
        "a label counts from the next push on",
        is_kept=True,
    ),
    Case(
        "Merge Request Hook",
        "update: anything else",
        MR("update", changes={"title": {"previous": "a", "current": "b"}}),
        "the action update changes nothing",
        is_kept=True,
    ),
    Case("Merge Request Hook", "close", MR("close", state="closed"), ended("closed"), is_kept=True),
    Case("Merge Request Hook", "merge", MR("merge", state="merged"), ended("merged"), is_kept=True),
    *(
        Case("Merge Request Hook", action, MR(action), f"the action {action} changes nothing", is_kept=True)
        for action in ("approved", "approval", "unapproved", "unapproval")
    ),
    Case("Merge Request Hook", "without commits", MR(last_commit=None), "has no commits"),
    Case(
        "Note Hook",
        "`/retest`",
        a_note("/retest"),
        RunAgain(by="mona", right="write", pr_number=12, is_failed_only=True),
    ),
    Case("Note Hook", "`/retest all`", a_note("/retest all"), RunAgain(by="mona", right="write", pr_number=12)),
    Case("Note Hook", "`/cancel`", a_note("/cancel"), CancelRuns(by="mona", right="write", pr_number=12)),
    Case("Note Hook", "`/approve`", a_note("/approve"), Approve(by="mona", right="write", pr_number=12, at_ms=AT_MS)),
    Case("Note Hook", "no command", a_note("Looks good."), "holds no command"),
    Case("Note Hook", "edited", a_note("/retest", action="update"), "was edited"),
    Case("Note Hook", "of the system", a_note("/retest", system=True), "a program wrote"),
    Case(
        "Note Hook",
        "by the bot of an access token",
        a_note("/retest", user=MONA | {"username": "project_15_bot_4f0a"}),
        "a program wrote",
    ),
    Case("Note Hook", "at anything else", a_note("/retest", noteable_type="Issue"), "not at a merge request"),
    Case("Pipeline Hook", "any", of_work("pipeline"), "another system"),
    Case("Job Hook", "any", of_work("build"), "another system"),
    Case("Deployment Hook", "any", of_work("deployment"), "the event deployment starts no run"),
    Case("Issue Hook", "any", of_work("issue"), "the event issue starts no run"),
    Case(
        "System Hook",
        "repository_update",
        {"event_name": "repository_update", "project_id": 15, "project": PROJECT, "refs": ["refs/heads/main"]},
        "told by a push",
    ),
    Case(
        "System Hook",
        "project_rename",
        of_project("project_rename", path_with_namespace="acme/web/store", old_path_with_namespace="acme/web/shop"),
        RenameRepo(name="acme/web/store"),
    ),
    Case(
        "System Hook",
        "project_transfer",
        of_project("project_transfer", path_with_namespace="bits/shop", old_path_with_namespace="acme/web/shop"),
        RenameRepo(name="bits/shop"),
    ),
    Case(
        "System Hook", "project_destroy", of_project("project_destroy"), RemoveRepo(because="the project was deleted")
    ),
    Case("System Hook", "project_update", of_project("project_update"), "the event project_update starts no run"),
    Case("System Hook", "merge_request", MR(), PULL_RUN, is_kept=True),
)

# Signed, about no project that is registered: acknowledged, or GitLab would disable the webhook of all others.
OF_OTHERS = (
    Case(
        "Push Hook",
        "of a project that is not registered",
        a_push(project=PROJECT | {"path_with_namespace": "a/b"}),
        "a/b",
    ),
    Case("System Hook", "user_create", {"event_name": "user_create", "username": "js", "user_id": 41}, "user_create"),
    Case("System Hook", "group_rename", {"event_name": "group_rename", "full_path": "a/c"}, "deltaci repo set"),
)
