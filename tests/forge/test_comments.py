"""What in a comment is a command, and what only looks like one."""

from pathlib import Path

import pytest

from deltaci.domain.requests import Approve, CancelRuns, Request, RunAgain
from deltaci.forge.comments import COMMENT_CHARACTERS_MAX, asked_in

RETEST = RunAgain(by="mona", right="write", is_failed_only=True, pr_number=12)
RETEST_ALL = RunAgain(by="mona", right="write", pr_number=12)
CANCEL = CancelRuns(by="mona", right="write", pr_number=12)
APPROVE = Approve(by="mona", right="write", pr_number=12, at_ms=7)
SHA = "0123456789abcdef0123456789abcdef01234567"


def asked(text: str, *, by: str = "mona", is_program: bool = False) -> Request | str:
    return asked_in(text, by=by, number=12, at_ms=7, is_program=is_program)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/retest", RETEST),
        ("  /retest \t\r\n", RETEST),
        ("Flaky again.\r\n\r\n/retest\r\n", RETEST),
        ("Please:\n/retest all\nThanks!", RETEST_ALL),
        ("/retest  all", RETEST_ALL),
        ("/cancel", CANCEL),
        ("/approve", APPROVE),
        (f"/approve {SHA}", Approve(by="mona", right="write", pr_number=12, commit_sha=SHA, at_ms=7)),
        ("> it failed\n\n/retest", RETEST),
        ("```\nlog\n```\n/retest", RETEST),
        ("- done\n\n/retest", RETEST),
        ("/cancel\n/retest", CANCEL),
        ("> /cancel\n\n`/approve`\n\n/retest all", RETEST_ALL),
    ],
)
def test_a_command_stands_on_a_line_of_its_own(text: str, expected: Request) -> None:
    """People write around it; of several the first counts."""
    assert expected == asked(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Looks good.",
        "/retest please",
        "/retest\u200ball",
        "/RETEST",
        "/retests",
        "try /retest",
        "/approve main",
        "/approve " + SHA.upper(),
        "//retest",
        "\\/retest",
        "*/retest*",
        "[/retest](https://x.example.com)",
        "> /retest",
        "> somebody wrote\n/retest",
        ">> /retest",
        "- /retest",
        "1. first\n/retest",
        "    /retest",
        "\t/retest",
        "`/retest`",
        "`one\n/retest\ntwo`",
        "```\n/retest\n```",
        "~~~~ sh\n```\n/retest",
        "<!--\n/retest\n-->",
        "<pre>\n/retest\n</pre>",
        "x <!--\n/retest\n-->",
        "/retest<b></b>",
        "/retest `all`",
        "a" * COMMENT_CHARACTERS_MAX + "\n\n/retest",
    ],
)
def test_what_is_quoted_shown_or_hidden_is_no_command(text: str) -> None:
    """A log, a quotation, a template's hint: nobody meant it."""
    assert asked(text) == "the comment holds no command"


@pytest.mark.parametrize("by", ["dependabot[bot]", "project_15_bot_4f0a", "group_7_bot", "Renovate[BOT]"])
def test_a_program_commands_nothing(by: str) -> None:
    """Two programs that answer each other would never end."""
    assert (
        asked("/retest", by=by) == asked("/retest", is_program=True) == "a comment that a program wrote is no command"
    )


def test_our_own_comment_is_no_command() -> None:
    """With a token we write in somebody's name, so the name does not tell."""
    assert asked("<!-- deltaci repo_1 12 -->\nFailed. To run it again:\n\n/retest") == (
        "a comment that a program wrote is no command"
    )


def test_a_command_without_a_writer_is_none() -> None:
    """An account may be gone; a right must be somebody's."""
    assert asked("/retest", by="\x00\n") == "the comment does not tell who wrote it"


@pytest.mark.parametrize(
    "piece",
    ["[", "*", ">", "`", "- ", "<", "- x\n", "a\n", "![[", "<!--", "1. ", "\\", "~", "*a_", "&#x0;", "\x00", "\ud7ff"],
)
def test_a_hostile_comment_is_read_in_bounds(piece: str) -> None:
    """Anybody may comment: as long as the longest that is read, and as crooked as Markdown gets."""
    text = "/retest x\n" + piece * COMMENT_CHARACTERS_MAX

    assert asked(text) == "the comment holds no command"


def test_every_command_is_documented() -> None:
    """Nobody guesses a command."""
    page = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")

    for command in ("/retest", "/retest all", "/cancel", "/approve", "/approve COMMIT"):
        assert f"`{command}`" in page
        assert not isinstance(asked(command.replace("COMMIT", SHA)), str)
