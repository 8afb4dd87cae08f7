"""A commit and what changed in it become a plan.

Rule 1: explicit configuration wins over recipes, recipes over discovery.
Rule 2: the survey reads, on demand; deciding is one pure function of what was read. Equal inputs give equal plans,
whatever order they come in, and whether or not the commit before is still known.
Rule 3: a repository that is not trusted is planned in a process of its own (`worker.py`): a thread cannot be ended.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from deltaci.domain.plan import JOBS_MAX, Plan, PlannedJob, Reason
from deltaci.domain.recipe import Kept
from deltaci.planner import recipes, reports
from deltaci.planner.configuration import FILE, Configuration, configure, is_present
from deltaci.planner.configuration.shape import FullRun
from deltaci.planner.construction import jobs_of, projects_of
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed, Problem, printable
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.impact import Difference, Named, locks_wanted, of_configured, of_projects
from deltaci.planner.locks.reading import BYTES_MAX as LOCK_BYTES_MAX
from deltaci.planner.named_projects import resolve
from deltaci.planner.occasion import NO_OCCASION, Occasion, full_run, notify_rules
from deltaci.planner.repository import Change, Files, RepositoryView, changed_paths
from deltaci.planner.survey import Survey, lend
from deltaci.planner.yaml_nodes import BYTES_MAX

PLAN_MS_DEFAULT: Final = 30_000
# All lock files that one plan reads of one commit; those that do not fit count as changed for all that use them.
LOCKS_BYTES_MAX: Final = 2 * LOCK_BYTES_MAX
# The files of the commit that is compared with, as far as they are at or below the paths that it is called with.
BaseView: TypeAlias = Callable[[Sequence[str]], RepositoryView]


class Planner:
    """Makes plans. `make` is what the worker calls; `plan` does the same beside a loop, for what may be trusted."""

    def __init__(self, *, plan_ms: int = PLAN_MS_DEFAULT, jobs_max: int = JOBS_MAX) -> None:
        """`plan_ms`: the longest that `plan` may take, reading included, milliseconds; `jobs_max`: jobs of a plan."""
        self._plan_ms = plan_ms
        self._jobs_max = jobs_max

    async def plan(
        self,
        view: RepositoryView,
        changes: Sequence[Change] | None,
        *,
        base_sha: str | None,
        unknown_because: str | None = None,
        configuration_view: RepositoryView | None = None,
        base_view: BaseView | None = None,
        recipe: Kept | None = None,
        occasion: Occasion = NO_OCCASION,
    ) -> Plan:
        """As `make`, in a thread that is left to end by itself when the time limit passes: its inputs are bounded."""

        def work() -> Plan:
            return self.make(
                Survey(view),
                changes,
                base_sha=base_sha,
                unknown_because=unknown_because,
                configuration_view=configuration_view,
                base_view=base_view,
                recipe=recipe,
                occasion=occasion,
            )

        try:
            with anyio.fail_after(self._plan_ms / 1000):
                return await anyio.to_thread.run_sync(work, abandon_on_cancel=True)
        except TimeoutError as error:
            raise took_too_long(view.commit_sha, self._plan_ms) from error

    def make(
        self,
        survey: Survey,
        changes: Sequence[Change] | None,
        *,
        base_sha: str | None,
        unknown_because: str | None = None,
        configuration_view: RepositoryView | None = None,
        base_view: BaseView | None = None,
        recipe: Kept | None = None,
        occasion: Occasion = NO_OCCASION,
    ) -> Plan:
        """What should run for the commit of `survey`.

        Args:
            changes: the difference to `base_sha`; None if it is unknown, and then everything runs.
            unknown_because: why it is unknown, as half a sentence for people.
            configuration_view: where `deltaci.yaml` is read instead, for changes whose author is not trusted with it;
                it need not show any other file.
            base_view: opens the commit of `base_sha`, where lock files that changed are read as they were before; if
                there is none, a changed lock file touches all projects that use it.
            recipe: the newest one of the repository; used instead of discovery while its fingerprint holds.
            occasion: what brought the run about; it may be a reason to run everything.
        Returns:
            A plan in topological order. It has no jobs if there is no configuration and nothing was discovered; its
            reasons say so, and the run that it is for has nothing to wait for.
        Raises:
            ConfigurationInvalid: `deltaci.yaml` cannot be used; carries all problems.
            PlanFailed: a manifest cannot be used.
        """
        difference = Difference(paths=None if changes is None else changed_paths(changes))
        if changes is None and unknown_because is not None:
            difference = msgspec.structs.replace(difference, unknown_because=unknown_because)
        view = survey.view
        notes = () if configuration_view is None else (_borrowed(view, configuration_view),)
        data = _configuration(survey, configuration_view)
        if data is not None:
            configuration = configure(data, survey.files(), jobs_max=self._jobs_max)
            difference = msgspec.structs.replace(difference, full_run=full_run(configuration.full_run, occasion))
            named = None
            if configuration.names_projects:
                graph = survey.structure().graph
                known = _with_locks(difference, graph, survey, base_view)
                named = named_projects(configuration, graph, known)
            plan = from_configuration(configuration, difference, view.commit_sha, base_sha, notes, named)
            return msgspec.structs.replace(plan, notify=notify_rules(configuration.notify, occasion))
        difference = msgspec.structs.replace(difference, full_run=full_run(FullRun(), occasion))
        found = recipes.found(survey.structure(), recipe)
        return from_discovery(
            found,
            survey.files(),
            _with_locks(difference, found.graph, survey, base_view),
            view.commit_sha,
            base_sha,
            notes,
            jobs_max=self._jobs_max,
        )


def took_too_long(commit_sha: str, plan_ms: int) -> PlanFailed:
    """What to say when the time limit passed."""
    text = f"planning commit {commit_sha} took longer than {plan_ms} ms (setting planner.plan_ms)"
    return PlanFailed(f"{text}; a deltaci.yaml with fewer patterns and jobs is faster")


def _configuration(survey: Survey, configuration_view: RepositoryView | None) -> bytes | None:
    """The contents of `deltaci.yaml`, None if there is none. Raises ConfigurationInvalid."""
    if configuration_view is None:
        view, files = survey.view, survey.files()
        lend(view, files, (FILE,))
    else:
        view, files = configuration_view, Files(configuration_view.entries())
    if not is_present(files):
        return None
    size = view.sizes([FILE])[FILE]
    if size > BYTES_MAX:
        text = f"the file has {size} bytes; at most {BYTES_MAX} are accepted"
        raise ConfigurationInvalid((Problem(file=FILE, text=text),))
    return view.read_many([FILE], bytes_max=BYTES_MAX)[FILE]


def _with_locks(difference: Difference, graph: ProjectGraph, survey: Survey, base_view: BaseView | None) -> Difference:
    """`difference` with the contents of the lock files that changed, before and after, as far as they are read."""
    wanted = locks_wanted(graph, difference)
    if not wanted or base_view is None:
        return difference
    base = base_view(wanted)
    before, after = _contents(base, Files(base.entries()), wanted), _contents(survey.view, survey.files(), wanted)
    members = {index for path in wanted for index in graph.by_lock[path]}
    manifests = sorted({graph.projects[index].manifest for index in members})
    return msgspec.structs.replace(
        difference,
        locks={path: (before.get(path), after.get(path)) for path in wanted},
        manifests=_contents(survey.view, survey.files(), manifests),
    )


def _contents(view: RepositoryView, files: Files, paths: Sequence[str]) -> dict[str, bytes]:
    """The contents of those files that are there and fit the limits."""
    there = [path for path in paths if files.is_file(path)]
    lend(view, files, there)
    sizes = view.sizes(there)
    chosen, left = [], LOCKS_BYTES_MAX
    for path in there:
        if sizes[path] <= min(left, LOCK_BYTES_MAX):
            chosen.append(path)
            left -= sizes[path]
    return view.read_many(chosen, bytes_max=LOCK_BYTES_MAX)


def _borrowed(view: RepositoryView, source: RepositoryView) -> Reason:
    text = (
        f"{FILE} is taken from {source.commit_sha}, not from {view.commit_sha}: its author is not trusted to change it"
    )
    return Reason(rule="configuration-from-base", file=FILE, text=text)


def named_projects(configuration: Configuration, graph: ProjectGraph, difference: Difference) -> Named:
    """Which projects jobs name, and which are touched. Raises ConfigurationInvalid."""
    of_job = resolve(configuration.jobs, graph)
    touched, _ = of_projects(graph, difference, configuration.documentation)
    return Named(graph=graph, of_job=of_job, touched=touched)


def from_configuration(
    configuration: Configuration,
    difference: Difference,
    commit_sha: str,
    base_sha: str | None,
    notes: tuple[Reason, ...] = (),
    named: Named | None = None,
) -> Plan:
    """The plan of a configuration: a pure function. Raises PlanFailed.

    Args:
        named: the projects, if the configuration names some.
    """
    jobs = tuple(map(reports.kept, of_configured(configuration.jobs, difference, named)))
    count = f"{len(jobs)} job{'s' if len(jobs) != 1 else ''}"
    why = Reason(rule="configuration", file=FILE, text=f"{FILE} describes {count}")
    return Plan(
        commit_sha=commit_sha,
        base_sha=base_sha if difference.paths is not None else None,
        source="configuration",
        jobs=in_order(jobs),
        reasons=(why, *notes, *_base(difference)),
        changed_files_count=None if difference.paths is None else len(difference.paths),
        projects=() if named is None else projects_of(named.graph, named.touched),
    )


def from_discovery(
    found: recipes.Found,
    files: Files,
    difference: Difference,
    commit_sha: str,
    base_sha: str | None,
    notes: tuple[Reason, ...] = (),
    *,
    jobs_max: int = JOBS_MAX,
) -> Plan:
    """The plan of a repository without configuration: a pure function. Raises PlanFailed: too many jobs."""
    graph = found.graph
    touched, skip = of_projects(graph, difference)
    jobs, told = jobs_of(graph, touched, skip, files, jobs_max=jobs_max)
    if any(project.jobs for project in graph.projects):
        roots = sorted({project.root for project in graph.projects})
        shown = ", ".join(printable(root) for root in roots[:5]) + (", ..." if len(roots) > 5 else "")
        why = Reason(rule="discovery", text=f"there is no {FILE}; found {len(graph.projects)} projects in {shown}")
    else:
        text = f"there is no {FILE}, and no project with anything to run was found: nothing runs"
        why = Reason(rule="nothing-to-run", text=text)
    return Plan(
        commit_sha=commit_sha,
        base_sha=base_sha if difference.paths is not None else None,
        source=found.source,
        jobs=in_order(tuple(map(reports.kept, jobs))),
        reasons=(why, *notes, *found.reasons, *told, *_base(difference)),
        changed_files_count=None if difference.paths is None else len(difference.paths),
        projects=projects_of(graph, touched),
        blueprint=found.blueprint,
    )


def _base(difference: Difference) -> tuple[Reason, ...]:
    whole = difference.whole()
    return () if whole is None else (whole,)


def in_order(jobs: Sequence[PlannedJob]) -> tuple[PlannedJob, ...]:
    """Needs before those who need them; otherwise the order given. There must be no cycle."""
    position = {job.name: index for index, job in enumerate(jobs)}
    missing = [len(job.needs) for job in jobs]
    dependents: dict[int, list[int]] = {}
    for index, job in enumerate(jobs):
        for need in job.needs:
            dependents.setdefault(position[need], []).append(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    ordered = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(jobs[index])
        for dependent in dependents.get(index, ()):
            missing[dependent] -= 1
            if missing[dependent] == 0:
                heapq.heappush(ready, dependent)
    assert len(ordered) == len(jobs), "a cycle among needs"
    return tuple(ordered)
