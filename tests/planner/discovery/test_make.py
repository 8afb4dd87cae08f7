"""Make and autotools: only where nothing else is found, and only what people type."""

import time

import pytest

from tests.planner.discovery.native_plans import checks, discovery_of, projects_of, running, runs

pytestmark = pytest.mark.anyio
NATIVE = "all: prog\n\nprog: a.o\n\t$(CC) -o $@ a.o\n\ntest: prog\n\t./run-tests\n"


def test_targets_that_people_type_become_jobs() -> None:
    """The default target builds, `test` tests, `lint` lints."""
    project = projects_of({"Makefile": NATIVE + ".PHONY: lint\nlint:\n\tclang-tidy a.c\n"})["make:."]

    assert runs(project, "test") == ["make", "make test"]
    assert runs(project, "lint") == ["make lint"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("help:\n\t@echo\nbuild:\n\tx\ncheck:\n\tx\n", {"test": ["make build", "make check"]}),
        ("default: all\nall:\n\tx\n", {"build": ["make all"]}),
        ("all: build test\nbuild:\n\tx\ntest:\n\tx\n", {"test": ["make build", "make test"]}),
        ("all: x test\ntest:\n\tx\n", {"test": ["make test"]}),
        (".DEFAULT_GOAL := build\nx:\n\ty\nbuild:\n\tx\n", {"build": ["make"]}),
        ("kilo: kilo.c\n\t$(CC) -o kilo kilo.c\n", {"build": ["make"]}),
        ("check test::\n\tx\n", {"test": ["make test"]}),
        ("test: export A = b\ntest: ; ./run\n", {"test": ["make test"]}),
        ("all test lint:\n\tcd src && $(MAKE) $@\n", {"test": ["make", "make test"], "lint": ["make lint"]}),
        ("all: x\nconfig %config: y\n\tx\n", {"build": ["make defconfig", "make"]}),
        ("deploy:\n\tx\n", None),
        ("test := a\nlint ::= b\nbuild = c: d\nifeq (a,b:c)\nendif\n", None),
        ("define x\ntest:\nendef\n", None),
        ("%.test: x\n$(T): y\n# test:\n\ttest: z\n", None),
        ("test: test.c\n\tcc test.c\n", None),
        ("build:\n\tmkdir -p $@\n", None),
        (".PHONY: build\nbuild:\n\tmkdir -p out\n", {"build": ["make"]}),
        ("PHONY += test\n.PHONY: $(PHONY)\ntest:\n\tmkdir -p out && ./run\n", {"test": ["make test"]}),
    ],
)
def test_only_targets_written_out_that_are_things_to_do_count(text: str, expected: dict[str, list[str]] | None) -> None:
    """Nothing is expanded, and a file that is made is no task."""
    found = projects_of({"Makefile": text})

    actual = {check: runs(project, check) for project in found.values() for check in checks(project)}
    assert actual == (expected or {})


@pytest.mark.parametrize(
    "recipe", ["cd src && $(MAKE) $@", "$(MAKE) -C src $@", "for d in $(DIRS); do $(MAKE) -C $$d $@; done"]
)
def test_a_makefile_that_hands_every_target_on_has_the_targets_of_where_it_goes(recipe: str) -> None:
    """The root of many C projects is nothing else."""
    text = f"DIRS = src\ndefault: all\n.DEFAULT:\n\t{recipe}\n"

    found = projects_of({"Makefile": text, "src/Makefile": NATIVE})

    assert {root: runs(project, "test") for root, project in found.items()} == {"make:.": ["make all", "make test"]}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["configure.ac", "configure", "Makefile.am"], ["./configure", "make", "make check"]),
        (
            ["configure.ac", "autogen.sh", "Makefile.am"],
            ["NOCONFIGURE=1 ./autogen.sh", "./configure", "make", "make check"],
        ),
        (
            ["configure.ac", "Makefile.am"],
            ["autoreconf --force --install", "./configure", "make", "make check"],
        ),
    ],
)
def test_a_project_of_autotools_is_configured_first(files: list[str], expected: list[str]) -> None:
    """What a release has and what a checkout has differ in the script that is generated."""
    project = projects_of(dict.fromkeys(files, "AM_INIT_AUTOMAKE([foreign])\n"))["make:."]

    assert runs(project, "test") == expected


def test_without_automake_only_a_template_tells_whether_there_are_tests() -> None:
    """`make check` of a target that is not there would fail."""
    without = projects_of({"configure.ac": "AC_INIT(a)", "configure": "", "Makefile.in": "all:\n\tx\n"})["make:."]
    with_tests = projects_of({"configure.ac": "AC_INIT(a)", "configure": "", "Makefile.in": "test:\n\tx\n"})["make:."]

    assert runs(without, "build") == ["./configure", "make"]
    assert runs(with_tests, "test") == ["./configure", "make", "make test"]


def test_a_makefile_that_needs_no_configuring_is_used_as_it_is() -> None:
    """Some repositories have configure.ac for those who want it."""
    project = projects_of({"configure.ac": "AC_INIT(a)", "Makefile": NATIVE})["make:."]

    assert runs(project, "test") == ["make", "make test"]


@pytest.mark.parametrize("manifest", ["go.mod", "CMakeLists.txt", "package.json"])
def test_beside_a_project_of_a_language_make_is_not_run(manifest: str) -> None:
    """It would run the same again; the plan says what it does not use."""
    contents = {"go.mod": "module a\n", "CMakeLists.txt": "project(a)", "package.json": "{}"}
    found = discovery_of({"a/Makefile": NATIVE, f"a/{manifest}": contents[manifest]})

    assert [each.ecosystem for each in found.projects if each.ecosystem == "make"] == []
    assert [(each.rule, each.file) for each in found.reasons] == [("task-runner-unused", "a/Makefile")]


def test_below_a_project_of_a_language_its_files_stay_its_own() -> None:
    """C sources inside a Go module are built by it: a change there must run the module."""
    assert list(projects_of({"go.mod": "module a\n", "ebpf/Makefile": NATIVE})) == ["go:."]


async def test_a_wrapper_above_projects_neither_runs_nor_takes_files_away() -> None:
    """A file in no project touches all of them, as if the Makefile were not there."""
    files = {"Makefile": "test:\n\tcd a && go test ./...\n\tcd b && npm test\n", "a/go.mod": "module a\n"}
    files |= {"b/package.json": '{"scripts": {"test": "x"}}'}

    assert await running(files, "proto/api.proto") == {"go-test (a)", "node-test (b)"}


async def test_a_program_of_its_own_above_another_project_is_a_project() -> None:
    """C at the root with a website below: each runs for its own files."""
    files = {"Makefile": NATIVE, "website/package.json": '{"scripts": {"test": "x"}}'}

    assert await running(files, "src/a.c") == {"make-test"}
    assert await running(files, "website/a.js") == {"node-test (website)"}


async def test_a_makefile_whose_tests_name_another_project_is_a_wrapper_even_if_it_compiles() -> None:
    """It would run that project again on each change of a file of its own."""
    files = {
        "Makefile": "test: tool\n\t$(MAKE) -C ./svc/a test\ntool:\n\tgcc -o tool tool.c\n",
        "svc/a/go.mod": "module a\n",
    }

    assert await running(files, "tool.c") == {"go-test (svc/a)"}


async def test_what_others_may_be_generated_from_is_no_project_of_its_own() -> None:
    """A directory of definitions with a Makefile but no tests concerns those who use it, all of them."""
    files = {"proto/Makefile": "all:\n\tprotoc a.proto\nlint:\n\tbuf lint\n", "a/go.mod": "module a\n"}
    files |= {"firmware/Makefile": NATIVE}

    assert await running(files, "proto/a.proto") == {"go-test (a)", "make-test (firmware)"}
    assert await running(files, "firmware/a.c") == {"make-test (firmware)"}


def test_only_the_outermost_makefile_runs_unless_it_has_no_tests() -> None:
    """It runs those below; one that only builds does not run the tests inside it."""
    tested = projects_of({"Makefile": NATIVE, "src/Makefile": NATIVE, "lib/Makefile": "all:\n\tx\n"})
    only_built = projects_of({"Makefile": "all:\n\tx\n", "src/Makefile": NATIVE, "lib/Makefile": "all:\n\tx\n"})

    assert list(tested) == ["make:."]
    assert list(only_built) == ["make:.", "make:src"]


@pytest.mark.parametrize("path", ["docs/Makefile", "tests/Makefile", "deps/lua/Makefile", "third_party/x/Makefile"])
def test_makefiles_for_pages_for_tests_and_of_others_are_no_projects(path: str) -> None:
    """They are in half of all repositories."""
    assert projects_of({path: NATIVE}) == {}


def test_sources_beside_a_makefile_are_read() -> None:
    """A build directory that compiles what is next to it."""
    project = projects_of({"unix/Makefile": NATIVE + "S = ../common/src\n# ../not\n"})["make:unix"]

    assert project.reads == {"common/src"}


def test_the_name_that_make_looks_for_first_wins() -> None:
    """As make itself decides it."""
    files = {"Makefile": "lint:\n\tx\n", "GNUmakefile": "test:\n\tx\n"}

    assert projects_of(files)["make:."].manifest == "GNUmakefile"


HOSTILE = {
    "a million targets": "".join(f"t{i}:\n" for i in range(110_000)),
    "one rule for very many targets": " ".join(f"a{i}" for i in range(60_000)) + ": " + "b " * 250_000 + "\n\tx\n",
    "a long recipe for many targets": "a b c d e f g h i j: x\n" + "\tx\n" * 300_000,
    "spaces": " " * 1_000_000,
    "spaces before a colon": "a" + " " * 900_000 + ":",
    "continued lines": "a \\\n" * 250_000,
    "a definition without an end": "define x\n" * 100_000,
    "a rule that needs itself": "test: test all\nall: test all\n" * 10_000,
    "a chain of needs": "".join(f"a{i}: a{i + 1}\n" for i in range(60_000)) + "all: a0\n",
    "colons": ":" * 1_000_000,
    "equal signs": "PHONY" + " " * 400_000 + "=" * 400_000,
    "a loop": ".DEFAULT:\n\tfor x in " + "a " * 400_000,
    "dots": "x = " + "../" * 300_000,
    "configurations": "config " * 140_000,
    "semicolons": "a: ;" + ";  " * 300_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_makefile_costs_little_beside_another_project(text: str) -> None:
    """It is read, judged against what was found, and the plan of the other project stands."""
    start = time.process_time()

    found = projects_of({"x/Makefile": text, "a/go.mod": "module a\n", "x/y/go.mod": "module y\n"})

    assert {"go:a", "go:x/y"} <= set(found)
    assert time.process_time() - start < 5


def test_a_makefile_too_large_to_read_fails_no_plan() -> None:
    """It was only a fallback; the plan says that it was not read."""
    found = discovery_of({"Makefile": "#" * (1024 * 1024 + 1), "a/go.mod": "module a\n"})

    assert [project.ecosystem for project in found.projects] == ["go"]
    assert [reason.rule for reason in found.reasons] == ["not-read"]


@pytest.mark.slow
def test_of_very_many_makefiles_those_nearest_to_the_root_are_read() -> None:
    """A collection of ports has tens of thousands; that is no reason to have no plan."""
    files = {f"ports/p{i}/Makefile": "x:\n" for i in range(6000)} | {"Makefile": NATIVE}

    found = discovery_of(files)

    assert [project.root for project in found.projects] == ["."]
    assert [reason.rule for reason in found.reasons] == ["not-read"]


def test_a_symbolic_link_is_no_makefile() -> None:
    """Its contents are a path, and where that leads is not known."""
    assert projects_of({"Makefile": "test:\n"}, {"Makefile": "120000"}) == {}


def test_a_makefile_that_hands_on_to_itself_ends() -> None:
    """No recursion, whatever it says."""
    found = projects_of({"Makefile": "test:\n\tx\n.DEFAULT:\n\t$(MAKE) -C . $@\n"})

    assert runs(found["make:."], "test") == ["make test"]
