"""Data directories to back up and to restore."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.store.whole_database import ARTIFACT

SCHEMAS: Final = sorted((Path(__file__).parent / "schemas").glob("*.sql"))
ARTIFACT_BYTES: Final = ARTIFACT
A_TOKEN: Final = "dci_admin_of_the_first_schema\n"


@contextmanager
def database_of(place: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the database in a data directory or backup; what is changed is committed."""
    connection = sqlite3.connect(place / "deltaci.db", isolation_level=None)
    try:
        yield connection
    finally:
        connection.close()


def a_data_directory(data: Path, schema: Path = SCHEMAS[-1]) -> Path:
    """One with rows in every table, the artifact they name, and a token, as a server leaves it."""
    data.mkdir(mode=0o700)
    with database_of(data) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(schema.read_text())
        ((job_id, attempt, name),) = connection.execute("SELECT job_id, attempt, name FROM artifact").fetchall()
    artifact = data / "artifacts" / job_id / str(attempt) / name
    artifact.parent.mkdir(parents=True)
    artifact.write_bytes(ARTIFACT_BYTES)
    (data / "admin-token").write_text(A_TOKEN)
    return data
