"""Each channel is told once, whoever fails meanwhile; what was refused can be seen."""

from typing import Any

import pytest

from deltaci.domain.effects import Notify
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.events import Trigger
from deltaci.domain.plan import NotifyRule, Plan
from deltaci.domain.run import Run
from deltaci.domain.states import EndReason, RunState
from deltaci.notifier.message import Message
from deltaci.notifier.notifier import EXPLAINED_WITHIN_MS, GIVE_UP_AFTER_MS, RunNotifier
from deltaci.orchestrator.messages import Admit
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import Owe, SaveRepo
from tests.orchestrator.faults import FaultyStore, nothing_owed
from tests.orchestrator.support import SHA, ManualClock, Stage, a_repo, staged
from tests.reporter.runs import a_run, an_explanation, failed

pytestmark = pytest.mark.anyio

RULES = (NotifyRule(channel="ops", on=("failed", "recovered")), NotifyRule(channel="all", on=("failed", "succeeded")))


class FakeChannels:
    """Remembers what was sent, and fails as it was told, by channel."""

    def __init__(self, **failures: Exception) -> None:
        self.sent: list[tuple[str, str]] = []
        self.failures = failures

    async def send(self, channel: str, message: Message) -> None:
        if channel in self.failures:
            raise self.failures[channel]
        self.sent.append((channel, message.title))


class Ended(MemoryStore):
    """Holds one run that ended, with one failed job."""

    def __init__(self, run: Run, *, is_explained: bool = True, before: Run | None = None) -> None:
        super().__init__()
        self.run, self.before = run, before
        self.job = failed()
        self.why = (an_explanation(self.job, "why"),) if is_explained else ()

    async def load_run(self, run_id: str) -> Run | None:
        return self.run

    async def run_before(self, run_id: str) -> Run | None:
        return self.before

    async def load_plan(self, run_id: str) -> Plan | None:
        return Plan(commit_sha="a", base_sha=None, source="configuration", jobs=(), notify=RULES)

    async def jobs_of_run(self, run_id: str) -> Any:
        return (self.job,)

    async def explanations_of_run(self, run_id: str) -> Any:
        return self.why


FAILED = a_run(RunState.FAILED, EndReason.JOBS_FAILED, ended_at_ms=1_000)


@pytest.fixture
async def store() -> Ended:
    ended = Ended(FAILED)
    await ended.commit((SaveRepo(repo=a_repo()),))
    return ended


def a_notifier(store: MemoryStore, sender: FakeChannels, age_ms: int = 0) -> RunNotifier:
    return RunNotifier(store, sender, base_url="https://ci", clock=ManualClock(1_000 + age_ms))


async def test_a_second_delivery_tells_nobody_again(store: Ended) -> None:
    """A debt whose settling was lost is delivered anew, by another life of the server as well."""
    sender = FakeChannels()

    await a_notifier(store, sender).notify("run_x")
    await a_notifier(store, sender).notify("run_x")

    assert sender.sent == [("ops", "shop #12: FAILED"), ("all", "shop #12: FAILED")]


async def test_only_what_failed_is_tried_again(store: Ended) -> None:
    """The channel that took the message does not get it twice because another one is down."""
    sender = FakeChannels(ops=ForgeUnavailable("down"))
    with pytest.raises(ForgeUnavailable):
        await a_notifier(store, sender).notify("run_x")
    sender.failures.clear()

    await a_notifier(store, sender).notify("run_x")

    assert [channel for channel, _ in sender.sent] == ["all", "ops"]


async def test_a_refusal_is_told_after_the_others_were(store: Ended) -> None:
    """It ends the debt, visibly."""
    sender = FakeChannels(ops=ForgeRejected("no such channel"))

    with pytest.raises(ForgeRejected, match="no such channel"):
        await a_notifier(store, sender).notify("run_x")

    assert [channel for channel, _ in sender.sent] == ["all"]


async def test_news_of_yesterday_are_given_up(store: Ended) -> None:
    """A service that is down for a day is not asked for ever."""
    sender = FakeChannels(ops=ForgeUnavailable("down"))
    with pytest.raises(ForgeUnavailable):
        await a_notifier(store, sender, GIVE_UP_AFTER_MS - 1).notify("run_x")

    with pytest.raises(ForgeRejected, match="given up a day after the end of the run: down"):
        await a_notifier(store, sender, GIVE_UP_AFTER_MS).notify("run_x")


async def test_the_explanation_is_waited_for_but_not_for_long(store: Ended) -> None:
    """It is made beside the run's end; without it the message says little."""
    sender, store.why = FakeChannels(), ()
    with pytest.raises(ForgeUnavailable) as caught:
        await a_notifier(store, sender, EXPLAINED_WITHIN_MS - 1).notify("run_x")
    assert (caught.value.retry_after_ms, sender.sent) == (300, [])

    await a_notifier(store, sender, EXPLAINED_WITHIN_MS).notify("run_x")

    assert len(sender.sent) == 2


async def test_a_recovery_is_one_if_the_run_before_failed(store: Ended) -> None:
    """Otherwise only those are told who want to hear of every success."""
    store.run, store.job = a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED), failed(is_required=False)
    sender = FakeChannels()
    await a_notifier(store, sender).notify("run_1")
    store.before = FAILED

    await a_notifier(store, sender).notify("run_2")

    assert sender.sent[:1] == [("all", "shop #12: SUCCEEDED")]
    assert sender.sent[1:] == [("ops", "shop #12: RECOVERED"), ("all", "shop #12: RECOVERED")]


# ---- owed by a run -----------------------------------------------------------------------------------------------


def owing(writes: FaultyStore) -> list[str]:
    return [owe.effect.run_id for owe in writes.writes(Owe) if isinstance(owe.effect, Notify)]


async def an_ended_run(stage: Stage, *, is_fork: bool = False) -> str:
    trigger = Trigger(kind="pull_request", ref="refs/pull/1/head", commit_sha=SHA, pr_number=1, is_fork=is_fork)
    admit = Admit(delivery_id="d", body_sha256="b", event="pull_request", trigger=trigger, ignored=None)
    run_id = (await stage.orchestrator.admit(stage.repo.id, admit)).run_id
    assert run_id is not None
    await stage.run_until(run_id, "SUCCEEDED")
    await nothing_owed(stage.store)
    return run_id


async def test_a_run_whose_plan_has_rules_owes_it_at_its_end() -> None:
    """Once. A server without channels says so in the outbox, where everything stands that was refused."""
    store = FaultyStore(MemoryStore())
    async with staged(store) as stage:
        stage.planner.notify = RULES
        run_id = await an_ended_run(stage)
        (refused,) = await store.outbox()

    assert owing(store) == [run_id]
    assert (Notify(run_id), True) == (refused.effect, refused.is_refused)
    assert "this server knows no channel" in refused.error
    assert "notifications.channels_file" in refused.error


@pytest.mark.parametrize(("rules", "is_fork"), [((), False), (RULES, True)])
async def test_without_rules_and_from_a_fork_nobody_is_told(rules: tuple[NotifyRule, ...], is_fork: bool) -> None:
    """Strangers make no noise in the rooms of a team."""
    store = FaultyStore(MemoryStore())
    async with staged(store) as stage:
        stage.planner.notify = rules
        await an_ended_run(stage, is_fork=is_fork)

    assert owing(store) == []
