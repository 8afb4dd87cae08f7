"""`projects:` of a configured job: which of the discovered projects its author means.

Rule: declared jobs are authoritative, and impact works within them: a project decides whether a job runs, never what it
does. A name that means no project is a problem at its line; it must not mean "never".
"""

from collections.abc import Mapping, Sequence

from deltaci.planner.configuration import FILE, ConfiguredJob
from deltaci.planner.configuration.problems import Problems
from deltaci.planner.errors import ConfigurationInvalid, printable
from deltaci.planner.graph import ProjectGraph, project_id

SHOWN_MAX = 8


def resolve(jobs: Sequence[ConfiguredJob], graph: ProjectGraph) -> Mapping[str, tuple[int, ...]]:
    """The positions of the projects of each job that names some, by the job's name.

    A directory means every project there, `<ecosystem>:<directory>` the one.

    Raises:
        ConfigurationInvalid: names that mean no project, each at its place.
    """
    meant: dict[str, list[int]] = {root: list(indexes) for root, indexes in graph.by_root.items()}
    meant.update({project_id(project): [index] for index, project in enumerate(graph.projects)})
    problems = Problems(FILE)
    found: dict[str, tuple[int, ...]] = {}
    said: set[tuple[int, int, str]] = set()
    for each in jobs:
        if not each.projects:
            continue
        indexes: set[int] = set()
        for name in each.projects:
            known = meant.get(canonical(name.text))
            place = (name.at.line, name.at.column, name.text)
            if known is not None:
                indexes.update(known)
            elif place not in said:
                said.add(place)
                shown = printable(name.text, length_max=60)
                near = problems.nearest(canonical(name.text), meant)
                problems.add(name.at, f"no project {shown!r} was discovered{near}; {_there_are(graph)}")
        found[each.job.name] = tuple(sorted(indexes))
    if problems.found():
        raise ConfigurationInvalid(problems.found())
    return found


def canonical(name: str) -> str:
    """A project as the graph names it: no `./` in front, no slash at the end."""
    ecosystem, colon, root = name.rpartition(":")
    directory = "/".join(part for part in root.split("/") if part not in ("", ".")) or "."
    return f"{ecosystem}{colon}{directory}"


def _there_are(graph: ProjectGraph) -> str:
    ids = sorted(project_id(project) for project in graph.projects)
    if not ids:
        return "there are no projects"
    more = f" and {len(ids) - SHOWN_MAX} more" if len(ids) > SHOWN_MAX else ""
    return "there are " + ", ".join(printable(one, length_max=60) for one in ids[:SHOWN_MAX]) + more
