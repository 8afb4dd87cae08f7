"""Serving the application: Hypercorn on one loop, and an end that finishes what was accepted."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
from hypercorn.asyncio import serve
from hypercorn.config import Config
from loguru import logger
from quart import Quart

from deltaci.gateway import descriptors, wire
from deltaci.gateway.house import House


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that port 0 can be answered with the port that it became; raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.set_inheritable(True)
    # A host that lost its power says no goodbye; accepted sockets inherit this, and its runner is seen to be gone.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return listening


async def serve_until(
    app: Quart,
    house: House,
    listening: socket.socket,
    stop: Callable[[], Awaitable[None]],
    *,
    graceful_s: float,
) -> None:
    """Serve until `stop` returns; then take nothing new, and give what is under way `graceful_s` to finish."""
    wire.install()
    config = Config()
    # Hypercorn makes a socket of its own from the descriptor and closes it: from here on it is not ours.
    config.bind = [f"fd://{listening.detach()}"]
    config.graceful_timeout = graceful_s
    config.shutdown_timeout = graceful_s
    config.keep_alive_timeout = house.limits.idle_timeout_s
    config.keep_alive_max_requests = 1_000_000
    config.backlog = 1024
    config.h11_max_incomplete_size = 32 * 1024
    # No pings from here: runners ping, leases have their own patience, and Hypercorn's pinger keeps every closed socket
    # for one more interval, which is how long an orderly end would take.
    config.websocket_ping_interval = None
    config.websocket_max_message_size = house.limits.body_bytes_max
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")

    async def trigger() -> None:
        await stop()
        house.drain()
        # One breath for idle channels and long polls to be told before the listening socket goes.
        await anyio.sleep(0.05)

    async def run() -> None:
        try:
            await serve(app, config, shutdown_trigger=trigger, mode="asgi")
        except anyio.get_cancelled_exc_class():
            # What was still under way after `graceful_s` was cut off; Hypercorn lets that cancellation out.
            if not house.draining.is_set():
                raise
            logger.warning("requests were cut off after {} s", graceful_s)
        except asyncio.InvalidStateError:
            # Canceled while requests are under way, Hypercorn stumbles over its own tidying: the cancellation goes on.
            await anyio.lowlevel.checkpoint()
            raise

    descriptors.let_watch_tell(asyncio.get_running_loop())
    async with anyio.create_task_group() as watching:
        watching.start_soon(descriptors.watch)
        # In a task of its own: Hypercorn ends by cancelling the task that it runs in, and that must not be ours.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
        watching.cancel_scope.cancel()
