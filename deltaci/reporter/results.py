"""How each kind of forge is told: commit statuses and a comment, or one document for plain git."""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from deltaci.domain.repo import Repo
from deltaci.forge.api import Status, StatusState
from deltaci.forge.git import GitResults
from deltaci.reporter.comment import Comments, comment, comment_key, marker
from deltaci.reporter.desired import Check, CheckState, desired
from deltaci.reporter.document import document, document_digest
from deltaci.reporter.ports import Memory, Sent, Snapshot
from deltaci.reporter.summary import Shown
from deltaci.reporter.tellings import COMMENT, Rank, Telling, digest_of, is_told_early, rank

# What a commit status says of a check. GitLab counts a skipped job among those that succeeded; the others know no such
# state, and waiting for them would never end: there it is green.
_STATUSES: Final[Mapping[CheckState, StatusState]] = {
    "queued": "queued",
    "running": "running",
    "success": "success",
    "neutral": "success",
    "skipped": "success",
    "failure": "failure",
    "timed_out": "failure",
    "error": "error",
    "canceled": "canceled",
}


class StatusesApi(Protocol):
    """A forge that takes commit statuses: see `ForgeApi`."""

    async def set_status(self, repo: Repo, commit_sha: str, status: Status) -> None:
        """See `ForgeApi`."""
        ...


class CommentsApi(Protocol):
    """A forge that takes comments: see `ForgeApi`."""

    async def put_comment(self, repo: Repo, number: int, body: str, *, marker: str, remote_id: str | None) -> str:
        """See `ForgeApi`."""
        ...


def shown_of(snapshot: Snapshot) -> Shown:
    """The checks of the run, with everything that there is to tell of them."""
    run, jobs, plan = snapshot.run, snapshot.jobs, snapshot.plan
    return Shown(
        run=run,
        jobs=jobs,
        checks=desired(run, jobs, snapshot.explanations, plan, snapshot.base_url),
        explanations=snapshot.explanations,
        plan=plan,
        base_url=snapshot.base_url,
    )


class StatusResults:
    """A commit status for each job and one for the run, and the comment at its pull request."""

    def __init__(
        self,
        api: StatusesApi,
        *,
        account: Callable[[Repo], str] | None = None,
        comments_api: CommentsApi | None = None,
        comments: Comments = "helpful",
    ) -> None:
        """Tell `api`; without `comments_api` no comment is written. `account`: whose budget of writes a repository has.

        Only GitHub bounds what may be written in a minute: elsewhere there is no `account`.
        """
        self._api = api
        self._account = account
        self._comments_api = comments_api
        self._comments: Comments = comments if comments_api is not None else "never"

    def account(self, repo: Repo) -> str | None:
        """See `ResultsPort`."""
        return self._account(repo) if self._account is not None else None

    def reads_reports(self, _repo: Repo) -> bool:
        """See `ResultsPort`: a status has no lines."""
        return False

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """See `ResultsPort`."""
        shown = shown_of(snapshot)
        is_bounded = self.account(snapshot.repo) is not None
        tellings = [
            Telling(
                check=check.name,
                state=check.state,
                words=digest_of(check.description),
                is_final=check.is_final,
                rank=rank(check),
                body=check,
            )
            for check in shown.checks
            if is_told_early(check, len(snapshot.jobs)) or not is_bounded
        ]
        return (*tellings, *comment(snapshot, shown, self._comments))

    async def send(self, snapshot: Snapshot, telling: Telling, memory: Memory) -> Sent:
        """See `ResultsPort`."""
        if telling.check == COMMENT:
            assert self._comments_api is not None, "without it none is wanted"
            return await send_comment(self._comments_api, snapshot, telling, memory)
        check, repo = telling.body, snapshot.repo
        assert isinstance(check, Check), "`wanted` makes them"
        status = Status(
            context=check.context,
            state=status_state(repo, check.state),
            description=check.description,
            target_url=check.target_url,
            ref=branch_of(snapshot),
        )
        await self._api.set_status(repo, snapshot.run.trigger.commit_sha, status)
        return Sent()


class GitDocuments:
    """One document a run, told again whenever something in it changed."""

    def __init__(self, results: GitResults) -> None:
        self._results = results

    def account(self, _repo: Repo) -> str | None:
        """See `ResultsPort`."""
        return None

    def reads_reports(self, _repo: Repo) -> bool:
        """See `ResultsPort`."""
        return False

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """See `ResultsPort`."""
        data = document(snapshot.run, snapshot.jobs, snapshot.explanations, snapshot.plan, snapshot.base_url)
        words = document_digest(data)
        return (Telling(check="", state="document", words=words, is_final=False, rank=Rank.RUN, body=data),)

    async def send(self, snapshot: Snapshot, telling: Telling, _memory: Memory) -> Sent:
        """See `ResultsPort`."""
        run, data = snapshot.run, telling.body
        assert isinstance(data, bytes), "`wanted` makes them"
        key = f"{run.id}:{telling.words[:16]}"
        await self._results.publish(snapshot.repo, run.trigger.commit_sha, data, key=key)
        return Sent()


async def send_comment(api: CommentsApi, snapshot: Snapshot, telling: Telling, memory: Memory) -> Sent:
    """Write or rewrite the comment; its id is kept with the telling. A crash between the two finds it by its marker."""
    number, repo = snapshot.run.trigger.pr_number, snapshot.repo
    assert number is not None and isinstance(telling.body, str), "`comment` makes them"  # noqa: PT018 - one claim
    key = comment_key(number)
    remote_id = await memory.recall(key)
    mark = marker(repo.id, number)
    given = await api.put_comment(repo, number, telling.body, marker=mark, remote_id=remote_id)
    return Sent(notes=() if given == remote_id else ((key, given),))


def status_state(repo: Repo, state: CheckState) -> StatusState:
    """What a commit status says of a check; green is green on every forge."""
    return "skipped" if state == "skipped" and repo.forge == "gitlab" else _STATUSES[state]


def branch_of(snapshot: Snapshot) -> str:
    """The short name of the branch or tag that a status is of; empty for a commit of another repository."""
    known, trigger = snapshot.pull_request, snapshot.run.trigger
    if trigger.pr_number is None:
        ref = trigger.ref
    else:
        ref = known.head_ref if known is not None and not known.is_fork else ""
    for prefix in ("refs/heads/", "refs/tags/"):
        if ref.startswith(prefix):
            return ref.removeprefix(prefix)
    return ""
