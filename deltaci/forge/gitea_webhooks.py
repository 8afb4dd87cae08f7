"""The webhooks of Gitea and Forgejo: what each event becomes.

Rule 1: the same HMAC comes under several names, of which each that is there must hold: a bad signature is not rescued
        by a good one under another name.
Rule 2: one secret may sign for many repositories: what it may sign for and nobody registered is acknowledged.
Rule 3: a pull request's event is known by its action: the name of the event differs from version to version.
"""

import re
from collections.abc import Sequence
from typing import Final

from deltaci.domain.errors import BadSignature, MalformedRequest
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import RemoveRepo
from deltaci.forge import payloads
from deltaci.forge.comments import asked_in
from deltaci.forge.payloads import Label, Number, Outcome, Payload
from deltaci.forge.webhook import (
    Received,
    Webhook,
    decoded,
    good_secrets,
    is_signed,
    required_header,
    signed_repo,
    unregistered,
)

# The first that is there counts for names; for signatures each that is there.
PREFIXES: Final = ("x-forgejo", "x-gitea")
GITHUB_SIGNATURE: Final = "x-hub-signature-256"

STARTING_ACTIONS: Final = frozenset({"opened", "synchronized", "reopened"})
LABEL_ACTIONS: Final = frozenset({"label_updated", "label_cleared"})
PULL_REQUEST_EVENTS: Final = frozenset(
    {
        "pull_request",
        "pull_request_sync",
        "pull_request_label",
        "pull_request_assign",
        "pull_request_milestone",
        "pull_request_review_request",
    }
)
COMMENT_EVENTS: Final = frozenset({"issue_comment", "pull_request_comment"})
ABOUT_A_REPOSITORY: Final = PULL_REQUEST_EVENTS | COMMENT_EVENTS | {"push", "delete", "repository"}
TOLD_ELSEWHERE: Final = {
    "status": "statuses are told by us, and start nothing",
    "create": "what was created is told by a push",
}

_HEX: Final = re.compile(r"[0-9a-fA-F]{64}", re.ASCII)

# ---- payloads: the fields we read, and nothing else --------------------------------------------------------------


class _Named(Payload, frozen=True, kw_only=True):
    full_name: str = ""


class _Any(Payload, frozen=True, kw_only=True):
    repository: _Named | None = None


class _Person(Payload, frozen=True, kw_only=True):
    login: str | None = None
    username: str | None = None
    name: str | None = None


class _Commit(Payload, frozen=True, kw_only=True):
    id: str
    message: str | None = None
    author: _Person | None = None


class _Push(Payload, frozen=True, kw_only=True):
    ref: str
    before: str
    after: str
    head_commit: _Commit | None = None
    pusher: _Person | None = None


class _Delete(Payload, frozen=True, kw_only=True):
    ref: str
    ref_type: str


class _Side(Payload, frozen=True, kw_only=True):
    sha: str
    ref: str
    repo: _Named | None = None


class _PullRequest(Payload, frozen=True, kw_only=True):
    head: _Side
    base: _Side
    labels: list[Label] | None = None
    title: str | None = None
    user: _Person | None = None
    state: str = "open"
    draft: bool = False
    merged: bool | None = None
    updated_at: str | None = None


class _Changes(Payload, frozen=True, kw_only=True):
    ref: object = None


class _PullRequestEvent(Payload, frozen=True, kw_only=True):
    action: str
    number: Number
    pull_request: _PullRequest
    repository: _Named
    changes: _Changes | None = None


class _Issue(Payload, frozen=True, kw_only=True):
    number: Number
    pull_request: object = None


class _Comment(Payload, frozen=True, kw_only=True):
    body: str | None = None
    user: _Person | None = None
    created_at: str | None = None


class _CommentEvent(Payload, frozen=True, kw_only=True):
    action: str
    issue: _Issue | None = None
    comment: _Comment | None = None  # a review has none
    is_pull: bool = False


class _RepositoryEvent(Payload, frozen=True, kw_only=True):
    action: str


# ---- webhooks in -------------------------------------------------------------------------------------------------


class Gitea:
    """Reads the webhooks of Gitea and Forgejo (content type application/json).

    Args:
        shared_secrets: those of webhooks of an organisation or of the whole instance.
    """

    name: Final = "gitea"

    def __init__(self, shared_secrets: Sequence[str] = ()) -> None:
        self._shared_secrets = tuple(shared_secrets)

    def authenticate(self, webhook: Webhook, repos: Sequence[Repo]) -> Repo | None:
        """See `WebhookForge`. Names are compared without regard to case, as Gitea does."""
        claimed = _claimed(webhook)
        ours = [repo for repo in repos if repo.forge == self.name]
        good = good_secrets(ours, self._shared_secrets, lambda secret: is_signed(secret, webhook.body, claimed))
        if not good:
            raise BadSignature("no registered repository has the secret that signed this")
        name = _name(webhook)
        return signed_repo(ours, self._shared_secrets, good, [name] if name else [])

    def read(self, webhook: Webhook, repo: Repo | None) -> Received:
        """See `WebhookForge`."""
        delivery_id = required_header(webhook, _first(webhook, "delivery"))
        event = required_header(webhook, _first(webhook, "event"), is_event=True)
        name = _name(webhook)
        if repo is None:
            why = unregistered(name) if name else f"the event {event} is about no repository"
            return payloads.received(delivery_id, event, why)
        if name.casefold() != repo.name.casefold():
            raise MalformedRequest(f"the body is not about the repository {repo.name}")
        if event in PULL_REQUEST_EVENTS:
            outcome, kept = _pull_request(decoded(webhook.body, _PullRequestEvent), repo)
            return payloads.received(delivery_id, event, outcome, kept)
        return payloads.received(delivery_id, event, _outcome(event, webhook.body))


def _claimed(webhook: Webhook) -> bytes:
    """The HMAC that the headers claim; raises `BadSignature` when they name none, or more than one."""
    claims = [webhook.headers[f"{prefix}-signature"] for prefix in PREFIXES if f"{prefix}-signature" in webhook.headers]
    if not claims:
        names = " or ".join(f"{prefix}-signature" for prefix in PREFIXES)
        raise BadSignature(f"the header {names} is missing: set a secret on the sending side")
    if GITHUB_SIGNATURE in webhook.headers:
        claims.append(webhook.headers[GITHUB_SIGNATURE].strip().removeprefix("sha256="))
    digests = {claim.strip().lower() for claim in claims}
    if len(digests) != 1 or _HEX.fullmatch(min(digests)) is None:
        raise BadSignature("the signature headers do not all hold the same 64 hexadecimal digits")
    return bytes.fromhex(min(digests))


def _first(webhook: Webhook, what: str) -> str:
    names = [f"{prefix}-{what}" for prefix in PREFIXES]
    return next((name for name in names if name in webhook.headers), names[-1])


def _name(webhook: Webhook) -> str:
    """What the event is about; empty if it is about no repository."""
    if webhook.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise MalformedRequest("set the content type of the webhook to application/json")
    repository = decoded(webhook.body, _Any).repository
    if repository is not None and repository.full_name:
        return repository.full_name
    if webhook.headers.get(_first(webhook, "event"), "") in ABOUT_A_REPOSITORY:
        raise MalformedRequest("the body names no repository (repository.full_name)")
    return ""


def _outcome(event: str, body: bytes) -> Outcome:
    match event:
        case "push":
            return _push(decoded(body, _Push))
        case "delete":
            gone = decoded(body, _Delete)
            kind = "tags" if gone.ref_type == "tag" else "heads"
            return payloads.of_deletion(gone.ref if gone.ref.startswith("refs/") else f"refs/{kind}/{gone.ref}")
        case "issue_comment" | "pull_request_comment":
            return _comment(decoded(body, _CommentEvent))
        case "repository":
            action = decoded(body, _RepositoryEvent).action
            if action == "deleted":
                return RemoveRepo(because="the repository was deleted")
            return payloads.changes_nothing(action)
        case _:
            return TOLD_ELSEWHERE.get(event, f"the event {event} starts no run")


def _push(push: _Push) -> Outcome:
    head = push.head_commit
    return payloads.of_push(
        payloads.Pushed(
            ref=push.ref,
            before=push.before,
            after=push.after,
            tag_commit=head.id if head is not None and head.id else None,
            title=(head.message or "") if head is not None else "",
            author=_who(push.pusher) or (_who(head.author) if head is not None else ""),
        )
    )


def _pull_request(event: _PullRequestEvent, repo: Repo) -> tuple[Outcome, PullRequest]:
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
    has_new_base = event.action == "edited" and event.changes is not None and event.changes.ref is not None
    if event.action == "closed":
        return payloads.end_of_pull_request(kept, is_merged=told.merged is True), kept
    if event.action in STARTING_ACTIONS or has_new_base:
        return payloads.run_of_pull_request(kept, f"refs/pull/{kept.number}/head"), kept
    if event.action in LABEL_ACTIONS:
        return payloads.labels_change(event.action), kept
    return payloads.changes_nothing(event.action), kept


def _comment(event: _CommentEvent) -> Outcome:
    comment, issue = event.comment, event.issue
    if comment is None or issue is None:
        return "a review is no command"
    if not event.is_pull and issue.pull_request is None:
        return "a comment at an issue is no command"
    if event.action != "created":
        return f"a comment that was {payloads.shown(event.action)} is no command: write a new one"
    written_at_ms = payloads.at_ms(comment.created_at, "comment.created_at")
    return asked_in(comment.body or "", by=_who(comment.user), number=issue.number, at_ms=written_at_ms)


def _who(person: _Person | None) -> str:
    return "" if person is None else person.login or person.username or person.name or ""
