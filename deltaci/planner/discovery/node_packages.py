"""What is read of a Node repository: its packages, and which of them a version of a dependency may mean.

Rule: a dependency on a name that a package here has is that package, unless its version certainly means another.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any, Final

import msgspec
import semantic_version  # type: ignore[import-untyped]  # it has no types

from deltaci.planner.discovery.project import Tree, inside, is_left_out, parent, table
from deltaci.planner.repository import Files

KINDS: Final = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")
# Nobody's own packages, wherever they are and whatever is declared.
_NEVER: Final = frozenset({"node_modules", "bower_components", "jspm_packages"})
NAME: Final = re.compile(r"(?:@[a-zA-Z0-9~_.-]{1,100}/)?[a-zA-Z0-9~_.][a-zA-Z0-9~_.-]{0,200}", re.ASCII)
# More packages of one name are no dependency of anybody's: edges must not grow with the square of the repository.
NAMESAKES_MAX: Final = 50
_NAME_CHARACTERS_MAX: Final = 214
_RANGE_CHARACTERS_MAX: Final = 100
_OUTPUT: Final = re.compile(r"(?:\./)?(?:dist|build|built|out|output|lib|es|esm|cjs|umd)/")
_ENTRIES_MAX: Final = 200
# What a script that builds a package is called, the likelier name first.
BUILDS: Final = ("build", "compile")
_PATH: Final = re.compile(r"(?:file|link|portal):(.+)", re.DOTALL)
_ALIAS: Final = re.compile(r"(?:npm|workspace):((?:@[^@/]+/)?[^@/]+)@(.*)", re.DOTALL)
# `catalog:`, `patch:` and what else we do not know may mean a package here; these mean what they fetch.
_FETCHED: Final = re.compile(r"(?:git|git\+[a-z]+|https?|github|gitlab|bitbucket|gist|jsr):|git@")


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """One package: its directory, its manifest and what it says. `content` is empty if it has no package.json."""

    root: str
    manifest: str
    content: dict[str, Any]
    name: str | None
    scripts: dict[str, str]
    # The script that builds it.
    build: str | None


def package_of(root: str, manifest: str, content: dict[str, Any], builds: tuple[str, ...] = BUILDS) -> Package:
    """The package that a manifest describes; whatever in it is of another shape than it should be is not there.

    `builds` are names of scripts that build a package, the likelier first.
    """
    scripts = {name: body for name, body in table(content, "scripts").items() if isinstance(body, str)}
    return Package(
        root=root,
        manifest=manifest,
        content=content,
        name=clean(content.get("name")),
        build=next((name for name in builds if name in scripts), None),
        # npm's placeholder for `test` only fails.
        scripts={name: body for name, body in scripts.items() if "no test specified" not in body},
    )


def is_built(package: Package) -> bool:
    """Whether others find in it what a build has put there, by the usual names of directories."""
    content = package.content
    entries: list[Any] = [content.get(key) for key in ("main", "module", "types", "exports", "bin")]
    for _ in range(_ENTRIES_MAX):
        if not entries:
            return False
        entry = entries.pop()
        if isinstance(entry, dict):
            entries += entry.values()
        elif isinstance(entry, list):
            entries += entry
        elif isinstance(entry, str) and _OUTPUT.match(entry) is not None:
            return True
    return False


def clean(value: object) -> str | None:
    """A text that can be a name; None for what no package manager takes: control characters, halves of characters."""
    if isinstance(value, str) and 0 < len(value) <= _NAME_CHARACTERS_MAX and value.isprintable():
        return value
    return None


def is_own(path: str) -> bool:
    """Whether a file at `path` may be of this repository's own packages if one of them declares it."""
    return not any(
        name in _NEVER or (name.startswith(".") and len(name) > 1) or "{{" in name for name in path.split("/")[:-1]
    )


class Names:
    """Names of structural files by directory, made once: no project looks through all files of the repository."""

    def __init__(self, files: Files) -> None:
        self.by_directory: dict[str, set[str]] = {}
        for path in files.paths:
            if is_own(path) and files.is_file(path):
                directory, _, name = path.rpartition("/")
                self.by_directory.setdefault(directory or ".", set()).add(name)

    def at(self, directory: str) -> set[str]:
        """The names of files directly in `directory`."""
        return self.by_directory.get(directory, set())


def candidates(tree: Tree) -> list[str]:
    """Directories with a package.json that are projects only if a workspace declares them, shallow ones first."""
    paths = (path for path in tree.files.paths if path == "package.json" or path.endswith("/package.json"))
    found = [parent(path) for path in paths if is_left_out(path) and is_own(path) and tree.files.is_file(path)]
    return sorted(found, key=lambda root: (root.count("/"), root))


class Local:
    """The packages of the repository by name."""

    def __init__(self, packages: Iterable[Package]) -> None:
        self._by_name: dict[str, list[Package]] = {}
        for package in packages:
            if package.name is not None:
                self._by_name.setdefault(package.name, []).append(package)

    def roots(self, name: str) -> list[str]:
        """Where packages of that name are."""
        return [package.root for package in self._by_name.get(name, ())]

    def is_crowded(self, name: str) -> bool:
        """Whether so many packages have the name that depending on it is depending on the whole repository."""
        return len(self._by_name.get(name, ())) > NAMESAKES_MAX

    def may_mean(self, name: str, version: object) -> bool:
        """Whether `name` at `version` can be a package of this repository; true when in doubt."""
        found = self._by_name.get(name, ())
        if not found or self.is_crowded(name) or not isinstance(version, str) or version.startswith("workspace:"):
            return bool(found)
        versions = (package.content.get("version") for package in found)
        return any(not isinstance(own, str) or _may_satisfy(own, version) for own in versions)


class Needs(msgspec.Struct, frozen=True):
    """The names of local packages, and the paths, that a manifest asks for."""

    names: frozenset[str]
    paths: frozenset[str]


def needs_of(package: Package, local: Local, forced: frozenset[str]) -> Needs:
    """What a package takes from this repository.

    Args:
        forced: names that the workspace's root gives other versions to, so that the package's own say nothing.
    """
    names: set[str] = set()
    paths: set[str] = set()
    for kind in KINDS:
        for name, version in table(package.content, kind).items():
            for each, asked in _meanings(name, version):
                if each in forced or local.may_mean(each, asked):
                    names.add(each)
            at = _PATH.fullmatch(version) if isinstance(version, str) else None
            target = inside(package.root, at[1]) if at is not None and at[1].isprintable() else None
            if target is not None:
                paths.add(target)
    names.discard(package.name or "")
    return Needs(frozenset(names), frozenset(paths))


def forced_by(content: Mapping[str, Any]) -> frozenset[str]:
    """The names that a workspace's root overrides, in the words of each package manager, whatever with."""
    tables = (table(content, "overrides"), table(content, "resolutions"), table(content, "pnpm", "overrides"))
    keys = {key for each in tables for key in each}
    # `a`, `a@1`, `b>a`, `b/a`, `**/a`: the name is what ends it.
    found: set[str] = set()
    for key in keys:
        last = re.split(r"[>]|\*\*/", key)[-1]
        at = last.find("@", 1)
        name = last if at < 0 else last[:at]
        found.update((name, name.rpartition("/")[2]))
    return frozenset(found)


def _meanings(name: str, version: object) -> list[tuple[str, object]]:
    """The name as written; an alias stands for what it names as well."""
    alias = _ALIAS.fullmatch(version) if isinstance(version, str) else None
    return [(name, version)] if alias is None else [(name, version), (alias[1], alias[2])]


@lru_cache(maxsize=8192)
def _may_satisfy(version: str, asked: str) -> bool:
    if _FETCHED.match(asked):
        return False
    if len(asked) > _RANGE_CHARACTERS_MAX or len(version) > _RANGE_CHARACTERS_MAX:
        return True
    try:
        spec = semantic_version.NpmSpec(asked)
        exact = semantic_version.Version(version)
    except (ValueError, TypeError, RecursionError):
        return True
    # Whether a pre-release satisfies a range is a matter of settings.
    return bool(spec.match(exact) or spec.match(exact.truncate()))
