"""Rust: each crate is a project, tested as a part of its workspace; clippy and rustfmt where they are configured or
the repository's own CI runs them.

Rule: crates of a workspace share its lock file, its target directory and the settings above them; all commands run at
the root of the workspace, with the crate by name.
"""

import re
from typing import Any, Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery import rust_workspace
from deltaci.planner.discovery.own_ci import OwnCi
from deltaci.planner.discovery.project import MEASURES, Tree, join, table
from deltaci.planner.discovery.rust_workspace import Cargo, Crate, path_of
from deltaci.planner.discovery.workspace import ancestors, split_targets

SOURCES: Final = frozenset({".rs"})
MANIFESTS: Final = ("Cargo.toml",)
_FORMAT: Final = ("rustfmt.toml", ".rustfmt.toml")
_CLIPPY: Final = ("clippy.toml", ".clippy.toml")
_TOOLCHAIN: Final = ("rust-toolchain", "rust-toolchain.toml")
# `config.toml` and `config` are not here: that they are read is all there is to know of them.
STRUCTURE: Final = (*MANIFESTS, "Cargo.lock", *_FORMAT, *_CLIPPY, *_TOOLCHAIN)
_SETTINGS: Final = (*_FORMAT, *_CLIPPY, *_TOOLCHAIN, ".cargo/config.toml", ".cargo/config")
_EXTENDED: Final = frozenset({"pyo3", "napi", "neon", "ext-php-rs", "magnus", "rustler"})
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}", re.ASCII)
_VERSION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", re.ASCII)
_RUNS_FORMAT: Final = re.compile(r"\bcargo[ \t]+(\+nightly\S*[ \t]+)?fmt\b|\brustfmt\b.*--check|^fmt$")
_RUNS_CLIPPY: Final = re.compile(r"\bcargo[ \t]+(?:\+\S+[ \t]+)?(?:hack[ \t]+)?clippy\b|^clippy$")
_RUNS_TEST: Final = re.compile(r"\bcargo[ \t]+(?:\+\S+[ \t]+)?(?:test|nextest[ \t]+run)\b")
_LINTS_TESTS: Final = re.compile(r"--tests\b")
_FLAGS: Final = re.compile(r"\bRUSTFLAGS\b.*--cfg\b")
_STRICT: Final = re.compile(r"-D[ \t]*warnings")
# Such a command is for a machine or for features of its own.
_SPECIAL: Final = re.compile(r"--target[ =]|--no-default-features|\bwasm|\bcross\b")


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    if not manifests:
        return []
    toolchains = [path for path in tree.files.paths if path.rpartition("/")[2] in _TOOLCHAIN]
    return [*rust_workspace.wanted(tree, manifests), *toolchains]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The crates that cargo can build; the root of a virtual workspace is none."""
    if not manifests:
        return []
    cargo = Cargo(tree, manifests)
    crates = cargo.crates()
    roots = frozenset(crate.root for crate in crates)
    settings = _Settings(tree, OwnCi(tree))
    return [_project(tree, cargo, crate, roots, settings) for crate in crates]


class _Practice(msgspec.Struct, frozen=True, kw_only=True):
    """What the repository's own CI runs of cargo, and with which options."""

    formats: bool
    formats_by_nightly: bool
    clippy: bool
    clippy_options: str
    clippy_tail: str
    test_options: str


def _practice(ci: OwnCi) -> _Practice:
    formats, clippy, tests = ci.lines(_RUNS_FORMAT), ci.lines(_RUNS_CLIPPY), ci.lines(_RUNS_TEST)
    # Some features do not compile without a flag that only some of its jobs set.
    takes_flags = ci.runs(_FLAGS)
    return _Practice(
        formats=bool(formats),
        formats_by_nightly=bool(formats) and all("+nightly" in line for line in formats),
        clippy=bool(clippy),
        clippy_options=_targets(clippy) + ("" if takes_flags else _all_features(clippy)),
        clippy_tail=" -- -D warnings" if any(_STRICT.search(line) for line in clippy) else "",
        test_options="" if takes_flags else _all_features(tests),
    )


def _targets(clippy: list[str]) -> str:
    """What is linted besides the library: no more than its own CI does, for nobody has mended the rest."""
    if not clippy or any("--all-targets" in line for line in clippy):
        return " --all-targets"
    return " --tests" if any(_LINTS_TESTS.search(line) is not None for line in clippy) else ""


def _all_features(lines: list[str]) -> str:
    is_asked = any("--all-features" in line and _SPECIAL.search(line) is None for line in lines)
    return " --all-features" if is_asked else ""


class _Settings:
    """What is configured in directories, each looked at once."""

    def __init__(self, tree: Tree, ci: OwnCi) -> None:
        self._tree = tree
        self._channels: dict[str, str | None] = {}
        self.ci: Final = ci
        self.practice: Final = _practice(ci)

    def channel(self, root: str) -> str | None:
        """The toolchain that rustup takes in `root`: the nearest one above counts."""
        for place in (root, *ancestors(root)):
            if place not in self._channels:
                path = self._tree.first(place, _TOOLCHAIN)
                self._channels[place] = None if path is None else self._read(path)
            if self._channels[place] is not None:
                return self._channels[place]
        return None

    def _read(self, path: str) -> str | None:
        text = self._tree.text(path).strip()
        if path.endswith(".toml") or "[" in text:
            return _version(table(self._tree.toml(path), "toolchain").get("channel"))
        return _version(text)

    def has(self, root: str, names: tuple[str, ...]) -> bool:
        """Whether one of the files is in `root` or above."""
        return any(self._tree.first(place, names) is not None for place in (root, *ancestors(root)))


def _version(value: Any) -> str | None:
    return value if isinstance(value, str) and _VERSION.fullmatch(value) else None


def _project(tree: Tree, cargo: Cargo, crate: Crate, roots: frozenset[str], settings: _Settings) -> Project:
    base = crate.workspace or crate.root
    lock = join(base, "Cargo.lock") if tree.has(base, "Cargo.lock") else None
    projects, reads = split_targets(crate.root, cargo.paths(crate.root, crate.workspace) | cargo.patches(base), roots)
    places = {*ancestors(crate.root), *([base, *ancestors(base)] if base != crate.root else [])}
    above = [join(place, name) for place in places for name in _SETTINGS]
    return Project(
        ecosystem="rust",
        root=crate.root,
        manifest=path_of(crate.root),
        jobs=_jobs(cargo, crate, base, lock, settings),
        name=crate.name,
        tools=_tools(cargo, crate, settings),
        depends_on_roots=frozenset(projects),
        reads=frozenset({*reads, *above, *([path_of(base)] if base != crate.root else [])}),
        lock=lock,
    )


def _tools(cargo: Cargo, crate: Crate, settings: _Settings) -> dict[str, str]:
    declared = cargo.package(crate.root).get("rust-version")
    if isinstance(declared, dict) and declared.get("workspace") is True and crate.workspace is not None:
        declared = table(cargo.at(crate.workspace), "workspace", "package").get("rust-version")
    version = settings.channel(crate.workspace or crate.root) or _version(declared)
    return {} if version is None else {"rust": version}


def _has_clippy_lints(cargo: Cargo, crate: Crate) -> bool:
    shared = table(cargo.at(crate.workspace), "workspace", "lints") if crate.workspace is not None else {}
    return "clippy" in shared or "clippy" in table(cargo.at(crate.root), "lints")


def _is_extension(cargo: Cargo, crate: Crate) -> bool:
    """Whether it is built for Python or Node to load: its own tests are those of the package around it."""
    content = cargo.at(crate.root)
    kinds = table(content, "lib").get("crate-type", table(content, "lib").get("crate_type"))
    dependencies = table(content, "dependencies")
    return isinstance(kinds, list) and "cdylib" in kinds and bool(_EXTENDED.intersection(dependencies))


def _full(cargo: Cargo, crate: Crate) -> str:
    """The option for everything that is meant to go together, where a crate has it and nothing by default."""
    features = table(cargo.at(crate.root), "features")
    return " --features full" if "full" in features and not features.get("default") else ""


def _jobs(cargo: Cargo, crate: Crate, base: str, lock: str | None, settings: _Settings) -> tuple[ProjectJob, ...]:
    # Where others are built from the same place, cargo has to be told which crate is meant; a name that cargo would
    # refuse is left to it to refuse.
    package = f" -p {crate.name}" if crate.workspace is not None and _NAME.fullmatch(crate.name) else ""
    base = base if package else crate.root
    locked = " --locked" if lock is not None else ""
    lint = []
    is_apart = crate.workspace in (None, crate.root) and crate.root != "."
    if is_apart and MEASURES.intersection(crate.root.split("/")) and not settings.ci.knows(crate.root):
        return ()
    practice = settings.practice
    full = _full(cargo, crate)
    if settings.has(crate.root, _FORMAT) or practice.formats:
        toolchain = " +nightly" if practice.formats_by_nightly else ""
        lint.append(Step(name="Check the format", run=f"cargo{toolchain} fmt --check{package}", workdir=base))
    if settings.has(crate.root, _CLIPPY) or _has_clippy_lints(cargo, crate) or practice.clippy:
        features = "" if "--all-features" in practice.clippy_options else full
        run = f"cargo clippy{package}{practice.clippy_options}{features}{locked}{practice.clippy_tail}"
        lint.append(Step(name="Lint", run=run, workdir=base))
    # A library that another runtime loads has no symbols to link its tests with.
    what = "check" if _is_extension(cargo, crate) else "test"
    run = f"cargo {what}{package}{practice.test_options or full}{locked}"
    test = [Step(name=what.title(), run=run, workdir=base)]
    inputs = (lock,) if lock is not None else (path_of(base), path_of(crate.root))
    toolchains = [join(place, name) for place in (base, *ancestors(base)) for name in _TOOLCHAIN]
    jobs = []
    for check, steps in (("lint", lint), ("test", test)):
        if not steps:
            continue
        downloads = CacheRule(
            name="cargo",
            paths=(join(base, ".cache/cargo/registry"), join(base, ".cache/cargo/git")),
            inputs=tuple(dict.fromkeys((*inputs, *toolchains))),
        )
        # Not shared with other crates: what is under a key is never replaced, and the first crate may need little.
        built = CacheRule(
            name=f"cargo-{check}",
            paths=(join(crate.workspace or crate.root, "target"),),
            inputs=tuple(dict.fromkeys((*inputs, path_of(crate.root), *toolchains))),
        )
        env = {"CI": "true", "CARGO_HOME": ".cache/cargo"}
        jobs.append(ProjectJob(check=check, steps=tuple(steps), env=env, caches=(downloads, built)))
    return tuple(jobs)
