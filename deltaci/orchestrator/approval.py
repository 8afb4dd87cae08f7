"""Letting a held run go on that somebody approved at the forge: which run of the pull request was meant, if any."""

from collections.abc import AsyncIterator
from typing import Final

from deltaci.domain import trust
from deltaci.domain.pull_request import may_approve
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Approve
from deltaci.domain.run import Run, is_held
from deltaci.domain.states import RunState
from deltaci.store.port import Store

PAGE: Final = 200


async def held_run(store: Store, repo: Repo, request: Approve) -> Run | str:
    """The held run that `request` means; or, in words, why it means none.

    By its id, by the whole commit, or, in a comment that names neither, the newest one, if it is of the head as the
    forge told of it last, and both were there before the comment was written.
    """
    if request.run_id:
        run = await store.load_run(request.run_id)
        if run is None or run.key.repo_id != repo.id:
            return f"{repo.name} has no run {request.run_id[:100]!r}"
        return run if is_held(run) else f"run {run.id} does not wait for approval"
    held = [run async for run in _held_runs(store, repo.id, request.pr_number)]
    if not held:
        return f"nothing of pull request {request.pr_number} waits for approval"
    known = await store.pull_request(repo.id, request.pr_number)
    if known is not None and (why := may_approve(known, request.commit_sha, request.at_ms)):
        return why
    # Without a commit the newest alone can be meant: what it superseded, or will, is not what people look at.
    candidates = held if request.commit_sha else held[:1]
    why = ""
    for run in candidates:
        why = trust.meant_by(request, run)
        if not why and not request.commit_sha and known is not None and known.head_sha != run.key.commit_sha:
            why = f"the head is commit {known.head_sha} by now, whose run is not here yet"
        if not why:
            return run
    return f"run {candidates[-1].id} was not approved: {why}; look at it, and name the commit: /approve COMMIT"


def approved(run: Run, by: str) -> str:
    """In words, what came of an approval."""
    return f"run {run.id} of commit {run.key.commit_sha} was approved by {by}"


async def _held_runs(store: Store, repo_id: str, pr_number: int) -> AsyncIterator[Run]:
    """The held runs of a pull request, the newest first."""
    before: str | None = None
    while page := await store.list_runs(repo_id=repo_id, state=RunState.CREATED, before=before, limit=PAGE):
        for summary in page:
            if summary.run.key.pr_number == pr_number and is_held(summary.run):
                yield summary.run
        before = page[-1].run.id
