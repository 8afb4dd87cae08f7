"""What is kept from one plan to the next makes plans cheaper and changes none: warm equals cold, byte for byte."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deltaci.domain.plan import digest
from deltaci.forge.local import LocalRepository, MirrorLimits
from deltaci.planner import roster, survey
from deltaci.planner.messages import Failed, Planned, Request, Start
from tests.planner.planned import Asker
from tests.planner.repositories import Bare

pytestmark = pytest.mark.slow

START = Start(memory_bytes_max=2**31, cache_bytes_max=2**28, jobs_max=500, limits=MirrorLimits())
ROOTS = ("", "api/", "web/", "web/packages/a/", "web/packages/b/", "lib/core/", "lib/core/sub/", "tools/x y/")
SUBMODULE = ("160000", "1" * 40)


@pytest.fixture
def repository(tmp_path: Path) -> Bare:
    return Bare(tmp_path / "r.git")


def a_file(rng: random.Random, path: str | None = None) -> tuple[str, Any]:
    """A path and what may be there; most of it means something to discovery, and little of it is broken."""
    path = path or rng.choice(ROOTS) + rng.choice(NAMES)
    other, number = rng.choice(ROOTS).rstrip("/"), rng.randrange(4)
    check, tool = rng.choice(("test", "lint", "build")), rng.choice(("ruff", "mypy", "poetry", "x"))
    if rng.random() < 0.1:
        return path, rng.choice([("120000", f"../{number}"), SUBMODULE, "[broken" if number == 0 else SUBMODULE])
    contents = {
        "pyproject.toml": f'[project]\nname = "p{number}"\ndependencies = ["p{rng.randrange(4)}"]\n[tool.{tool}]\n',
        "package.json": f'{{"name": "n{number}", "workspaces": ["packages/*"], "scripts": {{"{check}": "x"}}}}',
        "go.mod": f"module example.com/{number}\nreplace a => ./{other}\n",
        "Cargo.toml": f'[package]\nname = "r{number}"\n[workspace]\nexclude = ["{other}"]\n',
        "requirements.txt": f"pytest\n-e ./{other}\n" if number else "x\n",
        "pnpm-workspace.yaml": f"packages: ['packages/{'*' if number else 'a'}']\n",
    }
    data = contents.get(path.rpartition("/")[2], f"{'import unittest' if number % 2 else '#'} {number}\n")
    return path, ("100755", data) if rng.random() < 0.1 else data


NAMES = (
    *("pyproject.toml", "package.json", "go.mod", "Cargo.toml", "setup.py", "requirements.txt", "package-lock.json"),
    *("test_a.py", "tests/test_b.py", "conftest.py", "__init__.py", "pnpm-workspace.yaml", "Cargo.lock", "uv.lock"),
    *("main.go", "src/index.ts", "README.md", "docs/a.md", "a b.txt", "src/x.py", ".github/workflows/ci.yml"),
)
CONFIGURATION = """version: 1
jobs: {a: {steps: [x], paths: ["api/**"], caches: [{key: "${{ hash('**/*.json') }}", paths: [c]}]}}
"""


def histories(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Trees, each a few edits from the one before: files come, go, move, and become links, programs, submodules."""
    files: dict[str, Any] = dict(a_file(rng) for _ in range(rng.randrange(30)))
    while True:
        for _ in range(rng.choice((0, 1, 1, 2, 5))):
            edit = rng.randrange(10)
            if edit == 0 and files:
                del files[rng.choice(sorted(files))]
            elif edit == 1 and files:
                # Under its own name: as another manifest it would be broken, and so would nearly every plan.
                moved = rng.choice(sorted(files))
                files[rng.choice(ROOTS) + moved.rpartition("/")[2]] = files.pop(moved)
            elif edit == 2:
                files["deltaci.yaml"] = rng.choice([CONFIGURATION, "broken: [", ("120000", "x")])
            elif edit in (3, 4):
                files.pop("deltaci.yaml", None)
            elif edit in (5, 6, 7) and files:
                path, what = a_file(rng, rng.choice(sorted(files)))
                files[path] = what
            else:
                path, what = a_file(rng)
                files[path] = what
        yield {path: what for path, what in files.items() if not any(other.startswith(path + "/") for other in files)}


def outcome(work: Asker, request: Request) -> tuple[str, str]:
    reply = work.reply(request)
    assert isinstance(reply, Planned | Failed), reply
    return ("plan", digest(reply.plan)) if isinstance(reply, Planned) else ("failure", reply.text)


@pytest.mark.parametrize("seed", range(8))
def test_a_plan_does_not_depend_on_what_was_planned_before(
    repository: Bare, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over random histories with failed plans in between, of pushes, reruns and branches: warm equals cold.

    With so few projects each changed cache key makes a new roster, unless any number of them may be set apart.
    """
    monkeypatch.setattr(roster, "_APART_PART", 1 if seed % 2 else 32)
    rng = random.Random(seed)
    warm, shas = Asker(START), list[str]()
    outcomes = set()
    for number, files in enumerate(histories(rng)):
        if number == 25:
            break
        if number in (8, 16):
            files = {**files, "broken/package.json": "[broken"}
            files.pop("deltaci.yaml", None)
        shas.append(repository.commit(files, *shas[-1:]))
        for commit_sha, base_sha in (
            (shas[-1], shas[-2] if len(shas) > 1 else None),
            (rng.choice(shas), rng.choice(shas)),
        ):
            request = Request(
                number=number,
                directory=str(repository.path),
                repo_id="r",
                commit_sha=commit_sha,
                base_sha=base_sha,
                configuration_sha=rng.choice((None, None, rng.choice(shas))),
                is_pull_request=rng.random() < 0.5,
            )

            warmly, coldly = outcome(warm, request), outcome(Asker(START), request)

            assert warmly == coldly, (seed, number, request)
            outcomes.add(warmly)
    assert {kind for kind, _ in outcomes} == {"plan", "failure"}


@pytest.mark.parametrize("seed", range(3))
def test_a_plan_does_not_depend_on_the_lock_files_that_were_known_before(
    repository: Bare, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the projects stay and their cache keys do not, in any order of commits: warm equals cold."""
    monkeypatch.setattr(roster, "_APART_PART", (1, 4, 32)[seed])
    rng = random.Random(seed)
    files = {"web/package.json": '{"workspaces": ["*"]}', "web/package-lock.json": "{}", "uv.lock": ""}
    for n in range(6):
        files |= {f"go{n}/go.mod": f"module m{n}\n", f"go{n}/go.sum": "", f"go{n}/a.go": "", f"go{n}/testdata/x": ""}
        files |= {f"web/n{n}/package.json": f'{{"name": "n{n}", "scripts": {{"test": "x"}}}}', f"web/n{n}/a.js": ""}
    changing = [path for path in files if path.endswith((".sum", ".go", ".js", "x", "-lock.json"))]
    warm, shas = Asker(START), [repository.commit(files)]
    for number in range(10):
        files |= dict.fromkeys(rng.sample(changing, k=rng.choice((1, 1, 2))), f"{{}}  {number}")
        shas.append(repository.commit(files, shas[-1]))
        for commit_sha, base_sha in ((shas[-1], shas[-2]), (rng.choice(shas), rng.choice(shas))):
            request = Request(
                number=number, directory=str(repository.path), repo_id="r", commit_sha=commit_sha, base_sha=base_sha
            )

            assert outcome(warm, request) == outcome(Asker(START), request), (seed, number, request)


def planned(work: Asker, repository: Bare, sha: str, base: str | None = None) -> Planned:
    request = Request(number=0, directory=str(repository.path), repo_id="r", commit_sha=sha, base_sha=base)
    reply = work.reply(request)
    assert isinstance(reply, Planned), reply
    return reply


def test_a_commit_that_changes_no_structure_is_planned_without_looking_at_the_rest(
    repository: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No listing, nothing read, no discovery: the cost of the second plan is that of its difference."""
    files = {f"p{n}/go.mod": f"module m{n}\n" for n in range(20)}
    first = repository.commit(files)
    second = repository.commit({**files, "p3/a.go": "package a\n"}, first)
    work = Asker(START)
    planned(work, repository, first)

    def not_again(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(survey, "discover", not_again)
    monkeypatch.setattr(LocalRepository, "listing", not_again)
    monkeypatch.setattr(LocalRepository, "read_blobs", not_again)
    plan = planned(work, repository, second, first).plan

    assert [job.name for job in plan.jobs if not job.is_skipped] == ["go-test (p3)"]


def test_a_changed_manifest_is_the_only_one_that_is_read_again(
    repository: Bare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contents are known by their ids."""
    files = {f"p{n}/go.mod": f"module m{n}\n" for n in range(20)}
    first = repository.commit(files)
    second = repository.commit({**files, "p3/go.mod": "module changed\n"}, first)
    work = Asker(START)
    planned(work, repository, first)
    read: list[int] = []
    original = LocalRepository.read_blobs
    monkeypatch.setattr(
        LocalRepository, "read_blobs", lambda self, sizes: (read.append(len(sizes)), original(self, sizes))[1]
    )

    planned(work, repository, second, first)

    assert read == [1]


def test_what_no_plan_changes_is_told_once(repository: Bare) -> None:
    """A plan is as long as its difference: with the jobs that run, and where they are among those known already."""
    files = {f"p{n:02}/go.mod": f"module m{n}\n" for n in range(40)}
    first = repository.commit(files)
    second = repository.commit({**files, "p03/a.go": "package a\n"}, first)
    asker = Asker(START)
    whole = planned(asker, repository, first).plan
    request = Request(number=0, directory=str(repository.path), repo_id="r", commit_sha=second, base_sha=first)

    reply = asker.work.reply(asker.rosters.asking(request))
    again = asker.work.reply(asker.rosters.asking(msgspec.structs.replace(request, commit_sha=first, base_sha=None)))

    assert isinstance(reply, Planned)
    assert isinstance(again, Planned)
    assert [job.name for job in reply.plan.jobs] == ["go-test (p03)"]
    assert (reply.jobs, again.jobs, again.plan.jobs) == (None, None, ())
    assert asker.rosters.whole(request, again) == Planned(number=0, plan=whole)


def test_a_cache_key_that_changed_sets_its_project_apart(repository: Bare, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the project is skipped: the roster stays, and only that job is made and told, in later plans too."""
    files = {f"p{n:02}/go.mod": f"module m{n}\n" for n in range(40)} | {"p05/go.sum": "1\n"}
    first = repository.commit(files)
    second = repository.commit({**files, "p05/go.sum": "2\n"}, first)
    third = repository.commit({**files, "p05/go.sum": "2\n", "p07/a.go": ""}, second)
    asker = Asker(START)
    planned(asker, repository, first)
    monkeypatch.setattr(survey, "roster_of", None)
    planned(asker, repository, second, first)

    request = Request(number=0, directory=str(repository.path), repo_id="r", commit_sha=third, base_sha=second)
    reply = asker.work.reply(asker.rosters.asking(request))

    assert isinstance(reply, Planned)
    assert [(job.name, job.is_skipped) for job in reply.plan.jobs] == [
        ("go-test (p05)", True),
        ("go-test (p07)", False),
    ]
    assert reply.jobs is None
    monkeypatch.undo()
    assert asker.rosters.whole(request, reply) == planned(Asker(START), repository, third, second)


def test_many_changed_cache_keys_make_a_new_roster(repository: Bare) -> None:
    """What is set apart is made for every plan: it stays a small part."""
    files = {f"p{n:02}/go.mod": f"module m{n}\n" for n in range(40)} | {f"p{n:02}/go.sum": "1\n" for n in range(40)}
    first = repository.commit(files)
    second = repository.commit({**files, "p05/go.sum": "2\n", "p06/go.sum": "2\n"}, first)
    asker = Asker(START)
    planned(asker, repository, first)

    request = Request(number=0, directory=str(repository.path), repo_id="r", commit_sha=second, base_sha=first)
    reply = asker.work.reply(asker.rosters.asking(request))

    assert isinstance(reply, Planned)
    assert reply.jobs is not None
    assert len(reply.jobs) == 40
    assert [job.name for job in reply.plan.jobs] == ["go-test (p05)", "go-test (p06)"]


def test_what_is_kept_is_bounded_and_the_oldest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two repositories fit, a third pushes out the one that was planned longest ago."""
    repositories = [Bare(tmp_path / f"{n}.git") for n in range(3)]
    shas = [each.commit({"go.mod": "module x\n", "a.go": "package x\n"}) for each in repositories]
    work = Asker(Start(memory_bytes_max=2**31, cache_bytes_max=24_000, jobs_max=9, limits=MirrorLimits()))
    listed: list[str] = []
    original = LocalRepository.listing
    monkeypatch.setattr(
        LocalRepository,
        "listing",
        lambda self, *args: (listed.append(self.directory.name), original(self, *args))[1],
    )

    for number in (0, 1, 0, 2, 0, 1):
        planned(work, repositories[number], shas[number])

    assert listed == ["0.git", "1.git", "2.git", "1.git"]


def test_names_that_look_the_same_are_not_taken_for_each_other(repository: Bare) -> None:
    """A name that is not UTF-8 is shown with escapes, as another one may be spelt: such a commit is read anew."""
    one, other, three = (repository.blob(data) for data in (b"1", b"2", b"module x\n"))
    odd = [("100644", one, b"a\xe9.go"), ("100644", other, b"a\\xe9.go"), ("100644", three, b"go.mod")]
    first = repository.commit_tree(repository.tree(*odd))
    second = repository.commit_tree(repository.tree(*odd[1:]), first)
    third = repository.commit_tree(repository.tree(odd[0], odd[2]), second)
    warm = Asker(START)

    digests = [digest(planned(warm, repository, sha).plan) for sha in (first, second, third, first)]

    assert digests == [digest(planned(Asker(START), repository, sha).plan) for sha in (first, second, third, first)]


def test_a_mirror_that_was_fetched_anew_is_no_obstacle(repository: Bare, tmp_path: Path) -> None:
    """The commit that is remembered may be gone from it."""
    first = repository.commit({"go.mod": "module x\n"})
    work = Asker(START)
    planned(work, repository, first)
    repository.path.rename(tmp_path / "old.git")
    anew = Bare(repository.path)

    second = anew.commit({"go.mod": "module y\n", "b/go.mod": "module z\n"})

    assert len(planned(work, anew, second).plan.jobs) == 2
