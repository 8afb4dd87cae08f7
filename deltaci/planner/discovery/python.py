"""Python: an environment inside the checkout, dependencies by lock file, linters that are configured, the tests.

Rule 1: something installable is a project, and so is each member of a uv workspace, wherever it is. Requirements and
settings alone are one where no project above has what is there, or where tests are.
Rule 2: each file is given to its nearest project once; nothing here goes through all files for each project.
"""

import fnmatch
import re
from collections.abc import Mapping, Sequence
from typing import Final

from deltaci.domain.plan import Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery import python_checks as checks
from deltaci.planner.discovery.project import Tree, join, parent, table, texts
from deltaci.planner.discovery.python_checks import HOOKS, REPORT, Own
from deltaci.planner.discovery.python_environment import LOCKS, VERSIONS, Environment
from deltaci.planner.discovery.python_files import Declared, requirements, version_text
from deltaci.planner.discovery.workspace import (
    Nearest,
    ancestors,
    below,
    directory,
    left_out_manifests,
    members,
    split_targets,
)

SOURCES: Final = frozenset({".py", ".pyi"})
MANIFESTS: Final = (
    *("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "requirements.in", "Pipfile"),
    *("tox.ini", "noxfile.py"),
)
# The first of a row that is there is installed; one compiled from another comes before it.
REQUIREMENTS: Final = (
    ("requirements.txt", "requirements.in", "requirements/base.txt", "requirements/main.txt"),
    ("requirements-dev.txt", "requirements_dev.txt", "dev-requirements.txt", "dev_requirements.txt"),
    ("requirements-dev.in", "dev-requirements.in"),
    ("requirements-test.txt", "requirements-tests.txt", "requirements_test.txt", "test-requirements.txt"),
    ("test_requirements.txt", "tests_requirements.txt", "requirements-testing.txt"),
    ("requirements/dev.txt", "requirements/development.txt", "requirements/local.txt", "requirements/dev.in"),
    ("requirements/test.txt", "requirements/tests.txt", "requirements/testing.txt", "requirements/test.in"),
    ("tests/requirements.txt", "test/requirements.txt"),
)
SETTINGS: Final = ("pytest.ini", ".pytest.ini", *checks.MYPY_FILES, *checks.RUFF_FILES, "hatch.toml", "tox.toml", HOOKS)
_MARKERS: Final = (".flake8", ".isort.cfg", "pyrightconfig.json")
_REQUIREMENT_NAMES: Final = (
    *sorted({name.rpartition("/")[2] for row in REQUIREMENTS for name in row}),
    *("*requirements*.txt", "*requirements*.in", "constraints*.txt", "common.txt", "production.txt", "ci.txt"),
)
STRUCTURE: Final = (
    *(*MANIFESTS, *SETTINGS, *_MARKERS, *_REQUIREMENT_NAMES, *LOCKS, *VERSIONS),
    *("test_*.py", "*_test.py", "tests.py", "conftest.py", "__init__.py", "manage.py"),
)
TEST_FILES_READ_MAX: Final = 20
# In all projects together, if these are many; each has at least one read.
TEST_FILES_READ_ALL_MAX: Final = 4_000
# Requirement files and versions; beyond it, they are as good as empty.
LISTINGS_READ_MAX: Final = 10_000
_TEST_FILE: Final = re.compile(r"(?:test_.*|.*_test)\.py", re.DOTALL)
_REQUIREMENT_FILE: Final = re.compile("|".join(fnmatch.translate(name) for name in _REQUIREMENT_NAMES))
# In a directory above, they concern what is below.
_ABOVE: Final = (*checks.RUFF_FILES, *checks.MYPY_FILES, "pytest.ini", "conftest.py", *VERSIONS[:2])


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    if not manifests:
        return []
    left_out = left_out_manifests(tree, "pyproject.toml")
    roots = sorted({parent(path) for path in (*manifests, *left_out)})
    paths = [*manifests, *left_out]
    count = max(1, min(TEST_FILES_READ_MAX, TEST_FILES_READ_ALL_MAX // len(roots)))
    for own in _own(tree, roots).values():
        paths += own.tests[:count]
        paths += own.manage[:count]
    for root in roots:
        paths += [join(root, name) for name in (*MANIFESTS, *SETTINGS)]
    names = {*VERSIONS, HOOKS}
    listing = []
    around = {place for root in roots for place in (root, *ancestors(root))}
    for path in tree.files.paths:
        place, _, name = path.rpartition("/")
        # A `test.txt` may be anything, unless its directory says what it is, or may have what others include.
        is_listing = "requirement" in path or (place or ".") in around
        if name in names or (is_listing and _REQUIREMENT_FILE.match(name)):
            listing.append(path)
    return paths + listing[:LISTINGS_READ_MAX]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The Python projects among directories with a manifest, and the members of uv's workspaces."""
    if not manifests:
        return []
    return _Repository(tree, manifests).projects()


def _own(tree: Tree, roots: Sequence[str]) -> dict[str, Own]:
    """The files that tell of tests, by the nearest of `roots`."""
    nearest = Nearest(roots)
    found = {root: Own() for root in roots}
    for path in tree.files.paths:
        if not path.endswith(".py"):
            continue
        place, _, name = path.rpartition("/")
        root = nearest.root(place or ".")
        if root is None or not tree.files.is_file(path):
            continue
        own = found[root]
        if name == "conftest.py":
            own.conftests.append(path)
        elif name == "__init__.py":
            own.packages.append(path)
        elif name == "manage.py":
            own.manage.append(path)
        elif name == "tests.py":
            own.django_tests.append(path)
        elif _TEST_FILE.fullmatch(name):
            own.tests.append(path)
    return found


class _Repository:
    """All Python projects of one commit."""

    def __init__(self, tree: Tree, manifests: list[str]) -> None:
        self.tree = tree
        self.own_roots = sorted({parent(path) for path in manifests})
        self.pyprojects = sorted(
            {parent(path) for path in (*manifests, *left_out_manifests(tree, "pyproject.toml"))}
            & {parent(path) for path in tree.files.paths if path.endswith("pyproject.toml")}
        )
        self._declared: dict[str, Declared] = {}
        self._above: dict[str, frozenset[str]] = {}
        self.home = self._homes()
        self.roots, self.own = self._choose()
        self.known = frozenset(self.roots)

    def declared(self, root: str) -> Declared:
        """The files at `root`, parsed once."""
        if root not in self._declared:
            self._declared[root] = Declared(self.tree, root)
        return self._declared[root]

    def _homes(self) -> dict[str, str]:
        """Members of uv's workspaces, their roots included, to the root."""
        home: dict[str, str] = {}
        for root in self.own_roots:
            workspace = self.declared(root).uv.get("workspace")
            if not isinstance(workspace, dict):
                continue
            patterns = texts(workspace.get("members"))
            is_outside = any(".." in pattern.split("/") for pattern in patterns)
            candidates = self.pyprojects if is_outside else below(root, self.pyprojects)
            found = members(root, patterns, candidates) - members(root, texts(workspace.get("exclude")), candidates)
            for member in sorted({root, *found}):
                home.setdefault(member, root)
        return home

    def _choose(self) -> tuple[list[str], dict[str, Own]]:
        """The roots of projects, with the files of each; a directory that is none leaves its files to the one above."""
        candidates = sorted({*self.own_roots, *self.home})
        own = _own(self.tree, candidates)
        chosen = {root for root in candidates if self.declared(root).is_strong}
        chosen |= {root for root in self.home if "project" in self.declared(root).pyproject}
        strong_above = {place for root in chosen for place in ancestors(root)}
        for root in candidates:
            if root not in chosen and self._is_weak(root, own[root], chosen, strong_above):
                chosen.add(root)
        nearest = Nearest(chosen)
        merged = {root: Own() for root in sorted(chosen)}
        for root, files in own.items():
            at = nearest.root(root)
            if at is not None:
                into = merged[at]
                into.tests += files.tests
                into.conftests += files.conftests
                into.packages += files.packages
                into.manage += files.manage
                into.django_tests += files.django_tests
        return sorted(chosen), merged

    def _is_weak(self, root: str, own: Own, chosen: set[str], above_others: set[str]) -> bool:
        """Whether requirements or settings alone make a project; those for building pages do not."""
        if {"docs", "doc", "requirements"} & set(root.split("/")):
            return False
        if own.all():
            return True
        has_requirements = any(self.tree.has(root, name) for name in REQUIREMENTS[0][:2])
        if any(place in chosen for place in ancestors(root)):
            return False
        return has_requirements or (
            root not in above_others and bool(checks.linters_at(self.tree, self.declared(root)))
        )

    def projects(self) -> list[Project]:
        """Each of them."""
        inner = _inner(self.roots)
        return [self._project(root, inner.get(root, [])) for root in self.roots]

    def _project(self, root: str, inner: list[str]) -> Project:
        declared, tree = self.declared(root), self.tree
        home = self.home.get(root)
        workspace = self.declared(home) if home is not None else None
        direct = self._requirement_files(root)
        listed = requirements(tree, direct)
        environment = Environment(tree, declared, listed, direct, workspace)
        targets = declared.dependency_targets() | listed.targets
        projects, reads = split_targets(root, targets, self.known)
        reads |= {path for path in listed.files if not path.startswith("" if root == "." else root + "/")}
        if home is not None and home != root:
            reads.add(join(home, "pyproject.toml"))
        native = declared.native_root()
        if native is not None and native != root:
            projects.add(native)  # a crate: whatever ecosystem the project there is of
        manifest = tree.first(root, MANIFESTS)
        assert manifest is not None
        return Project(
            ecosystem="python",
            root=root,
            manifest=manifest,
            jobs=self._jobs(environment, inner),
            name=declared.name(),
            tools=self._tools(declared, workspace),
            depends_on_names=frozenset(declared.dependency_names() | listed.names),
            depends_on_roots=frozenset(projects),
            reads=frozenset(reads | self._reads_above(root)),
            lock=environment.lock,
        )

    def _requirement_files(self, root: str) -> list[str]:
        """The files to install from, without those that others are compiled from."""
        found = []
        for row in REQUIREMENTS:
            path = self.tree.first(root, row)
            is_compiled = path is not None and path.endswith(".in") and self.tree.files.is_file(path[:-3] + ".txt")
            if path is not None and not is_compiled:
                found.append(path)
        return found

    def _reads_above(self, root: str) -> frozenset[str]:
        """The settings above that count below."""
        found: set[str] = set()
        for above in ancestors(root):
            if above not in self._above:
                names = (*_ABOVE, *(("pyproject.toml", "setup.cfg", "tox.ini") if self._concerns_below(above) else ()))
                self._above[above] = frozenset(join(above, name) for name in names)
            found |= self._above[above]
        return frozenset(found)

    def _concerns_below(self, place: str) -> bool:
        if self.tree.first(place, MANIFESTS) is None:
            return False
        declared = self.declared(place)
        tools = {"ruff", "pytest", "black", "isort", "mypy"} & set(table(declared.pyproject, "tool"))
        return bool(tools or {"tool:pytest", "isort", "mypy"} & set(declared.setup_cfg) or "pytest" in declared.tox_ini)

    def _tools(self, declared: Declared, workspace: Declared | None) -> dict[str, str]:
        """The version of Python that is asked for, the nearest pin first, and that of uv."""
        found = {}
        python = self._pinned(declared.root) or declared.requires_python()
        if python is not None:
            found["python"] = python
        for each in (declared, workspace):
            version = None if each is None else version_text(each.uv.get("required-version"))
            if version is not None:
                found.setdefault("uv", version)
        return found

    def _pinned(self, root: str) -> str | None:
        for place in (root, *ancestors(root)):
            text = self.tree.text(join(place, ".python-version"))
            lines = [line.strip() for line in text.split("\n") if line.strip() and not line.startswith("#")]
            if lines:
                return version_text(lines[0])
            for line in self.tree.text(join(place, ".tool-versions")).split("\n"):
                words = line.split()
                if len(words) >= 2 and words[0] == "python":
                    return version_text(words[1])
            runtime = self.tree.text(join(place, "runtime.txt")).strip() if place == root else ""
            if runtime.startswith("python-"):
                return version_text(runtime.removeprefix("python-"))
        return None

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def _jobs(self, environment: Environment, inner: list[str]) -> tuple[ProjectJob, ...]:
        """Lint if a linter is configured; tests, or at least that it installs and compiles."""
        tree, declared, root = self.tree, environment.declared, environment.root
        own = self.own[root]
        pinned = checks.pins(tree, root)
        names = checks.linters_at(tree, declared) or self._inherited(root)
        jobs = []
        if names:
            steps = [*environment.install(names, pinned), *checks.lint_steps(tree, environment, names, pinned)]
            jobs.append(self._job("lint", environment, steps))
        elif root == "." and tree.has(root, HOOKS):
            run = ".cache/venv/bin/pre-commit run --all-files"
            jobs.append(
                self._job("lint", environment, [environment.helper("pre-commit"), environment.step("Lint", run)])
            )
        is_code = declared.is_strong or bool(own.all()) or bool(self._requirement_files(root))
        if is_code:
            how = checks.testing(tree, environment, own, inner)
            steps = checks.test_steps(environment, how, pinned)
            jobs.append(self._job("test", environment, steps, has_report=how.has_report))
        return tuple(jobs)

    def _inherited(self, root: str) -> list[str]:
        """Linters configured above, in a directory whose own project does not run them over all that is below."""
        for place in ancestors(root):
            if self.tree.first(place, (*MANIFESTS, *checks.RUFF_FILES, ".isort.cfg")) is not None:
                names = checks.inherited(checks.linters_at(self.tree, self.declared(place)))
                if names:
                    return [] if place in self.known else names
        return []

    def _job(self, check: str, environment: Environment, steps: list[Step], *, has_report: bool = False) -> ProjectJob:
        """A job with the download cache of the installer, kept inside the checkout."""
        root = environment.root
        manifests = [join(root, name) for name in MANIFESTS]
        return ProjectJob(
            check=check,
            steps=tuple(steps),
            env=environment.variables(),
            caches=(environment.cache(manifests),),
            reports=(join(root, REPORT),) if has_report else (),
        )


def _inner(roots: Sequence[str]) -> Mapping[str, list[str]]:
    """For each root those directly below it, with no other in between."""
    nearest = Nearest(roots)
    found: dict[str, list[str]] = {}
    for root in roots:
        outer = nearest.root(directory(root)) if root != "." else None
        if outer is not None:
            found.setdefault(outer, []).append(root)
    return found
