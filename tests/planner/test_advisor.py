"""Words about a plan: they decide nothing, and their absence costs nothing."""

from collections.abc import AsyncIterator

import anyio
import httpx
import msgspec
import pytest

from deltaci.domain.plan import Plan, PlannedJob, Step, digest
from deltaci.planner.advisor import ADVICE_CHARACTERS_MAX, ANSWER_BYTES_MAX, HttpAdvisor, advised

pytestmark = pytest.mark.anyio

PLAN = Plan(
    commit_sha="c" * 40,
    base_sha=None,
    source="discovery",
    jobs=(PlannedJob(name="a", steps=(Step(name="x", run="x"),)),),
)


class Says:
    def __init__(self, text: str) -> None:
        self.text = text

    async def advise(self, plan: Plan) -> str:
        assert plan.jobs == PLAN.jobs
        return self.text


class Raises:
    async def advise(self, plan: Plan) -> str:
        raise RuntimeError(plan.commit_sha)


class Sleeps:
    async def advise(self, plan: Plan) -> str:
        await anyio.sleep_forever()
        return plan.commit_sha


async def test_words_stand_beside_the_plan_and_change_neither_jobs_nor_digest() -> None:
    """Two servers with other advisors make the same plan."""
    plan = await advised(PLAN, Says(" This is about the lock file.\n"), within_ms=5_000)

    assert plan.advice == "This is about the lock file."
    assert msgspec.structs.replace(plan, advice="") == PLAN
    assert digest(plan) == digest(PLAN)


async def test_words_are_cut_and_cleaned() -> None:
    """They end on terminals and pages."""
    plan = await advised(PLAN, Says("a\x1b[2Jb\nc" + "x" * 2 * ADVICE_CHARACTERS_MAX), within_ms=5_000)

    assert plan.advice.startswith("a [2Jb\ncx")
    assert len(plan.advice) == ADVICE_CHARACTERS_MAX


@pytest.mark.parametrize("advisor", [None, Raises(), Sleeps()])
async def test_an_advisor_that_fails_or_is_silent_costs_its_words_alone(advisor: Raises | Sleeps | None) -> None:
    """The plan is what it would have been."""
    assert await advised(PLAN, advisor, within_ms=20) == PLAN


async def streamed(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (500, b'{"text": "x"}'),
        (302, b'{"text": "x"}'),
        (200, b'{"txt": "x"}'),
        (200, b'{"text": "' + b"x" * ANSWER_BYTES_MAX + b'"}'),
    ],
    ids=["500", "redirect", "other", "large"],
)
async def test_an_answer_that_is_no_advice_is_none(status: int, data: bytes) -> None:
    """Whatever the other side is."""
    headers = {"location": "http://elsewhere.invalid/"}
    transport = httpx.MockTransport(lambda _: httpx.Response(status, content=streamed(data), headers=headers))
    async with httpx.AsyncClient(transport=transport) as client:
        plan = await advised(PLAN, HttpAdvisor(client, "http://advisor.invalid/"), within_ms=5_000)

    assert plan == PLAN


async def test_the_whole_plan_is_posted_and_the_text_taken() -> None:
    """What the advisor needs to say why."""
    asked: list[Plan] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(msgspec.json.decode(request.content, type=Plan))
        return httpx.Response(200, content=streamed(b'{"text": "fine"}'))

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        plan = await advised(PLAN, HttpAdvisor(client, "http://advisor.invalid/"), within_ms=5_000)

    assert asked == [PLAN]
    assert plan.advice == "fine"
