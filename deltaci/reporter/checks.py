"""GitHub's checks, for our app: one check run a job and one for the run, with summary, lines of files and buttons.

Rule 1: one telling is one write: of many annotations each telling takes the next fifty along, after everything else.
Rule 2: a line that GitHub does not take must not keep it from hearing that a job failed.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

import msgspec

from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.job import Job
from deltaci.domain.plan import PlannedJob
from deltaci.domain.repo import Repo
from deltaci.domain.run import is_held
from deltaci.forge.checks import (
    ANNOTATIONS_A_REQUEST,
    Annotation,
    CheckAction,
    CheckRun,
    CheckStatus,
    Conclusion,
)
from deltaci.reporter import summary
from deltaci.reporter.annotations import merged, of_lines
from deltaci.reporter.comment import Comments, comment
from deltaci.reporter.desired import Check, CheckState, why_of
from deltaci.reporter.ports import Memory, ResultsPort, Sent, Snapshot
from deltaci.reporter.results import CommentsApi, send_comment, shown_of
from deltaci.reporter.summary import Shown
from deltaci.reporter.tellings import COMMENT, Telling, digest_of, is_told_early, rank
from deltaci.store.writes import Explanation

AGAIN_MS: Final = 1_000
REFUSED: Final = "refused"
KEPT_MAX: Final = 2_000

STATUSES: Final[Mapping[CheckState, tuple[CheckStatus, Conclusion | None]]] = {
    "queued": ("queued", None),
    "running": ("in_progress", None),
    "success": ("completed", "success"),
    "neutral": ("completed", "neutral"),
    "skipped": ("completed", "skipped"),
    "failure": ("completed", "failure"),
    "timed_out": ("completed", "timed_out"),
    "error": ("completed", "failure"),
    "canceled": ("completed", "cancelled"),
}

RERUN: Final = CheckAction(label="Run again", description="A new attempt of all of it", identifier="rerun")
RERUN_FAILED: Final = CheckAction(
    label="Run failed again", description="A new attempt of what failed", identifier="rerun_failed"
)
CANCEL: Final = CheckAction(label="Cancel", description="Stop the run", identifier="cancel")
APPROVE: Final = CheckAction(label="Approve", description="Let this commit run", identifier="approve")


class ChecksApi(CommentsApi, Protocol):
    """What of GitHub's API is used here: see `GitHubApi`."""

    def account(self, repo: Repo) -> str:
        """What the repository's writes are counted for."""
        ...

    async def put_check(self, repo: Repo, check: CheckRun, *, remote_id: str | None) -> str:
        """Make a check run, or change the one that there is; its id. Called again it goes on where it was.

        Without `remote_id` it is looked for by its external id first; of the annotations those are appended that it has
        not yet.
        """
        ...


class CheckResults:
    """A check run for each job and one for the run, and the comment at its pull request."""

    def __init__(self, api: ChecksApi, *, comments: Comments = "helpful") -> None:
        self._api = api
        self._comments: Comments = comments
        self._made: dict[tuple[object, ...], tuple[str, CheckRun]] = {}

    def account(self, repo: Repo) -> str | None:
        """See `ResultsPort`."""
        return self._api.account(repo)

    def reads_reports(self, _repo: Repo) -> bool:
        """See `ResultsPort`."""
        return True

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """See `ResultsPort`."""
        shown = shown_of(snapshot)
        count, planned, whys = len(snapshot.jobs), shown.planned(), shown.whys()
        tellings = []
        for number, check in enumerate(shown.checks):
            if not is_told_early(check, count):
                continue
            words, body = digest_of(check.description), None
            if check.is_final and check.name:
                job = snapshot.jobs[number]
                why = why_of(job, whys)
                make = partial(_of_job, snapshot, shown, number, why, planned.get(job.name))
                words, body = self._kept((job, why, snapshot.reports.get(job.id)), make)
            elif check.is_final:
                words, body = self._kept((snapshot.run, snapshot.explanations), partial(_of_run, snapshot, shown))
            tellings.append(
                Telling(
                    check=check.name,
                    state=check.state,
                    words=words,
                    is_final=check.is_final,
                    rank=rank(check),
                    body=body,
                )
            )
        return (*tellings, *comment(snapshot, shown, self._comments))

    def _kept(self, key: tuple[object, ...], make: Callable[[], CheckRun]) -> tuple[str, CheckRun]:
        """What a check that is over says, with its digest: it is asked for again at every other check's turn."""
        found = self._made.get(key)
        if found is None:
            if len(self._made) >= KEPT_MAX:
                self._made.clear()
            body = make()
            words = digest_of(body.title, body.summary, body.annotations, body.actions)
            found = self._made[key] = words, body
        return found

    async def send(self, snapshot: Snapshot, telling: Telling, memory: Memory) -> Sent:
        """See `ResultsPort`."""
        if telling.check == COMMENT:
            return await send_comment(self._api, snapshot, telling, memory)
        check, repo = telling.body or _live(snapshot, telling.check), snapshot.repo
        assert isinstance(check, CheckRun), "`wanted` makes them"
        key, count_key = (f"{what}:{snapshot.run.id}:{telling.check}" for what in ("check", "annotations"))
        remote_id = await memory.recall(key)
        noted = await memory.recall(count_key) if check.annotations else None
        count = 0 if noted == REFUSED else min(len(check.annotations), int(noted or 0) + ANNOTATIONS_A_REQUEST)
        body = msgspec.structs.replace(check, annotations=check.annotations[:count])
        try:
            given = await self._api.put_check(repo, body, remote_id=remote_id)
        except ForgeRejected as error:
            if not body.annotations:
                raise
            await memory.note(count_key, REFUSED)
            raise ForgeUnavailable(f"{error}; next without its annotations", retry_after_ms=AGAIN_MS) from error
        notes = [] if given == remote_id else [(key, given)]
        if body.annotations:
            notes.append((count_key, str(count)))
        return Sent(notes=tuple(notes), is_whole=noted == REFUSED or count == len(check.annotations))


class GitHubResults:
    """Checks where our app is installed, commit statuses where there is a token."""

    def __init__(self, checks: ResultsPort, statuses: ResultsPort, is_app: Callable[[Repo], bool]) -> None:
        self._checks = checks
        self._statuses = statuses
        self._is_app = is_app

    def _of(self, repo: Repo) -> ResultsPort:
        return self._checks if self._is_app(repo) else self._statuses

    def account(self, repo: Repo) -> str | None:
        """See `ResultsPort`."""
        return self._of(repo).account(repo)

    def reads_reports(self, repo: Repo) -> bool:
        """See `ResultsPort`."""
        return self._of(repo).reads_reports(repo)

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """See `ResultsPort`."""
        return self._of(snapshot.repo).wanted(snapshot)

    async def send(self, snapshot: Snapshot, telling: Telling, memory: Memory) -> Sent:
        """See `ResultsPort`."""
        return await self._of(snapshot.repo).send(snapshot, telling, memory)


# ---- what a check run says ---------------------------------------------------------------------------------------


def _live(snapshot: Snapshot, name: str) -> CheckRun:
    """What a check says that is not over: only its title counts as a difference; the rest is made when it is sent."""
    shown = shown_of(snapshot)
    if not name:
        return _of_run(snapshot, shown)
    number = next(number for number, job in enumerate(snapshot.jobs) if job.name == name)
    return _of_job(snapshot, shown, number, None, shown.planned().get(name))


def _of_run(snapshot: Snapshot, shown: Shown) -> CheckRun:
    own = shown.checks[-1]
    actions: tuple[CheckAction, ...] = (APPROVE, CANCEL) if is_held(snapshot.run) else (CANCEL,)
    if own.is_final:
        actions = (RERUN,) if own.state == "success" else (RERUN_FAILED, RERUN)
    return _check_run(snapshot, own, summary.of_run(shown), (), actions)


def _of_job(
    snapshot: Snapshot, shown: Shown, number: int, why: Explanation | None, planned: PlannedJob | None
) -> CheckRun:
    check, job = shown.checks[number], snapshot.jobs[number]
    annotations = _annotations(snapshot, job, why, planned) if check.is_final and check.state != "success" else ()
    actions = (RERUN,) if check.is_final and check.state != "skipped" else ()
    return _check_run(snapshot, check, summary.of_job(shown, number, why, planned), annotations, actions)


def _check_run(
    snapshot: Snapshot,
    check: Check,
    text: str,
    annotations: tuple[Annotation, ...],
    actions: tuple[CheckAction, ...],
) -> CheckRun:
    status, conclusion = STATUSES[check.state]
    return CheckRun(
        name=check.context,
        head_sha=snapshot.run.trigger.commit_sha,
        status=status,
        conclusion=conclusion,
        external_id=check.id,
        details_url=check.target_url,
        started_at_ms=check.started_at_ms,
        completed_at_ms=check.ended_at_ms,
        title=check.description,
        summary=text,
        annotations=annotations,
        actions=actions,
    )


def _annotations(
    snapshot: Snapshot, job: Job, why: Explanation | None, planned: PlannedJob | None
) -> tuple[Annotation, ...]:
    """Those of the test reports first: they are there when the job ends, explanations come later."""
    lines = of_lines(why.evidence, title=job.name, workdir=workdir_of(planned)) if why is not None else ()
    return merged(snapshot.reports.get(job.id, ()), lines)


def workdir_of(planned: PlannedJob | None) -> str:
    """Where the steps of a job run, if all of them do so in the same directory."""
    places = {step.workdir for step in planned.steps} if planned is not None else set()
    return places.pop() if len(places) == 1 else "."
