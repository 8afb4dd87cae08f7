"""How many webhooks a second does the server put on disk and answer with 202, beside an empty handler?"""

from collections.abc import Iterator
from pathlib import Path

from benchmarks import load, workloads
from benchmarks.load import Window
from benchmarks.processes import Server, empty_server, real_server
from benchmarks.results import Row, Target
from benchmarks.wire import Http, post

CONNECTIONS = 32
VARIANTS = (
    ("1 repository, plans held up", "held", 1),
    ("16 repositories, plans held up", "held", 16),
    ("16 repositories, planned at once", "jobs=1", 16),
)
NOTE = (
    "Signed pushes of the git forge over 32 connections, each a new commit; 202 means that delivery, run, events and "
    "outbox are on disk. 'plans held up': the planner does not answer, as in a burst that is faster than plans are "
    "made; 'planned at once': a planner that reads no repository makes each a run of one job meanwhile."
)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """A row a variant, each on a fresh server."""
    rows = []
    for name, title, repos in VARIANTS:
        data = scratch / f"webhooks-{len(rows)}"
        await workloads.fresh(data)
        row = Row(
            name=f"webhooks to durable 202: {name}",
            unit="/s",
            values=[],
            baseline="empty POST/s",
            target=Target("ratio", 0.5),
            note=NOTE,
        )
        async with real_server(data) as server, empty_server(data) as empty:
            webhooks = workloads.Webhooks(server)
            for _ in range(plan.rounds):
                body = webhooks.make("empty").partition(b"\r\n\r\n")[2]
                rate, _ = await _rate(
                    plan, empty, _same(post(empty, "/empty", body, {"content-type": "application/json"}))
                )
                row.baseline_values.append(rate)
                rate, shares = await _rate(plan, server, _new(webhooks, title, repos))
                row.values.append(rate)
                row.cpu.append(shares)
        rows.append(row)
    return rows


async def new_rate(plan: load.Plan, server: Server) -> tuple[float, tuple[float, float]]:
    """Webhooks a second of 16 repositories, planned at once, and the shares of a core."""
    return await _rate(plan, server, _new(workloads.Webhooks(server), "jobs=1", workloads.REPOS))


async def _rate(plan: load.Plan, server: Server, requests: Iterator[bytes]) -> tuple[float, tuple[float, float]]:
    async with load.connections(server, CONNECTIONS) as opened:

        def worker(connection: Http):  # noqa: ANN202
            async def work(window: Window) -> None:
                while not window.is_over:
                    await load.push(connection, next(requests))
                    window.count += 1

            return work

        return await Window().measure(
            server, [worker(one) for one in opened], warm_s=plan.warm_s, window_s=plan.window_s
        )


def _same(request: bytes) -> Iterator[bytes]:
    while True:
        yield request


def _new(webhooks: workloads.Webhooks, title: str, repos: int) -> Iterator[bytes]:
    while True:
        yield webhooks.make(title, repos=repos)
