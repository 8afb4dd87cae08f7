"""From a push to the end of its run: planning, needs, results."""

import anyio
import pytest

from deltaci.domain.errors import ForgeRejected, PlanFailed
from deltaci.domain.events import decode_event
from deltaci.domain.plan import PlannedJob, Reason
from deltaci.domain.run import Run
from deltaci.store.memory import MemoryStore
from protocol import messages as wire
from tests.orchestrator.faults import assert_sound, work_until_over
from tests.orchestrator.support import ME, Stage, a_job, staged

DIAMOND = (
    a_job("build"),
    a_job("left", needs=("build",)),
    a_job("right", needs=("build",)),
    a_job("publish", needs=("left", "right")),
)


async def states(stage: Stage, run_id: str) -> dict[str, str]:
    return {name: str(job.state) for name, job in (await stage.jobs(run_id)).items()}


async def ended(stage: Stage, exit_codes: dict[str, int] | None = None) -> Run:
    run_id = await stage.push()
    return await work_until_over(stage, await stage.runner(), run_id, exit_codes=exit_codes)


@pytest.mark.anyio
async def test_jobs_run_in_the_order_of_their_needs() -> None:
    """A diamond: the top first, the sides at the same time, the bottom after both."""
    async with staged(MemoryStore(), *DIAMOND) as stage:
        run_id, runner = await stage.push(), await stage.runner(slots=4)
        await stage.run_until(run_id, "QUEUED")
        assert await states(stage, run_id) == {
            "build": "QUEUED",
            "left": "BLOCKED",
            "right": "BLOCKED",
            "publish": "BLOCKED",
        }

        assert (await stage.execute(runner)).job.name == "build"
        await stage.job_until(f"job_{run_id[4:]}_2", "QUEUED")
        sides = await stage.lease(runner, slots=4)
        assert sorted(lease.job.name for lease in sides) == ["left", "right"]
        for lease in sides:
            await stage.say(runner, wire.AckLease, lease)
            await stage.say(runner, wire.Complete, lease, exit_code=0)
        assert (await stage.execute(runner)).job.name == "publish"

        run = await stage.run_until(run_id, "SUCCEEDED")
        assert run.end_reason == "succeeded"
        await assert_sound(stage.store)


@pytest.mark.anyio
async def test_every_step_of_a_run_is_stored_with_its_cause() -> None:
    """Each step of the life cycle explicitly persisted, and by whom."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id = await stage.push(delivery="d-1")
        await stage.execute(await stage.runner())
        await stage.run_until(run_id, "SUCCEEDED")

        entries = await stage.store.events_of_run(run_id)
        history = [(type(decode_event(one.data)).__name__, one.cause.kind) for one in entries if one.sequence]
        history.remove(("RunStarted", "system"))  # told by the job: somewhere between the lease and the end
        assert history == [
            ("RunCreated", "webhook"),
            ("PlanningStarted", "system"),
            ("PlanAdopted", "system"),
            ("JobCreated", "system"),
            ("AttemptLeased", "runner"),
            ("LeaseAcknowledged", "runner"),
            ("AttemptEnded", "runner"),
            ("JobEnded", "runner"),
            ("RunEnded", "system"),
        ]
        assert entries[0].cause.id == "d-1"


@pytest.mark.anyio
async def test_a_failed_required_job_fails_its_run_and_skips_what_needs_it() -> None:
    """What does not need it is run to its end all the same."""
    async with staged(MemoryStore(), *DIAMOND) as stage:
        run = await ended(stage, {"left": 1})

        assert (run.state, run.end_reason) == ("FAILED", "jobs_failed")
        done = await stage.jobs(run.id)
        assert {name: str(job.end_reason) for name, job in done.items()} == {
            "build": "succeeded",
            "left": "step_failed",
            "right": "succeeded",
            "publish": "needs_failed",
        }
        assert done["publish"].end_detail == "needs left"


@pytest.mark.anyio
async def test_a_job_that_may_fail_is_reported_and_not_counted() -> None:
    """Its dependents run, and the run succeeds."""
    jobs = (a_job("lint", policy="allow_failure"), a_job("test", needs=("lint",)))
    async with staged(MemoryStore(), *jobs) as stage:
        run = await ended(stage, {"lint": 1})

        assert run.state == "SUCCEEDED"
        assert await states(stage, run.id) == {"lint": "FAILED", "test": "SUCCEEDED"}


@pytest.mark.anyio
async def test_a_plan_without_jobs_is_a_success() -> None:
    """Nothing that was changed is built here; no pull request waits for ever."""
    async with staged(MemoryStore()) as stage:
        run = await ended(stage)

        assert (run.state, run.end_reason) == ("SUCCEEDED", "nothing_to_run")


@pytest.mark.anyio
async def test_a_plan_that_skips_every_job_is_a_success_with_its_reasons() -> None:
    """Required checks of skipped jobs report success."""
    skipped = {"is_skipped": True, "reasons": (Reason(rule="not_affected", text="nothing changed here"),)}
    async with staged(MemoryStore(), a_job("a", **skipped), a_job("b", needs=("a",), **skipped)) as stage:
        run = await ended(stage)

        assert run.state == "SUCCEEDED"
        assert {job.end_reason for job in (await stage.jobs(run.id)).values()} == {"not_affected"}


@pytest.mark.anyio
async def test_a_job_whose_needs_are_skipped_is_queued_at_once() -> None:
    """Skipped for a good reason is as good as done."""
    async with staged(MemoryStore(), a_job("a", is_skipped=True), a_job("b", needs=("a",))) as stage:
        run = await ended(stage)

        assert await states(stage, run.id) == {"a": "SKIPPED", "b": "SUCCEEDED"}


@pytest.mark.anyio
@pytest.mark.parametrize("kind", [PlanFailed, ForgeRejected])
async def test_a_plan_that_cannot_be_made_fails_the_run_with_its_text(kind: type[Exception]) -> None:
    """The author of the change reads what to mend; it is not tried again."""
    async with staged(MemoryStore(), a_job()) as stage:
        stage.planner.failures = [kind("deltaci.yaml:3: needs must be a list")]
        run = await ended(stage)

        assert (run.state, run.end_reason) == ("FAILED", "plan_failed")
        assert run.text == "deltaci.yaml:3: needs must be a list"
        assert stage.planner.calls == 1


@pytest.mark.anyio
async def test_a_planner_that_crashes_is_asked_again() -> None:
    """Once more may help."""
    async with staged(MemoryStore(), a_job()) as stage:
        stage.planner.failures = [RuntimeError("a bug"), OSError("a pipe broke")]
        run = await ended(stage)

        assert run.state == "SUCCEEDED"
        assert stage.planner.calls == 3


@pytest.mark.anyio
async def test_a_planner_that_keeps_crashing_fails_the_run() -> None:
    """After plan_tries_max the run ends and says so, instead of waiting for its timeout."""
    async with staged(MemoryStore(), a_job(), plan_tries_max=3) as stage:
        stage.planner.failures = [RuntimeError("a bug") for _ in range(9)]
        run = await ended(stage)

        assert (run.state, run.end_reason) == ("FAILED", "plan_failed")
        assert "3 times" in run.text
        assert "a bug" in run.text
        assert stage.planner.calls == 3


@pytest.mark.anyio
async def test_a_planner_that_never_answers_is_given_up() -> None:
    """plan_within_ms bounds each try."""
    async with staged(MemoryStore(), a_job(), plan_within_ms=10, plan_tries_max=2) as stage:

        async def plan(*_: object) -> object:
            stage.planner.calls += 1
            await anyio.sleep_forever()

        stage.planner.plan = plan  # type: ignore[assignment]
        run = await ended(stage)

        assert (run.state, run.end_reason) == ("FAILED", "plan_failed")
        assert stage.planner.calls == 2


@pytest.mark.anyio
async def test_a_plan_has_at_most_jobs_max_jobs() -> None:
    """At the limit it runs, one past it the run fails and the limit is named."""
    jobs = tuple(a_job(f"j{number}") for number in range(4))
    async with staged(MemoryStore(), *jobs[:3], jobs_max=3) as stage:
        assert (await ended(stage)).state == "SUCCEEDED"
    async with staged(MemoryStore(), *jobs, jobs_max=3) as stage:
        run = await ended(stage)

        assert run.end_reason == "plan_failed"
        assert "jobs_max" in run.text


@pytest.mark.anyio
@pytest.mark.parametrize(
    "jobs",
    [
        (a_job("a", needs=("nobody",)),),
        (a_job("a", needs=("a",)),),
        (a_job("a", needs=("b",)), a_job("b", needs=("a",))),
        (a_job("a"), a_job("a")),
    ],
)
async def test_a_plan_that_could_not_end_is_refused(jobs: tuple[PlannedJob, ...]) -> None:
    """A bug of the planner must neither crash the run into quarantine nor keep it from ending."""
    async with staged(MemoryStore(), *jobs) as stage:
        run = await ended(stage)

        assert (run.state, run.end_reason) == ("FAILED", "plan_failed")


@pytest.mark.anyio
async def test_a_run_of_many_jobs_ends() -> None:
    """Wide and deep at once; dispatch hands out as many as there are slots."""
    wide = [a_job(f"w{number}") for number in range(30)]
    deep = [a_job(f"d{number}", needs=(f"d{number - 1}",) if number else ("w0",)) for number in range(10)]
    async with staged(MemoryStore(), *wide, *deep) as stage:
        run_id, runner = await stage.push(), await stage.runner(slots=16)

        with anyio.fail_after(10):
            while not (await stage.orchestrator.run(run_id)).state.is_final:
                for lease in await stage.lease(runner, slots=16, wait_ms=50):
                    await stage.say(runner, wire.AckLease, lease)
                    await stage.say(runner, wire.Complete, lease, exit_code=0)

        assert set((await states(stage, run_id)).values()) == {"SUCCEEDED"}


# ---- running again -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_rerun_is_the_next_attempt_under_the_same_key() -> None:
    """With jobs of its own; the earlier attempt never changes again."""
    async with staged(MemoryStore(), *DIAMOND) as stage:
        first = await ended(stage, {"left": 1})
        before = (first, await stage.jobs(first.id))

        reply = await stage.orchestrator.rerun(first.id, ME, is_failed_only=False, key="k")
        latest = await stage.store.latest_run(first.key)
        assert latest is not None
        second = await work_until_over(stage, await stage.runner(), latest.run_id)

        assert (second.attempt, second.key, second.state) == (2, first.key, "SUCCEEDED")
        assert {job.state for job in (await stage.jobs(second.id)).values()} == {"SUCCEEDED"}
        assert (await stage.orchestrator.run(first.id), await stage.jobs(first.id)) == before
        assert stage.planner.calls == 1
        assert getattr(reply, "http_status", None) == 201


@pytest.mark.anyio
async def test_a_rerun_of_the_failed_jobs_takes_their_dependents_along() -> None:
    """What succeeded is carried over as skipped, with the reason."""
    async with staged(MemoryStore(), *DIAMOND) as stage:
        first = await ended(stage, {"left": 1})

        await stage.orchestrator.rerun(first.id, ME, is_failed_only=True, key="k")
        latest = await stage.store.latest_run(first.key)
        assert latest is not None
        second = await work_until_over(stage, await stage.runner(), latest.run_id)

        assert second.state == "SUCCEEDED"
        assert {name: str(job.end_reason) for name, job in (await stage.jobs(second.id)).items()} == {
            "build": "carried_over",
            "left": "succeeded",
            "right": "carried_over",
            "publish": "succeeded",
        }


@pytest.mark.anyio
async def test_a_rerun_of_a_run_whose_plan_failed_plans_again() -> None:
    """There is no plan to keep."""
    async with staged(MemoryStore(), a_job()) as stage:
        stage.planner.failures = [PlanFailed("no")]
        first = await ended(stage)

        await stage.orchestrator.rerun(first.id, ME, is_failed_only=True, key="k")
        latest = await stage.store.latest_run(first.key)
        assert latest is not None

        assert (await work_until_over(stage, await stage.runner(), latest.run_id)).state == "SUCCEEDED"
        assert stage.planner.calls == 2


@pytest.mark.anyio
async def test_a_run_that_is_not_over_cannot_be_run_again() -> None:
    """One attempt at a time; the refusal says which run to wait for."""
    async with staged(MemoryStore(), a_job()) as stage:
        run_id = await stage.push()
        await stage.run_until(run_id, "QUEUED")

        refusal = await stage.orchestrator.rerun(run_id, ME, is_failed_only=False, key="k")

        assert getattr(refusal, "why", None) == "not_over"
        assert run_id in refusal.text  # type: ignore[union-attr]
        assert len(await stage.store.list_runs()) == 1


@pytest.mark.anyio
async def test_a_rerun_sent_many_times_at_once_is_one_attempt_and_one_answer() -> None:
    """The second of two clicks must not hear that the first one's run is not over."""
    async with staged(MemoryStore(), a_job()) as stage:
        first = await ended(stage)
        replies: list[object] = []

        async def one() -> None:
            replies.append(await stage.orchestrator.rerun(first.id, ME, is_failed_only=False, key="k"))

        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(one)

        assert len(set(replies)) == 1
        assert len(await stage.store.list_runs()) == 2
