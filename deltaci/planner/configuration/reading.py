"""`deltaci.yaml` as a whole: nodes in, job specifications out, every problem noted with its place.

Rule 1: what is not described in `shape` is a problem, with the nearest name that is.
Rule 2: a problem never ends the reading; the author sees all of them at once.
"""

from typing import Literal

from deltaci.domain.plan import Policy
from deltaci.planner.configuration.problems import Problems
from deltaci.planner.configuration.shape import (
    DEFAULTS_KEYS,
    ENV_NAME,
    JOB_KEYS,
    JOB_NAME,
    PRIORITY_MAX,
    RETRIES_MAX,
    STEP_KEYS,
    STEPS_MAX,
    TOP_KEYS,
    VALUE_CHARACTERS_MAX,
    Defaults,
    FilesSpec,
    JobSpec,
    MatrixSpec,
    StepSpec,
    Text,
)
from deltaci.planner.configuration.values import Values, place
from deltaci.planner.errors import printable
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar


def read(root: Node, problems: Problems) -> tuple[JobSpec, ...]:
    """The jobs of a configuration, in the order written; if `problems` has any after it, they are a guess."""
    reader = Reader(problems)
    top = reader.fields(root, "", TOP_KEYS, "'version', 'jobs', 'env' and 'defaults'")
    if top is None:
        return ()
    reader.version(top)
    env = reader.env(top.get("env"), "env")
    defaults = reader.defaults(top.get("defaults"), env)
    jobs = top.get("jobs")
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
        fields = self.fields(node, "defaults", DEFAULTS_KEYS, "labels, timeout, retries and workdir")
        if fields is None:
            return Defaults(env=env)
        return Defaults(
            labels=self.labels(fields.get("labels"), "defaults.labels"),
            timeout_ms=self.timeout(fields.get("timeout"), "defaults.timeout", 3_600_000),
            retries=self.integer(fields.get("retries"), "defaults.retries", 0, (0, RETRIES_MAX)),
            workdir=self.directory(fields.get("workdir"), "defaults.workdir", "."),
            env=env,
        )

    def job(self, key: Scalar, node: Node, defaults: Defaults) -> JobSpec | None:
        """One job; None if it is not a mapping at all."""
        prefix = f"jobs.{key.text}"
        fields = self.fields(node, prefix, JOB_KEYS, "a mapping with at least 'steps'")
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
            paths=self.globs(fields.get("paths"), f"{prefix}.paths"),
            paths_ignore=self.globs(fields.get("paths_ignore"), f"{prefix}.paths_ignore"),
            artifacts=self.files(fields.get("artifacts"), f"{prefix}.artifacts", "name"),
            caches=self.files(fields.get("caches"), f"{prefix}.caches", "key"),
            matrix=self.matrix(fields.get("matrix"), f"{prefix}.matrix"),
        )

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
        fields = self.fields(node, key, STEP_KEYS, "a script, or a mapping with 'run'")
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
            elif isinstance(short, Scalar) and short.text in ("true", "false"):
                policy = "allow_failure" if short.text == "true" else "required"
            else:
                self.problems.add(at, "write true or false")
        return policy

    def files(self, node: Node | None, key: str, naming: Literal["name", "key"]) -> tuple[FilesSpec, ...]:
        """Artifacts or caches: a name or key, and paths inside the checkout."""
        found = []
        for index, item in enumerate(self.items(node, key, f"a list of mappings with '{naming}' and 'paths'")):
            where = f"{key}[{index}]"
            fields = self.fields(item, where, (naming, "paths"), f"a mapping with '{naming}' and 'paths'")
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
        if not ENV_NAME.fullmatch(name.text) or len(name.text) > 50:
            self.problems.add(
                place(name, key), "an axis is named by up to 50 letters, digits and _, not starting with a digit"
            )

    def _check_value(self, text: Text) -> None:
        if not 1 <= len(text.text) <= VALUE_CHARACTERS_MAX or not text.text.isprintable():
            self.problems.add(text.at, f"a value has 1 to {VALUE_CHARACTERS_MAX} printable characters")
