"""What only the wiring knows: the clock, who reads and who asks forges, and how a plan gets to a private repository."""

import random
import time
from pathlib import Path
from typing import get_args

import pytest

from deltaci.domain.errors import ConfigError
from deltaci.domain.repo import Forge, Repo
from deltaci.forge.api import Credential
from deltaci.forge.client import ForgeClient, http_client
from deltaci.forge.github_api import GitHubApi
from deltaci.forge.settings import GitHubSettings
from deltaci.metrics import Telemetry
from deltaci.planner.bounds import Bounds
from deltaci.planner.service import RepositoryPlanner
from deltaci.settings import Settings
from deltaci.store.memory import MemoryStore
from deltaci.wiring import PlannerPort, SystemClock, forge_apis, webhook_forges
from tests.builders import a_run
from tests.forge.certificates import app_key, pem_of
from tests.forge.hooks import a_repo
from tests.forge.private_git import HEADER, PASSWORD, USER, private_git
from tests.planner.git_api import GitApi
from tests.planner.repositories import Bare

HOUR_MS = 3_600_000


def test_the_clock_shows_the_wall_time_at_the_start_of_a_process() -> None:
    """Nothing stored is newer, so that there is no reason for anything else."""
    before_ms = time.time_ns() // 1_000_000

    clock = SystemClock(not_before_ms=before_ms - HOUR_MS)

    assert before_ms <= clock.now_ms() <= time.time_ns() // 1_000_000
    assert clock.ahead_ms == 0


def test_the_clock_goes_on_from_what_is_stored_when_the_wall_clock_was_set_back() -> None:
    """Else the next run would be older than the last one, and every stored deadline hours away."""
    newest_ms = time.time_ns() // 1_000_000 + 5 * HOUR_MS

    clock = SystemClock(not_before_ms=newest_ms)

    assert newest_ms <= clock.now_ms() < newest_ms + HOUR_MS
    assert 4 * HOUR_MS < clock.ahead_ms <= 5 * HOUR_MS


class PrivateApi(GitApi):
    """It knows what to clone with."""

    async def credential(self, repo: Repo) -> Credential:
        return Credential(username=USER, password=PASSWORD)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.slow
@pytest.mark.anyio
@pytest.mark.parametrize("source", ["clone", "api"])
async def test_a_private_repository_is_planned(tmp_path: Path, source: str) -> None:
    """From a clone with the credential of its forge, or through its API without a clone."""
    origin = Bare(tmp_path / "served" / "r.git")
    head = origin.commit({"go.mod": "module x\n", "a.go": "package x\n"})
    planner = RepositoryPlanner(tmp_path / "data", bounds=Bounds(source=source), protocols="http")  # type: ignore[arg-type]
    apis = {"github": PrivateApi(origin.path)}
    port = PlannerPort(planner, MemoryStore(), None, 1, apis=apis)  # type: ignore[arg-type]
    try:
        with private_git(tmp_path / "served") as server:
            repo = Repo(
                id="r", name="o/r", forge="github", clone_url=f"{server.url}/r.git", secret="s", created_at_ms=1
            )
            plan = await port.plan(a_run(commit_sha=head), repo)
    finally:
        planner.close()

    assert [job.name for job in plan.jobs] == ["go-test"]
    assert set(server.authorizations) == ({HEADER} if source == "clone" else set())


@pytest.mark.anyio
async def test_settings_make_the_app_that_asks_github(tmp_path: Path) -> None:
    """With a key there are checks; a key that is not there is told at the start, not at the first report."""
    file, clock, telemetry = tmp_path / "app.pem", SystemClock(), Telemetry()
    with_app = Settings(github=GitHubSettings(app_id=5, private_key_file=str(file)))
    async with http_client() as http:
        client = ForgeClient(http, clock, random.Random(1), observer=telemetry)
        with pytest.raises(ConfigError, match="private_key_file"):
            forge_apis(client, clock, with_app)
        file.write_bytes(pem_of(app_key()))
        made, without = forge_apis(client, clock, with_app), forge_apis(client, clock, Settings())

    assert set(made) == {"github", "gitlab", "gitea"}
    for apis, is_app in ((made, True), (without, False)):
        github = apis["github"]
        assert isinstance(github, GitHubApi)
        assert github.is_app(a_repo(installation_id=7)) is is_app


@pytest.mark.anyio
async def test_a_forge_that_is_left_alone_is_seen_in_the_metrics() -> None:
    """Somebody has to look, and this is where they look."""
    telemetry = Telemetry()
    telemetry.forge_asked("github.example", "failed")
    telemetry.forge_breaker("github.example", "open")

    shown = (await telemetry.render()).decode()

    assert 'deltaci_forge_left_alone{host="github.example"} 1.0' in shown
    assert 'deltaci_forge_requests_total{host="github.example",outcome="failed"} 1.0' in shown


def test_every_kind_of_repository_has_somebody_who_reads_its_webhooks() -> None:
    """A repository that can be registered and never heard of would be a trap; Forgejo speaks Gitea's language."""
    forges = webhook_forges()

    assert {name: forges[name].name for name in get_args(Forge)} == {name: name for name in get_args(Forge)}
    assert forges["forgejo"] is forges["gitea"]
