"""What only the wiring knows: the machine's clock, and how a plan gets to a private repository."""

import time
from pathlib import Path

import pytest

from deltaci.domain.repo import Repo
from deltaci.forge.api import Credential
from deltaci.planner.bounds import Bounds
from deltaci.planner.service import RepositoryPlanner
from deltaci.store.memory import MemoryStore
from deltaci.wiring import PlannerPort, SystemClock
from tests.builders import a_run
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
