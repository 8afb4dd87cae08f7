"""The shape of `deltaci.yaml`: nodes in, job specifications out, every problem noted with its place.

Rule 1: what is not described here is a problem, with the nearest name that is.
Rule 2: a problem never ends the reading; the author sees all of them at once.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal, TypeVar

import msgspec

from deltaci.domain.plan import Policy
from deltaci.planner.errors import PROBLEMS_MAX, Problem, printable
from deltaci.planner.globs import GlobInvalid, Globs
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar

STEPS_MAX: Final = 100
LIST_MAX: Final = 1_000
LABELS_MAX: Final = 20
RETRIES_MAX: Final = 10
PRIORITY_MAX: Final = 100
TIMEOUT_MS_MAX: Final = 24 * 3_600_000
VALUE_CHARACTERS_MAX: Final = 200

TOP_KEYS: Final = ("version", "env", "defaults", "jobs")
DEFAULTS_KEYS: Final = ("labels", "timeout", "retries", "workdir")
JOB_KEYS: Final = (
    *("steps", "needs", "labels", "env", "workdir", "timeout", "retries", "policy", "allow_failure", "priority"),
    *("paths", "paths_ignore", "artifacts", "caches", "matrix"),
)
STEP_KEYS: Final = ("name", "run", "env", "workdir")
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_JOB_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_ .:/+-]{0,98}[A-Za-z0-9_+])?", re.ASCII)
_LABEL: Final = re.compile(r"\S{1,100}")
_DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)

T = TypeVar("T")


class At(msgspec.Struct, frozen=True):
    """A place in the file with the key that stands there."""

    line: int
    column: int
    key: str


class Text(msgspec.Struct, frozen=True):
    """A text of the author that may hold expressions, and where it is."""

    text: str
    at: At


class StepSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One step as written."""

    name: Text | None
    run: Text
    env: dict[str, Text]
    workdir: str


class FilesSpec(msgspec.Struct, frozen=True, kw_only=True):
    """An artifact (`name`) or a cache (`key`) as written: the text, and the paths."""

    text: Text
    paths: tuple[Text, ...]


class MatrixSpec(msgspec.Struct, frozen=True, kw_only=True):
    """Axes with their values, partial combinations to leave out, whole combinations to add."""

    axes: dict[str, tuple[str, ...]]
    exclude: tuple[dict[str, str], ...]
    include: tuple[dict[str, str], ...]
    at: At


class JobSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One job as written, before its matrix is expanded. Times are milliseconds."""

    name: str
    at: At
    steps: tuple[StepSpec, ...] = ()
    needs: tuple[Text, ...] = ()
    labels: tuple[Text, ...] = ()
    env: dict[str, Text] = {}
    timeout_ms: int = 3_600_000
    retries: int = 0
    policy: Policy = "required"
    priority: int = 0
    paths: tuple[str, ...] = ()
    paths_ignore: tuple[str, ...] = ()
    artifacts: tuple[FilesSpec, ...] = ()
    caches: tuple[FilesSpec, ...] = ()
    matrix: MatrixSpec | None = None


class Defaults(msgspec.Struct, frozen=True, kw_only=True):
    """What a job has that does not say otherwise."""

    labels: tuple[Text, ...] = ()
    timeout_ms: int = 3_600_000
    retries: int = 0
    workdir: str = "."
    env: dict[str, Text] = {}


class Problems:
    """Collects problems, at most `PROBLEMS_MAX`: a file of 256 KiB can hold more than anybody wants to read."""

    def __init__(self, file: str) -> None:
        self.file: Final = file
        self._found: list[Problem] = []

    @property
    def is_full(self) -> bool:
        """Whether further problems would be dropped."""
        return len(self._found) >= PROBLEMS_MAX

    def add(self, at: At, text: str) -> None:
        """Note one problem."""
        if not self.is_full:
            key = printable(at.key, length_max=120)
            self._found.append(Problem(file=self.file, line=at.line, column=at.column, key=key, text=text))

    def found(self) -> tuple[Problem, ...]:
        """All problems, in the order of the file."""
        return tuple(sorted(self._found, key=lambda p: (p.line or 0, p.column or 0)))

    def nearest(self, name: str, known: Iterable[str]) -> str:
        """` (did you mean 'x'?)` or an empty text. Not computed when nobody would read it: it is slow."""
        if self.is_full:
            return ""
        close = difflib.get_close_matches(name[:100], list(known), n=1)
        return f" (did you mean {close[0]!r}?)" if close else ""


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
        problems.add(_at(top, "jobs"), "missing; a configuration has at least one job")
        return ()
    named = reader.fields(jobs, "jobs", None, "job names, each with its 'steps'")
    if named is None:
        return ()
    if not named.fields:
        problems.add(_at(named, "jobs"), "empty; a configuration has at least one job")
    specs = []
    for key, node in named.fields:
        if not _JOB_NAME.fullmatch(key.text):
            text = "has 1 to 100 letters, digits, spaces and _ . : / + -, and starts and ends with a letter or digit"
            problems.add(_at(key, f"jobs.{key.text}"), f"a job name {text}")
        specs.append(reader.job(key, node, defaults))
    return tuple(spec for spec in specs if spec is not None)


class Reader:
    """Reads each kind of value; answers with a harmless value where it noted a problem."""

    def __init__(self, problems: Problems) -> None:
        self._problems = problems

    def version(self, top: Fields) -> None:
        """Version 1 is the only one."""
        node = top.get("version")
        if node is None:
            self._problems.add(_at(top, "version"), "missing; write 'version: 1'")
        elif not isinstance(node, Scalar) or node.text != "1":
            self._problems.add(_at(node, "version"), "only version 1 is known; write 'version: 1'")

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
            at=_at(key, prefix),
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
            self._problems.add(_at(job, key), "missing; a job has at least one step")
            return ()
        items = self.items(node, key, "a list of scripts, or of mappings with 'run'")
        if not items:
            self._problems.add(_at(node, key), "a job has at least one step") if isinstance(node, Items) else None
        if len(items) > STEPS_MAX:
            self._problems.add(_at(node, key), f"{len(items)} steps; at most {STEPS_MAX} are accepted")
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
            self._problems.add(_at(fields, f"{key}.run"), "missing; a step runs a script")
        run = self.script(fields.get("run"), f"{key}.run")
        name = self.text(fields.get("name"), f"{key}.name", "a short text")
        env = self.env(fields.get("env"), f"{key}.env")
        directory = self.directory(fields.get("workdir"), f"{key}.workdir", workdir)
        return None if run is None else StepSpec(name=name, run=run, env=env, workdir=directory)

    def script(self, node: Node | None, key: str) -> Text | None:
        """A shell script that is not empty."""
        text = self.text(node, key, "a shell script")
        if text is not None and (not text.text.strip() or "\0" in text.text):
            self._problems.add(text.at, "an empty script; write a shell command")
            return None
        return text

    def env(self, node: Node | None, key: str) -> dict[str, Text]:
        """Names and values of environment variables."""
        fields = self.fields(node, key, None, "a mapping of names to values")
        env: dict[str, Text] = {}
        for name, value in fields.fields if fields is not None else ():
            where = f"{key}.{name.text}"
            if not _ENV_NAME.fullmatch(name.text):
                self._problems.add(
                    _at(name, where), "a variable is named by letters, digits and _, not starting with a digit"
                )
            text = self.text(value, where, 'a text, number or boolean; write "" for an empty value')
            if text is not None and "\0" in text.text:
                self._problems.add(text.at, "a value cannot have a NUL character in it")
            elif text is not None:
                env[name.text] = text
        return env

    def labels(self, node: Node | None, key: str) -> tuple[Text, ...]:
        """Labels that a runner must have."""
        labels = self.texts(node, key, "labels")
        if len(labels) > LABELS_MAX:
            self._problems.add(labels[LABELS_MAX].at, f"{len(labels)} labels; at most {LABELS_MAX} are accepted")
        for label in labels:
            if "${{" not in label.text and not _LABEL.fullmatch(label.text):
                self._problems.add(label.at, "a label has 1 to 100 characters and no white space")
        return labels

    def timeout(self, node: Node | None, key: str, default: int) -> int:
        """Milliseconds of `90`, `90s`, `10m` or `1h30m`."""
        text = self.text(node, key, "a time such as 90s, 10m or 1h30m")
        if text is None:
            return default
        match = _DURATION.fullmatch(text.text)
        if text.text.isascii() and text.text.isdigit() and len(text.text) <= 6:
            seconds = int(text.text)
        elif match is not None and text.text:
            hours, minutes, rest = (int(part or 0) for part in match.groups())
            seconds = hours * 3600 + minutes * 60 + rest
        else:
            self._problems.add(
                text.at, f"{printable(text.text, length_max=40)!r} is not a time; write 90s, 10m, 1h30m or seconds"
            )
            return default
        if not 1 <= seconds <= TIMEOUT_MS_MAX // 1000:
            self._problems.add(text.at, "a timeout is between 1s and 24h")
            return default
        return seconds * 1000

    def integer(self, node: Node | None, key: str, default: int, bounds: tuple[int, int]) -> int:
        """A whole number within `bounds`, both included."""
        low, high = bounds
        expects = f"a whole number from {low} to {high}"
        text = self.text(node, key, expects)
        if text is None:
            return default
        value = int(text.text) if re.fullmatch(r"-?[0-9]{1,6}", text.text) else None
        if value is None or not low <= value <= high:
            self._problems.add(text.at, f"{printable(text.text, length_max=40)!r} is not {expects}")
            return default
        return value

    def policy(self, job: Fields, prefix: str) -> Policy:
        """`policy`, or its short form `allow_failure`; not both."""
        node, short = job.get("policy"), job.get("allow_failure")
        policy: Literal["required", "allow_failure"] = "required"
        if node is not None:
            if isinstance(node, Scalar) and node.text in ("required", "allow_failure"):
                policy = "required" if node.text == "required" else "allow_failure"
            else:
                self._problems.add(_at(node, f"{prefix}.policy"), "write 'required' or 'allow_failure'")
        if short is not None:
            at = _at(short, f"{prefix}.allow_failure")
            if node is not None:
                self._problems.add(at, "'policy' says this already; keep one of the two")
            elif isinstance(short, Scalar) and short.text in ("true", "false"):
                policy = "allow_failure" if short.text == "true" else "required"
            else:
                self._problems.add(at, "write true or false")
        return policy

    def globs(self, node: Node | None, key: str) -> tuple[str, ...]:
        """Patterns in the manner of .gitignore."""
        patterns = []
        texts = self.texts(node, key, "patterns such as 'src/**'")
        if node is not None and isinstance(node, Items) and not node.items:
            self._problems.add(_at(node, key), "an empty list matches no file; remove the key, or name patterns")
        for text in texts:
            try:
                Globs((text.text,))
            except GlobInvalid as error:
                self._problems.add(text.at, str(error))
            else:
                patterns.append(text.text)
        if patterns and all(pattern.startswith("!") for pattern in patterns):
            self._problems.add(
                _at(node, key) if node else texts[0].at, "only '!' patterns match no file; begin with '**'"
            )
        return tuple(patterns)

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
                    self._problems.add(_at(fields, f"{where}.{required}"), "missing")
            text = self.text(fields.get(naming), f"{where}.{naming}", "a text")
            paths = self.texts(fields.get("paths"), f"{where}.paths", "paths")
            for path in paths:
                self._check_inside(path)
            if text is not None and paths:
                found.append(FilesSpec(text=text, paths=paths))
            elif fields.get("paths") is not None and not paths:
                self._problems.add(_at(fields, f"{where}.paths"), "name at least one path")
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
                    self._problems.add(text.at, f"{printable(text.text)!r} is in this list twice")
                seen.add(text.text)
            if not values:
                self._problems.add(_at(value, where), "name at least one value")
            axes[name.text] = tuple(text.text for text in values)
        include = self._combinations(fields.get("include"), f"{key}.include")
        exclude = self._combinations(fields.get("exclude"), f"{key}.exclude", tuple(axes))
        if not axes and not include:
            self._problems.add(_at(fields, key), "empty; name an axis with values, or 'include' combinations")
        return MatrixSpec(axes=axes, exclude=exclude, include=include, at=_at(fields, key))

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
                self._problems.add(_at(fields, where), "empty; name at least one axis with its value")
        return tuple(combinations)

    def _check_axis(self, name: Scalar, key: str) -> None:
        if not _ENV_NAME.fullmatch(name.text) or len(name.text) > 50:
            self._problems.add(
                _at(name, key), "an axis is named by up to 50 letters, digits and _, not starting with a digit"
            )

    def _check_value(self, text: Text) -> None:
        if not 1 <= len(text.text) <= VALUE_CHARACTERS_MAX or not text.text.isprintable():
            self._problems.add(text.at, f"a value has 1 to {VALUE_CHARACTERS_MAX} printable characters")

    def _check_inside(self, path: Text) -> None:
        why = outside(path.text)
        if why is not None:
            self._problems.add(path.at, why)

    def directory(self, node: Node | None, key: str, default: str) -> str:
        """A directory inside the checkout."""
        text = self.text(node, key, "a directory inside the repository")
        if text is None:
            return default
        self._check_inside(text)
        return text.text.strip("/") or "."

    def text(self, node: Node | None, key: str, expects: str) -> Text | None:
        """A scalar as it was written; None for an absent one, and with a problem for any other kind."""
        if node is None:
            return None
        if not isinstance(node, Scalar) or node.is_null:
            self._problems.add(_at(node, key), f"expected {expects}, found {_kind(node)}")
            return None
        return Text(node.text, _at(node, key))

    def texts(self, node: Node | None, key: str, expects: str) -> tuple[Text, ...]:
        """A list of scalars, or one scalar alone."""
        if isinstance(node, Scalar) and not node.is_null:
            return (Text(node.text, _at(node, key)),)
        items = self.items(node, key, f"a list of {expects}")
        return _present(items, lambda index, item: self.text(item, f"{key}[{index}]", expects))

    def items(self, node: Node | None, key: str, expects: str) -> Sequence[Node]:
        """The items of a list."""
        if node is None:
            return ()
        if not isinstance(node, Items):
            self._problems.add(_at(node, key), f"expected {expects}, found {_kind(node)}")
            return ()
        if len(node.items) > LIST_MAX:
            self._problems.add(_at(node, key), f"{len(node.items)} items; at most {LIST_MAX} are accepted")
        return node.items[:LIST_MAX]

    def fields(self, node: Node | None, key: str, known: tuple[str, ...] | None, expects: str) -> Fields | None:
        """A mapping whose keys are all in `known`, if that is given."""
        if node is None:
            return None
        if not isinstance(node, Fields):
            self._problems.add(_at(node, key), f"expected {expects}, found {_kind(node)}")
            return None
        for name, _ in node.fields if known is not None else ():
            if known is not None and name.text not in known:
                near = self._problems.nearest(name.text, known)
                where = f"{key}.{name.text}" if key else name.text
                self._problems.add(_at(name, where), f"unknown key{near}; accepted: {', '.join(known)}")
        return node


def outside(path: str) -> str | None:
    """Why `path` may lead out of the checkout, or None: relative, with slashes, without `..`."""
    if not path or "\0" in path or not path.isprintable():
        return "a path has at least one character, and only printable ones"
    if path.startswith(("/", "~")) or "\\" in path or re.match(r"[A-Za-z]:", path):
        return "a path is relative to the root of the repository, with forward slashes"
    if ".." in path.split("/"):
        return "a path stays inside the repository, without '..'"
    return None


def _at(node: Node, key: str) -> At:
    return At(node.line, node.column, key)


def _kind(node: Node) -> str:
    if isinstance(node, Items):
        return "a list"
    if isinstance(node, Fields):
        return "a mapping"
    return "nothing" if node.is_null else f"the text {printable(node.text, length_max=40)!r}"


def _present(items: Sequence[Node], read_one: Callable[[int, Node], T | None]) -> tuple[T, ...]:
    values = (read_one(index, item) for index, item in enumerate(items))
    return tuple(value for value in values if value is not None)
