"""Whether this process was there to listen: stopped, swapped out or starved, it reads no heartbeat that comes.

Rule 1: a lease's silence counts only while somebody listens. What waits in our sockets when we come back is heard
        before anything expires for want of it; a restart is only the longest absence.
Rule 2: absences are noticed by whoever asks first: a deadline that fires at the moment of waking must know.
"""

from collections.abc import Callable
from typing import Final

# A loop that lags for less than this is busy, not away.
AWAY_MS_MIN: Final = 1_000
AWAY_TICKS_MIN: Final = 4


class Presence:
    """Adds up the gaps between looks. `now_s` goes on while the process is stopped; it is read at every look."""

    def __init__(self, now_s: Callable[[], float], *, tick_ms: int) -> None:
        """Args: tick_ms: how often somebody looks while all is well."""
        self._now_s = now_s
        self._tick_ms = tick_ms
        self._away_ms_min = max(AWAY_MS_MIN, AWAY_TICKS_MIN * tick_ms)
        self._looked_at_s = now_s()
        self._absent_ms = 0

    def absent_ms(self) -> int:
        """For how long this process has been away, all in all. Every call is a look."""
        now_s = self._now_s()
        gap_ms = int((now_s - self._looked_at_s) * 1000)
        self._looked_at_s = now_s
        if gap_ms >= self._away_ms_min:
            # One tick of it was listened to: else a process that always lags would let nothing expire, ever.
            self._absent_ms += gap_ms - self._tick_ms
        return self._absent_ms


def always_here(*, tick_ms: int = 1) -> Presence:
    """For clocks that are moved by hand, in steps that are no absence."""
    return Presence(lambda: 0.0, tick_ms=tick_ms)
