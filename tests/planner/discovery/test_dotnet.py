""".NET without a configuration: test projects, references, what MSBuild imports, and files that want to do harm."""

from unittest import mock

import pytest

from deltaci.planner.discovery import dotnet
from deltaci.planner.errors import PlanFailed
from tests.planner.discovery.planning import commands, discovered, jobs_of, plan_of, running

pytestmark = pytest.mark.anyio

TEST_SDK = '<PackageReference Include="Microsoft.NET.Test.Sdk" />'


def sdk(body: str = "") -> str:
    return f'<Project Sdk="Microsoft.NET.Sdk"><ItemGroup>{body}</ItemGroup></Project>'


def refers(*targets: str) -> str:
    return "".join(f'<ProjectReference Include="{target}" />' for target in targets)


def solution(*paths: str) -> str:
    each = (f'Project("{{FAE04EC0}}") = "P", "{path}", "{{1}}"\nEndProject' for path in paths)
    return "\ufeff\nMicrosoft Visual Studio Solution File\n" + "\n".join(each)


SOLUTION = {
    "All.sln": solution(r"src\Core\Core.csproj"),
    "Directory.Build.props": "<Project />",
    "src/Core/Core.csproj": sdk(),
    "src/Web/Web.fsproj": sdk(refers(r"..\core\Core.csproj")),
    "src/Other/Other.vbproj": sdk(),
    "test/Core.Tests/Core.Tests.csproj": sdk(TEST_SDK + refers(r"..\..\src\Core\Core.csproj")),
}
CORE, WEB, OTHER = (f"dotnet-build (src/{name})" for name in ("Core", "Web", "Other"))
TESTS = "dotnet-test (test/Core.Tests)"


async def test_test_projects_are_tested_and_the_others_built() -> None:
    """In a directory called test as well: in this ecosystem that is where the tests of a repository are."""
    plan = await plan_of(SOLUTION)
    jobs = {job.name: job for job in plan.jobs}

    assert set(jobs) == {CORE, WEB, OTHER, TESTS}
    assert commands(jobs[WEB]) == [
        (".", "dotnet restore src/Web/Web.fsproj --packages .nuget/packages"),
        (".", "dotnet build src/Web/Web.fsproj --no-restore"),
    ]
    assert commands(jobs[TESTS])[1] == (".", "dotnet test test/Core.Tests/Core.Tests.csproj --no-restore")
    assert jobs[TESTS].reports == ()
    assert jobs[TESTS].caches[0].paths == (".nuget/packages",)
    assert "left-out" not in {reason.rule for reason in plan.reasons}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("src/Core/A.cs", {CORE, WEB, TESTS}),
        ("src/Web/A.fs", {WEB}),
        ("test/Core.Tests/A.cs", {TESTS}),
        ("Directory.Build.props", {CORE, WEB, OTHER, TESTS}),
    ],
)
async def test_a_change_runs_the_projects_that_it_touches(path: str, expected: set[str]) -> None:
    """References are followed in whatever case they are written."""
    assert await running(SOLUTION, path) == expected


@pytest.mark.parametrize(
    ("body", "name", "is_test"),
    [
        (sdk(TEST_SDK), "A", True),
        ('<Project Sdk="MSTest.Sdk/3.6.0" />', "A", True),
        (sdk("<PackageReference Include='xunit.v3'/>"), "A", True),
        (
            "<Project><PropertyGroup Sdk=''><TargetFramework>net8.0</TargetFramework></PropertyGroup></Project>",
            "A",
            False,
        ),
        (sdk(), "A.Tests", True),
        (sdk(), "A.Specs", True),
        (sdk(), "Contest", False),
        (
            sdk().replace(
                "</ItemGroup>", "</ItemGroup><PropertyGroup><IsTestProject>false</IsTestProject></PropertyGroup>"
            ),
            "A.Tests",
            False,
        ),
    ],
)
async def test_a_test_project_is_one_that_says_so(body: str, name: str, is_test: bool) -> None:
    """By its packages, its SDK, its property or its name, for packages may come from files above."""
    jobs = await jobs_of({f"x/{name}.csproj": body})

    assert list(jobs) == [f"dotnet-{'test' if is_test else 'build'} (x)"]


async def test_junit_reports_are_expected_only_where_a_logger_for_them_is_referenced() -> None:
    """Also if a file above the tests refers to it for all of them."""
    logger = sdk('<PackageReference Include="JunitXml.TestLogger" />')

    jobs = await jobs_of(SOLUTION | {"test/Directory.Build.props": logger})

    assert commands(jobs[TESTS])[1][1].endswith(" --no-restore --logger junit")
    assert jobs[TESTS].reports == ("test/Core.Tests/TestResults/**/*.xml",)


async def test_what_the_tests_of_a_repository_share_makes_them_test_projects() -> None:
    """The test SDK in a file that all in the directory import; one at the root says nothing of any of them."""
    shared = f"<Project><ItemGroup>{TEST_SDK}</ItemGroup></Project>"
    files = {"src/A/A.csproj": sdk(), "test/A.Integrated/A.Integrated.csproj": sdk()}

    assert set(await jobs_of(files | {"test/Directory.Build.props": shared})) == {
        "dotnet-build (src/A)",
        "dotnet-test (test/A.Integrated)",
    }
    assert set(await jobs_of(files | {"Directory.Build.props": shared})) == {
        "dotnet-build (src/A)",
        "dotnet-build (test/A.Integrated)",
    }


async def test_benchmarks_are_built_but_not_run() -> None:
    """Even where they are written as tests; a test project that only happens to have the package is still one."""
    both = sdk(TEST_SDK + '<PackageReference Include="BenchmarkDotNet" />')

    jobs = await jobs_of({"a/PerformanceTests.csproj": both, "b/Unit.Tests.csproj": both})

    assert set(jobs) == {"dotnet-build (a)", "dotnet-test (b)"}


async def test_a_lock_file_is_enforced_if_all_that_is_restored_with_it_has_one() -> None:
    """Locked mode holds for the referenced projects too, and fails for those without a lock file."""
    alone = SOLUTION | {"src/Web/packages.lock.json": ""}
    whole = alone | {"src/Core/packages.lock.json": ""}

    assert "--locked-mode" not in commands((await jobs_of(alone))[WEB])[0][1]
    assert commands((await jobs_of(whole))[WEB])[0][1].endswith(" --packages .nuget/packages --locked-mode")
    assert discovered(whole)["src/Web"].lock == "src/Web/packages.lock.json"


@pytest.mark.parametrize(
    "more",
    [
        {"All.sln": solution(r"samples\S\S.csproj")},
        {"All.sln": solution(r"samples\S\S.csproj").encode("utf-16")},
        {"All.slnx": '<Solution><Folder Name="/s/"><Project Path="samples/S/S.csproj" /></Folder></Solution>'},
        {"src/A/A.csproj": sdk(refers(r"..\..\samples\S\S.csproj"))},
    ],
)
async def test_what_a_solution_lists_or_a_project_refers_to_is_a_project(more: dict[str, str]) -> None:
    """Samples are left out unless somebody counts on them."""
    files = {"samples/S/S.csproj": sdk(), "samples/T/T.csproj": "<"}

    assert await jobs_of(files) == {}
    assert "dotnet-build (samples/S)" in await jobs_of(files | more)


async def test_what_only_looks_like_a_project_is_no_obstacle() -> None:
    """Among the tests of a program that colours sources, say; of a project of the repository the plan fails."""
    odd = {"tests/highlighted/a.csproj": "\x1b[38m<Project>", "tests/highlighted/b.slnx": "\x1b[38m<Solution>"}

    assert list(await jobs_of({"src/A/A.csproj": sdk(), **odd})) == ["dotnet-build (src/A)"]
    assert await jobs_of({"tests/sources/a.csproj": sdk(), **odd}) == {}
    assert await jobs_of({"contrib/a.csproj": "<VisualStudioProject>\n  <CSHARP/>\n</VisualStudioProject>"}) == {}
    assert list(await jobs_of({"A.sln": solution("tests/A/A.csproj"), "tests/A/A.csproj": sdk()})) == [
        "dotnet-build (tests/A)"
    ]
    with pytest.raises(PlanFailed, match=r"src/A/A\.csproj:1:1: this XML cannot be read"):
        await jobs_of({"src/A/A.csproj": "\x1b[38m<Project>"})


async def test_projects_in_one_directory_are_one_project_with_a_command_for_each() -> None:
    """`dotnet build` alone would refuse to choose."""
    jobs = await jobs_of({"A.csproj": sdk(), "A.Tests.csproj": sdk(TEST_SDK)})

    assert [run for _, run in commands(jobs["dotnet-test"])] == [
        "dotnet restore A.Tests.csproj --packages .nuget/packages",
        "dotnet test A.Tests.csproj --no-restore",
        "dotnet restore A.csproj --packages .nuget/packages",
        "dotnet build A.csproj --no-restore",
    ]


async def test_files_from_elsewhere_concern_who_includes_them() -> None:
    """Shared sources, imported files and shared projects; the rest of their neighbours do not."""
    body = r'<Compile Include="..\Core\Shared\**\*.cs" /><Import Project="..\Other\Other.projitems" Label="Shared" />'
    files = SOLUTION | {"src/Web/Web.fsproj": sdk(body)}

    assert await running(files, "src/Core/Shared/A.cs") == {CORE, WEB, TESTS}
    assert await running(files, "src/Other/X.vb") == {OTHER, WEB}
    assert await running(files, "src/Core/A.cs") == {CORE, TESTS}


@pytest.mark.parametrize(
    "body",
    [
        refers(r"..\**\*.csproj"),
        refers("@(All)"),
        refers("$(Everything)"),
        refers("$(Root)$([X]::Y(1))/A.csproj"),
        '<Compile Include="$(SharedSources)*.cs" />',
    ],
)
async def test_a_reference_that_cannot_be_told_may_be_any(body: str) -> None:
    """Uncertainty expands."""
    files = SOLUTION | {"src/Other/Other.vbproj": sdk(body)}

    assert OTHER in await running(files, "src/Web/A.fs")


async def test_a_reference_through_a_property_is_found_by_its_end() -> None:
    """`$(RepoRoot)` is what large repositories write everywhere."""
    files = SOLUTION | {"src/Other/Other.vbproj": sdk(refers(r"$(RepoRoot)src\Core\Core.csproj"))}

    assert discovered(files)["src/Other"].depends_on_roots == {"src/Core"}


async def test_references_that_a_file_above_adds_count_for_all_below() -> None:
    """Analyzers are referred to by all projects, in one place."""
    targets = sdk(refers(r"$(MSBuildThisFileDirectory)Other\Other.vbproj"))

    projects = discovered(SOLUTION | {"src/Directory.Build.targets": targets})

    assert "src/Other" in projects["src/Web"].depends_on_roots
    assert "src/Other" not in projects["test/Core.Tests"].depends_on_roots


def test_the_sdk_comes_from_global_json_or_the_framework() -> None:
    """Comments are allowed there; a file that is none of it harms nobody."""
    own = {
        "A.csproj": sdk("<TargetFramework>net8.0</TargetFramework>"),
    }

    assert discovered(own)["."].tools == {"dotnet": "net8.0"}
    assert discovered(own | {"global.json": '{ // c\n"sdk": {"version": "9.0.100"} }'})["."].tools == {
        "dotnet": "9.0.100"
    }
    assert discovered(own | {"global.json": "[" * 100_000})["."].tools == {"dotnet": "net8.0"}


async def test_the_newer_test_platform_is_called_its_own_way() -> None:
    """Since SDK 10 it is chosen in global.json, and takes the project by an option."""
    jobs = await jobs_of(
        {"A.csproj": sdk(TEST_SDK), "global.json": '{"test": {"runner": "Microsoft.Testing.Platform"}}'}
    )

    assert commands(jobs["dotnet-test"])[1][1] == "dotnet test --project A.csproj --no-restore"


async def test_projects_for_the_framework_are_built_with_msbuild() -> None:
    """The command line tools cannot build what names no SDK."""
    jobs = await jobs_of({"A.csproj": '<Project ToolsVersion="15.0" />', "packages.config": ""})

    assert commands(jobs["dotnet-build"]) == [(".", "msbuild A.csproj -restore -p:RestorePackagesConfig=true")]


BOMB = '<!DOCTYPE x [\n<!ENTITY a "aa">\n<!ENTITY b "&a;&a;">\n]>\n<Project>&b;</Project>'


@pytest.mark.parametrize("name", ["A.csproj", "Directory.Build.props"])
@pytest.mark.parametrize(
    ("text", "part"),
    [
        (BOMB, ":1:1: this XML cannot be read: it declares entities"),
        ("<Project>\n<a></b>", ":2:"),
        ("<Project>" + "<a>" * 1000, "inside each other"),
        ("<html/>", "a project file has one <Project>, this has <html>"),
        (b"\xff\xfe\x00", ":1:"),
    ],
)
async def test_a_file_that_cannot_be_read_fails_the_plan_with_file_and_line(
    name: str, text: str | bytes, part: str
) -> None:
    """Going on without it would report success for what nobody built."""
    with pytest.raises(PlanFailed) as caught:
        await plan_of({"A.csproj": sdk(), name: text})

    assert str(caught.value).startswith(f"{name}:")
    assert part in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        refers("../../../etc/passwd", "/etc/x.csproj", "..", ".", "", "\u0007.csproj".replace("\u0007", "")),
        refers("B/B.csproj", "A.csproj"),
        '<Import Project="../../x.props" /><Import Project="A.csproj" /><Import Project="" />',
        '<Import Project="loop.props" />',
        '<Compile Include="../../**" /><None Include="/;..;../" />',
    ],
)
async def test_paths_out_of_the_repository_and_circles_end(body: str) -> None:
    """They mean nothing here; the tools will say so."""
    files = {"A.csproj": sdk(body), "B/B.csproj": sdk(refers("../A.csproj"))}
    files["loop.props"] = '<Project><Import Project="loop.props" /></Project>'

    projects = discovered(files)

    assert set(projects) == {".", "B"}
    assert all(not path.startswith(("..", "/")) for each in projects.values() for path in each.reads)


async def test_names_are_quoted_for_the_shell() -> None:
    """A file name is not a command."""
    jobs = await jobs_of({"a/$(id) `x`.csproj": sdk(), "b/-o.csproj": sdk()})

    assert commands(jobs["dotnet-build (a)"])[1][1] == "dotnet build 'a/$(id) `x`.csproj' --no-restore"


@pytest.mark.slow
def test_two_thousand_projects_are_parsed_once_each_and_looked_up_by_path() -> None:
    """No loop over all projects for each: what is done grows with what is written."""
    count = 2_000
    files = {"a.sln": "", "Directory.Build.props": "<Project />"}
    for index in range(count):
        reference = refers(f"..\\p{index - 1}\\p{index - 1}.csproj") if index else ""
        files[f"src/p{index}/p{index}.csproj"] = sdk(reference)

    with mock.patch.object(dotnet, "parse_xml", side_effect=dotnet.parse_xml) as parsed:
        projects = discovered(files)

    assert len(projects) == count
    assert parsed.call_count == count + 1
    assert projects["src/p7"].depends_on_roots == {"src/p6"}
    assert sum(len(project.reads) for project in projects.values()) <= 2 * count


async def test_what_a_solution_shows_of_hidden_directories_is_no_project() -> None:
    """Some list those files as a project, so that they can be opened beside the others."""
    files = {
        "All.slnx": '<Solution><Project Path=".github/.github.csproj" /><Project Path="a/A.csproj" /></Solution>',
        ".github/.github.csproj": sdk(),
        "a/A.csproj": sdk(),
    }

    assert list(await jobs_of(files)) == ["dotnet-build (a)"]


async def test_what_is_left_from_before_the_tools_of_today_is_no_project() -> None:
    """In no solution, and nothing refers to it: nobody builds it. Without a solution nobody can tell."""
    old = "<Project ToolsVersion='4.0'><ItemGroup /></Project>"
    files = {"Old/Old.csproj": old, "Used/Used.csproj": old, "a/A.csproj": sdk(refers(r"..\Used\Used.csproj"))}

    assert list(await jobs_of(files | {"All.sln": solution(r"a\A.csproj")})) == [
        "dotnet-build (Used)",
        "dotnet-build (a)",
    ]
    assert "dotnet-build (Old)" in await jobs_of(files)
