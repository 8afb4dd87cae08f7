"""Repositories made to hurt whoever reads them: each gives a plan or a failure that says why, and runs nothing.

All go through the whole way, from the clone URL to the reply of a process with the memory bounds of production. After
each, no canary exists, and a harmless repository is planned by the same planner.
"""

import hashlib
import re
import stat
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from deltaci.domain.plan import Plan
from deltaci.forge.local import LocalRepository, MirrorError, MirrorLimits
from deltaci.planner.bounds import Bounds
from deltaci.planner.discovery.project import Tree
from deltaci.planner.errors import PlanFailed
from deltaci.planner.repository import Files
from deltaci.planner.service import RepositoryPlanner
from tests.planner.repositories import Bare

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

GO = "module example.com/x\n"
MIB = 2**20


class Yard:
    """A hostile repository, whoever plans it, and a canary that nobody may wake."""

    def __init__(self, tmp_path: Path, bounds: Bounds | None = None) -> None:
        self.path = tmp_path
        self.canary = tmp_path / "canary"
        self.origin = Bare(tmp_path / "origin.git")
        self.planner = RepositoryPlanner(tmp_path / "data", bounds=bounds or Bounds(plan_ms=60_000))

    def trap(self, name: str) -> Path:
        """A program that wakes the canary."""
        program = self.path / name
        program.write_text(f"#!/bin/sh\ntouch '{self.canary}'\nexit 1\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return program

    async def plan(self, sha: str, **more: Any) -> Plan:
        return await self.planner.plan(
            **{"repo_id": "r", "clone_url": str(self.origin.path), "commit_sha": sha, "ref": None, **more}
        )

    async def outcome(self, sha: str) -> Plan | str:
        """The plan, or why there is none."""
        try:
            return await self.plan(sha)
        except PlanFailed as error:
            return error.text

    async def failure(self, sha: str, **more: Any) -> str:
        with pytest.raises(PlanFailed) as caught:
            await self.plan(sha, **more)
        assert not caught.value.is_retryable
        return caught.value.text


@pytest.fixture
async def yard(tmp_path: Path) -> AsyncIterator[Yard]:
    yard = Yard(tmp_path)
    yield yard
    assert not yard.canary.exists()
    assert names(await yard.plan(yard.origin.commit({"go.mod": GO}))) == ["go-test"]
    yard.planner.close()


def names(plan: Plan) -> list[str]:
    return [job.name for job in plan.jobs if not job.is_skipped]


# ---- what stands in place of a file ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["symlink", "submodule", "directory"])
async def test_what_is_no_file_in_place_of_the_configuration_is_named(yard: Yard, kind: str) -> None:
    """It is neither followed nor passed over."""
    what: dict[str, Any] = {
        "symlink": {"deltaci.yaml": ("120000", "/etc/passwd")},
        "submodule": {"deltaci.yaml": ("160000", "1" * 40)},
        "directory": {"deltaci.yaml/deltaci.yaml": "version: 1\n"},
    }[kind]

    text = await yard.failure(yard.origin.commit({"go.mod": GO, **what}))

    assert text == f"deltaci.yaml: this is a {kind}; make it a regular file"


async def test_symlinks_in_place_of_manifests_are_not_followed(yard: Yard) -> None:
    """Loops, links out of the repository, links to secrets: none makes a project."""
    sha = yard.origin.commit(
        {
            "go.mod": GO,
            "a/package.json": ("120000", "package.json"),
            "b": ("120000", "c"),
            "c": ("120000", "b"),
            "d": ("120000", "."),
            "e/pyproject.toml": ("120000", "/etc/passwd"),
            "f/Cargo.toml": ("120000", "../../../../../../proc/self/environ"),
            "g/go.mod": ("160000", "2" * 40),
            "h/setup.py/x": "",
        }
    )

    assert names(await yard.plan(sha)) == ["go-test"]


def a_large_blob(origin: Bare, size: int) -> str:
    """A loose object of `size` zeros: a megabyte on disk for each gigabyte."""
    header, block = f"blob {size}\0".encode(), bytes(MIB)
    digest, packer = hashlib.sha1(header), zlib.compressobj(1)
    parts = [packer.compress(header)]
    for _ in range(size // MIB):
        digest.update(block)
        parts.append(packer.compress(block))
    sha = digest.hexdigest()
    path = origin.path / "objects" / sha[:2] / sha[2:]
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"".join([*parts, packer.flush()]))
    return sha


@pytest.mark.parametrize("size", [96 * MIB, pytest.param(1024 * MIB, marks=pytest.mark.long)])
@pytest.mark.parametrize("name", ["deltaci.yaml", "package.json"])
async def test_a_gigabyte_in_place_of_a_file_to_read_is_refused_by_its_size(yard: Yard, name: str, size: int) -> None:
    """Compressed zeros: nobody unpacks them, here or in the process that plans."""
    blob = a_large_blob(yard.origin, size)
    sha = yard.origin.commit_tree(yard.origin.tree(("100644", blob, name.encode())))

    before = psutil.Process().memory_info().rss
    text = await yard.failure(sha)

    assert re.search(r"has more than \d+ bytes", text)
    assert str(size) not in text
    assert psutil.Process().memory_info().rss - before < 64 * MIB
    assert max(psutil.Process(pid).memory_info().rss for pid in yard.planner.workers.pids()) < 128 * MIB


def test_contents_that_are_too_much_together_are_refused_before_they_are_read(tmp_path: Path) -> None:
    """Each is within the limit for one; the limit and one byte past it."""
    origin = Bare(tmp_path / "r.git")
    sha = origin.commit({f"p{n}/go.mod": f"module m{n:05}\n" for n in range(10)})
    paths = [f"p{n}/go.mod" for n in range(10)]

    def read(most: int) -> int:
        limits = MirrorLimits(contents_bytes_max=most)
        return len(LocalRepository(origin.path, repo_id="r", limits=limits).view(sha).read_many(paths))

    assert read(140) == 10
    with pytest.raises(MirrorError, match="140 bytes in all, at most 139 are read for one plan"):
        read(139)


# ---- how many ----------------------------------------------------------------------------------------------------


def a_wide_tree(origin: Bare, width: int, depth: int) -> str:
    """`width` to the power of `depth` files from `depth` tree objects: a bomb of a few kilobytes."""
    sha, mode = origin.blob(b"module x\n"), "100644"
    for _ in range(depth):
        sha = origin.tree(*((mode, sha, f"{n:03}".encode()) for n in range(width)))
        mode = "40000"
    return sha


@pytest.mark.parametrize("depth", [3, 8, 30])
async def test_a_tree_that_unfolds_to_more_files_than_allowed_is_refused(tmp_path: Path, depth: int) -> None:
    """Ten to the thirtieth files, from thirty objects: listing ends at the limit."""
    yard = Yard(tmp_path, Bounds(plan_ms=60_000, entries_max=20_000))
    sha = yard.origin.commit_tree(a_wide_tree(yard.origin, 30 if depth == 3 else 10, depth))

    text = await yard.failure(sha)

    assert "more than 20000 files" in text
    assert names(await yard.plan(yard.origin.commit({"go.mod": GO}))) == ["go-test"]
    yard.planner.close()


async def test_as_many_files_as_allowed_are_planned(tmp_path: Path) -> None:
    """The limit is one that holds, not one that is never reached."""
    yard = Yard(tmp_path, Bounds(plan_ms=60_000, entries_max=27_001))
    wide = a_wide_tree(yard.origin, 30, 3)
    go = yard.origin.blob(GO.encode())
    sha = yard.origin.commit_tree(yard.origin.tree(("40000", wide, b"wide"), ("100644", go, b"go.mod")))

    assert names(await yard.plan(sha)) == ["go-test"]
    yard.planner.close()


@pytest.mark.long
@pytest.mark.parametrize(("name", "is_plan"), [(b"x.txt", True), (b"__init__.py", True), (b"go.mod", False)])
async def test_a_million_files_are_planned_or_refused_within_the_bounds(yard: Yard, name: bytes, is_plan: bool) -> None:
    """Whether discovery may look at none or at each of them, with the bounds that are the default."""
    go = yard.origin.blob(GO.encode())
    wide = yard.origin.tree(("100644", go, name))
    for width in (100, 100, 99):
        wide = yard.origin.tree(*(("40000", wide, f"{n:02}".encode()) for n in range(width)))
    sha = yard.origin.commit_tree(yard.origin.tree(("40000", wide, b"wide"), ("100644", go, b"go.mod")))

    outcome = await yard.outcome(sha)

    if is_plan:
        assert isinstance(outcome, Plan)
        assert names(outcome) == ["go-test"]
    else:
        assert outcome == "990001 manifests, at most 20000 are read; describe the jobs in deltaci.yaml"


async def test_a_directory_a_thousand_deep_is_no_recursion_of_ours(yard: Yard) -> None:
    """Two thousand characters of path; its name in the plan is shortened for people."""
    commit = yard.origin.commit({"d/" * 1_000 + "go.mod": GO})

    assert len(names(await yard.plan(commit))) == 1


# ---- bombs for parsers -------------------------------------------------------------------------------------------

BOMBS = {
    "yaml aliases": {
        "deltaci.yaml": "a: &a [x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(30)),
    },
    "yaml depth": {"deltaci.yaml": "[" * 100_000},
    "yaml flow": {"deltaci.yaml": "version: 1\njobs: " + "{a: " * 50_000},
    "json depth": {"package.json": "[" * 500_000},
    "json object depth": {"package.json": '{"a":' * 150_000},
    "json number": {"package.json": '{"a": ' + "9" * 500_000 + "}"},
    "json not a number": {"package.json": '{"a": 1e999999999, "scripts": {"test": "x"}}'},
    "json lone surrogate": {"package.json": '{"name": "\\ud800", "scripts": {"test": "x\\udfff"}}'},
    "toml depth": {"pyproject.toml": "a = " + "[" * 400_000},
    "toml inline": {"pyproject.toml": "a = " + "{b = " * 150_000},
    "toml dotted": {"pyproject.toml": "a." * 400_000 + "b = 1"},
    "toml header": {"Cargo.toml": "[" + "a." * 300_000 + "b]\n"},
    "toml number": {"pyproject.toml": "a = " + "9" * 500_000},
    "pnpm": {"package.json": "{}", "pnpm-workspace.yaml": "packages: " + "[" * 500_000},
    "go regex": {"go.mod": "module " + "x" * 500_000 + "\nreplace a =>" + " \t" * 200_000},
    "setup.cfg": {"setup.cfg": "[" * 500_000},
    "requirements": {"requirements.txt": "-e " * 300_000, "a.py": ""},
    "spaces": {"requirements.txt": " " * 900_000 + "x", "setup.py": "", "test_a.py": " " * 900_000},
    "xml": {
        "pom.xml": '<!DOCTYPE x [<!ENTITY a "a">'
        + "".join(f'<!ENTITY a{n + 1} "&a{n};&a{n};">' for n in range(40))
        + "]><project>&a40;</project>"
    },
    "xml depth": {"pom.xml": "<project>" * 100_000, "x.csproj": "<Project>" * 100_000},
    "xml entity": {"pom.xml": '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><project>&a;</project>'},
    "globs": {
        "package.json": msgspec.json.encode({"workspaces": ["*" * 400 + "x"] * 400}).decode(),
        **{f"{'a' * 200}{n}/package.json": "{}" for n in range(50)},
    },
    "binary": dict.fromkeys(("package.json", "pyproject.toml", "go.mod", "Cargo.toml"), "\x00\x01\x02" * 1000),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_a_bomb_for_a_parser_is_a_plan_or_a_failure_that_names_the_file(yard: Yard, bomb: str) -> None:
    """And it does not end the process that plans: what is expected is no crash."""
    sha = yard.origin.commit(BOMBS[bomb])
    await yard.plan(yard.origin.commit({"go.mod": GO}))
    processes = yard.planner.workers.pids()

    outcome = await yard.outcome(sha)

    if isinstance(outcome, str):
        assert any(name in outcome for name in BOMBS[bomb]) or "lone surrogate" in outcome
        assert len(outcome) < 5_000
    assert yard.planner.workers.pids() == processes


@pytest.mark.parametrize(("parts", "is_plan"), [(32, True), (33, False)])
def test_keys_of_many_parts_are_refused_and_dots_elsewhere_are_not(parts: int, is_plan: bool) -> None:
    """The limit and one past it; versions, sentences and ruled lines are no keys."""
    key = ".".join(["a"] * parts)
    dots = "." * 1_000
    text = f'# {dots}\nb = [\'{dots}\', "{dots}\\"{dots}"] # {dots}\n{key} = 1\n'
    tree = Tree(Files(), {"Cargo.toml": text.encode()})

    if is_plan:
        assert tree.toml("Cargo.toml")["b"][0] == dots
    else:
        with pytest.raises(PlanFailed, match=r"Cargo\.toml:3:1: a key of more than 32 parts"):
            tree.toml("Cargo.toml")


# ---- names -------------------------------------------------------------------------------------------------------


async def test_names_of_all_kinds_are_data(yard: Yard) -> None:
    """Control characters, line breaks, bytes that are no UTF-8, components that git would not check out."""
    blob = yard.origin.blob(GO.encode())
    inner = yard.origin.tree(("100644", blob, b"go.mod"))
    awkward = [
        b"..",
        b".",
        b".git",
        b".GIT",
        b"a\nb",
        b"\x1b[31mred",
        b"\xff\xfe",
        b"-rf",
        b":(top)",
        b"\xe2\x80\xae",
        b"~",
    ]
    entries = [("40000", inner, name) for name in awkward]
    entries += [("100644", blob, b"--upload-pack=touch canary"), ("100644", blob, b"go.mod")]
    sha = yard.origin.commit_tree(yard.origin.tree(*entries))

    plan = await yard.plan(sha)

    assert "go-test" in names(plan)
    assert not any(character in name for name in names(plan) for character in "\n\x1b")


async def test_names_that_differ_only_in_case_or_form_are_different_files(yard: Yard) -> None:
    """There is no work tree for them to collide in."""
    files = {"A/go.mod": GO, "a/go.mod": GO, "\u00e9/go.mod": GO, "e\u0301/go.mod": GO, "DELTACI.YAML": "broken: ["}

    plan = await yard.plan(yard.origin.commit(files))

    assert len(names(plan)) == 4


async def test_a_file_and_a_directory_of_one_name_are_no_obstacle(yard: Yard) -> None:
    """A tree that git would not write; reading it twice gives the same."""
    blob = yard.origin.blob(GO.encode())
    inner = yard.origin.tree(("100644", blob, b"go.mod"))
    twice = [("100644", blob, b"a"), ("40000", inner, b"a"), ("100644", blob, b"a"), ("100644", blob, b"go.mod")]
    sha = yard.origin.commit_tree(yard.origin.tree(*twice))

    first, second = await yard.plan(sha), await yard.plan(sha)

    assert first == second


# ---- git's own configuration -------------------------------------------------------------------------------------


async def test_what_a_repository_asks_git_to_run_is_not_run(yard: Yard) -> None:
    """Attributes with filters and drivers, submodules with transports, files that look like git's own."""
    trap = yard.trap("trap")
    config = f"[core]\n\tfsmonitor = {trap}\n\thooksPath = .\n\tsshCommand = {trap}\n[alias]\n\tls-tree = !{trap}\n"
    hostile = {
        "go.mod": GO,
        ".gitattributes": "* filter=evil diff=evil merge=evil text eol=crlf working-tree-encoding=UTF-16 ident\n",
        ".gitmodules": f'[submodule "a"]\n\tpath = sub\n\turl = ext::{trap}\n\tupdate = !{trap}\n'
        f'[submodule "-u{trap}"]\n\tpath = --upload-pack={trap}\n\turl = file:///etc\n',
        "sub": ("160000", "3" * 40),
        ".gitconfig": config,
        "config": config,
        "HEAD": "ref: refs/heads/main\n",
        "hooks/post-checkout": ("100755", f"#!/bin/sh\ntouch {yard.canary}\n"),
        "setup.py": f"import os\nos.system({str(trap)!r})\n",
        "conftest.py": f"import os\nos.system({str(trap)!r})\n",
        "package.json": f'{{"scripts": {{"preinstall": "{trap}", "test": "{trap}"}}}}',
    }
    first = yard.origin.commit(hostile)
    second = yard.origin.commit({**hostile, "main.go": "package main\n"}, first)

    plan = await yard.plan(second, base_sha=first)

    assert "go-test" in names(plan)
    assert plan.changed_files_count == 1


async def test_the_configuration_of_the_origin_runs_nothing_and_is_not_believed(yard: Yard) -> None:
    """A directory that is cloned from may hold hooks, replaced objects, grafts and alternates of its owner's choice."""
    trap = yard.trap("trap")
    first = yard.origin.commit({"go.mod": GO})
    second = yard.origin.commit({"go.mod": GO, "a.go": "package a\n"}, first)
    other = yard.origin.commit({"deltaci.yaml": "version: 1\njobs: {evil: {steps: [x]}}\n"})
    yard.origin.git("update-ref", f"refs/replace/{second}", other)
    (yard.origin.path / "info").mkdir(exist_ok=True)
    (yard.origin.path / "info/grafts").write_text(f"{second} {other}\n")
    (yard.origin.path / "hooks").mkdir(exist_ok=True)
    for hook in ("post-upload-pack", "reference-transaction", "pre-receive", "post-update", "fsmonitor-watchman"):
        (yard.origin.path / "hooks" / hook).write_bytes(trap.read_bytes())
        (yard.origin.path / "hooks" / hook).chmod(0o755)
    with (yard.origin.path / "config").open("a") as config:
        config.write(f"[core]\n\tfsmonitor = {trap}\n[uploadpack]\n\tpackObjectsHook = {trap}\n")

    plan = await yard.plan(second, base_sha=first)

    assert names(plan) == ["go-test"]
    assert (plan.base_sha, plan.changed_files_count) == (first, 1)


async def test_what_is_in_the_way_within_a_mirror_is_not_believed(yard: Yard) -> None:
    """Alternates, replaced objects and drivers that somebody put there reach no plan."""
    trap = yard.trap("trap")
    first = yard.origin.commit({"go.mod": GO, "a.go": "1"})
    second = yard.origin.commit({"go.mod": GO, "a.go": "2"}, first)
    await yard.plan(second, base_sha=first)
    mirror = next((yard.path / "data/mirrors").iterdir())
    (mirror / "refs/replace").mkdir(parents=True, exist_ok=True)
    (mirror / "refs/replace" / second).write_text(first + "\n")
    (mirror / "objects/info/alternates").write_text("/proc/self/root\n")
    (mirror / "info").mkdir(exist_ok=True)
    (mirror / "info/attributes").write_text("* diff=evil filter=evil\n")
    with (mirror / "config").open("a") as config:
        config.write(f'[diff "evil"]\n\ttextconv = {trap}\n\tcommand = {trap}\n[filter "evil"]\n\tclean = {trap}\n')
        config.write(f"[diff]\n\texternal = {trap}\n[core]\n\tpager = {trap}\n\tfsmonitor = {trap}\n")

    plan = await yard.plan(second, base_sha=first)

    assert (names(plan), plan.changed_files_count) == (["go-test"], 1)


@pytest.mark.parametrize("ref", ["--upload-pack=touch canary", "-f", "refs/heads/../x", "refs/heads/a b", "a:b", "x\n"])
async def test_refs_that_are_options_never_reach_git(yard: Yard, ref: str) -> None:
    """Branch names come from strangers."""
    sha = yard.origin.commit({"go.mod": GO})

    assert "give a plain name" in await yard.failure(sha, ref=ref)


async def test_branches_with_names_like_options_are_fetched_past(yard: Yard) -> None:
    """They exist in the repository whether we ask for them or not."""
    sha = yard.origin.commit({"go.mod": GO})
    with (yard.origin.path / "packed-refs").open("a") as refs:
        refs.write(f"{sha} refs/heads/--upload-pack=x\n{sha} refs/heads/-f\n{sha} refs/tags/--exec=y\n")
    yard.origin.git("update-ref", "-d", "refs/heads/main")

    assert names(await yard.plan(sha, ref="refs/heads/gone")) == ["go-test"]


@pytest.mark.parametrize(
    "url", ["ext::sh -c 'touch canary'", "--upload-pack=x", "-u", "file://-x/y\n", "http://a@-oProxyCommand=x/"]
)
async def test_urls_that_are_commands_never_reach_git(yard: Yard, url: str) -> None:
    """Clone URLs come from payloads."""
    assert "as the clone URL" in await yard.failure("1" * 40, clone_url=url)


# ---- histories ---------------------------------------------------------------------------------------------------


async def test_a_commit_with_a_hundred_thousand_parents_is_planned(yard: Yard) -> None:
    """Four megabytes of parents: the merge base is found, or there is none."""
    first = yard.origin.commit({"go.mod": GO})
    tree = yard.origin.git("rev-parse", f"{first}^{{tree}}")
    people = "A <a@example.com> 1 +0000"
    parents = f"parent {first}\n" * 100_000
    data = f"tree {tree}\n{parents}author {people}\ncommitter {people}\n\nmerge\n".encode()
    sha = yard.origin.git("hash-object", "-w", "--literally", "-t", "commit", "--stdin", stdin=data)
    yard.origin.git("update-ref", "refs/heads/main", sha)

    plan = await yard.plan(sha, base_sha=first)

    assert names(plan) == ["go-test"]


async def test_a_message_of_sixteen_megabytes_is_not_ours_to_read(yard: Yard) -> None:
    """The server and the process that plans stay small."""
    first = yard.origin.commit({"go.mod": GO})
    tree = yard.origin.git("rev-parse", f"{first}^{{tree}}")
    before = psutil.Process().memory_info().rss
    sha = yard.origin.commit_tree(tree, first, message="x" * (16 * MIB))
    grown = psutil.Process().memory_info().rss - before

    plan = await yard.plan(sha, base_sha=first)

    assert names(plan) == ["go-test"]
    assert psutil.Process().memory_info().rss - before - max(0, grown) < 14 * MIB
    assert max(psutil.Process(pid).memory_info().rss for pid in yard.planner.workers.pids()) < 96 * MIB


async def test_more_changes_than_are_looked_at_run_everything(tmp_path: Path) -> None:
    """Also when their names alone would fill the memory."""
    yard = Yard(tmp_path, Bounds(plan_ms=60_000, changes_max=1_000))
    go = yard.origin.blob(GO.encode())
    wide = a_wide_tree(yard.origin, 30, 3)
    first = yard.origin.commit_tree(yard.origin.tree(("100644", go, b"go.mod")))
    second = yard.origin.commit_tree(yard.origin.tree(("100644", go, b"go.mod"), ("40000", wide, b"w")), first)

    plan = await yard.plan(second, base_sha=first)

    assert names(plan) == ["go-test"]
    assert plan.reasons[-1].text == "everything runs: more than 1000 files changed"
    yard.planner.close()
