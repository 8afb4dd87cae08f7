"""Make and autotools, where no other module found a project: the targets that people type.

Rule 1: nothing is expanded. Only targets written out count, and only if they look like names of things to do rather
than of files to make.
Rule 2: `make test`, or `make check`, is the test; `make lint` the linter; `build`, `all` or the default goal the build.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery import native
from deltaci.planner.discovery.others import Found, Roots, Runner, found, job, step
from deltaci.planner.discovery.project import Tree, join, parent

SOURCES: Final = native.SOURCES | {".mk", ".ac", ".am", ".in", ".m4"}
# In the order that GNU make looks for them.
MAKEFILES: Final = ("GNUmakefile", "makefile", "Makefile")
MANIFESTS: Final = (*MAKEFILES, "configure.ac")
_GENERATORS: Final = ("autogen.sh", "bootstrap", "bootstrap.sh", "buildconf")
STRUCTURE: Final = (*MANIFESTS, "Makefile.am", "Makefile.in", "GNUmakefile.in", "configure", *_GENERATORS)
_DOCUMENTS: Final = frozenset({"doc", "docs", "documentation"})
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_PHONY_VARIABLE: Final = re.compile(r"\.?PHONY[ \t]*+[:+?]?=(.*)")
_DEFAULT_GOAL: Final = re.compile(r"\.DEFAULT_GOAL[ \t]*+[:?]?=[ \t]*+([\w.-]++)[ \t]*+$")
_DELEGATED: Final = re.compile(
    r"[@+-]*+(?:(?:cd[ \t]++|\$[({]MAKE[)}][ \t]++-C[ \t]*+)([\w./-]++)"
    r"(?:[ \t]*+(?:&&|;)[ \t]*+\$[({]MAKE[)}])?[ \t]++\$@"
    r"|for[ \t]++\w++[ \t]++in[ \t]++(?:\$[({](\w++)[)}]|([\w./ -]++));[ \t]*+do[ \t]++\$[({]MAKE[)}][ \t]++-C[ \t]*+"
    r"\$\$\w++[ \t]++\$@.*)"
)
_ASSIGNMENT: Final = re.compile(r"(\w++)[ \t]*+[:?]?=([^$]*)")
_MAKES_A_FILE: Final = re.compile(r"mkdir|\$[({]?@|[ \t]-o[ \t]")
_HANDS_ON: Final = re.compile(r"\$[({]MAKE[)}]")
# What has a kernel's way of being configured needs that before anything can be built.
_CONFIGURED: Final = re.compile(r"^(?:[\w.-]++[ \t]++)*+(?:%config|defconfig)[ \t]*+:", re.MULTILINE)
_COMPILES: Final = re.compile(r"\$[({](?:CC|CXX|OBJS?|OBJECTS)[)}]|\b(?:gcc|g\+\+|cc|clang|clang\+\+)[ \t]|\.o(?:\s|$)")
_DIRECTIVES: Final = frozenset(
    {
        *("ifeq", "ifneq", "ifdef", "ifndef", "else", "endif", "include", "-include", "sinclude"),
        *("export", "unexport", "override", "private", "vpath", "undefine"),
    }
)
_AUTOMAKE: Final = re.compile(r"^[ \t]*AM_INIT_AUTOMAKE\b", re.MULTILINE)
_HELP: Final = frozenset({"help", "usage", "list", "no_targets__", "clean", "install", "run", "deploy"})
_REACH_MAX: Final = 1_000
_DELEGATES_MAX: Final = 20
# Targets of one rule: each of them gets all that the rule needs, and every line of its recipe.
_NAMES_MAX: Final = 30
_NEEDS_MAX: Final = 1_000


class _Rule(msgspec.Struct):
    """One target: what it needs, and its recipe."""

    needs: list[str]
    recipe: list[str]


class _Makefile(msgspec.Struct):
    """Targets in the order written; variables that are plain words; names declared phony; the goal if written out."""

    rules: dict[str, _Rule]
    variables: dict[str, str]
    phony: set[str]
    goal: str | None


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    beside = [
        join(parent(path), name)
        for path in manifests
        if path.endswith("configure.ac")
        for name in ("Makefile.in", "GNUmakefile.in")
    ]
    return [*manifests, *beside]


def find(tree: Tree, manifests: list[str], roots: Roots) -> Found:
    """The directories whose Makefile, or configure script, is all there is to say how they are built."""
    runners = []
    for root in sorted({parent(path) for path in manifests}):
        if _DOCUMENTS & set(root.lower().split("/")):
            continue
        runner = _autotools(tree, root) if _is_autotools(tree, root) else _make(tree, root)
        if runner is not None and runner.project.jobs:
            runners.append(runner)
    return found(runners, roots)


# ---- autotools -----------------------------------------------------------------------------------------------------


def _is_autotools(tree: Tree, root: str) -> bool:
    """Whether the Makefile is what configure makes; some have both and need no configuring."""
    if not tree.has(root, "configure.ac"):
        return False
    is_generated = tree.first(root, ("Makefile.am", "Makefile.in", "GNUmakefile.in")) is not None
    return is_generated or tree.first(root, MAKEFILES) is None


def _autotools(tree: Tree, root: str) -> Runner:
    steps = []
    if not tree.has(root, "configure"):
        script = next((name for name in _GENERATORS if tree.has(root, name)), None)
        # Many such scripts go on to configure, with arguments of their own, unless they are told not to.
        run = "autoreconf --force --install" if script is None else f"NOCONFIGURE=1 ./{script}"
        steps.append(step("Generate configure", run, root))
    steps += [step("Configure", "./configure", root), step("Build", "make", root)]
    has_tests = _AUTOMAKE.search(tree.text(join(root, "configure.ac"))) is not None
    target = "check"
    if not has_tests:
        template = tree.first(root, ("GNUmakefile.in", "Makefile.in"))
        rules = _parse(tree.text(template)).rules if template is not None else {}
        target = next((name for name in ("check", "test") if name in rules), "")
    if target:
        steps.append(step("Test", f"make {target}", root))
    project = Project(
        ecosystem="make",
        root=root,
        manifest=join(root, "configure.ac"),
        jobs=(job("test" if target else "build", steps),),
    )
    return Runner(project=project, text="", commands="", builds_itself=True)


# ---- make ----------------------------------------------------------------------------------------------------------


def _make(tree: Tree, root: str) -> Runner | None:
    manifest = tree.first(root, MAKEFILES)
    if manifest is None:
        return None
    text = tree.text(manifest)
    makefile = _parse(text)
    rules = {**_delegated(makefile, tree, root), **makefile.rules}
    names = [name for name in rules if _is_deed(name, rules[name], makefile, tree, root)]
    test = next((name for name in ("test", "check") if name in names), None)
    build = _build(makefile, rules, names, test)
    jobs: list[ProjectJob] = []
    if "lint" in names:
        jobs.append(job("lint", [step("Lint", "make lint", root)]))
    main: list[Step] = []
    if _CONFIGURED.search(text) is not None and (build is not None or test is not None):
        main.append(step("Configure", "make defconfig", root))
    if build is not None:
        main.append(step("Build", f"make {build}".rstrip(), root))
    if test is not None:
        main.append(step("Test", f"make {test}", root))
    if main:
        jobs.append(job("test" if test is not None else "build", main))
    chosen = [name for name in (test, build, "lint") if name in rules and name is not None]
    commands = "\n".join(_reach(rules, chosen))
    lines = (line for line in text.split("\n") if ".." in line and not line.lstrip().startswith("#"))
    project = Project(
        ecosystem="make",
        root=root,
        manifest=manifest,
        jobs=tuple(jobs),
        reads=native.outside(native.upward(lines, root), root),
    )
    return Runner(project=project, text=text, commands=commands)


def _build(makefile: _Makefile, rules: dict[str, _Rule], names: list[str], test: str | None) -> str | None:
    """The target that builds; empty for the default one, None if there is none beside the tests."""
    goal = makefile.goal or next((name for name in makefile.rules if not name.startswith(".")), None)
    target = next((name for name in ("build", "all") if name in names), None)
    if target is None:
        # A program's own name comes first in many small Makefiles; people type `make` and mean that.
        is_program = goal is not None and goal not in _HELP and goal not in ("test", "check", "lint")
        compiles = is_program and any(_COMPILES.search(line) is not None for line in _reach(rules, [str(goal)]))
        return "" if compiles else None
    if test is not None and test in _reached(rules, [target]):
        return None
    return "" if target == goal else target


def _is_deed(name: str, rule: _Rule, makefile: _Makefile, tree: Tree, root: str) -> bool:
    """Whether a target is something to do: declared phony, or at least not the name of a file or directory."""
    if name in makefile.phony:
        return True
    if any(need in (f"{name}.c", f"{name}.o", f"{name}.cc", f"{name}.cpp") for need in rule.needs):
        return False
    if any(_MAKES_A_FILE.search(line) and not _HANDS_ON.search(line) for line in rule.recipe):
        return False
    return not tree.files.is_directory(join(root, name)) or name not in makefile.rules


def _delegates(makefile: _Makefile) -> list[str]:
    """The directories whose Makefiles get every target that is not written out here."""
    rule = makefile.rules.get(".DEFAULT")
    for line in rule.recipe if rule is not None else []:
        match = _DELEGATED.fullmatch(line)
        if match is not None:
            named = makefile.variables.get(match[2] or "", match[3] or match[1] or "")
            return named.split()
    return []


def _delegated(makefile: _Makefile, tree: Tree, root: str) -> dict[str, _Rule]:
    """The rules that all of those Makefiles have, with what is phony there."""
    rules: list[dict[str, _Rule]] = []
    for directory in _delegates(makefile)[:_DELEGATES_MAX]:
        path = tree.first(join(root, directory), MAKEFILES)
        inner = _parse(tree.text(path) if path is not None else "")
        rules.append(inner.rules)
        makefile.phony |= inner.phony
    return {name: rule for name, rule in rules[0].items() if all(name in other for other in rules)} if rules else {}


def _reached(rules: dict[str, _Rule], targets: list[str]) -> list[str]:
    """`targets` and what they need, as far as it is written out, each once."""
    reached = dict.fromkeys(targets)
    waiting = list(targets)
    while waiting and len(reached) < _REACH_MAX:
        for need in rules.get(waiting.pop(), _Rule([], [])).needs:
            if need not in reached and need in rules:
                reached[need] = None
                waiting.append(need)
    return list(reached)


def _reach(rules: dict[str, _Rule], targets: list[str]) -> list[str]:
    """The recipes of all that `targets` need, and the names."""
    reached = [rules[name] for name in _reached(rules, targets) if name in rules]
    return [line for rule in reached for line in (*rule.recipe, " ".join(rule.needs))]


def _parse(text: str) -> _Makefile:
    makefile = _Makefile(rules={}, variables={}, phony=set(), goal=None)
    current: list[_Rule] = []
    is_defining = False
    for line in _logical_lines(text):
        if is_defining:
            is_defining = not line.strip().startswith("endef")
        elif line.startswith("\t"):
            for rule in current:
                rule.recipe.append(line.strip())
        elif line.startswith("define "):
            is_defining = True
        elif line.strip() and not line.lstrip().startswith("#"):
            current = _line(line, makefile, current)
    return makefile


def _line(line: str, makefile: _Makefile, current: list[_Rule]) -> list[_Rule]:
    """Take in a line that is no recipe; returns the rules that a recipe below it would belong to."""
    goal, phony = _DEFAULT_GOAL.match(line.strip()), _PHONY_VARIABLE.match(line.strip())
    if goal is not None:
        makefile.goal = goal[1]
    if phony is not None:
        makefile.phony.update(phony[1].split())
    if line.split(None, 1)[0] in _DIRECTIVES:
        return current
    colon, equals = line.find(":"), line.find("=")
    after = line[colon + 1 :].lstrip(":")
    if colon < 0 or 0 <= equals < colon or after.startswith("="):
        assignment = _ASSIGNMENT.fullmatch(line.partition("#")[0].strip())
        if assignment is not None:
            makefile.variables.setdefault(assignment[1], assignment[2])
        return current if colon < 0 and equals < 0 else []
    needs, _, recipe = after.partition("#")[0].partition(";")
    names = line[:colon].split()
    if names == [".PHONY"]:
        makefile.phony.update(needs.split())
        return []
    is_variable = "=" in needs
    rules = []
    for name in names[:_NAMES_MAX]:
        if name != ".DEFAULT" and _NAME.fullmatch(name) is None:
            continue
        rule = makefile.rules.setdefault(name, _Rule([], []))
        if not is_variable:
            rule.needs += needs.replace("|", " ").split(None, _NEEDS_MAX)[:_NEEDS_MAX]
            rule.recipe += [recipe.strip()] if recipe.strip() else []
        rules.append(rule)
    return rules


def _logical_lines(text: str) -> Iterator[str]:
    """Lines, with those joined that a backslash continues."""
    parts: list[str] = []
    for line in text.split("\n"):
        written = line.rstrip("\r")
        if written.endswith("\\"):
            parts.append(written[:-1])
            continue
        yield " ".join((*parts, written))
        parts = []
    if parts:
        yield " ".join(parts)
