"""The owner of one job with its attempts: the only writer of its rows, one message at a time.

What is stored is decided in `domain/job.py`. Kept in memory alone, and lost without harm: when the holder was last
heard (a restart gives it one TTL of grace), how long the log is (the store knows), and the lease id of a lease granted
in this life (it only makes a cancel arrive sooner than the next heartbeat).
"""

import zlib
from typing import Any

import msgspec
from loguru import logger

from deltaci.domain import job as jobs
from deltaci.domain.errors import GrantKeptOut, RevisionConflict, StorageFull
from deltaci.domain.events import TIMER, Cause
from deltaci.domain.job import Job, JobCommand, current_attempt, step
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.plan import PlannedJob
from deltaci.domain.run import JobSeen
from deltaci.domain.states import HELD, JobState, LeaseState
from deltaci.orchestrator import paths
from deltaci.orchestrator.beats import cancel_of, job_writes, wake_outbox
from deltaci.orchestrator.messages import (
    Accepted,
    Answer,
    AppendLog,
    CheckHolder,
    DoJob,
    Due,
    Gone,
    Grant,
    Granted,
    Held,
    JobMoved,
    LogStored,
    Queued,
)
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.stored import Stored
from deltaci.store.port import LogState, QueuedJob
from deltaci.store.writes import Audit, LogChunk, Write
from protocol.messages import CancelRequested, StaleLease


class Owned(msgspec.Struct, frozen=True):
    """A job as its actor holds it."""

    job: Job
    planned: PlannedJob


class JobActor(Stored[Owned | None]):
    """Owns one job; its state is None when there is no such job."""

    def __init__(self, job_id: str, ports: Ports) -> None:
        super().__init__(ports)
        self.job_id = job_id
        self.heard_at_ms = 0
        self.absent_ms = 0
        self.lease_id = ""
        self.written: tuple[int, LogState] | None = None

    async def load(self) -> Owned | None:
        """The committed job; when it is loaded first, whoever holds its lease counts as heard just now."""
        loaded = await self.ports.store.load_job(self.job_id)
        self.written = None
        if not self.heard_at_ms:
            self._hear()
        return None if loaded is None else Owned(*loaded)

    def nothing(self) -> None:
        """No job."""

    def is_final(self) -> bool:
        """A job that is over needs no actor."""
        return self.state is None or self.state.job.state.is_final

    def can_passivate(self) -> bool:
        """A held lease's heartbeats live here: forgetting them would grant a dead runner another TTL."""
        return self.state is None or self.state.job.state not in jobs.STARTED

    def describe_state(self) -> str:
        """The job's state."""
        return "unknown" if self.state is None else str(self.state.job.state)

    @staticmethod
    def is_urgent(message: Any) -> bool:
        """Cancel, completion and deadlines overtake heartbeats and logs."""
        return isinstance(message, Due) or (
            isinstance(message, DoJob)
            and isinstance(message.command, jobs.RequestCancel | jobs.Complete | jobs.CancelAck)
        )

    async def act(self, message: Any) -> Any:
        """One command, through the four beats."""
        if self.state is None:
            return Refusal(Why.NOT_FOUND, entity_id=self.job_id, at="nowhere", command=type(message).__name__)
        match message:
            case DoJob():
                return await self._do(self.state, message.command, message.cause)
            case AppendLog():
                return await self._append(self.state.job, message)
            case Grant():
                return await self._grant(self.state, message)
            case Due():
                return await self._do(self.state, self._tick(), TIMER)
            case CheckHolder():
                refusal = self._refuse_stranger(self.state.job, message)
                return refusal or Accepted(self.state.job)
        raise TypeError(f"job {self.job_id} was sent {type(message).__name__}")

    def _hear(self) -> None:
        self.heard_at_ms = self.ports.clock.now_ms()
        self.absent_ms = self.ports.presence.absent_ms()

    def _tick(self) -> jobs.Tick:
        # While nobody listened the holder may have spoken; what it said is still to be read.
        missed_ms = self.ports.presence.absent_ms() - self.absent_ms
        return jobs.Tick(
            heard_at_ms=self.heard_at_ms + missed_ms,
            cancel_within_ms=self.ports.policy.cancel_within_ms,
            began_at_ms=self.ports.began_at_ms,
        )

    async def _do(self, owned: Owned, command: JobCommand, cause: Cause) -> Answer[Job]:
        decision = step(owned.job, command, now_ms=self.ports.clock.now_ms())
        if isinstance(decision, Refusal):
            await self._refused(decision, cause)
            return decision
        if isinstance(command, jobs.Heartbeat | jobs.AckLease):
            # Before the commit: a holder that speaks must not lose its lease because our disk is full.
            self._hear()
        if decision.events:
            is_grant = isinstance(command, jobs.GrantLease)
            writes = job_writes(decision, owned.job.revision, cause, self.ports, is_grant=is_grant)
            await self.ports.store.commit(writes)
            self.state = Owned(decision.state, owned.planned)
            self._act(owned.job, decision.state)
            self.ports.observer.committed(decision.events)
            wake_outbox(writes, self.ports)
        return Accepted(decision.state)

    async def _grant(self, owned: Owned, message: Grant) -> Granted | Refusal:
        try:
            answer = await self._do(owned, message.command, message.cause)
        except GrantKeptOut:
            return await self._kept_out(owned, message)
        if isinstance(answer, Refusal):
            self._tell_dispatch(owned.job)  # it offered what is not to be had: tell it where the job stands
            return answer
        self.lease_id = message.lease_id
        queued = owned.job.attempts[-1]
        self.ports.observer.waited(self.ports.clock.now_ms() - max(queued.queued_at_ms, queued.not_before_ms))
        self.written = (answer.state.attempts[-1].number, LogState())
        return Granted(job=answer.state, planned=owned.planned)

    async def _kept_out(self, owned: Owned, message: Grant) -> Refusal:
        """Nothing is leased after the stored cancel of its run, nor while another job of its group is."""
        job, name = owned.job, type(message.command).__name__
        run = await self.ports.store.load_run(job.run_id)
        if run is not None and run.cancel is not None:
            # The cancel is on its way here: it is obeyed at once.
            told = cancel_of(run, run.cancel, self.ports.clock.now_ms())
            await self._do(owned, told.command, told.cause)
            hint = "its run is being canceled"
            return Refusal(Why.ILLEGAL_MOVE, entity_id=self.job_id, at=job.state, command=name, hint=hint)
        stored = await self.ports.store.load_job(self.job_id)
        if stored is None or stored[0].revision != job.revision or not job.concurrency:
            raise RevisionConflict(f"{self.job_id} was stored by another writer: reload and decide again")
        holder = await self.ports.store.holder_of_group(job.repo_id, job.concurrency)
        if holder is not None:
            # Dispatch does not know, or it would not have offered this job: without a word it offers it for ever.
            held = Held(job_id=holder, repo_id=job.repo_id, concurrency=job.concurrency)
            self.ports.tell(paths.DISPATCH, held)
        self._tell_dispatch(job)
        self.ports.observer.refused(name, Why.ILLEGAL_MOVE)
        hint = f"its concurrency group {job.concurrency!r} is held by {holder or 'a job that ended just now'}"
        return Refusal(Why.ILLEGAL_MOVE, entity_id=self.job_id, at=job.state, command=name, hint=hint)

    async def _append(self, job: Job, message: AppendLog) -> LogStored | Refusal | StorageFull:
        refusal = self._refuse_stranger(job, message)
        if refusal is not None:
            await self._refused(refusal, Cause("runner", message.runner_id))
            return refusal
        if self.written is None or self.written[0] != message.attempt:
            self.written = (message.attempt, await self.ports.store.log_state(job.id, message.attempt))
        stored = self.written[1]
        end = message.offset + len(message.data)
        if stored.is_final or (end <= stored.size and not message.is_final):
            return LogStored(size=stored.size)
        data = message.data
        if message.offset != stored.size:
            if message.offset > stored.size or end != stored.size:
                return LogStored(size=stored.size, is_gap=True)
            data = b""  # all of it is stored; only the end mark is new
        if end > self.ports.policy.log_bytes_max + self.ports.policy.log_chunk_bytes_max:
            hint = f"a log holds at most {self.ports.policy.log_bytes_max} bytes"
            return Refusal(Why.LIMIT, entity_id=job.id, at=job.state, command="AppendLog", hint=hint)
        if data and not self.ports.has_room(len(data)):
            return StorageFull()
        # The checksum runs along with the log, so that its end can be checked without reading it again.
        crc32 = zlib.crc32(data, stored.crc32 or 0)
        now_ms = self.ports.clock.now_ms()
        writes: list[Write] = [
            LogChunk(
                job_id=job.id,
                attempt=message.attempt,
                offset=stored.size,
                data=data,
                at_ms=now_ms,
                is_final=message.is_final,
                crc32=crc32,
            )
        ]
        if message.is_final and message.crc32 not in (None, crc32):
            details = {"sent": str(message.crc32), "stored": str(crc32), "attempt": str(message.attempt)}
            cause = Cause("runner", message.runner_id)
            writes.append(
                Audit(at_ms=now_ms, cause=cause, type="LogChecksumDiffers", entity_id=job.id, details=details)
            )
        await self.ports.store.commit(writes)
        self._hear()
        self.written = (message.attempt, LogState(size=end, is_final=message.is_final, crc32=crc32))
        return LogStored(size=end)

    def _refuse_stranger(self, job: Job, message: AppendLog | CheckHolder) -> Refusal | None:
        current = current_attempt(job)
        is_holder = (
            current is not None
            and current.number == message.attempt
            and current.state in HELD
            and current.lease is not None
            and current.lease.token_hash == message.lease_hash
            and current.lease.runner_id == message.runner_id
        )
        if is_holder:
            return None
        hint = "stop: this lease is not the current one"
        return Refusal(Why.STALE_LEASE, entity_id=job.id, at=job.state, command=type(message).__name__, hint=hint)

    async def _refused(self, refusal: Refusal, cause: Cause) -> None:
        self.ports.observer.refused(refusal.command, refusal.why)
        if refusal.why in (Why.STALE_LEASE, Why.CONFLICTING_RESULT):
            now_ms = self.ports.clock.now_ms()
            details = {"why": refusal.why.value, "at": refusal.at}
            audit = Audit(at_ms=now_ms, cause=cause, type=refusal.command, entity_id=self.job_id, details=details)
            await self.ports.store.commit((audit,))

    # ---- the fourth beat: notifications, each of which may get lost without harm ---------------------------------

    def _act(self, before: Job, after: Job) -> None:
        if after.state is not before.state:
            moved = JobMoved(job_id=after.id, revision=after.revision, seen=JobSeen(after.state, after.end_reason))
            self.ports.tell(paths.run_path(after.run_id), moved)
            if after.state is not JobState.RUNNING:
                self._tell_dispatch(after)
            self._log_move(after)
        self._tell_runner(before, after)

    def _tell_dispatch(self, job: Job) -> None:
        if job.state is JobState.QUEUED:
            self.ports.tell(paths.DISPATCH, Queued(jobs=(QueuedJob.of(job),)))
        elif job.state in jobs.STARTED:
            self.ports.tell(paths.DISPATCH, Held(job_id=job.id, repo_id=job.repo_id, concurrency=job.concurrency))
        else:
            self.ports.tell(paths.DISPATCH, Gone(job_id=job.id))

    def _tell_runner(self, before: Job, after: Job) -> None:
        held = current_attempt(before)
        if held is None or held.lease is None or held.state not in HELD or not self.lease_id:
            return
        if after.state is JobState.CANCEL_REQUESTED and before.state is JobState.RUNNING:
            within_ms = max(0, (after.cancel.by_ms if after.cancel else 0) - self.ports.clock.now_ms())
            asked = CancelRequested(
                lease_id=self.lease_id, job_id=after.id, attempt=held.number, cancel_within_ms=within_ms
            )
            self.ports.push(held.lease.runner_id, asked)
        ended = after.attempts[held.number - 1]
        has_said_so = ended.result_digest or (ended.lease is not None and ended.lease.state is LeaseState.CANCELED)
        if ended.state.is_final and not has_said_so:
            # Tell the old holder: silence here is how one job ends up running twice.
            stale = StaleLease(
                lease_id=self.lease_id, job_id=after.id, attempt=held.number, reason=str(ended.end_reason)
            )
            self.ports.push(held.lease.runner_id, stale)

    def _log_move(self, job: Job) -> None:
        attempt = len(job.attempts)
        bound = logger.bind(run=job.run_id, job=job.id, attempt=attempt)
        if job.state.is_final and job.state not in (JobState.SUCCEEDED, JobState.SKIPPED):
            bound.info("job {} is {} ({})", job.name, job.state, job.end_reason)
        else:
            bound.debug("job {} is {}", job.name, job.state)
