"""The pages made from the code cannot say anything else than what it says."""

from pathlib import Path

import pytest

from docs import generate


def test_the_page_in_the_repository_is_what_the_code_makes_of_it() -> None:
    """Whoever changes a table is told to run `make docs`."""
    assert generate.out_of_date() == []


def test_a_page_that_is_missing_or_differs_is_out_of_date(tmp_path: Path) -> None:
    """`--check` must be able to fail."""
    missing = generate.out_of_date(tmp_path)
    for name, page in generate.PAGES.items():
        (tmp_path / name).write_text(page(), encoding="utf-8")
    (tmp_path / "states.md").write_text(generate.states_page() + "by hand\n", encoding="utf-8")

    assert missing == list(generate.PAGES)
    assert generate.out_of_date(tmp_path) == ["states.md"]


@pytest.mark.parametrize("machine", generate.MACHINES, ids=lambda machine: machine.name)
def test_every_move_is_an_arrow_and_every_state_is_drawn(machine: generate.Machine) -> None:
    """A diagram that leaves something out is worse than none."""
    page = generate.states_page([machine])

    for name, move in machine.moves.items():
        for source in move.sources:
            arrow = next(line for line in page.splitlines() if line.startswith(f"    {source} --> {move.target}: "))
            assert name in arrow.partition(": ")[2].split(", ")
    assert [state for state in machine.states if f"--> {state}" not in page] == []
    assert [state for state in machine.states if state.is_final and f"    {state} --> [*]" not in page] == []  # type: ignore[attr-defined]  # all four have it


@pytest.mark.parametrize("machine", generate.MACHINES, ids=lambda machine: machine.name)
def test_every_command_is_listed_with_what_it_says(machine: generate.Machine) -> None:
    """A newcomer finds each command with its meaning and the states it is legal in."""
    page = generate.states_page([machine])

    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for command in machine.legal_in:
        assert (command.__doc__ or "").splitlines()[0] in rows[command.__name__]
