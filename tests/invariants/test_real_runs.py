"""The real orchestrator, between runners of every temper, breaks no rule: not after any commit, not for anybody."""

import random

import pytest

from deltaci.invariants import Ledger, check_history
from deltaci.invariants.verify import verify
from deltaci.store.memory import MemoryStore
from tests.invariants.world import Watched, World, some_jobs
from tests.orchestrator.support import a_repo, staged

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(12))
async def test_no_rule_is_broken_by_what_happens(seed: int) -> None:
    """After every commit, then over the whole store once all is over, then in all that was heard outside."""
    rng = random.Random(seed)
    store = Watched(MemoryStore())
    async with staged(store, *some_jobs(rng), repo=a_repo(report_to="/srv/results"), seed=seed) as stage:
        world = World(stage, rng)
        await world.live(steps=150)
    await store.follow()
    ledger = Ledger(store.seen.past)
    deliveries = [one for delivery in [one async for one in store.deliveries()] for one in ledger.take(delivery)]
    report = await verify(store, now_ms=stage.clock.now_ms() + HOUR_MS)

    # A runner that was told nothing works on: how long is not this world's business.
    heard = check_history(store.seen, world.heard, ledger=ledger, overlap_ms=10**12)

    assert store.found == []
    assert deliveries == []
    assert report.violations == ()
    assert heard == []
    assert store.looks > 20
