"""A seeded storm over everything at once: whatever happens, every ask has one outcome and order is kept."""

from random import Random

import anyio
import pytest

from actors import ActorCrashed, ActorError, ActorRef, Intensity
from tests.actors.support import QUICK, Crash, Finish, Urgent, World, a_system

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("seed", range(5))
async def test_every_ask_has_one_outcome_and_every_accepted_word_is_stored_in_order(seed: int) -> None:
    """Crashes, restarts, final entities, passivation and operator's stops in the middle of it: nothing disappears."""
    rng = Random(seed)
    world = World()
    outcomes: dict[str, list[str]] = {}
    asked: dict[str, list[str]] = {}

    async def send(ref: ActorRef, sender: int) -> None:
        for number in range(20):
            await anyio.sleep(rng.random() * 0.002)
            chance = rng.random()
            if chance < 0.1:
                ref.tell(Crash())
            elif chance < 0.2:
                ref.tell(Finish())
            word = f"{sender}.{number}"
            asked.setdefault(ref.path, []).append(word)
            try:
                stored = await ref.ask(word, timeout=30)
            except ActorError as error:
                outcomes.setdefault(word, []).append(type(error).__name__)
            else:
                assert word in stored
                outcomes.setdefault(word, []).append("stored")

    async with a_system(rng=rng) as system:
        supervisor = system.supervisor("/s", intensity=Intensity(10_000, 1), backoff=QUICK)
        things = supervisor.entities(
            "things", world.build, intensity=Intensity(10_000, 0.001), backoff=QUICK, passivate_after_s=0.0
        )
        async with anyio.create_task_group() as senders:
            for sender in range(12):
                senders.start_soon(send, things.ref(str(sender % 4)), sender)
            for _ in range(10):
                await anyio.sleep(0.005)
                await system.stop(f"/s/things/{rng.randrange(4)}")

    assert {word: ["stored"] for words in asked.values() for word in words} == outcomes
    for path, words in world.stored.items():
        for sender in range(12):
            mine = [word for word in words if word.startswith(f"{sender}.")]
            assert mine == [word for word in asked[path] if word.startswith(f"{sender}.")]


async def test_askers_of_crashes_and_words_are_told_apart() -> None:
    """Among many asks at once only those whose own message crashed are told of a crash."""
    world = World()
    async with a_system() as system:
        supervisor = system.supervisor("/s", intensity=Intensity(100, 60), backoff=QUICK)
        ref = supervisor.start("a", world.build)
        answers = [ref.ask(message, timeout=30) for message in ("a", Crash(), "b", Crash(), Crash(), Urgent("c"))]

        outcomes = []
        for answer in answers:
            try:
                outcomes.append((await answer)[-1])
            except ActorCrashed:
                outcomes.append("crashed")

    assert outcomes == ["a", "crashed", "b", "crashed", "crashed", "c"]
