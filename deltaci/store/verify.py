"""Checks over a whole store: does what is stored follow from what was journaled?

Rule 1: reads alone, through the port; a live store may move meanwhile, and what moved is looked at again.
Rule 2: a check names what it found and where; it repairs nothing. What cannot be read ends the looking, as a finding.
"""

from collections import Counter
from typing import Final, TypeVar

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.errors import SnapshotCorrupt
from deltaci.domain.events import JobCreated, JobEvent, RunCreated, RunEvent, decode_event
from deltaci.domain.job import Job
from deltaci.domain.machine import IllegalMove
from deltaci.domain.run import Run
from deltaci.store.journal import GENESIS, draft_of, row_hash
from deltaci.store.port import JournalEntry, Store

E = TypeVar("E", Run, Job)

PAGE: Final = 200
LOOKS: Final = 3

# What decoding and folding an event that does not belong there may raise.
_CANNOT_FOLLOW: Final = (msgspec.DecodeError, IllegalMove, ValueError, LookupError, TypeError, AssertionError)


class Violation(msgspec.Struct, frozen=True):
    """A rule that does not hold for an entity. `entity_id` is empty where it is about the store."""

    rule: str
    entity_id: str
    text: str


class Report(msgspec.Struct, frozen=True):
    """How much was looked at, by what it is, and what was found."""

    checked: dict[str, int]
    violations: tuple[Violation, ...]


async def verify(store: Store) -> Report:
    """Check the journal's chain and order, every stored state against the fold of its events, and runs against jobs."""
    verifier = _Verifier(store)
    try:
        await verifier.check_journal()
        await verifier.check_entities()
    except SnapshotCorrupt as error:
        verifier.violations.append(Violation("readable", error.details.get("entity_id", ""), str(error)))
    return Report(dict(verifier.checked), tuple(verifier.violations))


def check_run(run: Run, jobs_of_run: tuple[Job, ...]) -> list[Violation]:
    """What a run and its jobs, as of one instant, must be like together."""
    found = []
    planned, stored = {ref.id for ref in run.jobs}, {job.id for job in jobs_of_run}
    if planned != stored:
        found.append(Violation("jobs_of_plan", run.id, f"only in its plan or only stored: {sorted(planned ^ stored)}"))
    live = [job.id for job in jobs_of_run if not job.state.is_final]
    if run.state.is_final and live:
        found.append(Violation("run_end", run.id, f"is {run.state} while {', '.join(live)} have not ended"))
    if not run.state.is_final and jobs_of_run and not live:
        found.append(Violation("run_end", run.id, f"is {run.state} though all its jobs have ended"))
    return found


def check_attempts(job: Job) -> list[Violation]:
    """Attempts are 1..k without gaps, and a further one exists only after the one before ended."""
    found = []
    numbers = [attempt.number for attempt in job.attempts]
    if numbers != list(range(1, len(numbers) + 1)):
        found.append(Violation("attempts_dense", job.id, f"attempts are numbered {numbers}"))
    open_ones = [attempt.number for attempt in job.attempts[:-1] if not attempt.state.is_final]
    if open_ones:
        found.append(Violation("attempts_dense", job.id, f"attempts {open_ones} are not over, though later ones exist"))
    if job.state.is_final and job.attempts and not job.attempts[-1].state.is_final:
        found.append(Violation("attempts_dense", job.id, f"is {job.state} with attempt {numbers[-1]} not over"))
    return found


class _Verifier:
    def __init__(self, store: Store) -> None:
        self.checked: Counter[str] = Counter(journal=0, runs=0, jobs=0)
        self.violations: list[Violation] = []
        self._store = store
        self._last_id = 0
        self._last_hash = GENESIS
        self._sequences: dict[str, int] = {}
        self._folded: dict[str, Run | Job] = {}
        self._unfoldable: set[str] = set()

    # ---- journal -------------------------------------------------------------------------------------------------

    async def check_journal(self) -> None:
        async for entry in self._store.journal():
            self.checked["journal"] += 1
            self._check_chain(entry)
            self._fold(entry)
            self._last_id = entry.id

    def _check_chain(self, entry: JournalEntry) -> None:
        if entry.id != self._last_id + 1:
            self._found("chain", entry.entity_id, f"row {entry.id} follows row {self._last_id}")
        expected = row_hash(self._last_hash, entry.id, draft_of(entry))
        if entry.hash != expected.hex():
            self._found("chain", entry.entity_id, f"row {entry.id} or one before it was changed: its hash differs")
        # Go on from what is stored, so that one edit is one finding.
        self._last_hash = bytes.fromhex(entry.hash)

    def _fold(self, entry: JournalEntry) -> None:
        if entry.sequence is None:
            return
        entity_id = entry.entity_id
        expected = self._sequences.get(entity_id, 0) + 1
        self._sequences[entity_id] = entry.sequence
        if entry.sequence != expected:
            self._found("dense", entity_id, f"event {entry.sequence} stands where {expected} is expected")
            self._unfoldable.add(entity_id)
        if entity_id in self._unfoldable:
            return
        try:
            self._folded[entity_id] = _evolved(self._folded.get(entity_id), decode_event(entry.data))
        except _CANNOT_FOLLOW as error:
            self._found("fold", entity_id, f"event {entry.sequence}, {entry.type}, cannot follow: {error}")
            self._unfoldable.add(entity_id)

    # ---- rows ----------------------------------------------------------------------------------------------------

    async def check_entities(self) -> None:
        journaled = set(self._sequences)
        before: str | None = None
        while page := await self._store.list_runs(before=before, limit=PAGE):
            for summary in page:
                journaled -= await self._check_run(summary.run.id)
            before = page[-1].run.id
        for entity_id in sorted(journaled):
            self._found("stored", entity_id, "has events, and no row")

    async def _check_run(self, run_id: str) -> set[str]:
        """Check a run with its jobs; answers the ids that were seen."""
        found: list[Violation] = []
        seen: set[str] = set()
        for _ in range(LOOKS):
            run = await self._store.load_run(run_id)
            stored_jobs = await self._store.jobs_of_run(run_id)
            await self._catch_up(run_id)
            if run is None:
                return seen
            seen = {run_id, *(job.id for job in stored_jobs)}
            found = [*self._differences(run), *check_run(run, stored_jobs)]
            for job in stored_jobs:
                found += [*self._differences(job), *check_attempts(job)]
            if not found:
                break
        self.checked["runs"] += 1
        self.checked["jobs"] += len(seen) - 1
        self.violations += found
        return seen

    async def _catch_up(self, run_id: str) -> None:
        """Fold what was journaled for this run since the journal was read."""
        after_id = self._last_id
        while page := await self._store.events_of_run(run_id, after_id=after_id):
            for entry in page:
                if entry.sequence is not None and entry.sequence > self._sequences.get(entry.entity_id, 0):
                    self._fold(entry)
            after_id = page[-1].id

    def _differences(self, stored: Run | Job) -> list[Violation]:
        if stored.id in self._unfoldable:
            return []
        folded = self._folded.get(stored.id)
        if folded is None:
            return [Violation("fold", stored.id, "has a row, and no events")]
        if stored == folded:
            return []
        names = [name for name in stored.__struct_fields__ if getattr(stored, name) != getattr(folded, name, None)]
        return [Violation("fold", stored.id, f"the stored state is not the fold of its events: {', '.join(names)}")]

    def _found(self, rule: str, entity_id: str, text: str) -> None:
        self.violations.append(Violation(rule, entity_id, text))


def _evolved(before: Run | Job | None, event: RunEvent | JobEvent) -> Run | Job:
    match before, event:
        case None, RunCreated():
            return runs.created(event)
        case None, JobCreated():
            return jobs.created(event)
        case Run(), _:
            return runs.evolve(before, event)  # type: ignore[arg-type]  # a job's event fails there
        case Job(), _:
            return jobs.evolve(before, event)  # type: ignore[arg-type]  # a run's event fails there
        case _:
            raise ValueError(f"the first event is {type(event).__name__}")
