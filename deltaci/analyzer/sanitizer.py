"""Makes text of unknown origin fit to be read, stored and shown: no secrets, no escapes, no surprises.

Rule 1: any bytes go in, and text comes out: printable characters, tabs and line breaks.
Rule 2: what hides is removed first and secrets are masked after it, so that nothing invisible can split one.
Rule 3: known values are masked in every form that tools print them in; patterns come last, for what nobody told us.
"""

import base64
import html
import json
import re
import urllib.parse
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

from deltaci.domain.credentials import (
    MASK,
    PATTERNS,
    PRIVATE_KEY_BODY,
    PRIVATE_KEY_LINES_MAX,
    PRIVATE_KEY_MARK,
    PRIVATE_KEY_RUN,
)

SECRET_CHARACTERS_MIN: Final = 4  # shorter values would mask half of every log
ENCODED_CHARACTERS_MIN: Final = 6
WRAPPED_CHARACTERS_MIN: Final = 8
PATTERN_ROUNDS_MAX: Final = 5

_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # colours, cursor movements
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d-\x9f])[^\x07\x1b\x9c\n]*(?:\x07|\x1b\\|\x9c)?"  # titles, links, device strings
    r"|\x1b[ -/]*[0-~]?"  # everything else that an escape begins
)
_LINE_BREAKS: Final = re.compile(r"\r\n?|[\x0b\x0c\x85\u2028\u2029]")
# Controls; soft hyphen, zero-width and directional characters, variation selectors' and tags' planes.
_INVISIBLE: Final = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"
)


class Sanitizer:
    """Cleans text, knowing some secrets by value."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._variants = tuple(sorted({form for secret in secrets for form in variants(secret)}))

    def clean(self, data: bytes) -> str:
        """`data` as text without escapes, invisible characters and secrets; each masked stretch becomes `***`.

        Cleaning again what was cleaned changes nothing. Time is linear in the length of `data`.
        """
        # Before and after the escapes are gone: one right in front of a secret takes its first character along.
        text = plain(self._mask_known(data.decode("utf-8", "replace")))
        return mask_patterns(mask_private_keys(self._mask_known(text)))

    def _mask_known(self, text: str) -> str:
        """Mask every occurrence of every form, also where they overlap or are wrapped over lines."""
        breaks = [index for index, character in enumerate(text) if character == "\n"]
        joined = text.replace("\n", "")
        # In `joined`, the break number n stood in front of the character at `breaks[n] - n`.
        joints = [index - number for number, index in enumerate(breaks)]
        found: list[tuple[int, int]] = []
        for form in self._variants:
            found += _occurrences(text, form)
            if len(form) >= WRAPPED_CHARACTERS_MIN:
                found += [
                    (start + bisect_right(joints, start), end + bisect_right(joints, end - 1))
                    for start, end in _occurrences(joined, form)
                ]
        return _masked(text, found) if found else text


def plain(text: str) -> str:
    """`text` without terminal escapes and invisible characters; every kind of line break becomes a line feed."""
    return _INVISIBLE.sub("", _LINE_BREAKS.sub("\n", _ESCAPES.sub("", text)))


def variants(secret: str) -> frozenset[str]:
    """The forms in which tools print `secret`: plain, base64 at any offset, hex, URL-, JSON-, HTML-escaped, by line."""
    whole = plain(secret).strip()
    parts = {whole.replace("\n", ""), *(line.strip() for line in whole.split("\n"))}
    forms: set[str] = set()
    for part in parts:
        if len(part) < SECRET_CHARACTERS_MIN:
            continue
        forms.add(part)
        forms |= {form for form in _encoded(part) if len(form) >= ENCODED_CHARACTERS_MIN}
    if len(whole) >= SECRET_CHARACTERS_MIN and "\n" in whole:
        # Encoded as a whole, a line break is part of what is encoded.
        for value in (whole, whole + "\n", whole.replace("\n", "\r\n")):
            forms |= {form for form in _encoded(value) if len(form) >= ENCODED_CHARACTERS_MIN and "\n" not in form}
    return frozenset(forms)


def _encoded(value: str) -> Iterable[str]:
    raw = value.encode("utf-8", "replace")
    for offset in range(3):
        form = _base64_core(raw, offset)
        yield form
        yield form.replace("+", "-").replace("/", "_")
    yield raw.hex()
    yield raw.hex().upper()
    for quoted in (urllib.parse.quote(value, safe=""), urllib.parse.quote(value), urllib.parse.quote_plus(value)):
        yield quoted
        yield re.sub("%[0-9A-F]{2}", lambda match: match[0].lower(), quoted)
    for escaped in (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]):
        yield escaped
        yield escaped.replace("/", "\\/")
        yield json.dumps(escaped)[1:-1]
    yield repr(value)[1:-1]
    yield html.escape(value)
    yield html.escape(value, quote=False)
    yield value.replace("'", "'\\''")
    yield value.replace("'", "'\"'\"'")


def _base64_core(raw: bytes, offset: int) -> str:
    """What of the base64 of any text with `raw` in it, `offset` bytes after a multiple of 3, depends on `raw` alone."""
    encoded = base64.b64encode(bytes(offset) + raw).decode("ascii")
    return encoded[(offset * 8 + 5) // 6 : (offset + len(raw)) * 8 // 6]


def _occurrences(text: str, form: str) -> list[tuple[int, int]]:
    found = []
    start = text.find(form)
    while start >= 0:
        found.append((start, start + len(form)))
        start = text.find(form, start + 1)
    return found


def _masked(text: str, found: list[tuple[int, int]]) -> str:
    """`text` with the union of the stretches masked; line breaks inside them stay."""
    pieces: list[str] = []
    done = 0
    begin, end = -1, -1
    for start, stop in [*sorted(found), (len(text) + 1, len(text) + 1)]:
        if start <= end:
            end = max(end, stop)
            continue
        if begin >= 0:
            pieces += (text[done:begin], "\n".join(MASK if line else "" for line in text[begin:end].split("\n")))
            done = end
        begin, end = start, stop
    return "".join((*pieces, text[done:]))


def mask_private_keys(text: str) -> str:
    """Mask blocks of private keys, also those whose beginning or end is missing; one mask a block."""
    if "PRIVATE KEY" not in text:
        return text
    lines = text.split("\n")
    kept: list[str] = []
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        marks = list(PRIVATE_KEY_MARK.finditer(line))
        if not marks:
            kept.append(line)
            continue
        before, after = line[: marks[0].start()], line[marks[-1].end() :]
        if marks[0]["edge"] == "END":
            # The beginning was cut off: what looks like the body of a key goes with its end.
            before = ""
            while kept and PRIVATE_KEY_BODY.fullmatch(kept[-1]):
                kept.pop()
        if marks[-1]["edge"] == "BEGIN":
            number, after = _after_the_key(lines, number)
        kept.append(before + MASK + after)
    return "\n".join(kept)


def _after_the_key(lines: list[str], number: int) -> tuple[int, str]:
    """The number of the first line after a key whose body begins at `number`, and what stands after its end."""
    last = number + PRIVATE_KEY_LINES_MAX
    for index in range(number, len(lines)):
        marks = list(PRIVATE_KEY_MARK.finditer(lines[index]))
        if index >= last or (marks and marks[0]["edge"] == "BEGIN"):
            break  # nowhere near, or a block of its own
        if marks and marks[-1]["edge"] == "BEGIN":
            number, last = index + 1, index + 1 + PRIVATE_KEY_LINES_MAX
        elif marks:
            return index + 1, lines[index][marks[-1].end() :]
    # No end in sight: a marker that was only mentioned must not hide the rest of the log.
    while number < len(lines) and (PRIVATE_KEY_BODY.fullmatch(lines[number]) or PRIVATE_KEY_RUN.search(lines[number])):
        if PRIVATE_KEY_MARK.search(lines[number]):
            break
        number += 1
    return number, ""


def mask_patterns(text: str) -> str:
    """Mask what looks like a secret, until nothing does: a mask may lay open the beginning of the next secret."""
    for _ in range(PATTERN_ROUNDS_MAX):
        before = text
        for pattern in PATTERNS:
            text = pattern.expression.sub(_mask, text)
        if text == before:
            break
    return text


def _mask(match: re.Match[str]) -> str:
    kept = match.groupdict().get("keep") or ""
    hidden = match[0][len(kept) :]
    # Quotes stay around the mask, so that JSON and shell lines remain what they were.
    if len(hidden) >= 2 and hidden[0] == hidden[-1] and hidden[0] in "\"'":
        return f"{kept}{hidden[0]}{MASK}{hidden[0]}"
    return kept + MASK
