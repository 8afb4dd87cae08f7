"""Whatever is repeated, by whomever and however often, happens once and is answered alike."""

from typing import Any

import anyio
import msgspec
import pytest

from deltaci.domain.errors import DeliveryReused, NotFound
from deltaci.domain.events import Trigger
from deltaci.orchestrator.messages import Admit, Admitted
from deltaci.orchestrator.repo_actor import IdempotencyConflict
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import Reply
from tests.orchestrator.faults import assert_sound, quarantined
from tests.orchestrator.support import ME, SHA, Stage, a_job, staged


def an_admit(**more: Any) -> Admit:
    trigger = Trigger(kind="push", ref="refs/heads/main", commit_sha=SHA, stream="branch:main")
    values = {"delivery_id": "d1", "body_sha256": "b1", "event": "push", "trigger": trigger, "ignored": None}
    return Admit(**(values | more))


async def at_once(stage: Stage, *admits: Admit) -> list[Admitted]:
    answers: list[Admitted] = []

    async def one(message: Admit) -> None:
        answers.append(await stage.orchestrator.admit(stage.repo.id, message))

    async with anyio.create_task_group() as tasks:
        for message in admits:
            tasks.start_soon(one, message)
    return answers


@pytest.mark.anyio
async def test_the_same_delivery_a_hundred_times_at_once_is_one_run_and_one_answer() -> None:
    """A forge that saw no answer in time sends it again, and all of them get what the first got."""
    async with staged(MemoryStore(), a_job()) as stage:
        answers = await at_once(stage, *[an_admit()] * 100)

        assert len(set(answers)) == 1
        assert not answers[0].is_duplicate
        assert len(await stage.store.list_runs()) == 1
        assert await stage.orchestrator.admit(stage.repo.id, an_admit()) == answers[0]


@pytest.mark.anyio
async def test_the_same_content_under_other_ids_is_the_same_run_and_a_duplicate() -> None:
    """Two webhooks set up for one event, or a replay under a new id."""
    async with staged(MemoryStore(), a_job()) as stage:
        first = await stage.orchestrator.admit(stage.repo.id, an_admit())

        again = await at_once(stage, *(an_admit(delivery_id=f"other-{number}") for number in range(50)))

        assert set(again) == {Admitted(run_id=first.run_id, is_duplicate=True, ignored=None)}
        assert await at_once(stage, an_admit(delivery_id="other-7")) == [again[0]]
        assert len(await stage.store.list_runs()) == 1


@pytest.mark.anyio
async def test_another_body_about_the_same_commit_is_the_same_run() -> None:
    """The run key decides: a branch created at a commit that was pushed already, say."""
    async with staged(MemoryStore(), a_job()) as stage:
        first = await stage.orchestrator.admit(stage.repo.id, an_admit())

        again = await stage.orchestrator.admit(stage.repo.id, an_admit(delivery_id="d2", body_sha256="b2"))

        assert again == Admitted(run_id=first.run_id, is_duplicate=True, ignored=None)


@pytest.mark.anyio
async def test_a_delivery_id_with_other_content_is_refused() -> None:
    """An id names one delivery for ever; the stored one stands."""
    async with staged(MemoryStore(), a_job()) as stage:
        first = await stage.orchestrator.admit(stage.repo.id, an_admit())

        with pytest.raises(DeliveryReused):
            await stage.orchestrator.admit(stage.repo.id, an_admit(body_sha256="b2"))
        with pytest.raises(DeliveryReused):
            await stage.orchestrator.admit(stage.repo.id, an_admit(body_sha256="b3", trigger=None, ignored="no commit"))

        assert await stage.orchestrator.admit(stage.repo.id, an_admit()) == first
        assert quarantined(stage) == []


@pytest.mark.anyio
async def test_an_ignored_delivery_is_recorded_with_its_reason() -> None:
    """Every 2xx has a run or a recorded reason why not."""
    async with staged(MemoryStore(), a_job()) as stage:
        ping = an_admit(event="ping", trigger=None, ignored="a ping asks for nothing")

        answers = await at_once(stage, *[ping] * 10)

        assert set(answers) == {Admitted(run_id=None, is_duplicate=False, ignored="a ping asks for nothing")}
        stored = await stage.store.delivery(stage.repo.id, "d1")
        assert stored is not None
        assert (stored.ignored, stored.event, stored.run_id) == ("a ping asks for nothing", "ping", None)


@pytest.mark.anyio
async def test_deliveries_of_an_unknown_repository_quarantine_nobody() -> None:
    """It is a normal no; the repository may be added a moment later."""
    async with staged(MemoryStore(), a_job()) as stage:
        for number in range(6):
            with pytest.raises(NotFound):
                await stage.orchestrator.admit("repo_late", an_admit(delivery_id=f"d{number}"))

        await stage.orchestrator.add_repo(msgspec.structs.replace(stage.repo, id="repo_late", name="late"), ME)

        assert (await stage.orchestrator.admit("repo_late", an_admit())).run_id is not None


async def start(stage: Stage, key: str, sha: str = SHA) -> Reply:
    trigger = Trigger(kind="manual", ref="refs/heads/main", commit_sha=sha)
    return await stage.orchestrator.start_run(stage.repo.id, trigger, ME, key=key)


@pytest.mark.anyio
async def test_one_idempotency_key_starts_one_run_however_often_it_is_sent_at_once() -> None:
    """A double click must neither start a second run nor count as crashes of the repository."""
    async with staged(MemoryStore(), a_job()) as stage:
        replies: list[Reply] = []

        async def one() -> None:
            replies.append(await start(stage, "key"))

        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(one)

        assert len(set(replies)) == 1
        assert len(await stage.store.list_runs()) == 1
        assert quarantined(stage) == []
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_an_idempotency_key_with_another_request_is_a_conflict() -> None:
    """409, and nothing is started."""
    async with staged(MemoryStore(), a_job()) as stage:
        await start(stage, "key")

        with pytest.raises(IdempotencyConflict) as refused:
            await start(stage, "key", sha="b" * 40)

        assert refused.value.http_status == 409
        assert len(await stage.store.list_runs()) == 1


@pytest.mark.anyio
async def test_another_key_for_the_same_commit_starts_the_next_attempt() -> None:
    """A person who asks twice, with two keys, wants two runs."""
    async with staged(MemoryStore(), a_job()) as stage:
        first, second = await start(stage, "one"), await start(stage, "two")

        assert [msgspec.json.decode(reply.body)["attempt"] for reply in (first, second)] == [1, 2]
