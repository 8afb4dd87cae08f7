"""The package managers of Node: which one, in which version, how it installs what is locked, and where it caches.

Rule: a version comes from what the repository says, exact pins first; what is no plain version is not said.
"""

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from deltaci.domain.project import CacheRule
from deltaci.planner.discovery.project import Tree, join, parent, table, upward

LOCKS: Final = ("pnpm-lock.yaml", "yarn.lock", "bun.lock", "bun.lockb", "package-lock.json", "npm-shrinkwrap.json")
VERSION_FILES: Final = (".nvmrc", ".node-version", ".tool-versions")
MANAGERS: Final = ("npm", "pnpm", "yarn", "bun")
_LOCKS_OF: Final[Mapping[str, tuple[str, ...]]] = {
    "npm": LOCKS[4:],
    "pnpm": LOCKS[:1],
    "yarn": LOCKS[1:2],
    "bun": LOCKS[2:4],
}
_PACKAGE_MANAGER: Final = re.compile(
    r"(npm|pnpm|yarn|bun)@(\d{1,4}\.\d{1,4}\.\d{1,4}(?:-[0-9A-Za-z.-]{1,50})?)(?:\+[^\s]{0,300})?", re.ASCII
)
_EXACT: Final = re.compile(r"v?(\d{1,4}(?:\.\d{1,4}){0,2}(?:-[0-9A-Za-z.-]{1,50})?)", re.ASCII)
_VERSION: Final = re.compile(r"[0-9A-Za-z.*<>=^~|+/ -]{1,100}", re.ASCII)
_IN_TOOL_VERSIONS: Final = {"nodejs": "node", "node": "node", "pnpm": "pnpm", "yarn": "yarn", "bun": "bun"}


class Manager(msgspec.Struct, frozen=True, kw_only=True):
    """One package manager as it is called.

    `call` runs it; `execute` runs a program that it installed; `caches` are directories as seen from where it installs,
    and `env` names them: a value of `env` that begins with `.` is such a directory.
    """

    name: str
    is_berry: bool
    call: str
    execute: str
    install: str
    caches: tuple[str, ...]
    env: dict[str, str]

    def env_at(self, workspace: str, workdir: str) -> dict[str, str]:
        """`env` for a command that runs in `workdir`."""
        up = posixpath.relpath(workspace, workdir)
        return {
            key: posixpath.normpath(posixpath.join(up, value)) if value.startswith(".") else value
            for key, value in self.env.items()
        }


class Tools:
    """The tools that a repository asks for; version files are looked for in the directory and those above it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._files: dict[str, dict[str, str]] = {}

    def of(self, root: str, contents: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """Tool -> version. `contents` are the package's manifest and that of its workspace: the first to say counts."""
        found = dict(self._from_files(root))
        for tool in ("node", *MANAGERS):
            for content in contents:
                pinned = _pinned(content, tool)
                if pinned is not None:
                    found[tool] = pinned
                    break
        for content in contents:
            engines = table(content, "engines")
            for tool in ("node", *MANAGERS):
                asked = _said(engines.get(tool))
                if asked is not None:
                    found.setdefault(tool, asked)
        return found

    def _from_files(self, directory: str) -> dict[str, str]:
        waiting = [directory]
        while waiting[-1] != "." and waiting[-1] not in self._files:
            waiting.append(parent(waiting[-1]))
        for at in reversed(waiting):
            if at not in self._files:
                above = {} if at == "." else self._files[parent(at)]
                self._files[at] = {**above, **self._in(at)}
        return self._files[directory]

    def _in(self, directory: str) -> dict[str, str]:
        found: dict[str, str] = {}
        for line in self._tree.text(join(directory, ".tool-versions")).splitlines()[:200]:
            words = line.split("#")[0].split()[:2]
            tool, said = (_IN_TOOL_VERSIONS.get(words[0]), _said(words[1])) if len(words) == 2 else (None, None)
            if tool is not None and said is not None:
                found[tool] = said
        for name in (".node-version", ".nvmrc"):
            lines = [line.split("#")[0].strip() for line in self._tree.text(join(directory, name)).splitlines()[:50]]
            said = next((_said(line) for line in lines if line), None)
            if said is not None:
                found["node"] = said
        return found


def _said(value: object) -> str | None:
    text = value.strip() if isinstance(value, str) else ""
    return text if _VERSION.fullmatch(text) else None


def _pinned(content: Mapping[str, Any], tool: str) -> str | None:
    match = _package_manager(content)
    if match is not None and match[1] == tool:
        return match[2]
    volta = _said(table(content, "volta").get(tool))
    if volta is not None:
        return volta
    for key in ("packageManager", "runtime"):
        entry = table(content, "devEngines", key)
        if entry.get("name") == tool:
            return _said(entry.get("version"))
    return None


def _package_manager(content: Mapping[str, Any]) -> re.Match[str] | None:
    value = content.get("packageManager")
    return _PACKAGE_MANAGER.fullmatch(value) if isinstance(value, str) else None


def lock_of(tree: Tree, root: str, manager: str) -> str | None:
    """The lock file that counts at `root`: that of the manager, else any; None if there is none."""
    return tree.first(root, (*_LOCKS_OF[manager], *LOCKS))


def manager_of(tree: Tree, root: str, content: Mapping[str, Any], tools: Mapping[str, str]) -> Manager:
    """The package manager of the workspace, or of the package alone, at `root`."""
    name = _name(tree, root, content)
    exact = _EXACT.fullmatch(tools.get(name, ""))
    at = f"@{exact[1]}" if exact is not None else _asked(name, tools)
    is_frozen = tree.first(root, _LOCKS_OF[name]) is not None
    if name == "npm":
        install = "npm ci" if is_frozen else "npm install --no-audit --no-fund"
        env = {"npm_config_cache": ".cache/npm"}
        return Manager(
            name=name, is_berry=False, call="npm", execute="npx", install=install, caches=(".cache/npm",), env=env
        )
    has_settings = any(tree.has(place, ".yarnrc.yml") for place in upward(root))
    is_newer = exact is not None and exact[1].partition(".")[0] != "1"
    if name == "yarn" and (has_settings or is_newer):
        # Corepack takes the version from the manifest, or from one above, as Yarn does its settings; a cache that is
        # checked in is at the same place.
        return Manager(
            name=name,
            is_berry=True,
            call="corepack yarn",
            execute="corepack yarn",
            install="corepack yarn install" + (" --immutable" if is_frozen else ""),
            caches=(".yarn/cache", ".cache/corepack"),
            env={"YARN_ENABLE_GLOBAL_CACHE": "false", "COREPACK_HOME": ".cache/corepack"},
        )
    call = f"npx --yes {shlex.quote(name + at)}"
    folders = {
        "pnpm": {"npm_config_store_dir": ".cache/pnpm", "pnpm_config_store_dir": ".cache/pnpm"},
        "yarn": {"YARN_CACHE_FOLDER": ".cache/yarn"},
        "bun": {"BUN_INSTALL_CACHE_DIR": ".cache/bun"},
    }[name]
    return Manager(
        name=name,
        is_berry=False,
        call=call,
        execute=call + {"pnpm": " exec", "yarn": " run", "bun": " x"}[name],
        install=f"{call} install" + (" --frozen-lockfile" if is_frozen else ""),
        caches=(".cache/npm", f".cache/{name}"),
        env={"npm_config_cache": ".cache/npm", **folders},
    )


def _asked(name: str, tools: Mapping[str, str]) -> str:
    """A range of versions, from `engines`; Yarn's name for all versions from 2 on is another package's."""
    asked = tools.get(name)
    return f"@{asked}" if asked is not None and name != "yarn" else ""


def _name(tree: Tree, root: str, content: Mapping[str, Any]) -> str:
    match = _package_manager(content)
    if match is not None:
        return match[1]
    declared = table(content, "devEngines", "packageManager").get("name")
    if declared in MANAGERS:
        return str(declared)
    locks = [name for name in MANAGERS if tree.first(root, _LOCKS_OF[name]) is not None]
    if locks:
        return next(name for name in ("pnpm", "yarn", "bun", "npm") if name in locks)
    return "pnpm" if tree.has(root, "pnpm-workspace.yaml") else "npm"


def cache_of(manager: Manager, workspace: str, root: str) -> CacheRule:
    """What the package manager downloads, kept until a lock file, a manifest or a version changes."""
    names = (*LOCKS, *VERSION_FILES, "package.json", "pnpm-workspace.yaml", ".yarnrc.yml", ".npmrc")
    inputs = {join(workspace, name) for name in names} | {join(root, "package.json")}
    return CacheRule(
        name=manager.name, paths=tuple(join(workspace, path) for path in manager.caches), inputs=tuple(sorted(inputs))
    )
