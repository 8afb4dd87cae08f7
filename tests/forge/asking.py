"""A client of forges in virtual time: waiting takes none, and is remembered."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from deltaci.forge.breaker import BreakerState
from deltaci.forge.client import ForgeClient, HttpSettings, Outcome, Pace, http_client

START_MS = 1_700_000_000_000


class VirtualTime:
    """A clock that moves when somebody sleeps; `slept` in seconds."""

    def __init__(self) -> None:
        self.at_ms = START_MS
        self.slept: list[float] = []

    def now_ms(self) -> int:
        return self.at_ms

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at_ms += round(seconds * 1000)


class Watcher:
    """What a client tells of its requests and breakers."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.states: list[BreakerState] = []

    def forge_asked(self, host: str, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def forge_breaker(self, host: str, state: BreakerState) -> None:
        self.states.append(state)


@asynccontextmanager
async def asking(
    time: VirtualTime | None = None,
    *,
    http: HttpSettings | None = None,
    pace: Mapping[str, Any] | None = None,
    **parts: Any,
) -> AsyncIterator[ForgeClient]:
    """A client whose waits take no time; `pace` changes how patient it is."""
    time = time or VirtualTime()
    async with http_client(http) as connections:
        yield ForgeClient(connections, time, random.Random(1), pace=Pace(**(pace or {})), sleep=time.sleep, **parts)
