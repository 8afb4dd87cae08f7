"""`deltaci verify`: what it prints, and how it exits."""

import sqlite3
from pathlib import Path

import anyio
import pytest
from click.testing import CliRunner, Result

from deltaci.cli import main
from deltaci.store.engine import Inline
from deltaci.store.sqlite import SqliteStore
from deltaci.wiring import DATABASE_FILE
from tests.invariants.stored import a_busy_run
from tests.invariants.story import JOB


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory with the database of a server that was killed in the midst of its work."""

    async def live() -> None:
        async with SqliteStore.open(tmp_path / DATABASE_FILE, engine=Inline.open) as store:
            await a_busy_run(store)

    anyio.run(live)
    return tmp_path


def verify(data: Path, *words: str) -> Result:
    """What the command says."""
    return CliRunner().invoke(main, ["verify", "--data", str(data), *words])


def test_a_sound_database_is_told_by_what_was_looked_at(data: Path) -> None:
    """Kind by kind, and how often each invariant was looked at."""
    result = verify(data)

    lines = result.output.splitlines()
    assert result.exit_code == 0, result.output
    assert lines[:5] == [
        "checked 13 journal",
        "checked 1 runs",
        "checked 3 jobs",
        "checked 2 deliveries",
        "checked 2 owed",
    ]
    assert "invariant 20 looked at 39 times: The audit chain is unbroken; every event says who, what and when." in lines
    assert lines[-1] == "no violations"


def test_a_violation_is_told_with_its_entity_and_its_events(data: Path) -> None:
    """So that whoever reads it can look there, and a script sees it by the exit code."""
    with sqlite3.connect(data / DATABASE_FILE) as connection:
        connection.execute("UPDATE job SET due_at_ms = NULL WHERE id = ?", (JOB,))
    connection.close()

    result = verify(data)

    *_, violation, last = result.output.splitlines()
    assert (result.exit_code, last) == (1, "1 violations")
    assert violation.startswith(f"VIOLATION one_timer {JOB}: it is RUNNING with a timer at None")
    assert violation.endswith(" (journal 8)")


def test_what_is_left_undone_is_told_on_demand(data: Path) -> None:
    """The server is not there to do it, which is no violation of what is stored."""
    undone = verify(data, "--at-rest")
    in_time = verify(data, "--at-rest", "--late", "1e12")

    assert (undone.exit_code, in_time.exit_code) == (1, 0)
    assert "VIOLATION deadlines_kept" in undone.output
    assert "VIOLATION effects_delivered" in undone.output
