"""What only the wiring knows: the machine's clock, and who reads the webhooks of which address."""

import time
from typing import get_args

from deltaci.domain.repo import Forge
from deltaci.wiring import SystemClock, webhook_forges

HOUR_MS = 3_600_000


def test_the_clock_shows_the_wall_time_at_the_start_of_a_process() -> None:
    """Nothing stored is newer, so that there is no reason for anything else."""
    before_ms = time.time_ns() // 1_000_000

    clock = SystemClock(not_before_ms=before_ms - HOUR_MS)

    assert before_ms <= clock.now_ms() <= time.time_ns() // 1_000_000
    assert clock.ahead_ms == 0


def test_the_clock_goes_on_from_what_is_stored_when_the_wall_clock_was_set_back() -> None:
    """Else the next run would be older than the last one, and every stored deadline hours away."""
    newest_ms = time.time_ns() // 1_000_000 + 5 * HOUR_MS

    clock = SystemClock(not_before_ms=newest_ms)

    assert newest_ms <= clock.now_ms() < newest_ms + HOUR_MS
    assert 4 * HOUR_MS < clock.ahead_ms <= 5 * HOUR_MS


def test_every_kind_of_repository_has_somebody_who_reads_its_webhooks() -> None:
    """A repository that can be registered and never heard of would be a trap; Forgejo speaks Gitea's language."""
    forges = webhook_forges()

    assert {name: forges[name].name for name in get_args(Forge)} == {name: name for name in get_args(Forge)}
    assert forges["forgejo"] is forges["gitea"]
