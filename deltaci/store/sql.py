"""The SQL beside this module: named queries, and the migrations in order.

Rule: SQL lives in `.sql` files, each query named and described; Python refers to it by name.
"""

import sqlite3
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Final

_NAME: Final = "-- name: "


@cache
def queries() -> Mapping[str, str]:
    """Every named query of `queries/*.sql`; a name used twice or without SQL is an error."""
    found: dict[str, str] = {}
    for path in sorted(files("deltaci.store").joinpath("queries").iterdir(), key=lambda path: path.name):
        if not path.name.endswith(".sql"):
            continue
        for block in path.read_text(encoding="utf-8").split(_NAME)[1:]:
            name, _, text = block.partition("\n")
            lines = [line for line in text.splitlines() if line and not line.startswith("--")]
            if name in found or not lines:
                raise ValueError(f"query {name!r} in {path.name} is there twice or has no SQL")
            found[name] = "\n".join(lines).removesuffix(";")
    return found


def query(name: str) -> str:
    """The SQL of a named query; raises `KeyError`."""
    return queries()[name]


@cache
def migrations() -> tuple[tuple[str, ...], ...]:
    """The statements of each migration; the first makes schema version 1 out of an empty file."""
    paths = [path for path in files("deltaci.store").joinpath("migrations").iterdir() if path.name.endswith(".sql")]
    found = []
    for number, path in enumerate(sorted(paths, key=lambda path: path.name), start=1):
        if not path.name.startswith(f"{number:04}_"):
            raise ValueError(f"migration {path.name} stands where number {number:04} is expected")
        found.append(tuple(_statements(path.read_text(encoding="utf-8"))))
    return tuple(found)


def _statements(script: str) -> Iterator[str]:
    """The single statements of a script: `executescript` would commit the transaction that a migration runs in."""
    statement = ""
    for line in script.splitlines():
        code = line.partition("-- ")[0].rstrip() if not line.startswith("--") else ""
        if not code:
            continue
        statement += code + "\n"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement:
        raise ValueError(f"the script ends inside a statement: {statement!r}")
