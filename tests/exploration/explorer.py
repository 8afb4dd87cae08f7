"""Breadth-first exploration of everything that can happen, over the production decisions.

Rule 1: worlds are compared by `key`, which keeps all that a later decision can depend on and nothing else.
Rule 2: breadth first, so that a counterexample is a shortest one; its message is the story that leads to it.
Rule 3: nothing is cut off: more worlds than `worlds_max` are an error, never an end.
"""

import time
from array import array
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, Generic, NamedTuple, TypeVar

from tests.exploration.rules import RULES, broken_by

W = TypeVar("W")


class Counterexample(AssertionError):
    """A rule was broken: the shortest way there, one line a move. `number` is the rule's, 0 for what has none."""

    def __init__(self, story: list[str], rule: str, number: int = 0) -> None:
        super().__init__("\n".join([rule, *(f"  {index}. {name}" for index, name in enumerate(story, 1))]))
        self.story = story
        self.rule = rule
        self.number = number


class Size(NamedTuple):
    """How much was explored. `depth` is the number of moves to the farthest world."""

    worlds: int
    moves: int
    depth: int
    seconds: float


class Explored(Generic[W]):
    """Every world that was found, numbered in the order of discovery, with the ways between them."""

    def __init__(self) -> None:
        self.worlds: list[W] = []
        self.numbers: dict[Hashable, int] = {}
        self.names: dict[str, int] = {}
        self.is_kept: list[bool] = []
        self.moves_count = 0
        self.seconds = 0.0
        # The way each world was first reached: where from, and by which move; -1 for the first worlds.
        self.parents, self.first_names = array("i"), array("i")
        # Every kept way between two worlds.
        self.sources, self.targets, self.move_names = array("i"), array("i"), array("i")

    def story(self, world: int) -> list[str]:
        """The moves that lead to the world with this number."""
        names = list(self.names)
        story: list[str] = []
        while self.parents[world] >= 0:
            story.append(names[self.first_names[world]])
            world = self.parents[world]
        return story[::-1]

    def add(self, at: Hashable, world: W, parent: int, name: int) -> int:
        """Number a world that was not known."""
        self.numbers[at] = number = len(self.worlds)
        self.worlds.append(world)
        self.parents.append(parent)
        self.first_names.append(name)
        return number

    def follow(self, here: int, name: str, after: W, at: Hashable, kept: Callable[[str], bool]) -> None:
        """Take in the move `name` from the world numbered `here` to `after`, whose key is `at`."""
        self.moves_count += 1
        there = self.numbers.get(at)
        if there == here:
            return
        number = self.names.get(name)
        if number is None:
            number = self.names[name] = len(self.names)
            self.is_kept.append(kept(name))
        if there is None:
            there = self.add(at, after, here, number)
        if self.is_kept[number]:
            self.sources.append(here)
            self.targets.append(there)
            self.move_names.append(number)

    @property
    def size(self) -> Size:
        """How much was explored."""
        depths = array("i")
        for parent in self.parents:  # a parent is always numbered lower
            depths.append(depths[parent] + 1 if parent >= 0 else 0)
        return Size(len(self.worlds), self.moves_count, max(depths), self.seconds)

    def require_a_way_to(
        self,
        is_goal: Callable[[W], bool],
        *,
        of: Callable[[W], bool] = lambda _: True,
        by: Callable[[str], bool] = lambda _: True,
        rule: int = 12,
        goal: str = "the end",
    ) -> int:
        """Raise the shortest story into a world `of` that kind from which moves named `by` so lead to no goal.

        Answers the number of worlds for which the way was asked.
        """
        is_allowed = [by(name) for name in self.names]
        ways: list[list[int] | None] = [None] * len(self.worlds)
        for source, target, name in zip(self.sources, self.targets, self.move_names, strict=True):
            if is_allowed[name]:
                into = ways[target]
                if into is None:
                    ways[target] = [source]
                else:
                    into.append(source)
        is_able = bytearray(is_goal(world) for world in self.worlds)
        stack = [number for number, able in enumerate(is_able) if able]
        while stack:
            for source in ways[stack.pop()] or ():
                if not is_able[source]:
                    is_able[source] = 1
                    stack.append(source)
        asked = 0
        for number, world in enumerate(self.worlds):  # in order of discovery: the nearest one first
            if of(world):
                asked += 1
                if not is_able[number]:
                    text = f"rule {rule} ({RULES[rule]}): where this ends there is no way to {goal}"
                    raise Counterexample([*self.story(number), *self._on_to_the_trap(number, is_allowed)], text, rule)
        return asked

    def _on_to_the_trap(self, world: int, is_allowed: list[bool]) -> list[str]:
        """The shortest way on, by allowed moves, to where none of these leads anywhere; nothing if there is none."""
        onward: dict[int, list[tuple[int, int]]] = {}
        for source, target, name in zip(self.sources, self.targets, self.move_names, strict=True):
            if is_allowed[name]:
                onward.setdefault(source, []).append((target, name))
        names = list(self.names)
        queue: deque[tuple[int, list[str]]] = deque([(world, [])])
        seen = {world}
        while queue:
            here, story = queue.popleft()
            if here not in onward:
                return story
            for there, name in onward[here]:
                if there not in seen:
                    seen.add(there)
                    queue.append((there, [*story, names[name]]))
        return []


def explore(
    first: Iterable[W],
    moves: Callable[[W], Iterator[tuple[str, Any]]],
    *,
    key: Callable[[W], Hashable] | None = None,
    check: Callable[[W], None],
    worlds_max: int,
    kept: Callable[[str], bool] = lambda _: True,
) -> Explored[W]:
    """Follow every move from every world.

    Args:
        key: what tells worlds apart; by default they do so themselves.
        moves: the moves of a world, each with its name: the world that it leads to, or a function that answers that
            world, or None where the move was refused. An exception is a broken rule.
        check: raises `AssertionError` in a world that must not be.
        worlds_max: a bound, so that a key that keeps too much is noticed.
        kept: the names of the moves that are remembered for `require_a_way_to`.
    """
    found: Explored[W] = Explored()
    started = time.process_time()
    for world in first:
        found.add(key(world) if key else world, world, -1, -1)
    here = 0
    while here < len(found.worlds):
        doing = ""
        try:
            check(found.worlds[here])
            for name, move in moves(found.worlds[here]):
                if callable(move):
                    doing = name
                    after = move()
                    doing = ""
                else:
                    after = move
                if after is not None:
                    found.follow(here, name, after, key(after) if key else after, kept)
        except Exception as error:
            broken = broken_by(doing, error)
            story = found.story(here) + ([broken.move] if broken.move else [])
            raise Counterexample(story, str(broken), broken.number) from error
        here += 1
        assert len(found.worlds) <= worlds_max, f"more than {worlds_max} worlds"
    found.seconds = time.process_time() - started
    return found
