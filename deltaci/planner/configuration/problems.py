"""What is wrong with a configuration, collected while it is read."""

import difflib
from collections.abc import Iterable
from typing import Final

from deltaci.domain.credentials import masked
from deltaci.planner.configuration.shape import At
from deltaci.planner.errors import PROBLEMS_MAX, Problem, printable


class Problems:
    """Collects problems, at most `PROBLEMS_MAX`: a file of 256 KiB can hold more than anybody wants to read."""

    def __init__(self, file: str) -> None:
        self.file: Final = file
        self._found: list[Problem] = []
        self._places: set[At] = set()

    @property
    def is_full(self) -> bool:
        """Whether further problems would be dropped."""
        return len(self._found) >= PROBLEMS_MAX

    def add(self, at: At, text: str) -> None:
        """Note one problem."""
        self._places.add(at)
        if not self.is_full:
            key = printable(at.key, length_max=120)
            problem = Problem(file=self.file, line=at.line, column=at.column, key=masked(key), text=masked(text))
            self._found.append(problem)

    def add_first(self, at: At, text: str) -> None:
        """Note one problem, unless its place has one: the next ones repeat it for each combination of a matrix."""
        if not self.has(at):
            self.add(at, text)

    def has(self, at: At) -> bool:
        """Whether there is a problem of this place."""
        return at in self._places

    def found(self) -> tuple[Problem, ...]:
        """All problems, in the order of the file."""
        return tuple(sorted(self._found, key=lambda p: (p.line or 0, p.column or 0)))

    def nearest(self, name: str, known: Iterable[str]) -> str:
        """` (did you mean 'x'?)` or an empty text. Not computed when nobody would read it: it is slow."""
        if self.is_full:
            return ""
        close = difflib.get_close_matches(name[:100], list(known), n=1)
        return f" (did you mean {close[0]!r}?)" if close else ""
