"""`deltaci.yaml` as jobs: read, checked as a whole, matrices expanded, expressions filled in.

Rule 1: a configuration is good or it is refused with every problem that was found; nothing of a bad one runs.
Rule 2: limits hold for what the file expands to, not only for what it says.
"""

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from deltaci.domain.plan import JOBS_MAX, MATRIX_MAX, Artifact, Cache, PlannedJob, Step, first_cycle
from deltaci.planner.configuration.expressions import ExpressionInvalid, fill
from deltaci.planner.configuration.problems import Problems
from deltaci.planner.configuration.reading import GROUP_TEXT, read
from deltaci.planner.configuration.secrets import check_for_credentials
from deltaci.planner.configuration.shape import (
    GROUP,
    LABEL,
    At,
    FileSpec,
    FullRun,
    JobSpec,
    MatrixSpec,
    Notification,
    StepSpec,
    Text,
)
from deltaci.planner.configuration.values import outside
from deltaci.planner.errors import ConfigurationInvalid, Problem, printable
from deltaci.planner.globs import GlobInvalid
from deltaci.planner.repository import Files
from deltaci.planner.yaml_nodes import parse

FILE: Final = "deltaci.yaml"
MISNAMED: Final = ("deltaci.yml", ".deltaci.yaml", ".deltaci.yml")
PLAN_CHARACTERS_MAX: Final = 4 * 1024 * 1024
NEEDS_MAX: Final = 20_000
NAME_CHARACTERS_MAX: Final = 250
STEP_NAME_CHARACTERS_MAX: Final = 60
_COMBINATIONS_MAX: Final = 16 * MATRIX_MAX
_ARTIFACT_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .+=@()-]{0,99}", re.ASCII)
_CACHE_KEY: Final = re.compile(r"[\x21-\x7e]{1,200}")


class ConfiguredJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job as it would run, with the patterns and the projects that decide whether it does."""

    job: PlannedJob
    paths: tuple[str, ...] = ()
    paths_ignore: tuple[str, ...] = ()
    projects: tuple[Text, ...] = ()


class Configuration(msgspec.Struct, frozen=True, kw_only=True):
    """What `deltaci.yaml` says, expanded for one commit. `jobs` are in the order of the file."""

    jobs: tuple[ConfiguredJob, ...]
    full_run: FullRun = FullRun()
    documentation: tuple[str, ...] = ()
    notify: tuple[Notification, ...] = ()

    @property
    def names_projects(self) -> bool:
        """Whether a job depends on projects, so that they have to be discovered."""
        return any(each.projects for each in self.jobs)


def is_present(files: Files) -> bool:
    """Whether the commit has a configuration.

    Raises:
        ConfigurationInvalid: something is at `deltaci.yaml` that is not a regular file, or a near miss of the name:
            a configuration that is ignored in silence is worse than none.
    """
    kind = files.kind(FILE)
    if kind == "file":
        return True
    if kind is not None:
        raise ConfigurationInvalid((Problem(file=FILE, text=f"this is a {kind}; make it a regular file"),))
    if files.is_directory(FILE):
        raise ConfigurationInvalid((Problem(file=FILE, text="this is a directory; make it a regular file"),))
    for name in MISNAMED:
        if files.kind(name) is not None:
            raise ConfigurationInvalid(
                (Problem(file=name, text=f"the configuration is named {FILE}; rename this file"),)
            )
    return False


def load(data: bytes, files: Files, *, jobs_max: int = JOBS_MAX) -> tuple[ConfiguredJob, ...]:
    """The jobs of a configuration: see `configure`."""
    return configure(data, files, jobs_max=jobs_max).jobs


def configure(data: bytes, files: Files, *, jobs_max: int = JOBS_MAX) -> Configuration:
    """What a configuration says, matrices expanded.

    Args:
        files: of the commit that is planned; `hash(...)` is computed from them.
    Raises:
        ConfigurationInvalid: with all problems.
    """
    problems = Problems(FILE)
    written = as_written(data, problems)
    jobs = _Expansion(written.jobs, files, problems, jobs_max).jobs()
    if problems.found():
        raise ConfigurationInvalid(problems.found())
    return Configuration(
        jobs=jobs, full_run=written.full_run, documentation=written.documentation, notify=written.notify
    )


def as_written(data: bytes, problems: Problems) -> FileSpec:
    """A configuration before its matrices are expanded; raises ConfigurationInvalid with all problems."""
    root = parse(data, problems.file)
    if isinstance(root, Problem):
        raise ConfigurationInvalid((root,))
    check_for_credentials(root, problems)
    written = read(root, problems)
    _check_needs(written.jobs, problems)
    if problems.found():
        raise ConfigurationInvalid(problems.found())
    return written


def _check_needs(specs: Sequence[JobSpec], problems: Problems) -> None:
    """Every need names a job, and no job waits for itself."""
    names = {spec.name for spec in specs}
    needs: dict[str, tuple[str, ...]] = {}
    for spec in specs:
        needs[spec.name] = tuple(dict.fromkeys(need.text for need in spec.needs if need.text in names))
        for need in spec.needs:
            if need.text not in names:
                text = f"no job is named {printable(need.text, length_max=60)!r}{problems.nearest(need.text, names)}"
                problems.add(need.at, text)
    cycle = first_cycle(needs)
    if cycle is not None:
        closing = next(s for s in specs if s.name == cycle[0])
        at = next(need.at for need in closing.needs if need.text == cycle[1])
        shown = " -> ".join(cycle[:20]) + (" -> ..." if len(cycle) > 20 else "")
        problems.add(at, f"these jobs wait for each other for ever: {shown}")


def _combinations(matrix: MatrixSpec, problems: Problems) -> list[dict[str, str]]:
    """Every combination of the axes that is not excluded, then the included ones; empty after a problem."""
    if math.prod(len(values) for values in matrix.axes.values()) > _COMBINATIONS_MAX:
        problems.add(matrix.at, f"more than {MATRIX_MAX} combinations; leave out values or split the job")
        return []
    found: list[dict[str, str]] = []
    if matrix.axes:
        for values in itertools.product(*matrix.axes.values()):
            combination = dict(zip(matrix.axes, values, strict=True))
            if not any(excluded.items() <= combination.items() for excluded in matrix.exclude):
                found.append(combination)
    found += [combination for combination in matrix.include if combination not in found]
    if not found:
        problems.add(matrix.at, "'exclude' leaves no combination; the job would never run")
    if len(found) > MATRIX_MAX:
        text = f"{len(found)} combinations; at most {MATRIX_MAX} are accepted: leave out values or split the job"
        problems.add(matrix.at, text)
        return []
    return found


class _Expansion:
    """Turns specifications into jobs, and keeps count of what they grow to."""

    def __init__(self, specs: Sequence[JobSpec], files: Files, problems: Problems, jobs_max: int) -> None:
        self._jobs_max = jobs_max
        self._specs = specs
        self._files = files
        self._problems = problems
        self._characters = 0
        self._is_too_large = False

    def jobs(self) -> tuple[ConfiguredJob, ...]:
        """All jobs; a guess after a problem."""
        combinations: dict[str, list[dict[str, str]]] = {}
        for spec in self._specs:
            combinations[spec.name] = [{}] if spec.matrix is None else _combinations(spec.matrix, self._problems)
        count = sum(len(each) for each in combinations.values())
        if count > self._jobs_max:
            at = At(self._specs[0].at.line, self._specs[0].at.column, "jobs")
            self._problems.add(at, f"{count} jobs after expanding matrices; at most {self._jobs_max} are accepted")
            return ()
        names = {name: tuple(_expanded_name(name, one) for one in each) for name, each in combinations.items()}
        self._check_names(names)
        self._check_edges(names)
        if self._problems.found():
            return ()
        return tuple(
            self._job(spec, name, matrix, names)
            for spec in self._specs
            for name, matrix in zip(names[spec.name], combinations[spec.name], strict=True)
        )

    def _check_names(self, names: Mapping[str, Sequence[str]]) -> None:
        seen: set[str] = set()
        for spec in self._specs:
            for name in names[spec.name]:
                at = spec.at if spec.matrix is None else spec.matrix.at
                if len(name) > NAME_CHARACTERS_MAX:
                    self._problems.add(
                        at, f"the name {printable(name, length_max=60)!r} is longer than {NAME_CHARACTERS_MAX}"
                    )
                if name in seen:
                    self._problems.add(at, f"two jobs would be named {printable(name, length_max=60)!r}")
                seen.add(name)
            variables = [_variable(axis) for axis in spec.matrix.axes] if spec.matrix is not None else []
            if spec.matrix is not None and len(set(variables)) < len(variables):
                self._problems.add(
                    spec.matrix.at, "two axes differ only in case; their variables MATRIX_... would collide"
                )

    def _check_edges(self, names: Mapping[str, Sequence[str]]) -> None:
        edges = 0
        for spec in self._specs:
            edges += len(names[spec.name]) * sum(len(names[need]) for need in {need.text for need in spec.needs})
            if edges > NEEDS_MAX:
                at = spec.needs[0].at
                self._problems.add(at, f"more than {NEEDS_MAX} needs after expanding matrices; put a job in between")
                return

    def _job(
        self, spec: JobSpec, name: str, matrix: dict[str, str], names: Mapping[str, Sequence[str]]
    ) -> ConfiguredJob:
        needs = dict.fromkeys(expanded for need in spec.needs for expanded in names[need.text])
        variables = {_variable(axis): value for axis, value in matrix.items()}
        job = PlannedJob(
            name=name,
            steps=tuple(self._step(step, matrix) for step in spec.steps),
            needs=tuple(needs),
            labels=tuple(dict.fromkeys(self._label(label, matrix) for label in spec.labels)),
            env={**variables, **{key: self._fill(value, matrix) for key, value in spec.env.items()}},
            timeout_ms=spec.timeout_ms,
            retries=spec.retries,
            policy=spec.policy,
            priority=spec.priority,
            artifacts=self._artifacts(spec, matrix),
            caches=self._caches(spec, matrix),
            matrix=matrix,
            reports=self._paths(spec.reports, matrix),
            concurrency=self._group(spec.concurrency, matrix),
        )
        return ConfiguredJob(
            job=job,
            paths=tuple(path.text for path in spec.paths),
            paths_ignore=tuple(path.text for path in spec.paths_ignore),
            projects=tuple(Text(self._fill(project, matrix), project.at) for project in spec.projects),
        )

    def _group(self, group: Text | None, matrix: Mapping[str, str]) -> str | None:
        if group is None:
            return None
        text = self._fill(group, matrix)
        if not GROUP.fullmatch(text):
            self._problems.add_first(group.at, f"{printable(text)!r}: {GROUP_TEXT}")
        return text

    def _step(self, step: StepSpec, matrix: Mapping[str, str]) -> Step:
        run = self._fill(step.run, matrix)
        name = step_name(run) if step.name is None else printable(self._fill(step.name, matrix))
        env = {key: self._fill(value, matrix) for key, value in step.env.items()}
        return Step(name=name, run=run, env=env, workdir=step.workdir)

    def _label(self, label: Text, matrix: Mapping[str, str]) -> str:
        text = self._fill(label, matrix)
        if not LABEL.fullmatch(text):
            self._problems.add_first(
                label.at, f"{printable(text)!r} is not a label: 1 to 100 characters and no white space"
            )
        return text

    def _artifacts(self, spec: JobSpec, matrix: Mapping[str, str]) -> tuple[Artifact, ...]:
        artifacts: dict[str, Artifact] = {}
        for each in spec.artifacts:
            name = self._fill(each.text, matrix)
            if not _ARTIFACT_NAME.fullmatch(name):
                text = "an artifact name has 1 to 100 letters, digits, spaces and _ . + = @ ( ) -, no slash"
                self._problems.add_first(each.text.at, f"{printable(name, length_max=60)!r}: {text}")
            if name in artifacts:
                self._problems.add_first(each.text.at, f"the job has two artifacts named {printable(name)!r}")
            artifacts[name] = Artifact(name=name, paths=self._paths(each.paths, matrix))
        return tuple(artifacts.values())

    def _caches(self, spec: JobSpec, matrix: Mapping[str, str]) -> tuple[Cache, ...]:
        caches = []
        for each in spec.caches:
            key = self._fill(each.text, matrix, can_hash=True)
            if not _CACHE_KEY.fullmatch(key):
                text = "a cache key has 1 to 200 visible ASCII characters and no white space"
                self._problems.add_first(each.text.at, f"{printable(key, length_max=60)!r}: {text}")
            caches.append(Cache(key=key, paths=self._paths(each.paths, matrix)))
        return tuple(caches)

    def _paths(self, paths: Sequence[Text], matrix: Mapping[str, str]) -> tuple[str, ...]:
        filled = []
        for path in paths:
            text = self._fill(path, matrix)
            why = outside(text)
            if why is not None:
                self._problems.add_first(path.at, why)
            filled.append(text)
        return tuple(filled)

    def _fill(self, text: Text, matrix: Mapping[str, str], *, can_hash: bool = False) -> str:
        if self._is_too_large:
            return ""
        if self._problems.has(text.at):  # in another combination: once is enough to tell, and to look for the nearest
            return text.text
        try:
            filled = fill(text.text, matrix, self._files.hash_of if can_hash else None)
        except ExpressionInvalid as error:
            self._problems.add_first(text.at, f"{error}{self._problems.nearest(error.name, error.known)}")
            return text.text
        except GlobInvalid as error:
            self._problems.add_first(text.at, str(error))
            return text.text
        self._characters += len(filled)
        if self._characters > PLAN_CHARACTERS_MAX:
            self._is_too_large = True
            limit = f"more than {PLAN_CHARACTERS_MAX} characters after expanding matrices"
            self._problems.add_first(text.at, f"{limit}; move long scripts into files of the repository")
        return filled


def step_name(run: str) -> str:
    """What a step without a name is called: the first line of its script that is not empty or a comment."""
    lines = (line.strip() for line in run.splitlines())
    first = next((line for line in lines if line and not line.startswith("#")), run.strip())
    return printable(first, length_max=STEP_NAME_CHARACTERS_MAX)


def _expanded_name(name: str, matrix: Mapping[str, str]) -> str:
    return f"{name} ({', '.join(f'{axis}={value}' for axis, value in matrix.items())})" if matrix else name


def _variable(axis: str) -> str:
    return f"MATRIX_{axis.upper()}"
