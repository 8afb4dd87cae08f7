"""GitHub's webhooks: what each event becomes.

Rule 1: one secret may sign for many repositories, that of our app for all: the signature is checked first, then the
        name is read, and the repository is looked for among those that the secret may sign for.
Rule 2: what an installation sees is told by our app alone: a secret of a repository never signs for that.
Rule 3: an event that is not known is acknowledged with its reason; only what we do read can be malformed.
Rule 4: what we tell GitHub comes back as events: our own checks, statuses and comments start nothing.
"""

import re
from collections.abc import Sequence
from typing import Final

from deltaci.domain.errors import BadSignature, MalformedRequest, NotFound
from deltaci.domain.events import Trigger
from deltaci.domain.ids import run_of
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
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
from deltaci.forge import payloads
from deltaci.forge.comments import asked_in
from deltaci.forge.github_payloads import (
    AnyEvent,
    CheckRunEvent,
    CheckSuiteEvent,
    CommentEvent,
    DeleteEvent,
    Installable,
    InstallationEvent,
    MergeGroupEvent,
    Person,
    PullRequestEvent,
    Push,
    RepositoryEvent,
)
from deltaci.forge.payloads import Outcome
from deltaci.forge.webhook import (
    AUTHOR_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
    Received,
    Webhook,
    claimed_digest,
    decoded,
    full_ref,
    good_secrets,
    is_signed,
    object_id,
    one_line,
    required_header,
    signed_repo,
    unregistered,
)

SIGNATURE_HEADER: Final = "x-hub-signature-256"
EVENT_HEADER: Final = "x-github-event"
DELIVERY_HEADER: Final = "x-github-delivery"

STARTING_ACTIONS: Final = frozenset({"opened", "synchronize", "reopened", "ready_for_review"})
# These say nothing without the repository they are about.
ABOUT_A_REPOSITORY: Final = frozenset(
    {"push", "delete", "pull_request", "merge_group", "check_run", "check_suite", "issue_comment", "repository"}
)
OF_AN_INSTALLATION: Final = frozenset({"installation", "installation_repositories", "installation_target"})
# Events in which our own words come back, or that tell again what another event tells.
TOLD_ELSEWHERE: Final = {
    "ping": "ping",
    "status": "statuses are told by us, and start nothing",
    "create": "what was created is told by a push",
    "deployment": "deployments start no run",
    "deployment_status": "deployments start no run",
    "workflow_run": "workflows of another system start no run",
    "workflow_job": "workflows of another system start no run",
}

_FULL_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,100}/[A-Za-z0-9_.-]{1,100}", re.ASCII)
_OUR_ID: Final = re.compile(r"run_[0-9a-z]{1,40}|job_[0-9a-z]{1,40}_[0-9]{1,6}", re.ASCII)


class GitHub:
    """Reads GitHub's webhooks (content type application/json).

    Args:
        app_secrets: those of the app's own webhook; two while it is changed.
        app_id: the app's id or client id; what is asked of the checks of others is then passed over.
    """

    name: Final = "github"

    def __init__(self, app_secrets: Sequence[str] = (), *, app_id: str = "") -> None:
        self._app_secrets = tuple(app_secrets)
        self._app_id = app_id

    def authenticate(self, webhook: Webhook, repos: Sequence[Repo]) -> Repo | None:
        """See `WebhookForge`. Only what is signed by the app may be about a repository that is not registered."""
        claimed = claimed_digest(webhook, SIGNATURE_HEADER)
        ours = [repo for repo in repos if repo.forge == self.name]
        good = good_secrets(ours, self._app_secrets, lambda secret: is_signed(secret, webhook.body, claimed))
        if not good:
            raise BadSignature("no registered repository has the secret that signed this")
        is_from_app = not good.isdisjoint(self._app_secrets)
        event = webhook.headers.get(EVENT_HEADER, "")
        if event in OF_AN_INSTALLATION and not is_from_app:
            raise BadSignature(f"the event {event} counts only when the secret of the app signed it")
        names = _names(webhook)
        if not names:
            return None
        repo = signed_repo(ours, self._app_secrets, good, names)
        if repo is None and not is_from_app:
            shown = one_line(names[-1], NAME_CHARACTERS_MAX)
            raise NotFound(f"the repository {shown!r} is not registered with the secret that signed this: add it first")
        return repo

    def read(self, webhook: Webhook, repo: Repo | None) -> Received:
        """See `WebhookForge`."""
        delivery_id = required_header(webhook, DELIVERY_HEADER)
        event = required_header(webhook, EVENT_HEADER, is_event=True)
        names = _names(webhook)
        if repo is None:
            return payloads.received(delivery_id, event, _without_repository(event, webhook.body, names))
        if repo.name.casefold() not in [name.casefold() for name in names]:
            raise MalformedRequest(f"the body is not about the repository {repo.name}")
        if event == "pull_request":
            outcome, kept = _pull_request(decoded(webhook.body, PullRequestEvent), repo)
            return payloads.received(delivery_id, event, outcome, kept)
        return payloads.received(delivery_id, event, self._outcome(event, webhook.body, repo))

    def _outcome(self, event: str, body: bytes, repo: Repo) -> Outcome:
        match event:
            case "push":
                return _push(decoded(body, Push))
            case "delete":
                return _delete(decoded(body, DeleteEvent))
            case "merge_group":
                return _merge_group(decoded(body, MergeGroupEvent))
            case "check_run":
                return _check_run(decoded(body, CheckRunEvent), self._app_id)
            case "check_suite":
                return _check_suite(decoded(body, CheckSuiteEvent), self._app_id)
            case "issue_comment":
                return _comment(decoded(body, CommentEvent))
            case "repository":
                return _repository(decoded(body, RepositoryEvent), repo)
            case _:
                return TOLD_ELSEWHERE.get(event, f"the event {event} starts no run")


def _names(webhook: Webhook) -> list[str]:
    """What the repository was called until this event, and what it is called: none if the event is about none."""
    if webhook.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise MalformedRequest("set the content type of the webhook to application/json")
    event = webhook.headers.get(EVENT_HEADER, "")
    about = decoded(webhook.body, AnyEvent)
    if about.repository is None or not about.repository.full_name:
        if event in ABOUT_A_REPOSITORY:
            raise MalformedRequest("the body names no repository (repository.full_name)")
        return []
    name = about.repository.full_name
    moved = decoded(webhook.body, RepositoryEvent).changes if event == "repository" else None
    if moved is None:
        return [name]
    owner, _, short = name.partition("/")
    return list(dict.fromkeys([f"{moved.old_owner or owner}/{moved.old_name or short}", name]))


# ---- code --------------------------------------------------------------------------------------------------------


def _push(push: Push) -> Outcome:
    head = push.head_commit
    return payloads.of_push(
        payloads.Pushed(
            ref=push.ref,
            before=push.before,
            after=push.after,
            tag_commit=head.id if head is not None else None,
            is_deleted=push.deleted,
            is_forced=push.forced,
            title=(head.message or "") if head is not None else "",
            author=_who(push.pusher) or (_who(head.author) if head is not None else ""),
        )
    )


def _delete(event: DeleteEvent) -> Outcome:
    kind = {"branch": "heads", "tag": "tags"}.get(event.ref_type)
    if kind is None:
        return f"a {payloads.shown(event.ref_type)} was deleted, and has no runs of its own"
    return payloads.of_deletion(f"refs/{kind}/{event.ref}")


def _merge_group(event: MergeGroupEvent) -> Outcome:
    group = event.merge_group
    ref = full_ref(group.head_ref)
    stream = f"queue:{ref.removeprefix('refs/heads/')}"
    if event.action == "destroyed":
        why = f" ({payloads.shown(event.reason)})" if event.reason else ""
        return EndStream(stream=stream, because=f"the merge group left the queue{why}")
    if event.action != "checks_requested":
        return payloads.changes_nothing(event.action)
    head = group.head_commit
    return Trigger(
        kind="merge_group",
        ref=ref,
        commit_sha=object_id(group.head_sha, "merge_group.head_sha"),
        base_sha=object_id(group.base_sha, "merge_group.base_sha"),
        base_ref=payloads.branch(group.base_ref),
        stream=stream,
        title=one_line(head.message or "", TITLE_CHARACTERS_MAX) if head is not None else "",
        author=one_line(_who(head.author), AUTHOR_CHARACTERS_MAX) if head is not None else "",
    )


def _pull_request(event: PullRequestEvent, repo: Repo) -> tuple[Outcome, PullRequest]:
    told = event.pull_request
    base = told.base.repo.full_name if told.base.repo is not None else event.repository.full_name
    kept = payloads.row(
        repo,
        payloads.Told(
            number=event.number,
            head_sha=told.head.sha,
            head_branch=told.head.ref,
            base_sha=told.base.sha,
            base_branch=told.base.ref,
            is_open=told.state == "open" and event.action != "closed",
            is_fork=payloads.is_other_repository(told.head.repo.full_name if told.head.repo else None, base),
            is_draft=told.draft,
            author=_who(told.user),
            title=told.title or "",
            labels=payloads.labels_of(told.labels),
            updated_at=told.updated_at,
        ),
    )
    has_new_base = event.action == "edited" and event.changes is not None and event.changes.base is not None
    if event.action == "closed":
        return payloads.end_of_pull_request(kept, is_merged=told.merged is True), kept
    if event.action in STARTING_ACTIONS or has_new_base:
        return payloads.run_of_pull_request(kept, f"refs/pull/{kept.number}/head"), kept
    if event.action in ("labeled", "unlabeled"):
        return payloads.labels_change(event.action), kept
    return payloads.changes_nothing(event.action), kept


# ---- what people ask for -----------------------------------------------------------------------------------------


def _check_run(event: CheckRunEvent, app_id: str) -> Outcome:
    check, by = event.check_run, _asker(event.sender)
    if event.action not in ("rerequested", "requested_action"):
        return "what happens to checks is told by us, and starts nothing"
    is_ours = _OUR_ID.fullmatch(check.external_id or "") is not None
    if not is_ours or (check.app is not None and not check.app.is_called(app_id)):
        return "the check is not one of ours"
    our_id = check.external_id or ""
    job_id = our_id if our_id.startswith("job_") else ""
    run_id = run_of(job_id) or "" if job_id else our_id
    if event.action == "rerequested":
        return RunAgain(by=by, right="write", run_id=run_id, job_id=job_id)
    wanted = event.requested_action.identifier if event.requested_action is not None else ""
    match wanted:
        case "rerun":
            return RunAgain(by=by, right="write", run_id=run_id, job_id=job_id)
        case "rerun_failed":
            return RunAgain(by=by, right="write", run_id=run_id, is_failed_only=True)
        case "cancel":
            return CancelRuns(by=by, right="write", run_id=run_id)
        case "approve":
            # Of a commit of a fork, GitHub names no pull request
            number = check.pull_requests[0].number if len(check.pull_requests) == 1 else 0
            commit_sha = object_id(check.head_sha, "check_run.head_sha")
            return Approve(by=by, right="write", pr_number=number, commit_sha=commit_sha, run_id=run_id)
        case _:
            return f"the action {payloads.shown(wanted)} is none that our checks offer"


def _check_suite(event: CheckSuiteEvent, app_id: str) -> Outcome:
    suite = event.check_suite
    if event.action == "requested":
        return "the commit of a check suite is told by the push or the pull request itself"
    if event.action != "rerequested":
        return "what happens to checks is told by us, and starts nothing"
    if suite.app is not None and not suite.app.is_called(app_id):
        return "the check suite is not one of ours"
    commit_sha = object_id(suite.head_sha, "check_suite.head_sha")
    return RunAgain(by=_asker(event.sender), right="write", commit_sha=commit_sha)


def _comment(event: CommentEvent) -> Outcome:
    comment = event.comment
    if event.issue.pull_request is None:
        return "a comment at an issue is no command"
    if event.action != "created":
        return f"a comment that was {payloads.shown(event.action)} is no command: write a new one"
    writer = comment.user
    return asked_in(
        comment.body or "",
        by=_who(writer),
        number=event.issue.number,
        at_ms=payloads.at_ms(comment.created_at, "comment.created_at"),
        is_program=comment.performed_via_github_app is not None or (writer is not None and writer.type == "Bot"),
    )


# ---- repositories and installations ------------------------------------------------------------------------------


def _repository(event: RepositoryEvent, repo: Repo) -> Outcome:
    now = event.repository
    match event.action:
        case "renamed" | "transferred":
            name = _checked(now.full_name)
            if name.casefold() == repo.name.casefold():
                return f"the repository is registered as {name} already"
            address = payloads.address_like(repo.clone_url, https=now.clone_url, ssh=now.ssh_url)
            return RenameRepo(name=name, clone_url=address)
        case "deleted" | "archived":
            return RemoveRepo(because=f"the repository was {event.action}")
        case "unarchived":
            return "the repository was unarchived: say with `deltaci repo set` that it is built again"
        case _:
            return payloads.changes_nothing(event.action)


def _without_repository(event: str, body: bytes, names: Sequence[str]) -> Outcome:
    match event:
        case "installation":
            return _installation(decoded(body, InstallationEvent))
        case "installation_repositories":
            return _installation_repositories(decoded(body, InstallationEvent))
        case "installation_target":
            return "the account of an installation has another name: tell its repositories with `deltaci repo set`"
        case _ if names:
            return unregistered(names[-1])
        case _:
            return TOLD_ELSEWHERE.get(event, f"the event {event} is about no repository")


def _installation(event: InstallationEvent) -> Outcome:
    number = event.installation.id
    match event.action:
        case "created" | "unsuspend":
            return AddRepos(installation_id=number, repos=_installed(event.repositories))
        case "deleted":
            return RemoveRepos(installation_id=number, names=None, because="the app was uninstalled")
        case "suspend":
            return RemoveRepos(installation_id=number, names=None, because="the app was suspended")
        case _:
            return f"the action {payloads.shown(event.action)} changes nothing that the app sees"


def _installation_repositories(event: InstallationEvent) -> Outcome:
    added, removed = _installed(event.repositories_added), _installed(event.repositories_removed)
    if event.action == "added" and added:
        return AddRepos(installation_id=event.installation.id, repos=added)
    if event.action == "removed" and removed:
        names = tuple(one.name for one in removed)
        because = "the app may not see it any more"
        return RemoveRepos(installation_id=event.installation.id, names=names, because=because)
    return f"the action {payloads.shown(event.action)} names no repository"


def _installed(repos: Sequence[Installable] | None) -> tuple[InstalledRepo, ...]:
    return tuple(InstalledRepo(name=_checked(one.full_name), is_private=one.private) for one in repos or ())


def _checked(full_name: str) -> str:
    """A name that may become ours; raises `MalformedRequest`."""
    if _FULL_NAME.fullmatch(full_name) is None or {".", ".."} & set(full_name.split("/")):
        raise MalformedRequest(f"{one_line(full_name, 80)!r} is not a repository's name (owner/name)")
    return full_name


# ---- people ------------------------------------------------------------------------------------------------------


def _who(person: Person | None) -> str:
    return "" if person is None else person.login or person.username or person.name or ""


def _asker(sender: Person | None) -> str:
    """Who asks; raises `MalformedRequest`, because a right must be somebody's."""
    by = one_line(_who(sender), AUTHOR_CHARACTERS_MAX)
    if not by:
        raise MalformedRequest("the body does not tell who asks (sender.login)")
    return by
