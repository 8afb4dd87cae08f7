"""Maven without a configuration: reactors module by module, and poms that want to do harm."""

from unittest import mock

import pytest

from deltaci.planner.discovery import maven, maven_pom
from deltaci.planner.errors import PlanFailed
from tests.planner.discovery.planning import commands, discovered, jobs_of, plan_of, running

pytestmark = pytest.mark.anyio

OPTIONS = "-B -ntp -Dmaven.repo.local=.m2/repository"


def pom(artifact: str, body: str = "", *, parent: str | None = "root", group: str = "org.x") -> str:
    above = f"<parent><groupId>org.x</groupId><artifactId>{parent}</artifactId></parent>" if parent else ""
    own = "" if parent else f"<groupId>{group}</groupId>"
    text = f"<modelVersion>4.0.0</modelVersion>{above}{own}<artifactId>{artifact}</artifactId>{body}"
    return f'<project xmlns="http://maven.apache.org/POM/4.0.0">{text}</project>'


def needs(*artifacts: str, group: str = "${project.groupId}") -> str:
    each = (f"<dependency><groupId>{group}</groupId><artifactId>{name}</artifactId></dependency>" for name in artifacts)
    return f"<dependencies>{''.join(each)}</dependencies>"


def root(*modules: str, more: str = "") -> str:
    listed = "".join(f"<module>{name}</module>" for name in modules)
    return pom("root", f"<packaging>pom</packaging><modules>{listed}</modules>{more}", parent=None)


REACTOR = {
    "pom.xml": root("core", "app", "web", "bom"),
    "core/pom.xml": pom("core"),
    "app/pom.xml": pom("app", needs("core")),
    "web/pom.xml": pom("web"),
    "bom/pom.xml": pom("bom", "<packaging>pom</packaging>"),
}


async def test_a_module_is_verified_alone_after_what_it_needs_is_built_without_tests() -> None:
    """What it needs has a job of its own, which runs its tests if the change touches it."""
    jobs = await jobs_of(REACTOR)

    assert sorted(jobs) == ["maven-build (bom)", "maven-test (app)", "maven-test (core)", "maven-test (web)"]
    assert commands(jobs["maven-test (core)"]) == [(".", f"mvn {OPTIONS} -pl core -am verify")]
    assert commands(jobs["maven-test (app)"]) == [
        (".", f"mvn {OPTIONS} -pl app -am -DskipTests install"),
        (".", f"mvn {OPTIONS} -pl app verify"),
    ]
    assert jobs["maven-test (app)"].reports == (
        "app/target/surefire-reports/TEST-*.xml",
        "app/target/failsafe-reports/TEST-*.xml",
    )
    assert jobs["maven-test (app)"].caches[0].paths == (".m2/repository",)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("core/src/main/java/A.java", {"maven-test (core)", "maven-test (app)"}),
        ("web/src/main/java/A.java", {"maven-test (web)"}),
        ("pom.xml", {"maven-build (bom)", "maven-test (app)", "maven-test (core)", "maven-test (web)"}),
        ("config/checks.xml", {"maven-build (bom)", "maven-test (app)", "maven-test (core)", "maven-test (web)"}),
        (".mvn/jvm.config", {"maven-build (bom)", "maven-test (app)", "maven-test (core)", "maven-test (web)"}),
    ],
)
async def test_a_change_runs_the_modules_that_it_touches(path: str, expected: set[str]) -> None:
    """Through coordinates and inheritance; what the aggregator alone owns is everybody's."""
    assert await running(REACTOR, path) == expected


async def test_versions_that_a_parent_manages_are_no_dependencies() -> None:
    """Every parent lists all modules there: all would depend on all."""
    managed = f"<dependencyManagement>{needs('core', 'app', 'web')}</dependencyManagement>"
    files = REACTOR | {"pom.xml": root("core", "app", "web", "bom", more=managed)}

    assert await running(files, "web/a.java") == {"maven-test (web)"}


async def test_what_a_parent_uses_every_module_uses() -> None:
    """Dependencies and the dependencies of plugins are inherited; a used build-tools module is built before."""
    plugin = "<plugin><groupId>a</groupId><artifactId>checkstyle</artifactId>" + needs("bom") + "</plugin>"
    managed = f"<build><pluginManagement><plugins>{plugin}</plugins></pluginManagement></build>"
    files = REACTOR | {"pom.xml": root("core", "app", "web", "bom", more=managed)}

    assert await running(files, "bom/checks.xml") == set(await jobs_of(files))


@pytest.mark.parametrize("name", ["examples", "test", "src/modules/x"])
async def test_a_declared_module_is_a_project_wherever_it_is(name: str) -> None:
    """The parent says that it is one; directories of these names are left out otherwise."""
    files = {"pom.xml": root(name), f"{name}/pom.xml": pom("m")}

    plan = await plan_of(files)

    assert [job.name for job in plan.jobs] == [f"maven-test ({name})"]
    assert "left-out" not in {reason.rule for reason in plan.reasons}


async def test_poms_among_sources_are_no_projects() -> None:
    """Archetypes and what plugins are tested with: templates and broken files on purpose."""
    files = REACTOR | {"core/src/it/a/pom.xml": "<", "core/src/main/resources/archetype-resources/pom.xml": "${x}"}

    assert set(await jobs_of(files)) == set(await jobs_of(REACTOR))


async def test_the_wrapper_is_used_if_its_file_is_there() -> None:
    """Through sh if nobody made it executable; an old Maven does not know how to be quiet about downloads."""
    properties = "distributionUrl=https://x/org/apache/maven/apache-maven/3.5.4/apache-maven-3.5.4-bin.zip"
    files = {"pom.xml": pom("a", parent=None), "mvnw": "", ".mvn/wrapper/maven-wrapper.properties": properties}

    as_program = await jobs_of(files, programs=("mvnw",))
    as_text = await jobs_of(files)

    run = "./mvnw -B -Dmaven.repo.local=.m2/repository verify"
    assert commands(as_program["maven-test"]) == [(".", run)]
    assert commands(as_text["maven-test"]) == [(".", f"sh {run}")]
    assert discovered(files)["."].tools == {"maven": "3.5.4"}


async def test_a_reactor_installs_what_it_needs_from_another_one_first() -> None:
    """A sample that no aggregator lists still builds against the library beside it."""
    files = REACTOR | {"client/pom.xml": pom("client", needs("app", group="org.x"), parent=None)}

    jobs = await jobs_of(files)

    assert commands(jobs["maven-test (client)"]) == [
        (".", f"mvn {OPTIONS} -pl app -am -DskipTests install"),
        ("client", "mvn -B -ntp -Dmaven.repo.local=../.m2/repository verify"),
    ]
    assert "maven-test (client)" in await running(files, "core/a.java")


async def test_a_module_of_a_profile_is_built_with_it() -> None:
    """Without the profile Maven does not find the module; signing needs keys that nobody has."""
    signing = "<build><plugins><plugin><artifactId>maven-gpg-plugin</artifactId></plugin></plugins></build>"
    profile = f"<profile><id>dist</id><modules><module>dist</module></modules>{signing}</profile>"
    files = {"pom.xml": root("core", more=f"<profiles>{profile}</profiles>"), "core/pom.xml": pom("core")}
    files["dist/pom.xml"] = pom("dist")

    jobs = await jobs_of(files)

    assert commands(jobs["maven-test (dist)"]) == [(".", f"mvn {OPTIONS} -P dist -Dgpg.skip -pl dist -am verify")]


async def test_versions_that_only_the_reactor_knows_are_built_in_it() -> None:
    """An installed pom with ${revision} cannot be resolved again."""
    version = "<version>${revision}</version>"
    files = REACTOR | {"pom.xml": root("core", "app", "web", "bom", more=version)}

    jobs = await jobs_of(files)

    assert commands(jobs["maven-test (app)"]) == [(".", f"mvn {OPTIONS} -pl app -am verify")]
    assert jobs["maven-test (app)"].reports[0] == "**/target/surefire-reports/TEST-*.xml"


@pytest.mark.parametrize("name", ["gone", "${dir}", "../../outside", "/etc", "a\n$(id)"])
async def test_an_aggregator_with_modules_that_are_not_seen_runs_them_all(name: str) -> None:
    """Submodules, computed names, paths out of the repository: Maven will tell; success must not come from silence."""
    files = {"pom.xml": root("core", name), "core/pom.xml": pom("core")}

    jobs = await jobs_of(files)

    assert commands(jobs["maven-test"]) == [(".", f"mvn {OPTIONS} verify")]
    assert await running(files, "core/a.java") == {"maven-test", "maven-test (core)"}


@pytest.mark.parametrize(
    "body",
    [needs("${what}"), needs("app", group="${no.such}")],
)
async def test_a_dependency_that_cannot_be_told_may_be_any_that_fits(body: str) -> None:
    """Uncertainty expands."""
    files = REACTOR | {"web/pom.xml": pom("web", body)}

    assert "maven-test (web)" in await running(files, "app/a.java")


async def test_modules_that_declare_each_other_in_a_circle_end() -> None:
    """Maven refuses them, and its words are better than a plan that never comes."""
    files = {
        "a/pom.xml": pom("a", "<packaging>pom</packaging><modules><module>../b</module></modules>", parent="b"),
        "b/pom.xml": pom("b", "<packaging>pom</packaging><modules><module>../a</module></modules>", parent="a"),
    }

    plan = await plan_of(files)

    assert {project.id for project in plan.projects} == {"maven:a", "maven:b"}


def test_the_version_of_java_comes_from_version_managers_or_the_pom() -> None:
    """It is part of the keys of caches."""
    release = "<maven.compiler.release>${java.version}</maven.compiler.release>"
    release = f"<properties><java.version>17</java.version>{release}</properties>"
    files = {"pom.xml": root("a", more=release), "a/pom.xml": pom("a")}

    from_pom = discovered(files)["a"].tools
    from_file = discovered(files | {".sdkmanrc": "# x\njava=21.0.1-tem\n"})["a"].tools

    assert from_pom == {"java": "17"}
    assert from_file == {"java": "21.0.1-tem"}


BOMB = (
    '<?xml version="1.0"?>\n<!DOCTYPE x [\n<!ENTITY a "aaaa">\n<!ENTITY b "&a;&a;&a;&a;">\n]>\n<project>&b;</project>'
)
EXTERNAL = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><project>&a;</project>'


@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, "pom.xml:2:1: this XML cannot be read: it declares entities"),
        (EXTERNAL, "pom.xml:1:1: this XML cannot be read: it declares entities"),
        ("<project>\n<a></b>", "pom.xml:2:"),
        ("<project>" + "<a>" * 1000, "inside each other"),
        ("<project>" + "<a/>" * 60_000, "more than 50000 elements"),
        ('<?xml version="1.0" encoding="no-such"?><project/>', "pom.xml:1:"),
        ("<html/>", "a pom has one <project>, this has <html>"),
        ("", "pom.xml:1:"),
        (b"\xff\xfe\x00", "pom.xml:1:"),
        (b"<project>\xff</project>", "pom.xml:1:"),
    ],
)
async def test_a_pom_that_cannot_be_read_fails_the_plan_with_file_and_line(text: str | bytes, part: str) -> None:
    """Going on without it would report success for modules that nobody built."""
    with pytest.raises(PlanFailed) as caught:
        await plan_of({"pom.xml": text})

    assert part in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-16", "iso-8859-1", "gb2312", "windows-1252"])
async def test_a_pom_may_be_written_in_any_usual_encoding(encoding: str) -> None:
    """XML says which it is."""
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + pom("a", "<name>Zwölf</name>", parent=None)
    data = text.replace("ö", "o" if encoding == "gb2312" else "ö").encode(encoding)

    assert "maven-test" in await jobs_of({"pom.xml": data})


async def test_a_long_chain_of_parents_and_growing_properties_end() -> None:
    """A module of it is taken to depend on all; a property that fills itself in is not filled in for ever."""
    deep = "a/" * 40
    files = {f"{'a/' * depth}pom.xml": pom(f"p{depth}", parent=f"p{depth - 1}") for depth in range(1, 41)}
    files["pom.xml"] = pom("p0", parent=None)
    grows = "<properties><x>${x}${x}${x}</x></properties>" + needs("p1", group="${x}")
    files["b/pom.xml"] = pom("b", grows, parent=None)

    projects = discovered(files)

    assert "a" in projects["b"].depends_on_roots
    assert projects[deep.rstrip("/")].jobs[0].steps


@pytest.mark.slow
def test_two_thousand_modules_are_parsed_once_each_and_looked_up_by_name() -> None:
    """No loop over all modules for each: what is done grows with what is written."""
    count = 2_000
    files = {"pom.xml": root(*(f"m{index}" for index in range(count)))}
    for index in range(count):
        files[f"m{index}/pom.xml"] = pom(f"m{index}", needs(f"m{index - 1}") if index else "")

    with (
        mock.patch.object(maven, "parse_pom", side_effect=maven.parse_pom) as parsed,
        mock.patch.object(maven, "resolved", side_effect=maven_pom.resolved) as filled_in,
    ):
        projects = discovered(files)

    assert len(projects) == count + 1
    assert parsed.call_count == count + 1
    assert filled_in.call_count <= 2 * count
    assert projects["m7"].depends_on_roots == {"m6"}
    assert sum(len(project.reads) for project in projects.values()) <= 5 * count
