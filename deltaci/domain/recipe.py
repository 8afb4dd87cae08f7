"""Recipes: a plan that worked is kept, versioned, used again while the structure holds, and marked when it fails.

Rule 1: only a push to the default branch has a say. What comes from a pull request, a fork, another branch or a person
        who names a commit may use a recipe, and neither makes, confirms nor marks one.
Rule 2: runs have their say in the order of their creation: an older one than the last that spoke is not heard. So the
        same run counts once, however often it is told.
Rule 3: a recipe is marked by what its jobs did, never by a runner that was lost or a run that was stopped.
Rule 4: versions are 1, 2, 3 ... without gaps; only the newest is ever used.
"""

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, Literal

import msgspec

from deltaci.domain.blueprint import Blueprint, digest
from deltaci.domain.events import Trigger
from deltaci.domain.job import Job
from deltaci.domain.repo import Repo
from deltaci.domain.retry import USER
from deltaci.domain.run import Run
from deltaci.domain.states import JobState, RunState

VERSIONS_MAX: Final = 20
REASON_CHARACTERS_MAX: Final = 500


class RecipeState(StrEnum):
    """Whether plans are made from it."""

    ACTIVE = "ACTIVE"
    STALE = "STALE"


class Recipe(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One version of how a repository is built, without its projects, which never change.

    `blueprint_digest` names them. `revision` counts what was stored of this version, from 1. `last_run_id` is the
    newest run that had its say, `failed_by` the one that made it stale and `reason` why; both are empty while it is
    ACTIVE.
    """

    repo_id: str
    version: int
    fingerprint: str
    blueprint_digest: str
    projects_count: int
    jobs_count: int
    state: RecipeState
    revision: int
    made_by: str
    made_at_ms: int
    last_run_id: str
    at_ms: int
    confirmed_by: str = ""
    failed_by: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if (self.state is RecipeState.STALE) != bool(self.reason):
            raise ValueError(f"recipe {self.version} of {self.repo_id} is {self.state} with reason {self.reason!r}")


class Kept(msgspec.Struct, frozen=True):
    """A recipe with what it is made of."""

    recipe: Recipe
    blueprint: Blueprint


class Change(msgspec.Struct, frozen=True):
    """What a run does to the recipes of its repository; `what` is how the journal calls it.

    `recipes` are stored in this order, each on top of its `revision` - 1; `blueprint` is set where one is new.
    """

    what: Literal["RecipeKept", "RecipeConfirmed", "RecipeStale"]
    recipes: tuple[Recipe, ...]
    blueprint: Blueprint | None = None


def has_a_say(trigger: Trigger, repo: Repo) -> bool:
    """Whether a run with this trigger may make, confirm or mark a recipe of its repository."""
    return trigger.kind == "push" and not trigger.is_fork and trigger.ref == f"refs/heads/{repo.default_branch}"


def after_run(run: Run, jobs: Iterable[Job], used: Blueprint, latest: Recipe | None, *, now_ms: int) -> Change | None:
    """What the end of `run` does to the recipes of its repository; None: nothing.

    Args:
        jobs: all jobs of the run.
        used: what its plan was made from, projects included, also if they came from a recipe.
        latest: the newest version there is.
    """
    if latest is not None and run.id <= latest.last_run_id:
        return None
    if run.state is RunState.SUCCEEDED:
        # What skipped everything has proven nothing.
        has_run = any(job.state is JobState.SUCCEEDED for job in jobs)
        return _succeeded(run, used, latest, now_ms) if has_run else None
    if run.state not in (RunState.FAILED, RunState.TIMED_OUT) or run.cancel is not None:
        return None
    culprit = next((job for job in jobs if _is_own_fault(job)), None)
    if culprit is None or latest is None or used.recipe != latest.version or latest.state is RecipeState.STALE:
        return None
    reason = f"{culprit.name} ended as {culprit.state} ({culprit.end_reason}) in run {run.id}"
    stale = msgspec.structs.replace(
        latest,
        state=RecipeState.STALE,
        reason=reason[:REASON_CHARACTERS_MAX],
        failed_by=run.id,
        last_run_id=run.id,
        at_ms=now_ms,
        revision=latest.revision + 1,
    )
    return Change("RecipeStale", (stale,))


def _is_own_fault(job: Job) -> bool:
    return job.state in (JobState.FAILED, JobState.TIMED_OUT) and job.end_reason in USER


def _succeeded(run: Run, used: Blueprint, latest: Recipe | None, now_ms: int) -> Change:
    fresh = msgspec.structs.replace(used, recipe=None)
    name = digest(fresh)
    if latest is not None and latest.blueprint_digest == name:
        confirmed = msgspec.structs.replace(
            latest,
            state=RecipeState.ACTIVE,
            reason="",
            failed_by="",
            confirmed_by=run.id,
            last_run_id=run.id,
            at_ms=now_ms,
            revision=latest.revision + 1,
        )
        return Change("RecipeConfirmed", (confirmed,))
    made = Recipe(
        repo_id=run.key.repo_id,
        version=1 if latest is None else latest.version + 1,
        fingerprint=fresh.fingerprint,
        blueprint_digest=name,
        projects_count=len(fresh.projects),
        jobs_count=sum(len(project.jobs) for project in fresh.projects),
        state=RecipeState.ACTIVE,
        revision=1,
        made_by=run.id,
        made_at_ms=now_ms,
        last_run_id=run.id,
        at_ms=now_ms,
    )
    if latest is None or latest.state is RecipeState.STALE:
        return Change("RecipeKept", (made,), fresh)
    replaced = msgspec.structs.replace(
        latest,
        state=RecipeState.STALE,
        reason=f"version {made.version} took its place",
        at_ms=now_ms,
        revision=latest.revision + 1,
    )
    return Change("RecipeKept", (replaced, made), fresh)
