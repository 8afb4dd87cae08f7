"""A commit and what changed in it become a plan.

Rule 1: explicit configuration wins over discovery.
Rule 2: reading is asynchronous and happens first; deciding is one pure function of what was read, in a thread, within
a time limit. Equal inputs give equal plans, whatever order they come in.
"""

import heapq
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar

import anyio
import anyio.to_thread
import msgspec

from deltaci.domain.plan import JOBS_MAX, Plan, PlannedJob, Reason
from deltaci.planner import reports
from deltaci.planner.configuration import FILE, Configuration, configure, is_present
from deltaci.planner.configuration.shape import FullRun
from deltaci.planner.construction import jobs_of, projects_of
from deltaci.planner.discovery.discover import discover, structure, wanted
from deltaci.planner.discovery.project import MANIFEST_BYTES_MAX
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed, Problem, printable
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.impact import Difference, Named, of_configured, of_projects
from deltaci.planner.named_projects import resolve
from deltaci.planner.occasion import Occasion, full_run
from deltaci.planner.repository import Change, Files, RepositoryView, changed_paths
from deltaci.planner.yaml_nodes import BYTES_MAX

PLAN_MS_DEFAULT: Final = 30_000
NO_OCCASION: Final = Occasion()
T = TypeVar("T")


class Planner:
    """Makes plans; keeps nothing between them."""

    def __init__(self, *, plan_ms: int = PLAN_MS_DEFAULT, jobs_max: int = JOBS_MAX) -> None:
        """`plan_ms`: the longest that one plan may take, reading included, milliseconds; `jobs_max`: its jobs."""
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
        occasion: Occasion = NO_OCCASION,
    ) -> Plan:
        """What should run for the commit of `view`.

        Args:
            changes: the difference to `base_sha`; None if it is unknown, and then everything runs.
            unknown_because: why it is unknown, as half a sentence for people.
            occasion: what brought the run about; it may be a reason to run everything.
            configuration_view: where `deltaci.yaml` is read instead, for changes whose author is not trusted with it.
        Returns:
            A plan in topological order. It has no jobs if there is no configuration and nothing was discovered; its
            reasons say so, and the run that it is for has nothing to wait for.
        Raises:
            ConfigurationInvalid: `deltaci.yaml` cannot be used; carries all problems.
            PlanFailed: a manifest cannot be used, or the time limit ran out.
        """
        try:
            with anyio.fail_after(self._plan_ms / 1000):
                return await self._plan(view, changes, base_sha, unknown_because, configuration_view, occasion)
        except TimeoutError as error:
            text = f"planning commit {view.commit_sha} took longer than {self._plan_ms} ms (setting plan_ms)"
            raise PlanFailed(f"{text}; a deltaci.yaml with fewer patterns and jobs is faster") from error

    async def _plan(
        self,
        view: RepositoryView,
        changes: Sequence[Change] | None,
        base_sha: str | None,
        unknown_because: str | None,
        configuration_view: RepositoryView | None,
        occasion: Occasion,
    ) -> Plan:
        files = await in_thread(lambda: Files(view.entries()))
        difference = Difference(paths=None if changes is None else changed_paths(changes))
        if changes is None and unknown_because is not None:
            difference = msgspec.structs.replace(difference, unknown_because=unknown_because)
        source = configuration_view or view
        source_files = files if source is view else await in_thread(lambda: Files(source.entries()))
        notes = () if source is view else (_borrowed(view, source),)
        if is_present(source_files):
            if source_files.size(FILE) > BYTES_MAX:
                text = f"the file has {source_files.size(FILE)} bytes; at most {BYTES_MAX} are accepted"
                raise ConfigurationInvalid((Problem(file=FILE, text=text),))
            data = (await source.read_many([FILE], bytes_max=BYTES_MAX))[FILE]
            configuration = await in_thread(lambda: configure(data, files, jobs_max=self._jobs_max))
            difference = msgspec.structs.replace(difference, full_run=full_run(configuration.full_run, occasion))
            manifests = await _manifests(view, files) if configuration.names_projects else {}
            return await in_thread(
                lambda: from_configuration(
                    configuration, files, difference, view.commit_sha, base_sha, notes, contents=manifests
                )
            )
        difference = msgspec.structs.replace(difference, full_run=full_run(FullRun(), occasion))
        contents = await _manifests(view, files)
        return await in_thread(
            lambda: from_discovery(
                contents, files, difference, view.commit_sha, base_sha, notes, jobs_max=self._jobs_max
            )
        )


async def _manifests(view: RepositoryView, files: Files) -> dict[str, bytes]:
    paths = await in_thread(lambda: wanted(structure(files)))
    return await view.read_many(paths, bytes_max=MANIFEST_BYTES_MAX)


async def in_thread(call: Callable[[], T]) -> T:
    """Run `call` off the loop; on a time limit it is left to end by itself, since its inputs are bounded."""
    return await anyio.to_thread.run_sync(call, abandon_on_cancel=True)


def _borrowed(view: RepositoryView, source: RepositoryView) -> Reason:
    text = (
        f"{FILE} is taken from {source.commit_sha}, not from {view.commit_sha}: its author is not trusted to change it"
    )
    return Reason(rule="configuration-from-base", file=FILE, text=text)


def from_configuration(
    configuration: Configuration,
    files: Files,
    difference: Difference,
    commit_sha: str,
    base_sha: str | None,
    notes: tuple[Reason, ...] = (),
    *,
    contents: Mapping[str, bytes],
) -> Plan:
    """The plan of a configuration: a pure function. Raises ConfigurationInvalid and PlanFailed.

    Args:
        contents: of the manifests, if the configuration names projects.
    """
    named = named_projects(configuration, files, contents, difference) if configuration.names_projects else None
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


def named_projects(
    configuration: Configuration, files: Files, contents: Mapping[str, bytes], difference: Difference
) -> Named:
    """The projects of the commit, which of them jobs name, and which are touched. Raises ConfigurationInvalid."""
    graph = ProjectGraph(discover(structure(files), contents).projects)
    of_job = resolve(configuration.jobs, graph)
    touched, _ = of_projects(graph, difference, configuration.documentation)
    return Named(graph=graph, of_job=of_job, touched=touched)


def from_discovery(
    contents: Mapping[str, bytes],
    files: Files,
    difference: Difference,
    commit_sha: str,
    base_sha: str | None,
    notes: tuple[Reason, ...] = (),
    *,
    jobs_max: int = JOBS_MAX,
) -> Plan:
    """The plan of a repository without configuration: a pure function. Raises PlanFailed."""
    discovery = discover(structure(files), contents)
    graph = ProjectGraph(discovery.projects)
    touched, skip = of_projects(graph, difference)
    found, told = jobs_of(graph, touched, skip, files, jobs_max=jobs_max)
    if any(project.jobs for project in discovery.projects):
        roots = sorted({project.root for project in discovery.projects})
        shown = ", ".join(printable(root) for root in roots[:5]) + (", ..." if len(roots) > 5 else "")
        why = Reason(rule="discovery", text=f"there is no {FILE}; found {len(discovery.projects)} projects in {shown}")
    else:
        text = f"there is no {FILE}, and no project with anything to run was found: nothing runs"
        why = Reason(rule="nothing-to-run", text=text)
    return Plan(
        commit_sha=commit_sha,
        base_sha=base_sha if difference.paths is not None else None,
        source="discovery",
        jobs=in_order(tuple(map(reports.kept, found))),
        reasons=(why, *notes, *discovery.reasons, *told, *_base(difference)),
        changed_files_count=None if difference.paths is None else len(difference.paths),
        projects=projects_of(graph, touched),
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
