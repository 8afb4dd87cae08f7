"""What GitHub hears within its limits, in virtual time: 80 writes a minute, 500 an hour, and whatever goes wrong."""

import random

import anyio
import msgspec
import pytest

from deltaci.domain.states import EndReason, JobState, RunState
from tests.reporter.committed import REPO, Committed, Relay, VirtualClock, ended, in_virtual_time, jobs_of, run_of
from tests.reporter.github import FakeGitHub
from tests.reporter.runs import an_explanation

MINUTE_MS = 60_000
SUCCEEDED, FAILED, RUNNING = JobState.SUCCEEDED, JobState.FAILED, JobState.RUNNING


@pytest.mark.parametrize(("over_s", "faults"), [(0, 0), (120, 0), (60, 0.1)])
def test_a_run_of_300_jobs_is_told_within_ten_minutes(over_s: int, faults: float) -> None:
    """Whether its jobs end one after the other or all at once, and though one request of ten fails or is lost.

    Each check is told, what failed and the run's own long before the last.
    """

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, faults=faults, latency_s=0.2)
        run, relay = run_of(1), Relay(store, github)
        store.add(run, *jobs_of(run, 300))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.serve, run.id)
            await anyio.sleep(1)
            for job in jobs_of(run, 300, RUNNING):
                store.move(run.id, job)
            failed = {3, 250, 299}
            for number, job in enumerate(jobs_of(run, 300, SUCCEEDED, EndReason.SUCCEEDED)):
                await anyio.sleep(over_s / 300)
                if number in failed:
                    job = jobs_of(run, 300, FAILED, EndReason.STEP_FAILED)[number]
                store.move(run.id, job)
            over_ms = clock.now_ms()
            store.move(run.id, run=ended(run, RunState.FAILED, EndReason.JOBS_FAILED))
            await relay.done()
            tasks.cancel_scope.cancel()

        conclusions = github.conclusions()
        assert github.limited == 0
        assert github.backwards() == []
        assert {f"run_1_job{number}" for number in failed} | {run.id} == {
            name for name, conclusion in conclusions.items() if conclusion == "failure"
        }
        assert list(conclusions.values()).count("success") == 297
        assert max(github.ended_at_ms.values()) - over_ms < 10 * MINUTE_MS
        red_ms = max(github.ended_at_ms[f"run_1_job{number}"] for number in failed)
        assert max(red_ms, github.ended_at_ms[run.id]) - over_ms < 1.5 * MINUTE_MS
        assert github.asked < 400
        assert len(github.comments) == 1

    in_virtual_time(main)


def test_a_run_of_ten_jobs_is_told_within_ten_seconds() -> None:
    """And all of it is seen on its way: waiting, running, over."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, latency_s=0.1)
        run, relay = run_of(1), Relay(store, github)
        store.add(run, *jobs_of(run, 10))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.serve, run.id)
            await relay.done()
            store.move(run.id, *jobs_of(run, 10, RUNNING))
            await relay.done()
            over_ms = clock.now_ms()
            store.move(run.id, *jobs_of(run, 10, SUCCEEDED, EndReason.SUCCEEDED), run=ended(run))
            await relay.done()
            tasks.cancel_scope.cancel()

        assert list(github.conclusions().values()) == ["success"] * 11
        assert max(github.ended_at_ms.values()) - over_ms < 10_000
        assert [one.status for one in github.heard if one.name == "deltaci/j4"] == [
            "queued",
            "in_progress",
            "completed",
        ]
        assert github.heard[-1].name == "deltaci"

    in_virtual_time(main)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_goes_wrong_every_final_state_arrives_once_and_in_order(seed: int) -> None:
    """Failing answers, lost answers, requests to wait: twelve runs of one installation, more than there are places."""

    async def main() -> None:
        chance, store, clock = random.Random(seed), Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, seed=seed, faults=0.15, latency_s=0.3)
        relay, runs = Relay(store, github), [run_of(number) for number in range(12)]
        async with anyio.create_task_group() as tasks:
            for run in runs:
                store.add(run, *jobs_of(run, 15))
                tasks.start_soon(relay.serve, run.id)
            for run in runs:
                await anyio.sleep(chance.uniform(0, 20))
                store.move(run.id, *jobs_of(run, 15, RUNNING))
            for run in runs:
                await anyio.sleep(chance.uniform(0, 20))
                store.move(run.id, *jobs_of(run, 15, SUCCEEDED, EndReason.SUCCEEDED), run=ended(run))
            await relay.done()
            tasks.cancel_scope.cancel()

        assert github.backwards() == []
        assert github.limited == 0
        assert list(github.conclusions().values()) == ["success"] * (12 * 16)

    in_virtual_time(main)


def test_of_many_runs_none_waits_for_all_others_to_be_told() -> None:
    """One of 300 jobs came first; small ones come a little later, and are told before it is done."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, latency_s=0.1)
        relay, runs = Relay(store, github), [run_of(number) for number in range(12)]
        async with anyio.create_task_group() as tasks:
            for number, run in enumerate(runs):
                store.add(ended(run), *jobs_of(run, 300 if not number else 6, SUCCEEDED, EndReason.SUCCEEDED))
                tasks.start_soon(relay.serve, run.id)
                await anyio.sleep(2)
            await relay.done()
            tasks.cancel_scope.cancel()

        last_ms = {
            run.id: max(at for key, at in github.ended_at_ms.items() if key.startswith(run.id + "_")) for run in runs
        }
        assert github.limited == 0
        assert max(last_ms[run.id] for run in runs[1:]) < last_ms[runs[0].id]
        assert max(last_ms[run.id] for run in runs[1:]) < 3 * MINUTE_MS

    in_virtual_time(main)


def test_more_than_an_hour_takes_is_told_later_the_runs_themselves_at_once() -> None:
    """Two runs of 300 jobs are more writes than GitHub takes in an hour: what people wait for is not among the rest."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, latency_s=0.1)
        relay, runs = Relay(store, github), [run_of(1), run_of(2)]
        async with anyio.create_task_group() as tasks:
            for run in runs:
                store.add(ended(run), *jobs_of(run, 300, SUCCEEDED, EndReason.SUCCEEDED))
                tasks.start_soon(relay.serve, run.id)
            await relay.done()
            late = run_of(3)
            store.add(ended(late, RunState.FAILED, EndReason.PLAN_FAILED))
            tasks.start_soon(relay.serve, late.id)
            await relay.done()
            tasks.cancel_scope.cancel()

        assert github.limited == 0
        assert max(github.ended_at_ms[run.id] for run in runs) < 2 * MINUTE_MS
        assert 60 * MINUTE_MS < max(github.ended_at_ms.values()) < 70 * MINUTE_MS
        assert len(github.conclusions()) == 603

    in_virtual_time(main)


def test_300_failures_are_told_before_any_of_them_is_told_better() -> None:
    """Each has an explanation a moment later: two writes for each would be more than an hour takes."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, latency_s=0.1)
        run, relay = run_of(1), Relay(store, github)
        failed = jobs_of(run, 300, FAILED, EndReason.STEP_FAILED)
        store.add(ended(run, RunState.FAILED, EndReason.JOBS_FAILED), *failed)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.serve, run.id)
            for job in failed:
                await anyio.sleep(0.1)
                store.explanations[job.id] = an_explanation(job, "Test a::b failed.")
                store.move(run.id)
            await relay.done()
            tasks.cancel_scope.cancel()

        assert github.limited == 0
        assert max(github.ended_at_ms.values()) < 10 * MINUTE_MS
        assert all(
            "Test a::b failed." in held.check.title for held in github.checks.values() if held.check.name != "deltaci"
        )

    in_virtual_time(main)


def test_who_asked_to_be_left_alone_is_left_alone_by_every_run() -> None:
    """Going on during a secondary limit makes it last longer, and in the end shuts the app out."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms, latency_s=0.1)
        github.writes.extend([0] * 80)  # another program's, which we cannot know of
        relay, runs = Relay(store, github), [run_of(number) for number in range(5)]
        async with anyio.create_task_group() as tasks:
            for run in runs:
                store.add(ended(run))
                tasks.start_soon(relay.serve, run.id)
                await anyio.sleep(1)
            await relay.done()
            tasks.cancel_scope.cancel()

        assert github.limited == 1
        assert len(github.conclusions()) == 5

    in_virtual_time(main)


def test_what_is_refused_for_good_is_not_asked_for_again_until_something_changes() -> None:
    """A repository that is gone costs as many requests as a run has changes, and no more."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        github = FakeGitHub(clock.now_ms)
        github.gone = "404: not found"
        run, relay = run_of(1), Relay(store, github)
        store.add(run, *jobs_of(run, 10))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.serve, run.id)
            await relay.done()
            asked = github.asked
            await anyio.sleep(24 * 3600)
            assert github.asked == asked <= 4
            assert "404" in relay.refused[run.id]
            github.gone = ""
            store.move(run.id, run=ended(run))
            await relay.done()
            tasks.cancel_scope.cancel()

        assert github.conclusions()[run.id] == "success"

    in_virtual_time(main)


def test_a_removed_repository_is_not_even_asked() -> None:
    """What is not ours any more is refused with the reason that is stored."""

    async def main() -> None:
        store, clock = Committed(), VirtualClock()
        store.repo = msgspec.structs.replace(REPO, removed_because="the app was uninstalled")
        github = FakeGitHub(clock.now_ms)
        run, relay = run_of(1), Relay(store, github)
        store.add(run)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(relay.serve, run.id)
            await relay.done()
            tasks.cancel_scope.cancel()

        assert github.asked == 0
        assert "the app was uninstalled" in relay.refused[run.id]

    in_virtual_time(main)
