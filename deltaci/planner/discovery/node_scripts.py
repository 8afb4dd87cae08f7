"""Which of its scripts a package is checked by, and which members a script of the workspace's root is for.

Rule 1: those that go by the usual names; where one is missing, mends instead of checking, or waits for changes, the one
that the repository's own CI runs, or one whose name says the same.
Rule 2: a filter that cannot be read leaves out nobody.
"""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from typing import Final

from deltaci.planner.discovery.project import relative
from deltaci.planner.globs import GlobInvalid, Globs

LINTS: Final = ("lint", "typecheck", "type-check", "check-types")
TESTS: Final = ("build", "test")
_SCRIPT_CHARACTERS_MAX: Final = 4_000
# Of what its own CI runs besides, no more than these.
_LINTS_MAX: Final = 8
_CI_TESTS: Final = ("test:ci", "test-ci", "ci:test", "citest")
_OTHER_TESTS: Final = (*_CI_TESTS, "test:unit", "unit", "unit-test", "test:run", "test:node", "test:once", "tests")
_CHECK_LIKE: Final = re.compile(
    r"(?:lint|format|fmt|prettier|eslint|oxlint|stylelint|biome|check|typecheck|type-check|tsc?|types|knip)(?:[:.-].*)?|"
    r"tests?[:.-](?:lint|types?|typecheck|typing|format|prettier|eslint|style|code|other)"
)
_TEST_LIKE: Final = re.compile(r"(?:tests?|unit|jest|vitest|mocha|ava|tap|spec)(?:[:.-].*)?")
# Needs more than the repository, looks at something else than a change, or never ends.
_ASIDE: Final = re.compile(
    r"e2e|integration|browser|visual|bench|smoke|perf|watch|\bui\b|update|release|publish|size|docs?\b|link|audit|"
    r"dedupe|fix|write|deno|bun|windows|macos|playwright|cypress|examples?|coverage|changelog|cron|nightly|dev\b",
    re.IGNORECASE,
)
_MENDS: Final = re.compile(r"--(?:fix|write)(?![\w-]|=false)|prettier\b[^&|;]*[ \t]-w\b")
_FORMATS: Final = re.compile(r"(?:tests?[:.-])?(?:format|fmt|prettier)(?![a-z])")
_LOOKS: Final = re.compile(r"check|--list-different|--dry-run|[ \t]-[cl]\b|\bci\b|\blint\b")
_WAITS: Final = re.compile(r"--watch(?:All)?(?![\w-]|=false)|\bvitest[ \t]+watch\b|\bvitest\b[^&|;]*--ui\b")
_BROWSES: Final = re.compile(r"\b(?:playwright[ \t]+test|cypress[ \t]+run|wdio[ \t]+run)\b")
_FILTER: Final = re.compile(
    r"(--filter|-F|--include|--exclude|--scope|--ignore)(?:=|[ \t]+)(\"[^\"]*\"|'[^']*'|[^\s]+)"
)


def scripts_that_lint(scripts: Mapping[str, str], run_by_ci: Sequence[str]) -> tuple[str, ...]:
    """The scripts that look at the code without running it, in the order in which they run.

    Args:
        scripts: name to command.
        run_by_ci: names of scripts that the repository's own CI runs for a change; others may be among them.
    """
    others = [
        name
        for name in run_by_ci
        if name in scripts and _CHECK_LIKE.fullmatch(name) and not _ASIDE.search(name) and not _mends(name, scripts)
    ]
    usual = [name for name in LINTS if name in scripts]
    if "lint" in usual and _mends("lint", scripts):
        stricter = (name for name in (*others, "lint:check", "lint:ci", "check:lint") if name in scripts)
        instead = next((name for name in stricter if "lint" in name and not _mends(name, scripts)), None)
        usual = [instead if name == "lint" and instead is not None else name for name in usual]
    elif "lint" in usual and "lint" not in run_by_ci and any(name.startswith("lint") for name in others):
        usual.remove("lint")  # its own CI runs the parts
    return tuple(dict.fromkeys((*usual, *others)))[:_LINTS_MAX]


def scripts_that_test(scripts: Mapping[str, str], run_by_ci: Sequence[str], build: str = "build") -> tuple[str, ...]:
    """What is run of the code, `build` first; the other arguments are those of `scripts_that_lint`."""
    tests = [name for name in run_by_ci if name in scripts and _TEST_LIKE.fullmatch(name)]
    test: str | None = "test"
    if "test" not in scripts or _waits("test", scripts) or ("test" not in tests and set(tests) & set(_CI_TESTS)):
        by_ci = [name for name in tests if name != "test" and not _ASIDE.search(name)]
        by_ci.sort(key=lambda name: name not in _CI_TESTS)
        others = [name for name in (*by_ci, *_OTHER_TESTS) if name in scripts and not _waits(name, scripts)]
        test = next(iter(others), "test" if "test" in scripts else None)
    is_built = build in scripts and not (test is not None and build != "build" and build in scripts[test])
    return tuple(name for name in (build if is_built else None, test) if name is not None)


def needs_a_server(script: str) -> bool:
    """Whether a script drives a browser that looks at something that has to be started first."""
    return _BROWSES.search(script) is not None


def _mends(name: str, scripts: Mapping[str, str]) -> bool:
    body = scripts[name]
    # Formatters write unless they are told to look.
    return _MENDS.search(body) is not None or (
        _FORMATS.match(name) is not None and bool(body) and _LOOKS.search(body) is None
    )


def _waits(name: str, scripts: Mapping[str, str]) -> bool:
    return _WAITS.search(scripts[name]) is not None


class Filter:
    """Whom a script of a workspace's root is for, by the filters of pnpm, Turborepo, Lerna and Yarn in it."""

    def __init__(self, script: str, workspace: str) -> None:
        """`script`: the command; `workspace`: the root's directory."""
        self._workspace = workspace
        self._paths: list[str] = []
        self._names: list[str] = []
        self._without: list[str] = []
        self._is_clear = True
        for option, selector in _FILTER.findall(script[:_SCRIPT_CHARACTERS_MAX]):
            self._take(("!" if option in ("--exclude", "--ignore") else "") + _unquoted(selector))
        try:
            self._paths_wanted, self._names_wanted, self._unwanted = map(
                _globs, (self._paths, self._names, self._without)
            )
        except GlobInvalid:
            self._is_clear = False

    def _take(self, selector: str) -> None:
        is_without = selector.startswith("!")
        plain = selector.removeprefix("!").strip("{}")
        is_path = plain.startswith("./") or selector.strip("!").startswith("{")
        plain = plain.removeprefix("./").rstrip("/")
        if not plain or "..." in plain or set(plain) & set("[]{}^$`"):
            self._is_clear = False
        elif is_without:
            self._without.append(plain)
        else:
            (self._paths if is_path else self._names).append(plain)

    def leaves_out(self, root: str, name: str | None) -> bool:
        """Whether it is certainly not for the member at `root` of that name."""
        if not self._is_clear or not (self._paths or self._names or self._without):
            return False
        at = relative(root, self._workspace)
        named = name or ""
        if self._paths_wanted.match(at) is not None or self._names_wanted.match(named) is not None:
            return False
        if self._paths or self._names:
            return True
        return self._unwanted.match(at) is not None or self._unwanted.match(named) is not None


def _unquoted(word: str) -> str:
    try:
        return "".join(shlex.split(word))
    except ValueError:
        return "..."  # nothing that can be read


def _globs(patterns: Collection[str]) -> Globs:
    return Globs([f"/{pattern}" for pattern in patterns])
