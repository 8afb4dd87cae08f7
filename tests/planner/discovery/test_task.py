"""Task: only where nothing else is found, and a Taskfile that cannot be read is said to be so."""

import time

import pytest

from tests.planner.discovery.native_plans import checks, discovery_of, plan_of, projects_of, runs

pytestmark = pytest.mark.anyio


def test_tasks_that_people_type_become_jobs() -> None:
    """Lint by itself; build and test in one checkout; templates in commands are only text."""
    tasks = "  default: task -l\n  lint: [a]\n  build:\n    cmds:\n      - x {{.X}}\n  test: {deps: [build]}\n"
    text = f"version: '3'\ntasks:\n{tasks}"

    project = projects_of({"Taskfile.yml": text})["task:."]

    assert runs(project, "lint") == ["task lint"]
    assert runs(project, "test") == ["task build", "task test"]


@pytest.mark.parametrize(
    "task", ["{internal: true, cmds: [a]}", "{requires: {vars: [X]}, cmds: [a]}"], ids=["internal", "requires"]
)
def test_tasks_that_cannot_be_called_as_they_are_do_not_count(task: str) -> None:
    """They would only fail."""
    found = projects_of({"Taskfile.yaml": f"version: '3'\ntasks:\n  test: {task}\n  check: a\n"})

    assert {check: runs(project, check) for project in found.values() for check in checks(project)} == {
        "test": ["task check"]
    }


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("tasks:\n  test: &a\n    cmds: [x]\n", "Taskfile.yml:2:9: anchors (&a) are not accepted"),
        ("tasks: [\n", "this is not YAML"),
        ("tasks:\n" + "".join("  " * depth + "a:\n" for depth in range(1, 60)), "nested deeper"),
        ("tasks: 3\n", "there is no mapping 'tasks'"),
        ("", "there is no mapping 'tasks'"),
        ("- a\n", "there is no mapping 'tasks'"),
        ("\0", "not"),
        ("a" * 300_000, "more than 262144"),
    ],
    ids=range(8),
)
async def test_a_taskfile_that_cannot_be_read_is_a_reason_and_no_failure(text: str, part: str) -> None:
    """It was only a fallback: nobody's tests depend on our reading it, but everybody must see that we did not."""
    plan = await plan_of({"Taskfile.yml": text})

    assert plan.jobs == ()
    [reason] = [reason for reason in plan.reasons if reason.rule == "task-runner-unreadable"]
    assert part in reason.text
    assert "deltaci.yaml" in reason.text


def test_beside_a_language_it_is_not_even_read() -> None:
    """Its faults are of no interest where it would not be run."""
    found = discovery_of({"Taskfile.yml": "tasks: [", "go.mod": "module a\n"})

    assert [project.ecosystem for project in found.projects] == ["go"]
    assert found.reasons == ()


@pytest.mark.slow
def test_a_hostile_taskfile_costs_little() -> None:
    """What is read of YAML is bounded before it is read."""
    start = time.process_time()

    found = projects_of({"Taskfile.yml": "tasks:\n" + "".join(f"  t{i}: a\n" for i in range(20_000)) + "  test: a\n"})

    assert list(found) == ["task:."]
    assert time.process_time() - start < 5


def test_a_symbolic_link_is_no_taskfile() -> None:
    """Its contents are a path, and where that leads is not known."""
    assert projects_of({"Taskfile.yml": "tasks: {test: a}"}, {"Taskfile.yml": "120000"}) == {}
