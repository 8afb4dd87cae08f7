"""A runner asks for what it fetches with, over both transports, and no log line shows it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loguru import logger

from deltaci.domain.errors import ForgeUnavailable
from protocol import messages as wire
from tests.gateway.support import Gateway, call, fence, opened
from tests.orchestrator.support import a_job
from tests.orchestrator.test_credentials import PASSWORD, Given, short_lived

pytestmark = pytest.mark.anyio


@pytest.fixture
def log() -> Iterator[list[str]]:
    lines: list[str] = []
    sink = logger.add(lines.append, level=0, diagnose=True, backtrace=True)
    yield lines
    logger.remove(sink)


async def leased(gateway: Gateway) -> tuple[str, wire.LeaseGranted]:
    await gateway.deliver()
    runner_id = await gateway.register()
    return runner_id, await gateway.lease(runner_id)


async def test_both_transports_carry_it_and_no_log_does(tmp_path: Path, log: list[str]) -> None:
    """The same answer to the same holder; what another says with the lease is stale."""
    async with opened(tmp_path, a_job(), credentials=short_lived()) as gateway:
        runner_id, lease = await leased(gateway)
        over_http = await gateway.told(wire.AskCredential(**fence(lease)), runner_id=runner_id)
        stale = await gateway.say(wire.AskCredential(**{**fence(lease), "lease_id": "0" * 32}), runner_id=runner_id)
        async with gateway.channel() as socket:
            await call(socket, 1, wire.Register(name="r1"))
            over_the_channel = await call(socket, 2, wire.AskCredential(**fence(lease)))

    assert isinstance(over_http, wire.CredentialGiven)
    assert over_http.password == PASSWORD
    assert over_the_channel == over_http
    assert stale.status_code == 409
    assert not [line for line in log if PASSWORD in line]


async def test_a_forge_that_is_away_is_an_answer_to_try_again(tmp_path: Path) -> None:
    """With the time that the forge asks for, over both transports."""
    given = Given(ForgeUnavailable("the forge is away", retry_after_ms=7_000))
    async with opened(tmp_path, a_job(), credentials=given) as gateway:
        runner_id, lease = await leased(gateway)
        response = await gateway.say(wire.AskCredential(**fence(lease)), runner_id=runner_id)
        async with gateway.channel() as socket:
            await call(socket, 1, wire.Register(name="r1"))
            answer = await call(socket, 2, wire.AskCredential(**fence(lease)))

    assert (response.status_code, response.headers["Retry-After"]) == (502, "7")
    assert isinstance(answer, wire.Failure)
    assert (answer.http_status, answer.retry_after_ms) == (502, 7_000)
