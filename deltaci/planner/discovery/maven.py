"""Maven: each module of a reactor is a project, verified from the reactor's root with what it needs built before.

Rule 1: a pom that another one declares as a module is a project wherever it is; an undeclared one is the root of a
reactor of its own, unless it is among somebody's sources (`src/it`, archetypes) or in a directory that is left out.
Rule 2: a module is touched by its parents and aggregators through what it reads, and by other modules through
coordinates. One whose dependencies cannot be told reads the whole reactor.
Rule 3: an aggregator has nothing to run: each module builds the parents that it has. If it declares modules that are
not seen here it runs them all.
"""

import os.path
import re
import shlex
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.java import VERSION_FILES, java_tools, version_files
from deltaci.planner.discovery.maven_pom import Coordinates, Pom, chain, java_release, parse_pom, resolved
from deltaci.planner.discovery.project import MANIFESTS_MAX, Tree, join, parent, relative, too_many, upward

SOURCES: Final = frozenset({".java", ".kt", ".scala", ".groovy"})
MANIFESTS: Final = ("pom.xml",)
_OTHER_POMS: Final = ("pom-*.xml", "pom_*.xml")
STRUCTURE: Final = (*MANIFESTS, *_OTHER_POMS, "mvnw", "maven-wrapper.properties", *VERSION_FILES)
_POM: Final = re.compile(r"(?:^|/)pom(?:[-_][^/]*)?\.xml$")
_WRAPPER: Final = "maven-wrapper.properties"
_WRAPPED_VERSION: Final = re.compile(r"apache-maven-(\d{1,3}(?:\.\d{1,3}){1,2}[\w.-]{0,20})-bin", re.ASCII)
_REPOSITORY: Final = ".m2/repository"
_PROFILES_MAX: Final = 8
_ABOVE_MAX: Final = 64
_VARIABLE_USES_MAX: Final = 500
_SETUPS_MAX: Final = 20
_SHARED_INPUTS_MAX: Final = 200


def wanted(tree: Tree, _manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    poms = [path for path in tree.files.paths if _POM.search(path)]
    if len(poms) > MANIFESTS_MAX:
        raise too_many(len(poms))
    return [*poms, *(path for path in tree.files.paths if path.endswith(f"/{_WRAPPER}")), *version_files(tree)]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The modules of all reactors, and poms that stand alone."""
    poms, members = _read(tree, manifests)
    reactors = _Reactors(poms, members)
    by_root: dict[str, list[Pom]] = {}
    for path in sorted(members, key=lambda path: (poms[path].root, not path.endswith("pom.xml"), path)):
        by_root.setdefault(poms[path].root, []).append(poms[path])
    builder = _Builder(tree, poms, members, reactors)
    return [builder.project(at_root) for _, at_root in sorted(by_root.items())]


def _read(tree: Tree, manifests: list[str]) -> tuple[dict[str, Pom], set[str]]:
    """All poms that matter by path, and those that are projects; the others are parents of these."""
    has_pom = {parent(path) for path in tree.files.paths if _POM.search(path)}
    members = {path for path in manifests if not _is_source(path, has_pom)}
    poms: dict[str, Pom] = {}
    expanded: set[str] = set()
    waiting = deque(sorted(members))
    while waiting:
        path = waiting.popleft()
        if path not in poms:
            poms[path] = parse_pom(tree, path)
            above = poms[path].parent_path
            if above is not None:
                waiting.append(above)
        if path in members and path not in expanded:
            expanded.add(path)
            declared = [module.path for module in poms[path].modules]
            members.update(declared)
            waiting.extend(declared)
    return poms, members


def _is_source(path: str, has_pom: set[str]) -> bool:
    """Whether a pom is among the sources of a project: an archetype, or something to test a plugin with."""
    directories = parent(path).split("/")
    places = [index for index, name in enumerate(directories) if name == "src"]
    return any(("/".join(directories[:index]) or ".") in has_pom for index in places)


class Home(msgspec.Struct, frozen=True):
    """Where a module is built: the pom of the reactor's root, the pom that declares it, the profiles it takes."""

    root: str
    declared_by: str | None
    profiles: tuple[str, ...]
    signs: bool


class _Reactors:
    """Which reactor each project is in, and where that is in the tree."""

    def __init__(self, poms: Mapping[str, Pom], members: set[str]) -> None:
        self.homes: dict[str, Home] = {}
        self.directories: dict[str, str] = {}
        declared = {module.path for path in members for module in poms[path].modules if module.path != path}
        by_depth = sorted(members, key=lambda path: (path in declared, path.count("/"), path))
        for path in by_depth:
            # What is left when all undeclared poms are done are modules that declare each other in a circle.
            if path not in self.homes:
                self._spread(path, poms)
        below: dict[str, list[str]] = {}
        for path, home in self.homes.items():
            below.setdefault(home.root, []).append(poms[path].root)
        for root, directories in below.items():
            self.directories[root] = os.path.commonpath([f"/{each}" for each in directories]).removeprefix("/") or "."

    def _spread(self, root: str, poms: Mapping[str, Pom]) -> None:
        """Give all modules of a reactor their home; those that no profile is needed for first."""
        waiting = deque([(root, Home(root, None, (), False))])
        while waiting:
            path, home = waiting.popleft()
            if path in self.homes:
                continue
            self.homes[path] = home
            defaults = {each.profile for each in poms[path].modules if each.is_default and each.profile is not None}
            for module in poms[path].modules:
                if module.is_default:
                    waiting.appendleft((module.path, msgspec.structs.replace(home, declared_by=path)))
                elif module.profile:
                    # A profile that is asked for turns off those that are active by default: ask for them as well.
                    added = [module.profile, *sorted(name for name in defaults if name)]
                    profiles = tuple(dict.fromkeys((*home.profiles, *added)))[:_PROFILES_MAX]
                    signs = home.signs or module.profile in poms[path].signs
                    waiting.append((module.path, Home(root, path, profiles, signs)))


class _Builder:
    """Puts the projects together."""

    def __init__(self, tree: Tree, poms: Mapping[str, Pom], members: set[str], reactors: _Reactors) -> None:
        self.tree = tree
        self.poms = poms
        self.homes = reactors.homes
        self.directories = reactors.directories
        self.by_coordinates: dict[Coordinates, list[str]] = {}
        self.by_artifact: dict[str, list[str]] = {}
        for path in sorted(poms):
            pom = poms[path]
            self.by_coordinates.setdefault(Coordinates(pom.group, pom.artifact), []).append(path)
            if path in members:
                self.by_artifact.setdefault(pom.artifact, []).append(path)
        self.chains = {path: chain(poms[path], poms, self.by_coordinates) for path in sorted(members)}
        self.names = {path: self._name(path) for path in sorted(members)}
        self.loose = {name.artifact: path for path, name in self.names.items() if "${" in name.group}
        used = {path: self._used_by(pom) for path, pom in poms.items()}
        self.needed = {path: self._needed(path, used) for path in sorted(members)}
        self.reactors: dict[str, list[str]] = {}
        for path in sorted(members):
            self.reactors.setdefault(self.homes[path].root, []).append(path)
        self.setups: dict[str, list[Step]] = {}
        self.launchers: dict[str, tuple[str, dict[str, str]]] = {}
        self.others: dict[str, set[str]] = {}
        for path, needed in self.needed.items():
            root = self.homes[path].root
            self.others.setdefault(root, set()).update(
                each for each in needed or () if each in self.homes and self.homes[each].root != root
            )

    def _name(self, path: str) -> Coordinates:
        """The coordinates of a project with their properties filled in, as far as they are known."""
        pom = self.poms[path]
        if "${" not in pom.group and "${" not in pom.artifact:
            return Coordinates(pom.group, pom.artifact)
        above = self.chains[path] or [pom]
        name = Coordinates(resolved(pom.group, above) or pom.group, resolved(pom.artifact, above) or pom.artifact)
        self.by_coordinates.setdefault(name, []).append(path)
        self.by_artifact.setdefault(name.artifact, []).append(path)
        return name

    def _used_by(self, pom: Pom) -> tuple[list[Coordinates], list[Coordinates]]:
        """What one pom names of this repository: in plain words, and in words that depend on who inherits them."""
        plain = [each for each in pom.uses if each.artifact in self.by_artifact and "${" not in each.group]
        computed = [
            each
            for each in pom.uses
            if "${" in each.artifact or ("${" in each.group and each.artifact in self.by_artifact)
        ]
        return sorted(plain, key=_spelled), sorted(computed, key=_spelled)

    def _needed(self, path: str, used: Mapping[str, tuple[list[Coordinates], list[Coordinates]]]) -> set[str] | None:
        """The poms of the projects that a module depends on; None if that cannot be told."""
        above = self.chains[path]
        if above is None or sum(len(used[pom.path][1]) for pom in above) > _VARIABLE_USES_MAX:
            return None
        found: set[str] = set()
        for pom in above:
            plain, computed = used[pom.path]
            for each in plain:
                found.update(self._providers(each, path))
            for each in computed:
                group, artifact = resolved(each.group, above), resolved(each.artifact, above)
                if artifact is None:
                    return None
                if group is not None:
                    found.update(self._providers(Coordinates(group, artifact), path))
                else:
                    found.update(self.by_artifact.get(artifact, ()))
        found.discard(path)
        return found

    def _providers(self, coordinates: Coordinates, path: str) -> list[str]:
        """The projects with these coordinates: those of the same reactor, or else all."""
        found = [each for each in self.by_coordinates.get(coordinates, ()) if each in self.homes]
        if coordinates.artifact in self.loose:
            found.append(self.loose[coordinates.artifact])
        near = [each for each in found if self.homes[each].root == self.homes[path].root]
        return near or found

    def project(self, at_root: list[Pom]) -> Project:
        """The project of one directory; more than one pom there is more steps."""
        first = at_root[0]
        steps: list[Step] = []
        reads: set[str] = set()
        roots: set[str] = set()
        reports: list[str] = []
        for pom in at_root:
            more_reads, more_roots = self._edges(pom)
            reads |= more_reads
            roots |= more_roots
            if not _is_aggregator(pom):
                more, reported = self._steps(pom)
                steps += [step for step in more if step not in steps]
                reports += reported
        has_tests = any(pom.packaging != "pom" or pom.has_unseen_modules for pom in at_root)
        job = ProjectJob(
            check="test" if has_tests else "build",
            steps=tuple(steps),
            env={"CI": "true"},
            caches=(CacheRule(name="maven", paths=(_REPOSITORY,), inputs=self._inputs(at_root)),),
            reports=tuple(dict.fromkeys(reports)) if has_tests else (),
        )
        above = self.chains[first.path] or [first]
        name = self.names[first.path]
        return Project(
            ecosystem="maven",
            root=first.root,
            manifest=first.path,
            jobs=(job,) if steps else (),
            name=f"{name.group}:{name.artifact}" if name.group and name.artifact else None,
            tools={
                **java_tools(self.tree, first.root, java_release(above)),
                **self._launcher(self.homes[first.path].root)[1],
            },
            depends_on_roots=frozenset(roots - {first.root}),
            reads=frozenset(path for path in reads if not _is_below(path, first.root)),
        )

    def _edges(self, pom: Pom) -> tuple[set[str], set[str]]:
        """What a module reads outside of its root, and the roots of those that it depends on.

        An aggregator depends on all that is inside it, so nobody may depend on it: it is read instead.
        """
        reads, roots = self._reads(pom), set[str]()
        needed = self.needed[pom.path]
        if needed is None:
            home = self.homes[pom.path].root
            reads.add(self.directories[home])
            needed = self.others[home]
        waiting, seen = [*needed, *(each.path for each in (self.chains[pom.path] or [])[1:])], {pom.path}
        while waiting:
            path = waiting.pop()
            if path in seen:
                continue
            seen.add(path)
            other = self.poms[path]
            if _is_aggregator(other) and path in self.needed:
                waiting += self.needed[path] or ()
            if _is_below(pom.root, other.root):
                reads.add(path)
            elif _is_aggregator(other):
                reads.add(other.root)
            else:
                roots.add(other.root)
        return reads, roots

    def _reads(self, pom: Pom) -> set[str]:
        """The poms that a module inherits from or is declared by, and how Maven itself is set up."""
        home = self.homes[pom.path]
        found = {each.path for each in (self.chains[pom.path] or [])} | {home.root}
        above = home.declared_by
        for _ in range(_ABOVE_MAX):
            if above is None:
                break
            declares = self.poms[above]
            found.add(above if _is_below(pom.root, declares.root) else declares.root)
            above = self.homes[above].declared_by
        directory = parent(home.root)
        found |= {join(directory, ".mvn"), join(directory, "mvnw")}
        return found - {pom.path}

    def _inputs(self, at_root: Iterable[Pom]) -> tuple[str, ...]:
        """What the contents of the local repository depend on: all poms of the reactor, which then share one cache.

        In a very large reactor only those that the module reads: each job looks at all of its inputs.
        """
        found: set[str] = set()
        for pom in at_root:
            home = self.homes[pom.path]
            directory, reactor = parent(home.root), self.reactors[home.root]
            shared = reactor if len(reactor) <= _SHARED_INPUTS_MAX else [pom.path]
            found |= {*shared, *(path for path in self._reads(pom) if path.endswith(".xml"))}
            found |= {join(directory, ".mvn/extensions.xml"), join(directory, f".mvn/wrapper/{_WRAPPER}")}
        return tuple(sorted(found))

    # ---- commands ------------------------------------------------------------------------------------------------

    def _steps(self, pom: Pom) -> tuple[list[Step], list[str]]:
        """How a module is verified, and where the reports of its tests are."""
        home = self.homes[pom.path]
        reactor = parent(home.root)
        maven = self._maven(home)
        if home.root not in self.setups:
            self.setups[home.root] = self._setup(home.root)
        setup = self.setups[home.root]
        if pom.has_unseen_modules or pom.path == home.root:
            at = "" if pom.path == join(reactor, "pom.xml") else f" -f {shlex.quote(relative(pom.path, reactor))}"
            step = Step(name="Verify", run=f"{maven}{at} verify", workdir=reactor)
            return [*setup, step], _reports(pom.root, is_deep=bool(pom.modules or pom.has_unseen_modules))
        target = _target(pom, reactor)
        needed = self.needed[pom.path]
        has_upstream = needed is None or any(self.homes[each].root == home.root for each in needed)
        if not has_upstream:
            step = Step(name="Verify", run=f"{maven} -pl {target} -am verify", workdir=reactor)
            return [*setup, step], _reports(pom.root)
        if self._needs_the_reactor(pom):
            step = Step(name="Verify", run=f"{maven} -pl {target} -am verify", workdir=reactor)
            return [*setup, step], _reports(reactor, is_deep=True)
        # Modules that it needs have jobs of their own, which run their tests if the change touches them.
        build = Step(name="Build what it needs", run=f"{maven} -pl {target} -am -DskipTests install", workdir=reactor)
        step = Step(name="Verify", run=f"{maven} -pl {target} verify", workdir=reactor)
        return [*setup, build, step], _reports(pom.root)

    def _needs_the_reactor(self, pom: Pom) -> bool:
        """Whether what is installed could not be resolved again: its version is known to the running build alone."""
        above = self.chains[pom.path] or [pom]
        flattens = any(each.artifact == "flatten-maven-plugin" for pom in above for each in pom.uses)
        return any(pom.has_variable_version for pom in above) and not flattens

    def _setup(self, root: str) -> list[Step]:
        """Install what modules of this reactor need from other reactors of the repository."""
        order: list[str] = []
        waiting = [(root, False)]
        seen: set[str] = set()
        while waiting and len(seen) <= _SETUPS_MAX:
            each, is_done = waiting.pop()
            if is_done:
                order.append(each)
            elif each not in seen:
                seen.add(each)
                waiting.append((each, True))
                waiting += [(other, False) for other in sorted({self.homes[m].root for m in self.others[each]})]
        needed: dict[str, set[str]] = {}
        for each in sorted(seen):
            for path in self.others[each]:
                needed.setdefault(self.homes[path].root, set()).add(path)
        steps = []
        for each in order:
            if each == root or each not in needed:
                continue
            directory = parent(each)
            targets = ",".join(sorted(_target(self.poms[path], directory) for path in needed[each] if path != each))
            only = "" if each in needed[each] or not targets else f" -pl {targets} -am"
            run = f"{self._maven(self.homes[each])}{only} -DskipTests install"
            steps.append(Step(name=f"Install {parent(each)}", run=run, workdir=directory))
        return steps

    def _maven(self, home: Home) -> str:
        """Maven with the options of every call."""
        launcher, tools = self._launcher(home.root)
        quiet = " -ntp" if _knows_ntp(tools.get("maven")) else ""
        repository = shlex.quote(relative(_REPOSITORY, parent(home.root)))
        profiles = f" -P {shlex.quote(','.join(home.profiles))}" if home.profiles else ""
        signing = " -Dgpg.skip" if home.signs else ""
        return f"{launcher} -B{quiet} -Dmaven.repo.local={repository}{profiles}{signing}"

    def _launcher(self, root: str) -> tuple[str, dict[str, str]]:
        """The wrapper nearest to the root of a reactor, or `mvn`; and the version that it asks for."""
        if root not in self.launchers:
            self.launchers[root] = self._find_launcher(parent(root))
        return self.launchers[root]

    def _find_launcher(self, directory: str) -> tuple[str, dict[str, str]]:
        for above in upward(directory):
            if self.tree.has(above, "mvnw"):
                found = _WRAPPED_VERSION.search(self.tree.text(join(above, f".mvn/wrapper/{_WRAPPER}")))
                path = relative(join(above, "mvnw"), directory)
                path = path if path.startswith("../") else f"./{path}"
                is_program = self.tree.files.is_executable(join(above, "mvnw"))
                return path if is_program else f"sh {path}", {"maven": found[1]} if found else {}
        return "mvn", {}


def _is_aggregator(pom: Pom) -> bool:
    """Whether all that there is to run are the modules that it declares."""
    return pom.packaging == "pom" and bool(pom.modules) and not pom.has_unseen_modules


def _is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or in it, however deep."""
    return directory == "." or path == directory or path.startswith(f"{directory}/")


def _spelled(coordinates: Coordinates) -> tuple[str, str]:
    return coordinates.group, coordinates.artifact


def _target(pom: Pom, reactor: str) -> str:
    """How `-pl` names a module: its directory, its pom if that is called otherwise; `,` and signs have a meaning."""
    path = relative(pom.root if pom.path == join(pom.root, "pom.xml") else pom.path, reactor)
    if "," in path or ":" in path:
        return shlex.quote(f":{pom.artifact}")
    return shlex.quote(path if path[0].isalnum() or path[0] in "._" else f"./{path}")


def _reports(root: str, *, is_deep: bool = False) -> list[str]:
    below = "**/" if is_deep else ""
    return [join(root, f"{below}target/{tool}-reports/TEST-*.xml") for tool in ("surefire", "failsafe")]


def _knows_ntp(version: str | None) -> bool:
    """Whether `--no-transfer-progress` is known: since 3.6.1. Without a wrapper, whatever is installed is newer."""
    if version is None:
        return True
    numbers = [int(part) for part in re.findall(r"\d+", version)[:3]]
    return numbers >= [3, 6, 1]
