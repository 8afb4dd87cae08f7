"""Commands in comments at pull requests: `/retest`, `/retest all`, `/cancel`, `/approve`, `/approve COMMIT`.

Rule 1: a command stands on a line of its own, as people see the comment: nothing in a quote, a list, a code block or
        hidden HTML is one. Of several the first counts.
Rule 2: who wrote it is taken from the event; whether they may is asked of the forge when it is acted on.
Rule 3: what we or other programs write is no command, whatever it says.
"""

import re
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from deltaci.domain.requests import Approve, CancelRuns, Request, RunAgain
from deltaci.forge.webhook import AUTHOR_CHARACTERS_MAX, one_line

# The first line of every comment of ours begins like this
OWN_MARK: Final = "<!-- deltaci"
# A command is short, and so is what people write around it: what comes later is not read.
COMMENT_CHARACTERS_MAX: Final = 8_192

_COMMAND: Final = re.compile(r"/(?:retest(?P<all> +all)?|cancel|approve(?: +(?P<commit>[0-9a-f]{7,64}))?)", re.ASCII)
_MAYBE: Final = re.compile(r"^[ >*+-]*/(?:retest|cancel|approve)\b", re.ASCII | re.MULTILINE)
_PROGRAM: Final = re.compile(r".*\[bot\]|(?:project|group)_\d+_bot(?:_[0-9a-f]+)?", re.ASCII | re.IGNORECASE)

# Blocks and code decide what a line is; links, emphasis and entities only make it something else than a command.
_markdown: Final = MarkdownIt("commonmark").disable(["reference", "link", "image", "emphasis", "autolink", "entity"])


def asked_in(text: str, *, by: str, number: int, at_ms: int, is_program: bool = False) -> Request | str:
    """What a new comment at pull request `number` asks for, or why it asks for nothing.

    Args:
        by: who wrote it, as the forge calls them.
        at_ms: when, milliseconds since the epoch, UTC; 0 if that is not told: then it approves no commit unnamed.
        is_program: the forge says that it was not a person.
    """
    by = one_line(by, AUTHOR_CHARACTERS_MAX)
    if is_program or _PROGRAM.fullmatch(by) is not None or text.lstrip().startswith(OWN_MARK):
        return "a comment that a program wrote is no command"
    if not by:
        return "the comment does not tell who wrote it"
    found = _first_command(text)
    if found is None:
        return "the comment holds no command"
    word = found[0].split()[0]
    if word == "/retest":
        return RunAgain(by=by, right="write", is_failed_only=found["all"] is None, pr_number=number)
    if word == "/cancel":
        return CancelRuns(by=by, right="write", pr_number=number)
    return Approve(by=by, right="write", pr_number=number, commit_sha=found["commit"] or "", at_ms=at_ms)


def _first_command(text: str) -> re.Match[str] | None:
    text = text[:COMMENT_CHARACTERS_MAX]
    if _MAYBE.search(text) is None:
        return None  # nearly every comment: not worth parsing
    for token in _markdown.parse(text):
        if token.type == "inline" and token.level == 1:  # a paragraph or a heading, and not inside of anything
            for line in _lines(token.children or []):
                found = _COMMAND.fullmatch(line)
                if found is not None:
                    return found
    return None


def _lines(children: list[Token]) -> list[str]:
    """The lines of a paragraph that are nothing but text."""
    lines = [""]
    for child in children:
        match child.type:
            case "softbreak" | "hardbreak":
                lines.append("")
            case "text":
                lines[-1] += child.content
            case _:
                lines[-1] += "\x00"  # code or HTML: whatever else is there, it is no command
    return [line.strip(" ") for line in lines]
