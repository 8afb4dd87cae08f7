"""How a Python project is installed: by uv, poetry, pdm, pipenv or pip, in `.venv` inside the checkout.

Rule 1: a lock file decides who installs; what was locked is what is tested.
Rule 2: tools that are not part of the project live in `.cache/venv`, which linters and test runners leave alone, and
which nobody takes away when they make `.venv` anew.
"""

import posixpath
import shlex
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Final

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule
from deltaci.planner.discovery.project import Tree, join, table, texts
from deltaci.planner.discovery.python_files import Declared, Requirements, name_of, normalized, version_text
from deltaci.planner.discovery.workspace import ancestors

TOOLS: Final = ".cache/venv"
DEVELOPMENT: Final = ("dev", "test", "tests", "testing")
LOCKS: Final = ("uv.lock", "poetry.lock", "pdm.lock", "Pipfile.lock", "pylock.toml")
VERSIONS: Final = (".python-version", ".tool-versions", "runtime.txt")
_CACHE_VARIABLES: Final = {
    "uv": "UV_CACHE_DIR",
    "poetry": "POETRY_CACHE_DIR",
    "pdm": "PDM_CACHE_DIR",
    "pipenv": "PIPENV_CACHE_DIR",
    "pip": "PIP_CACHE_DIR",
}


class Environment:
    """Who installs a project, what, and how its programs are called."""

    def __init__(
        self, tree: Tree, declared: Declared, listed: Requirements, direct: Sequence[str], workspace: Declared | None
    ) -> None:
        """`direct` are the requirement files to install, `listed` what they say, `workspace` that of uv, if any."""
        self.declared = declared
        self.root = declared.root
        self.workspace = workspace
        self._tree = tree
        self._listed = listed
        self._direct = direct
        self.tool = self._tool()
        name = {"uv": "uv.lock", "poetry": "poetry.lock", "pdm": "pdm.lock", "pipenv": "Pipfile.lock"}.get(self.tool)
        base = workspace.root if workspace is not None else self.root
        self.lock = join(base, name) if name is not None and tree.has(base, name) else None
        self.extras = declared.extras
        self.groups = declared.groups

    def _tool(self) -> str:
        has, declared = self._tree.has, self.declared
        backend = table(declared.pyproject, "build-system").get("build-backend")
        if self.workspace is not None or (has(self.root, "uv.lock") and "project" in declared.pyproject):
            return "uv"
        if has(self.root, "poetry.lock") or declared.tool("poetry") or str(backend)[:12] == "poetry.core.":
            return "poetry"
        if has(self.root, "pdm.lock") or declared.tool("pdm"):
            return "pdm"
        if declared.has_pipfile:
            return "pipenv"
        return "uv" if declared.tool("uv") and "project" in declared.pyproject else "pip"

    @cached_property
    def names(self) -> frozenset[str]:
        """Packages that lists which this environment can install name, whichever list it is."""
        found = self.declared.listed_names | self._listed.names
        if "extras_require" in self.declared.setup_py and self.extras:
            found |= self.declared.setup_names()
        return found

    def _chosen(self, lists: dict[str, list[str]], tools: Sequence[str], there: Iterable[str | None] = ()) -> list[str]:
        """Those of `lists` to install for `tools`, `there` being installed anyway."""
        wanted = {"pytest", *tools} - {*there}
        return [
            name
            for name, texts_ in lists.items()
            if normalized(name) in DEVELOPMENT or wanted & {name_of(text) for text in texts_}
        ]

    def missing(self, tools: Sequence[str]) -> list[str]:
        """Those of `tools` that no list names, and that are not this very project."""
        above = self.workspace.listed_names if self.workspace is not None else frozenset[str]()
        own = self.declared.name()
        return [tool for tool in tools if tool not in self.names and tool not in above and tool != own]

    def step(self, name: str, run: str) -> Step:
        """A step in the directory of the project."""
        return Step(name=name, run=run, workdir=self.root)

    def helper(self, tool: str, version: str = "") -> Step:
        """A program beside the environment of the project."""
        package = shlex.quote(f"{tool}{version}")
        return self.step(f"Install {tool}", f"python3 -m venv {TOOLS} && {TOOLS}/bin/python -m pip install {package}")

    def install(self, tools: Sequence[str], pins: dict[str, str]) -> list[Step]:
        """The steps that make the environment, with what the project needs for development, and `tools`."""
        missing = [tool + pins.get(tool, "") for tool in self.missing(tools)]
        if self.tool == "uv":
            return [self.helper("uv", self._uv_version()), self.step("Install", self._uv_sync(tools))]
        steps = [self.step("Create the environment", "python3 -m venv .venv")]
        if self.tool == "pip":
            missing = [*self._pip_arguments(tools), *missing]
            if "--group" in missing:
                steps.append(self.step("Update pip", ".venv/bin/python -m pip install --upgrade 'pip>=25.1'"))
        else:
            run = {"poetry": self._poetry, "pdm": self._pdm, "pipenv": self._pipenv}[self.tool](tools)
            steps += [self.helper(self.tool), self.step("Install", run)]
        if missing:
            quoted = " ".join(shlex.quote(argument) for argument in missing)
            steps.append(self.step("Install", f".venv/bin/python -m pip install {quoted}"))
        return steps

    def activated(self, tool: str, arguments: str, pins: dict[str, str], workdir: str) -> str:
        """As `run`, from `workdir` at or below the root: tests may call the programs that were installed by name."""
        line = self.run(tool, arguments, pins)
        up = posixpath.relpath(f"/{self.root}", f"/{workdir}")
        if self.tool == "uv":
            return line if up == "." else f"{up}/{line}"
        place = ".venv" if up == "." else f"{up}/.venv"
        return f". {place}/bin/activate && {line.removeprefix('.venv/bin/')}"

    def run(self, tool: str, arguments: str, pins: dict[str, str]) -> str:
        """The command line of a tool inside the project's environment."""
        if self.tool != "uv":
            return f".venv/bin/{tool} {arguments}".rstrip()
        is_missing = tool != "python" and bool(self.missing([tool]))
        extra = f"--with {shlex.quote(tool + pins.get(tool, ''))} " if is_missing else ""
        return f"{TOOLS}/bin/uv run --no-sync {extra}{tool} {arguments}".rstrip()

    def _uv_version(self) -> str:
        required = version_text(self.declared.uv.get("required-version"))
        if required is None and self.workspace is not None:
            required = version_text(self.workspace.uv.get("required-version"))
        return "" if required is None else required if required[0] in "<>=!~" else f"=={required}"

    def _uv_sync(self, tools: Sequence[str]) -> str:
        words = ["uv", "sync", *(["--locked"] if self.lock is not None else [])]
        if self._needs_workspace(tools):
            words.append("--all-packages")
        conflicts = self.declared.uv.get("conflicts") or (self.workspace and self.workspace.uv.get("conflicts"))
        if conflicts:
            # Not all extras can be installed together.
            words += [part for name in self._chosen(self.extras, tools) for part in ("--extra", name)]
        else:
            words.append("--all-extras")
        defaults = self.declared.uv.get("default-groups", ["dev"])
        known = set(self.groups) if defaults == "all" else set(texts(defaults))
        # Who says which groups are for development has left out the others, which may be for special runs alone.
        is_said = "default-groups" in self.declared.uv
        there = [name_of(text) for name in known if is_said for text in self.groups.get(name, ())]
        for name in self._chosen(self.groups, tools, there):
            if name not in known:
                words += ["--group", name]
        return f"{TOOLS}/bin/" + " ".join(words)

    def _needs_workspace(self, tools: Sequence[str]) -> bool:
        """Whether all members have to be there: for the root's own checks, and where only the root lists the tools."""
        if self.workspace is None:
            return False
        return self.workspace.root == self.root or any(
            tool not in self.names and not self.missing([tool]) for tool in tools
        )

    def _poetry(self, tools: Sequence[str]) -> str:
        wanted = {"pytest", *tools}
        groups = [
            name
            for name, group in table(self.declared.poetry, "group").items()
            if table(group).get("optional") is True
            and (name in DEVELOPMENT or wanted & {name_of(each) for each in table(group, "dependencies")})
        ]
        extra = "".join(f" --with {shlex.quote(name)}" for name in groups)
        command = f"{TOOLS}/bin/poetry install --all-extras --no-interaction{extra}"
        return f"POETRY_VIRTUALENVS_IN_PROJECT=true {command}"

    def _pdm(self, tools: Sequence[str]) -> str:
        extra = "".join(f" -G {name}" for name in self._chosen(self.extras, tools))
        return f"{TOOLS}/bin/pdm {'sync' if self.lock is not None else 'install'}{extra}"

    def _pipenv(self, _tools: Sequence[str]) -> str:
        verb = "sync" if self.lock is not None else "install"
        return f"PIPENV_VENV_IN_PROJECT=1 {TOOLS}/bin/pipenv {verb} --dev"

    def _pip_arguments(self, tools: Sequence[str]) -> list[str]:
        prefix = "" if self.root == "." else self.root + "/"
        arguments = [part for path in self._direct for part in ("-r", path.removeprefix(prefix))]
        if self.declared.is_package:
            extras = self._chosen(self.extras, tools)
            arguments += ["-e", f".[{','.join(extras)}]" if extras else "."]
        elif self.declared.project:
            # No build system: an application whose directory layout setuptools would refuse to guess.
            listed = texts(self.declared.project.get("dependencies"))
            for name in self._chosen(self.extras, tools):
                listed += self.extras[name]
            arguments += [text for text in listed if name_of(text) is not None]
        for name in self._chosen(self.groups, tools):
            arguments += ["--group", name]
        return arguments

    def variables(self) -> dict[str, str]:
        """Environment variables that keep downloads inside the checkout."""
        found = {"CI": "true", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_CACHE_DIR": ".cache/pip"}
        return {**found, _CACHE_VARIABLES[self.tool]: f".cache/{self.tool}"}

    def cache(self, manifests: Sequence[str]) -> CacheRule:
        """The downloads, by lock file, or by all that lists dependencies (`manifests`) where there is none."""
        versions = [join(place, name) for place in (self.root, *ancestors(self.root)) for name in VERSIONS[:2]]
        inputs = (self.lock,) if self.lock is not None else (*manifests, *self._listed.files)
        paths = [join(self.root, f".cache/{name}") for name in dict.fromkeys((self.tool, "pip"))]
        if self.tool in ("uv", "pip"):
            paths = paths[:1]
        return CacheRule(name=self.tool, paths=tuple(paths), inputs=tuple(sorted({*inputs, *versions})))
