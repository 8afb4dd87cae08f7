"""Mirrors that leave large files out: what is read of them, and that damage is not taken for a file left out."""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from deltaci.forge import mirror as mirror_module
from deltaci.forge.git_now import run_git_now
from deltaci.forge.left_out import Note, read_note, write_note
from deltaci.forge.local import MirrorDamaged, MirrorError, MirrorLimits
from deltaci.forge.mirror import Mirror, basic_authorization
from tests.forge.private_git import HEADER, PASSWORD, USER, PrivateGit, private_git
from tests.planner.repositories import Bare

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

MOST = 1000
LIMITS = MirrorLimits(file_bytes_max=MOST)


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compression makes smaller, the same for each seed."""
    return random.Random(seed).randbytes(size)


@pytest.fixture
def origin(tmp_path: Path) -> Bare:
    origin = Bare(tmp_path / "served" / "origin.git")
    origin.git("config", "uploadpack.allowFilter", "true")
    return origin


def a_mirror(tmp_path: Path, origin: Bare, *, limits: MirrorLimits = LIMITS, url: str | None = None) -> Mirror:
    """One through a transport: what is cloned by path would be copied."""
    return Mirror(
        repo_id="r",
        clone_url=url or f"file://{origin.path}",
        directory=tmp_path / "mirror.git",
        limits=limits,
        protocols="file:http",
    )


def objects(mirror: Mirror) -> set[str]:
    """The ids of all objects that are there."""
    listed = ["cat-file", "--batch-all-objects", "--batch-check=%(objectname)"]
    done = run_git_now(
        listed, git_dir=mirror.directory, cwd=mirror.directory, timeout_ms=20_000, output_bytes_max=2**20
    )
    return set(done.stdout.decode().split())


def by_hand(mirror: Mirror, sha: str) -> subprocess.CompletedProcess[bytes]:
    """An object, asked for with none of our options, so that git may fetch it if it knows from where."""
    env = {"PATH": os.environ["PATH"], "GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": "/dev/null"}
    command = ["git", "cat-file", "-p", sha]
    return subprocess.run(command, cwd=mirror.directory, env=env, capture_output=True, check=False)


def packs(mirror: Mirror) -> list[Path]:
    return sorted((mirror.directory / "objects" / "pack").glob("pack-*.pack"))


async def test_files_larger_than_what_is_read_stay_where_they_are(tmp_path: Path, origin: Bare) -> None:
    """A file at the limit comes, one of a byte more does not: in the head and in the history."""
    first = origin.commit({"a": "1", "old": noise(MOST + 1, 100)})
    head = origin.commit({"a": "2", "fits": noise(MOST), "large": noise(MOST + 1)}, first)
    mirror = a_mirror(tmp_path, origin)

    await mirror.ensure(head, "refs/heads/main")
    view = mirror.local().view(head)

    assert view.read_many(["a", "fits"]) == {"a": b"2", "fits": noise(MOST)}
    assert view.sizes(["a", "fits", "large"]) == {"a": 1, "fits": MOST, "large": MOST + 1}
    absent = {origin.git("rev-parse", name) for name in (f"{first}:old", f"{head}:large")}
    assert not absent & objects(mirror)
    changes = mirror.local().diff(first, head)
    assert changes is not None
    assert [change.path for change in changes] == ["a", "fits", "large", "old"]


async def test_a_file_that_was_left_out_is_too_large_as_in_a_whole_mirror(tmp_path: Path, origin: Bare) -> None:
    """The same words: how large it is, a partial mirror cannot say, so no mirror does."""
    head = origin.commit({"large": noise(5 * MOST)})
    partial = a_mirror(tmp_path / "partial", origin)
    whole = a_mirror(tmp_path / "whole", origin, limits=MirrorLimits(file_bytes_max=MOST, is_partial=False))
    texts = []

    for mirror in (partial, whole):
        await mirror.ensure(head, "refs/heads/main")
        with pytest.raises(MirrorError) as caught:
            mirror.local().view(head).read("large")
        assert not isinstance(caught.value, MirrorDamaged)
        texts.append(str(caught.value))

    assert texts[0] == texts[1]
    assert [mirror.local().view(head).sizes(["large"])["large"] for mirror in (partial, whole)] == [MOST + 1, 5 * MOST]


async def test_nothing_in_a_mirror_tells_where_to_fetch_what_it_lacks(tmp_path: Path, origin: Bare) -> None:
    """The configuration names no remote, so that no reading git has one to ask; and asking by hand finds nothing."""
    gitmodules = '[submodule "s"]\n\tpath = s\n\turl = .\n[remote "evil"]\n\tpromisor = true\n\turl = file:///evil\n'
    settings = '[remote "evil"]\n\turl = ext::touch evil\n\tpromisor = true\n\tpartialclonefilter = blob:none\n'
    head = origin.commit({"large": noise(MOST + 1), ".gitmodules": gitmodules, ".git_/config": settings})
    large = origin.git("rev-parse", f"{head}:large")
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(head, "refs/heads/main")
    before = objects(mirror)

    asked = by_hand(mirror, large)

    assert asked.returncode != 0
    assert objects(mirror) == before
    config = (mirror.directory / "config").read_text().lower()
    assert not [word for word in ("remote", "promisor", "partialclone", "evil") if word in config]


async def test_a_promisor_that_stands_in_the_configuration_is_not_asked_by_who_reads(
    tmp_path: Path, origin: Bare
) -> None:
    """Nothing writes one there. Should it happen all the same, reading still reaches no transport."""
    head = origin.commit({"large": noise(MOST + 1)})
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(head, "refs/heads/main")
    with (mirror.directory / "config").open("a") as config:
        config.write(f'[remote "evil"]\n\tpromisor = true\n\turl = file://{origin.path}\n')
    before = objects(mirror)

    with pytest.raises(MirrorError):
        mirror.local().view(head).read("large")
    found = await mirror.has("1" * 40)

    assert not found
    assert objects(mirror) == before


def a_lost_pack(pack: Path, _small: str) -> None:
    pack.unlink()


def a_lost_index(pack: Path, _small: str) -> None:
    pack.with_suffix(".idx").unlink()


def a_pack_lost_with_all_of_it(pack: Path, _small: str) -> None:
    for part in pack.parent.glob(f"{pack.stem}.*"):
        part.unlink()


def a_pack_cut_off(pack: Path, _small: str) -> None:
    pack.chmod(0o600)
    os.truncate(pack, pack.stat().st_size - 30)


def a_pack_of_zeros(pack: Path, _small: str) -> None:
    pack.chmod(0o600)
    pack.write_bytes(bytes(pack.stat().st_size))


def an_empty_index(pack: Path, _small: str) -> None:
    pack.with_suffix(".idx").chmod(0o600)
    pack.with_suffix(".idx").write_bytes(b"")


def an_index_that_forgot_it(pack: Path, small: str) -> None:
    """The last byte of its id is another one: git finds nothing, and complains of nothing."""
    index = pack.with_suffix(".idx")
    index.chmod(0o600)
    data, sha = index.read_bytes(), bytes.fromhex(small)
    assert sha in data
    index.write_bytes(data.replace(sha, sha[:-1] + bytes([sha[-1] ^ 1])))


def a_lost_note(pack: Path, _small: str) -> None:
    pack.unlink()
    write_note(pack.parents[2], None)


def a_note_that_nobody_understands(pack: Path, _small: str) -> None:
    pack.unlink()
    (pack.parents[2] / "deltaci-left-out.json").write_text("{")


@pytest.mark.parametrize(
    "damage",
    [
        a_lost_pack,
        a_lost_index,
        a_pack_lost_with_all_of_it,
        a_pack_cut_off,
        a_pack_of_zeros,
        an_empty_index,
        an_index_that_forgot_it,
        a_lost_note,
        a_note_that_nobody_understands,
    ],
)
async def test_a_small_file_that_is_missing_is_damage(
    tmp_path: Path, origin: Bare, damage: Callable[[Path, str], None]
) -> None:
    """All that reading sees is that an object is not there: the commit and its tree came with a later pack."""
    files = {"small": "from the first commit on"}
    first = origin.commit({**files, "a": "1"})
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(first, "refs/heads/main")
    (pack,) = packs(mirror)
    head = origin.commit({**files, "a": "2", "large": noise(MOST + 1)}, first)
    await mirror.ensure(head, "refs/heads/main")
    view = mirror.local().view(head)
    assert view.sizes(["small", "large"]) == {"small": 24, "large": MOST + 1}

    damage(pack, origin.git("rev-parse", f"{head}:small"))

    with pytest.raises(MirrorDamaged):
        mirror.local().view(head).sizes(["small"])
    with pytest.raises(MirrorDamaged):
        mirror.local().view(head).read("small")
    again = a_mirror(tmp_path, origin)  # as after a start: what is gone is not forgotten
    with pytest.raises(MirrorDamaged):
        again.local().view(head).read("small")
    await again.discard()
    await again.ensure(head, "refs/heads/main")
    assert again.local().view(head).sizes(["small", "large"]) == {"small": 24, "large": MOST + 1}


async def test_what_was_left_out_under_a_lower_limit_is_fetched_when_it_would_be_read(
    tmp_path: Path, origin: Bare
) -> None:
    """Another program reads larger files, or the setting asks for all: the mirror begins anew."""
    head = origin.commit({"large": noise(2 * MOST)})
    await a_mirror(tmp_path, origin).ensure(head, "refs/heads/main")
    roomy = a_mirror(tmp_path, origin, limits=MirrorLimits(file_bytes_max=2 * MOST))
    with pytest.raises(MirrorDamaged, match=f"files of {MOST + 1} bytes and more were left out"):
        roomy.local().view(head).read("large")

    await roomy.ensure(head, "refs/heads/main")

    assert roomy.local().view(head).read("large") == noise(2 * MOST)
    await a_mirror(tmp_path, origin).discard()
    await a_mirror(tmp_path, origin).ensure(head, "refs/heads/main")
    whole = a_mirror(tmp_path, origin, limits=MirrorLimits(file_bytes_max=MOST, is_partial=False))
    await whole.ensure(head, "refs/heads/main")
    assert whole.local().view(head).sizes(["large"]) == {"large": 2 * MOST}
    assert read_note(whole.directory) is None


async def test_a_mirror_that_was_whole_goes_on(tmp_path: Path, origin: Bare) -> None:
    """What it has it keeps; what comes from now on comes without large files."""
    first = origin.commit({"large": noise(2 * MOST)})
    whole = MirrorLimits(file_bytes_max=MOST, is_partial=False)
    await a_mirror(tmp_path, origin, limits=whole).ensure(first, "refs/heads/main")
    head = origin.commit({"large": noise(2 * MOST), "another": noise(3 * MOST)}, first)
    mirror = a_mirror(tmp_path, origin)

    await mirror.ensure(head, "refs/heads/main")

    assert mirror.local().view(head).sizes(["large", "another"]) == {"large": 2 * MOST, "another": MOST + 1}
    assert len(packs(mirror)) == 2


@pytest.mark.parametrize("is_by_id", [True, False])
async def test_a_difference_to_a_file_that_was_left_out_can_be_told(
    tmp_path: Path, origin: Bare, is_by_id: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large file that became small comes as the difference to the large one, which the remote thinks is here.

    That one is then fetched by its id; where a remote gives nothing by id, the mirror begins anew.
    """
    if not is_by_id:
        origin.git("config", "protocol.version", "0")
        monkeypatch.setattr(mirror_module, "_BASES", {})
    text = noise(3 * MOST)
    first = origin.commit({"a": text, "b": "1"})
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(first, "refs/heads/main")
    head = origin.commit({"a": text[: MOST - 10], "b": "1"}, first)
    origin.git("repack", "-a", "-d", "-f", "-q")

    await mirror.ensure(head, "refs/heads/main")

    assert mirror.local().view(head).read_many(["a", "b"]) == {"a": text[: MOST - 10], "b": b"1"}
    assert (origin.git("rev-parse", f"{first}:a") in objects(mirror)) == is_by_id
    assert await mirror.has(first)


async def test_packing_loses_nothing_and_hides_no_damage(tmp_path: Path, origin: Bare) -> None:
    """The packs that are noted go; later fetches find that what is left comes from the remote."""
    sha = origin.commit({"small": "0", "large": noise(MOST + 1)})
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(sha, "refs/heads/main")
    for n in range(1, 6):
        sha = origin.commit({"small": "0", f"small{n}": str(n), "large": noise(MOST + 1 + n)}, sha)
        await mirror.ensure(sha, "refs/heads/main")
    before = objects(mirror)

    await mirror.compact()

    assert len(packs(mirror)) == 1
    assert objects(mirror) == before
    assert mirror.local().view(sha).sizes(["small", "large"]) == {"small": 1, "large": MOST + 1}
    note = read_note(mirror.directory)
    assert note == Note(bytes_min=MOST + 1, packs=(packs(mirror)[0].stem,))
    head = origin.commit({"small": "0", "large": noise(MOST + 9)}, sha)
    await mirror.ensure(head, "refs/heads/main")
    assert mirror.local().view(head).sizes(["small", "large"]) == {"small": 1, "large": MOST + 1}
    assert all(pack.with_suffix(".promisor").exists() for pack in packs(mirror))  # also of the one that packing made
    packs(mirror)[0 if packs(mirror)[0].stem == note.packs[0] else 1].unlink()
    with pytest.raises(MirrorDamaged):
        mirror.local().view(head).sizes(["small"])


async def test_a_commit_that_no_ref_held_is_named_again_after_packing(tmp_path: Path, origin: Bare) -> None:
    """Its objects are here, without the large file: the fetch that names it again must not look for that."""
    root = origin.commit({"small": "0"})
    old = origin.commit({"small": "0", "large": noise(MOST + 1)}, root)
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(old, "refs/heads/main")
    new = origin.commit({"small": "1"}, root)
    await mirror.ensure(new, "refs/heads/main")
    await mirror.compact()
    origin.git("branch", "again", old)

    tip = await mirror.tip("refs/heads/again")

    assert tip == old


async def test_a_crash_while_packing_is_no_damage(tmp_path: Path, origin: Bare) -> None:
    """Packs that were there before it are gone, and their objects are in the new one."""
    first = origin.commit({"small": "0"})
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(first, "refs/heads/main")
    head = origin.commit({"small": "0", "large": noise(MOST + 1)}, first)
    await mirror.ensure(head, "refs/heads/main")
    with pytest.MonkeyPatch.context() as crash:
        crash.setattr(mirror_module, "note_packs", lambda _directory: None)
        await mirror.compact()

    again = a_mirror(tmp_path, origin)
    newest = origin.commit({"small": "0", "large": noise(MOST + 2)}, head)
    await again.ensure(newest, "refs/heads/main")

    assert again.local().view(head).sizes(["small", "large"]) == {"small": 1, "large": MOST + 1}
    assert again.local().view(newest).sizes(["large"]) == {"large": MOST + 1}


async def test_what_a_killed_fetch_left_of_its_pack_is_removed(tmp_path: Path, origin: Bare) -> None:
    """Its index comes last; without one, git sees nothing of the rest, which may have gigabytes."""
    head = origin.commit({"large": noise(MOST + 1)})
    await a_mirror(tmp_path, origin).ensure(head, "refs/heads/main")
    directory = a_mirror(tmp_path, origin).directory / "objects" / "pack"
    whole = set(directory.iterdir())
    for name in ("tmp_pack_x", "pack-1.pack", "pack-1.promisor", "pack-1.keep"):
        (directory / name).write_text("x")
    newest = origin.commit({"large": noise(MOST + 2)}, head)

    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(newest, "refs/heads/main")

    assert {path.stem for path in set(directory.iterdir()) - whole} == {
        pack.stem for pack in packs(mirror) if pack not in whole
    }
    assert mirror.local().view(newest).sizes(["large"]) == {"large": MOST + 1}


async def test_a_server_that_cannot_leave_out_sends_all(tmp_path: Path, origin: Bare) -> None:
    """It says so, and the mirror lacks nothing: whatever is missing is damage. Also if it refuses this filter."""
    head = origin.commit({"large": noise(MOST + 1)})
    for name, setting in (("ignored", ("allowFilter", "false")), ("refused", ("filter.blob:limit.allow", "false"))):
        section = "uploadpackfilter" if name == "refused" else "uploadpack"
        key = setting[0].removeprefix("filter.")
        origin.git("config", "uploadpack.allowFilter", "true")
        origin.git("config", f"{section}.{key}", setting[1])
        mirror = a_mirror(tmp_path / name, origin)

        await mirror.ensure(head, "refs/heads/gone")
        await mirror.ensure(head, "refs/heads/main")

        assert mirror.local().view(head).sizes(["large"]) == {"large": MOST + 1}
        assert origin.git("rev-parse", f"{head}:large") in objects(mirror)
        assert read_note(mirror.directory) is None
        packs(mirror)[0].unlink()
        with pytest.raises(MirrorDamaged):
            mirror.local().view(head).entries()


async def test_a_server_that_no_longer_leaves_out_sends_all_to_a_mirror_that_begins_anew(
    tmp_path: Path, origin: Bare
) -> None:
    """Some files would be there and some not, and no fetch could tell which the remote should think are here."""
    first = origin.commit({"large": noise(MOST + 1)})
    mirror = a_mirror(tmp_path, origin)
    await mirror.ensure(first, "refs/heads/main")
    origin.git("config", "uploadpackfilter.blob:limit.allow", "false")
    head = origin.commit({"large": noise(MOST + 1), "a": "1"}, first)

    await mirror.ensure(head, "refs/heads/main")

    assert origin.git("rev-parse", f"{head}:large") in objects(mirror)
    assert read_note(mirror.directory) is None
    assert await mirror.has(first)


@pytest.fixture
def server(origin: Bare) -> Iterator[PrivateGit]:
    with private_git(origin.path.parent) as served:
        yield served


async def test_over_http_the_credential_goes_to_the_address_of_the_fetch_alone(
    tmp_path: Path, origin: Bare, server: PrivateGit
) -> None:
    """Also when it asks for what a difference is to; who reads afterwards asks nobody."""
    text = noise(3 * MOST)
    first = origin.commit({"a": text})
    elsewhere = Bare(tmp_path / "elsewhere" / "origin.git")
    with private_git(elsewhere.path.parent) as other:
        mirror = a_mirror(tmp_path, origin, url=f"{server.url}/origin.git")

        async def authorize() -> str | None:
            return basic_authorization(USER, PASSWORD)

        mirror.authorize = authorize
        await mirror.ensure(first, "refs/heads/main")
        clean = (mirror.directory / "config").read_text()
        evil = f'[remote "evil"]\n\tpromisor = true\n\turl = {other.url}/origin.git\n'
        (mirror.directory / "config").write_text(clean + evil)
        head = origin.commit({"a": text[: MOST - 10], "large": noise(MOST + 1, 7000)}, first)
        await mirror.ensure(head, "refs/heads/main")
        (mirror.directory / "config").write_text(clean)
        before = len(server.authorizations)
        sizes = mirror.local().view(head).sizes(["a", "large"])

    assert sizes == {"a": MOST - 10, "large": MOST + 1}
    assert len(server.authorizations) == before
    assert set(server.authorizations) == {HEADER}
    assert not [seen for seen in other.authorizations if seen is not None]
    assert not [line for line in server.command_lines if PASSWORD in line]


async def test_concurrent_fetches_that_leave_out_wait_for_each_other(tmp_path: Path, origin: Bare) -> None:
    """The note has every pack that came."""
    shas = [origin.commit({"a": "0"})]
    for n in range(1, 6):
        shas.append(origin.commit({"a": str(n), "large": noise(MOST + n)}, shas[-1]))
    mirror = a_mirror(tmp_path, origin)

    async with anyio.create_task_group() as tasks:
        for sha in shas:
            tasks.start_soon(mirror.ensure, sha, None)

    note = read_note(mirror.directory)
    assert note is not None
    assert set(note.packs) == {pack.stem for pack in packs(mirror)}
    assert mirror.local().view(shas[-1]).sizes(["a", "large"]) == {"a": 1, "large": MOST + 1}
