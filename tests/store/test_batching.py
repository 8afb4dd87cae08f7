"""The queue in front of the database: bounded, and nobody in it is forgotten."""

from collections.abc import Sequence

import anyio
import pytest

from deltaci.domain.errors import StoreUnavailable
from deltaci.store import batching
from deltaci.store.batching import Batcher

pytestmark = pytest.mark.anyio


class Work:
    """Doubles numbers, batch by batch, when it is let."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.may_go = anyio.Event()

    async def __call__(self, batch: Sequence[int]) -> Sequence[int]:
        self.batches.append(list(batch))
        await self.may_go.wait()
        return [2 * number for number in batch]


@pytest.fixture
def work() -> Work:
    return Work()


async def test_what_waits_at_the_same_time_is_one_batch(work: Work) -> None:
    """While one is under way the next one gathers; everybody gets the answer to their own."""
    batcher: Batcher[int] = Batcher(work, count_max=3, size_max=100)
    answers: dict[int, int] = {}

    async def ask(number: int) -> None:
        answers[number] = await batcher.ask(number)

    async with anyio.create_task_group() as group:
        group.start_soon(batcher.serve)
        for number in range(6):
            group.start_soon(ask, number)
            await anyio.wait_all_tasks_blocked()
        work.may_go.set()
        await anyio.wait_all_tasks_blocked()
        batcher.close()

    assert work.batches == [[0], [1, 2, 3], [4, 5]]
    assert {number: 2 * number for number in range(6)} == answers


async def test_a_large_item_goes_alone(work: Work) -> None:
    """Sizes bound a batch, and never keep an item out."""
    batcher: Batcher[int] = Batcher(work, count_max=10, size_max=10)
    work.may_go.set()

    async with anyio.create_task_group() as group:
        for number, size in enumerate((4, 6, 50, 5)):
            group.start_soon(batcher.ask, number, size)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(batcher.serve)
        await anyio.wait_all_tasks_blocked()
        batcher.close()

    assert work.batches == [[0, 1], [2], [3]]


async def test_a_caller_that_goes_before_its_turn_is_dropped(work: Work) -> None:
    """Nobody would hear the answer, so nothing is done."""
    batcher: Batcher[int] = Batcher(work, count_max=1, size_max=10)
    gone = anyio.CancelScope()

    async def give_up() -> None:
        with gone:
            await batcher.ask(2)

    async with anyio.create_task_group() as group:
        group.start_soon(batcher.serve)
        group.start_soon(batcher.ask, 1)
        await anyio.wait_all_tasks_blocked()
        group.start_soon(give_up)
        group.start_soon(batcher.ask, 3)
        await anyio.wait_all_tasks_blocked()
        gone.cancel()
        await anyio.wait_all_tasks_blocked()
        work.may_go.set()
        batcher.close()

    assert work.batches == [[1], [3]]


async def test_a_full_queue_refuses_at_once(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at the limit is taken, one past it is told to come again."""
    monkeypatch.setattr(batching, "WAITING_MAX", 2)
    batcher: Batcher[int] = Batcher(work, count_max=10, size_max=10)

    async with anyio.create_task_group() as group:
        group.start_soon(batcher.ask, 1)
        group.start_soon(batcher.ask, 2)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(StoreUnavailable) as caught:
            await batcher.ask(3)
        work.may_go.set()
        group.start_soon(batcher.serve)
        batcher.close()

    assert work.batches == [[1, 2]]
    assert caught.value.retry_after_ms is not None


async def test_nobody_waits_for_ever_when_the_work_crashes() -> None:
    """A bug in the writer is everybody's answer, and the crash goes up."""

    async def crash(batch: Sequence[int]) -> Sequence[int]:
        raise ZeroDivisionError

    batcher: Batcher[int] = Batcher(crash, count_max=1, size_max=1)
    answers: list[StoreUnavailable] = []

    async def ask(number: int) -> None:
        with anyio.CancelScope(shield=True):
            try:
                await batcher.ask(number)
            except StoreUnavailable as error:
                answers.append(error)

    async def serve_until_it_crashes() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(ask, 1)
            group.start_soon(ask, 2)
            await anyio.wait_all_tasks_blocked()
            group.start_soon(batcher.serve)

    with pytest.raises(ExceptionGroup) as caught:
        await serve_until_it_crashes()

    assert caught.group_contains(ZeroDivisionError)
    assert len(answers) == 2
