"""What must hold of runs, jobs, attempts and leases, by number: of every world, and of every step between two.

Rule 1: a check says again, in its own words, what is right; it borrows from a decision only what it does not judge.
Rule 2: a broken rule names its number, so that a planted bug proves not only that it was found but what found it.
"""

from collections.abc import Mapping
from typing import Final

from deltaci.domain import job as jobs
from deltaci.domain import lease as leases
from deltaci.domain import run as runs
from deltaci.domain.attempt import Attempt
from deltaci.domain.events import JobRef
from deltaci.domain.job import Job, JobCommand
from deltaci.domain.machine import IllegalMove, Refusal, Step, Why
from deltaci.domain.run import JobSeen, JobsSeen, Run, RunCommand
from deltaci.domain.states import HELD, EndReason, JobState, LeaseState, RunState
from tests.domain.builders import folded_job, folded_run

# The numbers are those of the invariants that the whole project shares. Those missing here are about deliveries (8, 9),
# a runner's own time (16), logs (18), the journal (20), secrets and rights (21, 22) and crashing actors (23). Rule 13
# also keeps a job from being leased whose run is being canceled: the store refuses that grant, and the job obeys.
RULES: Final[Mapping[int, str]] = {
    0: "no decision raises",
    1: "the stored state is the fold of its events, and the revision counts them",
    2: "every transition is in the table, and none leaves a final state",
    3: "attempts are 1..k; the next exists only after the last is final; their number is bounded",
    4: "at most one result an attempt, under the lease that was current then",
    5: "lease tokens are unique; an attempt is held if and only if its lease is live",
    6: "what is told was stored before; who is told that it is stale changed nothing",
    7: "the repeat of a result gets the same answer, any other is refused",
    10: "a run is final if and only if its jobs are, with the result that theirs demand",
    11: "a job starts only when its needs allow, and is skipped only for a need that failed",
    12: "no lost wake-up: whatever was lost, timers and the reconciler bring everything to its end",
    13: "after a cancel no grant and no retry, and the end at the deadline at the latest",
    14: "when a cancel and a result cross, one of them wins, once and for ever",
    15: "a lease expires after one TTL of silence, and never earlier",
    17: "one timer where somebody is waited for, none elsewhere, and none that fires for ever",
    19: "what is owed is stored with its cause",
    26: "a held run is neither planned nor owed a plan before somebody has approved it",
}


class Broken(AssertionError):
    """Rule `number` does not hold; `move` is what broke it, where that is known."""

    def __init__(self, number: int, text: str) -> None:
        assert number in RULES, number
        super().__init__(f"rule {number} ({RULES[number]}): {text}")
        self.number = number
        self.move = ""


def broken_by(move: str, error: Exception) -> Broken:
    """The rule that `error`, raised in `move`, shows to be broken."""
    if isinstance(error, Broken):
        broken = error
    else:
        broken = Broken(2 if isinstance(error, IllegalMove) else 0, f"{type(error).__name__}: {error}")
    broken.move = broken.move or move
    return broken


def require(holds: object, number: int, text: str) -> None:
    """Raise `Broken` unless `holds`."""
    if not holds:
        raise Broken(number, text)


# ---- jobs --------------------------------------------------------------------------------------------------------


def check_job(job: Job, *, attempts_max: int) -> None:
    """What holds of every stored job."""
    numbers = [each.number for each in job.attempts]
    require(numbers == list(range(1, len(numbers) + 1)), 3, f"attempts are numbered {numbers}")
    require(all(each.state.is_final for each in job.attempts[:-1]), 3, "an attempt follows one that is not final")
    require(len(numbers) <= attempts_max, 3, f"attempt {len(numbers)} where {attempts_max} is the last")
    tokens = [each.lease.token_hash for each in job.attempts if each.lease is not None]
    require(len(tokens) == len(set(tokens)), 5, f"a token was granted twice: {tokens}")
    for each in job.attempts:
        is_live = each.lease is not None and each.lease.state in leases.LIVE
        require((each.state in HELD) == is_live, 5, f"attempt {each.number} is {each.state} with lease {each.lease}")
    current = job.attempts[-1].state if job.attempts else None
    require((job.state in jobs.STARTED) == (current in HELD), 5, f"the job is {job.state}, its attempt {current}")
    require(not job.state.is_final or current is None or current.is_final, 2, f"the job is over, its attempt {current}")
    has_timer = jobs.deadline_ms(job) is not None
    require(has_timer == (current in HELD), 17, f"attempt {current} has {'a' if has_timer else 'no'} timer")
    if job.cancel is not None and job.state.is_final:
        expected = JobState.TIMED_OUT if job.cancel.reason in jobs.TIMEOUTS else JobState.CANCELED
        require(job.state is expected, 14, f"canceled for {job.cancel.reason}, and {job.state} in the end")


def check_job_step(
    before: Job, command: JobCommand, answer: Step[Job] | Refusal, *, now_ms: int, heard_at_ms: int
) -> None:
    """What holds of every decision about a job."""
    if isinstance(answer, Refusal):
        return
    after = answer.state
    if isinstance(command, jobs.GrantLease):
        is_canceled = before.cancel is not None or before.state is JobState.CANCELED
        require(not is_canceled, 13, f"a lease was granted in {before.state}")
    if isinstance(command, jobs.RequestCancel) and not before.state.is_final:
        is_heard = after.cancel is not None or after.state is JobState.CANCELED
        require(is_heard, 13, f"the cancel of a job was forgotten in {before.state}")
    require(after == folded_job(before, answer.events), 1, "the state is not the fold of the events")
    require(after.revision == before.revision + len(answer.events), 1, "the revision does not count the events")
    require(not before.state.is_final or after == before, 2, f"the job was {before.state} and is {after.state}")
    for old, new in zip(before.attempts, after.attempts, strict=False):
        require(not old.state.is_final or old == new, 2, f"attempt {old.number} was {old.state}, and was changed")
    if before.cancel is not None:
        require(len(after.attempts) == len(before.attempts), 13, "an attempt was queued after the cancel")
    if isinstance(command, jobs.AckLease | jobs.Heartbeat | jobs.Complete | jobs.CancelAck):
        _check_spoken(before, command, answer)
    if isinstance(command, jobs.Tick):
        _check_tick(before, after, now_ms=now_ms, heard_at_ms=heard_at_ms)


def _check_spoken(
    before: Job, command: jobs.AckLease | jobs.Heartbeat | jobs.Complete | jobs.CancelAck, answer: Step[Job]
) -> None:
    is_known = 1 <= command.attempt <= len(before.attempts)
    lease = before.attempts[command.attempt - 1].lease if is_known else None
    is_holder = lease is not None and lease.token_hash == command.lease_hash and lease.runner_id == command.runner_id
    require(is_holder, 4, f"{command.runner_id} was heard under {command.lease_hash}, which is not its lease")
    is_current = command.attempt == len(before.attempts)
    require(is_current or not answer.events, 4, "the holder of an older lease changed something")
    if isinstance(command, jobs.Complete):
        kept = answer.state.attempts[command.attempt - 1].result_digest
        require(kept == command.result_digest, 7, "a second, different result was accepted")


def _check_tick(before: Job, after: Job, *, now_ms: int, heard_at_ms: int) -> None:
    deadline_ms = jobs.deadline_ms(before)
    if deadline_ms is None or now_ms < deadline_ms:
        require(after == before, 15, "a tick before the deadline changed something")
        return
    following = jobs.deadline_ms(after)
    spins = after == before or (following is not None and following <= now_ms)
    require(not spins, 17, "a tick at the deadline left the deadline in the past: the timer fires for ever")
    if before.state is JobState.CANCEL_REQUESTED:
        require(after.state.is_final, 13, "the deadline of the cancel did not end the job")
    said, held = after.attempts[len(before.attempts) - 1], before.attempts[-1].lease
    assert held is not None, "a job with a deadline has a lease"
    if said.lease is not None and said.lease.state in (LeaseState.EXPIRED, LeaseState.REVOKED) and not before.cancel:
        is_acknowledged = held.state is LeaseState.ACTIVE
        window_ms = held.ttl_ms if is_acknowledged else held.ack_within_ms
        since_ms = max(heard_at_ms, held.granted_at_ms)
        require(now_ms >= since_ms + window_ms, 15, f"the lease was taken back after {now_ms - since_ms} ms of silence")


def check_repeats(job: Job, said: Attempt) -> None:
    """What whoever held the lease of `said` may say again once that is final, and must be answered for ever."""
    lease = said.lease
    if lease is None or not said.state.is_final:
        return
    same = jobs.Complete(
        attempt=said.number,
        lease_hash=lease.token_hash,
        runner_id=lease.runner_id,
        reason=EndReason.STEP_FAILED,
        exit_code=1,
        text="",
        result_digest=said.result_digest or "nothing was accepted",
    )
    answer = jobs.step(job, same, now_ms=0)
    if not said.result_digest:
        require(isinstance(answer, Refusal) and answer.why is Why.STALE_LEASE, 6, f"a late result got {answer}")
        return
    require(isinstance(answer, Step) and not answer.events, 7, f"the repeat of the accepted result got {answer}")


# ---- runs --------------------------------------------------------------------------------------------------------


def check_run_step(before: Run, command: RunCommand, answer: Step[Run] | Refusal) -> None:
    """What holds of every decision about a run."""
    if isinstance(answer, Refusal):
        return
    after = answer.state
    require(after == folded_run(before, answer.events), 1, "the state is not the fold of the events")
    require(after.revision == before.revision + len(answer.events), 1, "the revision does not count the events")
    require(not before.state.is_final or after == before, 2, f"the run was {before.state} and is {after.state}")
    if isinstance(command, runs.RequestCancel) and not before.state.is_final:
        require(after.cancel is not None, 13, "the cancel of a live run was forgotten")


def check_run(run: Run, seen: JobsSeen) -> None:
    """What holds of every stored run with the stored states of its jobs."""
    if run.hold and run.approved_at_ms is None:
        is_untouched = run.state in (RunState.CREATED, RunState.CANCELED) and not run.jobs and not seen
        require(is_untouched, 26, f"the run is {run.state} with {len(run.jobs)} jobs, and nobody has approved it")
    by_id = {job.id: job for job in run.jobs}
    for job in run.jobs:
        needs = [(by_id[need], seen[need]) for need in job.needs]
        is_waiting = seen[job.id].state in (JobState.BLOCKED, JobState.SKIPPED, JobState.CANCELED)
        for need, stands in needs:
            require(is_waiting or allows(need, stands), 11, f"{job.name} went on while {need.name} was {stands.state}")
        if seen[job.id].end_reason is EndReason.NEEDS_FAILED:
            has_failed = any(stands.state.is_final and not allows(need, stands) for need, stands in needs)
            require(has_failed, 11, f"{job.name} was skipped for a need, and none had failed")
    is_waiting_for_jobs = run.state is RunState.CANCEL_REQUESTED
    has_timer = runs.deadline_ms(run) is not None
    require(has_timer != (run.state.is_final or is_waiting_for_jobs), 17, f"the run is {run.state}, timer: {has_timer}")
    if run.state.is_final:
        live = [job.name for job in run.jobs if not seen[job.id].state.is_final]
        require(not live, 10, f"the run is over, and not {', '.join(live)}")
        _check_result(run, seen)


def allows(need: JobRef, seen: JobSeen) -> bool:
    """Whether what needs `need` may start."""
    if seen.state is JobState.SUCCEEDED:
        return True
    if seen.state is JobState.SKIPPED and seen.end_reason is not EndReason.NEEDS_FAILED:
        return True
    return not need.is_required and seen.state in (JobState.FAILED, JobState.TIMED_OUT, JobState.SKIPPED)


def _check_result(run: Run, seen: JobsSeen) -> None:
    if run.cancel is not None:
        expected = RunState.TIMED_OUT if run.cancel.reason is EndReason.RUN_TIMEOUT else RunState.CANCELED
        require(run.state is expected, 10, f"canceled for {run.cancel.reason}, and {run.state} in the end")
        return
    if not run.jobs:
        return
    required = [seen[job.id] for job in run.jobs if job.is_required]
    bad = [one for one in required if one.state not in (JobState.SUCCEEDED, JobState.SKIPPED)]
    bad += [one for one in required if one.end_reason is EndReason.NEEDS_FAILED]
    is_good = run.state is RunState.SUCCEEDED
    require(is_good != bool(bad), 10, f"the run {run.state}, with required jobs that were {bad or 'all good'}")
    if any(one.state is JobState.FAILED for one in required):
        require(run.state is RunState.FAILED, 10, f"a required job FAILED, the run {run.state}")
    require((run.state, run.end_reason) == runs.result(run, seen), 10, "the result cannot be computed again")
