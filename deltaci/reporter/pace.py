"""When a forge may be told the next thing: within its limits, and not while it asked to be left alone. Pure over time.

Rule 1: it only asks how much may go: who sends something counts it.
Rule 2: nobody waits in here. What cannot go now is put off, and its run is looked at again when it can.
Rule 3: while a run of an account was put off, no other run of it tells more than a few things in a row: none may use
        the limit up, minute after minute, before another has had its turn.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from deltaci.reporter.tellings import KEEP, Telling

TURN_MAX: Final = 20
PUT_OFF_MS: Final = 60_000
AGAIN_FIRST_MS: Final = 1_000
AGAIN_MAX_MS: Final = 300_000


class Budget(Protocol):
    """How much may be written to a forge by one account: see `deltaci.forge.budget`."""

    def wait_ms(self, account: str, now_ms: int, *, keep: int = 0) -> int:
        """How long to wait until a write leaves `keep` others in every window; 0: go on."""
        ...


class Pace:
    """The budget of each account, and until when its forge asked to be left alone."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._quiet_until_ms: dict[str, int] = {}
        self._failures: dict[str, int] = {}  # in a row, by run
        self._put_off: dict[str, dict[str, int]] = {}  # when each run was put off last, by account

    def choose(self, account: str, tellings: Sequence[Telling], now_ms: int) -> Telling | int:
        """The first that may go now, or how long it takes until one may, in milliseconds; `tellings` is not empty."""
        quiet_ms = self._quiet_until_ms.get(account, 0) - now_ms
        if quiet_ms > 0:
            return quiet_ms
        self._quiet_until_ms.pop(account, None)
        waits: dict[int, int] = {}
        for telling in tellings:
            keep = KEEP[telling.rank]
            if keep not in waits:
                waits[keep] = self._budget.wait_ms(account, now_ms, keep=keep)
            if waits[keep] == 0:
                return telling
        return min(waits.values())

    def leave_alone(self, account: str, wait_ms: int, now_ms: int) -> None:
        """The forge asked to wait: that is meant for every run of the account."""
        self._quiet_until_ms[account] = max(self._quiet_until_ms.get(account, 0), now_ms + wait_ms)

    def failed(self, run_id: str) -> int:
        """A sending failed: how long to wait before the next, in milliseconds, longer with each failure in a row.

        The outbox counts as a try also what was only put off, and would wait for minutes after a single failure.
        """
        failures = self._failures[run_id] = self._failures.get(run_id, 0) + 1
        return min(AGAIN_FIRST_MS << min(failures - 1, 20), AGAIN_MAX_MS)

    def succeeded(self, run_id: str) -> None:
        """A sending arrived, or nothing of the run is to be sent any more."""
        self._failures.pop(run_id, None)

    def put_off(self, account: str, run_id: str, now_ms: int) -> None:
        """A run has more to tell than may go now."""
        self._put_off.setdefault(account, {})[run_id] = now_ms

    def is_turn_over(self, account: str, run_id: str, told: int, now_ms: int) -> bool:
        """Whether a run that told so much in a row makes way for others that were put off."""
        waiting = self._put_off.get(account, {})
        for one in [one for one, at_ms in waiting.items() if at_ms <= now_ms - PUT_OFF_MS]:
            del waiting[one]
        if not waiting:
            self._put_off.pop(account, None)
        return told >= TURN_MAX and any(one != run_id for one in waiting)
