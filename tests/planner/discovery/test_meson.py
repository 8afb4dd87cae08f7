"""Meson: which directories are projects, and what their job runs."""

import time

import pytest

from tests.planner.discovery.native_plans import checks, projects_of, runs

PLAIN = "# a comment\n\nproject('thing', 'c',\n  meson_version: '>= 0.60',\n)\n"


def test_a_project_is_set_up_compiled_and_tested() -> None:
    """The three commands of every Meson project, with the report that Meson writes by itself."""
    files = {"meson.build": PLAIN + "subdir('tests')\n", "tests/meson.build": "test('a', exe)\n"}

    project = projects_of(files)["meson:."]

    assert runs(project, "test") == [
        "meson setup builddir",
        "meson compile -C builddir",
        "meson test -C builddir --print-errorlogs",
    ]
    assert project.jobs[0].reports == ("builddir/meson-logs/testlog.junit.xml",)
    assert project.tools == {"meson": ">= 0.60"}


def test_a_project_without_tests_is_only_compiled() -> None:
    """`meson test` would report nothing."""
    project = projects_of({"lib/meson.build": PLAIN + "# test('a')\nlatest = run_test('a')\n"})["meson:lib"]

    assert checks(project) == ["build"]
    assert project.jobs[0].reports == ()


def test_dependencies_below_subprojects_are_left_out_and_their_archives_kept() -> None:
    """Wrap files name archives with their hashes, so that what is kept is what would be downloaded."""
    files = {"meson.build": PLAIN, "subprojects/zlib.wrap": "[wrap-file]", "subprojects/own/meson.build": PLAIN}

    found = projects_of(files)

    assert list(found) == ["meson:."]
    assert [(cache.paths, cache.inputs) for cache in found["meson:."].jobs[0].caches] == [
        (("subprojects/packagecache",), ("subprojects/zlib.wrap",))
    ]


def test_a_nested_project_stands_alone_unless_it_only_tries_something_out() -> None:
    """Meson takes no second project() in; cases to test with are not this repository's own."""
    files = {"meson.build": PLAIN, "tools/meson.build": PLAIN, "test cases/1/meson.build": PLAIN, "src/meson.build": ""}

    assert sorted(projects_of(files)) == ["meson:.", "meson:tools"]


def test_sources_above_a_project_are_read() -> None:
    """A build description in a directory of its own."""
    project = projects_of({"build/meson/meson.build": PLAIN + "include_directories('../../lib')\n"})[
        "meson:build/meson"
    ]

    assert project.reads == {"lib"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "text",
    [
        *("\n" * 1_000_000, "#" * 1_000_000, "# \n" * 300_000, "project" + " " * 900_000, PLAIN + "'" * 900_000),
        *(PLAIN + "test" * 250_000, PLAIN + "'" + "../" * 300_000 + "'", PLAIN + " " * 900_000),
    ],
    ids=range(8),
)
def test_a_hostile_file_costs_little(text: str) -> None:
    """Reading it takes time linear in its size."""
    start = time.process_time()

    found = projects_of({"meson.build": text})

    assert list(found) in ([], ["meson:."])
    assert time.process_time() - start < 5


def test_a_symbolic_link_is_no_project() -> None:
    """Its contents are a path, and where that leads is not known."""
    assert projects_of({"meson.build": "project("}, {"meson.build": "120000"}) == {}
