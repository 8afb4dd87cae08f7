"""Submodules: brought before the jobs of the projects that they are in, where the repository's own CI brings them.

Rule: only their places are known here; where they come from concerns git alone, on the machine of the job.
"""

import re
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import Project
from deltaci.planner.discovery.own_ci import OwnCi
from deltaci.planner.discovery.project import Tree, inside
from deltaci.planner.discovery.workspace import is_below

FILE: Final = ".gitmodules"
PATHS_MAX: Final = 500
_PATH: Final = re.compile(r"^[ \t]*path[ \t]*=[ \t]*(\S.{0,500})$", re.MULTILINE)
_BRINGS: Final = re.compile(
    r"\bsubmodules[\"']?[ \t]*:[ \t]*[\"']?(?:true|recursive|normal)|\bgit\b.*[ \t]submodule\b|--recurs"
)
_STEP: Final = Step(name="Submodules", run="git submodule update --init --recursive", workdir=".")


def wanted(tree: Tree) -> list[str]:
    """The file to read before the others can tell."""
    return [FILE] if tree.files.is_file(FILE) else []


def with_submodules(tree: Tree, projects: list[Project]) -> list[Project]:
    """The projects, with a first step where they cannot be built without; all of them if there is no such CI to ask."""
    ci = OwnCi(tree)
    found = (inside(".", match.strip()) for match in _PATH.findall(tree.text(FILE))[:PATHS_MAX])
    places = [place for place in found if place is not None]
    if not places or not (ci.runs(_BRINGS) or ci.is_empty):
        return projects
    return [
        _with(project) if any(is_below(project.root, place) for place in places) else project for project in projects
    ]


def _with(project: Project) -> Project:
    jobs = tuple(msgspec.structs.replace(job, steps=(_STEP, *job.steps)) for job in project.jobs)
    return msgspec.structs.replace(project, jobs=jobs)
