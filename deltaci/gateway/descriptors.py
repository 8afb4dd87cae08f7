"""File descriptors: when there are no more it is said, once.

Every connection takes one, so that many clients, or careless ones, use them up. The loop goes on then: connections that
are open are served, new ones are closed or wait.
"""

import asyncio
import errno
import os
import resource
from typing import Any, Final

import anyio
from loguru import logger

LOOK_EVERY_S: Final = 1.0
_OUT: Final = frozenset({errno.EMFILE, errno.ENFILE})


async def watch() -> None:
    """Say once that there are no more descriptors, and once that there are some again; until canceled."""
    is_out = False
    while True:
        if is_out != (is_out := not _is_one_free()):
            if is_out:
                limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
                logger.error(
                    "out of file descriptors: nobody new can connect (limit {}; LimitNOFILE, ulimit -n)", limit
                )
            else:
                logger.info("there are file descriptors again")
        await anyio.sleep(LOOK_EVERY_S)


def _is_one_free() -> bool:
    try:
        os.close(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno not in _OUT
    return True


def let_watch_tell(loop: asyncio.AbstractEventLoop) -> None:
    """Keep asyncio's own loop from telling it too: at every look at the socket, once for each place in its queue."""

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if not (isinstance(error, OSError) and error.errno in _OUT and "accept" in context.get("message", "")):
            loop.default_exception_handler(context)

    loop.set_exception_handler(handle)
