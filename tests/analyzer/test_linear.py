"""No expression that meets a log can be made to take long: checked on its structure, not by a clock."""

import re
from re import _constants as ops  # type: ignore[attr-defined]  # how expressions are read has no public name
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

import pytest

from deltaci.analyzer import sanitizer
from deltaci.analyzer.rules import NOISE, PREFIX, RULES
from deltaci.domain import credentials as patterns
from deltaci.domain.credentials import PATTERNS

BOUND_MAX = 400

EXPRESSIONS: dict[str, re.Pattern[str]] = {
    **{f"pattern {pattern.name}": pattern.expression for pattern in PATTERNS},
    **{f"rule {number} {rule.category}": rule.expression for number, rule in enumerate(RULES)},
    **{f"noise {number}": expression for number, expression in enumerate(NOISE)},
    "prefix": PREFIX,
    "key mark": patterns.PRIVATE_KEY_MARK,
    "key run": patterns.PRIVATE_KEY_RUN,
    "key body": patterns.PRIVATE_KEY_BODY,
    "line breaks": sanitizer._LINE_BREAKS,
    "invisible": sanitizer._INVISIBLE,
}


def complaints(expression: str, flags: int = 0) -> list[str]:
    return list(_walk(parser.parse(expression, flags), in_repeat=False, is_tail=True))


def _walk(parsed: Any, *, in_repeat: bool, is_tail: bool) -> Any:
    items = list(parsed)
    for number, (op, argument) in enumerate(items):
        ends = is_tail and number == len(items) - 1
        if op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT):
            _least, most, inner = argument
            repeats = most > 1
            if repeats and in_repeat:
                yield "a repetition inside another one"
            if most == ops.MAXREPEAT:
                if op is not ops.POSSESSIVE_REPEAT and not ends:
                    yield "no upper bound, and something that can fail after it"
            elif most > BOUND_MAX:
                yield f"a bound of {most}"
            yield from _walk(inner, in_repeat=in_repeat or repeats, is_tail=ends)
        elif op is ops.SUBPATTERN:
            yield from _walk(argument[3], in_repeat=in_repeat, is_tail=ends)
        elif op is ops.BRANCH:
            for branch in argument[1]:
                yield from _walk(branch, in_repeat=in_repeat, is_tail=ends)
        elif op in (ops.ASSERT, ops.ASSERT_NOT):
            yield from _walk(argument[1], in_repeat=in_repeat, is_tail=False)
        elif op is ops.ATOMIC_GROUP:
            yield from _walk(argument, in_repeat=in_repeat, is_tail=False)
        elif op in (ops.GROUPREF, ops.GROUPREF_EXISTS):
            yield "a reference back"


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_expression_is_linear(name: str) -> None:
    """Whoever writes the log writes the input of these expressions."""
    expression = EXPRESSIONS[name]

    assert complaints(expression.pattern, expression.flags & re.ASCII) == []


@pytest.mark.parametrize(
    "expression", ["(a+)+b", "(?:a{1,9}){2}b", "a*b", "a{1,500}b", r"(a)\1", "(?=a*b)", "x(?:a*|b)c"]
)
def test_the_check_finds_what_it_is_for(expression: str) -> None:
    """A check that finds nothing in anything proves nothing."""
    assert complaints(expression) != []


def test_the_escapes_are_taken_out_in_one_pass() -> None:
    """Their expression has repetitions without bound, each from one escape to the next: counted here, not timed."""
    hostile = ("\x1b[" + "0" * 50 + "\x1b]" + "x" * 50 + "\x9b" + ";" * 50) * 500

    assert sanitizer.plain(hostile).count("\x1b") == 0
