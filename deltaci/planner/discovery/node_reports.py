"""Where test runners for Node are told to write JUnit XML.

Rule: only what the repository configures is named; a report that nobody asks for is none.
"""

import re
import shlex
from collections.abc import Mapping
from typing import Any, Final

from deltaci.planner.discovery.project import Tree, inside, join, table, texts

CONFIGS: Final = re.compile(r"(?:(?:jest|vitest|vite)\.config\.[a-z]{2,4}|\.mocharc\.[a-z]{2,5})")
_OPTION: Final = r"['\"]?\b%s['\"]?\s{0,9}:\s{0,9}['\"]([^'\"\n]{1,200})['\"]"
_DIRECTORY: Final = re.compile(_OPTION % "outputDirectory")
_NAME: Final = re.compile(_OPTION % "outputName")
_FILE: Final = re.compile(
    r"\boutputFile['\"]?\s{0,9}:\s{0,9}(?:\{[^{}]{0,200}?\bjunit['\"]?\s{0,9}:\s{0,9})?['\"]([^'\"\n]{1,200})['\"]"
)
_MOCHA_FILE: Final = re.compile(r"\bmochaFile['\"]?\s{0,9}[:=]\s{0,9}['\"]?([^'\"\s,]{1,200})")
_JUNIT: Final = re.compile(r"['\"]junit['\"]")


def reports_of(tree: Tree, root: str, names: set[str], content: Mapping[str, Any], script: str) -> tuple[str, ...]:
    """Globs of reports that the script `test` of the package at `root` writes. `names` are the files there."""
    texts_of = {name: tree.text(join(root, name)) for name in sorted(names) if CONFIGS.fullmatch(name)}
    found: set[str] = set()
    words = _words(script)
    jest = "\n".join(text for name, text in texts_of.items() if name.startswith("jest."))
    if "jest-junit" in jest or "jest-junit" in script or _in_manifest(content):
        settings = table(content, "jest-junit")
        directory = _first(settings.get("outputDirectory"), _DIRECTORY, jest) or "."
        name = _first(settings.get("outputName"), _NAME, jest) or "junit.xml"
        found.add(f"{directory}/{name}")
    vite = "\n".join(text for name, text in texts_of.items() if name.startswith("vit"))
    if "--reporter=junit" in words or ("--reporter" in words and "junit" in words) or _JUNIT.search(vite):
        written = [_after(words, "--outputFile.junit"), _after(words, "--outputFile"), _first(None, _FILE, vite)]
        found.update(path for path in written[:1] + written[1:] if path is not None)
    mocha = script + "\n".join(text for name, text in texts_of.items() if name.startswith(".mocharc"))
    if "mocha-junit-reporter" in mocha:
        found.add(_first(None, _MOCHA_FILE, mocha) or "test-results.xml")
    if "--test-reporter=junit" in words:
        destination = _after(words, "--test-reporter-destination")
        found.update((destination,) if destination is not None and destination not in ("stdout", "stderr") else ())
    inner = (inside(root, path) for path in found if path.isprintable() and not path.startswith("/"))
    # Names with `[hash]` and the like differ from run to run.
    return tuple(
        sorted({re.sub(r"\[[^\]]*\]|\{[^}]*\}", "*", path) for path in inner if path is not None and "<" not in path})
    )


def _in_manifest(content: Mapping[str, Any]) -> bool:
    reporters = table(content, "jest").get("reporters")
    listed = reporters if isinstance(reporters, list) else []
    return any("jest-junit" in ([each] if isinstance(each, str) else texts(each)) for each in listed)


def _words(script: str) -> list[str]:
    try:
        return shlex.split(script[:5_000])
    except ValueError:
        return script[:5_000].split()


def _after(words: list[str], option: str) -> str | None:
    for index, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2] or None
        if word == option and index + 1 < len(words):
            return words[index + 1]
    return None


def _first(value: object, pattern: re.Pattern[str], text: str) -> str | None:
    match = pattern.search(text[:100_000])
    return value if isinstance(value, str) and value else (match[1] if match is not None else None)
