"""What a runner fetches with: for the holder of a live lease alone, made anew each time, and kept nowhere."""

from collections.abc import Awaitable, Callable

import msgspec
import pytest

from deltaci.domain.clone_credential import Credential
from deltaci.domain.errors import ForgeRejected, ForgeUnavailable
from deltaci.domain.events import Trigger
from deltaci.domain.repo import Repo
from deltaci.invariants.secrecy import secrets_found
from deltaci.orchestrator.messages import Admit
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import Runner
from protocol import messages as wire
from tests.orchestrator.support import SHA, ManualClock, Stage, a_job, staged

pytestmark = pytest.mark.anyio

PASSWORD = "ghs_hush-hush"
NOW_MS = ManualClock().now_ms()


class Given:
    """Gives `answer`, or raises it; `before` happens while the forge is asked."""

    def __init__(self, answer: Credential | Exception | None) -> None:
        self.answer = answer
        self.asked: list[Repo] = []
        self.before: Callable[[], Awaitable[object]] | None = None

    def is_asked(self, repo: Repo) -> bool:
        return True

    async def of(self, repo: Repo) -> Credential | None:
        self.asked.append(repo)
        if self.before is not None:
            await self.before()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def short_lived() -> Given:
    return Given(Credential(username="x-access-token", password=PASSWORD, expires_at_ms=NOW_MS + 3_600_000))


async def leased(stage: Stage) -> tuple[Runner, wire.LeaseGranted]:
    """(runner, acknowledged lease)."""
    await stage.push()
    return await acknowledged(stage)


async def acknowledged(stage: Stage) -> tuple[Runner, wire.LeaseGranted]:
    runner = await stage.runner()
    (lease,) = await stage.lease(runner)
    assert isinstance(await stage.say(runner, wire.AckLease, lease), wire.LeaseAcked)
    return runner, lease


async def given_on_record(store: MemoryStore) -> list[tuple[str, str]]:
    return [(each.cause.id, each.entity_id) async for each in store.journal() if each.type == "CredentialGiven"]


async def test_the_holder_gets_what_the_forge_gives_now_and_it_is_on_record() -> None:
    """Who got one, for which job; not what: neither journal nor tables hold it."""
    store, given = MemoryStore(), short_lived()
    async with staged(store, a_job(), credentials=given) as stage:
        runner, lease = await leased(stage)
        answers = [await stage.say(runner, wire.AskCredential, lease) for _ in range(2)]
        run = await stage.store.load_run(lease.run_id)

    fence = {"lease_id": lease.lease_id, "job_id": lease.job_id, "attempt": 1}
    expected = wire.CredentialGiven(**fence, username="x-access-token", password=PASSWORD, expires_in_ms=3_600_000)
    assert answers == [expected, expected]
    assert lease.job.has_credential
    assert given.asked == [stage.repo, stage.repo]
    assert await given_on_record(store) == [(runner.id, lease.job_id)] * 2
    entries = [entry async for entry in store.journal()]
    assert secrets_found([PASSWORD.encode()], entries, texts={"run": msgspec.json.encode(run)}) == []


async def test_whoever_does_not_hold_the_lease_gets_nothing_and_the_forge_is_not_asked() -> None:
    """Another lease, another attempt, another runner, and the holder that was."""
    store, given = MemoryStore(), short_lived()
    async with staged(store, a_job(), credentials=given) as stage:
        runner, lease = await leased(stage)
        thief = await stage.runner("r2")
        answers = [
            await stage.say(runner, wire.AskCredential, lease, lease_id="0" * 32),
            await stage.say(runner, wire.AskCredential, lease, attempt=2),
            await stage.say(thief, wire.AskCredential, lease),
        ]
        await stage.say(runner, wire.Complete, lease, exit_code=0)
        answers.append(await stage.say(runner, wire.AskCredential, lease))

    assert [type(answer) for answer in answers] == [wire.StaleLease] * 4
    assert given.asked == []
    assert await given_on_record(store) == []


async def test_a_lease_that_is_lost_while_the_forge_is_asked_gets_nothing() -> None:
    """The forge may take its time, and the job be another's by then."""
    store, given = MemoryStore(), short_lived()
    async with staged(store, a_job(), credentials=given) as stage:
        runner, lease = await leased(stage)

        async def lose_it() -> None:
            await stage.say(runner, wire.Complete, lease, reason="runner_stopped")

        given.before = lose_it
        answer = await stage.say(runner, wire.AskCredential, lease)

    assert isinstance(answer, wire.StaleLease)
    assert await given_on_record(store) == []


async def test_a_forge_that_is_away_is_asked_again_and_one_that_refuses_is_not() -> None:
    """The first is raised, for the gateway to say when; the second is a definite answer."""
    given = Given(ForgeUnavailable("away", retry_after_ms=5_000))
    async with staged(MemoryStore(), a_job(), credentials=given) as stage:
        runner, lease = await leased(stage)
        with pytest.raises(ForgeUnavailable):
            await stage.say(runner, wire.AskCredential, lease)
        given.answer = ForgeRejected("the App is not installed")
        answer = await stage.say(runner, wire.AskCredential, lease)

    assert answer == wire.Failure(code="forge_rejected", message="the App is not installed", http_status=422)


@pytest.mark.parametrize(
    ("expires_at_ms", "is_fork", "is_given"),
    [(NOW_MS + 1, True, True), (None, True, False), (NOW_MS + 1, False, True), (None, False, True)],
)
async def test_a_fork_gets_only_what_soon_ends_by_itself(
    expires_at_ms: int | None, is_fork: bool, is_given: bool
) -> None:
    """It must read the repository like every run, but a token that lasts does not come near what a stranger wrote."""
    given = Given(Credential(username="u", password=PASSWORD, expires_at_ms=expires_at_ms))
    async with staged(MemoryStore(), a_job(), credentials=given) as stage:
        trigger = Trigger(
            kind="pull_request",
            ref="refs/pull/1/head",
            commit_sha=SHA,
            stream="pull:1",
            pr_number=1,
            base_sha="b" * 40,
            is_fork=is_fork,
        )
        await stage.orchestrator.admit(
            stage.repo.id, Admit(delivery_id="d", body_sha256="b", event="pull_request", trigger=trigger)
        )
        runner, lease = await acknowledged(stage)
        answer = await stage.say(runner, wire.AskCredential, lease)

    assert isinstance(answer, wire.CredentialGiven)
    assert (answer.password == PASSWORD, "use a GitHub App" in answer.withheld_because) == (is_given, not is_given)
    assert answer.password in ("", PASSWORD)


async def test_a_public_repository_needs_none_and_one_without_an_api_is_not_asked_for() -> None:
    """The lease says whether to ask at all: an older runner and a plain repository fetch as ever."""
    async with staged(MemoryStore(), a_job(), credentials=Given(None)) as stage:
        runner, lease = await leased(stage)
        answer = await stage.say(runner, wire.AskCredential, lease)
    async with staged(MemoryStore(), a_job()) as stage:
        _, plain = await leased(stage)

    assert isinstance(answer, wire.CredentialGiven)
    assert (answer.username, answer.password, answer.expires_in_ms) == ("", "", None)
    assert lease.job.has_credential
    assert not plain.job.has_credential
