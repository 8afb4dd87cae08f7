"""Rust: each crate or workspace is a project; build and test it, check the format where that is configured."""

from typing import Any, Final

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.project import Tree, inside, join, parent, table, texts
from deltaci.planner.globs import GlobInvalid, Globs

SOURCES: Final = frozenset({".rs"})
MANIFESTS: Final = ("Cargo.toml",)
STRUCTURE: Final = ("Cargo.toml", "Cargo.lock", "rustfmt.toml", ".rustfmt.toml")
_DEPENDENCIES: Final = ("dependencies", "dev-dependencies", "build-dependencies")


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    return manifests


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """Workspaces, and crates outside of any; a crate below a workspace is built with it unless it is excluded."""
    cargo = {parent(manifest): tree.toml(manifest) for manifest in manifests}
    workspaces = {root: content for root, content in cargo.items() if "workspace" in content}
    return [
        _project(tree, root, content)
        for root, content in sorted(cargo.items())
        if root in workspaces or not any(_contains(above, root, workspaces[above]) for above in workspaces)
    ]


def _contains(workspace: str, root: str, content: dict[str, Any]) -> bool:
    if workspace != "." and not root.startswith(workspace + "/"):
        return False
    relative = root if workspace == "." else root.removeprefix(workspace + "/")
    try:
        excluded = Globs([f"/{pattern}" for pattern in texts(table(content, "workspace").get("exclude"))])
    except GlobInvalid:
        return True
    return excluded.match(relative) is None


def _project(tree: Tree, root: str, content: dict[str, Any]) -> Project:
    locked = " --locked" if tree.has(root, "Cargo.lock") else ""
    scope = " --workspace" if "workspace" in content else ""
    steps = []
    if tree.first(root, ("rustfmt.toml", ".rustfmt.toml")) is not None:
        steps.append(Step(name="Check the format", run="cargo fmt --all --check", workdir=root))
    steps.append(Step(name="Build", run=f"cargo build --all-targets{scope}{locked}", workdir=root))
    steps.append(Step(name="Test", run=f"cargo test{scope}{locked}", workdir=root))
    inputs = tuple(join(root, name) for name in ("Cargo.lock", "Cargo.toml", "rust-toolchain.toml"))
    cache = CacheRule(name="cargo", paths=(join(root, "target"),), inputs=inputs)
    targets = [
        value["path"]
        for kind in _DEPENDENCIES
        for value in table(content, kind).values()
        if isinstance(value, dict) and isinstance(value.get("path"), str)
    ]
    roots = (inside(root, target) for target in targets)
    return Project(
        ecosystem="rust",
        root=root,
        manifest=join(root, "Cargo.toml"),
        jobs=(ProjectJob(check="test", steps=tuple(steps), env={"CI": "true"}, caches=(cache,)),),
        depends_on_roots=frozenset(path for path in roots if path is not None and path != root),
        lock=join(root, "Cargo.lock") if tree.has(root, "Cargo.lock") else None,
    )
