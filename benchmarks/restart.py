"""After kill -9 with thousands of live jobs: how long until the first lease, and is anything lost?"""

import asyncio
import time
from pathlib import Path
from typing import Any

from benchmarks import load, workloads
from benchmarks.load import Window
from benchmarks.processes import Server, real_server
from benchmarks.results import Row, Target
from deltaci.invariants.verify import verify
from deltaci.store.sqlite import SqliteStore
from protocol import messages as wire

RUN = 10
QUEUED = 10_000  # more than runners get through before the kill
DOWN_MS = 400_000
NOTE = (
    "Jobs held by one runner host, their stored leases past their end for minutes when the server starts (it was down "
    "for longer than a TTL), in runs of 10, and 10,000 queued ones. The server is started, killed with SIGKILL while "
    "64 runners work, and started again. Lost: jobs not RUNNING afterwards, attempts marked LOST, heartbeats refused."
)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """Times and losses; every round on a database of its own, since a restart uses its grace up."""
    held = plan.size(10_000, 1_000)
    ready = Row(name=f"start with {held:,} live jobs: process start to ready", unit="s", values=[], note=NOTE)
    first = Row(
        name="... to the first lease",
        unit="s",
        values=[],
        target=Target("value", 3, is_ceiling=True),
        note=NOTE,
    )
    beats = Row(name="... to the last of their heartbeats answered", unit="s", values=[], note=NOTE)
    lost = Row(
        name=f"... live jobs lost {plan.size(20, 2)} s after",
        unit="jobs",
        values=[],
        target=Target("value", 0, is_ceiling=True),
        note=NOTE,
    )
    wrong = Row(
        name="... violations that verify finds then",
        unit="",
        values=[],
        target=Target("value", 0, is_ceiling=True),
        note=NOTE,
    )
    empty = Row(name="start with an empty database: process start to ready", unit="s", values=[], note=NOTE)
    for number in range(plan.rounds):
        await _round(plan, scratch / f"restart-{number}", held, (ready, first, beats, lost, wrong))
        await workloads.fresh(scratch / f"restart-empty-{number}")
        async with real_server(scratch / f"restart-empty-{number}") as server:
            empty.values.append(server.ready_at - server.started_at)
    ready.baseline, ready.baseline_values = "s with none", empty.values
    return [ready, first, beats, lost, wrong]


async def _round(plan: load.Plan, data: Path, held: int, rows: tuple[Row, ...]) -> None:
    ready, first, beats, lost, wrong = rows
    full = workloads.Full()
    async with workloads.prepared(data) as filler:
        for _ in range(held // RUN):
            await filler.add_run(RUN, held_since_ms=filler.now_ms - DOWN_MS, full=full)
        for _ in range(QUEUED // RUN):
            await filler.add_run(RUN, full=full)
    async with real_server(data) as server:
        await _work_and_kill(server, plan)
    async with real_server(data) as server:
        ready.values.append(server.ready_at - server.started_at)
        async with load.runners(server, "websocket", 1) as runners:
            granted = await load.lease(runners[0], wait_ms=20_000)
            first.values.append(time.perf_counter() - server.started_at)
            if not granted:
                raise RuntimeError("jobs are queued and none was leased within 20 s")
        watched_until = time.perf_counter() + plan.size(20, 2)
        refused = await _beat_all(server, full)
        beats.values.append(time.perf_counter() - server.started_at)
        await asyncio.sleep(max(0.0, watched_until - time.perf_counter()))
        lost.values.append(refused + _lost(data, full))
    async with SqliteStore.open(data / "deltaci.db", is_readonly=True) as store:
        wrong.values.append(len((await verify(store)).violations))


async def _work_and_kill(server: Server, plan: load.Plan) -> None:
    """Let runners work for a moment, and kill the server in the middle of it."""
    window = Window()

    async def work(runner: Any) -> None:
        try:
            while not window.is_over:
                for granted in await load.lease(runner):
                    await load.start(runner, granted)
                    await load.finish(runner, granted)
        except ConnectionError:
            return

    async with load.runners(server, "websocket") as runners:
        tasks = [asyncio.create_task(work(runner)) for runner in runners]
        await asyncio.sleep(plan.warm_s)
        window.is_over = True
        await asyncio.to_thread(server.kill)
        await asyncio.gather(*tasks)


async def _beat_all(server: Server, full: workloads.Full) -> int:
    """Every holder says that it lives; how many were refused."""
    refused = 0
    async with load.runners(server, "websocket", 1, name="bench-host") as runners:
        for some in workloads.batches(full.held, 128):
            answers = await asyncio.gather(
                *(
                    runners[0].call(wire.Heartbeat(job_id=job_id, lease_id=lease_id, attempt=1, step=0))
                    for job_id, lease_id in some
                )
            )
            refused += sum(not isinstance(answer, wire.HeartbeatAck) for answer in answers)
    return refused


def _lost(data: Path, full: workloads.Full) -> int:
    running = {row[0] for row in workloads.rows(data, "SELECT id FROM job WHERE state = 'RUNNING'")}
    ended = {row[0] for row in workloads.rows(data, "SELECT entity_id FROM journal WHERE type = 'AttemptEnded'")}
    return sum(job_id not in running or job_id in ended for job_id, _ in full.held)
