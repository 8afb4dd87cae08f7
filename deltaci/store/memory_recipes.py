"""The part of the memory store that keeps recipes, and what the plans of runs were made from."""

from collections.abc import Callable, MutableMapping
from typing import Any

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.recipe import VERSIONS_MAX, Kept, Recipe
from deltaci.store.rules import refused
from deltaci.store.writes import DropBlueprint, SaveBlueprint, SaveRecipe

Put = Callable[[MutableMapping[Any, Any], Any, Any], None]
Take = Callable[[MutableMapping[Any, Any], Any], None]


class MemoryRecipes:
    """Recipes by repository and version, blueprints by run; `put` and `take` note how to undo what they do."""

    def __init__(self, put: Put, take: Take) -> None:
        self._put = put
        self._take = take
        self._recipes: dict[tuple[str, int], Kept] = {}
        self._blueprints: dict[str, Blueprint] = {}

    def apply(self, write: SaveBlueprint | DropBlueprint | SaveRecipe) -> None:
        """One write; raises what its docstring says."""
        match write:
            case SaveBlueprint():
                if write.run_id in self._blueprints:
                    raise refused(write)
                self._put(self._blueprints, write.run_id, write.blueprint)
            case DropBlueprint():
                if write.run_id in self._blueprints:
                    self._take(self._blueprints, write.run_id)
            case SaveRecipe():
                self._save(write)

    def _save(self, write: SaveRecipe) -> None:
        recipe = write.recipe
        key = (recipe.repo_id, recipe.version)
        stored = self._recipes.get(key)
        if (0 if stored is None else stored.recipe.revision) != recipe.revision - 1:
            raise refused(write)
        if stored is not None:
            self._put(self._recipes, key, Kept(recipe, stored.blueprint))
            return
        assert write.blueprint is not None, "the rules of writes refuse a new version without one"
        self._put(self._recipes, key, Kept(recipe, write.blueprint))
        for old in [one for one in self._recipes if one[0] == key[0] and one[1] <= key[1] - VERSIONS_MAX]:
            self._take(self._recipes, old)

    def blueprint(self, run_id: str) -> Blueprint | None:
        """What the plan of a run was made from."""
        return self._blueprints.get(run_id)

    def of_repo(self, repo_id: str) -> tuple[Recipe, ...]:
        """The versions that are kept, the newest first."""
        return tuple(self._recipes[key].recipe for key in sorted(self._recipes, reverse=True) if key[0] == repo_id)

    def one(self, repo_id: str, version: int) -> Kept | None:
        """A version with what it is made of."""
        return self._recipes.get((repo_id, version))
