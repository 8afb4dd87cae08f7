"""How each kind of forge is told: commit statuses, or one document for plain git."""

from collections.abc import Mapping
from typing import Final

from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.forge.api import ForgeApi, Status, StatusState
from deltaci.forge.git import GitResults
from deltaci.reporter.desired import Check, CheckState, desired, digest
from deltaci.reporter.document import document, document_digest
from deltaci.reporter.reporter import Snapshot, Telling

# A check does not tell waiting from running
STATES: Final[Mapping[CheckState, StatusState]] = {
    "pending": "running",
    "success": "success",
    "failure": "failure",
    "error": "error",
}


class GitHubResults:
    """A commit status for each job, and one for the run."""

    def __init__(self, api: ForgeApi) -> None:
        self._api = api

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """See `ResultsPort`."""
        checks = desired(snapshot.run, snapshot.jobs, snapshot.explanations, snapshot.plan, snapshot.base_url)
        return tuple(Telling(check=check.name, digest=digest(check), body=check) for check in checks)

    async def send(self, repo: Repo, run: Run, telling: Telling) -> None:
        """See `ResultsPort`."""
        check = telling.body
        assert isinstance(check, Check), "`wanted` makes them"
        status = Status(
            context=check.context,
            state=STATES[check.state],
            description=check.description,
            target_url=check.target_url,
            ref=run.trigger.ref,
        )
        await self._api.set_status(repo, run.trigger.commit_sha, status)


class GitDocuments:
    """One document a run, told again whenever something in it changed."""

    def __init__(self, results: GitResults) -> None:
        self._results = results

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """See `ResultsPort`."""
        data = document(snapshot.run, snapshot.jobs, snapshot.explanations, snapshot.plan, snapshot.base_url)
        return (Telling(check="", digest=document_digest(data), body=data),)

    async def send(self, repo: Repo, run: Run, telling: Telling) -> None:
        """See `ResultsPort`."""
        data = telling.body
        assert isinstance(data, bytes), "`wanted` makes them"
        key = f"{run.id}:{telling.digest[:16]}"
        await self._results.publish(repo, run.trigger.commit_sha, data, key=key)
