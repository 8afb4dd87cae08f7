"""What the payloads of all forges come down to: pushes, pull requests, and what people say at them.

Rule 1: a forge's own file names the fields of its payloads and nothing else; what they mean is decided here, once.
Rule 2: what starts nothing, ends nothing and asks for nothing says why, as half a sentence for people.
Rule 3: text from outside is one line, bounded and printable, before it gets anywhere.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Annotated, Final, TypeAlias

import msgspec

from deltaci.domain.errors import MalformedRequest
from deltaci.domain.events import Trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import EndStream, Request
from deltaci.forge.webhook import (
    AUTHOR_CHARACTERS_MAX,
    TITLE_CHARACTERS_MAX,
    Received,
    full_ref,
    object_id,
    object_id_or_none,
    one_line,
    push_stream,
)

# GitHub allows 100 of at most 50 characters each
LABELS_MAX: Final = 100
LABEL_CHARACTERS_MAX: Final = 100
ACTION_CHARACTERS_MAX: Final = 50

MERGE_QUEUE: Final = "refs/heads/gh-readonly-queue/"

# What a webhook becomes: a run, a request, or why neither.
Outcome: TypeAlias = Trigger | Request | str
Number: TypeAlias = Annotated[int, msgspec.Meta(gt=0, le=2**53)]


class Payload(msgspec.Struct, frozen=True, kw_only=True):
    """The fields that are read of a JSON object; all others are passed over."""


class Label(Payload, frozen=True, kw_only=True):
    """A label; GitLab calls its name `title`."""

    name: str = ""
    title: str = ""


def received(delivery_id: str, event: str, outcome: Outcome, pull_request: PullRequest | None = None) -> Received:
    """A delivery with what it becomes in its place."""
    match outcome:
        case str():
            return Received(delivery_id=delivery_id, event=event, ignored=outcome, pull_request=pull_request)
        case Trigger():
            return Received(delivery_id=delivery_id, event=event, trigger=outcome, pull_request=pull_request)
        case _:
            return Received(delivery_id=delivery_id, event=event, request=outcome, pull_request=pull_request)


def shown(action: str) -> str:
    """An action, fit to be shown."""
    return one_line(action, ACTION_CHARACTERS_MAX)


def at_ms(text: str | None, field: str) -> int:
    """A time of a payload as milliseconds since the epoch, UTC; 0 if there is none; raises `MalformedRequest`.

    All of ISO 8601, and GitLab's `2015-05-17 18:21:36 UTC`.
    """
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(text.removesuffix(" UTC"))
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        return max(0, int(aware.timestamp() * 1000))
    except (ValueError, OverflowError) as error:
        raise MalformedRequest(f"{field} is not a time: {one_line(text, 80)!r}") from error


# ---- pushes ------------------------------------------------------------------------------------------------------


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """A push as all forges tell it. `tag_commit`: what a tag means; `after` may be the tag object."""

    ref: str
    before: str
    after: str
    tag_commit: str | None = None
    is_deleted: bool = False
    is_forced: bool = False
    title: str = ""
    author: str = ""


def of_push(pushed: Pushed) -> Trigger | EndStream | str:
    """A run of what was pushed; a deletion ends the runs of what is gone."""
    name = full_ref(pushed.ref)
    before, after = object_id_or_none(pushed.before, "before"), object_id_or_none(pushed.after, "after")
    stream = push_stream(name)
    if stream is None:
        return f"{name} is neither a branch nor a tag"
    if name.startswith(MERGE_QUEUE):
        return f"{name} is a branch of the merge queue, whose groups are events of their own"
    if pushed.is_deleted or after is None:
        return of_deletion(name)
    if before == after:
        return f"{name} did not change: a push from nowhere to nowhere is how a forge tries a webhook"
    is_tag = stream.startswith("tag:")
    if is_tag and pushed.tag_commit is not None:
        after = object_id(pushed.tag_commit, "the commit of the tag")
    return Trigger(
        kind="push",
        ref=name,
        commit_sha=after,
        base_sha=None if is_tag else before,  # the place where a tag was before says nothing about what changed
        stream=stream,
        is_forced=pushed.is_forced,
        title=one_line(pushed.title, TITLE_CHARACTERS_MAX),
        author=one_line(pushed.author, AUTHOR_CHARACTERS_MAX),
    )


def of_deletion(name: str) -> EndStream | str:
    """The end of the runs of a branch or tag, by its full name."""
    stream = push_stream(full_ref(name))
    if stream is None or name.startswith(MERGE_QUEUE):
        return f"{name} was deleted, and has no runs of its own"
    kind, _, short = stream.partition(":")
    return EndStream(stream=stream, because=f"the {kind} {short} was deleted")


# ---- pull requests -----------------------------------------------------------------------------------------------


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """A pull or merge request as all forges tell it.

    `base_sha` is empty if it is not told, and so is `author`. The two branches may be short names.
    """

    number: int
    head_sha: str
    head_branch: str
    base_sha: str
    base_branch: str
    is_open: bool
    is_fork: bool
    is_draft: bool
    author: str
    title: str
    labels: tuple[str, ...]
    updated_at: str | None


def row(repo: Repo, told: Told) -> PullRequest:
    """What is kept of it."""
    return PullRequest(
        repo_id=repo.id,
        number=told.number,
        head_sha=object_id(told.head_sha, "the head of the pull request"),
        head_ref=branch(told.head_branch),
        base_ref=branch(told.base_branch),
        base_sha=object_id(told.base_sha, "the base of the pull request") if told.base_sha else "",
        is_open=told.is_open,
        is_fork=told.is_fork,
        is_draft=told.is_draft,
        author=one_line(told.author, AUTHOR_CHARACTERS_MAX),
        title=one_line(told.title, TITLE_CHARACTERS_MAX),
        labels=told.labels,
        updated_at_ms=at_ms(told.updated_at, "updated_at of the pull request"),
    )


def run_of_pull_request(kept: PullRequest, ref: str) -> Trigger:
    """The run of its head against its base. `ref`: where the head can be fetched from in the repository itself."""
    return Trigger(
        kind="pull_request",
        ref=full_ref(ref),
        commit_sha=kept.head_sha,
        base_sha=kept.base_sha or None,
        base_ref=kept.base_ref,
        pr_number=kept.number,
        stream=f"pr:{kept.number}",
        is_fork=kept.is_fork,
        labels=kept.labels,
        title=kept.title,
        author=kept.author,
    )


def end_of_pull_request(kept: PullRequest, *, is_merged: bool) -> EndStream:
    """Nobody waits for its runs any more."""
    how = "merged" if is_merged else "closed"
    return EndStream(stream=f"pr:{kept.number}", because=f"pull request {kept.number} was {how}")


def labels_change(action: str) -> str:
    """Why another label alone starts nothing: which ones matter is said in the repository, where nobody has looked yet.

    The label is kept with the pull request.
    """
    return f"the action {shown(action)} starts no run: a label counts from the next push on"


def changes_nothing(action: str) -> str:
    """Why an action has no run."""
    return f"the action {shown(action)} changes nothing that a run would look at"


def labels_of(labels: Iterable[Label] | None) -> tuple[str, ...]:
    """Names of labels, bounded, in order."""
    named = [label.name or label.title for label in labels or () if label.name or label.title]
    return tuple(sorted(one_line(name, LABEL_CHARACTERS_MAX) for name in named[:LABELS_MAX]))


def branch(name: str) -> str:
    """The full name of a branch, from its short or full one; raises `MalformedRequest`."""
    return full_ref(name if name.startswith("refs/") else f"refs/heads/{name}")


def is_other_repository(name: str | None, base: str) -> bool:
    """Whether the head of a pull request is in another repository; one that has no name any more is."""
    return not name or name.casefold() != base.casefold()


# ---- repositories ------------------------------------------------------------------------------------------------


def address_like(known: str, *, https: str, ssh: str) -> str:
    """Of the two addresses of a renamed repository the one of the kind that it was cloned from; empty to keep that."""
    if known.startswith(("https://", "http://")):
        return one_line(https, 2_000)
    is_ssh = known.startswith("ssh://") or ("@" in known and "://" not in known)
    return one_line(ssh, 2_000) if is_ssh else ""
