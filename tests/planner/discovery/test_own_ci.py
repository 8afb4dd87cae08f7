"""What the CI that a repository has already tells of the checks that its maintainers want."""

import time

import pytest

from deltaci.planner.discovery.discover import fingerprint, is_structural, structure, wanted
from deltaci.planner.discovery.own_ci import FILES_MAX, OwnCi, lists_commands
from deltaci.planner.discovery.project import Tree
from deltaci.planner.repository import Files
from tests.planner.discovered import projects_of, runs_of
from tests.planner.memory_view import MemoryView

CRATE = {"Cargo.toml": '[package]\nname = "x"\nversion = "0.1.0"\n', "Cargo.lock": ""}
MODULE = {"go.mod": "module example.com/x\n"}


def ci_of(files: dict[str, str]) -> OwnCi:
    view = MemoryView(files)
    return OwnCi(Tree(Files(view.entries()), view.contents))


def workflow(*commands: str) -> dict[str, str]:
    steps = "".join(f"      - run: {command}\n" for command in commands)
    return {".github/workflows/ci.yml": f"on: [push]\njobs:\n  a:\n    steps:\n{steps}"}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (".github/workflows/ci.yml", True),
        (".github/workflows/a/ci.yml", False),
        (".github/dependabot.yml", False),
        ("web/.github/workflows/ci.yml", False),
        (".gitlab-ci.yml", True),
        (".circleci/config.yml", True),
        ("azure-pipelines.yml", True),
        ("appveyor.yml", True),
        ("apps/x.yml", False),
    ],
)
def test_files_of_other_systems_are_looked_at_where_those_look_for_them(path: str, expected: bool) -> None:
    """Their names are a part of the structure: what they say is a part of what is discovered."""
    assert lists_commands(path) is expected
    assert is_structural(path) is expected


def test_commands_are_lines_without_what_yaml_writes_around_them() -> None:
    """Of each system; comments say nothing, and a continued line is one command."""
    files = {
        ".github/workflows/ci.yml": (
            "jobs:\n  a:\n    steps:\n      # - run: npm run commented\n      - run: npm run lint\n      - run: |\n"
            "          pnpm install\n          pnpm run -r typecheck && yarn test-ci\n"
        ),
        ".gitlab-ci.yml": (
            "x:\n  script:\n    - npm test\n    - 'bun run check'\n    - npm --silent \\\n      run long\n"
        ),
        ".github/workflows/release.yml": "jobs:\n  a:\n    steps:\n      - run: npm run ship\n",
    }

    assert ci_of(files).scripts == ("lint", "install", "typecheck", "test-ci", "test", "check", "long")


def test_crates_are_linted_as_their_own_ci_does() -> None:
    """With its options, where they are for the machine that is there; without its evidence nothing is guessed."""
    said = workflow(
        "cargo fmt --all -- --check",
        "cargo clippy --all-targets --all-features -- -D warnings",
        "cargo test --all-features",
    )

    with_ci = projects_of(CRATE | said, "rust")["."]
    without = projects_of(CRATE, "rust")["."]

    assert runs_of(with_ci, "lint") == [
        "cargo fmt --check",
        "cargo clippy --all-targets --all-features --locked -- -D warnings",
    ]
    assert runs_of(with_ci, "test") == ["cargo test --all-features --locked"]
    assert [job.check for job in without.jobs] == ["test"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("cargo clippy --lib -- -D warnings", "cargo clippy --locked -- -D warnings"),
        ("cargo clippy --all-targets --all-features --target wasm32-unknown-unknown", "cargo clippy --all-targets"),
        ("cargo +stable clippy --tests", "cargo clippy --tests"),
        ("cargo +nightly fmt --check", "cargo +nightly fmt --check"),
    ],
)
def test_options_of_a_command_are_taken_if_they_are_for_everybody(command: str, expected: str) -> None:
    """Features for another machine are not; a format that only the newest toolchain knows is."""
    first = runs_of(projects_of(CRATE | workflow(command), "rust")["."], "lint")[0]

    assert first.removesuffix(" --locked") == expected


def test_all_features_are_not_taken_where_some_need_a_flag_of_the_compiler() -> None:
    """Without the flag, which other jobs of its CI do not set either, they do not compile."""
    said = workflow("cargo test --all-features", "cargo clippy --all-targets --all-features")
    flags = {path: text + "        env:\n          RUSTFLAGS: --cfg x_unstable\n" for path, text in said.items()}
    full = {"Cargo.toml": CRATE["Cargo.toml"] + "[features]\nfull = []\n"}

    project = projects_of(full | flags, "rust")["."]

    assert runs_of(project, "test") == ["cargo test --features full"]
    assert runs_of(project, "lint") == ["cargo clippy --all-targets --features full"]
    assert runs_of(projects_of(full | said, "rust")["."], "test") == ["cargo test --all-features"]


def test_a_crate_with_all_its_features_under_one_name_is_tested_with_them() -> None:
    """Without it next to nothing would be compiled; what is there by default is not changed."""
    full = CRATE["Cargo.toml"] + '[features]\ndefault = []\nfull = ["a"]\na = []\n'

    assert runs_of(projects_of({"Cargo.toml": full}, "rust")["."], "test") == ["cargo test --features full"]
    usual = {"Cargo.toml": full.replace("default = []", 'default = ["a"]')}
    assert runs_of(projects_of(usual, "rust")["."], "test") == ["cargo test"]


def test_modules_are_raced_and_formatted_as_their_own_ci_does() -> None:
    """The format of what is committed: the caches are in the checkout, too."""
    project = projects_of(MODULE | workflow("go test -race -v ./...", 'test -z "$(gofmt -l .)"'), "go")["."]

    assert runs_of(project, "test")[-1] == "go test -race ./..."
    assert runs_of(project, "lint")[-1].startswith("unformatted=$(git ls-files -z '*.go'")
    assert [job.check for job in projects_of(MODULE | workflow("go test ./..."), "go")["."].jobs] == ["test"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("go test -v $(go list ./... | grep -v /e2e)", "go test $(go list ./... | grep -vE '/e2e')"),
        ("go test -cover $(go list ./... | grep -vE 'e2e|mocks')", "go test $(go list ./... | grep -vE 'e2e|mocks')"),
        ("go test $(go list ./... | grep -v /vendor/)", "go test ./..."),
        ("go test $(go list ./... | grep -v $SKIPPED)", "go test ./..."),
        ("go test $(go list ./... | grep -v '`x`')", "go test ./..."),
        ("go vet $(go list ./... | grep -v e2e)", "go test ./..."),
    ],
)
@pytest.mark.parametrize("place", ["Makefile", ".github/workflows/ci.yml"])
def test_packages_that_need_more_than_the_repository_are_left_out_as_its_own_lines_do(
    place: str, line: str, expected: str
) -> None:
    """Only names and slashes: whatever else a line has, it is not understood."""
    text = f"test:\n\t{line}\n" if place == "Makefile" else f"steps:\n  - run: {line}\n"

    assert runs_of(projects_of(MODULE | {place: text}, "go")["."], "test")[-1] == expected


def test_a_library_for_another_runtime_is_checked_and_not_tested() -> None:
    """Its tests would not be linked: Python, or Node, has the symbols."""
    manifest = CRATE["Cargo.toml"] + '[lib]\ncrate-type = ["cdylib"]\n[dependencies]\npyo3 = "0.22"\n'

    assert runs_of(projects_of({"Cargo.toml": manifest}, "rust")["."], "test") == ["cargo check"]


def test_a_change_to_such_a_file_changes_the_fingerprint() -> None:
    """A recipe of the commands before is not used for those after."""
    prints = set[str]()
    for files in (CRATE, CRATE | workflow("cargo fmt"), CRATE | workflow("cargo clippy")):
        seen = structure(Files(MemoryView(files).entries()))
        prints.add(fingerprint(seen, wanted(seen)))

    assert len(prints) == 3


def test_very_many_and_very_long_files_take_no_time() -> None:
    """Linear in what is read, whatever it is, and bounded in how much that is."""
    odd = (
        "- run: npm " + "-x " * 300 + "\n- npm run " + "a:" * 30_000 + "\n" + "cargo " * 20_000 + "\n" + "\\\n" * 20_000
    )
    files = {f".github/workflows/{number:04}.yml": odd for number in range(200)} | CRATE

    start = time.perf_counter()
    seen = structure(Files(MemoryView(files).entries()))
    assert len([path for path in wanted(seen) if lists_commands(path)]) == FILES_MAX
    projects_of(files, "rust")
    _ = ci_of(files).scripts
    assert time.perf_counter() - start < 20


@pytest.mark.parametrize(("command", "expected"), [("cargo test", []), ("cd benches && cargo test", ["test"])])
def test_what_measures_a_project_is_checked_if_the_own_ci_knows_it(command: str, expected: list[str]) -> None:
    """A crate of its own beside the workspace, or a package; members are as all others."""
    crate = {"benches/Cargo.toml": '[package]\nname = "b"\nversion = "0.1.0"\n[workspace]\n'}
    package = {"perf/package.json": '{"name": "p", "scripts": {"test": "x"}}', "package.json": "{}"}
    said = workflow(command.replace("benches", "perf") if expected else command)

    crates = projects_of(CRATE | crate | workflow(command), "rust")
    packages = projects_of(package | said, "node")

    assert [job.check for job in crates["benches"].jobs] == expected
    assert [job.check for job in packages["perf"].jobs] == expected
    assert [job.check for job in crates["."].jobs] == ["test"]
