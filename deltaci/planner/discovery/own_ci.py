"""What the CI that a repository has today runs: evidence of which checks its maintainers want, and how.

Rule 1: it decides between commands that discovery knows anyhow; no command is ever copied from there.
Rule 2: its files are read as lines, not as what each system means by them: a command that is there is known, in
whichever job, and what is not understood says nothing.
"""

import re
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from deltaci.planner.discovery.project import Tree, parent, upward
from deltaci.planner.repository import Files

FILES_MAX: Final = 40
LINES_MAX: Final = 5_000
LINE_CHARACTERS_MAX: Final = 1_000
_PATH: Final = re.compile(
    r"\.(?:github|gitea|forgejo)/workflows/[^/]+\.ya?ml|\.(?:circleci|woodpecker|azure-pipelines)/[^/]+\.ya?ml|"
    r"\.(?:gitlab-ci|travis|cirrus|woodpecker|drone)\.ya?ml|\.?(?:appveyor|azure-pipelines)\.ya?ml"
)
# Jobs that do not look at a change: what they run is no check of it.
_ASIDE: Final = re.compile(
    r"release|publish|deploy|nightly|bench|stale|docs?\b|examples?|pages|canary|snapshot|preview|cron|sync|update|fuzz|size",
    re.IGNORECASE,
)
_BEFORE: Final = re.compile(
    r"(?:-[ \t]+)*(?:(?:run|script|command|test|install|bash|pwsh)[ \t]*:[ \t]*)?[\"'|>]?[ \t]*"
)
_PLACE: Final = re.compile(r"[\w.@/-]{1,200}")
_SCRIPT: Final = re.compile(
    r"(?:^|[\s;&|(\"'])(?:npm|pnpm|yarn|bun)(?:[ \t]+-\S+)*+[ \t]+(?:run(?:-script)?[ \t]+)?(?:-\S+[ \t]+)*+"
    r"([A-Za-z][\w:.-]{0,60})"
)


def lists_commands(path: str) -> bool:
    """Whether a file at `path`, from the root of the repository, is one in which another CI system finds its jobs."""
    return path[:1] in ".a" and _PATH.fullmatch(path) is not None


def wanted(files: Files) -> list[str]:
    """Those files, at most `FILES_MAX`."""
    return [path for path in files.paths if lists_commands(path) and files.is_file(path)][:FILES_MAX]


class OwnCi:
    """The commands of a repository's own CI, a line each."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._found: dict[str, list[str]] = {}

    @cached_property
    def _lines(self) -> tuple[tuple[bool, str], ...]:
        """Whether it is of a file that is aside, and the command."""
        found: list[tuple[bool, str]] = []
        for path in wanted(self._tree.files):
            is_aside = _ASIDE.search(path.rpartition("/")[2]) is not None
            found += [(is_aside, line) for line in _commands(self._tree.text(path))]
        return tuple(found[:LINES_MAX])

    @property
    def is_empty(self) -> bool:
        """Whether there is none that is known here."""
        return not self._lines

    def lines(self, pattern: re.Pattern[str]) -> list[str]:
        """The commands in which a pattern is found, in the order of the files' names; looked for once."""
        if pattern.pattern not in self._found:
            self._found[pattern.pattern] = [line for _, line in self._lines if pattern.search(line) is not None]
        return self._found[pattern.pattern]

    def runs(self, pattern: re.Pattern[str]) -> bool:
        """Whether there is such a command."""
        return bool(self.lines(pattern))

    def knows(self, root: str) -> bool:
        """Whether a command, or a setting of a job, names the directory `root`; true if there is none to ask."""
        return self.is_empty or root in self._places

    @cached_property
    def _places(self) -> frozenset[str]:
        """All that looks like a path, with the directories above it."""
        words = {word.strip("/") for _, line in self._lines for word in _PLACE.findall(line)}
        paths = {word.removeprefix("./") for word in words}
        return frozenset(above for path in paths for above in (path, *upward(parent(path))))

    @cached_property
    def scripts(self) -> tuple[str, ...]:
        """The names of what is run by package managers of Node for a change, in order, each once.

        Not only those of `package.json`: the caller knows which of them are.
        """
        names = (name for is_aside, line in self._lines if not is_aside for name in _SCRIPT.findall(line))
        return tuple(dict.fromkeys(names))


def _commands(text: str) -> Iterator[str]:
    """The lines without what YAML writes before a command; a continued one is joined."""
    whole = ""
    for line in text.split("\n"):
        stripped = line.strip()[:LINE_CHARACTERS_MAX]
        if not stripped or stripped.startswith("#"):
            continue
        if not whole:
            match = _BEFORE.match(stripped)
            stripped = stripped[match.end() :] if match is not None else stripped
        if stripped.endswith("\\") and len(whole) < LINE_CHARACTERS_MAX:
            whole += stripped[:-1] + " "
            continue
        yield whole + stripped
        whole = ""
    if whole:
        yield whole
