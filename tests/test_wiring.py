"""What only the wiring knows: the machine's clock, and how settings become what asks forges."""

import random
import time
from pathlib import Path

import pytest

from deltaci.domain.errors import ConfigError
from deltaci.forge.client import ForgeClient, http_client
from deltaci.forge.github_api import GitHubApi
from deltaci.forge.settings import GitHubSettings
from deltaci.metrics import Telemetry
from deltaci.settings import Settings
from deltaci.wiring import SystemClock, forge_apis
from tests.forge.certificates import app_key, pem_of
from tests.forge.hooks import a_repo

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


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
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
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_forge_that_is_left_alone_is_seen_in_the_metrics() -> None:
    """Somebody has to look, and this is where they look."""
    telemetry = Telemetry()
    telemetry.forge_asked("github.example", "failed")
    telemetry.forge_breaker("github.example", "open")

    shown = (await telemetry.render()).decode()

    assert 'deltaci_forge_left_alone{host="github.example"} 1.0' in shown
    assert 'deltaci_forge_requests_total{host="github.example",outcome="failed"} 1.0' in shown
