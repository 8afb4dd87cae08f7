"""What does a live job cost in memory, in the server, and how much of that is its data?

`python -m benchmarks.memory data|actors COUNT` is the child that measures one of the two parts alone.
"""

import asyncio
import gc
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import psutil

from actors import Actor, ActorSystem
from benchmarks import load, workloads
from benchmarks.processes import Server, real_server
from benchmarks.results import Row, Target
from deltaci.orchestrator.job_actor import Owned
from deltaci.store.engine import Inline
from deltaci.store.sqlite import SqliteStore
from protocol import messages as wire

RUN = 10
WARM = 500
KIB = 1024
NOTE = (
    "Growth of the server's resident memory while jobs held by a runner become live by one heartbeat each, per job; "
    "less the job's data as decoded (domain structs), measured alone. Bare actor: one of the runtime's that handled "
    "one message and holds nothing."
)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """Per live job, its data, and per bare actor."""
    count = plan.size(10_000, 2_000)
    whole = Row(name=f"memory a live job ({count:,} live), data included", unit="KiB", values=[], note=NOTE)
    besides = Row(
        name="... besides its data",
        unit="KiB",
        values=[],
        target=Target("value", 4, is_ceiling=True),
        note=NOTE,
    )
    bare = Row(name="... of a bare actor", unit="KiB", values=[], note=NOTE)
    for number in range(plan.size(min(2, plan.rounds), 1)):
        data = scratch / f"memory-{number}"
        full = workloads.Full()
        async with workloads.prepared(data) as filler:
            for _ in range((count + WARM) // RUN):
                await filler.add_run(RUN, held_since_ms=filler.now_ms, full=full)
        structs = await asyncio.to_thread(_child, "data", str(data), str(count))
        async with real_server(data, **workloads.PATIENT) as server:
            whole.values.append(await _grown(server, full, count) / count / KIB)
        besides.values.append(whole.values[-1] - structs / KIB)
        bare.values.append(await asyncio.to_thread(_child, "actors", str(data), str(count)) / KIB)
    return [whole, besides, bare]


async def _grown(server: Server, full: workloads.Full, count: int) -> int:
    """Bytes by which the server grows when `count` jobs become live."""
    async with load.runners(server, "websocket", 1, name="bench-host") as runners:
        await _beat(runners[0], full.held[:WARM])
        before = server.rss_bytes()
        await _beat(runners[0], full.held[WARM : WARM + count])
        await asyncio.sleep(0.5)
        return server.rss_bytes() - before


async def _beat(runner: Any, held: list[tuple[str, str]]) -> None:
    for some in workloads.batches(held, 32):
        await asyncio.gather(
            *(
                load.say(runner, wire.Heartbeat(job_id=job_id, lease_id=lease_id, attempt=1), wire.HeartbeatAck)
                for job_id, lease_id in some
            )
        )


def _child(what: str, data: str, count: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", what, data, count], capture_output=True, text=True, check=True
    )
    return float(done.stdout)


# ---- the child ---------------------------------------------------------------------------------------------------


class _Idle(Actor[None]):
    async def restore(self) -> None:
        """Nothing."""

    async def handle(self, _message: Any) -> None:
        """Nothing."""


async def _data(database: Path, count: int) -> float:
    """Bytes a job of the structs that its actor holds."""
    async with SqliteStore.open(database, engine=Inline.open) as store:
        found = workloads.rows(database.parent, "SELECT id FROM job WHERE state = 'RUNNING' ORDER BY id")
        for (job_id,) in found:  # once for the database's own caches
            await store.load_job(job_id)
        gc.collect()
        before = psutil.Process().memory_info().rss
        kept = []
        for (job_id,) in found[:count]:
            loaded = await store.load_job(job_id)
            assert loaded is not None
            kept.append(Owned(*loaded))
        return (psutil.Process().memory_info().rss - before) / len(kept)


async def _actors(_database: Path, count: int) -> float:
    """Bytes an actor that handled one message."""
    async with ActorSystem(rng=random.Random(1)) as system:
        root = system.supervisor("/bench")
        family = root.entities("idle", lambda _entity: _Idle(), passivate_after_s=60.0)
        for number in range(WARM):
            await family.ref(f"warm-{number}").ask("hello", timeout=5)
        gc.collect()
        before = psutil.Process().memory_info().rss
        for number in range(count):
            await family.ref(f"idle-{number:019}_{number % RUN}").ask("hello", timeout=5)
        return (psutil.Process().memory_info().rss - before) / count


if __name__ == "__main__":
    measured = {"data": _data, "actors": _actors}[sys.argv[1]]
    print(anyio.run(measured, Path(sys.argv[2]) / "deltaci.db", int(sys.argv[3])))
