"""What go.mod and go.work say, as far as discovery needs it.

Rule: a line that is not understood says nothing here; the go command will refuse it when it runs.
"""

import re
from collections.abc import Iterator
from typing import Final

import msgspec

from deltaci.planner.discovery.project import broken

WORDS_MAX: Final = 16
_WORD: Final = re.compile(r'"([^"\n]*+)"|`([^`\n]*+)`|([^\s"`()]++)')
_GO_VERSION: Final = re.compile(r"(?:go)?(\d{1,4}(?:\.\d{1,4}){0,2}(?:(?:rc|beta)\d{1,3})?)(?:-.*)?", re.ASCII)


class GoFile(msgspec.Struct, kw_only=True):
    """A go.mod, or a go.work (which has `uses` and no module).

    `requires` maps module paths to versions; `replaces` are pairs of the replaced module and a directory, relative to
    the file, or None where another module takes its place; `tools` are packages run by `go tool`.
    """

    module: str | None = None
    version: str | None = None
    toolchain: str | None = None
    requires: dict[str, str] = {}
    replaces: list[tuple[str, str | None]] = []
    uses: list[str] = []
    tools: list[str] = []


def read(path: str, text: str) -> GoFile:
    """The file as data.

    Raises:
        PlanFailed: a go.mod that says something, but not which module it is. One that says nothing is how people
            keep the go command out of a directory.
    """
    found = GoFile()
    says_something = False
    for verb, words in _directives(text):
        says_something = True
        match verb, words:
            case "module", [name, *_]:
                found.module = found.module or name
            case "go", [version, *_]:
                found.version = go_version(version)
            case "toolchain", [version, *_] if version != "default":
                found.toolchain = go_version(version)
            case "require", [name, version, *_]:
                found.requires[name] = version
            case "use", [place, *_]:
                found.uses.append(place)
            case "tool", [package, *_]:
                found.tools.append(package)
            case "replace", [name, *rest] if "=>" in rest:
                target = rest[rest.index("=>") + 1 :]
                is_local = len(target) == 1 and (target[0] in (".", "..") or target[0].startswith(("./", "../")))
                found.replaces.append((name, target[0] if is_local else None))
    if says_something and found.module is None and path.rpartition("/")[2] == "go.mod":
        raise broken(path, "no line 'module <path>' says which module this is", 1)
    return found


def _directives(text: str) -> Iterator[tuple[str, list[str]]]:
    """Each directive with its words; the lines of a block have the verb that opened it."""
    block = ""
    for line in text.split("\n"):
        line = line.partition("//")[0].strip()
        if not line:
            continue
        if line.startswith(")"):
            block = ""
            continue
        words = [quoted or raw or bare for quoted, raw, bare in _WORD.findall(line)[:WORDS_MAX]]
        if block:
            yield block, words
        elif words and line.endswith("(") and len(words) == 1:
            block = words[0]
        elif words:
            yield words[0], words[1:]


def go_version(text: str) -> str | None:
    """`1.22.3` of `go1.22.3-suffix` and the like; None if it is no version."""
    match = _GO_VERSION.fullmatch(text[:100])
    return match[1] if match is not None else None
