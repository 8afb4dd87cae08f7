"""How many refused webhooks of one sender are looked at and written down: a stranger must not fill the disk.

Rule 1: every refusal costs its sender a token of a bucket; an empty bucket is answered before anything is computed or
        stored. What was turned away so is counted, and told in one record when the bucket is full again.
Rule 2: pure over injected time, bounded in memory: senders that behaved for as long as a bucket takes to fill are
        forgotten, and too many at once share a bucket.
"""

import ipaddress
from typing import Final

import msgspec

RECORDS_MAX: Final = 30
FILLED_AFTER_MS: Final = 60_000
TOKEN_MS: Final = FILLED_AFTER_MS // RECORDS_MAX
SENDERS_MAX: Final = 10_000
OTHERS: Final = "others"
# Whoever has one IPv6 address has 2^64 of them.
V6_PREFIX: Final = 64


class TurnedAway(msgspec.Struct, frozen=True):
    """So many webhooks of a sender were not looked at."""

    sender: str
    count: int


class _Bucket(msgspec.Struct):
    """`full_at_ms`: when it will be full again if nothing more is taken."""

    full_at_ms: int
    turned_away: int = 0


class Refusals:
    """The buckets of all senders."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Bucket] = {}

    def wait_ms(self, sender: str, now_ms: int) -> int:
        """How long this sender has to wait before it is listened to; 0: not at all. A wait is counted."""
        bucket = self._buckets.get(self._name(sender))
        if bucket is None:
            return 0
        wait_ms = bucket.full_at_ms - now_ms - FILLED_AFTER_MS + TOKEN_MS
        if wait_ms <= 0:
            return 0
        bucket.turned_away += 1
        return wait_ms

    def refused(self, sender: str, now_ms: int) -> None:
        """A webhook of this sender was refused."""
        name = self._name(sender)
        if name not in self._buckets and len(self._buckets) >= SENDERS_MAX:
            name = OTHERS
        bucket = self._buckets.setdefault(name, _Bucket(now_ms))
        bucket.full_at_ms = max(bucket.full_at_ms, now_ms) + TOKEN_MS

    def settled(self, now_ms: int) -> list[TurnedAway]:
        """Forget the senders whose buckets are full again; those of which something was turned away, to be told."""
        over = [name for name, bucket in self._buckets.items() if bucket.full_at_ms <= now_ms]
        gone = [(name, self._buckets.pop(name)) for name in over]
        return [TurnedAway(name, bucket.turned_away) for name, bucket in gone if bucket.turned_away]

    def _name(self, sender: str) -> str:
        name = network_of(sender)
        return OTHERS if name not in self._buckets and len(self._buckets) >= SENDERS_MAX else name


def network_of(sender: str) -> str:
    """The address itself, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(sender)
    except ValueError:
        return sender[:100]
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, V6_PREFIX), strict=False))
