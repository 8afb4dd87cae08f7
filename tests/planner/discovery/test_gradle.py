"""Gradle without a configuration: what scripts say plainly is used, what they compute expands what runs."""

from unittest import mock

import pytest

from deltaci.planner.discovery import gradle
from deltaci.planner.discovery.gradle_script import TOKENS_MAX, read_script, read_settings, tokens
from tests.planner.discovery.planning import commands, discovered, jobs_of, running

pytestmark = pytest.mark.anyio

WRAPPER = {
    "gradlew": "",
    "gradle/wrapper/gradle-wrapper.properties": r"distributionUrl=https\://x/distributions/gradle-8.5-bin.zip",
}
BUILD = WRAPPER | {
    "settings.gradle.kts": 'include(":app", ":core:data-store")\ninclude(":core:ui")\ninclude(":lib")',
    "build.gradle.kts": 'plugins { id("org.jetbrains.dokka")\n kotlin("jvm") version "2" apply false }',
    "app/build.gradle.kts": "plugins { application }\ndependencies { implementation(projects.core.dataStore) }",
    "core/data-store/build.gradle.kts": 'plugins { kotlin("jvm") }\nkotlin { jvmToolchain(17) }',
    "core/ui/build.gradle": "apply plugin: 'java-library'\ndependencies { api project(':core:data-store') }",
    "lib/build.gradle.kts": "plugins { `java-library` }",
}
APP, STORE, UI, LIB = (f"gradle-test ({root})" for root in ("app", "core/data-store", "core/ui", "lib"))


async def test_each_included_project_is_built_by_its_path_with_the_wrapper() -> None:
    """Without a daemon, which would outlive the job; the home of Gradle inside the checkout, to be kept."""
    jobs = await jobs_of(BUILD, programs=("gradlew",))

    assert sorted(jobs) == [APP, STORE, UI, LIB]
    assert commands(jobs[STORE]) == [(".", "./gradlew --no-daemon :core:data-store:build")]
    assert jobs[STORE].env == {"CI": "true", "GRADLE_USER_HOME": ".gradle"}
    assert jobs[STORE].caches[0].paths == (".gradle/caches", ".gradle/wrapper")
    assert jobs[STORE].reports == ("core/data-store/build/test-results/**/*.xml",)
    assert discovered(BUILD)["core/data-store"].tools == {"gradle": "8.5", "java": "17"}


async def test_without_a_wrapper_gradle_itself_runs_and_a_text_file_runs_through_sh() -> None:
    """What works in a fresh checkout."""
    alone = {"build.gradle": "plugins { id 'java' }"}

    assert commands((await jobs_of(alone))["gradle-test"]) == [(".", "gradle --no-daemon build")]
    assert commands((await jobs_of(alone | WRAPPER))["gradle-test"]) == [(".", "sh ./gradlew --no-daemon build")]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("core/data-store/A.kt", {APP, STORE, UI}),
        ("core/ui/A.java", {UI}),
        ("gradle/libs.versions.toml", {APP, STORE, UI, LIB}),
        ("buildSrc/src/main/kotlin/X.kt", {APP, STORE, UI, LIB}),
        ("config/checkstyle/checkstyle.xml", {APP, STORE, UI, LIB}),
        ("settings.gradle.kts", {APP, STORE, UI, LIB}),
        ("gradle.properties", {APP, STORE, UI, LIB}),
    ],
)
async def test_a_change_runs_the_projects_that_it_touches(path: str, expected: set[str]) -> None:
    """Accessors and paths alike are dependencies; what the build shares is everybody's."""
    assert await running(BUILD, path) == expected


@pytest.mark.parametrize(
    ("condition", "is_there"),
    [
        ('providers.environmentVariable("ANDROID_HOME").isPresent || File("local.properties").exists()', False),
        ("System.getenv('X') != null", False),
        ('System.getenv("CI") != null', True),
        ("JavaVersion.current() >= JavaVersion.VERSION_21", True),
    ],
)
async def test_what_is_included_only_on_some_machines_has_no_job(condition: str, is_there: bool) -> None:
    """On others Gradle would refuse its path; of a condition that cannot be told it is taken to be met."""
    settings = f"include(':a')\nif ({condition}) {{\n  include(':b')\n}}\ninclude(':c')\n"
    files = {"settings.gradle.kts": settings} | {f"{name}/build.gradle.kts": "plugins { java }" for name in "abc"}

    jobs = await jobs_of(files)

    assert ("gradle-test (b)" in jobs) == is_there
    assert {"gradle-test (a)", "gradle-test (c)"} <= set(jobs)


@pytest.mark.parametrize(("applied", "has_job"), [('id("release")', False), ("`java-library`", True)])
async def test_of_a_plugin_that_is_a_script_here_it_counts_what_it_applies(applied: str, has_job: bool) -> None:
    """The root of a build has a job only for what there is to check, and the name of a plugin tells little."""
    files = BUILD | {
        "build.gradle.kts": 'plugins { id("x.root-conventions") }',
        "buildSrc/build.gradle.kts": "plugins { `kotlin-dsl` }",
        "buildSrc/src/main/kotlin/x.root-conventions.gradle.kts": 'plugins { id("x.inner") }',
        "buildSrc/src/main/kotlin/x.inner.gradle.kts": f"plugins {{ {applied} }}",
    }

    assert ("gradle-test" in await jobs_of(files)) == has_job


@pytest.mark.parametrize(
    ("text", "included"),
    [
        ("include 'a', 'b:c'", (":a", ":b:c")),
        ('include ":a",\n        ":b"', (":a", ":b")),
        ('include(":a") // include(":no")\n/* include(":no") */', (":a",)),
        ("include(['a', 'b'])", (":a", ":b")),
        ('settings.include("a"); rootProject.name = "include"', (":a",)),
    ],
)
def test_plain_includes_are_read_in_groovy_and_kotlin(text: str, included: tuple[str, ...]) -> None:
    """The forms that people write; comments and strings are what they are."""
    settings = read_settings(text)

    assert (settings.included, settings.is_dynamic) == (included, False)


@pytest.mark.parametrize(
    "text",
    [
        'include(":$name")',
        "['a', 'b'].each { include it }",
        'listOf("a").forEach(::include)',
        "file('.').eachDir { include(it.name) }",
        'apply from: "modules.gradle"',
        "rootProject.children.each { it.projectDir = file(it.name) }",
        'include(":a" + suffix)',
        "include(fileTree('.') { include '**/build.gradle' })",
    ],
)
async def test_where_includes_are_computed_every_directory_with_a_build_script_is_a_project(text: str) -> None:
    """They are built from their directories, since their paths are only guessed; samples stay left out."""
    files = WRAPPER | {"settings.gradle": text, "libs/a/build.gradle": "plugins { id 'java' }"}
    files |= {"libs/a/src/test/x/build.gradle": "", "samples/s/build.gradle": "", "build.gradle": ""}

    jobs = await jobs_of(files, programs=("gradlew",))

    assert commands(jobs["gradle-test (libs/a)"]) == [("libs/a", "../../gradlew --no-daemon build")]
    assert jobs["gradle-test (libs/a)"].env["GRADLE_USER_HOME"] == "../../.gradle"
    assert sorted(jobs) == ["gradle-test (libs/a)"]


async def test_computed_projects_that_only_the_root_configures_are_built_with_everything() -> None:
    """They may have no script of their own to be found by."""
    files = {"settings.gradle": "x.each { include it }", "build.gradle": "subprojects { apply plugin: 'java' }"}

    jobs = await jobs_of(files | {"a/build.gradle": ""})

    assert commands(jobs["gradle-test"]) == [(".", "gradle --no-daemon build")]


@pytest.mark.parametrize(
    "text",
    [
        "dependencies { api(project(name)) }",
        'dependencies { api(project(":$x")) }',
        "rootProject.subprojects.each { p -> dependencies { api p } }",
        "dependencies { api(projects.no.such) }",
        "x\n" * (TOKENS_MAX + 1),
    ],
)
async def test_a_project_whose_dependencies_cannot_be_told_depends_on_all_others(text: str) -> None:
    """Uncertainty expands."""
    files = BUILD | {"lib/build.gradle.kts": "plugins { `java-library` }\n" + text}

    assert await running(files, "core/ui/A.java") == {UI, LIB}


async def test_what_scripts_say_of_other_projects_counts_for_these() -> None:
    """A root script with blocks for single projects and for all, and the sources of a convention plugin."""
    script = "project(':lib') { dependencies { api project(':core:ui') } }\n"
    plugin = 'class FeaturePlugin { fun x() { add("implementation", project(":lib")) } }'

    for_one = await running(BUILD | {"build.gradle": script}, "core/ui/A.java")
    for_all = await running(BUILD | {"buildSrc/src/main/kotlin/FeaturePlugin.kt": plugin}, "lib/A.java")

    assert for_one == {UI, LIB}
    assert for_all == {APP, STORE, UI, LIB}


async def test_included_builds_are_built_by_themselves_and_concern_all() -> None:
    """Plugins of the build come from there."""
    files = BUILD | {
        "settings.gradle.kts": BUILD["settings.gradle.kts"] + '\npluginManagement { includeBuild("build-logic") }',
        "build-logic/settings.gradle.kts": 'include(":convention")',
        "build-logic/convention/build.gradle.kts": "plugins { `kotlin-dsl` }",
    }

    jobs = await jobs_of(files, programs=("gradlew",))

    name = "gradle-test (build-logic/convention)"
    assert commands(jobs[name]) == [("build-logic", "../gradlew --no-daemon :convention:build")]
    assert await running(files, "build-logic/convention/src/X.kt") == {name, APP, STORE, UI, LIB}
    assert await running(files, "lib/A.kt") == {LIB}


async def test_projects_are_where_the_settings_move_them() -> None:
    """Also when the directory is one that is left out otherwise: it is declared."""
    text = 'include(":a", ":b")\nproject(":a").projectDir = file("examples/a")\n'
    text += "project(':b').projectDir = new File(rootDir, 'libs/b')"
    files = {"settings.gradle": text, "examples/a/build.gradle": "plugins { id 'java' }", "libs/b/b.gradle": "x"}

    jobs = await jobs_of(files)

    assert commands(jobs["gradle-test (examples/a)"]) == [(".", "gradle --no-daemon :a:build")]
    assert commands(jobs["gradle-test (libs/b)"]) == [(".", "gradle --no-daemon :b:build")]


async def test_android_is_checked_instead_of_built() -> None:
    """`build` would make the release of every variant; `check` runs lint and all unit tests."""
    files = {"settings.gradle": "include ':app'", "app/build.gradle": "plugins { id 'com.android.application' }"}

    assert commands((await jobs_of(files))["gradle-test (app)"]) == [(".", "gradle --no-daemon :app:check")]


async def test_directories_that_only_hold_projects_have_nothing_to_run() -> None:
    """`include(":core:ui")` makes a project `:core`, which has no task of that name."""
    files = BUILD | {"core/build.gradle": ""}

    assert "gradle-test (core)" not in await jobs_of(files)
    assert await running(files, "core/shared.xml") == {APP, STORE, UI}


@pytest.mark.parametrize(
    "text",
    [
        "include '../../outside', '/etc'",
        'includeBuild("..")\nincludeBuild(".")\nincludeBuild("/")',
        'include(":a")\nproject(":a").projectDir = file("../../../x")',
        "include(" * 5_000,
        "project(" * 5_000,
        "{" * 10_000,
        "/*" * 100_000,
        '"' * 100_001,
        "'" + "\\" * 100_000,
        'include(":a`; rm -rf /")',
        "\0\ud83d".encode("utf-8", "surrogatepass").decode("utf-8", "replace"),
    ],
)
async def test_a_hostile_script_ends_without_a_crash(text: str) -> None:
    """Nothing is executed, nothing outside of the repository is named, and what a shell reads is quoted."""
    files = {"settings.gradle": text, "build.gradle": text, "lib/build.gradle": text}

    jobs = await jobs_of(files)

    assert all(not step.workdir.startswith(("..", "/")) for job in jobs.values() for step in job.steps)
    assert all("`" not in step.run or "'" in step.run for job in jobs.values() for step in job.steps)


def test_a_script_with_calls_inside_each_other_costs_its_length() -> None:
    """Every unclosed call would look through all the rest otherwise."""
    looked_at = 0

    class Counted(list):  # type: ignore[type-arg]
        def __getitem__(self, key):  # type: ignore[no-untyped-def]
            nonlocal looked_at
            looked_at += 1 if isinstance(key, int) else len(range(*key.indices(len(self))))
            return super().__getitem__(key)

    stream = Counted(tokens("project(" * 2_000))
    with mock.patch("deltaci.planner.discovery.gradle_script.tokens", return_value=stream):
        script = read_script("")

    assert script.is_dynamic
    assert looked_at < 100 * len(stream)


@pytest.mark.slow
def test_two_thousand_projects_are_read_once_each_and_looked_up_by_path() -> None:
    """No loop over all projects for each: what is done grows with what is written."""
    count = 2_000
    files = {"settings.gradle": "\n".join(f"include ':g{index // 50}:m{index}'" for index in range(count))}
    for index in range(count):
        needed = f"api project(':g{(index - 1) // 50}:m{index - 1}')" if index else ""
        files[f"g{index // 50}/m{index}/build.gradle"] = f"plugins {{ id 'java' }}\ndependencies {{ {needed} }}"

    with mock.patch.object(gradle, "read_script", side_effect=gradle.read_script) as read:
        projects = discovered(files)

    assert len(projects) == count + 1
    assert read.call_count == count
    assert projects["g0/m7"].depends_on_roots == {"g0/m6"}
    assert sum(len(project.reads) for project in projects.values()) <= 10 * count
