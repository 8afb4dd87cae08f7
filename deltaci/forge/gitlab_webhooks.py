"""GitLab's webhooks: what each event becomes.

Rule 1: a secret that begins with `whsec_` is a signing token: it counts by the signature of id, time and body, and
        never by being sent. Any other is a secret token, which GitLab sends along.
Rule 2: four answers in a row that are no success, and GitLab sends nothing more: what is signed and about a project
        that nobody registered is acknowledged.
Rule 3: what happened is read from the body, not from the header: a system hook wraps the events of all projects.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from typing import Final

from deltaci.domain.errors import BadSignature, MalformedRequest
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import RemoveRepo, RenameRepo
from deltaci.forge import payloads
from deltaci.forge.comments import asked_in
from deltaci.forge.payloads import Label, Number, Outcome, Payload
from deltaci.forge.webhook import (
    NAME_CHARACTERS_MAX,
    Received,
    Webhook,
    decoded,
    good_secrets,
    one_line,
    required_header,
    signed_repo,
    unregistered,
)

EVENT_HEADER: Final = "x-gitlab-event"
TOKEN_HEADER: Final = "x-gitlab-token"
# The same for every retry of one delivery; older versions know only the other one, which two deliveries may share.
KEY_HEADER: Final = "idempotency-key"
UUID_HEADER: Final = "x-gitlab-event-uuid"
SIGNATURE_HEADER: Final = "webhook-signature"
SIGNED_ID_HEADER: Final = "webhook-id"
SIGNED_AT_HEADER: Final = "webhook-timestamp"
SIGNING_TOKEN: Final = "whsec_"

STARTING_ACTIONS: Final = frozenset({"open", "reopen"})
TOLD_ELSEWHERE: Final = {
    "pipeline": "pipelines of another system start no run",
    "build": "jobs of another system start no run",
    "repository_update": "what was pushed is told by a push",
    "group_rename": "a group has another path: tell its projects with `deltaci repo set`",
    "user_rename": "a user has another name: tell their projects with `deltaci repo set`",
}
ABOUT_A_PROJECT: Final = frozenset(
    {"push", "tag_push", "merge_request", "note", "project_rename", "project_transfer", "project_destroy"}
)

_EVENT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _-]{0,63}", re.ASCII)
_KIND: Final = re.compile(r"[a-z][a-z0-9_]{0,63}", re.ASCII)
_PATH: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_.][A-Za-z0-9_.-]*)+", re.ASCII)

# ---- payloads: the fields we read, and nothing else --------------------------------------------------------------


class _Project(Payload, frozen=True, kw_only=True):
    path_with_namespace: str = ""


class _Any(Payload, frozen=True, kw_only=True):
    object_kind: str = ""
    event_name: str = ""
    project: _Project | None = None
    # of events that are about a project as such
    path_with_namespace: str = ""
    old_path_with_namespace: str = ""

    @property
    def kind(self) -> str:
        """What happened: `push`, `merge_request`, `project_rename`, ...; empty if that is not told."""
        kind = self.object_kind or self.event_name
        return kind if _KIND.fullmatch(kind) else ""

    @property
    def names(self) -> list[str]:
        """What the project was called until this event, and what it is called."""
        named = self.project.path_with_namespace if self.project is not None else ""
        return [name for name in (self.old_path_with_namespace, named or self.path_with_namespace) if name]


class _Person(Payload, frozen=True, kw_only=True):
    id: int | None = None
    username: str | None = None
    name: str | None = None


class _Commit(Payload, frozen=True, kw_only=True):
    id: str
    message: str | None = None


class _Push(Payload, frozen=True, kw_only=True):
    ref: str
    before: str
    after: str
    checkout_sha: str | None = None
    user_username: str | None = None
    user_name: str | None = None
    commits: list[_Commit] | None = None


class _Change(Payload, frozen=True, kw_only=True):
    previous: object = None
    current: object = None


class _Changes(Payload, frozen=True, kw_only=True):
    draft: _Change | None = None
    work_in_progress: _Change | None = None  # what `draft` was called before
    labels: object = None
    target_branch: object = None


class _MergeRequest(Payload, frozen=True, kw_only=True):
    iid: Number
    source_branch: str
    target_branch: str
    source_project_id: int | None = None
    target_project_id: int | None = None
    author_id: int | None = None
    title: str | None = None
    state: str = "opened"
    draft: bool = False
    work_in_progress: bool = False
    updated_at: str | None = None
    last_commit: _Commit | None = None
    labels: list[Label] | None = None
    action: str = ""
    oldrev: str | None = None


class _MergeRequestEvent(Payload, frozen=True, kw_only=True):
    object_attributes: _MergeRequest
    user: _Person | None = None
    labels: list[Label] | None = None
    changes: _Changes | None = None


class _Note(Payload, frozen=True, kw_only=True):
    note: str | None = None
    noteable_type: str | None = None
    created_at: str | None = None
    system: bool = False
    action: str = "create"  # before there were others, it was not told


class _Noted(Payload, frozen=True, kw_only=True):
    iid: Number


class _NoteEvent(Payload, frozen=True, kw_only=True):
    object_attributes: _Note
    user: _Person | None = None
    merge_request: _Noted | None = None


# ---- webhooks in -------------------------------------------------------------------------------------------------


class GitLab:
    """Reads GitLab's webhooks: of a project, of a group, or of the whole instance (a system hook).

    Args:
        shared_secrets: those of webhooks of a group or of the instance.
    """

    name: Final = "gitlab"

    def __init__(self, shared_secrets: Sequence[str] = ()) -> None:
        self._shared_secrets = tuple(shared_secrets)

    def authenticate(self, webhook: Webhook, repos: Sequence[Repo]) -> Repo | None:
        """See `WebhookForge`. Paths are compared without regard to case, as GitLab does."""
        if TOKEN_HEADER not in webhook.headers and SIGNATURE_HEADER not in webhook.headers:
            raise BadSignature(f"the headers {TOKEN_HEADER} and {SIGNATURE_HEADER} are missing: set a secret token")
        ours = [repo for repo in repos if repo.forge == self.name]
        good = good_secrets(ours, self._shared_secrets, lambda secret: _is_good(webhook, secret))
        if not good:
            raise BadSignature("no registered repository has the secret that this was sent or signed with")
        return signed_repo(ours, self._shared_secrets, good, _about(webhook).names)

    def read(self, webhook: Webhook, repo: Repo | None) -> Received:
        """See `WebhookForge`."""
        delivery_id = _delivery_id(webhook)
        header = webhook.headers.get(EVENT_HEADER, "")
        if _EVENT.fullmatch(header) is None:
            raise MalformedRequest(f"the header {EVENT_HEADER} is missing, or is not the name of an event")
        about = _about(webhook)
        event = about.kind or header.removesuffix(" Hook").lower().replace(" ", "_").replace("-", "_")
        if repo is None:
            names = about.names
            why = unregistered(names[-1]) if names else TOLD_ELSEWHERE.get(event, f"the event {event} is of no project")
            return payloads.received(delivery_id, event, why)
        if repo.name.casefold() not in [name.casefold() for name in about.names]:
            raise MalformedRequest(f"the body is not about the project {repo.name}")
        if event == "merge_request":
            outcome, kept = _merge_request(decoded(webhook.body, _MergeRequestEvent), repo)
            return payloads.received(delivery_id, event, outcome, kept)
        return payloads.received(delivery_id, event, _outcome(event, webhook.body, about, repo))


def _is_good(webhook: Webhook, secret: str) -> bool:
    if secret.startswith(SIGNING_TOKEN):
        return _is_signed(webhook, secret)
    sent = webhook.headers.get(TOKEN_HEADER, "").encode("latin-1", "backslashreplace")
    # Digests, because comparing takes the same time only for equal lengths
    return hmac.compare_digest(hashlib.sha256(sent).digest(), hashlib.sha256(secret.encode()).digest())


def _is_signed(webhook: Webhook, token: str) -> bool:
    """Whether one of the signatures was made with a signing token, as Standard Webhooks has it."""
    try:
        key = base64.b64decode(token.removeprefix(SIGNING_TOKEN), validate=True)
    except ValueError:  # not base64, or not ASCII
        return False
    if key == b"":
        return False
    parts = [webhook.headers.get(name, "").encode("utf-8", "replace") for name in (SIGNED_ID_HEADER, SIGNED_AT_HEADER)]
    content = b".".join([*parts, webhook.body])
    wanted = b"v1," + base64.b64encode(hmac.digest(key, content, hashlib.sha256))
    offered = webhook.headers.get(SIGNATURE_HEADER, "").encode("utf-8", "replace").split()
    return any(hmac.compare_digest(one, wanted) for one in offered)


def _delivery_id(webhook: Webhook) -> str:
    if KEY_HEADER in webhook.headers:
        return required_header(webhook, KEY_HEADER)
    uuid = required_header(webhook, UUID_HEADER)
    return f"{uuid[:60]}.{hashlib.sha256(webhook.body).hexdigest()[:32]}"


def _about(webhook: Webhook) -> _Any:
    about = decoded(webhook.body, _Any)
    if about.kind in ABOUT_A_PROJECT and not about.names:
        raise MalformedRequest("the body names no project (project.path_with_namespace)")
    return about


def _outcome(event: str, body: bytes, about: _Any, repo: Repo) -> Outcome:
    match event:
        case "push" | "tag_push":
            return _push(decoded(body, _Push))
        case "note":
            return _note(decoded(body, _NoteEvent))
        case "project_rename" | "project_transfer":
            name = about.names[-1]
            if len(name) > NAME_CHARACTERS_MAX or _PATH.fullmatch(name) is None:
                raise MalformedRequest(f"{one_line(name, 80)!r} is not a project's path")
            if name.casefold() == repo.name.casefold():
                return f"the project is registered as {name} already"
            return RenameRepo(name=name)
        case "project_destroy":
            return RemoveRepo(because="the project was deleted")
        case _:
            return TOLD_ELSEWHERE.get(event, f"the event {event} starts no run")


def _push(push: _Push) -> Outcome:
    head = next((commit for commit in push.commits or () if commit.id == push.after), None)
    return payloads.of_push(
        payloads.Pushed(
            ref=push.ref,
            before=push.before,
            after=push.after,
            tag_commit=push.checkout_sha,
            title=(head.message or "") if head is not None else "",
            author=push.user_username or push.user_name or "",
        )
    )


def _merge_request(event: _MergeRequestEvent, repo: Repo) -> tuple[Outcome, PullRequest | None]:
    told, changes = event.object_attributes, event.changes or _Changes()
    if told.last_commit is None:
        return f"merge request {told.iid} has no commits", None
    is_author = event.user is not None and event.user.id is not None and event.user.id == told.author_id
    kept = payloads.row(
        repo,
        payloads.Told(
            number=told.iid,
            head_sha=told.last_commit.id,
            head_branch=told.source_branch,
            base_sha="",  # not told
            base_branch=told.target_branch,
            is_open=told.state == "opened" and told.action not in ("close", "merge"),
            is_fork=told.source_project_id is None or told.source_project_id != told.target_project_id,
            is_draft=told.draft or told.work_in_progress,
            # The event names who did it, and the author only by number.
            author=_who(event.user) if is_author else "",
            title=told.title or "",
            labels=payloads.labels_of(told.labels if told.labels is not None else event.labels),
            updated_at=told.updated_at,
        ),
    )
    if told.action in ("close", "merge"):
        return payloads.end_of_pull_request(kept, is_merged=told.action == "merge"), kept
    if told.action in STARTING_ACTIONS or (told.action == "update" and _starts_a_run(told, changes)):
        return payloads.run_of_pull_request(kept, f"refs/merge-requests/{kept.number}/head"), kept
    if told.action == "update" and changes.labels is not None:
        return payloads.labels_change(told.action), kept
    return payloads.changes_nothing(told.action or "(none)"), kept


def _starts_a_run(told: _MergeRequest, changes: _Changes) -> bool:
    """New commits, another target, or no draft any more."""
    draft = changes.draft or changes.work_in_progress
    is_ready = draft is not None and draft.previous is True and draft.current is False
    return bool(told.oldrev) or changes.target_branch is not None or is_ready


def _note(event: _NoteEvent) -> Outcome:
    note = event.object_attributes
    if note.noteable_type != "MergeRequest" or event.merge_request is None:
        return "a comment that is not at a merge request is no command"
    if note.action != "create":
        return "a comment that was edited is no command: write a new one"
    return asked_in(
        note.note or "",
        by=_who(event.user),
        number=event.merge_request.iid,
        at_ms=payloads.at_ms(note.created_at, "created_at of the comment"),
        is_program=note.system,
    )


def _who(person: _Person | None) -> str:
    return "" if person is None else person.username or person.name or ""
