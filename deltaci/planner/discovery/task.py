"""Task, where no other module found a project: the tasks that people type.

Rule: a Taskfile that cannot be read is said to be so, with file and line, and fails no plan: it was only a fallback.
"""

from collections.abc import Iterator
from typing import Final

from deltaci.domain.plan import Reason
from deltaci.domain.project import Project
from deltaci.planner.discovery.others import Found, Roots, Runner, found, jobs_of_tasks
from deltaci.planner.discovery.project import Tree, parent
from deltaci.planner.errors import Problem
from deltaci.planner.yaml_nodes import Fields, Items, Node, Scalar, parse

SOURCES: Final[frozenset[str]] = frozenset()
# In the order that Task looks for them.
MANIFESTS: Final = (
    *("Taskfile.yml", "taskfile.yml", "Taskfile.yaml", "taskfile.yaml"),
    *("Taskfile.dist.yml", "taskfile.dist.yml", "Taskfile.dist.yaml", "taskfile.dist.yaml"),
)
STRUCTURE: Final = MANIFESTS


def wanted(_tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    return manifests


def find(tree: Tree, manifests: list[str], roots: Roots) -> Found:
    """The directories whose Taskfile is all there is to say what to run."""
    runners: list[Runner] = []
    told: list[Reason] = []
    for root in sorted({parent(path) for path in manifests}):
        manifest = tree.first(root, MANIFESTS)
        if manifest is None or (roots and roots.nearest(root) is not None):
            continue  # beside or below a project it would not count, whatever it says
        text = tree.text(manifest)
        content = parse(text.encode(), manifest) if text.strip() else Fields(fields=[], line=1, column=1)
        tasks = content.get("tasks") if isinstance(content, Fields) else None
        if isinstance(content, Problem) or not isinstance(tasks, Fields):
            why = str(content) if isinstance(content, Problem) else f"{manifest}: there is no mapping 'tasks'"
            why += "; nothing of it is run: describe the jobs in deltaci.yaml"
            told.append(Reason(rule="task-runner-unreadable", file=manifest, text=why))
            continue
        callable_tasks = {key.text: value for key, value in tasks.fields if _is_callable(value)}
        jobs = jobs_of_tasks(callable_tasks, "task", root)
        if jobs:
            project = Project(ecosystem="task", root=root, manifest=manifest, jobs=jobs)
            called = [
                callable_tasks[name] for name in ("lint", "build", "test", "check", "ci") if name in callable_tasks
            ]
            runners.append(Runner(project=project, text=text, commands="\n".join(_texts(called))))
    return found(runners, roots, told)


def _is_callable(task: Node) -> bool:
    """Whether a task may be called from outside, and without variables."""
    if not isinstance(task, Fields):
        return True
    internal = task.get("internal")
    is_internal = isinstance(internal, Scalar) and internal.text == "true"
    return not is_internal and task.get("requires") is None


def _texts(nodes: list[Node]) -> Iterator[str]:
    """All scalars below, keys left out."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        match node:
            case Scalar():
                yield node.text
            case Items():
                waiting += node.items
            case Fields():
                waiting += [value for _, value in node.fields]
