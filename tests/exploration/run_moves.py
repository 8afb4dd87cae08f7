"""All that can happen to one run behind its owner: what the owner is told, what it knows, what it tells its jobs.

What the owner knows of its jobs lives in memory: it may be older than what is stored, and a restart reads it anew.
"""

import sqlite3
from collections.abc import Hashable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from deltaci.domain import run as runs
from deltaci.domain.events import Cause
from deltaci.domain.job import Job, Release, RequestCancel, Skip
from deltaci.domain.plan import Plan
from deltaci.domain.run import JobSeen, Run
from deltaci.domain.states import EndReason, JobState, RunState
from deltaci.orchestrator.messages import DoJob, DoRun, Due, JobMoved, Look, UsePlan
from deltaci.orchestrator.paths import job_path
from deltaci.orchestrator.repo_actor import superseded
from deltaci.store.sql import migrations, query
from tests.exploration.job_moves import LATE, SOON
from tests.exploration.owners import JOB_IDS, KEY, POLICY, RUN_ID, RUN_TIMEOUT_MS, TRIGGER, Bench, Stands, a_run_reacts
from tests.exploration.rules import require

JobsStored = tuple[JobSeen, ...]
USER: Final = Cause("user", "alice")
CANCEL: Final = DoRun(command=runs.RequestCancel(reason=EndReason.USER_CANCELED), cause=USER)
APPROVE: Final = DoRun(command=runs.Approve(by="alice"), cause=USER)
SUPERSEDE: Final = superseded("run_2")


class Node(NamedTuple):
    """A stored run, and what its owner believes of its jobs."""

    run: Run
    view: JobsStored


class Way(NamedTuple):
    """What a message leads to. `view` is None where the owner died: it will read what is stored.

    `orders`: what the jobs were told, by job. `added`: the jobs that the plan became.
    """

    suffix: str
    run: Run
    view: JobsStored | None
    orders: tuple[tuple[DoJob, ...], ...]
    added: tuple[Job, ...]


class RunMoves:
    """The runs that one run can become, numbered, and what each message makes of them."""

    def __init__(self, bench: Bench, plan: Plan) -> None:
        self.nodes: list[Node] = []
        self._bench = bench
        self._plan = plan
        self._numbers: dict[Node, int] = {}
        self._known: dict[Hashable, tuple[Way, ...]] = {}

    def first(self, *, is_held: bool = False) -> int:
        """The run as a webhook makes it: to be planned at once, or held."""
        created = runs.create(
            RUN_ID,
            KEY,
            TRIGGER,
            attempt=1,
            now_ms=0,
            timeout_ms=RUN_TIMEOUT_MS,
            cancel_within_ms=POLICY.cancel_within_ms,
            hold="approval" if is_held else "",
            hold_within_ms=RUN_TIMEOUT_MS if is_held else 0,
        )
        return self.number(created.state, ())

    def number(self, run: Run, view: JobsStored) -> int:
        """The number of the run as it is now stored, with this view of its jobs."""
        node = Node(_just_now(run), view)
        known = self._numbers.get(node)
        if known is None:
            known = self._numbers[node] = len(self.nodes)
            self.nodes.append(node)
        return known

    def approved(self, number: int) -> tuple[Way, ...]:
        """Somebody approves it, the first time or again."""
        return self._ways(number, APPROVE, ())

    def planning_starts(self, number: int) -> tuple[Way, ...]:
        """The planner was asked."""
        return self._ways(number, DoRun(command=runs.StartPlanning(), cause=USER), ())

    def plan_arrives(self, number: int) -> tuple[Way, ...]:
        """The planner answered, the first time or again."""
        return self._ways(number, UsePlan(plan=self._plan), (), "the plan")

    def plan_fails(self, number: int) -> tuple[Way, ...]:
        """The planner gave up."""
        return self._ways(number, DoRun(command=runs.FailPlan(text="no"), cause=USER), ())

    def cancel(self, number: int, stored: JobsStored, order: DoRun) -> tuple[Way, ...]:
        """Somebody, or a newer run, wants it to stop."""
        return self._ways(number, order, stored)

    def job_moved(self, number: int, job: int, seen: JobSeen, *, is_news: bool) -> tuple[Way, ...]:
        """A notice of a job arrives; `is_news` if it tells more than the owner knows."""
        message = JobMoved(job_id=JOB_IDS[job], revision=int(is_news) + 1, seen=seen)
        return self._ways(number, message, ())

    def look(self, number: int, stored: JobsStored) -> tuple[Way, ...]:
        """The reconciler found the run."""
        return self._ways(number, Look(), stored)

    def due(self, number: int, stored: JobsStored, *, is_late: bool) -> tuple[Way, ...]:
        """The timer of the run, at its time or too early."""
        return self._ways(number, Due(), stored, now_ms=LATE if is_late else SOON)

    def _ways(
        self, number: int, message: Any, stored: JobsStored, name: str = "", *, now_ms: int = SOON
    ) -> tuple[Way, ...]:
        # A look reads what is stored before it does anything: what the owner believed makes no difference.
        node = self.nodes[number]
        at = node.run if isinstance(message, Look) else node
        key = (at, name or message, stored, now_ms)
        known = self._known.get(key)
        if known is None:
            ways = self._outcomes(node, message, stored, now_ms)
            is_look = isinstance(message, Look)
            # What changes nothing was tried and checked, and leads nowhere; a look is always somewhere to go to.
            known = tuple(way for way in ways if is_look or not _is_idle(node, way))
            self._known[key] = known
        return known

    def _outcomes(self, node: Node, message: Any, stored: JobsStored, now_ms: int) -> list[Way]:
        """How it ends, and how with a crash before and after each of its commits."""
        way, commits = self._outcome(node, message, stored, now_ms, None)
        if node.run.cancel is not None:
            lets_go = any(isinstance(order.command, Release | Skip) for told in way.orders for order in told)
            require(not lets_go, 13, "a job was released or skipped after the cancel of its run")
        ways = [way]
        for number in range(1, commits + 1):
            before, _ = self._outcome(node, message, stored, now_ms, ("before", number))
            orders = [order for told in before.orders for order in told]
            is_early = number == 1 and any(isinstance(order.command, RequestCancel) for order in orders)
            require(not is_early, 6, "a job was told of a cancel before the run's commit")
            after, _ = self._outcome(node, message, stored, now_ms, ("after", number))
            ways += [before, after]
        return ways

    def _outcome(self, node: Node, message: Any, stored: JobsStored, now_ms: int, crash: Any) -> tuple[Way, int]:
        known = _standing(node.view)
        reaction, progress = a_run_reacts(
            self._bench, node.run, known, _standing(stored), message, now_ms=now_ms, crash=crash
        )
        assert reaction.run is not None
        added = tuple(job for job in reaction.jobs if isinstance(job, Job))
        orders: dict[str | None, list[DoJob]] = {job_path(each): [] for each in JOB_IDS}
        for path, order in reaction.told:
            if isinstance(order, DoJob):
                orders[path].append(order)
        suffix, view = "", None
        if crash is not None:
            suffix = f"; crash {crash[0]} commit {crash[1]}"
        else:
            view = tuple(progress.seen[each] for each in JOB_IDS) if progress.seen else ()
        return Way(suffix, reaction.run, view, tuple(tuple(told) for told in orders.values()), added), reaction.commits


def _is_idle(node: Node, way: Way) -> bool:
    return way.run is node.run and way.view == node.view and not any(way.orders)


def _standing(seen: JobsStored) -> Sequence[Stands]:
    return [Stands(each, one.state, one.end_reason, 1) for each, one in zip(JOB_IDS, seen, strict=False)]


def _just_now(run: Run) -> Run:
    """The run as if all of it had happened just now."""
    cancel = run.cancel and runs.CancelIntent(run.cancel.reason, POLICY.cancel_within_ms)
    return msgspec.structs.replace(
        run,
        created_at_ms=0,
        revision=1,
        cancel=cancel,
        approved_at_ms=None if run.approved_at_ms is None else 0,
        started_at_ms=None if run.started_at_ms is None else 0,
        ended_at_ms=0 if run.state.is_final else None,
        text="",
    )


class Reconciler:
    """The reconciler's own query, asked of a store that holds one run: does it find it?"""

    def __init__(self, plan: Plan, sql: str = "") -> None:
        self._database = sqlite3.connect(":memory:")
        for migration in migrations():
            for statement in migration:
                self._database.execute(statement)
        self._sql = sql or query("runs_to_advance")
        self._plan = plan
        self._known: dict[Hashable, bool] = {}
        position = {job.name: JOB_IDS[index] for index, job in enumerate(plan.jobs)}
        for job in plan.jobs:
            for need in job.needs:
                self._database.execute(
                    "INSERT INTO need (job_id, need_id) VALUES (?, ?)", (position[job.name], position[need])
                )

    def finds(self, run: RunState, jobs: tuple[JobState, ...]) -> bool:
        """Whether a run in this state, with jobs in these, would be looked at."""
        known = self._known.get((run, jobs))
        if known is None:
            known = self._known[run, jobs] = self._ask(run, jobs)
        return known

    def close(self) -> None:
        """Close the store."""
        self._database.close()

    def _ask(self, run: RunState, jobs: tuple[JobState, ...]) -> bool:
        execute = self._database.execute
        execute("DELETE FROM run")
        execute("DELETE FROM job")
        columns = "id, repo_id, commit_sha, trigger_type, pr_number, attempt, stream, state, revision, snapshot"
        execute(f"INSERT INTO run ({columns}) VALUES (?, '', '', '', -1, 1, '', ?, 1, x'')", (RUN_ID, run.value))
        for index, state in enumerate(jobs):
            columns = "id, run_id, repo_id, position, state, revision, snapshot"
            row = (JOB_IDS[index], RUN_ID, index, state.value)
            execute(f"INSERT INTO job ({columns}) VALUES (?, ?, '', ?, ?, 1, x'')", row)
        return bool(execute(self._sql, (10,)).fetchall())
