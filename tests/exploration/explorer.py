"""Breadth-first exploration of everything that can happen, over the production decisions.

Rule 1: worlds are compared by `key`, which keeps all that a later decision can depend on and nothing else.
Rule 2: breadth first, so that a counterexample is a shortest one; its message is the story that leads to it.
"""

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Generic, TypeVar

W = TypeVar("W")


class Counterexample(AssertionError):
    """A rule was broken: the shortest way there, one line a move."""

    def __init__(self, story: list[str], rule: str) -> None:
        super().__init__("\n".join([rule, *(f"  {number}. {name}" for number, name in enumerate(story, 1))]))
        self.story = story
        self.rule = rule


class Explored(Generic[W]):
    """Every world that was found, with the ways between them."""

    def __init__(self) -> None:
        self.worlds: dict[Hashable, W] = {}
        self.came_from: dict[Hashable, tuple[Hashable, str] | None] = {}
        self.sources: dict[Hashable, list[tuple[Hashable, str]]] = {}
        self.moves_count = 0

    def story(self, key: Hashable) -> list[str]:
        """The moves that lead to the world with this key."""
        names: list[str] = []
        while (step := self.came_from[key]) is not None:
            key, name = step
            names.append(name)
        return names[::-1]

    def require_a_way_to(self, is_goal: Callable[[W], bool], *, by: Callable[[str], bool] = lambda _: True) -> None:
        """Raise the shortest story into a world from which the moves whose names pass `by` lead to no goal."""
        able = {key for key, world in self.worlds.items() if is_goal(world)}
        queue = deque(able)
        while queue:
            for source, name in self.sources.get(queue.popleft(), ()):
                if source not in able and by(name):
                    able.add(source)
                    queue.append(source)
        for key in self.worlds:  # in order of discovery: the nearest one first
            if key not in able:
                raise Counterexample(self.story(key), "from here there is no way to the goal")


def explore(
    first: Iterable[W],
    moves: Callable[[W], Iterator[tuple[str, Callable[[], W | None]]]],
    *,
    key: Callable[[W], Hashable],
    check: Callable[[W], None],
    worlds_max: int,
) -> Explored[W]:
    """Follow every move from every world.

    Args:
        moves: the moves of a world, each with its name; one answers None when it was refused. An exception in it is a
            broken rule.
        check: raises `AssertionError` in a world that must not be.
        worlds_max: a bound, so that a key that keeps too much is noticed.
    """
    found: Explored[W] = Explored()
    queue: deque[tuple[Hashable, W]] = deque()
    for world in first:
        found.worlds[key(world)] = world
        found.came_from[key(world)] = None
        queue.append((key(world), world))
    while queue:
        here, world = queue.popleft()
        story: list[str] = []
        try:
            check(world)
            for name, move in moves(world):
                story = [name]
                after = move()
                if after is None:
                    continue
                found.moves_count += 1
                there = key(after)
                if there == here:
                    continue
                found.sources.setdefault(there, []).append((here, name))
                if there not in found.worlds:
                    found.worlds[there] = after
                    found.came_from[there] = (here, name)
                    queue.append((there, after))
        except Exception as error:
            raise Counterexample([*found.story(here), *story], f"{type(error).__name__}: {error}") from error
        assert len(found.worlds) <= worlds_max, f"more than {worlds_max} worlds"
    return found
