"""The shape of `deltaci.yaml`: how large everything may be, what names look like, and a job as it was written.

Rule: nobody else knows a limit; the keys are in `keys`.
"""

import re
from typing import Final

import msgspec

from deltaci.domain.plan import Happening, Policy

STEPS_MAX: Final = 100
LIST_MAX: Final = 1_000
LABELS_MAX: Final = 20
RETRIES_MAX: Final = 10
PRIORITY_MAX: Final = 100
TIMEOUT_MS_MAX: Final = 24 * 3_600_000
VALUE_CHARACTERS_MAX: Final = 200
AXIS_CHARACTERS_MAX: Final = 50
FULL_RUN_LABEL: Final = "full-ci"
NOTIFY_MAX: Final = 50
HAPPENINGS: Final[tuple[Happening, ...]] = ("failed", "recovered", "succeeded", "canceled")
HAPPENINGS_DEFAULT: Final[tuple[Happening, ...]] = ("failed", "recovered")

ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
JOB_NAME: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_ .:/+-]{0,98}[A-Za-z0-9_+])?", re.ASCII)
LABEL: Final = re.compile(r"\S{1,100}")
GROUP: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_ .:/+-]{0,99}", re.ASCII)
CHANNEL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
DURATION: Final = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?", re.ASCII)


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
    concurrency: Text | None = None
    paths: tuple[Text, ...] = ()
    paths_ignore: tuple[Text, ...] = ()
    projects: tuple[Text, ...] = ()
    reports: tuple[Text, ...] = ()
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


class FullRun(msgspec.Struct, frozen=True, kw_only=True):
    """When everything runs, whatever changed: pushes to branches, pull requests with a label, scheduled runs."""

    branches: tuple[str, ...] = ()
    labels: tuple[str, ...] = (FULL_RUN_LABEL,)
    is_scheduled: bool = True


class Notification(msgspec.Struct, frozen=True, kw_only=True):
    """Who is told of which ends of runs. Without `branches` those of all runs, with them those of pushes to them."""

    channel: str
    on: tuple[Happening, ...] = HAPPENINGS_DEFAULT
    branches: tuple[str, ...] | None = None


class FileSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A configuration as written."""

    jobs: tuple[JobSpec, ...] = ()
    full_run: FullRun = FullRun()
    documentation: tuple[str, ...] = ()
    notify: tuple[Notification, ...] = ()
