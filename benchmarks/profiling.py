"""Where the server's time goes, in two ways, both of the standard library alone.

`calls`: cProfile; exact counts, but each Python call costs more than it does unobserved.
`sample`: the stack of the loop's thread, taken a thousand times a CPU second; true shares, no counts.
"""

import cProfile
import io
import json
import pstats
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

SAMPLE_S = 0.001  # the kernel's own tick may be coarser: 4 ms is usual
OURS = ("deltaci/", "actors/", "protocol/")
TITLES = {
    "packages": "whose code ran",
    "own": "which function ran",
    "charged": "the innermost function of ours on the stack: its own time and that of the libraries it called",
    "within": "the function was on the stack",
}


@contextmanager
def recorded(target: str) -> Iterator[None]:
    """Record the block into the file of `target`, which is `calls:FILE` or `sample:FILE`; nothing when empty."""
    kind, _, file = target.partition(":")
    if kind == "calls":
        profiler = cProfile.Profile()
        profiler.enable()
        try:
            yield
        finally:
            profiler.disable()
            profiler.dump_stats(file)
    elif kind == "sample":
        sampler = Sampler()
        sampler.start()
        try:
            yield
        finally:
            sampler.stop(Path(file))
    else:
        yield


class Sampler:
    """Counts what was on the stack when the timer fired."""

    def __init__(self) -> None:
        self.total = 0
        self.own: Counter[str] = Counter()
        self.charged: Counter[str] = Counter()
        self.packages: Counter[str] = Counter()
        self.within: Counter[str] = Counter()

    def start(self) -> None:
        """From here on."""
        signal.signal(signal.SIGPROF, self._take)
        signal.siginterrupt(signal.SIGPROF, False)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_S, SAMPLE_S)

    def _take(self, _number: int, frame: FrameType | None) -> None:
        self.total += 1
        seen: dict[str, None] = {}
        charged = ""
        while frame is not None:
            code = frame.f_code
            name = f"{_short(code.co_filename)}:{code.co_qualname}"
            if not charged and name.startswith(OURS):
                charged = name
            seen[name] = None
            frame = frame.f_back
        own = next(iter(seen), "")
        self.own[own] += 1
        self.charged[charged] += 1
        self.packages[own.partition("/")[0].partition(":")[0]] += 1
        self.within.update(seen.keys())

    def stop(self, file: Path) -> None:
        """Write what was counted."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        counted = {
            "total": self.total,
            "packages": self.packages,
            "own": self.own,
            "charged": self.charged,
            "within": self.within,
        }
        file.write_text(json.dumps(counted))


def report(target: str, count: int) -> str:
    """The `count` most expensive functions of a recording, by own and by cumulative time."""
    kind, _, file = target.partition(":")
    if kind == "calls":
        stream = io.StringIO()
        stats = pstats.Stats(file, stream=stream)
        for order in ("tottime", "cumulative"):
            stats.sort_stats(order).print_stats(count)
        return stream.getvalue()
    counted = json.loads(Path(file).read_text())
    total = max(1, counted["total"])
    lines = [f"{total} samples"]
    for title, meaning in TITLES.items():
        lines.append(f"\n{title}: {meaning}")
        ranked = sorted(counted[title].items(), key=lambda entry: -entry[1])[:count]
        lines += [f"{100 * hits / total:6.1f} %  {name}" for name, hits in ranked]
    return "\n".join(lines)


def _short(file: str) -> str:
    for mark in ("/site-packages/", "/python3.11/"):
        if mark in file:
            return file.rpartition(mark)[2]
    parts = file.split("/")
    own = next((place for place, part in enumerate(parts) if f"{part}/" in OURS), len(parts) - 1)
    return "/".join(parts[own:])
