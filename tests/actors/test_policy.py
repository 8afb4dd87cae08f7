"""Backoff and intensity, which need no loop."""

from collections import deque
from random import Random

import pytest

from actors import Backoff, Intensity


@pytest.mark.parametrize(("crashes", "expected"), [(1, 1.0), (2, 3.0), (3, 9.0), (4, 10.0), (10_000, 10.0)])
def test_the_wait_before_a_restart_grows_to_its_maximum(crashes: int, expected: float) -> None:
    """A broken dependency is tried less and less often, and a large count does not overflow."""
    backoff = Backoff(first_s=1.0, factor=3.0, max_s=10.0, jitter=0.0)

    delay = backoff.delay_s(crashes, Random(1))

    assert expected == delay


def test_jitter_takes_off_at_most_its_share() -> None:
    """Those who crashed together do not come back together, and none waits longer than said."""
    backoff = Backoff(first_s=8.0, factor=1.0, max_s=8.0, jitter=0.25)
    rng = Random(1)

    delays = [backoff.delay_s(1, rng) for _ in range(200)]

    assert all(6.0 <= delay <= 8.0 for delay in delays)
    assert len(delays) == len(set(delays))


def test_crashes_leave_the_window_as_it_slides() -> None:
    """An actor that crashes once a day is not punished for its age."""
    intensity = Intensity(crashes_max=2, period_s=10.0)
    crashed_at: deque[float] = deque()

    counts = [intensity.count(crashed_at, now) for now in (0.0, 5.0, 9.9, 10.0, 30.0)]

    assert counts == [1, 2, 3, 3, 1]
