"""How many heartbeats a second does the server answer, beside an empty handler and an empty echo?"""

import asyncio
from pathlib import Path
from typing import Any

from benchmarks import load, workloads
from benchmarks.load import Window
from benchmarks.processes import Server, empty_server, real_server
from benchmarks.results import Row, Target
from benchmarks.wire import Channel, Http, post
from protocol import messages as wire
from protocol.codec import MSGPACK_TYPE, encode_body

NOTE = "64 runners, each with one lease and one heartbeat under way; the baseline gets the same bytes back and forth."
HELD = wire.Heartbeat(lease_id="0" * 32, job_id="job_0000000000000000000_000", attempt=1, step=0)


async def measure(plan: load.Plan, scratch: Path) -> list[Row]:
    """A row a transport."""
    data = scratch / "heartbeats"
    await workloads.fresh(data)
    over_http = Row(name="heartbeats over HTTP", unit="/s", values=[], baseline="empty POST/s", note=NOTE)
    over_socket = Row(
        name="heartbeats over WebSocket",
        unit="/s",
        values=[],
        baseline="empty echo/s",
        target=Target("ratio", 0.4),
        note=NOTE,
    )
    async with real_server(data, **workloads.PATIENT) as server, empty_server(data) as empty:
        supply = load.Supply(server, data, jobs_per_run=64, depth=2 * load.RUNNERS)
        await supply.fill()
        async with load.runners(server, "http") as http, load.runners(server, "websocket") as sockets:
            beating = [await _held(runner) for runner in http], [await _held(runner) for runner in sockets]
            for _ in range(plan.rounds):
                async with load.connections(empty, load.RUNNERS) as opened:
                    over_http.baseline_values.append(await empty_posts(plan, empty, opened))
                async with load.echoes(empty) as channels:
                    over_socket.baseline_values.append(await echo_rate(plan, empty, channels, HELD))
                for row, holders in zip((over_http, over_socket), beating, strict=True):
                    rate, shares = await Window().measure(
                        server, [_beat(*holder) for holder in holders], warm_s=plan.warm_s, window_s=plan.window_s
                    )
                    row.values.append(rate)
                    row.cpu.append(shares)
    return [over_http, over_socket]


async def echo_rate(plan: load.Plan, empty: Server, channels: list[Channel], message: Any) -> float:
    """Frames a second that the empty echo answers to 64 that wait for each."""

    def worker(channel: Channel):  # noqa: ANN202
        async def work(window: Window) -> None:
            while not window.is_over:
                await channel.call(message)
                window.count += 1

        return work

    workers = [worker(channel) for channel in channels]
    rate, _ = await Window().measure(empty, workers, warm_s=plan.warm_s, window_s=plan.window_s)
    return rate


async def empty_posts(plan: load.Plan, empty: Server, opened: list[Http]) -> float:
    """Requests a second that the empty handler answers to 64 that wait for each."""
    request = post(empty, "/empty", encode_body(HELD, MSGPACK_TYPE), {"content-type": MSGPACK_TYPE})

    def worker(connection: Http):  # noqa: ANN202
        async def work(window: Window) -> None:
            while not window.is_over:
                await load.push(connection, request)
                window.count += 1

        return work

    workers = [worker(one) for one in opened]
    rate, _ = await Window().measure(empty, workers, warm_s=plan.warm_s, window_s=plan.window_s)
    return rate


async def _held(runner: Any) -> tuple[Any, wire.Heartbeat]:
    """The runner with a lease that it acknowledged, and the heartbeat of it."""
    async with asyncio.timeout(30):
        while not (granted := await load.lease(runner)):
            pass
    await load.start(runner, granted[0])
    return runner, wire.Heartbeat(**load.fence(granted[0]), phase="running", step=0)


def _beat(runner: Any, heartbeat: wire.Heartbeat):  # noqa: ANN202
    async def work(window: Window) -> None:
        while not window.is_over:
            await load.say(runner, heartbeat, wire.HeartbeatAck)
            window.count += 1

    return work
