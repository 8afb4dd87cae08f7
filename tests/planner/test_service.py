"""From a webhook's commit to a plan, on real repositories."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deltaci.domain.plan import Plan, digest
from deltaci.planner.errors import PlanFailed, PlanUnavailable
from deltaci.planner.service import RepositoryPlanner

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

CONFIGURATION = """version: 1
jobs:
  api: {steps: [x], paths: [api/**]}
  web: {steps: [x], paths: [web/**]}
"""


class Origin:
    """A repository with a work tree."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str) -> str:
        env = {
            "PATH": os.environ["PATH"],
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "A",
            "GIT_AUTHOR_EMAIL": "a@example.com",
            "GIT_COMMITTER_NAME": "A",
            "GIT_COMMITTER_EMAIL": "a@example.com",
        }
        done = subprocess.run(["git", *arguments], cwd=self.path, env=env, check=True, capture_output=True)
        return done.stdout.decode().strip()

    def commit(self, files: dict[str, str]) -> str:
        for name, content in files.items():
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).write_text(content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "change")
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "origin")


@pytest.fixture
def planner(tmp_path: Path) -> RepositoryPlanner:
    return RepositoryPlanner(tmp_path / "data")


async def plan_of(planner: RepositoryPlanner, origin: Origin, commit_sha: str, **more: Any) -> Plan:
    ref = more.pop("ref", "refs/heads/main")
    return await planner.plan(repo_id="1", clone_url=str(origin.path), commit_sha=commit_sha, ref=ref, **more)


def running(plan: Plan) -> list[str]:
    return [job.name for job in plan.jobs if not job.is_skipped]


async def test_a_push_is_compared_with_the_commit_before_it(planner: RepositoryPlanner, origin: Origin) -> None:
    """Several commits in one push count together."""
    before = origin.commit({"deltaci.yaml": CONFIGURATION})
    origin.commit({"web/a.js": "1"})
    head = origin.commit({"README.md": "1"})

    plan = await plan_of(planner, origin, head, base_sha=before)

    assert running(plan) == ["web"]
    assert (plan.base_sha, plan.changed_files_count) == (before, 2)


async def test_a_first_push_runs_everything(planner: RepositoryPlanner, origin: Origin) -> None:
    """Forges send zeros for the commit before the first."""
    head = origin.commit({"deltaci.yaml": CONFIGURATION})

    plan = await plan_of(planner, origin, head, base_sha="0" * 40)

    assert running(plan) == ["api", "web"]
    assert plan.reasons[-1].text == "everything runs: this is the first push"


async def test_a_force_push_runs_everything(planner: RepositoryPlanner, origin: Origin) -> None:
    """The old commit is not an ancestor: what the new history left out is in no difference to it."""
    origin.commit({"deltaci.yaml": CONFIGURATION})
    old = origin.commit({"web/a.js": "1"})
    await plan_of(planner, origin, old)
    origin.git("reset", "-q", "--hard", "HEAD~1")
    new = origin.commit({"api/a.py": "1"})

    plan = await plan_of(planner, origin, new, base_sha=old)

    assert running(plan) == ["api", "web"]
    assert plan.base_sha is None
    assert "history was rewritten" in plan.reasons[-1].text


async def test_a_base_that_is_gone_runs_everything(planner: RepositoryPlanner, origin: Origin) -> None:
    """The plan says so in words that are the same at every try."""
    head = origin.commit({"deltaci.yaml": CONFIGURATION})

    one = await plan_of(planner, origin, head, base_sha="1" * 40)
    other = await plan_of(planner, origin, head, base_sha="1" * 40)

    assert running(one) == ["api", "web"]
    assert digest(one) == digest(other)


async def test_a_pull_request_is_compared_with_its_merge_base(planner: RepositoryPlanner, origin: Origin) -> None:
    """What others merged into the target meanwhile is not this change."""
    fork_point = origin.commit({"deltaci.yaml": CONFIGURATION})
    origin.git("checkout", "-q", "-b", "topic")
    head = origin.commit({"web/a.js": "1"})
    origin.git("checkout", "-q", "main")
    target = origin.commit({"api/a.py": "1"})

    plan = await plan_of(
        planner, origin, head, ref="refs/heads/topic", base_sha=target, base_ref="refs/heads/main", is_pull_request=True
    )

    assert running(plan) == ["web"]
    assert plan.base_sha == fork_point


async def test_a_base_that_is_not_told_is_looked_up_by_its_name(planner: RepositoryPlanner, origin: Origin) -> None:
    """GitLab tells the target branch of a merge request, and not where that is; without it, a fork has no plan."""
    origin.commit({"deltaci.yaml": CONFIGURATION})
    origin.git("checkout", "-q", "-b", "topic")
    head = origin.commit({"web/a.js": "1"})
    origin.git("checkout", "-q", "main")
    origin.commit({"api/a.py": "1"})
    more: dict[str, Any] = {"ref": "refs/heads/topic", "is_pull_request": True, "is_trusted": False}

    plan = await plan_of(planner, origin, head, base_ref="refs/heads/main", **more)

    assert running(plan) == ["web"]
    with pytest.raises(PlanFailed, match="its base refs/heads/gone could not be read"):
        await plan_of(planner, origin, head, base_ref="refs/heads/gone", **more)


async def test_a_fork_gets_the_configuration_of_the_target(planner: RepositoryPlanner, origin: Origin) -> None:
    """Whoever may not push may not choose what runs where."""
    target = origin.commit({"deltaci.yaml": CONFIGURATION})
    origin.git("checkout", "-q", "-b", "fork")
    head = origin.commit({"deltaci.yaml": "version: 1\njobs: {evil: {steps: [x]}}"})
    more: dict[str, Any] = {"ref": "refs/heads/fork", "base_sha": target, "is_pull_request": True}

    trusted = await plan_of(planner, origin, head, **more)
    untrusted = await plan_of(planner, origin, head, is_trusted=False, **more)

    assert running(trusted) == ["evil"]
    assert running(untrusted) == ["api", "web"]
    assert "configuration-from-base" in [reason.rule for reason in untrusted.reasons]


async def test_an_untrusted_change_without_a_base_is_not_planned(planner: RepositoryPlanner, origin: Origin) -> None:
    """There would be no configuration to trust."""
    head = origin.commit({"deltaci.yaml": CONFIGURATION})

    with pytest.raises(PlanFailed, match="let a maintainer run it"):
        await plan_of(planner, origin, head, is_trusted=False)


async def test_a_symlink_in_place_of_the_configuration_fails_the_plan(
    planner: RepositoryPlanner, origin: Origin
) -> None:
    """It is neither followed nor passed over."""
    (origin.path / "deltaci.yaml").symlink_to("/etc/passwd")
    head = origin.commit({"go.mod": "module x", "a.go": ""})

    with pytest.raises(PlanFailed, match=r"deltaci\.yaml: this is a symlink"):
        await plan_of(planner, origin, head)


async def test_a_plan_failure_names_file_line_and_key(planner: RepositoryPlanner, origin: Origin) -> None:
    """What the author of the commit reads in its status."""
    head = origin.commit({"deltaci.yaml": "version: 1\njobs:\n  a:\n    steps: [x]\n    retires: 3\n"})

    with pytest.raises(PlanFailed) as caught:
        await plan_of(planner, origin, head)

    assert caught.value.text.startswith("deltaci.yaml:5:5: jobs.a.retires: unknown key (did you mean 'retries'?)")
    assert not caught.value.is_retryable


async def test_a_repository_that_cannot_be_reached_is_a_failure_to_retry(
    planner: RepositoryPlanner, tmp_path: Path
) -> None:
    """Nothing is wrong with the commit."""
    with pytest.raises(PlanUnavailable) as caught:
        await planner.plan(repo_id="1", clone_url=str(tmp_path / "gone"), commit_sha="1" * 40, ref=None)

    assert caught.value.is_retryable


async def test_a_repository_without_configuration_is_discovered(planner: RepositoryPlanner, origin: Origin) -> None:
    """Clone, push, see tests run: with nothing to write first."""
    base = origin.commit({"go.mod": "module x\n", "a.go": "package x\n"})
    head = origin.commit({"README.md": "1"})

    everything = await plan_of(planner, origin, base)
    nothing = await plan_of(planner, origin, head, base_sha=base)

    assert running(everything) == ["go-test"]
    assert [(job.name, job.is_skipped, job.reasons[-1].rule) for job in nothing.jobs] == [
        ("go-test", True, "documentation-only")
    ]
