"""The buckets of refused webhooks, by hand: nothing here knows a clock or a socket."""

import pytest

from deltaci.gateway import refusals
from deltaci.gateway.refusals import FILLED_AFTER_MS, RECORDS_MAX, TOKEN_MS, Refusals, TurnedAway, network_of


def emptied(sender: str = "192.0.2.1") -> Refusals:
    known = Refusals()
    for _ in range(RECORDS_MAX):
        assert known.wait_ms(sender, 0) == 0
        known.refused(sender, 0)
    return known


def test_an_empty_bucket_turns_away_until_a_token_is_back() -> None:
    """And nobody but its own sender."""
    known = emptied()

    assert known.wait_ms("192.0.2.1", 0) == TOKEN_MS
    assert known.wait_ms("192.0.2.1", TOKEN_MS - 1) == 1
    assert known.wait_ms("192.0.2.2", 0) == 0
    assert known.wait_ms("192.0.2.1", TOKEN_MS) == 0
    known.refused("192.0.2.1", TOKEN_MS)
    assert known.wait_ms("192.0.2.1", TOKEN_MS) == TOKEN_MS


def test_what_was_turned_away_is_told_once_the_bucket_is_full() -> None:
    """Then the sender is forgotten."""
    known = emptied()
    for at_ms in (0, 1, 2):
        known.wait_ms("192.0.2.1", at_ms)

    assert known.settled(FILLED_AFTER_MS - 1) == []
    assert known.settled(FILLED_AFTER_MS) == [TurnedAway("192.0.2.1", 3)]
    assert known.settled(FILLED_AFTER_MS * 9) == []
    assert known.wait_ms("192.0.2.1", FILLED_AFTER_MS) == 0


def test_one_who_has_a_network_has_one_bucket() -> None:
    """There are 2^64 addresses in it."""
    known = emptied("2001:db8::1")

    assert known.wait_ms("2001:db8::ffff:1", 0) == TOKEN_MS
    assert known.wait_ms("2001:db8:0:1::1", 0) == 0
    assert network_of("<local>") == "<local>"


def test_too_many_senders_share_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory is bounded, and so is what is written down."""
    monkeypatch.setattr(refusals, "SENDERS_MAX", 2)
    known = Refusals()
    for number in range(2 + RECORDS_MAX):
        known.refused(f"198.51.100.{number}", 0)

    assert known.wait_ms("198.51.100.200", 0) == TOKEN_MS
    assert known.wait_ms("198.51.100.0", 0) == 0
