"""The JSON Schema (draft 2020-12) of `deltaci.yaml`, for editors: made from the tables that the reader reads.

Rule: what it refuses the reader refuses; unknown keys and values of a wrong kind it refuses as the reader does. What
only the whole file or the repository can tell (a need that is no job, a cycle, an unknown project) it lets through.
"""

from typing import Any, Final

from deltaci.domain.plan import MATRIX_MAX
from deltaci.planner.configuration import keys
from deltaci.planner.configuration.keys import Key
from deltaci.planner.configuration.shape import (
    AXIS_CHARACTERS_MAX,
    CHANNEL,
    DURATION,
    ENV_NAME,
    GROUP,
    HAPPENINGS,
    JOB_NAME,
    LABEL,
    LABELS_MAX,
    LIST_MAX,
    NOTIFY_MAX,
    PRIORITY_MAX,
    RETRIES_MAX,
    STEPS_MAX,
    TIMEOUT_MS_MAX,
    VALUE_CHARACTERS_MAX,
)
from deltaci.planner.globs import PATTERN_CHARACTERS_MAX

ID: Final = "urn:deltaci:schema:configuration:1"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
EXPRESSION: Final = r"\$\{\{"
# A value is taken as it is written: what YAML takes for a number or a truth value is a text as well.
SCALAR_TYPES: Final = ("string", "number", "boolean")

Schema = dict[str, Any]


def document() -> Schema:
    """The schema as JSON values; equal for equal programs."""
    return {
        "$schema": DIALECT,
        "$id": ID,
        "title": "Delta CI configuration (deltaci.yaml)",
        **_mapping(keys.TOP, "What runs for this repository."),
        "$defs": dict(sorted(_definitions().items())),
    }


def _mapping(table: tuple[Key, ...], text: str) -> Schema:
    """A mapping whose keys are those of the table and no others."""
    required = [key.name for key in table if key.is_required]
    return {
        "description": text,
        "type": "object",
        "properties": {key.name: {"$ref": f"#/$defs/{key.kind}", "description": key.text} for key in table},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }


def _definitions() -> dict[str, Schema]:
    kinds: dict[str, Schema] = {
        "version": {"enum": [1, "1"]},
        "text": _scalar(),
        "script": _scalar(minLength=1, pattern=r"\S"),
        "steps": {"type": "array", "minItems": 1, "maxItems": STEPS_MAX, "items": {"$ref": "#/$defs/step"}},
        "names": _one_or_list(_scalar()),
        "words": _one_or_list(_scalar()),
        "labels": _one_or_list(_named(LABEL.pattern), maxItems=LABELS_MAX),
        "env": {
            "type": "object",
            "propertyNames": {"pattern": _whole(ENV_NAME.pattern)},
            "additionalProperties": _scalar(),
        },
        "directory": _path(),
        "duration": {
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": TIMEOUT_MS_MAX // 1000},
                {"type": "string", "minLength": 1, "pattern": _whole(rf"[0-9]{{1,6}}|{DURATION.pattern}")},
            ]
        },
        "retries": _whole_number(0, RETRIES_MAX),
        "priority": _whole_number(-PRIORITY_MAX, PRIORITY_MAX),
        "policy": {"enum": ["required", "allow_failure"]},
        "boolean": {"enum": [True, False, "true", "false"]},
        "patterns": _one_or_list(_pattern(), minItems=1),
        "taking_back": _one_or_list(_pattern(), minItems=1),
        "paths": _one_or_list(_path()),
        "artifacts": _list(_mapping(keys.ARTIFACT, "Files kept after the job.")),
        "caches": _list(_mapping(keys.CACHE, "Directories kept between jobs.")),
        "matrix": _matrix(),
        "group": _named(GROUP.pattern),
        "notifications": {
            "type": "array",
            "maxItems": NOTIFY_MAX,
            "items": _mapping(keys.NOTIFY, "A channel, and what it is told of."),
        },
        "channel": _scalar(pattern=_whole(CHANNEL.pattern)),
        "happenings": _one_or_list({"enum": list(HAPPENINGS)}, minItems=1),
        "full_run": _mapping(keys.FULL_RUN, "When everything runs, whatever changed."),
        "defaults": _mapping(keys.DEFAULTS, "What jobs have that do not say otherwise."),
        "jobs": {
            "type": "object",
            "minProperties": 1,
            "propertyNames": {"pattern": _whole(JOB_NAME.pattern)},
            "additionalProperties": {"$ref": "#/$defs/job"},
        },
    }
    step = {"anyOf": [_scalar(minLength=1, pattern=r"\S"), _mapping(keys.STEP, "A script with a name of its own.")]}
    return {**kinds, "step": step, "job": _mapping(keys.JOB, "A job.")}


def _scalar(**more: Any) -> Schema:
    return {"type": list(SCALAR_TYPES), **more}


def _named(pattern: str) -> Schema:
    """A name of this form, or one with expressions in it, whose form is known when they are filled in."""
    return _scalar(pattern=f"{_whole(pattern)}|{EXPRESSION}")


def _pattern() -> Schema:
    return _scalar(minLength=1, maxLength=PATTERN_CHARACTERS_MAX + 1)


def _path() -> Schema:
    return _scalar(minLength=1, pattern=r"^[^/~\\]")


def _whole_number(low: int, high: int) -> Schema:
    return {
        "anyOf": [
            {"type": "integer", "minimum": low, "maximum": high},
            {"type": "string", "pattern": _whole(r"-?[0-9]{1,6}")},
        ]
    }


def _list(item: Schema, **more: Any) -> Schema:
    return {"type": "array", "maxItems": LIST_MAX, "items": item, **more}


def _one_or_list(item: Schema, **more: Any) -> Schema:
    """A list, or one item alone."""
    return {"anyOf": [item, _list(item, **more)]}


def _matrix() -> Schema:
    axis = ENV_NAME.pattern.replace("*", f"{{0,{AXIS_CHARACTERS_MAX - 1}}}")
    value = _scalar(minLength=1, maxLength=VALUE_CHARACTERS_MAX)
    combination = {
        "type": "object",
        "minProperties": 1,
        "propertyNames": {"pattern": _whole(axis)},
        "additionalProperties": value,
    }
    return {
        "type": "object",
        "minProperties": 1,
        "properties": {
            "include": _list(combination) | {"description": "Whole combinations to add."},
            "exclude": _list(combination) | {"description": "Values whose combinations are left out."},
        },
        "propertyNames": {"pattern": _whole(axis)},
        "additionalProperties": _one_or_list(value, minItems=1),
        "description": f"At most {MATRIX_MAX} combinations.",
    }


def _whole(pattern: str) -> str:
    """The pattern, to match from the first character to the last: in a schema one may match anywhere."""
    return f"^(?:{pattern})$"
