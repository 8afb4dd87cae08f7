"""Whose code may run without anybody having looked at it: what a repository's setting says of a trigger.

Rule 1: an approval is of one commit of one pull request. A new push is held again; only attempts of the very commit
        that was approved go on without asking.
Rule 2: what is not known holds: no author, no earlier approval found. Nothing that a change itself says is believed.
Rule 3: asking for a run again approves nothing, whoever asks: there is one word that lets code of strangers run.
"""

import re
from typing import Final

import msgspec

from deltaci.domain.events import Hold, Trigger
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Approve
from deltaci.domain.run import Run, is_held

_USER: Final = re.compile(r"(?<=://)[^/?#]*@")
_PASSWORD: Final = re.compile(r"(?<=://)([^/?#:@]*):[^/?#]*(?=@)")
WHOLE_SHA: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Clearance(msgspec.Struct, frozen=True):
    """How a run is created: held, or not. `approved_by`: who approved its commit before, so that it is not."""

    hold: Hold = ""
    approved_by: str = ""


def is_asked(repo: Repo, trigger: Trigger) -> bool:
    """Whether the repository asks somebody before it runs such a trigger, as long as nothing more is known."""
    return trigger.is_fork and repo.approval != "none"


def clearance(repo: Repo, trigger: Trigger, *, earlier: Run | None, is_author_known: bool) -> Clearance:
    """What a new run of `trigger` waits for.

    Args:
        earlier: the newest attempt of the same run key; that is: of this commit of this pull request.
        is_author_known: whether a run of the trigger's author was approved in this repository, whatever its commit.
    """
    if not is_asked(repo, trigger):
        return Clearance()
    if earlier is not None and earlier.key.commit_sha == trigger.commit_sha and earlier.approved_by:
        return Clearance("approval", earlier.approved_by)
    if repo.approval == "first_time" and is_author_known and trigger.author:
        return Clearance()
    return Clearance("approval")


def approved_author(run: Run) -> str:
    """Whose first run it was that somebody let go on: the author of an approved run, nobody's for any other."""
    return run.trigger.author if run.approved_by else ""


def without_password(clone_url: str) -> str:
    """The address that a runner is told for code of a stranger: whatever credentials were written into it are cut out.

    The user of an ssh address is no secret, and stays.
    """
    if clone_url.startswith(("http://", "https://")):
        return _USER.sub("", clone_url, count=1)
    return _PASSWORD.sub(r"\1", clone_url, count=1)


def meant_by(request: Approve, held: Run) -> str:
    """Why `request` does not mean the held run of its pull request; empty if it does.

    A commit that is named is named whole: a part of one can be made to fit another commit. A comment that names none
    means what its writer can have seen: a run that is younger than the comment is of a later push.
    """
    if held.key.pr_number != request.pr_number or not is_held(held):
        return "it is not one of the pull request that waits"
    if request.commit_sha:
        if not WHOLE_SHA.fullmatch(request.commit_sha):
            return f"{request.commit_sha} is not a whole commit id"
        return "" if held.key.commit_sha == request.commit_sha else f"it is of commit {held.key.commit_sha}"
    if held.created_at_ms >= request.at_ms:
        return f"commit {held.key.commit_sha} came after that was written"
    return ""
