"""A few worlds in every test run; `make simulate` throws thousands."""

from collections import Counter

import pytest

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from tests.simulation import coverage
from tests.simulation.simulate import simulate

HOURS = 0.3


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1_000, 1_006))
def test_nothing_is_lost_and_nothing_happens_twice(seed: int) -> None:
    """Every invariant after every commit, everything over at the end, whatever was killed, cut, lost or doubled."""
    outcome = simulate(seed, hours=HOURS)

    assert outcome.violations == []
    assert outcome.commits > 20
    assert outcome.counts["webhooks"] > 0


def test_what_is_never_reached_is_named() -> None:
    """The report follows the machines' own tables: a new command is missing until a world reaches it."""
    everything = {
        (f"{machine} {state}", command.__name__, fate)
        for machine, table in (("job", jobs.LEGAL_IN), ("run", runs.LEGAL_IN))
        for command, states in table.items()
        for state in states
        for fate in coverage.FATES
    }
    without_one = {what for what in everything if what[:2] != ("run CREATED", "StartPlanning")}
    without_a_fate = {what for what in everything if what[2] != "killed in the transaction"}

    assert coverage.never_reached(dict.fromkeys(everything, 1)) == []
    assert coverage.never_reached(dict.fromkeys(without_one, 1)) == ["run CREATED <- StartPlanning"]
    assert coverage.never_reached(dict.fromkeys(without_a_fate, 1)) == ["no commit was killed in the transaction"]
    assert coverage.never_reached(Counter()) != []
