"""Why a job waits: one reason code for every job that is not running yet."""

from collections.abc import Sequence

import msgspec

from deltaci.domain.job import Job
from deltaci.domain.states import JobState, WaitingReason


class Waiting(msgspec.Struct, frozen=True):
    """The code and what it is about: the needs, the labels nobody has, the group, the instant."""

    reason: WaitingReason
    detail: str = ""


def waiting(
    job: Job,
    *,
    now_ms: int,
    open_needs: Sequence[str],
    runner_labels: Sequence[frozenset[str]],
    is_repo_at_limit: bool,
    is_group_held: bool = False,
) -> Waiting | None:
    """Why `job` waits, or None if it does not.

    Args:
        open_needs: names of the jobs it needs that are not satisfied yet.
        runner_labels: the labels of each runner that is online.
        is_group_held: another job of its concurrency group is with a runner.
    """
    if job.state is JobState.BLOCKED:
        return Waiting(WaitingReason.NEEDS, ", ".join(open_needs))
    if job.state is not JobState.QUEUED:
        return None
    not_before_ms = job.attempts[-1].not_before_ms
    if not_before_ms > now_ms:
        return Waiting(WaitingReason.RETRY_BACKOFF, str(not_before_ms))
    if not runner_labels:
        return Waiting(WaitingReason.NO_RUNNER_ONLINE)
    wanted = frozenset(job.labels)
    if not any(wanted <= labels for labels in runner_labels):
        everywhere = frozenset[str]().union(*runner_labels)
        missing = sorted(wanted - everywhere) or sorted(wanted)
        return Waiting(WaitingReason.NO_RUNNER_WITH_LABELS, ", ".join(missing))
    if is_group_held:
        return Waiting(WaitingReason.CONCURRENCY, job.concurrency)
    if is_repo_at_limit:
        return Waiting(WaitingReason.REPO_LIMIT)
    return Waiting(WaitingReason.RUNNERS_BUSY)
