"""Go: each module is a project; vet, build and test all its packages, as a member of the workspace that lists it.

Rule: a workspace counts only for the modules that it lists; for others below it, it is switched off, since the go
command refuses to build them inside of it.
"""

import re
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.go_files import GoFile, go_version, read
from deltaci.planner.discovery.own_ci import OwnCi
from deltaci.planner.discovery.project import Tree, inside, join, parent
from deltaci.planner.discovery.workspace import ancestors, left_out_manifests, split_targets

SOURCES: Final = frozenset({".go", ".mod", ".sum"})
MANIFESTS: Final = ("go.mod",)
_LINTER_SETTINGS: Final = (".golangci.yml", ".golangci.yaml", ".golangci.toml", ".golangci.json")
_VERSIONS: Final = (".go-version", ".tool-versions")
# Hugo has its sites and themes named by a go.mod; no packages are in them, and the go command refuses to vet none.
_SITE: Final = ("hugo.toml", "hugo.yaml", "hugo.yml", "hugo.json")
_HOOKS: Final = ".pre-commit-config.yaml"
STRUCTURE: Final = (
    *("go.mod", "go.sum", "go.work", "go.work.sum", "modules.txt", _HOOKS),
    *(*_LINTER_SETTINGS, *_VERSIONS, *_SITE),
)
_LINTER: Final = re.compile(r"github\.com/golangci/golangci-lint(?:/v\d{1,3})?", re.ASCII)
_LINTER_VERSION: Final = re.compile(r"v?((\d{1,3})\.\d{1,4}\.\d{1,4})", re.ASCII)
# What only the settings of version 2 say, in YAML, TOML or JSON.
_NEWER_SETTINGS: Final = re.compile(r"""^[ \t{]*+["']?version["']?[ \t]*+[:=][ \t]*+["']?2\b""", re.MULTILINE)
_HOOK: Final = re.compile(
    r"repo:[ \t]*+[\"']?https://github\.com/golangci/golangci-lint(?:\.git)?[\"']?[ \t\r]*+\n"
    r"[ \t]*+rev:[ \t]*+[\"']?([\w.-]{1,100})",
    re.ASCII,
)
_RUNS_RACE: Final = re.compile(r"\bgo[ \t]+test\b.*[ \t]-race\b")
_RUNS_FORMAT: Final = re.compile(r"\bgofmt\b[^|]*[ \t]-(?:s[ \t]+-)?(?:l|d)|\bgo[ \t]+fmt\b")
# Where people write which packages are tested, besides their CI.
_TASKS: Final = ("Makefile", "Taskfile.yml", "Taskfile.yaml", "justfile", "Dockerfile")
TASKS_CHARACTERS_MAX: Final = 200_000
_LEAVES_OUT: Final = re.compile(
    r"\bgo[ \t]+test\b[^\n]*\bgo[ \t]+list\b[^|\n]*\./\.\.\.[ \t]*\|[ \t]*grep[ \t]+-(?:v|vE|Ev|v[ \t]+-E)[ \t]+"
    r"[\"']?([A-Za-z0-9_/|-]{1,100})[\"']?[ \t]*\)"
)
# Not `.`: the caches are there, too.
_FORMAT: Final = (
    "unformatted=$(git ls-files -z '*.go' ':!vendor/' ':!*testdata/*' | xargs -0 -r gofmt -l)\n"
    'test -z "$unformatted" || { echo "$unformatted"; exit 1; }'
)
# go wants absolute paths, which only a script can tell; the file that it keeps them in may be relative.
_KEEP: Final = 'go env -w GOCACHE="$PWD/.cache/go-build" GOMODCACHE="$PWD/.cache/go-mod"'


def wanted(tree: Tree, manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    if not manifests:
        return []
    names = {"go.work", _HOOKS, *_VERSIONS, *_LINTER_SETTINGS}
    others = [path for path in tree.files.paths if path.rpartition("/")[2] in names]
    return [*manifests, *left_out_manifests(tree, "go.mod"), *others]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The modules, those included that a go.work lists wherever they are."""
    if not manifests:
        return []
    modules = {parent(path): read(path, tree.text(path)) for path in manifests}
    works = _workspaces(tree, modules)
    modules = {root: module for root, module in modules.items() if module.module is not None}
    ci = OwnCi(tree)
    return [_Module(tree, root, modules, works, ci).project() for root in sorted(modules)]


class _Work(msgspec.Struct, frozen=True):
    """A go.work, with the directories that it lists and that it puts in the place of modules."""

    file: GoFile
    uses: frozenset[str]
    replaced: frozenset[str]


def _workspaces(tree: Tree, modules: dict[str, GoFile]) -> dict[str, _Work]:
    """The go.work files by directory; the modules that they list join `modules`."""
    own = {place for root in modules for place in (root, *ancestors(root))}
    works = {}
    for place in sorted(own):
        path = join(place, "go.work")
        if not tree.files.is_file(path):
            continue
        file = read(path, tree.text(path))
        uses = frozenset(root for root in (inside(place, listed) for listed in file.uses) if root is not None)
        works[place] = _Work(file, uses, _replaced(file, place))
        for root in sorted(uses):
            if root not in modules and tree.has(root, "go.mod"):
                modules[root] = read(join(root, "go.mod"), tree.text(join(root, "go.mod")))
    return works


def _replaced(file: GoFile, place: str) -> frozenset[str]:
    """The directories that take the place of modules."""
    found = (inside(place, target) for _, target in file.replaces if target is not None)
    return frozenset(each for each in found if each is not None)


class _Module(msgspec.Struct, frozen=True):
    """Puts one module together."""

    tree: Tree
    root: str
    modules: dict[str, GoFile]
    works: dict[str, _Work]
    ci: OwnCi

    def project(self) -> Project:
        """The project of the module."""
        this = self.modules[self.root]
        above = next((place for place in (self.root, *ancestors(self.root)) if place in self.works), None)
        is_member = above is not None and self.root in self.works[above].uses
        workspace = above if is_member else None
        replaced = _replaced(this, self.root)
        reads = {join(place, name) for place in ancestors(self.root) for name in (*_LINTER_SETTINGS, *_VERSIONS)}
        if above is not None:
            # Even for a module that it does not list: it may be going to.
            reads |= {join(above, name) for name in ("go.work", "go.work.sum")}
        if workspace is not None:
            replaced |= self.works[workspace].replaced
            if self.tree.has(workspace, "vendor/modules.txt"):
                reads.add(join(workspace, "vendor"))
        projects, others = split_targets(self.root, replaced, self.modules)
        own_reads = {path for path in reads if parent(path) != self.root}
        # A module without requirements of its own has no go.sum, and may be built with those of its workspace.
        sums = [(self.root, "go.sum"), *([(workspace, "go.work.sum")] if workspace is not None else [])]
        return Project(
            ecosystem="go",
            root=self.root,
            manifest=join(self.root, "go.mod"),
            jobs=self.jobs(workspace, is_outside=above is not None and not is_member),
            name=this.module,
            tools=self.tools(workspace),
            depends_on_names=frozenset(this.requires),
            depends_on_roots=frozenset(projects),
            reads=frozenset(own_reads | others),
            lock=next((join(place, name) for place, name in sums if self.tree.has(place, name)), None),
        )

    def tools(self, workspace: str | None) -> dict[str, str]:
        """The version of go: that of a workspace counts for its members, a toolchain for more than a language."""
        files = [*([self.works[workspace].file] if workspace is not None else []), self.modules[self.root]]
        declared = [file.toolchain for file in files] + [file.version for file in files]
        version = next((each for each in declared if each is not None), None) or self.pinned("golang", "go")
        return {} if version is None else {"go": version}

    def pinned(self, *tools: str) -> str | None:
        """The version of a tool that files for version managers ask for, the nearest first."""
        for place in (self.root, *ancestors(self.root)):
            if "go" in tools and self.tree.has(place, ".go-version"):
                return go_version(self.tree.text(join(place, ".go-version")).strip())
            for line in self.tree.text(join(place, ".tool-versions")).split("\n"):
                words = line.split()
                if len(words) >= 2 and words[0] in tools:
                    match = _LINTER_VERSION.fullmatch(words[1])
                    return match[1] if match is not None else go_version(words[1])
        return None

    def jobs(self, workspace: str | None, *, is_outside: bool) -> tuple[ProjectJob, ...]:
        """Lint if golangci-lint is configured; vet, build and test. Nothing for a site of Hugo.

        The format is checked, and races are looked for, where the repository's own CI does so.
        """
        jobs: list[ProjectJob] = []
        if self.tree.first(self.root, _SITE) is not None:
            return ()
        lints = []
        if self.ci.runs(_RUNS_FORMAT):
            lints.append(("Check the format", _FORMAT))
        if any(self.tree.first(place, _LINTER_SETTINGS) for place in (self.root, *ancestors(self.root))):
            lints.append(("Lint", self.linter()))
        if lints:
            jobs.append(self.job("lint", lints, workspace, is_outside))
        race = " -race" if self.ci.runs(_RUNS_RACE) else ""
        test = f"go test{race} {self.tested()}"
        runs = [("Vet", "go vet ./..."), ("Build", "go build ./..."), ("Test", test)]
        jobs.append(self.job("test", runs, workspace, is_outside))
        return tuple(jobs)

    def tested(self) -> str:
        """The packages to test: without those that the repository's own lines leave out, for what they need to run."""
        texts = [self.tree.text(join(self.root, name)) for name in _TASKS]
        lines = [
            *self.ci.lines(_LEAVES_OUT),
            *(line for text in texts for line in text[:TASKS_CHARACTERS_MAX].split("\n")),
        ]
        for line in lines:
            match = _LEAVES_OUT.search(line)
            words = [word for word in match[1].split("|") if word.strip("/") != "vendor"] if match is not None else []
            if words:
                return f"$(go list ./... | grep -vE '{'|'.join(words)}')"
        return "./..."

    def job(self, check: str, runs: list[tuple[str, str]], workspace: str | None, is_outside: bool) -> ProjectJob:
        """A job with the caches of downloads and of what was built, kept inside the checkout."""
        steps = [Step(name=name, run=run, workdir=self.root) for name, run in runs]
        places = dict.fromkeys((self.root, *([workspace] if workspace is not None else [])))
        sums = [join(place, name) for place in places for name in ("go.sum", "go.work.sum")]
        inputs = tuple(path for path in sums if self.tree.files.is_file(path)) or (join(self.root, "go.mod"),)
        cache = CacheRule(
            name=f"go-{check}",
            paths=(join(self.root, ".cache/go-build"), join(self.root, ".cache/go-mod")),
            inputs=inputs,
        )
        env = {"CI": "true", "GOENV": ".cache/go.env", "GOFLAGS": "-modcacherw"}
        if is_outside:
            env["GOWORK"] = "off"
        keep = Step(name="Keep the caches in the checkout", run=_KEEP, workdir=self.root)
        return ProjectJob(check=check, steps=(keep, *steps), env=env, caches=(cache,))

    def linter(self) -> str:
        """golangci-lint in the version that the repository asks for; if none can be told, whatever the runner has."""
        this = self.modules[self.root]
        for package in this.tools:
            if _LINTER.match(package) and package.endswith("/cmd/golangci-lint"):
                return "go tool golangci-lint run"
        for module in this.requires:
            if _LINTER.fullmatch(module):
                return f"go run {module}/cmd/golangci-lint run"
        hooks = (_HOOK.search(self.tree.text(join(place, _HOOKS))) for place in (self.root, *ancestors(self.root)))
        hook = next((match[1] for match in hooks if match is not None), "")
        pinned = self.pinned("golangci-lint")
        version = _LINTER_VERSION.fullmatch(pinned or hook)
        if version is None:
            return "golangci-lint run"
        if pinned is None and int(version[2]) < 2 and self.has_newer_settings():
            return "golangci-lint run"  # a hook that nobody runs any more: that version would refuse the settings
        major = "" if int(version[2]) < 2 else f"/v{version[2]}"
        return f"go run github.com/golangci/golangci-lint{major}/cmd/golangci-lint@v{version[1]} run"

    def has_newer_settings(self) -> bool:
        """Whether the settings that count are written for golangci-lint 2, which version 1 refuses."""
        found = (self.tree.first(place, _LINTER_SETTINGS) for place in (self.root, *ancestors(self.root)))
        path = next((path for path in found if path is not None), None)
        return path is not None and _NEWER_SETTINGS.search(self.tree.text(path)) is not None
