"""Which linters a Python project has configured, and what runs its tests.

Rule 1: a linter runs because it is configured; in the version that the hooks of the repository pin, if no list does.
Rule 2: tests run with what a maintainer would type. That is tox, nox or hatch only where what the tests need is listed
for them alone, and unittest only where every test is written for it and nothing mentions pytest.
"""

import re
import shlex
from collections.abc import Sequence
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.planner.discovery.own_ci import OwnCi
from deltaci.planner.discovery.project import Tree, join, table
from deltaci.planner.discovery.python_environment import TOOLS, Environment
from deltaci.planner.discovery.python_files import Declared, is_plain
from deltaci.planner.discovery.workspace import ancestors, directory, is_below

HOOKS: Final = ".pre-commit-config.yaml"
REPORT: Final = "junit.xml"
ARGUMENTS_MAX: Final = 50
PACKAGES_MAX: Final = 5
_BESIDE: Final = frozenset(
    {*("test", "tests", "testing", "docs", "doc", "docs_src", "examples", "example", "samples", "scripts", "tools")}
    | {
        *(
            "bench",
            "benchmark",
            "benchmarks",
            "demos",
            "demo",
            "maint",
            "ci",
            "performance",
            "typing_tests",
            "templates",
        )
    }
)
RUFF_FILES: Final = ("ruff.toml", ".ruff.toml")
MYPY_FILES: Final = ("mypy.ini", ".mypy.ini")
# Those that look for their settings in the directories above, too.
_INHERITED: Final = ("ruff", "black", "isort")
_HOOK: Final = re.compile(
    r"repo:[ \t]*+[\"']?https://github\.com/"
    r"(astral-sh/ruff|psf/black|pre-commit/mirrors-mypy|pycqa/flake8|pycqa/isort|PyCQA/flake8|PyCQA/isort)"
    r"(?:-pre-commit(?:-mirror)?)?(?:\.git)?[\"']?[ \t\r]*+\n[ \t]*+rev:[ \t]*+"
    # A commit, with the version that it was in a comment; or the version itself.
    r"(?:[\"']?[0-9a-f]{40}[\"']?[ \t]*+#[ \t]*+(?:frozen:[ \t]*+)?)?[\"']?v?(\d{1,4}\.[\w.]{1,50})",
    re.ASCII,
)
_HOOK_ID: Final = re.compile(r"\bid:[ \t]*+([\w.\"'-]{1,100})", re.ASCII)
_BY_HAND: Final = re.compile(
    r"\bstages:[ \t]*+(?:\[[ \t]*+manual[ \t]*+\]|"
    r"\n[ \t]*+-[ \t]*+manual[ \t\r]*+\n(?![ \t]*+-[ \t]*+[a-z-]+[ \t\r]*+\n))"
)
_EXCLUDES: Final = re.compile(r"^[ \t-]*+exclude:", re.MULTILINE)
_HOOKS_OF: Final = {"ruff": ("ruff", "ruff-check", "ruff-format")}
_UNITTEST: Final = re.compile(r"^[ \t]*(?:import|from)[ \t]+unittest\b", re.MULTILINE)
_SESSION: Final = re.compile(r"^def[ \t]+(tests?|unit|unit_tests?|pytest)[ \t]*\(", re.MULTILINE)
_SESSION_NAME: Final = re.compile(r"\bname[ \t]*=[ \t]*[\"'](tests?|unit)[\"']")
_TEST_COMMAND: Final = re.compile(r"^[ \t]*+commands?\b", re.MULTILINE)


class Own(msgspec.Struct):
    """The files of one project that its tests are told by, without those of projects below it."""

    tests: list[str] = msgspec.field(default_factory=list)
    conftests: list[str] = msgspec.field(default_factory=list)
    packages: list[str] = msgspec.field(default_factory=list)
    manage: list[str] = msgspec.field(default_factory=list)
    django_tests: list[str] = msgspec.field(default_factory=list)

    def all(self) -> list[str]:
        """Every one of them."""
        return [*self.tests, *self.conftests, *self.packages, *self.manage, *self.django_tests]


def linters_at(tree: Tree, declared: Declared) -> list[str]:
    """The linters that the files at one root configure, in the order in which they run."""
    root, cfg, tox = declared.root, declared.setup_cfg, declared.tox_ini
    configured = {
        "ruff": tree.first(root, RUFF_FILES) is not None or declared.tool("ruff"),
        "black": declared.tool("black"),
        "isort": declared.tool("isort") or tree.has(root, ".isort.cfg") or bool({"isort", "tool:isort"} & {*cfg, *tox}),
        "flake8": tree.has(root, ".flake8") or "flake8" in cfg or "flake8" in tox or declared.tool("flake8"),
        "mypy": declared.tool("mypy") or tree.first(root, MYPY_FILES) is not None or "mypy" in cfg,
        "pyright": declared.tool("pyright") or tree.has(root, "pyrightconfig.json"),
    }
    return [name for name, is_configured in configured.items() if is_configured]


def in_use(tree: Tree, environment: Environment, names: Sequence[str], ci: OwnCi) -> list[str]:
    """Those of `names` that anybody runs: settings of a tool stay behind when another one takes its place.

    That is told by lists of dependencies, hooks, tasks and CI. Where these name none at all, what is configured runs,
    but for pyright: settings of it alone are those of editors.
    """
    root = environment.root
    unlisted = set(environment.missing(names)) - set(pins(tree, root))
    hooks = _hooks(tree.text(join(root, HOOKS)))
    texts = [
        tree.text(join(root, name)) for name in ("noxfile.py", "tox.ini", "Makefile", "justfile", "pyproject.toml")
    ]

    def is_named(name: str) -> bool:
        if name not in unlisted or not hooks.keys().isdisjoint(_HOOKS_OF.get(name, (name,))):
            return True
        command = re.compile(rf"(?:^|[\s/\"'(=]){name}(?=[ \t\"',)@]|$)(?![ \t]*=)", re.MULTILINE)
        return ci.runs(command) or any(command.search(text) is not None for text in texts)

    named = [name for name in names if is_named(name)]
    return named or [name for name in names if name != "pyright"]


def inherited(names: Sequence[str]) -> list[str]:
    """Those of `names` that look for their settings above the directory that they run in."""
    return [name for name in names if name in _INHERITED]


def pins(tree: Tree, root: str) -> dict[str, str]:
    """Linter to `==version`, as the hooks of the nearest directory pin them."""
    for place in (root, *ancestors(root)):
        text = tree.text(join(place, HOOKS))
        if text:
            found = _HOOK.findall(text)
            return {name.rpartition("/")[2].removeprefix("mirrors-"): f"=={version}" for name, version in found}
    return {}


def by_hooks(tree: Tree, environment: Environment, names: Sequence[str]) -> dict[str, list[str]]:
    """Of the linters `names`, those that only the hooks of the repository run, with the hooks of each.

    That is so if no list of dependencies names one, and matters if the hooks leave files out: run on everything, the
    linter would find what the maintainers never see.
    """
    text = tree.text(HOOKS) if environment.root == "." else ""
    if not _EXCLUDES.search(text):
        return {}
    listed = _hooks(text)
    missing = environment.missing(names)
    found = {
        name: [f"{listed[hook]}{hook}" for hook in _HOOKS_OF.get(name, (name,)) if hook in listed] for name in missing
    }
    return {name: hooks for name, hooks in found.items() if hooks}


def _hooks(text: str) -> dict[str, str]:
    """The ids of hooks, with the options that each is run with: some are there for those who ask for them."""
    found: dict[str, str] = {}
    matches = [*_HOOK_ID.finditer(text)]
    for match, following in zip(matches, [*matches[1:], None], strict=False):
        body = text[match.end() : following.start() if following is not None else len(text)]
        found[match[1].strip("\"'")] = "--hook-stage manual " if _BY_HAND.search(body) is not None else ""
    return found


def hook_steps(environment: Environment, hooks: dict[str, list[str]]) -> list[Step]:
    """The steps that run single hooks on all files that they do not leave out."""
    runs = [f"{TOOLS}/bin/pre-commit run {hook} --all-files" for each in hooks.values() for hook in each]
    return [environment.helper("pre-commit"), *(environment.step("Lint", run) for run in runs)] if runs else []


def lint_steps(
    tree: Tree, environment: Environment, own: Own, names: Sequence[str], pinned: dict[str, str]
) -> list[Step]:
    """The steps after the installation."""
    declared = environment.declared
    lines: list[tuple[str, str, str]] = []
    for name in names:
        match name:
            case "ruff":
                lines.append(("Lint", "ruff", f"check{' --no-fix' if _fixes(tree, declared) else ''} ."))
                if _formats_with_ruff(tree, declared):
                    lines.append(("Check the format", "ruff", "format --check ."))
            case "black":
                lines.append(("Check the format", "black", "--check ."))
            case "isort":
                lines.append(("Check the imports", "isort", "--check-only --extend-skip=.cache ."))
            case "flake8":
                lines.append(("Lint", "flake8", "--extend-exclude=.venv,.cache ."))
            case "mypy":
                targets = "" if _has_targets(tree, declared) else _packages(tree, declared.root, own)
                lines.append(("Check the types", "mypy", targets))
            case "pyright":
                lines.append(("Check the types", "pyright", ""))
    return [environment.step(label, environment.run(tool, rest, pinned)) for label, tool, rest in lines]


def _fixes(tree: Tree, declared: Declared) -> bool:
    """Whether ruff is told to mend what it finds: then it succeeds for what nobody committed."""
    path = tree.first(declared.root, RUFF_FILES)
    settings = table(declared.pyproject, "tool", "ruff") if path is None else tree.toml(path)
    return settings.get("fix") is True


def _formats_with_ruff(tree: Tree, declared: Declared) -> bool:
    if "format" in table(declared.pyproject, "tool", "ruff"):
        return True
    path = tree.first(declared.root, RUFF_FILES)
    if path is not None and "format" in tree.toml(path):
        return True
    return "id: ruff-format" in tree.text(join(declared.root, HOOKS))


def _has_targets(tree: Tree, declared: Declared) -> bool:
    keys = ("files", "packages", "modules")
    if any(key in table(declared.pyproject, "tool", "mypy") for key in keys) or any(
        key in declared.setup_cfg.get("mypy", {}) for key in keys
    ):
        return True
    path = tree.first(declared.root, MYPY_FILES)
    return path is not None and re.search(r"^(?:files|packages|modules)[ \t]*=", tree.text(path), re.M) is not None


def _packages(tree: Tree, root: str, own: Own) -> str:
    """What types are checked of, where nothing says it: the packages, without those that test or measure them."""
    prefix = "" if root == "." else root + "/"
    found: dict[str, None] = {}
    for path in sorted(own.packages):
        place = directory(path)
        if place == root or tree.has(directory(place), "__init__.py"):
            continue
        names = place.removeprefix(prefix).split("/")
        if not _BESIDE.intersection(map(str.lower, names)):
            found["src" if names[0] == "src" else "/".join(names)] = None
    if not found or len(found) > PACKAGES_MAX or any(name.startswith("-") for name in found):
        return "."
    return shlex.join(found)


# ---- tests -------------------------------------------------------------------------------------------------------


class Testing(msgspec.Struct, frozen=True, kw_only=True):
    """How the tests run.

    Args:
        tools: what the environment needs for it.
        lines: name of the step, program, arguments, and the directory if it is not that of the project.
        helper: the program beside the environment that makes environments of its own; then there is no other.
        has_report: whether `REPORT` is written.
        is_compiled_only: whether there is nothing to run, so that the files are only compiled.
    """

    lines: tuple[tuple[str, str, str], ...]
    tools: tuple[str, ...] = ()
    helper: str | None = None
    workdir: str | None = None
    has_report: bool = False
    is_compiled_only: bool = False


def testing(tree: Tree, environment: Environment, own: Own, inner: Sequence[str]) -> Testing:
    """What a maintainer would type. `inner` are the roots of the projects below this one."""
    declared = environment.declared
    is_configured = _configures_pytest(tree, declared)
    asks_for_pytest = is_configured or bool(own.conftests)
    names = environment.names
    pytest = Testing(
        lines=(("Test", "pytest", f"{_places(declared, own, inner)}--junitxml={REPORT}"),),
        tools=("pytest",),
        has_report=True,
    )
    manage = [path for path in own.manage if "django" in tree.text(path)]
    if len(manage) == 1 and not asks_for_pytest and (own.tests or own.django_tests):
        return Testing(lines=(("Test", "python", "manage.py test --noinput"),), workdir=directory(manage[0]))
    if (own.tests or _finds_other_tests(tree, declared)) and "pytest" in names:
        return pytest
    others = _others(tree, declared)
    if others is not None and not (own.tests and _is_unittest(tree, own, asks_for_pytest) and not others.tools):
        return others
    if not own.tests and not _finds_other_tests(tree, declared):
        lines = (("Compile", "", r"python3 -m compileall -q -x '(^|/)\.' ."),)
        return Testing(lines=lines, is_compiled_only=True)
    if _is_unittest(tree, own, asks_for_pytest):
        return Testing(
            lines=tuple(("Test", "python", f"-m unittest {line}") for line in _unittest(tree, own, declared))
        )
    return pytest


def _configures_pytest(tree: Tree, declared: Declared) -> bool:
    return (
        "ini_options" in table(declared.pyproject, "tool", "pytest")
        or tree.first(declared.root, ("pytest.ini", ".pytest.ini")) is not None
        or "tool:pytest" in declared.setup_cfg
        or "pytest" in declared.tox_ini
    )


def _finds_other_tests(tree: Tree, declared: Declared) -> bool:
    """Whether pytest is told of tests that their names do not show."""
    options = table(declared.pyproject, "tool", "pytest", "ini_options")
    sections = [declared.setup_cfg.get("tool:pytest", {}), declared.tox_ini.get("pytest", {})]
    text = f"{options.get('addopts')} {tree.text(join(declared.root, 'pytest.ini'))} {sections}"
    return "python_files" in options or "python_files" in text or "--doctest" in text


def _places(declared: Declared, own: Own, inner: Sequence[str]) -> str:
    """What to tell pytest so that it leaves alone the tests of projects below; empty if all that it finds are own."""
    options = table(declared.pyproject, "tool", "pytest", "ini_options")
    sections = (declared.setup_cfg.get("tool:pytest", {}), declared.tox_ini.get("pytest", {}))
    if not inner or "testpaths" in options or any("testpaths" in section for section in sections):
        return ""
    around = {above for place in inner for above in (place, *ancestors(place)) if is_below(declared.root, above)}
    found: dict[str, None] = {}
    prefix = "" if declared.root == "." else declared.root + "/"
    for path in own.tests:
        place = path
        while directory(place) not in around and directory(place) != declared.root:
            place = directory(place)
        found[place.removeprefix(prefix)] = None
    if len(found) > ARGUMENTS_MAX:
        return ""
    return "".join(f"{shlex.quote(_argument(place))} " for place in sorted(found))


def _argument(place: str) -> str:
    return f"./{place}" if place.startswith("-") else place


def _is_unittest(tree: Tree, own: Own, asks_for_pytest: bool) -> bool:
    """Whether every test file that was read imports unittest and nothing asks for pytest."""
    read = [text for text in map(tree.text, own.tests) if text]
    return bool(read) and not asks_for_pytest and all(_UNITTEST.search(text) and "pytest" not in text for text in read)


def _unittest(tree: Tree, own: Own, declared: Declared) -> list[str]:
    """One `discover` for each directory that another one would not reach: it walks into packages only."""
    lines: dict[tuple[str, str], None] = {}
    prefix = "" if declared.root == "." else declared.root + "/"
    for path in own.tests:
        place = directory(path)
        while place != declared.root and tree.has(place, "__init__.py"):
            place = directory(place)
        start = place.removeprefix(prefix) if place != declared.root else "."
        name = path.rpartition("/")[2]
        pattern = "test_*.py" if name.startswith("test_") else "*_test.py"
        lines[(_argument(start), pattern)] = None
    return [f"discover -s {shlex.quote(start)} -p {shlex.quote(pattern)}" for start, pattern in lines]


def _others(tree: Tree, declared: Declared) -> Testing | None:
    """hatch, tox or nox, where it is told how to test; `tools` is not empty if it is also told what tests need."""
    environments = {
        **table(declared.pyproject, "tool", "hatch", "envs"),
        **table(tree.toml(join(declared.root, "hatch.toml")), "envs"),
    }
    if "hatch-test" in environments:
        return Testing(lines=(("Test", "hatch", "test"),), helper="hatch", tools=("hatch",))
    for name in ("default", "test", "tests"):
        script = next((each for each in ("test", "tests", "run") if each in table(environments, name, "scripts")), None)
        if script is not None and is_plain(script):
            target = script if name == "default" else f"{name}:{script}"
            return Testing(lines=(("Test", "hatch", f"run {target}"),), helper="hatch", tools=("hatch",))
    tox = _tox(tree, declared)
    if tox is not None:
        return Testing(lines=(("Test", "tox", "run -e py"),), helper="tox", tools=("tox",) if tox else ())
    noxfile = tree.text(join(declared.root, "noxfile.py"))
    session = _SESSION_NAME.search(noxfile) or _SESSION.search(noxfile)
    if session is not None:
        # The Python that is there, whichever ones the file lists: those that are missing would fail, or be passed by.
        return Testing(lines=(("Test", "nox", f"-s {session[1]} -P 3"),), helper="nox", tools=("nox",))
    return None


def _tox(tree: Tree, declared: Declared) -> bool | None:
    """Whether tox is told what the tests need; None if it is not told how to run them."""
    settings = table(declared.pyproject, "tool", "tox") or tree.toml(join(declared.root, "tox.toml"))
    base = table(settings, "env_run_base")
    legacy = settings.get("legacy_tox_ini")
    if "commands" in base:
        return bool(base.get("deps") or base.get("dependency_groups") or base.get("extras"))
    if isinstance(legacy, str) and "[testenv]" in legacy and _TEST_COMMAND.search(legacy):
        return True
    testenv = declared.tox_ini.get("testenv", {})
    if "commands" not in testenv:
        return None
    return any(testenv.get(key) for key in ("deps", "extras", "dependency_groups"))


def test_steps(environment: Environment, how: Testing, pinned: dict[str, str]) -> list[Step]:
    """All steps of the job, the installation included."""
    if how.helper is not None:
        program = f"{TOOLS}/bin/{how.helper}"
        return [
            environment.helper(how.helper),
            *(environment.step(name, f"{program} {arguments}") for name, _, arguments in how.lines),
        ]
    steps = environment.install(how.tools, pinned)
    for name, tool, arguments in how.lines:
        workdir = how.workdir or environment.root
        run = environment.activated(tool, arguments, pinned, workdir) if tool else arguments
        steps.append(msgspec.structs.replace(environment.step(name, run), workdir=workdir))
    return steps
