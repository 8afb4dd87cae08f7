"""Rust: crates one by one, with the workspace that cargo would build them in."""

import random
import time

import pytest

from deltaci.planner.errors import PlanFailed
from deltaci.planner.graph import ProjectGraph
from deltaci.planner.impact import Difference, of_projects
from tests.planner.discovered import anything, job_of, projects_of, runs_of, toml


def crate(name: str, rest: str = "") -> str:
    return f'[package]\nname = "{name}"\nversion = "0.1.0"\n{rest}'


def roots_of(files: dict[str, str]) -> list[str]:
    return list(projects_of(files, "rust"))


WORKSPACE = {
    "Cargo.toml": """
[workspace]
members = ["crates/*"]
exclude = ["tools/gen"]
[workspace.package]
rust-version = "1.75"
[workspace.dependencies]
core = { path = "crates/core" }
serde = "1"
""",
    "Cargo.lock": "",
    "crates/core/Cargo.toml": crate("x-core", "rust-version.workspace = true\n"),
    "crates/app/Cargo.toml": crate("x-app", "[dependencies]\ncore.workspace = true\nserde.workspace = true\n"),
    "tools/gen/Cargo.toml": crate("gen"),
}


def test_each_crate_of_a_workspace_is_a_project_tested_from_its_root() -> None:
    """Only what a change touches is built; the lock file and the target directory are shared."""
    projects = projects_of(WORKSPACE, "rust")

    app = projects["crates/app"]
    assert list(projects) == ["crates/app", "crates/core", "tools/gen"]
    assert [(step.run, step.workdir) for step in job_of(app, "test").steps] == [("cargo test -p x-app --locked", ".")]
    assert app.depends_on_roots == {"crates/core"}
    assert app.lock == "Cargo.lock"
    assert {"Cargo.toml", ".cargo/config.toml", "rust-toolchain.toml"} <= app.reads
    assert projects["crates/core"].tools == {"rust": "1.75"}


def test_an_excluded_crate_is_built_where_it_is() -> None:
    """It has its own lock file, or none, and its own target directory."""
    gen = projects_of(WORKSPACE, "rust")["tools/gen"]

    assert [(step.run, step.workdir) for step in job_of(gen, "test").steps] == [("cargo test", "tools/gen")]
    assert gen.lock is None
    assert {path for rule in job_of(gen, "test").caches for path in rule.paths} == {
        "tools/gen/target",
        "tools/gen/.cache/cargo/registry",
        "tools/gen/.cache/cargo/git",
    }


def test_caches_follow_the_lock_file_and_the_toolchain() -> None:
    """The downloads are shared by the crates of a workspace; what was built is each crate's own."""
    app, core = (job_of(projects_of(WORKSPACE, "rust")[f"crates/{name}"], "test") for name in ("app", "core"))

    assert app.caches[0] == core.caches[0]
    assert app.caches[0].inputs == ("Cargo.lock", "rust-toolchain", "rust-toolchain.toml")
    assert app.caches[1].paths == ("target",)
    assert app.caches[1].inputs != core.caches[1].inputs


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"rustfmt.toml": ""}, ["cargo fmt --check -p x-app"]),
        ({"clippy.toml": ""}, ["cargo clippy -p x-app --all-targets --locked"]),
        ({"crates/app/.rustfmt.toml": ""}, ["cargo fmt --check -p x-app"]),
        (
            {"Cargo.toml": WORKSPACE["Cargo.toml"] + "[workspace.lints.clippy]\nall = 'warn'"},
            ["cargo clippy -p x-app --all-targets --locked"],
        ),
        (
            {"crates/app/Cargo.toml": crate("x-app", "[lints.clippy]\nall = 'warn'")},
            ["cargo clippy -p x-app --all-targets --locked"],
        ),
    ],
)
def test_clippy_and_rustfmt_run_where_they_are_configured(files: dict[str, str], expected: list[str]) -> None:
    """In the crate or above it, as the tools themselves look for it."""
    assert runs_of(projects_of({**WORKSPACE, **files}, "rust")["crates/app"], "lint") == expected


def test_no_linter_runs_that_nobody_configured() -> None:
    """A repository that was never formatted would only ever be red."""
    assert [job.check for job in projects_of(WORKSPACE, "rust")["crates/app"].jobs] == ["test"]


def test_the_root_package_of_a_workspace_is_one_of_its_members() -> None:
    """As in ripgrep: the program at the root, its libraries below."""
    files = {
        "Cargo.toml": crate("rg", "[workspace]\nmembers = ['crates/a']\n[dependencies]\na = {path = 'crates/a'}\n"),
        "crates/a/Cargo.toml": crate("a"),
    }

    projects = projects_of(files, "rust")

    assert runs_of(projects["."], "test") == ["cargo test -p rg"]
    assert projects["."].depends_on_roots == {"crates/a"}


def test_members_are_projects_wherever_they_are() -> None:
    """tokio has examples and tests as members; others of these directories stay left out."""
    files = {
        "Cargo.toml": "[workspace]\nmembers = ['tokio', 'examples', 'tests/*']\ndefault-members = ['tokio']",
        "tokio/Cargo.toml": crate("tokio"),
        "examples/Cargo.toml": crate("examples"),
        "tests/a/Cargo.toml": crate("a"),
        "tests/a/deep/Cargo.toml": "not TOML",
        "fuzz/Cargo.toml": "[neither",
    }

    assert roots_of(files) == ["examples", "tests/a", "tokio"]


def test_what_members_depend_on_by_path_is_a_member_too() -> None:
    """In every table of dependencies, and on from there; a glob alone does not reach below what it matches."""
    files = {
        "Cargo.toml": "[workspace]\nmembers = ['a']\n",
        "a/Cargo.toml": crate("a", "[dev-dependencies]\nb = {path = '../b'}\n[target.'cfg(unix)'.dependencies]\n")
        + "c = {path = '../libs/c'}\n",
        "b/Cargo.toml": crate("b", "[build-dependencies]\nd = {path = '../vendor/d'}\n"),
        "libs/c/Cargo.toml": crate("c"),
        "vendor/d/Cargo.toml": crate("d"),
        "stray/Cargo.toml": crate("stray"),
    }

    projects = projects_of(files, "rust")

    assert list(projects) == ["a", "b", "libs/c", "vendor/d"]
    assert projects["a"].depends_on_roots == {"b", "libs/c"}
    assert runs_of(projects["vendor/d"], "test") == ["cargo test -p d"]


def test_a_crate_that_cargo_refuses_is_no_project_unless_it_is_its_own_workspace() -> None:
    """Its files belong to nobody then, which runs everything, instead of to a job that can only fail."""
    files = {
        "Cargo.toml": "[workspace]\nmembers = ['a']",
        "a/Cargo.toml": crate("a"),
        "stray/Cargo.toml": crate("stray"),
        "own/Cargo.toml": crate("own", "[workspace]\n"),
    }

    assert roots_of(files) == ["a", "own"]


def test_exclude_wins_over_globs_and_dependencies_but_not_over_names() -> None:
    """A crate that is excluded is built by itself; one that `members` names is a member in spite of `exclude`."""
    files = {
        "Cargo.toml": "[workspace]\nmembers = ['crates/*', 'tools/in']\nexclude = ['crates/b', 'tools', 'c']",
        "crates/a/Cargo.toml": crate("a", "[dependencies]\nc = {path = '../../c'}\n"),
        "crates/b/Cargo.toml": crate("b"),
        "tools/in/Cargo.toml": crate("in"),
        "tools/out/Cargo.toml": crate("out"),
        "c/Cargo.toml": crate("c"),
    }

    projects = projects_of(files, "rust")

    assert {root: runs_of(project, "test")[0] for root, project in projects.items()} == {
        "c": "cargo test",
        "crates/a": "cargo test -p a",
        "crates/b": "cargo test",
        "tools/in": "cargo test -p in",
        "tools/out": "cargo test",
    }
    assert projects["crates/a"].depends_on_roots == {"c"}


def test_what_is_in_a_workspace_and_in_none_of_its_crates_runs_all_of_them() -> None:
    """The root of a virtual workspace is no project: as one without a job, it would take changes and run nothing."""
    graph = ProjectGraph(tuple(projects_of({**WORKSPACE, "stray/Cargo.toml": crate("stray")}, "rust").values()))

    for path in ("stray/src/lib.rs", "proto/a.proto", "Cargo.toml"):
        touched, _ = of_projects(graph, Difference(paths=(path,)))

        assert {"crates/app", "crates/core"} <= {graph.projects[index].root for index in touched}
    touched, _ = of_projects(graph, Difference(paths=("crates/app/src/lib.rs",)))
    assert [graph.projects[index].root for index in touched] == ["crates/app"]


def test_a_path_outside_of_every_project_is_read() -> None:
    """Vendored sources beside a crate concern it, though nobody tests them."""
    files = {"a/Cargo.toml": crate("a", "[dependencies]\nx = {path = '../third_party/x'}\n")}
    files["third_party/x/Cargo.toml"] = crate("x")

    assert "third_party/x" in projects_of(files, "rust")["a"].reads


def test_a_patch_by_path_concerns_every_crate_of_the_workspace() -> None:
    """It takes the place of a published crate, however deep in the dependencies that is."""
    files = {
        "Cargo.toml": "[workspace]\nmembers = ['*']\n[patch.crates-io]\nlog = {path = 'log'}",
        "a/Cargo.toml": crate("a"),
        "log/Cargo.toml": crate("log"),
    }

    assert projects_of(files, "rust")["a"].depends_on_roots == {"log"}


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("rust-toolchain", "1.70.0\n", "1.70.0"),
        ("rust-toolchain", '[toolchain]\nchannel = "nightly-2024-01-01"', "nightly-2024-01-01"),
        ("rust-toolchain.toml", '[toolchain]\nchannel = "stable"', "stable"),
        ("rust-toolchain.toml", "[toolchain]\nchannel = 3", "1.60"),
    ],
)
def test_the_toolchain_wins_over_the_oldest_version_that_is_supported(name: str, text: str, expected: str) -> None:
    """What rustup would run is what the caches are for."""
    files = {name: text, "a/Cargo.toml": crate("a", 'rust-version = "1.60"\n')}

    assert projects_of(files, "rust")["a"].tools == {"rust": expected}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("[package]\nversion = '1'", "Cargo.toml:1:1: 'package.name' is missing"),
        ("\n[package]\nname = 3", "Cargo.toml:2:1: 'package.name' is missing or not a text"),
        ("[dependencies]", "Cargo.toml: there is no [package]"),
        ("workspace = 3", "'workspace' is not a table"),
        ("a." * 500_000 + "a = 1", "Cargo.toml:1:1: a key of more than 32 parts"),
        ("a = " + "9" * 5000, "not TOML"),
        ("a = " + "{a=" * 20_000, "not TOML"),
    ],
)
def test_a_manifest_that_cargo_would_refuse_fails_the_plan_with_its_place(text: str, part: str) -> None:
    """Going on without the crate would report success for what nobody built."""
    with pytest.raises(PlanFailed) as caught:
        projects_of({"Cargo.toml": text}, "rust")

    assert part in str(caught.value)


@pytest.mark.slow
def test_whatever_a_manifest_holds_nothing_but_a_failed_plan_comes_of_it() -> None:
    """Random values in every table that is read."""
    chance = random.Random(11)
    keys = (
        "package",
        "workspace",
        "dependencies",
        "target",
        "patch",
        "lints",
        "members",
        "exclude",
        "path",
        "name",
        "a",
    )
    failed = 0
    for _ in range(1_500):
        files = {}
        for path in ("Cargo.toml", "a/Cargo.toml", "rust-toolchain.toml"):
            lines = [f"{key} = {toml(anything(chance, keys))}" for key in keys if chance.random() < 0.5]
            if chance.random() < 0.8:
                lines = [line for line in lines if not line.startswith("package")] + ['package.name = "a"']
            files[path] = "\n".join(lines)
        try:
            projects_of(files, "rust")
        except PlanFailed:
            failed += 1

    assert 0 < failed < 1_500


@pytest.mark.slow
def test_two_thousand_crates_among_a_hundred_thousand_files_are_found_in_seconds() -> None:
    """No loop over all files for each crate; the bound is far above what it takes, for slow machines."""
    files = {"Cargo.toml": "[workspace]\nmembers = ['p*/*']\n", "Cargo.lock": ""}
    for n in range(2_000):
        files[f"p{n % 50}/q{n}/Cargo.toml"] = crate(
            f"q{n}", f"[dependencies]\nx = {{path = '../q{(n + 50) % 2000}'}}\n"
        )
        files.update({f"p{n % 50}/q{n}/src/m{k}.rs": "" for k in range(48)})

    started = time.process_time()
    projects = projects_of(files, "rust")

    assert len(projects) == 2_000
    assert all(len(project.depends_on_roots) == 1 for project in projects.values())
    assert time.process_time() - started < 15
