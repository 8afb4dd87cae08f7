"""Each rule over recipes finds the violation that is planted for it, and none where there is none."""

from collections.abc import Callable
from typing import Final

import anyio
import msgspec
import pytest

from deltaci.domain.recipe import VERSIONS_MAX, Recipe, RecipeState
from deltaci.invariants.recipes import check_recipes
from deltaci.invariants.verify import verify
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import SaveRecipe
from tests.builders import a_repo, a_run_id
from tests.contracts.store.test_recipes import BLUEPRINT, a_recipe, a_version
from tests.invariants.stored import a_busy_run, a_journal
from tests.invariants.story import RUN

replace = msgspec.structs.replace
STALE: Final = {"state": RecipeState.STALE, "reason": "it failed"}
SOUND: Final = (a_recipe(2, made_by=""), a_recipe(1, made_by="", **STALE))

PLANTS: Final[list[tuple[str, Callable[[], tuple[Recipe, ...]]]]] = [
    ("versions_dense", lambda: (a_recipe(3, made_by=""), SOUND[1])),
    ("versions_dense", lambda: (SOUND[0],)),
    ("versions_dense", lambda: (SOUND[0], replace(SOUND[1], version=2), SOUND[1])),
    ("versions_dense", lambda: (replace(SOUND[0], repo_id="repo_2"), SOUND[1])),
    (
        "versions_dense",
        lambda: tuple(a_recipe(version, made_by="", **STALE) for version in range(VERSIONS_MAX + 1, 0, -1)),
    ),
    ("newest_alone_is_used", lambda: (SOUND[0], a_recipe(1, made_by=""))),
    ("made_by_success", lambda: (replace(SOUND[0], made_by="run_9"), SOUND[1])),
    ("made_by_success", lambda: (replace(SOUND[0], made_by=RUN), SOUND[1])),
    ("made_by_success", lambda: (replace(SOUND[0], confirmed_by=RUN), SOUND[1])),
    ("made_by_success", lambda: (SOUND[0], replace(SOUND[1], failed_by=RUN))),
]


@pytest.mark.parametrize(("rule", "recipes"), PLANTS)
def test_a_planted_violation_is_found(rule: str, recipes: Callable[[], tuple[Recipe, ...]]) -> None:
    """A gap, two in use, a run that is not there or not over."""
    found = check_recipes(a_journal().past, a_repo(), recipes())

    assert [rule] == [violation.rule for violation in found]


@pytest.mark.parametrize("recipes", [(), SOUND, SOUND[1:]])
def test_sound_recipes_have_no_violation(recipes: tuple[Recipe, ...]) -> None:
    """None at all, one, several."""
    assert check_recipes(a_journal().past, a_repo(), recipes) == []


def test_verification_looks_at_the_recipes_of_every_repository() -> None:
    """A recipe that no successful run made is named."""

    async def look() -> None:
        store = MemoryStore()
        await a_busy_run(store)
        await store.commit([a_version(1)])
        await store.commit([SaveRecipe(recipe=a_recipe(2, made_by=a_run_id(7)), blueprint=BLUEPRINT)])

        report = await verify(store)

        assert report.checked["recipes"] == 2
        assert {"newest_alone_is_used", "made_by_success"} == {one.rule for one in report.violations}
        assert report.looks[24] == 6

    anyio.run(look)
