"""What a terminal is shown: anything may be in logs, names and titles, and none of it may drive the terminal."""

import io

import pytest
from rich.console import Console

from deltaci.cli import show


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (b"plain\ttext\r\n", b"plain\ttext\r\n"),
        (b"\x1b[1;31mred\x1b[0m", b"\x1b[1;31mred\x1b[0m"),
        (b"\x1b]0;title\x07", b"^[]0;title?"),
        (b"\x1b]52;c;aGk=\x07", b"^[]52;c;aGk=?"),
        (b"\x1b[2J\x1b[H", b"^[[2J^[[H"),
        (b"\x1b]8;;http://x\x1b\\link", b"^[]8;;http://x^[\\link"),
        (b"\x00\x08\x7f", b"???"),
        ("ü→".encode(), "ü→".encode()),
        (b"\xff\xfe", b"\xff\xfe"),
        (b"\x1b", b"^["),
        ("\x9b2J\x9d0;x\x9c".encode(), b"?2J?0;x?"),
    ],
)
def test_of_a_log_only_colours_reach_the_terminal(data: bytes, shown: bytes) -> None:
    """No title, no clipboard, no cursor, no link."""
    assert show.safe_bytes(data) == shown


def test_names_are_text_and_not_markup() -> None:
    """A branch may be named like a command of the terminal or of the library that prints."""
    stream = io.StringIO()
    console = Console(file=stream, width=300)
    run = {
        "id": "run_1",
        "repo": "[bold]x[/bold]",
        "ref": "refs/heads/\x1b]0;x\x07[link=http://x]y",
        "commit_sha": "a" * 40,
        "state": "[red]",
        "end_reason": None,
        "created_at_ms": 0,
        "ended_at_ms": None,
        "title": "a\nb[/]c\u202ed",
    }

    console.print(show.runs_table([run]))

    shown = stream.getvalue()
    assert "[bold]x[/bold]" in shown
    assert "[link=http://x]y" in shown
    assert "a?b[/]c?d" in shown
    assert "\x1b" not in shown


def test_a_held_run_is_shown_with_what_it_waits_for_and_how_to_let_it_go() -> None:
    """Whoever looks at it is most often the one who is asked; afterwards it says who it was."""
    stream = io.StringIO()
    console = Console(file=stream, width=300)
    run = {"id": "run_1", "attempt": 1, "repo": "shop", "ref": "refs/pull/7/head", "commit_sha": "a" * 40, "title": ""}
    run |= {"state": "CREATED", "end_reason": None, "text": "", "plan_digest": None}
    held = {"waiting_reason": "approval", "waiting_detail": "it waits for \x1b[2J", "approved_by": None}
    approved = {"waiting_reason": None, "waiting_detail": "", "approved_by": "alice", "approved_at_ms": 0}

    for more in (held, approved):
        show.print_run(console, {"run": {**run, **more}, "plan": None, "jobs": []})

    shown = stream.getvalue()
    assert "waits: approval: it waits for ?[2J" in shown
    assert "deltaci run approve run_1" in shown
    assert shown.count("run approve") == 1
    assert "approved by alice at " in shown


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("RunCreated", {"hold": "approval"}, "waits for approval"),
        ("RunCreated", {"hold": "approval", "approved_by": "alice"}, None),
        ("RunCreated", {}, None),
        ("RunApproved", {"by": "alice"}, "was approved by alice"),
    ],
)
def test_who_watches_a_run_is_told_that_it_waits_and_who_approved_it(
    kind: str, data: dict[str, str], said: str | None
) -> None:
    """A run that stands still without a word looks broken."""
    line = show.event_line({"type": kind, "data": data, "at_ms": 0, "entity_id": "run_1"}, {})

    assert (line is None) is (said is None)
    assert said is None or (line or "").endswith(said)


@pytest.mark.parametrize(
    ("report", "shown"),
    [
        (
            {"state": "refused", "error": "404: no such\n[b]repository[/b]"},
            "not reported: 404: no such?[b]repository[/b]",
        ),
        ({"state": "owed", "error": "502"}, "not reported yet: 502"),
        ({"state": "owed", "error": ""}, None),
        ({"state": "told", "error": ""}, None),
    ],
)
def test_a_run_says_why_it_was_not_reported(report: dict[str, str], shown: str | None) -> None:
    """Whoever waits for a check looks here first."""
    stream = io.StringIO()
    run = {"id": "run_1", "repo": "shop", "ref": "refs/heads/main", "commit_sha": "a" * 40, "state": "SUCCEEDED"}
    run |= {"end_reason": None, "title": "t", "text": "", "attempt": "1", "waiting_reason": None, "approved_by": None}

    show.print_run(Console(file=stream, width=300), {"run": run, "jobs": [], "plan": None, "report": report})

    assert [line for line in stream.getvalue().splitlines() if "reported" in line] == ([shown] if shown else [])
