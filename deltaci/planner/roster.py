"""The jobs of all projects of a repository, made and told once: in nearly every plan nearly all of them are the same.

Rule 1: a plan that is put together from a roster is, byte for byte, the one that is made job by job.
Rule 2: a job follows from its project, from the files that its cache keys are made of, and from why it runs or does
not. A roster has no word of the last; it knows those files, and sets projects apart of which one changed.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from typing import Final, NamedTuple

import msgspec

from deltaci.domain.plan import Plan, PlannedJob, Reason
from deltaci.planner.construction import jobs_of_project
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.repository import Files

# When more than one in so many projects is set apart, a new roster costs less than making their jobs for each plan.
_APART_PART: Final = 32
_numbers: Final = count(1)


class Roster(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of all projects in their order, without the reason why they run or do not.

    `number` is unique in this process. `firsts` has the position of the first job of each project, and of the end;
    `keyed` the projects by the paths that their cache keys are made of; `apart` those whose jobs are not these.
    """

    number: int
    jobs: tuple[PlannedJob, ...]
    firsts: tuple[int, ...]
    keyed: Mapping[str, Sequence[int]]
    apart: frozenset[int] = frozenset()

    def after(self, paths: Iterable[str]) -> "Roster | None":
        """The roster when there is something else at `paths`; None if it is time for a new one."""
        apart = self.apart.union(*(self.keyed.get(path, ()) for path in paths))
        if len(apart) * _APART_PART > len(self.firsts):
            return None
        return self if apart == self.apart else msgspec.structs.replace(self, apart=apart)

    def places(self, projects: Iterable[int]) -> tuple[int, ...]:
        """The positions of the jobs of `projects`."""
        return tuple(place for index in projects for place in range(self.firsts[index], self.firsts[index + 1]))


def roster_of(graph: ProjectGraph, files: Files) -> Roster:
    """The roster of a commit."""
    jobs: list[PlannedJob] = []
    firsts = [0]
    keyed: dict[str, list[int]] = {}
    for index, project in enumerate(graph.projects):
        jobs += jobs_of_project(project, files)
        firsts.append(len(jobs))
        for path in {path for job in project.jobs for rule in job.caches for path in rule.inputs}:
            keyed.setdefault(path, []).append(index)
    return Roster(number=next(_numbers), jobs=tuple(jobs), firsts=tuple(firsts), keyed=keyed)


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """Those jobs of a plan that are as in the roster `number`: each runs or `is_skipped`, for the same `reason`.

    `places` are the positions in the roster of the other jobs, one for each that the plan has by itself.
    """

    number: int
    places: tuple[int, ...]
    reason: Reason
    is_skipped: bool


class Draft(NamedTuple):
    """A plan without those jobs that `rest` speaks of, if there is one; then `roster` has them."""

    plan: Plan
    rest: Rest | None = None
    roster: Roster | None = None


def put_together(plan: Plan, rest: Rest, jobs: Sequence[PlannedJob]) -> Plan:
    """The plan with all its jobs: its own, and for the rest those of the roster. Raises ValueError if it is not its."""
    together = [
        msgspec.structs.replace(job, reasons=(*job.reasons, rest.reason), is_skipped=rest.is_skipped) for job in jobs
    ]
    for place, job in zip(rest.places, plan.jobs, strict=True):
        if not 0 <= place < len(together):
            raise ValueError(f"job {job.name!r} is at {place} of {len(together)}")
        together[place] = job
    return msgspec.structs.replace(plan, jobs=tuple(together))
