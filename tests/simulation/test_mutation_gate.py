"""A simulation that finds nothing proves nothing unless it finds what is there: known bugs, planted one by one."""

import pytest

from tests.simulation.bugs import BUGS, planted
from tests.simulation.simulate import simulate

SEEDS_MAX = 60  # one bug needs the 48th: what it forgets is nearly always found by a grant that is refused
HOURS = 0.5


def test_there_are_ten_bugs_at_least() -> None:
    """The list of those that others have paid for is not to shrink."""
    assert len(BUGS) >= 10


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    """Each within a bounded number of worlds, by a rule that was not written for it."""
    for seed in range(SEEDS_MAX):
        with planted(bug):
            outcome = simulate(seed, hours=HOURS)
        if outcome.violations:
            assert simulate(seed, hours=HOURS).violations == [], "it is found without the bug"
            return

    pytest.fail(f"{bug}: no violation in {SEEDS_MAX} worlds")
