"""From lines that compilers, linters and tests print to the lines of files that they are about. Pure.

Rule 1: a place is told only if it is one: a path inside the repository, and a line that counts from 1. What is doubtful
        is left out; nobody misses it, and a mark on the wrong line misleads.
Rule 2: equal input gives equal annotations in equal order: what was told of a check before is a beginning of it.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Final

from deltaci.forge.checks import Annotation, AnnotationLevel

ANNOTATIONS_MAX: Final = 200
PATH_CHARACTERS_MAX: Final = 400
LINE_MAX: Final = 10_000_000
LINE_CHARACTERS_MAX: Final = 1_000
MESSAGE_CHARACTERS_MAX: Final = 2_000
TITLE_CHARACTERS_MAX: Final = 200

# Of a file: with an extension, or one of those that have none. Blanks in directories are not worth the wrong matches.
_FILE: Final = r"(?:[\w.@+~-]*[/\\])*(?:[\w@+~-][\w.@+~-]*\.[A-Za-z][\w+-]{0,9}|Makefile|Dockerfile|Justfile|BUILD)"
_PATH: Final = rf"(?P<path>(?:[A-Za-z]:(?=[/\\]))?[/\\]?{_FILE})"
_WHERE: Final = rf"{_PATH}:(?P<line>\d{{1,8}})(?::\d{{1,6}})?(?:-\d{{1,6}})?"
_WORD: Final = r"(?P<level>fatal error|error|warning|note|info|failure|style|performance|portability|information)"
_START: Final = r"(?:^|(?<=[\s('\"\[]))"

# The first that matches a line tells; those that name a level come first.
_FORMS: Final[Sequence[re.Pattern[str]]] = tuple(
    re.compile(form, re.IGNORECASE)
    for form in (
        # gcc, clang, javac, mypy, cppcheck, tsc for people: path:line:column: error: text
        rf"{_START}{_WHERE}:?\s{{1,4}}(?:-\s)?{_WORD}\b[:\s\[]\s{{0,4}}(?P<text>.*)$",
        # tsc, MSBuild, Roslyn: path(line,column): error TS2304: text
        rf"{_START}{_PATH}\((?P<line>\d{{1,8}})(?:,\d{{1,6}}){{0,3}}\)\s?:\s{{1,4}}{_WORD}\b\s{{0,4}}(?P<text>.*)$",
        # Python: File "path", line 12, in name
        rf"\bFile \"{_PATH}\", line (?P<line>\d{{1,8}})(?P<text>)",
        # rustc: --> path:line:column
        rf"^\s{{0,10}}-->\s{_WHERE}(?P<text>)\s*$",
        # ruff, flake8, golangci-lint, go vet, pytest, staticcheck: path:line:column: text
        rf"{_START}{_WHERE}:\s{{1,4}}(?P<text>\S.*)$",
        # node, jest, PHP: at name (path:line:column)
        rf"\bat .{{0,200}}?\({_WHERE}(?P<text>)\)",
    )
)
_HEADLINE: Final = re.compile(rf"^\s{{0,10}}{_WORD}(?:\[\w{{1,20}}\])?:\s", re.IGNORECASE)
# The place of the checkout on a runner: what follows it is relative to the repository.
_CHECKOUT: Final = re.compile(r"^.*?/checkout/")
_FOREIGN: Final = frozenset(
    {"node_modules", "site-packages", "dist-packages", ".venv", "venv", ".tox", ".nox", ".cargo", ".rustup", "vendor"}
)
_LEVELS: Final[dict[str, AnnotationLevel]] = {
    "warning": "warning",
    "style": "warning",
    "performance": "warning",
    "portability": "warning",
    "note": "notice",
    "info": "notice",
    "information": "notice",
}


def place(path: str, line: int, workdir: str = ".") -> tuple[str, int] | None:
    """The path relative to the repository and the line, or None if that is none of its places.

    Args:
        workdir: where the tool ran that printed it, relative to the repository.
    """
    said = path.replace("\\", "/").strip()
    is_absolute = said.startswith("/") or re.match(r"[A-Za-z]:/", said) is not None
    if is_absolute:
        inside = _CHECKOUT.sub("", said, count=1)
        if inside == said:
            return None
        said, workdir = inside, "."
    parts = PurePosixPath(said).parts
    base = PurePosixPath(workdir).parts
    if parts[: len(base)] != base:
        parts = (*base, *parts)
    found = "/".join(parts)
    if not parts or ".." in parts or _FOREIGN & set(parts) or len(found) > PATH_CHARACTERS_MAX:
        return None
    return (found, line) if 1 <= line <= LINE_MAX else None


def of_lines(lines: Iterable[str], *, title: str, workdir: str = ".") -> tuple[Annotation, ...]:
    """What lines of a log say of lines of files; the message is the line itself, or what stands around it.

    Args:
        lines: redacted; of each no more than 1,000 characters are looked at.
        title: what each is headed with.
    """
    said = [line[:LINE_CHARACTERS_MAX].rstrip() for line in lines]
    found = []
    for number, line in enumerate(said):
        one = _of_line(line, said[number - 1] if number else "", said[number + 1 :], title, workdir)
        if one is not None:
            found.append(one)
    return tuple(found)


def _of_line(line: str, before: str, after: Sequence[str], title: str, workdir: str) -> Annotation | None:
    for form in _FORMS:
        match = form.search(line)
        if match is None:
            continue
        where = place(match["path"], int(match["line"]), workdir)
        if where is None:
            return None
        told = match.groupdict()
        text, level = (told.get("text") or "").strip(), told.get("level")
        headline = _HEADLINE.match(before)
        if not text and headline is not None:  # rustc says first what, then where
            text, level = before.strip(), headline["level"]
        return annotation(where, text or _next_words(after) or line.strip(), title, _level(level))
    return None


def _next_words(after: Sequence[str]) -> str:
    """Of a traceback: the source line below the place."""
    return after[0].strip() if after and after[0].startswith((" ", "\t")) else ""


def _level(word: str | None) -> AnnotationLevel:
    return _LEVELS.get((word or "error").lower(), "failure")


def annotation(where: tuple[str, int], message: str, title: str, level: AnnotationLevel = "failure") -> Annotation:
    """One annotation of one line, cut to what people read; GitHub takes no empty message."""
    path, line = where
    said = message.strip()[:MESSAGE_CHARACTERS_MAX] or "It failed here."
    return Annotation(
        path=path, start_line=line, end_line=line, level=level, message=said, title=title[:TITLE_CHARACTERS_MAX]
    )


def merged(*several: Iterable[Annotation]) -> tuple[Annotation, ...]:
    """All of them, one a line of a file and message, those first that come first; at most 200."""
    seen: dict[tuple[str, int, str], Annotation] = {}
    for annotations in several:
        for one in annotations:
            seen.setdefault((one.path, one.start_line, one.message), one)
    return tuple(seen.values())[:ANNOTATIONS_MAX]
