"""GitHub's official description of its API, held against what we send and what the GitHub of the tests answers.

Rule 1: it is the one of the npm package `@octokit/openapi`, installed by `make facts` outside of the checkout.
Rule 2: a property that the description does not know is wrong, even where a schema would let it pass: GitHub ignores it
        in silence, so nobody would ever see that it is misspelt.
"""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from jsonschema import Draft4Validator, FormatChecker
from jsonschema.exceptions import ValidationError
from referencing import Registry
from referencing.jsonschema import DRAFT4

FACTS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deltaci" / "facts"
FILE = FACTS / "node_modules" / "@octokit" / "openapi" / "generated" / "api.github.com.json"
BASE = "urn:github"


def require_description() -> None:
    """Skip where the description is missing, but fail in CI: a test against nothing must not look like agreement."""
    if FILE.exists():
        return
    if os.environ.get("CI"):
        pytest.fail("GitHub's description is not installed: make facts")
    pytest.skip("needs GitHub's description: make facts")


def _nullable(keyword: str) -> Any:
    """The keyword, which lets a null pass where the schema calls itself nullable."""

    def check(validator: Any, value: Any, instance: Any, schema: Mapping[str, Any]) -> Iterator[ValidationError]:
        if instance is not None or not schema.get("nullable"):
            yield from Draft4Validator.VALIDATORS[keyword](validator, value, instance, schema)

    return check


_FORMATS = FormatChecker(())


@_FORMATS.checks("date-time", raises=ValueError)
def _is_a_moment(value: object) -> bool:
    return not isinstance(value, str) or (datetime.fromisoformat(value).tzinfo is not None and "T" in value)


# OpenAPI 3.0 is JSON Schema draft 4 with `nullable`
_Validator: Any = jsonschema.validators.extend(
    Draft4Validator, {keyword: _nullable(keyword) for keyword in ("type", "enum", "oneOf", "anyOf", "allOf")}
)


class Description:
    """The parsed description; use `description()`, which reads its 13 MB once a process."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._registry: Any = Registry().with_resource(BASE, DRAFT4.create_resource(document))
        self._validators: dict[int, Any] = {}

    def operation(self, method: str, template: str) -> dict[str, Any]:
        """The operation; KeyError if GitHub has none like it."""
        found: dict[str, Any] = self.document["paths"][template][method.lower()]
        return found

    def wrong_request(
        self, method: str, template: str, params: Mapping[str, str], query: Mapping[str, str], body: Any
    ) -> list[str]:
        """What is wrong with a request, in words; `body` is None if there was none."""
        operation = self.operation(method, template)
        known = [self.resolved(one) for one in operation.get("parameters", [])]
        wrong = []
        for one in known:
            given = params if one["in"] == "path" else query
            if one["in"] in ("path", "query") and one["name"] in given:
                value = _typed(given[one["name"]], self.resolved(one["schema"]))
                wrong += self._wrong(value, one["schema"], one["name"])
            elif one.get("required") and one["in"] in ("path", "query"):
                wrong.append(f"the parameter {one['name']} is missing")
        names = {one["name"] for one in known if one["in"] == "query"}
        wrong += [f"there is no query parameter {name}" for name in query if name not in names]
        content = self.resolved(operation.get("requestBody", {})).get("content", {}).get("application/json")
        if body is None:
            is_needed = bool(operation.get("requestBody", {}).get("required"))
            return [*wrong, *(["the body is missing"] if content and is_needed else [])]
        if content is None:
            return [*wrong, *(["it takes no body"] if body else [])]
        return wrong + self._wrong(body, content["schema"], "body") + self._unknown(body, content["schema"], "body")

    def wrong_answer(self, method: str, template: str, status: int, body: Any) -> list[str]:
        """What is wrong with an answer of the GitHub of the tests, in words."""
        answers = self.operation(method, template)["responses"]
        if str(status) not in answers:
            return [f"the description has no answer {status}"]
        schema = self._answer_schema(method, template, status)
        return [] if schema is None else self._wrong(body, schema, "answer")

    def completed(self, method: str, template: str, status: int, partial: Any) -> Any:
        """`partial` with everything else that the description requires of this answer, as harmless values."""
        schema = self._answer_schema(method, template, status)
        return partial if schema is None else self._complete(schema, partial)

    def resolved(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """What a reference refers to."""
        found: Any = schema
        while "$ref" in found:
            name = found["$ref"]
            found = self.document
            for segment in name.removeprefix("#/").split("/"):
                found = found[segment.replace("~1", "/").replace("~0", "~")]
        return dict(found)

    def _answer_schema(self, method: str, template: str, status: int) -> dict[str, Any] | None:
        answer = self.operation(method, template)["responses"].get(str(status))
        content = self.resolved(answer).get("content", {}).get("application/json") if answer else None
        return content["schema"] if content else None

    def _wrong(self, value: Any, schema: dict[str, Any], where: str) -> list[str]:
        validator = self._validators.get(id(schema))
        if validator is None:
            rooted = _rooted(schema)
            made = _Validator(rooted, registry=self._registry, format_checker=_FORMATS)
            validator = self._validators[id(schema)] = made
        return [
            f"{where}{error.json_path.removeprefix('$')}: {error.message[:300]}"
            for error in validator.iter_errors(value)
        ]

    def _unknown(self, value: Any, schema: Mapping[str, Any], where: str) -> list[str]:
        """The properties that no schema speaks of."""
        plain = self.resolved(schema)
        if isinstance(value, list) and "items" in plain:
            return [text for one in value for text in self._unknown(one, plain["items"], f"{where}[]")]
        if not isinstance(value, dict) or "properties" not in plain:
            return []
        wrong = []
        for name, one in value.items():
            if name not in plain["properties"]:
                wrong.append(f"{where}.{name}: GitHub knows no such property")
            else:
                wrong += self._unknown(one, plain["properties"][name], f"{where}.{name}")
        return wrong

    def _complete(self, schema: Mapping[str, Any], partial: Any) -> Any:
        plain = self.resolved(schema)
        for part in plain.get("allOf", []):
            partial = self._complete(part, partial)
        for options in (plain[one] for one in ("oneOf", "anyOf") if one in plain):
            completed = (self._complete(option, partial) for option in options)
            return next(
                (one for one, option in zip(completed, options, strict=True) if self._fits(one, option)), partial
            )
        if isinstance(partial, list):
            return [self._complete(plain["items"], one) for one in partial] if "items" in plain else partial
        if not isinstance(partial, dict):
            return partial
        properties = plain.get("properties", {})
        made = {
            name: self._complete(properties[name], one) if name in properties else one for name, one in partial.items()
        }
        for name in plain.get("required", []):
            if name not in made and name in properties:
                made[name] = self._harmless(properties[name])
        return made

    def _fits(self, value: Any, schema: dict[str, Any]) -> bool:
        return not self._wrong(msgspec.to_builtins(value), schema, "")

    def _harmless(self, schema: Mapping[str, Any]) -> Any:
        """The least value that a schema accepts."""
        plain = self.resolved(schema)
        if plain.get("nullable"):
            return None
        for either in ("oneOf", "anyOf", "allOf"):
            if either in plain:
                return self._harmless(plain[either][0])
        if "enum" in plain:
            return plain["enum"][0]
        match plain.get("type"):
            case "object":
                return self._complete(plain, {})
            case "array":
                return []
            case "integer" | "number":
                return 1
            case "boolean":
                return False
            case _:
                return {"date-time": "2020-01-01T00:00:00Z", "uri": "https://example.com"}.get(
                    plain.get("format", ""), "x"
                )


def _typed(value: str, schema: Mapping[str, Any]) -> Any:
    """A parameter's text as what its schema says it is, if it can be read as that."""
    kinds = [schema.get("type"), *(one.get("type") for one in schema.get("oneOf", []))]
    if "integer" in kinds and value.isascii() and value.isdigit():
        return int(value)
    return {"true": True, "false": False}.get(value, value) if "boolean" in kinds else value


def _rooted(schema: Any) -> Any:
    """The schema with references that hold wherever it stands."""
    if isinstance(schema, list):
        return [_rooted(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: f"{BASE}{one}" if name == "$ref" and isinstance(one, str) else _rooted(one)
        for name, one in schema.items()
    }


@cache
def description() -> Description:
    """GitHub's description."""
    require_description()
    return Description(msgspec.json.decode(FILE.read_bytes()))
