"""A circuit breaker: a host that keeps failing is left alone for a while. Pure over the time it is given.

Rule 1: only failures in a row open it: one answer, whatever it says, shows that somebody is there.
Rule 2: after the pause one request goes through to see; all others wait for what becomes of it.
"""

from typing import Final, Literal, TypeAlias

BreakerState: TypeAlias = Literal["closed", "open", "half_open"]

FAILURES_MAX: Final = 6
PAUSE_MS: Final = 15_000
PAUSE_MAX_MS: Final = 5 * 60_000
# What is said to those who come while the one request is under way
PROBE_MS: Final = 1_000


class Breaker:
    """The breaker of one host. Each request is admitted first, and told of at the end by one of three calls."""

    def __init__(self, *, failures_max: int = FAILURES_MAX, pause_ms: int = PAUSE_MS) -> None:
        self._failures_max = failures_max
        self._pause_ms = pause_ms
        self._failures = 0
        self._pauses = 0
        self._closes_at_ms = 0
        self.state: BreakerState = "closed"

    def admit(self, now_ms: int) -> int:
        """0: go on. Otherwise how long to wait, in milliseconds, before asking again."""
        if self.state == "closed":
            return 0
        if self.state == "half_open":
            return PROBE_MS
        if now_ms < self._closes_at_ms:
            return self._closes_at_ms - now_ms
        self.state = "half_open"
        return 0

    def succeeded(self) -> None:
        """The host answered."""
        self._failures = self._pauses = 0
        self.state = "closed"

    def failed(self, now_ms: int) -> None:
        """The host did not answer, or could not do anything."""
        self._failures += 1
        if self.state == "half_open" or (self.state == "closed" and self._failures >= self._failures_max):
            self.state = "open"
            self._closes_at_ms = now_ms + min(self._pause_ms << min(self._pauses, 10), PAUSE_MAX_MS)
            self._pauses += 1

    def abandoned(self, now_ms: int) -> None:
        """Nobody knows: the request was given up on our side. The next one sees."""
        if self.state == "half_open":
            self.state = "open"
            self._closes_at_ms = now_ms
