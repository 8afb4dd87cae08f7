"""Globs in the manner of .gitignore, matched in time linear in the path.

A pattern without a slash matches at any depth, one with a slash is relative to the root; `*` and `?` stay within one
name, `**` crosses directories; what matches a directory matches all below it; `!` takes back, and the last match wins.

Rule: patterns come from repositories, so no pattern may be slow. A `*` takes the leftmost place where what follows
fits, and gives it up never again (an atomic group): for globs the leftmost place is as good as any other, and without
that, twenty stars in one pattern would hold the interpreter for years.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Final

PATTERN_CHARACTERS_MAX: Final = 500
# Patterns times paths in one plan: some ten seconds. A thread cannot be killed, so it must not begin what is more.
MATCHES_MAX: Final = 20_000_000


class GlobInvalid(ValueError):
    """The pattern means nothing; the text says why."""


class Globs:
    """An ordered list of patterns; tells which of them, if any, makes a path match."""

    def __init__(self, patterns: Sequence[str]) -> None:
        """Raises GlobInvalid on an empty, too long or malformed pattern."""
        self.patterns = tuple(patterns)
        self._rules = tuple((_compiled(p.removeprefix("!")), p.startswith("!"), p) for p in reversed(self.patterns))

    def match(self, path: str) -> str | None:
        """The pattern that decided that `path` matches, or None if it does not. Never raises."""
        for rule, is_negative, pattern in self._rules:
            if rule.match(path):
                return None if is_negative else pattern
        return None

    def first(self, paths: Iterable[str]) -> tuple[str, str] | None:
        """The first of `paths` that matches, with the pattern that decided, or None."""
        for path in paths:
            pattern = self.match(path)
            if pattern is not None:
                return path, pattern
        return None


@lru_cache(maxsize=2048)
def _compiled(pattern: str) -> re.Pattern[str]:
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise GlobInvalid(f"a pattern has at most {PATTERN_CHARACTERS_MAX} characters")
    body = pattern.rstrip("/")
    is_directory = body != pattern
    segments = [segment for segment in body.removeprefix("/").split("/") if segment]
    if not segments or "\0" in pattern:
        raise GlobInvalid("an empty pattern matches nothing; write '**' for every file")
    if ".." in segments or "." in segments:
        raise GlobInvalid("patterns are relative to the root of the repository, without '.' and '..'")
    if "/" not in body:
        segments = ["**", *segments]
    tail = "/" if is_directory else "(?:/|$)"
    if set(segments) == {"**"}:
        return re.compile("[^/]+/" if is_directory else "")  # `**/` is every directory, `**` every file
    if segments[-1] == "**":
        segments = segments[:-1]
        tail = "/"  # `a/**` is all below a, not a itself
    try:
        return re.compile(_regex(segments, tail), re.DOTALL)
    except re.error as error:
        raise GlobInvalid(f"'[...]' is not a set of characters: {error}") from error


def _regex(segments: list[str], tail: str) -> str:
    """Runs of plain segments between `**` become atomic chunks; the last one must be followed by `tail`."""
    chunks: list[list[str]] = [[]]
    for segment in segments:
        if segment == "**":
            chunks.append([])
        else:
            chunks[-1].append(_segment(segment))
    parts = ["/".join(chunk) for chunk in chunks if chunk]
    is_floating = not chunks[0]
    regex = ""
    for index, part in enumerate(parts):
        chunk = part + ("/" if index < len(parts) - 1 else tail)
        # Lazily from name to name until the chunk fits: at most as many tries as the path has names.
        regex += f"(?>(?:[^/]+/)*?{chunk})" if index or is_floating else chunk
    return regex


def _segment(segment: str) -> str:
    """One name with `*`, `?`, `[...]` and backslash escapes, as a regular expression that never backtracks far."""
    chunks: list[str] = [""]
    position = 0
    while position < len(segment):
        character = segment[position]
        position += 1
        if character == "*":
            if chunks[-1] or len(chunks) == 1:
                chunks.append("")
        elif character == "?":
            chunks[-1] += "[^/]"
        elif character == "[":
            text, position = _set(segment, position)
            chunks[-1] += text
        elif character == "\\" and position < len(segment):
            chunks[-1] += re.escape(segment[position])
            position += 1
        else:
            chunks[-1] += re.escape(character)
    if len(chunks) == 1:
        return chunks[0]
    middle = "".join(f"(?>[^/]*?{chunk})" for chunk in chunks[1:-1])
    # The last chunk has to end the name, so it is looked for at the end and nowhere else.
    last = f"(?>[^/]*)(?<={chunks[-1]})" if chunks[-1] else "[^/]*+"
    if not chunks[-1]:
        return chunks[0] + middle + last
    return chunks[0] + middle + f"(?=[^/]{{{_length(chunks[-1])},}})" + last


def _length(chunk: str) -> int:
    """How many characters a chunk of literals, `[^/]` and sets matches: each of them exactly one."""
    return len(re.findall(r"\\.|\[(?:\\.|[^\]\\])*\]|.", chunk, re.DOTALL))


def _set(segment: str, start: int) -> tuple[str, int]:
    """The set that opens before `start`, as a regular expression of exactly one character, and where it ends."""
    end = start
    if segment[end : end + 1] in ("!", "^"):
        end += 1
    if segment[end : end + 1] == "]":
        end += 1
    while end < len(segment) and segment[end] != "]":
        end += 2 if segment[end] == "\\" else 1
    if end >= len(segment):
        raise GlobInvalid("'[' opens a set of characters that no ']' closes; write '\\[' for the character itself")
    body = segment[start:end]
    is_negative = body[0] in "!^"
    inside = re.sub(r"\\(.)|([\[\]^&~|\\])", lambda m: re.escape(m[1]) if m[1] else "\\" + m[2], body[is_negative:])
    return f"(?!/)[{'^' if is_negative else ''}{inside}]", end + 1
