"""What no webhook told is found by looking: after a start, and from time to time; and it is found once."""

from collections.abc import Mapping, Sequence
from typing import Any

import anyio
import msgspec
import pytest

from deltaci.domain.errors import ForgeUnavailable
from deltaci.domain.missed import RemoteDelivery, pull_request_trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.states import EndReason
from deltaci.orchestrator.messages import Admit
from deltaci.orchestrator.paths import FORGES
from deltaci.store.memory import MemoryStore
from deltaci.store.port import Store
from tests.orchestrator.faults import assert_sound, nodes
from tests.orchestrator.support import Stage, a_job, a_repo, staged

pytestmark = pytest.mark.anyio

MAIN = "refs/heads/main"
REPO = a_repo(name="acme/shop", forge="github", api_token="t" * 20, created_at_ms=1_000)
EVERY_MS = 60_000


def sha(number: int) -> str:
    return f"{number:040x}"


def pull(number: int, head: int, *, at_ms: int = 2_000, is_open: bool = True) -> PullRequest:
    return PullRequest(
        repo_id="repo_1",
        number=number,
        head_sha=sha(head),
        head_ref=f"refs/heads/topic-{number}",
        base_ref=MAIN,
        base_sha=sha(0),
        is_open=is_open,
        updated_at_ms=at_ms,
    )


class FakeForge:
    """What it shows may be changed; `meanwhile` is called in the middle of a look. It also lists what it sent."""

    has_app = False

    def __init__(self) -> None:
        self.pulls: dict[int, PullRequest] = {}
        self.heads: dict[str, str] = {}
        self.looks = 0
        self.away = 0
        self.meanwhile: Any = None
        self.sent: tuple[RemoteDelivery, ...] = ()
        self.asked_again: list[int] = []

    def is_app(self, _repo: Repo) -> bool:
        return False

    async def pull_request(self, _repo: Repo, number: int) -> PullRequest | None:
        return self.pulls.get(number)

    async def open_pull_requests(self, _repo: Repo) -> tuple[PullRequest, ...]:
        self.looks += 1
        if self.away:
            self.away -= 1
            raise ForgeUnavailable("the forge is away", retry_after_ms=2 * EVERY_MS)
        return tuple(one for one in self.pulls.values() if one.is_open)

    async def branch_heads(self, _repo: Repo, patterns: Sequence[str]) -> Mapping[str, str]:
        assert tuple(patterns) == ("main",)
        heads = dict(self.heads)
        if self.meanwhile is not None:
            await self.meanwhile()
        return heads

    async def deliveries(self, _repo: Repo | None, since_ms: int) -> tuple[RemoteDelivery, ...]:
        return tuple(one for one in self.sent if one.delivered_at_ms >= since_ms)

    async def redeliver(self, _repo: Repo | None, delivery_id: int) -> None:
        self.asked_again.append(delivery_id)


def watched(forge: FakeForge, store: Store | None = None) -> Any:
    return staged(store or MemoryStore(), a_job(), repo=REPO, forges={"github": forge}, forge_look_every_ms=EVERY_MS)


async def look(stage: Stage, forge: FakeForge) -> None:
    """Until one more look has begun and ended."""
    before = forge.looks
    stage.clock.advance(EVERY_MS)
    with anyio.fail_after(10):
        while True:
            if forge.looks > before and is_idle(stage):
                return
            await anyio.sleep(0.005)


def is_idle(stage: Stage) -> bool:
    """Whether no look is under way."""
    return bool(nodes(stage.orchestrator.system.tree())[FORGES].state == "0 under way")


async def send(stage: Stage, delivery: str, one: PullRequest) -> str | None:
    """The webhook of a pull request."""
    message = Admit(
        delivery_id=delivery,
        body_sha256=delivery,
        event="pull_request",
        trigger=pull_request_trigger("github", one),
        pull_request=one,
    )
    return (await stage.orchestrator.admit("repo_1", message)).run_id


async def runs(stage: Stage) -> list[tuple[str, str]]:
    found = await stage.store.list_runs(limit=200)
    return sorted((one.run.key.trigger_type, one.run.key.commit_sha) for one in found)


async def test_the_first_look_takes_note_and_the_next_one_finds_what_was_lost() -> None:
    """What was there before the repository was added starts nothing."""
    forge = FakeForge()
    forge.pulls = {7: pull(7, 1, at_ms=999)}
    forge.heads = {MAIN: sha(2)}
    async with watched(forge) as stage:
        await look(stage, forge)
        assert await runs(stage) == []

        forge.pulls = {7: pull(7, 3), 8: pull(8, 4)}
        forge.heads = {MAIN: sha(5)}
        await look(stage, forge)
        found = await runs(stage)
        await look(stage, forge)

        assert found == [("pull_request", sha(3)), ("pull_request", sha(4)), ("push", sha(5))]
        assert await runs(stage) == found
        (push,) = [one.run for one in await stage.store.list_runs(limit=9) if one.run.key.trigger_type == "push"]
        assert push.trigger.base_sha == sha(2)
        events = {one.delivery.event for one in await stage.store.newest_deliveries()}
        assert events == {"look"}
        await assert_sound(stage.store)


async def test_a_webhook_and_a_look_are_one_run_in_whatever_order_they_come() -> None:
    """The late webhook finds the run of the look, and the look that of the webhook."""
    forge = FakeForge()
    async with watched(forge) as stage:
        await look(stage, forge)
        forge.pulls = {7: pull(7, 1), 8: pull(8, 2)}
        early = await send(stage, "d1", pull(7, 1))
        await look(stage, forge)
        late = await send(stage, "d2", pull(8, 2))

        assert await runs(stage) == [("pull_request", sha(1)), ("pull_request", sha(2))]
        found = {one.run.id for one in await stage.store.list_runs(limit=9)}
        assert found == {early, late}


async def test_what_was_closed_without_a_word_ends() -> None:
    """Its run is canceled with the reason `closed`; opened again, it runs again."""
    forge = FakeForge()
    async with watched(forge) as stage:
        await look(stage, forge)
        forge.pulls = {7: pull(7, 1)}
        run_id = await send(stage, "d1", pull(7, 1))
        forge.pulls = {7: pull(7, 1, at_ms=3_000, is_open=False)}
        await look(stage, forge)
        ended = await stage.run_until(str(run_id), "CANCELED")

        forge.pulls = {7: pull(7, 1, at_ms=4_000)}
        await look(stage, forge)

        assert ended.end_reason is EndReason.CLOSED
        assert [one.run.attempt for one in await stage.store.list_runs(limit=9)] == [2, 1]
        await assert_sound(stage.store)


async def test_webhooks_in_the_wrong_order_end_with_the_head() -> None:
    """The older commit came last and superseded the newer one: the look starts that again."""
    forge = FakeForge()
    async with watched(forge) as stage:
        await look(stage, forge)
        forge.pulls = {7: pull(7, 2, at_ms=3_000)}
        newer = await send(stage, "d2", pull(7, 2, at_ms=3_000))
        older = await send(stage, "d1", msgspec.structs.replace(pull(7, 1, at_ms=3_000)))
        await stage.run_until(str(newer), "CANCELED")
        forge.pulls = {7: pull(7, 2, at_ms=3_001)}

        await look(stage, forge)

        await stage.run_until(str(older), "CANCELED")
        (last, *_) = await stage.store.list_runs(limit=9)
        assert (last.run.key.commit_sha, last.run.attempt) == (sha(2), 2)


async def test_a_look_does_not_undo_what_a_webhook_told_meanwhile() -> None:
    """What it saw is older: a run of it now would supersede that of the head."""
    forge = FakeForge()
    async with watched(forge) as stage:
        await look(stage, forge)
        forge.pulls = {7: pull(7, 1)}

        async def push() -> None:
            forge.meanwhile = None
            await send(stage, "d1", pull(7, 2, at_ms=5_000))

        forge.meanwhile = push
        await look(stage, forge)
        assert await runs(stage) == [("pull_request", sha(2))]

        forge.pulls = {7: pull(7, 2, at_ms=5_000)}
        await look(stage, forge)
        assert await runs(stage) == [("pull_request", sha(2))]


async def test_a_forge_that_is_away_is_looked_at_when_it_asks_to_be() -> None:
    """And a removed repository is not looked at any more."""
    forge = FakeForge()
    forge.away = 1
    async with watched(forge) as stage:
        await look(stage, forge)
        stage.clock.advance(2 * EVERY_MS - 1)
        await anyio.sleep(0.05)
        assert forge.looks == 1
        stage.clock.advance(1)
        await look(stage, forge)
        assert forge.looks > 1


async def test_what_never_arrived_is_asked_for_again() -> None:
    """Not what is in the ledger, and not what may be on its way."""
    forge = FakeForge()
    async with watched(forge) as stage:
        await look(stage, forge)
        await send(stage, "arrived", pull(7, 1))
        forge.pulls = {7: pull(7, 1)}
        now_ms = stage.clock.at_ms

        def sent(number: int, guid: str, at_ms: int) -> RemoteDelivery:
            return RemoteDelivery(
                id=number,
                guid=guid,
                delivered_at_ms=at_ms,
                is_redelivery=False,
                status_code=0,
                event="push",
                action="",
                repository_id=1,
                installation_id=None,
            )

        forge.sent = (sent(1, "arrived", now_ms), sent(2, "lost", now_ms), sent(3, "fresh", now_ms + EVERY_MS))
        await look(stage, forge)

        assert forge.asked_again == [2]
