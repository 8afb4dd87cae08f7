"""Checks of our app: what they say, once each, whatever is interrupted; and the one comment at a pull request."""

from typing import Any

import anyio
import msgspec
import pytest

from deltaci.domain.pull_request import PullRequest
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.forge.checks import Annotation
from deltaci.store.writes import Explanation
from tests.reporter.committed import Committed, Relay, VirtualClock, ended, in_virtual_time, jobs_of, run_of
from tests.reporter.github import FakeGitHub
from tests.reporter.runs import an_explanation

SUCCEEDED, FAILED, RUNNING, SKIPPED = JobState.SUCCEEDED, JobState.FAILED, JobState.RUNNING, JobState.SKIPPED
FAILURE = (RunState.FAILED, EndReason.JOBS_FAILED)


class World:
    """A store, GitHub, and reports one after the other: what is told is whole when `tell` returns."""

    def __init__(self, **given: Any) -> None:
        self.store = Committed()
        self.clock = VirtualClock()
        self.github = FakeGitHub(self.clock.now_ms, **given)
        self.reports: Any = None

    async def tell(self) -> Relay:
        relay = Relay(self.store, self.github, reports=self.reports)
        async with anyio.create_task_group() as tasks:
            for run_id, owed in self.store.owed.items():
                owed.set()
                tasks.start_soon(relay.serve, run_id)
            await relay.done()
            tasks.cancel_scope.cancel()
        return relay

    def of(self, name: str) -> Any:
        """The last check run that GitHub has under a name."""
        return [held for held in self.github.checks.values() if held.check.name == name][-1]


def evidence(job: Any, *lines: str) -> Explanation:
    return msgspec.structs.replace(an_explanation(job, "Test a::b failed."), evidence=lines, next_step="Mend it.")


def test_a_check_tells_all_that_is_known() -> None:
    """Status, conclusion, times, title, summary, lines, buttons, and whose it is for the webhook that comes back."""

    async def main() -> None:
        world, run = World(), run_of(1)
        (job,) = jobs_of(run, 1, FAILED, EndReason.STEP_FAILED)
        world.store.add(ended(run, *FAILURE), job)
        world.store.explanations[job.id] = evidence(job, "src/a.c:7:1: error: no")

        await world.tell()

        check, own = world.of("deltaci/j0"), world.of("deltaci").check
        assert (check.check.status, check.check.conclusion, check.check.external_id) == ("completed", "failure", job.id)
        assert (check.check.started_at_ms, check.check.completed_at_ms) == (0, 5)
        assert check.check.title == "Failed in 1 min 5 s: Test a::b failed."
        assert "src/a.c:7:1: error: no" in check.check.summary
        assert "Next: Mend it." in check.check.summary
        assert [(one.path, one.start_line, one.level, one.message) for one in check.annotations] == [
            ("src/a.c", 7, "failure", "no")
        ]
        assert [one.identifier for one in check.check.actions] == ["rerun"]
        assert (own.conclusion, own.external_id) == ("failure", run.id)
        assert "| `j0` | ❌ failed | 1 min 5 s |" in own.summary
        assert [one.identifier for one in own.actions] == ["rerun_failed", "rerun"]

    in_virtual_time(main)


def test_a_held_run_has_a_button_that_lets_it_go_on() -> None:
    """As long as it is held, and beside the one that stops it."""

    async def main() -> None:
        world, run = World(), run_of(1)
        held = msgspec.structs.replace(run, state=RunState.CREATED, hold="approval")
        world.store.add(held)
        await world.tell()
        waiting = world.of("deltaci").check
        world.store.move(run.id, run=msgspec.structs.replace(held, approved_by="ada", approved_at_ms=1))
        await world.tell()
        approved = world.of("deltaci").check

        assert (waiting.status, waiting.title) == ("queued", "Waits for approval")
        assert [one.identifier for one in waiting.actions] == ["approve", "cancel"]
        assert [one.identifier for one in approved.actions] == ["cancel"]

    in_virtual_time(main)


@pytest.mark.parametrize(
    ("state", "reason", "is_required", "conclusion"),
    [
        (SUCCEEDED, EndReason.SUCCEEDED, True, "success"),
        (SKIPPED, EndReason.NOT_AFFECTED, True, "skipped"),
        (SKIPPED, EndReason.NEEDS_FAILED, True, "failure"),
        (FAILED, EndReason.STEP_FAILED, True, "failure"),
        (FAILED, EndReason.STEP_FAILED, False, "neutral"),
        (FAILED, EndReason.RUNNER_LOST, True, "failure"),
        (JobState.TIMED_OUT, EndReason.JOB_TIMEOUT, True, "timed_out"),
        (JobState.CANCELED, EndReason.SUPERSEDED, True, "cancelled"),
    ],
)
def test_a_conclusion_lets_a_change_pass_if_the_job_does(
    state: JobState, reason: EndReason, is_required: bool, conclusion: str
) -> None:
    """GitHub merges on success, neutral and skipped, and on nothing else."""

    async def main() -> None:
        world, run = World(), run_of(1)
        job = msgspec.structs.replace(jobs_of(run, 1, state, reason)[0], is_required=is_required)
        world.store.add(run, job)

        await world.tell()

        assert world.of("deltaci/j0").check.conclusion == conclusion

    in_virtual_time(main)


def test_killed_at_any_await_it_goes_on_where_it_was() -> None:
    """Each check is made once and its lines are told once, whatever was on its way when the process died."""

    async def life(world: World, kill_at: int | None) -> int:
        """One life of the reporter, killed before its await number `kill_at`; how many there were."""
        count = 0
        with anyio.CancelScope() as scope:

            async def step() -> None:
                nonlocal count
                count += 1
                if count == kill_at:
                    scope.cancel()
                await anyio.lowlevel.checkpoint()

            world.store.step = world.github.step = step
            await world.tell()
        return count

    async def main() -> None:
        kill_at = 0
        while True:
            kill_at += 1
            world, run = World(), run_of(1)
            jobs = jobs_of(run, 2, FAILED, EndReason.STEP_FAILED)
            world.store.add(run, *jobs_of(run, 2, RUNNING))
            world.store.explanations[jobs[0].id] = evidence(
                jobs[0], *(f"a.c:{line}: error: no" for line in range(1, 61))
            )
            asked = await life(world, kill_at)
            world.store.move(run.id, *jobs, run=ended(run, *FAILURE))
            asked += await life(world, kill_at)
            asked += await life(world, None)

            assert world.github.backwards() == []
            assert world.github.conclusions() == {run.id: "failure", jobs[0].id: "failure", jobs[1].id: "failure"}
            assert list(range(1, 61)) == [one.start_line for one in world.of("deltaci/j0").annotations]
            assert len(world.github.comments) == 1
            before = world.github.asked
            await life(world, None)
            assert world.github.asked == before
            if asked < kill_at:
                break
        assert kill_at > 100

    in_virtual_time(main)


def test_many_lines_are_told_fifty_at_a_time_and_after_everything_else() -> None:
    """GitHub takes fifty a request and appends them: none is missing, and none is there twice."""

    async def main() -> None:
        world, run = World(), run_of(1)
        jobs = jobs_of(run, 2, FAILED, EndReason.STEP_FAILED)
        world.store.add(ended(run, *FAILURE), *jobs)
        for job in jobs:
            world.store.explanations[job.id] = evidence(job, *(f"a.c:{line}: error: no" for line in range(1, 131)))

        await world.tell()

        assert [one.name for one in world.github.heard] == [
            "deltaci/j0",
            "deltaci/j1",
            "deltaci",
            *["deltaci/j0"] * 2,
            *["deltaci/j1"] * 2,
        ]
        for name in ("deltaci/j0", "deltaci/j1"):
            assert list(range(1, 131)) == [one.start_line for one in world.of(name).annotations]

    in_virtual_time(main)


def test_lines_that_github_refuses_do_not_hide_the_failure() -> None:
    """The check is told without them."""

    async def main() -> None:
        world, run = World(), run_of(1)
        (job,) = jobs_of(run, 1, FAILED, EndReason.STEP_FAILED)
        world.github.refuses_lines = True
        world.store.add(ended(run, *FAILURE), job)
        world.store.explanations[job.id] = evidence(job, "a.c:1: error: no")

        relay = await world.tell()

        assert world.github.conclusions() == {run.id: "failure", job.id: "failure"}
        assert relay.refused == {}

    in_virtual_time(main)


def test_lines_of_reports_come_before_those_of_the_log() -> None:
    """They are there when the job ends, the explanation a moment later: what was told stays a beginning of it."""

    class Reports:
        read: list[str] = []

        async def failures(self, repo: object, job: Any, plan: object) -> tuple[Annotation, ...]:
            self.read.append(job.name)
            return (Annotation(path="b.py", start_line=2, end_line=2, level="failure", message="assert", title="t"),)

    async def main() -> None:
        world, run = World(), run_of(1)
        failed, good = (
            jobs_of(run, 2, FAILED, EndReason.STEP_FAILED)[0],
            jobs_of(run, 2, SUCCEEDED, EndReason.SUCCEEDED)[1],
        )
        world.reports = Reports()
        world.store.add(ended(run, *FAILURE), failed, good)
        await world.tell()
        world.store.explanations[failed.id] = evidence(failed, "a.c:1: error: no")

        await world.tell()

        assert [one.path for one in world.of("deltaci/j0").annotations] == ["b.py", "a.c"]
        assert set(Reports.read) == {"j0"}

    in_virtual_time(main)


def test_a_new_attempt_has_fresh_checks_and_the_old_one_has_no_word_any_more() -> None:
    """Both have the same names at the same commit: what is on its way of the old one must not hide the new one."""

    async def main() -> None:
        world, run = World(), run_of(1)
        again = msgspec.structs.replace(run, id="run_1b", attempt=2)
        world.store.add(ended(run, *FAILURE), *jobs_of(run, 2, FAILED, EndReason.STEP_FAILED))
        await world.tell()
        told = len(world.github.heard)
        world.store.explanations["run_1_job0"] = evidence(jobs_of(run, 1)[0], "a.c:1: error: late")

        world.store.add(ended(again), *jobs_of(again, 2, SUCCEEDED, EndReason.SUCCEEDED))
        await world.tell()

        later = world.github.heard[told:]
        assert {one.external_id for one in later} == {"run_1b", "run_1b_job0", "run_1b_job1"}
        assert len(world.github.conclusions()) == 6
        assert world.of("deltaci").check.conclusion == "success"

    in_virtual_time(main)


# ---- the comment -------------------------------------------------------------------------------------------------


def a_request(run: Any, **fields: Any) -> PullRequest:
    given = {
        "repo_id": "repo_1",
        "number": run.trigger.pr_number,
        "head_sha": run.trigger.commit_sha,
        "head_ref": "refs/heads/x",
        "base_ref": "refs/heads/main",
        "base_sha": "c" * 40,
    }
    return PullRequest(**{**given, **fields})


def test_one_comment_tells_what_failed_and_then_that_all_is_well() -> None:
    """It is written when it helps, rewritten in its place, and there is never a second one."""

    async def main() -> None:
        world, run = World(), run_of(1)
        (job,) = jobs_of(run, 1, FAILED, EndReason.STEP_FAILED)
        world.store.add(run, *jobs_of(run, 1, RUNNING))
        await world.tell()
        assert world.github.comments == {}

        world.store.move(run.id, job, run=ended(run, *FAILURE))
        await world.tell()
        (failed,) = world.github.comments.values()

        world.store.explanations[job.id] = evidence(job, "a.c:1: error: no", "cc @acme/team fixes #1")
        world.store.move(run.id)
        await world.tell()
        (explained,) = world.github.comments.values()

        again = msgspec.structs.replace(run, id="run_1b", attempt=2)
        world.store.add(ended(again), *jobs_of(again, 1, SUCCEEDED, EndReason.SUCCEEDED))
        await world.tell()
        (well,) = world.github.comments.values()

        assert "❌ **Delta CI: Failed: j0**" in failed
        assert "Test a::b failed" in explained
        assert "a.c:1: error: no" in explained
        assert "✅ **Delta CI: 1 job succeeded**" in well

    in_virtual_time(main)


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        ({}, (RunState.SUCCEEDED, EndReason.SUCCEEDED)),
        ({}, (RunState.CANCELED, EndReason.SUPERSEDED)),
        ({"head_sha": "d" * 40}, FAILURE),
        ({"is_open": False}, FAILURE),
    ],
    ids=["nothing to say", "canceled", "an older commit", "closed"],
)
def test_no_comment_is_written_that_helps_nobody(fields: dict[str, Any], end: tuple[RunState, EndReason]) -> None:
    """Each one is a mail to everybody who follows the pull request."""

    async def main() -> None:
        world, run = World(), run_of(1)
        world.store.pull_requests[run.trigger.pr_number or 0] = a_request(run, **fields)
        world.store.add(ended(run, *end))

        await world.tell()

        assert world.github.comments == {}

    in_virtual_time(main)


def test_a_push_has_no_comment() -> None:
    """There is no place for one."""

    async def main() -> None:
        world, run = World(), run_of(1)
        trigger = msgspec.structs.replace(run.trigger, kind="push", pr_number=None)
        world.store.add(ended(msgspec.structs.replace(run, trigger=trigger), *FAILURE))

        await world.tell()

        assert world.github.comments == {}
        assert world.of("deltaci (push)").check.conclusion == "failure"

    in_virtual_time(main)
