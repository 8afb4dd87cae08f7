"""Simulated runners: good ones, slow ones, hosts that stall or vanish, and liars.

Rule 1: they follow the protocol as the reference runner does: acknowledge, then work; beat; stop when the lease was not
        renewed for one TTL; resend the result until the answer is definite.
Rule 2: what each of them was told, and when it really worked, goes into the history, which is held against the events.
"""

import hashlib
import zlib
from typing import Any, Final

import anyio
import anyio.abc
import msgspec
import trio

from deltaci.domain.ids import hashed
from deltaci.invariants import Answered, Granted, Worked
from protocol import messages as wire
from protocol.codec import encode_json
from tests.simulation.forge import LABELS
from tests.simulation.network import Failed, Network, NoAnswer
from tests.simulation.people import secret_of
from tests.simulation.world import World, elapsed_ms

PATIENCE_S: Final = 8.0
SLOW_FACTOR: Final = 40
GHOSTS_MAX: Final = 40
TRIES_MAX: Final = 400
LAST_LAP_S: Final = 1.0
Fenced = wire.AckLease | wire.Heartbeat | wire.AppendLog | wire.Complete | wire.CancelAck


class Attempt:
    """What a runner knows of an attempt that it executes."""

    def __init__(self, lease: wire.LeaseGranted, runner_id: str) -> None:
        self.lease = lease
        self.runner_id = runner_id
        self.is_lost = False
        self.is_betrayed = False  # its own host lied about it: when it worked proves nothing any more
        self.is_cancel_requested = False
        self.renewed_s = 0.0
        self.log = b""
        self.log_stored = 0
        self.working_since_ms: int | None = None

    def fence(self) -> dict[str, Any]:
        """What every message about it carries."""
        return {"lease_id": self.lease.lease_id, "job_id": self.lease.job_id, "attempt": self.lease.attempt}


class Runner:
    """One host with some slots; `live` until the end of the world, through stalls and deaths."""

    def __init__(self, world: World, network: Network, number: int) -> None:
        parameters = world.parameters
        self.world = world
        self.network = network
        self.name = f"runner{number}"
        # The first one can do everything, so that no job waits for labels that nobody has.
        self.labels = LABELS if number == 0 else tuple(world.rng(self.name).sample(LABELS, number % 2))
        self.slots = parameters.slots
        self._ttl_s = parameters.policy.lease_ttl_ms / 1000
        self.runner_id = ""
        self.attempts: dict[str, Attempt] = {}
        self.stalled_until_s = 0.0
        self.ghosts: list[Fenced] = []
        self._host = anyio.CancelScope()
        self._tasks: anyio.abc.TaskGroup
        self._room = anyio.Event()

    # ---- the host ------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """For ever: serve, vanish, come back under the same name with nothing in hand."""
        while True:
            with anyio.CancelScope() as self._host:
                async with anyio.create_task_group() as self._tasks:
                    await self._serve()
            self.attempts.clear()
            self.runner_id = ""
            if not self.world.is_healed:
                await anyio.sleep(self.world.after(60, "dead"))

    async def _serve(self) -> None:
        policy = self.world.parameters.policy
        while True:
            while not self.runner_id:
                await self._register()
            while len(self.attempts) >= self.slots:
                self._room = anyio.Event()
                await self._room.wait()
            free = self.slots - len(self.attempts)
            message = wire.Lease(runner_id=self.runner_id, slots=free, wait_ms=policy.lease_wait_ms)
            answer = await self._say(message, within_s=policy.lease_wait_ms / 1000 + PATIENCE_S)
            if isinstance(answer, wire.Leases):
                for lease in answer.leases:
                    self._take(lease)
                if not answer.leases and policy.lease_wait_ms == 0:
                    await anyio.sleep(5)
            else:
                await anyio.sleep(self.world.after(2, "runner_backoff"))

    async def _register(self) -> None:
        message = wire.Register(name=self.name, labels=self.labels, slots=self.slots)
        answer = await self.network.ask(
            self.name, "Register", lambda house: house.register(message, self._hear), within_s=PATIENCE_S
        )
        await self._awake()
        if isinstance(answer, wire.Registered):
            self.runner_id = answer.runner_id
            self.world.runner_ids[self.runner_id] = None
        else:
            await anyio.sleep(self.world.after(2, "runner_backoff"))

    def _hear(self, message: wire.ServerMessage) -> None:
        """A push; on a host that is stalled it waits in the socket until then, which the loop below makes up for."""
        match message:
            case wire.CancelRequested(lease_id=lease_id) if lease_id in self.attempts:
                self.attempts[lease_id].is_cancel_requested = True
            case wire.StaleLease(lease_id=lease_id) if lease_id in self.attempts:
                self.attempts[lease_id].is_lost = True
            case _:
                pass

    async def _awake(self) -> None:
        """Go on when the host is not stalled."""
        await anyio.sleep_until(self.stalled_until_s)

    # ---- talking -------------------------------------------------------------------------------------------------

    async def _say(self, message: wire.RunnerMessage, *, within_s: float = PATIENCE_S) -> Any:
        runner_id = self.runner_id
        kind = type(message).__name__
        sent_at_ms = self.world.clock.now_ms() if not self.world.faults.clock_jump else -1
        answer = await self.network.ask(self.name, kind, lambda house: house.say(runner_id, message), within_s=within_s)
        await self._awake()
        if isinstance(message, Fenced):
            self._record(runner_id, message, answer, sent_at_ms)
            self._remember(message)
        elif isinstance(answer, wire.Leases):
            for lease in answer.leases:
                self.world.secrets.append(lease.lease_id.encode())
                self.world.history.append(
                    Granted(
                        at_ms=self.world.clock.now_ms(),
                        runner_id=runner_id,
                        job_id=lease.job_id,
                        attempt=lease.attempt,
                        lease_hash=hashed(lease.lease_id),
                    )
                )
        if isinstance(answer, Failed) and "NotFound" in answer.error:
            self.runner_id = ""  # the server does not know us: register again
        return answer

    def _record(self, runner_id: str, message: Fenced, answer: Any, sent_at_ms: int) -> None:
        if isinstance(answer, NoAnswer | Failed):
            return
        is_accepted = isinstance(answer, wire.LeaseAcked | wire.HeartbeatAck | wire.LogAck | wire.CompleteAck)
        self.world.counts[f"answer:{type(message).__name__}:{type(answer).__name__}"] += 1
        self.world.history.append(
            Answered(
                at_ms=self.world.clock.now_ms(),
                runner_id=runner_id,
                job_id=message.job_id,
                attempt=message.attempt,
                lease_hash=hashed(message.lease_id),
                message=type(message).__name__,
                is_accepted=is_accepted,
                is_stale=isinstance(answer, wire.StaleLease),
                digest=hashlib.sha256(encode_json(message)).hexdigest() if isinstance(message, wire.Complete) else "",
                state=answer.state if isinstance(answer, wire.CompleteAck) else "",
                code=answer.code if isinstance(answer, wire.Failure) else "",
                sent_at_ms=sent_at_ms,
            )
        )

    def _remember(self, message: Fenced) -> None:
        if len(self.ghosts) >= GHOSTS_MAX:
            self.ghosts.pop(0)
        self.ghosts.append(message)

    async def haunt(self) -> None:
        """Old messages arrive again, and messages that nobody should send."""
        lies = self.world.rng("lies")
        while True:
            await anyio.sleep(self.world.after(5, "haunt"))
            if not self.ghosts or not self.runner_id or not self.world.strikes("lie"):
                continue
            message = self._lie(lies.choice(self.ghosts))
            if message.lease_id in self.attempts:
                self.attempts[message.lease_id].is_betrayed = True
            await self._say(message)

    def _lie(self, message: Fenced) -> Fenced:
        """Something like `message` that is not true, or not any more."""
        lies = self.world.rng("lies")
        fence: dict[str, Any] = {
            "lease_id": message.lease_id,
            "job_id": message.job_id,
            "attempt": message.attempt,
        }
        match lies.randrange(7):
            case 0:
                return message  # the very same, long after
            case 1:
                return msgspec.structs.replace(message, attempt=message.attempt + 1)
            case 2:
                return msgspec.structs.replace(message, lease_id="0" * 32)
            case 3:
                run, _, _ = message.job_id.rpartition("_")
                return msgspec.structs.replace(message, job_id=f"{run}_{lies.randrange(4)}")  # another job of the run
            case 4:
                return wire.CancelAck(**fence)
            case 5:
                return wire.Heartbeat(**fence, phase="uploading")
            case _ if isinstance(message, wire.Complete):
                return msgspec.structs.replace(message, exit_code=0 if message.exit_code else 1)
            case _:
                return wire.Complete(**fence, exit_code=lies.randrange(2))

    # ---- one attempt ---------------------------------------------------------------------------------------------

    def _take(self, lease: wire.LeaseGranted) -> None:
        if lease.lease_id not in self.attempts:
            attempt = self.attempts[lease.lease_id] = Attempt(lease, self.runner_id)
            self._tasks.start_soon(self._execute, attempt)

    async def _execute(self, attempt: Attempt) -> None:
        try:
            if await self._acknowledge(attempt):
                attempt.working_since_ms = elapsed_ms()
                is_over = await self._work(attempt)
                self._rest(attempt)
                if is_over:
                    await self._finish(attempt)
        finally:
            self._rest(attempt)
            self.attempts.pop(attempt.lease.lease_id, None)
            self._room.set()

    def _rest(self, attempt: Attempt) -> None:
        """It does not work on it any more, and has not since its lease was over by its own clock."""
        over_ms = int((attempt.renewed_s + self._ttl_s) * 1000)
        if attempt.working_since_ms is not None and not attempt.is_betrayed:
            self.world.history.append(
                Worked(
                    runner_id=attempt.runner_id,
                    job_id=attempt.lease.job_id,
                    attempt=attempt.lease.attempt,
                    from_ms=attempt.working_since_ms,
                    until_ms=max(attempt.working_since_ms, min(elapsed_ms(), over_ms)),
                )
            )
            attempt.working_since_ms = None

    async def _acknowledge(self, attempt: Attempt) -> bool:
        deadline_s = anyio.current_time() + attempt.lease.ack_within_ms / 1000
        while anyio.current_time() < deadline_s and not attempt.is_lost:
            sent_s = anyio.current_time()
            answer = await self._say(wire.AckLease(**attempt.fence()))
            if isinstance(answer, wire.LeaseAcked):
                attempt.renewed_s = sent_s
                return not self._is_over(attempt)
            if isinstance(answer, wire.StaleLease | wire.Failure):
                return False
            await anyio.sleep(self.world.after(1, "runner_backoff"))
        return False

    async def _work(self, attempt: Attempt) -> bool:
        """Work until it is done; False if the lease is gone, or a cancel was obeyed."""
        world = self.world
        beat_s = world.parameters.policy.heartbeat_ms / 1000
        left_s = world.after(world.parameters.job_s, "job")
        if world.strikes("slow_job"):
            left_s *= SLOW_FACTOR
        is_deaf = world.strikes("ignored_cancel")
        while left_s > 0:
            lap_s = min(left_s, beat_s) if not world.is_healed else min(left_s, LAST_LAP_S)
            with trio.move_on_at(attempt.renewed_s + self._ttl_s):  # it stops by itself when nobody renews its lease
                await anyio.sleep(lap_s)
            self._misfortune()
            await self._awake()
            if self._is_over(attempt) or attempt.is_lost:
                world.counts["runner_stopped_itself"] += 1
                return False
            if attempt.working_since_ms is None:
                attempt.working_since_ms = elapsed_ms()
            left_s = left_s - lap_s if not world.is_healed else 0
            await self._write_log(attempt)
            if left_s > 0 and not await self._beat(attempt):
                return False
            if attempt.is_cancel_requested and not is_deaf:
                self._rest(attempt)
                await self._insist(attempt, wire.CancelAck(**attempt.fence()))
                return False
        return not attempt.is_lost

    def _is_over(self, attempt: Attempt) -> bool:
        return anyio.current_time() >= attempt.renewed_s + self._ttl_s

    def _misfortune(self) -> None:
        world = self.world
        if world.strikes("death", as_="runner_deaths"):
            self._host.cancel()
        elif world.strikes("stall", as_="runner_stalls"):
            # Long enough that every lease of this host runs out, as after SIGSTOP or in a suspended machine.
            stall_s = world.rng("stall_s").uniform(self._ttl_s / 2, 3 * self._ttl_s)
            self.stalled_until_s = anyio.current_time() + stall_s
            for each in self.attempts.values():
                self._rest(each)

    async def _beat(self, attempt: Attempt) -> bool:
        sent_s = anyio.current_time()
        phase: wire.Phase = "uploading" if self.world.rng("phase").random() < 0.1 else "running"
        answer = await self._say(wire.Heartbeat(**attempt.fence(), phase=phase))
        if self._is_over(attempt):
            return False  # the answer came too late: it has stopped already
        if isinstance(answer, wire.HeartbeatAck):
            attempt.renewed_s = sent_s
            attempt.is_cancel_requested |= answer.is_cancel_requested
        return not isinstance(answer, wire.StaleLease)

    async def _write_log(self, attempt: Attempt) -> None:
        if not self.world.parameters.log_chunks or len(attempt.log) > self.world.parameters.log_chunks * 64:
            return
        # A job that prints its repository's secret: the log is the user's, no explanation may quote it.
        line = f"Error: {secret_of(attempt.lease.job.repo)} was refused at {attempt.lease.job_id}\n"
        attempt.log += line.encode()
        await self._send_log(attempt, is_final=False)

    async def _send_log(self, attempt: Attempt, *, is_final: bool) -> Any:
        start = attempt.log_stored
        answer = await self._say(
            wire.AppendLog(
                **attempt.fence(),
                offset=start,
                data=attempt.log[start:],
                is_final=is_final,
                crc32=zlib.crc32(attempt.log) if is_final else None,
            )
        )
        if isinstance(answer, wire.LogAck | wire.LogGap):
            attempt.log_stored = min(answer.size, len(attempt.log))
        return answer

    async def _finish(self, attempt: Attempt) -> None:
        """The log's end, and the result, both until there is a definite answer."""
        for _ in range(TRIES_MAX):
            answer = await self._send_log(attempt, is_final=True)
            if isinstance(answer, wire.LogAck) and answer.size >= len(attempt.log):
                break
            if isinstance(answer, wire.StaleLease | wire.Failure):
                break
            await anyio.sleep(self.world.after(2, "runner_backoff"))
        chance = self.world.rng("result")
        reason: wire.EndReason = "exited"
        if chance.random() < 0.08:
            reason = chance.choice(("checkout_failed", "runner_error", "runner_stopped", "job_timeout"))
        exit_code = (1 if chance.random() < 0.2 else 0) if reason == "exited" else None
        await self._insist(attempt, wire.Complete(**attempt.fence(), reason=reason, exit_code=exit_code))

    async def _insist(self, attempt: Attempt, message: wire.Complete | wire.CancelAck) -> None:
        for _ in range(TRIES_MAX):
            answer = await self._say(message)
            if isinstance(answer, wire.CompleteAck | wire.StaleLease | wire.Failure):
                return
            self._misfortune()
            await self._awake()
            await anyio.sleep(self.world.after(2, "runner_backoff"))
