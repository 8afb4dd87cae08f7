"""Letting a held run go on that somebody approved at the forge: which run of the pull request was meant, if any."""

from collections.abc import AsyncIterator
from typing import Final

from deltaci.domain import trust
from deltaci.domain.events import Cause
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Approve
from deltaci.domain.run import Run, is_held
from deltaci.domain.states import RunState
from deltaci.orchestrator.orchestrator import Orchestrator
from deltaci.store.port import Store

PAGE: Final = 200


async def approve_held(orchestrator: Orchestrator, repo: Repo, request: Approve, *, head_sha: str | None = None) -> str:
    """Approve the held run that `request` means; what came of it, as half a sentence for people.

    That whoever asks has the right is for the caller to know: ask the forge before. Asking again changes nothing.

    Args:
        head_sha: the head of the pull request as the forge says now, if it was asked: a request that names no commit
            then approves nothing else, also where the webhook of the last push was lost.

    Raises what an actor or the store raises; then nothing or all of it was stored.
    """
    held = [run async for run in _held_runs(orchestrator.ports.store, repo.id, request.pr_number)]
    if not held:
        return f"nothing of pull request {request.pr_number} waits for approval"
    # Without a commit the newest alone can be meant: what it superseded, or will, is not what people look at.
    candidates = held if request.commit_sha else held[:1]
    why = ""
    for run in candidates:
        why = trust.meant_by(request, run)
        if not why and not request.commit_sha and head_sha not in (None, run.key.commit_sha):
            why = f"the head is commit {head_sha} by now, whose run is not here yet"
        if not why:
            await orchestrator.approve(run.id, Cause("user", request.by, via=repo.forge))
            return f"run {run.id} of commit {run.key.commit_sha} was approved by {request.by}"
    return f"run {candidates[-1].id} was not approved: {why}; look at it, and name the commit: /approve COMMIT"


async def _held_runs(store: Store, repo_id: str, pr_number: int) -> AsyncIterator[Run]:
    """The held runs of a pull request, the newest first."""
    before: str | None = None
    while page := await store.list_runs(repo_id=repo_id, state=RunState.CREATED, before=before, limit=PAGE):
        for summary in page:
            if summary.run.key.pr_number == pr_number and is_held(summary.run):
                yield summary.run
        before = page[-1].run.id
