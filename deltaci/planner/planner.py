"""A commit and what changed in it become a plan.

Rule 1: explicit configuration wins over recipes, recipes over discovery.
Rule 2: the survey reads, on demand; deciding is one pure function of what was read. Equal inputs give equal plans,
whatever order they come in, and whether or not the commit before is still known.
Rule 3: nothing here bounds time: that is done by the process that this runs in (`worker.py`), which can be ended.
"""

import heapq
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from deltaci.domain.plan import JOBS_MAX, Plan, PlannedJob, Reason
from deltaci.domain.recipe import Recipe
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
from deltaci.planner.roster import Draft, Rest, Roster
from deltaci.planner.survey import Survey, lend
from deltaci.planner.yaml_nodes import BYTES_MAX, TOO_LARGE

# All lock files that one plan reads of one commit; those that do not fit count as changed for all that use them.
LOCKS_BYTES_MAX: Final = 2 * LOCK_BYTES_MAX
# The files of the commit that is compared with, as far as they are at or below the paths that it is called with.
BaseView: TypeAlias = Callable[[Sequence[str]], RepositoryView]


class Planner:
    """Makes plans, one after the other."""

    def __init__(self, *, jobs_max: int = JOBS_MAX) -> None:
        """`jobs_max`: the most jobs that a plan may have."""
        self._jobs_max = jobs_max

    def make(
        self,
        survey: Survey,
        changes: Sequence[Change] | None,
        *,
        base_sha: str | None,
        unknown_because: str | None = None,
        configuration_view: RepositoryView | None = None,
        base_view: BaseView | None = None,
        recipe: Recipe | None = None,
        has_a_say: bool = False,
        occasion: Occasion = NO_OCCASION,
    ) -> Draft:
        """What should run for the commit of `survey`.

        Args:
            changes: the difference to `base_sha`; None if it is unknown, and then everything runs.
            unknown_because: why it is unknown, as half a sentence for people.
            configuration_view: where `deltaci.yaml` is read instead, for changes whose author is not trusted with it;
                it need not show any other file.
            base_view: opens the commit of `base_sha`, where lock files that changed are read as they were before; if
                there is none, a changed lock file touches all projects that use it.
            recipe: the newest one of the repository; used while discovery finds the same.
            has_a_say: whether the run may make a recipe; then the plan has the blueprint for it.
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
                graph = survey.structure().discovered.graph
                known = _with_locks(difference, graph, survey, base_view)
                named = named_projects(configuration, graph, known)
            plan = from_configuration(configuration, difference, view.commit_sha, base_sha, notes, named)
            return Draft(msgspec.structs.replace(plan, notify=notify_rules(configuration.notify, occasion)))
        difference = msgspec.structs.replace(difference, full_run=full_run(FullRun(), occasion))
        found = recipes.found(survey.structure().discovered, recipe)
        return from_discovery(
            found,
            survey.files(),
            _with_locks(difference, found.graph, survey, base_view),
            view.commit_sha,
            base_sha,
            notes,
            jobs_max=self._jobs_max,
            roster=survey.roster() if found.graph.jobs_count <= self._jobs_max else None,
            has_a_say=has_a_say,
        )


def _configuration(survey: Survey, configuration_view: RepositoryView | None) -> bytes | None:
    """The contents of `deltaci.yaml`, None if there is none. Raises ConfigurationInvalid."""
    if configuration_view is None:
        view, files = survey.view, survey.files()
        lend(view, files, (FILE,))
    else:
        view, files = configuration_view, Files(configuration_view.entries())
    if not is_present(files):
        return None
    if view.sizes([FILE])[FILE] > BYTES_MAX:
        raise ConfigurationInvalid((Problem(file=FILE, text=TOO_LARGE),))
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
    roster: Roster | None = None,
    has_a_say: bool = False,
) -> Draft:
    """The plan of a repository without configuration: a pure function.

    Args:
        roster: the jobs of all projects; without it, those that are skipped are left out, and the reasons say so.
        has_a_say: whether the blueprint is wanted.
    Raises:
        PlanFailed: more than `jobs_max` jobs would run.
    """
    graph, whole = found.graph, difference.whole()
    touched, skip = of_projects(graph, difference)
    running = sum(len(graph.projects[index].jobs) for index in touched)
    if running > jobs_max:
        text = f"{running} jobs would run, at most {jobs_max} are accepted (policy.jobs_max)"
        raise PlanFailed(f"{text}; describe the jobs in deltaci.yaml")
    told: tuple[Reason, ...] = ()
    if roster is None:
        apart, rest = sorted(touched), None
        left, projects = graph.jobs_count - running, len(graph.projects) - len(touched)
        text = f"{left} skipped jobs of {projects} projects are not listed: {skip.text}"
        told = (Reason(rule="skips-not-listed", text=text),)
    else:
        apart = sorted(roster.apart.union(touched if whole is None else ()))
        rest = Rest(number=roster.number, places=roster.places(apart), reason=skip, is_skipped=whole is None)
    plan = Plan(
        commit_sha=commit_sha,
        base_sha=base_sha if difference.paths is not None else None,
        source=found.source,
        jobs=jobs_of(graph, apart, touched, skip, files),
        reasons=(_found(graph), *notes, *found.reasons, *told, *_base(difference)),
        changed_files_count=None if difference.paths is None else len(difference.paths),
        projects=projects_of(graph, touched),
        blueprint=found.blueprint if has_a_say else None,
    )
    return Draft(plan, rest, roster)


def _found(graph: ProjectGraph) -> Reason:
    if not graph.jobs_count:
        text = f"there is no {FILE}, and no project with anything to run was found: nothing runs"
        return Reason(rule="nothing-to-run", text=text)
    roots = graph.roots
    shown = ", ".join(printable(root) for root in roots[:5]) + (", ..." if len(roots) > 5 else "")
    count = f"{len(graph.projects)} project{'s' if len(graph.projects) > 1 else ''}"
    return Reason(rule="discovery", text=f"there is no {FILE}; found {count} in {shown}")


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
