"""A small world around a real orchestrator: runners of every temper, a forge, a user; everything they hear is noted."""

import hashlib
import random
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.lowlevel
import msgspec

from deltaci.domain.errors import DeltaError
from deltaci.domain.events import Trigger
from deltaci.domain.ids import hashed
from deltaci.domain.plan import PlannedJob
from deltaci.domain.states import RunState
from deltaci.invariants import Answered, Delivered, Granted, Heard, Journal, Replied, Violation, Worked, check_rows
from deltaci.orchestrator.messages import Admit
from deltaci.store.port import Store
from deltaci.store.writes import AddJob, Owe, Reply, Runner, SaveJob, SaveRun, Settle, Write
from protocol import messages as wire
from protocol.codec import encode_json
from tests.orchestrator.support import ME, Stage, a_job


class Watched:
    """Another store, whose every commit is followed by a look at the journal and at the runs that it touched."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = anyio.Lock()
        self.seen = Journal()
        self.found: list[Violation] = []
        self.looks = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        await self._store.commit(writes)
        async with self._turn:
            for run_id in dict.fromkeys(run_id for write in writes if (run_id := run_of(write)) is not None):
                await self._look(run_id)

    async def _look(self, run_id: str) -> None:
        rows = await self._store.rows_of_run(run_id)
        assert rows is not None
        self.looks += 1
        async for entry in self._store.journal(after_id=self.seen.last_id):
            if entry.id <= rows.journal_id:
                self.found += self.seen.take(entry)
        self.found += check_rows(self.seen, rows)

    async def follow(self) -> None:
        """Look at the rest of the journal: audits are committed without a run."""
        async for entry in self._store.journal(after_id=self.seen.last_id):
            self.found += self.seen.take(entry)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


def run_of(write: Write) -> str | None:
    """The run that a write is about, for those that matter here."""
    match write:
        case SaveRun():
            return write.run.id
        case SaveJob() | AddJob():
            return write.job.run_id
        case Owe():
            return getattr(write.effect, "run_id", None)
        case Settle():
            kind, _, rest = write.key.partition(":")
            return rest if kind != "analyze" else None
        case _:
            return None


def some_jobs(rng: random.Random) -> tuple[PlannedJob, ...]:
    """Two to five jobs, some of which need earlier ones, may fail, are retried or skipped."""
    jobs: list[PlannedJob] = []
    for index in range(rng.randint(2, 5)):
        needs = tuple(job.name for job in jobs if rng.random() < 0.4)
        policy = rng.choice(["required", "required", "allow_failure"])
        is_skipped = rng.random() < 0.15
        retries = rng.choice([0, 0, 1])
        jobs.append(a_job(f"j{index}", needs=needs, policy=policy, retries=retries, is_skipped=is_skipped))
    return tuple(jobs)


class World:
    """Does something at random, again and again, and notes what it is told."""

    def __init__(self, stage: Stage, rng: random.Random) -> None:
        self.stage = stage
        self.rng = rng
        self.heard: list[Heard] = []
        self.runners: list[Runner] = []
        self.leases: list[tuple[Runner, wire.LeaseGranted]] = []
        self.working: dict[str, int] = {}
        self.said: list[tuple[Runner, Any, wire.LeaseGranted, dict[str, Any]]] = []
        self.runs: list[str] = []

    async def live(self, steps: int) -> None:
        """Some steps of anybody, in any order."""
        self.runners = [await self.stage.runner(f"r{number}", slots=2) for number in range(3)]
        doings = [self.push, self.push_again, self.take, self.take, self.work, self.work, self.work, self.say_again]
        doings += [self.wait, self.wait, self.cancel, self.rerun]
        await self.push()
        for _ in range(steps):
            await self.rng.choice(doings)()
            await anyio.lowlevel.checkpoint()
        await self.end()

    async def end(self) -> None:
        """From now on everybody does what is good: every run ends. Raises `TimeoutError` if one does not."""
        with anyio.fail_after(20):
            while await self.is_anything_live():
                await self.take()
                for lease in self.leases[-6:]:
                    await self.say(*lease, wire.AckLease)
                    await self.say(*lease, wire.Complete, exit_code=0)
                self.stage.clock.advance(10_000)
                await anyio.sleep(0.002)

    async def is_anything_live(self) -> bool:
        """Whether a run has not ended, or something is owed."""
        runs = [await self.stage.store.load_run(run_id) for run_id in self.runs]
        is_live = any(run is not None and not run.state.is_final for run in runs)
        return is_live or await self.stage.store.next_owed_at_ms() is not None

    # ---- forge and user ------------------------------------------------------------------------------------------

    async def push(self) -> None:
        """A push to one of two branches; a later one makes an earlier one superfluous."""
        if len(self.runs) >= 5:
            return
        self.stage.planner.jobs = some_jobs(self.rng)
        await self.deliver(len(self.runs), self.rng.choice(["main", "next"]))

    async def push_again(self) -> None:
        """The forge repeats a delivery, under its id or under another one."""
        told = [heard for heard in self.heard if isinstance(heard, Delivered)]
        if told:
            one = self.rng.choice(told)
            number, branch = one.body_sha256.split("-")
            await self.deliver(int(number), branch, again=self.rng.choice(["", "-again"]))

    async def deliver(self, number: int, branch: str, again: str = "") -> None:
        """A webhook arrives and is answered."""
        trigger = Trigger(
            kind="push", ref=f"refs/heads/{branch}", commit_sha=f"{number:040x}", stream=f"branch:{branch}"
        )
        body = f"{number}-{branch}"
        admit = Admit(delivery_id=f"d-{body}{again}", body_sha256=body, event="push", trigger=trigger, ignored=None)
        answer = await self.stage.orchestrator.admit(self.stage.repo.id, admit)
        assert answer.run_id is not None
        if answer.run_id not in self.runs:
            self.runs.append(answer.run_id)
        self.heard.append(
            Delivered(
                at_ms=self.now(),
                repo_id=self.stage.repo.id,
                delivery_id=admit.delivery_id,
                body_sha256=body,
                run_id=answer.run_id,
                ignored=answer.ignored,
            )
        )

    async def cancel(self) -> None:
        """A user cancels a run, at times twice under one key."""
        if self.rng.random() < 0.3:
            run_id = self.rng.choice(self.runs[-2:])
            for _ in range(self.rng.randint(1, 2)):
                self.note(await self.stage.orchestrator.cancel_once(run_id, ME, key=f"cancel-{run_id}"))

    async def rerun(self) -> None:
        """A user runs a run again, at times twice under one key."""
        run_id = self.rng.choice(self.runs)
        run = await self.stage.store.load_run(run_id)
        if run is None or run.state not in (RunState.FAILED, RunState.CANCELED) or len(self.runs) >= 7:
            return
        for _ in range(2):
            reply = await self.stage.orchestrator.rerun(run_id, ME, is_failed_only=False, key=f"rerun-{run_id}")
            if isinstance(reply, Reply):
                self.note(reply)
                new = msgspec.json.decode(reply.body)["run_id"]
                if new not in self.runs:
                    self.runs.append(new)

    def note(self, reply: Reply) -> None:
        """An idempotent request was answered."""
        self.heard.append(Replied(at_ms=self.now(), key=reply.key, http_status=reply.http_status, body=reply.body))

    # ---- runners -------------------------------------------------------------------------------------------------

    async def take(self) -> None:
        """A runner asks for work."""
        runner = self.rng.choice(self.runners)
        for lease in await self.stage.lease(runner, slots=self.rng.randint(1, 2), wait_ms=5):
            self.leases.append((runner, lease))
            fence = {"job_id": lease.job_id, "attempt": lease.attempt, "lease_hash": hashed(lease.lease_id)}
            self.heard.append(Granted(at_ms=self.now(), runner_id=runner.id, **fence))
            if self.rng.random() < 0.7:
                await self.say(runner, lease, wire.AckLease)

    async def work(self) -> None:
        """A runner says something about a lease it has, or had."""
        if not self.leases:
            return
        lease = self.rng.choice(self.leases[-3:])
        kind = self.rng.choice([wire.AckLease, wire.Heartbeat, wire.Heartbeat, wire.AppendLog, wire.Complete])
        fields: dict[str, Any] = {}
        if kind is wire.AppendLog:
            fields = {"offset": self.rng.choice([0, 0, 3]), "data": b"log", "is_final": self.rng.random() < 0.3}
        if kind is wire.Heartbeat:
            fields = {"phase": self.rng.choice(["starting", "running", "uploading"])}
        if kind is wire.Complete:
            fields = {"exit_code": self.rng.choice([0, 0, 1]), "reason": self.rng.choice(["exited", "runner_error"])}
        if self.rng.random() < 0.15:
            kind, fields = wire.CancelAck, {}
        await self.say(*lease, kind, **fields)

    async def say_again(self) -> None:
        """The network repeats a message, however old, or brings it from somebody else."""
        if self.said:
            runner, kind, lease, fields = self.rng.choice(self.said[-self.rng.choice([4, 40]) :])
            if self.rng.random() < 0.3:
                runner = self.rng.choice(self.runners)
            await self.say(runner, lease, kind, **fields)

    async def say(self, runner: Runner, lease: wire.LeaseGranted, kind: Any, **fields: Any) -> None:
        """One message, and what came of it."""
        self.said.append((runner, kind, lease, fields))
        sent_at_ms = self.now()
        fence = {"lease_id": lease.lease_id, "job_id": lease.job_id, "attempt": lease.attempt}
        message = kind(**fence, **fields)
        with suppress(DeltaError):
            answer = await self.stage.orchestrator.desk.serve(runner, message)
            self.hear(runner, message, answer, sent_at_ms)

    def hear(self, runner: Runner, message: Any, answer: wire.ServerMessage, sent_at_ms: int) -> None:
        """Note an answer, and stop or start working as it says."""
        is_stale, is_failure = isinstance(answer, wire.StaleLease), isinstance(answer, wire.Failure)
        is_accepted = not is_stale and not is_failure
        is_result = isinstance(message, wire.Complete)
        self.heard.append(
            Answered(
                at_ms=self.now(),
                runner_id=runner.id,
                job_id=message.job_id,
                attempt=message.attempt,
                lease_hash=hashed(message.lease_id),
                message=type(message).__name__,
                is_accepted=is_accepted,
                is_stale=is_stale,
                digest=hashlib.sha256(encode_json(message)).hexdigest() if is_result else "",
                state=answer.state if isinstance(answer, wire.CompleteAck) else "",
                code=answer.code if isinstance(answer, wire.Failure) else "",
                sent_at_ms=sent_at_ms,
            )
        )
        if isinstance(answer, wire.LeaseAcked):
            self.working.setdefault(message.lease_id, self.now())
        elif isinstance(answer, wire.CompleteAck | wire.StaleLease) and message.lease_id in self.working:
            fence = {"job_id": message.job_id, "attempt": message.attempt, "runner_id": self.holder(message.lease_id)}
            self.heard.append(Worked(from_ms=self.working.pop(message.lease_id), until_ms=self.now(), **fence))

    def holder(self, lease_id: str) -> str:
        """The runner that was granted a lease."""
        return next(runner.id for runner, lease in self.leases if lease.lease_id == lease_id)

    async def wait(self) -> None:
        """Time passes: a moment, or longer than a lease lives."""
        self.stage.clock.advance(self.rng.choice([100, 1_000, 5_000, 20_000, 20_000, 70_000, 130_000]))
        await anyio.sleep(0.012)

    def now(self) -> int:
        """The server's clock."""
        return self.stage.clock.now_ms()
