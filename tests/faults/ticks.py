"""A job that shows when it runs, to the hundredth of a second, on the clock that all processes of the machine share."""

import itertools
from pathlib import Path
from typing import Any, Final

from tests.scenarios.support import step

# Two attempts of a job may overlap for as long as a busy machine takes to run a process that was woken to kill one.
OVERLAP_MAX_S: Final = 1.0

SCRIPT: Final = """\
echo "attempt $DELTACI_ATTEMPT"
while [ ! -e {go} ]; do
    read -r up _ < /proc/uptime
    echo "$DELTACI_ATTEMPT $up" | tee -a {file}
    sleep 0.05
done
echo "end of attempt $DELTACI_ATTEMPT"
"""


class Ticks:
    """Each attempt appends its number and the time since boot, again and again, until it may end."""

    def __init__(self, home: Path, name: str = "ticks") -> None:
        self.file = home / name
        self.go = home / f"{name}-go"

    def jobs(self) -> dict[str, Any]:
        """The configuration of one job that ticks."""
        return {"tick": {"steps": [step(SCRIPT.format(go=self.go, file=self.file))]}}

    def of(self, attempt: int) -> list[float]:
        """When the attempt was seen running: seconds since boot."""
        if not self.file.exists():
            return []
        lines = [line.split() for line in self.file.read_text().splitlines()]
        return [float(line[1]) for line in lines if line[0] == str(attempt)]

    def assert_logged(self, log: str, attempt: int) -> None:
        """The log holds every tick of the attempt, once and in order, from the first line to the last."""
        printed = [line for line in self.file.read_text().splitlines() if line.startswith(f"{attempt} ")]
        logged = [line for line in log.splitlines() if not line.startswith("==>")]
        assert logged == [f"attempt {attempt}", *printed, f"end of attempt {attempt}"]

    def end(self) -> None:
        """Let the attempt that runs come to its end."""
        self.go.touch()

    def assert_apart(self, attempts: int) -> None:
        """No attempt ran while another one did, but for the bound."""
        seen = [self.of(number) for number in range(1, attempts + 1)]
        assert all(seen), f"an attempt never ran: {[len(one) for one in seen]}"
        for earlier, later in itertools.pairwise(seen):
            assert earlier[-1] - later[0] <= OVERLAP_MAX_S, f"two attempts ran at once for {earlier[-1] - later[0]} s"


def boot_s() -> float:
    """Now, as the ticks show it."""
    return float(Path("/proc/uptime").read_text().split()[0])
