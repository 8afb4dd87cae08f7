"""What is done about a delivery that asks for something: an end, a new attempt, a cancel, an approval, a repository.

Rule 1: whether somebody may is asked of the forge, right before it is done; without an API to ask, nobody may.
Rule 2: what a request does and that it was done are one commit where they can be. Where they cannot, what is done is
        keyed by the delivery: acting once more, after whatever crash, changes nothing.
Rule 3: a request is about what was there when it arrived: runs that began later are none of its business.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

import msgspec
from loguru import logger

from deltaci.domain import run as runs
from deltaci.domain.effects import CancelRun
from deltaci.domain.errors import ForgeRejected, NotFound
from deltaci.domain.events import Cause
from deltaci.domain.ids import RANDOM_BYTES, made_at_ms, new_id, run_of
from deltaci.domain.machine import Refusal
from deltaci.domain.pull_request import number_of
from deltaci.domain.repo import PASSED, Repo
from deltaci.domain.requests import (
    REFUSED,
    AddRepos,
    Approve,
    CancelRuns,
    EndStream,
    RemoveRepo,
    RemoveRepos,
    RenameRepo,
    RunAgain,
    is_done,
    is_enough,
)
from deltaci.domain.states import EndReason
from deltaci.orchestrator import paths
from deltaci.orchestrator.approval import approved, held_run
from deltaci.orchestrator.beats import sha256_of, wake_outbox
from deltaci.orchestrator.messages import Alter, DoRun, Rerun
from deltaci.orchestrator.ports import AppHome, Ports, Rights
from deltaci.orchestrator.repo_actor import NameTaken, RepoRemoved
from deltaci.store.writes import Audit, Delivery, DeliveryActed, Owe, Reply, SaveRepo, Write

SECRET_BYTES: Final = 32
APP_FORGE: Final = "github"
# Why a repository was removed that a person removed: no installation brings it back.
SOMEBODY: Final = "somebody removed it"

Ask: TypeAlias = Callable[[str, Any], Awaitable[Any]]
Person: TypeAlias = RunAgain | CancelRuns | Approve


class Deed(NamedTuple):
    """What became of a request, and what is still to be stored with that; no outcome: somebody else stored it."""

    outcome: str | None
    writes: Sequence[Write] = ()


class Deliveries:
    """Acts on what webhooks asked for."""

    def __init__(self, ports: Ports, ask: Ask, rights: Mapping[str, Rights], app_home: AppHome) -> None:
        """`ask` sends a message to the actor at a path and raises what it answers with; `rights` by `Repo.forge`."""
        self._ports = ports
        self._ask = ask
        self._rights = rights
        self._app_home = app_home

    async def act(self, repo_id: str, delivery_id: str) -> None:
        """Do what the delivery asks for, once; what was refused before is looked at again.

        Raises `ForgeUnavailable` and `StoreError`: nothing is decided yet, try again later.
        """
        store = self._ports.store
        delivery = await store.delivery(repo_id, delivery_id)
        if delivery is None or delivery.request is None:
            return
        repo = await store.load_repo(repo_id) if repo_id else None
        if is_done(delivery.outcome):
            if repo is not None:
                self._ports.repo_changed(repo)  # it may have been this, in a commit that nobody could tell the fate of
            return
        try:
            deed = await self._done(delivery, repo)
        except (ForgeRejected, NameTaken, NotFound, RepoRemoved) as error:
            deed = _refused(str(error))
        if deed.outcome is not None:
            acted = DeliveryActed(repo_id=repo_id, delivery_id=delivery_id, outcome=deed.outcome)
            writes = (*deed.writes, acted)
            await store.commit(writes)
            self._adopt(writes)
            logger.info("delivery {} of {}: {}", delivery_id, repo.name if repo else "no repository", deed.outcome)

    def _adopt(self, writes: Sequence[Write]) -> None:
        for write in writes:
            if isinstance(write, SaveRepo):
                self._ports.repo_changed(write.repo)
        wake_outbox(writes, self._ports)

    async def _done(self, delivery: Delivery, repo: Repo | None) -> Deed:
        request = delivery.request
        if isinstance(request, AddRepos):
            return await self._add(delivery, request)
        if isinstance(request, RemoveRepos):
            return await self._remove_several(delivery, request)
        if repo is None:
            return _refused(f"there is no repository {delivery.repo_id!r}")
        match request:
            case EndStream():
                return await self._end_stream(repo, delivery, request)
            case RunAgain() | CancelRuns() | Approve():
                why_not = await self._why_not(repo, request)
                return _refused(why_not) if why_not else await self._obey(repo, delivery, request)
            case RenameRepo():
                return await self._rename(repo, delivery, request)
            case RemoveRepo(because=because):
                return await self._remove(repo, delivery, because)
            case None:
                raise AssertionError(f"delivery {delivery.delivery_id} has no request")
            case _:
                assert_never(request)

    # ---- people --------------------------------------------------------------------------------------------------

    async def _why_not(self, repo: Repo, request: Person) -> str:
        """Why this person may not ask for this; empty if they may."""
        if request.right == "none":
            return ""
        rights = self._rights.get(repo.forge)
        if rights is None or not (repo.api_token or repo.installation_id):
            return (
                f"nobody can be asked what {request.by} may do in {repo.name}: it has no API token "
                "(`deltaci repo set --api-token-file`) and no installation of our app"
            )
        has = await rights.right_of(repo, request.by)
        if is_enough(has, request.right):
            return ""
        return f"{request.by} has the right {has} in {repo.name}, and this takes {request.right}"

    async def _obey(self, repo: Repo, delivery: Delivery, request: Person) -> Deed:
        cause = Cause("user", request.by, via=repo.forge)
        match request:
            case RunAgain():
                return await self._run_again(repo, delivery, request, cause)
            case CancelRuns():
                if request.run_id:
                    await self._ours(repo, request.run_id)
                    ids: tuple[str, ...] = (request.run_id,)
                elif request.pr_number is not None:
                    ids = await self._ports.store.live_runs_of_pull_request(repo.id, request.pr_number)
                else:
                    ids = ()
                detail = f"canceled by {request.by}"
                return self._cancel(ids, delivery, EndReason.USER_CANCELED, detail, cause)
            case Approve():
                return await self._approve(repo, request, cause)

    async def _run_again(self, repo: Repo, delivery: Delivery, request: RunAgain, cause: Cause) -> Deed:
        ids = await self._meant(repo, request)
        if not ids:
            return _refused("there is no run of it yet")
        again, refusals = [], []
        for run_id in ids:
            key = f"delivery:{repo.id}:{delivery.delivery_id}:{run_id}"
            message = Rerun(
                run_id=run_id,
                is_failed_only=request.is_failed_only,
                job_id=request.job_id,
                cause=cause,
                reply_key=key,
                request_sha256=sha256_of([key, request]),
            )
            answer = await self._ask(paths.repo_path(repo.id), message)
            if isinstance(answer, Refusal):
                refusals.append(answer.text)
            else:
                assert isinstance(answer, Reply), answer
                again.append(msgspec.json.decode(answer.body)["run_id"])
        if not again:
            return _refused("; ".join(refusals))
        return Deed("; ".join([f"runs again as {', '.join(again)}", *refusals]))

    async def _meant(self, repo: Repo, request: RunAgain) -> tuple[str, ...]:
        """The runs that are to run again; raises `NotFound` for one that is none of this repository's."""
        store = self._ports.store
        run_id = request.run_id or (run_of(request.job_id) or "" if request.job_id else "")
        if run_id:
            await self._ours(repo, run_id)
            return (run_id,)
        if request.pr_number is not None:
            known = await store.pull_request(repo.id, request.pr_number)
            if known is None:
                raise NotFound(f"pull request {request.pr_number} is not known yet")
            found = await store.newest_runs_of_commit(repo.id, known.head_sha)
            return tuple(run.id for run in found if run.key.pr_number == request.pr_number)
        found = await store.newest_runs_of_commit(repo.id, request.commit_sha)
        # One that gave way to another run of the same commit would only be that one once more.
        lasting = [run for run in found if run.end_reason not in PASSED]
        return tuple(run.id for run in lasting or found)

    async def _ours(self, repo: Repo, run_id: str) -> None:
        """Raise `NotFound` unless the run is one of this repository: its forge names runs as it likes."""
        run = await self._ports.store.load_run(run_id)
        if run is None or run.key.repo_id != repo.id:
            raise NotFound(f"{repo.name} has no run {run_id[:100]!r}")

    async def _approve(self, repo: Repo, request: Approve, cause: Cause) -> Deed:
        run = await held_run(self._ports.store, repo, request)
        if isinstance(run, str):
            return _refused(run)
        answer = await self._ask(paths.run_path(run.id), DoRun(command=runs.Approve(by=request.by), cause=cause))
        return _refused(answer.text) if isinstance(answer, Refusal) else Deed(approved(run, request.by))

    # ---- ends ----------------------------------------------------------------------------------------------------

    async def _end_stream(self, repo: Repo, delivery: Delivery, request: EndStream) -> Deed:
        store, number = self._ports.store, number_of(request.stream)
        cause = Cause("webhook", delivery.delivery_id, via=repo.forge)
        if number is None:
            ids = await store.live_runs_of_stream(repo.id, request.stream)
        else:
            known = await store.pull_request(repo.id, number)
            if known is not None and known.is_open:
                return Deed(f"nothing is canceled: pull request {number} is open again")
            ids = await store.live_runs_of_pull_request(repo.id, number)
        return self._cancel(ids, delivery, EndReason.CLOSED, request.because, cause)

    def _cancel(self, ids: Sequence[str], delivery: Delivery, reason: EndReason, detail: str, cause: Cause) -> Deed:
        """Owe the cancel of each of these runs that was there when the delivery came."""
        wanted = [run_id for run_id in ids if made_at_ms(run_id) <= delivery.received_at_ms]
        if not wanted:
            return Deed("nothing is canceled: nothing runs")
        now_ms = self._ports.clock.now_ms()
        owed = [Owe(effect=CancelRun(run_id, reason, detail, cause), due_at_ms=now_ms) for run_id in wanted]
        return Deed(f"canceled {', '.join(wanted)}", owed)

    # ---- repositories --------------------------------------------------------------------------------------------

    async def _rename(self, repo: Repo, delivery: Delivery, request: RenameRepo) -> Deed:
        changes = {"name": request.name} | ({"clone_url": request.clone_url} if request.clone_url else {})
        message = Alter(
            changes=changes,
            what="RepoRenamed",
            details={"from": repo.name, **changes},
            cause=Cause("webhook", delivery.delivery_id, via=repo.forge),
            delivery_id=delivery.delivery_id,
            outcome=f"{repo.name} is called {request.name} now",
        )
        await self._ask(paths.repo_path(repo.id), message)
        return Deed(None)

    async def _remove(self, repo: Repo, delivery: Delivery, because: str) -> Deed:
        cause = Cause("webhook", delivery.delivery_id, via=repo.forge)
        outcome = f"{repo.name} is built no more, and what ran of it is canceled"
        message = removal(repo, because, cause, delivery_id=delivery.delivery_id, outcome=outcome)
        await self._ask(paths.repo_path(repo.id), message)
        return Deed(None)

    async def _add(self, delivery: Delivery, request: AddRepos) -> Deed:
        """Register what is new, take back what an earlier installation lost, leave alone what is there."""
        known = {repo.name.casefold(): repo for repo in self._ports.repos()}
        cause, now_ms = Cause("webhook", delivery.delivery_id, via=APP_FORGE), self._ports.clock.now_ms()
        writes: list[Write] = []
        added: list[str] = []
        back: list[str] = []
        for there in self._ports.repos() if not request.repos else ():
            # All that it had: an installation that was suspended goes on.
            if there.installation_id == request.installation_id and there.removed_because not in ("", SOMEBODY):
                await self._ask(paths.repo_path(there.id), _return(there, request.installation_id, cause))
                back.append(there.name)
        for installed in request.repos:
            former = known.get(installed.name.casefold())
            if former is not None:
                if former.installation_id and former.removed_because not in ("", SOMEBODY):
                    await self._ask(paths.repo_path(former.id), _return(former, request.installation_id, cause))
                    back.append(former.name)
                continue
            repo = self._installed(installed.name, request.installation_id, now_ms)
            known[repo.name.casefold()] = repo
            details = {"name": repo.name, "installation_id": str(request.installation_id)}
            audit = Audit(at_ms=now_ms, cause=cause, type="RepoAdded", entity_id=repo.id, details=details)
            writes += [SaveRepo(repo=repo), audit]
            added.append(repo.name)
        parts = [f"registered {', '.join(added) or 'nothing new'}"]
        if back:
            parts.append(f"built again: {', '.join(back)}")
        return Deed("; ".join(parts), writes)

    def _installed(self, name: str, installation_id: int, now_ms: int) -> Repo:
        token_bytes = self._ports.entropy.token_bytes
        return Repo(
            id=new_id("repo", now_ms=now_ms, random=token_bytes(RANDOM_BYTES)),
            name=name,
            forge=APP_FORGE,
            clone_url=f"{self._app_home.web_url.rstrip('/')}/{name}.git",
            secret=token_bytes(SECRET_BYTES).hex(),
            created_at_ms=now_ms,
            report_to=self._app_home.api_url,
            installation_id=installation_id,
        )

    async def _remove_several(self, delivery: Delivery, request: RemoveRepos) -> Deed:
        names = None if request.names is None else {name.casefold() for name in request.names}
        cause = Cause("webhook", delivery.delivery_id, via=APP_FORGE)
        removed = []
        for repo in self._ports.repos():
            is_meant = repo.installation_id == request.installation_id and repo.forge == APP_FORGE
            if is_meant and not repo.removed_because and (names is None or repo.name.casefold() in names):
                await self._ask(paths.repo_path(repo.id), removal(repo, request.because, cause))
                removed.append(repo.name)
        return Deed(f"built no more: {', '.join(removed) or 'nothing that we knew'}")


def removal(repo: Repo, because: str, cause: Cause, *, delivery_id: str = "", outcome: str = "") -> Alter:
    """What makes a repository no longer ours to build; its history stays."""
    return Alter(
        changes={"removed_because": repo.removed_because or because},
        what="RepoRemoved",
        details={"name": repo.name, "because": because},
        cause=cause,
        delivery_id=delivery_id,
        outcome=outcome,
    )


def _return(repo: Repo, installation_id: int, cause: Cause) -> Alter:
    """What makes a repository ours to build again, in another installation perhaps."""
    return Alter(
        changes={"removed_because": "", "installation_id": installation_id},
        what="RepoReturned",
        details={"name": repo.name, "installation_id": str(installation_id)},
        cause=cause,
    )


def _refused(why: str) -> Deed:
    return Deed(f"{REFUSED}{why}"[:2_000])
