"""The schema for editors agrees with the reader: what it refuses is refused, and what is no key is none to both."""

import copy
import json
import random
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from deltaci.planner.configuration import json_schema, keys, load
from deltaci.planner.errors import ConfigurationInvalid, Problem
from deltaci.planner.repository import Files
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar, parse
from tests.planner.configuration.examples import VALID

ROOT = Path(__file__).parents[3]
VALIDATOR = Draft202012Validator(json_schema.document())
# What an editor takes for a number or a truth value: YAML 1.2, core schema.
INTEGER = re.compile(r"[-+]?[0-9]+")
FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
WORDS: dict[str, Any] = {"null": None, "~": None, "": None, "true": True, "false": False}
STRUCTURAL = ("unknown key", "expected ", "missing")
SEEDS = 1_500


def as_json(node: Node | Problem) -> Any:
    """What an editor makes of the file."""
    match node:
        case Items():
            return [as_json(item) for item in node.items]
        case Fields():
            return {key.text: as_json(value) for key, value in node.fields}
        case Scalar() if not node.is_plain:
            return node.text
        case Scalar() if node.text in WORDS:
            return WORDS[node.text]
        case Scalar() if INTEGER.fullmatch(node.text):
            return int(node.text)
        case Scalar():
            return float(node.text) if FLOAT.fullmatch(node.text) else node.text
    raise AssertionError(node)


def parsed(text: str) -> Any:
    return as_json(parse(text.encode(), "deltaci.yaml"))


def problems_of(text: str) -> list[Problem]:
    """What the reader says; nothing if it accepts the file."""
    try:
        load(text.encode(), Files(()))
    except ConfigurationInvalid as error:
        return list(error.problems)
    return []


def is_structural(problem: Problem) -> bool:
    """An unknown key or a wrong kind; that an excluded axis is none of the axes only the whole file can tell."""
    return problem.text.startswith(STRUCTURAL) and ".matrix.exclude[" not in problem.key


def of_the_docs() -> list[str]:
    """The whole examples of the page, and the parts of one that stand alone put where they belong."""
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    return [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "version:" in block]


EXAMPLES = [*of_the_docs(), (ROOT / "deltaci.yaml").read_text(encoding="utf-8"), *map(textwrap.dedent, VALID)]


def test_the_schema_is_one() -> None:
    """Of the dialect that it names, with a description at every key of every table."""
    schema = json_schema.document()

    Draft202012Validator.check_schema(schema)
    job = schema["$defs"]["job"]["properties"]
    assert list(job) == [key.name for key in keys.JOB]
    assert all(value["description"].endswith(".") for value in (*job.values(), *schema["properties"].values()))
    assert schema["$id"] == "urn:deltaci:schema:configuration:1"


def test_the_published_file_is_the_one_of_this_program() -> None:
    """Editors read the file, the reader its tables."""
    published = json.loads((ROOT / "docs" / "deltaci.schema.json").read_text(encoding="utf-8"))

    assert published == json_schema.document()


@pytest.mark.parametrize("text", EXAMPLES)
def test_what_is_valid_is_valid_to_the_schema(text: str) -> None:
    """Every example of the docs, and one for each key and each way to write it."""
    assert problems_of(text) == []
    assert [error.message for error in VALIDATOR.iter_errors(parsed(text))] == []


def test_the_examples_have_every_key_in_them() -> None:
    """A key that no example has was never compared."""
    text = "\n".join(EXAMPLES)
    tables = (keys.TOP, keys.DEFAULTS, keys.FULL_RUN, keys.JOB, keys.STEP, keys.ARTIFACT, keys.CACHE)

    assert [key.name for table in tables for key in table if f"{key.name}:" not in text] == []


# ---- any change to what is valid ---------------------------------------------------------------------------------

ODD: tuple[Any, ...] = (
    *(None, "", " ", "x", "-1", "11", 0, 7, 3.5, True),
    *([], {}, [[]], ["x", None], {"x": 1}, [{}], "a" * 600),
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON value."""
    found: list[tuple[Any, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in items:
        found += [(value, key), *places(below)]
    return found


def mutated(chance: random.Random) -> str:
    """A valid configuration with one to three changes, as JSON, which is YAML."""
    value = parsed(chance.choice(EXAMPLES))
    for _ in range(chance.choice((1, 1, 2, 3))):
        if not places(value):
            break
        container, key = chance.choice(places(value))
        match chance.randrange(5):
            case 0:
                container[key] = copy.deepcopy(chance.choice(ODD))
            case 1 if isinstance(container, dict):
                container[chance.choice(("stepz", "run", "paths", "labels", "x y", "9", key + "s"))] = copy.deepcopy(
                    container[key]
                )
            case 2 if isinstance(container, dict):
                del container[key]
            case 3 if isinstance(container, list):
                container.append(copy.deepcopy(chance.choice(ODD)))
            case _:
                container[key] = [container[key]]
    return json.dumps(value)


@pytest.mark.slow
def test_what_the_schema_refuses_is_refused_and_what_has_no_shape_is_refused_by_both() -> None:
    """Seeded changes of valid files: an editor never marks what works, and always marks an unknown key or kind."""
    chance = random.Random(20)
    refused = 0
    for _ in range(SEEDS):
        text = mutated(chance)
        said = problems_of(text)
        errors = [error.message for error in VALIDATOR.iter_errors(parsed(text))]

        assert not errors or said, f"only the schema refuses {text}: {errors}"
        structural = [str(problem) for problem in said if is_structural(problem)]
        assert not structural or errors, f"only the reader refuses {text}: {structural}"
        refused += bool(errors)

    assert SEEDS // 2 < refused < SEEDS
