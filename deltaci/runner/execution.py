"""One attempt on this host, from the acknowledgement of its lease to the definite answer to its result.

Rule 1: the lease is the right to go on. Its deadline counts from when the renewing request was *sent*; past it, or
        when the server says stale, everything is killed at once and nothing more is sent. The shepherd knows the
        deadline too: this process may be the one that stands still.
Rule 2: whatever ends an attempt, its processes are gone before its end is reported.
Rule 3: the result is resent until there is a definite answer; only then is it forgotten.
"""

import asyncio
import enum
import secrets
from collections.abc import Callable
from typing import Final, TypedDict

import msgspec
from loguru import logger

from deltaci.runner.caches import CacheDir
from deltaci.runner.log_stream import LogStream
from deltaci.runner.process import ProcessTree
from deltaci.runner.resend import ask_until_definite
from deltaci.runner.settings import RunnerSettings
from deltaci.runner.shepherd import boot_clock
from deltaci.runner.steps import Outcome, Steps
from deltaci.runner.workspace import CheckoutFailed, WorkDir, Workspace
from protocol.client import Backoff, RunnerClient, ServerUnreachable
from protocol.messages import (
    AckLease,
    AskCredential,
    CancelAck,
    Complete,
    CompleteAck,
    CredentialGiven,
    Failure,
    Heartbeat,
    HeartbeatAck,
    LeaseAcked,
    LeaseGranted,
    Phase,
    Registered,
    RunnerMessage,
    StaleLease,
)

CANCEL_MARGIN_MS: Final = 5_000
CANCEL_LOG_TIMEOUT_S: Final = 3.0
WATCH_SLICE_S: Final = 1.0
# A runner that is awake ends its job by itself, with a word in its log: the shepherd lets it go first.
SHEPHERD_WAITS_S: Final = 0.25
NOT_RENEWED: Final = "it was not renewed in time"
RETRY_MS_MAX: Final = 5_000
# A forge that is away for longer fails the checkout, and the job is tried again later.
CREDENTIAL_WITHIN_S: Final = 120.0


class _Fence(TypedDict):
    """The fields that every message about the attempt carries."""

    lease_id: str
    job_id: str
    attempt: int


class Stop(enum.Enum):
    """Why an attempt is ended before its steps are."""

    CANCELED = "canceled"
    RUNNER_STOPPED = "runner_stopped"
    LEASE_LOST = "lease lost"


class Host(msgspec.Struct, frozen=True, kw_only=True):
    """What all attempts of a runner share."""

    client: RunnerClient
    settings: RunnerSettings
    registered: Registered
    work_dir: WorkDir
    caches: CacheDir
    jitter: Callable[[], float]
    clock: Callable[[], float] = boot_clock

    def backoff(self) -> Backoff:
        """Delays for one thing to resend, short enough that a restarted server is not kept waiting."""
        return Backoff(max_ms=RETRY_MS_MAX, jitter=self.jitter)


class Execution:
    """Executes one granted attempt in slot number `slot`; `run` once."""

    def __init__(self, grant: LeaseGranted, *, host: Host, slot: int) -> None:
        self.grant = grant
        self._host = host
        self._slot = slot
        # Counted from now on: nothing is done before the lease is acknowledged, and from then on it counts from that. A
        # request for work may have waited for longer than the lease lives.
        self._deadline = host.clock() + grant.expires_in_ms / 1000
        self._mark = secrets.token_hex(16)
        self._stop: Stop | None = None
        self._grace_ms = host.settings.cancel_grace_ms
        self._phase: Phase = "starting"
        self._body: asyncio.Task[Outcome] | None = None
        self._steps: Steps | None = None
        self._log: LogStream | None = None
        self._tree: ProcessTree | None = None
        self._outcome = Outcome()
        self._failure: Outcome | None = None

    # ---- what others ask of it -----------------------------------------------------------------------------------

    def cancel(self, within_ms: int) -> None:
        """Obey a cancel: SIGTERM, a grace that leaves time before `within_ms` is over, SIGKILL, `CancelAck`."""
        margin_ms = min(CANCEL_MARGIN_MS, within_ms // 2)
        self._grace_ms = min(self._host.settings.cancel_grace_ms, max(0, within_ms - margin_ms))
        self._halt(Stop.CANCELED)

    def give_back(self) -> None:
        """The runner stops: end the attempt and report `runner_stopped`."""
        self._halt(Stop.RUNNER_STOPPED)

    def lose(self, why: str) -> None:
        """The lease is not ours any more: kill at once, report nothing."""
        if self._stop is not Stop.LEASE_LOST:
            logger.warning("the lease of job {} attempt {} is lost: {}", self.grant.job_id, self.grant.attempt, why)
        self._halt(Stop.LEASE_LOST)

    def _halt(self, stop: Stop) -> None:
        """End the work for `stop`; the first reason stays, but a lost lease overrides them all."""
        was_halted = self._stop is not None
        if not was_halted or stop is Stop.LEASE_LOST:
            self._stop = stop
        if stop is Stop.LEASE_LOST:
            self._grace_ms = 0
            if self._tree is not None:
                self._tree.hurry()
        if self._body is not None and not was_halted:
            self._body.cancel()

    # ---- its life ------------------------------------------------------------------------------------------------

    async def run(self, on_idle: Callable[[], None]) -> None:
        """Acknowledge, work, report. `on_idle` is called once the slot is free: the report may take longer."""
        with logger.contextualize(run=self.grant.run_id, job=self.grant.job_id, attempt=self.grant.attempt):
            keepers = [asyncio.create_task(self._watch_lease())]
            try:
                if await self._acknowledge():
                    keepers.append(asyncio.create_task(self._heartbeats()))
                    await self._work()
                    on_idle()
                    keepers[0].cancel()
                    if self._left_s() <= 0:
                        # The shepherd may have been first, or all of us stood still: no timer has told us yet.
                        self.lose(NOT_RENEWED)
                    await self._report()
            finally:
                on_idle()
                for keeper in keepers:
                    keeper.cancel()
                await asyncio.gather(*keepers, return_exceptions=True)
                if self._log is not None:
                    await self._log.discard()

    async def _acknowledge(self) -> bool:
        sent_at = self._host.clock()
        answer = await self._ask(AckLease(**self._fence()))
        if isinstance(answer, LeaseAcked):
            # The first request may be the one that counted, its answer lost: its time is the safe one.
            self._renew(sent_at, answer.expires_in_ms)
            return True
        logger.warning("the lease was not confirmed ({}): the attempt is dropped", type(answer).__name__)
        return False

    async def _ask(self, message: RunnerMessage) -> object:
        """Resend until the answer is definite, or the lease is lost."""
        return await ask_until_definite(
            self._host.client, message, backoff=self._host.backoff(), can_go_on=lambda: not self._is_lost()
        )

    def _is_halted(self) -> bool:
        return self._stop is not None

    def _is_lost(self) -> bool:
        return self._stop is Stop.LEASE_LOST

    def _renew(self, sent_at: float, expires_in_ms: int) -> None:
        self._deadline = max(self._deadline, sent_at + expires_in_ms / 1000)
        if self._tree is not None:
            self._tree.allow_until(self._deadline + SHEPHERD_WAITS_S)

    def _left_s(self) -> float:
        return self._deadline - self._host.clock()

    async def _watch_lease(self) -> None:
        # In slices: the loop's own timer stands still while the host sleeps, the lease's deadline does not.
        while (left_s := self._left_s()) > 0:  # noqa: ASYNC110  # there is no event: time passes
            await asyncio.sleep(min(left_s, WATCH_SLICE_S))
        self.lose(NOT_RENEWED)

    async def _heartbeats(self) -> None:
        """Renew the lease until the end; an outage is met with quicker attempts."""
        period_s = self._host.registered.heartbeat_ms / 1000
        backoff = self._host.backoff()
        while not self._is_lost():
            sent_at = self._host.clock()
            step = self._steps.index if self._steps is not None else None
            try:
                answer = await self._host.client.call(Heartbeat(**self._fence(), phase=self._phase, step=step))
            except ServerUnreachable as error:
                logger.debug("no answer to a heartbeat: {}", error)
                await asyncio.sleep(min(period_s, backoff.next_s()))
                continue
            match answer:
                case HeartbeatAck():
                    backoff.reset()
                    self._renew(sent_at, answer.expires_in_ms)
                    if answer.is_cancel_requested:
                        self.cancel(answer.cancel_within_ms or self._host.registered.cancel_within_ms)
                case StaleLease():
                    self.lose(answer.reason or "the server says stale")
                case _:
                    logger.warning("the answer to a heartbeat is {}", answer)
            await asyncio.sleep(period_s)

    # ---- work ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Execute, then leave nothing behind; sets the outcome."""
        workspace: Workspace | None = None
        try:
            if not self._is_halted():
                workspace = await asyncio.to_thread(
                    self._host.work_dir.new_workspace, self._slot, self.grant, self._mark
                )
                self._log = self._open_log()
                self._body = asyncio.create_task(self._execute(workspace, self._log))
                if self._is_halted():
                    self._body.cancel()
                await asyncio.wait({self._body})
                self._outcome = self._outcome_of(self._body)
        except OSError as error:
            logger.error("the attempt could not be set up: {}", error)
            self._outcome = Outcome(reason="runner_error", message=f"the runner failed: {error.strerror}")
        finally:
            if self._body is not None and not self._body.done():
                self._body.cancel()
                await asyncio.wait({self._body})
            if self._tree is not None:
                await self._tree.close()
            if workspace is not None:
                await workspace.remove()
        logger.info("the attempt is over: {}", self._stop.value if self._stop is not None else self._outcome.summary)

    def _open_log(self) -> LogStream:
        log = LogStream(
            self.grant,
            client=self._host.client,
            spool=self._host.work_dir.spools / f"{secrets.token_hex(8)}.log",
            chunk_bytes_max=self._host.registered.log_chunk_bytes_max,
            flush_ms=self._host.settings.flush_ms,
            backoff=self._host.backoff(),
            on_stale=lambda: self.lose("the server refuses its log"),
            can_go_on=lambda: not self._is_lost(),
        )
        log.start()
        return log

    def _take_output(self, data: bytes) -> None:
        assert self._log is not None
        try:
            self._log.write(data)
        except OSError as error:
            # A job whose log cannot be kept is not run to its end: nobody could tell why it ended.
            if self._failure is None and self._body is not None:
                logger.error("the log cannot be kept: {}", error.strerror)
                self._failure = Outcome(reason="runner_error", message=f"the log cannot be kept: {error.strerror}")
                self._body.cancel()

    def _outcome_of(self, body: asyncio.Task[Outcome]) -> Outcome:
        if body.cancelled():
            return self._failure or Outcome()
        error = body.exception()
        if error is None:
            return body.result()
        if isinstance(error, CheckoutFailed):
            return Outcome(reason="checkout_failed", message=str(error))
        logger.opt(exception=error).error("the runner failed to execute the attempt")
        return Outcome(reason="runner_error", message=f"the runner failed: {type(error).__name__}: {error}")

    async def _execute(self, workspace: Workspace, log: LogStream) -> Outcome:
        """Checkout, steps, caches, artifacts. Cancellation ends it at any point; `_work` kills what is left."""
        host, job = self._host, self.grant.job
        self._tree = ProcessTree(self._mark, self._take_output)
        self._steps = steps = Steps(self.grant, workspace, self._tree, log, settings=host.settings)
        try:
            async with asyncio.timeout(job.timeout_ms / 1000):
                log.line(f"==> checkout {job.commit_sha}")
                try:
                    await host.work_dir.check_out(
                        workspace,
                        job,
                        config=host.settings.git_config,
                        ask_credential=self._ask_credential if job.has_credential else None,
                    )
                except CheckoutFailed as error:
                    log.line(f"==> checkout failed: {error}")
                    raise
                await steps.restore_caches(host.caches)
                self._phase = "running"
                await self._tree.start()
                self._tree.allow_until(self._deadline + SHEPHERD_WAITS_S)
                outcome = await steps.run_all(lambda: self._grace_ms / 1000)
        except TimeoutError:
            log.line(f"==> the job's time of {job.timeout_ms} ms is over: it was stopped")
            outcome = Outcome(reason="job_timeout", message=f"timed out after {job.timeout_ms} ms")
        # From here on nothing of the job runs: files cannot change while they are packed.
        await self._tree.close()
        self._phase = "uploading"
        if outcome.reason == "exited" and outcome.exit_code == 0:
            await steps.save_caches(host.caches)
        await steps.upload_artifacts(host.client, backoff=host.backoff(), bytes_max=host.registered.artifact_bytes_max)
        log.line(f"==> job {outcome.summary}")
        return outcome

    async def _ask_credential(self) -> CredentialGiven:
        """What to fetch with. Raises CheckoutFailed if there is no answer for a while, or none that helps."""
        by = self._host.clock() + CREDENTIAL_WITHIN_S
        answer = await ask_until_definite(
            self._host.client,
            AskCredential(**self._fence()),
            backoff=self._host.backoff(),
            can_go_on=lambda: not self._is_lost() and self._host.clock() < by,
        )
        match answer:
            case CredentialGiven():
                return answer
            case StaleLease():
                self.lose(answer.reason or "the server says stale")
                raise CheckoutFailed("the lease is lost")
            case Failure():
                raise CheckoutFailed(f"the server gave no credential to fetch with: {answer.message}")
            case _:
                raise CheckoutFailed("the server gave no credential to fetch with in time")

    # ---- report --------------------------------------------------------------------------------------------------

    async def _report(self) -> None:
        """Tell the server how it ended, until it has a definite answer; a lost lease is told to nobody."""
        if self._is_lost():
            return
        log = self._log
        if log is not None:
            # A cancel has a deadline of its own, and the state of a canceled job does not wait for its log.
            timeout_s = CANCEL_LOG_TIMEOUT_S if self._stop is Stop.CANCELED else None
            try:
                async with asyncio.timeout(timeout_s):
                    await self._close_log(log)
            except TimeoutError:
                logger.warning("the log of the canceled attempt could not be sent in time")
        if self._is_lost():
            return
        answer = await self._ask(self._result(log))
        match answer:
            case CompleteAck():
                logger.info("the server has the result: {}", answer.state)
            case None:
                pass
            case _:
                logger.warning("the result was refused: {}", answer)

    async def _close_log(self, log: LogStream) -> None:
        try:
            if self._stop is not None:
                log.line(f"==> job {self._stop.value.replace('_', ' ')}")
            await log.close()
        except OSError as error:
            logger.error("the end of the log could not be kept: {}", error.strerror)

    def _result(self, log: LogStream | None) -> RunnerMessage:
        fence = self._fence()
        if self._stop is Stop.CANCELED:
            return CancelAck(**fence)
        is_stopped = self._stop is Stop.RUNNER_STOPPED
        return Complete(
            **fence,
            reason="runner_stopped" if is_stopped else self._outcome.reason,
            exit_code=None if is_stopped else self._outcome.exit_code,
            message="the runner is shutting down" if is_stopped else self._outcome.message,
            steps=tuple(self._steps.results) if self._steps is not None else (),
            log_size=log.size if log is not None else 0,
            log_crc32=log.crc32 if log is not None else 0,
        )

    def _fence(self) -> _Fence:
        return {"lease_id": self.grant.lease_id, "job_id": self.grant.job_id, "attempt": self.grant.attempt}
