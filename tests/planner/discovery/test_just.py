"""just: only where nothing else is found, and only what people type."""

import time

import pytest

from tests.planner.discovery.native_plans import checks, discovery_of, projects_of, runs


def test_recipes_that_people_type_become_jobs() -> None:
    """Lint by itself; build and test in one checkout."""
    text = "set shell := ['bash']\n\ndefault: test\n\nlint:\n    shellcheck a\n\nbuild:\n    x\n@test: build\n    x\n"

    project = projects_of({"justfile": text})["just:."]

    assert runs(project, "lint") == ["just lint"]
    assert runs(project, "test") == ["just build", "just test"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("check:\n    x\n", {"test": ["just check"]}),
        ("check:\n    x\ntest:\n    x\n", {"lint": ["just check"], "test": ["just test"]}),
        ("ci:\n    x\nlint:\n    x\nbuild:\n    x\n", {"test": ["just ci"]}),
        ("ci: test\ntest:\n    x\n", {"test": ["just test"]}),
        ("build:\n    x\n", {"build": ["just build"]}),
        ("t:\n    x\nalias test := t\n", {"test": ["just test"]}),
        ("test *args: \n    x\n", {"test": ["just test"]}),
        ("test filter='a: b' n=\"1\":\n    x\n", {"test": ["just test"]}),
        ("test filter:\n    x\n", {}),
        ("test +filter:\n    x\n", {}),
        ("test := 'a'\n# lint:\n    build:\n[private]\n_check:\n    x\n", {}),
    ],
)
def test_only_recipes_written_out_that_need_no_arguments_count(text: str, expected: dict[str, list[str]]) -> None:
    """What cannot be called as it is would only fail."""
    found = projects_of({".justfile": text})

    assert {check: runs(project, check) for project in found.values() for check in checks(project)} == expected


def test_where_a_language_is_found_its_recipes_are_not_run() -> None:
    """They would run the same again, be it at their root or below; the plan says what it does not use."""
    text = "test:\n    cargo test\n"

    beside = discovery_of({"justfile": text, "Cargo.toml": "[package]\n"})
    above = discovery_of({"justfile": text, "crates/a/Cargo.toml": "[package]\n"})

    for found in (beside, above):
        assert [project.ecosystem for project in found.projects] == ["rust"]
        assert [(reason.rule, reason.file) for reason in found.reasons] == [("task-runner-unused", "justfile")]


def test_a_directory_in_a_language_that_nobody_finds_runs_by_its_recipes() -> None:
    """Beside other projects it has tests of its own."""
    found = projects_of({"elixir/justfile": "test:\n    mix test\n", "api/go.mod": "module a\n"})

    assert sorted(found) == ["go:api", "just:elixir"]


def test_of_two_runners_in_one_directory_the_one_with_tests_is_used() -> None:
    """Both would run the same; a Makefile that only builds is not all there is."""
    both = projects_of({"justfile": "test:\n    x\n", "Makefile": "test:\n\tx\n"})
    one = projects_of({"justfile": "test:\n    x\n", "Makefile": "build:\n\tx\n"})

    assert (list(both), list(one)) == (["make:."], ["just:."])


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        "test " + "a=" * 400_000,
        "'" * 1_000_000,
        "t" * 1_000_000 + ":",
        "test" + " " * 900_000,
        "a:\n" * 300_000,
        "`" * 999,
    ],
    ids=range(6),
)
def test_a_hostile_file_costs_little(text: str) -> None:
    """Reading it takes time linear in its size."""
    start = time.process_time()

    found = projects_of({"justfile": text})

    assert found == {}
    assert time.process_time() - start < 5


def test_a_symbolic_link_is_no_justfile() -> None:
    """Its contents are a path, and where that leads is not known."""
    assert projects_of({"justfile": "test:\n"}, {"justfile": "120000"}) == {}
