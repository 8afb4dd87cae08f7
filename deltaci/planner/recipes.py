"""Projects from a recipe instead of discovery, as long as the structure of the repository is the one it was made for.

Rule 1: a recipe is used only where discovery would find the same: equal fingerprints, and the same program.
Rule 2: explicit configuration wins over recipes; nothing here is asked when there is one.
"""

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import NamedTuple

from deltaci import VERSION
from deltaci.domain.blueprint import Blueprint
from deltaci.domain.plan import Reason, Source
from deltaci.domain.project import Project
from deltaci.domain.recipe import Kept, RecipeState
from deltaci.planner.discovery import discover
from deltaci.planner.repository import Files


class Found(NamedTuple):
    """The projects, where they come from, what there is to say, and what a recipe is made of if the plan works."""

    projects: tuple[Project, ...]
    source: Source
    reasons: tuple[Reason, ...]
    blueprint: Blueprint


def fingerprint(seen: Files, read: list[str]) -> str:
    """Equal as long as discovery, by this program, finds the same: that of the structure, and that of the program.

    Args:
        seen, read: what `discover.structure` and `discover.wanted` answered.
    """
    return f"{discover.fingerprint(seen, read)}-{_program()}"


@cache
def _program() -> str:
    """8 hex digits that change with the release and with the ecosystems: a newer discovery may find more."""
    known = [f"{each.__name__} {each.STRUCTURE} {each.MANIFESTS}" for each in discover.ECOSYSTEMS]
    return hashlib.sha256("\n".join((VERSION, *known)).encode()).hexdigest()[:8]


def holding(kept: Kept | None, seen: Files, read: list[str]) -> Kept | None:
    """The recipe, if plans may be made from it: then no manifest has to be read."""
    if kept is None or kept.recipe.state is not RecipeState.ACTIVE:
        return None
    return kept if kept.recipe.fingerprint == fingerprint(seen, read) else None


def found(seen: Files, read: list[str], contents: Mapping[str, bytes], kept: Kept | None) -> Found:
    """The projects of a commit, from `kept` (what `holding` answered) or by discovery. Raises PlanFailed."""
    if kept is None:
        discovery = discover.discover(seen, contents)
        blueprint = Blueprint(
            fingerprint=fingerprint(seen, read), projects=discovery.projects, reasons=discovery.reasons
        )
        return Found(discovery.projects, "discovery", discovery.reasons, blueprint)
    recipe = kept.recipe
    made = f"made by {recipe.made_by}" + (f", last confirmed by {recipe.confirmed_by}" if recipe.confirmed_by else "")
    text = f"version {recipe.version} of the recipe, {made}, is used: the structure of the repository is equal"
    why = Reason(rule="recipe", text=text)
    blueprint = Blueprint(fingerprint=recipe.fingerprint, recipe=recipe.version)
    return Found(kept.blueprint.projects, "recipe", (why, *kept.blueprint.reasons), blueprint)
