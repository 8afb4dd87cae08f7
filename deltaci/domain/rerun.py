"""What a new run attempt runs again: everything, or the jobs that did not succeed with all that depends on them."""

import msgspec

from deltaci.domain.plan import Plan, PlannedJob, Reason
from deltaci.domain.states import JobState

CARRIED_OVER_RULE = "carried_over"


def plan_again(
    plan: Plan, states: dict[str, JobState], *, failed_only: bool, earlier_attempt: int, job: str = ""
) -> Plan:
    """The plan of the next run attempt.

    Args:
        plan: the plan of the earlier attempt, jobs in topological order.
        states: final job states of the earlier attempt by job name.
        failed_only: keep what succeeded or was skipped for a good reason; those jobs are carried over as skipped.
        job: the name of one to run again although it may have succeeded, with all that depends on it. What did not
            succeed runs again with it: carried over, it would make the new attempt look better than it is.
    """
    if not failed_only and not job:
        return msgspec.structs.replace(plan, jobs=tuple(_afresh(job) for job in plan.jobs))
    again: set[str] = set()
    jobs = []
    for planned in plan.jobs:
        is_good = states.get(planned.name) is JobState.SUCCEEDED or planned.is_skipped
        if planned.name == job:
            again.add(planned.name)
            jobs.append(_afresh(planned))
        elif not is_good or any(need in again for need in planned.needs):
            again.add(planned.name)
            jobs.append(_afresh(planned) if job else planned)
        elif planned.is_skipped:
            jobs.append(planned)
        else:
            reason = Reason(rule=CARRIED_OVER_RULE, text=f"succeeded in run attempt {earlier_attempt}")
            jobs.append(msgspec.structs.replace(planned, is_skipped=True, reasons=(*planned.reasons, reason)))
    return msgspec.structs.replace(plan, jobs=tuple(jobs))


def _afresh(job: PlannedJob) -> PlannedJob:
    """The job as it was planned, should an earlier attempt have carried it over."""
    reasons = tuple(reason for reason in job.reasons if reason.rule != CARRIED_OVER_RULE)
    if len(reasons) == len(job.reasons):
        return job
    return msgspec.structs.replace(job, is_skipped=False, reasons=reasons)
