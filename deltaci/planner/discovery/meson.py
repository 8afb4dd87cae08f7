"""Meson: a meson.build that begins with `project()`; setup, compile, and the tests that it registers.

Rule: a directory below `subprojects` is a dependency that was put there; any other nested project stands alone, since
Meson takes no second `project()` in.
"""

import re
from typing import Final

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery import native
from deltaci.planner.discovery.project import Tree, is_left_out, join, parent

SOURCES: Final = native.SOURCES
MANIFESTS: Final = ("meson.build",)
STRUCTURE: Final = (*MANIFESTS, "meson_options.txt", "meson.options", "*.wrap")
FILES_READ_MAX: Final = 5_000
BUILD: Final = "builddir"
_PROJECT: Final = re.compile(r"(?:\s|#[^\n]*+(?:\n|$))*+project\s*+\(")
_VERSION: Final = re.compile(r"\bmeson_version\s*+:\s*+'([^'\n]{1,50})'")
_TEST: Final = re.compile(r"(?:^|\.)[ \t]*+test[ \t]*+\(", re.MULTILINE)
_TEXT: Final = re.compile(r"'[^'\n]*'")


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell: those nearest to the root if there are very many."""
    return _meson_files(tree, manifests)


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The Meson projects of this repository's own."""
    read = _meson_files(tree, manifests)
    own = [path for path in manifests if "subprojects" not in path.split("/")]
    candidates = {parent(path) for path in own if _PROJECT.match(tree.text(path)) is not None}
    roots: set[str] = set()
    for root in sorted(candidates, key=lambda root: (0 if root == "." else root.count("/") + 1, root)):
        above = _nearest(parent(root), roots) if root != "." else None
        if above is None or not native.is_trial(root if above == "." else root.removeprefix(above + "/")):
            roots.add(root)
    parts: dict[str, list[str]] = {root: [] for root in roots}
    for path in read:
        top = _nearest(parent(path), roots)
        if top is not None and "subprojects" not in path.split("/"):
            parts[top].append(path)
    wraps: dict[str, list[str]] = {}
    for path in tree.files.paths if roots else ():
        if path.endswith(".wrap"):
            wraps.setdefault(parent(path), []).append(path)
    is_cut = len(read) == FILES_READ_MAX
    return [
        _project(tree, root, parts[root], wraps.get(join(root, "subprojects"), []), is_cut) for root in sorted(roots)
    ]


def _meson_files(tree: Tree, manifests: list[str]) -> list[str]:
    """All of Meson's files, those below tests included, since that is where tests are registered."""
    if not manifests:
        return []
    found = [p for p in tree.files.paths if p.rpartition("/")[2] == "meson.build" and tree.files.is_file(p)]
    return sorted(found, key=lambda path: (is_left_out(path), path.count("/"), path))[:FILES_READ_MAX]


def _nearest(directory: str, roots: set[str]) -> str | None:
    while directory not in roots and directory != ".":
        directory = parent(directory)
    return directory if directory in roots else None


def _project(tree: Tree, root: str, parts: list[str], wraps: list[str], is_cut: bool) -> Project:
    manifest = join(root, "meson.build")
    version = _VERSION.search(tree.text(manifest))
    has_tests = is_cut or any(_TEST.search(tree.text(path)) is not None for path in parts)
    steps = [
        Step(name="Set up", run=f"meson setup {BUILD}", workdir=root),
        Step(name="Compile", run=f"meson compile -C {BUILD}", workdir=root),
    ]
    if has_tests:
        steps.append(Step(name="Test", run=f"meson test -C {BUILD} --print-errorlogs", workdir=root))
    # Archives that wrap files name with their hashes, which Meson checks again whenever it takes one from there.
    cache = CacheRule(name="meson", paths=(join(root, "subprojects/packagecache"),), inputs=tuple(wraps))
    reads = {
        target
        for path in parts
        if ".." in tree.text(path)
        for target in native.upward(_TEXT.findall(tree.text(path)), parent(path))
    }
    job = ProjectJob(
        check="test" if has_tests else "build",
        steps=tuple(steps),
        env={"CI": "true"},
        caches=(cache,) if wraps else (),
        reports=(join(root, f"{BUILD}/meson-logs/testlog.junit.xml"),) if has_tests else (),
    )
    return Project(
        ecosystem="meson",
        root=root,
        manifest=manifest,
        jobs=(job,),
        tools={"meson": version[1]} if version is not None else {},
        reads=native.outside(reads, root),
    )
