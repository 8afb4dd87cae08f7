"""How many jobs a second go from queued to their durable end, beside empty frames and beside bare group commit?"""

import statistics
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from benchmarks import commits, heartbeats, load, workloads
from benchmarks.load import Window
from benchmarks.processes import Server, empty_server, real_server
from benchmarks.results import Row, Target

MESSAGES = 5  # lease, acknowledgement, heartbeat, log chunk, completion: each is answered after a commit of its own
JOBS_PER_RUN = 50
DEPTH = 2_000
NOTE = (
    "64 runners, each: lease, acknowledge, one heartbeat that moves the attempt to RUNNING, one log chunk of 1 KiB "
    "that closes the log, complete. 5 messages and 5 commits a job, plus its run's; webhooks of runs of 50 jobs keep "
    "2,000 queued meanwhile. Baseline: empty requests or frames, divided by 5."
)
COMMITS_NOTE = "Commits a second of the lifecycles over WebSocket (5 a job, runs not counted) to bare group commit."


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """A row a transport, and the WebSocket's commits beside bare SQLite."""
    http = Row(name="job lifecycles over HTTP", unit="/s", values=[], baseline="empty POST/s / 5", note=NOTE)
    socket = Row(
        name="job lifecycles over WebSocket",
        unit="/s",
        values=[],
        baseline="empty echo/s / 5",
        target=Target("value", 1_000),
        note=NOTE,
    )
    stored = Row(
        name="commits of these lifecycles", unit="/s", values=[], baseline="bare SQLite commits/s", note=COMMITS_NOTE
    )
    data = scratch / "lifecycles"
    await workloads.fresh(data)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(real_server(data, **workloads.PATIENT))
        empty = await stack.enter_async_context(empty_server(data))
        supply = load.Supply(server, data, jobs_per_run=JOBS_PER_RUN, depth=plan.size(DEPTH, 400))
        for number in range(plan.rounds):
            async with load.echoes(empty) as channels:
                echo = await heartbeats.echo_rate(plan, empty, channels, heartbeats.HELD)
            socket.baseline_values.append(echo / MESSAGES)
            async with load.connections(empty, load.RUNNERS) as opened:
                posts = await heartbeats.empty_posts(plan, empty, opened)
            http.baseline_values.append(posts / MESSAGES)
            stored.baseline_values.append(await commits.rate(plan, scratch / f"beside-{number}.db"))
            for row, transport in ((http, "http"), (socket, "websocket")):
                rate, shares = await lifecycle_rate(plan, server, supply, transport)
                row.values.append(rate)
                row.cpu.append(shares)
            stored.values.append(socket.values[-1] * MESSAGES)
    _check(data)
    return [http, socket, stored]


async def lifecycle_rate(
    plan: load.Plan, server: Server, supply: load.Supply, transport: str
) -> tuple[float, tuple[float, float]]:
    """Jobs a second whose completion was answered."""
    await supply.fill()
    async with load.runners(server, transport) as runners:
        workers: list[Callable[[Window], Awaitable[None]]] = [_live(runner, supply) for runner in runners]
        return await Window().measure(server, [*workers, supply.keep], warm_s=plan.warm_s, window_s=plan.window_s)


def _live(runner: Any, supply: load.Supply) -> Callable[[Window], Awaitable[None]]:
    async def work(window: Window) -> None:
        while not window.is_over:
            for granted in await load.lease(runner):
                supply.taken += 1
                await load.start(runner, granted)
                await load.finish(runner, granted)
                window.count += 1

    return work


def _check(data: Path) -> None:
    """Every job that ended did so by its one attempt: a rate of wrong results is no rate."""
    states = dict(workloads.rows(data, "SELECT state, count(*) FROM job GROUP BY state"))
    wrong = {state: count for state, count in states.items() if state not in ("QUEUED", "SUCCEEDED", "RUNNING")}
    if wrong or not states.get("SUCCEEDED"):
        raise RuntimeError(f"jobs ended in other states than SUCCEEDED: {states}")


async def quick_rate(plan: load.Plan, scratch: Path) -> float:
    """The WebSocket rate by itself, for whoever needs to know what half of it is."""
    data = scratch / "calibration"
    await workloads.fresh(data)
    async with real_server(data, **workloads.PATIENT) as server:
        supply = load.Supply(server, data, jobs_per_run=JOBS_PER_RUN, depth=plan.size(DEPTH, 400))
        rates = [(await lifecycle_rate(plan, server, supply, "websocket"))[0] for _ in range(min(2, plan.rounds))]
    return statistics.median(rates)
