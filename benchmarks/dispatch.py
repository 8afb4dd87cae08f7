"""How long does a queued job wait for a runner that waits for a job?

Taken from the journal's time of the decision to queue, before its commit, to the grant in the runner's hand: an upper
bound, in whole milliseconds at its start, of the time from commit to grant.
"""

import asyncio
import random
import time
from pathlib import Path
from typing import Any

from benchmarks import lifecycles, load, workloads
from benchmarks.processes import Server, Watch, real_server
from benchmarks.results import Row, Target
from benchmarks.wire import Http

CHAINS = 32
START_S = 10.0  # that the chains may take to begin, all of them, before the measuring does
LOW_RATE = 20.0
NOTE = (
    "From the decision to queue (the journal's time, before its commit) to LeaseGranted at a waiting runner: an upper "
    "bound of the time since the commit. Half load: 32 chains of jobs, each queued by the end of the one before, paced "
    "to half of the lifecycle rate over WebSocket measured just before."
)
LOW_NOTE = (
    "A webhook every 50 ms or so (random), each a run of one job: from its 202 to LeaseGranted at a waiting runner, "
    "planning by the trivial planner included."
)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """Percentiles at half load, and from webhook to lease at low load."""
    full_rate = await lifecycles.quick_rate(plan, scratch)
    half = full_rate / 2
    middle = Row(
        name=f"queued to leased at half load ({half:,.0f}/s), p50",
        unit="ms",
        values=[],
        target=Target("value", 5, is_ceiling=True),
        note=NOTE,
    )
    tail = Row(name="... p99", unit="ms", values=[], target=Target("value", 50, is_ceiling=True), note=NOTE)
    reached = Row(name="... jobs a second while measuring", unit="/s", values=[], note=NOTE)
    low_middle = Row(name="webhook's 202 to leased at low load (20/s), p50", unit="ms", values=[], note=LOW_NOTE)
    low_tail = Row(name="... p99", unit="ms", values=[], note=LOW_NOTE)
    for number in range(plan.rounds):
        # A server a round: what is left of a round's chains would be work for the next one's runners.
        data = scratch / f"dispatch-{number}"
        await workloads.fresh(data)
        async with real_server(data, **workloads.PATIENT) as server:
            waits = await _low_load(server, plan)
            low_middle.values.append(_percentile(waits, 50))
            low_tail.values.append(_percentile(waits, 99))
            granted_at_ms, rate, shares = await _half_load(server, half, plan)
            queued_at_ms = workloads.queued_at_ms(data, set(granted_at_ms))
        waits = [at_ms - queued_at_ms[job] for job, at_ms in granted_at_ms.items()]
        middle.values.append(_percentile(waits, 50))
        tail.values.append(_percentile(waits, 99))
        reached.values.append(rate)
        for row in (middle, tail):
            row.cpu.append(shares)
    return [middle, tail, reached, low_middle, low_tail]


async def _half_load(
    server: Server, rate: float, plan: load.Plan
) -> tuple[dict[str, float], float, tuple[float, float]]:
    """(when each job was granted, jobs a second, shares of a core) with `rate` jobs a second asked for."""
    seconds = plan.window_s * 2
    length = min(1000, int(rate * (seconds + START_S) / CHAINS) + 1)
    webhooks = workloads.Webhooks(server, seed=random.randrange(1 << 30))
    granted_at_ms: dict[str, float] = {}
    begun: set[str] = set()
    is_over = False
    pace = Pace(rate)

    async def work(runner: Any) -> None:
        while not is_over:
            for granted in await load.lease(runner):
                granted_at_ms[granted.job_id] = time.time_ns() / 1e6
                begun.add(granted.run_id)
                await load.start(runner, granted)
                await pace.turn()
                await load.finish(runner, granted)

    connection = await Http.connect(server)
    async with load.runners(server, "websocket") as runners:
        tasks = [asyncio.create_task(work(runner)) for runner in runners]
        try:
            for _ in range(CHAINS):
                await load.push(connection, webhooks.make(f"chain={length}", repos=workloads.REPOS))
            async with asyncio.timeout(30):
                while len(begun) < CHAINS:  # noqa: ASYNC110 - a condition on what many tasks do
                    await asyncio.sleep(0.02)
            await asyncio.sleep(plan.warm_s)
            granted_at_ms.clear()
            watch, started = Watch(server), time.perf_counter()
            await asyncio.sleep(seconds)
            counted, elapsed, shares = dict(granted_at_ms), time.perf_counter() - started, watch.shares()
            is_over = True
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            connection.close()
    return counted, len(counted) / elapsed, shares


class Pace:
    """Lets one through every `1 / rate` seconds, so that the jobs' ends come evenly."""

    def __init__(self, rate: float) -> None:
        self._every_s = 1 / rate
        self._next = 0.0

    async def turn(self) -> None:
        """Wait for a place in the sequence."""
        now = asyncio.get_running_loop().time()
        self._next = max(now, self._next + self._every_s)
        if self._next > now:
            await asyncio.sleep(self._next - now)


async def _low_load(server: Server, plan: load.Plan) -> list[float]:
    """Milliseconds from 202 to the grant."""
    webhooks = workloads.Webhooks(server, seed=random.randrange(1 << 30))
    rng = random.Random(workloads.SEED)
    leased: dict[str, asyncio.Future[float]] = {}
    is_over = False

    async def work(runner: Any) -> None:
        while not is_over:
            for granted in await load.lease(runner):
                _arrival(leased, granted.run_id).set_result(time.perf_counter())
                await load.start(runner, granted)
                await load.finish(runner, granted)

    connection = await Http.connect(server)
    waits: list[float] = []
    async with load.runners(server, "websocket", 8) as runners:
        tasks = [asyncio.create_task(work(runner)) for runner in runners]
        try:
            for _ in range(plan.size(100, 10)):
                body = await load.push(connection, webhooks.make("jobs=1", repos=workloads.REPOS))
                accepted = time.perf_counter()
                run_id = body.decode().partition('"run_id":"')[2].partition('"')[0]
                async with asyncio.timeout(10):
                    waits.append(1e3 * (await _arrival(leased, run_id) - accepted))
                await asyncio.sleep(rng.uniform(0, 2 / LOW_RATE))
            is_over = True
            async with asyncio.timeout(30):
                await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            connection.close()
    return waits


def _arrival(leased: "dict[str, asyncio.Future[float]]", run_id: str) -> "asyncio.Future[float]":
    return leased.setdefault(run_id, asyncio.get_running_loop().create_future())


def _percentile(values: list[float], share: int) -> float:
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, len(ranked) * share // 100)] if ranked else float("nan")
