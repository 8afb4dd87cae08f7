"""Bounded readers of the notations that locks are written in; whatever is odd raises Odd.

Rule: values come out as plain dictionaries, lists and texts, with unique keys, no deeper than `DEPTH_MAX`.
"""

import json
import re
import tomllib
from typing import Any, Final

import yaml

from deltaci.planner.locks.lock import Odd

BYTES_MAX: Final = 8 * 1024 * 1024
# The TOML reader is written in Python and takes about a second for each megabyte.
TOML_BYTES_MAX: Final = 4 * 1024 * 1024
DEPTH_MAX: Final = 64
# The TOML reader takes time by the square of the parts of a dotted key, minutes for one of a few megabytes; a key is on
# one line, and lines of locks have few dots.
_DOTS_MAX: Final = 64
_Loader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# A text (to the end of the file if it is not closed, so that no start is tried twice), a comment, a last comma.
_LOOSE: Final = re.compile(r'"(?:[^"\\]++|\\.?)*+(?:"|\Z)|//[^\n]*+|,(?=\s*+[}\]])', re.DOTALL)


def read_text(data: bytes) -> str:
    """UTF-8 with or without its mark."""
    if len(data) > BYTES_MAX:
        raise Odd("too large")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Odd("not UTF-8") from error


def read_json(data: bytes, *, is_loose: bool = False) -> dict[str, Any]:
    """A JSON object; if `is_loose`, with comments and commas before closing brackets."""
    text = read_text(data)
    if is_loose:
        text = _LOOSE.sub(lambda match: match[0] if match[0].startswith('"') else "", text)
    try:
        return mapping(json.loads(text, object_pairs_hook=_unique))
    except (ValueError, RecursionError) as error:
        raise Odd("not JSON") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise Odd("a key twice")
    return found


def read_toml(data: bytes) -> dict[str, Any]:
    """A TOML document."""
    if len(data) > TOML_BYTES_MAX:
        raise Odd("too large")
    content = read_text(data)
    if any(line.count(".") > _DOTS_MAX for line in content.split("\n")):
        raise Odd("a key of too many parts")
    try:
        return tomllib.loads(content)
    except (ValueError, RecursionError) as error:
        raise Odd("not TOML") from error


def read_yaml(data: bytes) -> dict[str, Any]:
    """One YAML document, all scalars as the texts that were written; anchors, aliases, tags and merges are odd."""
    text = read_text(data)
    try:
        return mapping(_build(text))
    except yaml.YAMLError as error:
        raise Odd("not YAML") from error


def _build(text: str) -> Any:
    """Turn events into values with a stack, so that depth costs no recursion."""
    root: list[Any] = []
    # Of each open collection: the value, and the key that waits for its value (None if there is none).
    stack: list[tuple[Any, list[str]]] = [(root, [])]
    event: Any
    for event in yaml.parse(text, Loader=_Loader):
        kind = type(event)
        value: Any
        if kind is yaml.ScalarEvent:
            value = event.value
        elif kind is yaml.MappingStartEvent:
            value = {}
        elif kind is yaml.SequenceStartEvent:
            value = []
        elif kind in (yaml.MappingEndEvent, yaml.SequenceEndEvent):
            stack.pop()
            continue
        elif kind is yaml.AliasEvent:
            raise Odd("an alias")
        else:
            continue
        if event.anchor is not None or (event.tag is not None and event.tag != "!"):
            raise Odd("an anchor or a tag")
        parent, key = stack[-1]
        if type(parent) is list:
            parent.append(value)
        elif key:
            parent[key.pop()] = value
        elif kind is not yaml.ScalarEvent or value == "<<" or value in parent:
            raise Odd("a key that is no text, or is there twice")
        else:
            key.append(value)
        if kind is not yaml.ScalarEvent:
            if len(stack) > DEPTH_MAX:
                raise Odd("too deep")
            stack.append((value, []))
    if len(root) != 1:
        raise Odd("not one document")
    return root[0]


# ---- access: the value if it is what the format says, Odd if it is something else ---------------------------------


def mapping(value: Any) -> dict[str, Any]:
    """A dictionary; what is absent counts as an empty one."""
    if value is None or value == "":
        return {}
    if not isinstance(value, dict):
        raise Odd("expected a mapping")
    return value


def items(value: Any) -> list[Any]:
    """A list; what is absent counts as an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise Odd("expected a list")
    return value


def text(value: Any) -> str:
    """A text."""
    if not isinstance(value, str):
        raise Odd("expected a text")
    return value


def without(value: dict[str, Any], names: frozenset[str]) -> dict[str, Any]:
    """All fields but these."""
    return {name: field for name, field in value.items() if name not in names}
