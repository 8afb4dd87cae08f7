"""Every story that one job can live through: messages of all leases ever granted, any number of times, in any order.

Runners may lie and wake up late: whoever was granted a lease may send any message under it, at any time. Timers may be
late, the control plane may restart, people may cancel. Times are whole units, so that the worlds can be counted.
"""

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain import lease as leases
from deltaci.domain.job import Job, JobCommand
from deltaci.domain.machine import Refusal, Step, Why
from deltaci.domain.states import HELD, AttemptState, EndReason, JobState
from tests.domain.builders import a_job_created, folded_job, last
from tests.exploration.explorer import Counterexample, Explored, explore

UNIT_MS = jobs.TIMEOUT_MARGIN_MS
ACK_MS, TTL_MS, CANCEL_MS, TIMEOUT_MS = UNIT_MS, 2 * UNIT_MS, UNIT_MS, 2 * UNIT_MS
ATTEMPTS_MAX = 3
RUNNERS = ("runner_1", "runner_2")
REPORTS = (
    (EndReason.SUCCEEDED, 0),
    (EndReason.STEP_FAILED, 1),
    (EndReason.RUNNER_ERROR, None),
)

FromHolder: TypeAlias = jobs.AckLease | jobs.Heartbeat | jobs.Complete | jobs.CancelAck
Decide: TypeAlias = Callable[[Job, JobCommand, int], Step[Job] | Refusal]


class World(NamedTuple):
    """A job, the wall clock, and when the holder was last heard (in memory: a restart sets it to now)."""

    job: Job
    now_ms: int
    heard_at_ms: int


# ---- what may happen ---------------------------------------------------------------------------------------------


@functools.cache
def _messages_under(attempt: int, token: str, runner: str, about: int) -> tuple[tuple[str, FromHolder], ...]:
    """All that `runner` may send about the attempt `about` with the lease that it got for `attempt`."""
    who = f"{runner} with the lease of attempt {attempt}, about attempt {about}"
    fence: dict[str, Any] = {"attempt": about, "lease_hash": token, "runner_id": runner}
    messages: list[tuple[str, FromHolder]] = [
        (f"ack by {who}", jobs.AckLease(**fence)),
        (f"cancel ack by {who}", jobs.CancelAck(**fence)),
    ]
    messages.extend(
        (f"heartbeat {phase} by {who}", jobs.Heartbeat(**fence, phase=phase))
        for phase in (AttemptState.RUNNING, AttemptState.UPLOADING)
    )
    for reason, exit_code in REPORTS:
        report = jobs.Complete(**fence, reason=reason, exit_code=exit_code, text="", result_digest=reason)
        messages.append((f"complete {reason} by {who}", report))
    return tuple(messages)


@functools.cache
def _strangers(attempt: int, token: str, runner: str) -> tuple[tuple[str, FromHolder], ...]:
    """The same with a stolen token, a guessed one, or for an attempt that is not."""
    wrongs: tuple[dict[str, Any], ...] = ({"runner_id": "runner_9"}, {"lease_hash": "guessed"}, {"attempt": 9})
    return tuple(
        (f"{name}, but {wrong}", msgspec.structs.replace(message, **wrong))
        for (name, message), wrong in zip(
            _messages_under(attempt, token, runner, attempt), itertools.cycle(wrongs), strict=False
        )
    )


def _messages(job: Job) -> Iterator[tuple[str, FromHolder]]:
    """All that anybody who ever held a lease may send; an old holder may also claim the current attempt's number."""
    for each in job.attempts:
        if each.lease is not None:
            for about in {each.number, len(job.attempts)}:
                yield from _messages_under(each.number, each.lease.token_hash, each.lease.runner_id, about)


_CANCEL: Final = jobs.RequestCancel(reason=EndReason.USER_CANCELED, within_ms=CANCEL_MS)
_SKIP: Final = jobs.Skip(reason=EndReason.NEEDS_FAILED)
_GRANTS: Final = [
    [
        (
            f"grant to {runner}",
            jobs.GrantLease(lease_hash=f"lease_{attempt}", runner_id=runner, ack_within_ms=ACK_MS, ttl_ms=TTL_MS),
        )
        for runner in RUNNERS
    ]
    for attempt in range(ATTEMPTS_MAX + 1)
]


def _commands(world: World) -> Iterator[tuple[str, JobCommand]]:
    job = world.job
    yield from _messages(job)
    yield "tick", jobs.Tick(heard_at_ms=world.heard_at_ms, cancel_within_ms=CANCEL_MS)
    yield "cancel", _CANCEL
    yield "release", jobs.Release()
    yield "skip", _SKIP
    yield "a backup is restored", jobs.Revoke()
    if len(job.attempts) <= ATTEMPTS_MAX:
        yield from _GRANTS[len(job.attempts)]


def _moves(decide: Decide) -> Callable[[World], Iterator[tuple[str, Callable[[], World | None]]]]:
    def obey(world: World, command: JobCommand) -> World | None:
        answer = decide(world.job, command, world.now_ms)
        _check_answer(world, command, answer)
        if isinstance(answer, Refusal):
            return None
        is_heard = isinstance(command, jobs.AckLease | jobs.Heartbeat)
        return World(answer.state, world.now_ms, world.now_ms if is_heard else world.heard_at_ms)

    def moves(world: World) -> Iterator[tuple[str, Callable[[], World | None]]]:
        for name, command in _commands(world):
            yield name, functools.partial(obey, world, command)
        if not world.job.state.is_final:
            yield "time passes", lambda: world._replace(now_ms=world.now_ms + UNIT_MS)
            yield "restart", lambda: world._replace(heard_at_ms=world.now_ms)

    return moves


def _key(world: World) -> Hashable:
    """All that a later answer can depend on; instants relative to now, and cut off where they stop to matter."""
    job, now_ms = world.job, world.now_ms
    past = tuple(
        (
            each.state,
            each.end_reason,
            each.result_digest,
            each.lease and (each.lease.state, each.lease.runner_id),
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


# ---- what must never be ------------------------------------------------------------------------------------------


def _check_world(world: World) -> None:
    job = world.job
    assert [each.number for each in job.attempts] == list(range(1, len(job.attempts) + 1)), "attempts are dense"
    assert all(each.state.is_final for each in job.attempts[:-1]), "an attempt exists only after the former is final"
    for each in job.attempts:
        is_live = each.lease is not None and each.lease.state in leases.LIVE
        assert (each.state in HELD) == is_live, "held if and only if there is a live lease"
    is_held = bool(job.attempts) and last(job).state in HELD
    assert (job.state in jobs.STARTED) == is_held, "a started job has a held attempt, any other has none"
    assert (job.state is JobState.QUEUED) == (bool(job.attempts) and last(job).state is AttemptState.QUEUED)
    assert (jobs.deadline_ms(job) is not None) == is_held, "one timer while somebody is waited for, none else"
    for each in job.attempts:
        if each.lease is not None:
            for name, command in _strangers(each.number, each.lease.token_hash, each.lease.runner_id):
                answer = jobs.step(job, command, now_ms=world.now_ms)
                assert isinstance(answer, Refusal), name
                assert answer.why is Why.STALE_LEASE, f"{name}: {answer.text}"


def _check_answer(world: World, command: JobCommand, answer: Step[Job] | Refusal) -> None:
    before = world.job
    if isinstance(answer, Refusal):
        return
    after = answer.state
    assert after == folded_job(before, answer.events), "the state is the fold of the events"
    assert after.revision == before.revision + len(answer.events), "the revision counts the events"
    if before.state.is_final:
        assert after == before, "a final job was left"
    for old, new in zip(before.attempts, after.attempts, strict=False):
        assert not old.state.is_final or old == new, "a final attempt was changed"
    if before.state is JobState.CANCEL_REQUESTED:
        assert len(after.attempts) == len(before.attempts), "an attempt was queued after the cancel"
    if isinstance(command, jobs.AckLease | jobs.Heartbeat | jobs.Complete | jobs.CancelAck):
        said = before.attempts[command.attempt - 1]
        assert said.lease is not None
        assert (said.lease.token_hash, said.lease.runner_id) == (command.lease_hash, command.runner_id), "no holder"
        assert not answer.events or command.attempt == len(before.attempts), "an old holder changed something"
    if isinstance(command, jobs.Complete):
        assert after.attempts[command.attempt - 1].result_digest == command.result_digest, "two results were accepted"
    if isinstance(command, jobs.Tick):
        _check_tick(world, after)


def _check_tick(world: World, after: Job) -> None:
    before, now_ms = world.job, world.now_ms
    deadline_ms = jobs.deadline_ms(before)
    if deadline_ms is None or now_ms < deadline_ms:
        assert after == before, "a tick before the deadline changed something"
        return
    assert after != before, "a tick at the deadline changed nothing: the timer spins"
    following = jobs.deadline_ms(after)
    assert following is None or following > now_ms, "a tick at the deadline left it in the past: the timer spins"
    if before.state is JobState.CANCEL_REQUESTED:
        assert after.state.is_final, "the cancel's deadline did not end the job"
    said = after.attempts[len(before.attempts) - 1]
    if said.state is AttemptState.LOST:
        window_ms = ACK_MS if said.end_reason is EndReason.NEVER_ACKNOWLEDGED else TTL_MS
        since_ms = last(before).lease.granted_at_ms if window_ms == ACK_MS else world.heard_at_ms  # type: ignore[union-attr]
        assert now_ms >= max(since_ms, world.heard_at_ms if window_ms == TTL_MS else since_ms) + window_ms, "too early"


# ---- exploring ---------------------------------------------------------------------------------------------------


def _decide(job: Job, command: JobCommand, now_ms: int) -> Step[Job] | Refusal:
    return jobs.step(job, command, now_ms=now_ms)


def _explore(decide: Decide, *, first: JobState = JobState.QUEUED, retries: int = 0) -> Explored[World]:
    job = jobs.created(a_job_created(first, retries=retries, timeout_ms=TIMEOUT_MS))
    return explore([World(job, 0, 0)], _moves(decide), key=_key, check=_check_world, worlds_max=100_000)


@pytest.mark.slow
@pytest.mark.parametrize(("first", "retries"), [(JobState.BLOCKED, 0), (JobState.QUEUED, 1)])
def test_no_story_of_a_job_breaks_a_rule(first: JobState, retries: int) -> None:
    """Tens of thousands of worlds, every rule in each of them, and from each a way to the end.

    Time alone takes back every lease: nobody speaks, nobody cancels, only the clock goes on and the timer looks.
    """
    found = _explore(_decide, first=first, retries=retries)

    silence = frozenset({"time passes", "tick"})
    found.require_a_way_to(lambda world: world.job.state.is_final)
    found.require_a_way_to(lambda world: world.job.state not in jobs.STARTED, by=silence.__contains__)
    assert {world.job.state for world in found.worlds.values()} >= set(JobState) - {JobState.BLOCKED, JobState.SKIPPED}
    assert len(found.worlds) > 10_000


# ---- the explorer itself: planted bugs that it must find ---------------------------------------------------------


def _without_the_fence(job: Job, command: JobCommand, now_ms: int) -> Step[Job] | Refusal:
    current = jobs.current_attempt(job)
    if isinstance(command, FromHolder) and current is not None and current.lease is not None:
        token, runner = current.lease.token_hash, current.lease.runner_id
        command = msgspec.structs.replace(command, attempt=current.number, lease_hash=token, runner_id=runner)
    return jobs.step(job, command, now_ms=now_ms)


def _deaf_to_heartbeats_that_cost_no_write(job: Job, command: JobCommand, now_ms: int) -> Step[Job] | Refusal:
    if isinstance(command, jobs.Tick):
        command = msgspec.structs.replace(command, heard_at_ms=0)
    return jobs.step(job, command, now_ms=now_ms)


def _deaf_to_time(job: Job, command: JobCommand, now_ms: int) -> Step[Job] | Refusal:
    return Step(job) if isinstance(command, jobs.Tick) else jobs.step(job, command, now_ms=now_ms)


def _forgetful_of_results(job: Job, command: JobCommand, now_ms: int) -> Step[Job] | Refusal:
    answer = jobs.step(job, command, now_ms=now_ms)
    if isinstance(answer, Refusal) and answer.why is Why.CONFLICTING_RESULT:
        return Step(job)
    return answer


def _retrying_after_a_cancel(job: Job, command: JobCommand, now_ms: int) -> Step[Job] | Refusal:
    if job.state is JobState.CANCEL_REQUESTED and isinstance(command, jobs.Complete):
        job = msgspec.structs.replace(job, state=JobState.RUNNING, cancel=None)
    return jobs.step(job, command, now_ms=now_ms)


@pytest.mark.parametrize(
    ("planted", "moves_max"),
    [
        (_without_the_fence, 6),
        (_deaf_to_heartbeats_that_cost_no_write, 6),
        (_deaf_to_time, 3),
        (_forgetful_of_results, 4),
        (_retrying_after_a_cancel, 4),
    ],
)
def test_a_planted_bug_is_found_with_a_short_story(planted: Decide, moves_max: int) -> None:
    """An explorer that finds nothing must be known to be able to."""
    with pytest.raises(Counterexample) as found:
        _explore(planted, retries=1)

    assert len(found.value.story) <= moves_max, str(found.value)
