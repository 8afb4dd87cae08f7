"""Synthetic workspaces in git, and what our planner says that a change of them touches.

Rule: files are a dictionary; what the real tools see on the disk is what ours sees in memory.
"""

import json
import random
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from deltaci.planner.discovery.discover import discover, structure, wanted
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.impact import Difference, of_projects
from deltaci.planner.repository import Files
from tests.planner.memory_view import MemoryView

TURBO: Final = {
    "turbo.json": '{"globalDependencies": ["config/*.json"], "tasks": {"build": {"dependsOn": ["^build"]}}}'
}
NX: Final = {
    "nx.json": json.dumps(
        {
            "namedInputs": {
                "sharedGlobals": ["{workspaceRoot}/config/*.json"],
                "default": ["{projectRoot}/**/*", "sharedGlobals"],
            },
            "targetDefaults": {"build": {"inputs": ["default", "^default"]}},
        }
    )
}
_ROOT: Final = {
    "name": "root",
    "private": True,
    "packageManager": "npm@10.8.0",
    "workspaces": ["packages/*"],
    "devDependencies": {},
}


def package(name: str, **content: Any) -> str:
    """A manifest with something to build."""
    return json.dumps({"name": name, "version": "1.0.0", "scripts": {"build": "true", "test": "true"}, **content})


def workspace(manifests: Mapping[str, str], tool: Mapping[str, str], **root: Any) -> dict[str, str]:
    """Packages by directory below `packages/`, each with one source, and the files around them."""
    files = {
        "package.json": json.dumps({**_ROOT, **root}),
        "config/shared.json": "{}",
        "tools/release.js": "",
        "index.js": "",
        "README.md": "",
        **tool,
    }
    for name, manifest in manifests.items():
        files[f"packages/{name}/package.json"] = manifest
        files[f"packages/{name}/index.js"] = ""
        files[f"packages/{name}/README.md"] = ""
    return files | {"package-lock.json": lock(files)}


def lock(files: Mapping[str, str]) -> str:
    """A lock file in which nothing comes from elsewhere."""
    packages: dict[str, Any] = {"": json.loads(files["package.json"])}
    for path, text in files.items():
        if path.startswith("packages/") and path.endswith("/package.json"):
            root, manifest = path.rpartition("/")[0], json.loads(text)
            packages[root] = manifest
            packages[f"node_modules/{manifest['name']}"] = {"resolved": root, "link": True}
    return json.dumps({"name": "root", "lockfileVersion": 3, "requires": True, "packages": packages})


def random_workspace(seed: int, tool: Mapping[str, str], *, count: int = 30) -> dict[str, str]:
    """`count` packages, each depending on up to four earlier ones, in all kinds but peers, with ranges that fit."""
    chance = random.Random(seed)
    manifests = {}
    for index in range(count):
        content: dict[str, dict[str, str]] = {}
        for other in chance.sample(range(index), k=min(index, chance.choice((0, 1, 1, 2, 4)))):
            kind = chance.choice(("dependencies", "devDependencies", "optionalDependencies"))
            content.setdefault(kind, {})[f"@x/p{other}"] = chance.choice(("*", "^1.0.0", "1.x", ">=0.5", "1.0.0"))
        manifests[f"p{index}"] = package(f"@x/p{index}", **content)
    return workspace(manifests, tool)


class Repository:
    """A workspace on the disk with one commit; `change` makes a second one, `back` takes it away again."""

    def __init__(self, tmp_path: Path, files: Mapping[str, str]) -> None:
        self.path: Final = tmp_path / "repository"
        self.path.mkdir()
        self._base = dict(files)
        self._git("init", "--quiet", ".")
        (self.path / ".git/info/exclude").write_text("node_modules\n.turbo\n.nx\n")
        self._write({}, files)
        self._commit()

    def change(self, edits: Mapping[str, str | None]) -> set[str]:
        """Commit `edits` (None deletes a file) and answer the roots of the projects that ours calls touched."""
        after = {path: text for path, text in {**self._base, **edits}.items() if text is not None}
        self._write(self._base, after)
        self._commit()
        return touched(after, edits)

    def back(self) -> None:
        self._git("reset", "--quiet", "--hard", "HEAD~1")

    def _write(self, before: Mapping[str, str], after: Mapping[str, str]) -> None:
        for path in before.keys() - after.keys():
            (self.path / path).unlink()
        for path, text in after.items():
            if before.get(path) != text:
                (self.path / path).parent.mkdir(parents=True, exist_ok=True)
                (self.path / path).write_text(text)

    def _commit(self) -> None:
        self._git("add", "--all")
        self._git("-c", "user.name=a", "-c", "user.email=a@localhost", "commit", "--quiet", "--message", "change")

    def _git(self, *words: str) -> None:
        subprocess.run(["git", *words], cwd=self.path, check=True, capture_output=True)


def touched(files: Mapping[str, str], paths: Iterable[str]) -> set[str]:
    """The roots of the projects that our planner calls touched by a change of `paths`."""
    seen = structure(Files(MemoryView(files).entries()))
    contents = {path: files[path].encode() for path in wanted(seen)}
    graph = ProjectGraph(discover(seen, contents).projects)
    answer, _ = of_projects(graph, Difference(paths=tuple(sorted(paths))))
    return {graph.projects[index].root for index in answer}


def members(names: Iterable[str], *, scope: str = "") -> set[str]:
    """The roots of packages by name."""
    return {f"packages/{name.removeprefix(scope)}" for name in names}
