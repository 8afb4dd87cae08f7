"""All that can happen to one job behind its owner, without a clock: whatever may take time has taken it, or has not.

Instants are what they would be if the last event had happened just now, so that jobs which differ in time alone are the
same job. Every timer may therefore be early or late, every silence long or short. Rules about exact times are for the
exploration of one job with a clock.

Rule 1: whoever was told of a lease may send anything under it, about any attempt, at any time and any number of times.
Rule 2: a move that changes nothing is tried and checked, but leads nowhere.
"""

from collections.abc import Hashable, Iterator
from typing import Any, Final, NamedTuple

import msgspec

from deltaci.domain import job as jobs
from deltaci.domain.attempt import Attempt
from deltaci.domain.events import Cause
from deltaci.domain.job import Job
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.run import JobSeen
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState
from deltaci.orchestrator.messages import DoJob, Due, Grant
from tests.exploration.owners import (
    INFRASTRUCTURE_RETRIES_MAX,
    POLICY,
    UNACKNOWLEDGED_MAX,
    UNIT_MS,
    Bench,
    Reaction,
    a_job_reacts,
)
from tests.exploration.rules import broken_by, check_job, check_repeats, require

# At SOON nothing is due that was not due before; at MIDWAY leases are; at LATE everything is.
SOON: Final = 0
MIDWAY: Final = 5 * UNIT_MS
LATE: Final = 100 * UNIT_MS

RUNNERS: Final = ("runner_1", "runner_2")
SUCCESS: Final = (EndReason.SUCCEEDED, 0)
FAILURE: Final = (EndReason.STEP_FAILED, 1)
BREAKDOWN: Final = (EndReason.RUNNER_ERROR, None)
STOPPED: Final = (EndReason.RUNNER_STOPPED, None)
TIME_OUT: Final = (EndReason.JOB_TIMEOUT, None)

HOLDER: Final = Cause("runner", "rnr")


class Node(NamedTuple):
    """A stored job, and whether a runner was told of its present lease."""

    job: Job
    is_told: bool


class Habits(NamedTuple):
    """What runners do in a world: how they may end an attempt, which phases they report, and how many they are."""

    reports: tuple[tuple[EndReason, int | None], ...]
    phases: tuple[AttemptState, ...]
    runners: int


class JobMoves:
    """The jobs that one job can become, numbered, and the ways between them; made when they are first asked for."""

    def __init__(self, bench: Bench, name: str, other: str, habits: Habits, *, retries: int, is_blocked: bool) -> None:
        self.name = name
        self.orders: dict[str, DoJob] = {}
        self.fair: set[str] = set()
        self.helpful: set[str] = set()
        self.grants: set[str] = set()
        self.nodes: list[Node] = []
        self.seen: list[JobSeen] = []
        # What notices may say of the job, once it got where it is: (what, the first and the last time that it was so).
        self.stages: list[tuple[tuple[JobSeen, int, int], ...]] = []
        self._bench = bench
        self._other = other
        self._habits = habits
        self._is_blocked = is_blocked
        self._attempts_max = 1 + retries + INFRASTRUCTURE_RETRIES_MAX + UNACKNOWLEDGED_MAX - 1
        self._numbers: dict[Hashable, int] = {}
        self._moves: list[tuple[tuple[str, int], ...] | None] = []
        self._obeyed: dict[tuple[int, str], int] = {}

    def number(self, job: Job, *, is_told: bool) -> int:
        """The number of the job as it is now stored; raises `Broken` if it must not be."""
        stages = self._stages(job)
        job = _just_now(job, len(stages))
        node = Node(job, is_told or job.attempts[-1:] == () or job.attempts[-1].state is not AttemptState.LEASED)
        key = self._key(node, stages)
        known = self._numbers.get(key)
        if known is not None:
            return known
        check_job(job, attempts_max=self._attempts_max)
        for each in job.attempts:
            check_repeats(job, each)
        self._numbers[key] = number = len(self.nodes)
        self.nodes.append(node)
        self.seen.append(JobSeen(job.state, job.end_reason))
        spans = {what: (stages.index(what), max(at for at, one in enumerate(stages) if one == what)) for what in stages}
        self.stages.append(tuple((what, first, last) for what, (first, last) in spans.items()))
        self._moves.append(None)
        return number

    def moves(self, number: int) -> tuple[tuple[str, int], ...]:
        """The ways from a job, by what timers and runners do; of several to the same job the first one, and those that
        `fair` and `helpful` name.
        """
        known = self._moves[number]
        if known is None:
            ways: dict[int, str] = {}
            told_apart: dict[tuple[str, int], None] = {}
            for name, after in self._ways(number):
                if name in self.fair or name in self.helpful:
                    told_apart[name, after] = None
                else:
                    ways.setdefault(after, name)
            reached = {after for _, after in told_apart}
            others = ((name, after) for after, name in ways.items() if after not in reached)
            known = self._moves[number] = (*told_apart, *others)
        return known

    def obey(self, number: int, order: str) -> int:
        """The job after an order of its run arrived, the first time or again."""
        known = self._obeyed.get((number, order))
        if known is None:
            with_name = f"{order} reaches {self.name}"
            after = self._reached(number, with_name, self.orders[order], now_ms=SOON)
            known = self._obeyed[number, order] = number if after is None else after[0]
        return known

    def learn(self, message: DoJob) -> str:
        """The name of an order; equal orders are the same."""
        command = message.command
        if isinstance(command, jobs.RequestCancel):
            command = msgspec.structs.replace(command, within_ms=POLICY.cancel_within_ms, detail="")
        match command:
            case jobs.Release():
                name = "the release"
            case jobs.Skip():
                name = "the skip"
            case _:
                name = f"the cancel ({command.reason})"  # type: ignore[union-attr]  # a run orders nothing else
        self.orders.setdefault(name, DoJob(command=command, cause=message.cause))
        return name

    def still_matter(self, number: int, orders: frozenset[str]) -> frozenset[str]:
        """Those of the orders that would change the job; the others were tried as well, and are forgotten."""
        return frozenset(order for order in orders if self.obey(number, order) != number) if orders else orders

    def can_succeed(self, number: int) -> bool:
        """Whether a helpful runner can still bring the job to success, as far as the job itself goes."""
        job, is_told = self.nodes[number]
        if job.state.is_final or job.cancel is not None:
            return job.state is JobState.SUCCEEDED
        never = [each.end_reason for each in job.attempts].count(EndReason.NEVER_ACKNOWLEDGED)
        return is_told or never + 1 < UNACKNOWLEDGED_MAX

    # ---- inside --------------------------------------------------------------------------------------------------

    def _stages(self, job: Job) -> list[JobSeen]:
        """All that the job was seen as, from the first on."""
        stages = [JobSeen(JobState.BLOCKED)] if self._is_blocked else []
        for each in job.attempts:
            stages.append(JobSeen(JobState.QUEUED))
            if each.lease is not None:
                stages.append(JobSeen(JobState.RUNNING))
        if job.cancel is not None:
            stages.append(JobSeen(JobState.CANCEL_REQUESTED))
        if job.state.is_final:
            stages.append(JobSeen(job.state, job.end_reason))
        return stages

    def _key(self, node: Node, stages: list[JobSeen]) -> Hashable:
        """A job that is over is what others can see of it: that nothing more happens to it is checked of each."""
        if node.job.state.is_final:
            is_requeued = len(node.job.attempts) > 1
            return frozenset((one.state, one.end_reason) for one in stages), node.job.state, is_requeued
        return node

    def _ways(self, number: int) -> Iterator[tuple[str, int]]:
        for name, message, now_ms, heard_at_ms in self._messages(number):
            named = f"{self.name}: {name}"
            reached = self._reached(number, named, message, now_ms=now_ms, heard_at_ms=heard_at_ms)
            if reached is None:
                continue
            after, job = reached
            if after != number:
                yield named, after
            if isinstance(message, Grant):
                untold = self.number(job, is_told=False)
                yield f"{named}; crash before the answer", untold
        for order in self.orders:
            self.obey(number, order)

    def _reached(
        self, number: int, name: str, message: Any, *, now_ms: int, heard_at_ms: int = SOON
    ) -> tuple[int, Job] | None:
        """The job that `message` leads to, or None if it is refused; both checked, also with a crash in between."""
        node = self.nodes[number]
        try:
            arguments: dict[str, Any] = {"now_ms": now_ms, "heard_at_ms": heard_at_ms}
            reaction = a_job_reacts(self._bench, node.job, message, **arguments)
            if reaction.commits:
                halted = a_job_reacts(self._bench, node.job, message, **arguments, crash=("before", 1))
                require(halted.answer is None, 6, "an answer was given before the commit")
                require(not halted.told, 6, f"{halted.told} was told before the commit")
            if isinstance(reaction.answer, Refusal):
                self._check_refusal(node.job, message, reaction)
                return None
            (job,) = reaction.jobs
            job = msgspec.structs.replace(job, attempts=tuple(_named_anew(job.attempts)))
            is_told = node.is_told or isinstance(message, Grant)
            return self.number(_rebased(job, now_ms), is_told=is_told), job
        except Exception as error:
            raise broken_by(name, error) from error

    def _check_refusal(self, job: Job, message: Any, reaction: Reaction) -> None:
        require(reaction.jobs == (job,), 6, "a refusal changed something")
        if isinstance(message, DoJob) and isinstance(message.command, jobs.AckLease | jobs.Heartbeat):
            is_final = job.state.is_final
            require(not is_final or reaction.answer.why is Why.STALE_LEASE, 6, "a late holder is not told to stop")

    def _messages(self, number: int) -> Iterator[tuple[str, Any, int, int]]:
        """(name, message, when, when the holder was last heard)."""
        job, is_told = self.nodes[number]
        current = jobs.current_attempt(job)
        silent = f"{self.name}: the timer, after a long silence"
        self.fair.add(silent)
        yield silent.partition(": ")[2], Due(), LATE, SOON
        yield "a timer too early", Due(), SOON, SOON
        yield "the timer, though the holder was heard", Due(), MIDWAY, MIDWAY
        yield "the timer, when the job's own time is up", Due(), LATE, LATE
        for each in job.attempts:
            if each.lease is not None and (is_told or each is not current):
                for about in sorted({each.number, len(job.attempts)}):
                    for name, command in self._said(each, about, is_current=each is current):
                        yield name, DoJob(command=command, cause=HOLDER), SOON, SOON
        yield from self._grants(job)

    def _said(self, holder: Attempt, about: int, *, is_current: bool) -> Iterator[tuple[str, Any]]:
        """What the holder of an attempt's lease may say about an attempt, and what may be said by a thief of it."""
        assert holder.lease is not None
        runner = holder.lease.runner_id
        fence: dict[str, Any] = {"attempt": about, "lease_hash": holder.lease.token_hash, "runner_id": runner}
        who = f"{runner}, lease {holder.number}" + ("" if about == holder.number else f", about attempt {about}")
        said: list[tuple[str, Any]] = [
            (f"ack ({who})", jobs.AckLease(**fence)),
            (f"cancel ack ({who})", jobs.CancelAck(**fence)),
        ]
        said.extend(
            (f"heartbeat {phase} ({who})", jobs.Heartbeat(**fence, phase=phase)) for phase in self._habits.phases
        )
        for reason, exit_code in self._habits.reports:
            report = jobs.Complete(**fence, reason=reason, exit_code=exit_code, text="", result_digest=reason)
            said.append((f"complete {reason} ({who})", report))
        if is_current:
            self.helpful |= {f"{self.name}: {said[0][0]}", f"{self.name}: complete {EndReason.SUCCEEDED} ({who})"}
        yield from said
        wrongs = ({"runner_id": "runner_9"}, {"lease_hash": f"lease_{self._other}_1"}, {"attempt": 9}, {"attempt": 0})
        for wrong in wrongs:
            for name, command in said:
                yield f"{name}, but {wrong}", msgspec.structs.replace(command, **wrong)

    def _grants(self, job: Job) -> Iterator[tuple[str, Any, int, int]]:
        number = max(1, len(job.attempts))
        known = [each.lease.runner_id for each in job.attempts if each.lease is not None]
        # Runners are called by their order of appearance: any other name for a new one gives the same story.
        for runner in RUNNERS[: min(len(set(known)) + 1, self._habits.runners)]:
            command = jobs.GrantLease(
                lease_hash=f"lease_{self.name}_{number}",
                runner_id=runner,
                ack_within_ms=POLICY.ack_within_ms,
                ttl_ms=POLICY.lease_ttl_ms,
            )
            grant = Grant(command=command, lease_id=f"secret_{number}", cause=HOLDER)
            name = f"lease {number} to {runner}"
            self.helpful.add(f"{self.name}: {name}")
            self.grants |= {f"{self.name}: {name}", f"{self.name}: {name} in haste"}
            yield name, grant, LATE, LATE
            yield f"{name} in haste", grant, SOON, SOON


def _rebased(job: Job, now_ms: int) -> Job:
    """The job with `now_ms` as its zero, as far as that matters for `_just_now`."""
    attempts = tuple(
        msgspec.structs.replace(each, not_before_ms=max(0, each.not_before_ms - now_ms)) for each in job.attempts
    )
    return msgspec.structs.replace(job, attempts=attempts)


def _just_now(job: Job, revision: int) -> Job:
    """The job as if all of it had happened just now: equal for all that differ in time alone."""
    cancel = job.cancel and jobs.CancelIntent(job.cancel.reason, POLICY.cancel_within_ms)
    return msgspec.structs.replace(
        job,
        created_at_ms=0,
        revision=revision,
        attempts=tuple(_attempt_just_now(each) for each in job.attempts),
        cancel=cancel,
        ended_at_ms=0 if job.state.is_final else None,
        end_detail="",
    )


def _attempt_just_now(attempt: Attempt) -> Attempt:
    lease = attempt.lease
    if lease is not None:
        lengths = {LeaseState.GRANTED: lease.ack_within_ms, LeaseState.ACTIVE: lease.ttl_ms}
        lease = msgspec.structs.replace(lease, granted_at_ms=0, expires_at_ms=lengths.get(lease.state, 0))
    is_waiting = attempt.state is AttemptState.QUEUED and attempt.not_before_ms > 0
    return msgspec.structs.replace(
        attempt,
        queued_at_ms=0,
        not_before_ms=int(is_waiting),
        lease=lease,
        started_at_ms=None if attempt.started_at_ms is None else 0,
        ended_at_ms=0 if attempt.state.is_final else None,
        text="",
    )


def _named_anew(attempts: tuple[Attempt, ...]) -> Iterator[Attempt]:
    """Runners called by their order of appearance."""
    names: dict[str, str] = {}
    for each in attempts:
        if each.lease is None:
            yield each
            continue
        name = names.setdefault(each.lease.runner_id, RUNNERS[len(names)] if len(names) < len(RUNNERS) else "runner_9")
        yield msgspec.structs.replace(each, lease=msgspec.structs.replace(each.lease, runner_id=name))
