""".NET: each directory with project files is a project; `dotnet test` for tests, `dotnet build` for the rest.

Rule 1: `test` and `tests` hold the tests of a repository here, so they are not left out; and what a solution lists or a
project refers to is a project wherever it is.
Rule 2: what MSBuild imports from above (`Directory.Build.props` and its kind) is read, and so is every file outside of
the project that it includes. A reference that cannot be told makes the project read the whole repository.
Rule 3: project files are named in every command: a directory may have more than one, or a solution beside it.
"""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.project import (
    MANIFEST_BYTES_MAX,
    MANIFESTS_MAX,
    Tree,
    inside,
    is_left_out,
    join,
    parent,
    relative,
    table,
    too_many,
    upward,
)
from deltaci.planner.discovery.xml_document import parse_xml, unfit
from deltaci.planner.errors import PlanFailed

SOURCES: Final = frozenset({".cs", ".fs", ".fsi", ".vb", ".razor", ".cshtml", ".csproj", ".fsproj", ".vbproj"})
MANIFESTS: Final = ("*.csproj", "*.fsproj", "*.vbproj")
_SOLUTIONS: Final = ("*.sln", "*.slnx")
# MSBuild and NuGet look for these in every directory above a project.
_ABOVE: Final = (
    *("Directory.Build.props", "Directory.Build.targets", "Directory.Build.rsp", "Directory.Packages.props"),
    *("global.json", "nuget.config", "NuGet.Config", "NuGet.config", ".editorconfig", ".globalconfig"),
)
STRUCTURE: Final = (*MANIFESTS, *_SOLUTIONS, *_ABOVE, "*.props", "*.targets", "packages.lock.json", "packages.config")
_PROJECT: Final = re.compile(r"\.(?:cs|fs|vb)proj$")
_SOLUTION: Final = re.compile(r"\.slnx?$")
_READ: Final = re.compile(r"(?:\.(?:cs|fs|vb)proj|\.slnx?|\.props|\.targets|(?:^|/)global\.json)$")
_IN_SOLUTION: Final = re.compile(
    r'^Project\("[^"\n]{0,60}"\)[ \t]{0,4}=[ \t]{0,4}"[^"\n]{0,300}"[ \t]{0,4},[ \t]{0,4}"([^"\n]{1,500})"', re.M
)
_TESTS: Final = frozenset({"test", "tests", "e2e"})
_TEST_NAME: Final = re.compile(
    r"(?:^|[._-]|[a-z0-9])(?:Tests?|UnitTests?|IntegrationTests?|Specs?)$|[._-](?:tests?|specs?)$"
)
_TEST_SDKS: Final = ("microsoft.net.test.sdk", "xunit.v3", "tunit", "mstest", "microsoft.testing.extensions")
_OUTDATED: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?<VisualStudioProject\b")
_MEASURED: Final = "benchmarkdotnet"
_MEASURING_NAME: Final = re.compile(r"bench|perf", re.IGNORECASE)
_JUNIT: Final = frozenset({"junitxml.testlogger", "junittestlogger"})
_HERE: Final = re.compile(r"\$\((?:MSBuildThisFileDirectory|MSBuildProjectDirectory)\)[\\/]?", re.I)
# Properties that name places for what is generated: sources there are nobody's.
_ELSEWHERE: Final = re.compile(
    r"\$\((?!MSBuild(?:ThisFile|Project)Directory\))"
    r"(?!\w{0,60}(?:Intermediate|Output|Artifacts|Generated|NuGet|Pkg))[^()]{1,200}\)",
    re.I,
)
_PROPERTY: Final = re.compile(r"^(?:\$\([^()]{1,200}\)[\\/]?)+")
_FRAMEWORK: Final = re.compile(r"[\w.;-]{1,200}", re.ASCII)
_VERSION: Final = re.compile(r"[\w.+-]{1,60}", re.ASCII)
_COMMENT: Final = re.compile(r'("(?:[^"\\\n]|\\.)*+")|//[^\n]*|/\*(?:[^*]|\*(?!/))*+\*/', re.DOTALL)
_IMPORTS_MAX: Final = 32
_SHARED_INPUTS_MAX: Final = 200


class File(msgspec.Struct, frozen=True, kw_only=True):
    """A project file, or one that projects import.

    Args:
        references: what `ProjectReference` includes, as written with slashes.
        outside: what other items include from elsewhere, and what is imported.
        packages: names of referenced packages, lower case.
        compiles_computed: sources from a directory that a property names.
        is_test: what `IsTestProject` says; None if nothing.
        is_modern: it names an SDK, so the command line tools can build it.
    """

    path: str
    references: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    imports: tuple[str, ...] = ()
    packages: frozenset[str] = frozenset()
    is_test: bool | None = None
    is_modern: bool = True
    framework: str | None = None
    compiles_computed: bool = False


def wanted(tree: Tree, _manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    paths = [path for path in tree.files.paths if _READ.search(path)]
    if len(paths) > MANIFESTS_MAX:
        raise too_many(len(paths))
    return paths


def find(tree: Tree, _manifests: list[str]) -> list[Project]:
    """The projects, with those that only a solution or another project tells of."""
    candidates = [path for path in tree.files.paths if _PROJECT.search(path) and tree.files.is_file(path)]
    if not candidates:
        return []
    return _Builder(tree, candidates).projects()


def _read(tree: Tree, path: str, *, is_imported: bool = False) -> File:
    """One file. Raises PlanFailed if a project file is none; an imported file that is none imports nothing."""
    if tree.files.size(path) > MANIFEST_BYTES_MAX:
        if is_imported:
            return File(path=path)
        raise unfit(path, 1, f"a project file has at most {MANIFEST_BYTES_MAX} bytes")
    document = parse_xml(tree.data(path), path)
    if document.tag != "Project":
        raise unfit(path, document.line, f"a project file has one <Project>, this has <{document.tag[:50]}>")
    references: dict[str, None] = {}
    outside: dict[str, None] = {}
    imports: dict[str, None] = {}
    packages: set[str] = set()
    sdks = [document.attributes.get("Sdk", "")]
    values: dict[str, str] = {}
    is_computed = False
    for element in document.walk():
        included = [part.strip().replace("\\", "/") for part in element.attributes.get("Include", "").split(";")]
        if element.tag == "ProjectReference":
            references.update(dict.fromkeys(part for part in included if part))
        elif element.tag in ("PackageReference", "GlobalPackageReference"):
            packages.update(part.lower() for part in included if part)
        elif element.tag == "Import":
            sdks.append(element.attributes.get("Sdk", ""))
            imports[element.attributes.get("Project", "").replace("\\", "/")] = None
        elif element.tag == "Sdk":
            sdks.append(element.attributes.get("Name", ""))
        elif element.tag in ("IsTestProject", "TargetFramework", "TargetFrameworks"):
            values.setdefault(element.tag, element.text)
        else:
            is_computed |= element.tag == "Compile" and any(_ELSEWHERE.match(part) for part in included)
            outside.update(dict.fromkeys(part for part in included if part.startswith(("../", "$("))))
    packages.update(sdk.partition("/")[0].lower() for sdk in sdks if sdk.lower().startswith("mstest.sdk"))
    framework = values.get("TargetFramework") or values.get("TargetFrameworks") or ""
    return File(
        path=path,
        references=tuple(references),
        outside=tuple(outside),
        imports=tuple(each for each in imports if each),
        packages=frozenset(packages),
        is_test={"true": True, "false": False}.get(values.get("IsTestProject", "").lower()),
        is_modern=any(sdks) or bool(framework),
        compiles_computed=is_computed,
        framework=framework if _FRAMEWORK.fullmatch(framework) else None,
    )


class _Builder:
    """Puts the projects together."""

    def __init__(self, tree: Tree, candidates: list[str]) -> None:
        self.tree = tree
        self.candidates = candidates
        self.by_lower: dict[str, str] = {path.lower(): path for path in reversed(candidates)}
        self.by_name: dict[str, list[str]] = {}
        for path in candidates:
            self.by_name.setdefault(path.rpartition("/")[2].lower(), []).append(path)
        self._imported: dict[str, File] = {}
        self._shared: dict[str, list[File]] = {}
        self._above: dict[str, tuple[str, ...]] = {}
        self._sdk: dict[str, tuple[dict[str, str], bool]] = {}
        self.solution_directories = {
            parent(path) for path in tree.files.paths if _SOLUTION.search(path) and not self._is_left_out(path)
        }
        self.files: dict[str, File] = {}
        self.needed: dict[str, tuple[frozenset[str], bool]] = {}
        self._take()
        self.unlocked = self._unlocked()

    def _is_left_out(self, path: str) -> bool:
        return is_left_out(path, but_for=_TESTS) or {"bin", "obj"} & set(path.split("/")[:-1]) != set()

    def _take(self) -> None:
        """Read the projects, and those that they refer to."""
        listed = set(self._in_solutions())
        waiting = [*(path for path in self.candidates if not self._is_left_out(path)), *sorted(listed)]
        if all(is_left_out(path) for path in (*waiting, *self._solutions())):
            return  # there is nothing that they could test: they are what the tests of something else look at
        while waiting:
            path = waiting.pop()
            if path in self.files:
                continue
            if _OUTDATED.match(self.tree.data(path)) is not None:
                continue  # of Visual Studio before 2005: nothing that people have today builds it
            try:
                self.files[path] = _read(self.tree, path)
            except PlanFailed:
                if is_left_out(path):
                    continue  # a file to test some tool with, such as one that colours it
                raise
            self.needed[path] = self._needed(self.files[path])
            waiting += self.needed[path][0]
        self._leave_behind(listed)

    def _leave_behind(self, listed: set[str]) -> None:
        """Take away what is from before the tools of today, where solutions list others and nothing refers to it."""
        meant = listed.union(*(needed for needed, _ in self.needed.values()))
        for path in [path for path, file in self.files.items() if listed and path not in meant and not file.is_modern]:
            del self.files[path], self.needed[path]

    def _solutions(self) -> Iterator[str]:
        for path in self.tree.files.paths:
            if _SOLUTION.search(path) and not self._is_left_out(path) and self.tree.files.is_file(path):
                yield path

    def _in_solutions(self) -> Iterator[str]:
        for path in self._solutions():
            if path.endswith(".sln"):
                data = self.tree.data(path)
                is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
                text = data.decode("utf-16", "replace") if is_wide else self.tree.text(path)
                listed = [match[1] for match in _IN_SOLUTION.finditer(text)]
            else:
                listed = self._in_slnx(path)
            for each in listed:
                found = self._at(parent(path), each.replace("\\", "/"))
                if found is not None and not any(name.startswith(".") for name in found.split("/")[:-1]):
                    yield found

    def _in_slnx(self, path: str) -> list[str]:
        if not self.tree.data(path):
            return []
        try:
            document = parse_xml(self.tree.data(path), path)
        except PlanFailed:
            return []  # as of a .sln that is none: it only lists projects, and may be there to be looked at
        return [each.attributes.get("Path", "") for each in document.walk() if each.tag == "Project"]

    def _at(self, directory: str, target: str) -> str | None:
        """The project file that a path means; case is forgiven, since who wrote it may not have seen it."""
        place = None if "\0" in target else inside(directory, target)
        return None if place is None else self.by_lower.get(place.lower())

    # ---- what concerns a project -----------------------------------------------------------------------------------

    def _needed(self, file: File) -> tuple[frozenset[str], bool]:
        """The project files that one refers to, itself or through what it imports; and whether there may be others."""
        root = parent(file.path)
        found: set[str] = set()
        is_unknown = file.compiles_computed
        for source in (file, *self._shared_files(root, file)):
            here = parent(source.path)
            for reference in source.references:
                targets = self._targets(root, here, reference)
                is_unknown |= targets is None
                found.update(targets or ())
        found.discard(file.path)
        return frozenset(found), is_unknown

    def _targets(self, root: str, here: str, reference: str) -> list[str] | None:
        """The project files that a reference means; None if that cannot be told."""
        base = root
        if _HERE.match(reference):
            base, reference = here, _HERE.sub("", reference)
        if "*" in reference or "@(" in reference or "%(" in reference:
            return None
        if "$(" in reference:
            # A property that names some directory: what follows it is the end of the path.
            rest = _PROPERTY.sub("", reference).lower()
            same = self.by_name.get(rest.rpartition("/")[2], []) if "$(" not in rest else []
            return [path for path in same if f"/{path}".lower().endswith(f"/{rest.lstrip('./')}")] or None
        found = self._at(base, reference)
        return [found] if found is not None else []

    def _shared_files(self, root: str, file: File) -> list[File]:
        """What a project imports: by itself, or because it is called as MSBuild expects."""
        if root not in self._shared:
            self._shared[root] = self._follow(
                [path for path in self._files_above(root) if path.endswith((".props", ".targets"))]
            )
        own = [place for each in file.imports for place in [self._import(root, root, each)] if place is not None]
        return [*self._shared[root], *self._follow(own)] if own else self._shared[root]

    def _follow(self, paths: list[str]) -> list[File]:
        """These files and what they import, at most `_IMPORTS_MAX`."""
        found: dict[str, File] = {}
        waiting = list(paths)
        while waiting and len(found) < _IMPORTS_MAX:
            path = waiting.pop(0)
            if path in found or not self.tree.files.is_file(path) or _PROJECT.search(path):
                continue
            if path not in self._imported:
                try:
                    self._imported[path] = _read(self.tree, path, is_imported=True)
                except PlanFailed:
                    if path.rpartition("/")[2] in _ABOVE:
                        raise
                    self._imported[path] = File(path=path)  # of another kind: it is read all the same
            found[path] = self._imported[path]
            here = parent(path)
            waiting += [place for each in found[path].imports if (place := self._import(here, here, each)) is not None]
        return list(found.values())

    def _import(self, root: str, here: str, target: str) -> str | None:
        base = here if _HERE.match(target) else root
        rest = _HERE.sub("", target)
        return None if "$(" in rest or "*" in rest or "\0" in rest else inside(base, rest)

    def _files_above(self, root: str) -> tuple[str, ...]:
        """The files that MSBuild and NuGet look for, in the directory of a project and above, nearest first."""
        missing = []
        for above in upward(root):
            if above in self._above:
                break
            missing.append(above)
        for directory in reversed(missing):
            here = tuple(join(directory, name) for name in _ABOVE if self.tree.has(directory, name))
            self._above[directory] = here + (() if directory == "." else self._above[parent(directory)])
        return self._above[root]

    def _outside(self, file: File) -> Iterator[str]:
        """Files and directories outside of a project that it compiles or carries along."""
        root = parent(file.path)
        for source in (file, *self._shared_files(root, file)):
            for each in (*source.outside, *source.imports):
                base = parent(source.path) if _HERE.match(each) or each in source.imports else root
                rest = re.split(r"[^/]*[*@%$?]", _HERE.sub("", each), maxsplit=1)[0]
                place = inside(base, rest) if rest and "\0" not in rest else None
                if place is not None and place != ".":
                    yield parent(place) if place.endswith(".projitems") else place

    def _unlocked(self) -> set[str]:
        """Project files that cannot be restored in locked mode: they, or some that they need, have no lock file."""
        dependents: dict[str, list[str]] = {}
        for path, (needed, _) in self.needed.items():
            for each in needed:
                dependents.setdefault(each, []).append(path)
        waiting = [path for path in self.files if not self.tree.has(parent(path), "packages.lock.json")]
        found = set(waiting)
        while waiting:
            for each in dependents.get(waiting.pop(), ()):
                if each not in found:
                    found.add(each)
                    waiting.append(each)
        return found

    # ---- projects --------------------------------------------------------------------------------------------------

    def projects(self) -> list[Project]:
        """One project for each directory with project files."""
        by_root: dict[str, list[File]] = {}
        for path in sorted(self.files):
            by_root.setdefault(parent(path), []).append(self.files[path])
        return [self._project(root, files) for root, files in sorted(by_root.items())]

    def _project(self, root: str, files: list[File]) -> Project:
        above = self._files_above(root)
        reads = {path for path in above if parent(path) != root}
        roots: set[str] = set()
        for file in files:
            needed, is_unknown = self.needed[file.path]
            roots |= {parent(each) for each in needed}
            reads.update(self._outside(file))
            if is_unknown:
                reads.add(".")
        has_lock = self.tree.has(root, "packages.lock.json")
        return Project(
            ecosystem="dotnet",
            root=root,
            manifest=files[0].path,
            jobs=(self._job(root, files, above),),
            name=files[0].path.rpartition("/")[2].rpartition(".")[0],
            tools=self._tools(root, files),
            depends_on_roots=frozenset(roots - {root}),
            reads=frozenset(path for path in reads if path == "." or not f"{path}/".startswith(f"{root}/")),
            lock=join(root, "packages.lock.json") if has_lock else None,
        )

    def _job(self, root: str, files: list[File], above: tuple[str, ...]) -> ProjectJob:
        workdir = self._workdir(root)
        steps: list[Step] = []
        reports: list[str] = []
        tests = [file for file in files if self._is_test(file)]
        for file in files:
            name = shlex.quote(relative(file.path, workdir))
            name = f"./{name}" if name.startswith("-") else name
            if not file.is_modern:
                # Written for .NET Framework: only MSBuild itself, as it comes with Visual Studio or Mono, builds it.
                run = f"msbuild {name} -restore -p:RestorePackagesConfig=true"
                steps.append(Step(name="Build", run=run, workdir=workdir))
                continue
            locked = " --locked-mode" if file.path not in self.unlocked else ""
            restore = f"dotnet restore {name} --packages .nuget/packages{locked}"
            steps.append(Step(name="Restore", run=restore, workdir=workdir))
            if file not in tests:
                steps.append(Step(name="Build", run=f"dotnet build {name} --no-restore", workdir=workdir))
                continue
            is_platform = self._sdk_of(root)[1]
            has_junit = not is_platform and bool(_JUNIT & self._packages(file))
            logger = " --logger junit" if has_junit else ""
            option = "--project " if is_platform else ""
            steps.append(Step(name="Test", run=f"dotnet test {option}{name} --no-restore{logger}", workdir=workdir))
            reports += [join(root, "TestResults/**/*.xml")] if has_junit else []
        # One cache for all; in a very large repository each looks at its own files only, for the sake of time.
        shared = self.files if len(self.files) <= _SHARED_INPUTS_MAX else [file.path for file in files]
        inputs = [*above, *shared, join(root, "packages.lock.json")]
        cache = CacheRule(name="nuget", paths=(join(workdir, ".nuget/packages"),), inputs=tuple(sorted(set(inputs))))
        return ProjectJob(
            check="test" if tests else "build",
            steps=tuple(steps),
            env={"CI": "true", "DOTNET_CLI_TELEMETRY_OPTOUT": "1", "DOTNET_NOLOGO": "1"},
            caches=(cache,) if any(file.is_modern for file in files) else (),
            reports=tuple(dict.fromkeys(reports)),
        )

    def _packages(self, file: File) -> set[str]:
        shared = self._shared_files(parent(file.path), file)
        return set(file.packages).union(*(each.packages for each in shared))

    def _is_test(self, file: File) -> bool:
        """Whether its tests can be run: it says so, or refers to a test SDK and is no benchmark, or is called like one.

        `dotnet test` builds a project without tests and succeeds, so being wrong here costs nothing.
        """
        if not file.is_modern or file.is_test is not None:
            return bool(file.is_test) and file.is_modern
        name = file.path.rpartition("/")[2].rpartition(".")[0]
        if _MEASURED in file.packages and _MEASURING_NAME.search(name) is not None:
            return False  # to measure on every change takes long, and tells nothing on a busy machine
        is_named = _TEST_NAME.search(name) is not None
        # What a repository says of all its projects at the root is no sign; in a directory of tests it is one.
        shared = (each for each in self._shared_files(parent(file.path), file) if parent(each.path) != ".")
        packages = set(file.packages).union(*(each.packages for each in shared))
        return any(package.startswith(_TEST_SDKS) for package in packages) or is_named

    def _workdir(self, root: str) -> str:
        """The nearest directory with a solution or `global.json`, from where people build; else the root."""
        for above in upward(root):
            if above in self.solution_directories or self.tree.has(above, "global.json"):
                return above
        return "."

    def _tools(self, root: str, files: list[File]) -> dict[str, str]:
        sdk = self._sdk_of(root)[0]
        if sdk:
            return sdk
        shared = self._shared_files(root, files[0])
        found = next((file.framework for file in (*files, *shared) if file.framework), None)
        return {"dotnet": found} if found else {}

    def _sdk_of(self, root: str) -> tuple[dict[str, str], bool]:
        """The SDK that the nearest `global.json` asks for, and whether tests run on the newer test platform."""
        directory = next((above for above in upward(root) if self.tree.has(above, "global.json")), None)
        if directory is None:
            return {}, False
        if directory not in self._sdk:
            content = _global_json(self.tree.text(join(directory, "global.json")))
            version = table(content, "sdk").get("version")
            is_version = isinstance(version, str) and _VERSION.fullmatch(version) is not None
            runner = table(content, "test").get("runner")
            self._sdk[directory] = (
                {"dotnet": str(version)} if is_version else {},
                runner == "Microsoft.Testing.Platform",
            )
        return self._sdk[directory]


def _global_json(text: str) -> Mapping[str, object]:
    """`global.json`, comments and all; empty if it is none: the tools will say so, and no project hangs on it."""
    try:
        content = json.loads(_COMMENT.sub(lambda match: match[1] or "", text))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
