"""GitHub's events as documented, and what each becomes."""

from typing import Any

from deltaci.domain.events import Trigger
from deltaci.domain.requests import (
    AddRepos,
    Approve,
    CancelRuns,
    EndStream,
    InstalledRepo,
    RemoveRepo,
    RemoveRepos,
    RenameRepo,
    RunAgain,
)
from tests.forge.cases import Case
from tests.forge.hooks import NEW, OLD, TAG_OBJECT, ZERO, a_pull_request, a_push

RUN = "run_01hzxk3v8a4bq7c9d2e"
JOB = "job_01hzxk3v8a4bq7c9d2e_3"
REPOSITORY = {
    "id": 1,
    "full_name": "acme/shop",
    "private": False,
    "clone_url": "https://github.com/acme/shop.git",
    "ssh_url": "git@github.com:acme/shop.git",
    "default_branch": "main",
}
MONA = {"login": "mona", "id": 3, "type": "User", "site_admin": False}
QUEUE = "refs/heads/gh-readonly-queue/main/pr-12-" + OLD
AT = "2024-05-15T15:20:33Z"
AT_MS = 1715786433000


def a_check_run(action: str = "rerequested", *, identifier: str = "", **fields: Any) -> dict[str, Any]:
    return {
        "action": action,
        "check_run": {
            "id": 4,
            "name": "Delta CI / test",
            "head_sha": NEW,
            "external_id": RUN,
            "status": "completed",
            "conclusion": "failure",
            "app": {"id": 29310, "client_id": "Iv1.deadbeef", "slug": "delta-ci"},
            "check_suite": {"id": 5, "head_sha": NEW},
            "pull_requests": [{"id": 9, "number": 12}],
            **fields,
        },
        "repository": REPOSITORY,
        "sender": MONA,
        "installation": {"id": 7},
    } | ({"requested_action": {"identifier": identifier}} if identifier else {})


def a_check_suite(action: str, **fields: Any) -> dict[str, Any]:
    suite = {"id": 5, "head_branch": "cart", "head_sha": NEW, "app": {"id": 29310}, "pull_requests": [], **fields}
    return {"action": action, "check_suite": suite, "repository": REPOSITORY, "sender": MONA}


def a_comment(text: str, *, action: str = "created", is_pull: bool = True, **fields: Any) -> dict[str, Any]:
    issue = {"number": 12, "title": "Add a cart", "state": "open", "user": MONA}
    if is_pull:
        issue["pull_request"] = {"url": "https://api.github.com/repos/acme/shop/pulls/12"}
    comment = {
        "id": 1,
        "body": text,
        "user": MONA,
        "created_at": AT,
        "author_association": "MEMBER",
        "performed_via_github_app": None,
        **fields,
    }
    return {"action": action, "issue": issue, "comment": comment, "repository": REPOSITORY, "sender": MONA}


def a_merge_group(action: str, **fields: Any) -> dict[str, Any]:
    group = {
        "head_sha": NEW,
        "head_ref": QUEUE,
        "base_sha": OLD,
        "base_ref": "refs/heads/main",
        "head_commit": {"id": NEW, "message": "Merge pull request 12", "author": {"name": "Mona"}},
    }
    return {"action": action, "merge_group": group, "repository": REPOSITORY, "sender": MONA, **fields}


def a_repository(action: str, *, name: str = "acme/shop", **fields: Any) -> dict[str, Any]:
    _, _, short = name.partition("/")
    addresses = {"clone_url": f"https://github.com/{name}.git", "ssh_url": f"git@github.com:{name}.git"}
    return {"action": action, "repository": REPOSITORY | {"full_name": name, "name": short} | addresses} | fields


def an_installation(action: str, **fields: Any) -> dict[str, Any]:
    installation = {"id": 7, "account": MONA, "repository_selection": "selected", "app_id": 29310}
    return {"action": action, "installation": installation, "sender": MONA, **fields}


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
TAG_RUN = Trigger(kind="push", ref="refs/tags/v1", commit_sha=NEW, stream="tag:v1", title="Add a cart", author="mona")
QUEUE_RUN = Trigger(
    kind="merge_group",
    ref=QUEUE,
    commit_sha=NEW,
    base_sha=OLD,
    base_ref="refs/heads/main",
    stream="queue:" + QUEUE.removeprefix("refs/heads/"),
    title="Merge pull request 12",
    author="Mona",
)
ANY = a_pull_request  # short, because there are many
BASE = {"changes": {"base": {"ref": {"from": "old"}, "sha": {"from": OLD}}}}
SPACE = [{"id": 2, "name": "space", "full_name": "acme/space", "private": True}]

EVENTS = (
    Case("push", "a branch", a_push(), PUSH_RUN),
    Case("push", "a tag", a_push(ref="refs/tags/v1", before=ZERO, after=TAG_OBJECT), TAG_RUN),
    Case(
        "push",
        "a deletion",
        a_push(deleted=True, after=ZERO, head_commit=None),
        EndStream(stream="branch:main", because="the branch main was deleted"),
    ),
    Case("push", "a branch of the merge queue", a_push(ref=QUEUE), "merge queue"),
    Case("push", "a deletion in the merge queue", a_push(ref=QUEUE, deleted=True, after=ZERO), "merge queue"),
    Case("push", "another ref", a_push(ref="refs/notes/commits"), "neither a branch nor a tag"),
    Case("create", "any", a_push(), "is told by a push"),
    Case(
        "delete",
        "a branch or tag",
        {"ref": "v1", "ref_type": "tag", "pusher_type": "user", "repository": REPOSITORY},
        EndStream(stream="tag:v1", because="the tag v1 was deleted"),
    ),
    *(
        Case("pull_request", action, ANY(action), PULL_RUN, is_kept=True)
        for action in ("opened", "synchronize", "reopened", "ready_for_review")
    ),
    Case("pull_request", "edited: another base", ANY("edited") | BASE, PULL_RUN, is_kept=True),
    Case("pull_request", "edited: anything else", ANY("edited") | {"changes": {"title": {}}}, "edited", is_kept=True),
    Case(
        "pull_request",
        "closed",
        ANY("closed", state="closed", merged=True),
        EndStream(stream="pr:12", because="pull request 12 was merged"),
        is_kept=True,
    ),
    *(
        Case("pull_request", action, ANY(action), "a label counts from the next push on", is_kept=True)
        for action in ("labeled", "unlabeled")
    ),
    Case("pull_request", "any other", ANY("converted_to_draft", draft=True), "converted_to_draft", is_kept=True),
    Case("merge_group", "checks_requested", a_merge_group("checks_requested"), QUEUE_RUN),
    Case(
        "merge_group",
        "destroyed",
        a_merge_group("destroyed", reason="dequeued"),
        EndStream(stream=QUEUE_RUN.stream, because="the merge group left the queue (dequeued)"),
    ),
    Case("check_run", "rerequested: of a run", a_check_run(), RunAgain(by="mona", right="write", run_id=RUN)),
    Case(
        "check_run",
        "rerequested: of a job",
        a_check_run(external_id=JOB),
        RunAgain(by="mona", right="write", run_id=RUN, job_id=JOB),
    ),
    Case(
        "check_run",
        "requested_action: rerun",
        a_check_run("requested_action", identifier="rerun", external_id=JOB),
        RunAgain(by="mona", right="write", run_id=RUN, job_id=JOB),
    ),
    Case(
        "check_run",
        "requested_action: rerun_failed",
        a_check_run("requested_action", identifier="rerun_failed", external_id=JOB),
        RunAgain(by="mona", right="write", run_id=RUN, is_failed_only=True),
    ),
    Case(
        "check_run",
        "requested_action: cancel",
        a_check_run("requested_action", identifier="cancel"),
        CancelRuns(by="mona", right="write", run_id=RUN),
    ),
    Case(
        "check_run",
        "requested_action: approve",
        a_check_run("requested_action", identifier="approve"),
        Approve(by="mona", right="write", pr_number=12, commit_sha=NEW, run_id=RUN),
    ),
    Case(
        "check_run",
        "requested_action: any other",
        a_check_run("requested_action", identifier="lgtm|12"),
        "none that our checks offer",
    ),
    Case("check_run", "of another app", a_check_run(external_id="build-7"), "not one of ours"),
    Case("check_run", "any other", a_check_run("completed"), "told by us"),
    Case(
        "check_suite",
        "rerequested",
        a_check_suite("rerequested"),
        RunAgain(by="mona", right="write", commit_sha=NEW),
    ),
    Case("check_suite", "requested", a_check_suite("requested"), "told by the push"),
    Case("check_suite", "any other", a_check_suite("completed"), "told by us"),
    Case(
        "issue_comment",
        "created: `/retest`",
        a_comment("Flaky?\n\n/retest"),
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
    Case("issue_comment", "by a program", a_comment("/retest", user=MONA | {"type": "Bot"}), "a program wrote"),
    Case("issue_comment", "at an issue", a_comment("/retest", is_pull=False), "at an issue"),
    Case("issue_comment", "edited or deleted", a_comment("/retest", action="edited"), "was edited"),
    Case(
        "repository",
        "renamed",
        a_repository("renamed", name="acme/store", changes={"repository": {"name": {"from": "shop"}}}),
        RenameRepo(name="acme/store", clone_url="https://github.com/acme/store.git"),
    ),
    Case(
        "repository",
        "transferred",
        a_repository("transferred", name="bits/shop", changes={"owner": {"from": {"organization": {"login": "acme"}}}}),
        RenameRepo(name="bits/shop", clone_url="https://github.com/bits/shop.git"),
    ),
    Case("repository", "deleted", a_repository("deleted"), RemoveRepo(because="the repository was deleted")),
    Case("repository", "archived", a_repository("archived"), RemoveRepo(because="the repository was archived")),
    Case("repository", "unarchived", a_repository("unarchived"), "deltaci repo set"),
    Case("repository", "any other", a_repository("privatized"), "privatized"),
    Case("ping", "any", {"zen": "Keep it logically awesome.", "hook_id": 1, "repository": REPOSITORY}, "ping"),
    Case("status", "any", {"sha": NEW, "state": "success", "repository": REPOSITORY}, "told by us"),
    Case("deployment", "any", {"action": "created", "repository": REPOSITORY}, "deployments"),
    Case("workflow_run", "any", {"action": "completed", "repository": REPOSITORY}, "another system"),
    Case("star", "any", {"action": "created", "repository": REPOSITORY}, "the event star starts no run"),
)

# Signed by the app, about no repository that is registered.
OF_THE_APP = (
    Case(
        "installation",
        "created",
        an_installation("created", repositories=SPACE),
        AddRepos(installation_id=7, repos=(InstalledRepo(name="acme/space", is_private=True),)),
    ),
    Case(
        "installation",
        "deleted",
        an_installation("deleted", repositories=SPACE),
        RemoveRepos(installation_id=7, names=None, because="the app was uninstalled"),
    ),
    Case(
        "installation",
        "suspend",
        an_installation("suspend"),
        RemoveRepos(installation_id=7, names=None, because="the app was suspended"),
    ),
    Case("installation", "unsuspend", an_installation("unsuspend"), AddRepos(installation_id=7, repos=())),
    Case("installation", "any other", an_installation("new_permissions_accepted"), "new_permissions_accepted"),
    Case(
        "installation_repositories",
        "added",
        an_installation("added", repositories_added=SPACE, repositories_removed=[]),
        AddRepos(installation_id=7, repos=(InstalledRepo(name="acme/space", is_private=True),)),
    ),
    Case(
        "installation_repositories",
        "removed",
        an_installation("removed", repositories_added=[], repositories_removed=SPACE),
        RemoveRepos(installation_id=7, names=("acme/space",), because="the app may not see it any more"),
    ),
    Case("installation_target", "any", an_installation("renamed", target_type="User"), "another name"),
    Case("push", "of a repository that is not registered", a_push(repository={"full_name": "acme/new"}), "acme/new"),
    Case("organization", "any", {"action": "member_added", "organization": {"login": "acme"}}, "about no repository"),
)
