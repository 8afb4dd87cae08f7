"""What every store promises of webhooks, idempotent requests and debts."""

import pytest

from deltaci.domain.effects import AnalyzeAttempt, Effect, PlanRun, ReportRun
from deltaci.domain.errors import DuplicateKey
from deltaci.store.port import Store
from deltaci.store.writes import Hasten, Owe, Postpone, Reply, Settle, Write
from tests.builders import (
    NOW_MS,
    a_created_run,
    a_delivery,
    a_job,
    a_run_id,
    save_run,
)
from tests.contracts.store.support import REPORT, outcomes

pytestmark = pytest.mark.anyio


async def test_a_delivery_is_taken_once_by_a_hundred_at_once(store: Store) -> None:
    """A forge that repeats itself, and a load balancer that repeats the forge, make one run."""
    commits: list[list[Write]] = [
        [save_run(a_created_run(number)), a_delivery(run_id=a_run_id(number)), Owe(effect=REPORT, due_at_ms=0)]
        for number in range(100)
    ]

    answers = await outcomes(store, commits)

    stored = await store.delivery("repo_1", "delivery-1")
    assert (answers.count(None), sum(isinstance(answer, DuplicateKey) for answer in answers)) == (1, 99)
    assert stored is not None
    assert [stored.run_id] == [one.run.id for one in await store.list_runs(limit=200)]


async def test_a_delivery_id_belongs_to_its_repository(store: Store) -> None:
    """Two repositories may be sent the same id."""
    other = a_delivery(repo_id="repo_2", ignored="no such branch")

    await store.commit([a_delivery(), other])

    assert (a_delivery(), other) == (
        await store.delivery("repo_1", "delivery-1"),
        await store.delivery("repo_2", "delivery-1"),
    )


async def test_a_content_is_found_by_its_first_delivery_that_has_a_run(store: Store) -> None:
    """An ignored one before it and a duplicate after it do not count."""
    ignored = a_delivery(delivery_id="1", ignored="no rule")
    first = a_delivery(delivery_id="2")
    again = a_delivery(delivery_id="3", is_duplicate=True)
    for one in (ignored, first, again):
        await store.commit([one])

    found = await store.delivery_by_digest("repo_1", "b" * 64)

    assert first == found
    assert await store.delivery_by_digest("repo_2", "b" * 64) is None


async def test_a_request_keeps_its_first_answer(store: Store) -> None:
    """The same key gets the same answer for ever."""
    first = Reply(key="key", request_sha256="1", http_status=201, body=b"\x00first", at_ms=1)
    await store.commit([first])

    with pytest.raises(DuplicateKey) as caught:
        await store.commit([Reply(key="key", request_sha256="2", http_status=200, body=b"second", at_ms=2)])

    assert ("reply", first) == (caught.value.table, await store.reply("key"))


async def test_a_debt_owed_again_is_one_debt_of_a_new_generation(store: Store) -> None:
    """Due at once and with a clean slate, whatever its delivery had come to."""
    await store.commit([Owe(effect=REPORT, due_at_ms=10)])
    first = (await store.owed(ReportRun, 10, 10))[0]
    refusal = Postpone(
        key=REPORT.key, generation=first.generation, due_at_ms=99, error="no such repository", is_refused=True
    )
    await store.commit([refusal])

    await store.commit([Owe(effect=REPORT, due_at_ms=20)])

    (second,) = await store.owed(ReportRun, 20, 10)
    assert (
        second.effect,
        second.due_at_ms,
        second.tries,
        second.error,
        second.is_refused,
    ) == (REPORT, 20, 0, "", False)
    assert second.generation > first.generation


async def test_a_late_settlement_does_not_take_out_what_was_owed_anew(store: Store) -> None:
    """Neither while the older debt stands nor after it was settled by another."""
    await store.commit([Owe(effect=REPORT, due_at_ms=0)])
    first = (await store.owed(ReportRun, 0, 10))[0]
    settle = Settle(key=REPORT.key, generation=first.generation)

    await store.commit([Owe(effect=REPORT, due_at_ms=0)])
    await store.commit([settle])
    second = (await store.owed(ReportRun, 0, 10))[0]
    await store.commit([Settle(key=REPORT.key, generation=second.generation)])
    settled = await store.owed(ReportRun, 0, 10)
    await store.commit([Owe(effect=REPORT, due_at_ms=0)])
    await store.commit([settle])
    third = await store.owed(ReportRun, 0, 10)

    assert settled == ()
    assert [owed.effect for owed in third] == [REPORT]


async def test_a_failed_delivery_waits_and_is_counted(store: Store) -> None:
    """Its error is there to be seen; a late report about an older generation changes nothing."""
    await store.commit([Owe(effect=REPORT, due_at_ms=0)])
    generation = (await store.owed(ReportRun, 0, 10))[0].generation
    postpone = Postpone(key=REPORT.key, generation=generation, due_at_ms=50, error="timeout")

    await store.commit([postpone])
    await store.commit([postpone])
    await store.commit([Postpone(key=REPORT.key, generation=generation + 1, due_at_ms=7, error="other")])

    (owed,) = await store.owed(ReportRun, 50, 10)
    assert await store.owed(ReportRun, 49, 10) == ()
    assert (owed.tries, owed.due_at_ms, owed.error, await store.next_owed_at_ms()) == (2, 50, "timeout", 50)


async def test_a_refused_debt_stays_and_is_not_tried(store: Store) -> None:
    """It is counted for people to see, and nothing waits for it."""
    await store.commit([Owe(effect=REPORT, due_at_ms=0)])
    generation = (await store.owed(ReportRun, 0, 10))[0].generation

    await store.commit([Postpone(key=REPORT.key, generation=generation, due_at_ms=0, error="gone", is_refused=True)])

    assert (await store.owed(ReportRun, NOW_MS, 10), await store.next_owed_at_ms()) == ((), None)
    assert (await store.counts())["outbox"] == {"owed": 0, "refused": 1}


async def test_a_debt_is_found_by_its_key_until_it_is_paid(store: Store) -> None:
    """Whoever looks at a run sees why it was not reported, refused or put off."""
    assert await store.debt(REPORT.key) is None
    await store.commit([Owe(effect=REPORT, due_at_ms=0), Owe(effect=ReportRun(a_run_id(7)), due_at_ms=0)])
    generation = (await store.owed(ReportRun, 0, 1))[0].generation
    await store.commit([Postpone(key=REPORT.key, generation=generation, due_at_ms=0, error="gone", is_refused=True)])

    owed = await store.debt(REPORT.key)
    await store.commit([Settle(key=REPORT.key, generation=generation)])

    assert owed is not None
    assert (owed.effect, owed.error, owed.is_refused, owed.tries) == (REPORT, "gone", True, 1)
    assert await store.debt(REPORT.key) is None


async def test_no_debt_waits_beyond_what_it_is_hastened_to(store: Store) -> None:
    """After a start with another clock nothing waits for hours; what is due earlier stays so, and no try is counted."""
    early, late, refused = (ReportRun(a_run_id(number)) for number in range(3))
    await store.commit(
        [Owe(effect=effect, due_at_ms=due) for effect, due in ((early, 10), (late, 900), (refused, 900))]
    )
    generation = {one.effect: one.generation for one in await store.owed(ReportRun, 900, 10)}[refused]
    await store.commit([Postpone(key=refused.key, generation=generation, due_at_ms=900, error="gone", is_refused=True)])

    await store.commit([Hasten(latest_at_ms=100)])

    owed = await store.owed(ReportRun, 100, 10)
    assert [(early, 10, 0), (late, 100, 0)] == [(one.effect, one.due_at_ms, one.tries) for one in owed]
    assert (await store.counts())["outbox"] == {"owed": 2, "refused": 1}


async def test_debts_come_by_kind_and_due_time_within_the_limit(store: Store) -> None:
    """Plans that pile up hide no report; every kind of effect is read back as what it was."""
    runs = [ReportRun(a_run_id(number)) for number in range(3)]
    others: tuple[Effect, ...] = (PlanRun(a_run_id()), AnalyzeAttempt(a_job().id, 1))
    debts: list[Effect] = [*others, *runs]
    await store.commit([Owe(effect=effect, due_at_ms=30 - index) for index, effect in enumerate(debts)])

    found = [await store.owed(kind, 30, 2) for kind in (PlanRun, AnalyzeAttempt, ReportRun)]

    assert [[owed.effect for owed in owed_of_kind] for owed_of_kind in found] == [
        [others[0]],
        [others[1]],
        [runs[2], runs[1]],
    ]
    assert await store.next_owed_at_ms() == 26
