"""What a look at the forge shows that no webhook told: a lost one, or two that came in the wrong order. Pure.

Rule 1: what a webhook told already is found again under the same run key: a look and a late webhook are one run.
Rule 2: the first look starts nothing for what is older than our knowledge of the repository: it only takes note.
Rule 3: what is missed is admitted as a delivery of its own, whose id says what was seen: looking again changes nothing.
"""

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

import msgspec

from deltaci.domain.events import RunKey, Trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Forge, Latest, Repo, StartRun, admit, run_key
from deltaci.domain.requests import EndStream, Request

# How often a delivery that is not in the ledger is asked for: one that we refuse would be asked for again for ever.
REDELIVERIES_MAX: Final = 3

_PULL_REF: Final[Mapping[Forge, str]] = {
    "github": "refs/pull/{}/head",
    "gitlab": "refs/merge-requests/{}/head",
    "gitea": "refs/pull/{}/head",
}


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What the forge shows now. `gone`: those that we thought open and it does not list, None for one that it denies.

    `heads`: the commits of the watched branches by full ref name.
    """

    pull_requests: tuple[PullRequest, ...]
    gone: Mapping[int, PullRequest | None]
    heads: Mapping[str, str]


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored: pull requests that are open as far as we know, by number, and what was noted of earlier looks.

    `heads`: by full ref name, of a pull request by `pr:<number>`; the commit that is dealt with. None before any look.
    """

    pull_requests: Mapping[int, PullRequest]
    heads: Mapping[str, str] | None


class Missed(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery that should have come: a trigger or a request, and what it tells of a pull request."""

    delivery_id: str
    trigger: Trigger | None = None
    request: Request | None = None
    pull_request: PullRequest | None = None


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What to admit, what to note as dealt with once that is done, and what to forget (by the keys of `Known.heads`).

    `told`: pull requests that start nothing and are to be kept as they are now.
    """

    missed: tuple[Missed, ...]
    dealt: Mapping[str, str]
    forget: tuple[str, ...]
    told: tuple[PullRequest, ...]


# The newest run attempt under a key, as stored.
LatestOf: TypeAlias = Callable[[RunKey], Latest | None]


def pull_request_trigger(forge: Forge, one: PullRequest) -> Trigger:
    """What an event would have asked for."""
    return Trigger(
        kind="pull_request",
        ref=_PULL_REF[forge].format(one.number),
        commit_sha=one.head_sha,
        base_sha=one.base_sha or None,
        base_ref=one.base_ref,
        pr_number=one.number,
        stream=f"pr:{one.number}",
        is_fork=one.is_fork,
        labels=one.labels,
        title=one.title,
        author=one.author,
    )


def branch_trigger(ref: str, commit_sha: str, base_sha: str | None) -> Trigger:
    """What a push would have asked for; `base_sha`: the head that we knew."""
    branch = ref.removeprefix("refs/heads/")
    return Trigger(kind="push", ref=ref, commit_sha=commit_sha, base_sha=base_sha, stream=f"branch:{branch}")


def asked_for(repo: Repo, look: Look) -> tuple[RunKey, ...]:
    """The keys whose newest runs `missed` wants to know of."""
    pulls = (pull_request_trigger(repo.forge, one) for one in look.pull_requests)
    pushes = (branch_trigger(ref, sha, None) for ref, sha in look.heads.items())
    return tuple(run_key(repo.id, trigger) for trigger in (*pulls, *pushes))


def missed(repo: Repo, look: Look, known: Known, latest_of: LatestOf) -> Found:
    """Compare a look with what is stored."""
    heads = known.heads or {}
    found: list[Missed] = []
    for one in look.pull_requests:
        trigger = pull_request_trigger(repo.forge, one)
        latest = latest_of(run_key(repo.id, trigger))
        is_old = known.heads is None and one.updated_at_ms <= repo.created_at_ms
        before = known.pull_requests.get(one.number)
        has_other_base = latest is not None and before is not None and before.base_ref != one.base_ref
        is_noted = is_old or heads.get(f"pr:{one.number}") == one.head_sha
        if has_other_base or _is_missed(latest, is_noted=is_noted):
            name = f"look:pr:{one.number}:{one.head_sha}:{_attempt(latest)}"
            found.append(Missed(delivery_id=name, trigger=trigger, pull_request=one))
    for ref, sha in look.heads.items():
        trigger = branch_trigger(ref, sha, heads.get(ref))
        latest = latest_of(run_key(repo.id, trigger))
        if _is_missed(latest, is_noted=known.heads is None or heads.get(ref) == sha):
            found.append(Missed(delivery_id=f"look:{ref}:{sha}:{_attempt(latest)}", trigger=trigger))
    ended, forget = _ended(look, known)
    dealt = {f"pr:{one.number}": one.head_sha for one in look.pull_requests} | dict(look.heads)
    started = {one.pull_request.number for one in found if one.pull_request is not None}
    return Found(
        missed=(*found, *ended),
        dealt={key: sha for key, sha in dealt.items() if heads.get(key) != sha},
        forget=forget,
        told=tuple(one for one in look.pull_requests if one.number not in started),
    )


def _is_missed(latest: Latest | None, *, is_noted: bool) -> bool:
    """A head without a run that nobody noted, or one whose run had to make room for that of an older commit."""
    return not is_noted if latest is None else isinstance(admit(latest), StartRun)


def _attempt(latest: Latest | None) -> int:
    return 1 if latest is None else latest.attempt + 1


def _ended(look: Look, known: Known) -> tuple[list[Missed], tuple[str, ...]]:
    """What is no longer there: pull requests that were open, branches that had a head."""
    ended, forget = [], []
    for number, one in look.gone.items():
        before = known.pull_requests.get(number)
        if before is None or (one is not None and one.is_open):
            continue
        now = one or msgspec.structs.replace(before, is_open=False)
        request = EndStream(stream=f"pr:{number}", because=f"pull request {number} was closed")
        name = f"look:closed:{number}:{before.head_sha}:{now.updated_at_ms}"
        ended.append(Missed(delivery_id=name, request=request, pull_request=now))
        forget.append(f"pr:{number}")
    for key, sha in (known.heads or {}).items():
        if key.startswith("refs/") and key not in look.heads:
            branch = key.removeprefix("refs/heads/")
            request = EndStream(stream=f"branch:{branch}", because=f"branch {branch} was deleted")
            ended.append(Missed(delivery_id=f"look:deleted:{key}:{sha}", request=request))
            forget.append(key)
    return ended, tuple(forget)


class RemoteDelivery(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook as GitHub remembers it. `guid` is the same for every try of it; `status_code` 0: nobody answered."""

    id: int
    guid: str
    delivered_at_ms: int
    is_redelivery: bool
    status_code: int
    event: str
    action: str
    repository_id: int | None
    installation_id: int | None

    @property
    def has_arrived(self) -> bool:
        """Whether the receiver took it."""
        return 200 <= self.status_code < 300


def to_ask_again(
    listed: tuple[RemoteDelivery, ...], known: frozenset[str], *, now_ms: int, settled_after_ms: int
) -> tuple[RemoteDelivery, ...]:
    """Of what the forge sent, what is not in the ledger and should come again: the newest attempt of each.

    Args:
        known: those guids that are in the ledger.
        settled_after_ms: what was sent more recently may be on its way.
    """
    attempts: dict[str, list[RemoteDelivery]] = {}
    for one in listed:
        attempts.setdefault(one.guid, []).append(one)
    again = []
    for guid, sent in attempts.items():
        newest = max(sent, key=lambda one: (one.delivered_at_ms, one.id))
        if guid not in known and len(sent) <= REDELIVERIES_MAX and newest.delivered_at_ms + settled_after_ms <= now_ms:
            again.append(newest)
    return tuple(sorted(again, key=lambda one: (one.delivered_at_ms, one.id)))
