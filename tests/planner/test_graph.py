"""What a difference touches, against the rules in prose, followed to the letter by a slow model of its own.

A project is touched by a changed file if
- the file is its lock, and what it resolves to changed or cannot be told;
- the file is no project's lock, and the project is at the nearest root above it;
- the file is one that it reads, or is below a directory that it reads;
- the file is no project's lock, and nothing of that is so for any project;
- the file is no project's lock, the nearest root above it is that of the repository, and it is either at the root
  without being a manifest or a source of a project there, or in a directory with a dot in front.
A file that only another CI system or a forge looks for is no uncertainty: unless it is the lock of a project, or the
nearest root above it is another one than that of the repository, it touches those that read it, and no other.
It is touched by another project if that one is touched and it names it (in its ecosystem), names its root, or has it
inside as the next one of its ecosystem. Documentation touches nothing. Nothing else is touched.
"""

import random
from collections.abc import Callable
from typing import Final, NamedTuple

import pytest

from deltaci.domain.project import Project, ProjectJob
from deltaci.planner.discovery.discover import SOURCES
from deltaci.planner.graph import ProjectGraph, Touch
from deltaci.planner.impact import Difference, _touched_by, is_documentation, of_projects
from deltaci.planner.other_ci import is_of_other_ci

ECOSYSTEMS = ("go", "node", "python", "rust")
DIRECTORIES = (".", "a", "a/b", "a/b/c", "a/d", "a0", "ab", "e", "e/f", ".hidden", "docs")
MANIFESTS = {"go": "go.mod", "node": "package.json", "python": "setup.py", "rust": "Cargo.toml"}
FILES = (
    "x.py",
    "x.ts",
    "x.rs",
    "x.go",
    "Makefile",
    "go.mod",
    "package.json",
    "setup.py",
    "README.md",
    "go.sum",
    "p.png",
)
OF_OTHER_CI = (".github/workflows/ci.yml", ".github/x.sh", ".travis.yml", ".hidden/workflows/ci.yml")
LOCKS = (None, b"m v1 h1:a\n", b"m v1 h1:b\n", b"m v1 h1:a\n\n", b"broken\n")


class Case(NamedTuple):
    projects: tuple[Project, ...]
    paths: tuple[str, ...]
    locks: tuple[tuple[str, tuple[bytes | None, bytes | None]], ...]

    def touched(self) -> dict[int, Touch]:
        difference = Difference(paths=self.paths, locks=dict(self.locks))
        return of_projects(ProjectGraph(self.projects), difference)[0]


def joined(directory: str, name: str) -> str:
    return name if directory == "." else f"{directory}/{name}"


def drawn(random_: random.Random) -> Case:
    """A random repository and difference, small enough that everything meets everything."""
    names = "mnop"
    directories = [*DIRECTORIES, ".github"] if random_.random() < 0.2 else DIRECTORIES
    projects = {}
    for _ in range(random_.randint(1, 9)):
        ecosystem, root = random_.choice(ECOSYSTEMS), random_.choice(directories)
        projects[ecosystem, root] = Project(
            ecosystem=ecosystem,
            root=root,
            manifest=joined(root, MANIFESTS[ecosystem]),
            name=random_.choice([None, *names]),
            depends_on_names=frozenset(random_.sample(names, random_.choice([0, 0, 1, 2]))),
            depends_on_roots=frozenset(random_.sample(DIRECTORIES, random_.choice([0, 0, 0, 1]))),
            reads=frozenset(
                joined(random_.choice(DIRECTORIES), name)
                for name in random_.sample([*FILES, "b", "."], random_.choice([0, 0, 0, 1, 2]))
            )
            | frozenset(random_.sample([".github", *OF_OTHER_CI], random_.choice([0, 0, 0, 0, 1]))),
            lock=random_.choice([None, joined(random_.choice(DIRECTORIES), "go.sum")]),
            jobs=random_.choice([(), JOBS, JOBS]),
            is_guest=random_.random() < 0.15,
        )
    paths = {joined(random_.choice([*DIRECTORIES, "zz"]), random_.choice(FILES)) for _ in range(random_.randint(1, 3))}
    if random_.random() < 0.2:
        paths = {random_.choice(OF_OTHER_CI), *random_.sample(sorted(paths), random_.choice([0, 0, len(paths)]))}
    locks = {
        path: (random_.choice(LOCKS), random_.choice(LOCKS))
        for path in sorted(paths)
        if path.endswith("go.sum") and random_.random() < 0.8
    }
    return Case(tuple(projects[key] for key in sorted(projects)), tuple(sorted(paths)), tuple(locks.items()))


JOBS: Final = (ProjectJob(check="test", steps=()),)


# ---- the model ------------------------------------------------------------------------------------------------------


def is_inside(root: str, other: str) -> bool:
    return other != root and (root == "." or other.startswith(root + "/"))


def depends_on(projects: tuple[Project, ...], one: Project, other: Project) -> bool:
    if one is other:
        return False
    if other.root in one.depends_on_roots:
        return True
    if one.ecosystem != other.ecosystem:
        return False
    if other.name is not None and other.name in one.depends_on_names:
        return True
    if one.is_guest:
        return False
    return is_inside(one.root, other.root) and not any(
        each.ecosystem == one.ecosystem
        and not each.is_guest
        and is_inside(one.root, each.root)
        and is_inside(each.root, other.root)
        for each in projects
    )


def is_read(project: Project, path: str) -> bool:
    return any(read in (".", path) or path.startswith(read + "/") for read in project.reads)


def is_shared(projects: tuple[Project, ...], path: str) -> bool:
    """Whether a file below the root, that is below no other, concerns the repository as a whole."""
    if "/" in path:
        return path[0] == "."
    suffix = "." + path.split(".")[-1] if "." in path[1:] else ""
    mine = [each for each in projects if each.root == "." and not each.is_guest]
    return not any(path == each.manifest or suffix in SOURCES[each.ecosystem] for each in mine)


def directly(case: Case, path: str) -> set[int]:
    projects = case.projects
    everywhere = set(range(len(projects)))
    readers = {index for index in everywhere if is_read(projects[index], path)}
    users = {index for index in everywhere if projects[index].lock == path}
    if users:
        before, after = dict(case.locks).get(path, (None, None))
        is_told = before not in (None, b"broken\n") and after not in (None, b"broken\n")
        is_same = is_told and before is not None and after is not None and before.strip() == after.strip()
        return readers if is_same else readers | users
    above = [each.root for each in projects if is_inside(each.root, path) and not each.is_guest]
    nearest = max(above, key=lambda root: 0 if root == "." else len(root), default=None)
    owners = {index for index in everywhere if projects[index].root == nearest and not projects[index].is_guest}
    if is_of_other_ci(path) and nearest in (None, "."):
        return readers
    if not owners and not any(is_claim(projects[index], path) for index in readers):
        return everywhere
    if nearest == "." and is_shared(projects, path):
        return everywhere
    return owners | readers | beside(projects, owners, readers) | orphans(projects, path)


def is_claim(project: Project, path: str) -> bool:
    """Whether the project reads the file, and not merely all around itself; an image is no such reader."""
    around = {".", project.root, *(parent for parent in parents(project.root))}
    return not project.is_guest and any(
        read not in around and (read == path or path.startswith(read + "/")) for read in project.reads
    )


def parents(root: str) -> list[str]:
    parts = root.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def beside(projects: tuple[Project, ...], owners: set[int], readers: set[int]) -> set[int]:
    """What is inside of owners that run nothing themselves, if nobody is known to read the file."""
    if any(not projects[index].is_guest for index in readers):
        return set()
    idle = {index for index in owners if not projects[index].jobs}
    return {
        index
        for index, each in enumerate(projects)
        for outer in idle
        if index != outer
        and (projects[outer].root == "." or each.root.startswith(projects[outer].root + "/"))
        and (idle == owners or each.ecosystem == projects[outer].ecosystem)
    }


def orphans(projects: tuple[Project, ...], path: str) -> set[int]:
    """Those that may have depended on a project that is gone."""
    root, _, name = path.rpartition("/")
    nodes = {index for index, each in enumerate(projects) if each.ecosystem == "node"}
    if name != "package.json" or path.startswith(".") or any(projects[index].root == (root or ".") for index in nodes):
        return set()
    return nodes


def steps_of(case: Case) -> dict[int, int]:
    """Each touched project with the fewest steps to a file, by repeating the rule until nothing changes."""
    relevant = [path for path in case.paths if not is_documentation(path)]
    steps = {index: 0 for path in relevant for index in directly(case, path)}
    while True:
        more = {}
        for index, one in enumerate(case.projects):
            below = [steps[other] + 1 for other in steps if depends_on(case.projects, one, case.projects[other])]
            if below and min(below) < steps.get(index, 1_000):
                more[index] = min(below)
        if not more:
            return steps
        steps.update(more)


# ---- checks ---------------------------------------------------------------------------------------------------------


def differs(case: Case) -> str | None:
    """What is wrong with the answer, or None."""
    touched = case.touched()
    steps = steps_of(case)
    if set(touched) != set(steps):
        return f"touched {sorted(touched)}, and by the rules it is {sorted(steps)}"
    for index, touch in touched.items():
        length, at = 0, index
        while touched[at].via is not None:
            below = touched[at].via
            assert below is not None
            if not depends_on(case.projects, case.projects[at], case.projects[below]):
                return f"{at} is touched through {below}, which it does not depend on"
            length, at = length + 1, below
            if length > len(touched):
                return f"the chain of {index} is a circle"
        file = touched[at].reason.file
        if file != touch.reason.file or file not in case.paths or at not in directly(case, file):
            return f"the chain of {index} ends at {at} with {file}, which does not touch it"
        if length != steps[index]:
            return f"the chain of {index} has {length} steps, and {steps[index]} are enough"
    return None


def shrunken(case: Case, is_wrong: Callable[[Case], bool]) -> Case:
    """A part of the case that is wrong still, from which nothing more can be taken."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for field in ("projects", "paths", "locks"):
            for index in range(len(getattr(case, field))):
                values = getattr(case, field)
                part = case._replace(**{field: values[:index] + values[index + 1 :]})
                if part.paths and is_wrong(part):
                    case, is_smaller = part, True
                    break
    return case


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
def test_what_is_touched_is_what_the_rules_say_in_the_fewest_steps(seed: int) -> None:
    """Five hundred random repositories a seed; the smallest counterexample is shown."""
    random_ = random.Random(seed)
    for _ in range(500):
        case = drawn(random_)
        if differs(case) is not None:
            small = shrunken(case, lambda each: differs(each) is not None)
            pytest.fail(f"{differs(small)}\n" + "\n".join(map(repr, (*small.projects, small.paths, small.locks))))


def test_the_random_repositories_meet_every_rule() -> None:
    """A model that is never asked for a rule proves nothing of it."""
    random_ = random.Random(1)
    seen = {touch.reason.rule for _ in range(200) for touch in drawn(random_).touched().values()}

    assert seen == {
        "project-changed",
        "shared-file",
        "lock-changed",
        "dependency-changed",
        "part-changed",
        "project-gone",
    }


def forgets_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProjectGraph, "_parts", lambda self: {})


def forgets_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProjectGraph, "readers", lambda self, path, **_: ())


def goes_deep_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the last that waits instead of the first: all are found, by longer chains."""
    monkeypatch.setattr("deltaci.planner.graph.deque", LastFirst)


def forgets_other_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltaci.planner.impact.is_of_other_ci", lambda path: False)


def takes_locks_for_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deltaci.planner.impact.touched_by_lock", lambda path, graph, _: _touched_by(path, graph))


class LastFirst(list[int]):
    def popleft(self) -> int:
        return self.pop()


@pytest.mark.parametrize(
    ("plant", "projects_max"),
    [(forgets_parts, 2), (forgets_readers, 2), (goes_deep_first, 5), (takes_locks_for_files, 2), (forgets_other_ci, 1)],
)
def test_a_planted_error_is_found_and_shrunken(
    plant: Callable[[pytest.MonkeyPatch], None], projects_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check itself: what it is to find, it finds, and shows with no more projects than it takes."""
    plant(monkeypatch)
    random_ = random.Random(2)
    cases = (drawn(random_) for _ in range(2_000))

    small = shrunken(next(case for case in cases if differs(case)), lambda case: differs(case) is not None)

    assert len(small.projects) <= projects_max
    assert len(small.paths) <= 2


@pytest.mark.parametrize("paths", [None, ()])
def test_without_a_difference_everything_is_touched(paths: tuple[str, ...] | None) -> None:
    """An unknown base and an empty difference: nobody can be left out."""
    case = drawn(random.Random(3))

    touched, _ = of_projects(ProjectGraph(case.projects), Difference(paths=paths))

    assert set(touched) == set(range(len(case.projects)))


def test_documentation_alone_touches_nothing() -> None:
    """Whatever depends on whom."""
    for seed in range(50):
        projects = drawn(random.Random(seed)).projects

        touched, skip = of_projects(ProjectGraph(projects), Difference(paths=("README.md", "docs/p.png")))

        assert (touched, skip.rule) == ({}, "documentation-only")
