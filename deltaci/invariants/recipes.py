"""Rules over the recipes of one repository, as they are kept: the newest first."""

from collections.abc import Iterator, Sequence
from typing import Final

from deltaci.domain.recipe import VERSIONS_MAX, Recipe, RecipeState, has_a_say
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.domain.states import RunState
from deltaci.invariants.past import Past
from deltaci.invariants.rules import Found, Rule, Violation, violations


def check_recipes(past: Past, repo: Repo, recipes: Sequence[Recipe]) -> list[Violation]:
    """What is wrong with the recipes of `repo`; the journal must have been taken at least as far as they were read."""
    return list(violations(RULES, repo.id, past, repo, recipes))


def versions_dense(_past: Past, repo: Repo, recipes: Sequence[Recipe]) -> Iterator[Found]:
    """The versions of a recipe are numbered without gaps, and as many of the newest are kept as are promised."""
    versions = [recipe.version for recipe in recipes]
    if not versions:
        return
    expected = list(range(versions[0], max(0, versions[0] - VERSIONS_MAX), -1))
    if versions != expected or any(recipe.repo_id != repo.id for recipe in recipes):
        yield Found(f"versions {versions} are kept, expected are {expected}")


def newest_alone_is_used(_past: Past, _repo: Repo, recipes: Sequence[Recipe]) -> Iterator[Found]:
    """No version of a recipe is used but the newest."""
    used = [recipe.version for recipe in recipes[1:] if recipe.state is RecipeState.ACTIVE]
    if used:
        yield Found(f"versions {used} are {RecipeState.ACTIVE}, and {recipes[0].version} is newer")


def made_by_success(past: Past, repo: Repo, recipes: Sequence[Recipe]) -> Iterator[Found]:
    """A recipe was made and confirmed by successful pushes to the default branch, and marked by one that was not."""
    for recipe in recipes:
        for run_id, does_succeed in ((recipe.made_by, True), (recipe.confirmed_by, True), (recipe.failed_by, False)):
            if not run_id:
                continue
            run = past.folded.get(run_id)
            if not isinstance(run, Run) or not _has_said(run, repo, does_succeed):
                told = run.state if isinstance(run, Run) else "not there"
                text = f"version {recipe.version} was {'made or confirmed' if does_succeed else 'marked'} by {run_id}"
                yield Found(f"{text}, which is {told} or has no say", past.ids(run_id))


def _has_said(run: Run, repo: Repo, does_succeed: bool) -> bool:
    is_heard = run.key.repo_id == repo.id and has_a_say(run.trigger, repo) and run.state.is_final
    return is_heard and (run.state is RunState.SUCCEEDED) == does_succeed


RULES: Final = (Rule(24, versions_dense), Rule(24, newest_alone_is_used), Rule(24, made_by_success))
