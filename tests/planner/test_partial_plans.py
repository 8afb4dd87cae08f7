"""Plans of mirrors without large files are those of whole mirrors, byte for byte, and so are failures."""

import random
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest

from deltaci.domain.plan import digest
from deltaci.forge.left_out import read_note
from deltaci.forge.mirror import directory_name
from deltaci.planner.bounds import Bounds
from deltaci.planner.errors import PlanFailed, PlanUnavailable
from deltaci.planner.service import RepositoryPlanner
from tests.planner.repositories import Bare

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MIB = 2**20
PACKAGE = '{"name": "a", "scripts": {"test": "x"}, "dependencies": {"b": "1"}}'
LOCK = '{"lockfileVersion": 3, "packages": {"": {"dependencies": {"b": "1"}}, "node_modules/b": {"version": "%s"}}}'
NODE = {"package.json": PACKAGE, "package-lock.json": LOCK % "1.0.0", "web/index.js": "1"}
CONFIGURATION = "version: 1\njobs:\n  api: {steps: [x], paths: [api/**]}\n  web: {steps: [x], paths: [web/**]}\n"
# Larger than any bound on a file, each of another size: none of them may be told.
SPACES = b" " * (8 * MIB + 1)
LARGE = random.Random(1).randbytes(50 * MIB)


async def outcome(tmp_path: Path, origin: Bare, head: str, base: str, fetch: str) -> tuple[str, bytes | str]:
    """The digest and bytes of a plan, or the words of its failure."""
    planner = RepositoryPlanner(tmp_path / fetch, bounds=Bounds(fetch=fetch, workers_max=1))  # type: ignore[arg-type]
    try:
        plan = await planner.plan(
            repo_id="r", clone_url=f"file://{origin.path}", commit_sha=head, ref="refs/heads/main", base_sha=base
        )
        return digest(plan), msgspec.json.encode(plan)
    except PlanFailed as error:
        return "", f"{type(error).__name__} {error.text} {error.problems} {error.is_retryable}"
    finally:
        planner.close()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        pytest.param(NODE, {"web/index.js": "2"}, "", id="nothing large"),
        pytest.param({**NODE, "film": LARGE}, {"film": None, "web/index.js": "2"}, "", id="large in history"),
        pytest.param(NODE, {"film": LARGE}, "", id="large at the head"),
        pytest.param(
            {**NODE, "deltaci.yaml": CONFIGURATION}, {"web/film": LARGE}, "", id="large below a configured path"
        ),
        pytest.param(NODE, {"package-lock.json": LOCK.encode() + SPACES}, "", id="a lock that grew too large"),
        pytest.param(
            {**NODE, "package-lock.json": LOCK.encode() + SPACES},
            {"package-lock.json": LOCK.encode() + SPACES + b"\n\n"},
            "",
            id="a lock that stays too large",
        ),
        pytest.param(
            {**NODE, "package-lock.json": LOCK.encode() + SPACES},
            {"package-lock.json": LOCK % "2.0.0"},
            "",
            id="a lock that was too large",
        ),
        pytest.param(NODE, {"Makefile": b"test:\n" + SPACES}, "", id="a manifest of a fallback"),
        pytest.param({"Makefile": "test:\n\ttrue\n"}, {"Dockerfile": b"FROM x\n" + SPACES}, "", id="an image"),
        pytest.param(NODE, {"package.json": PACKAGE.encode() + SPACES}, "more than 1048576 bytes", id="a manifest"),
        pytest.param(NODE, {"pom.xml": b"<project>" + SPACES}, "more than 1048576 bytes", id="a pom"),
        pytest.param(NODE, {"a.csproj": b"<Project>" + SPACES}, "more than 1048576 bytes", id="a project file"),
        pytest.param(NODE, {"deltaci.yaml": b"a: 1\n" + SPACES}, "more than 262144 bytes", id="the configuration"),
    ],
)
async def test_a_partial_mirror_gives_the_plan_of_a_whole_one(
    tmp_path: Path, before: Mapping[str, bytes | str], after: Mapping[str, bytes | str | None], said: str
) -> None:
    """What is too large to be read is too large in both; how large it is, is in neither."""
    origin = Bare(tmp_path / "origin.git")
    origin.git("config", "uploadpack.allowFilter", "true")
    base = origin.commit(before)
    files = {path: what for path, what in {**before, **after}.items() if what is not None}
    head = origin.commit(files, base)

    partial, whole = [await outcome(tmp_path, origin, head, base, fetch) for fetch in ("partial", "whole")]

    assert partial == whole
    assert said in str(whole[1])
    assert bool(whole[0]) == (not said)
    name = directory_name("r")
    mirrors = [tmp_path / fetch / "mirrors" / name for fetch in ("partial", "whole")]
    notes = [read_note(mirror) for mirror in mirrors]
    assert [note and note.bytes_min for note in notes] == [8 * MIB + 1, None]
    contents = [sum(path.stat().st_size for path in mirror.rglob("*.pack")) for mirror in mirrors]
    assert (contents[1] - contents[0] > 40 * MIB) == any(what == LARGE for what in (*before.values(), *after.values()))


async def test_a_large_manifest_is_planned_again_and_again_without_fetching_anew(tmp_path: Path) -> None:
    """What was left out is no damage: the mirror stays, commit after commit, and from one process to the next."""
    origin = Bare(tmp_path / "origin.git")
    origin.git("config", "uploadpack.allowFilter", "true")
    files: dict[str, bytes | str] = {**NODE, "package-lock.json": LOCK.encode() + SPACES}
    base = origin.commit(files)
    mirror = tmp_path / "partial" / "mirrors" / directory_name("r")
    digests = []

    for n in range(3):
        files = {**files, "package-lock.json": LOCK.encode() + SPACES + b"\n" * n, "web/index.js": str(n)}
        head = origin.commit(files, base)
        digests.append((await outcome(tmp_path, origin, head, base, "partial"))[0])
        assert len(list(mirror.rglob("*.pack"))) == n + 1
        base = head

    assert all(digests)


async def test_a_damaged_partial_mirror_is_fetched_anew(tmp_path: Path) -> None:
    """The pack of the first commit is gone, and with it a manifest that nobody left out; the next try heals it."""
    origin = Bare(tmp_path / "origin.git")
    origin.git("config", "uploadpack.allowFilter", "true")
    files: dict[str, bytes | str] = {"package.json": PACKAGE, "film": LARGE[: 9 * MIB]}
    base = origin.commit(files)
    await outcome(tmp_path, origin, base, base, "partial")
    mirror = tmp_path / "partial" / "mirrors" / directory_name("r")
    (pack,) = mirror.rglob("*.pack")
    head = origin.commit({**files, "new": "1"}, base)
    await outcome(tmp_path, origin, head, head, "partial")
    pack.unlink()

    with pytest.raises(PlanUnavailable, match=r"is gone.* and will be fetched anew"):
        await outcome(tmp_path, origin, head, head, "partial")
    healed = await outcome(tmp_path, origin, head, head, "partial")

    assert healed == await outcome(tmp_path, origin, head, head, "whole")
