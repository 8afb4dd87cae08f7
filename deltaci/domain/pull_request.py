"""A pull or merge request as the forge told of it last."""

from collections.abc import Iterable

import msgspec

from deltaci.domain.events import Trigger


class PullRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One row a request, replaced whenever an event or a look at the forge tells something newer.

    `head_ref` is a full ref name in the repository that the change comes from, which is another one if `is_fork`.
    `base_sha` and `author` are empty where the forge does not tell them. `updated_at_ms` is the forge's: an event that
    is older than the row changes nothing. `head_at_ms`: when the forge first told of this head, by its clock.
    """

    repo_id: str
    number: int
    head_sha: str
    head_ref: str
    base_ref: str
    base_sha: str
    is_open: bool = True
    is_fork: bool = False
    is_draft: bool = False
    author: str = ""
    title: str = ""
    labels: tuple[str, ...] = ()
    updated_at_ms: int = 0
    head_at_ms: int = 0


def newer(known: PullRequest | None, told: PullRequest) -> PullRequest | None:
    """What to store of `told`; None if `known` is as new.

    What was known stays where an event leaves it out: the author, and the head of the base branch if it is the same.
    """
    if known is None:
        return msgspec.structs.replace(told, head_at_ms=told.updated_at_ms)
    told = msgspec.structs.replace(
        told,
        head_at_ms=known.head_at_ms if told.head_sha == known.head_sha else told.updated_at_ms,
        author=told.author or known.author,
        base_sha=told.base_sha or (known.base_sha if told.base_ref == known.base_ref else ""),
    )
    if told.updated_at_ms < known.updated_at_ms or told == known:
        return None
    return told


def is_late(known: PullRequest | None, told: PullRequest | None) -> bool:
    """Whether an event was overtaken by the end of its pull request: what it asks for is wanted no more."""
    return known is not None and told is not None and not known.is_open and told.updated_at_ms < known.updated_at_ms


def left_to(trigger: Trigger, open_ones: Iterable[PullRequest]) -> PullRequest | None:
    """The open pull request whose own event runs the commit of this push; None if it is the push that has to."""
    if trigger.kind != "push":
        return None
    return next((one for one in open_ones if one.is_open and not one.is_fork and one.head_ref == trigger.ref), None)


def may_approve(known: PullRequest, commit_sha: str, at_ms: int) -> str:
    """Why an approval does not count for the head as the forge told of it; empty if it does.

    Args:
        commit_sha: what was approved; empty for "the head", as a comment does.
        at_ms: when that was written, by the forge's clock; 0 if not told. In the very second of a push, nobody can
            have seen what was pushed.
    """
    if not known.is_open:
        return f"pull request {known.number} is closed"
    if commit_sha and commit_sha != known.head_sha:
        return f"the head of pull request {known.number} is {known.head_sha} now: approve that one"
    if not commit_sha and at_ms <= known.head_at_ms:
        return f"{known.head_sha} came after it was written: look at it, and write it again"
    return ""


def number_of(stream: str) -> int | None:
    """The number of the pull request that a stream is about; None for branches and all else."""
    kind, _, number = stream.partition(":")
    return int(number) if kind == "pr" and number.isdecimal() else None
