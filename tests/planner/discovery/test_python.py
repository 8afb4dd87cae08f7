"""Python: who installs, what is linted, what runs the tests, and which projects there are."""

import random
import time

import pytest

from deltaci.planner.errors import PlanFailed
from tests.planner.discovered import anything, job_of, projects_of, runs_of, toml

PYTEST = ". .venv/bin/activate && pytest --junitxml=junit.xml"
UV = ".cache/venv/bin/uv"
PACKAGE = '[build-system]\nrequires = ["hatchling"]\n[project]\nname = "a"\n'


def runs(files: dict[str, str], check: str = "test", root: str = ".") -> list[str]:
    return runs_of(projects_of(files, "python")[root], check)


# ---- installing --------------------------------------------------------------------------------------------------


def test_a_package_with_pytest_and_linters_gets_both_jobs() -> None:
    """Linters only because they are configured; the environment inside the checkout, not in the runner."""
    text = """
[build-system]
requires = ["hatchling"]
[project]
name = "thing"
requires-python = ">=3.11"
[project.optional-dependencies]
dev = ["pytest", "mypy", "ruff"]
[tool.ruff.format]
[tool.mypy]
packages = ["thing"]
"""

    project = projects_of({"pyproject.toml": text, "tests/test_a.py": ""}, "python")["."]

    setup = ["python3 -m venv .venv", ".venv/bin/python -m pip install -e '.[dev]'"]
    lint = [".venv/bin/ruff check .", ".venv/bin/ruff format --check .", ".venv/bin/mypy"]
    assert runs_of(project, "lint") == [*setup, *lint]
    assert runs_of(project, "test") == [*setup, PYTEST]
    assert job_of(project, "test").caches[0].paths == (".cache/pip",)
    assert job_of(project, "test").reports == ("junit.xml",)
    assert project.tools == {"python": ">=3.11"}


@pytest.mark.parametrize(
    ("lock", "manifest", "install", "test"),
    [
        (
            {"uv.lock": ""},
            '[project]\nname="a"\n[dependency-groups]\ndev=["pytest"]',
            f"{UV} sync --locked --all-extras",
            f"{UV} run --no-sync pytest --junitxml=junit.xml",
        ),
        (
            {},
            '[project]\nname="a"\n[dependency-groups]\ntesting=["pytest"]\n[tool.uv]\nrequired-version=">=0.5"',
            f"{UV} sync --all-extras --group testing",
            f"{UV} run --no-sync pytest --junitxml=junit.xml",
        ),
        (
            {"uv.lock": ""},
            (
                '[project]\nname="a"\n[dependency-groups]\ntests=["pytest"]\n'
                'tests-random=["pytest", "pytest-randomly"]\n[tool.uv]\ndefault-groups=["tests"]'
            ),
            f"{UV} sync --locked --all-extras",
            f"{UV} run --no-sync pytest --junitxml=junit.xml",
        ),
        (
            {"uv.lock": ""},
            (
                '[project]\nname="a"\noptional-dependencies.test=["pytest"]\noptional-dependencies.gpu=["x"]\n'
                '[tool.uv]\nconflicts=[[{extra="gpu"}, {extra="test"}]]'
            ),
            f"{UV} sync --locked --extra test",
            f"{UV} run --no-sync pytest --junitxml=junit.xml",
        ),
        (
            {"poetry.lock": ""},
            '[tool.poetry]\nname="a"\n[tool.poetry.group.dev.dependencies]\npytest = "*"',
            "POETRY_VIRTUALENVS_IN_PROJECT=true .cache/venv/bin/poetry install --all-extras --no-interaction",
            PYTEST,
        ),
        (
            {},
            '[tool.poetry]\nname="a"\n[tool.poetry.group.qa]\noptional = true\ndependencies = {pytest = "*"}',
            "POETRY_VIRTUALENVS_IN_PROJECT=true .cache/venv/bin/poetry install --all-extras --no-interaction --with qa",
            PYTEST,
        ),
        (
            {"pdm.lock": ""},
            '[project]\nname="a"\n[tool.pdm.dev-dependencies]\ntest=["pytest"]',
            ".cache/venv/bin/pdm sync",
            PYTEST,
        ),
        (
            {"Pipfile": '[dev-packages]\npytest = "*"\n', "Pipfile.lock": ""},
            "",
            "PIPENV_VENV_IN_PROJECT=1 .cache/venv/bin/pipenv sync --dev",
            PYTEST,
        ),
    ],
)
def test_a_lock_file_or_a_tool_table_decides_who_installs(
    lock: dict[str, str], manifest: str, install: str, test: str
) -> None:
    """What was locked is what is tested; groups that have pytest are installed whatever they are called."""
    files = {**lock, "pyproject.toml": manifest, "test_a.py": ""}

    project = projects_of(files, "python")["."]

    assert runs_of(project, "test")[-2:] == [install, test]
    assert project.lock == next((path for path in lock if path.endswith("lock")), None)
    if project.lock is not None:
        assert job_of(project, "test").caches[0].inputs == tuple(
            sorted((".python-version", ".tool-versions", project.lock))
        )


def test_dependency_groups_are_installed_with_a_pip_that_knows_them() -> None:
    """PEP 735 needs pip 25.1; a group may include others."""
    text = (
        PACKAGE + '[dependency-groups]\nci=[{include-group="t"}, {include-group="ci"}]\nt=["pytest"]\ndocs=["sphinx"]'
    )

    assert runs({"pyproject.toml": text, "test_a.py": ""})[1:3] == [
        ".venv/bin/python -m pip install --upgrade 'pip>=25.1'",
        ".venv/bin/python -m pip install -e . --group ci --group t",
    ]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"requirements.txt": "", "requirements-dev.txt": "pytest"}, "-r requirements.txt -r requirements-dev.txt"),
        ({"requirements.in": "flask", "requirements.txt": "flask==3"}, "-r requirements.txt pytest"),
        ({"requirements.in": "flask"}, "-r requirements.in pytest"),
        (
            {"requirements.txt": "", "requirements/base.txt": "", "requirements/test.txt": "-r base.txt\npytest"},
            "-r requirements.txt -r requirements/test.txt",
        ),
        (
            {"setup.py": "", "tests/requirements.txt": "-r more.txt", "tests/more.txt": ""},
            "-r tests/requirements.txt -e . pytest",
        ),
        ({"setup.py": "extras_require={'test': ['pytest']}"}, "-e '.[test]'"),
        ({"setup.cfg": "[metadata]\nname = a\n[options.extras_require]\nqa =\n  pytest>=7\n  mock\n"}, "-e '.[qa]'"),
        ({"pyproject.toml": '[project]\nname="a"\ndependencies=["x>1", "--index-url=http://evil"]'}, "'x>1' pytest"),
        ({"setup.py": "", ".pre-commit-config.yaml": ""}, "-e . pytest"),
    ],
)
def test_pip_installs_what_the_files_of_a_repository_are_known_to_mean(files: dict[str, str], expected: str) -> None:
    """pytest is added where no list names it."""
    assert runs({**files, "test_a.py": ""})[1] == f".venv/bin/python -m pip install {expected}"


def test_pins_of_hooks_count_for_linters_that_no_list_names() -> None:
    """A formatter of another version would complain about what its maintainers never saw."""
    hooks = "repos:\n- repo: https://github.com/psf/black-pre-commit-mirror\n  rev: 24.3.0\n  hooks: [{id: black}]\n"
    text = PACKAGE + "[tool.black]\n[tool.isort]\n"
    files = {"pyproject.toml": text, ".pre-commit-config.yaml": hooks, "Makefile": "lint:\n\tisort -c .\n"}

    assert runs(files, "lint")[1:] == [
        ".venv/bin/python -m pip install -e . black==24.3.0 isort",
        ".venv/bin/black --check .",
        ".venv/bin/isort --check-only --extend-skip=.cache .",
    ]


def test_a_linter_is_not_installed_in_the_place_of_itself() -> None:
    """The repository of black checks its format with what is in it."""
    text = PACKAGE.replace('"a"', '"black"') + "[tool.black]\n"

    assert runs({"pyproject.toml": text}, "lint")[1:] == [
        ".venv/bin/python -m pip install -e .",
        ".venv/bin/black --check .",
    ]


# ---- linters -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["pkg/__init__.py", "pkg/sub/__init__.py", "tests/__init__.py", "benchmarks/__init__.py"], "mypy pkg"),
        (["src/a/__init__.py", "src/b/__init__.py", "docs/__init__.py"], "mypy src"),
        (["a/__init__.py", "b c/__init__.py"], "mypy a 'b c'"),
        (["module.py"], "mypy ."),
        ([f"p{number}/__init__.py" for number in range(6)], "mypy ."),
        (["-x/__init__.py"], "mypy ."),
    ],
)
def test_types_are_checked_of_the_packages_where_nothing_says_of_what(paths: list[str], expected: str) -> None:
    """What tests and measures them is seldom meant; who wants it checked, says so in `files`."""
    files = {"setup.py": "", "mypy.ini": "[mypy]\nstrict = true\n", **dict.fromkeys(paths, "")}

    assert runs(files, "lint")[2:] == [f".venv/bin/{expected}"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"setup.cfg": "[flake8]\n"}, ["flake8 --extend-exclude=.venv,.cache ."]),
        ({"tox.ini": "[flake8]\n"}, ["flake8 --extend-exclude=.venv,.cache ."]),
        ({"mypy.ini": "[mypy]\nfiles = a\n"}, ["mypy"]),
        ({"setup.cfg": "[mypy]\nstrict = true\n"}, ["mypy ."]),
        ({"pyrightconfig.json": "", "noxfile.py": "def lint(s):\n    s.run('pyright')\n"}, ["pyright"]),
        ({"ruff.toml": "[format]\n"}, ["ruff check .", "ruff format --check ."]),
        ({"ruff.toml": "fix = true\n"}, ["ruff check --no-fix ."]),
        ({"pyproject.toml": "[tool.ruff]\nfix = true\n", "setup.py": ""}, ["ruff check --no-fix ."]),
    ],
)
def test_linters_run_because_they_are_configured(files: dict[str, str], expected: list[str]) -> None:
    """Wherever their settings may be."""
    assert runs({"setup.py": "", **files}, "lint")[2:] == [f".venv/bin/{line}" for line in expected]


@pytest.mark.parametrize(
    ("rev", "version"), [(f"{'4e' * 20}  # frozen: v0.16.0", "==0.16.0"), ("4e" * 20, ""), ("'v0.5.1'", "==0.5.1")]
)
def test_hooks_of_a_commit_count_with_the_version_that_is_said_beside_it(rev: str, version: str) -> None:
    """A commit alone says of no version; that the hook is there says that the linter is in use."""
    hooks = (
        f"repos:\n- repo: https://github.com/astral-sh/ruff-pre-commit\n  rev: {rev}\n  hooks: [{{id: ruff-check}}]\n"
    )
    files = {"pyproject.toml": PACKAGE + "[tool.ruff]\n", ".pre-commit-config.yaml": hooks}

    assert runs(files, "lint")[1:] == [f".venv/bin/python -m pip install -e . ruff{version}", ".venv/bin/ruff check ."]


@pytest.mark.parametrize("stages", ["[manual]", "\n    - manual"])
def test_a_hook_for_those_who_ask_is_asked_for(stages: str) -> None:
    """Without its stage, there would be no hook of that name."""
    hooks = (
        "repos:\n- repo: https://github.com/pre-commit/mirrors-mypy\n  rev: v1.9.0\n  hooks:\n"
        f"  - id: mypy\n    exclude: docs/\n    stages: {stages}\n  - id: other\n"
    )
    files = {"pyproject.toml": PACKAGE + "[tool.mypy]\n", ".pre-commit-config.yaml": hooks}

    assert runs(files, "lint")[-1] == ".cache/venv/bin/pre-commit run --hook-stage manual mypy --all-files"


RIVALS = "[project]\nname = 'a'\n[dependency-groups]\ndev = ['ruff']\n[tool.ruff]\n[tool.black]\n[tool.isort]\n"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, ["ruff"]),
        ({"tox.ini": "[testenv:style]\ncommands = black --check .\n"}, ["ruff", "black"]),
        ({"Makefile": "lint:\n\tisort -c .\n"}, ["ruff", "isort"]),
        ({".github/workflows/ci.yml": "steps:\n- uses: psf/black@stable\n"}, ["ruff", "black"]),
        ({"pyrightconfig.json": "{}"}, ["ruff"]),
        ({"pyrightconfig.json": "{}", ".github/workflows/ci.yml": "- run: pyright\n"}, ["ruff", "pyright"]),
        ({"tox.ini": "[testenv]\ndeps = blackbox\n"}, ["ruff"]),
        ({"tox.ini": "[flake8]\n[testenv:style]\ncommands =\n    flake8 a\n"}, ["ruff", "flake8"]),
    ],
)
def test_settings_of_a_linter_that_nobody_runs_any_more_run_nothing(more: dict[str, str], expected: list[str]) -> None:
    """Another one took its place and its settings stayed; whatever names it as a command keeps it."""
    lines = runs({"pyproject.toml": RIVALS, **more}, "lint")

    assert [line.split()[0].rpartition("/")[2] for line in lines if "python" not in line] == expected


def test_a_linter_that_only_hooks_run_leaves_out_what_they_leave_out() -> None:
    """Run on everything it would fail on the data of tests; one that a list names is run as ever."""
    hooks = "repos:\n- repo: https://github.com/psf/black\n  rev: 24.3.0\n  hooks:\n  - id: black\n"
    hooks += (
        "- repo: https://github.com/pycqa/flake8\n  rev: 7.3.0\n  hooks:\n  - id: flake8\n    exclude: ^tests/data/\n"
    )
    text = PACKAGE + 'optional-dependencies.dev = ["black"]\n[tool.black]\n'
    files = {"pyproject.toml": text, ".flake8": "", ".pre-commit-config.yaml": hooks}

    assert runs(files, "lint")[1:] == [
        ".venv/bin/python -m pip install -e '.[dev]'",
        ".venv/bin/black --check .",
        "python3 -m venv .cache/venv && .cache/venv/bin/python -m pip install pre-commit",
        ".cache/venv/bin/pre-commit run flake8 --all-files",
    ]
    assert runs({**files, "pyproject.toml": PACKAGE}, "lint")[0].endswith("pip install pre-commit")
    without = files | {".pre-commit-config.yaml": hooks.replace("    exclude: ^tests/data/\n", "")}
    assert runs(without, "lint")[-1] == ".venv/bin/flake8 --extend-exclude=.venv,.cache ."


def test_hooks_run_only_where_no_linter_is_configured() -> None:
    """They are what a maintainer has then; otherwise they would be the same linters again."""
    files = {"setup.py": "", ".pre-commit-config.yaml": "repos: []"}

    assert runs(files, "lint")[-1] == ".cache/venv/bin/pre-commit run --all-files"
    assert runs({**files, ".flake8": ""}, "lint")[-1].startswith(".venv/bin/flake8")


def test_linters_configured_above_run_in_each_project_below() -> None:
    """A root with settings alone is no project: as one, it would own what concerns everybody."""
    files = {"ruff.toml": "", "setup.cfg": "[tool:pytest]\n", "a/requirements.txt": "", "b/setup.py": ""}

    projects = projects_of(files, "python")

    assert list(projects) == ["a", "b"]
    assert runs_of(projects["a"], "lint")[-1] == ".venv/bin/ruff check ."
    assert {"ruff.toml", "setup.cfg", "conftest.py"} <= projects["a"].reads


# ---- tests -------------------------------------------------------------------------------------------------------


def test_a_script_with_unittest_needs_nothing_from_the_network() -> None:
    """No mention of pytest and tests that import unittest: the standard library is enough."""
    files = {"tests/test_a.py": "import unittest\n", "pkg/__init__.py": "", "setup.cfg": "[flake8]\n"}
    files["pkg/test_b.py"] = "from unittest import TestCase\n"

    assert runs(files) == [
        "python3 -m venv .venv",
        ". .venv/bin/activate && python -m unittest discover -s . -p 'test_*.py'",
        ". .venv/bin/activate && python -m unittest discover -s tests -p 'test_*.py'",
    ]


def test_tests_of_an_unclear_kind_run_with_pytest() -> None:
    """pytest runs both kinds; unittest would pass plain functions by and call it success."""
    assert runs({"requirements.txt": "flask\n", "test_a.py": "def test_x(): pass\n"})[1:] == [
        ".venv/bin/python -m pip install -r requirements.txt pytest",
        PYTEST,
    ]


def test_a_project_without_tests_is_installed_and_compiled() -> None:
    """Better than nothing, and it says which."""
    assert runs({"setup.py": ""})[1:] == [
        ".venv/bin/python -m pip install -e .",
        r"python3 -m compileall -q -x '(^|/)\.' .",
    ]


DJANGO = "import django\nexecute_from_command_line()"


@pytest.mark.parametrize(
    ("files", "expected", "workdir"),
    [
        ({"manage.py": DJANGO, "app/tests.py": ""}, ". .venv/bin/activate && python manage.py test --noinput", "."),
        (
            {"web/manage.py": DJANGO, "web/app/test_a.py": ""},
            ". ../.venv/bin/activate && python manage.py test --noinput",
            "web",
        ),
        ({"manage.py": DJANGO, "test_a.py": "", "pytest.ini": ""}, PYTEST, "."),
        ({"manage.py": "# of something else", "test_a.py": ""}, PYTEST, "."),
    ],
)
def test_django_tests_itself_unless_pytest_is_configured(files: dict[str, str], expected: str, workdir: str) -> None:
    """Its tests need its settings, which manage.py knows."""
    project = projects_of({"requirements.txt": "django\n", **files}, "python")["."]

    step = job_of(project, "test").steps[-1]
    assert (step.run, step.workdir) == (expected, workdir)


TOX = "[testenv]\ndeps =\n  pytest\n  -r more.txt\ncommands = pytest {posargs}\n"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tox.ini": TOX}, ".cache/venv/bin/tox run -e py"),
        ({"tox.toml": "[env_run_base]\ndeps = ['x']\ncommands = [['pytest']]"}, ".cache/venv/bin/tox run -e py"),
        ({"tox.ini": TOX, "requirements-dev.txt": "pytest"}, PYTEST),
        ({"tox.ini": "[testenv:lint]\ncommands = flake8\n"}, PYTEST),
        ({"noxfile.py": "@nox.session(python=['3.8'])\ndef tests(session):\n"}, ".cache/venv/bin/nox -s tests -P 3"),
        ({"noxfile.py": "@nox.session\ndef docs(session):\n"}, PYTEST),
        ({"hatch.toml": "[envs.default.scripts]\ntest = 'pytest'"}, ".cache/venv/bin/hatch run test"),
        ({"hatch.toml": "[envs.test.scripts]\nrun = 'pytest'"}, ".cache/venv/bin/hatch run test:run"),
        ({"hatch.toml": "[envs.hatch-test]\nextra-dependencies = ['x']"}, ".cache/venv/bin/hatch test"),
        (
            {"pyproject.toml": PACKAGE + "[tool.hatch.envs.hatch-test]\ndependencies = ['pytest']"},
            ".cache/venv/bin/hatch test",
        ),
    ],
)
def test_tox_nox_and_hatch_run_where_what_tests_need_is_listed_for_them_alone(
    files: dict[str, str], expected: str
) -> None:
    """Plain pytest would lack it; where it is listed for an installer too, pytest is what people type."""
    assert runs({"pyproject.toml": PACKAGE, "tests/test_a.py": "import pytest", **files})[-1] == expected


def test_pytest_is_told_of_the_tests_that_are_not_of_projects_below() -> None:
    """It would collect those of members, too, in an environment that is not theirs; testpaths are trusted."""
    files = {"pyproject.toml": PACKAGE, "tests/test_a.py": "", "src/x/t/test_b.py": "", "src/y/pyproject.toml": PACKAGE}

    assert runs(files)[-1] == ". .venv/bin/activate && pytest src/x tests --junitxml=junit.xml"
    files["pyproject.toml"] += "[tool.pytest.ini_options]\ntestpaths = ['tests']\n"
    assert runs(files)[-1] == PYTEST


# ---- projects and edges ------------------------------------------------------------------------------------------


UV_WORKSPACE = {
    "pyproject.toml": """
[project]
name = "root"
[dependency-groups]
dev = ["pytest", "ruff"]
[tool.ruff]
[tool.uv.workspace]
members = ["packages/*", "examples/*"]
exclude = ["packages/old"]
""",
    "uv.lock": "",
    "packages/a/pyproject.toml": """
[project]
name = "lib_a"
dependencies = ["lib.b", "httpx"]
[tool.uv.sources]
lib-b = { workspace = true }
lib-c = [{ path = "../../libs/c", marker = "x" }]
""",
    "packages/a/tests/test_a.py": "",
    "packages/b/pyproject.toml": '[project]\nname = "lib-b"\n',
    "packages/b/deep/pyproject.toml": '[project]\nname = "deep"\n',
    "packages/old/pyproject.toml": '[project]\nname = "old"\n',
    "examples/e/pyproject.toml": '[project]\nname = "e"\n',
    "tests/x/pyproject.toml": '[project]\nname = "x"\n',
    "libs/c/pyproject.toml": '[project]\nname = "lib-c"\n',
    ".python-version": "3.12\n",
}


def test_members_of_a_uv_workspace_are_projects_with_its_lock_file() -> None:
    """Wherever they are declared to be; others of such directories stay left out."""
    projects = projects_of(UV_WORKSPACE, "python")

    locked = [root for root, project in projects.items() if project.lock == "uv.lock"]
    assert list(projects) == [
        *(".", "examples/e", "libs/c", "packages/a", "packages/b"),
        *("packages/b/deep", "packages/old"),
    ]
    assert locked == [".", "examples/e", "packages/a", "packages/b"]
    assert "pyproject.toml" in projects["examples/e"].reads
    assert projects["packages/a"].tools == {"python": "3.12"}


def test_a_project_whose_tests_are_those_of_the_one_around_it_is_not_compiled_for_itself() -> None:
    """That one is touched with it; where nobody has tests, it is at least compiled."""
    files = {"pyproject.toml": '[project]\nname = "all"\n', "packages/a/pyproject.toml": '[project]\nname = "a"\n'}

    assert projects_of(files | {"tests/test_a.py": ""}, "python")["packages/a"].jobs == ()
    assert [job.check for job in projects_of(files, "python")["packages/a"].jobs] == ["test"]


def test_names_and_paths_between_projects_are_edges() -> None:
    """Names as indexes compare them."""
    a = projects_of(UV_WORKSPACE, "python")["packages/a"]

    assert a.name == "lib-a"
    assert {"lib-b", "httpx"} <= a.depends_on_names
    assert a.depends_on_roots == {"libs/c"}


def test_a_member_whose_tools_only_the_root_lists_is_installed_with_all_of_them() -> None:
    """The plugins that its tests need are in the root's group as well."""
    projects = projects_of(UV_WORKSPACE, "python")

    assert runs_of(projects["packages/a"], "test")[-2:] == [
        f"{UV} sync --locked --all-packages --all-extras",
        f"{UV} run --no-sync pytest --junitxml=junit.xml",
    ]
    assert job_of(projects["packages/a"], "test").reports == ("packages/a/junit.xml",)
    assert [job.check for job in projects["packages/a"].jobs] == ["test"]  # the root lints all that is below
    assert runs_of(projects["."], "lint")[-1] == f"{UV} run --no-sync ruff check ."


@pytest.mark.parametrize(
    ("files", "roots", "reads"),
    [
        ({"a/requirements.txt": "-e ../lib[x]\n-c ../constraints.txt\n"}, {"lib"}, {"constraints.txt"}),
        (
            {"a/requirements.txt": "-r ../base.txt\n", "base.txt": "./lib ; python_version > '3'\n"},
            {"lib"},
            {"base.txt"},
        ),
        ({"a/requirements.txt": "--requirement=../base.txt\n", "base.txt": "-e./lib\n"}, {"lib"}, {"base.txt"}),
        ({"a/requirements.txt": "-r../a/requirements.txt\n../plugin\n"}, set(), {"plugin"}),
        ({"a/Pipfile": "[packages]\nlib = {path = '../lib', editable = true}"}, {"lib"}, set()),
        (
            {"a/pyproject.toml": "[tool.poetry]\nname='a'\n[tool.poetry.dependencies]\nl = {path = '../lib'}"},
            {"lib"},
            set(),
        ),
        (
            {"a/pyproject.toml": "[project]\nname='a'\ndependencies=['l @ file:///${PROJECT_ROOT}/../lib']"},
            {"lib"},
            set(),
        ),
        (
            {"a/pyproject.toml": "[tool.hatch.envs.x]\ndependencies=['l @ {root:uri}/../lib']\n[project]"},
            {"lib"},
            set(),
        ),
    ],
)
def test_paths_to_other_projects_are_edges_and_other_paths_are_read(
    files: dict[str, str], roots: set[str], reads: set[str]
) -> None:
    """In the words of each tool."""
    a = projects_of({"lib/setup.py": "", **files}, "python")["a"]

    assert a.depends_on_roots == roots
    assert reads <= a.reads


def test_the_crate_that_a_package_is_built_from_is_an_edge_to_another_ecosystem() -> None:
    """A change in Rust is a change in what the tests in Python import."""
    text = PACKAGE + '[tool.maturin]\nmanifest-path = "../core/Cargo.toml"'

    assert projects_of({"py/pyproject.toml": text}, "python")["py"].depends_on_roots == {"core"}


def test_a_setup_file_is_read_but_not_executed() -> None:
    """Whatever it has between quotes may be what it needs; a name that nobody has means nothing."""
    setup = "setup(\n  name='azure-storage', python_requires = '>=3.8',\n  install_requires=['azure.core>=1', \"x\"])"

    project = projects_of({"a/setup.py": setup}, "python")["a"]

    assert (project.name, project.tools) == ("azure-storage", {"python": ">=3.8"})
    assert "azure-core" in project.depends_on_names


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({".tool-versions": "nodejs 20\npython 3.11.4 3.10\n"}, "3.11.4"),
        ({"runtime.txt": "python-3.10.2\n"}, "3.10.2"),
        ({".python-version": "# ours\n3.13\n", ".tool-versions": "python 3.11\n"}, "3.13"),
        ({"setup.cfg": "[options]\npython_requires = >=3.7\n"}, ">=3.7"),
        ({".python-version": "$(evil)\n", "setup.py": "python_requires='>=3.9'"}, ">=3.9"),
    ],
)
def test_the_version_of_python_is_told_by_the_repository(files: dict[str, str], expected: str) -> None:
    """A pin before a range."""
    assert projects_of({"setup.py": "", **files}, "python")["."].tools == {"python": expected}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"docs/requirements.txt": "sphinx", "docs/conf.py": ""}, []),
        ({"setup.py": "", "scripts/requirements.txt": ""}, ["."]),
        ({"setup.py": "", "scripts/requirements.txt": "", "scripts/test_a.py": ""}, [".", "scripts"]),
        ({"requirements.txt": ""}, ["."]),
        ({"pyproject.toml": "[tool.black]\n"}, ["."]),
        ({"pyproject.toml": "[tool.black]\n", "api/setup.py": ""}, ["api"]),
        ({"setup.cfg": "[bumpversion]\n"}, []),
    ],
)
def test_requirements_and_settings_alone_are_a_project_where_nothing_above_has_them(
    files: dict[str, str], expected: list[str]
) -> None:
    """docs/requirements.txt is in half of all Python repositories."""
    assert list(projects_of(files, "python")) == expected


# ---- hostile and large -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "text", "part"),
    [
        ("pyproject.toml", "[project\n", "pyproject.toml: this is not TOML"),
        ("pyproject.toml", "a = " + "[" * 50_000, "not TOML"),
        ("Pipfile", "a = " + "9" * 5_000, "Pipfile: this is not TOML"),
        ("pyproject.toml", "\n[a" + ".a" * 100_000 + "]", "pyproject.toml:2:1: a key of more than 32 parts"),
    ],
)
def test_a_manifest_that_cannot_be_read_fails_the_plan(path: str, text: str, part: str) -> None:
    """Going on without it would report success for a project that nobody built."""
    with pytest.raises(PlanFailed) as caught:
        projects_of({path: text}, "python")

    assert part in str(caught.value)


@pytest.mark.parametrize(
    "filler", [" ", "a", "=", '"', "'", ".", "-", "[", "@", "name=", "repo:", "\\\n", "a.b ", "-r "]
)
def test_long_lines_take_no_longer_than_their_length(filler: str) -> None:
    """Text that is read by patterns, at the size of a manifest: a second each would be a thousand seconds in all."""
    text = filler * (200_000 // len(filler))
    names = ("setup.py", "setup.cfg", "requirements.txt", "tox.ini", ".pre-commit-config.yaml", "noxfile.py")

    started = time.process_time()
    projects_of(dict.fromkeys((*names, "test_a.py", "mypy.ini", ".python-version"), text), "python")

    assert time.process_time() - started < 5


@pytest.mark.slow
def test_whatever_a_manifest_holds_nothing_but_a_failed_plan_comes_of_it() -> None:
    """Random values in every table that is read."""
    chance = random.Random(3)
    keys = (
        *("project", "tool", "name", "dependencies", "optional-dependencies", "dependency-groups", "include-group"),
        *("uv", "workspace", "members", "exclude", "sources", "path", "poetry", "group", "pdm", "hatch", "envs"),
        *(
            "scripts",
            "test",
            "ruff",
            "mypy",
            "pytest",
            "ini_options",
            "tox",
            "env_run_base",
            "build-system",
            "requires",
        ),
        *("dev-dependencies", "conflicts", "default-groups", "required-version", "requires-python", "dev", "packages"),
    )
    failed = found = 0
    for _ in range(1_000):
        files = {"test_a.py": "", "a/test_b.py": "", "requirements.txt": str(anything(chance, keys))}
        for path in ("pyproject.toml", "a/pyproject.toml", "Pipfile", "hatch.toml", "ruff.toml", "tox.toml"):
            tables = [f"{key} = {toml(anything(chance, keys))}" for key in keys if chance.random() < 0.3]
            tool = {key: anything(chance, keys, 1) for key in keys if chance.random() < 0.3}
            files[path] = "\n".join(
                [line for line in tables if not line.startswith("tool ")] + [f"tool = {toml(tool)}"]
            )
        if chance.random() < 0.1:
            files["a/pyproject.toml"] += "\nx = ["
        files["setup.cfg"] = "\n".join(f"[{chance.choice(keys)}]\n{anything(chance, keys)}" for _ in range(5))
        try:
            found += len(projects_of(files, "python"))
        except PlanFailed:
            failed += 1

    assert 0 < failed < 200
    assert found > 1_000


@pytest.mark.slow
def test_two_thousand_projects_among_a_hundred_thousand_files_are_found_in_seconds() -> None:
    """Each test file is given to its project once; the bound is far above what it takes, for slow machines."""
    files = {"pyproject.toml": "[tool.uv.workspace]\nmembers = ['p*/*']\n", "uv.lock": ""}
    for n in range(2_000):
        root = f"p{n % 50}/q{n}"
        files[f"{root}/pyproject.toml"] = f'[project]\nname = "q{n}"\ndependencies = ["q{n + 1}", "pytest"]\n'
        files.update({f"{root}/tests/test_{k}.py": "" for k in range(48)})

    started = time.process_time()
    projects = projects_of(files, "python")

    assert len(projects) == 2_000
    assert time.process_time() - started < 20


def test_requirements_for_measuring_are_no_project() -> None:
    """They list what to compare with; with a manifest of its own it is one, as everywhere."""
    files = {"pyproject.toml": PACKAGE, "benchmarks/requirements.txt": "redis\n"}
    named = {"benchmarks/pyproject.toml": PACKAGE.replace('"a"', '"b"')}

    assert list(projects_of(files, "python")) == ["."]
    assert list(projects_of(files | named, "python")) == [".", "benchmarks"]
