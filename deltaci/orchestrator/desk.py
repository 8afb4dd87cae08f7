"""The runners' desk: one message of the protocol in, one out, whatever the transport.

What a runner says is an observation: it becomes a command of the job machine, and the job's actor decides.
"""

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

import anyio
import msgspec
from loguru import logger

from actors import ActorSystem
from deltaci.domain import job as jobs
from deltaci.domain.clone_credential import withheld_because
from deltaci.domain.errors import DeltaError, ForgeRejected, NotFound, ProtocolError
from deltaci.domain.events import Cause
from deltaci.domain.ids import LEASE_BYTES, RANDOM_BYTES, hashed, lease_token, new_id, run_of
from deltaci.domain.job import Job, JobCommand
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.plan import PlannedJob
from deltaci.domain.states import AttemptState, EndReason, JobState
from deltaci.domain.trust import without_password
from deltaci.orchestrator import paths
from deltaci.orchestrator.dispatch import Offer
from deltaci.orchestrator.messages import (
    Accepted,
    Answer,
    AppendLog,
    CheckHolder,
    DoJob,
    Grant,
    Granted,
    LogStored,
    Queued,
)
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.runners import RunnerHub
from deltaci.store.port import QueuedJob
from deltaci.store.writes import Audit, Runner
from protocol import messages as wire
from protocol.codec import encode_json

PHASES: Final[Mapping[wire.Phase, AttemptState]] = {
    "starting": AttemptState.STARTING,
    "running": AttemptState.RUNNING,
    "uploading": AttemptState.UPLOADING,
}
REASONS: Final[Mapping[wire.EndReason, EndReason]] = {
    "job_timeout": EndReason.JOB_TIMEOUT,
    "canceled": EndReason.USER_CANCELED,
    "checkout_failed": EndReason.CHECKOUT_FAILED,
    "runner_error": EndReason.RUNNER_ERROR,
    "runner_stopped": EndReason.RUNNER_STOPPED,
}
GRANT_AGAIN_MS: Final = 5_000
LABELS_MAX: Final = 64
SLOTS_MAX: Final = 1_000
WORD_MAX: Final = 200
TEXT_MAX: Final = 4_000
SOURCES_MAX: Final = 2_000
Fenced: TypeAlias = (
    wire.AckLease | wire.AskCredential | wire.Heartbeat | wire.AppendLog | wire.Complete | wire.CancelAck
)


class Source(msgspec.Struct, frozen=True):
    """Where a run's code comes from: what a lease tells the runner beside the job."""

    repo: str
    clone_url: str
    commit_sha: str
    ref: str
    is_fork: bool
    has_credential: bool = False


class RunnerDesk:
    """Serves runners that the gateway has authenticated."""

    def __init__(self, system: ActorSystem, ports: Ports, hub: RunnerHub) -> None:
        self._system = system
        self._ports = ports
        self._hub = hub
        self._sources: dict[str, Source] = {}
        self._offers: set[Offer] = set()
        self._is_closed = False

    async def register(self, token_id: str, message: wire.Register) -> tuple[Runner, wire.Registered]:
        """The runner of this token and name, the same at every registration; raises `ProtocolError`."""
        _check_register(message)
        known = await self._ports.store.runner_by_name(token_id, message.name)
        now_ms = self._ports.clock.now_ms()
        runner_id = known.id if known else new_id("rnr", now_ms=now_ms, random=self._random(RANDOM_BYTES))
        runner = Runner(
            id=runner_id,
            token_id=token_id,
            name=message.name,
            labels=tuple(sorted(set(message.labels))),
            slots=message.slots,
            version=message.version,
            platform=message.platform,
            registered_at_ms=now_ms,
        )
        audit = Audit(at_ms=now_ms, cause=Cause("runner", runner_id), type="RunnerRegistered", entity_id=runner_id)
        await self._ports.store.commit((runner, audit))
        self._hub.hear(runner)
        policy = self._ports.policy
        return runner, wire.Registered(
            runner_id=runner_id,
            lease_ttl_ms=policy.lease_ttl_ms,
            heartbeat_ms=policy.heartbeat_ms,
            ack_within_ms=policy.ack_within_ms,
            cancel_within_ms=policy.cancel_within_ms,
            lease_wait_ms=policy.lease_wait_ms,
            log_chunk_bytes_max=policy.log_chunk_bytes_max,
            artifact_bytes_max=policy.artifact_bytes_max,
        )

    async def identify(self, token_id: str, runner_id: str) -> Runner:
        """The registered runner with this id and token; raises `NotFound` for anybody else."""
        runner = self._hub.known(runner_id) or await self._ports.store.runner(runner_id)
        if runner is None or runner.token_id != token_id:
            raise NotFound(f"no runner {runner_id[:WORD_MAX]!r} with this token: register first", runner_id=runner_id)
        self._hub.hear(runner)
        return runner

    async def serve(self, runner: Runner, message: wire.RunnerMessage) -> wire.ServerMessage:
        """The answer to one message; raises only what an actor or the store raises."""
        match message:
            case wire.Heartbeat():
                return await self._heartbeat(runner, message)
            case wire.AppendLog():
                return await self._append_log(runner, message)
            case wire.Lease():
                return await self._lease(runner, message)
            case wire.AckLease():
                command = jobs.AckLease(**_holder(runner, message))
                return await self._do(runner, message, command, self._acknowledged)
            case wire.AskCredential():
                return await self._credential(runner, message)
            case wire.Complete():
                return await self._do(runner, message, _completion(runner, message), _completed)
            case wire.CancelAck():
                return await self._do(runner, message, jobs.CancelAck(**_holder(runner, message)), _completed)
            case wire.Register():
                _, registered = await self.register(runner.token_id, message)
                return registered

    async def check_holder(self, runner: Runner, *, job_id: str, attempt: int, lease_id: str) -> Answer[Job]:
        """Whether the runner holds this lease now, for what does not go through the job's machine (artifacts)."""
        question = CheckHolder(attempt=attempt, lease_hash=hashed(lease_id), runner_id=runner.id)
        answer: Answer[Job] = await self._ask(job_id, question)
        return answer

    def close(self) -> None:
        """Give no more leases: runners that wait for one are told that there is none. Holders are served as before."""
        self._is_closed = True
        for offer in self._offers:
            offer.withdraw()

    # ---- leases --------------------------------------------------------------------------------------------------

    async def _lease(self, runner: Runner, message: wire.Lease) -> wire.ServerMessage:
        if not 1 <= message.slots <= SLOTS_MAX:
            return _malformed(f"slots is {message.slots}; ask for 1 to {SLOTS_MAX}")
        if self._is_closed:
            return wire.Leases()
        offer = Offer(frozenset(runner.labels), message.slots)
        self._system.ref(paths.DISPATCH).tell(offer)
        granted: dict[str, wire.LeaseGranted] = {}
        self._offers.add(offer)
        try:
            offered = await offer.wait(max(0, min(message.wait_ms, self._ports.policy.lease_wait_ms)))
            if len(offered) == 1:
                await self._grant(runner, offered[0], granted)
            elif offered:
                async with anyio.create_task_group() as tasks:
                    for job in offered:
                        tasks.start_soon(self._grant, runner, job, granted)
        except BaseException:
            # The runner hung up: what it was offered is there for others. A job that was granted says so itself.
            if offer.jobs:
                self._ports.tell(paths.DISPATCH, Queued(jobs=offer.jobs))
            raise
        finally:
            self._offers.discard(offer)
        return wire.Leases(leases=tuple(granted[job.job_id] for job in offered if job.job_id in granted))

    async def _grant(self, runner: Runner, queued: QueuedJob, granted: dict[str, wire.LeaseGranted]) -> None:
        policy = self._ports.policy
        lease_id = lease_token(self._random(LEASE_BYTES))
        command = jobs.GrantLease(
            lease_hash=hashed(lease_id),
            runner_id=runner.id,
            ack_within_ms=policy.ack_within_ms,
            ttl_ms=policy.lease_ttl_ms,
        )
        grant = Grant(command=command, lease_id=lease_id, cause=Cause("runner", runner.id))
        try:
            # First, so that nothing is granted that cannot be told.
            source = await self._source(run_of(queued.job_id) or "")
            answer: Granted | Refusal = await self._ask(queued.job_id, grant)
        except Exception as error:  # noqa: BLE001 - the other leases of this answer are granted and must be told
            # Stored or not, nobody knows: unacknowledged, it goes back to the queue when its window ends. If it was
            # not, it is offered again, though not at once: a job in quarantine would be offered without end.
            logger.bind(job=queued.job_id).warning("a grant was not answered: {}", error)
            again_ms = self._ports.clock.now_ms() + GRANT_AGAIN_MS
            later = msgspec.structs.replace(queued, not_before_ms=max(queued.not_before_ms, again_ms))
            self._ports.tell(paths.DISPATCH, Queued(jobs=(later,)))
            return
        if isinstance(answer, Refusal):
            return
        job = answer.job
        granted[job.id] = wire.LeaseGranted(
            lease_id=lease_id,
            job_id=job.id,
            attempt=job.attempts[-1].number,
            run_id=job.run_id,
            job=job_spec(answer.planned, source, policy.log_bytes_max),
            expires_in_ms=policy.lease_ttl_ms,
            ack_within_ms=policy.ack_within_ms,
        )

    async def _source(self, run_id: str) -> Source:
        source = self._sources.get(run_id)
        if source is None:
            run = await self._ports.store.load_run(run_id)
            repo = await self._ports.store.load_repo(run.key.repo_id) if run else None
            assert run is not None, f"job of {run_id} without its run"
            assert repo is not None, f"run {run_id} without its repository"
            trigger = run.trigger
            source = Source(
                repo=repo.name,
                clone_url=repo.clone_url,
                commit_sha=run.key.commit_sha,
                ref=trigger.ref,
                is_fork=trigger.is_fork,
                has_credential=self._ports.credentials.is_asked(repo),
            )
            if len(self._sources) >= SOURCES_MAX:
                self._sources.pop(next(iter(self._sources)))
            self._sources[run_id] = source
        return source

    # ---- what a holder says --------------------------------------------------------------------------------------

    async def _heartbeat(self, runner: Runner, message: wire.Heartbeat) -> wire.ServerMessage:
        command = jobs.Heartbeat(phase=PHASES[message.phase], **_holder(runner, message))
        return await self._do(runner, message, command, self._renewed)

    async def _credential(self, runner: Runner, message: wire.AskCredential) -> wire.ServerMessage:
        """What the holder fetches with: made for it now, told to it alone, and kept nowhere. That it was is on record.

        Raises ForgeUnavailable: the runner asks again.
        """
        holder = await self.check_holder(runner, **_fence(message))
        if isinstance(holder, Refusal):
            return _refused(message, holder)
        run = await self._ports.store.load_run(holder.state.run_id)
        repo = await self._ports.store.load_repo(run.key.repo_id) if run else None
        assert run is not None, f"job {message.job_id} without its run"
        assert repo is not None, f"run {run.id} without its repository"
        try:
            credential = await self._ports.credentials.of(repo)
        except ForgeRejected as error:
            return wire.Failure(code=error.code, message=str(error), http_status=422)
        if credential is None:
            return wire.CredentialGiven(**_fence(message))
        if why := withheld_because(credential, is_fork=run.trigger.is_fork):
            return wire.CredentialGiven(**_fence(message), withheld_because=why)
        # The forge took its time: the lease may be another's by now.
        holder = await self.check_holder(runner, **_fence(message))
        if isinstance(holder, Refusal):
            return _refused(message, holder)
        now_ms, cause = self._ports.clock.now_ms(), Cause("runner", runner.id)
        details = {"attempt": str(message.attempt), "repo_id": repo.id}
        audit = Audit(at_ms=now_ms, cause=cause, type="CredentialGiven", entity_id=message.job_id, details=details)
        await self._ports.store.commit((audit,))
        expires_at_ms = credential.expires_at_ms
        return wire.CredentialGiven(
            **_fence(message),
            username=credential.username,
            password=credential.password,
            expires_in_ms=None if expires_at_ms is None else max(0, expires_at_ms - now_ms),
        )

    async def _append_log(self, runner: Runner, message: wire.AppendLog) -> wire.ServerMessage:
        if message.offset < 0 or len(message.data) > self._ports.policy.log_chunk_bytes_max:
            return _malformed(
                f"a chunk starts at 0 or later and holds at most {self._ports.policy.log_chunk_bytes_max} bytes"
            )
        append = AppendLog(
            offset=message.offset,
            data=message.data,
            is_final=message.is_final,
            crc32=message.crc32,
            **_holder(runner, message),
        )
        answer: LogStored | Refusal = await self._ask(message.job_id, append)
        if isinstance(answer, Refusal):
            return _refused(message, answer)
        if answer.is_gap:
            return wire.LogGap(**_fence(message), size=answer.size)
        return wire.LogAck(**_fence(message), size=answer.size)

    async def _do(
        self,
        runner: Runner,
        message: wire.AckLease | wire.Heartbeat | wire.Complete | wire.CancelAck,
        command: JobCommand,
        answered: Callable[[Any, Job], wire.ServerMessage],
    ) -> wire.ServerMessage:
        answer: Answer[Job] = await self._ask(message.job_id, DoJob(command=command, cause=Cause("runner", runner.id)))
        if isinstance(answer, Accepted):
            return answered(message, answer.state)
        return _refused(message, answer)

    def _acknowledged(self, message: wire.AckLease, _job: Job) -> wire.ServerMessage:
        return wire.LeaseAcked(**_fence(message), expires_in_ms=self._ports.policy.lease_ttl_ms)

    def _renewed(self, message: wire.Heartbeat, job: Job) -> wire.ServerMessage:
        is_canceled = job.state is JobState.CANCEL_REQUESTED and job.cancel is not None
        within_ms = max(0, job.cancel.by_ms - self._ports.clock.now_ms()) if job.cancel else 0
        return wire.HeartbeatAck(
            **_fence(message),
            expires_in_ms=self._ports.policy.lease_ttl_ms,
            is_cancel_requested=is_canceled,
            cancel_within_ms=within_ms,
        )

    async def _ask(self, job_id: str, message: Any) -> Any:
        path = paths.job_path(job_id)
        if path is None or len(job_id) > WORD_MAX or "/" in job_id:
            raise NotFound(f"no job {job_id[:WORD_MAX]!r}", job_id=job_id[:WORD_MAX])
        answer = await self._system.ref(path).ask(message, timeout=self._ports.policy.ask_timeout_ms / 1000)
        if isinstance(answer, DeltaError):
            raise answer
        return answer

    def _random(self, count: int) -> bytes:
        return self._ports.entropy.token_bytes(count)


def job_spec(planned: PlannedJob, source: Source, log_bytes_max: int) -> wire.JobSpec:
    """What the runner is told of a job."""
    return wire.JobSpec(
        name=planned.name,
        repo=source.repo,
        clone_url=without_password(source.clone_url) if source.is_fork else source.clone_url,
        commit_sha=source.commit_sha,
        ref=source.ref,
        steps=tuple(
            wire.Step(name=step.name, run=step.run, env=step.env, workdir=step.workdir) for step in planned.steps
        ),
        env=planned.env,
        timeout_ms=planned.timeout_ms,
        artifacts=tuple(wire.Artifact(name=one.name, paths=one.paths) for one in planned.artifacts),
        caches=tuple(wire.Cache(key=one.key, paths=one.paths, is_read_only=source.is_fork) for one in planned.caches),
        log_bytes_max=log_bytes_max,
        has_credential=source.has_credential,
        is_trusted=not source.is_fork,
    )


def _holder(runner: Runner, message: Fenced) -> dict[str, Any]:
    return {"attempt": message.attempt, "lease_hash": hashed(message.lease_id), "runner_id": runner.id}


def _fence(message: Fenced) -> dict[str, Any]:
    return {"lease_id": message.lease_id, "job_id": message.job_id, "attempt": message.attempt}


def _completion(runner: Runner, message: wire.Complete) -> jobs.Complete:
    if message.reason == "exited":
        reason = EndReason.SUCCEEDED if message.exit_code == 0 else EndReason.STEP_FAILED
    else:
        reason = REASONS[message.reason]
    return jobs.Complete(
        **_holder(runner, message),
        reason=reason,
        exit_code=message.exit_code,
        text=message.message[:TEXT_MAX],
        result_digest=hashlib.sha256(encode_json(message)).hexdigest(),
    )


def _completed(message: wire.Complete | wire.CancelAck, job: Job) -> wire.ServerMessage:
    return wire.CompleteAck(**_fence(message), state=job.attempts[message.attempt - 1].state.value)


def _refused(message: Any, refusal: Refusal) -> wire.ServerMessage:
    if refusal.why in (Why.STALE_LEASE, Why.NOT_FOUND):
        return wire.StaleLease(**_fence(message), reason=refusal.text)
    status = 413 if refusal.why is Why.LIMIT else 409
    return wire.Failure(
        code=refusal.why.value,
        message=refusal.text,
        details={"job_id": refusal.entity_id, "state": refusal.at},
        http_status=status,
    )


def _malformed(text: str) -> wire.Failure:
    return wire.Failure(code="malformed", message=text, http_status=400)


def _check_register(message: wire.Register) -> None:
    words = (message.name, message.version, message.platform, *message.labels)
    if not message.name.strip() or any(len(word) > WORD_MAX or not word.isprintable() for word in words):
        raise ProtocolError(f"a runner's name, labels, version and platform are printable, at most {WORD_MAX} long")
    if len(message.labels) > LABELS_MAX or not 1 <= message.slots <= SLOTS_MAX:
        raise ProtocolError(f"a runner has at most {LABELS_MAX} labels and 1 to {SLOTS_MAX} slots")
    if message.protocol_version != wire.PROTOCOL_VERSION:
        raise ProtocolError(
            f"this server speaks protocol version {wire.PROTOCOL_VERSION}, the runner {message.protocol_version}: "
            "use a runner of the same release"
        )
