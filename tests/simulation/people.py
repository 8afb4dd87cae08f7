"""Who asks for things: forges that send webhooks, and users that start, cancel and run again.

Rule: each of them asks until there is a definite answer, and writes down what it was told.
"""

import zlib
from typing import Any, Final

import anyio

from deltaci.domain.errors import DuplicateKey
from deltaci.domain.events import Cause, Trigger
from deltaci.domain.pull_request import PullRequest
from deltaci.domain.repo import Repo
from deltaci.domain.requests import Approve, CancelRuns, EndStream, Request, RunAgain
from deltaci.invariants import Delivered, Replied
from deltaci.orchestrator.approval import approved, held_run
from deltaci.orchestrator.messages import Admit, Admitted
from deltaci.store.writes import Reply
from tests.simulation.network import Failed, Network, NoAnswer
from tests.simulation.world import EPOCH_MS, Asked, World, elapsed_ms

PATIENCE_S: Final = 10.0
STRANGERS: Final = ("", "mallory", "trudy", "eve")
BRANCHES: Final = ("main", "main", "next", "idea")
AGAIN: Final = ("NotFound", "DeliveryReused", "IdempotencyConflict")
COMMITS_KEPT: Final = 30
ASK_SHARE: Final = 0.3


def repos_of(world: World) -> list[Repo]:
    """The repositories of this world, with every kind of setting."""
    chance, approvals, one_run = world.rng("repos"), world.rng("approvals"), world.rng("one_run")
    found = []
    for number in range(world.parameters.repos):
        forge: Any = chance.choice(("git", "github"))
        name = f"team/shop{number}"
        found.append(
            Repo(
                id=f"repo_{number}",
                name=name,
                forge=forge,
                clone_url="file:///srv/shop.git",
                secret=secret_of(name),
                created_at_ms=EPOCH_MS,
                report_to=chance.choice(("", "https://results.example.org")),
                api_token=f"token-of-{secret_of(name)}" if forge == "github" else "",
                is_one_run_a_commit=one_run.random() < 0.3,
                is_superseding=chance.random() < 0.7,
                running_max=chance.choice((0, 0, 1, 3)),
                run_timeout_ms=chance.choice((600_000, 3_600_000, 6 * 3_600_000)),
                approval=approvals.choice(("none", "first_time", "forks", "forks")),
            )
        )
    world.approval.update((repo.id, repo.approval) for repo in found)
    world.secrets.extend(repo.secret.encode() for repo in found)
    world.secrets.extend(repo.api_token.encode() for repo in found if repo.api_token)
    return found


def secret_of(repo_name: str) -> str:
    """The webhook secret of a repository, as nobody would write it by chance."""
    return f"planted{zlib.crc32(repo_name.encode()):08x}secret"


class Person:
    """Somebody who asks the server for something until it is clear what came of it."""

    def __init__(self, world: World, network: Network, name: str) -> None:
        self.world = world
        self.network = network
        self.name = name
        self.chance = world.rng(name)

    async def insist(self, what: str, ask: Any) -> Any:
        """The definite answer: neither silence nor an error that is worth another try."""
        while True:
            answer = await self.network.ask(self.name, what, ask, within_s=PATIENCE_S)
            is_again = isinstance(answer, Failed) and not answer.error.startswith(AGAIN)
            if not is_again and not isinstance(answer, NoAnswer):
                return answer
            await anyio.sleep(self.world.after(2, "person_backoff"))


class Administrator(Person):
    """Adds the repositories."""

    async def add_all(self, repos: list[Repo]) -> None:
        """Until they are all there."""
        for repo in repos:
            await self.insist("add_repo", lambda house, repo=repo: self._add(house, repo))

    async def _add(self, house: Any, repo: Repo) -> str:
        try:
            await house.orchestrator.add_repo(repo, Cause("user", "tok_admin"))
        except DuplicateKey:
            house.orchestrator.repos.add(repo)
        return "added"


class Forge(Person):
    """Sends webhooks of one repository: pushes, pull requests, repeats of both, and things nobody asked for.

    Besides, what people and pull requests ask for: ends, new attempts, cancels.
    """

    def __init__(self, world: World, network: Network, repo: Repo) -> None:
        super().__init__(world, network, f"forge:{repo.id}")
        self.repo = repo
        self.asks = world.rng(f"asks:{repo.id}")
        self.sent: list[Admit] = []
        self.number = 0
        self.asked = 0

    async def run(self) -> None:
        """Until the world is healed."""
        async with anyio.create_task_group() as tasks:
            while not await self.world.until_healed(self._pause_s()):
                for _ in range(self.chance.randint(1, self.world.parameters.burst)):
                    tasks.start_soon(self._deliver, self._next())
                if self.asks.random() < ASK_SHARE:
                    request = self._request()
                    for _ in range(self.asks.choice((1, 1, 2))):
                        tasks.start_soon(self._deliver_late, request)

    async def _deliver_late(self, message: Admit) -> None:
        await anyio.sleep(self.asks.choice((0, 0, 1, 20)))
        await self._deliver(message)

    def _pause_s(self) -> float:
        parameters = self.world.parameters
        return self.world.after(parameters.push_every_s * (parameters.burst + 1) / 2, "push")

    def _next(self) -> Admit:
        chance = self.chance
        self.number += 1
        delivery_id = f"d{self.repo.id}-{self.number}"
        if self.sent and chance.random() < 0.15:
            again = chance.choice(self.sent)
            if chance.random() < 1 / 2:
                return again  # the same delivery
            return Admit(
                delivery_id=delivery_id,  # the same content under another id
                body_sha256=again.body_sha256,
                event=again.event,
                trigger=again.trigger,
                request=again.request,
                ignored=again.ignored,
                pull_request=again.pull_request,
            )
        trigger, ignored = self._trigger(), None
        if chance.random() < 0.05:
            trigger, ignored = None, "nobody asked for this event"
        message = Admit(
            delivery_id=delivery_id,
            body_sha256=f"{self.number:064x}",
            event="push" if trigger is None else trigger.kind,
            trigger=trigger,
            ignored=ignored,
            pull_request=None
            if trigger is None
            else self._told(trigger.pr_number, trigger.commit_sha, trigger.is_fork),
        )
        if len(self.sent) >= COMMITS_KEPT:
            self.sent.pop(0)
        self.sent.append(message)
        return message

    def _trigger(self) -> Trigger | None:
        chance = self.chance
        earlier = [one.trigger for one in self.sent if one.trigger is not None]
        # Now and then a branch goes back to a commit that it, or another branch, has had.
        sha = chance.choice(earlier).commit_sha if earlier and chance.random() < 0.1 else f"{self.number:040x}"
        if chance.random() < 0.3:
            number = chance.randint(1, 3)
            return Trigger(
                kind="pull_request",
                ref=f"refs/pull/{number}/head",
                commit_sha=sha,
                pr_number=number,
                stream=f"pr:{number}",
                is_fork=chance.random() < 0.3,
                author=self.world.rng(f"authors:{self.repo.id}").choice(STRANGERS),
            )
        branch = chance.choice(BRANCHES)
        return Trigger(kind="push", ref=f"refs/heads/{branch}", commit_sha=sha, stream=f"branch:{branch}")

    def _told(self, number: int | None, sha: str, is_fork: bool, *, is_open: bool = True) -> PullRequest | None:
        if number is None:
            return None
        return PullRequest(
            repo_id=self.repo.id,
            number=number,
            head_sha=sha,
            head_ref=f"refs/heads/{BRANCHES[number]}",
            base_ref="refs/heads/main",
            base_sha="0" * 40,
            is_open=is_open,
            is_fork=is_fork,
            updated_at_ms=self.number * 10 + (not is_open),
        )

    def _request(self) -> Admit:
        """An end of a pull request or branch, a new attempt, or a cancel, by somebody who may or may not."""
        chance, pull_request = self.asks, None
        self.asked += 1
        by, number = chance.choice(("ada", "ada", "bob")), chance.randint(1, 3)
        run_id = chance.choice(self.world.known_runs[-12:]) if self.world.known_runs else "run_none"
        request: Request
        match chance.choice(("closed", "closed", "deleted", "again", "again", "cancel")):
            case "closed":
                request = EndStream(stream=f"pr:{number}", because=f"pull request {number} was closed")
                pull_request = self._told(number, f"{self.number:040x}", False, is_open=False)
            case "deleted":
                branch = chance.choice(BRANCHES)
                request = EndStream(stream=f"branch:{branch}", because=f"{branch} was deleted")
            case "again" if chance.random() < 1 / 2:
                request = RunAgain(by=by, right="write", run_id=run_id, is_failed_only=chance.random() < 1 / 2)
            case "again":
                request = RunAgain(by=by, right="write", pr_number=number)
            case _:
                request = CancelRuns(by=by, right="write", pr_number=number)
        return Admit(
            delivery_id=f"a{self.repo.id}-{self.asked}",
            body_sha256=f"a{self.asked:063x}",
            event="asked",
            request=request,
            pull_request=pull_request,
        )

    async def _deliver(self, message: Admit) -> None:
        repo_id = self.repo.id
        answer = await self.insist("webhook", lambda house: house.orchestrator.admit(repo_id, message))
        if not isinstance(answer, Admitted):
            self.world.broken("delivery", f"delivery {message.delivery_id} was refused for good: {answer}", repo_id)
            return
        self.world.counts["webhooks"] += 1
        self.world.history.append(
            Delivered(
                at_ms=elapsed_ms(),
                repo_id=repo_id,
                delivery_id=message.delivery_id,
                body_sha256=message.body_sha256,
                run_id=answer.run_id,
                ignored=answer.ignored,
                accepted=answer.accepted,
            )
        )
        if answer.run_id is not None:
            self.world.known_runs.append(answer.run_id)
            if message.trigger is not None and message.trigger.is_fork:
                self.world.fork_pushes.append((repo_id, message.trigger, answer.run_id))


class Maintainer(Person):
    """Lets code of strangers run: by a comment, which may arrive late or twice, by its commit, or by the run's id."""

    def __init__(self, world: World, network: Network, number: int, repos: list[Repo]) -> None:
        super().__init__(world, network, f"maintainer{number}")
        self.repos = {repo.id: repo for repo in repos}
        self.asked: list[Any] = []
        self.number = 0

    async def run(self) -> None:
        """Until the world is healed."""
        async with anyio.create_task_group() as tasks:
            while not await self.world.until_healed(self.world.after(self.world.parameters.approve_every_s, self.name)):
                if not self.world.fork_pushes:
                    continue
                if not self.asked or self.chance.random() < 0.8:
                    self.asked.append(self._next())
                tasks.start_soon(self._ask, self.chance.choice(self.asked[-4:]))

    async def _ask(self, ask: Any) -> None:
        if self.chance.random() < 1 / 3:  # somebody pushes while it is on its way
            await anyio.sleep(self.world.after(self.world.parameters.push_every_s, f"{self.name}:late"))
        answer = await self.insist("approve", ask)
        self.world.counts[f"approve:{type(answer).__name__}"] += 1

    def _next(self) -> Any:
        self.number += 1
        chance, by = self.chance, f"{self.name}-{self.number}"
        repo_id, trigger, run_id = chance.choice(self.world.fork_pushes[-6:])
        how = chance.choice(("comment", "comment", "commit", "run", "any run"))
        if how in ("run", "any run"):
            run_id = chance.choice(self.world.known_runs[-12:]) if how == "any run" else run_id
            self.world.approvals[by] = Asked(repo_id, run_id)
            return lambda house: house.orchestrator.approve_once(run_id, Cause("user", by), key=by)
        is_named = how == "commit"
        request = Approve(
            by=by,
            right="write",
            pr_number=trigger.pr_number or 0,
            commit_sha=trigger.commit_sha if is_named else "",
            at_ms=0 if is_named else self.world.clock.now_ms(),
        )
        asked = Asked(repo_id, pr_number=request.pr_number, commit_sha=request.commit_sha, at_ms=request.at_ms)
        self.world.approvals[by] = asked
        return lambda house: self._approve(house, self.repos[repo_id], request)

    async def _approve(self, house: Any, repo: Repo, request: Approve) -> str:
        run = await held_run(house.orchestrator.ports.store, repo, request)
        if isinstance(run, str):
            return run
        await house.orchestrator.approve(run.id, Cause("user", request.by, via=repo.forge))
        return approved(run, request.by)


class User(Person):
    """Starts, cancels and runs again, under idempotency keys that are used more than once."""

    def __init__(self, world: World, network: Network, number: int, repos: list[Repo]) -> None:
        super().__init__(world, network, f"user{number}")
        self.repos = repos
        self.asked: list[tuple[str, str, Any]] = []
        self.number = 0

    async def run(self) -> None:
        """Until the world is healed."""
        while not await self.world.until_healed(self.world.after(self.world.parameters.user_acts_every_s, "user")):
            if self.asked and self.chance.random() < 0.2:
                key, what, ask = self.chance.choice(self.asked)
            else:
                key, what, ask = self._next()
            if not what:
                continue
            answer = await self.insist(what, ask)
            self.world.counts[f"user:{what}:{type(answer).__name__}"] += 1
            if isinstance(answer, Reply):
                self._note(key, answer)

    def _next(self) -> tuple[str, str, Any]:
        self.number += 1
        key = f"{self.name}-{self.number}"
        cause = Cause("user", self.name)
        chance = self.chance
        what = chance.choice(("cancel", "cancel", "rerun", "start"))
        runs = self.world.known_runs
        if what == "start":
            repo = chance.choice(self.repos)
            trigger = Trigger(
                kind="manual", ref="refs/heads/main", commit_sha=f"{chance.randint(1, 50):040x}", stream=""
            )
            asked = (
                key,
                what,
                lambda house: house.orchestrator.start_run(repo.id, trigger, cause, key=key),
            )
        elif not runs:
            return key, "", None
        else:
            run_id = chance.choice(runs[-12:])
            is_failed_only = chance.random() < 1 / 2
            asked = (
                key,
                what,
                (lambda house: house.orchestrator.cancel_once(run_id, cause, key=key))
                if what == "cancel"
                else (lambda house: house.orchestrator.rerun(run_id, cause, is_failed_only=is_failed_only, key=key)),
            )
        self.asked.append(asked)
        return asked

    def _note(self, key: str, reply: Reply) -> None:
        self.world.history.append(Replied(at_ms=elapsed_ms(), key=key, http_status=reply.http_status, body=reply.body))
