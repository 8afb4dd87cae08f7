"""`deltaci plan` and `deltaci exec` on a repository of this machine: no server of anybody's is asked."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from deltaci.cli import main
from deltaci.domain.plan import Plan, digest
from tests.scenarios.support import GIT, git

pytestmark = pytest.mark.slow

CORE = '[project]\nname = "core"\nversion = "1"\n'
APP = '[project]\nname = "app"\nversion = "1"\ndependencies = ["core"]\n'
FILES = {"core/pyproject.toml": CORE, "app/pyproject.toml": APP, "web/package.json": '{"scripts": {"test": "true"}}'}


def commit(directory: Path, files: dict[str, str]) -> str:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(content)
    git("add", "--all", cwd=directory)
    git("commit", "--quiet", "--message", "a change", cwd=directory)
    return git("rev-parse", "HEAD", cwd=directory).strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Two Python projects of which one depends on the other, and one of Node, with a first commit."""
    directory = tmp_path / "checkout"
    directory.mkdir()
    git("init", "--quiet", "--initial-branch=main", cwd=directory)
    commit(directory, FILES)
    return directory


def deltaci(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def planned(*words: str) -> Plan:
    result = deltaci("plan", "--json", *words)
    assert result.exit_code == 0, result.output
    return msgspec.json.decode(result.stdout_bytes, type=Plan)


def running(plan: Plan) -> list[str]:
    return [job.name for job in plan.jobs if not job.is_skipped]


def test_the_last_commit_of_the_default_branch_is_compared_with_the_one_before(checkout: Path) -> None:
    """What a push of it would run."""
    commit(checkout, {"core/a.py": ""})

    plan = planned("--repo", str(checkout))

    assert running(plan) == ["python-test (app)", "python-test (core)"]
    assert plan.base_sha == git("rev-parse", "HEAD~1", cwd=checkout).strip()


def test_a_branch_is_compared_with_where_it_left_the_default_one(checkout: Path) -> None:
    """What a pull request of it would run, whatever happened on main meanwhile."""
    git("checkout", "--quiet", "-b", "topic", cwd=checkout)
    commit(checkout, {"web/a.js": ""})
    commit(checkout, {"web/b.js": ""})
    git("checkout", "--quiet", "main", cwd=checkout)
    commit(checkout, {"core/a.py": ""})
    git("checkout", "--quiet", "topic", cwd=checkout)

    plan = planned("--repo", str(checkout))

    assert running(plan) == ["node-test (web)"]
    assert plan.changed_files_count == 2


def test_the_first_commit_runs_everything(checkout: Path) -> None:
    """There is nothing to compare with, and it says so."""
    result = deltaci("plan", "--repo", str(checkout))

    assert result.exit_code == 0
    assert "there is no commit before" in result.output
    assert "3 of 3 jobs run" in result.output


def test_a_clone_too_shallow_to_tell_where_a_branch_began_runs_everything(checkout: Path, tmp_path: Path) -> None:
    """Compared with its last commit alone, a branch of two would go unchecked in what the first one changed."""
    git("checkout", "--quiet", "-b", "topic", cwd=checkout)
    commit(checkout, {"core/a.py": ""})
    commit(checkout, {"web/a.js": ""})
    commit(checkout, {"web/b.js": ""})
    git("checkout", "--quiet", "main", cwd=checkout)
    commit(checkout, {"web/c.js": ""})
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=2", "--no-single-branch", checkout.as_uri(), str(shallow), cwd=tmp_path)
    git("checkout", "--quiet", "topic", cwd=shallow)

    said = deltaci("plan", "--repo", str(shallow))
    uncommitted = deltaci("plan", "--repo", str(shallow), "--uncommitted")

    assert said.exit_code == 0, said.output
    assert "compared with nothing (remotes/origin/HEAD, with which it has no history in common here)" in said.output
    assert "3 of 3 jobs run" in said.output
    assert "3 of 3 jobs run" in uncommitted.output


def test_the_edge_of_a_shallow_clone_is_not_called_the_first_commit(checkout: Path, tmp_path: Path) -> None:
    """Whoever reads it fetches more, instead of looking for what happened to the history."""
    commit(checkout, {"core/a.py": ""})
    shallow = tmp_path / "shallow"
    git("clone", "--quiet", "--depth=1", checkout.as_uri(), str(shallow), cwd=tmp_path)

    said = deltaci("plan", "--repo", str(shallow))

    assert "(the commit before is not in this shallow clone)" in said.output
    assert "3 of 3 jobs run" in said.output


def test_a_full_plan_runs_everything_whatever_changed(checkout: Path) -> None:
    """To see all that is discovered."""
    commit(checkout, {"core/a.py": ""})

    plan = planned("--repo", str(checkout), "--full")
    refused = deltaci("plan", "--repo", str(checkout), "--full", "--base", "main")

    assert len(running(plan)) == 3
    assert plan.base_sha is None
    assert refused.exit_code == 2


def test_the_tree_names_file_projects_jobs_commands_and_skips(checkout: Path) -> None:
    """The chain of reasons is what people look for."""
    commit(checkout, {"core/a.py": ""})

    lines = deltaci("plan", "--repo", str(checkout)).output.splitlines()

    start = lines.index("core/a.py")
    assert lines[start + 1] == "└── python:core project-changed"
    assert "    └── python:app dependency-changed" in lines
    assert any(line.endswith("job python-test (app)") for line in lines)
    assert any("$ .venv/bin/python -m pip install" in line and line.endswith("(in app)") for line in lines)
    assert any(line.startswith("SKIPPED 1 job not-affected") for line in lines)


def test_the_graph_is_a_chart_with_the_same_chain(checkout: Path) -> None:
    """For a pull request or a page."""
    commit(checkout, {"core/a.py": ""})

    chart = deltaci("plan", "--repo", str(checkout), "--graph").output

    assert chart.startswith("flowchart LR\n")
    assert "-->|dependency-changed|" in chart


def test_equal_inputs_give_equal_bytes_wherever_the_repository_is(checkout: Path, tmp_path: Path) -> None:
    """A plan can be checked by anybody who has the commits."""
    commit(checkout, {"core/a.py": ""})
    git("clone", "--quiet", "--bare", str(checkout), str(tmp_path / "elsewhere.git"), cwd=tmp_path)

    here = deltaci("plan", "--json", "--repo", str(checkout)).stdout_bytes
    there = deltaci("plan", "--json", "--repo", str(tmp_path / "elsewhere.git")).stdout_bytes

    assert here == there
    assert len(json.loads(here)["jobs"]) == 3


def test_the_order_of_sets_in_the_interpreter_decides_nothing(checkout: Path) -> None:
    """It differs from process to process, and from machine to machine."""
    commit(checkout, {"core/a.py": "", "web/a.js": ""})
    command = [sys.executable, "-m", "deltaci", "plan", "--json", "--repo", str(checkout)]

    first, second = (
        subprocess.run(command, env={**GIT, "PYTHONHASHSEED": seed}, check=True, capture_output=True).stdout
        for seed in ("1", "2")
    )

    assert first == second
    assert len(json.loads(first)["jobs"]) == 3


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--base", "nowhere"], "has no commit 'nowhere' (--base)"),
        (["--head", "--output=x"], "has no commit '--output=x' (--head)"),
    ],
)
def test_a_commit_that_is_not_there_is_named(checkout: Path, words: list[str], text: str) -> None:
    """With the option that named it, and nothing that looks like an option reaches git as one."""
    result = deltaci("plan", "--repo", str(checkout), *words)

    assert result.exit_code == 1
    assert text in result.output


def test_a_directory_outside_of_any_repository_is_refused(tmp_path: Path) -> None:
    """By its name, not by a traceback."""
    result = deltaci("plan", "--repo", str(tmp_path))

    assert result.exit_code == 1
    assert f"{tmp_path.resolve()} is in no git repository" in result.output


def test_a_broken_configuration_is_told_by_its_line(checkout: Path) -> None:
    """The same words as in a run that fails for it."""
    commit(checkout, {"deltaci.yaml": "version: 1\njobs: {a: {step: [x]}}\n"})

    result = deltaci("plan", "--repo", str(checkout))

    assert result.exit_code == 1
    assert "deltaci.yaml:2:12: jobs.a.step: unknown key (did you mean 'steps'?)" in result.output


@pytest.mark.parametrize(("script", "exit_code", "state"), [("echo well", 0, "SUCCEEDED"), ("exit 3", 1, "FAILED")])
def test_the_plan_is_run_here_by_the_reference_runner(checkout: Path, script: str, exit_code: int, state: str) -> None:
    """With a label that only this plan knows; the log of what fails is shown, and nothing is left behind."""
    configured = {"version": 1, "jobs": {"a": {"steps": [script], "labels": ["only-here"], "paths": ["core/**"]}}}
    commit(checkout, {"deltaci.yaml": json.dumps(configured)})
    commit(checkout, {"core/a.py": ""})
    plan = planned("--repo", str(checkout))

    result = deltaci("exec", "--repo", str(checkout))

    assert result.exit_code == exit_code, result.output
    assert f"run {state}" in result.output
    assert digest(plan)[:12] in result.output
    assert ("log of a" in result.output) == (exit_code == 1)


def test_what_is_not_committed_is_planned_on_top_of_the_last_commit(checkout: Path) -> None:
    """A changed and a new file count, an ignored one does not."""
    commit(checkout, {"web/a.js": "", ".gitignore": "*.log\n"})
    (checkout / "app/new.py").write_text("")
    (checkout / "web/some.log").write_text("")

    plan = planned("--repo", str(checkout), "--uncommitted")
    shown = deltaci("plan", "--repo", str(checkout / "app"), "--uncommitted")

    assert {job.project for job in plan.jobs if not job.is_skipped} == {"python:app"}
    assert plan.changed_files_count == 1
    assert f"{checkout} on top of commit" in shown.output.replace("\n", "")
    assert "(the last commit)" in shown.output


def test_what_is_not_committed_on_a_branch_comes_on_top_of_its_commits(checkout: Path) -> None:
    """What a pull request of it all would run."""
    git("switch", "--quiet", "--create", "topic", cwd=checkout)
    commit(checkout, {"web/a.js": ""})
    (checkout / "app/new.py").write_text("")

    plan = planned("--repo", str(checkout), "--uncommitted")

    assert {job.project for job in plan.jobs if not job.is_skipped} == {"python:app", "node:web"}


def test_a_bare_repository_has_nothing_uncommitted(checkout: Path) -> None:
    """And another head has no work tree."""
    bare = deltaci("plan", "--repo", str(checkout / ".git"), "--uncommitted")
    other = deltaci("plan", "--repo", str(checkout), "--uncommitted", "--head", "HEAD^")

    assert bare.exit_code == 1
    assert "is in no work tree" in bare.output
    assert other.exit_code == 2
    assert "--head cannot be another commit" in other.output.replace("\n", " ")
