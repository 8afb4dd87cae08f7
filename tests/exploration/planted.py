"""Bugs that the explorations must find: each with the rule that it breaks, planted by replacing production code.

An exploration that finds nothing must be known to be able to. Nothing here can be reached outside these tests.
"""

from collections.abc import Callable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain import retry
from deltaci.domain import run as runs
from deltaci.domain.events import AttemptQueued, JobEnded, RunEnded
from deltaci.domain.job import Job
from deltaci.domain.machine import Move, Refusal, Step, Why
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from deltaci.orchestrator import dispatch, job_actor, queue, run_actor
from deltaci.store.sql import query
from tests.exploration.core import HELD, SMALL, Core, Flaws
from tests.exploration.dispatch_copy import DispatchCopy
from tests.exploration.explorer import Counterexample
from tests.exploration.owners import every_decision_checked
from tests.exploration.timed_job import TimedJob

Patch: TypeAlias = pytest.MonkeyPatch
NO_FLAWS: Final = Flaws()


class Bug(NamedTuple):
    """A bug, the rule that it breaks, and the longest story that may be needed to show it.

    `plant` replaces production code; `flaws` is what is wrong around it; `where` is the world that it is looked for in.
    """

    name: str
    rule: int
    moves_max: int
    plant: Callable[[Patch], None] | None = None
    flaws: Flaws = NO_FLAWS
    where: Literal["core", "a held run", "one job with a clock", "dispatch", "dispatch of a group"] = "core"


def found(bug: Bug) -> Counterexample | None:
    """The counterexample that the exploration finds with `bug` planted; None if it finds none."""
    with every_decision_checked() as patch:
        if bug.plant is not None:
            bug.plant(patch)
        try:
            match bug.where:
                case "core":
                    Core(SMALL, bug.flaws).explore()
                case "a held run":
                    Core(HELD, bug.flaws).explore()
                case "one job with a clock":
                    TimedJob(is_blocked=False, retries=0).explore()
                case "dispatch":
                    DispatchCopy(running_max=1).explore()
                case "dispatch of a group":
                    DispatchCopy(concurrency="deploy").explore()
        except Counterexample as counterexample:
            return counterexample
    return None


# ---- fences and results ------------------------------------------------------------------------------------------


def _an_older_lease_counts(patch: Patch) -> None:
    original = jobs._from_holder

    def from_holder(job: Job, command: Any, now_ms: int) -> Any:
        lease = job.attempts[-1].lease if job.attempts else None
        if lease is not None and any(
            each.lease and each.lease.token_hash == command.lease_hash for each in job.attempts
        ):
            fence = {"attempt": len(job.attempts), "lease_hash": lease.token_hash, "runner_id": lease.runner_id}
            command = msgspec.structs.replace(command, **fence)
        return original(job, command, now_ms)

    patch.setattr(jobs, "_from_holder", from_holder)


def _a_stolen_token_is_enough(patch: Patch) -> None:
    patch.setattr(jobs, "_is_holder", lambda lease, command: lease.token_hash == command.lease_hash)


def _any_token_of_the_runner_counts(patch: Patch) -> None:
    patch.setattr(jobs, "_is_holder", lambda lease, command: lease.runner_id == command.runner_id)


def _every_lease_has_the_same_token(patch: Patch) -> None:
    original = jobs._grant

    def grant(job: Job, command: Any, now_ms: int) -> Any:
        return original(job, msgspec.structs.replace(command, lease_hash="lease"), now_ms)

    patch.setattr(jobs, "_grant", grant)


def _a_second_different_result_is_accepted(patch: Patch) -> None:
    original = jobs._after_the_end

    def after_the_end(job: Job, said: Any, command: Any) -> Any:
        answer = original(job, said, command)
        return Step(job) if isinstance(answer, Refusal) and answer.why is Why.CONFLICTING_RESULT else answer

    patch.setattr(jobs, "_after_the_end", after_the_end)


def _a_late_success_revives_a_failed_job(patch: Patch) -> None:
    original = jobs._after_the_end
    patch.setitem(jobs.MOVES, "succeed", Move(jobs.ANY, JobState.SUCCEEDED))  # type: ignore[arg-type]

    def after_the_end(job: Job, said: Any, command: Any) -> Any:
        if isinstance(command, jobs.Complete) and command.exit_code == 0 and job.state is JobState.FAILED:
            ended = JobEnded(at_ms=0, state=JobState.SUCCEEDED, reason=EndReason.SUCCEEDED)
            return jobs._stepped(job, (ended,))
        return original(job, said, command)

    patch.setattr(jobs, "_after_the_end", after_the_end)


def _a_result_wins_over_the_cancel_before_it(patch: Patch) -> None:
    original = jobs._complete
    sources = frozenset({JobState.RUNNING, JobState.CANCEL_REQUESTED})
    for name, target in (("succeed", JobState.SUCCEEDED), ("fail", JobState.FAILED)):
        patch.setitem(jobs.MOVES, name, Move(sources, target))  # type: ignore[arg-type]

    def complete(job: Job, said: Any, command: jobs.Complete, now_ms: int) -> Any:
        if job.state is JobState.CANCEL_REQUESTED and said.state is not AttemptState.LEASED:
            is_good = command.exit_code == 0
            ended = jobs.AttemptEnded(
                at_ms=now_ms,
                attempt=said.number,
                state=AttemptState.SUCCEEDED if is_good else AttemptState.FAILED,
                reason=EndReason.SUCCEEDED if is_good else EndReason.STEP_FAILED,
                lease_state=LeaseState.COMPLETED,
                result_digest=command.result_digest,
            )
            end = JobEnded(at_ms=now_ms, state=JobState.SUCCEEDED if is_good else JobState.FAILED, reason=ended.reason)
            return jobs._stepped(job, (ended, end), (jobs.AnalyzeAttempt(job.id, said.number),))
        return original(job, said, command, now_ms)

    patch.setattr(jobs, "_complete", complete)


# ---- attempts and time -------------------------------------------------------------------------------------------


def _retries_know_no_bound(patch: Patch) -> None:
    patch.setattr(retry, "decide", lambda *_args, now_ms, **_kwargs: retry.RetryAt(now_ms))


def _unacknowledged_leases_are_granted_for_ever(patch: Patch) -> None:
    patch.setattr(retry, "UNACKNOWLEDGED_MAX", 1_000)


def _a_heartbeat_that_cost_no_write_is_forgotten(patch: Patch) -> None:
    original = jobs.expires_at_ms
    patch.setattr(jobs, "expires_at_ms", lambda job, *, heard_at_ms: original(job, heard_at_ms=0))


def _a_lease_expires_at_half_its_time(patch: Patch) -> None:
    original = jobs._tick

    def tick(job: Job, command: jobs.Tick, now_ms: int) -> Any:
        lease = job.attempts[-1].lease if job.attempts else None
        if lease is not None and lease.state is LeaseState.ACTIVE and job.cancel is None:
            return original(job, command, now_ms + lease.ttl_ms // 2)
        return original(job, command, now_ms)

    patch.setattr(jobs, "_tick", tick)


def _a_held_job_has_no_timer(patch: Patch) -> None:
    original = jobs.deadline_ms

    def deadline_ms(job: Job) -> int | None:
        is_leased = bool(job.attempts) and job.attempts[-1].state is AttemptState.LEASED
        return None if is_leased else original(job)

    patch.setattr(jobs, "deadline_ms", deadline_ms)


def _a_timer_changes_nothing(patch: Patch) -> None:
    patch.setattr(jobs, "_tick", lambda job, _command, _now_ms: Step(job))


# ---- cancels -----------------------------------------------------------------------------------------------------


def _the_run_forgets_to_cancel_what_is_queued(patch: Patch) -> None:
    original = run_actor.RunActor._cancel_jobs

    def cancel_jobs(self: run_actor.RunActor, run: Any) -> None:
        seen = dict(self.progress.seen)
        self.progress.seen = {each: one for each, one in seen.items() if one.state is not JobState.QUEUED}
        original(self, run)
        self.progress.seen = seen

    patch.setattr(run_actor.RunActor, "_cancel_jobs", cancel_jobs)


def _a_queued_job_ignores_its_cancel(patch: Patch) -> None:
    original = jobs._request_cancel

    def request_cancel(job: Job, command: Any, now_ms: int) -> Any:
        return Step(job) if job.state is JobState.QUEUED else original(job, command, now_ms)

    patch.setattr(jobs, "_request_cancel", request_cancel)


def _a_canceled_job_can_still_be_leased(patch: Patch) -> None:
    original = jobs.step

    def step(job: Job, command: Any, *, now_ms: int) -> Any:
        is_canceled = job.state is JobState.CANCELED and bool(job.attempts) and job.attempts[-1].lease is None
        if isinstance(command, jobs.GrantLease) and is_canceled:
            life = {"end_reason": None, "ended_at_ms": None}
            queued = msgspec.structs.replace(job.attempts[-1], state=AttemptState.QUEUED, **life)
            attempts = (*job.attempts[:-1], queued)
            job = msgspec.structs.replace(job, state=JobState.QUEUED, attempts=attempts, **life)
        return original(job, command, now_ms=now_ms)

    patch.setattr(jobs, "step", step)


def _a_lost_attempt_is_retried_after_the_cancel(patch: Patch) -> None:
    original = jobs._canceled
    sources = frozenset({JobState.RUNNING, JobState.CANCEL_REQUESTED})
    patch.setitem(jobs.MOVES, "requeue", Move(sources, JobState.QUEUED))  # type: ignore[arg-type]

    def canceled(job: Job, said: Any, now_ms: int, lease_state: LeaseState, *report: Any) -> Any:
        step = original(job, said, now_ms, lease_state, *report)
        if lease_state is not LeaseState.REVOKED or said.number > 1:
            return step
        return jobs._stepped(job, (step.events[0], AttemptQueued(at_ms=now_ms, attempt=2, not_before_ms=now_ms)))

    patch.setattr(jobs, "_canceled", canceled)


def _a_run_that_is_over_can_be_canceled(patch: Patch) -> None:
    original = runs._request_cancel
    patch.setitem(runs.MOVES, "cancel", Move(runs.ANY, RunState.CANCELED))  # type: ignore[arg-type]

    def request_cancel(run: Any, reason: EndReason, detail: str, now_ms: int) -> Any:
        if run.state is RunState.SUCCEEDED:
            return runs._stepped(run, (RunEnded(at_ms=now_ms, state=RunState.CANCELED, reason=reason),))
        return original(run, reason, detail, now_ms)

    patch.setattr(runs, "_request_cancel", request_cancel)


# ---- runs and their jobs -----------------------------------------------------------------------------------------


def _a_need_is_ignored(patch: Patch) -> None:
    def unblocked(run: Any, seen: Any, candidates: Any = None) -> Any:
        looked_at = run.jobs if candidates is None else candidates
        return tuple(job.id for job in looked_at if seen[job.id].state is JobState.BLOCKED), {}

    patch.setattr(run_actor, "unblocked", unblocked)


def _a_need_that_failed_is_good_enough(patch: Patch) -> None:
    patch.setattr(runs, "is_satisfied", lambda _job, seen: seen.state.is_final)


def _a_job_is_released_after_the_cancel_of_its_run(patch: Patch) -> None:
    original = run_actor.unblocked

    def unblocked(run: Any, *rest: Any) -> Any:
        return original(msgspec.structs.replace(run, cancel=None), *rest)

    original_cancel = run_actor.RunActor._cancel_jobs

    def cancel_jobs(self: run_actor.RunActor, run: Any) -> None:
        original_cancel(self, run)
        self._unblock(run, list(run.jobs))

    patch.setattr(run_actor, "unblocked", unblocked)
    patch.setattr(run_actor.RunActor, "_cancel_jobs", cancel_jobs)


def _a_run_ends_with_its_first_job(patch: Patch) -> None:
    original = runs._advance

    def advance(run: Any, seen: Any, now_ms: int) -> Any:
        is_going_on = run.state in (RunState.QUEUED, RunState.RUNNING)
        if is_going_on and any(one.state is JobState.FAILED for one in seen.values()):
            ended = RunEnded(at_ms=now_ms, state=RunState.FAILED, reason=EndReason.JOBS_FAILED)
            return runs._stepped(run, (ended,))
        return original(run, seen, now_ms)

    patch.setattr(runs, "_advance", advance)


# ---- approvals ---------------------------------------------------------------------------------------------------


def _a_held_run_is_planned_without_approval(patch: Patch) -> None:
    patch.setattr(runs, "is_waiting_for_approval", lambda _run: False)


def _an_approval_brings_a_canceled_run_back(patch: Patch) -> None:
    patch.setattr(runs, "is_held", runs.is_waiting_for_approval)


def _an_approval_owes_no_plan(patch: Patch) -> None:
    original = runs._approve
    patch.setattr(runs, "_approve", lambda *what: msgspec.structs.replace(original(*what), effects=()))


# ---- commits -----------------------------------------------------------------------------------------------------


def _the_job_tells_before_it_commits(patch: Patch) -> None:
    original = job_actor.JobActor._do

    async def do(self: job_actor.JobActor, owned: Any, command: Any, cause: Any) -> Any:
        decision = job_actor.step(owned.job, command, now_ms=self.ports.clock.now_ms())
        if isinstance(decision, Step) and decision.events:
            self._act(owned.job, decision.state)
        return await original(self, owned, command, cause)

    patch.setattr(job_actor.JobActor, "_do", do)


def _a_state_is_stored_without_its_event(patch: Patch) -> None:
    original = jobs._stepped

    def stepped(*what: Any) -> Any:
        step = original(*what)
        return Step(step.state, step.events[:-1], step.effects)

    patch.setattr(jobs, "_stepped", stepped)


def _a_failure_is_owed_no_explanation(patch: Patch) -> None:
    original = jobs._stepped
    patch.setattr(jobs, "_stepped", lambda job, events, _effects=(): original(job, events))


# ---- around the decisions ----------------------------------------------------------------------------------------


def _dispatch_trusts_its_counts(patch: Patch) -> None:
    patch.setattr(dispatch, "LOOKS_A_LISTING", 1_000_000)


def _dispatch_never_looks(patch: Patch) -> None:
    async def compare(_self: dispatch.DispatchActor) -> None:
        pass

    patch.setattr(dispatch.DispatchActor, "_compare", compare)


def _a_held_group_is_offered_from(patch: Patch) -> None:
    def close(*_: Any) -> None:
        pass

    patch.setattr(queue.JobQueue, "_close", close)


_BLOCKED_CLAUSE: Final = "job.state = 'BLOCKED'"
_ENDED_CLAUSE: Final = "EXISTS (SELECT 1 FROM job WHERE job.run_id = run.id)"
_CANCEL_CLAUSE: Final = "state = 'CANCEL_REQUESTED'"


def _blind(clause: str) -> Flaws:
    """A reconciler whose query no longer finds what `clause` is about."""
    sql = query("runs_to_advance")
    assert sql.count(clause) == 1, f"the reconciler's query has changed: {clause!r} is there {sql.count(clause)} times"
    return Flaws(reconciler_sql=sql.replace(clause, f"0 AND {clause}"))


BUGS: Final = (
    Bug("an older lease counts", 4, 4, _an_older_lease_counts),
    Bug("a stolen token is enough", 4, 4, _a_stolen_token_is_enough),
    Bug("any token of the runner counts", 4, 4, _any_token_of_the_runner_counts),
    Bug("every lease has the same token", 5, 5, _every_lease_has_the_same_token),
    Bug("a second, different result is accepted", 7, 6, _a_second_different_result_is_accepted),
    Bug("a late success revives a failed job", 2, 6, _a_late_success_revives_a_failed_job),
    Bug("a result wins over the cancel before it", 14, 6, _a_result_wins_over_the_cancel_before_it),
    Bug("retries know no bound", 3, 8, _retries_know_no_bound),
    Bug("unacknowledged leases are granted for ever", 3, 8, _unacknowledged_leases_are_granted_for_ever),
    Bug("a heartbeat that cost no write is forgotten", 15, 4, _a_heartbeat_that_cost_no_write_is_forgotten),
    Bug("the same, with a clock", 15, 4, _a_heartbeat_that_cost_no_write_is_forgotten, where="one job with a clock"),
    Bug("a lease expires at half its time", 15, 4, _a_lease_expires_at_half_its_time, where="one job with a clock"),
    Bug("a held job has no timer", 17, 3, _a_held_job_has_no_timer),
    Bug("a timer changes nothing", 17, 4, _a_timer_changes_nothing),
    Bug("the run forgets to cancel what is queued", 12, 5, _the_run_forgets_to_cancel_what_is_queued),
    Bug("a queued job ignores its cancel", 13, 3, _a_queued_job_ignores_its_cancel),
    Bug("a canceled job can still be leased", 13, 5, _a_canceled_job_can_still_be_leased),
    Bug("a lost attempt is retried after the cancel", 13, 6, _a_lost_attempt_is_retried_after_the_cancel),
    Bug("a run that is over can be canceled", 2, 11, _a_run_that_is_over_can_be_canceled),
    Bug("a need is ignored", 11, 4, _a_need_is_ignored),
    Bug("a need that failed is good enough", 11, 6, _a_need_that_failed_is_good_enough),
    Bug("a job is released after the cancel of its run", 13, 5, _a_job_is_released_after_the_cancel_of_its_run),
    Bug("a run ends with its first failure", 10, 6, _a_run_ends_with_its_first_job),
    Bug("a held run is planned without approval", 26, 1, _a_held_run_is_planned_without_approval, where="a held run"),
    Bug("an approval brings a canceled run back", 2, 2, _an_approval_brings_a_canceled_run_back, where="a held run"),
    Bug("an approval owes no plan", 19, 1, _an_approval_owes_no_plan, where="a held run"),
    Bug("the job tells before it commits", 6, 3, _the_job_tells_before_it_commits),
    Bug("a state is stored without its event", 1, 3, _a_state_is_stored_without_its_event),
    Bug("a failure is owed no explanation", 19, 4, _a_failure_is_owed_no_explanation),
    Bug("wake-ups get lost and nobody looks", 12, 3, flaws=Flaws(has_reconciler=False)),
    Bug("the reconciler is blind for runs whose jobs are over", 12, 5, flaws=_blind(_ENDED_CLAUSE)),
    Bug("the reconciler is blind for blocked jobs", 12, 7, flaws=_blind(_BLOCKED_CLAUSE)),
    Bug("the reconciler is blind for cancels", 12, 3, flaws=_blind(_CANCEL_CLAUSE)),
    Bug("dispatch never looks at the store", 12, 1, _dispatch_never_looks, where="dispatch"),
    Bug("dispatch trusts its counts", 12, 3, _dispatch_trusts_its_counts, where="dispatch"),
    Bug("a held group is offered from", 12, 4, _a_held_group_is_offered_from, where="dispatch of a group"),
    Bug("timers live in memory and die with it", 12, 1, flaws=Flaws(forgets_timers=True)),
)
