"""The runner: registers this host, asks for as many attempts as it has free slots, and carries each to its end.

Rule 1: at most one `Lease` request is outstanding, and it never asks for more than the free slots.
Rule 2: an outage changes nothing: held leases go on, and what is owed to the server is resent when it is back.
"""

import asyncio
import contextlib
import platform
import random
import signal
import time
from collections.abc import Callable
from typing import Final

from loguru import logger

from deltaci.runner.caches import CacheDir
from deltaci.runner.execution import Execution, Host
from deltaci.runner.process import adopt_orphans, hide_from_jobs
from deltaci.runner.settings import RunnerSettings
from deltaci.runner.shepherd import boot_clock
from deltaci.runner.workspace import WorkDir
from protocol.client import Backoff, OnPush, OnRegistered, RunnerClient, ServerUnreachable, connect, is_retryable
from protocol.messages import (
    CancelRequested,
    Failure,
    Lease,
    LeaseGranted,
    Leases,
    Register,
    Registered,
    ServerMessage,
    StaleLease,
)

VERSION: Final = "0.1.0"
QUICK_POLL_S: Final = 0.1
DRAIN_POLL_S: Final = 0.5

ConnectTo = Callable[[OnPush, OnRegistered], RunnerClient]


class RegistrationRefused(Exception):
    """The server does not know the token, or refuses this runner; the text is its answer."""


class Runner:
    """One runner. `run` returns when it was drained and everything it held is reported.

    Args:
        work_dir: opened by the caller.
        connect_to: makes the client, given what to do with pushes and with registrations.
    """

    def __init__(
        self,
        settings: RunnerSettings,
        work_dir: WorkDir,
        connect_to: ConnectTo,
        *,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = boot_clock,
    ) -> None:
        self._settings = settings
        self._work_dir = work_dir
        self._caches = CacheDir(work_dir.caches, bytes_max=settings.cache_bytes_max)
        self._client = connect_to(self._take_push, self._take_registration)
        self._jitter = jitter
        self._clock = clock
        self._registered: Registered | None = None
        self._held: dict[str, Execution] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._free_slots = sorted(range(settings.slots), reverse=True)
        self._changed = asyncio.Event()
        self._is_draining = False
        self._is_stopping = False

    # ---- what others ask of it -----------------------------------------------------------------------------------

    def drain(self) -> None:
        """Take no more attempts; finish those held, then end."""
        logger.info("draining: {} attempts are finished first", len(self._held))
        self._is_draining = True
        self._changed.set()

    def stop(self) -> None:
        """Drain, and give back what is held: each attempt is ended and reported as `runner_stopped`."""
        self._is_draining = self._is_stopping = True
        for execution in self._held.values():
            execution.give_back()
        self._changed.set()

    async def run(self) -> None:
        """Register, work, drain.

        Raises:
            RegistrationRefused: the server said a definite no at the first registration.
        """
        try:
            if await self._register_first():
                await self._work()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await self._client.aclose()

    # ---- registration --------------------------------------------------------------------------------------------

    async def _register_first(self) -> bool:
        """Until there is an answer; False when drained before."""
        backoff = Backoff(max_ms=10_000, jitter=self._jitter)
        while not self._is_draining:
            try:
                answer = await self._register()
            except ServerUnreachable as error:
                logger.warning("the server cannot be reached, trying again: {}", error)
            else:
                if isinstance(answer, Registered):
                    logger.info("registered as {} with {} slots", answer.runner_id, self._settings.slots)
                    return True
                if not isinstance(answer, Failure) or not is_retryable(answer):
                    text = f"{answer.code}: {answer.message}" if isinstance(answer, Failure) else type(answer).__name__
                    raise RegistrationRefused(f"the server refuses this runner: {text}")
            await self._pause(backoff.next_s())
        return False

    async def _register(self) -> ServerMessage:
        settings = self._settings
        answer = await self._client.call(
            Register(
                name=settings.display_name,
                labels=settings.labels,
                slots=settings.slots,
                version=VERSION,
                platform=f"{platform.system()}/{platform.machine()}".lower(),
            )
        )
        if isinstance(answer, Registered):
            self._registered = answer
        return answer

    def _take_registration(self, registered: Registered) -> None:
        """A reconnection registers by itself; the server's settings may have changed."""
        self._registered = registered

    # ---- work ----------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        poll: asyncio.Task[None] | None = None
        try:
            while not (self._is_draining and not self._tasks):
                if (poll is None or poll.done()) and not self._is_draining and self._free_slots:
                    poll = asyncio.create_task(self._poll())
                # A poll under way is left to its end while attempts are finished: abandoned, it could still win one.
                self._changed.clear()
                changed = asyncio.create_task(self._changed.wait())
                try:
                    await asyncio.wait(
                        {task for task in (poll, changed) if task is not None and not task.done()},
                        return_when=asyncio.FIRST_COMPLETED,
                    )
                finally:
                    changed.cancel()
                if poll is not None and poll.done():
                    poll.result()
        finally:
            if poll is not None:
                poll.cancel()
                await asyncio.gather(poll, return_exceptions=True)

    async def _poll(self) -> None:
        """One `Lease` request, until it is answered; pauses so that answers without work are no busy loop."""
        backoff = Backoff(max_ms=5_000, jitter=self._jitter)
        while True:
            registered = self._registered
            assert registered is not None
            started = time.monotonic()
            try:
                answer = await self._client.call(
                    Lease(runner_id=registered.runner_id, slots=len(self._free_slots), wait_ms=registered.lease_wait_ms)
                )
                if isinstance(answer, Leases):
                    self._take(answer.leases)
                    if not answer.leases and time.monotonic() - started < QUICK_POLL_S:
                        await asyncio.sleep(DRAIN_POLL_S * (1 - self._jitter() / 2))
                    return
                logger.warning("the answer to a request for work is {}", answer)
                retry_after_ms = (answer.retry_after_ms or 0) if isinstance(answer, Failure) else 0
                if isinstance(answer, Failure) and answer.http_status in {401, 403, 404, 409}:
                    await self._register()  # the server may have forgotten this runner
            except ServerUnreachable as error:
                logger.debug("no answer to a request for work: {}", error)
                retry_after_ms = 0
            if self._is_draining:
                return
            await asyncio.sleep(max(backoff.next_s(), retry_after_ms / 1000))

    def _take(self, grants: tuple[LeaseGranted, ...]) -> None:
        for grant in grants:
            if grant.lease_id in self._held:
                continue
            if not self._free_slots:
                logger.warning("job {} was granted beyond the free slots and is left alone", grant.job_id)
                continue
            slot = self._free_slots.pop()
            host = self._host()
            execution = Execution(grant, host=host, slot=slot)
            self._held[grant.lease_id] = execution
            if self._is_draining:
                # It crossed with the signal: confirmed and given back, it need not wait for its deadline.
                execution.give_back()
            task = asyncio.create_task(self._carry(execution, slot))
            self._tasks.add(task)
            task.add_done_callback(self._forget)

    async def _carry(self, execution: Execution, slot: int) -> None:
        is_freed = False

        def free() -> None:
            nonlocal is_freed
            if not is_freed:
                is_freed = True
                self._free_slots.append(slot)
                self._changed.set()

        try:
            await execution.run(free)
        finally:
            free()
            self._held.pop(execution.grant.lease_id, None)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.opt(exception=error).error("an execution broke; its lease will expire")

    def _host(self) -> Host:
        assert self._registered is not None
        return Host(
            client=self._client,
            settings=self._settings,
            registered=self._registered,
            work_dir=self._work_dir,
            caches=self._caches,
            jitter=self._jitter,
            clock=self._clock,
        )

    def _take_push(self, push: ServerMessage) -> None:
        match push:
            case CancelRequested() | StaleLease() if (held := self._held.get(push.lease_id)) is not None:
                if isinstance(push, CancelRequested):
                    held.cancel(push.cancel_within_ms)
                else:
                    held.lose(push.reason or "the server says stale")
            case CancelRequested() | StaleLease():
                logger.debug("a push for an attempt that is not held here: job {}", push.job_id)
            case _:
                logger.warning("an unexpected push: {}", type(push).__name__)

    async def _pause(self, seconds: float) -> None:
        """Sleep, but not through a drain."""
        self._changed.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


async def run(settings: RunnerSettings) -> int:
    """Be a runner until SIGTERM or SIGINT: the first drains, the second gives the jobs back, the third leaves.

    Returns:
        The exit code of the process: 0 when everything was reported, 1 when the server refuses this runner or a third
        signal cut the reports short.
    Raises:
        RunnerConfigError: token or work directory cannot be used.
    """
    token = settings.read_token()
    work_dir = WorkDir(settings.work_dir)
    await asyncio.to_thread(work_dir.open)
    try:
        adopt_orphans()
        hide_from_jobs()
        runner = Runner(
            settings,
            work_dir,
            lambda on_push, on_registered: connect(
                settings.server,
                token,
                transport=settings.transport,
                on_push=on_push,
                on_registered=on_registered,
            ),
        )
        return await _run_until_signaled(runner)
    finally:
        work_dir.close()


async def _run_until_signaled(runner: Runner) -> int:
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(runner.run())
    steps = [runner.drain, runner.stop]

    def obey() -> None:
        (steps.pop(0) if steps else task.cancel)()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, obey)
    try:
        await asyncio.wait({task})
        if task.cancelled():
            logger.error("left before everything was reported")
            return 1
        task.result()
    except RegistrationRefused as error:
        logger.error("{}", error)
        return 1
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
    logger.info("everything is reported, good bye")
    return 0
