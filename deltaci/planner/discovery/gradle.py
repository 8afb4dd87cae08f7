"""Gradle: each project that the settings include is one here, built and checked by its path with the wrapper.

Rule 1: what scripts compute is not guessed. Where included projects are computed, every directory with a build script
is one; where a dependency is computed, the project reads its whole build.
Rule 2: what a build shares (settings, catalogs, `buildSrc`, `gradle/`, `config/`, scripts above) concerns all of its
projects, and so do the builds that it includes.
Rule 3: the root of a build with other projects has a job only if it applies a plugin that gives it something to check.
"""

import posixpath
import re
import shlex
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from deltaci.domain.plan import Step
from deltaci.domain.project import CacheRule, Project, ProjectJob
from deltaci.planner.discovery.gradle_script import Script, Settings, read_script, read_settings
from deltaci.planner.discovery.java import VERSION_FILES, java_tools, version_files
from deltaci.planner.discovery.project import (
    MANIFESTS_MAX,
    Tree,
    inside,
    is_left_out,
    join,
    parent,
    relative,
    too_many,
    upward,
)

SOURCES: Final = frozenset({".java", ".kt", ".groovy", ".scala", ".gradle", ".kts"})
SETTINGS: Final = ("settings.gradle", "settings.gradle.kts")
BUILDS: Final = ("build.gradle", "build.gradle.kts")
MANIFESTS: Final = (*SETTINGS, *BUILDS)
_PLUGIN_SOURCES: Final = ("*Plugin.kt", "*Plugin.groovy", "*Plugin.java")
_PROPERTIES: Final = ("gradle-wrapper.properties", "gradle-daemon-jvm.properties")
STRUCTURE: Final = (
    *("*.gradle", "*.gradle.kts", "*.versions.toml", "gradlew", "gradle.lockfile"),
    *(*_PROPERTIES, *_PLUGIN_SOURCES, *VERSION_FILES),
)
_SCRIPT: Final = re.compile(r"\.gradle(?:\.kts)?$")
_READ: Final = re.compile(r"(?:\.gradle(?:\.kts)?|\.versions\.toml|/gradle-(?:wrapper|daemon-jvm)\.properties)$")
_PLUGIN_SOURCE: Final = re.compile(
    r"(?:^|/)(?:build|gradle|convention|plugin)[^/]*/.*Plugin\.(?:kt|groovy|java)$", re.I
)
_WRAPPED_VERSION: Final = re.compile(r"/gradle-(\d{1,3}(?:\.\d{1,3}){1,2}[\w.-]{0,20})-(?:bin|all)\.zip", re.ASCII)
_DAEMON_JAVA: Final = re.compile(r"^toolchainVersion=(\d{1,3})", re.MULTILINE | re.ASCII)
_PROJECT_STRING: Final = re.compile(r"""["'](:[\w.:-]{1,200})["']""", re.ASCII)
# With these, `build` also makes what is released, for every variant; people check instead.
_VARIANTS: Final = re.compile(r"com\.android\.|multiplatform|android.{0,3}(?:application|library)")
# Plugins that give a project the tasks `check` and `build`.
_LIFECYCLE: Final = re.compile(
    r"java|java-library|application|groovy|scala|war|base|lifecycle-base|java-platform|java-gradle-plugin|"
    r"groovy-gradle-plugin|kotlin-dsl|com\.diffplug\.spotless|com\.android\.(?:application|library)|"
    r"org\.jetbrains\.kotlin\.(?:jvm|multiplatform|android|js)|.{0,200}[.-]conventions?|"
    r"libs\.plugins\.(?:spotless|kotlin\.?(?:jvm|multiplatform|android)|android\.?(?:application|library))"
)
# Settings plugins that include nothing.
_HARMLESS: Final = re.compile(
    r"com\.gradle\.[\w.-]+|org\.gradle\.toolchains\.[\w.-]+|org\.gradle\.[\w.-]+|libs\.plugins\.[\w.]+|java|base"
)
_EXTRA_MAX: Final = 50
_BUILDS_MAX: Final = 50
_SHARED_INPUTS_MAX: Final = 200


class Module(msgspec.Struct, frozen=True):
    """A project of a build: its path with a leading colon, where it is, and whether the path is only a guess."""

    path: str
    root: str
    is_guessed: bool = False


class Build(msgspec.Struct, kw_only=True):
    """A build with its modules, its root project not among them."""

    root: str
    settings: Settings
    modules: list[Module] = []


def wanted(tree: Tree, _manifests: list[str]) -> list[str]:
    """The files to read before `find` can tell."""
    paths = [path for path in tree.files.paths if _READ.search(path) or _PLUGIN_SOURCE.search(path)]
    if len(paths) > MANIFESTS_MAX:
        raise too_many(len(paths))
    return [*paths, *version_files(tree)]


def find(tree: Tree, manifests: list[str]) -> list[Project]:
    """The projects of all builds."""
    if not manifests:
        return []
    repository = _Repository(tree, manifests)
    found: dict[str, Project] = {}
    for build in repository.builds.values():
        for project in _Builder(repository, build).projects():
            found.setdefault(project.root, project)
    return [project for _, project in sorted(found.items())]


class _Repository:
    """All builds, and all scripts by the directory that they are in."""

    def __init__(self, tree: Tree, manifests: list[str]) -> None:
        self.tree = tree
        self.scripts_in: dict[str, list[str]] = {}
        for path in tree.files.paths:
            if _SCRIPT.search(path) and tree.files.is_file(path) and path.rpartition("/")[2] not in SETTINGS:
                self.scripts_in.setdefault(parent(path), []).append(path)
        self.plugin_sources = [path for path in tree.files.paths if _PLUGIN_SOURCE.search(path)]
        # Plugins that are scripts themselves, by their identifier.
        self.plugin_scripts = {
            _SCRIPT.sub("", path.rpartition("/")[2]): path
            for paths in self.scripts_in.values()
            for path in paths
            if "/src/main/" in path
        }
        self._scripts: dict[str, Script] = {}
        self.builds: dict[str, Build] = {}
        self._read_builds(manifests)
        self.scripts_of: dict[str, list[str]] = {}
        for directory in self.scripts_in:
            root = next((above for above in upward(directory) if above in self.builds), None)
            if root is not None:
                self.scripts_of.setdefault(root, []).append(directory)
        self.claimed: set[str] = set(self.builds)
        for build in sorted(self.builds.values(), key=lambda build: (build.root.count("/"), build.root)):
            build.modules = self._modules(build)

    def _read_builds(self, manifests: list[str]) -> None:
        """Builds with settings, those that they include, and directories with a build script below none of them."""
        roots = {parent(path) for path in manifests if path.rpartition("/")[2] in SETTINGS}
        waiting = deque(sorted(root for root in roots if "src" not in root.split("/")))
        while waiting:
            root = waiting.popleft()
            if root in self.builds:
                continue
            text = "\n".join(self.tree.text(join(root, name)) for name in SETTINGS)
            self.builds[root] = Build(root=root, settings=read_settings(text))
            for target in self.builds[root].settings.builds:
                directory = _directory(root, target)
                if directory is not None and (directory in self.scripts_in or self.tree.first(directory, SETTINGS)):
                    waiting.append(directory)
        alone = {parent(path) for path in manifests if path.rpartition("/")[2] in BUILDS}
        for root in sorted(alone):
            names = root.split("/")
            is_inside = any(above in self.builds for above in upward(root))
            if not is_inside and "src" not in names and "buildSrc" not in names:
                self.builds[root] = Build(root=root, settings=Settings())

    def _modules(self, build: Build) -> list[Module]:
        """What the settings include; and if they compute it, every directory with a build script."""
        settings = build.settings
        found: dict[str, Module] = {}
        places: dict[str, str | None] = {"": build.root}
        for path in settings.included:
            names = path.strip(":").split(":")
            for index in range(1, len(names) + 1):
                prefix = ":" + ":".join(names[:index])
                if prefix not in places:
                    above = places[":" + ":".join(names[: index - 1]) if index > 1 else ""]
                    places[prefix] = self._place(build, prefix, above)
        explicit = set(settings.included)
        for prefix, place in places.items():
            is_one = prefix in explicit or place in self.scripts_in
            if prefix and place is not None and is_one:
                found.setdefault(place, Module(prefix, place))
        for name in settings.flat:
            place = inside(build.root, f"../{name}")
            if place is not None:
                found.setdefault(place, Module(f":{name}", place))
        unknown = any(not _HARMLESS.fullmatch(plugin) for plugin in settings.plugins)
        if settings.is_dynamic or unknown:
            for directory in self.scripts_of.get(build.root, ()):
                if self._may_be_included(build.root, directory):
                    below = relative(directory, build.root)
                    found.setdefault(directory, Module(":" + below.replace("/", ":"), directory, is_guessed=True))
        mine = [found[place] for place in sorted(found) if place not in self.claimed]
        self.claimed.update(module.root for module in mine)
        return mine

    def _place(self, build: Build, path: str, above: str | None) -> str | None:
        if path in build.settings.directories:
            return _directory(build.root, build.settings.directories[path])
        return None if above is None else inside(above, path.rpartition(":")[2])

    def _may_be_included(self, root: str, directory: str) -> bool:
        below = relative(directory, root)
        if below == "." or is_left_out(f"{below}/x") or {"src", "buildSrc"} & set(below.split("/")):
            return False
        name = directory.rpartition("/")[2]
        own = {*BUILDS, f"{name}.gradle", f"{name}.gradle.kts"}
        return any(path.rpartition("/")[2] in own for path in self.scripts_in[directory])

    def script(self, path: str) -> Script:
        """A build script, read once."""
        if path not in self._scripts:
            self._scripts[path] = read_script(self.tree.text(path))
        return self._scripts[path]

    def gives_tasks(self, plugins: Iterable[str]) -> bool:
        """Whether one of the plugins gives a project something to check; of those written here, what they apply."""
        waiting, seen = list(plugins), set[str]()
        while waiting:
            plugin = waiting.pop()
            own = self.plugin_scripts.get(plugin)
            if own is None and _LIFECYCLE.fullmatch(plugin):
                return True
            if own is not None and plugin not in seen:
                seen.add(plugin)
                waiting += self.script(own).plugins
        return False

    def scripts(self, directory: str) -> list[Script]:
        """The build scripts of a directory."""
        return [self.script(path) for path in self.scripts_in.get(directory, ())]


class _Builder:
    """Puts the projects of one build together."""

    def __init__(self, repository: _Repository, build: Build) -> None:
        self.repository = repository
        self.tree = repository.tree
        self.build = build
        self.by_path = {module.path: module for module in build.modules}
        self.by_accessor = {_accessor(module.path): module for module in build.modules}
        self.by_name: dict[str, list[Module]] = {}
        for module in build.modules:
            self.by_name.setdefault(module.path.rpartition(":")[2], []).append(module)
        own = {module.root for module in build.modules} | {build.root}
        self.shared = [
            path
            for directory in repository.scripts_of.get(build.root, ())
            if directory not in own
            for path in repository.scripts_in[directory]
        ]
        self.has_modules_in = {above for module in build.modules for above in upward(parent(module.root))}
        self.launcher = self._launcher()
        self.task = "check" if self._has_variants() else "build"
        self.extra, self.is_unknown_for_all = self._for_all()
        self.common = _common([build.root, *(module.root for module in build.modules)])
        self.included = self._included()
        self.inputs = self._inputs()

    def projects(self) -> list[Project]:
        """The root of the build, `buildSrc`, and the modules."""
        found = [self._root_project()]
        build_src = join(self.build.root, "buildSrc")
        if build_src in self.repository.scripts_in and build_src not in self.repository.builds:
            command = f"{self._gradle(self.build.root)} -p buildSrc build"
            found.append(self._project(build_src, [self._step(command, self.build.root)], reads=self._shared_reads()))
        return [*found, *(self._module(module) for module in self.build.modules)]

    def _root_project(self) -> Project:
        root, modules = self.build.root, self.build.modules
        scripts = self.repository.scripts(root)
        plugins = {plugin for script in scripts for plugin in script.plugins}
        is_configured = bool(plugins) and any(script.configures_itself_with_others for script in scripts)
        steps: list[Step] = []
        configures_others = any(script.configures_others for script in scripts)
        if not modules or (self.build.settings.is_dynamic and configures_others):
            # With computed projects that may have no script of their own, only a build of everything has them all.
            steps = [self._step(f"{self._gradle(root)} {self.task}", root)]
        elif is_configured or self.repository.gives_tasks(plugins):
            steps = [self._step(f"{self._gradle(root)} :{self.task}", root)]
        if not modules and not scripts:
            steps = []
        is_deep = bool(steps) and bool(modules) and f":{self.task}" not in steps[0].run
        return self._project(root, steps, roots=self.included, is_deep=is_deep)

    def _module(self, module: Module) -> Project:
        scripts = self.repository.scripts(module.root)
        above = [
            script
            for directory in upward(parent(module.root))
            if _is_below(directory, self.common)
            for script in self.repository.scripts(directory)
        ]
        has_plugin = any(script.plugins for script in scripts) or any(script.configures_others for script in above)
        is_leaf = module.root not in self.has_modules_in
        steps = []
        is_absent = module.path in self.build.settings.uncertain
        if not is_absent and (
            has_plugin or (is_leaf and (module.is_guessed or not scripts or any(each.applies for each in scripts)))
        ):
            gradle = self._gradle(module.root if module.is_guessed else self.build.root)
            task = self.task if module.is_guessed else shlex.quote(f"{module.path}:{self.task}")
            steps = [self._step(f"{gradle} {task}", module.root if module.is_guessed else self.build.root)]
        needed, is_unknown = self._needed(module, scripts, above)
        reads = self._shared_reads(module.root)
        roots = {each.root for each in needed} | set(self.extra)
        if is_unknown or self.is_unknown_for_all:
            reads.add(self.common)
        return self._project(module.root, steps, reads=reads, roots=roots | self.included)

    def _project(
        self,
        root: str,
        steps: Sequence[Step],
        *,
        reads: Iterable[str] = (),
        roots: Iterable[str] = (),
        is_deep: bool = False,
    ) -> Project:
        names = [*BUILDS, *SETTINGS]
        own = self.repository.scripts_in.get(root, ())
        manifest = self.tree.first(root, names) or (own[0] if own else self._settings_file())
        home = steps[0].workdir if steps else "."
        job = ProjectJob(
            check="test",
            steps=tuple(steps),
            env={"CI": "true", "GRADLE_USER_HOME": relative(join(self.build.root, ".gradle"), home)},
            caches=(
                CacheRule(
                    name="gradle",
                    paths=tuple(join(self.build.root, f".gradle/{name}") for name in ("caches", "wrapper")),
                    inputs=tuple(sorted({*self.inputs, *own})),
                ),
            ),
            reports=(join(root, f"{'**/' if is_deep else ''}build/test-results/**/*.xml"),),
        )
        return Project(
            ecosystem="gradle",
            root=root,
            manifest=manifest,
            jobs=(job,) if steps else (),
            tools={**java_tools(self.tree, root, self._java(root)), **self.launcher[1]},
            depends_on_roots=frozenset(each for each in roots if each != root and not _is_below(root, each)),
            reads=frozenset(path for path in reads if not _is_below(path, root)),
            lock=join(root, "gradle.lockfile") if self.tree.has(root, "gradle.lockfile") else None,
        )

    # ---- dependencies --------------------------------------------------------------------------------------------

    def _needed(self, module: Module, scripts: list[Script], above: list[Script]) -> tuple[set[Module], bool]:
        """The modules that one depends on, and whether there may be others."""
        found: set[Module] = set()
        is_unknown = any(script.is_dynamic or script.is_dynamic_for_all for script in scripts)
        for script in scripts:
            # What a script says about all or other projects is said of this one and those below it.
            for text in (*script.paths, *script.for_all, *(t for each in script.for_others.values() for t in each)):
                is_unknown |= not self._add(text, module, found)
            for accessor in script.accessors:
                is_unknown |= not self._add(f"projects.{accessor}", module, found)
        for script in above:
            for text in script.for_others.get(module.path, ()):
                is_unknown |= not self._add(text, module, found)
        found.discard(module)
        return found, is_unknown

    def _add(self, text: str, module: Module | None, found: set[Module]) -> bool:
        """Add the module that a string means, if it means one; False if it may mean any."""
        if text.startswith("projects."):
            names = text.removeprefix("projects.").split(".")
            for end in range(len(names), 0, -1):
                named = self.by_accessor.get(_accessor(".".join(names[:end])))
                if named is not None:
                    found.add(named)
                    return True
            return False
        above = module.path if module is not None else ""
        candidates = [text] if text.startswith(":") else [f"{above}:{text}", f":{text}"]
        for candidate in candidates:
            for path in (candidate, candidate.rpartition(":")[0]):  # a project, or a task of one
                if path in self.by_path:
                    found.add(self.by_path[path])
                    return True
        if not self.build.settings.is_dynamic or (text.count(":") <= 1 and text.strip(":") not in self.by_name):
            return True
        same_name = self.by_name.get(text.rpartition(":")[2], ())
        found.update(same_name)
        return bool(same_name)

    def _for_all(self) -> tuple[frozenset[str], bool]:
        """The roots of the modules that every module may depend on, and whether that may be any."""
        found: set[Module] = set()
        is_unknown = False
        scripts = [*self.repository.scripts(self.build.root), *(self.repository.script(path) for path in self.shared)]
        is_shared = [False] * len(self.repository.scripts(self.build.root)) + [True] * len(self.shared)
        for script, shared in zip(scripts, is_shared, strict=True):
            is_unknown |= script.is_dynamic_for_all or (shared and script.is_dynamic)
            texts = {*script.for_all}
            if shared:
                texts |= script.paths | {f"projects.{each}" for each in script.accessors}
            for text in texts:
                is_unknown |= not self._add(text, None, found)
        for path in self.repository.plugin_sources:
            for text in set(_PROJECT_STRING.findall(self.tree.text(path))):
                self._add(text, None, found)
        return frozenset(module.root for module in found), is_unknown or len(found) > _EXTRA_MAX

    def _included(self) -> frozenset[str]:
        """The roots of the builds that this one includes; of all others, if that is computed."""
        targets = (_directory(self.build.root, target) for target in self.build.settings.builds)
        found = {target for target in targets if target is not None and target in self.repository.builds}
        if self.build.settings.has_computed_builds:
            found |= set(sorted(self.repository.builds)[:_BUILDS_MAX])
        return frozenset(found - {self.build.root})

    def _shared_reads(self, root: str | None = None) -> set[str]:
        """Files and directories outside of a project's root that concern it, since they concern all of its build."""
        base = self.build.root
        names = (*SETTINGS, "gradle.properties", "gradle", "gradlew", "buildSrc", "config")
        found = {join(base, name) for name in names} | set(self.shared) | set(self.included)
        for directory in upward(parent(root)) if root is not None else (base,):
            if _is_below(directory, self.common):
                found.update(self.repository.scripts_in.get(directory, ()))
        found.update(self.repository.scripts_in.get(base, ()))
        return found

    # ---- commands ------------------------------------------------------------------------------------------------

    def _step(self, run: str, workdir: str) -> Step:
        return Step(name="Build and check", run=run, workdir=workdir)

    def _gradle(self, workdir: str) -> str:
        """Gradle, seen from a directory; without a daemon, which would outlive the job."""
        program, _, is_program = self.launcher
        if program is None:
            return "gradle --no-daemon"
        path = relative(program, workdir)
        path = shlex.quote(path if path.startswith("../") else f"./{path}")
        return f"{path if is_program else f'sh {path}'} --no-daemon"

    def _launcher(self) -> tuple[str | None, dict[str, str], bool]:
        """The nearest wrapper, the version that it asks for, and whether it can be started by its name."""
        for directory in upward(self.build.root):
            if self.tree.has(directory, "gradlew"):
                text = self.tree.text(join(directory, "gradle/wrapper/gradle-wrapper.properties"))
                found = _WRAPPED_VERSION.search(text)
                program = join(directory, "gradlew")
                return program, {"gradle": found[1]} if found else {}, self.tree.files.is_executable(program)
        return None, {}, True

    def _has_variants(self) -> bool:
        """Whether anything here is built for Android or for many platforms."""
        scripts = [*self.repository.scripts(self.build.root)]
        for module in self.build.modules:
            scripts += self.repository.scripts(module.root)
        catalog = self.tree.text(join(self.build.root, "gradle/libs.versions.toml"))
        return _VARIANTS.search(catalog) is not None or any(
            _VARIANTS.search(plugin) for script in scripts for plugin in script.plugins
        )

    def _java(self, root: str) -> str | None:
        scripts = [*self.repository.scripts(root), *self.repository.scripts(self.build.root)]
        found = next((script.java for script in scripts if script.java is not None), None)
        daemon = self.tree.text(join(self.build.root, "gradle/gradle-daemon-jvm.properties"))
        declared = _DAEMON_JAVA.search(daemon)
        return found or (declared[1] if declared else None)

    def _inputs(self) -> list[str]:
        """What decides on the dependencies of every project of the build."""
        base = self.build.root
        names = (*SETTINGS, *BUILDS, "gradle.properties", "gradle/libs.versions.toml")
        modules = [path for each in self.build.modules for path in self.repository.scripts_in.get(each.root, ())]
        # One cache for all modules; in a very large build each looks at its own script only, for the sake of time.
        shared = modules if len(modules) <= _SHARED_INPUTS_MAX else []
        return [*shared, *(join(base, name) for name in (*names, f"gradle/wrapper/{_PROPERTIES[0]}"))]

    def _settings_file(self) -> str:
        return self.tree.first(self.build.root, [*SETTINGS, *BUILDS]) or join(self.build.root, SETTINGS[0])


def _accessor(path: str) -> str:
    """`:core:data-store` and `core.dataStore` alike."""
    return re.sub(r"[-_]", "", path.strip(":").replace(":", ".")).lower()


def _directory(root: str, target: str) -> str | None:
    """A directory as settings write it; None if it is outside the repository."""
    return None if "\0" in target or "$" in target else inside(root, target.replace("\\", "/"))


def _common(roots: list[str]) -> str:
    return posixpath.commonpath([f"/{root}" if root != "." else "/" for root in roots]).removeprefix("/") or "."


def _is_below(path: str, directory: str) -> bool:
    """Whether `path` is `directory` or in it, however deep."""
    return directory == "." or path == directory or path.startswith(f"{directory}/")
