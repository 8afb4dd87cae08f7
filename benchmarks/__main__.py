"""`python -m benchmarks`: load tests against a real server process, as one table, each beside its empty baseline."""

import asyncio
import json
import platform
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import click
import psutil
from rich.console import Console

from benchmarks import (
    commits,
    depth,
    dispatch,
    heartbeats,
    lifecycles,
    load,
    memory,
    planning,
    processes,
    profiling,
    restart,
    results,
    webhooks,
    workloads,
)
from benchmarks.results import Row

QUESTIONS: Mapping[str, Callable[[load.Plan, Path], Awaitable[list[Row]]]] = {
    "commits": commits.measure,
    "webhooks": webhooks.measure,
    "heartbeats": heartbeats.measure,
    "lifecycles": lifecycles.measure,
    "dispatch": dispatch.measure,
    "depth": depth.measure,
    "restart": restart.measure,
    "memory": memory.measure,
    "planning": planning.measure,
}
PROFILE_TOP = 40
WIDTH = 180


@click.command()
@click.option("--only", multiple=True, type=click.Choice(list(QUESTIONS)), help="Ask this one; may be repeated.")
@click.option("--quick", is_flag=True, help="Small sizes, one round: shows that everything works, in under a minute.")
@click.option("--rounds", type=click.IntRange(1, 100), help="Rounds of each measurement (3; 1 if quick).")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write all values there, too.")
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Replace the table in this page (docs/performance.md).",
)
@click.option(
    "--profile",
    type=click.Choice(["calls", "sample"]),
    help="Instead: the load of --transport (lifecycles, or webhooks) on a server that is profiled.",
)
@click.option("--transport", type=click.Choice(["websocket", "http", "webhooks"]), default="websocket")
def main(
    only: tuple[str, ...],
    quick: bool,
    rounds: int | None,
    file: Path | None,
    page: Path | None,
    profile: str | None,
    transport: str,
) -> None:
    """Measure a real server process and compare it with doing nothing."""
    # Being ended is like Ctrl-C (which a shell may have told us to ignore): servers and files are cleared away first.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, lambda *_: signal.raise_signal(signal.SIGINT))
    plan = load.Plan(is_quick=quick, rounds=rounds)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = WIDTH
    with processes.scratch() as scratch:
        if profile:
            _run(_profile(plan, scratch, profile, transport, console))
            return
        started = time.perf_counter()
        rows = _run(_measure(plan, scratch, only or tuple(QUESTIONS), console))
        title = f"{_machine()}; {plan.rounds} rounds, {time.perf_counter() - started:.0f} s"
        results.show(console, rows, f"Delta CI: {title}")
    at = time.gmtime()
    if page is not None:
        heading = f"{time.strftime('%Y-%m-%d', at)}, {title}:"
        page.write_text(results.put_into(page.read_text(), results.markdown(rows, heading)))
    if file is not None:
        document = {
            "machine": _machine(),
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", at),
            "rows": [
                {
                    "name": row.name,
                    "unit": row.unit,
                    "values": row.values,
                    "baseline": row.baseline,
                    "baseline_values": row.baseline_values,
                    "ratios": row.ratios(),
                    "target": row.target.text() if row.target else None,
                    "verdict": row.verdict(),
                    "cpu": row.cpu,
                    "load_was_the_bottleneck": row.load_was_the_bottleneck(),
                }
                for row in rows
            ],
        }
        file.write_text(json.dumps(document, indent=2) + "\n")


async def _measure(plan: load.Plan, scratch: Path, only: tuple[str, ...], console: Console) -> list[Row]:
    rows: list[Row] = []
    for name in only:
        started = time.perf_counter()
        with console.status(f"measuring {name}"):
            rows += await QUESTIONS[name](plan, scratch)
        console.print(f"{name}: {time.perf_counter() - started:.0f} s")
    return rows


async def _profile(plan: load.Plan, scratch: Path, kind: str, transport: str, console: Console) -> None:
    plan.window_s = plan.size(10, 1)
    data = scratch / "profile"
    target = f"{kind}:{scratch / 'profile.out'}"
    await workloads.fresh(data)
    async with processes.real_server(data, BENCH_PROFILE=target, **workloads.PATIENT) as server:
        if transport == "webhooks":
            rate, shares = await webhooks.new_rate(plan, server)
        else:
            supply = load.Supply(server, data, jobs_per_run=lifecycles.JOBS_PER_RUN, depth=2_000)
            rate, shares = await lifecycles.lifecycle_rate(plan, server, supply, transport)
    console.print(f"{transport}: {rate:,.0f}/s while profiled; cores: server {shares[0]:.2f}, load {shares[1]:.2f}")
    console.print(profiling.report(target, PROFILE_TOP), markup=False)


def _run(work: Awaitable[list[Row] | None]) -> list[Row]:
    """On uvloop if it is there: the load must cost less than what it loads."""
    try:
        import uvloop
    except ImportError:
        factory = None
    else:
        factory = uvloop.new_event_loop

    async def main() -> list[Row]:
        return await work or []

    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(main())


def _machine() -> str:
    memory_gib = psutil.virtual_memory().total / 2**30
    return f"{psutil.cpu_count()} cores, {memory_gib:.0f} GiB, Python {platform.python_version()}, {platform.system()}"


if __name__ == "__main__":
    main()
