"""Time and randomness as arguments: the two ports through which everything impure about ids and instants comes in."""

from typing import Protocol


class Clock(Protocol):
    """Wall time that never jumps while the process lives: anchored once, advanced by the monotonic clock.

    Nor does it go back from one life to the next: it begins no earlier than the newest instant that is stored.
    """

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        ...


class Entropy(Protocol):
    """Where random bits come from: the operating system in production, a seeded generator in simulation."""

    def token_bytes(self, count: int) -> bytes:
        """`count` random bytes."""
        ...
