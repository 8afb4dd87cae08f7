"""`deltaci`, killed at a chosen place of a chosen commit: FAILPOINT=name:N:kill in the environment.

The places lie at the seam where a batch of commits goes to the disk, around one transaction:

    before      it has not begun
    staged      its statements are executed, its COMMIT is not
    committed   it is on disk, and nobody has been answered

N counts the batches of this process from 1. `kill` is SIGKILL, to itself: nothing is flushed, closed or said.
Without FAILPOINT this is the ordinary command line.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence

import msgspec

from deltaci.cli import main
from deltaci.domain.errors import StoreError
from deltaci.store.database import Database, Held, Staged
from deltaci.store.prepare import Prepared

NAMES = ("before", "staged", "committed")
ACTIONS: dict[str, Callable[[], None]] = {"kill": lambda: os.kill(os.getpid(), signal.SIGKILL)}


class Failpoint(msgspec.Struct):
    """Acts when the place `name` is reached for the `at`-th time."""

    name: str
    at: int
    act: Callable[[], None]
    reached: int = 0

    @classmethod
    def read(cls, text: str) -> "Failpoint":
        """From `name:N:action`; raises `ValueError`."""
        name, at, action = text.split(":")
        if name not in NAMES or action not in ACTIONS:
            raise ValueError(f"FAILPOINT={text}: names are {', '.join(NAMES)}, actions {', '.join(ACTIONS)}")
        return cls(name, int(at), ACTIONS[action])

    def reach(self, name: str) -> None:
        """The program is at the place `name`."""
        if name == self.name:
            self.reached += 1
            if self.reached == self.at:
                self.act()


def plant(failpoint: Failpoint) -> None:
    """Wrap both halves of a batch."""
    stage, finish = Database.stage, Database.finish

    def failing_stage(self: Database, batch: Sequence[Prepared], *, is_patient: bool = False) -> Staged | Held:
        failpoint.reach("before")
        staged = stage(self, batch, is_patient=is_patient)
        if isinstance(staged, Staged) and staged.is_open:
            failpoint.reach("staged")
        return staged

    def failing_finish(self: Database, staged: Staged | Held) -> list[StoreError | None]:
        answers = finish(self, staged)
        failpoint.reach("committed")
        return answers

    Database.stage, Database.finish = failing_stage, failing_finish  # type: ignore[method-assign]


if __name__ == "__main__":
    if text := os.environ.pop("FAILPOINT", ""):
        plant(Failpoint.read(text))
    sys.argv[0] = "deltaci"
    main()
