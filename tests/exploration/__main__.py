"""`make explore`: every exploration one after the other, with how much each covers, and every planted bug."""

import sys
import time

from tests.exploration.core import HELD, SCENARIOS, Core, Flaws
from tests.exploration.dispatch_copy import DispatchCopy
from tests.exploration.explorer import Size
from tests.exploration.owners import every_decision_checked
from tests.exploration.planted import BUGS, found
from tests.exploration.test_shapes_of_runs import PLANS, explored
from tests.exploration.timed_job import TimedJob


def _row(name: str, size: Size, covers: str) -> None:
    sys.stdout.write(f"{name:34} {size.worlds:9,} {size.moves:11,} {size.depth:5} {size.seconds:6.1f}  {covers}\n")
    sys.stdout.flush()


def main() -> int:
    """Explore, and answer 0; a broken rule ends it with its story."""
    sys.stdout.write(f"{'world':34} {'worlds':>9} {'moves':>11} {'depth':>5} {'s':>6}  covers\n")
    sizes = []
    with every_decision_checked():
        for scenario in (*SCENARIOS, HELD):
            sizes.append(Core(scenario, Flaws()).explore().size)
            _row(scenario.name, sizes[-1], scenario.covers)
        for is_blocked, retries in ((True, 0), (False, 1)):
            sizes.append(TimedJob(is_blocked=is_blocked, retries=retries).explore().size)
            covers = f"exact times; two runners, {3 + retries} attempts, every phase and report"
            _row("one job with a clock" + ", first blocked" * is_blocked, sizes[-1], covers)
        for running_max in (0, 1):
            sizes.append(DispatchCopy(running_max=running_max).explore().size)
            covers = "two jobs of a repository, a runner for each; any notice lost, late or twice"
            _row(f"dispatch, limit {running_max or 'none'}", sizes[-1], covers)
    shapes = [explored(plan).size for plan in PLANS.values()]
    sizes += shapes
    depth = max(size.depth for size in shapes)
    total = Size(sum(size.worlds for size in shapes), sum(size.moves for size in shapes), depth, _seconds(shapes))
    _row("shapes of runs", total, f"three or four jobs that move by table: {len(shapes)} plans")
    worlds, moves = sum(size.worlds for size in sizes), sum(size.moves for size in sizes)
    _row("all", Size(worlds, moves, max(size.depth for size in sizes), _seconds(sizes)), "")
    sys.stdout.write("\nplanted bug, rule that finds it, moves of the shortest story, seconds\n")
    missed = 0
    for bug in BUGS:
        started = time.process_time()
        story = found(bug)
        is_found = story is not None and story.number == bug.rule
        missed += not is_found
        length = len(story.story) if story else 0
        word = f"rule {bug.rule:2}  {length:2} moves" if is_found else "NOT FOUND"
        sys.stdout.write(f"{bug.name:56} {word}  {time.process_time() - started:5.2f}\n")
    return 1 if missed else 0


def _seconds(sizes: list[Size]) -> float:
    return sum(size.seconds for size in sizes)


if __name__ == "__main__":
    sys.exit(main())
