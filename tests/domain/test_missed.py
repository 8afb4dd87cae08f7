"""What a look at the forge finds that no webhook told, and what it leaves alone."""

from random import Random

import msgspec
import pytest

from deltaci.domain.events import RunKey
from deltaci.domain.missed import (
    REDELIVERIES_MAX,
    Found,
    Known,
    Look,
    RemoteDelivery,
    asked_for,
    missed,
    pull_request_trigger,
    to_ask_again,
)
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Latest, Repo, run_key
from deltaci.domain.requests import EndStream
from deltaci.domain.states import EndReason, RunState

MAIN = "refs/heads/main"
REPO = Repo(
    id="repo_1", name="acme/shop", forge="github", clone_url="https://x/y", secret="s" * 16, created_at_ms=1_000
)
NOTHING = Look(pull_requests=(), gone={}, heads={})


def sha(number: int) -> str:
    return f"{number:040x}"


def a_pull_request(number: int = 7, head: int = 1, **more: object) -> PullRequest:
    known = PullRequest(
        repo_id="repo_1",
        number=number,
        head_sha=sha(head),
        head_ref="refs/heads/topic",
        base_ref=MAIN,
        base_sha=sha(99),
        updated_at_ms=2_000,
    )
    return msgspec.structs.replace(known, **more)


def found(look: Look, known: Known, runs: dict[RunKey, Latest] | None = None) -> Found:
    return missed(REPO, look, known, (runs or {}).get)


def known(heads: dict[str, str] | None = None, *pull_requests: PullRequest) -> Known:
    return Known(pull_requests={one.number: one for one in pull_requests}, heads=heads)


def a_run(state: RunState = RunState.RUNNING, reason: EndReason | None = None) -> Latest:
    return Latest("run_1", 1, state, reason)


def key_of(one: PullRequest) -> RunKey:
    return run_key(REPO.id, pull_request_trigger("github", one))


def test_a_head_that_nobody_told_of_is_missed() -> None:
    """Of a pull request and of a watched branch; the base of a push is the head that was known."""
    one = a_pull_request()
    look = Look(pull_requests=(one,), gone={}, heads={MAIN: sha(3)})

    told = found(look, known({"pr:7": sha(8), MAIN: sha(2)}, a_pull_request(head=8)))

    pull, push = told.missed
    assert (pull.trigger, pull.pull_request) == (pull_request_trigger("github", one), one)
    assert push.trigger is not None
    assert (push.trigger.kind, push.trigger.commit_sha, push.trigger.base_sha) == ("push", sha(3), sha(2))
    assert push.trigger.stream == "branch:main"
    assert told.dealt == {"pr:7": sha(1), MAIN: sha(3)}
    assert told.told == ()


def test_what_a_webhook_told_is_not_missed_and_only_noted() -> None:
    """Its run is there, in whatever state."""
    one = a_pull_request()
    look = Look(pull_requests=(one,), gone={}, heads={})

    told = found(look, known({}, one), {key_of(one): a_run()})

    assert (told.missed, told.dealt, told.told) == ((), {"pr:7": sha(1)}, (one,))


def test_a_noted_head_without_a_run_is_left_alone() -> None:
    """It was there before we were, or its event was ignored for a reason."""
    one = a_pull_request()
    look = Look(pull_requests=(one,), gone={}, heads={MAIN: sha(3)})

    assert found(look, known({"pr:7": sha(1), MAIN: sha(3)}, one)).missed == ()


def test_a_head_whose_run_made_room_for_an_older_commit_is_missed() -> None:
    """Two webhooks came in the wrong order: the older commit superseded the newer one, though that is the head."""
    one = a_pull_request()
    look = Look(pull_requests=(one,), gone={}, heads={})
    superseded = a_run(RunState.CANCELED, EndReason.SUPERSEDED)

    told = found(look, known({"pr:7": sha(1)}, one), {key_of(one): superseded})

    assert [each.delivery_id for each in told.missed] == [f"look:pr:7:{sha(1)}:2"]


def test_a_pull_request_that_aims_at_another_branch_is_missed() -> None:
    """Its commit has a run, of what it changed there."""
    one, aimed = a_pull_request(), a_pull_request(base_ref="refs/heads/next", updated_at_ms=3_000)
    look = Look(pull_requests=(aimed,), gone={}, heads={})

    told = found(look, known({"pr:7": sha(1)}, one), {key_of(one): a_run()})

    assert [each.trigger and each.trigger.base_ref for each in told.missed] == ["refs/heads/next"]


@pytest.mark.parametrize(("updated_at_ms", "is_missed"), [(999, False), (1_000, False), (1_001, True)])
def test_the_first_look_starts_only_what_is_newer_than_the_repository_here(updated_at_ms: int, is_missed: bool) -> None:
    """Whoever attaches a repository with a thousand old pull requests does not want a thousand runs."""
    one = a_pull_request(updated_at_ms=updated_at_ms)

    told = found(Look(pull_requests=(one,), gone={}, heads={MAIN: sha(3)}), known(None))

    assert [each.pull_request for each in told.missed] == [one] * is_missed
    assert told.dealt == {"pr:7": sha(1), MAIN: sha(3)}


def test_what_is_gone_ends_its_stream() -> None:
    """A closed pull request, one that the forge denies, a deleted branch."""
    before = (a_pull_request(7), a_pull_request(8))
    closed = a_pull_request(7, is_open=False, updated_at_ms=3_000)
    look = Look(pull_requests=(), gone={7: closed, 8: None}, heads={})

    told = found(look, known({"pr:7": sha(1), "pr:8": sha(1), MAIN: sha(2)}, *before))

    assert [each.request for each in told.missed] == [
        EndStream(stream="pr:7", because="pull request 7 was closed"),
        EndStream(stream="pr:8", because="pull request 8 was closed"),
        EndStream(stream="branch:main", because="branch main was deleted"),
    ]
    kept = [each.pull_request for each in told.missed]
    assert kept == [closed, msgspec.structs.replace(before[1], is_open=False), None]
    assert told.forget == ("pr:7", "pr:8", MAIN)


def test_one_that_was_closed_and_opened_between_two_questions_is_not_gone() -> None:
    """The list was read before, the pull request itself after."""
    one = a_pull_request()

    told = found(Look(pull_requests=(), gone={7: one}, heads={}), known({"pr:7": sha(1)}, one))

    assert (told.missed, told.forget) == ((), ())


@pytest.mark.parametrize("seed", range(200))
def test_a_second_look_at_the_same_finds_nothing(seed: int) -> None:
    """Whatever was known: after the first one was admitted and noted, nothing is left to do."""
    rng = Random(seed)
    states = (None, a_run(), a_run(RunState.SUCCEEDED, EndReason.SUCCEEDED))
    pulls = tuple(a_pull_request(number, rng.randrange(3)) for number in range(rng.randrange(6)))
    look = Look(pull_requests=pulls, gone={}, heads={})
    noted = None if seed % 10 == 0 else {f"pr:{number}": sha(rng.randrange(3)) for number in range(rng.randrange(6))}
    before = {key_of(one): latest for one in pulls if (latest := rng.choice(states)) is not None}
    runs = dict(before)

    first = missed(REPO, look, known(noted), runs.get)
    for each in first.missed:
        assert each.trigger is not None
        runs[run_key(REPO.id, each.trigger)] = a_run()
    second = missed(REPO, look, known({**(noted or {}), **first.dealt}), runs.get)

    without = [one for one in pulls if key_of(one) not in before]
    wanted = [one for one in without if (noted or {}).get(f"pr:{one.number}") != one.head_sha]
    assert [each.pull_request for each in first.missed] == wanted
    assert {*asked_for(REPO, look)} == {key_of(one) for one in pulls}
    assert (second.missed, second.dealt) == ((), {})


def a_delivery(guid: str, at_ms: int, number: int = 1, status: int = 500) -> RemoteDelivery:
    return RemoteDelivery(
        id=number,
        guid=guid,
        delivered_at_ms=at_ms,
        is_redelivery=False,
        status_code=status,
        event="push",
        action="",
        repository_id=1,
        installation_id=None,
    )


def test_what_is_not_in_the_ledger_is_asked_for_again_by_its_newest_attempt() -> None:
    """Whatever we answered: after a restore from a backup, what got a 2xx may be missing too."""
    listed = (
        a_delivery("lost", 100, 1, 0),
        a_delivery("lost", 200, 2, 503),
        a_delivery("kept", 100, 3, 202),
        a_delivery("restored", 50, 4, 202),
        a_delivery("under way", 990, 5, 0),
    )

    again = to_ask_again(listed, frozenset({"kept"}), now_ms=1_000, settled_after_ms=100)

    assert [one.id for one in again] == [4, 2]


def test_what_was_asked_for_often_enough_is_given_up() -> None:
    """We refuse it every time: its signature is wrong."""
    listed = tuple(a_delivery("refused", 100 + number, number, 401) for number in range(REDELIVERIES_MAX + 1))

    assert to_ask_again(listed, frozenset(), now_ms=10_000, settled_after_ms=100) == ()
    assert len(to_ask_again(listed[1:], frozenset(), now_ms=10_000, settled_after_ms=100)) == 1
