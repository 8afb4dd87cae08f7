"""What a forge is still to be told of a run, and what of it goes first. Pure.

Rule 1: the final state comes before what is on its way to it; of final states, those that hold a change back first.
Rule 2: the run's own check comes after those of its jobs, as far as these may go now: it never waits for the limits.
Rule 3: what was told as over is never told as not over; its words may still be mended, after everything else.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from enum import IntEnum
from typing import Final

import msgspec

from deltaci.reporter.desired import VERDICTS, Check

# Above so many jobs the check of a job is made only once it is over: made first and ended later, 300 jobs would be 600
# writes, and GitHub takes 500 an hour.
LIVE_JOBS_MAX: Final = 20
COMMENT: Final = "#comment"  # no job is named like this
FINAL_STATES: Final = frozenset(state for state, verdict in VERDICTS.items() if verdict != "pending")
REJECTIONS_MAX: Final = 3


class Rank(IntEnum):
    """In this order things are told."""

    RED_JOB = 0
    JOB = 1
    RUN = 2
    LIVE_RUN = 3
    LIVE_JOB = 4
    COMMENT = 5
    MENDED = 6


# So many writes in every window each rank leaves to those that matter more.
KEEP: Final[Mapping[Rank, int]] = {
    Rank.RED_JOB: 1,
    Rank.JOB: 4,
    Rank.RUN: 0,
    Rank.COMMENT: 8,
    Rank.LIVE_RUN: 24,
    Rank.LIVE_JOB: 40,
    Rank.MENDED: 24,
}


class Telling(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that a forge should be told. `check` is the job's name, empty for the run, or `COMMENT`.

    `state` is what it comes to, `words` a digest of everything that is said of it besides; `body` is the forge's.
    """

    check: str
    state: str
    words: str
    is_final: bool
    rank: Rank
    body: object

    @property
    def digest(self) -> str:
        """What is remembered of it once it is told."""
        return f"{self.state}:{self.words}"


def digest_of(*parts: object) -> str:
    """Names what people see: equal parts have equal digests."""
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def rank(check: Check) -> Rank:
    """Where it comes, if nothing of it was told yet."""
    if not check.name:
        return Rank.RUN if check.is_final else Rank.LIVE_RUN
    if not check.is_final:
        return Rank.LIVE_JOB
    return Rank.JOB if VERDICTS[check.state] == "success" else Rank.RED_JOB


def is_told_early(check: Check, jobs_count: int) -> bool:
    """Whether a forge with a bound hears of it before it is over: always of the run, of a job only among few."""
    return check.is_final or not check.name or jobs_count <= LIVE_JOBS_MAX


def open_tellings(wanted: Sequence[Telling], told: Mapping[str, str], refused: Collection[str]) -> tuple[Telling, ...]:
    """What differs from what was told, in the order in which it goes.

    Args:
        told: digests by check.
        refused: checks that the forge refused just now; a wrong token is refused for each job alike, so that after
            three of them only the run's own is still tried.
    """
    has_enough = len(refused) >= REJECTIONS_MAX
    found = []
    for telling in wanted:
        before = told.get(telling.check, "")
        if telling.check in refused or (has_enough and telling.check) or before == telling.digest:
            continue
        state_before = before.partition(":")[0]
        if not telling.is_final and state_before in FINAL_STATES:
            continue
        if telling.is_final and state_before == telling.state:
            found.append(msgspec.structs.replace(telling, rank=Rank.MENDED))
        else:
            found.append(telling)
    return tuple(sorted(found, key=lambda telling: telling.rank))  # stable: those of a rank stay in their order
