"""How the end of a run reaches the recipes of its repository.

Rule: what is decided and that it was decided are one commit; told again, the run has nothing left to say.
"""

from loguru import logger

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.events import Cause
from deltaci.domain.recipe import Change, after_run
from deltaci.domain.run import Run
from deltaci.store.port import Store
from deltaci.store.writes import Audit, DropBlueprint, SaveRecipe, Write


async def keep(store: Store, run_id: str, *, now_ms: int) -> None:
    """Let the end of a run make, confirm or mark a recipe; without effect when it did before.

    Raises `RevisionConflict` when another run of the repository was faster: try again.
    """
    run = await store.load_run(run_id)
    used = await store.blueprint(run_id)
    if run is None or used is None or not run.state.is_final:
        return
    writes: list[Write] = [DropBlueprint(run_id=run_id)]
    change = await _change(store, run, used, now_ms)
    if change is not None:
        writes += _writes(run, change, now_ms)
    await store.commit(writes)
    if change is not None:
        logger.bind(run=run_id).info("{}: version {}", change.what, change.recipes[-1].version)


async def _change(store: Store, run: Run, used: Blueprint, now_ms: int) -> Change | None:
    repo_id = run.key.repo_id
    if used.recipe is not None:
        kept = await store.recipe(repo_id, used.recipe)
        if kept is None:
            return None  # it is long forgotten
        used = Blueprint(
            fingerprint=kept.blueprint.fingerprint,
            projects=kept.blueprint.projects,
            reasons=kept.blueprint.reasons,
            recipe=used.recipe,
        )
    latest = next(iter(await store.recipes(repo_id)), None)
    return after_run(run, await store.jobs_of_run(run.id), used, latest, now_ms=now_ms)


def _writes(run: Run, change: Change, now_ms: int) -> list[Write]:
    recipe = change.recipes[-1]
    details = {"repo_id": recipe.repo_id, "version": str(recipe.version), "fingerprint": recipe.fingerprint}
    if recipe.reason:
        details["reason"] = recipe.reason
    audit = Audit(
        at_ms=now_ms, cause=Cause("system", run.id, via="recipe"), type=change.what, entity_id=run.id, details=details
    )
    saves = (SaveRecipe(recipe=one, blueprint=change.blueprint if one is recipe else None) for one in change.recipes)
    return [*saves, audit]
