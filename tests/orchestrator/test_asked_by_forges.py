"""What a webhook asks for besides a run is in the ledger before it is answered, and done once, by who may."""

from typing import Any

import anyio
import msgspec
import pytest

from deltaci.domain.errors import DeliveryReused, ForgeUnavailable
from deltaci.domain.events import Trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import (
    AddRepos,
    Approve,
    CancelRuns,
    EndStream,
    InstalledRepo,
    RemoveRepo,
    RemoveRepos,
    RenameRepo,
    Request,
    Right,
    RunAgain,
)
from deltaci.invariants.verify import verify
from deltaci.orchestrator.deliveries import SOMEBODY
from deltaci.orchestrator.messages import Admit, Admitted
from deltaci.orchestrator.repo_actor import NameTaken, RepoRemoved
from deltaci.store.memory import MemoryStore
from deltaci.store.writes import ChangeRepo, Delivery, DeliveryActed
from tests.orchestrator.faults import FaultyStore, assert_sound, insistently, work_until_over
from tests.orchestrator.support import ME, SHA, Stage, a_job, a_repo, staged

pytestmark = pytest.mark.anyio

GITHUB = a_repo(name="acme/shop", forge="github", api_token="t" * 20, installation_id=5)


class People:
    """Ada may write, Bob may read, nobody knows the others; away as often as it was told."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.away = 0

    async def right_of(self, repo: Repo, login: str) -> Right:
        self.asked.append(login)
        await anyio.lowlevel.checkpoint()
        if self.away:
            self.away -= 1
            raise ForgeUnavailable("the forge does not answer")
        rights: dict[str, Right] = {"ada": "write", "bob": "read"}
        return rights.get(login, "none")


def on_github(store: Any = None, *jobs: Any, repo: Repo = GITHUB, people: People | None = None, **more: Any) -> Any:
    """The stage with a repository of GitHub, whose people can be asked about."""
    rights = {"github": people or People()}
    return staged(store or MemoryStore(), *(jobs or (a_job(),)), repo=repo, rights=rights, **more)


def pull(number: int = 7, *, is_open: bool = True, at_ms: int = 1_000, head: str = SHA, **more: Any) -> PullRequest:
    values = {"repo_id": "repo_1", "number": number, "head_sha": head, "head_ref": "refs/heads/topic"}
    values |= {"base_ref": "refs/heads/main", "base_sha": "0" * 40, "is_open": is_open, "updated_at_ms": at_ms}
    return PullRequest(**(values | more))


def opened(number: int = 7, sha: str = SHA) -> Trigger:
    stream = f"pr:{number}"
    return Trigger(kind="pull_request", ref=f"refs/pull/{number}/head", commit_sha=sha, pr_number=number, stream=stream)


async def send(stage: Stage, delivery: str, *, repo_id: str | None = None, body: str = "", **what: Any) -> Admitted:
    """A webhook arrives."""
    message = Admit(delivery_id=delivery, body_sha256=body or f"body of {delivery}", event="any", **what)
    return await stage.orchestrator.admit(stage.repo.id if repo_id is None else repo_id, message)


async def asked(stage: Stage, delivery: str, request: Request, **more: Any) -> str:
    """What came of a request that arrives."""
    await send(stage, delivery, request=request, **more)
    return await outcome(stage, delivery, more.get("repo_id"))


async def outcome(stage: Stage, delivery: str, repo_id: str | None = None) -> str:
    with anyio.fail_after(10):
        while True:
            row = await stage.store.delivery(stage.repo.id if repo_id is None else repo_id, delivery)
            assert row is not None
            if row.outcome is not None:
                return row.outcome
            stage.clock.advance(10)
            await anyio.sleep(0.005)


async def settled(stage: Stage) -> None:
    """Go on once nothing is owed; what was put off becomes due."""
    with anyio.fail_after(10):
        while await stage.store.next_owed_at_ms() is not None:
            stage.clock.advance(10)
            await anyio.sleep(0.005)


CLOSED = EndStream(stream="pr:7", because="pull request 7 was closed")


async def test_a_closed_pull_request_ends_its_runs_and_no_others() -> None:
    """With the reason `closed`, and in the words of the event."""
    async with on_github() as stage:
        run_id = (await send(stage, "d1", trigger=opened(), pull_request=pull())).run_id
        other = await stage.push("b" * 40)

        answer = await send(stage, "d2", request=CLOSED, pull_request=pull(is_open=False, at_ms=2_000))

        words = "end what runs: pull request 7 was closed"
        assert answer == Admitted(run_id=None, is_duplicate=False, ignored=None, accepted=words)
        run = await stage.run_until(run_id, "CANCELED")
        assert (run.end_reason, run.text) == ("closed", "pull request 7 was closed")
        assert await outcome(stage, "d2") == f"canceled {run_id}"
        assert not (await stage.orchestrator.run(other)).state.is_final
        await settled(stage)
        await assert_sound(stage.store)


async def test_a_repeated_request_gets_the_equal_answer_and_is_done_once() -> None:
    """Under the same id, and under another one with the same content."""
    async with on_github() as stage:
        first = await send(stage, "d1", request=CLOSED)
        await outcome(stage, "d1")
        run_id = (await send(stage, "d2", trigger=opened(), pull_request=pull())).run_id

        again = await send(stage, "d1", request=CLOSED)
        twin = await send(stage, "d3", request=CLOSED, body="body of d1")

        assert again == first
        assert twin == msgspec.structs.replace(first, is_duplicate=True)
        assert await outcome(stage, "d3") == "the same as delivery d1"
        await settled(stage)
        assert not (await stage.orchestrator.run(run_id)).state.is_final
        with pytest.raises(DeliveryReused):
            await send(stage, "d1", request=CLOSED, body="another")


async def test_an_end_that_was_overtaken_by_a_new_beginning_ends_nothing() -> None:
    """Closed, opened again, and only then the first of the two arrives."""
    async with on_github() as stage:
        run_id = (await send(stage, "d2", trigger=opened(), pull_request=pull(at_ms=3_000))).run_id

        late = await asked(stage, "d1", CLOSED, pull_request=pull(is_open=False, at_ms=2_000))

        assert late == "nothing is canceled: pull request 7 is open again"
        assert not (await stage.orchestrator.run(run_id)).state.is_final


async def test_a_trigger_that_was_overtaken_by_the_end_of_its_pull_request_starts_nothing() -> None:
    """And a pull request that was opened again runs again, also at the same commit."""
    async with on_github() as stage:
        first = (await send(stage, "d1", trigger=opened(), pull_request=pull())).run_id
        await asked(stage, "d2", CLOSED, pull_request=pull(is_open=False, at_ms=2_000))
        await stage.run_until(first, "CANCELED")

        late = await send(stage, "d3", trigger=opened(), pull_request=pull(at_ms=1_500))
        again = await send(stage, "d4", trigger=opened(), pull_request=pull(at_ms=3_000))

        assert late.ignored == "pull request 7 was closed meanwhile"
        assert again.run_id not in (None, first)
        assert await stage.store.pull_request("repo_1", 7) == pull(at_ms=3_000, head_at_ms=1_000)


async def test_a_deleted_branch_ends_only_what_ran_before() -> None:
    """It may have been made anew before anybody could act."""
    async with on_github(repo=msgspec.structs.replace(GITHUB, is_superseding=False)) as stage:
        before = await stage.push()
        await asked(stage, "d1", EndStream(stream="branch:gone", because="so that the next one is later"))
        gone = EndStream(stream="branch:main", because="refs/heads/main was deleted")
        received_at_ms = (await stage.store.delivery("repo_1", "d1")).received_at_ms  # type: ignore[union-attr]
        after = await stage.push("b" * 40)
        row = Delivery(
            repo_id="repo_1",
            delivery_id="d2",
            body_sha256="b",
            received_at_ms=received_at_ms,
            event="push",
            request=gone,
        )
        await stage.store.commit((row,))
        await stage.orchestrator.replay("repo_1", "d2", ME)

        assert await outcome(stage, "d2") == f"canceled {before}"
        await stage.run_until(before, "CANCELED")
        assert not (await stage.orchestrator.run(after)).state.is_final


AGAIN: list[tuple[str, dict[str, Any]]] = [
    ("by its run", {"run_id": "RUN"}),
    ("by its job", {"job_id": "JOB"}),
    ("by its commit", {"commit_sha": SHA}),
    ("by its pull request", {"pr_number": 7}),
]


@pytest.mark.parametrize("what", [what for _, what in AGAIN], ids=[name for name, _ in AGAIN])
async def test_what_is_over_runs_again_for_those_who_may(what: dict[str, Any]) -> None:
    """Once, however often it is asked under one delivery; while it lives, the outcome says so."""
    async with on_github(None, a_job("a"), a_job("b")) as stage:
        run_id = str((await send(stage, "d1", trigger=opened(), pull_request=pull())).run_id)
        job_id = (await stage.run_until(run_id, "QUEUED")).jobs[0].id
        named = {name: {"RUN": run_id, "JOB": job_id}.get(value, value) for name, value in what.items()}
        request = RunAgain(by="ada", right="write", **named)

        live = await asked(stage, "d2", request)
        await work_until_over(stage, await stage.runner(slots=2), run_id)
        done = await asked(stage, "d3", request)
        await stage.orchestrator.replay("repo_1", "d3", ME)
        await settled(stage)

        assert live.startswith(f"refused: Rerun refused for {run_id} in state QUEUED: not_over")
        newest = (await stage.store.newest_runs_of_commit("repo_1", SHA))[0]
        assert (done, newest.attempt) == (f"runs again as {newest.id}", 2)
        jobs = {job.name: job.is_skipped for job in (await plan_of(stage, newest.id)).jobs}
        assert jobs == {"a": False, "b": "job_id" in what}
        await assert_sound(stage.store)


async def plan_of(stage: Stage, run_id: str) -> Any:
    await stage.run_until(run_id, "QUEUED")
    plan = await stage.store.load_plan(run_id)
    assert plan is not None
    return plan


async def test_nobody_is_obeyed_without_the_right() -> None:
    """Less than it takes, a stranger, and a repository about which nobody can be asked."""
    async with on_github() as stage:
        run_id = (await send(stage, "d1", trigger=opened(), pull_request=pull())).run_id
        cancel = CancelRuns(by="bob", right="write", pr_number=7)

        assert await asked(stage, "d2", cancel) == (
            "refused: bob has the right read in acme/shop, and this takes write"
        )
        stranger = msgspec.structs.replace(cancel, by="eve")
        assert (await asked(stage, "d3", stranger)).startswith("refused: eve has the right none")
        await stage.orchestrator.change_repo("repo_1", {"api_token": "", "installation_id": 0}, {}, ME)
        assert (await asked(stage, "d4", cancel, body="4")).startswith("refused: nobody can be asked what bob may do")
        assert not (await stage.orchestrator.run(run_id)).state.is_final


async def test_who_may_cancels_and_what_was_refused_may_be_asked_once_more() -> None:
    """A replay of what was done does nothing; one of what was refused looks again."""
    people = People()
    async with on_github(people=people) as stage:
        run_id = (await send(stage, "d1", trigger=opened(), pull_request=pull())).run_id
        people.away = 2

        done = await asked(stage, "d2", CancelRuns(by="ada", right="write", pr_number=7))

        assert (done, len(people.asked)) == (f"canceled {run_id}", 3)
        run = await stage.run_until(run_id, "CANCELED")
        assert (run.end_reason, run.text) == ("user_canceled", "canceled by ada")
        await stage.orchestrator.replay("repo_1", "d2", ME)
        await settled(stage)
        assert len(people.asked) == 3

        refused = await asked(stage, "d3", CancelRuns(by="ada", right="admin", pr_number=7))
        await stage.orchestrator.replay("repo_1", "d3", ME)
        await settled(stage)
        assert (refused[:8], len(people.asked)) == ("refused:", 5)


async def test_a_forge_names_only_runs_of_its_own_repository() -> None:
    """The name in a check may be anybody's."""
    async with on_github() as stage:
        other = msgspec.structs.replace(stage.repo, id="repo_2", name="acme/tools")
        await stage.orchestrator.add_repo(other, ME)
        trigger = Trigger(kind="push", ref="refs/heads/main", commit_sha=SHA, stream="branch:main")
        run_id = (await send(stage, "d1", trigger=trigger, repo_id="repo_2")).run_id

        for number, kind in enumerate((RunAgain, CancelRuns)):
            request = kind(by="ada", right="write", run_id=run_id)
            assert await asked(stage, f"a{number}", request) == f"refused: acme/shop has no run '{run_id}'"
        assert not (await stage.orchestrator.run(str(run_id))).state.is_final


async def test_an_approval_is_kept_with_the_commit_that_was_looked_at() -> None:
    """A comment that is older than the head approves nothing; one that names another commit neither."""
    async with on_github(repo=msgspec.structs.replace(GITHUB, approval="forks")) as stage:
        now_ms = stage.clock.at_ms
        trigger = msgspec.structs.replace(opened(), is_fork=True, author="eve")
        run_id = (await send(stage, "d1", trigger=trigger, pull_request=pull(is_fork=True, at_ms=now_ms + 5))).run_id
        assert run_id is not None
        approve = Approve(by="ada", right="write", pr_number=7)

        early = await asked(stage, "d2", msgspec.structs.replace(approve, at_ms=now_ms + 5))
        other = await asked(stage, "d3", msgspec.structs.replace(approve, commit_sha="b" * 40))
        unknown = await asked(stage, "d4", msgspec.structs.replace(approve, pr_number=8))
        good = await asked(stage, "d5", msgspec.structs.replace(approve, at_ms=now_ms + 6))

        assert early == f"refused: {SHA} came after it was written: look at it, and write it again"
        assert other.startswith(f"refused: the head of pull request 7 is {SHA} now")
        assert unknown == "refused: nothing of pull request 8 waits for approval"
        assert good == f"run {run_id} of commit {SHA} was approved by ada"
        assert (await stage.orchestrator.run(run_id)).approved_by == "ada"


async def test_a_renamed_repository_keeps_its_runs_and_no_name_is_taken_twice() -> None:
    """The row, the audit and the outcome are one commit; replayed, a rename does not undo a later one."""
    async with on_github() as stage:
        await stage.push()
        url = "https://github.com/acme/store.git"

        done = await asked(stage, "d1", RenameRepo(name="acme/store", clone_url=url))
        await stage.orchestrator.change_repo("repo_1", {"name": "acme/later"}, {"name": "acme/later"}, ME)
        await stage.orchestrator.replay("repo_1", "d1", ME)
        await settled(stage)

        (repo,) = stage.orchestrator.repos.all()
        assert (done, repo.name, repo.clone_url) == ("acme/shop is called acme/store now", "acme/later", url)
        assert repo == await stage.store.load_repo("repo_1")
        other = msgspec.structs.replace(stage.repo, id="repo_2", name="acme/tools")
        await stage.orchestrator.add_repo(other, ME)
        assert (await asked(stage, "d2", RenameRepo(name="Acme/Tools"))).startswith("refused: acme/later cannot be")
        with pytest.raises(NameTaken):
            await stage.orchestrator.change_repo("repo_1", {"name": "acme/tools"}, {}, ME)
        await assert_sound(stage.store)


async def test_a_removed_repository_runs_nothing_more_and_may_come_back() -> None:
    """What ran is canceled, what comes is ignored with the reason, what is asked for refused."""
    async with on_github() as stage:
        run_id = await stage.push()

        await asked(stage, "d1", RemoveRepo(because="it was deleted at the forge"))

        run = await stage.run_until(run_id, "CANCELED")
        assert (run.end_reason, run.text) == ("closed", "acme/shop was removed: it was deleted at the forge")
        late = await send(stage, "d2", trigger=opened(), pull_request=pull())
        assert late.ignored == "the repository was removed: it was deleted at the forge"
        with pytest.raises(RepoRemoved):
            await stage.orchestrator.rerun(run_id, ME, is_failed_only=False, key="k")
        again = await asked(stage, "d3", RunAgain(by="ada", right="none", run_id=run_id))
        assert again.startswith("refused: nothing runs in acme/shop")
        await stage.orchestrator.change_repo("repo_1", {"removed_because": ""}, {}, ME)
        assert (await stage.push("b" * 40)) is not None
        await assert_sound(stage.store)


async def test_an_installation_brings_repositories_and_takes_them_away() -> None:
    """What is about no repository has a ledger of its own; who was removed by hand is not brought back."""
    async with on_github() as stage:
        names = (InstalledRepo(name="Acme/Shop"), InstalledRepo(name="acme/new"), InstalledRepo(name="acme/tools"))
        come = AddRepos(installation_id=9, repos=names)

        added = await asked(stage, "i1", come, repo_id="")
        gone = await asked(stage, "i2", RemoveRepos(installation_id=9, names=None, because="it ended"), repo_id="")
        tools = stage.orchestrator.repos.named("acme/tools")
        assert tools is not None
        await stage.orchestrator.change_repo(tools.id, {"removed_because": SOMEBODY}, {}, ME)
        back = await asked(stage, "i3", msgspec.structs.replace(come, installation_id=10), repo_id="")

        assert added == "registered acme/new, acme/tools"
        assert gone == "built no more: acme/new, acme/tools"
        assert back == "registered nothing new; built again: acme/new"
        new = await stage.store.load_repo(stage.orchestrator.repos.named("acme/new").id)  # type: ignore[union-attr]
        assert new is not None
        assert (new.installation_id, new.clone_url) == (10, "https://github.com/acme/new.git")
        assert (new.report_to, len(new.secret), new.removed_because) == ("https://api.github.com", 64, "")
        assert stage.orchestrator.repos.named("acme/new") == new
        assert stage.orchestrator.repos.named("acme/shop") == GITHUB


@pytest.mark.parametrize("fault", ["before", "after"])
async def test_a_removal_is_whole_or_not_there_whatever_the_store_does(fault: Any) -> None:
    """Each commit on the way fails once, stored or not; in the end everything is as if none had."""
    for number in range(1, 9):
        store = FaultyStore(MemoryStore())
        async with on_github(store) as stage:
            run_id = await stage.push()
            await stage.run_until(run_id, "QUEUED")
            store.faults[store.commits + number] = fault
            message = Admit(
                delivery_id="d1", body_sha256="b", event="repository", request=RemoveRepo(because="it is gone")
            )
            await insistently(lambda: stage.orchestrator.admit("repo_1", message))  # noqa: B023

            await outcome(stage, "d1")
            await settled(stage)
            await stage.run_until(run_id, "CANCELED")

            assert stage.orchestrator.repos.all()[0].removed_because == "it is gone"
            assert len(store.writes(ChangeRepo)) == 1
            assert [write.outcome is not None for write in store.writes(DeliveryActed)] == [True]
            await assert_sound(stage.store)


async def test_a_request_is_acted_on_after_a_restart() -> None:
    """It is owed from the commit on that its answer waited for."""
    store = MemoryStore()
    people = People()
    people.away = 10**6
    async with on_github(store, people=people) as stage:
        run_id = (await send(stage, "d1", trigger=opened(), pull_request=pull())).run_id
        await send(stage, "d2", request=CancelRuns(by="ada", right="write", pr_number=7))

    async with on_github(store) as stage:
        stage.clock.advance(400_000)
        assert await outcome(stage, "d2") == f"canceled {run_id}"


async def test_a_request_that_nobody_owes_an_outcome_is_found() -> None:
    """The rule that says so looks at what is stored."""
    store = MemoryStore()
    lost = Delivery(
        repo_id="repo_1", delivery_id="d1", body_sha256="b", received_at_ms=1, event="pull_request", request=CLOSED
    )
    await store.commit((lost,))

    assert [one.rule for one in (await verify(store)).violations] == ["request_is_owed"]


async def test_a_pull_request_that_aims_at_another_branch_runs_again_and_an_overtaken_event_does_not_undo_it() -> None:
    """Other things changed, compared with that branch; the run of the old comparison gives way."""
    async with on_github() as stage:
        at_main = msgspec.structs.replace(opened(), base_ref="refs/heads/main")
        at_next = msgspec.structs.replace(opened(), base_ref="refs/heads/next")
        first = await send(stage, "d1", trigger=at_main, pull_request=pull(at_ms=1_000))
        aimed = pull(at_ms=3_000, base_ref="refs/heads/next")

        second = await send(stage, "d2", trigger=at_next, pull_request=aimed)
        again = await send(stage, "d3", trigger=at_next, pull_request=aimed)
        late = await send(stage, "d4", trigger=at_main, pull_request=pull(at_ms=2_000))

        assert second.run_id not in (first.run_id, None)
        assert [one.run_id for one in (again, late)] == [second.run_id] * 2
        ended = await stage.run_until(str(first.run_id), "CANCELED")
        assert ended.end_reason == "superseded"
        run = await stage.orchestrator.run(str(second.run_id))
        assert (run.attempt, run.trigger.base_ref) == (2, "refs/heads/next")
        await settled(stage)
        await assert_sound(stage.store)
