"""`deltaci.yaml` as a whole: nodes in, job specifications out, every problem noted with its place.

Rule 1: what is not described in `shape` is a problem, with the nearest name that is.
Rule 2: a problem never ends the reading; the author sees all of them at once.
"""

from collections.abc import Sequence
from typing import Final, Literal

from deltaci.domain.plan import Policy
from deltaci.planner.configuration import keys
from deltaci.planner.configuration.keys import names
from deltaci.planner.configuration.notifications import Notifications
from deltaci.planner.configuration.problems import Problems
from deltaci.planner.configuration.shape import (
    AXIS_CHARACTERS_MAX,
    ENV_NAME,
    GROUP,
    JOB_NAME,
    PRIORITY_MAX,
    RETRIES_MAX,
    STEPS_MAX,
    VALUE_CHARACTERS_MAX,
    Defaults,
    FileSpec,
    FilesSpec,
    FullRun,
    JobSpec,
    MatrixSpec,
    StepSpec,
    Text,
)
from deltaci.planner.configuration.values import Values, place
from deltaci.planner.errors import printable
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar

AXIS_TEXT: Final = f"an axis is named by up to {AXIS_CHARACTERS_MAX} letters, digits and _, not starting with a digit"
GROUP_TEXT: Final = "a group is named by 1 to 100 letters, digits, spaces and _ . : / + -"


def read(root: Node, problems: Problems) -> FileSpec:
    """A configuration, its jobs in the order written; if `problems` has any after it, it is a guess."""
    reader = Reader(problems)
    top = reader.fields(root, "", names(keys.TOP), "a mapping with 'version' and 'jobs'")
    if top is None:
        return FileSpec()
    reader.version(top)
    env = reader.env(top.get("env"), "env")
    defaults = reader.defaults(top.get("defaults"), env)
    return FileSpec(
        full_run=reader.full_run(top.get("full_run")),
        documentation=_plain(reader.globs(top.get("documentation"), "documentation", can_only_take_back=True)),
        notify=Notifications(problems).read(top.get("notify")),
        jobs=_jobs(reader, top, defaults),
    )


def _jobs(reader: "Reader", top: Fields, defaults: Defaults) -> tuple[JobSpec, ...]:
    problems, jobs = reader.problems, top.get("jobs")
    if jobs is None:
        problems.add(place(top, "jobs"), "missing; a configuration has at least one job")
        return ()
    named = reader.fields(jobs, "jobs", None, "job names, each with its 'steps'")
    if named is None:
        return ()
    if not named.fields:
        problems.add(place(named, "jobs"), "empty; a configuration has at least one job")
    specs = []
    for key, node in named.fields:
        if not JOB_NAME.fullmatch(key.text):
            text = "has 1 to 100 letters, digits, spaces and _ . : / + -, and starts and ends with a letter or digit"
            problems.add(place(key, f"jobs.{key.text}"), f"a job name {text}")
        specs.append(reader.job(key, node, defaults))
    return tuple(spec for spec in specs if spec is not None)


def _plain(texts: Sequence[Text]) -> tuple[str, ...]:
    return tuple(text.text for text in texts)


class Reader(Values):
    """Reads the mappings that a configuration is made of."""

    def version(self, top: Fields) -> None:
        """Version 1 is the only one."""
        node = top.get("version")
        if node is None:
            self.problems.add(place(top, "version"), "missing; write 'version: 1'")
        elif not isinstance(node, Scalar) or node.text != "1":
            self.problems.add(place(node, "version"), "only version 1 is known; write 'version: 1'")

    def defaults(self, node: Node | None, env: dict[str, Text]) -> Defaults:
        """The `defaults` mapping, with the top-level `env`."""
        fields = self.fields(node, "defaults", names(keys.DEFAULTS), "labels, timeout, retries and workdir")
        if fields is None:
            return Defaults(env=env)
        return Defaults(
            labels=self.labels(fields.get("labels"), "defaults.labels"),
            timeout_ms=self.timeout(fields.get("timeout"), "defaults.timeout", 3_600_000),
            retries=self.integer(fields.get("retries"), "defaults.retries", 0, (0, RETRIES_MAX)),
            workdir=self.directory(fields.get("workdir"), "defaults.workdir", "."),
            env=env,
        )

    def full_run(self, node: Node | None) -> FullRun:
        """When everything runs; what is left out keeps its default."""
        fields = self.fields(node, "full_run", names(keys.FULL_RUN), "a mapping with branches, labels and schedule")
        if fields is None:
            return FullRun()
        branches = self.branches(fields.get("branches"), "full_run.branches")
        labels = fields.get("labels")
        return FullRun(
            branches=_plain(branches),
            labels=FullRun().labels
            if labels is None
            else _plain(self.texts(labels, "full_run.labels", "labels of pull requests")),
            is_scheduled=self.boolean(fields.get("schedule"), "full_run.schedule", default=True),
        )

    def job(self, key: Scalar, node: Node, defaults: Defaults) -> JobSpec | None:
        """One job; None if it is not a mapping at all."""
        prefix = f"jobs.{key.text}"
        fields = self.fields(node, prefix, names(keys.JOB), "a mapping with at least 'steps'")
        if fields is None:
            return None
        workdir = self.directory(fields.get("workdir"), f"{prefix}.workdir", defaults.workdir)
        labels = fields.get("labels")
        return JobSpec(
            name=key.text,
            at=place(key, prefix),
            steps=self.steps(fields, prefix, workdir),
            needs=self.texts(fields.get("needs"), f"{prefix}.needs", "job names"),
            labels=defaults.labels if labels is None else self.labels(labels, f"{prefix}.labels"),
            env={**defaults.env, **self.env(fields.get("env"), f"{prefix}.env")},
            timeout_ms=self.timeout(fields.get("timeout"), f"{prefix}.timeout", defaults.timeout_ms),
            retries=self.integer(fields.get("retries"), f"{prefix}.retries", defaults.retries, (0, RETRIES_MAX)),
            policy=self.policy(fields, prefix),
            priority=self.integer(fields.get("priority"), f"{prefix}.priority", 0, (-PRIORITY_MAX, PRIORITY_MAX)),
            concurrency=self.group(fields.get("concurrency"), f"{prefix}.concurrency"),
            paths=self.globs(fields.get("paths"), f"{prefix}.paths"),
            paths_ignore=self.globs(fields.get("paths_ignore"), f"{prefix}.paths_ignore"),
            projects=self.projects(fields, prefix),
            reports=self.reports(fields.get("reports"), f"{prefix}.reports"),
            artifacts=self.files(fields.get("artifacts"), f"{prefix}.artifacts", "name"),
            caches=self.files(fields.get("caches"), f"{prefix}.caches", "key"),
            matrix=self.matrix(fields.get("matrix"), f"{prefix}.matrix"),
        )

    def group(self, node: Node | None, key: str) -> Text | None:
        """The name of a concurrency group."""
        text = self.text(node, key, "the name of a group, such as 'deploy'")
        if text is not None and "${{" not in text.text and not GROUP.fullmatch(text.text):
            self.problems.add(text.at, GROUP_TEXT)
        return text

    def projects(self, job: Fields, prefix: str) -> tuple[Text, ...]:
        """Directories or ids of projects; whether they are there is known only with the repository."""
        node = job.get("projects")
        projects = self.texts(node, f"{prefix}.projects", "directories of projects")
        if node is not None and isinstance(node, Items) and not node.items:
            self.problems.add(place(node, f"{prefix}.projects"), "an empty list; remove the key, or name projects")
        ignored = job.get("paths_ignore")
        if projects and ignored is not None and job.get("paths") is None:
            text = "with 'projects' it narrows 'paths', and there is none; use 'documentation' at the top, or remove it"
            self.problems.add(place(ignored, f"{prefix}.paths_ignore"), text)
        return projects

    def reports(self, node: Node | None, key: str) -> tuple[Text, ...]:
        """Globs of JUnit XML files."""
        reports = self.texts(node, key, "paths such as 'reports/*.xml'")
        for report in reports:
            self.check_inside(report)
        return reports

    def steps(self, job: Fields, prefix: str, workdir: str) -> tuple[StepSpec, ...]:
        """The steps, each a script or a mapping with `run`."""
        key = f"{prefix}.steps"
        node = job.get("steps")
        if node is None:
            self.problems.add(place(job, key), "missing; a job has at least one step")
            return ()
        items = self.items(node, key, "a list of scripts, or of mappings with 'run'")
        if not items:
            self.problems.add(place(node, key), "a job has at least one step") if isinstance(node, Items) else None
        if len(items) > STEPS_MAX:
            self.problems.add(place(node, key), f"{len(items)} steps; at most {STEPS_MAX} are accepted")
            return ()
        steps = (self.step(item, f"{key}[{index}]", workdir) for index, item in enumerate(items))
        return tuple(step for step in steps if step is not None)

    def step(self, node: Node, key: str, workdir: str) -> StepSpec | None:
        """One step."""
        if isinstance(node, Scalar):
            run = self.script(node, key)
            return None if run is None else StepSpec(name=None, run=run, env={}, workdir=workdir)
        fields = self.fields(node, key, names(keys.STEP), "a script, or a mapping with 'run'")
        if fields is None:
            return None
        if fields.get("run") is None:
            self.problems.add(place(fields, f"{key}.run"), "missing; a step runs a script")
        run = self.script(fields.get("run"), f"{key}.run")
        name = self.text(fields.get("name"), f"{key}.name", "a short text")
        env = self.env(fields.get("env"), f"{key}.env")
        directory = self.directory(fields.get("workdir"), f"{key}.workdir", workdir)
        return None if run is None else StepSpec(name=name, run=run, env=env, workdir=directory)

    def script(self, node: Node | None, key: str) -> Text | None:
        """A shell script that is not empty."""
        text = self.text(node, key, "a shell script")
        if text is not None and (not text.text.strip() or "\0" in text.text):
            self.problems.add(text.at, "an empty script; write a shell command")
            return None
        return text

    def policy(self, job: Fields, prefix: str) -> Policy:
        """`policy`, or its short form `allow_failure`; not both."""
        node, short = job.get("policy"), job.get("allow_failure")
        policy: Literal["required", "allow_failure"] = "required"
        if node is not None:
            if isinstance(node, Scalar) and node.text in ("required", "allow_failure"):
                policy = "required" if node.text == "required" else "allow_failure"
            else:
                self.problems.add(place(node, f"{prefix}.policy"), "write 'required' or 'allow_failure'")
        if short is not None:
            at = place(short, f"{prefix}.allow_failure")
            if node is not None:
                self.problems.add(at, "'policy' says this already; keep one of the two")
            elif self.boolean(short, f"{prefix}.allow_failure", default=False):
                policy = "allow_failure"
        return policy

    def files(self, node: Node | None, key: str, naming: Literal["name", "key"]) -> tuple[FilesSpec, ...]:
        """Artifacts or caches: a name or key, and paths inside the checkout."""
        found = []
        for index, item in enumerate(self.items(node, key, f"a list of mappings with '{naming}' and 'paths'")):
            where = f"{key}[{index}]"
            table = keys.ARTIFACT if naming == "name" else keys.CACHE
            fields = self.fields(item, where, names(table), f"a mapping with '{naming}' and 'paths'")
            if fields is None:
                continue
            for required in (naming, "paths"):
                if fields.get(required) is None:
                    self.problems.add(place(fields, f"{where}.{required}"), "missing")
            text = self.text(fields.get(naming), f"{where}.{naming}", "a text")
            paths = self.texts(fields.get("paths"), f"{where}.paths", "paths")
            for path in paths:
                self.check_inside(path)
            if text is not None and paths:
                found.append(FilesSpec(text=text, paths=paths))
            elif fields.get("paths") is not None and not paths:
                self.problems.add(place(fields, f"{where}.paths"), "name at least one path")
        return tuple(found)

    def matrix(self, node: Node | None, key: str) -> MatrixSpec | None:
        """Axes, `include` and `exclude`."""
        fields = self.fields(node, key, None, "a mapping of axes to lists of values")
        if fields is None:
            return None
        axes: dict[str, tuple[str, ...]] = {}
        for name, value in fields.fields:
            if name.text in ("include", "exclude"):
                continue
            where = f"{key}.{name.text}"
            self._check_axis(name, where)
            values = self.texts(value, where, "values")
            seen: set[str] = set()
            for text in values:
                self._check_value(text)
                if text.text in seen:
                    self.problems.add(text.at, f"{printable(text.text)!r} is in this list twice")
                seen.add(text.text)
            if not values:
                self.problems.add(place(value, where), "name at least one value")
            axes[name.text] = tuple(text.text for text in values)
        include = self._combinations(fields.get("include"), f"{key}.include")
        exclude = self._combinations(fields.get("exclude"), f"{key}.exclude", tuple(axes))
        if not axes and not include:
            self.problems.add(place(fields, key), "empty; name an axis with values, or 'include' combinations")
        return MatrixSpec(axes=axes, exclude=exclude, include=include, at=place(fields, key))

    def _combinations(
        self, node: Node | None, key: str, known: tuple[str, ...] | None = None
    ) -> tuple[dict[str, str], ...]:
        combinations = []
        for index, item in enumerate(self.items(node, key, "a list of mappings of axes to values")):
            where = f"{key}[{index}]"
            fields = self.fields(item, where, known, "a mapping of axes to values")
            combination = {}
            for name, value in fields.fields if fields is not None else ():
                self._check_axis(name, f"{where}.{name.text}")
                text = self.text(value, f"{where}.{name.text}", "a value")
                if text is not None:
                    self._check_value(text)
                    combination[name.text] = text.text
            if combination:
                combinations.append(combination)
            elif fields is not None and not fields.fields:
                self.problems.add(place(fields, where), "empty; name at least one axis with its value")
        return tuple(combinations)

    def _check_axis(self, name: Scalar, key: str) -> None:
        if not ENV_NAME.fullmatch(name.text) or len(name.text) > AXIS_CHARACTERS_MAX:
            self.problems.add(
                place(name, key),
                AXIS_TEXT,
            )

    def _check_value(self, text: Text) -> None:
        if not 1 <= len(text.text) <= VALUE_CHARACTERS_MAX or not text.text.isprintable():
            self.problems.add(text.at, f"a value has 1 to {VALUE_CHARACTERS_MAX} printable characters")
