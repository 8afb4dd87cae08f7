"""A push and the pull request of the same commit: two runs, or by a setting one, in whatever order they arrive."""

import random
from itertools import permutations

import anyio
import msgspec
import pytest

from deltaci.domain.events import Trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.requests import EndStream
from deltaci.orchestrator.messages import Admit
from deltaci.store.memory import MemoryStore
from tests.orchestrator.faults import assert_sound
from tests.orchestrator.support import Stage, a_job, a_repo, staged

pytestmark = pytest.mark.anyio

ONE = a_repo(forge="github", is_one_run_a_commit=True)
BRANCH = "refs/heads/topic"


def pushed(number: int, *, ref: str = BRANCH) -> Admit:
    sha = f"{number:040x}"
    trigger = Trigger(kind="push", ref=ref, commit_sha=sha, stream=f"branch:{ref.removeprefix('refs/heads/')}")
    return Admit(delivery_id=f"push {number} {ref}", body_sha256=f"push {number} {ref}", event="push", trigger=trigger)


def told(number: int, *, is_open: bool = True, is_fork: bool = False) -> PullRequest:
    return PullRequest(
        repo_id="repo_1",
        number=7,
        head_sha=f"{number:040x}",
        head_ref=BRANCH,
        base_ref="refs/heads/main",
        base_sha="0" * 40,
        is_open=is_open,
        is_fork=is_fork,
        updated_at_ms=number * 10 + (not is_open),
    )


def pulled(number: int, *, is_fork: bool = False) -> Admit:
    trigger = Trigger(
        kind="pull_request", ref="refs/pull/7/head", commit_sha=f"{number:040x}", pr_number=7, stream="pr:7"
    )
    return Admit(
        delivery_id=f"pull {number}",
        body_sha256=f"pull {number}",
        event="pull_request",
        trigger=msgspec.structs.replace(trigger, is_fork=is_fork),
        pull_request=told(number, is_fork=is_fork),
    )


def closed(number: int) -> Admit:
    return Admit(
        delivery_id=f"closed {number}",
        body_sha256=f"closed {number}",
        event="pull_request",
        request=EndStream(stream="pr:7", because="pull request 7 was closed"),
        pull_request=told(number, is_open=False),
    )


async def settled(stage: Stage) -> list[tuple[str, int]]:
    """The runs that live once nothing is on its way any more: (kind of trigger, number of the commit)."""
    with anyio.fail_after(10):
        while await stage.store.next_owed_at_ms() is not None or await stage.store.superseded_runs(10):
            stage.clock.advance(10)
            await anyio.sleep(0.002)
    found = [await stage.store.load_run(run_id) for run_id in await stage.store.live_runs_of_repo("repo_1")]
    return [(run.key.trigger_type, int(run.key.commit_sha, 16)) for run in found if run is not None]


async def test_by_default_they_are_two_runs() -> None:
    """One proves the commit, the other what it would become."""
    async with staged(MemoryStore(), a_job(), repo=a_repo(forge="github")) as stage:
        for message in (pulled(1), pushed(1)):
            await stage.orchestrator.admit("repo_1", message)

        assert sorted(await settled(stage)) == [("pull_request", 1), ("push", 1)]


@pytest.mark.parametrize("order", sorted(set(permutations(["push", "push", "pull", "pull"]))))
async def test_by_the_setting_the_pull_request_has_the_only_run_in_any_order(order: tuple[str, ...]) -> None:
    """Also with both of them sent again: the answer to each stays what it was."""
    messages = {"push": pushed(1), "pull": pulled(1)}
    async with staged(MemoryStore(), a_job(), repo=ONE) as stage:
        answers = {(name, await stage.orchestrator.admit("repo_1", messages[name])) for name in order}

        assert await settled(stage) == [("pull_request", 1)]
        assert len(answers) == 2
        ends = {run.end_reason for run in await stage.store.newest_runs_of_commit("repo_1", f"{1:040x}")}
        assert ends == ({None} if order[0] == "pull" else {None, "superseded"})
        await assert_sound(stage.store)


async def test_a_push_is_left_to_a_pull_request_of_its_own_branch_alone() -> None:
    """Not to one of a fork whose branch has the same name, nor to one that is closed; and main is not topic."""
    async with staged(MemoryStore(), a_job(), repo=ONE) as stage:
        admit = stage.orchestrator.admit
        await admit("repo_1", pulled(1))
        answer = await admit("repo_1", pushed(2))
        other = await admit("repo_1", pushed(2, ref="refs/heads/main"))
        await admit("repo_1", closed(2))
        after = await admit("repo_1", pushed(3))

        assert answer.ignored == "pull request 7 is open: its own event runs this commit"
        assert other.run_id is not None
        assert after.run_id is not None
        assert sorted(await settled(stage)) == [("push", 2), ("push", 3)]

    async with staged(MemoryStore(), a_job(), repo=ONE) as stage:
        await stage.orchestrator.admit("repo_1", pushed(1))
        await stage.orchestrator.admit("repo_1", pulled(1, is_fork=True))
        await stage.orchestrator.admit("repo_1", pushed(2))

        assert sorted(await settled(stage)) == [("pull_request", 1), ("push", 2)]


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_to_a_branch_its_head_has_one_run(seed: int) -> None:
    """Pushes with and without a pull request, the two events of a commit in any order, each sent up to three times."""
    chance = random.Random(seed)
    async with staged(MemoryStore(), a_job(), repo=ONE) as stage:
        is_open, number = False, 0
        for _ in range(chance.randint(2, 7)):
            number += 1
            is_closing = is_open and chance.random() < 0.3
            is_open = not is_closing and (is_open or chance.random() < 0.6)
            events = [pushed(number), *([pulled(number)] if is_open else [])]
            if is_closing:
                await stage.orchestrator.admit("repo_1", closed(number - 1))
            sent = [one for one in events for _ in range(chance.randint(1, 3))]
            chance.shuffle(sent)
            answers: dict[str, object] = {}
            for message in sent:
                answer = await stage.orchestrator.admit("repo_1", message)
                assert answers.setdefault(message.delivery_id, answer) == answer

        assert await settled(stage) == [("pull_request" if is_open else "push", number)]
        await assert_sound(stage.store)
