"""Serving the application: Hypercorn on one loop, and an end that finishes what was accepted."""

import logging
import socket
from collections.abc import Awaitable, Callable

import anyio
from hypercorn.asyncio import serve
from hypercorn.config import Config
from quart import Quart

from deltaci.gateway.house import House


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, so that port 0 can be answered with the port that it became; raises `OSError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    listening.set_inheritable(True)
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
    config = Config()
    # Hypercorn makes a socket of its own from the descriptor and closes it: from here on it is not ours.
    config.bind = [f"fd://{listening.detach()}"]
    config.graceful_timeout = graceful_s
    config.shutdown_timeout = graceful_s
    config.keep_alive_timeout = 75
    config.keep_alive_max_requests = 1_000_000
    config.backlog = 1024
    config.h11_max_incomplete_size = 32 * 1024
    # A socket whose peer vanished without a word is noticed; a runner's lease has its own, shorter patience.
    config.websocket_ping_interval = 20
    config.websocket_max_message_size = 4 * 1024 * 1024
    config.include_server_header = False
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")

    async def trigger() -> None:
        await stop()
        house.draining.set()
        # One breath for idle channels and long polls to be told before the listening socket goes.
        await anyio.sleep(0.05)

    await serve(app, config, shutdown_trigger=trigger, mode="asgi")
