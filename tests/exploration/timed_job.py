"""One job with a clock: exact windows, deadlines and timeouts, which the core without a clock leaves open.

Whoever was granted a lease may send any message under it, at any time; timers may be late, the control plane may
restart, people may cancel. Times are whole units, so that the worlds can be counted.
"""

import functools
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

from deltaci.domain import job as jobs
from deltaci.domain.events import JobCreated
from deltaci.domain.job import Job, JobCommand
from deltaci.domain.machine import Refusal
from deltaci.domain.states import HELD, AttemptState, EndReason, JobState
from tests.exploration.explorer import Explored, explore
from tests.exploration.owners import INFRASTRUCTURE_RETRIES_MAX, UNACKNOWLEDGED_MAX
from tests.exploration.rules import check_job, check_job_step

UNIT_MS: Final = jobs.TIMEOUT_MARGIN_MS
ACK_MS, TTL_MS, CANCEL_MS, TIMEOUT_MS = UNIT_MS, 2 * UNIT_MS, UNIT_MS, 2 * UNIT_MS
RUNNERS: Final = ("runner_1", "runner_2")
REPORTS: Final = ((EndReason.SUCCEEDED, 0), (EndReason.STEP_FAILED, 1), (EndReason.RUNNER_ERROR, None))
TIME_PASSES, TICK, RESTART = "time passes", "tick", "restart"
SILENCE: Final = frozenset({TIME_PASSES, TICK})
WORLDS_MAX: Final = 200_000

Said: TypeAlias = tuple[tuple[str, JobCommand], ...]


class World(NamedTuple):
    """A job, the wall clock, and when the holder was last heard (in memory: a restart sets it to now)."""

    job: Job
    now_ms: int
    heard_at_ms: int


class TimedJob:
    """The moves of one job, first blocked or queued, with this many retries of the user's own failures."""

    def __init__(self, *, is_blocked: bool, retries: int) -> None:
        self.retries = retries
        self.attempts_max = 1 + retries + INFRASTRUCTURE_RETRIES_MAX + UNACKNOWLEDGED_MAX - 1
        self.job = jobs.created(
            JobCreated(
                at_ms=0,
                job_id="job_1_0",
                run_id="run_1",
                repo_id="repo_1",
                name="test",
                is_required=True,
                labels=(),
                priority=0,
                retries=retries,
                timeout_ms=TIMEOUT_MS,
                state=JobState.BLOCKED if is_blocked else JobState.QUEUED,
            )
        )

    def explore(self) -> Explored[World]:
        """Every world, each with every rule; and from each, silence alone ends what has started."""
        found = explore([World(self.job, 0, 0)], self.moves, key=_key, check=self.check, worlds_max=WORLDS_MAX)
        found.require_a_way_to(lambda world: world.job.state.is_final)
        found.require_a_way_to(lambda world: world.job.state not in jobs.STARTED, by=SILENCE.__contains__)
        return found

    def check(self, world: World) -> None:
        """What holds of every stored job."""
        check_job(world.job, attempts_max=self.attempts_max)

    def moves(self, world: World) -> Iterator[tuple[str, Callable[[], World | None]]]:
        """Everything that may happen next."""
        for name, command in _commands(world):
            yield name, functools.partial(_obey, world, command)
        if not world.job.state.is_final:
            yield TIME_PASSES, lambda: world._replace(now_ms=world.now_ms + UNIT_MS)
            yield RESTART, lambda: world._replace(heard_at_ms=world.now_ms)


def _obey(world: World, command: JobCommand) -> World | None:
    answer = jobs.step(world.job, command, now_ms=world.now_ms)
    check_job_step(world.job, command, answer, now_ms=world.now_ms, heard_at_ms=world.heard_at_ms)
    if isinstance(answer, Refusal):
        return None
    is_heard = isinstance(command, jobs.AckLease | jobs.Heartbeat)
    return World(answer.state, world.now_ms, world.now_ms if is_heard else world.heard_at_ms)


def _commands(world: World) -> Iterator[tuple[str, JobCommand]]:
    job = world.job
    for each in job.attempts:
        if each.lease is not None:
            for about in {each.number, len(job.attempts)}:  # an old holder may also claim the present attempt's number
                yield from _messages_under(each.number, each.lease.token_hash, each.lease.runner_id, about)
    yield TICK, jobs.Tick(heard_at_ms=world.heard_at_ms, cancel_within_ms=CANCEL_MS)
    yield "cancel", jobs.RequestCancel(reason=EndReason.USER_CANCELED, within_ms=CANCEL_MS)
    yield "release", jobs.Release()
    yield "skip", jobs.Skip(reason=EndReason.NEEDS_FAILED)
    yield from _grants(len(job.attempts))


@functools.cache
def _grants(attempt: int) -> Said:
    return tuple(
        (
            f"lease {attempt} to {runner}",
            jobs.GrantLease(lease_hash=f"lease_{attempt}", runner_id=runner, ack_within_ms=ACK_MS, ttl_ms=TTL_MS),
        )
        for runner in RUNNERS
    )


@functools.cache
def _messages_under(attempt: int, token: str, runner: str, about: int) -> Said:
    """All that `runner` may send about the attempt `about` with the lease that it got for `attempt`."""
    who = f"{runner}, lease {attempt}, about attempt {about}"
    fence: dict[str, Any] = {"attempt": about, "lease_hash": token, "runner_id": runner}
    messages: list[tuple[str, JobCommand]] = [
        (f"ack ({who})", jobs.AckLease(**fence)),
        (f"cancel ack ({who})", jobs.CancelAck(**fence)),
    ]
    messages.extend(
        (f"heartbeat {phase} ({who})", jobs.Heartbeat(**fence, phase=phase))
        for phase in (AttemptState.RUNNING, AttemptState.UPLOADING)
    )
    for reason, exit_code in REPORTS:
        report = jobs.Complete(**fence, reason=reason, exit_code=exit_code, text="", result_digest=reason)
        messages.append((f"complete {reason} ({who})", report))
    return tuple(messages)


def _key(world: World) -> Hashable:
    """All that a later answer can depend on; instants relative to now, and cut off where they stop to matter."""
    job, now_ms = world.job, world.now_ms
    runners: dict[str, int] = {}  # by order of appearance: any other names give the same story
    past = tuple(
        (
            each.state,
            each.end_reason,
            each.result_digest,
            each.lease and (each.lease.state, runners.setdefault(each.lease.runner_id, len(runners))),
        )
        for each in job.attempts
    )
    times: tuple[int, ...] = ()
    current = jobs.current_attempt(job)
    if current is not None and current.state in HELD and current.lease is not None:
        started_ms = now_ms - current.started_at_ms if current.started_at_ms is not None else -1
        times = (
            max(current.lease.expires_at_ms - now_ms, -1),
            min(started_ms, TIMEOUT_MS + jobs.TIMEOUT_MARGIN_MS),
            max(world.heard_at_ms - now_ms, -TTL_MS),
        )
    elif current is not None and current.state is AttemptState.QUEUED:
        times = (int(current.not_before_ms > now_ms),)
    by_ms = max(job.cancel.by_ms - now_ms, -1) if job.cancel and not job.state.is_final else 0
    return (job.state, job.end_reason, job.cancel and job.cancel.reason, by_ms, past, times)
