"""Does the length of the queue slow down taking from it?"""

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import load, workloads
from benchmarks.processes import Server, Watch, real_server
from benchmarks.results import Row, Target
from benchmarks.wire import Http

BURST = 100  # jobs leased at a stretch, and jobs in a run
NOTE = (
    "64 runners over WebSocket lease 100 jobs as fast as they can, again and again; before each burst a run of 100 "
    "jobs is pushed, so that the queue stays as long as it is. Only the bursts count. Both servers take turns."
)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """One row: the long queue beside the short one."""
    long = plan.size(100_000, 5_000)
    row = Row(
        name=f"leases with {long:,} queued",
        unit="/s",
        values=[],
        baseline="/s with 100 queued",
        target=Target("ratio", 0.8),
        note=NOTE,
    )
    async with AsyncExitStack() as stack:
        sides = []
        for count in (0, long):
            data = scratch / f"depth-{count}"
            async with workloads.prepared(data) as filler:
                full = workloads.Full()
                for _ in range(count // BURST):
                    await filler.add_run(BURST, full=full)
            server = await stack.enter_async_context(real_server(data, **workloads.PATIENT))
            runners = await stack.enter_async_context(load.runners(server, "websocket"))
            sides.append(Side(server, data, runners))
        for side in sides:
            await side.bursts(2)
        for _ in range(plan.rounds):
            row.baseline_values.append((await sides[0].bursts(plan.size(20, 3)))[0])
            rate, shares = await sides[1].bursts(plan.size(20, 3))
            row.values.append(rate)
            row.cpu.append(shares)
    return [row]


class Side:
    """One of the two servers with its runners."""

    def __init__(self, server: Server, data: Path, runners: list[Any]) -> None:
        self._server = server
        self._data = data
        self._runners = runners
        self._webhooks = workloads.Webhooks(server)
        self._queued = workloads.queued_count(data)

    async def bursts(self, count: int) -> tuple[float, tuple[float, float]]:
        """(leases a second, shares of a core) over so many bursts."""
        spent, shares = 0.0, []
        for _ in range(count):
            await self._push()
            watch, started = Watch(self._server), time.perf_counter()
            await self._burst()
            spent += time.perf_counter() - started
            shares.append(watch.shares())
        mean = (sum(share[0] for share in shares) / count, sum(share[1] for share in shares) / count)
        return count * BURST / spent, mean

    async def _push(self) -> None:
        connection = await Http.connect(self._server)
        await load.push(connection, self._webhooks.make(f"jobs={BURST}", repos=workloads.REPOS))
        connection.close()
        async with asyncio.timeout(60):
            await workloads.until_queued(self._data, self._queued + BURST)

    async def _burst(self) -> None:
        left = BURST

        async def work(runner: Any) -> None:
            nonlocal left
            while left > 0:
                left -= 1
                granted = await load.lease(runner, wait_ms=10_000)
                if len(granted) != 1:
                    raise RuntimeError(f"{len(granted)} leases with {self._queued} jobs queued")

        await asyncio.gather(*(work(runner) for runner in self._runners))
