"""Plans of a work tree before anything is committed: what is there counts, and nothing of it is run."""

import os
from pathlib import Path

import pytest

from deltaci.domain.plan import Plan
from deltaci.forge.local import LocalRepository, MirrorError, MirrorLimits
from deltaci.planner.messages import Failed, Planned, Request, Start
from deltaci.planner.working_copy import WorkingCopy
from tests.planner.planned import Asker
from tests.planner.test_service import Origin

pytestmark = pytest.mark.slow

START = Start(memory_bytes_max=2**31, cache_bytes_max=2**28, jobs_max=500, limits=MirrorLimits())
FILES = {"go.mod": "module x\n", "a/go.mod": "module a\n", "b/go.mod": "module b\n", "b/x.go": "package b\n"}


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "copy")


def planned(origin: Origin, head: str, base: str | None = None) -> Plan:
    request = Request(
        number=0,
        directory=str(origin.path / ".git"),
        repo_id="r",
        commit_sha=head,
        base_sha=base or head,
        work_tree=str(origin.path),
    )
    reply = Asker(START).reply(request)
    assert isinstance(reply, Planned), reply
    return reply.plan


def names(plan: Plan) -> list[str]:
    return [job.name for job in plan.jobs if not job.is_skipped]


def changed(origin: Origin, head: str) -> list[str]:
    local = LocalRepository(origin.path / ".git", repo_id="r")
    return [change.path for change in WorkingCopy(local, origin.path, head).changes(head)]


def test_uncommitted_changes_are_planned(origin: Origin) -> None:
    """Edited, new, removed, staged or not; what is ignored does not count."""
    head = origin.commit({**FILES, ".gitignore": "*.log\n", "keep.go": "package x\n"})
    (origin.path / "b/x.go").write_text("package changed\n")
    (origin.path / "a/new.go").write_text("package a\n")
    (origin.path / "a/new.log").write_text("ignored\n")
    (origin.path / "a/staged.go").write_text("package a\n")
    origin.git("add", "a/staged.go")

    plan = planned(origin, head)

    assert changed(origin, head) == ["a/new.go", "a/staged.go", "b/x.go"]
    assert sorted(names(plan)) == ["go-test", "go-test (a)", "go-test (b)"]
    assert plan.changed_files_count == 3


def test_what_is_committed_and_clean_is_no_change(origin: Origin) -> None:
    """Modes, links, names that are not UTF-8 and submodules are as git has them."""
    (origin.path / "link").symlink_to("go.mod")
    (origin.path / os.fsdecode(b"latin-\xe9")).write_text("1")
    origin.commit({**FILES, "run.sh": "#!/bin/sh\n"})
    (origin.path / "run.sh").chmod(0o755)
    origin.commit({})
    origin.git("update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},sub")
    origin.git("commit", "-q", "-m", "submodule")
    head = origin.git("rev-parse", "HEAD")

    assert changed(origin, head) == []
    (origin.path / "run.sh").chmod(0o644)
    assert changed(origin, head) == ["run.sh"]


def test_a_removed_file_is_a_change_and_a_new_configuration_counts(origin: Origin) -> None:
    """The plan is of what would be pushed."""
    head = origin.commit(FILES)
    (origin.path / "b/x.go").unlink()

    before = planned(origin, head)
    (origin.path / "deltaci.yaml").write_text("version: 1\njobs: {mine: {steps: [x]}}\n")
    after = planned(origin, head)

    assert changed(origin, head) == ["b/x.go", "deltaci.yaml"]
    assert "go-test (b)" in names(before)
    assert names(after) == ["mine"]


def test_nothing_of_a_work_tree_is_run_or_followed(origin: Origin, tmp_path: Path) -> None:
    """Filters, hooks, a file system monitor; a link in place of a directory, a pipe in place of a file."""
    canary, trap, outside = tmp_path / "canary", tmp_path / "trap", tmp_path / "outside"
    trap.write_text(f"#!/bin/sh\ntouch {canary}\ncat\n")
    trap.chmod(0o755)
    outside.mkdir()
    (outside / "go.mod").write_text("module secret\n")
    head = origin.commit({**FILES, ".gitattributes": "* filter=evil diff=evil\n", "c/go.mod": "module c\n"})
    with (origin.path / ".git/config").open("a") as config:
        config.write(f'[filter "evil"]\n\tclean = {trap}\n\tsmudge = {trap}\n\tprocess = {trap}\n')
        config.write(f'[diff "evil"]\n\ttextconv = {trap}\n[core]\n\tfsmonitor = {trap}\n\thooksPath = {tmp_path}\n')
    (tmp_path / "post-index-change").write_bytes(trap.read_bytes())
    (origin.path / "c/go.mod").unlink()
    (origin.path / "c").rmdir()
    (origin.path / "c").symlink_to(outside)
    (origin.path / "b/x.go").unlink()
    os.mkfifo(origin.path / "b/x.go")
    (origin.path / "go.mod").write_text("module changed\n")

    plan = planned(origin, head)

    assert "go-test (c)" not in [job.name for job in plan.jobs]
    assert changed(origin, head) == ["b/x.go", "c", "c/go.mod", "go.mod"]
    assert not canary.exists()


def test_a_bad_configuration_in_a_work_tree_is_a_failure_with_its_line(origin: Origin) -> None:
    """Found before the push."""
    head = origin.commit(FILES)
    (origin.path / "deltaci.yaml").write_text("version: 1\njobs: {a: {stepz: [x]}}\n")
    request = Request(
        number=0, directory=str(origin.path / ".git"), repo_id="r", commit_sha=head, work_tree=str(origin.path)
    )

    reply = Asker(START).reply(request)

    assert isinstance(reply, Failed)
    assert reply.problems[0].line == 2


def test_as_many_files_as_allowed_are_looked_at_and_one_more_is_not(origin: Origin) -> None:
    """The limit and one past it."""
    head = origin.commit(FILES)

    def count(most: int) -> int:
        local = LocalRepository(origin.path / ".git", repo_id="r", limits=MirrorLimits(entries_max=most))
        return len(WorkingCopy(local, origin.path, head).entries())

    assert count(4) == 4
    with pytest.raises(MirrorError, match="more than 3 files"):
        count(3)
