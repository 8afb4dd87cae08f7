"""Go: modules, the workspaces that list them, and what takes their place."""

import random
import time

import pytest

from deltaci.planner.errors import PlanFailed
from tests.planner.discovered import job_of, projects_of, runs_of

KEEP = 'go env -w GOCACHE="$PWD/.cache/go-build" GOMODCACHE="$PWD/.cache/go-mod"'


def test_a_module_is_vetted_built_and_tested_with_its_caches_in_the_checkout() -> None:
    """The three commands of every Go project; go itself is told of the caches, since it wants absolute paths."""
    project = projects_of({"svc/go.mod": "module example.com/svc\n", "svc/go.sum": "", "svc/a.go": ""}, "go")["svc"]

    job = job_of(project, "test")
    assert [step.run for step in job.steps] == [KEEP, "go vet ./...", "go build ./...", "go test ./..."]
    assert {step.workdir for step in job.steps} == {"svc"}
    assert job.env == {"CI": "true", "GOENV": ".cache/go.env", "GOFLAGS": "-modcacherw"}
    assert job.caches[0].paths == ("svc/.cache/go-build", "svc/.cache/go-mod")
    assert job.caches[0].inputs == ("svc/go.sum",)
    assert (project.name, project.lock) == ("example.com/svc", "svc/go.sum")


def test_requirements_and_replacements_are_edges() -> None:
    """In every form that go.mod has: blocks, comments, versions on the left, quotes."""
    text = """
module "example.com/app" // the program
require (
    example.com/lib v1.2.3
    github.com/other/thing v0.1.0 // indirect
)
require example.com/single v0.0.0
replace example.com/lib v1.2.3 => ../lib
replace (
    example.com/vendored => ./third_party/vendored
    example.com/moved => example.com/elsewhere v1.0.0
    example.com/forked => ../third_party/forked
)
"""
    files = {"app/go.mod": text, "lib/go.mod": "module example.com/lib", "third_party/forked/go.mod": "module x"}

    app = projects_of(files, "go")["app"]

    assert app.name == "example.com/app"
    assert app.depends_on_roots == {"lib"}
    assert app.depends_on_names == {"example.com/lib", "github.com/other/thing", "example.com/single"}
    assert "third_party/forked" in app.reads
    assert not any(path.startswith("app/") for path in app.reads)


def test_members_of_a_workspace_read_it_and_others_below_it_switch_it_off() -> None:
    """The go command refuses to build a module inside a workspace that does not list it."""
    files = {
        "go.work": "go 1.22.0\ntoolchain go1.23.4\nuse (\n\t./a\n\t./test/e2e\n)\nreplace example.com/x => ./x\n",
        "go.work.sum": "",
        "a/go.mod": "module example.com/a\ngo 1.21\n",
        "x/go.mod": "module example.com/x\ngo 1.20\n",
        "test/e2e/go.mod": "module example.com/e2e\n",
        "test/other/go.mod": "module example.com/other\n",
    }

    projects = projects_of(files, "go")

    a, x = projects["a"], projects["x"]
    assert list(projects) == ["a", "test/e2e", "x"]
    assert {"go.work", "go.work.sum"} <= a.reads
    assert a.depends_on_roots == {"x"}
    assert (a.tools, x.tools) == ({"go": "1.23.4"}, {"go": "1.20"})
    assert "GOWORK" not in job_of(a, "test").env
    assert job_of(x, "test").env["GOWORK"] == "off"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"go.mod": "module m\ngo 1.21.3\ntoolchain go1.22.1-custom\n"}, "1.22.1"),
        ({"go.mod": "module m\ngo 1.23rc1\ntoolchain default\n"}, "1.23rc1"),
        ({"go.mod": "module m\n", ".go-version": "1.20.2\n"}, "1.20.2"),
        ({"go.mod": "module m\n", ".tool-versions": "nodejs 20\ngolang 1.19\n"}, "1.19"),
    ],
)
def test_the_version_of_go_is_told_by_the_repository(files: dict[str, str], expected: str) -> None:
    """The toolchain before the language, both before files of version managers."""
    assert projects_of(files, "go")["."].tools == {"go": expected}


LINTER = "github.com/golangci/golangci-lint"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, "golangci-lint run"),
        ({".tool-versions": "golangci-lint 2.1.6\n"}, f"go run {LINTER}/v2/cmd/golangci-lint@v2.1.6 run"),
        ({".tool-versions": "golangci-lint latest\n"}, "golangci-lint run"),
        (
            {".pre-commit-config.yaml": f"repos:\n  - repo: https://{LINTER}\n    rev: v1.55.2\n"},
            f"go run {LINTER}/cmd/golangci-lint@v1.55.2 run",
        ),
        (
            {
                ".pre-commit-config.yaml": f"repos:\n- repo: https://{LINTER}\n  rev: v1.52.2\n",
                ".golangci.yml": 'version: "2"\nlinters: {}\n',
            },
            "golangci-lint run",
        ),
        (
            {
                ".pre-commit-config.yaml": f"repos:\n- repo: https://{LINTER}\n  rev: v2.1.0\n",
                ".golangci.yml": 'version: "2"\n',
            },
            f"go run {LINTER}/v2/cmd/golangci-lint@v2.1.0 run",
        ),
        ({"go.mod": f"module m\nrequire {LINTER} v1.60.0\n"}, f"go run {LINTER}/cmd/golangci-lint run"),
        (
            {"go.mod": f"module m\ntool {LINTER}/v2/cmd/golangci-lint\nrequire {LINTER}/v2 v2.0.0\n"},
            "go tool golangci-lint run",
        ),
    ],
)
def test_golangci_lint_runs_in_the_version_that_is_asked_for(files: dict[str, str], expected: str) -> None:
    """If none is, the one that the runner has: another one would find other things, or refuse the settings."""
    project = projects_of({"go.mod": "module m\n", ".golangci.yml": "", **files}, "go")["."]

    assert runs_of(project, "lint") == [KEEP, expected]


def test_an_empty_go_mod_only_keeps_go_out_of_a_directory() -> None:
    """A known trick, as in node_modules; one that says something else is a mistake."""
    assert list(projects_of({"go.mod": "module m", "web/go.mod": "// nothing here\n"}, "go")) == ["."]
    with pytest.raises(PlanFailed, match=r"web/go\.mod:1:1: no line 'module <path>'"):
        projects_of({"web/go.mod": "go 1.22\n"}, "go")


def test_a_site_of_hugo_is_a_module_without_packages() -> None:
    """Its go.mod names what the site is made of; the go command would fail for want of anything to vet."""
    site = projects_of({"docs/go.mod": "module example.com/docs\n", "docs/hugo.toml": ""}, "go")["docs"]

    assert site.jobs == ()


def test_vendored_modules_of_a_workspace_concern_its_members() -> None:
    """They are built from there; the modules in it are nobody's projects."""
    files = {"go.work": "use ./a\n", "a/go.mod": "module a\n", "vendor/modules.txt": "", "vendor/x/go.mod": "module x"}

    projects = projects_of(files, "go")

    assert list(projects) == ["a"]
    assert "vendor" in projects["a"].reads


@pytest.mark.slow
def test_whatever_the_files_hold_nothing_but_a_failed_plan_comes_of_it() -> None:
    """Random lines of words that mean something."""
    chance = random.Random(5)
    words = ("module", "go", "use", "replace", "require", "tool", "toolchain", "(", ")", "=>", "..", "../..", "/", "//")
    words += ('"', "`", "a", "\0", "v1", "./a", "\t", "\n", "\n", "\n", "x" * 600, "[", "9" * 400)
    failed = 0
    for _ in range(2_000):
        names = ("go.mod", "a/go.mod", "go.work", ".tool-versions", ".go-version", ".golangci.yml")
        files = {name: " ".join(chance.choices(words, k=chance.randrange(30))) for name in names}
        try:
            projects_of(files, "go")
        except PlanFailed:
            failed += 1

    assert 0 < failed < 2_000


@pytest.mark.slow
def test_two_thousand_modules_of_one_workspace_are_found_in_seconds() -> None:
    """Members are looked up, not searched for; the bound is far above what it takes, for slow machines."""
    files = {"go.work": "use (\n" + "".join(f"\t./m{n}\n" for n in range(2_000)) + ")\n"}
    for n in range(2_000):
        files[f"m{n}/go.mod"] = f"module example.com/m{n}\nrequire example.com/m{n + 1} v0.0.0\n"
        files.update({f"m{n}/f{k}.go": "" for k in range(48)})

    started = time.process_time()
    projects = projects_of(files, "go")

    assert len(projects) == 2_000
    assert time.process_time() - started < 15
