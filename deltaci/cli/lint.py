"""`deltaci lint`: every mistake of a configuration at its line, without a server."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from deltaci.planner.configuration import FILE, Configuration, ConfiguredJob, as_written, configure, is_present
from deltaci.planner.configuration.advice import warnings_of
from deltaci.planner.configuration.problems import Problems
from deltaci.planner.discovery.discover import discover, structure, wanted
from deltaci.planner.errors import ConfigurationInvalid, PlanFailed, Problem, printable
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.named_projects import resolve
from deltaci.planner.repository import Files
from deltaci.planner.yaml_nodes import BYTES_MAX

GIT_S_MAX: Final = 60
FILES_MAX: Final = 1_000_000


class WorkingFile(msgspec.Struct, frozen=True):
    """A file of a working copy. Nobody asks for the id of its contents but the key of a cache, which stays unsaid."""

    path: str
    mode: str
    size: int
    sha: str = ""


class Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say of one configuration; `jobs` is empty if there is a problem."""

    file: str
    problems: tuple[Problem, ...] = ()
    warnings: tuple[Problem, ...] = ()
    jobs: tuple[dict[str, Any], ...] = ()


@click.command()
@click.argument("place", type=click.Path(path_type=Path, exists=True), default=Path())
@click.option("--json", "is_json", is_flag=True, help="Print one JSON document instead of lines.")
def lint(place: Path, is_json: bool) -> None:
    """Check the deltaci.yaml of a working copy, or PLACE: a file, or the directory that has it.

    Prints each problem as file:line:column: key: text, then warnings, then the jobs. Exit 0 if it can be used, 1 if
    not, 2 if there is nothing to check.
    """
    root, name = (place, FILE) if place.is_dir() else (place.parent, place.name)
    try:
        found = checked(root, name)
    except (OSError, subprocess.SubprocessError) as error:
        raise click.UsageError(f"{place} cannot be read: {error}") from error
    if found is None:
        raise click.UsageError(f"there is no {FILE} in {place}: name the file, or the directory that has it")
    _print_json(found) if is_json else _print(found)
    sys.exit(1 if found.problems else 0)


def checked(root: Path, name: str) -> Findings | None:
    """What there is to say of the configuration `name` in the working copy `root`; None if there is none.

    Raises:
        OSError: a file cannot be read.
        subprocess.SubprocessError: git does not list the files.
    """
    files = Files(_listed(root, name))
    try:
        if name == FILE and not is_present(files):
            return None
        data = (root / name).read_bytes()[: BYTES_MAX + 1]
        written = as_written(data, Problems(name))
        configuration = configure(data, files)
        if configuration.names_projects:
            _check_projects(root, files, configuration)
    except ConfigurationInvalid as error:
        return Findings(file=name, problems=tuple(msgspec.structs.replace(one, file=name) for one in error.problems))
    except PlanFailed as error:
        return Findings(file=name, problems=error.problems or (Problem(file=name, text=error.text),))
    warnings = warnings_of(name, written, configuration, files)
    return Findings(file=name, warnings=warnings, jobs=tuple(map(_summary, configuration.jobs)))


def _check_projects(root: Path, files: Files, configuration: Configuration) -> None:
    seen = structure(files)
    contents = {path: (root / path).read_bytes() for path in wanted(seen)}
    resolve(configuration.jobs, ProjectGraph(discover(seen, contents).projects))


def _summary(each: ConfiguredJob) -> dict[str, Any]:
    job = each.job
    return {
        "name": job.name,
        "steps": len(job.steps),
        "needs": list(job.needs),
        "labels": list(job.labels),
        "timeout_ms": job.timeout_ms,
        "retries": job.retries,
        "policy": job.policy,
        "concurrency": job.concurrency,
        "paths": list(each.paths),
        "paths_ignore": list(each.paths_ignore),
        "projects": [project.text for project in each.projects],
    }


# ---- the files of a working copy ---------------------------------------------------------------------------------


def _listed(root: Path, name: str) -> list[WorkingFile]:
    """As git sees it: tracked, and new without being ignored; in a directory that is no repository, all below it."""
    names = _from_git(root) if _is_repository(root) else _from_walk(root)
    if ((root / name).is_symlink() or (root / name).is_file()) and name not in names:
        names.append(name)
    return [file for file in (_file(root, each) for each in sorted(set(names))) if file is not None]


def _is_repository(root: Path) -> bool:
    asked = ["git", "-C", str(root), "rev-parse", "--is-inside-work-tree"]
    try:
        return subprocess.run(asked, capture_output=True, check=False, timeout=GIT_S_MAX).returncode == 0  # noqa: S603 - fixed words
    except FileNotFoundError:
        return False


def _from_git(root: Path) -> list[str]:
    asked = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(asked, capture_output=True, check=True, timeout=GIT_S_MAX).stdout  # noqa: S603 - fixed words
    return [os.fsdecode(path) for path in listed.split(b"\0")[:FILES_MAX] if path]


def _from_walk(root: Path) -> list[str]:
    found: list[str] = []
    for directory, directories, names in os.walk(root):
        directories[:] = sorted(each for each in directories if each != ".git")
        below = Path(directory).relative_to(root)
        found += [(below / each).as_posix() for each in names]
        if len(found) > FILES_MAX:
            break
    return found[:FILES_MAX]


def _file(root: Path, path: str) -> WorkingFile | None:
    """None for what is listed and gone, and for names that no commit could tell apart (not UTF-8)."""
    try:
        path.encode()
        status = (root / path).lstat()
    except (OSError, UnicodeEncodeError):
        return None
    mode = "120000" if (root / path).is_symlink() else "160000" if (root / path).is_dir() else "100644"
    return WorkingFile(path=path, mode=mode, size=status.st_size)


# ---- words -------------------------------------------------------------------------------------------------------


def _print(found: Findings) -> None:
    for problem in found.problems:
        click.echo(str(problem))
    for warning in found.warnings:
        click.echo(f"warning: {warning}")
    if found.problems:
        count = len(found.problems)
        click.echo(f"{count} problem{'s' if count != 1 else ''}: nothing would run")
        return
    for job in found.jobs:
        click.echo(f"{printable(job['name'])}: {_when(job)}{_how(job)}")
    click.echo(f"{len(found.jobs)} job{'s' if len(found.jobs) != 1 else ''}, no problems")


def _when(job: dict[str, Any]) -> str:
    parts = []
    if job["paths"]:
        parts.append("paths " + ", ".join(map(printable, job["paths"][:3])) + (" ..." if len(job["paths"]) > 3 else ""))
    if job["projects"]:
        parts.append("projects " + ", ".join(map(printable, job["projects"][:3])))
    if job["paths_ignore"]:
        parts.append("not " + ", ".join(map(printable, job["paths_ignore"][:3])))
    return "on " + " or ".join(parts) if parts else "on every change"


def _how(job: dict[str, Any]) -> str:
    parts = [f"{job['steps']} step{'s' if job['steps'] != 1 else ''}"]
    parts += [f"after {', '.join(map(printable, job['needs'][:3]))}"] if job["needs"] else []
    parts += [f"group {printable(job['concurrency'])}"] if job["concurrency"] else []
    parts += ["may fail"] if job["policy"] == "allow_failure" else []
    return f" ({', '.join(parts)})"


def _print_json(found: Findings) -> None:
    click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2).decode())
