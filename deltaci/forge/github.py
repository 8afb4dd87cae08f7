"""GitHub's webhooks.

Rule 1: one secret may sign for many repositories: the signature is checked first, then the name is read, and the
        repository is looked for among those registered with the secret that signed.
Rule 2: an event that starts nothing says why.
"""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from deltaci.domain.errors import BadSignature, MalformedRequest, NotFound
from deltaci.domain.events import Trigger
from deltaci.domain.repo import Repo
from deltaci.forge.webhook import (
    AUTHOR_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
    Received,
    Webhook,
    claimed_digest,
    decoded,
    full_ref,
    is_signed,
    object_id,
    object_id_or_none,
    one_line,
    push_stream,
    required_header,
)

SIGNATURE_HEADER: Final = "x-hub-signature-256"
EVENT_HEADER: Final = "x-github-event"
DELIVERY_HEADER: Final = "x-github-delivery"

STARTING_ACTIONS: Final = frozenset({"opened", "synchronize", "reopened", "ready_for_review"})
# GitHub allows 100 of at most 50 characters each
LABELS_MAX: Final = 100
LABEL_CHARACTERS_MAX: Final = 100

# ---- payloads: the fields we read, and nothing else --------------------------------------------------------------


class _Payload(msgspec.Struct, frozen=True, kw_only=True):
    pass


class _Named(_Payload, frozen=True, kw_only=True):
    full_name: str = ""


class _Any(_Payload, frozen=True, kw_only=True):
    repository: _Named | None = None


class _Person(_Payload, frozen=True, kw_only=True):
    login: str | None = None
    name: str | None = None
    username: str | None = None


class _Commit(_Payload, frozen=True, kw_only=True):
    id: str
    message: str | None = None
    author: _Person | None = None


class _Push(_Payload, frozen=True, kw_only=True):
    repository: _Named
    ref: str
    before: str
    after: str
    deleted: bool = False
    forced: bool = False
    head_commit: _Commit | None = None
    pusher: _Person | None = None


class _Side(_Payload, frozen=True, kw_only=True):
    sha: str
    repo: _Named | None = None  # null when the fork was deleted


class _Label(_Payload, frozen=True, kw_only=True):
    name: str = ""


class _PullRequest(_Payload, frozen=True, kw_only=True):
    labels: list[_Label] | None = None
    head: _Side
    base: _Side
    title: str | None = None
    user: _Person | None = None


class _Changes(_Payload, frozen=True, kw_only=True):
    base: dict[str, object] | None = None


class _PullRequestEvent(_Payload, frozen=True, kw_only=True):
    repository: _Named
    action: str
    number: Annotated[int, msgspec.Meta(gt=0, le=2**53)]
    pull_request: _PullRequest
    changes: _Changes | None = None


# ---- webhooks in -------------------------------------------------------------------------------------------------


class GitHub:
    """Reads GitHub's webhooks (content type application/json)."""

    name: Final = "github"

    def authenticate(self, webhook: Webhook, repos: Sequence[Repo]) -> Repo:
        """See `WebhookForge`. The repository's name is compared without regard to case, as GitHub does."""
        claimed = claimed_digest(webhook, SIGNATURE_HEADER)
        ours = [repo for repo in repos if repo.forge == self.name]
        # Every secret is tried, also after one matched: how long it takes must not tell which one it was.
        signed = {
            secret for secret in dict.fromkeys(repo.secret for repo in ours) if is_signed(secret, webhook.body, claimed)
        }
        if not signed:
            raise BadSignature("no registered repository has the secret that signed this")
        full_name = _full_name(webhook)
        for repo in ours:
            if repo.secret in signed and repo.name.casefold() == full_name.casefold():
                return repo
        shown = one_line(full_name, 200)
        raise NotFound(f"the repository {shown!r} is not registered with the secret that signed this: add it first")

    def read(self, webhook: Webhook, repo: Repo) -> Received:
        """See `WebhookForge`."""
        delivery_id = required_header(webhook, DELIVERY_HEADER)
        event = required_header(webhook, EVENT_HEADER, is_event=True)
        if _full_name(webhook).casefold() != repo.name.casefold():
            raise MalformedRequest(f"the body is not about the repository {repo.name}")
        answer: Trigger | str
        match event:
            case "push":
                answer = _read_push(decoded(webhook.body, _Push))
            case "pull_request":
                answer = _read_pull_request(decoded(webhook.body, _PullRequestEvent))
            case "ping":
                answer = "ping"
            case _:
                answer = f"the event {event} starts no run"
        if isinstance(answer, str):
            return Received(delivery_id=delivery_id, event=event, ignored=answer)
        return Received(delivery_id=delivery_id, event=event, trigger=answer)


def _full_name(webhook: Webhook) -> str:
    if webhook.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        raise MalformedRequest("set the content type of the webhook to application/json")
    repository = decoded(webhook.body, _Any).repository
    if repository is None or not repository.full_name:
        raise MalformedRequest("the body names no repository (repository.full_name)")
    return repository.full_name


def _read_push(push: _Push) -> Trigger | str:
    name = full_ref(push.ref)
    before, after = object_id_or_none(push.before, "before"), object_id_or_none(push.after, "after")
    stream = push_stream(name)
    if stream is None:
        return f"{name} is neither a branch nor a tag"
    if push.deleted or after is None:
        return f"{name} was deleted"
    if name.startswith("refs/heads/gh-readonly-queue/"):
        return f"{name} is a branch of the merge queue"
    is_tag = stream.startswith("tag:")
    head = push.head_commit
    if is_tag and head is not None:
        after = object_id(head.id, "head_commit.id")  # `after` of an annotated tag is the tag object, not a commit
    author = _who(push.pusher) or (_who(head.author) if head is not None else "")
    return Trigger(
        kind="push",
        ref=name,
        commit_sha=after,
        base_sha=None if is_tag else before,  # the place where a tag was before says nothing about what changed
        stream=stream,
        is_forced=push.forced,
        title=one_line(head.message or "", TITLE_CHARACTERS_MAX) if head is not None else "",
        author=one_line(author, AUTHOR_CHARACTERS_MAX),
    )


def _read_pull_request(event: _PullRequestEvent) -> Trigger | str:
    action = one_line(event.action, 50)
    has_new_base = action == "edited" and event.changes is not None and event.changes.base is not None
    if action == "closed":
        return f"pull request {event.number} was closed"
    if action not in STARTING_ACTIONS and not has_new_base:
        return f"the action {action} changes nothing that a run would look at"
    head, base = event.pull_request.head, event.pull_request.base
    base_name = base.repo.full_name if base.repo is not None else event.repository.full_name
    return Trigger(
        kind="pull_request",
        ref=f"refs/pull/{event.number}/head",
        commit_sha=object_id(head.sha, "pull_request.head.sha"),
        base_sha=object_id(base.sha, "pull_request.base.sha"),
        pr_number=event.number,
        stream=f"pr:{event.number}",
        is_fork=head.repo is None or head.repo.full_name.casefold() != base_name.casefold(),
        labels=_labels(event.pull_request),
        title=one_line(event.pull_request.title or "", TITLE_CHARACTERS_MAX),
        author=one_line(_who(event.pull_request.user), AUTHOR_CHARACTERS_MAX),
    )


def _labels(pull_request: _PullRequest) -> tuple[str, ...]:
    named = [label.name for label in pull_request.labels or () if label.name]
    return tuple(sorted(one_line(name, LABEL_CHARACTERS_MAX) for name in named[:LABELS_MAX]))


def _who(person: _Person | None) -> str:
    return "" if person is None else person.login or person.username or person.name or ""
