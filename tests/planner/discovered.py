"""What discovery finds in files held in memory, for the tests of its ecosystems."""

import random
from collections.abc import Mapping
from typing import Any

from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery.discover import discover, structure, wanted
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView


def projects_of(files: Mapping[str, str], ecosystem: str) -> dict[str, Project]:
    """The projects of one ecosystem by root."""
    view = MemoryView(files)
    seen = structure(Files(view.entries()))
    contents = {path: view.contents[path] for path in wanted(seen)}
    found = discover(seen, contents).projects
    return {project.root: project for project in found if project.ecosystem == ecosystem}


def job_of(project: Project, check: str) -> ProjectJob:
    """The job of a project with this check."""
    return next(job for job in project.jobs if job.check == check)


def runs_of(project: Project, check: str) -> list[str]:
    """The scripts of the job with this check."""
    return [step.run for step in job_of(project, check).steps]


def toml(value: Any) -> str:
    """A value as TOML writes it, tables inline."""
    match value:
        case bool():
            return "true" if value else "false"
        case dict():
            return "{" + ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items()) + "}"
        case list():
            return "[" + ", ".join(map(toml, value)) + "]"
        case str():
            escaped = "".join(c if c.isalnum() or c in " ./*-_:@{}[]" else f"\\U{ord(c):08x}" for c in value)
            return f'"{escaped}"'
        case _:
            return str(value)


def anything(chance: random.Random, keys: tuple[str, ...], depth: int = 0) -> Any:
    """A random value as somebody might have written it by mistake or by malice; tables have keys among `keys`."""
    texts = (
        "",
        ".",
        "..",
        "../..",
        "/",
        "a",
        "*",
        "[",
        "**/**",
        "a\0b",
        "\n",
        "x" * 300,
        "../a",
        "1.0",
        "./",
        "é",
        "{}",
    )
    kind = chance.randrange(9 if depth < 4 else 6)
    match kind:
        case 0 | 1:
            return chance.choice(texts)
        case 2:
            return chance.choice((0, -1, 10**400, 2**70))
        case 3:
            return chance.choice((True, False))
        case 4:
            return chance.choice(("nan", "1e308", "2020-01-01", "07:32:00"))
        case 5:
            return chance.choice(keys)
        case 6:
            return [anything(chance, keys, depth + 1) for _ in range(chance.randrange(4))]
        case _:
            return {chance.choice(keys): anything(chance, keys, depth + 1) for _ in range(chance.randrange(5))}
