"""Python: an environment inside the checkout, dependencies by lock file, linters that are configured, the tests.

Tests run with pytest; with unittest only if the tests are written for it and nothing mentions pytest.
"""

import re
import shlex
from typing import Final

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.project import Tree, inside, is_left_out, join, parent, table, texts

SOURCES: Final = frozenset({".py", ".pyi"})
MANIFESTS: Final = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt")
REQUIREMENTS: Final = (
    *("requirements.txt", "requirements-dev.txt", "requirements_dev.txt", "dev-requirements.txt"),
    *("requirements-test.txt", "requirements_test.txt", "test-requirements.txt"),
    *("requirements/dev.txt", "requirements/test.txt", "requirements/tests.txt"),
)
SETTINGS: Final = ("pytest.ini", "tox.ini", "mypy.ini", ".mypy.ini")
STRUCTURE: Final = (
    *(*MANIFESTS, *SETTINGS, *(name.rsplit("/", 1)[-1] for name in REQUIREMENTS), "uv.lock", "poetry.lock"),
    *("ruff.toml", ".ruff.toml", "test_*.py", "*_test.py", "conftest.py", "__init__.py"),
)
TEST_FILES_READ_MAX: Final = 20
_DEVELOPMENT: Final = ("dev", "test", "tests", "testing")
_TEST_FILE: Final = re.compile(r"(?:^|/)(?:test_[^/]*|[^/]*_test)\.py$")
_UNITTEST: Final = re.compile(r"^[ \t]*(?:import|from)[ \t]+unittest\b", re.MULTILINE)
_REQUIREMENT_NAME: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]*)")
_REQUIREMENT_PATH: Final = re.compile(
    r"^[ \t]*+(?:-e|--editable)?+[ =]*+(\.{1,2}(?:/[^\s#\[;]*)?)[ \t]*(?:[#\[;].*)?$", re.MULTILINE
)


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    paths: list[str] = []
    for root in sorted({parent(path) for path in manifests}):
        paths += [join(root, name) for name in (*MANIFESTS, *REQUIREMENTS, *SETTINGS)]
        paths += _tests(tree, root, frozenset())[:TEST_FILES_READ_MAX]
    return paths


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The Python projects among directories with a manifest."""
    roots = [root for root in sorted({parent(path) for path in manifests}) if _is_project(tree, root)]
    return [_Builder(tree, root, frozenset(roots)).project() for root in roots]


def _is_project(tree: Tree, root: str) -> bool:
    """Something installable; or code with requirements, outside `docs`, whose requirements are for building pages."""
    pyproject = tree.toml(join(root, "pyproject.toml"))
    if tree.has(root, "setup.py") or "project" in pyproject or "poetry" in table(pyproject, "tool"):
        return True
    if "[metadata]" in tree.text(join(root, "setup.cfg")):
        return True
    has_code = any(path.endswith(".py") and not is_left_out(path) for path in tree.files.below(root))
    return has_code and not {"docs", "doc"} & set(root.split("/"))


def _tests(tree: Tree, root: str, other_roots: frozenset[str]) -> list[str]:
    """Test files of the project at `root`, without those of projects below it and of environments."""
    found = []
    for path in tree.files.below(root):
        if _TEST_FILE.search(path) and tree.files.is_file(path):
            directories = path.split("/")[:-1]
            is_foreign = any(
                name.startswith(".") or name in ("node_modules", "site-packages", "venv") for name in directories
            )
            if not is_foreign and _owner(path, other_roots, root) == root:
                found.append(path)
    return found


def _owner(path: str, roots: frozenset[str], default: str) -> str:
    directory = parent(path)
    while directory != "." and directory not in roots:
        directory = parent(directory)
    return directory if directory in roots else default


class _Builder:
    """Puts the jobs of one project together."""

    def __init__(self, tree: Tree, root: str, roots: frozenset[str]) -> None:
        self.tree = tree
        self.root = root
        self.pyproject = tree.toml(join(root, "pyproject.toml"))
        self.tests = _tests(tree, root, roots)
        self.requirements = [name for name in REQUIREMENTS if tree.has(root, name)]
        read = [*MANIFESTS, *REQUIREMENTS, *SETTINGS]
        self.mentioned = "\n".join(tree.text(join(root, name)) for name in read)
        self.uses_uv = self._lock("uv.lock") or "workspace" in table(self.pyproject, "tool", "uv")
        self.uses_poetry = not self.uses_uv and "poetry" in table(self.pyproject, "tool")

    def _lock(self, name: str) -> bool:
        """A lock here or, for a member of a workspace, above."""
        directory = self.root
        while not self.tree.has(directory, name):
            if directory == ".":
                return False
            directory = parent(directory)
        return "project" in self.pyproject

    def project(self) -> Project:
        """The project with its jobs and what it depends on."""
        manifest = self.tree.first(self.root, MANIFESTS)
        assert manifest is not None
        name = table(self.pyproject, "project").get("name") or table(self.pyproject, "tool", "poetry").get("name")
        return Project(
            ecosystem="python",
            root=self.root,
            manifest=manifest,
            jobs=self.jobs(),
            name=_normalized(name) if isinstance(name, str) else None,
            depends_on_names=frozenset(self._dependency_names()),
            depends_on_roots=frozenset(self._dependency_roots()),
        )

    def jobs(self) -> tuple[ProjectJob, ...]:
        """Lint if a linter is configured; tests, or at least that it installs and compiles."""
        ruff = self.tree.first(self.root, ("ruff.toml", ".ruff.toml")) is not None or bool(
            table(self.pyproject, "tool", "ruff")
        )
        mypy_table = table(self.pyproject, "tool", "mypy")
        mypy = (
            "mypy" in table(self.pyproject, "tool")
            or self.tree.first(self.root, ("mypy.ini", ".mypy.ini")) is not None
            or "[mypy]" in self.tree.text(join(self.root, "setup.cfg"))
        )
        jobs = []
        if ruff or mypy:
            tools = ["ruff"] * ruff + ["mypy"] * mypy
            steps = self.install(tools)
            if ruff:
                steps.append(self.step("Lint", self.run("ruff", "check .")))
            if ruff and "format" in table(self.pyproject, "tool", "ruff"):
                steps.append(self.step("Check the format", self.run("ruff", "format --check .")))
            if mypy:
                has_targets = any(key in mypy_table for key in ("files", "packages", "modules")) or (
                    not mypy_table and re.search(r"^files[ \t]*=", self.mentioned, re.MULTILINE) is not None
                )
                steps.append(self.step("Check the types", self.run("mypy", "" if has_targets else ".")))
            jobs.append(self.job("lint", steps))
        if not self.tests:
            steps = self.install([])
            steps.append(self.step("Compile", r"python3 -m compileall -q -x '(^|/)\.' ."))
        elif self.is_unittest():
            steps = self.install([])
            steps += [self.step("Test", self.run("python", f"-m unittest {line}")) for line in self._unittest_lines()]
        else:
            steps = [*self.install(["pytest"]), self.step("Test", self.run("pytest", ""))]
        jobs.append(self.job("test", steps))
        return tuple(jobs)

    def job(self, check: str, steps: list[Step]) -> ProjectJob:
        """A job with the download cache of the installer, kept inside the checkout."""
        names = [*MANIFESTS, *REQUIREMENTS, "uv.lock", "poetry.lock"]
        inputs = tuple(sorted({path for name in names for path in (join(self.root, name), name)}))
        tool, variable = ("uv", "UV_CACHE_DIR") if self.uses_uv else ("pip", "PIP_CACHE_DIR")
        cache = CacheRule(name=tool, paths=(join(self.root, f".cache/{tool}"),), inputs=inputs)
        env = {"CI": "true", variable: f".cache/{tool}", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        return ProjectJob(check=check, steps=tuple(steps), env=env, caches=(cache,))

    def step(self, name: str, run: str) -> Step:
        """A step in the directory of the project."""
        return Step(name=name, run=run, workdir=self.root)

    def run(self, tool: str, arguments: str) -> str:
        """The command line of a tool inside the project's environment."""
        if self.uses_uv:
            extra = "" if tool == "python" or self._mentions(tool) else f"--with {tool} "
            return f".venv/tools/bin/uv run --locked --all-extras {extra}{tool} {arguments}".rstrip()
        return f".venv/bin/{tool} {arguments}".rstrip()

    def install(self, tools: list[str]) -> list[Step]:
        """An environment in `.venv` with the project, what it needs for development, and `tools`."""
        steps = [self.step("Create the environment", "python3 -m venv .venv")]
        if self.uses_uv or self.uses_poetry:
            tool = "uv" if self.uses_uv else "poetry"
            script = f"python3 -m venv .venv/tools && .venv/tools/bin/python -m pip install {tool}"
            steps.append(self.step(f"Install {tool}", script))
            if self.uses_uv:
                steps.append(self.step("Install", ".venv/tools/bin/uv sync --locked --all-extras --inexact"))
                return steps
            script = "POETRY_VIRTUALENVS_IN_PROJECT=true .venv/tools/bin/poetry install --all-extras --no-interaction"
            steps.append(self.step("Install", script))
            missing = [tool for tool in tools if not self._mentions(tool)]
        else:
            missing = self._pip_arguments() + [tool for tool in tools if not self._mentions(tool)]
            if "--group" in missing:
                steps.append(self.step("Update pip", ".venv/bin/python -m pip install --upgrade 'pip>=25.1'"))
        if missing:
            quoted = " ".join(shlex.quote(argument) for argument in missing)
            steps.append(self.step("Install", f".venv/bin/python -m pip install {quoted}"))
        return steps

    def _pip_arguments(self) -> list[str]:
        arguments = [part for name in self.requirements for part in ("-r", name)]
        project = table(self.pyproject, "project")
        is_package = "build-system" in self.pyproject or self.tree.has(self.root, "setup.py")
        if is_package or "[metadata]" in self.tree.text(join(self.root, "setup.cfg")):
            extras = [extra for extra in _DEVELOPMENT if extra in table(project, "optional-dependencies")]
            arguments += ["-e", f".[{','.join(extras)}]" if extras else "."]
        elif project:
            # No build system: an application whose directory layout setuptools would refuse to guess.
            arguments += texts(project.get("dependencies"))
        for group in _DEVELOPMENT:
            if group in table(self.pyproject, "dependency-groups"):
                arguments += ["--group", group]
        return arguments

    def _mentions(self, tool: str) -> bool:
        """Whether a dependency list names the tool, in whatever file."""
        return re.search(rf"""(?:^|["'\s]){tool}(?:["'\s\[<>=~!;,]|$)""", self.mentioned, re.MULTILINE) is not None

    def is_unittest(self) -> bool:
        """Whether every test file that was read imports unittest and nothing asks for pytest."""
        if "pytest" in self.mentioned or any(
            path.endswith("/conftest.py") for path in self.tree.files.below(self.root)
        ):
            return False
        read = [self.tree.text(path) for path in self.tests[:TEST_FILES_READ_MAX]]
        return all(_UNITTEST.search(text) and "pytest" not in text for text in read)

    def _unittest_lines(self) -> list[str]:
        """One `discover` for each directory that another one would not reach: it walks into packages only."""
        lines: dict[tuple[str, str], None] = {}
        for path in self.tests:
            directory = parent(path)
            while directory != self.root and self.tree.has(directory, "__init__.py"):
                directory = parent(directory)
            prefix = "" if self.root == "." else self.root + "/"
            start = directory.removeprefix(prefix) if directory != self.root else "."
            pattern = "test_*.py" if path.rsplit("/", 1)[-1].startswith("test_") else "*_test.py"
            lines[(start, pattern)] = None
        return [f"discover -s {shlex.quote(start)} -p {shlex.quote(pattern)}" for start, pattern in lines]

    def _dependency_names(self) -> set[str]:
        project = table(self.pyproject, "project")
        named = texts(project.get("dependencies"))
        for group in (table(project, "optional-dependencies"), table(self.pyproject, "dependency-groups")):
            for each in group.values():
                named += texts(each)
        named += table(self.pyproject, "tool", "poetry", "dependencies")
        matches = (_REQUIREMENT_NAME.match(text) for text in named)
        return {_normalized(match[1]) for match in matches if match is not None}

    def _dependency_roots(self) -> set[str]:
        targets = [
            match[1]
            for name in self.requirements
            for match in _REQUIREMENT_PATH.finditer(self.tree.text(join(self.root, name)))
        ]
        sources = [
            table(self.pyproject, "tool", "uv", "sources"),
            table(self.pyproject, "tool", "poetry", "dependencies"),
        ]
        groups = table(self.pyproject, "tool", "poetry", "group").values()
        sources += [table(group, "dependencies") for group in groups]
        for source in sources:
            targets += [
                value["path"]
                for value in source.values()
                if isinstance(value, dict) and isinstance(value.get("path"), str)
            ]
        roots = {inside(self.root, target) for target in targets}
        return {root for root in roots if root is not None and root != self.root}


def _normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
