"""How often a crash is forgiven, how long the restart waits, and who is restarted with whom."""

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from random import Random

__all__ = ["Backoff", "Intensity", "Strategy"]


class Strategy(StrEnum):
    """Who is restarted when one permanent child crashes; all in start order, after having been held in reverse."""

    ONE_FOR_ONE = "one_for_one"
    ONE_FOR_ALL = "one_for_all"
    REST_FOR_ONE = "rest_for_one"


@dataclass(frozen=True, slots=True)
class Intensity:
    """Crashes allowed within a sliding window; one more and the supervisor escalates, the entity is quarantined."""

    crashes_max: int = 5
    period_s: float = 60.0

    def count(self, crashed_at: deque[float], now: float) -> int:
        """Note a crash at `now`, forget those that left the window, and answer how many are in it."""
        crashed_at.append(now)
        while crashed_at[0] <= now - self.period_s:
            crashed_at.popleft()
        return len(crashed_at)


@dataclass(frozen=True, slots=True)
class Backoff:
    """The wait before restart number n (from 1) in the window: `first_s * factor ** (n - 1)`, at most `max_s`.

    A random share of it, up to `jitter` (0 to 1), is taken off, so that those who crashed together do not return
    together (full jitter as in the AWS Architecture Blog, "Exponential Backoff And Jitter", is `jitter=1`).
    """

    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 30.0
    jitter: float = 0.5

    def delay_s(self, crashes: int, rng: Random) -> float:
        delay = self.first_s
        for _ in range(crashes - 1):  # multiplied step by step: a power of a large count overflows
            delay = min(delay * self.factor, self.max_s)
        return min(delay, self.max_s) * (1 - self.jitter * rng.random())
