"""CMake: a CMakeLists.txt with `project()` that no other one takes in; configure, build and ctest beside the sources.

Rule 1: CMake's language is read word by word and never evaluated. A directory that is added by a computed name may be
any below, so that what has such a name above it belongs to the project above.
Rule 2: tests that are off by default are turned on where the option that does it is written out: a run without a
single test says nothing.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery import native
from deltaci.planner.discovery.project import Tree, inside, is_left_out, join, parent, table
from deltaci.planner.errors import PlanFailed

SOURCES: Final = native.SOURCES | {".cmake"}
MANIFESTS: Final = ("CMakeLists.txt",)
STRUCTURE: Final = (*MANIFESTS, "*.cmake", "CMakePresets.json")
FILES_READ_MAX: Final = 5_000
TEST_OPTIONS_MAX: Final = 8
_LONGEST_BRACKET: Final = 8
_TOKEN: Final = re.compile(
    r"\s++|(?P<parenthesis>[()])|(?P<comment>#)(?P<long>\[=*+\[)?|(?P<bracket>\[=*+\[)"
    r'|"(?P<string>[^"\\]*+(?:\\.[^"\\]*+)*+)"|(?P<word>(?:[^\s()#"\\]|\\.)++)',
    re.DOTALL,
)
_HERE: Final = ("${CMAKE_CURRENT_SOURCE_DIR}/", "${CMAKE_CURRENT_LIST_DIR}/")
_TOP: Final = ("${PROJECT_SOURCE_DIR}/", "${CMAKE_SOURCE_DIR}/")
_TESTS: Final = frozenset(
    {"enable_testing", "add_test", "gtest_discover_tests", "gtest_add_tests", "catch_discover_tests"}
    | {"doctest_discover_tests", "boost_discover_tests", "ecm_add_test", "ecm_add_tests"}
)
# Commands one of whose arguments may be the directory of another project.
_TAKES_IN: Final = ("subdir", "externalproject_add", "fetchcontent_declare", "try_compile", "add_test")
_TEST_OPTION: Final = re.compile(r"(?:\w*_)?(?:BUILD|ENABLE)_(?:UNIT_?)?TEST(?:S|ING)?", re.IGNORECASE)
_LEVELS_MAX: Final = 16
_VERSION: Final = re.compile(r"(\d{1,4}(?:\.\d{1,6}){0,3})(?:\.\.\..*)?")
_PRESET: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_GENERATORS: Final = (None, "Ninja", "Unix Makefiles")
# Parts of applications that another tool configures with variables that only it knows.
_DRIVEN_BY_OTHERS: Final = re.compile(r"\bFLUTTER_|\bflutter\b|\bANDROID_ABI\b|REACT_ANDROID|ReactAndroid")


class _File(msgspec.Struct):
    """What one file says. `adds` are directories from the root, `adds_computed` tells whether there may be more."""

    has_project: bool = False
    has_tests: bool = False
    is_driven: bool = False
    adds_computed: bool = False
    version: str | None = None
    adds: set[str] = msgspec.field(default_factory=set)
    reads: set[str] = msgspec.field(default_factory=set)
    test_options: set[str] = msgspec.field(default_factory=set)
    off: set[str] = msgspec.field(default_factory=set)
    tests_hang_on: set[str] = msgspec.field(default_factory=set)


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell: those nearest to the root if there are very many."""
    return _cmake_files(tree, manifests) + [join(parent(path), "CMakePresets.json") for path in manifests]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The outermost CMake projects, and those inside them that they do not take in."""
    if not manifests:
        return []
    read = _cmake_files(tree, manifests)
    files = {path: _look(path, tree.text(path)) for path in read}
    candidates = {parent(path) for path in manifests if path in files and files[path].has_project}
    tops = _tops(candidates, files)
    parts: dict[str, list[str]] = {root: [] for root in tops}
    for path in read:
        top = _nearest(parent(path), tops)
        if top is not None:
            parts[top].append(path)
    is_cut = len(read) == FILES_READ_MAX
    driven = {root for root in tops if any(files[path].is_driven for path in parts[root]) or "/src/main/" in root}
    return [
        _project(tree, root, [(path, files[path]) for path in parts[root]], tops, is_cut)
        for root in sorted(tops - driven)
    ]


def _cmake_files(tree: Tree, manifests: list[str]) -> list[str]:
    """All files of CMake's, those below tests included, since that is where tests are added."""
    if not manifests:
        return []
    found = [path for path in tree.files.paths if _is_cmake(path) and tree.files.is_file(path)]
    return sorted(found, key=lambda path: (is_left_out(path), path.count("/"), path))[:FILES_READ_MAX]


def _is_cmake(path: str) -> bool:
    return path.endswith(".cmake") or path.rpartition("/")[2] == "CMakeLists.txt"


# ---- which are projects --------------------------------------------------------------------------------------------


def _tops(candidates: set[str], files: dict[str, _File]) -> set[str]:
    """The candidates that no other one takes in."""
    adders: dict[str, set[str]] = {}
    computed: set[str] = set()
    for path, file in files.items():
        for directory in file.adds:
            adders.setdefault(directory, set()).add(parent(path))
        if file.adds_computed:
            directory = parent(path)
            # A function of a module is called from anywhere in the project that the module is part of.
            computed.add(directory if path.endswith("CMakeLists.txt") else _nearest(directory, candidates) or directory)
    tops: set[str] = set()
    for root in sorted(candidates, key=lambda root: (0 if root == "." else root.count("/") + 1, root)):
        above = _nearest(parent(root), tops) if root != "." else None
        if above is None or not _is_part(root, above, adders.get(root, set()), computed):
            tops.add(root)
    return tops


def _is_part(root: str, above: str, adders: set[str], computed: set[str]) -> bool:
    if any(native.is_within(adder, above) and not native.is_within(adder, root) for adder in adders):
        return True
    if native.is_trial(root if above == "." else root.removeprefix(above + "/")):
        return True
    directory = root
    while directory != above:
        directory = parent(directory)
        if directory in computed:
            return True
    return False


def _nearest(directory: str, roots: set[str]) -> str | None:
    while directory not in roots and directory != ".":
        directory = parent(directory)
    return directory if directory in roots else None


# ---- one project ---------------------------------------------------------------------------------------------------


def _project(tree: Tree, root: str, parts: list[tuple[str, _File]], tops: set[str], is_cut: bool) -> Project:
    manifest = join(root, "CMakeLists.txt")
    own = next(file for path, file in parts if path == manifest)
    others = {path for _, file in parts for path in file.adds if not native.is_within(path, root)}
    reads = others | {path for _, file in parts for path in file.reads}
    return Project(
        ecosystem="cmake",
        root=root,
        manifest=manifest,
        jobs=(_job(tree, root, parts, is_cut),),
        tools={"cmake": f">={own.version}"} if own.version is not None else {},
        depends_on_roots=frozenset(others & tops),
        reads=native.outside(reads, root),
    )


def _job(tree: Tree, root: str, parts: list[tuple[str, _File]], is_cut: bool) -> ProjectJob:
    # Not among files that somebody keeps in a directory of that name.
    build = "build" if not tree.files.is_directory(join(root, "build")) else "cmake-build"
    own = [file for path, file in parts if not is_left_out(path)]
    off = {name for file in own for name in file.off}
    hang_on = {name for file in own for name in file.tests_hang_on if name in off}
    options = sorted(hang_on.union(*(file.test_options for file in own)))
    preset = _preset(tree, root)
    configure = f"cmake --preset {preset} -B {build}" if preset is not None else f"cmake -S . -B {build}"
    configure += "".join(f" -D{name}=ON" for name in options[:TEST_OPTIONS_MAX])
    steps = [
        Step(name="Configure", run=configure, workdir=root),
        Step(name="Build", run=f"cmake --build {build} --parallel", workdir=root),
    ]
    has_tests = is_cut or any(file.has_tests for _, file in parts)
    if has_tests:
        # ctest takes the path of the report from the directory of the build.
        run = f"ctest --test-dir {build} --output-on-failure --output-junit junit.xml"
        steps.append(Step(name="Test", run=run, workdir=root))
    return ProjectJob(
        check="test" if has_tests else "build",
        steps=tuple(steps),
        env={"CI": "true"},
        reports=(join(root, f"{build}/junit.xml"),) if has_tests else (),
    )


def _preset(tree: Tree, root: str) -> str | None:
    """The name of the only preset to configure with, if any machine can use it; CMake reads presets when asked only."""
    try:
        content = tree.json(join(root, "CMakePresets.json"))
    except PlanFailed:
        return None
    presets = content.get("configurePresets")
    listed: list[dict[str, Any]] = (
        [each for each in presets if isinstance(each, dict)] if isinstance(presets, list) else []
    )
    visible = [each for each in listed if each.get("hidden") is not True]
    if len(visible) != 1 or "include" in content or table(visible[0], "condition"):
        return None
    name, generator = visible[0].get("name"), visible[0].get("generator")
    is_plain = isinstance(name, str) and _PRESET.fullmatch(name) is not None and generator in _GENERATORS
    inherits_little = all(each.get("generator") in _GENERATORS and not table(each, "condition") for each in listed)
    return shlex.quote(str(name)) if is_plain and inherits_little else None


# ---- what a file says ----------------------------------------------------------------------------------------------


def _look(path: str, text: str) -> _File:
    file = _File(is_driven=_DRIVEN_BY_OTHERS.search(text) is not None)
    directory = parent(path)
    for name, arguments in _commands(text):
        if name == "project":
            file.has_project = True
        elif name in _TESTS or (name == "include" and arguments[:1] == ["CTest"]):
            file.has_tests = True
        elif name == "cmake_minimum_required" and file.version is None:
            file.version = next((m[1] for m in map(_VERSION.fullmatch, arguments) if m is not None), None)
        elif name == "option" and arguments[2:3] in ([], ["OFF"]):
            file.off.update(arguments[:1])
            file.test_options.update(each for each in arguments[:1] if _TEST_OPTION.fullmatch(each) is not None)
        elif name == "cmake_dependent_option" and len(arguments) >= 4 and _TEST_OPTION.fullmatch(arguments[0]):
            if arguments[2] == "OFF":
                file.test_options.add(arguments[0])
            # All of these have to be on for the option to be there; what is negated or compared is left as it is.
            file.tests_hang_on.update(each.strip() for each in arguments[3].split(";"))
        if any(mark in name for mark in _TAKES_IN):
            _take_in(name, arguments, directory, file)
        file.reads |= native.upward(arguments, directory)
    return file


def _take_in(name: str, arguments: list[str], directory: str, file: _File) -> None:
    names_directory = "subdir" in name
    for argument in arguments[:1] if names_directory else arguments:
        target = argument
        for prefix in _HERE:
            target = target.removeprefix(prefix)
        bases = [directory]
        for prefix in _TOP:
            if target.startswith(prefix):
                # Which directory that is depends on who asks: any from here up to the root.
                target = target.removeprefix(prefix)
                while bases[-1] != "." and len(bases) < _LEVELS_MAX:
                    bases.append(parent(bases[-1]))
                file.adds_computed = file.adds_computed or (names_directory and bases[-1] != ".")
        if "$" in target:
            file.adds_computed = file.adds_computed or names_directory
        else:
            file.adds.update(path for base in bases if (path := inside(base, target)) is not None and path != directory)


def _commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """The commands, names in lower case, with all words between their parentheses; ends where the text is broken."""
    name, arguments, depth = "", list[str](), 0
    for kind, word in _tokens(text):
        if kind == "parenthesis":
            depth += 1 if word == "(" else -1
            if depth <= 0:
                if depth == 0 and name:
                    yield name, arguments
                name, arguments, depth = "", [], 0
        elif depth:
            arguments.append(word)
        elif kind == "word":
            name, arguments = word.lower(), []


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    position, unclosed = 0, set[str]()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return  # a string without an end
        kind, position = match.lastgroup, match.end()
        opened = match["long"] or match["bracket"]
        if opened is not None:
            closing = opened.replace("[", "]")
            is_possible = len(opened) <= _LONGEST_BRACKET and closing not in unclosed
            end = text.find(closing, position) if is_possible else -1
            if end >= 0:
                if kind == "bracket":
                    yield "string", text[position:end]
                position = end + len(closing)
                continue
            unclosed.add(closing)
        if match["comment"] is not None:
            end = text.find("\n", position)
            position = end if end >= 0 else len(text)
        elif kind is not None:
            yield kind, match[kind] if kind != "bracket" else opened or ""
