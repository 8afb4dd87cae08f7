"""The only file that knows every room: it builds the parts and joins them at their ports."""

import os
import random
import secrets
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import anyio
import loguru
from loguru import logger

from deltaci.analyzer.analyzer import LogAnalyzer, secrets_of
from deltaci.analyzer.sanitizer import Sanitizer
from deltaci.domain.clock import Clock
from deltaci.domain.events import SYSTEM
from deltaci.domain.ids import hashed, new_id
from deltaci.domain.plan import Plan
from deltaci.domain.recipe import has_a_say
from deltaci.domain.repo import Repo
from deltaci.domain.run import Run
from deltaci.forge.api import ForgeApi
from deltaci.forge.budget import WriteBudget
from deltaci.forge.client import ForgeClient, http_client
from deltaci.forge.clone import CloneCredentials
from deltaci.forge.git import GitResults, PlainGit
from deltaci.forge.gitea_api import GiteaApi
from deltaci.forge.gitea_webhooks import Gitea
from deltaci.forge.github_access import GitHubAccess
from deltaci.forge.github_api import GitHubApi
from deltaci.forge.github_app import GitHubApp, load_private_key
from deltaci.forge.github_webhooks import GitHub
from deltaci.forge.gitlab_api import GitLabApi
from deltaci.forge.gitlab_webhooks import GitLab
from deltaci.forge.settings import webhook_secrets
from deltaci.forge.webhook import WebhookForge
from deltaci.gateway.house import House
from deltaci.metrics import ActorTelemetry, Telemetry
from deltaci.notifier.channels import load as load_channels
from deltaci.notifier.notifier import RunNotifier
from deltaci.orchestrator.orchestrator import running
from deltaci.orchestrator.ports import AppHome, Policy
from deltaci.planner.advisor import Advisor, HttpAdvisor, advised
from deltaci.planner.occasion import Occasion
from deltaci.planner.remote import AtForge
from deltaci.planner.service import RepositoryPlanner
from deltaci.reporter.checks import CheckResults, GitHubResults
from deltaci.reporter.comment import Comments
from deltaci.reporter.kept_reports import ArtifactReports
from deltaci.reporter.ports import ResultsPort
from deltaci.reporter.reporter import StatusReporter
from deltaci.reporter.results import GitDocuments, StatusResults
from deltaci.settings import Settings
from deltaci.store import directory
from deltaci.store.artifacts import ArtifactFiles
from deltaci.store.port import Store
from deltaci.store.space import DiskSpace
from deltaci.store.sqlite import SqliteStore
from deltaci.store.writes import Audit, Hasten, Token

ADMIN_TOKEN_FILE: Final = directory.ADMIN_TOKEN_FILE
DATABASE_FILE: Final = directory.DATABASE_FILE

NS_PER_MS: Final = 1_000_000
# What clocks differ by anyway is not worth a word
AHEAD_TOLD_MS: Final = 5_000


class SystemClock:
    """Wall time taken at the start, carried on by the monotonic clock: a jump of the wall clock moves nothing.

    It begins at `not_before_ms` or later: set back between two lives, it would make a newer run older than its
    predecessors, and deadlines that were stored before would be hours away. `ahead_ms` is how much that takes.
    """

    def __init__(self, *, not_before_ms: int = 0) -> None:
        wall_ns = time.time_ns()
        self.ahead_ms = max(0, not_before_ms - wall_ns // NS_PER_MS)
        self._offset_ns = wall_ns + self.ahead_ms * NS_PER_MS - time.monotonic_ns()

    def now_ms(self) -> int:
        """Milliseconds since the Unix epoch, UTC."""
        return (time.monotonic_ns() + self._offset_ns) // NS_PER_MS


class SystemEntropy:
    """Random bits of the operating system."""

    def token_bytes(self, count: int) -> bytes:
        """`count` random bytes."""
        return secrets.token_bytes(count)


def make_token() -> str:
    """A bearer token: 256 random bits, marked so that a leak can be recognised."""
    return f"dci_{secrets.token_urlsafe(32)}"


class PlannerPort:
    """The orchestrator's planner, on top of the room that reads repositories."""

    def __init__(
        self,
        planner: RepositoryPlanner,
        store: Store,
        advisor: Advisor | None,
        advisor_ms: int,
        *,
        apis: Mapping[str, ForgeApi],
    ) -> None:
        self._planner = planner
        self._store = store
        self._apis = apis
        self._credentials = CloneCredentials(apis)
        self._advisor = advisor
        self._advisor_ms = advisor_ms

    async def plan(self, run: Run, repo: Repo) -> Plan:
        """The plan for the run's trigger; raises `PlanFailed`."""
        trigger, api = run.trigger, self._apis.get(repo.forge)
        plan = await self._planner.plan(
            repo_id=repo.id,
            clone_url=repo.clone_url,
            commit_sha=trigger.commit_sha,
            ref=trigger.ref,
            base_sha=trigger.base_sha,
            base_ref=trigger.base_ref or None,
            is_pull_request=trigger.kind == "pull_request",
            is_trusted=not trigger.is_fork,
            authorize=partial(self._credentials.authorization, repo),
            at_forge=None if api is None else AtForge(api, repo),
            recipe=next(iter(await self._store.recipes(repo.id)), None),
            has_a_say=has_a_say(trigger, repo),
            occasion=Occasion(kind=trigger.kind, ref=trigger.ref, labels=trigger.labels),
        )
        return await advised(plan, self._advisor, within_ms=self._advisor_ms)


def webhook_forges(app_secrets: Sequence[str] = (), *, app_id: str = "") -> Mapping[str, WebhookForge]:
    """Who reads the webhooks that come to each address; what Forgejo sends is what Gitea sends, by one more name.

    Args:
        app_secrets, app_id: of the GitHub App, as for `GitHub`.
    """
    gitea, github = Gitea(), GitHub(app_secrets, app_id=app_id)
    return {"git": PlainGit(), "github": github, "gitlab": GitLab(), "gitea": gitea, "forgejo": gitea}


@asynccontextmanager
async def opened(data: Path, settings: Settings, *, base_url: str) -> AsyncIterator[House]:
    """The whole house on the data directory `data`, everything that was under way going on. Leaving it closes it."""
    directory.prepare(data)
    entropy = SystemEntropy()
    forges = webhook_forges(webhook_secrets(settings.github), app_id=str(settings.github.app_id or ""))
    channels = load_channels(settings.notifications)
    telemetry, space = Telemetry(), DiskSpace(data, settings.policy.disk_reserve_bytes)
    async with (
        SqliteStore.open(data / DATABASE_FILE) as store,
        http_client(settings.http) as client,
        AsyncExitStack() as leaving,
    ):
        clock = await _go_on(store, settings.policy)
        await _ensure_admin_token(store, data, clock)
        jitter = random.Random(secrets.randbits(64))  # noqa: S311 - no secret
        forge_client, budget = ForgeClient(client, clock, jitter, observer=telemetry), WriteBudget()
        apis = forge_apis(forge_client, clock, settings, budget)
        results: dict[str, ResultsPort] = {
            "git": GitDocuments(GitResults(forge_client)),
            **{name: results_of(api, settings.comments) for name, api in apis.items()},
        }
        artifacts = ArtifactFiles(data / directory.ARTIFACTS, has_room=space.has_room)
        reporter = StatusReporter(
            store,
            results,
            base_url=settings.public_url or base_url,
            clock=clock,
            budget=budget,
            reports=ArtifactReports(store, artifacts, lambda repo: Sanitizer(secrets_of(repo)).clean),
        )
        notifier = RunNotifier(store, channels, base_url=settings.public_url or base_url, clock=clock)
        repositories = RepositoryPlanner(
            data,
            bounds=settings.planner,
            protocols=settings.allow_git_protocols,
            jobs_max=settings.policy.jobs_max,
        )
        leaving.callback(repositories.close)
        advisor = HttpAdvisor(client, settings.advisor_url) if settings.advisor_url else None
        planner = PlannerPort(repositories, store, advisor, settings.advisor_ms, apis=apis)
        async with running(
            store,
            clock=clock,
            entropy=entropy,
            rng=jitter,
            policy=settings.policy,
            planner=planner,
            analyzer=LogAnalyzer(store),
            reporter=reporter,
            notifier=notifier,
            observer=telemetry,
            actor_observer=ActorTelemetry(telemetry),
            uptime_s=time.monotonic,
            has_room=space.has_room,
            credentials=CloneCredentials(apis),
            rights=apis,
            forges=apis,
            app_home=AppHome(web_url=settings.github.web_url, api_url=settings.github.api_url),
        ) as orchestrator:
            telemetry.store, telemetry.hub, telemetry.system = store, orchestrator.hub, orchestrator.system
            yield House(
                orchestrator=orchestrator,
                store=store,
                forges=forges,
                artifacts=artifacts,
                metrics=telemetry,
                limits=settings.limits,
                make_token=make_token,
                draining=anyio.Event(),
                apis=apis,
                public_url=settings.public_url,
                secret_files=secret_files(settings),
            )


def secret_files(settings: Settings) -> dict[str, str]:
    """The files of secrets that the settings name, by setting."""
    named = {
        "notifications.channels_file": settings.notifications.channels_file,
        "github.private_key_file": settings.github.private_key_file,
        "github.webhook_secret_file": settings.github.webhook_secret_file,
    }
    return {setting: file for setting, file in named.items() if file}


def results_of(api: ForgeApi, comments: Comments) -> ResultsPort:
    """How a forge is told of runs: with checks where they can be had, otherwise with statuses."""
    if not isinstance(api, GitHubApi):
        return StatusResults(api, comments_api=api, comments=comments)
    statuses = StatusResults(api, account=api.account, comments_api=api, comments=comments)
    return GitHubResults(CheckResults(api, comments=comments), statuses, api.is_app)


def forge_apis(
    client: ForgeClient, clock: Clock, settings: Settings, budget: WriteBudget | None = None
) -> dict[str, ForgeApi]:
    """What forges are asked through, by `Repo.forge`; raises `ConfigError` if a file of secrets cannot be used.

    `budget`: what may be written to GitHub, counted there.
    """
    github = settings.github
    app = None
    if github.app_id:
        key = load_private_key(Path(github.private_key_file), setting="github.private_key_file")
        app = GitHubApp(client, clock, api_url=github.api_url, client_id=str(github.app_id), private_key=key)
    access = GitHubAccess(
        client, clock, api_url=github.api_url, web_url=github.web_url, app=app, budget=budget or WriteBudget()
    )
    # Without a public address nobody knows under which one a forge calls us: then its path has to do.
    here = settings.public_url.rstrip("/")
    return {
        "github": GitHubApi(access, hook_url=here and f"{here}/api/v1/webhooks/github"),
        "gitlab": GitLabApi(
            client, web_url=settings.gitlab.web_url, hook_url=here and f"{here}/api/v1/webhooks/gitlab"
        ),
        "gitea": GiteaApi(client, web_url=settings.gitea.web_url, hook_url=here and f"{here}/api/v1/webhooks/gitea"),
    }


async def _go_on(store: Store, policy: Policy) -> SystemClock:
    """The clock of this life, no earlier than what is stored, and no debt put off to an hour of another clock."""
    clock = SystemClock(not_before_ms=await store.newest_at_ms())
    if clock.ahead_ms >= AHEAD_TOLD_MS:
        logger.warning(
            "the wall clock is {} s behind what is stored: times go on from there, and are ahead by as much until a "
            "start after the wall clock has caught up",
            clock.ahead_ms // 1000,
        )
    await store.commit((Hasten(latest_at_ms=clock.now_ms() + policy.effect_retry_max_ms),))
    return clock


async def _ensure_admin_token(store: Store, data: Path, clock: SystemClock) -> None:
    """The file holds a token that the store knows: made at the first start, and again if the file was removed."""
    file = data / ADMIN_TOKEN_FILE
    if file.exists() and await store.token(hashed(file.read_text(encoding="utf-8").strip())) is not None:
        return
    secret, now_ms = make_token(), clock.now_ms()
    token = Token(
        id=new_id("tok", now_ms=now_ms, random=secrets.token_bytes(7)),
        token_hash=hashed(secret),
        scope="admin",
        label="admin",
        created_at_ms=now_ms,
    )
    audit = Audit(at_ms=now_ms, cause=SYSTEM, type="AdminTokenCreated", entity_id=token.id)
    await store.commit((token, audit))
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.fchmod(descriptor, 0o600)  # a file that is there already keeps its mode
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        stream.write(secret + "\n")


def configure_logs(settings: Settings) -> None:
    """Loguru to standard error, ids of run, job and attempt on every line that has them; text or JSON."""
    logger.remove()
    if settings.log_format == "json":
        logger.add(sys.stderr, level=settings.log_level, serialize=True, backtrace=False, diagnose=False)
        return
    logger.configure(patcher=_ids_on_the_line)
    logger.add(
        sys.stderr,
        level=settings.log_level,
        format="{time:YYYY-MM-DD HH:mm:ss.SSS} {level: <7} {extra[ids]}{message}",
        backtrace=False,
        diagnose=False,  # a traceback with values could show a secret
    )


def _ids_on_the_line(record: "loguru.Record") -> None:
    extra = record["extra"]
    shown = [f"{name}={extra[name]}" for name in ("run", "job", "attempt", "actor", "effect") if name in extra]
    extra["ids"] = " ".join(shown) + " " if shown else ""
