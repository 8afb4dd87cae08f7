"""Where each actor lives. A path is an address: an id alone is enough to find it."""

from typing import Final

from deltaci.domain.ids import run_of

ROOT: Final = "/orchestrator"
DISPATCH: Final = f"{ROOT}/dispatch"
OUTBOX: Final = f"{ROOT}/outbox"
TIMERS: Final = f"{ROOT}/timers"
RECONCILER: Final = f"{ROOT}/reconciler"
FORGES: Final = f"{ROOT}/forges"
NO_REPO: Final = "none"  # no repository's id: those begin with `repo_`
KEEPERS: Final = (DISPATCH, OUTBOX, TIMERS, RECONCILER, FORGES)


def repo_path(repo_id: str) -> str:
    """The actor that admits the triggers of a repository; with an empty id, the one for what is about none."""
    return f"{ROOT}/repos/{repo_id or NO_REPO}"


def run_path(run_id: str) -> str:
    """The actor that owns a run."""
    return f"{ROOT}/runs/{run_id}"


def job_path(job_id: str) -> str | None:
    """The actor that owns a job, below its run; None if this is no job id."""
    run_id = run_of(job_id)
    return None if run_id is None else f"{ROOT}/runs/{run_id}/jobs/{job_id}"


def entity_path(entity_id: str) -> str | None:
    """The actor of a run or a job, by the id alone; None for anything else."""
    return run_path(entity_id) if entity_id.startswith("run_") else job_path(entity_id)
