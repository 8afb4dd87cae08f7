"""`${{ matrix.axis }}` and `${{ hash('glob', ...) }}` in texts of the configuration; there is no third expression.

Rule: texts are filled in once, in one pass, and what is filled in is not looked at again.
`$${{` is a literal `${{`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from deltaci.planner.errors import printable
from deltaci.planner.globs import GlobInvalid, Globs

OPEN: Final = "${{"
CLOSE: Final = "}}"
_MATRIX: Final = re.compile(r"matrix\.([A-Za-z_][A-Za-z0-9_]*)", re.ASCII)
_ARGUMENT: Final = re.compile(r"""\s*(?:'([^']*)'|"([^"]*)")\s*(,|$)""")


class ExpressionInvalid(ValueError):
    """The text cannot be filled in; the message says which expression and what is accepted.

    `name` is a name that is not one of the `known`; empty if that is not what is wrong.
    """

    def __init__(self, text: str, *, name: str = "", known: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.name = name
        self.known = known


def fill(text: str, matrix: Mapping[str, str], hash_of: Callable[[Sequence[str]], str] | None = None) -> str:
    """`text` with its expressions replaced.

    Args:
        matrix: axis -> value of this combination.
        hash_of: where `hash(...)` is allowed, what computes it from patterns.
    Raises:
        ExpressionInvalid: an unknown expression or axis, `hash` where it is not allowed, or no closing `}}`.
    """
    if OPEN not in text:
        return text
    parts: list[str] = []
    position = 0
    while (start := text.find(OPEN, position)) >= 0:
        if start > position and text[start - 1] == "$":
            parts += [text[position : start - 1], OPEN]
            position = start + len(OPEN)
            continue
        end = text.find(CLOSE, start)
        if end < 0:
            raise ExpressionInvalid(f"'{OPEN}' without '{CLOSE}'; write '${OPEN}' for the characters themselves")
        parts.append(text[position:start])
        parts.append(_value(text[start + len(OPEN) : end].strip(), matrix, hash_of))
        position = end + len(CLOSE)
    parts.append(text[position:])
    return "".join(parts)


def _value(expression: str, matrix: Mapping[str, str], hash_of: Callable[[Sequence[str]], str] | None) -> str:
    shown = printable(expression, length_max=60)
    axis = _MATRIX.fullmatch(expression)
    if axis is not None:
        if axis[1] not in matrix:
            known = ", ".join(matrix) or "none: the job has no matrix"
            text = f"unknown axis in '{shown}'; the axes are {known}"
            raise ExpressionInvalid(text, name=axis[1], known=tuple(matrix))
        return matrix[axis[1]]
    if expression.startswith("hash(") and expression.endswith(")"):
        if hash_of is None:
            raise ExpressionInvalid(f"'{shown}' is accepted in cache keys only")
        return hash_of(_patterns(expression[len("hash(") : -1], shown))
    accepted = "matrix.<axis>" + ("" if hash_of is None else " and hash('<glob>', ...)")
    raise ExpressionInvalid(f"unknown expression '{shown}'; accepted: {accepted}")


def _patterns(text: str, shown: str) -> tuple[str, ...]:
    patterns: list[str] = []
    position = 0
    while position < len(text) or not patterns:
        match = _ARGUMENT.match(text, position)
        if match is None or len(patterns) >= 20:
            raise ExpressionInvalid(f"'{shown}' is not hash('<glob>', ...) with 1 to 20 quoted patterns")
        patterns.append(match[1] if match[1] is not None else match[2])
        position = match.end()
    try:
        Globs(patterns)
    except GlobInvalid as error:
        raise ExpressionInvalid(f"'{shown}': {error}") from error
    return tuple(patterns)
