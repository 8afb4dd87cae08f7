"""Stories: journals told event by event, by the machines' own decisions or against them."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import SYSTEM, TIMER, Cause, JobCreated, JobRef, decode_event
from deltaci.domain.ids import job_id, run_of
from deltaci.domain.job import Job
from deltaci.domain.machine import Step
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import AttemptState, EndReason, JobState
from deltaci.invariants import Journal, Violation
from deltaci.store.journal import GENESIS, Draft, chained, draft_of_audit, drafts_of_events, entry_of
from deltaci.store.port import JournalEntry
from deltaci.store.writes import Audit
from tests.builders import HOLD_WITHIN_MS, NOW_MS, SOMEBODY, a_created_job, a_created_run, a_run_id

TTL_MS = 120_000
RUN = a_run_id()
JOB, SECOND, THIRD = (job_id(RUN, index) for index in range(3))
HOLDER = "runner_1"


class Story:
    """A journal in the making, with the states that its decisions lead to. The clock stands until it is told."""

    def __init__(self) -> None:
        self.now_ms = NOW_MS
        self.drafts: list[Draft] = []
        self.states: dict[str, Any] = {}
        self._sequences: Counter[str] = Counter()

    # ---- telling -------------------------------------------------------------------------------------------------

    def say(self, entity_id: str, *events: Any, cause: Cause = SYSTEM, skip: int = 0) -> None:
        """Journal these events of an entity, whether they may happen or not; `skip` leaves numbers out."""
        first = self._sequences[entity_id] + 1 + skip
        self._sequences[entity_id] = first + len(events) - 1
        self.drafts += drafts_of_events(entity_id, run_of(entity_id) or entity_id, first, events, cause)

    def audit(self, type_: str, why: str, entity_id: str = JOB) -> None:
        """Journal that something was refused."""
        cause = Cause("runner", HOLDER)
        audit = Audit(at_ms=self.now_ms, cause=cause, type=type_, entity_id=entity_id, details={"why": why})
        self.drafts.append(draft_of_audit(audit))

    def do(self, entity_id: str, command: Any, cause: Cause = SYSTEM) -> Any:
        """Journal what the entity's machine makes of the command; answers with the state after it."""
        before = self.states[entity_id]
        machine: Any = runs if isinstance(before, Run) else jobs
        step = machine.step(before, command, now_ms=self.now_ms)
        assert isinstance(step, Step), step
        self.states[entity_id] = step.state
        self.say(entity_id, *step.events, cause=cause)
        return step.state

    def entries(self) -> list[JournalEntry]:
        """The journal."""
        return [entry_of(row) for row in chained(self.drafts, last_id=0, last_hash=GENESIS)]

    def found(self, **more: Any) -> list[Violation]:
        """What is wrong with the journal."""
        return found_in(Journal(**more), self.entries())

    # ---- a run ---------------------------------------------------------------------------------------------------

    def create(self, number: int = 1, *, cause: Cause = SOMEBODY, **more: Any) -> Run:
        """A run is created."""
        step = a_created_run(number, now_ms=self.now_ms, **more)
        self.states[step.state.id] = step.state
        self.say(step.state.id, *step.events, cause=cause)
        return step.state

    def plan(self, *needs: tuple[int, ...], number: int = 1, **more: Any) -> None:
        """The run's plan is adopted: a job for each of `needs`, which says by index what it waits for."""
        run_id = a_run_id(number)
        refs = tuple(
            JobRef(id=job_id(run_id, index), name=f"test-{index}", needs=tuple(job_id(run_id, one) for one in of))
            for index, of in enumerate(needs)
        )
        self.do(run_id, runs.StartPlanning())
        self.do(run_id, runs.AdoptPlan(plan_digest="d" * 64, jobs=refs))
        for index, ref in enumerate(refs):
            state = JobState.BLOCKED if ref.needs else JobState.QUEUED
            self.add(a_created_job(run_id, index, **({"at_ms": self.now_ms, "state": state} | more)))

    def add(self, event: JobCreated) -> None:
        """A job is created."""
        self.states[event.job_id] = jobs.created(event)
        self.say(event.job_id, event)

    def advance(self, number: int = 1) -> Run:
        """The run looks at its jobs."""
        run_id = a_run_id(number)
        seen = {
            one.id: JobSeen(one.state, one.end_reason)
            for one in self.states.values()
            if isinstance(one, Job) and one.run_id == run_id
        }
        after: Run = self.do(run_id, runs.Advance(jobs=seen))
        return after

    def cancel_run(self, reason: EndReason = EndReason.USER_CANCELED) -> None:
        """Somebody cancels the run."""
        self.do(RUN, runs.RequestCancel(reason=reason), SOMEBODY)

    # ---- a job ---------------------------------------------------------------------------------------------------

    def lease(self, job: str = JOB, runner: str = HOLDER, lease_hash: str = "") -> None:
        """The job is leased."""
        number = len(self.states[job].attempts)
        lease_hash = lease_hash or f"lease of {job}, attempt {number}"
        command = jobs.GrantLease(lease_hash=lease_hash, runner_id=runner, ack_within_ms=30_000, ttl_ms=TTL_MS)
        self.do(job, command, Cause("runner", runner))

    def tell(self, kind: Any, job: str = JOB, **more: Any) -> None:
        """The holder of the job's lease says something."""
        attempt = self.states[job].attempts[-1]
        fence = {"attempt": attempt.number, "lease_hash": attempt.lease.token_hash}
        command = kind(runner_id=attempt.lease.runner_id, **fence, **more)
        self.do(job, command, Cause("runner", attempt.lease.runner_id))

    def start(self, job: str = JOB, runner: str = HOLDER) -> None:
        """The job is leased and acknowledged."""
        self.lease(job, runner)
        self.tell(jobs.AckLease, job)

    def complete(self, job: str = JOB, exit_code: int = 0, reason: EndReason = EndReason.SUCCEEDED) -> None:
        """The holder reports its result."""
        self.tell(jobs.Complete, job, reason=reason, exit_code=exit_code, text="", result_digest="r" * 64)

    def cancel(self, job: str = JOB, reason: EndReason = EndReason.USER_CANCELED) -> None:
        """The job is told of its run's cancel."""
        self.do(job, jobs.RequestCancel(reason=reason, within_ms=30_000))

    def tick(self, job: str = JOB, heard_at_ms: int = 0) -> None:
        """The job looks at its deadlines."""
        self.do(job, jobs.Tick(heard_at_ms=heard_at_ms, cancel_within_ms=30_000), TIMER)

    def wait(self, duration_ms: int) -> None:
        """Time passes."""
        self.now_ms += duration_ms


def found_in(journal: Journal, entries: Sequence[JournalEntry]) -> list[Violation]:
    """What a look at these entries, one after the other, finds."""
    return [violation for entry in entries for violation in journal.take(entry)]


def event_of(entity_id: str, story: Story, kind: type, **more: Any) -> Any:
    """The last event of a kind that the story told of an entity, with other fields."""
    for draft in reversed(story.drafts):
        if draft.entity_id == entity_id and draft.type == kind.__name__:
            return msgspec.structs.replace(decode_event(draft.data), **more)
    raise AssertionError(f"no {kind.__name__} of {entity_id}")


# ---- a sound one -------------------------------------------------------------------------------------------------


def a_sound_story() -> Story:
    """Success, retry, loss, expiry of both kinds, cancel of every kind, time-outs, skips: all as it should be."""
    story = Story()
    story.create()
    story.plan((), (), (0,), (1,), (2,), retries=1)
    fourth, fifth = job_id(RUN, 3), job_id(RUN, 4)
    story.start()
    story.advance()
    story.wait(70_000)
    story.tell(jobs.Heartbeat, phase=AttemptState.RUNNING)
    story.complete()
    story.do(THIRD, jobs.Release())
    for _ in range(3):  # lost twice, then failed for good by its own steps
        story.start(SECOND)
        story.wait(TTL_MS)
        story.tick(SECOND)
        story.wait(60_000)
        if len(story.states[SECOND].attempts) == 3:
            break
    story.start(SECOND, "runner_2")
    story.complete(SECOND, exit_code=1)
    story.wait(60_000)
    story.start(SECOND, "runner_2")
    story.tell(jobs.Heartbeat, SECOND, phase=AttemptState.UPLOADING)
    story.complete(SECOND, exit_code=1)
    story.audit("Complete", "conflicting_result", SECOND)
    story.do(fourth, jobs.Skip(reason=EndReason.NEEDS_FAILED, detail="needs test-1"))
    story.lease(THIRD)
    story.wait(30_000)
    story.tick(THIRD)  # never acknowledged
    story.start(THIRD, "runner_3")
    story.cancel_run()
    story.cancel(THIRD)
    story.wait(10_000)
    story.tell(jobs.CancelAck, THIRD)
    story.cancel(fifth)
    story.advance()
    _more_runs(story)
    return story


def _more_runs(story: Story) -> None:
    """A time-out of a job and one of a run, a plan that fails, an empty plan, a cancel before any plan."""
    story.create(2, attempt=1)
    story.plan((), number=2)
    slow = job_id(a_run_id(2), 0)
    story.start(slow)
    for _ in range(12):
        story.wait(60_000)
        story.tell(jobs.Heartbeat, slow, phase=AttemptState.RUNNING)
    story.tick(slow, heard_at_ms=story.now_ms)
    story.wait(30_000)
    story.tick(slow, heard_at_ms=story.now_ms)
    story.advance(2)

    story.create(3)
    story.plan((), number=3)
    story.wait(3_600_000)
    story.do(a_run_id(3), runs.Tick(), TIMER)
    story.cancel(job_id(a_run_id(3), 0), EndReason.RUN_TIMEOUT)
    story.advance(3)

    story.create(4)
    story.do(a_run_id(4), runs.StartPlanning())
    story.do(a_run_id(4), runs.FailPlan(text="no such file"))
    story.create(5)
    story.plan(number=5)
    story.create(6)
    story.do(a_run_id(6), runs.RequestCancel(reason=EndReason.SUPERSEDED))
    story.create(7, attempt=2, commit_sha=f"{6:040x}")
    _held_runs(story)


def _held_runs(story: Story) -> None:
    """One that is approved, late, and runs; its next attempt; one that nobody approves, and one canceled."""
    fork = {"kind": "pull_request", "pr_number": 7, "is_fork": True, "author": "mallory"}
    first, second, third, fourth = map(a_run_id, (8, 9, 10, 11))
    for number in (8, 10, 11):
        story.create(number, hold="approval", **fork)
    story.wait(HOLD_WITHIN_MS - 1)
    for run in (first, third):
        story.do(run, runs.Tick(), TIMER)
    for _ in range(2):
        story.do(first, runs.Approve(by="alice"), Cause("user", "alice", via="github"))
    story.do(fourth, runs.RequestCancel(reason=EndReason.USER_CANCELED), SOMEBODY)
    story.wait(1)
    for run in (first, third, fourth):
        story.do(run, runs.Tick(), TIMER)
    story.do(third, runs.Approve(by="alice"), SOMEBODY)
    story.plan(number=8)
    story.create(9, attempt=2, hold="approval", approved_by="alice", commit_sha=f"{8:040x}", **fork)
    story.plan((), number=9)
    story.start(job_id(second, 0))
    story.complete(job_id(second, 0))
    story.advance(9)
