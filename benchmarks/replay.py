"""`python -m benchmarks.replay`: how much of a full run do real changes of real repositories need, and is it enough?

For each of the last commits of a repository's main line the plan against the commit before is made, and checked by a
model of its own: written without the planner's graph, from a second reading of the manifests.
"""

import json
import posixpath
import re
import statistics
import subprocess
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import click
import msgspec

from deltaci.domain.plan import Plan
from deltaci.planner.errors import PlanFailed
from deltaci.planner.impact import is_documentation
from deltaci.planner.other_ci import is_of_other_ci
from deltaci.planner.service import RepositoryPlanner

BEGIN: Final = "<!-- replay: begin -->"
END: Final = "<!-- replay: end -->"
JOBS_MAX: Final = 10_000


class Commit(msgspec.Struct, frozen=True):
    """What one commit needed: jobs that run, of how many; projects touched; what the model misses in the plan."""

    sha: str
    running: int
    jobs: int
    touched: int
    missing: tuple[str, ...] = ()
    failed: str = ""


class Replayed(msgspec.Struct, frozen=True):
    """All commits of one repository."""

    name: str
    ecosystems: str
    projects: int
    commits: tuple[Commit, ...]

    def shares(self) -> list[float]:
        """Jobs that run as a share of a full run, commit by commit, smallest first."""
        return sorted(one.running / one.jobs for one in self.commits if one.jobs)


# ---- git ---------------------------------------------------------------------------------------------------------


class Repository:
    """A repository on this machine, read by git's own commands."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def git(self, *arguments: str) -> bytes:
        done = subprocess.run(["git", *arguments], cwd=self.directory, check=True, capture_output=True)
        return done.stdout

    def main_line(self, count: int) -> list[tuple[str, str]]:
        """(parent, commit) of the last commits, oldest first."""
        lines = self.git("log", "--first-parent", f"--max-count={count}", "--format=%P %H").decode().splitlines()
        found = [(line.split()[0], line.split()[-1]) for line in lines if len(line.split()) > 1]
        return found[::-1]

    def changed(self, parent: str, commit: str) -> list[str]:
        data = self.git("diff-tree", "-r", "-z", "--no-renames", "--name-only", parent, commit)
        return [path.decode("utf-8", "backslashreplace") for path in data.split(b"\0")[:-1]]

    def paths(self, commit: str) -> list[str]:
        data = self.git("ls-tree", "-r", "-z", "--name-only", commit)
        return [path.decode("utf-8", "backslashreplace") for path in data.split(b"\0")[:-1]]

    def read(self, commit: str, path: str) -> bytes:
        return self.git("cat-file", "blob", f"{commit}:{path}")


# ---- the model ---------------------------------------------------------------------------------------------------


def declared(repository: Repository, commit: str) -> dict[str, tuple[str, set[str], set[str]]]:
    """root -> (name, names of packages, roots of others) that the manifests of a commit declare, read anew."""
    found: dict[str, tuple[str, set[str], set[str]]] = {}
    for path in repository.paths(commit):
        directory, name = posixpath.split(path)
        root = directory or "."
        if name in ("package.json", "Cargo.toml", "go.mod", "pyproject.toml"):
            data = repository.read(commit, path)
            try:
                own, names, roots = _READERS[name](data)
            except (ValueError, KeyError, TypeError, AttributeError):
                continue  # broken, or a template: whoever reads it as a project has to fail on it
            paths = {posixpath.normpath(posixpath.join(root, other)) for other in roots}
            before = found.get(root, ("", set(), set()))
            found[root] = (own or before[0], before[1] | names, before[2] | paths)
    return found


def _node(data: bytes) -> tuple[str, set[str], set[str]]:
    package = json.loads(data)
    kinds = ("dependencies", "devDependencies", "peerDependencies", "optionalDependencies")
    names = {name for kind in kinds for name in package.get(kind) or {}}
    return package.get("name", ""), names, set()


def _rust(data: bytes) -> tuple[str, set[str], set[str]]:
    cargo = tomllib.loads(data.decode())
    paths: set[str] = set()

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                if key.endswith("dependencies") and isinstance(inner, dict):
                    paths.update(one["path"] for one in inner.values() if isinstance(one, dict) and "path" in one)
                walk(inner)

    walk({key: value for key, value in cargo.items() if key not in ("workspace", "patch")})
    return cargo.get("package", {}).get("name", ""), set(), paths


def _go(data: bytes) -> tuple[str, set[str], set[str]]:
    text = data.decode()
    module = re.search(r"^module\s+(\S+)", text, re.MULTILINE)
    names = set(re.findall(r"^\s*(?:require\s+)?([\w.-]+\.[\w.-]+/\S+)\s+v", text, re.MULTILINE))
    return module[1] if module else "", names, set(re.findall(r"=>\s+(\.\.?/\S*)", text))


def _python(data: bytes) -> tuple[str, set[str], set[str]]:
    project = tomllib.loads(data.decode()).get("project", {})
    listed = [
        *project.get("dependencies", ()),
        *(one for group in project.get("optional-dependencies", {}).values() for one in group),
    ]
    names = {_plain(re.split(r"[^A-Za-z0-9._-]", one.strip(), maxsplit=1)[0]) for one in listed}
    return _plain(project.get("name", "")), names, set()


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


_READERS: Final[Mapping[str, Any]] = {
    "package.json": _node,
    "Cargo.toml": _rust,
    "go.mod": _go,
    "pyproject.toml": _python,
}


def expected(roots: Iterable[str], model: Mapping[str, tuple[str, set[str], set[str]]], changed: list[str]) -> set[str]:
    """The roots of projects that own a changed file, or depend on one that does, however far away."""
    known = set(roots)
    touched: set[str] = set()
    for path in changed:
        if is_documentation(path) or is_of_other_ci(path):
            continue
        directory = posixpath.dirname(path) or "."
        while directory not in known and directory != ".":
            directory = posixpath.dirname(directory) or "."
        if directory in known:
            touched.add(directory)
    while True:
        names = {model[root][0] for root in touched if root in model and model[root][0]}
        more = {
            root for root in known - touched if root in model and (model[root][1] & names or model[root][2] & touched)
        }
        if not more:
            return touched
        touched |= more


# ---- the replay --------------------------------------------------------------------------------------------------


async def replay(directory: Path, count: int) -> Replayed:
    """Plan the last `count` commits of the main line of the repository at `directory`, each against its parent."""
    repository = Repository(directory)
    line = repository.main_line(count)
    planner = RepositoryPlanner(directory, jobs_max=JOBS_MAX)

    async def plan(commit: str, base: str | None) -> Plan:
        return await planner.plan_here(directory, commit_sha=commit, base_sha=base)

    try:
        whole = await plan(line[-1][1], None)
        commits = [await _one(repository, plan, parent, commit) for parent, commit in line]
    finally:
        planner.close()
    ecosystems = sorted({project.id.partition(":")[0] for project in whole.projects})
    name = directory.parent.name.replace("+", "/") if directory.name == "repo" else directory.name
    return Replayed(name, ", ".join(ecosystems), len(whole.projects), tuple(commits))


async def _one(repository: Repository, plan: Any, parent: str, commit: str) -> Commit:
    try:
        full, made = await plan(commit, None), await plan(commit, parent)
    except PlanFailed as error:
        return Commit(commit, 0, 0, 0, failed=str(error))
    roots = {root_of(one.id) for one in full.projects}
    touched = {root_of(one.id) for one in made.projects}
    wanted = expected(roots, declared(repository, commit), repository.changed(parent, commit))
    running = sum(not job.is_skipped for job in made.jobs)
    return Commit(commit, running, len(full.jobs), len(made.projects), tuple(sorted(wanted - touched)))


def root_of(project_id: str) -> str:
    """The root in `<ecosystem>:<root>`."""
    return project_id.partition(":")[2]


def table(replayed: list[Replayed]) -> str:
    """One line a repository, as Markdown."""
    head = "| repository | ecosystems | projects | commits | failed | jobs of a full run | runs (median, mean) "
    head += "| runs nothing | runs everything | projects missed |"
    lines = [head, "|" + "---|" * 10]
    for one in replayed:
        shares = one.shares()
        jobs = max((commit.jobs for commit in one.commits), default=0)
        failed = sum(bool(commit.failed) for commit in one.commits)
        missed = sum(len(commit.missing) for commit in one.commits)
        nothing = sum(share == 0 for share in shares) / max(1, len(shares))
        everything = sum(share == 1 for share in shares) / max(1, len(shares))
        runs = f"{statistics.median(shares):.0%}, {statistics.mean(shares):.0%}" if shares else ""
        lines.append(
            f"| {one.name} | {one.ecosystems} | {one.projects} | {len(one.commits)} | {failed} | {jobs} | {runs} "
            f"| {nothing:.0%} | {everything:.0%} | {missed} |"
        )
    return "\n".join(lines) + "\n"


@click.command()
@click.argument("directories", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--commits", default=100, show_default=True, help="Of the main line of each repository.")
@click.option("--page", type=click.Path(path_type=Path, exists=True), help="Replace the table in this page.")
def main(directories: tuple[Path, ...], commits: int, page: Path | None) -> None:
    """Replay commits of the repositories at DIRECTORIES; exits 1 if a plan misses a project."""
    replayed = [anyio.run(replay, directory.resolve(), commits) for directory in directories]
    for one in replayed:
        for commit in one.commits:
            if commit.missing or commit.failed:
                click.echo(f"{one.name} {commit.sha[:12]}: {commit.failed or 'misses ' + ', '.join(commit.missing)}")
    click.echo(table(replayed))
    if page is not None:
        before, rest = page.read_text().split(BEGIN)
        page.write_text(f"{before}{BEGIN}\n{table(replayed)}{END}{rest.split(END)[1]}")
    if any(commit.missing for one in replayed for commit in one.commits):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
