"""Go: each module is a project; vet, build and test all its packages."""

import re
from typing import Final

from deltaci.domain.plan import Step
from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery.project import Tree, inside, join, parent

SOURCES: Final = frozenset({".go", ".mod", ".sum"})
MANIFESTS: Final = ("go.mod",)
STRUCTURE: Final = ("go.mod", "go.sum")
_MODULE: Final = re.compile(r"^module\s+(\S+)", re.MULTILINE)
_REPLACED_BY_PATH: Final = re.compile(r"=>[ \t]+(\.{1,2}(?:/\S*)?)")


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    return manifests


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The Go modules."""
    projects = []
    for manifest in manifests:
        root = parent(manifest)
        text = tree.text(manifest)
        module = _MODULE.search(text)
        steps = [
            Step(name="Vet", run="go vet ./...", workdir=root),
            Step(name="Build", run="go build ./...", workdir=root),
            Step(name="Test", run="go test ./...", workdir=root),
        ]
        replaced = (inside(root, match[1]) for match in _REPLACED_BY_PATH.finditer(text))
        projects.append(
            Project(
                ecosystem="go",
                root=root,
                manifest=manifest,
                jobs=(ProjectJob(check="test", steps=tuple(steps), env={"CI": "true"}),),
                name=module[1] if module else None,
                depends_on_roots=frozenset(path for path in replaced if path is not None and path != root),
                lock=join(root, "go.sum") if tree.has(root, "go.sum") else None,
            )
        )
    return projects
