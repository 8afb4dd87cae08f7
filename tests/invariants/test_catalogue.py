"""The table of rules is complete, and says what it should."""

from pathlib import Path

import pytest

from deltaci.invariants.catalogue import ELSEWHERE, INVARIANTS, RULES, RULES_BY_PLACE
from deltaci.invariants.rules import Rule

ROOT = Path(__file__).parents[2]


def test_every_invariant_has_its_rules_or_is_proven_elsewhere() -> None:
    """None is forgotten, and none is named that is not there."""
    assert list(range(1, 27)) == list(INVARIANTS)
    assert set(INVARIANTS) == {rule.invariant for rule in RULES} | set(ELSEWHERE)
    assert all((ROOT / where.strip("`")).exists() for where in ELSEWHERE.values())


def test_no_two_rules_have_the_same_name() -> None:
    """A violation is looked up by it."""
    names = [rule.name for rule in RULES]

    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_every_rule_says_what_must_hold_in_one_sentence(rule: Rule) -> None:
    """It stands in the page on invariants."""
    assert rule.text.endswith(".")
    assert "|" not in rule.text


def test_only_rules_over_events_say_after_which() -> None:
    """The others are looked at whenever there is something to look at."""
    with_kinds = {rule.name for rules in RULES_BY_PLACE.values() for rule in rules if rule.kinds}

    assert with_kinds <= {rule.name for rule in RULES_BY_PLACE["each event"]}
