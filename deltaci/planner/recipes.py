"""Plans from a recipe, as long as the structure of the repository is the one it was made for.

Rule 1: a recipe is used only where discovery finds the very same, as its digest tells. So nobody has to read what it is
made of, and a plan from a recipe is the one from discovery, with another word about where it comes from.
Rule 2: explicit configuration wins over recipes; nothing here is asked when there is one.
"""

from typing import NamedTuple

from deltaci.domain.blueprint import Blueprint
from deltaci.domain.plan import Reason, Source
from deltaci.domain.recipe import Recipe, RecipeState
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.survey import Discovered


class Found(NamedTuple):
    """The projects, where they come from, what there is to say, and what a recipe is made of if the plan works."""

    graph: ProjectGraph
    source: Source
    reasons: tuple[Reason, ...]
    blueprint: Blueprint


def found(discovered: Discovered, recipe: Recipe | None) -> Found:
    """The projects of a commit: from the newest recipe of its repository if it holds, otherwise as discovered."""
    graph, blueprint = discovered.graph, discovered.blueprint
    if recipe is None or not _holds(recipe, discovered):
        return Found(graph, "discovery", blueprint.reasons, blueprint)
    made = f"made by {recipe.made_by}" + (f", last confirmed by {recipe.confirmed_by}" if recipe.confirmed_by else "")
    text = f"version {recipe.version} of the recipe, {made}, is used: the structure of the repository is equal"
    why = Reason(rule="recipe", text=text)
    used = Blueprint(fingerprint=recipe.fingerprint, recipe=recipe.version)
    return Found(graph, "recipe", (why, *blueprint.reasons), used)


def _holds(recipe: Recipe, discovered: Discovered) -> bool:
    return (
        recipe.state is RecipeState.ACTIVE
        and recipe.fingerprint == discovered.blueprint.fingerprint
        and recipe.blueprint_digest == discovered.digest
    )
