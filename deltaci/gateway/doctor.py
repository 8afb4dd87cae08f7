"""`deltaci doctor`: looks at the server, its repositories and their forges, and says what is missing.

Rule: it changes nothing, and a forge that does not answer is a finding, not a failure.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec
from quart import Blueprint, Response, current_app, request

from deltaci.domain.effects import ActOnDelivery, AnalyzeAttempt, Effect
from deltaci.domain.errors import DeltaError, NotFound
from deltaci.domain.ids import run_of
from deltaci.domain.repo import Repo
from deltaci.forge.api import Finding
from deltaci.gateway import answers, diagnosis
from deltaci.gateway.auth import authenticate
from deltaci.gateway.diagnosis import RefusedWebhook
from deltaci.gateway.house import House
from deltaci.store.port import Owed

bp = Blueprint("doctor", __name__, url_prefix="/api/v1/doctor")

# Less than a client waits for an answer
WITHIN_S: Final = 20
FORGES_AT_ONCE: Final = 4
REPOS_MAX: Final = 50
# So far back the journal is read for webhooks that were refused
ENTRIES_MAX: Final = 5_000
DEBTS_MAX: Final = 500


@bp.get("")
async def doctor() -> Response:
    """`{"now_ms", "server": [findings], "repos": {name: [findings]}}`, of all repositories or of `?repo=`."""
    house: House = current_app.extensions["house"]
    await authenticate(request, house.store, "admin")
    name = request.args.get("repo")
    repos = house.orchestrator.repos.all()
    chosen = [repo for repo in repos if name in (None, repo.name, repo.id)]
    if name is not None and not chosen:
        raise NotFound(f"no repository {name[:100]!r}: `deltaci repo add` registers one")
    found = {repo.name: await _of_repo(house, repo) for repo in chosen[:REPOS_MAX]}
    await _ask_forges(house, chosen[:REPOS_MAX], found)
    server = await _of_server(house, repos, chosen if name is not None else None)
    if len(chosen) > REPOS_MAX:
        detail = f"the first {REPOS_MAX} of {len(chosen)} were looked at"
        server.append(Finding(what="repositories", is_good=False, detail=detail, advice="name one: --repo NAME"))
    views = {repo: _view(findings) for repo, findings in found.items()}
    return answers.ok({"now_ms": house.orchestrator.ports.clock.now_ms(), "server": _view(server), "repos": views})


def secret_modes(files: Mapping[str, str]) -> dict[str, int | None]:
    """The mode of each file, by setting; None for one that is not there."""
    modes: dict[str, int | None] = {}
    for setting, path in files.items():
        try:
            modes[setting] = Path(path).stat().st_mode
        except OSError:
            modes[setting] = None
    return modes


async def _of_server(house: House, repos: Sequence[Repo], chosen: Sequence[Repo] | None) -> list[Finding]:
    ports, store = house.orchestrator.ports, house.store
    now_ms = ports.clock.now_ms()
    found = [diagnosis.of_address(house.public_url, repos)]
    found += diagnosis.of_secret_files(secret_modes(house.secret_files))
    found.append(diagnosis.of_disk(ports.has_room(0), ports.policy.disk_reserve_bytes))
    try:
        entries = (await store.counts())["journal"]["entries"]
        online = [one.runner.labels for one in house.orchestrator.hub.online()]
        found += diagnosis.of_runners(online, await store.queued_jobs(), now_ms)
        debts = await _debts(house, chosen)
        found += diagnosis.of_debts(*debts)
        found += diagnosis.of_refused_webhooks(await _refused(house, max(0, entries - ENTRIES_MAX)), now_ms)
    except DeltaError as error:
        advice = "look into the server's log, and at its disk"
        return [*found, Finding(what="database", is_good=False, detail=str(error), advice=advice)]
    return [*found, Finding(what="database", is_good=True, detail=f"{entries} entries in the journal")]


async def _of_repo(house: House, repo: Repo) -> list[Finding]:
    newest = next(iter(await house.store.newest_deliveries(repo_id=repo.id, limit=1)), None)
    return list(
        diagnosis.of_repo(
            repo,
            None if newest is None else newest.delivery,
            is_reported=house.orchestrator.repos.is_reported(repo.id),
            now_ms=house.orchestrator.ports.clock.now_ms(),
        )
    )


async def _ask_forges(house: House, repos: Sequence[Repo], found: dict[str, list[Finding]]) -> None:
    """What the forges say of their repositories, a few at a time; those that take too long are left."""
    places, open_ = anyio.Semaphore(FORGES_AT_ONCE), {repo.name for repo in repos if repo.forge in house.apis}

    async def ask(repo: Repo) -> None:
        async with places:
            answer = await house.apis[repo.forge].examine(repo)
        found[repo.name] += answer
        open_.discard(repo.name)

    with anyio.move_on_after(WITHIN_S):
        async with anyio.create_task_group() as group:
            for repo in repos:
                if repo.name in open_:
                    group.start_soon(ask, repo)
    for name in open_:
        detail = f"no answer within {WITHIN_S} s"
        finding = Finding(what="forge", is_good=False, detail=detail, advice="ask for this one alone: --repo NAME")
        found[name].append(finding)


async def _debts(house: House, chosen: Sequence[Repo] | None) -> tuple[list[Owed], dict[str, str]]:
    """What is owed for the chosen repositories, or for all, and what each of it is about that did not work."""
    by_id = {repo.id: repo for repo in house.orchestrator.repos.all()}
    wanted = set(by_id) if chosen is None else {repo.id for repo in chosen}
    debts, names, looked = [], {}, 0
    for owed in reversed(await house.store.outbox()):
        is_told = owed.is_refused or owed.tries >= diagnosis.TRIES_MIN
        if is_told and looked < DEBTS_MAX:
            looked += 1
            repo_id = await _repo_of(house, owed.effect)
            if chosen is not None and repo_id not in wanted:
                continue
            repo = by_id.get(repo_id)
            names[owed.effect.key] = f"{owed.effect.key} of {repo.name}" if repo is not None else owed.effect.key
            debts.append(owed)
        elif not is_told and chosen is None:
            debts.append(owed)
    return debts[::-1], names


async def _repo_of(house: House, effect: Effect) -> str:
    if isinstance(effect, ActOnDelivery):
        return effect.repo_id
    run_id = run_of(effect.job_id) or "" if isinstance(effect, AnalyzeAttempt) else effect.run_id
    run = await house.store.load_run(run_id)
    return "" if run is None else run.key.repo_id


async def _refused(house: House, after_id: int) -> list[RefusedWebhook]:
    found = []
    async for entry in house.store.journal(after_id=after_id):
        if entry.type == "WebhookRefused":
            details: dict[str, Any] = msgspec.json.decode(entry.data)
            text = str(details.get("text", ""))
            found.append(RefusedWebhook(forge=entry.cause.via, sender=entry.cause.id, text=text, at_ms=entry.at_ms))
    return found


def _view(findings: Sequence[Finding]) -> Any:
    return [msgspec.structs.asdict(one) for one in findings]
