"""A look at a forge, for what its webhooks did not tell: heads without a run, ends, deliveries that never arrived.

Rule 1: what is found is admitted by the repository's own actor, as a delivery: it decides as it does for a webhook.
Rule 2: what was noted of a look is stored after what it found was admitted: a crash between the two looks again.
Rule 3: a look takes time, and webhooks arrive meanwhile: what is known to be newer is left to the next one.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Protocol, TypeAlias

from loguru import logger

from deltaci.domain.ids import made_at_ms
from deltaci.domain.missed import Known, Look, Missed, RemoteDelivery, asked_for, missed, to_ask_again
from deltaci.domain.pull_request import PullRequest, newer
from deltaci.domain.repo import Repo
from deltaci.orchestrator import paths
from deltaci.orchestrator.beats import sha256_of
from deltaci.orchestrator.messages import Admit
from deltaci.orchestrator.ports import Ports
from deltaci.store.writes import SavePullRequest, SaveRemoteId, Write

# Under which keys it is noted what is dealt with, and that there was a look at all.
HEAD: Final = "head:"
LOOKED: Final = "looked"
EVENT: Final = "look"
# GitHub keeps its list of deliveries for three days.
LISTED_MS: Final = 3 * 86_400_000
# Pull requests that are no longer open and are asked about in one look; the others wait for the next.
GONE_MAX: Final = 100

Ask: TypeAlias = Callable[[str, Any], Awaitable[Any]]


class Heads(Protocol):
    """What is open at one kind of forge; every call raises `ForgeUnavailable` or `ForgeRejected`."""

    async def pull_request(self, repo: Repo, number: int) -> PullRequest | None:
        """A pull request as it is now; None if there is no such one."""
        ...

    async def open_pull_requests(self, repo: Repo) -> tuple[PullRequest, ...]:
        """All that are open now."""
        ...

    async def branch_heads(self, repo: Repo, patterns: Sequence[str]) -> Mapping[str, str]:
        """The commits of the branches that match a glob, by full ref name."""
        ...


class Sent(Protocol):
    """A forge that remembers what it sent; calls raise as those of `Heads`."""

    async def deliveries(self, repo: Repo | None, since_ms: int) -> tuple[RemoteDelivery, ...]:
        """What was sent since then: to the hook of a repository, or to that of our app."""
        ...

    async def redeliver(self, repo: Repo | None, delivery_id: int) -> None:
        """Have it sent again under the same id."""
        ...


class Watch:
    """Looks, admits what was missed, asks again for what never arrived."""

    def __init__(self, ports: Ports, ask: Ask) -> None:
        """`ask` sends a message to the actor at a path and raises what it answers with."""
        self._ports = ports
        self._ask = ask

    async def look(self, repo: Repo, forge: Heads) -> int:
        """Compare the heads of a repository with what is known; how much was missed.

        Raises what the forge, the store and the repository's actor raise; then it is looked at again.
        """
        store, began_ms = self._ports.store, self._ports.clock.now_ms()
        stored = {one.number: one for one in await store.open_pull_requests(repo.id)}
        noted = await store.remote_ids(repo.id, HEAD)
        has_looked = await store.remote_id(repo.id, LOOKED) is not None
        look = await _seen(repo, forge, stored)
        latest = {key: await store.latest_run(key) for key in asked_for(repo, look)}
        known = Known(pull_requests=stored, heads=noted if has_looked else None)
        found = missed(repo, look, known, latest.get)
        overtaken: set[str] = set()
        for one in found.missed:
            if await self._is_overtaken(repo, one, began_ms):
                overtaken.add(_dealt_by(one))
            else:
                await self._admit(repo, one)
        dealt = {key: sha for key, sha in found.dealt.items() if key not in overtaken}
        dealt |= {key: "" for key in found.forget if key not in overtaken}
        writes: list[Write] = [
            SaveRemoteId(repo_id=repo.id, key=HEAD + key, remote_id=sha) for key, sha in dealt.items()
        ]
        kept = [newer(await store.pull_request(repo.id, told.number), told) for told in found.told]
        writes += [SavePullRequest(pull_request=now) for now in kept if now is not None]
        if not has_looked:
            writes.append(SaveRemoteId(repo_id=repo.id, key=LOOKED, remote_id=str(began_ms)))
        if writes:
            await store.commit(writes)
        return len(found.missed) - len(overtaken)

    async def ask_again(self, repo: Repo | None, forge: Sent, since_ms: int) -> int:
        """Have what is not in the ledger sent again; how much that was. Raises as `look`."""
        now_ms = self._ports.clock.now_ms()
        listed = await forge.deliveries(repo, max(since_ms, now_ms - LISTED_MS))
        known = await self._ports.store.known_deliveries(sorted({one.guid for one in listed}))
        settled_ms = self._ports.policy.forge_settled_ms  # what was sent more recently may be on its way
        again = to_ask_again(listed, known, now_ms=now_ms, settled_after_ms=settled_ms)
        for one in again:
            await forge.redeliver(repo, one.id)
            logger.info("asked for delivery {} ({}) again: it is not in the ledger", one.guid, one.event)
        return len(again)

    async def _admit(self, repo: Repo, one: Missed) -> None:
        message = Admit(
            delivery_id=sha256_of(one.delivery_id)[:32] if len(one.delivery_id) > 100 else one.delivery_id,
            body_sha256=sha256_of(one.delivery_id),
            event=EVENT,
            trigger=one.trigger,
            request=one.request,
            pull_request=one.pull_request,
        )
        answer = await self._ask(paths.repo_path(repo.id), message)
        self._ports.observer.missed("webhook")
        logger.info("a look at {} found what no webhook told: {}: {}", repo.name, one.delivery_id, answer)

    async def _is_overtaken(self, repo: Repo, one: Missed, began_ms: int) -> bool:
        """Whether a webhook told something newer of it since the look began."""
        store = self._ports.store
        if one.pull_request is not None:
            now = await store.pull_request(repo.id, one.pull_request.number)
            return now is not None and now.updated_at_ms > one.pull_request.updated_at_ms
        stream = one.trigger.stream if one.trigger is not None else ""
        live = await store.live_runs_of_stream(repo.id, stream) if stream else ()
        return any(made_at_ms(run_id) >= began_ms for run_id in live)


async def _seen(repo: Repo, forge: Heads, stored: Mapping[int, PullRequest]) -> Look:
    pull_requests = await forge.open_pull_requests(repo)
    is_open = {one.number for one in pull_requests}
    lost = [number for number in sorted(stored) if number not in is_open][:GONE_MAX]
    return Look(
        pull_requests=pull_requests,
        gone={number: await forge.pull_request(repo, number) for number in lost},
        heads=await forge.branch_heads(repo, (repo.default_branch, *repo.watched)),
    )


def _dealt_by(one: Missed) -> str:
    """Under which key it is noted that this is dealt with."""
    if one.pull_request is not None:
        return f"pr:{one.pull_request.number}"
    if one.trigger is not None:
        return one.trigger.ref
    assert one.request is not None, "a missed delivery has a trigger or a request"
    return f"refs/heads/{getattr(one.request, 'stream', '').removeprefix('branch:')}"
