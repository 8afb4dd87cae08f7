"""The graph of a repository's projects: who owns a file, who depends on whom, and what that touches.

Rule 1: a file belongs to the projects at the nearest root above it, of which guests are none.
Rule 2: a project depends on those that it names, on those whose root it names, and on those of its own ecosystem that
are inside it. What depends on a touched project is touched, however far away.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from deltaci.domain.plan import Reason
from deltaci.domain.project import Project
from deltaci.planner.discovery.project import parent
from deltaci.planner.errors import printable
from deltaci.planner.globs import Globs

# Distinct globs that are matched with every changed file; if there are more, each counts as matching every file.
GLOBS_MAX: Final = 500
# All settings at the root, whatever they are for: who reads these has no single file in mind.
BLANKET: Final = "/.*"


class Touch(msgspec.Struct, frozen=True):
    """Why a project is touched; `via` is the project that it depends on, None if a file touches it directly."""

    reason: Reason
    via: int | None = None


class ProjectGraph:
    """Projects by position, as discovery sorted them."""

    def __init__(self, projects: Sequence[Project]) -> None:
        self.projects = tuple(projects)
        self.by_root: dict[str, list[int]] = {}
        self._owners: dict[str, list[int]] = {}
        self._readers: dict[str, list[int]] = {}
        glob_readers: dict[str, list[int]] = {}
        self.by_lock: dict[str, list[int]] = {}
        by_name: dict[tuple[str, str], list[int]] = {}
        for index, project in enumerate(self.projects):
            self.by_root.setdefault(project.root, []).append(index)
            if not project.is_guest:
                self._owners.setdefault(project.root, []).append(index)
            if project.name is not None:
                by_name.setdefault((project.ecosystem, project.name), []).append(index)
            if project.lock is not None:
                self.by_lock.setdefault(project.lock, []).append(index)
            for path in project.reads:
                self._readers.setdefault(path, []).append(index)
            for glob in project.reads_globs:
                glob_readers.setdefault(glob, []).append(index)
        if len(glob_readers) > GLOBS_MAX:
            glob_readers = {"/**": sorted({index for readers in glob_readers.values() for index in readers})}
        self._globs = tuple((glob, Globs((glob,)), readers) for glob, readers in sorted(glob_readers.items()))
        parts = self._parts()
        self.depends_on = tuple(
            tuple(sorted(self._needed(index, project, by_name, parts))) for index, project in enumerate(self.projects)
        )
        dependents: dict[int, list[int]] = {}
        for index, needed in enumerate(self.depends_on):
            for other in needed:
                dependents.setdefault(other, []).append(index)
        self.dependents: Mapping[int, list[int]] = dependents
        self.roots = tuple(sorted(self.by_root))
        self.jobs_count = sum(len(project.jobs) for project in self.projects)

    def _needed(
        self,
        index: int,
        project: Project,
        by_name: Mapping[tuple[str, str], list[int]],
        parts: Mapping[int, list[int]],
    ) -> set[int]:
        needed = {other for root in project.depends_on_roots for other in self.by_root.get(root, ())}
        for name in project.depends_on_names:
            needed.update(by_name.get((project.ecosystem, name), ()))
        needed.update(parts.get(index, ()))
        needed.discard(index)
        return needed

    def _parts(self) -> dict[int, list[int]]:
        """For each project those of its ecosystem that are inside it, and inside none in between."""
        parts: dict[int, list[int]] = {}
        for index, project in enumerate(self.projects):
            directory, outer = project.root, tuple[int, ...]()
            while directory != "." and not outer:
                directory = parent(directory)
                outer = tuple(
                    other
                    for other in self.by_root.get(directory, ())
                    if self.projects[other].ecosystem == project.ecosystem and not self.projects[other].is_guest
                )
            for other in outer:
                parts.setdefault(other, []).append(index)
        return parts

    def owners(self, path: str) -> tuple[int, ...]:
        """The projects that a file belongs to; empty if it is below no root."""
        directory = parent(path)
        while directory not in self._owners and directory != ".":
            directory = parent(directory)
        return tuple(self._owners.get(directory, ()))

    def readers(self, path: str, *, is_meant: bool = False) -> tuple[int, ...]:
        """The projects outside whose root the file is, but that it concerns; with `is_meant`, without `BLANKET`."""
        found = set(self._readers.get(path, ()))
        directory = path
        while directory != ".":
            directory = parent(directory)
            found.update(self._readers.get(directory, ()))
        for text, glob, readers in self._globs:
            if not (is_meant and text == BLANKET) and glob.match(path) is not None:
                found.update(readers)
        return tuple(sorted(found))

    def is_claimed(self, path: str) -> bool:
        """Whether a file outside every root is known to concern nobody but its readers.

        A guest is no such reader, for others may use what it packs; nor is a project that reads all around itself.
        """
        directory = path
        while True:
            for index in self._readers.get(directory, ()):
                root = self.projects[index].root
                is_around = directory in (".", root) or root.startswith(directory + "/")
                if not self.projects[index].is_guest and not is_around:
                    return True
            if directory == ".":
                return False
            directory = parent(directory)

    def inside(self, index: int, *, any_ecosystem: bool) -> tuple[int, ...]:
        """The projects below the root of another one, of its own ecosystem or of all."""
        outer = self.projects[index]
        prefix = "" if outer.root == "." else f"{outer.root}/"
        return tuple(
            other
            for other, project in enumerate(self.projects)
            if other != index
            and project.root.startswith(prefix)
            and (any_ecosystem or project.ecosystem == outer.ecosystem)
        )

    def spread(self, touched: Mapping[int, Reason]) -> dict[int, Touch]:
        """`touched` and all that depends on it, nearest first: the chain of each is as short as can be."""
        found = {index: Touch(touched[index]) for index in sorted(touched)}
        waiting = deque(found)
        while waiting:
            index = waiting.popleft()
            project, reason = self.projects[index], found[index].reason
            for dependent in self.dependents.get(index, ()):
                if dependent not in found:
                    found[dependent] = Touch(self._because(project, reason, self.projects[dependent]), index)
                    waiting.append(dependent)
        return found

    def _because(self, project: Project, reason: Reason, dependent: Project) -> Reason:
        is_part = project.ecosystem == dependent.ecosystem and (
            dependent.root == "." or project.root.startswith(dependent.root + "/")
        )
        rule = "part-changed" if is_part else "dependency-changed"
        relation = "which is inside this project" if is_part else "which this project depends on"
        what = f"{printable(reason.file)} touches " if reason.file is not None else ""
        return Reason(rule=rule, file=reason.file, text=f"{what}{printable(project.root)}, {relation}")


def project_id(project: Project) -> str:
    """`<ecosystem>:<root>`, unique in a repository."""
    return f"{project.ecosystem}:{project.root}"
