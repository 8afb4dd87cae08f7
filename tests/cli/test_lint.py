"""`deltaci lint`: what it says of a working copy, and how it exits."""

import json
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from deltaci.cli import main

GOOD = """version: 1
jobs:
  test: {steps: [pytest], paths: [src/**], concurrency: tests}
  docs: {steps: [make, more], allow_failure: true, needs: test, paths: [src/**]}
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that is no repository."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "a.py").write_text("")
    return tmp_path


def lint(place: Path, text: str | None, *words: str) -> Result:
    """What the command says of `text` in `place`."""
    if text is not None:
        (place / "deltaci.yaml").write_text(text)
    return CliRunner().invoke(main, ["lint", str(place), *words])


def test_a_good_file_is_told_by_its_jobs(place: Path) -> None:
    """When each runs, and how."""
    result = lint(place, GOOD)

    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "test: on paths src/** (1 step, group tests)",
        "docs: on paths src/** (2 steps, after test, may fail)",
        "2 jobs, no problems",
    ]


def test_every_problem_is_a_line_that_editors_can_jump_to(place: Path) -> None:
    """File, line, column, key and text; exit 1."""
    result = lint(place, "version: 1\njobs:\n  a: {steps: [], retires: 1}\n")

    lines = result.output.splitlines()
    assert result.exit_code == 1
    assert lines[0] == "deltaci.yaml:3:14: jobs.a.steps: a job has at least one step"
    assert lines[1].startswith("deltaci.yaml:3:18: jobs.a.retires: unknown key (did you mean 'retries'?)")
    assert lines[2] == "2 problems: nothing would run"


def test_a_directory_in_place_of_the_file_is_called_one(place: Path) -> None:
    """As a plan says: nobody finds a submodule where there is none."""
    (place / "deltaci.yaml").mkdir()
    (place / "deltaci.yaml" / "x").write_text("")

    result = lint(place, None)

    assert result.exit_code == 1
    assert result.output.splitlines()[0] == "deltaci.yaml: this is a directory; make it a regular file"


def test_the_answer_can_be_had_as_json(place: Path) -> None:
    """For tools: problems, warnings and jobs, each with its fields."""
    good, bad = lint(place, GOOD, "--json"), lint(place, "version: 2\njobs: {a: {steps: [t]}}\n", "--json")

    told = json.loads(good.output)
    assert (good.exit_code, bad.exit_code) == (0, 1)
    assert [job["name"] for job in told["jobs"]] == ["test", "docs"]
    assert told["problems"] == told["warnings"] == []
    (problem,) = json.loads(bad.output)["problems"]
    assert (problem["line"], problem["column"], problem["key"]) == (1, 10, "version")


@pytest.mark.parametrize(
    ("jobs", "warning"),
    [
        ("a: {steps: [t], paths: [src/**, lib/**]}", "deltaci.yaml:3:35: jobs.a.paths[1]: 'lib/**' matches no file"),
        ("a: {steps: [t], paths: [lib]}", "deltaci.yaml:3:3: jobs.a: nothing can trigger this job"),
        ("a: {steps: [t], paths: ['*.py'], paths_ignore: [src]}", "nothing can trigger this job"),
        ("a: {steps: [t], paths: [src]}\n  b: {steps: [t], needs: a}", "4:26: jobs.b.needs: 'a' is skipped on other"),
        ("a: {steps: [t], reports: [x], artifacts: [{name: reports, paths: [y]}]}", "does not keep what 'reports'"),
    ],
)
def test_what_is_hardly_meant_is_a_warning_and_no_problem(place: Path, jobs: str, warning: str) -> None:
    """It would run; whoever wrote it may want to know how."""
    result = lint(place, f"version: 1\njobs:\n  {jobs}\n")

    told = [line for line in result.output.splitlines() if line.startswith("warning: ")]
    assert result.exit_code == 0, result.output
    assert any(warning in line for line in told), result.output


@pytest.mark.parametrize(
    "jobs",
    [
        "a: {steps: [t], paths: [src]}\n  b: {steps: [t], needs: a, paths: [src]}",
        "a: {steps: [t], paths: [src], artifacts: [{name: x, paths: [y]}]}\n  b: {steps: [t], needs: a}",
        "a: {steps: [t], paths: [src, '!src/b.py']}",
        "a: {steps: [t], reports: [x], artifacts: [{name: reports, paths: [x, y]}]}",
    ],
)
def test_what_is_well_meant_is_no_warning(place: Path, jobs: str) -> None:
    """A linter that warns of everything is read by nobody."""
    (place / "src" / "b.py").write_text("")

    result = lint(place, f"version: 1\njobs:\n  {jobs}\n")

    assert (result.exit_code, "warning" in result.output) == (0, False)


def test_projects_are_looked_for_in_the_working_copy(place: Path) -> None:
    """The same discovery as on the server, with the same words."""
    (place / "api").mkdir()
    (place / "api" / "go.mod").write_text("module example.org/api\n")
    text = "version: 1\njobs:\n  a: {steps: [t], projects: [%s]}\n"

    good, bad = lint(place, text % "api"), lint(place, text % "apt")

    assert good.exit_code == 0, good.output
    assert bad.exit_code == 1
    assert "deltaci.yaml:3:30: jobs.a.projects[0]: no project 'apt' was discovered (did you mean 'api'?)" in bad.output


def test_a_file_of_another_name_can_be_checked(place: Path) -> None:
    """A draft beside the real one; problems are told under its name."""
    draft = place / "draft.yaml"
    draft.write_text("version: 1\njobs: {}\n")

    result = CliRunner().invoke(main, ["lint", str(draft)])

    assert result.exit_code == 1
    assert result.output.startswith("draft.yaml:2:7: jobs: empty")


def test_where_there_is_nothing_to_check_the_usage_is_wrong(place: Path) -> None:
    """Exit 2: nobody must take silence for a good file. A near miss of the name is a problem."""
    nothing = lint(place, None)
    nowhere = CliRunner().invoke(main, ["lint", str(place / "missing")])
    (place / "deltaci.yml").write_text(GOOD)
    misnamed = lint(place, None)

    assert (nothing.exit_code, nowhere.exit_code, misnamed.exit_code) == (2, 2, 1)
    assert "there is no deltaci.yaml" in nothing.output
    assert "the configuration is named deltaci.yaml; rename this file" in misnamed.output


@pytest.mark.slow
def test_in_a_repository_the_files_are_those_that_git_sees(place: Path) -> None:
    """What is ignored is not there for a runner either."""
    subprocess.run(["git", "init", "-q", str(place)], check=True)
    (place / ".gitignore").write_text("out/\n")
    (place / "out").mkdir()
    (place / "out" / "x").write_text("")

    result = lint(place, "version: 1\njobs:\n  a: {steps: [t], paths: ['out/**', src/**]}\n")

    assert "'out/**' matches no file" in result.output
    assert "'src/**'" not in result.output
