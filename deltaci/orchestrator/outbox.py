"""The outbox relay: delivers what is owed, from what was committed, at least once.

It may crash at any point: a row is taken out only after its delivery, and receivers read committed state. One effect is
under way once at a time; each kind has its own number of places, so that slow plans do not hold up reports.
"""

import errno
from collections.abc import Callable, Coroutine, Hashable, Mapping
from typing import Any, Final, TypeAlias

import anyio
import msgspec
from loguru import logger

from actors import ActorError
from deltaci.domain import run as runs
from deltaci.domain.effects import (
    ActOnDelivery,
    AnalyzeAttempt,
    CancelRun,
    Effect,
    KeepRecipe,
    Notify,
    PlanRun,
    ReportRun,
)
from deltaci.domain.errors import DeltaError, ForgeRejected, ForgeUnavailable, PlanFailed, StoreError
from deltaci.domain.events import Cause
from deltaci.domain.machine import Refusal
from deltaci.domain.plan import Plan
from deltaci.domain.recipe import has_a_say
from deltaci.domain.run import Run
from deltaci.domain.states import RunState
from deltaci.orchestrator import paths, recipes
from deltaci.orchestrator.deliveries import Deliveries
from deltaci.orchestrator.messages import Answer, DoRun, UsePlan, Wake
from deltaci.orchestrator.ports import Analyzer, AppHome, Notifier, Planner, Ports, Reporter, Rights
from deltaci.orchestrator.stored import Keeper, Patience
from deltaci.store.port import Owed
from deltaci.store.writes import Owe, Postpone, Settle

# What this machine lacks, for a while
OURS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS})

NOTIFICATIONS_AT_ONCE: Final = 4

Spawn: TypeAlias = Callable[[Callable[[], Coroutine[Any, Any, None]]], None]


class OutboxActor(Keeper[None]):
    """Looks for what is due, and starts its delivery; holds nothing but the keys that are under way."""

    def __init__(
        self,
        ports: Ports,
        patience: Patience,
        *,
        planner: Planner,
        analyzer: Analyzer,
        reporter: Reporter,
        notifier: Notifier,
        spawn: Spawn,
        under_way: dict[str, type[Effect]],
        rights: Mapping[str, Rights],
        app_home: AppHome,
    ) -> None:
        """`spawn` runs a delivery beside the mailbox; `under_way` outlives a crash of this actor, as deliveries do."""
        super().__init__(ports, patience)
        self.planner = planner
        self.analyzer = analyzer
        self.reporter = reporter
        self.deliveries = Deliveries(ports, self._ask, rights, app_home)
        self.notifier = notifier
        self.spawn = spawn
        self.under_way = under_way
        self.unsettled: dict[str, int] = {}
        policy = ports.policy
        self.places: Mapping[type[Effect], int] = {
            PlanRun: policy.plans_at_once,
            AnalyzeAttempt: policy.analyses_at_once,
            ReportRun: policy.reports_at_once,
            KeepRecipe: 1,  # two of one repository would only be in each other's way
            ActOnDelivery: policy.deliveries_at_once,
            CancelRun: policy.deliveries_at_once,
            Notify: NOTIFICATIONS_AT_ONCE,
        }

    async def load(self) -> None:
        """Nothing: the store knows what is owed."""

    def nothing(self) -> None:
        """Nothing."""

    def describe_state(self) -> str:
        """How many deliveries are under way."""
        return f"{len(self.under_way)} under way"

    @staticmethod
    def coalesce_key(message: Any) -> Hashable | None:
        """One waiting wake-up of a kind is enough."""
        return ("wake", message.kind) if isinstance(message, Wake) else None

    async def act(self, message: Wake) -> None:
        """Start what is due and not under way, as far as there are places for its kind; the rest stays in the store."""
        now_ms = self.ports.clock.now_ms()
        for kind, places in self.places.items():
            busy = sum(under_way is kind for under_way in self.under_way.values())
            if busy == places or message.kind not in (None, kind):
                continue
            # What is under way is still owed: at most `busy` of these are it.
            for owed in await self.ports.store.owed(kind, now_ms, places):
                if owed.effect.key not in self.under_way and busy < places:
                    busy += 1
                    self.under_way[owed.effect.key] = kind
                    self._start(owed)

    def _start(self, owed: Owed) -> None:
        async def work() -> None:
            try:
                is_noted = await self._deliver(owed)
                if not is_noted:
                    # The row stands as it was, still due: without a pause it would be delivered again in a hurry.
                    tries = self.unsettled[owed.effect.key] = self.unsettled.get(owed.effect.key, 0) + 1
                    await anyio.sleep(self._backoff_ms(tries - 1) / 1000)
                else:
                    self.unsettled.pop(owed.effect.key, None)
            finally:
                self.under_way.pop(owed.effect.key, None)
            self.ports.tell(paths.OUTBOX, Wake(kind=type(owed.effect)))

        self.spawn(work)

    async def _deliver(self, owed: Owed) -> bool:
        """Deliver; False if the store could not be told what came of it."""
        key, generation = owed.effect.key, owed.generation
        bound = logger.bind(effect=key)
        try:
            await self._act(owed)
            await self.ports.store.commit((Settle(key=key, generation=generation),))
        except ForgeRejected as error:
            bound.warning("refused for good: {}", error)
            self.ports.observer.refused(type(owed.effect).__name__, error.code)
            return await self._postpone(owed, str(error), is_refused=True)
        except (DeltaError, ActorError, TimeoutError, OSError) as error:
            bound.info("put off: {}", error)
            return await self._postpone(owed, str(error), retry_after_ms=getattr(error, "retry_after_ms", None))
        except Exception as error:  # noqa: BLE001 - a bug behind a port must not stop the other deliveries
            bound.exception("a delivery crashed")
            return await self._postpone(owed, f"{type(error).__name__}: {error}")
        else:
            return True

    async def _postpone(
        self, owed: Owed, error: str, *, is_refused: bool = False, retry_after_ms: int | None = None
    ) -> bool:
        due_at_ms = self.ports.clock.now_ms() + (retry_after_ms or self._backoff_ms(owed.tries))
        postponed = Postpone(
            key=owed.effect.key,
            generation=owed.generation,
            due_at_ms=due_at_ms,
            error=error[:2000],
            is_refused=is_refused,
        )
        try:
            await self.ports.store.commit((postponed,))
        except DeltaError as failure:
            logger.bind(effect=owed.effect.key).warning("could not put off: {}", failure)
            return False
        return True

    def _backoff_ms(self, tries: int) -> int:
        policy = self.ports.policy
        return int(min(policy.effect_retry_first_ms * 2 ** min(tries, 20), policy.effect_retry_max_ms))

    async def _act(self, owed: Owed) -> None:
        match owed.effect:
            case PlanRun(run_id):
                await self._plan(run_id, owed.tries)
            case AnalyzeAttempt(job_id, attempt):
                await self._analyze(job_id, attempt)
            case ReportRun(run_id):
                await self.reporter.report(run_id)
            case Notify(run_id):
                await self.notifier.notify(run_id)
            case KeepRecipe(run_id):
                await recipes.keep(self.ports.store, run_id, now_ms=self.ports.clock.now_ms())
            case ActOnDelivery(repo_id, delivery_id):
                await self.deliveries.act(repo_id, delivery_id)
            case CancelRun(run_id, reason, detail, cause):
                cancel = runs.RequestCancel(reason=reason, detail=detail)
                await self._ask_run(run_id, DoRun(command=cancel, cause=cause))

    async def _analyze(self, job_id: str, attempt: int) -> None:
        now_ms = self.ports.clock.now_ms()
        explanation = await self.analyzer.explain(job_id, attempt, now_ms)
        writes: list[Any] = [explanation]
        loaded = await self.ports.store.load_job(job_id)
        if loaded is not None and self.ports.is_reported(loaded[0].repo_id):
            writes.append(Owe(effect=ReportRun(loaded[0].run_id), due_at_ms=now_ms))
        await self.ports.store.commit(writes)

    async def _plan(self, run_id: str, tries: int) -> None:
        cause = Cause("system", "planner")
        answer = await self._ask_run(run_id, DoRun(command=runs.StartPlanning(), cause=cause))
        run = await self.ports.store.load_run(run_id)
        if isinstance(answer, Refusal) and (run is None or run.state is not RunState.PLANNING):
            return  # canceled meanwhile, or planned in an earlier delivery
        assert run is not None
        try:
            plan = await self.ports.store.load_plan(run_id)
            if plan is None:
                plan = await self._make_plan(run)
        except (PlanFailed, ForgeRejected) as error:
            await self._ask_run(run_id, DoRun(command=runs.FailPlan(text=str(error)), cause=cause))
        except StoreError:
            raise  # no fault of the plan, whatever try this is
        except Exception as error:
            if isinstance(error, OSError) and error.errno in OURS:
                raise  # likewise
            policy, is_away = self.ports.policy, isinstance(error, ForgeUnavailable)
            if tries + 1 < (policy.fetch_tries_max if is_away else policy.plan_tries_max):
                raise
            logger.bind(run=run_id).exception("planning was given up")
            what = "the repository was out of reach" if is_away else "the planner failed"
            text = f"{what} {tries + 1} times, the last time with: {error or type(error).__name__}"
            await self._ask_run(run_id, DoRun(command=runs.FailPlan(text=text), cause=cause))
        else:
            await self._ask_run(run_id, UsePlan(plan=plan))

    async def _make_plan(self, run: Run) -> Plan:
        repo = await self.ports.store.load_repo(run.key.repo_id)
        if repo is None:
            raise PlanFailed(f"repository {run.key.repo_id} is no longer known")
        with anyio.fail_after(self.ports.policy.plan_within_ms / 1000):
            plan = await self.planner.plan(run, repo)
        if len(plan.jobs) > self.ports.policy.jobs_max:
            raise PlanFailed(
                f"the plan has {len(plan.jobs)} jobs, a run at most {self.ports.policy.jobs_max} (jobs_max)"
            )
        known: set[str] = set()
        for job in plan.jobs:
            # A job that waits for what never comes would keep its run from ending.
            missing = [need for need in job.needs if need not in known]
            if missing or job.name in known:
                raise PlanFailed(
                    f"job {job.name!r} needs {', '.join(missing)}, which no job before it is named"
                    if missing
                    else f"the plan has two jobs named {job.name!r}"
                )
            known.add(job.name)
        return plan if has_a_say(run.trigger, repo) else msgspec.structs.replace(plan, blueprint=None)

    async def _ask_run(self, run_id: str, message: DoRun | UsePlan) -> Answer[Run]:
        answer: Answer[Run] = await self._ask(paths.run_path(run_id), message)
        return answer

    async def _ask(self, path: str, message: Any) -> Any:
        answer = await self.system.ref(path).ask(message, timeout=self.ports.policy.ask_timeout_ms / 1000)
        if isinstance(answer, DeltaError):
            raise answer
        return answer
