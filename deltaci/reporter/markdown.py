"""Markdown whose words come from logs, branches and strangers: it is shown, and it does nothing. Pure.

Rule 1: what somebody else wrote goes through one of these; no piece of it becomes markup, a link, an image, HTML, a
        mention of a person or team, or a reference that turns up elsewhere.
Rule 2: inside code nothing is looked for by any forge; outside of it a character that starts something is followed by
        a space of no width, because forges look for names and numbers after the backslashes are gone.
"""

import re
from collections.abc import Sequence
from typing import Final

_BLANKS: Final = re.compile(r"\s+")
_HIDDEN: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]")
_MARKUP: Final = re.compile(r"[\\`*_\[\]<>|~&#!$]")
# What begins a heading, a list, a quotation, a rule or a command of GitLab's when a line begins with it
_OPENING: Final = re.compile(r"^(?:[-+=/.]|\d+(?=[.)]))")
# People and teams, issues, merge requests, labels, snippets, milestones, epics, in the words of all forges
_STARTS: Final = re.compile(r"(?<=[@#!~$%&^])(?=\w)|(?<=\bGH-)(?=\d)|(?<=\bwww)(?=\.)|(?<=[a-z])(?=:/)", re.IGNORECASE)
_TICKS: Final = re.compile(r"`+")
NOTHING_WIDE: Final = "\u200b"
CUT: Final = "…"
OURS: Final = "here"
BETWEEN: Final = "\n\n"


def shortened(text: str, characters_max: int) -> str:
    """`text` on one line, cut to `characters_max` characters."""
    said = _BLANKS.sub(" ", _HIDDEN.sub(" ", text)).strip()
    return said if len(said) <= characters_max else said[: characters_max - 1] + CUT


def words(text: str, characters_max: int = 1_000) -> str:
    """`text` as plain words on one line, fit for a paragraph, a list and a cell of a table."""
    parted = _STARTS.sub(NOTHING_WIDE, shortened(text, characters_max))
    safe = _MARKUP.sub(lambda found: "\\" + found.group(), parted)
    return _OPENING.sub(
        lambda found: found.group() + "\\" if found.group()[0].isdigit() else "\\" + found.group(), safe
    )


def code(text: str, characters_max: int = 200) -> str:
    """`text` as code within a line; empty for nothing."""
    said = shortened(text, characters_max)
    if not said:
        return ""
    ticks = "`" * (1 + max((len(run) for run in _TICKS.findall(said)), default=0))
    padded = f" {said} " if said.startswith("`") or said.endswith("`") else said
    return f"{ticks}{padded}{ticks}"


def cell(text: str, characters_max: int = 200) -> str:
    """`text` as code within a cell of a table, which would end at a bar even in code."""
    return code(text, characters_max).replace("|", "\\|")


def block(lines: Sequence[str], characters_max: int = 4_000) -> str:
    """`lines` as a block of code that none of them can close."""
    text = "\n".join(_HIDDEN.sub(" ", line).replace("\n", " ") for line in lines)[:characters_max]
    fence = "`" * max(3, 1 + max((len(run) for run in _TICKS.findall(text)), default=0))
    return f"{fence}text\n{text}\n{fence}"


def link(text: str, url: str) -> str:
    """A link of our own; `text` may be anybody's, `url` is made of this server's address and an id."""
    safe = re.sub(r"[\s<>()\[\]\\]", lambda found: f"%{ord(found.group()):02X}", url)
    return f"[{code(text) or OURS}]({safe})"


def joined(parts: Sequence[str], bytes_max: int, more: str) -> str:
    """The parts, a blank line between them, as many as fit into `bytes_max` bytes of UTF-8.

    What does not fit is left out from the end, whole parts at a time, and `more` takes its place.
    """
    whole = BETWEEN.join(parts)
    if len(whole.encode()) <= bytes_max:
        return whole
    room = bytes_max - len(more.encode())
    taken: list[str] = []
    for part in parts:
        room -= len(part.encode()) + len(BETWEEN)
        if room < 0:
            break
        taken.append(part)
    return BETWEEN.join([*taken, more])
