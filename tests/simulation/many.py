"""Many seeds at once, on all cores, each in a process of its own; and the sum over them."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Any, Final

from tests.simulation.bugs import planted
from tests.simulation.simulate import simulate
from tests.simulation.world import Outcome

STUCK_S: Final = 300
TELL_EVERY_S: Final = 10
AT_ONCE: Final = 2  # seeds under way for each core, so that a slow one holds up nobody
SHOWN: Final = (
    ("process crashes", ("process_crashes",)),
    ("actor crashes", ("actor_crashes",)),
    ("stalled or dead runners", ("runner_stalls", "runner_deaths")),
    ("lost or doubled messages", ("lost:", "doubled:", "messages_cut", "lost_notification:", "doubled_notification:")),
    ("late messages", ("late:",)),
    ("store errors", ("commit_error_before", "commit_error_after", "read_error", "io_error", "disk_full", "disk_held")),
    ("webhooks", ("webhooks",)),
    ("lies", ("lie",)),
)


class Total:
    """The sum over many seeds."""

    def __init__(self) -> None:
        self.seeds = 0
        self.simulated_s = 0.0
        self.cpu_s = 0.0
        self.commits = 0
        self.counts: Counter[str] = Counter()
        self.covered: Counter[tuple[str, str, str]] = Counter()

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.seeds += 1
        self.simulated_s += outcome.simulated_s
        self.cpu_s += outcome.cpu_s
        self.commits += outcome.commits
        self.counts.update(outcome.counts)
        for words, count in outcome.covered.items():
            state, command, fate = words.split(" | ")
            self.covered[state, command, fate] += count

    def count(self, names: tuple[str, ...]) -> int:
        """Everything counted under one of these names, or under one that begins with a name that ends in a colon."""
        exact = sum(self.counts[name] for name in names)
        groups = tuple(name for name in names if name.endswith(":"))
        return exact + sum(count for name, count in self.counts.items() if groups and name.startswith(groups))

    def line(self) -> str:
        """How far we are."""
        hours = self.simulated_s / 3600
        faults = ", ".join(f"{self.count(names):,} {title}" for title, names in SHOWN[:4])
        return f"{self.seeds} seeds, {hours:,.1f} simulated hours, {self.commits:,} commits, {faults}"

    def table(self) -> Iterator[str]:
        """All of it."""
        hours = self.simulated_s / 3600
        yield f"{'seeds':28}{self.seeds:>12,}"
        yield f"{'simulated hours':28}{hours:>12,.1f}"
        yield f"{'... a CPU second':28}{hours / max(self.cpu_s, 0.001):>12.2f}"
        yield f"{'commits':28}{self.commits:>12,}"
        for title, names in SHOWN:
            yield f"{title:28}{self.count(names):>12,}"


def simulate_all(
    seeds: Iterable[int], *, hours: float, bug: str = "", seconds: int | None = None, tell: Callable[[str], None]
) -> tuple[Total, Outcome | None]:
    """The sum over all seeds, up to the first that broke a rule, which comes with it.

    Args:
        hours: simulated time with faults, a seed.
        bug: planted into the code of every process.
        seconds: begin no more seeds after this much real time.
        tell: hears how far we are.
    """
    total, began_s, told_s = Total(), time.monotonic(), time.monotonic()
    context = multiprocessing.get_context("spawn")
    cores = len(os.sched_getaffinity(0))
    left = iter(seeds)
    with ProcessPoolExecutor(cores, mp_context=context) as pool:
        under_way: set[Future[Outcome]] = set()

        def begin() -> None:
            while len(under_way) < cores * AT_ONCE and (seconds is None or time.monotonic() - began_s < seconds):
                if (seed := next(left, None)) is None:
                    return
                under_way.add(pool.submit(one, seed, hours, bug))

        begin()
        while under_way:
            done, under_way = wait(under_way, timeout=TELL_EVERY_S, return_when=FIRST_COMPLETED)
            for future in done:
                outcome = future.result()
                total.add(outcome)
                if outcome.violations:
                    pool.shutdown(wait=False, cancel_futures=True)
                    return total, outcome
            begin()
            if time.monotonic() - told_s >= TELL_EVERY_S:
                told_s = time.monotonic()
                tell(f"{told_s - began_s:5.0f} s: {total.line()}")
    return total, None


def one(seed: int, hours: float, bug: str) -> Outcome:
    """A seed in a process of the pool; one that makes no progress is ended with a traceback of where it is."""
    signal.signal(signal.SIGALRM, _stuck)
    signal.alarm(STUCK_S)
    try:
        with planted(bug):
            return simulate(seed, hours=hours)
    except TimeoutError as error:
        raise TimeoutError(f"seed {seed} did not end within {STUCK_S} s of real time") from error
    finally:
        signal.alarm(0)


def _stuck(*_: Any) -> None:
    raise TimeoutError
