"""What the files of one Python project say: its names, its dependencies by where they are listed, its settings.

Rule 1: nothing is executed; of a setup.py and a noxfile.py only what plain text tells is taken.
Rule 2: names of packages that may be meant count as meant: a name that no project here has changes nothing.
"""

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any, Final

import msgspec

from deltaci.planner.discovery.project import Tree, inside, join, table, texts
from deltaci.planner.discovery.workspace import directory

INCLUDES_MAX: Final = 100
_NAME: Final = re.compile(r"\s*([A-Za-z0-9][A-Za-z0-9._-]{0,199})", re.ASCII)
_SAFE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
_QUOTED_NAME: Final = re.compile(r"[\"'][ \t]{0,9}([A-Za-z0-9][A-Za-z0-9._-]{0,199})", re.ASCII)
_SETUP_NAME: Final = re.compile(r"\bname\s{0,9}=\s{0,9}[\"']([A-Za-z0-9][A-Za-z0-9._-]{0,199})[\"']", re.ASCII)
_SETUP_PYTHON: Final = re.compile(r"\bpython_requires\s{0,9}=\s{0,9}[\"']([^\"'\n]{1,100})[\"']")
_LOCAL: Final = re.compile(
    r"(?:file:)?(?://)?/{0,2}(?:\$\{PROJECT_ROOT\}/|\{root(?::[a-z]{1,9})?\}/)?(\.{1,2}(?:/[^\s#\[;]*+)?)", re.ASCII
)
_VERSION: Final = re.compile(r"[0-9A-Za-z<>=!~^*., |+-]{1,100}", re.ASCII)


def normalized(name: str) -> str:
    """A package's name as every index compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str | None:
    """The package that a requirement names, normalized; None if it names none."""
    match = _NAME.match(requirement)
    return normalized(match[1]) if match is not None else None


def is_plain(name: str) -> bool:
    """Whether a name of a group, an extra or an environment can stand in a command as it is."""
    return _SAFE.fullmatch(name) is not None


def version_text(value: Any) -> str | None:
    """A version or a specifier as it was written; None if it is neither."""
    return value.strip() if isinstance(value, str) and _VERSION.fullmatch(value.strip()) else None


def ini(text: str) -> dict[str, dict[str, str]]:
    """Sections with their options; what follows a line indented belongs to its value.

    By hand, because the standard library's parser takes time in the square of a long line.
    """
    sections: dict[str, dict[str, list[str]]] = {}
    section: dict[str, list[str]] = {}
    value: list[str] = []
    for line in text.split("\n"):
        stripped = line.strip()
        if not stripped or stripped[0] in "#;":
            continue
        if line[0] in " \t":
            value.append(stripped)
        elif stripped[0] == "[":
            section = sections.setdefault(stripped[1:].partition("]")[0].strip(), {})
            value = []
        else:
            place = min((at for at in (stripped.find("="), stripped.find(":")) if at >= 0), default=len(stripped))
            value = [stripped[place + 1 :].strip()]
            section[stripped[:place].strip().lower()] = value
    return {
        name: {key: "\n".join(lines).strip() for key, lines in options.items()} for name, options in sections.items()
    }


class Requirements(msgspec.Struct):
    """What requirement files list: packages by name, directories, and the files themselves with all they include."""

    names: set[str] = msgspec.field(default_factory=set)
    targets: set[str] = msgspec.field(default_factory=set)
    files: dict[str, None] = msgspec.field(default_factory=dict)


def requirements(tree: Tree, paths: Iterable[str]) -> Requirements:
    """Read requirement files and those that they include, at most `INCLUDES_MAX`; paths are of the repository."""
    found = Requirements()
    waiting = list(paths)[::-1]
    while waiting and len(found.files) < INCLUDES_MAX:
        path = waiting.pop()
        if path in found.files:
            continue
        found.files[path] = None
        place = directory(path)
        for line in tree.text(path).replace("\\\n", " ").split("\n"):
            line = line.strip()
            if not line or line.startswith("#"):
                continue
            option, _, rest = line.partition("=" if line.startswith("--") and "=" in line.split()[0] else " ")
            if option.startswith(("-r", "-c", "-e")) and not option.startswith("--") and len(option) > 2:
                option, rest = option[:2], option[2:]
            rest = rest.strip().partition(" #")[0].strip()
            if option in ("-r", "--requirement", "-c", "--constraint"):
                included = None if "://" in rest else inside(place, rest)
                if included is not None:
                    waiting.append(included)
            elif option in ("-e", "--editable"):
                _add(found, place, rest)
            elif not option.startswith("-"):
                _add(found, place, line)
    return found


def _add(found: Requirements, place: str, requirement: str) -> None:
    target = local_target(place, requirement)
    name = name_of(requirement)
    if target is not None:
        found.targets.add(target)
    elif name is not None:
        found.names.add(name)


def local_target(place: str, requirement: str) -> str | None:
    """The directory that a requirement written at `place` names (`../x`, `x @ file:../x`), if it does."""
    _, is_named, address = requirement.partition("@")
    match = _LOCAL.match((address if is_named else requirement).strip())
    return inside(place, match[1]) if match is not None else None


class Declared:
    """The files at one root, parsed; what is not there is empty. Raises PlanFailed on what is not TOML."""

    def __init__(self, tree: Tree, root: str) -> None:
        self.root = root
        self.pyproject = tree.toml(join(root, "pyproject.toml"))
        self.pipfile = tree.toml(join(root, "Pipfile"))
        self.setup_cfg = ini(tree.text(join(root, "setup.cfg")))
        self.tox_ini = ini(tree.text(join(root, "tox.ini")))
        self.setup_py = tree.text(join(root, "setup.py"))
        self.has_setup_py = tree.has(root, "setup.py")
        self.has_pipfile = tree.has(root, "Pipfile")
        self.project = table(self.pyproject, "project")
        self.poetry = table(self.pyproject, "tool", "poetry")
        self.uv = table(self.pyproject, "tool", "uv")

    def tool(self, name: str) -> bool:
        """Whether pyproject.toml has a table `tool.<name>`."""
        return name in table(self.pyproject, "tool")

    @property
    def is_package(self) -> bool:
        """Whether pip can install what is here."""
        is_configured = "metadata" in self.setup_cfg or "options" in self.setup_cfg
        return "build-system" in self.pyproject or self.has_setup_py or is_configured

    @property
    def is_strong(self) -> bool:
        """Whether the files say by themselves that a project is here."""
        return self.is_package or "project" in self.pyproject or self.tool("poetry") or self.has_pipfile

    def name(self) -> str | None:
        """The name of the package, normalized."""
        declared: list[Any] = [self.project.get("name"), self.poetry.get("name")]
        declared.append(self.setup_cfg.get("metadata", {}).get("name"))
        match = _SETUP_NAME.search(self.setup_py)
        declared.append(match[1] if match is not None else None)
        found = next((each for each in declared if isinstance(each, str) and _SAFE.fullmatch(each)), None)
        return None if found is None else normalized(found)

    def requires_python(self) -> str | None:
        """The versions of Python that the package says it runs on."""
        match = _SETUP_PYTHON.search(self.setup_py)
        declared = (
            self.project.get("requires-python"),
            table(self.poetry, "dependencies").get("python"),
            table(self.pipfile, "requires").get("python_version"),
            self.setup_cfg.get("options", {}).get("python_requires"),
            match[1] if match is not None else None,
        )
        return next((found for found in map(version_text, declared) if found is not None), None)

    @cached_property
    def extras(self) -> dict[str, list[str]]:
        """Requirements of each extra that pip can install by name."""
        found = {name: texts(value) for name, value in table(self.project, "optional-dependencies").items()}
        for name, value in table(self.poetry, "extras").items():
            found.setdefault(name, texts(value))
        for name, text in self.setup_cfg.get("options.extras_require", {}).items():
            found.setdefault(name, text.split("\n"))
        if "extras_require" in self.setup_py:
            for name in ("dev", "test", "tests", "testing"):
                if re.search(rf"[\"']{name}[\"']\s{{0,9}}:", self.setup_py):
                    found.setdefault(name, [])
        return {name: value for name, value in found.items() if is_plain(name)}

    @cached_property
    def groups(self) -> dict[str, list[str]]:
        """Requirements of each dependency group, those of the groups that it includes among them."""
        declared = {normalized(name): value for name, value in table(self.pyproject, "dependency-groups").items()}
        named = {normalized(name): name for name in table(self.pyproject, "dependency-groups") if is_plain(name)}
        return {name: _group(key, declared) for key, name in named.items()}

    def poetry_groups(self) -> dict[str, dict[str, Any]]:
        """The dependency tables of poetry's groups by name, `main` among them."""
        found = {"main": table(self.poetry, "dependencies"), "dev": dict(table(self.poetry, "dev-dependencies"))}
        for name, group in table(self.poetry, "group").items():
            found[name] = {**found.get(name, {}), **table(group, "dependencies")}
        return found

    @cached_property
    def listed(self) -> list[str]:
        """Every requirement in the form of PEP 508 that an installer takes from pyproject.toml and setup.cfg."""
        found = [*texts(self.project.get("dependencies")), *texts(self.uv.get("dev-dependencies"))]
        for each in (*self.extras.values(), *self.groups.values()):
            found += each
        for value in table(self.pyproject, "tool", "pdm", "dev-dependencies").values():
            found += texts(value)
        for key in ("install_requires", "setup_requires", "tests_require"):
            found += self.setup_cfg.get("options", {}).get(key, "").split("\n")
        return [text.removeprefix("-e ") for text in found]

    @cached_property
    def listed_names(self) -> frozenset[str]:
        """The packages that an installer takes, normalized."""
        found = {name_of(text) for text in self.listed}
        found |= {name_of(name) for each in self.tables() for name in each}
        return frozenset(name for name in found if name is not None)

    def other_texts(self) -> list[str]:
        """Requirements of what only the build, or hatch, installs."""
        found = texts(table(self.pyproject, "build-system").get("requires"))
        for env in table(self.pyproject, "tool", "hatch", "envs").values():
            found += [*texts(table(env).get("dependencies")), *texts(table(env).get("extra-dependencies"))]
        return found

    def setup_names(self) -> set[str]:
        """Whatever a setup.py has between quotes and may name a package."""
        return {normalized(match[1]) for match in _QUOTED_NAME.finditer(self.setup_py)}

    def tables(self) -> list[dict[str, Any]]:
        """Dependencies in the form of tables: name to version or to a table with `path`."""
        sources = table(self.uv, "sources")
        return [
            *self.poetry_groups().values(),
            {name: value for name, value in sources.items() if isinstance(value, dict)},
            *({name: each} for name, value in sources.items() if isinstance(value, list) for each in value),
            table(self.pipfile, "packages"),
            table(self.pipfile, "dev-packages"),
        ]

    def dependency_names(self) -> set[str]:
        """All packages that the project may need, whether here or not."""
        found = {name for name in map(name_of, self.other_texts()) if name is not None}
        return found | self.setup_names() | self.listed_names

    def dependency_targets(self) -> set[str]:
        """The directories of the repository that the project depends on."""
        found = {local_target(self.root, text) for text in (*self.listed, *self.other_texts())}
        for each in self.tables():
            for value in each.values():
                path = value.get("path", value.get("file")) if isinstance(value, dict) else None
                if isinstance(path, str):
                    found.add(inside(self.root, path))
        return {target for target in found if target is not None}

    def native_root(self) -> str | None:
        """The directory of the crate that maturin builds into the package, if it is told where that is."""
        path = table(self.pyproject, "tool", "maturin").get("manifest-path")
        crate = inside(self.root, path) if isinstance(path, str) else None
        return None if crate is None else directory(crate)


def _group(key: str, declared: dict[str, Any]) -> list[str]:
    """The requirements of a group; a cycle of includes ends where it closes."""
    found: list[str] = []
    seen: set[str] = set()
    waiting = [key]
    while waiting and len(seen) < INCLUDES_MAX:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        value = declared.get(name)
        for item in value if isinstance(value, list) else []:
            if isinstance(item, str):
                found.append(item)
            elif isinstance(item, dict) and isinstance(item.get("include-group"), str):
                waiting.append(normalized(item["include-group"]))
    return found
