"""`deltaci serve` with one part replaced: a planner that reads no repository, so that what is measured is the rest.

The title of a push says what to plan: `jobs=50` (fifty jobs of one step), `chain=20` (each needs the one before),
`held` (the planner never answers: webhooks come faster than plans are made). Everything else is the real thing.
"""

import os
import sys

import anyio

from benchmarks import profiling, workloads
from deltaci import wiring
from deltaci.cli.serve import serve
from deltaci.domain.plan import Plan
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run


class FixedPlanner:
    """Plans what the title says."""

    def __init__(self, *_real: object) -> None:
        """Whatever the real one needs."""

    async def plan(self, run: Run, _repo: Repo) -> Plan:
        """The plan for the run's title."""
        kind, _, count = run.trigger.title.partition("=")
        if kind == "held":
            await anyio.sleep_forever()
        return workloads.plan(run.trigger.commit_sha, int(count or "1"), is_chain=kind == "chain")


if __name__ == "__main__":
    wiring.PlannerPort = FixedPlanner  # type: ignore[assignment,misc]
    with profiling.recorded(os.environ.get("BENCH_PROFILE", "")):
        serve.main(sys.argv[1:], standalone_mode=False)
