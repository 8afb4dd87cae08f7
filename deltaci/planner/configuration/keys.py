"""Every key of `deltaci.yaml`: what it accepts and what it means. Reader, messages and JSON Schema are made from it.

Rule: a key that is not in these tables is refused; one that is gets its meaning from here, in editors as well.
"""

from typing import Final, Literal, NamedTuple, TypeAlias

# How a value is written: the reader has a method for each, the JSON Schema a definition.
Kind: TypeAlias = Literal[
    "version",
    "text",
    "script",
    "steps",
    "names",
    "labels",
    "env",
    "directory",
    "duration",
    "retries",
    "priority",
    "policy",
    "boolean",
    "patterns",
    "taking_back",
    "paths",
    "artifacts",
    "caches",
    "matrix",
    "group",
    "words",
    "full_run",
    "notifications",
    "channel",
    "happenings",
    "defaults",
    "jobs",
]


class Key(NamedTuple):
    """A key, how its value is written, what it means, and whether it may not be left out."""

    name: str
    kind: Kind
    text: str
    is_required: bool = False


TOP: Final = (
    Key("version", "version", "The version of this format: 1.", is_required=True),
    Key("env", "env", "Environment variables of every job."),
    Key("defaults", "defaults", "What jobs have that do not say otherwise."),
    Key("full_run", "full_run", "When everything runs, whatever changed."),
    Key(
        "documentation",
        "taking_back",
        "Patterns of files that touch no project, besides Markdown and the like; '!' takes back.",
    ),
    Key("notify", "notifications", "Who is told how runs end, through channels that the server knows."),
    Key("jobs", "jobs", "The jobs by name.", is_required=True),
)
DEFAULTS: Final = (
    Key("labels", "labels", "Labels that the runner must have."),
    Key("timeout", "duration", "How long an attempt may take: 90s, 10m, 1h30m, or seconds; 1 s to 24 h."),
    Key("retries", "retries", "Further attempts after a failed one."),
    Key("workdir", "directory", "The directory of the steps, relative to the root of the repository."),
)
FULL_RUN: Final = (
    Key("branches", "words", "Patterns of branches; a push to one of them runs everything."),
    Key("labels", "words", "Labels of pull requests; one of them runs everything. 'full-ci' if this is left out."),
    Key("schedule", "boolean", "Whether a scheduled run runs everything. 'true' if this is left out."),
)
NOTIFY: Final = (
    Key("channel", "channel", "The name of a channel of the server.", is_required=True),
    Key(
        "on",
        "happenings",
        "How the run ends: failed, recovered (succeeded after a failure), succeeded, canceled (by a person). "
        "'[failed, recovered]' if this is left out.",
    ),
    Key("branches", "words", "Patterns of branches; only pushes to them are told. All runs if this is left out."),
)
JOB: Final = (
    Key("steps", "steps", "Shell scripts that run one after the other.", is_required=True),
    Key("needs", "names", "Jobs that must succeed first."),
    Key("labels", "labels", "Labels that the runner must have."),
    Key("env", "env", "Environment variables; they win over the top level, those of a step win over both."),
    Key("workdir", "directory", "The directory of the steps, relative to the root of the repository."),
    Key("timeout", "duration", "How long an attempt may take: 90s, 10m, 1h30m, or seconds; 1 s to 24 h."),
    Key("retries", "retries", "Further attempts after a failed one."),
    Key("policy", "policy", "'required', or 'allow_failure': reported, but not counted."),
    Key("allow_failure", "boolean", "Short for the policy 'allow_failure'."),
    Key("priority", "priority", "Higher goes first when runners are short."),
    Key("concurrency", "group", "Of the jobs of this repository with the same group one runs at a time."),
    Key("paths", "patterns", "The job runs if a changed file matches one of these patterns."),
    Key("paths_ignore", "patterns", "Changed files that match do not count."),
    Key(
        "projects",
        "names",
        "The job runs if the change touches one of these projects, or one that it depends on: the directory of a "
        "project, or '<ecosystem>:<directory>'.",
    ),
    Key("artifacts", "artifacts", "Files kept after the job."),
    Key("reports", "paths", "JUnit XML files that the job writes; kept as the artifact 'reports'."),
    Key("caches", "caches", "Directories kept between jobs with the same key."),
    Key("matrix", "matrix", "Axes with lists of values: the job runs once for each combination."),
)
STEP: Final = (
    Key("name", "text", "What the step is called; the first line of its script if this is left out."),
    Key("run", "script", "The shell script.", is_required=True),
    Key("env", "env", "Environment variables of this step."),
    Key("workdir", "directory", "The directory of the script, relative to the root of the repository."),
)
ARTIFACT: Final = (
    Key("name", "text", "What the artifact is called.", is_required=True),
    Key("paths", "paths", "Globs of the files.", is_required=True),
)
CACHE: Final = (
    Key("key", "text", "Jobs with the same key share the cache; hash('<glob>') changes with the files.", True),
    Key("paths", "paths", "The directories.", is_required=True),
)


def names(table: tuple[Key, ...]) -> tuple[str, ...]:
    """The names of the keys of a table, in its order."""
    return tuple(key.name for key in table)
