"""What every store promises of recipes, and of what the plans of runs were made from."""

import msgspec
import pytest

from deltaci.domain.blueprint import Blueprint, digest
from deltaci.domain.errors import DuplicateKey, RevisionConflict
from deltaci.domain.recipe import VERSIONS_MAX, Kept, Recipe, RecipeState
from deltaci.store.port import Store
from deltaci.store.writes import DropBlueprint, SaveBlueprint, SaveRecipe
from tests.builders import NOW_MS, a_project, a_run_id
from tests.contracts.store.support import outcomes

pytestmark = pytest.mark.anyio

BLUEPRINT = Blueprint(fingerprint="f", projects=(a_project(), a_project("web", reads=frozenset({"b", "a"}))))


def a_recipe(version: int = 1, **more: object) -> Recipe:
    """A version that is used."""
    recipe = Recipe(
        repo_id="repo_1",
        version=version,
        fingerprint="f",
        blueprint_digest=digest(BLUEPRINT),
        projects_count=2,
        jobs_count=2,
        state=RecipeState.ACTIVE,
        revision=1,
        made_by=a_run_id(),
        made_at_ms=NOW_MS,
        last_run_id=a_run_id(),
        at_ms=NOW_MS,
    )
    return msgspec.structs.replace(recipe, **more)


def a_version(version: int, repo_id: str = "repo_1") -> SaveRecipe:
    """A new version."""
    blueprint = msgspec.structs.replace(BLUEPRINT, fingerprint=f"f{version}")
    return SaveRecipe(recipe=a_recipe(version, repo_id=repo_id), blueprint=blueprint)


async def test_a_recipe_comes_back_with_what_it_is_made_of(store: Store) -> None:
    """Each by its repository and version; the newest first."""
    writes = [a_version(1), a_version(2), a_version(1, "repo_2")]
    await store.commit(writes)

    found = await store.recipes("repo_1")

    assert [recipe.version for recipe in found] == [2, 1]
    for write in writes:
        assert write.blueprint is not None
        kept = Kept(write.recipe, write.blueprint)
        assert kept == await store.recipe(write.recipe.repo_id, write.recipe.version)
    assert (await store.recipe("repo_1", 3), await store.recipes("repo_3")) == (None, ())


async def test_the_next_revision_of_a_version_keeps_what_it_is_made_of(store: Store) -> None:
    """Only what became of it changes."""
    await store.commit([a_version(1)])
    stale = a_recipe(revision=2, state=RecipeState.STALE, reason="it failed")

    await store.commit([SaveRecipe(recipe=stale)])

    assert Kept(stale, a_version(1).blueprint) == await store.recipe("repo_1", 1)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "late", [a_version(1), SaveRecipe(recipe=a_recipe(revision=3)), SaveRecipe(recipe=a_recipe(2, revision=2))]
)
async def test_a_lost_race_changes_nothing_of_its_commit(store: Store, late: SaveRecipe) -> None:
    """Another run was faster: what else the commit had to say is not stored either."""
    await store.commit([a_version(1)])

    with pytest.raises(RevisionConflict):
        await store.commit([SaveBlueprint(run_id="run_1", blueprint=BLUEPRINT), late])

    assert (a_recipe(),) == await store.recipes("repo_1")
    assert await store.blueprint("run_1") is None


async def test_of_many_at_once_one_makes_the_version(store: Store) -> None:
    """Versions have no gaps and no doubles, whoever is asked at the same time."""
    answers = await outcomes(store, [[a_version(1)] for _ in range(20)])

    assert (answers.count(None), sum(isinstance(answer, RevisionConflict) for answer in answers)) == (1, 19)


async def test_old_versions_are_forgotten(store: Store) -> None:
    """As many are kept as are promised; those of other repositories stay."""
    await store.commit([a_version(1, "repo_2")])
    for version in range(1, VERSIONS_MAX + 4):
        await store.commit([a_version(version)])

    found = await store.recipes("repo_1")

    assert list(range(VERSIONS_MAX + 3, 3, -1)) == [recipe.version for recipe in found]
    assert await store.recipe("repo_1", 3) is None
    assert await store.recipe("repo_1", 4) is not None
    assert await store.recipe("repo_2", 1) is not None


async def test_a_blueprint_is_written_once_and_dropped_any_number_of_times(store: Store) -> None:
    """A run is planned once; its end may be told again."""
    await store.commit([SaveBlueprint(run_id="run_1", blueprint=BLUEPRINT)])
    with pytest.raises(DuplicateKey):
        await store.commit([SaveBlueprint(run_id="run_1", blueprint=Blueprint(fingerprint="g"))])
    kept = await store.blueprint("run_1")

    for _ in range(2):
        await store.commit([DropBlueprint(run_id="run_1")])

    assert kept == BLUEPRINT
    assert await store.blueprint("run_1") is None


@pytest.mark.parametrize(
    "write",
    [SaveRecipe(recipe=a_recipe()), SaveRecipe(recipe=a_recipe(revision=2), blueprint=BLUEPRINT)],
)
async def test_a_version_is_made_with_its_blueprint_and_never_gets_another(store: Store, write: SaveRecipe) -> None:
    """Anything else is a bug of the caller."""
    with pytest.raises(ValueError, match="recipe 1 of repo_1"):
        await store.commit([write])
