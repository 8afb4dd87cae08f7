"""What every store promises of runs, jobs and plans."""

import msgspec
import pytest

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.errors import DuplicateKey, GrantKeptOut, RevisionConflict
from deltaci.domain.events import SYSTEM, LeaseRenewed
from deltaci.domain.repo import Latest
from deltaci.domain.states import EndReason, RunState
from deltaci.store.port import HeldJob, RunSummary, Store
from deltaci.store.writes import SaveJob, SavePlan, SaveRepo
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_created_run,
    a_job,
    a_plan,
    a_planned_job,
    a_planned_run,
    a_repo,
    a_run_id,
    add_job,
    leased,
    save_job,
    save_run,
    stepped,
)
from tests.contracts.store.support import job_of, outcomes

pytestmark = pytest.mark.anyio


async def test_what_is_not_stored_is_none_or_empty(store: Store) -> None:
    """An unknown id is a normal answer, not an error."""
    answers = (
        await store.load_run("run_x"),
        await store.load_job("job_x"),
        await store.load_plan("run_x"),
        await store.jobs_of_run("run_x"),
        await store.latest_run(a_created_run().state.key),
        await store.delivery("repo_1", "x"),
        await store.reply("x"),
        await store.next_owed_at_ms(),
        await store.load_repo("x"),
        await store.token("x"),
        await store.runner("x"),
        await store.read_log("job_x", 1, offset=0, limit=10),
    )

    assert answers == (None, None, None, (), None, None, None, None, None, None, None, b"")


async def test_a_run_is_loaded_as_it_was_saved(store: Store) -> None:
    """Insert and update both keep every field."""
    created = a_created_run()
    planning = stepped(created.state, runs.StartPlanning())

    await store.commit([save_run(created)])
    first = await store.load_run(created.state.id)
    await store.commit([save_run(planning)])
    second = await store.load_run(created.state.id)

    assert (created.state, planning.state) == (first, second)


async def test_a_job_is_loaded_with_what_a_runner_is_told_to_do(store: Store) -> None:
    """Steps of the job's life do not touch what was planned."""
    await store.commit([add_job(labels=("linux", "gpu"))])
    granted = leased(a_job())

    await store.commit([save_job(granted)])

    assert (granted.state, a_planned_job(name="test-0", labels=("linux", "gpu"))) == await store.load_job(a_job().id)


@pytest.mark.parametrize("expected_revision", [0, 2, 7])
async def test_a_job_at_another_revision_is_not_overwritten(store: Store, expected_revision: int) -> None:
    """The fence of every write: whoever decided on other state than the stored one loses."""
    await store.commit([add_job()])
    event = LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=NOW_MS)
    job = msgspec.structs.replace(a_job(), revision=expected_revision + 1)

    with pytest.raises(RevisionConflict):
        await store.commit([SaveJob(job=job, expected_revision=expected_revision, events=(event,), cause=SYSTEM)])

    loaded = await store.load_job(a_job().id)
    assert loaded is not None
    assert a_job() == loaded[0]


async def test_a_run_at_another_revision_is_not_overwritten(store: Store) -> None:
    """Two that planned the same run: the second one reloads."""
    created = a_created_run()
    planning = stepped(created.state, runs.StartPlanning())
    await store.commit([save_run(created)])
    await store.commit([save_run(planning)])

    with pytest.raises(RevisionConflict):
        await store.commit([save_run(planning)])

    assert planning.state == await store.load_run(created.state.id)


async def test_an_unknown_job_cannot_be_saved(store: Store) -> None:
    """A job begins with its plan, never with a step."""
    with pytest.raises(RevisionConflict):
        await store.commit([save_job(leased(a_job()))])

    assert await store.load_job(a_job().id) is None


@pytest.mark.parametrize("number", [1, 2])
async def test_a_run_key_and_attempt_exist_once(store: Store, number: int) -> None:
    """Neither the same id nor the same key under another id makes a second run."""
    await store.commit([save_run(a_created_run(1, commit_sha="a" * 40))])

    with pytest.raises(DuplicateKey) as caught:
        await store.commit([save_run(a_created_run(number, commit_sha="a" * 40))])

    assert caught.value.table == "run"


async def test_pull_requests_of_one_commit_are_runs_of_their_own(store: Store) -> None:
    """No number and any two numbers are three different keys."""
    numbers = (None, 1, 2)
    commits = [
        [save_run(a_created_run(index, commit_sha="a" * 40, pr_number=number))] for index, number in enumerate(numbers)
    ]

    answers = await outcomes(store, commits)

    assert answers == [None, None, None]


async def test_a_run_is_inserted_once_by_a_hundred_at_once(store: Store) -> None:
    """One wins, all others are told, whatever batches they came in."""
    commits = [[save_run(a_created_run(number, commit_sha="a" * 40))] for number in range(100)]

    answers = await outcomes(store, commits)

    assert (answers.count(None), sum(isinstance(answer, DuplicateKey) for answer in answers)) == (1, 99)
    assert len(await store.list_runs(limit=200)) == 1


async def test_a_job_is_added_once(store: Store) -> None:
    """A plan adopted twice does not start its jobs anew."""
    await store.commit([add_job()])
    await store.commit([save_job(leased(a_job()))])

    with pytest.raises(DuplicateKey) as caught:
        await store.commit([add_job()])

    assert ("job", leased(a_job()).state) == (caught.value.table, (await job_of(store)))


async def test_a_plan_is_written_once(store: Store) -> None:
    """The jobs that exist came from the first one."""
    first, second = a_plan(), a_plan(a_planned_job(name="other"))
    await store.commit([SavePlan(run_id=a_run_id(), plan=first, digest="1")])

    with pytest.raises(DuplicateKey):
        await store.commit([SavePlan(run_id=a_run_id(), plan=second, digest="2")])

    assert first == await store.load_plan(a_run_id())


async def test_jobs_come_in_the_order_of_the_plan(store: Store) -> None:
    """By index, not by spelling (10 after 9) and not by who came first."""
    await store.commit([add_job(a_created_job(index=index)) for index in (10, 2, 0, 9)])

    found = await store.jobs_of_run(a_run_id())

    assert [job.name for job in found] == ["test-0", "test-2", "test-9", "test-10"]


async def test_the_latest_run_is_the_highest_attempt_of_its_key(store: Store) -> None:
    """A rerun answers for its key from then on."""
    first = a_created_run(1, commit_sha="a" * 40)
    second = a_created_run(2, commit_sha="a" * 40, attempt=2)
    await store.commit([save_run(second)])
    await store.commit([save_run(first), save_run(a_created_run(3, commit_sha="b" * 40))])

    latest = await store.latest_run(first.state.key)

    assert Latest(a_run_id(2), 2, RunState.CREATED, None) == latest


async def test_a_list_of_runs_goes_on_where_the_page_before_ended(store: Store) -> None:
    """Newest first, every run on exactly one page."""
    await store.commit([SaveRepo(repo=a_repo())])
    for number in range(5):
        await store.commit([save_run(a_created_run(number))])

    first = await store.list_runs(limit=2)
    second = await store.list_runs(limit=2, before=first[-1].run.id)
    third = await store.list_runs(limit=2, before=second[-1].run.id)

    assert [a_run_id(number) for number in (4, 3, 2, 1, 0)] == [one.run.id for one in (*first, *second, *third)]
    assert RunSummary(run=a_created_run(4).state, repo_name="team/project") == first[0]


async def test_a_list_of_runs_is_filtered_by_repository_and_state(store: Store) -> None:
    """Each filter alone, both together, and a repository nobody registered has no name."""
    planning = stepped(a_created_run(2).state, runs.StartPlanning())
    for number in (1, 2):
        await store.commit([save_run(a_created_run(number))])
    await store.commit([save_run(planning), save_run(a_created_run(3, repo_id="repo_2"))])

    listed = [
        [one.run.id for one in await store.list_runs(repo_id="repo_1")],
        [one.run.id for one in await store.list_runs(state=RunState.CREATED)],
        [one.run.id for one in await store.list_runs(repo_id="repo_1", state=RunState.PLANNING)],
    ]

    assert [[a_run_id(2), a_run_id(1)], [a_run_id(3), a_run_id(1)], [a_run_id(2)]] == listed
    assert (await store.list_runs())[0].repo_name == ""


@pytest.mark.parametrize("is_canceled", [True, False])
async def test_a_lease_is_stored_only_while_its_run_is_not_canceled(store: Store, is_canceled: bool) -> None:
    """Nothing is leased after a stored cancel, also when the job has not heard of it; other steps are let through."""
    event = a_created_job()
    writes = a_planned_run(1, (event,))
    await store.commit(writes)
    run = await store.load_run(event.run_id)
    assert run is not None
    if is_canceled:
        await store.commit([save_run(stepped(run, runs.RequestCancel(reason=EndReason.USER_CANCELED)))])
    granted = leased(await job_of(store, event.job_id))
    grant = msgspec.structs.replace(save_job(granted), is_grant=True)

    (answer,) = await outcomes(store, [[grant]])

    assert isinstance(answer, GrantKeptOut) == is_canceled
    assert (await job_of(store, event.job_id)).revision == (1 if is_canceled else granted.state.revision)


@pytest.mark.parametrize(
    ("repo_id", "group", "is_kept_out"),
    [("repo_1", "deploy", True), ("repo_1", "docs", False), ("repo_2", "deploy", False), ("repo_1", "", False)],
)
async def test_a_lease_is_stored_only_while_nobody_else_holds_its_group(
    store: Store, repo_id: str, group: str, is_kept_out: bool
) -> None:
    """Of one group in one repository; whoever has no group is kept out by nobody."""
    mine = a_created_job(index=0, concurrency=group)
    other = a_created_job(a_run_id(2), repo_id=repo_id, concurrency="deploy" if group else "")
    await store.commit([*a_planned_run(1, (mine,)), *a_planned_run(2, (other,))])
    await store.commit([msgspec.structs.replace(save_job(leased(jobs.created(other))), is_grant=True)])
    grant = msgspec.structs.replace(save_job(leased(jobs.created(mine))), is_grant=True)

    (answer,) = await outcomes(store, [[grant]])

    assert isinstance(answer, GrantKeptOut) == is_kept_out
    assert await store.holder_of_group(repo_id, "deploy") == (other.job_id if group else None)
    assert await store.holder_of_group(repo_id, "") is None


async def test_of_two_leases_of_a_group_in_one_batch_one_is_stored(store: Store) -> None:
    """What is staged counts: the second one finds the first."""
    events = tuple(a_created_job(index=index, concurrency="deploy") for index in range(2))
    await store.commit(a_planned_run(1, events))
    grants = [msgspec.structs.replace(save_job(leased(jobs.created(event))), is_grant=True) for event in events]

    answers = await outcomes(store, [[grant] for grant in grants])

    kept_out = [isinstance(answer, GrantKeptOut) for answer in answers]
    assert sorted(kept_out) == [False, True]
    assert await store.held_jobs() == (HeldJob(events[kept_out.index(False)].job_id, "repo_1", "deploy"),)


async def test_a_group_is_free_when_its_job_is_queued_again(store: Store) -> None:
    """A lost lease holds nothing."""
    mine, other = (a_created_job(index=index, concurrency="deploy") for index in range(2))
    await store.commit(a_planned_run(1, (mine, other)))
    held = leased(jobs.created(mine))
    await store.commit([save_job(held)])
    await store.commit([save_job(stepped(held.state, jobs.Revoke()))])

    (answer,) = await outcomes(store, [[msgspec.structs.replace(save_job(leased(jobs.created(other))), is_grant=True)]])

    assert answer is None
    assert await store.holder_of_group("repo_1", "deploy") == other.job_id
