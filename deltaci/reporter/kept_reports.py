"""Test reports that jobs kept, read from what is stored of them: the artifact `reports` of the last attempt."""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final, Protocol

import anyio
import anyio.to_thread

from deltaci.domain.errors import NotFound
from deltaci.domain.job import Job
from deltaci.domain.plan import Plan
from deltaci.domain.repo import Repo
from deltaci.forge.checks import Annotation
from deltaci.reporter import junit
from deltaci.reporter.checks import workdir_of
from deltaci.store.writes import ArtifactStored

ARTIFACT: Final = "reports"
ARCHIVE_BYTES_MAX: Final = 4 * 1024 * 1024
WITHIN_MS: Final = 15_000


class ArtifactRows(Protocol):
    """What is read of the store."""

    async def artifacts_of_run(self, run_id: str) -> tuple[ArtifactStored, ...]:
        """See `Store`."""
        ...


class ArtifactBytes(Protocol):
    """What is read of the artifacts' files."""

    def read(self, job_id: str, attempt: int, name: str) -> AsyncIterator[bytes]:
        """See `ArtifactFiles`."""
        ...


class ArtifactReports:
    """Reads the reports of one job at a time, off the loop, within bounds of size and time."""

    def __init__(
        self, rows: ArtifactRows, files: ArtifactBytes, redact: Callable[[Repo], Callable[[bytes], str]]
    ) -> None:
        """`redact` makes what cleans the text of a repository's jobs before anybody sees it."""
        self._rows = rows
        self._files = files
        self._redact = redact

    async def failures(self, repo: Repo, job: Job, plan: Plan | None) -> tuple[Annotation, ...]:
        """See `KeptReports`. Nothing for reports that are too large, too slow to read, or gone."""
        attempt = job.attempts[-1].number
        row = next(
            (
                one
                for one in await self._rows.artifacts_of_run(job.run_id)
                if (one.job_id, one.attempt, one.name) == (job.id, attempt, ARTIFACT)
            ),
            None,
        )
        if row is None or row.size_bytes > ARCHIVE_BYTES_MAX:
            return ()
        try:
            archive = b"".join([chunk async for chunk in self._files.read(job.id, attempt, ARTIFACT)])
        except NotFound:
            return ()
        planned = next((one for one in plan.jobs if one.name == job.name), None) if plan is not None else None
        work = partial(junit.failures, archive, self._redact(repo), workdir=workdir_of(planned))
        with anyio.move_on_after(WITHIN_MS / 1000):
            return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        return ()
