"""How many writes a forge takes from one account, counted before it has to say no. Pure over the time it is given.

Rule 1: GitHub takes 80 content-creating requests a minute and 500 an hour of an installation or a token; whoever goes
        on regardless is shut out for longer.
Rule 2: what is spent is counted when it is sent, whatever became of it: the forge counts it as well.
"""

from collections import deque
from typing import Final

WRITES_A_MINUTE: Final = 80
WRITES_AN_HOUR: Final = 500
# The forge's windows begin when requests arrive there, not when they leave here
MARGIN_MS: Final = 1_000
MINUTE_MS: Final = 60_000
HOUR_MS: Final = 3_600_000


class WriteBudget:
    """The writes of the last hour, by account."""

    def __init__(self, *, a_minute: int = WRITES_A_MINUTE, an_hour: int = WRITES_AN_HOUR) -> None:
        self._windows = ((MINUTE_MS + MARGIN_MS, a_minute), (HOUR_MS + MARGIN_MS, an_hour))
        self._writes: dict[str, deque[int]] = {}

    def wait_ms(self, account: str, now_ms: int, *, keep: int = 0) -> int:
        """How long `account` must not write yet; 0 means go on.

        Args:
            keep: how many writes to leave in each window for what is more important.
        """
        writes = self._of(account, now_ms)
        wait = 0
        for window_ms, most in self._windows:
            allowed = max(1, most - keep)
            inside = [at_ms for at_ms in writes if at_ms > now_ms - window_ms]
            if len(inside) >= allowed:
                wait = max(wait, inside[len(inside) - allowed] + window_ms - now_ms)
        return wait

    def spent(self, account: str, now_ms: int) -> None:
        """Count one write that is being sent."""
        self._of(account, now_ms)
        self._writes.setdefault(account, deque()).append(now_ms)

    def _of(self, account: str, now_ms: int) -> deque[int]:
        writes = self._writes.get(account, deque())
        while writes and writes[0] <= now_ms - HOUR_MS - MARGIN_MS:
            writes.popleft()
        if not writes:
            self._writes.pop(account, None)  # no row for ever for each account that ever wrote
        return writes
