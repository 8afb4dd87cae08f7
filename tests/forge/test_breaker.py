"""When a host is left alone, for how long, and what ends it."""

from deltaci.forge.breaker import PAUSE_MAX_MS, Breaker


def fail(breaker: Breaker, now_ms: int) -> int:
    """One request that fails; when the next one may go, from `now_ms` on."""
    assert breaker.admit(now_ms) == 0
    breaker.failed(now_ms)
    return now_ms + breaker.admit(now_ms)


def test_each_pause_in_a_row_is_longer_up_to_a_bound() -> None:
    """A host that is down for hours is not asked every few seconds."""
    breaker, now_ms, pauses = Breaker(failures_max=1, pause_ms=10_000), 0, []
    for _ in range(7):
        following = fail(breaker, now_ms)
        pauses.append(following - now_ms)
        now_ms = following

    assert pauses == [10_000, 20_000, 40_000, 80_000, 160_000, PAUSE_MAX_MS, PAUSE_MAX_MS]


def test_an_answer_ends_it_and_makes_the_next_pause_short_again() -> None:
    """What was before it does not count any more."""
    breaker = Breaker(failures_max=2, pause_ms=10_000)
    breaker.failed(0)
    fail(breaker, 0)
    now_ms = fail(breaker, 10_000)
    assert breaker.admit(now_ms) == 0
    breaker.succeeded()

    assert fail(breaker, now_ms) == now_ms
    assert fail(breaker, now_ms) == now_ms + 10_000


def test_one_request_sees_and_the_others_wait_for_it() -> None:
    """A host that comes back must not be run over."""
    breaker = Breaker(failures_max=1, pause_ms=10_000)
    now_ms = fail(breaker, 0)

    assert breaker.admit(now_ms) == 0
    assert breaker.admit(now_ms) > 0
