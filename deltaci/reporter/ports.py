"""What the reporter needs of others: forges that show results, the store, and test reports that jobs kept."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from deltaci.domain.events import RunKey
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Latest, Repo
from deltaci.domain.run import Run
from deltaci.forge.checks import Annotation
from deltaci.reporter.tellings import Telling
from deltaci.store.writes import Explanation, Write


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What is committed of a run, as far as forges show it. `jobs` in the order of the plan.

    `pull_request` as it was told of last; `comment_id`: what the forge calls our comment there, empty for none.
    `reports`: what the test reports of failed jobs say of lines, by job id.
    """

    repo: Repo
    run: Run
    jobs: tuple[Job, ...]
    explanations: tuple[Explanation, ...]
    plan: Plan | None
    base_url: str
    pull_request: PullRequest | None = None
    comment_id: str = ""
    reports: Mapping[str, tuple[Annotation, ...]] = {}


class Memory(Protocol):
    """What a forge calls what is ours, kept over crashes."""

    async def recall(self, key: str) -> str | None:
        """What was noted under `key`."""
        ...

    async def note(self, key: str, remote_id: str) -> None:
        """Keep it, before anything that depends on it is sent."""
        ...


class Sent(msgspec.Struct, frozen=True):
    """What came of a sending: what to keep with it, and whether the forge has all of it now."""

    notes: tuple[tuple[str, str], ...] = ()
    is_whole: bool = True


class ResultsPort(Protocol):
    """A kind of forge that shows results."""

    def account(self, repo: Repo) -> str | None:
        """Whose budget of writes a telling is of; None: there is none to keep."""
        ...

    def reads_reports(self, repo: Repo) -> bool:
        """Whether lines of files can be shown, so that test reports are worth reading."""
        ...

    def wanted(self, snapshot: Snapshot) -> tuple[Telling, ...]:
        """All it should show of the run, the run's own last. Pure; equal tellings have equal digests."""
        ...

    async def send(self, snapshot: Snapshot, telling: Telling, memory: Memory) -> Sent:
        """Tell it; telling it again does no harm. Raises `ForgeUnavailable` or `ForgeRejected`."""
        ...


class KeptReports(Protocol):
    """What jobs kept of their test reports."""

    async def failures(self, repo: Repo, job: Job, plan: Plan | None) -> tuple[Annotation, ...]:
        """Lines of files that the last attempt's failed tests are about; redacted. Raises nothing but `StoreError`."""
        ...


class ReportStore(Protocol):
    """What the reporter needs of the store."""

    async def commit(self, writes: Sequence[Write]) -> None:
        """See `Store`."""
        ...

    async def load_run(self, run_id: str) -> Run | None:
        """See `Store`."""
        ...

    async def load_plan(self, run_id: str) -> Plan | None:
        """See `Store`."""
        ...

    async def load_repo(self, repo_id: str) -> Repo | None:
        """See `Store`."""
        ...

    async def latest_run(self, key: RunKey) -> Latest | None:
        """See `Store`."""
        ...

    async def jobs_of_run(self, run_id: str) -> tuple[Job, ...]:
        """See `Store`."""
        ...

    async def explanations_of_run(self, run_id: str) -> tuple[Explanation, ...]:
        """See `Store`."""
        ...

    async def reported(self, run_id: str) -> dict[str, str]:
        """See `Store`."""
        ...

    async def pull_request(self, repo_id: str, number: int) -> PullRequest | None:
        """See `Store`."""
        ...

    async def remote_id(self, repo_id: str, key: str) -> str | None:
        """See `Store`."""
        ...
