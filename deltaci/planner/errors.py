"""Why a plan could not be made, in words that lead to the line to change."""

from typing import Final

import msgspec

from deltaci.domain import errors

PROBLEMS_MAX: Final = 50
PROBLEMS_SHOWN_MAX: Final = 10


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing wrong with a file: where (line and column from 1; None: the whole file), which key, what to write."""

    file: str
    text: str
    line: int | None = None
    column: int | None = None
    key: str = ""

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}:{self.column}"
        return f"{place}: {self.key}: {self.text}" if self.key else f"{place}: {self.text}"


class PlanFailed(errors.PlanFailed):
    """No plan can be made of this commit. `str()` is for people; `problems` say where, possibly empty."""

    def __init__(self, text: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(text)
        self.text = text
        self.problems = problems


class PlanUnavailable(errors.ForgeUnavailable):
    """The repository could not be reached or read in time: try again later.

    Not a `PlanFailed`, which ends the run: nothing is known to be wrong with the commit.
    """

    code = "plan_unavailable"


class ConfigurationInvalid(PlanFailed):
    """`deltaci.yaml` cannot be used; `problems` has all of them in the order of the file, at most `PROBLEMS_MAX`."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        assert problems
        shown = [str(problem) for problem in problems[:PROBLEMS_SHOWN_MAX]]
        if len(problems) > PROBLEMS_SHOWN_MAX:
            shown.append(f"and {len(problems) - PROBLEMS_SHOWN_MAX} more")
        super().__init__("\n".join(shown), problems)


def printable(text: str, *, length_max: int = 200) -> str:
    """`text` on one line: control characters, which file names may have, are shown as escapes."""
    if len(text) <= length_max and text.isprintable():
        return text
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: length_max + 1]
    )
    return shown if len(text) <= length_max else shown[:length_max] + "..."
