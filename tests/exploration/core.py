"""The whole core at once: a run and its two jobs behind their owners, two runners, timers, the reconciler, and crashes.

A world is what is stored, what the run's owner believes, and the orders to jobs that were ever sent. Everything else
that may be on its way follows from that: the notices of a job are all that it ever was, and who was told of a lease may
say anything under it for ever. So nothing sent is ever taken back, and any of it may arrive any number of times, in any
order, or never.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final, NamedTuple

from deltaci.domain import job as jobs
from deltaci.domain import run as runs
from deltaci.domain.plan import Plan
from deltaci.domain.run import Run
from deltaci.domain.states import AttemptState, RunState
from deltaci.orchestrator.messages import DoJob, DoRun
from tests.exploration.explorer import Explored, explore
from tests.exploration.job_moves import BREAKDOWN, FAILURE, SUCCESS, TIME_OUT, Habits, JobMoves
from tests.exploration.owners import Bench, a_plan
from tests.exploration.rules import Broken, broken_by, check_run, require
from tests.exploration.run_moves import CANCEL, SUPERSEDE, JobsStored, Reconciler, RunMoves, Way

RECONCILED: Final = "the reconciler looks, and its orders arrive"
RUN_DUE: Final = "the run's timer, at its time"
APPROVED: Final = "somebody approves it"
PLANNED: Final = frozenset({APPROVED, "planning starts", "the plan arrives"})
WORLDS_MAX: Final = 2_000_000

Orders = frozenset[str]
NONE: Final[Orders] = frozenset()
NOTHING_LOST: Final[frozenset[str]] = frozenset()


class World(NamedTuple):
    """Numbers of the run and the jobs (-1 before the plan), and the orders that a job may still be reached by.

    `lost_timers` are those that a restart forgot: none, unless that bug is planted.
    """

    run: int
    a: int
    b: int
    to_a: Orders = NONE
    to_b: Orders = NONE
    lost_timers: frozenset[str] = NOTHING_LOST


class Scenario(NamedTuple):
    """One plan, and what may befall it. `covers` says what it is about."""

    name: str
    covers: str
    needs: bool
    habits: tuple[Habits, Habits]
    cancels: tuple[tuple[str, DoRun], ...]
    is_required: tuple[bool, bool] = (True, True)
    retries: tuple[int, int] = (0, 0)
    is_held: bool = False

    @property
    def plan(self) -> Plan:
        """The plan of the run."""
        return a_plan(needs=self.needs, is_required=self.is_required, retries=self.retries)


class Flaws(NamedTuple):
    """What may be planted into the world around the decisions; by default nothing is."""

    reconciler_sql: str = ""
    has_reconciler: bool = True
    forgets_timers: bool = False


class Core:
    """The moves of a scenario."""

    def __init__(self, scenario: Scenario, flaws: Flaws) -> None:
        bench = Bench()
        self.scenario = scenario
        self.flaws = flaws
        self.runs = RunMoves(bench, scenario.plan)
        self.jobs = tuple(
            JobMoves(bench, name, other, habits, retries=retries, is_blocked=scenario.needs and name == "b")
            for name, other, habits, retries in zip("ab", "ba", scenario.habits, scenario.retries, strict=True)
        )
        self.reconciler = Reconciler(scenario.plan, flaws.reconciler_sql)
        self._checked: set[tuple[Run, JobsStored]] = set()

    # ---- worlds --------------------------------------------------------------------------------------------------

    def first(self) -> World:
        """A webhook made a run."""
        return World(self.runs.first(is_held=self.scenario.is_held), -1, -1)

    def run_of(self, world: World) -> Run:
        """The stored run."""
        return self.runs.nodes[world.run].run

    def stored(self, world: World) -> JobsStored:
        """What is stored of the jobs; nothing before the plan."""
        return (self.jobs[0].seen[world.a], self.jobs[1].seen[world.b]) if world.a >= 0 else ()

    def check(self, world: World) -> None:
        """What must hold of a run together with its jobs; each job was checked when it was numbered."""
        run, stored = self.run_of(world), self.stored(world)
        if (run, stored) not in self._checked:
            check_run(run, {ref.id: seen for ref, seen in zip(run.jobs, stored, strict=True)})
            self._checked.add((run, stored))

    def is_over(self, world: World) -> bool:
        """The end."""
        return self.run_of(world).state.is_final and all(seen.state.is_final for seen in self.stored(world))

    def has_succeeded(self, world: World) -> bool:
        """The good end."""
        return self.run_of(world).state is RunState.SUCCEEDED

    def can_succeed(self, world: World) -> bool:
        """Whether nothing has happened yet that stands in the way of success."""
        run = self.run_of(world)
        if run.cancel is not None or (run.state.is_final and run.state is not RunState.SUCCEEDED):
            return False
        return world.a < 0 or (self.jobs[0].can_succeed(world.a) and self.jobs[1].can_succeed(world.b))

    # ---- moves ---------------------------------------------------------------------------------------------------

    def moves(self, world: World) -> Iterator[tuple[str, World]]:
        """Everything that may happen next."""
        run, stored = self.run_of(world), self.stored(world)
        if world.a >= 0:
            yield from self._job_moves(world)
            yield from self._notices(world)
            yield from self._looks(world, run, stored)
        else:
            yield from self._led(world, "planning starts", self.runs.planning_starts)
            yield from self._led(world, "the plan cannot be made", self.runs.plan_fails)
        yield from self._led(world, "the plan arrives", self.runs.plan_arrives)
        if self.scenario.is_held:
            yield from self._led(world, APPROVED, self.runs.approved)
        for name, order in self.scenario.cancels:
            yield from self._led(world, name, self.runs.cancel, stored, order)
        if runs.deadline_ms(run) is not None and "run" not in world.lost_timers:
            yield from self._led(world, RUN_DUE, self.runs.due, stored, is_late=True)
            yield from self._led(world, "the run's timer, too early", self.runs.due, stored, is_late=False)
        yield "restart", self._restarted(world, stored)

    def _job_moves(self, world: World) -> Iterator[tuple[str, World]]:
        run, a, b, to_a, to_b, lost = world
        jobs_a, jobs_b = self.jobs
        # The store takes no grant of a job whose run is being canceled; the job then obeys, as if told.
        is_kept_out = self.run_of(world).state is RunState.CANCEL_REQUESTED
        for name, after in jobs_a.moves(a):
            if is_kept_out and name in jobs_a.grants:
                continue
            if not (lost and "a" in lost and "timer" in name):
                yield name, World(run, after, b, jobs_a.still_matter(after, to_a), to_b, lost and lost - {"a"})
        for name, after in jobs_b.moves(b):
            if is_kept_out and name in jobs_b.grants:
                continue
            if not (lost and "b" in lost and "timer" in name):
                yield name, World(run, a, after, to_a, jobs_b.still_matter(after, to_b), lost and lost - {"b"})
        for order in to_a:
            after = jobs_a.obey(a, order)
            yield f"{order} reaches a", World(run, after, b, jobs_a.still_matter(after, to_a), to_b, lost - {"a"})
        for order in to_b:
            after = jobs_b.obey(b, order)
            yield f"{order} reaches b", World(run, a, after, to_a, jobs_b.still_matter(after, to_b), lost - {"b"})

    def _notices(self, world: World) -> Iterator[tuple[str, World]]:
        run, view = self.runs.nodes[world.run]
        if run.state.is_final:
            return  # its owner has gone, and reads what is stored if it is called back
        for index, number in enumerate((world.a, world.b)):
            stages = self.jobs[index].stages[number]
            known = next((first for seen, first, _ in stages if seen == view[index]), -1)
            require(known >= 0, 6, f"the run believes {view[index]} of job {index}, which never was")
            for seen, _, last in stages:
                name = f"the notice that {'ab'[index]} is {seen.state} reaches the run"
                yield from self._led(world, name, self.runs.job_moved, index, seen, is_news=last > known)

    def _looks(self, world: World, run: Run, stored: JobsStored) -> Iterator[tuple[str, World]]:
        states = tuple(seen.state for seen in stored)
        if not self.flaws.has_reconciler or not self.reconciler.finds(run.state, states):
            return
        yield from self._led(world, "the reconciler looks", self.runs.look, stored)
        ways = self._tried(RECONCILED, self.runs.look, world.run, stored)
        after = self._after(world, ways[0])
        a, b = after.a, after.b
        for order in sorted(after.to_a):
            a = self.jobs[0].obey(a, order)
        for order in sorted(after.to_b):
            b = self.jobs[1].obey(b, order)
        to_a, to_b = self.jobs[0].still_matter(a, after.to_a), self.jobs[1].still_matter(b, after.to_b)
        reconciled = after._replace(a=a, b=b, to_a=to_a, to_b=to_b)
        is_better = self.run_of(reconciled) != run or self.stored(reconciled) != stored
        if not is_better:
            spins = Broken(12, "the reconciler finds the run again and again, and nothing moves")
            raise broken_by(RECONCILED, spins)
        yield RECONCILED, reconciled

    def _led(self, world: World, name: str, react: Callable[..., tuple[Way, ...]], *what: Any, **how: Any) -> Any:
        for way in self._tried(name, react, world.run, *what, **how):
            yield name + way.suffix, self._after(world, way)

    def _tried(self, name: str, react: Callable[..., tuple[Way, ...]], *what: Any, **how: Any) -> tuple[Way, ...]:
        try:
            return react(*what, **how)
        except Exception as error:
            raise broken_by(name, error) from error

    def _after(self, world: World, way: Way) -> World:
        a, b = world.a, world.b
        if way.added:
            a, b = (moves.number(job, is_told=True) for moves, job in zip(self.jobs, way.added, strict=True))
        stored = (self.jobs[0].seen[a], self.jobs[1].seen[b]) if a >= 0 else ()
        number = self.runs.number(way.run, stored if way.view is None else way.view)
        to_a, to_b = way.orders
        return World(
            number, a, b, self._sent(0, a, world.to_a, to_a), self._sent(1, b, world.to_b, to_b), world.lost_timers
        )

    def _sent(self, index: int, number: int, before: Orders, told: tuple[DoJob, ...]) -> Orders:
        if not told:
            return before
        moves = self.jobs[index]
        return moves.still_matter(number, before | {moves.learn(order) for order in told})

    def _restarted(self, world: World, stored: JobsStored) -> World:
        run = self.run_of(world)
        lost = NOTHING_LOST
        if self.flaws.forgets_timers:
            has_deadline = {"run": runs.deadline_ms(run) is not None}
            for moves, number in zip(self.jobs, (world.a, world.b), strict=True):
                has_deadline[moves.name] = number >= 0 and jobs.deadline_ms(moves.nodes[number].job) is not None
            lost = frozenset(name for name, stands in has_deadline.items() if stands)
        return world._replace(run=self.runs.number(run, stored), lost_timers=lost)

    # ---- exploring -----------------------------------------------------------------------------------------------

    def is_fair(self, name: str) -> bool:
        """Moves that come by themselves: timers, the reconciler, restarts."""
        is_timer = name in self.jobs[0].fair or name in self.jobs[1].fair
        return is_timer or name in (RECONCILED, RUN_DUE, "restart")

    def is_helpful(self, name: str) -> bool:
        """Moves towards success: what planner and runners should do, and what comes by itself but ends no run."""
        is_done = name in self.jobs[0].helpful or name in self.jobs[1].helpful
        return is_done or name in PLANNED or (name != RUN_DUE and self.is_fair(name))

    def explore(self) -> Explored[World]:
        """Every world, each with every rule; and the ways to the end from each."""
        try:
            found = explore(
                [self.first()],
                self.moves,
                key=lambda world: world,
                check=self.check,
                worlds_max=WORLDS_MAX,
                kept=lambda name: self.is_fair(name) or self.is_helpful(name),
            )
        finally:
            self.reconciler.close()
        found.require_a_way_to(self.is_over, by=self.is_fair)
        # The run's own timer must not be what hides a lost wake-up: without it, runners that help are enough.
        found.require_a_way_to(self.is_over, by=self.is_helpful, goal="the end with runners that help")
        found.require_a_way_to(self.has_succeeded, of=self.can_succeed, by=self.is_helpful, goal="success")
        return found


# ---- the scenarios -----------------------------------------------------------------------------------------------

_BRIEF: Final = Habits((SUCCESS, FAILURE), (), 1)
_PLAIN: Final = Habits((SUCCESS, FAILURE, BREAKDOWN), (), 2)
_FULL: Final = Habits((SUCCESS, FAILURE, BREAKDOWN, TIME_OUT), (AttemptState.RUNNING, AttemptState.UPLOADING), 2)
_BY_USER: Final = (("a user cancels", CANCEL),)
_BY_NEWER: Final = (("a newer run supersedes it", SUPERSEDE),)

SCENARIOS: Final = (
    Scenario(
        "independent",
        "two jobs at once, one runner each, 3 attempts each; a user cancels",
        needs=False,
        habits=(_BRIEF, _BRIEF),
        cancels=_BY_USER,
    ),
    Scenario(
        "independent, b may fail",
        "two jobs at once, one runner each, 3 attempts each; a newer run supersedes it",
        needs=False,
        habits=(_BRIEF, _BRIEF),
        is_required=(True, False),
        cancels=_BY_NEWER,
    ),
    Scenario(
        "b needs a",
        "one job after the other, two runners, 3 attempts each, every phase and report; both kinds of cancel",
        needs=True,
        habits=(_FULL, _FULL),
        cancels=_BY_USER + _BY_NEWER,
    ),
    Scenario(
        "b needs a, which may fail",
        "the same where b goes on after any end of a but a cancel; only a newer run cancels",
        needs=True,
        habits=(_FULL, _FULL),
        is_required=(False, True),
        cancels=_BY_NEWER,
    ),
    Scenario(
        "b needs a, with retries",
        "one job after the other, two runners, 4 attempts each, as failed steps are tried again; a user cancels",
        needs=True,
        habits=(_BRIEF._replace(runners=2), _BRIEF._replace(runners=2)),
        retries=(1, 1),
        cancels=_BY_USER,
    ),
)

# Small, for what comes before the plan; the rest of its life is that of the others.
HELD: Final = Scenario(
    "held",
    "a run that waits for approval, which comes at any time, again, or never; then one job after the other",
    needs=True,
    habits=(_BRIEF, _BRIEF),
    cancels=_BY_USER,
    is_held=True,
)

# Small, for planted bugs: most are met at once, but that an end cannot be reached is known only when all is explored.
SMALL: Final = Scenario(
    "small",
    "one job after the other, two runners, 3 attempts each, brief; a user cancels",
    needs=True,
    habits=(_BRIEF._replace(runners=2), _BRIEF._replace(runners=2)),
    cancels=_BY_USER,
)
