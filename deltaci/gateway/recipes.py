"""The API for the recipes of a repository: which versions there are, what one is made of, one as a configuration.

Rule: who may read runs may read recipes; nothing here changes one.
"""

import anyio.to_thread
from quart import Blueprint, Response, current_app, request

from deltaci.domain.errors import NotFound
from deltaci.domain.recipe import Kept
from deltaci.domain.repo import Repo
from deltaci.gateway import answers, views
from deltaci.gateway.auth import authenticate
from deltaci.gateway.house import House
from deltaci.planner.export import configuration_of

# A repository's name may have slashes in it.
bp = Blueprint("recipes", __name__, url_prefix="/api/v1/repos/<path:repo>/recipes")


@bp.get("")
async def list_recipes(repo: str) -> Response:
    """The versions that are kept, the newest first."""
    house = await _reading()
    found = await house.store.recipes(_repo(house, repo).id)
    return answers.ok({"recipes": [views.recipe_view(one) for one in found]})


@bp.get("/<int:version>")
async def show_recipe(repo: str, version: int) -> Response:
    """`{"recipe", "projects"}`: what each project runs, and why it would."""
    house = await _reading()
    return answers.ok(views.whole_recipe(await _kept(house, _repo(house, repo), version)))


@bp.get("/<int:version>/export")
async def export_recipe(repo: str, version: int) -> Response:
    """The text of a `deltaci.yaml` that does what the recipe does; 422 when none can."""
    house = await _reading()
    known = _repo(house, repo)
    kept = await _kept(house, known, version)
    # Off the loop: it may be thousands of projects.
    text = await anyio.to_thread.run_sync(configuration_of, kept, known.name)
    return Response(text, 200, content_type="application/yaml; charset=utf-8")


async def _reading() -> House:
    house: House = current_app.extensions["house"]
    await authenticate(request, house.store, "admin")
    return house


def _repo(house: House, name: str) -> Repo:
    for repo in house.orchestrator.repos.all():
        if name in (repo.name, repo.id):
            return repo
    raise NotFound(f"no repository {name[:100]!r}: `deltaci repo add` registers one")


async def _kept(house: House, repo: Repo, version: int) -> Kept:
    kept = await house.store.recipe(repo.id, version) if version < 2**53 else None
    if kept is None:
        raise NotFound(f"no version {version} of the recipe of {repo.name}: `deltaci recipe list` names those kept")
    return kept
