"""The owner of a repository's triggers: admits webhooks and requests one by one, so that equal ones make one run.

The unique keys of the store guard it; this actor only makes the race rare. Nothing is kept in memory but the row.
"""

from typing import Any, Final

import msgspec

from deltaci.domain import run as runs
from deltaci.domain.errors import DeliveryReused, DeltaError, DuplicateKey, NotFound
from deltaci.domain.events import Cause, RunKey, Trigger
from deltaci.domain.ids import RANDOM_BYTES, made_at_ms, new_id
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.plan import Plan, digest
from deltaci.domain.repo import Latest, Repo, SameRun, admit, run_key
from deltaci.domain.rerun import plan_again
from deltaci.domain.states import EndReason
from deltaci.orchestrator import paths
from deltaci.orchestrator.beats import run_writes, wake_outbox
from deltaci.orchestrator.clearance import clearance
from deltaci.orchestrator.messages import Admit, Admitted, DoRun, Rerun, StartRun, Supersede
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.stored import Stored
from deltaci.store.port import Delivery, Reply, SavePlan, SaveRun, Write

_encode: Final = msgspec.json.Encoder().encode


class IdempotencyConflict(DeltaError):
    """The Idempotency-Key was used before for another request: use a new key."""

    code = "idempotency_conflict"
    http_status = 409


class RepoActor(Stored[Repo | None]):
    """Admits the triggers of one repository; its state is None when there is no such repository."""

    def __init__(self, repo_id: str, ports: Ports) -> None:
        super().__init__(ports)
        self.repo_id = repo_id
        self.newest_id_ms = 0

    async def load(self) -> Repo | None:
        """The repository's row; and its newest run, so that the next one is newer whatever the clock says."""
        for newest in await self.ports.store.list_runs(repo_id=self.repo_id, limit=1):
            self.newest_id_ms = max(self.newest_id_ms, made_at_ms(newest.run.id))
        return await self.ports.store.load_repo(self.repo_id)

    def nothing(self) -> None:
        """No repository."""

    def describe_state(self) -> str:
        """The repository's name."""
        return "unknown" if self.state is None else self.state.name

    async def act(self, message: Any) -> Any:
        """One trigger."""
        if self.state is None:
            self.is_loaded = False  # it may be added a moment later
            return NotFound(f"no repository {self.repo_id}: add it with `deltaci repo add`", repo_id=self.repo_id)
        match message:
            case Admit():
                return await self._admit(self.state, message)
            case StartRun() | Rerun():
                return await self._once(self.state, message)
            case Supersede():
                return await self._supersede(message)
        raise TypeError(f"repository {self.repo_id} was sent {type(message).__name__}")

    # ---- webhooks ------------------------------------------------------------------------------------------------

    async def _admit(self, repo: Repo, message: Admit) -> Admitted | DeliveryReused:
        if message.trigger is not None:
            # Most deliveries are new: try to store one first, and read only when a unique key says that it is not.
            try:
                return await self._create(repo, message, message.trigger, attempt=1)
            except DuplicateKey:
                pass
        known = await self.ports.store.delivery(repo.id, message.delivery_id)
        if known is not None:
            if known.body_sha256 != message.body_sha256:
                return DeliveryReused(
                    f"delivery {message.delivery_id} of {repo.name} was received before with another body; "
                    "send new content under a new delivery id",
                    delivery_id=message.delivery_id,
                )
            return Admitted(run_id=known.run_id, is_duplicate=known.is_duplicate, ignored=known.ignored)
        if message.trigger is None:
            await self.ports.store.commit((self._delivery(repo, message, ignored=message.ignored),))
            return Admitted(run_id=None, is_duplicate=False, ignored=message.ignored)
        return await self._admit_known(repo, message, message.trigger)

    async def _admit_known(self, repo: Repo, message: Admit, trigger: Trigger) -> Admitted:
        """A new delivery of a commit that has a run, or of content that was seen before."""
        same_content = await self.ports.store.delivery_by_digest(repo.id, message.body_sha256)
        latest = await self.ports.store.latest_run(run_key(repo.id, trigger))
        decision = admit(latest)
        run_id = same_content.run_id if same_content else None
        is_same = isinstance(decision, SameRun) and not await self._is_about_to_be_superseded(repo, trigger, latest)
        if run_id is None and is_same and latest is not None:
            run_id = latest.run_id
        if run_id is not None:
            await self.ports.store.commit((self._delivery(repo, message, run_id=run_id, is_duplicate=True),))
            return Admitted(run_id=run_id, is_duplicate=True, ignored=None)
        return await self._create(repo, message, trigger, attempt=1 if latest is None else latest.attempt + 1)

    async def _is_about_to_be_superseded(self, repo: Repo, trigger: Trigger, latest: Latest | None) -> bool:
        """Whether a newer push makes that run superfluous, and only the cancel is still on its way."""
        if latest is None or latest.state.is_final or not repo.is_superseding or not trigger.stream:
            return False
        live = await self.ports.store.live_runs_of_stream(repo.id, trigger.stream)
        return latest.run_id in live and live[-1] != latest.run_id

    async def _create(self, repo: Repo, message: Admit, trigger: Trigger, *, attempt: int) -> Admitted:
        cause = Cause("webhook", message.delivery_id, via=repo.forge)
        run_id, writes = await self._new_run(repo, trigger, attempt, cause)
        delivery = self._delivery(repo, message, run_id=run_id)
        await self._begin(repo, trigger, run_id, [delivery, *writes])
        return Admitted(run_id=run_id, is_duplicate=False, ignored=None)

    def _delivery(
        self,
        repo: Repo,
        message: Admit,
        *,
        run_id: str | None = None,
        ignored: str | None = None,
        is_duplicate: bool = False,
    ) -> Delivery:
        return Delivery(
            repo_id=repo.id,
            delivery_id=message.delivery_id,
            body_sha256=message.body_sha256,
            received_at_ms=self.ports.clock.now_ms(),
            event=message.event,
            run_id=run_id,
            ignored=ignored,
            is_duplicate=is_duplicate,
        )

    # ---- people --------------------------------------------------------------------------------------------------

    async def _once(self, repo: Repo, message: StartRun | Rerun) -> Reply | Refusal | DeltaError:
        """The reply that is kept under the request's key, made now if there is none yet."""
        known = await self._kept(message)
        if known is None:
            try:
                if isinstance(message, StartRun):
                    return await self._start(repo, message)
                return await self._rerun(repo, message)
            except DuplicateKey:
                # Another repository's request with the same key was faster; any other key is a bug.
                known = await self._kept(message)
                if known is None:
                    raise
        return known

    async def _kept(self, message: StartRun | Rerun) -> Reply | DeltaError | None:
        known = await self.ports.store.reply(message.reply_key)
        if known is not None and known.request_sha256 != message.request_sha256:
            return IdempotencyConflict()
        return known

    async def _start(self, repo: Repo, message: StartRun) -> Reply:
        key = run_key(repo.id, message.trigger)
        latest = await self.ports.store.latest_run(key)
        attempt = 1 if latest is None else latest.attempt + 1
        run_id, writes = await self._new_run(repo, message.trigger, attempt, message.cause)
        reply = self._reply(message, run_id, attempt)
        await self._begin(repo, message.trigger, run_id, [reply, *writes])
        return reply

    async def _rerun(self, repo: Repo, message: Rerun) -> Reply | Refusal:
        run = await self.ports.store.load_run(message.run_id)
        if run is None:
            return Refusal(Why.NOT_FOUND, entity_id=message.run_id, at="nowhere", command="Rerun")
        latest = await self.ports.store.latest_run(run.key)
        assert latest is not None, f"run {run.id} is stored and its key is not"
        if not latest.state.is_final:
            hint = f"wait for run {latest.run_id} to end, approve it if it is held, or cancel it"
            return Refusal(Why.NOT_OVER, entity_id=run.id, at=latest.state, command="Rerun", hint=hint)
        plan = await self.ports.store.load_plan(run.id)
        if plan is not None:
            states = {job.name: job.state for job in await self.ports.store.jobs_of_run(run.id)}
            plan = plan_again(plan, states, failed_only=message.is_failed_only, earlier_attempt=run.attempt)
            if message.is_failed_only and all(job.is_skipped for job in plan.jobs):
                hint = "no job of it failed; run all of them again instead"
                return Refusal(Why.ILLEGAL_MOVE, entity_id=run.id, at=run.state, command="Rerun", hint=hint)
        attempt = latest.attempt + 1
        trigger = run.trigger
        live = await self.ports.store.live_runs_of_stream(repo.id, trigger.stream) if trigger.stream else ()
        if any(one > run.id for one in live):
            # An old commit that somebody wants to see again must not cancel the newer one, nor be canceled by it.
            trigger = msgspec.structs.replace(trigger, stream="")
        run_id, writes = await self._new_run(repo, trigger, attempt, message.cause, plan)
        reply = self._reply(message, run_id, attempt)
        await self._begin(repo, trigger, run_id, [reply, *writes])
        return reply

    def _reply(self, message: StartRun | Rerun, run_id: str, attempt: int) -> Reply:
        return Reply(
            key=message.reply_key,
            request_sha256=message.request_sha256,
            http_status=201,
            body=_encode({"run_id": run_id, "attempt": attempt}),
            at_ms=self.ports.clock.now_ms(),
        )

    # ---- a run begins --------------------------------------------------------------------------------------------

    async def _new_run(
        self, repo: Repo, trigger: Trigger, attempt: int, cause: Cause, plan: Plan | None = None
    ) -> tuple[str, list[Write]]:
        cleared = await clearance(self.ports.store, repo, trigger)
        now_ms = self.ports.clock.now_ms()
        # Ids tell which push was later: two of one millisecond must not be left to chance.
        self.newest_id_ms = max(now_ms, self.newest_id_ms + 1)
        run_id = new_id("run", now_ms=self.newest_id_ms, random=self.ports.entropy.token_bytes(RANDOM_BYTES))
        key: RunKey = run_key(repo.id, trigger)
        created = runs.create(
            run_id,
            key,
            trigger,
            attempt=attempt,
            now_ms=now_ms,
            timeout_ms=repo.run_timeout_ms,
            cancel_within_ms=self.ports.policy.cancel_within_ms,
            hold=cleared.hold,
            hold_within_ms=self.ports.policy.approval_within_ms if cleared.hold else 0,
            approved_by=cleared.approved_by,
        )
        writes = run_writes(created, 0, cause, self.ports)
        if plan is not None:
            writes.append(SavePlan(run_id=run_id, plan=plan, digest=digest(plan)))
        return run_id, writes

    async def _begin(self, repo: Repo, trigger: Trigger, run_id: str, writes: list[Write]) -> None:
        await self.ports.store.commit(writes)
        for write in writes:
            if isinstance(write, SaveRun):
                self.ports.observer.committed(write.events)
        wake_outbox(writes, self.ports)
        if repo.is_superseding and trigger.stream:
            self.ports.tell(self.path, Supersede(stream=trigger.stream, newer_run_id=run_id))

    async def _supersede(self, message: Supersede) -> None:
        for run_id in await self.ports.store.live_runs_of_stream(self.repo_id, message.stream):
            if run_id < message.newer_run_id:
                self.ports.tell(paths.run_path(run_id), superseded(message.newer_run_id))


def superseded(newer_run_id: str) -> DoRun:
    """The cancel of a run that a newer one of its stream made superfluous."""
    command = runs.RequestCancel(reason=EndReason.SUPERSEDED, detail=f"superseded by {newer_run_id}")
    return DoRun(command=command, cause=Cause("system", newer_run_id, via="superseded"))
