"""Projects from a recipe instead of discovery, as long as the structure of the repository is the one it was made for.

Rule 1: a recipe is used only where discovery would find the same: equal fingerprints, and the same program.
Rule 2: explicit configuration wins over recipes; nothing here is asked when there is one.
"""

import hashlib
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from deltaci import VERSION
from deltaci.domain.blueprint import Blueprint
from deltaci.domain.plan import Reason, Source
from deltaci.domain.recipe import Kept, RecipeState
from deltaci.planner import discovery
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.survey import Structure


class Found(NamedTuple):
    """The projects, where they come from, what there is to say, and what a recipe is made of if the plan works."""

    graph: ProjectGraph
    source: Source
    reasons: tuple[Reason, ...]
    blueprint: Blueprint


def fingerprint(structure: Structure) -> str:
    """Equal as long as discovery, by this program, finds the same: that of the structure, and that of the program."""
    return f"{structure.fingerprint}-{_program()}"


@cache
def _program() -> str:
    return digest_of_sources(files(discovery))


def digest_of_sources(package: Traversable) -> str:
    """8 hex digits of the release and of the sources of discovery: a newer one may find more in the same files.

    None of its changes goes unnoticed, also between releases. What it calls elsewhere is covered by the release alone.
    """
    whole = hashlib.sha256(VERSION.encode())
    for source in sorted(package.iterdir(), key=lambda each: each.name):
        if source.name.endswith(".py"):
            data = source.read_bytes()
            whole.update(f"\0{source.name}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()[:8]


def found(structure: Structure, kept: Kept | None) -> Found:
    """The projects of a commit: from the newest recipe of its repository if it holds, otherwise as discovered."""
    discovered, now = structure.discovery, fingerprint(structure)
    if kept is None or kept.recipe.state is not RecipeState.ACTIVE or kept.recipe.fingerprint != now:
        blueprint = Blueprint(fingerprint=now, projects=discovered.projects, reasons=discovered.reasons)
        return Found(structure.graph, "discovery", discovered.reasons, blueprint)
    recipe = kept.recipe
    made = f"made by {recipe.made_by}" + (f", last confirmed by {recipe.confirmed_by}" if recipe.confirmed_by else "")
    text = f"version {recipe.version} of the recipe, {made}, is used: the structure of the repository is equal"
    why = Reason(rule="recipe", text=text)
    projects = kept.blueprint.projects
    graph = structure.graph if projects == discovered.projects else ProjectGraph(projects)
    blueprint = Blueprint(fingerprint=recipe.fingerprint, recipe=recipe.version)
    return Found(graph, "recipe", (why, *kept.blueprint.reasons), blueprint)
