"""CMake: which directories are projects, and what their job runs."""

import time

import pytest

from tests.planner.discovery.native_plans import checks, projects_of, running, runs

pytestmark = pytest.mark.anyio
PLAIN = "cmake_minimum_required(VERSION 3.14...3.28)\nproject(Thing C)\n"


def test_a_project_is_configured_built_and_tested_outside_of_its_sources() -> None:
    """The three commands of every CMake project, and the report where ctest writes it: in the build directory."""
    files = {"CMakeLists.txt": PLAIN + "enable_testing()\nadd_subdirectory(test)\n", "test/CMakeLists.txt": ""}

    project = projects_of(files)["cmake:."]

    assert runs(project, "test") == [
        "cmake -S . -B build",
        "cmake --build build --parallel",
        "ctest --test-dir build --output-on-failure --output-junit junit.xml",
    ]
    assert project.jobs[0].reports == ("build/junit.xml",)
    assert project.tools == {"cmake": ">=3.14"}


@pytest.mark.parametrize(
    "text",
    [
        *("enable_testing()", "INCLUDE( CTest )", "add_test(NAME a COMMAND a)", "gtest_discover_tests(a)"),
        *("catch_discover_tests(a)", "if(ON)\n  add_test (\n a # b)\n a)\nendif()"),
    ],
)
def test_whatever_registers_tests_makes_ctest_run(text: str) -> None:
    """In any of its files, the tests' own directory and modules included."""
    in_tests = projects_of({"lib/CMakeLists.txt": PLAIN, "lib/tests/CMakeLists.txt": text})["cmake:lib"]
    in_module = projects_of({"lib/CMakeLists.txt": PLAIN, "lib/cmake/Testing.cmake": text})["cmake:lib"]

    assert checks(in_tests) == checks(in_module) == ["test"]
    assert in_tests.jobs[0].reports == ("lib/build/junit.xml",)


@pytest.mark.parametrize(
    "text",
    ["# enable_testing()", "#[==[\nenable_testing()\n]==]", 'message("enable_testing()")', "[[ add_test(a) ]]", ""],
)
def test_a_project_without_tests_is_only_built(text: str) -> None:
    """What is in comments and strings does not count; no report is promised that nobody writes."""
    project = projects_of({"CMakeLists.txt": PLAIN + text})["cmake:."]

    assert checks(project) == ["build"]
    assert project.jobs[0].reports == ()


def test_a_list_without_a_project_is_a_part_of_something_else() -> None:
    """Every directory of a CMake project has such a file."""
    assert projects_of({"src/CMakeLists.txt": "add_library(a a.c)\n"}) == {}


@pytest.mark.parametrize(
    "text",
    [
        *("add_subdirectory(lib)", "add_subdirectory(${CMAKE_CURRENT_SOURCE_DIR}/lib)", "ADD_SUBDIRECTORY(./lib out)"),
        *("foreach(d a b)\nadd_subdirectory(${d})\nendforeach()", "add_subdirectory(${PROJECT_SOURCE_DIR}/lib)"),
        *("ExternalProject_Add(lib SOURCE_DIR ${CMAKE_CURRENT_SOURCE_DIR}/lib)", "add_my_subdirectory(lib)"),
    ],
)
def test_what_a_project_takes_in_belongs_to_it(text: str) -> None:
    """By name, and by any name that only CMake could compute."""
    found = projects_of({"CMakeLists.txt": PLAIN + text, "lib/CMakeLists.txt": PLAIN})

    assert list(found) == ["cmake:."]


def test_what_is_added_two_levels_down_belongs_to_the_outermost() -> None:
    """Each level says only its own part of the way."""
    files = {"CMakeLists.txt": PLAIN + "add_subdirectory(a)", "a/CMakeLists.txt": "add_subdirectory(b)"}

    found = projects_of({**files, "a/b/CMakeLists.txt": PLAIN})

    assert list(found) == ["cmake:."]


def test_a_nested_project_that_nobody_adds_stands_alone_unless_it_only_tries_something_out() -> None:
    """A tool beside a library is built by itself; a consumer for the tests of installing needs what is installed."""
    files = {"CMakeLists.txt": PLAIN, "tools/CMakeLists.txt": PLAIN, "cmake/install_test_project/CMakeLists.txt": PLAIN}

    assert sorted(projects_of(files)) == ["cmake:.", "cmake:tools"]


async def test_a_library_that_is_added_from_beside_is_a_dependency() -> None:
    """It stays a project, and a change in it runs both."""
    files = {"app/CMakeLists.txt": PLAIN + "add_subdirectory(../lib lib)", "lib/CMakeLists.txt": PLAIN, "lib/a.c": ""}
    files |= {"other/CMakeLists.txt": PLAIN}

    assert await running(files, "lib/a.c") == {"cmake-build (app)", "cmake-build (lib)"}


async def test_sources_above_a_project_touch_it() -> None:
    """A build description in a directory of its own, as many libraries have it."""
    files = {"build/cmake/CMakeLists.txt": PLAIN + "set(S ${CMAKE_CURRENT_SOURCE_DIR}/../../lib)\n", "lib/a.c": ""}
    files |= {"web/package.json": '{"scripts": {"test": "x"}}', "other/package.json": '{"scripts": {"test": "x"}}'}

    assert "cmake-build (build/cmake)" in await running(files, "lib/a.c")
    assert await running(files, "web/a.js") == {"node-test (web)"}


async def test_reading_all_around_itself_keeps_no_file_from_the_others() -> None:
    """A file that belongs to no project touches all, even if one of them reads the whole repository."""
    files = {"build/cmake/CMakeLists.txt": PLAIN + "set(S ${CMAKE_CURRENT_SOURCE_DIR}/../..)\n"}
    files |= {"web/package.json": '{"scripts": {"test": "x"}}'}

    assert await running(files, "proto/api.proto") == {"cmake-build (build/cmake)", "node-test (web)"}


def test_tests_that_are_off_by_default_are_turned_on() -> None:
    """Otherwise a green run would have run nothing; what is on, or is no such option, is left as it is."""
    options = 'option(FOO_BUILD_TESTS "t" OFF)\noption(BUILD_TESTING "t" ON)\noption(FOO_BUILD_TESTS_HO "t" OFF)\n'

    project = projects_of({"CMakeLists.txt": PLAIN + options + "option(BUILD_SHARED_LIBS s OFF)\nenable_testing()"})

    assert runs(project["cmake:."], "test")[0] == "cmake -S . -B build -DFOO_BUILD_TESTS=ON"


def test_what_the_option_for_tests_hangs_on_is_turned_on_too() -> None:
    """Only options that are off, named as they are; what is negated is not ours to turn."""
    options = (
        'option(X_DEVELOP "d" OFF)\noption(X_SUBPROJECT "s" OFF)\noption(X_FINE "f" ON)\noption(X_OTHER "o" OFF)\n'
    )
    hanging = 'cmake_dependent_option(X_BUILD_TESTING "t" ON "X_DEVELOP;X_FINE;NOT X_SUBPROJECT" OFF)\n'
    hanging += 'cmake_dependent_option(X_BUILD_TESTS "t" OFF "X_FINE" OFF)\n'
    hanging += 'cmake_dependent_option(X_DOCUMENTS "t" ON "X_OTHER" OFF)\n'

    project = projects_of({"CMakeLists.txt": PLAIN + options + hanging + "enable_testing()"})

    assert runs(project["cmake:."], "test")[0] == "cmake -S . -B build -DX_BUILD_TESTS=ON -DX_DEVELOP=ON"


@pytest.mark.parametrize(
    ("presets", "expected"),
    [
        ('[{"name": "ci", "generator": "Ninja"}]', "cmake --preset ci -B build"),
        ('[{"name": "base", "hidden": true}, {"name": "ci", "inherits": "base"}]', "cmake --preset ci -B build"),
        ('[{"name": "a"}, {"name": "b"}]', "cmake -S . -B build"),
        ('[{"name": "vs", "generator": "Visual Studio 17 2022"}]', "cmake -S . -B build"),
        ('[{"name": "win", "condition": {"type": "equals"}}]', "cmake -S . -B build"),
        ('[{"name": "a; rm -rf /"}]', "cmake -S . -B build"),
        ('[{"name": 7}, 3]', "cmake -S . -B build"),
        ("not json", "cmake -S . -B build"),
    ],
)
def test_a_preset_is_used_only_if_it_is_clear_which(presets: str, expected: str) -> None:
    """CMake reads presets when it is asked to, so that a broken file breaks nothing."""
    files = {"CMakeLists.txt": PLAIN, "CMakePresets.json": f'{{"version": 3, "configurePresets": {presets}}}'}

    assert runs(projects_of(files)["cmake:."], "build")[0] == expected


def test_a_directory_named_build_that_is_in_the_repository_is_not_built_in() -> None:
    """Its files would be mixed with what is made."""
    files = {"CMakeLists.txt": PLAIN, "build/vs/CMakeLists.txt": "add_library(a a.c)"}

    assert runs(projects_of(files)["cmake:."], "build")[0] == "cmake -S . -B cmake-build"


@pytest.mark.parametrize("path", ["app/src/main/cpp/CMakeLists.txt", "linux/CMakeLists.txt"])
def test_parts_of_applications_that_others_configure_are_left_to_them(path: str) -> None:
    """The Android and Flutter tools call CMake with variables that only they know."""
    text = PLAIN if "src/main" in path else PLAIN + "set(FLUTTER_MANAGED_DIR x)"

    assert projects_of({path: text}) == {}


HOSTILE = {
    "an unbalanced quote": PLAIN + 'set(A "' + "x" * 900_000,
    "open parentheses": PLAIN + "if(" * 300_000,
    "closed parentheses": PLAIN + ")" * 900_000,
    "brackets without an end": PLAIN + "".join(f"[{'=' * (i % 1500)}[" for i in range(1200)) + "#[[" * 100_000,
    "one huge line": PLAIN + "x" * 1_000_000,
    "a million commands": PLAIN + "a()\n" * 240_000,
    "dots": PLAIN + f"a({'../' * 300_000})",
    "underscores": PLAIN + f"option({'A_' * 400_000} x OFF)",
    "backslashes": PLAIN + "\\" * 1_000_000,
    "zeros": PLAIN + "\0" * 100_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_list_costs_little_and_is_still_a_project(text: str) -> None:
    """What is broken is for CMake to say; reading it takes time linear in its size."""
    start = time.process_time()

    found = projects_of({"CMakeLists.txt": text})

    assert list(found) == ["cmake:."]
    assert time.process_time() - start < 5


def test_projects_that_add_each_other_are_both_found() -> None:
    """A circle is no reason for silence."""
    files = {
        "a/CMakeLists.txt": PLAIN + "add_subdirectory(../b b)",
        "b/CMakeLists.txt": PLAIN + "add_subdirectory(../a a)",
    }

    assert sorted(projects_of(files)) == ["cmake:a", "cmake:b"]


def test_a_symbolic_link_is_no_list() -> None:
    """Its contents are a path, and where that leads is not known."""
    assert projects_of({"CMakeLists.txt": "../evil"}, {"CMakeLists.txt": "120000"}) == {}


@pytest.mark.slow
def test_two_thousand_projects_are_found_in_seconds() -> None:
    """No loop over all files for each project."""
    files = {f"libs/l{i}/CMakeLists.txt": PLAIN + f"add_subdirectory(../l{i // 2} x)" for i in range(2000)}
    start = time.process_time()

    found = projects_of(files)

    assert len(found) == 2000
    assert time.process_time() - start < 5
