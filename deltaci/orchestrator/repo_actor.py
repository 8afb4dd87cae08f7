"""The owner of a repository: admits webhooks and requests one by one, so that equal ones make one run, and changes it.

The unique keys of the store guard it; this actor only makes the race rare. Nothing is kept in memory but the row.
"""

from typing import Any, Final

import msgspec

from deltaci.domain import run as runs
from deltaci.domain.effects import ActOnDelivery, CancelRun
from deltaci.domain.errors import DeliveryReused, DeltaError, DuplicateKey, NotFound
from deltaci.domain.events import Cause, RunKey, Trigger
from deltaci.domain.ids import RANDOM_BYTES, made_at_ms, new_id
from deltaci.domain.machine import Refusal, Why
from deltaci.domain.plan import Plan, digest
from deltaci.domain.pull_request import PullRequest, is_late, left_to, newer
from deltaci.domain.repo import Latest, Repo, SameRun, admit, run_key
from deltaci.domain.requests import Request, in_words
from deltaci.domain.rerun import plan_again
from deltaci.domain.states import EndReason
from deltaci.orchestrator import paths
from deltaci.orchestrator.beats import run_writes, wake_outbox
from deltaci.orchestrator.clearance import clearance
from deltaci.orchestrator.messages import (
    Admit,
    Admitted,
    Alter,
    DoRun,
    Rerun,
    StartRun,
    Supersede,
)
from deltaci.orchestrator.ports import Ports
from deltaci.orchestrator.stored import Stored
from deltaci.store.writes import (
    Audit,
    ChangeRepo,
    Delivery,
    DeliveryActed,
    Owe,
    Reply,
    SavePlan,
    SavePullRequest,
    SaveRun,
    Write,
)

_encode: Final = msgspec.json.Encoder().encode


class IdempotencyConflict(DeltaError):
    """The Idempotency-Key was used before for another request: use a new key."""

    code = "idempotency_conflict"
    http_status = 409


class RepoRemoved(DeltaError):
    """The repository is not built any more: `deltaci repo set NAME --bring-back` changes that."""

    code = "repo_removed"
    http_status = 409


class NameTaken(DeltaError):
    """Another repository has that name."""

    code = "duplicate"
    http_status = 409


class RepoActor(Stored[Repo | None]):
    """Admits the triggers of one repository; its state is None when there is no such repository.

    The one with an empty id admits what is about no repository: requests and what is ignored.
    """

    def __init__(self, repo_id: str, ports: Ports) -> None:
        super().__init__(ports)
        self.repo_id = repo_id
        self.newest_ms = 0

    async def load(self) -> Repo | None:
        """The repository's row; and its newest run and delivery: the next one is newer whatever the clock says."""
        store = self.ports.store
        for newest in await store.list_runs(repo_id=self.repo_id, limit=1):
            self.newest_ms = max(self.newest_ms, made_at_ms(newest.run.id))
        for row in await store.newest_deliveries(repo_id=self.repo_id, limit=1):
            self.newest_ms = max(self.newest_ms, row.delivery.received_at_ms)
        repo = await store.load_repo(self.repo_id)
        if repo is not None:
            self.ports.repo_changed(repo)  # a commit that nobody could tell the fate of may have changed it
        return repo

    def nothing(self) -> None:
        """No repository."""

    def describe_state(self) -> str:
        """The repository's name."""
        return "unknown" if self.state is None else self.state.name

    async def act(self, message: Any) -> Any:
        """One trigger, one request, one change."""
        if self.repo_id == "" and isinstance(message, Admit):
            return await self._admit(message)
        repo = self.state
        if repo is None:
            self.is_loaded = False  # it may be added a moment later
            return NotFound(f"no repository {self.repo_id}: add it with `deltaci repo add`", repo_id=self.repo_id)
        match message:
            case Admit():
                return await self._admit(message)
            case StartRun() | Rerun():
                return await self._once(repo, message)
            case Supersede():
                return await self._supersede(message)
            case Alter():
                return await self._alter(repo, message)
        raise TypeError(f"repository {self.repo_id} was sent {type(message).__name__}")

    # ---- webhooks ------------------------------------------------------------------------------------------------

    async def _admit(self, message: Admit) -> Admitted | DeliveryReused:
        repo = self.state
        told, ignored = await self._told(repo, message)
        trigger = message.trigger if ignored is None else None
        if trigger is not None and repo is not None:
            # Most deliveries are new: try to store one first, and read only when a unique key says that it is not.
            try:
                return await self._create(repo, message, trigger, told, attempt=1)
            except DuplicateKey:
                pass
        known = await self.ports.store.delivery(self.repo_id, message.delivery_id)
        if known is not None:
            if known.body_sha256 != message.body_sha256:
                return DeliveryReused(
                    f"delivery {message.delivery_id} of {self.describe_state()} was received before with another body; "
                    "send new content under a new delivery id",
                    delivery_id=message.delivery_id,
                )
            return admitted(known)
        if trigger is not None and repo is not None:
            return await self._admit_known(repo, message, trigger, told)
        if message.request is not None:
            return await self._accept(message, message.request, told)
        delivery = self._delivery(message, ignored=ignored)
        await self.ports.store.commit((delivery, *told))
        wake_outbox(told, self.ports)
        return admitted(delivery)

    async def _told(self, repo: Repo | None, message: Admit) -> tuple[tuple[Write, ...], str | None]:
        """What to store of the pull request that the event tells of; and why nothing comes of it, if so."""
        store, pull, trigger = self.ports.store, message.pull_request, message.trigger
        known = None if pull is None else await store.pull_request(pull.repo_id, pull.number)
        to_store = None if pull is None else newer(known, pull)
        told = () if to_store is None else (SavePullRequest(pull_request=to_store),)
        if trigger is None or repo is None:
            return told, message.ignored
        if repo.removed_because:
            return told, f"the repository was removed: {repo.removed_because}"
        if pull is not None and is_late(known, pull):
            return told, f"pull request {pull.number} was closed meanwhile"
        if repo.is_one_run_a_commit and trigger.kind == "push":
            taker = left_to(trigger, await store.open_pull_requests(repo.id))
            if taker is not None:
                passed = await self._left_behind(repo, trigger)
                return (*told, *passed), f"pull request {taker.number} is open: its own event runs this commit"
        return told, None

    async def _accept(self, message: Admit, request: Request, told: tuple[Write, ...]) -> Admitted:
        """A request is in the ledger and owed in one commit; the same content is not acted on twice."""
        twin = await self.ports.store.delivery_by_digest(self.repo_id, message.body_sha256)
        if twin is not None and twin.request is not None:
            outcome = f"the same as delivery {twin.delivery_id}"
            delivery = self._delivery(message, request=request, is_duplicate=True, outcome=outcome)
            await self.ports.store.commit((delivery, *told))
            return admitted(delivery)
        delivery = self._delivery(message, request=request)
        effect = ActOnDelivery(self.repo_id, message.delivery_id)
        writes = (delivery, Owe(effect=effect, due_at_ms=self.ports.clock.now_ms()), *told)
        await self.ports.store.commit(writes)
        wake_outbox(writes, self.ports)
        return admitted(delivery)

    async def _admit_known(self, repo: Repo, message: Admit, trigger: Trigger, told: tuple[Write, ...]) -> Admitted:
        """A new delivery of a commit that has a run, or of content that was seen before."""
        same_content = await self.ports.store.delivery_by_digest(repo.id, message.body_sha256)
        latest = await self.ports.store.latest_run(run_key(repo.id, trigger))
        decision = admit(latest)
        run_id = same_content.run_id if same_content else None
        is_same = (
            isinstance(decision, SameRun)
            and not await self._is_about_to_be_superseded(repo, trigger, latest)
            and not await self._has_other_base(message, trigger, latest)
        )
        if run_id is None and is_same and latest is not None:
            run_id = latest.run_id
        if run_id is not None:
            delivery = self._delivery(message, run_id=run_id, is_duplicate=True)
            await self.ports.store.commit((delivery, *told))
            return admitted(delivery)
        return await self._create(repo, message, trigger, told, attempt=1 if latest is None else latest.attempt + 1)

    async def _is_about_to_be_superseded(self, repo: Repo, trigger: Trigger, latest: Latest | None) -> bool:
        """Whether a newer push makes that run superfluous, and only the cancel is still on its way."""
        if latest is None or latest.state.is_final or not repo.is_superseding or not trigger.stream:
            return False
        live = await self.ports.store.live_runs_of_stream(repo.id, trigger.stream)
        return latest.run_id in live and live[-1] != latest.run_id

    async def _has_other_base(self, message: Admit, trigger: Trigger, latest: Latest | None) -> bool:
        """Whether the pull request aims at another branch by now than when its commit ran: other things changed then.

        An event that was overtaken says what was so earlier.
        """
        if latest is None or trigger.kind != "pull_request" or not trigger.base_ref:
            return False
        run = await self.ports.store.load_run(latest.run_id)
        if run is None or run.trigger.base_ref in ("", trigger.base_ref):
            return False
        told = message.pull_request
        known = None if told is None else await self.ports.store.pull_request(self.repo_id, told.number)
        return told is None or known is None or known.updated_at_ms <= told.updated_at_ms

    async def _create(
        self, repo: Repo, message: Admit, trigger: Trigger, told: tuple[Write, ...], *, attempt: int
    ) -> Admitted:
        cause = Cause("webhook", message.delivery_id, via=repo.forge)
        run_id, writes = await self._new_run(repo, trigger, attempt, cause)
        delivery = self._delivery(message, run_id=run_id)
        superfluous = await self._superfluous_push(repo, trigger, message.pull_request, run_id)
        await self._begin(repo, trigger, run_id, [delivery, *writes, *told, *superfluous])
        return admitted(delivery)

    async def _superfluous_push(
        self, repo: Repo, trigger: Trigger, pull: PullRequest | None, newer_run_id: str
    ) -> tuple[Write, ...]:
        """The cancel of the run that the push of this commit to the same branch had before there was a pull request."""
        if not repo.is_one_run_a_commit or trigger.kind != "pull_request" or pull is None or pull.is_fork:
            return ()
        pushed = await self.ports.store.latest_run(RunKey(repo.id, trigger.commit_sha, "push"))
        branch = f"branch:{pull.head_ref.removeprefix('refs/heads/')}"
        if pushed is None or pushed.run_id not in await self.ports.store.live_runs_of_stream(repo.id, branch):
            return ()
        cause = superseded(newer_run_id).cause
        effect = CancelRun(pushed.run_id, EndReason.SUPERSEDED, superseded_by(newer_run_id), cause)
        return (Owe(effect=effect, due_at_ms=self.ports.clock.now_ms()),)

    async def _left_behind(self, repo: Repo, trigger: Trigger) -> tuple[Write, ...]:
        """The cancels of what runs of earlier pushes to the branch: this one has no run that would supersede them."""
        cause, now_ms = Cause("system", trigger.commit_sha, via="superseded"), self.ports.clock.now_ms()
        owed = []
        live = await self.ports.store.live_runs_of_stream(repo.id, trigger.stream) if repo.is_superseding else ()
        for run_id in live:
            run = await self.ports.store.load_run(run_id)
            # The run of this very commit gives way to that of the pull request, and not before there is one.
            if run is not None and run.key.commit_sha != trigger.commit_sha:
                effect = CancelRun(run_id, EndReason.SUPERSEDED, superseded_by(trigger.commit_sha), cause)
                owed.append(Owe(effect=effect, due_at_ms=now_ms))
        return tuple(owed)

    def _delivery(
        self,
        message: Admit,
        *,
        run_id: str | None = None,
        ignored: str | None = None,
        is_duplicate: bool = False,
        request: Request | None = None,
        outcome: str | None = None,
    ) -> Delivery:
        # A request is about the runs before it, and the ids of runs tell which those are.
        self.newest_ms = max(self.ports.clock.now_ms(), self.newest_ms)
        return Delivery(
            repo_id=self.repo_id,
            delivery_id=message.delivery_id,
            body_sha256=message.body_sha256,
            received_at_ms=self.newest_ms,
            event=message.event,
            run_id=run_id,
            ignored=ignored,
            is_duplicate=is_duplicate,
            request=request,
            outcome=outcome,
        )

    # ---- the repository itself -----------------------------------------------------------------------------------

    async def _alter(self, repo: Repo, message: Alter) -> Repo | NameTaken:
        """The row, what is audited, what becomes of the delivery, and the cancels of a removal: all in one commit."""
        after = msgspec.structs.replace(repo, **message.changes)
        for other in self.ports.repos():
            if other.id != repo.id and other.name.casefold() == after.name.casefold():
                return NameTaken(f"{repo.name} cannot be called {after.name}: {other.id} has that name")
        writes: list[Write] = []
        now_ms = self.ports.clock.now_ms()
        if after != repo:
            after = msgspec.structs.replace(after, revision=repo.revision + 1)
            audit = Audit(
                at_ms=now_ms, cause=message.cause, type=message.what, entity_id=repo.id, details=message.details
            )
            writes += [ChangeRepo(repo=after), audit]
        if after.removed_because and not repo.removed_because:
            detail = f"{after.name} was removed: {after.removed_because}"
            for run_id in await self.ports.store.live_runs_of_repo(repo.id):
                effect = CancelRun(run_id, EndReason.CLOSED, detail, message.cause)
                writes.append(Owe(effect=effect, due_at_ms=now_ms))
        if message.delivery_id:
            writes.append(DeliveryActed(repo_id=repo.id, delivery_id=message.delivery_id, outcome=message.outcome))
        if writes:
            await self.ports.store.commit(writes)
            self.state = after
            self.ports.repo_changed(after)
            wake_outbox(writes, self.ports)
        return after

    # ---- people --------------------------------------------------------------------------------------------------

    async def _once(self, repo: Repo, message: StartRun | Rerun) -> Reply | Refusal | DeltaError:
        """The reply that is kept under the request's key, made now if there is none yet."""
        known = await self._kept(message)
        if known is None:
            if repo.removed_because:
                return RepoRemoved(f"nothing runs in {repo.name}, which was removed: {repo.removed_because}")
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
            name = next((ref.name for ref in run.jobs if ref.id == message.job_id), "")
            plan = plan_again(plan, states, failed_only=message.is_failed_only, earlier_attempt=run.attempt, job=name)
            if (message.is_failed_only or name) and all(job.is_skipped for job in plan.jobs):
                hint = "no job of it failed, or it has nothing to do; run all of them again instead"
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
        self.newest_ms = max(now_ms, self.newest_ms + 1)
        run_id = new_id("run", now_ms=self.newest_ms, random=self.ports.entropy.token_bytes(RANDOM_BYTES))
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


def admitted(delivery: Delivery) -> Admitted:
    """The answer to a delivery: a matter of its row alone, so that it is equal for ever."""
    return Admitted(
        run_id=delivery.run_id,
        is_duplicate=delivery.is_duplicate,
        ignored=delivery.ignored,
        accepted=None if delivery.request is None else in_words(delivery.request),
    )


def superseded(newer_run_id: str) -> DoRun:
    """The cancel of a run that a newer one of its stream made superfluous."""
    command = runs.RequestCancel(reason=EndReason.SUPERSEDED, detail=superseded_by(newer_run_id))
    return DoRun(command=command, cause=Cause("system", newer_run_id, via="superseded"))


def superseded_by(newer_run_id: str) -> str:
    """What a superseded run tells of its end."""
    return f"superseded by {newer_run_id}"
