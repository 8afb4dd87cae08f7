"""What is legal in a configuration and hardly meant: told by `deltaci lint`, never a reason to refuse.

Rule: a warning is about this repository as it is now; a run would go on without a word.
"""

from collections.abc import Mapping, Sequence

from deltaci.planner.configuration.expansion import Configuration
from deltaci.planner.configuration.shape import At, FileSpec, JobSpec, Text
from deltaci.planner.errors import Problem, printable
from deltaci.planner.globs import MATCHES_MAX, Globs
from deltaci.planner.repository import Files


def warnings_of(file: str, written: FileSpec, configuration: Configuration, files: Files) -> tuple[Problem, ...]:
    """The warnings in the order of the file.

    Args:
        file: how the configuration is named in them.
        written: the configuration as written, without problems; `configuration` is the same, expanded.
        files: of the working copy.
    """
    warnings = [*_never_matching(file, written, files), *_more_often(file, written), *_unread(file, configuration)]
    return tuple(sorted(warnings, key=lambda warning: (warning.line or 0, warning.column or 0)))


def _never_matching(file: str, written: FileSpec, files: Files) -> list[Problem]:
    """Patterns that match no file, and jobs that nothing can trigger because all of theirs are of that kind."""
    patterns = {text.text for job in written.jobs for text in (*job.paths, *job.paths_ignore)}
    if len(patterns) * len(files.paths) > MATCHES_MAX:
        return []  # it would take longer than anybody waits
    live = {pattern: _matches(pattern, files) for pattern in patterns}
    found = []
    for job in written.jobs:
        for text in (*job.paths, *job.paths_ignore):
            if not live[text.text]:
                shown = printable(text.text, length_max=60)
                found.append(_warning(file, text.at, f"{shown!r} matches no file of the repository"))
        if job.paths and not job.projects and not _triggers(job, files):
            why = "nothing can trigger this job: no file matches 'paths' and not 'paths_ignore'"
            found.append(_warning(file, At(job.at.line, job.at.column, f"jobs.{job.name}"), why))
    return found


def _matches(pattern: str, files: Files) -> bool:
    return Globs((pattern.removeprefix("!"),)).first(files.paths) is not None


def _triggers(job: JobSpec, files: Files) -> bool:
    chosen, ignored = Globs(_texts(job.paths)), Globs(_texts(job.paths_ignore))
    return any(chosen.match(path) is not None and ignored.match(path) is None for path in files.paths)


def _texts(texts: Sequence[Text]) -> list[str]:
    return [text.text for text in texts]


def _more_often(file: str, written: FileSpec) -> list[Problem]:
    """A job that runs on changes on which one that it needs is skipped goes on as if that had succeeded."""
    by_name = {job.name: job for job in written.jobs}
    found = []
    for job in written.jobs:
        for need in job.needs:
            needed = by_name[need.text]
            # With artifacts it is run along; with the same conditions it is skipped along.
            if needed.artifacts or not _is_conditional(needed) or _conditions(job) == _conditions(needed):
                continue
            text = (
                f"{printable(need.text, length_max=60)!r} is skipped on other changes than this job, which then does "
                "not wait for it; give both the same conditions if it must have run"
            )
            found.append(_warning(file, need.at, text))
    return found


def _is_conditional(job: JobSpec) -> bool:
    return bool(job.paths or job.paths_ignore or job.projects)


def _conditions(job: JobSpec) -> Mapping[str, list[str]]:
    return {
        "paths": sorted(_texts(job.paths)),
        "paths_ignore": sorted(_texts(job.paths_ignore)),
        "projects": sorted(_texts(job.projects)),
    }


def _unread(file: str, configuration: Configuration) -> list[Problem]:
    """Reports that an artifact of the author's own takes the place of."""
    found = []
    for each in configuration.jobs:
        own = next((one for one in each.job.artifacts if one.name == "reports"), None)
        if own is not None and each.job.reports and not set(each.job.reports) <= set(own.paths):
            text = f"{printable(each.job.name)}: the artifact 'reports' does not keep what 'reports' names"
            found.append(Problem(file=file, text=text))
    return found


def _warning(file: str, at: At, text: str) -> Problem:
    return Problem(file=file, line=at.line, column=at.column, key=printable(at.key, length_max=120), text=text)
