"""Asking until there is a definite answer: the one place that decides what is sent again, and when it is given up."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from loguru import logger

from protocol.client import Backoff, RunnerClient, ServerUnreachable, is_retryable
from protocol.messages import Failure, RunnerMessage, ServerMessage

T = TypeVar("T")


async def ask_until_definite(
    client: RunnerClient, message: RunnerMessage, *, backoff: Backoff, can_go_on: Callable[[], bool] = lambda: True
) -> ServerMessage | None:
    """The first answer that is no retryable `Failure`; None once `can_go_on` says no.

    An outage of any length is waited out, with backoff and jitter; `Retry-After` is obeyed.
    """
    return await until_definite(
        lambda: client.call(message), what=type(message).__name__, backoff=backoff, can_go_on=can_go_on
    )


async def until_definite(
    ask: Callable[[], Awaitable[T]], *, what: str, backoff: Backoff, can_go_on: Callable[[], bool] = lambda: True
) -> T | None:
    """`ask` repeated until its answer is definite; see `ask_until_definite`."""
    while can_go_on():
        retry_after_ms = 0
        try:
            answer = await ask()
        except ServerUnreachable as error:
            logger.debug("{} is sent again: {}", what, error)
        else:
            if not isinstance(answer, Failure) or not is_retryable(answer):
                return answer
            retry_after_ms = answer.retry_after_ms or 0
            logger.debug("{} is sent again: {} {}", what, answer.http_status, answer.code)
        await asyncio.sleep(max(backoff.next_s(), retry_after_ms / 1000))
    return None
