"""What the modules share that look only when the projects of all languages are known: task runners and images.

Rule 1: a task runner speaks only where nothing else does. Where projects were found by their languages, its targets
would mostly run them again, and a project at its root would take files away that concern all of them.
Rule 2: what such a module sees and does not use is said, and fails no plan: it is not what the repository is made of.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from deltaci.domain.plan import Reason, Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery.project import join, parent
from deltaci.planner.errors import printable

ENV: Final = {"CI": "true"}
# In a task runner that calls one of these, something is built that no module here finds by itself.
_COMPILER_VARIABLE: Final = re.compile(r"\$[({](?:CC|CXX|LD|FC|AS)[)}]")
_FOREIGN_TOOL: Final = re.compile(
    r"(?:^[\t @-]*|&&[ \t]*|;[ \t]*|: )(?:cc|gcc|g\+\+|clang|clang\+\+|gfortran|nasm|avr-gcc|arm-none-eabi-gcc|emcc|ghc"
    r"|cabal|stack|dune|mix|rebar3|erlc|zig|swift|xcodebuild|lein|sbt|bazel|crystal|shards|nim|nimble|dart|flutter"
    r"|julia|Rscript|rake|composer|phpunit|busted|ldc2|dmd|dub|fpc|verilator|iverilog)[ \t]",
    re.MULTILINE,
)
_PATH: Final = re.compile(r"[\w.@+-]+(?:/[\w.@+-]+)*")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The projects of one module, and what it saw and did not use."""

    projects: tuple[Project, ...] = ()
    reasons: tuple[Reason, ...] = ()


class Runner(msgspec.Struct, frozen=True, kw_only=True):
    """A task runner's file: the project that it would make, its whole text, and the commands that its jobs come to."""

    project: Project
    text: str
    commands: str
    builds_itself: bool = False


class Roots:
    """The roots of the projects found so far; false if there are none."""

    def __init__(self, roots: Iterable[str]) -> None:
        self._set: Final = frozenset(roots)
        self._sorted: Final = sorted(self._set)

    def __bool__(self) -> bool:
        return bool(self._set)

    def __contains__(self, root: object) -> bool:
        return root in self._set

    def nearest(self, directory: str) -> str | None:
        """The root that is `directory`, or the first above it."""
        while directory not in self._set and directory != ".":
            directory = parent(directory)
        return directory if directory in self._set else None

    def below(self, directory: str, *, count_max: int) -> Sequence[str]:
        """The roots below `directory`, without itself, sorted; at most `count_max`."""
        if directory == ".":
            return [root for root in self._sorted[: count_max + 1] if root != "."][:count_max]
        first, last = bisect_left(self._sorted, f"{directory}/"), bisect_left(self._sorted, f"{directory}0")
        return self._sorted[first : min(last, first + count_max)]

    def has_below(self, directory: str) -> bool:
        """Whether `below` has any; costs no list."""
        if directory == ".":
            return bool(self._set - {"."})
        index = bisect_left(self._sorted, f"{directory}/")
        return index < len(self._sorted) and self._sorted[index].startswith(f"{directory}/")


def found(runners: Iterable[Runner], roots: Roots, told: Sequence[Reason] = ()) -> Found:
    """The runners that speak for something that is no project yet; what the others are is said in one sentence."""
    wanted: list[Project] = []
    unwanted: list[Project] = []
    for runner in runners:
        (wanted if _is_wanted(runner, roots) else unwanted).append(runner.project)
    reasons = list(told)
    if unwanted:
        shown = ", ".join(printable(project.manifest) for project in unwanted[:3]) + ("," if len(unwanted) > 3 else "")
        text = f"not run, since projects were found that it is likely to run again: {shown}"
        text += f" ... ({len(unwanted)} in all)" if len(unwanted) > 3 else ""
        reasons.append(Reason(rule="task-runner-unused", file=unwanted[0].manifest, text=text))
    return Found(projects=tuple(wanted), reasons=tuple(reasons))


def _is_wanted(runner: Runner, roots: Roots) -> bool:
    root = runner.project.root
    if not roots:
        return True
    if roots.nearest(root) is not None:
        return False
    builds_itself = (
        runner.builds_itself
        or _COMPILER_VARIABLE.search(runner.text) is not None
        or _FOREIGN_TOOL.search(runner.text) is not None
    )
    if roots.has_below(root):
        return builds_itself and not _names_one(runner, roots)
    # Without tests of its own it may well hold what projects elsewhere are generated from: then its files are theirs.
    return builds_itself or any(job.check == "test" for job in runner.project.jobs)


def _names_one(runner: Runner, roots: Roots) -> bool:
    words = (match[0] for match in _PATH.finditer(runner.commands))
    return any(join(runner.project.root, word) in roots for word in words)


def outermost(projects: Sequence[Project]) -> tuple[Project, ...]:
    """One for each root, with tests if there are any; without those below another that tests what is in it anyway.

    One without tests of its own is left out below another that builds, too.
    """
    kept: dict[str, Project] = {}
    for project in sorted(
        projects, key=lambda each: (_depth(each.root), all(job.check != "test" for job in each.jobs))
    ):
        if not any(_covers(kept[above], project) for above in _at_or_above(project.root) if above in kept):
            kept.setdefault(project.root, project)
    return tuple(kept.values())


def _depth(root: str) -> int:
    return 0 if root == "." else root.count("/") + 1


def _at_or_above(root: str) -> list[str]:
    directories = [root]
    while directories[-1] != ".":
        directories.append(parent(directories[-1]))
    return directories


def _covers(outer: Project, inner: Project) -> bool:
    has, needs = ({job.check for job in project.jobs} for project in (outer, inner))
    return outer.root == inner.root or "test" in has or ("test" not in needs and "build" in has)


def jobs_of_tasks(names: Iterable[str], tool: str, root: str) -> tuple[ProjectJob, ...]:
    """The jobs of a runner whose tasks have these names: lint; and build and test, as far as they are there.

    `check` stands for the tests if there is no `test`, and is one more linter otherwise; `ci` counts only if there are
    no tests by another name, since it runs them all.
    """
    has = set(names)
    test = next((name for name in ("test", "check", "ci") if name in has), None)
    lints = [name for name in ("lint", "check") if name in has and name != test]
    main = [name for name in ("build", test) if name is not None and name in has]
    if test == "ci":
        main, lints = ["ci"], []
    jobs = []
    if lints:
        jobs.append(job("lint", [step(name, f"{tool} {name}", root) for name in lints]))
    if main:
        steps = [step(name, f"{tool} {name}", root) for name in main]
        jobs.append(job("test" if test is not None else "build", steps))
    return tuple(jobs)


def step(name: str, run: str, root: str) -> Step:
    """A step in the directory of the project."""
    return Step(name=name.capitalize(), run=run, workdir=root)


def job(check: str, steps: Sequence[Step]) -> ProjectJob:
    """A job without a cache."""
    return ProjectJob(check=check, steps=tuple(steps), env=ENV)
