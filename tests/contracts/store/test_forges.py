"""What every store promises of requests in the ledger, pull requests, names that forges give, changed repositories."""

from typing import Any

import msgspec
import pytest

from deltaci.domain import run as runs
from deltaci.domain.errors import RevisionConflict
from deltaci.domain.events import Cause, RunKey, Trigger
from deltaci.domain.machine import Step
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Approve, EndStream
from deltaci.domain.states import EndReason
from deltaci.store.port import Store
from deltaci.store.writes import ChangeRepo, DeliveryActed, SavePullRequest, SaveRemoteId, SaveRepo, SaveRun
from tests.builders import NOW_MS, a_created_run, a_delivery, a_run_id, save_run, stepped

pytestmark = pytest.mark.anyio

WEBHOOK = Cause("webhook", "delivery-1")
CLOSED = EndStream(stream="pr:7", because="pull request 7 was closed")
REPO = Repo(id="repo_1", name="acme/shop", forge="github", clone_url="https://x/y", secret="s" * 16, created_at_ms=1)


def a_pull_request(number: int = 7, **more: object) -> PullRequest:
    """An open one."""
    known = PullRequest(
        repo_id="repo_1",
        number=number,
        head_sha="a" * 40,
        head_ref="refs/heads/topic",
        base_ref="refs/heads/main",
        base_sha="b" * 40,
        labels=("full",),
    )
    return msgspec.structs.replace(known, **more)


async def test_a_delivery_keeps_its_request_and_what_became_of_it(store: Store) -> None:
    """Only its own: the same id at another repository is another delivery."""
    asked = a_delivery(run_id=None, request=CLOSED)
    other = a_delivery(run_id=None, repo_id="repo_2", request=Approve(by="ada", right="write", pr_number=7))

    await store.commit([asked, other])
    await store.commit([DeliveryActed(repo_id="repo_1", delivery_id="delivery-1", outcome="1 run canceled")])

    assert await store.delivery("repo_1", "delivery-1") == msgspec.structs.replace(asked, outcome="1 run canceled")
    assert await store.delivery("repo_2", "delivery-1") == other


async def test_a_delivery_has_one_of_run_request_and_reason(store: Store) -> None:
    """Whoever mixes them up is told before anything is stored."""
    for wrong in (a_delivery(request=CLOSED), a_delivery(run_id=None), a_delivery(ignored="why", request=CLOSED)):
        with pytest.raises(ValueError, match="needs a run, a request, or a reason"):
            await store.commit([wrong])
    assert await store.newest_deliveries() == ()


async def test_the_ledger_is_read_backwards_in_pages(store: Store) -> None:
    """Of all repositories, or of one."""
    for number in range(5):
        await store.commit([a_delivery(delivery_id=f"d{number}", repo_id=f"repo_{number % 2}", ignored="why")])

    first = await store.newest_deliveries(limit=2)
    rest = await store.newest_deliveries(before=first[-1].number, limit=9)
    ours = await store.newest_deliveries(repo_id="repo_1")

    assert [one.delivery.delivery_id for one in (*first, *rest)] == ["d4", "d3", "d2", "d1", "d0"]
    assert [one.delivery.delivery_id for one in ours] == ["d3", "d1"]


async def test_a_pull_request_is_replaced_and_found_while_it_is_open(store: Store) -> None:
    """By its number, and among the open ones of its repository."""
    await store.commit([SavePullRequest(pull_request=a_pull_request(number)) for number in (9, 7)])
    await store.commit([SavePullRequest(pull_request=a_pull_request(repo_id="repo_2"))])
    closed = a_pull_request(9, is_open=False, head_sha="c" * 40)

    await store.commit([SavePullRequest(pull_request=closed)])

    assert await store.pull_request("repo_1", 9) == closed
    assert await store.pull_request("repo_1", 8) is None
    assert await store.open_pull_requests("repo_1") == (a_pull_request(7),)


async def test_an_author_is_known_once_a_run_of_theirs_was_approved(store: Store) -> None:
    """In that repository alone, by the very name, and also when the run that was approved is over; never without."""
    fork = {"kind": "pull_request", "pr_number": 7, "is_fork": True, "hold": "approval"}
    others = [a_created_run(2, author="trudy", **fork), a_created_run(3, **fork), a_created_run(4, author="ada")]
    created = a_created_run(1, author="mallory", **fork)
    await store.commit([save_run(step) for step in (created, *others)])
    approved = stepped(created.state, runs.Approve(by="alice"))
    canceled = stepped(approved.state, runs.RequestCancel(reason=EndReason.USER_CANCELED))

    before = await store.is_author_approved("repo_1", "mallory")
    await store.commit([save_run(approved)])
    after = await store.is_author_approved("repo_1", "mallory")
    await store.commit([save_run(canceled)])

    assert (before, after, await store.is_author_approved("repo_1", "mallory")) == (False, True, True)
    unknown = [("repo_2", "mallory"), ("repo_1", "Mallory"), ("repo_1", "trudy"), ("repo_1", "ada"), ("repo_1", "")]
    assert [await store.is_author_approved(*one) for one in unknown] == [False] * len(unknown)
    row = await store.rows_of_run(created.state.id)
    assert row is not None
    assert row.run.columns.approved_author == "mallory"


async def test_a_remote_id_is_the_last_one_that_was_saved(store: Store) -> None:
    """A check that had to be made anew has another one."""
    await store.commit([SaveRemoteId(repo_id="repo_1", key="comment:7", remote_id="1")])
    await store.commit([SaveRemoteId(repo_id="repo_1", key="comment:7", remote_id="2")])

    assert await store.remote_id("repo_1", "comment:7") == "2"
    assert await store.remote_id("repo_2", "comment:7") is None


async def test_a_repository_changes_from_one_revision_to_the_next(store: Store) -> None:
    """Two who change it at the same time: the later one has to look again."""
    await store.commit([SaveRepo(repo=REPO)])
    renamed = msgspec.structs.replace(REPO, name="acme/store", revision=2)

    await store.commit([ChangeRepo(repo=renamed)])

    with pytest.raises(RevisionConflict, match="not at revision 1"):
        await store.commit([ChangeRepo(repo=msgspec.structs.replace(REPO, secret="t" * 16, revision=2))])
    assert await store.load_repo("repo_1") == renamed


async def test_a_repository_cannot_take_the_name_of_another(store: Store) -> None:
    """Nothing changes then."""
    other = msgspec.structs.replace(REPO, id="repo_2", name="acme/tools")
    await store.commit([SaveRepo(repo=REPO), SaveRepo(repo=other)])

    with pytest.raises(RevisionConflict, match="another one is named acme/shop"):
        await store.commit([ChangeRepo(repo=msgspec.structs.replace(other, name=REPO.name, revision=2))])
    assert await store.load_repo("repo_2") == other


async def test_equal_content_is_found_whether_it_made_a_run_or_asked_for_something(store: Store) -> None:
    """What was ignored is not found: it has nothing that could be done twice."""
    await store.commit([a_delivery(run_id=None, ignored="a ping", body_sha256="p" * 64)])
    asked = a_delivery(run_id=None, request=CLOSED, delivery_id="d2", body_sha256="q" * 64)

    await store.commit([asked])

    assert await store.delivery_by_digest("repo_1", "p" * 64) is None
    assert await store.delivery_by_digest("repo_1", "q" * 64) == asked


async def test_runs_are_found_by_commit_by_pull_request_and_by_repository(store: Store) -> None:
    """The newest attempt under each key of a commit; of a pull request whatever lives, shared by deliveries or not."""
    key = RunKey("repo_1", "c" * 40, "pull_request", 7)
    pushed = stepped_runs(1, key=RunKey("repo_1", "c" * 40, "push"))
    first, second = stepped_runs(2, key=key), stepped_runs(3, key=key, attempt=2)
    await store.commit([pushed, first, second])
    over = runs.step(first.run, runs.RequestCancel(reason=EndReason.CLOSED), now_ms=NOW_MS)
    assert isinstance(over, Step)
    ended = SaveRun(run=over.state, expected_revision=1, events=over.events, cause=WEBHOOK)  # type: ignore[arg-type]
    await store.commit([ended, a_delivery(run_id=second.run.id, is_duplicate=True)])

    assert [one.id for one in await store.newest_runs_of_commit("repo_1", "c" * 40)] == [pushed.run.id, second.run.id]
    assert await store.live_runs_of_pull_request("repo_1", 7) == (second.run.id,)
    assert await store.live_runs_of_pull_request("repo_2", 7) == ()
    assert await store.live_runs_of_stream("repo_1", "pr:7") == (second.run.id,)
    assert await store.live_runs_of_repo("repo_1") == (pushed.run.id, second.run.id)


def stepped_runs(number: int, *, key: RunKey, attempt: int = 1) -> SaveRun:
    """A new run under `key`."""
    kind: Any = key.trigger_type
    stream = "branch:main" if key.pr_number is None else f"pr:{key.pr_number}"
    trigger = Trigger(
        kind=kind, ref="refs/heads/main", commit_sha=key.commit_sha, pr_number=key.pr_number, stream=stream
    )
    step = runs.create(a_run_id(number), key, trigger, attempt=attempt, now_ms=NOW_MS, timeout_ms=9, cancel_within_ms=9)
    return SaveRun(run=step.state, expected_revision=0, events=step.events, cause=WEBHOOK)  # type: ignore[arg-type]


async def test_what_was_noted_under_a_beginning_is_found_together(store: Store) -> None:
    """Without what was taken back, and without what another repository has."""
    noted = {"head:refs/heads/main": "1", "head:pr:7": "2", "head:gone": "", "heads": "4", "hea": "5"}
    await store.commit([SaveRemoteId(repo_id="repo_1", key=key, remote_id=told) for key, told in noted.items()])
    await store.commit([SaveRemoteId(repo_id="repo_2", key="head:pr:9", remote_id="9")])

    assert await store.remote_ids("repo_1", "head:") == {"refs/heads/main": "1", "pr:7": "2"}


async def test_which_deliveries_are_in_the_ledger_of_any_repository(store: Store) -> None:
    """A forge lists them without saying whose they are."""
    await store.commit([a_delivery(delivery_id="d1", ignored="why")])
    await store.commit([a_delivery(delivery_id="d'2", repo_id="repo_2", ignored="why")])

    assert await store.known_deliveries(["d1", "d'2", "d3"]) == {"d1", "d'2"}
    assert await store.known_deliveries([]) == frozenset()
