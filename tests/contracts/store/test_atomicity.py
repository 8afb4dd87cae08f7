"""What every store promises of commits: all or nothing, each by itself, conditional."""

import anyio
import anyio.lowlevel
import msgspec
import pytest

from deltaci.domain.effects import PlanRun
from deltaci.domain.errors import DuplicateKey, RevisionConflict
from deltaci.domain.events import SYSTEM, LeaseRenewed
from deltaci.invariants.verify import verify
from deltaci.store.port import Store
from deltaci.store.writes import Audit, LogChunk, Owe, Reply, Reported, SaveJob, SavePlan, SaveRepo, Settle, Write
from tests.builders import (
    NOW_MS,
    a_created_job,
    a_created_run,
    a_delivery,
    a_job,
    a_plan,
    a_planned_run,
    a_repo,
    a_run_id,
    acknowledged,
    add_job,
    leased,
    save_job,
    save_run,
)
from tests.contracts.store.support import REPORT, job_of, outcomes, state_of

pytestmark = pytest.mark.anyio


def losing_writes() -> dict[str, list[Write]]:
    """Commits of several writes whose last condition fails, over a store with a job, a run and one of each key."""
    stale = save_job(leased(a_job()))
    fresh: list[Write] = [
        save_run(a_created_run(7)),
        add_job(a_created_job(a_run_id(7))),
        SavePlan(run_id=a_run_id(7), plan=a_plan(), digest="d"),
        Owe(effect=PlanRun(a_run_id(7)), due_at_ms=0),
        Settle(key=REPORT.key, generation=1),
        Audit(at_ms=NOW_MS, cause=SYSTEM, type="Tried"),
        Reported(run_id=a_run_id(), check="test", digest="new", at_ms=NOW_MS),
        LogChunk(job_id=a_job().id, attempt=1, offset=3, data=b"more", at_ms=NOW_MS),
    ]
    return {
        "stale job": [*fresh, stale],
        "delivery": [*fresh, a_delivery()],
        "reply": [*fresh, Reply(key="key", request_sha256="", http_status=200, body=b"other", at_ms=NOW_MS)],
        "repo": [*fresh, SaveRepo(repo=a_repo(id="repo_9"))],
        "log": [*fresh, LogChunk(job_id=a_job().id, attempt=1, offset=3, data=b"again", at_ms=NOW_MS)],
        "nothing else": [stale],
        "condition first": [stale, *fresh],
    }


@pytest.mark.parametrize("case", sorted(losing_writes()))
async def test_nothing_of_a_losing_commit_is_stored(store: Store, case: str) -> None:
    """All writes or none, wherever in the commit the lost condition stands."""
    await store.commit(
        [
            SaveRepo(repo=a_repo()),
            add_job(),
            a_delivery(),
            Reply(key="key", request_sha256="", http_status=200, body=b"first", at_ms=NOW_MS),
            Owe(effect=REPORT, due_at_ms=0),
            LogChunk(job_id=a_job().id, attempt=1, offset=0, data=b"log", at_ms=NOW_MS),
        ]
    )
    await store.commit([save_job(leased(a_job()))])
    before = await state_of(store)

    answers = await outcomes(store, [losing_writes()[case]])

    assert isinstance(answers[0], (RevisionConflict, DuplicateKey))
    assert before == await state_of(store)


async def test_a_lost_race_fails_alone_among_many(store: Store) -> None:
    """Group commit shares a transaction, not a fate."""
    await store.commit([add_job(a_created_job(index=index)) for index in range(64)])
    await store.commit([save_job(leased(a_job(index=17)))])
    commits: list[list[Write]] = [
        [save_job(leased(a_job(index=index))), Owe(effect=REPORT, due_at_ms=index)] for index in range(64)
    ]

    answers = await outcomes(store, commits)

    assert [index for index, answer in enumerate(answers) if answer is not None] == [17]
    assert isinstance(answers[17], RevisionConflict)
    assert (await store.counts())["job"] == {"RUNNING": 64}
    assert (await store.counts())["journal"]["entries"] == 128


async def test_a_losing_commit_of_several_conditions_fails_alone_among_many(store: Store) -> None:
    """What it had changed before its condition failed is taken back, and only that."""
    await store.commit([add_job(a_created_job(index=index)) for index in range(8)])
    commits: list[list[Write]] = [[save_job(leased(a_job(index=index)))] for index in range(8)]
    commits[3] = [save_run(a_created_run()), add_job(a_created_job(index=0))]

    answers = await outcomes(store, commits)

    assert [index for index, answer in enumerate(answers) if answer is not None] == [3]
    assert ((await store.counts())["run"], (await store.counts())["job"]) == ({}, {"QUEUED": 1, "RUNNING": 7})


async def test_steps_of_one_job_in_one_commit_keep_their_order(store: Store) -> None:
    """A commit may carry an entity further by several steps."""
    granted = leased(a_job())
    started = acknowledged(granted.state)

    await store.commit([add_job(), save_job(granted), save_job(started)])

    assert started.state == await job_of(store)
    assert [entry.type for entry in await store.events_of_run(a_run_id())] == [
        "JobCreated",
        "AttemptLeased",
        "LeaseAcknowledged",
    ]


async def test_a_caller_who_gave_up_harms_nobody(store: Store) -> None:
    """Its commit is stored or not; all others are answered as if it had waited."""
    await store.commit(a_planned_run(1, tuple(a_created_job(index=index) for index in range(20))))

    gone = anyio.CancelScope()

    async def give_up() -> None:
        with gone:
            await store.commit([save_job(leased(a_job(index=19)))])

    async with anyio.create_task_group() as group:
        group.start_soon(give_up)
        for index in range(19):
            group.start_soon(store.commit, [save_job(leased(a_job(index=index)))])
        await anyio.lowlevel.checkpoint()
        gone.cancel()

    assert (await store.counts())["job"]["RUNNING"] in (19, 20)
    assert (await verify(store)).violations == ()


async def test_what_was_committed_is_read_at_once(store: Store) -> None:
    """No caller sees a state older than its own last commit."""
    job = a_job()
    await store.commit([add_job()])
    event_count = 20

    seen = []
    for index in range(event_count):
        event = LeaseRenewed(at_ms=NOW_MS, attempt=1, expires_at_ms=index)
        job = msgspec.structs.replace(job, revision=job.revision + 1)
        await store.commit([SaveJob(job=job, expected_revision=job.revision - 1, events=(event,), cause=SYSTEM)])
        seen.append((await job_of(store)).revision)

    assert list(range(2, event_count + 2)) == seen


@pytest.mark.parametrize(
    "write",
    [
        SaveJob(job=a_job(), expected_revision=1, events=(), cause=SYSTEM),
        SaveJob(job=a_job(), expected_revision=1, events=(a_created_job(),), cause=SYSTEM),
        a_delivery(ignored="because", run_id="run_1"),
        a_delivery(run_id=None),
        LogChunk(job_id="job_1", attempt=1, offset=-1, data=b"", at_ms=0),
    ],
    ids=["no events", "revision", "run and reason", "no run, no reason", "offset"],
)
async def test_a_write_that_contradicts_itself_is_a_bug(store: Store, write: Write) -> None:
    """It is told to its caller before anything is stored, and breaks nothing."""
    with pytest.raises(ValueError, match=r"."):
        await store.commit([Audit(at_ms=NOW_MS, cause=SYSTEM, type="Tried"), write])

    assert (await store.counts())["journal"] == {"entries": 0}
