"""What discovery finds in files of a dictionary, for the tests of Node."""

import json
from collections.abc import Mapping
from typing import Any

from deltaci.domain.plan import Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery.discover import Discovery, discover, structure, wanted
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView


def discovered(files: Mapping[str, str]) -> Discovery:
    seen = structure(Files(MemoryView(files).entries()))
    return discover(seen, {path: files[path].encode() for path in wanted(seen)})


def found(files: Mapping[str, str]) -> dict[str, Project]:
    """The projects by root."""
    return {project.root: project for project in discovered(files).projects}


def package(name: str, **content: Any) -> str:
    """A manifest with a test."""
    return json.dumps({"name": name, "version": "1.0.0", "scripts": {"test": "vitest run"}, **content})


def job(project: Project, check: str = "test") -> ProjectJob:
    return next(job for job in project.jobs if job.check == check)


def commands(project: Project, check: str = "test") -> list[tuple[str, str]]:
    """What a job runs after installing, and where."""
    return [(step.run, step.workdir) for step in job(project, check).steps[1:]]


def install(project: Project) -> Step:
    return job(project).steps[0]
