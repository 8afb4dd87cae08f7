"""The jobs of a Node package: install, build what it needs of its workspace, then its scripts or targets.

Rule: commands are those that a maintainer would type at a fresh checkout; in an Nx or Turborepo workspace they run
through it, for one project, so that what has to be built before is built by it.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from itertools import groupby
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, ProjectJob
from deltaci.planner.discovery.node_packages import NAME, Package
from deltaci.planner.discovery.node_scripts import LINTS, TESTS, scripts_that_lint, scripts_that_test
from deltaci.planner.discovery.node_tools import Manager

# More than these are built by building the whole workspace: a command must not grow with it.
BUILDS_MAX: Final = 40
_VISITED_MAX: Final = 200


class Through(msgspec.Struct, frozen=True, kw_only=True):
    """A tool that runs tasks of one project by name. `tasks` are those it has; None if any may be there."""

    tool: str
    name: str
    tasks: frozenset[str] | None


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """All that the jobs of one package are made of.

    `builds` are the packages to build before it is tested, what others need first; None if they are too many.
    `can_build_all` is whether the workspace's root has a script for that, and `must_build_all` whether nothing else
    builds what the package needs. `run_by_ci` are names of scripts that the repository's own CI runs.
    """

    package: Package
    workspace: str
    manager: Manager
    scripts: Mapping[str, str]
    through: Through | None
    builds: tuple[Package, ...] | None
    can_build_all: bool
    must_build_all: bool
    run_by_ci: tuple[str, ...]
    cache: CacheRule
    reports: tuple[str, ...]


def jobs_of(setup: Setup) -> tuple[ProjectJob, ...]:
    """At most one job a check; a check for which the package has nothing has none."""
    found = []
    scripts, run_by_ci = {**_targets(setup.through), **setup.scripts}, setup.run_by_ci
    for check, names in (
        ("lint", scripts_that_lint(scripts, run_by_ci)),
        ("test", scripts_that_test(scripts, run_by_ci, setup.package.build or "build")),
    ):
        steps = _steps(setup, check, names)
        if steps:
            install = Step(name="Install", run=setup.manager.install, workdir=setup.workspace)
            found.append(_job(setup, check, [install, *steps]))
    return tuple(found)


def _targets(through: Through | None) -> dict[str, str]:
    """What a project of Nx has besides scripts, with commands that are not known."""
    if through is None or through.tool != "nx":
        return {}
    usual = (*LINTS, *TESTS)
    return {name: "" for name in usual if through.tasks is None or name in through.tasks}


def _job(setup: Setup, check: str, steps: list[Step]) -> ProjectJob:
    env = {"CI": "true"}
    if setup.through is not None:
        env |= {"NX_DAEMON": "false"} if setup.through.tool == "nx" else {"TURBO_TELEMETRY_DISABLED": "1"}
    manager, workspace = setup.manager, setup.workspace
    if {step.workdir for step in steps} == {workspace}:
        env |= manager.env
    else:
        # A directory in a variable is as seen from where the step runs.
        steps = [msgspec.structs.replace(step, env=manager.env_at(workspace, step.workdir)) for step in steps]
    reports = setup.reports if check == "test" else ()
    return ProjectJob(check=check, steps=tuple(steps), env=env, caches=(setup.cache,), reports=reports)


def _steps(setup: Setup, check: str, names: Iterable[str]) -> list[Step]:
    root, through, call = setup.package.root, setup.through, setup.manager.call
    steps: list[Step] = []
    covered: list[str] = []
    if through is not None:
        known = through.tasks
        if through.tool == "nx":
            covered = [name for name in names if known is None or name in known]
            run = f"nx run-many -t {' '.join(covered)} -p {shlex.quote(through.name)}"
        else:
            covered = [name for name in names if name in setup.scripts and (known is None or name in known)]
            run = f"turbo run {' '.join(covered)} {shlex.quote(f'--filter={through.name}')}"
        if covered:
            title = " and ".join(covered)
            steps.append(Step(name=title, run=f"{setup.manager.execute} {run}", workdir=setup.workspace))
    rest = [name for name in names if name in setup.scripts and name not in covered]
    if rest and not covered and (check == "test" or any(_is_typing(name, setup.scripts[name]) for name in rest)):
        before, includes_own = _built_before(setup, is_own_wanted=setup.package.build in rest)
        steps += before
        rest = [name for name in rest if not (includes_own and name == setup.package.build)]
    return steps + [Step(name=name, run=f"{call} run {name}", workdir=root) for name in rest]


def _is_typing(name: str, script: str) -> bool:
    """Whether a script looks at the types of other packages, which are there only once those are built."""
    return re.match(r"type|tsc?\b|check-types", name) is not None or "tsc" in script


def _built_before(setup: Setup, *, is_own_wanted: bool) -> tuple[list[Step], bool]:
    """The steps that build what the package needs, and whether they build the package itself as well."""
    builds, manager, workspace = setup.builds, setup.manager, setup.workspace
    if setup.must_build_all:
        return [Step(name="Build the workspace", run=_build_all(setup), workdir=workspace)], False
    if builds is not None and not builds:
        return [], False
    if setup.package.root == workspace and setup.can_build_all:
        # A script of the root that builds its members is what people type before they test them together.
        return [Step(name="build", run=_build_all(setup), workdir=workspace)], True
    title = "Build dependencies"
    name = setup.package.name
    is_usual = builds is None or all(each.build == "build" for each in builds)
    if manager.name == "pnpm" and is_usual and name is not None and NAME.fullmatch(name):
        selector = f"{name}{'...' if is_own_wanted else '^...'}"
        run = f'{manager.call} --filter "{selector}" run build'
        return [Step(name="build" if is_own_wanted else title, run=run, workdir=workspace)], is_own_wanted
    if builds is None:
        return [Step(name="Build the workspace", run=_build_all(setup), workdir=workspace)], False
    if manager.name in ("npm", "yarn") and all(each.name and NAME.fullmatch(each.name) for each in builds):
        if manager.name == "npm":
            alike = [(script, list(each)) for script, each in groupby(builds, lambda each: each.build)]
            lines = [f"npm run {script} {' '.join(f'-w {each.name}' for each in same)}" for script, same in alike]
        else:
            lines = [f"{manager.call} workspace {each.name} run {each.build}" for each in builds]
        return [Step(name=title, run="\n".join(lines), workdir=workspace)], False
    return [
        Step(name=f"Build {each.root}", run=f"{manager.call} run {each.build}", workdir=each.root) for each in builds
    ], False


def _build_all(setup: Setup) -> str:
    manager = setup.manager
    if setup.can_build_all:
        return f"{manager.call} run build"
    every = {
        "npm": "npm run build --workspaces --if-present",
        "pnpm": f"{manager.call} --recursive run build",
        "yarn": f"{manager.call} workspaces run build",
        "bun": f"{manager.call} run --filter '*' build",
    }
    if manager.is_berry:
        return f"{manager.call} workspaces foreach --all --topological-dev run build"
    return every[manager.name]


def builds_of(
    root: str, packages: Mapping[str, Package], edges: Mapping[str, tuple[str, ...]]
) -> tuple[Package, ...] | None:
    """The packages that `root` depends on and that have something to build, what others need first.

    Args:
        edges: root -> roots of members of the same workspace that it depends on, sorted.
    Returns:
        None if there are more than `BUILDS_MAX`, or too many to look at. Cycles are cut where they close.
    """
    order: list[Package] = []
    seen = {root}
    count = 0
    stack: list[tuple[str, int]] = [(root, 0)]
    while stack:
        at, index = stack.pop()
        needed = edges.get(at, ())
        if index < len(needed):
            stack.append((at, index + 1))
            other = needed[index]
            if other not in seen:
                seen.add(other)
                stack.append((other, 0))
                count += packages[other].build is not None
                if count > BUILDS_MAX or len(seen) > _VISITED_MAX:
                    return None
        elif at != root and packages[at].build is not None:
            order.append(packages[at])
    return tuple(order)
