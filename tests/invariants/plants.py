"""Planted violations: each story is sound up to its last event, which breaks the rule that the plant names."""

from collections.abc import Callable
from typing import Final

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.events import (
    TIMER,
    AttemptEnded,
    Cause,
    JobCancelRequested,
    JobSkipped,
    LeaseAcknowledged,
    LeaseRenewed,
    RunCancelRequested,
    RunEnded,
    RunStarted,
    encode_event,
)
from deltaci.domain.states import AttemptState, EndReason, JobState, LeaseState, RunState
from tests.builders import NOW_MS, SOMEBODY, a_created_job, a_run_id
from tests.invariants.beginnings import HELD_BY, ended, leased, lost, planned, queued, reported, retried, running
from tests.invariants.story import JOB, RUN, SECOND, TTL_MS, Story

Plant = Callable[[], Story]

STRANGER: Final = Cause("runner", "runner_9")
PLANTS: Final[list[tuple[str, Plant]]] = []


def plant(rule: str) -> Callable[[Plant], Plant]:
    """Remember a story for the rule that its last event breaks."""

    def remember(tell: Plant) -> Plant:
        PLANTS.append((rule, tell))
        return tell

    return remember


# ---- any entity --------------------------------------------------------------------------------------------------


@plant("dense")
def a_number_is_left_out() -> Story:
    story = planned()
    story.say(JOB, leased(), cause=HELD_BY, skip=1)
    return story


@plant("dense")
def a_number_is_used_twice() -> Story:
    story = planned()
    story.say(JOB, leased(), cause=HELD_BY, skip=-1)
    return story


@plant("readable")
def an_event_lacks_its_fields() -> Story:
    story = running()
    story.drafts[-1] = story.drafts[-1]._replace(data=b'{"type":"LeaseAcknowledged"}')
    return story


@plant("readable")
def an_event_is_no_text() -> Story:
    story = running()
    story.drafts[-1] = story.drafts[-1]._replace(data=b'{"type":"\xff"}')
    return story


@plant("legal_move")
def a_queued_job_succeeds() -> Story:
    story = planned()
    story.say(JOB, ended(JobState.SUCCEEDED, EndReason.SUCCEEDED))
    return story


@plant("legal_move")
def a_final_attempt_is_lost_again() -> Story:
    story = running()
    story.say(JOB, reported(), cause=HELD_BY)
    story.say(JOB, lost(), cause=TIMER)
    return story


@plant("fold")
def a_job_is_created_twice() -> Story:
    story = planned()
    story.say(JOB, a_created_job())
    return story


@plant("fold")
def a_job_has_the_event_of_a_run() -> Story:
    story = planned()
    story.say(JOB, RunStarted(at_ms=NOW_MS))
    return story


@plant("fold")
def an_entity_does_not_begin_with_its_creation() -> Story:
    story = Story()
    story.say(RUN, RunStarted(at_ms=NOW_MS))
    return story


@plant("nothing_after_end")
def a_lease_is_renewed_after_the_end() -> Story:
    story = running()
    story.complete()
    story.say(JOB, LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS + 2 * TTL_MS), cause=HELD_BY)
    return story


@plant("nothing_after_end")
def a_failed_job_is_tried_again() -> Story:
    story = running()
    story.complete(exit_code=1)
    story.say(JOB, queued(2), cause=TIMER)
    return story


@plant("entry_says_the_same")
def an_entry_has_another_time() -> Story:
    story = running()
    story.drafts[-1] = story.drafts[-1]._replace(at_ms=NOW_MS + 1)
    return story


@plant("entry_says_the_same")
def an_entry_is_filed_under_another_run() -> Story:
    story = running()
    story.drafts[-1] = story.drafts[-1]._replace(run_id=a_run_id(2))
    return story


@plant("entry_says_the_same")
def an_entry_has_another_type() -> Story:
    story = running()
    story.drafts[-1] = story.drafts[-1]._replace(type="AttemptMoved")
    return story


@plant("caused")
def nobody_did_it() -> Story:
    story = planned((), (0,))
    story.say(JOB, leased(), cause=Cause("runner", ""))
    return story


# ---- attempts ----------------------------------------------------------------------------------------------------


@plant("attempts_dense")
def an_attempt_is_leased_that_does_not_exist() -> Story:
    story = planned()
    story.say(JOB, leased(2), cause=HELD_BY)
    return story


@plant("attempts_dense")
def an_attempt_is_left_out() -> Story:
    story = running()
    story.say(JOB, lost(), queued(3), cause=TIMER)
    return story


@plant("one_attempt_at_a_time")
def an_attempt_is_queued_beside_another() -> Story:
    story = running()
    story.say(JOB, queued(2), cause=TIMER)
    return story


@plant("end_decided_at_once")
def an_attempt_is_queued_out_of_the_blue() -> Story:
    story = running()
    story.say(JOB, queued(2), cause=TIMER)
    return story


@plant("end_decided_at_once")
def the_retry_is_stored_apart_from_the_loss() -> Story:
    story = running((), ())
    story.say(JOB, lost(), cause=TIMER)
    story.lease(SECOND)
    story.say(JOB, queued(2), cause=TIMER)
    return story


@plant("ends_as_its_attempt")
def a_job_succeeds_with_a_lost_attempt() -> Story:
    story = running()
    story.say(JOB, lost(), ended(JobState.SUCCEEDED, EndReason.SUCCEEDED), cause=TIMER)
    return story


@plant("ends_as_its_attempt")
def a_job_ends_with_its_attempt_open() -> Story:
    story = running()
    story.say(JOB, ended(JobState.FAILED, EndReason.RUNNER_LOST), cause=TIMER)
    return story


@plant("ends_as_its_attempt")
def a_blocked_job_is_skipped_by_an_end() -> Story:
    story = planned((), (0,))
    story.say(SECOND, ended(JobState.SKIPPED, EndReason.NEEDS_FAILED))
    return story


@plant("retries_bounded")
def a_lost_attempt_is_retried_once_too_often() -> Story:
    return retried(EndReason.RUNNER_LOST, 3)


@plant("retries_bounded")
def an_unacknowledged_lease_is_granted_for_ever() -> Story:
    return retried(EndReason.NEVER_ACKNOWLEDGED, 5)


@plant("retries_bounded")
def a_failure_is_retried_that_has_no_retries() -> Story:
    return retried(EndReason.STEP_FAILED, 1)


@plant("retries_bounded")
def a_failure_is_retried_once_too_often() -> Story:
    return retried(EndReason.STEP_FAILED, 3, retries=2)


@plant("retries_bounded")
def a_success_is_retried() -> Story:
    story = running()
    story.say(JOB, reported(), queued(2), cause=HELD_BY)
    return story


@plant("backoff_kept")
def a_retry_is_leased_before_its_backoff_is_over() -> Story:
    story = running()
    story.say(JOB, lost(), queued(2, not_before_ms=NOW_MS + TTL_MS + 1_000), cause=TIMER)
    story.say(JOB, leased(2, at_ms=NOW_MS + TTL_MS + 999), cause=HELD_BY)
    return story


# ---- leases ------------------------------------------------------------------------------------------------------


@plant("lease_ids_unique")
def a_lease_id_is_granted_twice() -> Story:
    story = planned((), ())
    story.lease(JOB, lease_hash="same")
    story.say(SECOND, leased(lease_hash="same"), cause=HELD_BY)
    return story


@plant("lease_ids_unique")
def a_retry_gets_the_lease_id_of_its_first_attempt() -> Story:
    story = planned()
    story.lease(JOB, lease_hash="same")
    story.say(JOB, lost(reason=EndReason.NEVER_ACKNOWLEDGED, lease_state=LeaseState.REVOKED), queued(2), cause=TIMER)
    story.say(JOB, leased(2, at_ms=NOW_MS + TTL_MS, lease_hash="same"), cause=HELD_BY)
    return story


@plant("one_lease_a_group")
def a_second_job_of_a_group_is_leased() -> Story:
    story = planned((), (), concurrency="deploy")
    story.lease(JOB)
    story.say(SECOND, leased(), cause=HELD_BY)
    return story


@plant("one_lease_a_group")
def a_job_is_leased_while_its_group_is_asked_to_stop() -> Story:
    story = running((), (), concurrency="deploy")
    story.cancel_run()
    story.cancel()
    story.say(SECOND, leased(), cause=HELD_BY)
    return story


@plant("only_the_holder_speaks")
def a_stranger_acknowledges() -> Story:
    story = planned()
    story.lease()
    story.say(JOB, LeaseAcknowledged(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS + TTL_MS), cause=STRANGER)
    return story


@plant("only_the_holder_speaks")
def a_strangers_result_is_accepted() -> Story:
    story = running()
    story.say(JOB, reported(), cause=STRANGER)
    return story


@plant("only_the_holder_speaks")
def the_former_holders_result_is_accepted() -> Story:
    story = running()
    story.say(JOB, lost(), queued(2), cause=TIMER)
    story.say(JOB, leased(2, at_ms=NOW_MS + TTL_MS, runner_id="runner_2"), cause=Cause("runner", "runner_2"))
    at_ms = NOW_MS + TTL_MS
    acknowledged = LeaseAcknowledged(at_ms=at_ms, attempt=2, expires_at_ms=at_ms + TTL_MS)
    story.say(JOB, acknowledged, cause=Cause("runner", "runner_2"))
    story.say(JOB, reported(2, at_ms=at_ms), cause=HELD_BY)
    return story


@plant("only_the_holder_speaks")
def a_stranger_obeys_the_cancel() -> Story:
    story = running()
    story.cancel_run()
    story.cancel()
    canceled = {"state": AttemptState.CANCELED, "reason": EndReason.USER_CANCELED, "lease_state": LeaseState.CANCELED}
    story.say(JOB, AttemptEnded(at_ms=NOW_MS, attempt=1, **canceled), cause=STRANGER)  # type: ignore[arg-type]
    return story


@plant("only_the_holder_speaks")
def a_person_renews_a_lease() -> Story:
    story = running()
    story.say(JOB, LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS + 2 * TTL_MS), cause=SOMEBODY)
    return story


@plant("one_result")
def a_result_is_accepted_before_the_lease_is_acknowledged() -> Story:
    story = planned()
    story.lease()
    state = {"state": AttemptState.TIMED_OUT, "reason": EndReason.JOB_TIMEOUT, "lease_state": LeaseState.CANCELED}
    story.say(JOB, reported(**state), cause=HELD_BY)
    return story


@plant("never_expired_early")
def a_lease_expires_a_millisecond_early() -> Story:
    story = running()
    story.say(JOB, lost(at_ms=NOW_MS + TTL_MS - 1), cause=TIMER)
    return story


@plant("never_expired_early")
def an_acknowledged_lease_is_lost_as_unacknowledged() -> Story:
    story = running()
    story.say(JOB, lost(reason=EndReason.NEVER_ACKNOWLEDGED), cause=TIMER)
    return story


@plant("renewed_forward")
def a_renewed_lease_ends_earlier() -> Story:
    story = running()
    story.say(JOB, LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS + TTL_MS), cause=TIMER)
    return story


# ---- cancels and time-outs ---------------------------------------------------------------------------------------


@plant("nothing_leased_after_runs_cancel")
def a_job_is_leased_before_it_hears_of_its_runs_cancel() -> Story:
    story = planned()
    story.cancel_run()
    story.say(JOB, leased(), cause=HELD_BY)
    return story


@plant("cancel_has_a_cause")
def a_job_is_canceled_and_its_run_is_not() -> Story:
    story = running()
    story.cancel()
    return story


@plant("cancel_has_a_cause")
def a_waiting_job_is_canceled_and_its_run_is_not() -> Story:
    story = planned((), (0,))
    story.cancel(SECOND)
    return story


@plant("cancel_has_a_cause")
def a_job_is_canceled_for_another_reason_than_its_run() -> Story:
    story = running()
    story.cancel_run()
    story.cancel(reason=EndReason.SUPERSEDED)
    return story


@plant("canceled_as_asked")
def a_result_wins_over_the_cancel_that_was_stored_first() -> Story:
    story = running()
    story.cancel_run()
    story.cancel()
    story.say(JOB, reported(), cause=HELD_BY)
    return story


@plant("cancel_forced_in_time")
def a_canceled_lease_is_revoked_early() -> Story:
    story = running()
    story.cancel_run()
    story.cancel()
    canceled = {"state": AttemptState.CANCELED, "reason": EndReason.USER_CANCELED, "lease_state": LeaseState.REVOKED}
    story.say(JOB, lost(at_ms=NOW_MS + 29_999, **canceled), cause=TIMER)
    return story


@plant("revoked_for_a_reason")
def a_cancel_is_obeyed_that_nobody_asked_for() -> Story:
    story = running()
    canceled = {"state": AttemptState.CANCELED, "reason": EndReason.USER_CANCELED, "lease_state": LeaseState.CANCELED}
    story.say(JOB, lost(**canceled), cause=HELD_BY)
    return story


@plant("revoked_for_a_reason")
def a_lease_is_revoked_without_a_cancel() -> Story:
    story = running()
    canceled = {"state": AttemptState.CANCELED, "reason": EndReason.USER_CANCELED, "lease_state": LeaseState.REVOKED}
    story.say(JOB, lost(**canceled), cause=TIMER)
    return story


@plant("timed_out_in_time")
def a_job_times_out_early() -> Story:
    story = running()
    at_ms = NOW_MS + story.states[JOB].timeout_ms + jobs.TIMEOUT_MARGIN_MS - 1
    story.say(JOB, JobCancelRequested(at_ms=at_ms, reason=EndReason.JOB_TIMEOUT, by_ms=at_ms), cause=TIMER)
    return story


@plant("timed_out_in_time")
def a_job_times_out_that_never_started() -> Story:
    story = planned()
    story.lease()
    at_ms = NOW_MS + 1_000_000_000
    story.say(JOB, JobCancelRequested(at_ms=at_ms, reason=EndReason.JOB_TIMEOUT, by_ms=at_ms), cause=TIMER)
    return story


@plant("timed_out_in_time")
def a_run_times_out_early() -> Story:
    story = running()
    at_ms = NOW_MS + story.states[RUN].timeout_ms - 1
    story.say(RUN, RunCancelRequested(at_ms=at_ms, reason=EndReason.RUN_TIMEOUT, by_ms=at_ms), cause=TIMER)
    return story


# ---- runs --------------------------------------------------------------------------------------------------------


@plant("run_has_a_cause")
def a_run_comes_out_of_nothing() -> Story:
    story = Story()
    story.create(cause=Cause("system", "orchestrator"))
    return story


@plant("one_run_a_key")
def two_runs_are_the_same() -> Story:
    story = Story()
    story.create(1)
    story.create(2, commit_sha=f"{1:040x}")
    return story


@plant("one_run_a_key")
def a_run_attempt_is_left_out() -> Story:
    story = Story()
    story.create(1)
    story.create(2, attempt=3, commit_sha=f"{1:040x}")
    return story


@plant("jobs_as_planned")
def a_job_is_created_that_no_plan_has() -> Story:
    story = planned()
    story.add(a_created_job(index=1))
    return story


@plant("jobs_as_planned")
def a_job_is_created_before_the_plan_is_adopted() -> Story:
    story = Story()
    story.create()
    story.add(a_created_job())
    return story


@plant("jobs_as_planned")
def a_job_counts_less_than_planned() -> Story:
    return planned(is_required=False)


@plant("starts_when_needs_allow")
def a_job_is_released_while_its_need_runs() -> Story:
    story = running((), (0,))
    story.do(SECOND, jobs.Release())
    return story


@plant("starts_when_needs_allow")
def a_job_is_released_though_its_need_failed() -> Story:
    story = running((), (0,))
    story.complete(exit_code=1)
    story.do(SECOND, jobs.Release())
    return story


@plant("starts_when_needs_allow")
def a_job_is_queued_from_the_start_though_it_has_needs() -> Story:
    story = planned((), (0,))
    data = encode_event(a_created_job(index=1))
    story.drafts[-1] = story.drafts[-1]._replace(data=data)
    return story


@plant("skipped_for_a_reason")
def a_job_is_skipped_though_its_need_succeeded() -> Story:
    story = running((), (0,))
    story.complete()
    story.do(SECOND, jobs.Skip(reason=EndReason.NEEDS_FAILED))
    return story


@plant("skipped_for_a_reason")
def a_job_is_skipped_while_its_need_runs() -> Story:
    story = running((), (0,))
    story.say(SECOND, JobSkipped(at_ms=NOW_MS, reason=EndReason.NEEDS_FAILED))
    return story


@plant("skipped_for_a_reason")
def a_job_is_skipped_from_the_start_for_its_needs() -> Story:
    return planned(state=JobState.SKIPPED, end_reason=EndReason.NEEDS_FAILED)


@plant("run_starts_with_a_job")
def a_run_starts_by_itself() -> Story:
    story = planned((), (0,))
    story.say(RUN, RunStarted(at_ms=NOW_MS))
    return story


@plant("run_ends_with_its_jobs")
def a_run_ends_before_its_jobs() -> Story:
    story = running((), (0,))
    story.complete()
    story.say(RUN, RunEnded(at_ms=NOW_MS, state=RunState.SUCCEEDED, reason=EndReason.SUCCEEDED))
    return story


@plant("result_recomputable")
def a_run_succeeds_with_a_failed_job() -> Story:
    story = running()
    story.complete(exit_code=1)
    story.say(RUN, RunEnded(at_ms=NOW_MS, state=RunState.SUCCEEDED, reason=EndReason.SUCCEEDED))
    return story


@plant("result_recomputable")
def a_canceled_run_succeeds() -> Story:
    story = running()
    story.cancel_run()
    story.complete()
    story.say(RUN, RunEnded(at_ms=NOW_MS, state=RunState.CANCELED, reason=EndReason.SUPERSEDED))
    return story


@plant("result_recomputable")
def a_run_without_a_plan_fails_for_its_jobs() -> Story:
    story = Story()
    story.create()
    story.do(RUN, runs.StartPlanning())
    story.say(RUN, RunEnded(at_ms=NOW_MS, state=RunState.FAILED, reason=EndReason.JOBS_FAILED))
    return story
