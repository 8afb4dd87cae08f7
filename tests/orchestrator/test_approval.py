"""Held runs through real actors: who is held, how an approval reaches the run it means, and what crosses it."""

from typing import Any

import anyio
import pytest

from deltaci.domain.effects import PlanRun
from deltaci.domain.events import Cause, Trigger
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Approval, Repo
from deltaci.domain.requests import Approve
from deltaci.domain.run import Run, StartPlanning, is_held
from deltaci.domain.states import EndReason
from deltaci.invariants.verify import verify
from deltaci.orchestrator.approval import approved, held_run
from deltaci.orchestrator.messages import Admit, DoRun, Look
from deltaci.orchestrator.paths import run_path
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import SavePullRequest
from tests.orchestrator.support import ME, Stage, a_job, a_repo, staged

pytestmark = pytest.mark.anyio

A, B = "a" * 40, "b" * 40
ALICE = Cause("user", "alice", via="github")


def holding(approval: Approval = "forks", **more: Any) -> Repo:
    return a_repo(approval=approval, **more)


async def opened(stage: Stage, sha: str = A, *, number: int = 7, author: str = "mallory", **more: Any) -> Run:
    """The run of a push to a fork's pull request."""
    trigger = Trigger(
        kind="pull_request",
        ref=f"refs/pull/{number}/head",
        commit_sha=sha,
        pr_number=number,
        stream=f"pr:{number}",
        author=author,
        **({"is_fork": True} | more),
    )
    message = Admit(delivery_id=f"d-{sha}-{number}", body_sha256=f"b-{sha}-{number}", event="pr", trigger=trigger)
    admitted = await stage.orchestrator.admit(stage.repo.id, message)
    assert admitted.run_id is not None
    return await stage.orchestrator.run(admitted.run_id)


def asking(stage: Stage, *, commit_sha: str = "", number: int = 7, after_ms: int = 0) -> Approve:
    """An approval that is written `after_ms` from now on."""
    at_ms = 0 if commit_sha else stage.clock.now_ms() + after_ms
    return Approve(by="alice", right="write", pr_number=number, commit_sha=commit_sha, at_ms=at_ms)


async def sound(stage: Stage) -> bool:
    """Whether nothing of what is stored breaks a rule."""
    return (await verify(stage.store)).violations == ()


# ---- held --------------------------------------------------------------------------------------------------------


async def test_a_held_run_is_left_alone_until_it_is_approved_and_then_runs() -> None:
    """No plan, no job, whoever looks; the approval alone sets it going, twice is once."""
    async with staged(MemoryStore(), a_job(), repo=holding(report_to="results.jsonl")) as stage:
        run = await opened(stage)
        await stage.orchestrator.system.ref(run_path(run.id)).ask(Look(), timeout=5)
        with anyio.fail_after(5):
            while True:
                if run.id in stage.reporter.reported:
                    break
                await anyio.sleep(0.005)

        assert is_held(await stage.orchestrator.run(run.id))
        assert await stage.store.owed(PlanRun, stage.clock.now_ms(), 9) == ()
        assert await stage.store.runs_to_advance(9) == ()
        assert stage.planner.calls == 0

        first, again = [await stage.orchestrator.approve_once(run.id, ME, key=key) for key in ("k1", "k2")]
        await stage.execute(await stage.runner())

        done = await stage.run_until(run.id, "SUCCEEDED")
        assert (done.approved_by, stage.planner.calls) == (ME.id, 1)
        assert b'"approved_by":"tok_me"' in first.body
        assert first.body.replace(b"CREATED", b"?") == again.body.replace(b"CREATED", b"?").replace(b"PLANNING", b"?")
        approvals = [one for one in await stage.store.events_of_run(run.id) if one.type == "RunApproved"]
        assert [one.cause for one in approvals] == [ME]
        assert await sound(stage)


async def test_whoever_asks_for_a_plan_of_a_held_run_is_refused() -> None:
    """A debt from somewhere is settled without having planned anything."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        run = await opened(stage)
        planning = DoRun(command=StartPlanning(), cause=ME)

        answer = await stage.orchestrator.system.ref(run_path(run.id)).ask(planning, timeout=5)

        assert isinstance(answer, Refusal)
        assert answer.why is Why.NOT_APPROVED


async def test_what_is_held_follows_the_setting_and_the_author() -> None:
    """`first_time` asks once an author: what they push after an approval goes on, in this repository."""
    async with staged(MemoryStore(), a_job(), repo=holding("first_time")) as stage:
        first, theirs = await opened(stage, A), await opened(stage, A, number=8, author="trudy")
        await stage.orchestrator.approve(first.id, ALICE)

        known, unknown = await opened(stage, B), await opened(stage, B, number=8, author="trudy")
        ours = await opened(stage, B, number=9, author="trudy", is_fork=False)

        assert [is_held(run) for run in (first, theirs, known, unknown, ours)] == [True, True, False, True, False]


async def test_nobody_approves_and_the_run_ends_with_its_own_reason() -> None:
    """Its one timer is that of the approval, not the run's time-out."""
    repo = holding(run_timeout_ms=1_000)
    async with staged(MemoryStore(), a_job(), repo=repo, approval_within_ms=60_000) as stage:
        run = await opened(stage)
        stage.clock.advance(59_999)
        await stage.orchestrator.system.ref(run_path(run.id)).ask(Look(), timeout=5)
        assert is_held(await stage.orchestrator.run(run.id))

        stage.clock.advance(1)

        done = await stage.run_until(run.id, "CANCELED")
        assert done.end_reason is EndReason.NEVER_APPROVED
        assert await sound(stage)


async def approve_held(stage: Stage, request: Approve) -> str:
    """As a delivery does it, once the forge said that whoever asks may."""
    run = await held_run(stage.store, stage.repo, request)
    if isinstance(run, str):
        return run
    await stage.orchestrator.approve(run.id, Cause("user", request.by, via=stage.repo.forge))
    return approved(run, request.by)


def told_of(head_sha: str) -> PullRequest:
    """What the forge told of pull request 7 last."""
    return PullRequest(
        repo_id="repo_1",
        number=7,
        head_sha=head_sha,
        head_ref="refs/heads/topic",
        base_ref="refs/heads/main",
        base_sha="",
        is_fork=True,
    )


# ---- which run is meant ------------------------------------------------------------------------------------------


async def test_a_comment_approves_the_head_that_was_there_when_it_was_written() -> None:
    """What came up to a moment before it; and its repeat says that nothing is left to do."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        run = await opened(stage)
        request = asking(stage, after_ms=1)

        outcomes = [await approve_held(stage, request) for _ in range(2)]

        assert outcomes[0] == f"run {run.id} of commit {A} was approved by alice"
        assert outcomes[1] == "nothing of pull request 7 waits for approval"
        (approval,) = [one for one in await stage.store.events_of_run(run.id) if one.type == "RunApproved"]
        assert approval.cause == Cause("user", "alice", via="git")


@pytest.mark.parametrize("is_superseding", [True, False])
async def test_a_push_after_the_comment_is_not_approved_by_it_nor_is_what_it_replaced(is_superseding: bool) -> None:
    """Who read one commit has not read the next; the earlier one is no longer what the pull request is about."""
    async with staged(MemoryStore(), a_job(), repo=holding(is_superseding=is_superseding)) as stage:
        earlier = await opened(stage, A)
        request = asking(stage, after_ms=1)
        stage.clock.advance(10)
        later = await opened(stage, B)

        outcome = await approve_held(stage, request)

        assert outcome.startswith(f"run {later.id} was not approved: commit {B} came after that was written")
        assert [(await stage.orchestrator.run(run.id)).approved_by for run in (earlier, later)] == ["", ""]


async def test_a_commit_that_is_named_is_approved_whenever_that_arrives_and_no_other_is() -> None:
    """The button of a check, or `/approve` with the whole id, on a repository that keeps older runs."""
    async with staged(MemoryStore(), a_job(), repo=holding(is_superseding=False)) as stage:
        earlier, later = await opened(stage, A), await opened(stage, B)

        elsewhere = await approve_held(stage, asking(stage, commit_sha=A, number=8))
        short = await approve_held(stage, asking(stage, commit_sha=A[:8]))
        named = await approve_held(stage, asking(stage, commit_sha=A))

        assert elsewhere == "nothing of pull request 8 waits for approval"
        assert "is not a whole commit id" in short
        assert named == f"run {earlier.id} of commit {A} was approved by alice"
        assert is_held(await stage.orchestrator.run(later.id))


@pytest.mark.parametrize(("head_sha", "is_approved"), [(A, True), (B, False), (None, True)])
async def test_a_comment_approves_nothing_when_the_forge_has_another_head_by_now(
    head_sha: str | None, is_approved: bool
) -> None:
    """The webhook of the last push may be lost: what waits here is not what people look at there."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        run = await opened(stage, A)

        if head_sha is not None:
            await stage.store.commit([SavePullRequest(pull_request=told_of(head_sha))])

        outcome = await approve_held(stage, asking(stage, after_ms=1))

        assert is_held(await stage.orchestrator.run(run.id)) is not is_approved
        assert is_approved or f"the head is commit {B} by now" in outcome


# ---- what crosses it ---------------------------------------------------------------------------------------------


async def test_a_newer_push_is_held_again_and_supersedes_what_was_approved() -> None:
    """An approval is of a commit; a later one has to be looked at like the first."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        approved = await opened(stage, A)
        await stage.orchestrator.approve(approved.id, ALICE)

        newer = await opened(stage, B)

        assert is_held(newer)
        superseded = await stage.run_until(approved.id, "CANCELED")
        assert superseded.end_reason is EndReason.SUPERSEDED


async def test_an_approval_after_the_cancel_changes_nothing() -> None:
    """Also one that was on its way when a newer push superseded the run."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        canceled, superseded = await opened(stage, A, number=8), await opened(stage, A)
        await stage.orchestrator.cancel(canceled.id, ME)
        await opened(stage, B)
        await stage.run_until(superseded.id, "CANCELED")

        after = [await stage.orchestrator.approve(run.id, ALICE) for run in (canceled, superseded)]

        assert [(run.state, run.end_reason) for run in after] == [
            ("CANCELED", EndReason.USER_CANCELED),
            ("CANCELED", EndReason.SUPERSEDED),
        ]
        assert [run.approved_by for run in after] == ["", ""]
        assert stage.planner.calls == 0


async def test_asking_again_approves_nothing_and_an_approved_commit_needs_no_second_approval() -> None:
    """A held run is no run that is over; a canceled one is held again; an approved one goes on, also the third time."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        run = await opened(stage)

        refused = await stage.orchestrator.rerun(run.id, ME, is_failed_only=False, key="r0")
        await stage.orchestrator.cancel(run.id, ME)
        second = await rerun(stage, run.id)
        await stage.orchestrator.approve(second.id, ALICE)
        await stage.orchestrator.cancel(second.id, ME)
        third = await rerun(stage, second.id)
        await stage.orchestrator.cancel(third.id, ME)
        fourth = await rerun(stage, third.id)

        assert isinstance(refused, Refusal)
        assert refused.why is Why.NOT_OVER
        assert "approve it" in refused.text
        assert [is_held(one) for one in (second, third, fourth)] == [True, False, False]
        assert [one.approved_by for one in (second, third, fourth)] == ["", "alice", "alice"]
        await stage.execute(await stage.runner())
        await stage.run_until(fourth.id, "SUCCEEDED")
        assert await sound(stage)


async def rerun(stage: Stage, run_id: str) -> Run:
    """The next attempt."""
    reply = await stage.orchestrator.rerun(run_id, ME, is_failed_only=False, key=f"r-{run_id}")
    assert not isinstance(reply, Refusal), reply.text
    (newest,) = await stage.store.list_runs(limit=1)
    return newest.run


async def test_a_commit_that_becomes_the_head_again_keeps_its_approval() -> None:
    """Superseded, and then forced back: it is the very code that somebody has looked at."""
    async with staged(MemoryStore(), a_job(), repo=holding()) as stage:
        first = await opened(stage, A)
        await stage.orchestrator.approve(first.id, ALICE)
        between = await opened(stage, B)
        await stage.run_until(first.id, "CANCELED")

        trigger = (await stage.orchestrator.run(first.id)).trigger
        back = Admit(delivery_id="back", body_sha256="back", event="pr", trigger=trigger)
        admitted = await stage.orchestrator.admit(stage.repo.id, back)

        assert admitted.run_id is not None
        again = await stage.orchestrator.run(admitted.run_id)
        assert (again.attempt, is_held(again), again.approved_by) == (2, False, "alice")
        assert (await stage.run_until(between.id, "CANCELED")).end_reason is EndReason.SUPERSEDED
