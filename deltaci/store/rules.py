"""What every backend shares: what a write must be like, and the error for each one that finds other rows than it needs.

Rule: a write that contradicts itself is a bug of the caller and raises `ValueError` before anything is stored.
"""

from deltaci.domain import ids
from deltaci.domain.errors import DuplicateKey, GrantKeptOut, RevisionConflict, StoreError
from deltaci.store.writes import (
    AddJob,
    ArtifactStored,
    ChangeRepo,
    Delivery,
    LogChunk,
    Reply,
    Runner,
    SaveBlueprint,
    SaveJob,
    SavePlan,
    SaveRecipe,
    SaveRepo,
    SaveRun,
    Token,
    Write,
)


def check(write: Write) -> None:
    """Raise `ValueError` if the write contradicts itself."""
    match write:
        case SaveRun():
            _check_revision(write.run.id, write.run.revision, write.expected_revision, len(write.events))
        case SaveJob():
            _check_revision(write.job.id, write.job.revision, write.expected_revision, len(write.events))
        case AddJob():
            _check_revision(write.job.id, write.job.revision, 0, len(write.events))
        case Delivery():
            if (write.run_id is not None) + (write.ignored is not None) + (write.request is not None) != 1:
                raise ValueError(f"delivery {write.delivery_id} needs a run, a request, or a reason why neither")
        case SaveRecipe():
            if (write.recipe.revision == 1) != (write.blueprint is not None):
                text = f"recipe {write.recipe.version} of {write.recipe.repo_id}, revision {write.recipe.revision}"
                raise ValueError(f"{text}: a new version has a blueprint, a later revision has none")
        case LogChunk():
            if write.offset < 0:
                raise ValueError(f"log of {write.job_id}: offset {write.offset} is negative")
        case _:
            pass


def position_of(job_id: str) -> int:
    """The index of a job in its plan, read off its id; 0 for ids of another shape."""
    return int(job_id.rpartition("_")[2]) if ids.run_of(job_id) else 0


def refused(write: Write) -> StoreError:  # noqa: C901 - one case a kind of write, nothing else
    """The error of a conditional write that did not find what it needs."""
    match write:
        case SaveRun() if write.expected_revision == 0:
            text = f"run {write.run.id}, or attempt {write.run.attempt} of {write.run.key}, exists"
            return DuplicateKey(f"{text}: read it and answer with it", table="run")
        case SaveRun():
            return _conflict("run", write.run.id, write.expected_revision)
        case SaveJob() if write.is_grant:
            return GrantKeptOut(
                f"job {write.job.id} is not at revision {write.expected_revision}, its run is being canceled, or its "
                "concurrency group is held: look which",
                entity_id=write.job.id,
            )
        case SaveJob():
            return _conflict("job", write.job.id, write.expected_revision)
        case AddJob():
            return DuplicateKey(f"job {write.job.id} exists: its run adopted a plan already", table="job")
        case SavePlan():
            return DuplicateKey(f"run {write.run_id} has a plan already: it is written once", table="plan")
        case SaveBlueprint():
            return DuplicateKey(f"run {write.run_id} has a blueprint already: it is written once", table="blueprint")
        case SaveRecipe():
            recipe = write.recipe
            return _conflict("recipe", f"{recipe.version} of {recipe.repo_id}", recipe.revision - 1)
        case Delivery():
            text = f"delivery {write.delivery_id} of {write.repo_id} is in the ledger"
            return DuplicateKey(f"{text}: answer with what it says", table="delivery")
        case Reply():
            return DuplicateKey(f"request {write.key} was answered: give the same answer", table="reply")
        case LogChunk():
            return RevisionConflict(
                f"log of {write.job_id} attempt {write.attempt} is closed or does not end at {write.offset}: "
                "read its state and go on from there"
            )
        case SaveRepo():
            return DuplicateKey(f"a repository {write.repo.id} or one named {write.repo.name} exists", table="repo")
        case ChangeRepo():
            repo = write.repo
            return RevisionConflict(
                f"repository {repo.id} is not at revision {repo.revision - 1}, or another one is named {repo.name}: "
                "reload and decide again",
                entity_id=repo.id,
            )
        case Token():
            return DuplicateKey(f"token {write.id} exists", table="token")
        case Runner():
            return DuplicateKey(f"another runner of its token is named {write.name}: take its id", table="runner")
        case ArtifactStored():
            text = f"{write.job_id} attempt {write.attempt} has an artifact {write.name!r}"
            return DuplicateKey(text, table="artifact")
        case _:
            raise TypeError(f"{type(write).__name__} has no condition that could fail")


def _check_revision(entity_id: str, revision: int, expected: int, events: int) -> None:
    if expected < 0 or events < 1 or revision != expected + events:
        raise ValueError(f"{entity_id}: revision {revision} does not follow {expected} by {events} events")


def _conflict(table: str, entity_id: str, expected: int) -> RevisionConflict:
    return RevisionConflict(
        f"{table} {entity_id} is not at revision {expected}: reload and decide again", entity_id=entity_id
    )
