"""Checkouts through mirrors, and what an earlier life of the runner leaves behind."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deltaci.runner.git import GitFailed, git, without_credentials
from deltaci.runner.process import MARK_VARIABLE, marked
from deltaci.runner.settings import RunnerConfigError
from deltaci.runner.workspace import CheckoutFailed, WorkDir, Workspace, remove_tree
from protocol.messages import LeaseGranted
from tests.runner.support import Repository, a_job

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


def a_workspace(work_dir: WorkDir, repository: Repository, mark: str = "mark") -> Workspace:
    grant = LeaseGranted(
        lease_id="l",
        job_id="j",
        attempt=1,
        run_id="r",
        job=a_job(repository),
        expires_in_ms=1,
        ack_within_ms=1,
    )
    return work_dir.new_workspace(0, grant, mark)


@pytest.fixture
def work_dir(tmp_path: Path) -> Iterator[WorkDir]:
    """An opened work directory."""
    found = WorkDir(tmp_path / "work")
    found.open()
    yield found
    found.close()


async def test_a_commit_is_checked_out_without_a_branch(work_dir: WorkDir, repository: Repository) -> None:
    """The commit of the run, not what the branch has become since."""
    job = a_job(repository)
    repository.commit({"README": "newer\n"})
    workspace = a_workspace(work_dir, repository)

    await work_dir.check_out(workspace, job, config=None)

    assert (workspace.checkout / "README").read_text() == "hello\n"
    assert await git("rev-parse", "HEAD", mark="m", cwd=workspace.checkout) == job.commit_sha
    assert (workspace.checkout / ".git/HEAD").read_text() == f"{job.commit_sha}\n"


async def test_the_mirror_serves_a_known_commit_without_the_network(work_dir: WorkDir, repository: Repository) -> None:
    """Twenty jobs of a run fetch once."""
    job = a_job(repository)
    await work_dir.check_out(a_workspace(work_dir, repository), job, config=None)
    workspace = a_workspace(work_dir, repository)
    remove_tree(repository.path)

    await work_dir.check_out(workspace, job, config=None)

    assert (workspace.checkout / "README").read_text() == "hello\n"


async def test_a_damaged_mirror_is_fetched_anew(work_dir: WorkDir, repository: Repository) -> None:
    """After a power cut the runner mends itself."""
    job = a_job(repository)
    await work_dir.check_out(a_workspace(work_dir, repository), job, config=None)
    tree = repository.git("rev-parse", "HEAD^{tree}")
    for mirror in (work_dir.root / "mirrors").iterdir():
        packs = list((mirror / "objects/pack").glob("*"))
        for pack in packs:
            pack.unlink()
        for loose in (mirror / "objects" / tree[:2]).glob("*"):
            loose.unlink()
    workspace = a_workspace(work_dir, repository)

    await work_dir.check_out(workspace, job, config=None)

    assert (workspace.checkout / "README").read_text() == "hello\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"commit_sha": "main"},
        {"commit_sha": "--upload-pack=touch /tmp/x"},
        {"commit_sha": "f" * 40},
        {"clone_url": "ext::sh -c 'touch PWNED'"},
        {"clone_url": "--upload-pack=touch PWNED"},
        {"clone_url": "/nowhere/at/all"},
        {"commit_sha": "f" * 40, "ref": "--output=PWNED"},
    ],
)
async def test_what_cannot_or_must_not_be_fetched_fails_the_checkout(
    work_dir: WorkDir, repository: Repository, fields: dict[str, str]
) -> None:
    """No argument becomes an option, no address a command."""
    workspace = a_workspace(work_dir, repository)

    with pytest.raises(CheckoutFailed):
        await work_dir.check_out(workspace, a_job(repository, **fields), config=None)

    assert list(work_dir.root.rglob("PWNED")) == []


async def test_hooks_and_configuration_of_the_host_are_not_used(
    work_dir: WorkDir, repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout runs nothing of anybody's."""
    config = tmp_path / "gitconfig"
    config.write_text(f"[core]\n\thooksPath = {tmp_path}\n[alias]\n\tx = !true\n")
    hook = tmp_path / "post-checkout"
    hook.write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
    hook.chmod(0o755)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    workspace = a_workspace(work_dir, repository)

    await work_dir.check_out(workspace, a_job(repository), config=None)

    assert not (tmp_path / "hooked").exists()
    with pytest.raises(GitFailed):
        await git("config", "--global", "alias.x", mark="m")


def test_credentials_are_cut_out_of_addresses() -> None:
    """What git says goes into the user's log."""
    text = without_credentials("cannot read https://user:hush-hush@example.org/x and ssh://git@host/y")

    assert text == "cannot read https://example.org/x and ssh://host/y"


def test_a_work_directory_has_one_owner(tmp_path: Path, work_dir: WorkDir) -> None:
    """A second runner would clean up the workspaces of the first."""
    with pytest.raises(RunnerConfigError, match="in use by another runner"):
        WorkDir(tmp_path / "work").open()

    work_dir.close()
    second = WorkDir(tmp_path / "work")
    second.open()
    second.close()


def test_the_next_life_kills_and_removes_what_a_crash_left(tmp_path: Path, repository: Repository) -> None:
    """Workspaces, spools, half-written caches, locks of a killed git, and processes by their mark."""
    first = WorkDir(tmp_path / "work")
    first.open()
    mark = f"mark-{os.getpid()}-{time.monotonic_ns()}"
    workspace = a_workspace(first, repository, mark)
    left = [first.spools / "a.log", first.caches / "b.partial", first.root / "mirrors/x.git/packed-refs.lock"]
    for path in left:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    orphan = subprocess.Popen(
        [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"],
        env={MARK_VARIABLE: mark},
        start_new_session=True,
        stdout=subprocess.PIPE,
    )
    assert orphan.stdout is not None
    with orphan.stdout:
        orphan.stdout.readline()
    first.close()

    second = WorkDir(tmp_path / "work")
    second.open()
    second.close()

    assert orphan.wait(10) == -9
    assert marked(mark) == []
    assert [path for path in (*left, workspace.root) if path.exists()] == []


def test_a_tree_without_permissions_is_removed_and_links_are_not_followed(tmp_path: Path) -> None:
    """Module caches are unpacked read-only; a link to the host's files must not take them along."""
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    tree = tmp_path / "tree"
    (tree / "a/b").mkdir(parents=True)
    (tree / "a/b/file").touch()
    (tree / "link").symlink_to(tmp_path / "kept")
    (tree / "a/b").chmod(0o000)
    (tree / "a").chmod(0o500)

    remove_tree(tree)

    assert not tree.exists()
    assert (tmp_path / "kept/file").exists()
