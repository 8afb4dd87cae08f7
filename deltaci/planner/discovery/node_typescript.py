"""What tsconfig files say of files outside their project: references, extended configurations, paths, includes.

Rule: a configuration that cannot be read may mean any file, so its project reads all of its workspace.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from deltaci.planner.discovery.jsonc import jsonc_or_none
from deltaci.planner.discovery.project import Tree, inside, join, parent, table, texts

CHAIN_MAX: Final = 100
_CONFIG: Final = re.compile(r"(?:tsconfig[^/]*|jsconfig)\.json")
_PACKAGE: Final = re.compile(r"(?:@[^/]+/)?[^/]+")
_GLOB: Final = re.compile(r"[*?\[{]")


class Outside(msgspec.Struct, frozen=True):
    """Paths from the root of the repository, names of packages, and whether some of it could not be read."""

    paths: frozenset[str] = frozenset()
    names: frozenset[str] = frozenset()
    is_unclear: bool = False


def is_config(name: str) -> bool:
    """Whether TypeScript may read a file of this name as its configuration."""
    return _CONFIG.fullmatch(name) is not None


class TypeScript:
    """The configurations of a repository; what one extends is followed once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._read: dict[str, dict[str, Any] | None] = {}

    def outside(self, configs: Iterable[str]) -> Outside:
        """All paths and packages that the configurations of a project name, its own among them."""
        paths: set[str] = set()
        names: set[str] = set()
        is_unclear = False
        for config in configs:
            content = self._content(config)
            if content is None:
                is_unclear = True
                continue
            paths.update(self._targets(config, content))
            is_unclear |= self._extended(config, content, paths, names)
        return Outside(frozenset(paths), frozenset(names), is_unclear)

    def mapped(self, config: str) -> Outside:
        """The paths that imports are mapped to by a configuration at the root of a workspace."""
        content = self._content(config)
        return Outside(is_unclear=True) if content is None else Outside(frozenset(_mapped(config, content)))

    def _content(self, config: str) -> dict[str, Any] | None:
        if config not in self._read:
            self._read[config] = jsonc_or_none(self._tree, config)
        return self._read[config]

    def _targets(self, config: str, content: Mapping[str, Any]) -> Iterable[str]:
        at = parent(config)
        references = content.get("references")
        for each in references if isinstance(references, list) else ():
            path = each.get("path") if isinstance(each, dict) else None
            if isinstance(path, str):
                yield from _within(at, path)
        for key in ("include", "files"):
            for path in texts(content.get(key)):
                yield from _within(at, path)
        for path in texts(table(content, "compilerOptions").get("rootDirs")):
            yield from _within(at, path)
        yield from _mapped(config, content)

    def _extended(self, config: str, content: Mapping[str, Any], paths: set[str], names: set[str]) -> bool:
        """Follow `extends`; whether some of it could not be read."""
        seen = {config}
        waiting: list[tuple[str, Mapping[str, Any]]] = [(config, content)]
        while waiting:
            at, each = waiting.pop()
            extends = each.get("extends")
            for target in texts(extends if isinstance(extends, list) else [extends]):
                if not target.startswith((".", "/")):
                    match = _PACKAGE.match(target)
                    names.update((match[0],) if match is not None else ())
                    continue
                path = inside(parent(at), target) if not target.startswith("/") else None
                if path is None or not path.isprintable():
                    continue
                path = path if path.endswith(".json") else path + ".json"
                paths.add(path)
                if path in seen or len(seen) > CHAIN_MAX:
                    continue
                seen.add(path)
                base = self._content(path)
                if base is None:
                    return True
                waiting.append((path, base))
        return False


def _mapped(config: str, content: Mapping[str, Any]) -> Iterable[str]:
    options = table(content, "compilerOptions")
    url = options.get("baseUrl")
    at = join(parent(config), url) if isinstance(url, str) and not url.startswith("/") else parent(config)
    for targets in table(options, "paths").values():
        for target in texts(targets):
            yield from _within(at, target)


def _within(at: str, pattern: str) -> Iterable[str]:
    """The longest path without wildcards that a pattern begins with, if that is in the repository and not installed."""
    special = _GLOB.search(pattern)
    literal = pattern if special is None else pattern[: special.start()].rpartition("/")[0] or "."
    if pattern.startswith("/") or not literal.isprintable():
        return
    path = inside(at, literal)
    if path is not None and "node_modules" not in path.split("/"):
        yield path
