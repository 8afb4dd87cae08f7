"""The frame of both comparisons: a workspace is changed, and the real tool and ours say what that touches."""

import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from tests.planner.agreement.workspaces import Repository, random_workspace

# The root has scripts that see every member, so that ours touches it with any of them. To Nx it is no project, and in
# Turborepo, where it is `//`, only itself.
ROOT: Final = {"."}
# The names of what a tool says the last commit of a repository touches.
Asked: TypeAlias = Callable[[Path], set[str]]


class Answers(NamedTuple):
    """The roots of the projects that ours touches, and the names of those that the tool does."""

    ours: set[str]
    theirs: set[str]


def answers(tmp_path: Path, files: Mapping[str, str], edits: Mapping[str, str | None], *, asked: Asked) -> Answers:
    """What both say to one change of a workspace."""
    repository = Repository(tmp_path, files)
    return Answers(repository.change(edits), asked(repository.path))


def random_answers(
    tmp_path: Path, tool: Mapping[str, str], *, asked: Asked, seed: int, count: int
) -> Iterator[tuple[Answers, Mapping[str, str]]]:
    """What both say to `count` changes of one to three packages each, of thirty with random edges; and the change."""
    chance = random.Random(seed)
    repository = Repository(tmp_path, random_workspace(seed, tool))
    for _ in range(count):
        chosen = chance.sample(range(30), k=chance.choice((1, 1, 2, 3)))
        edits = {f"packages/p{index}/{chance.choice(('index.js', 'lib/new.js'))}": "changed" for index in chosen}
        yield Answers(repository.change(edits), asked(repository.path)), edits
        repository.back()
