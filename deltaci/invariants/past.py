"""What an incremental look at the journal remembers of what it has seen, and the change it looks at."""

from collections import Counter
from typing import Any, Final

import msgspec

from deltaci.domain.events import (
    AttemptEnded,
    AttemptLeased,
    Cause,
    JobCancelRequested,
    JobCreated,
    JobEnded,
    JobRef,
    PlanAdopted,
    RunCancelRequested,
    RunCreated,
    RunEnded,
    RunKey,
)
from deltaci.domain.job import Job
from deltaci.domain.run import Run
from deltaci.store.port import JournalEntry

_decode_details: Final = msgspec.json.Decoder(dict[str, str]).decode


class Track:
    """What is remembered of one entity: ids of journal entries are 0 where there is none."""

    __slots__ = ("cancel_id", "cause", "end_id", "is_unfoldable", "last_event", "last_id", "run_id", "sequence")

    def __init__(self, run_id: str, cause: Cause) -> None:
        self.run_id = run_id
        self.cause = cause  # of the first event
        self.sequence = 0
        self.last_id = 0
        self.last_event: Any = None
        self.cancel_id = 0
        self.end_id = 0
        self.is_unfoldable = False


class LogSeen(msgspec.Struct, frozen=True):
    """How a log stood when it was looked at last. `is_over`: it was closed, or its attempt had ended."""

    size: int
    is_over: bool


class Past:
    """Everything seen so far.

    Args:
        late_ms: how late a deadline may be kept by a server that is up; None: not looked at.
        reach_ms: how long a run's stored cancel may take to reach its jobs; None: not looked at.
    """

    def __init__(self, *, late_ms: int | None = None, reach_ms: int | None = None) -> None:
        self.late_ms = late_ms
        self.reach_ms = reach_ms
        self.folded: dict[str, Run | Job] = {}
        self.tracks: dict[str, Track] = {}
        self.refs: dict[str, JobRef] = {}
        self.jobs_of_run: dict[str, list[str]] = {}
        self.leases: dict[str, tuple[str, int, int]] = {}  # lease hash -> job id, attempt, entry id
        self.results: dict[tuple[str, int], int] = {}  # job id, attempt -> entry id of the accepted result
        self.runs_by_key: dict[tuple[RunKey, int], str] = {}
        self.refusals: Counter[tuple[str, str, str]] = Counter()  # entity id, command, why -> how often audited
        self.holders: dict[tuple[str, str], str] = {}  # repository id, concurrency group -> the job leased last
        self.logs: dict[tuple[str, int], LogSeen] = {}
        self.started_at_ms: int | None = None  # the last start of a server that was told of
        self.disturbed_at_ms = 0  # until then something kept the server from its work

    def run_of(self, job: Job) -> Run | None:
        """The run of a job, as folded so far."""
        run = self.folded.get(job.run_id)
        return run if isinstance(run, Run) else None

    def job(self, job_id: str) -> Job | None:
        """A job, as folded so far."""
        job = self.folded.get(job_id)
        return job if isinstance(job, Job) else None

    def ids(self, *entity_ids: str) -> tuple[int, ...]:
        """The entry of each entity's last event, in order."""
        return tuple(sorted(self.tracks[one].last_id for one in entity_ids if one in self.tracks))

    def granted_id(self, lease_hash: str) -> tuple[int, ...]:
        """The entry that granted a lease, if any."""
        known = self.leases.get(lease_hash)
        return () if known is None else (known[2],)

    def note(self, change: "Change") -> None:
        """Remember a change once the rules have looked at it."""
        entry, event = change.entry, change.event
        track = self.tracks[entry.entity_id]
        track.last_id, track.last_event = entry.id, event
        self.folded[entry.entity_id] = change.after
        match event:
            case AttemptLeased():
                self.leases.setdefault(event.lease_hash, (entry.entity_id, event.attempt, entry.id))
                if change.after.concurrency:
                    self.holders[change.after.repo_id, change.after.concurrency] = entry.entity_id
            case AttemptEnded() if event.result_digest:
                self.results.setdefault((entry.entity_id, event.attempt), entry.id)
            case JobCancelRequested() | RunCancelRequested():
                track.cancel_id = entry.id
            case JobEnded() | RunEnded():
                track.end_id = entry.id
            case JobCreated():
                self.jobs_of_run.setdefault(event.run_id, []).append(event.job_id)
            case PlanAdopted():
                self.refs.update((ref.id, ref) for ref in event.jobs)
            case RunCreated():
                self.runs_by_key.setdefault((event.key, event.attempt), event.run_id)
            case _:
                pass

    def note_refusal(self, entry: JournalEntry) -> None:
        """Remember an audit record that says why something was refused."""
        try:
            why = _decode_details(entry.data).get("why")
        except msgspec.DecodeError:
            return
        if why is not None:
            self.refusals[entry.entity_id, entry.type, why] += 1


class Change(msgspec.Struct, frozen=True, gc=False):
    """One event, the entity before it (None: it is the first) and after it, and all that was seen before.

    `event`, `before` and `after` are what the rule's kinds of events say: a rule for a job's events sees a job.
    """

    entry: JournalEntry
    event: Any
    before: Any
    after: Any
    past: Past
