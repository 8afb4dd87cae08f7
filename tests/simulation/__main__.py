"""`make simulate`: throws seeds at the real code on all cores, and stops at the first violation.

python -m tests.simulation --seeds 300            # seeds 0 to 299, one simulated hour of faults each
python -m tests.simulation --seconds 180          # as many as fit
python -m tests.simulation --seed 17 --trace      # one of them again, with every line of its trace
"""

import sys
from typing import Final

import click

from tests.simulation.bugs import BUGS, planted
from tests.simulation.coverage import never_reached
from tests.simulation.many import Total, simulate_all
from tests.simulation.simulate import simulate
from tests.simulation.world import Outcome

HOURS: Final = 1.0


@click.command()
@click.option("--seeds", type=click.IntRange(1), default=None, help="How many seeds (100).")
@click.option("--seconds", type=click.IntRange(1), default=None, help="Begin no more seeds after this time.")
@click.option("--first-seed", type=click.IntRange(0), default=0)
@click.option("--seed", type=click.IntRange(0), default=None, help="This one alone.")
@click.option("--hours", type=float, default=HOURS, help="Simulated hours with faults, a seed.")
@click.option("--bug", type=click.Choice(sorted(BUGS)), default=None, help="Plant this bug into the code.")
@click.option("--trace", is_flag=True, help="With --seed: every line of the trace.")
@click.option("--coverage", is_flag=True, help="Exit 1 also when a situation was never reached.")
def main(
    seeds: int | None,
    seconds: int | None,
    first_seed: int,
    seed: int | None,
    hours: float,
    bug: str | None,
    trace: bool,
    coverage: bool,
) -> None:
    """Simulate the control plane in many worlds; exit 1 at the first violation."""
    if seed is not None:
        with planted(bug or ""):
            outcome = simulate(seed, hours=hours, tell=click.echo if trace else None)
        total = Total()
        total.add(outcome)
        click.echo(f"trace {outcome.trace_hash}")
        _finish(total, outcome, hours, bug, needs_coverage=False)
    count = seeds if seeds is not None else sys.maxsize if seconds is not None else 100
    numbers = range(first_seed, first_seed + count)
    total, failed = simulate_all(numbers, hours=hours, bug=bug or "", seconds=seconds, tell=click.echo)
    _finish(total, failed, hours, bug, needs_coverage=coverage)


def _finish(total: Total, failed: Outcome | None, hours: float, bug: str | None, *, needs_coverage: bool) -> None:
    for line in total.table():
        click.echo(line)
    if failed is not None and failed.violations:
        click.echo(f"\nthe end of the trace of seed {failed.seed}:")
        for line in failed.tail:
            click.echo(f"  {line}")
        for violation in failed.violations:
            events = f" (journal {', '.join(map(str, violation.events))})" if violation.events else ""
            click.echo(f"VIOLATION {violation.rule} {violation.entity_id}: {violation.text}{events}")
        more = (f" HOURS={hours}" if hours != HOURS else "") + (f" BUG={bug}" if bug else "")
        click.echo(f"seed {failed.seed}; again, with the whole trace: make simulate SEED={failed.seed}{more}")
        raise SystemExit(1)
    missing = never_reached(dict(total.covered))
    click.echo("no violations")
    if missing:
        click.echo(f"never reached: {'; '.join(missing)}")
    raise SystemExit(1 if missing and needs_coverage else 0)


if __name__ == "__main__":
    main()
