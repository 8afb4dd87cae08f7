"""Go: each module is a project; vet, build and test all its packages."""

import re
from typing import Final

from deltaci.domain.plan import Step
from deltaci.planner.discovery.project import Project, Tree, inside, job, parent

MANIFESTS: Final = ("go.mod",)
_MODULE: Final = re.compile(r"^module\s+(\S+)", re.MULTILINE)
_REPLACED_BY_PATH: Final = re.compile(r"=>[ \t]+(\.{1,2}(?:/\S*)?)")


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    return manifests


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The Go modules that have any code."""
    projects = []
    for manifest in manifests:
        root = parent(manifest)
        if not any(path.endswith(".go") for path in tree.files.below(root)):
            continue
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
                jobs=(job(("go", root), "test", steps),),
                name=module[1] if module else None,
                depends_on_roots=frozenset(path for path in replaced if path is not None and path != root),
            )
        )
    return projects
